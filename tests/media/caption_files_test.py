"""Caption files: forms, encodings, notes, which file belongs to a video."""

import json
import os

from absl.testing import parameterized
import tensorflow as tf

from tests.media import caption_case, caption_corpus
from vatt_tf.media import (
  caption_cues,
  caption_files,
  errors,
  text_files,
)

_SRT = (
  '1\n00:00:01,000 --> 00:00:02,500\n<i>A dog</i>\nbarks &amp; runs\n\n'
  '2\n00:01:00,250 --> 00:01:02,000\n{\\an8}Again\n'
)
_CUES = [
  caption_cues.Cue(1_000_000, 2_500_000, 'A dog barks & runs'),
  caption_cues.Cue(60_250_000, 62_000_000, 'Again'),
]


class CaptionFilesTest(caption_case.CaptionCase):
  @parameterized.parameters(
    'utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le-bom', 'utf-16-be-bom'
  )
  def test_srt_in_encodings_with_a_mark(self, encoding):
    if encoding.endswith('-bom'):
      data = ('\ufeff' + _SRT).encode(encoding.removesuffix('-bom'))
    else:
      data = _SRT.encode(encoding)
    self.assertEqual(
      caption_files.read_captions(self.write('a.srt', data)), _CUES
    )

  def test_line_ends_of_windows(self):
    path = self.write('a.srt', _SRT.replace('\n', '\r\n'))
    self.assertEqual(caption_files.read_captions(path), _CUES)

  def test_another_encoding_is_named_with_the_place(self):
    data = '1\n00:00:01,000 --> 00:00:02,000\nun café\n'.encode('cp1252')
    path = self.write('a.srt', data)
    with self.assertRaisesRegex(
      errors.MediaError,
      r'a\.srt is not UTF-8 text: byte 0xe9 at position 38 \(line 3\).*'
      r'--caption_encoding=cp1252',
    ):
      caption_files.read_captions(path)
    self.assertEqual(
      caption_files.read_captions(path, 'cp1252')[0].text, 'un café'
    )

  def test_utf_16_without_a_mark_is_named(self):
    path = self.write('a.srt', _SRT.encode('utf-16-le'))
    with self.assertRaisesRegex(errors.MediaError, 'zero byte.*utf-16-le'):
      caption_files.read_captions(path)
    self.assertEqual(caption_files.read_captions(path, 'utf-16-le'), _CUES)

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
    self.assertEqual(caption_files.read_captions(path), _CUES)

  def test_rolling_captions_come_once(self):
    path = self.write(
      'a.vtt',
      'WEBVTT\n\n00:00.000 --> 00:02.000\n \nhello<00:00:01.000><c> there</c>\n'
      '\n00:02.000 --> 00:02.010\nhello there\n \n\n'
      '00:02.010 --> 00:04.000\nhello there\nhow<00:00:03.000><c> are</c>\n',
    )
    self.assertEqual(
      caption_files.read_captions(path),
      [
        caption_cues.Cue(0, 2_010_000, 'hello there'),
        caption_cues.Cue(2_010_000, 4_000_000, 'how are'),
      ],
    )

  @parameterized.parameters(
    ('a.srt', 'hello', r'a\.srt holds no caption'),
    ('a.vtt', 'WEBVTT\n\nhello\n', r'a\.vtt holds no caption'),
    ('a.json', '{"start": [1', r'a\.json, line 1, is not json.*captions=none'),
    ('a.json', '[' * 100000, r'a\.json cannot be read as json.*captions=none'),
    ('a.json', '1' * 5000, r'a\.json cannot be read as json'),
    ('a.json', 'id,1', r'a\.json, line 1, is not json.*captions=none'),
    ('a.json', '{"title": "x"}', 'holds no captions.*--captions=none'),
    ('a.json', '[1, 2]', 'holds no captions.*--captions=none'),
    ('a.json', '["a"]', 'holds no captions.*--captions=none'),
    ('a.json', '7', 'holds no captions.*--captions=none'),
    (
      'a.json',
      '{"start": [1], "end": [2], "text": []}',
      'the same length. Received: 1 starts, 1 ends and 0 texts',
    ),
  )
  def test_files_that_hold_no_captions(self, name, text, message):
    path = self.write(name, text)
    with self.assertRaisesRegex(errors.MediaError, message):
      caption_files.read_captions(path)
    cues, notes = caption_files.read_for_clips(path)
    self.assertIsNone(cues)
    self.assertLen(notes, 1)
    self.assertEqual(notes[0].file, name)
    self.assertRegex(notes[0].reason, f'no captions are taken .*: .*{message}')

  def test_unreadable_file_costs_its_captions_alone(self):
    data = '1\n00:00:01,000 --> 00:00:02,000\n\xe9\n'.encode('latin-1')
    cues, notes = caption_files.read_for_clips(self.write('a.srt', data))
    self.assertIsNone(cues)
    self.assertRegex(notes[0].reason, '0xe9.*--caption_encoding=cp1252')
    cues, notes = caption_files.read_for_clips('/none/a.srt')
    self.assertIsNone(cues)
    self.assertRegex(notes[0].reason, 'cannot be read')

  @parameterized.parameters(
    ('a.srt', ''),
    ('a.srt', ' \n\r\n'),
    ('a.vtt', ''),
    ('a.vtt', 'WEBVTT'),
    ('a.vtt', '\ufeffWEBVTT\n\n'),
    ('a.vtt', 'WEBVTT\nKind: captions\n\nNOTE nobody speaks\n'),
    ('a.json', ''),
    ('a.json', '[]'),
    ('a.json', '{"segments": []}'),
    ('a.json', '{"text": "", "chunks": []}'),
  )
  def test_nobody_speaks(self, name, text):
    path = self.write(name, text)
    self.assertEqual(caption_files.read_for_clips(path), ([], []))

  def test_corpus(self):
    folder = self.create_tempdir().full_path
    for file in caption_corpus.files():
      with self.subTest(f'{file.name}: {", ".join(file.oddities)}'):
        path = os.path.join(folder, file.name)
        with open(path, 'wb') as out:
          out.write(file.data)
        self.assertEqual(caption_files.read_captions(path), file.cues)

  def read(self, name, text):
    """Cues in seconds, and what was noted."""
    cues, notes = caption_files.read_for_clips(self.write(name, text))
    cues = [(cue.start / 1e6, cue.end / 1e6, cue.text) for cue in cues]
    return cues, [note.reason for note in notes]

  @parameterized.named_parameters(
    (
      'null_end',
      '[{"start": 2, "end": null, "text": "b"}, '
      '{"start": 0, "end": NaN, "text": "a"}]',
      [(0, 2, 'a'), (2, None, 'b')],
      0,
    ),
    (
      'chunks',
      '{"text": "a b", "chunks": [{"timestamp": [0.0, 2.0], "text": " a"}, '
      '{"timestamp": [2.0, null], "text": " b"}]}',
      [(0, 2, 'a'), (2, None, 'b')],
      0,
    ),
    (
      'durations',
      '[{"text": "a", "start": 1.5, "duration": 2}]',
      [(1.5, 3.5, 'a')],
      0,
    ),
    (
      'offsets',
      '{"transcription": [{"offsets": {"from": 500, "to": 1500}, '
      '"text": "a"}]}',
      [(0.5, 1.5, 'a')],
      0,
    ),
    (
      'no_text',
      '{"start": [0, 1, 1, 2], "end": [1, 2, 2, 3], '
      '"text": [null, NaN, Infinity, "None"]}',
      [(2, 3, 'None')],
      0,
    ),
    (
      'texts_that_are_none',
      '{"start": [0, 1, 2, 3], "end": [1, 2, 3, 4], '
      '"text": [["b"], {"a": 1}, true, 7]}',
      [(3, 4, '7')],
      3,
    ),
    (
      'times_that_are_none',
      '{"start": [null, "x", 1e300, [1], 4, true, 3], '
      '"end": [1, 1, 1, 1, "5", 6, 2], '
      '"text": ["a", "b", "c", "d", "e", "f", "g"]}',
      [(4, 5, 'e')],
      6,
    ),
    (
      'entries_that_are_none',
      '[{"start": 1, "end": 2, "text": "a"}, 5, {"start": 2}, null]',
      [(1, 2, 'a')],
      3,
    ),
    (
      'text_that_utf_8_cannot_hold',
      '[{"start": 1, "end": 2, "text": "a\\ud800\\u0000b"}]',
      [(1, 2, 'a\ufffdb')],
      0,
    ),
  )
  def test_json_entries(self, text, expected, num_notes):
    cues, notes = self.read('a.json', text)
    last = caption_cues.OPEN_END / 1e6
    self.assertEqual(
      cues,
      [
        (start, last if end is None else end, text)
        for start, end, text in expected
      ],
    )
    self.assertLen(notes, num_notes)
    for note in notes:
      self.assertRegex(note, r'^entry \d')

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
      caption_files.read_captions(path),
      [
        caption_cues.Cue(1_000_000, 2_000_000, 'a'),
        caption_cues.Cue(3_000_000, 4_000_000, 'b'),
      ],
    )

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
    self.assertEqual(
      caption_files.find_beside(names, 'a.mp4', language), expected
    )


if __name__ == '__main__':
  tf.test.main()
