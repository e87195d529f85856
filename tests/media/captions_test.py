"""Captions: forms, cleaning, encodings, tables."""

import json
import os

from absl.testing import parameterized
import tensorflow as tf

from tests import shared_data
from vatt_tf.media import captions, errors, text_files

_SRT = (
  '1\n00:00:01,000 --> 00:00:02,500\n<i>A dog</i>\nbarks &amp; runs\n\n'
  '2\n00:01:00,250 --> 00:01:02,000\n{\\an8}Again\n'
)
_CUES = [
  captions.Cue(1_000_000, 2_500_000, 'A dog barks & runs'),
  captions.Cue(60_250_000, 62_000_000, 'Again'),
]


class CaptionsTest(parameterized.TestCase, tf.test.TestCase):
  def write(self, name, data):
    path = os.path.join(self.create_tempdir().full_path, name)
    with open(path, 'wb') as file:
      file.write(data if isinstance(data, bytes) else data.encode('utf-8'))
    return path

  @parameterized.parameters(
    'utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le-bom', 'utf-16-be-bom'
  )
  def test_srt_in_encodings_with_a_mark(self, encoding):
    if encoding.endswith('-bom'):
      data = ('\ufeff' + _SRT).encode(encoding.removesuffix('-bom'))
    else:
      data = _SRT.encode(encoding)
    self.assertEqual(captions.read_captions(self.write('a.srt', data)), _CUES)

  def test_line_ends_of_windows(self):
    path = self.write('a.srt', _SRT.replace('\n', '\r\n'))
    self.assertEqual(captions.read_captions(path), _CUES)

  def test_another_encoding_is_named_with_the_place(self):
    data = '1\n00:00:01,000 --> 00:00:02,000\nun café\n'.encode('cp1252')
    path = self.write('a.srt', data)
    with self.assertRaisesRegex(
      errors.MediaError,
      r'a\.srt is not UTF-8 text: byte 0xe9 at position 38 \(line 3\).*'
      r'--caption_encoding=cp1252',
    ):
      captions.read_captions(path)
    self.assertEqual(captions.read_captions(path, 'cp1252')[0].text, 'un café')

  def test_utf_16_without_a_mark_is_named(self):
    path = self.write('a.srt', _SRT.encode('utf-16-le'))
    with self.assertRaisesRegex(errors.MediaError, 'zero byte.*utf-16-le'):
      captions.read_captions(path)
    self.assertEqual(captions.read_captions(path, 'utf-16-le'), _CUES)

  def test_unknown_encoding(self):
    with self.assertRaisesRegex(ValueError, "Received: encoding='nonsense'"):
      text_files.check_encoding('nonsense')

  def test_vtt(self):
    path = self.write(
      'a.vtt',
      'WEBVTT - a title\nKind: captions\n\nNOTE\nnot a cue\n\nSTYLE\n::cue {}\n'
      '\nintro\n00:01.000 --> 00:02.500 align:start position:0%\n'
      '<v Anna>A <b>dog</b>\nbarks</v> &amp; <00:00:02.000><c>runs</c>\n\n'
      '00:01:00.250 --> 00:01:02.000\nAgain\n',
    )
    self.assertEqual(captions.read_captions(path), _CUES)

  def test_rolling_captions_come_once(self):
    path = self.write(
      'a.vtt',
      'WEBVTT\n\n00:00.000 --> 00:02.000\n \nhello<00:00:01.000><c> there</c>\n'
      '\n00:02.000 --> 00:02.010\nhello there\n \n\n'
      '00:02.010 --> 00:04.000\nhello there\nhow<00:00:03.000><c> are</c>\n',
    )
    self.assertEqual(
      captions.read_captions(path),
      [
        captions.Cue(0, 2_010_000, 'hello there'),
        captions.Cue(2_010_000, 4_000_000, 'how are'),
      ],
    )

  @parameterized.parameters(
    ('a.srt', 'hello', r'a\.srt holds no caption'),
    ('a.srt', '', r'a\.srt holds no caption'),
    ('a.srt', '1\n00:00:03,000 --> 00:00:01,000\nx\n', 'line 2: expected'),
    ('a.srt', '1\n00:00:03 --> soon\nx\n', 'line 2: expected'),
    ('a.json', '{"start": [1', r'a\.json, line 1, is not json'),
    ('a.json', '{"title": "x"}', 'holds no captions'),
    (
      'a.json',
      '{"start": [1], "end": [2], "text": []}',
      'one length. Received: 1 starts, 1 ends, 0 texts',
    ),
    ('a.json', '{"start": [3], "end": [2], "text": ["x"]}', 'entry 0: `end`'),
    ('a.json', '{"start": ["x"], "end": [2], "text": ["x"]}', 'entry 0'),
  )
  def test_bad_files(self, name, text, message):
    with self.assertRaisesRegex(errors.MediaError, message):
      captions.read_captions(self.write(name, text))

  @parameterized.parameters(
    {'value': {'start': [1, 3], 'end': [2, 4], 'text': ['a', ' b ']}},
    {
      'value': [
        {'start': 3, 'end': 4, 'text': 'b'},
        {'start': 1, 'end': 2, 'text': 'a'},
      ]
    },
    {
      'value': {
        'language': 'en',
        'segments': [
          {'start': 1.0, 'end': 2.0, 'text': 'a', 'id': 0},
          {'start': 3.0, 'end': 4.0, 'text': 'b', 'id': 1},
        ],
      }
    },
  )
  def test_json_of_one_file(self, value):
    path = self.write('a.json', json.dumps(value))
    self.assertEqual(
      captions.read_captions(path),
      [
        captions.Cue(1_000_000, 2_000_000, 'a'),
        captions.Cue(3_000_000, 4_000_000, 'b'),
      ],
    )

  def test_table_as_of_howto100m(self):
    table = {
      f'video{i}': {'start': [i], 'end': [i + 1.5], 'text': [f'"text" {i} é']}
      for i in range(1000)
    }
    for indent in (None, 2):
      path = self.write('all.json', json.dumps(table, indent=indent))
      found = captions.read_table(path, {'video7', 'video999', 'other'})
      self.assertEqual(
        found,
        {
          'video7': [captions.Cue(7_000_000, 8_500_000, '"text" 7 é')],
          'video999': [captions.Cue(999_000_000, 1000_500_000, '"text" 999 é')],
        },
      )
    self.assertEqual(captions.read_table(self.write('a.json', '{}'), {'a'}), {})

  @parameterized.parameters(
    '{"a": {"start": [1], "end": [2], "te',
    '{"a": {"start": [1], "end": [2], "text": ["x"]}',
    '{"a": {"start": [1], "end": [2], "text": ["x"]} "b"',
    '[1, 2]',
    '{"a": {"title": "x"}}',
    '',
  )
  def test_bad_tables(self, text):
    with self.assertRaisesRegex(errors.MediaError, r'all\.json'):
      captions.read_table(self.write('all.json', text), {'a'})

  def test_table_as_csv(self):
    path = self.write(
      'a.csv', 'end,start,task,text,video_id\n60,47,226,"pick, the ends",x-1\n'
    )
    self.assertEqual(
      captions.read_table(path, {'x-1'}),
      {'x-1': [captions.Cue(47_000_000, 60_000_000, 'pick, the ends')]},
    )
    path = self.write('b.csv', 'video_path,begin\nx,1\n')
    with self.assertRaisesRegex(errors.MediaError, 'column.*for the text'):
      captions.read_table(path, {'x'})

  def test_shared_tables(self):
    path = shared_data.path('media', 'misc', 'captions')
    found = captions.read_table(
      str(path / 'validation_youcook.csv'), {'xHr8X2Wpmno'}
    )['xHr8X2Wpmno']
    self.assertEqual(
      found[0],
      captions.Cue(47_000_000, 60_000_000, 'pick the ends off the verdalago'),
    )
    found = captions.read_table(str(path / 'msrvtt_test.csv'), {'video9771'})
    self.assertEqual(
      found['video9771'][0].text, 'a little girl does gymnastics'
    )
    found = captions.read_captions(str(path / 'sintel-en.vtt'))
    self.assertEqual(found[0].text, '[Test]')
    found = captions.read_table(
      str(shared_data.path('media', 'grid', 'words.csv')), {'bbaf2n'}
    )['bbaf2n']
    self.assertEqual([cue.text for cue in found][:2], ['bin', 'blue'])

  @parameterized.parameters(
    (['a.srt', 'a.vtt', 'a.en.vtt'], '', 'a.srt'),
    (['a.srt', 'a.en.vtt'], 'en', 'a.en.vtt'),
    (['a.fr.vtt', 'a.en-US.vtt'], 'en', 'a.en-US.vtt'),
    (['a.fr.vtt', 'a.de.vtt'], '', 'a.de.vtt'),
    (['a.info.json', 'ab.srt', 'a.txt'], '', ''),
    (['A.SRT', 'a.SRT'], '', 'a.SRT'),
    (['a.json'], '', 'a.json'),
  )
  def test_beside(self, names, language, expected):
    self.assertEqual(captions.find_beside(names, 'a.mp4', language), expected)

  def test_in_span(self):
    cues = [captions.Cue(0, 10, 'a'), captions.Cue(10, 20, 'b')]
    self.assertEqual(captions.in_span(cues, 0, 10), cues[:1])
    self.assertEqual(captions.in_span(cues, 10, 20), cues[1:])
    self.assertEqual(captions.in_span(cues, 10, 20, margin=5), cues)
    # A caption without length counts where it starts.
    moment = [captions.Cue(10, 10, 'c')]
    self.assertEqual(captions.in_span(moment, 10, 20), moment)
    self.assertEqual(captions.in_span(moment, 0, 10), [])


if __name__ == '__main__':
  tf.test.main()
