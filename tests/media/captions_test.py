"""Captions: forms, cleaning, encodings, tables."""

import json
import os

from absl.testing import parameterized
import tensorflow as tf

from tests import shared_data
from tests.media import caption_corpus
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
      'one length. Received: 1 starts, 1 ends, 0 texts',
    ),
  )
  def test_files_that_hold_no_captions(self, name, text, message):
    path = self.write(name, text)
    with self.assertRaisesRegex(errors.MediaError, message):
      captions.read_captions(path)
    cues, notes = captions.read_for_clips(path)
    self.assertIsNone(cues)
    self.assertLen(notes, 1)
    self.assertEqual(notes[0].file, name)
    self.assertRegex(notes[0].reason, f'no captions are taken .*: .*{message}')

  def test_unreadable_file_costs_its_captions_alone(self):
    data = '1\n00:00:01,000 --> 00:00:02,000\n\xe9\n'.encode('latin-1')
    cues, notes = captions.read_for_clips(self.write('a.srt', data))
    self.assertIsNone(cues)
    self.assertRegex(notes[0].reason, '0xe9.*--caption_encoding=cp1252')
    cues, notes = captions.read_for_clips('/none/a.srt')
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
    self.assertEqual(captions.read_for_clips(path), ([], []))

  def test_corpus(self):
    folder = self.create_tempdir().full_path
    for file in caption_corpus.files():
      with self.subTest(f'{file.name}: {", ".join(file.oddities)}'):
        path = os.path.join(folder, file.name)
        with open(path, 'wb') as out:
          out.write(file.data)
        self.assertEqual(captions.read_captions(path), file.cues)

  def read(self, name, text):
    """Cues in seconds, and what was noted."""
    cues, notes = captions.read_for_clips(self.write(name, text))
    cues = [(cue.start / 1e6, cue.end / 1e6, cue.text) for cue in cues]
    return cues, [note.reason for note in notes]

  @parameterized.named_parameters(
    (
      'end_before_start',
      '00:00:05,000 --> 00:00:04,500',
      'line 6: it ends before it starts',
    ),
    (
      'before_the_file',
      '-00:00:05,000 --> -00:00:04,500',
      'line 6: it ends before the file starts',
    ),
    (
      'before_the_file_signs_inside',
      '00:00:-5,000 --> 00:00:-4,-500',
      'line 6: it ends before the file starts',
    ),
    ('no_end', '00:00:05,000 -->', 'line 6: expected a start'),
    ('no_time', '00:00:05,000 --> soon', 'line 6: expected a start'),
    ('no_start', 'now --> later', 'line 6: expected a start'),
  )
  def test_a_bad_cue_costs_itself_alone(self, timing, message):
    cues, notes = self.read(
      'a.srt',
      '1\n00:00:01,000 --> 00:00:02,000\ngood\n\n'
      f'2\n{timing}\nbad\n\nworse\n\n'
      '3\n00:00:03,000 --> 00:00:04,000\nalso good\n',
    )
    self.assertEqual(cues, [(1, 2, 'good'), (3, 4, 'also good')])
    self.assertLen(notes, 1)
    self.assertRegex(notes[0], message)

  def test_a_start_before_0(self):
    cues, notes = self.read('a.srt', '-00:00:01,500 --> 00:00:02,000\nx\n')
    self.assertEqual(cues, [(0, 2, 'x')])
    self.assertRegex(notes[0], 'line 1: it starts before the file')

  def test_many_bad_cues_are_counted(self):
    cues, notes = self.read(
      'a.srt',
      ''.join(
        f'00:00:0{i % 9},000 --> 00:00:00,000\nx\n' for i in range(1, 28)
      ),
    )
    self.assertLen(notes, captions.MAX_NOTES + 1)
    self.assertEqual(cues, [(0, 0, 'x')])
    self.assertRegex(notes[-1], 'and 14 more')

  def test_arrows_of_webvtt_that_are_no_times(self):
    cues, notes = self.read(
      'a.vtt',
      'WEBVTT\n\nNOTE this --> that\n\n00:01.000 --> 00:02.000\nHello\n\n'
      'id --> 1\n00:02.000 --> 00:03.000\nthere\n\n'
      'NOTE\n00:05.000 --> 00:06.000\nno more\n\n'
      '00:03.000 --> 00:04.000\na --> b\n\n00:04.000 --> 00:05.000\nend\n',
    )
    self.assertEqual(cues, [(1, 2, 'Hello'), (2, 3, 'there'), (4, 5, 'end')])
    self.assertLen(notes, 2)
    self.assertRegex(notes[0], "line 8: .*'id --> 1'")
    self.assertRegex(notes[1], "line 17: .*'a --> b'")

  def test_arrows_of_subrip_are_text(self):
    self.assertEqual(
      self.read('a.srt', '1\n00:00:01,000 --> 00:00:02,000\npress A --> B\n'),
      ([(1, 2, 'press A --> B')], []),
    )

  @parameterized.parameters('\n', '\r\n', '\r\r\n', '\r')
  def test_blank_lines_inside_cues(self, line_end):
    text = (
      '1\n00:00:01,000 --> 00:00:02,000\nfirst line\n\nsecond line\n\n'
      '2\n00:00:03,000 --> 00:00:04,000\n\nafter a blank line\n\n'
      '3\n\n00:00:05,000 --> 00:00:06,000\n7\n\n\n\n'
      '4\n00:00:07,000 --> 00:00:08,000\nb\n'
    )
    self.assertEqual(
      self.read('a.srt', text.replace('\n', line_end)),
      (
        [
          (1, 2, 'first line second line'),
          (3, 4, 'after a blank line'),
          (5, 6, '7'),
          (7, 8, 'b'),
        ],
        [],
      ),
    )

  def test_webvtt_with_blank_lines_everywhere(self):
    self.assertEqual(
      self.read(
        'a.vtt',
        'WEBVTT\n\n\n1\n\n00:01.000 --> 00:02.000\n\nred\n\ngreen\n\n\n'
        'NOTE not\nthis\n\n2\n\n00:03.000 --> 00:04.000\n\nblue\n\n'
        'a name\n00:05.000 --> 00:06.000\nwhite\n',
      ),
      ([(1, 2, 'red green'), (3, 4, 'blue'), (5, 6, 'white')], []),
    )

  @parameterized.parameters(
    '00: 00: 01, 000 -> 00: 00: 02, 500',
    '00:00:01,000 —> 00:00:02,500',
    '00：00：01，000 --＞ 00：00：02，500',
    '00:00:01,000 --&gt; 00:00:02,500',
    '\u200e00:00:01,000 --> 00:00:02,500\u200f',
    '00:00:01:000 --> 00:00:02:500',
    '0:00:01.000,0:00:02.500',
    '00:00:01,000 → 00:00:02,500',
    '1 00:00:01,000 --> 00:00:02,500',
    '00:00:01,000 - 00:00:02,500',
    '٠٠:٠٠:٠١,٠٠٠ --> ٠٠:٠٠:٠٢,٥٠٠',
    '00:00:01,000 --> 00:00:02,500  X1:1 X2:2',
    '00:00:01,000 --> 00:00:02,500 -->',
  )
  def test_timing_lines_in_other_forms(self, line):
    for name in ('a.srt', 'a.vtt'):
      self.assertEqual(self.read(name, f'{line}\nx\n'), ([(1, 2.5, 'x')], []))

  @parameterized.parameters(
    '12:30 -> 13:00',
    'from 00:00:01,000 to 00:00:02,000',
    '1 : 1 : 1 : 1 : 1 : 1',
  )
  def test_texts_that_are_no_timing_lines(self, line):
    self.assertEqual(
      self.read('a.srt', f'00:00:01,000 --> 00:00:02,000\nx\n{line}\n'),
      ([(1, 2, f'x {line}')], []),
    )

  def test_text_of_no_cue_is_noted(self):
    cues, notes = self.read(
      'a.srt', 'made by me\n\n1\n00:00:01,000 --> 00:00:02,000 Hello\nyou\n'
    )
    self.assertEqual(cues, [(1, 2, 'Hello you')])
    self.assertLen(notes, 1)
    self.assertRegex(notes[0], "line 1: text that belongs.*'made by me'")

  def test_rolling_captions_of_any_height(self):
    self.assertEqual(
      self.read(
        'a.vtt',
        'WEBVTT\n\n00:01.000 --> 00:02.000\none\n\n'
        '00:02.000 --> 00:03.000\none\ntwo\n\n'
        '00:03.000 --> 00:04.000\none\ntwo\nthree\n\n'
        '00:04.000 --> 00:05.000\ntwo\nthree\nfour\n\n'
        '00:05.000 --> 00:06.000\nthree\nfour\n\n'
        '00:06.000 --> 00:07.000\nfour\nfive\n\n'
        '00:09.000 --> 00:10.000\nfour\nfive\n',
      ),
      (
        [
          (1, 2, 'one'),
          (2, 3, 'two'),
          (3, 4, 'three'),
          (4, 6, 'four'),
          (6, 7, 'five'),
          (9, 10, 'four five'),
        ],
        [],
      ),
    )

  def test_lines_that_grow(self):
    self.assertEqual(
      self.read(
        'a.srt',
        '00:00:01,000 --> 00:00:02,000\nwe\n\n'
        '00:00:02,000 --> 00:00:03,000\nwe will\n\n'
        '00:00:03,000 --> 00:00:04,000\nwe will go\nto\n\n'
        '00:00:04,000 --> 00:00:05,000\nwe will go\nto town\n\n'
        '00:00:05,000 --> 00:00:06,000\nto town today\nthey\n\n'
        '00:00:06,000 --> 00:00:07,000\nthen\n',
      ),
      (
        [(1, 4, 'we will go'), (3, 6, 'to town today'), (5, 6, 'they')]
        + [(6, 7, 'then')],
        [],
      ),
    )

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
    last = captions.OPEN_END / 1e6
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

  def test_an_open_end_is_that_of_the_span(self):
    cues = [captions.Cue(5, captions.OPEN_END, 'a')]
    self.assertEqual(captions.in_span(cues, 0, 20), [captions.Cue(5, 20, 'a')])
    self.assertEqual(captions.in_span(cues, 20, 40)[0].end, 40)
    self.assertEqual(captions.in_span(cues, 0, 4, margin=2)[0].end, 5)

  @parameterized.parameters(
    ('a&nbsp;red\u3000star', 'a red star'),
    ('\u202bשלום\u202c &lrm;x', 'שלום x'),
    ('cafe\u0301 e\u00adlectric', 'café electric'),
    ('one\x0btwo\x1cthree\x85four\u2028five', 'one two three four five'),
    ('a\x00\x08b', 'ab'),
    ('wait… ½', 'wait… ½'),
  )
  def test_clean(self, text, expected):
    self.assertEqual(captions.clean(text), expected)

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
    for encoding in ('utf-8-sig', 'utf-16', 'utf-32'):
      path = self.write('all.json', json.dumps(table).encode(encoding))
      self.assertLen(captions.read_table(path, {'video7'})['video7'], 1)

  @parameterized.parameters(
    (
      'all.json',
      '{"x/a.mp4": {"start": [3], "end": [4], "text": ["late"]}, '
      '"a": [{"start": 1, "end": 2, "text": "early"}]}',
    ),
    ('all.csv', 'video_path,start,end,text\nx/a.mp4,3,4,late\na,1,2,early\n'),
  )
  def test_keys_of_one_video_are_joined(self, name, text):
    self.assertEqual(
      captions.read_table(self.write(name, text), {'a'}),
      {
        'a': [
          captions.Cue(1_000_000, 2_000_000, 'early'),
          captions.Cue(3_000_000, 4_000_000, 'late'),
        ]
      },
    )

  @parameterized.parameters(
    '{"a": {"start": [1], "end": [2], "te',
    '{"a": {"start": [1], "end": [2], "text": ["x"]}',
    '{"a": {"start": [1], "end": [2], "text": ["x"]} "b"',
    '[1, 2]',
    '',
    '{"a": ' + '1' * 5000 + '}',
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

  def test_entries_of_a_table_cost_themselves_alone(self):
    path = self.write(
      'all.json',
      '{"a": {"start": [0, 2], "end": [2, 4], "text": ["x", "y"]}, '
      '"b": {"start": [0, 3.2], "end": [1, 3.1], "text": ["x", "y"]}, '
      '"c": {"start": [0], "end": [1], "text": [NaN]}, '
      '"d": {"start": [0, 1], "end": [1], "text": ["x", "y"]}, '
      '"e": "none", "f": null, "g": [{"start": "1", "text": "x"}], '
      '"cafe\u0301": {"start": [0], "end": [1], "text": ["x"]}}',
    )
    notes = captions.Notes('all.json')
    table = captions.read_table(path, {*'abcdefg', 'café'}, notes=notes)
    texts = {key: [cue.text for cue in cues] for key, cues in table.items()}
    self.assertEqual(
      texts,
      {
        'a': ['x', 'y'],
        'b': ['x'],
        'c': [],
        'd': [],
        'e': [],
        'f': [],
        'g': ['x'],
        'café': ['x'],
      },
    )
    reasons = [note.reason for note in notes.as_list()]
    self.assertLen(reasons, 4)
    self.assertRegex(reasons[0], "'b', entry 1: it ends before it starts")
    self.assertRegex(reasons[1], "'d': .*one length")
    self.assertRegex(reasons[2], "'e' holds no captions")

  def test_rows_of_a_table_cost_themselves_alone(self):
    path = self.write(
      'a.csv',
      ',video_id,start,end,text\n0,a,1,2,good\n1,a,4,3,swapped\n2,a,x,3,bad\n'
      '3,a,5\n4,a,5,6,with, commas\n5,a,7,8,nan\n6,a,8,,open\n,,,,\n'
      '7,a,9,10,none of them\n8,a,11,nan,last\n',
    )
    notes = captions.Notes('a.csv')
    cues = captions.read_table(path, {'a'}, notes=notes)['a']
    self.assertEqual(
      [(cue.start / 1e6, cue.end / 1e6, cue.text) for cue in cues],
      [
        (1, 2, 'good'),
        (8, 9, 'open'),
        (9, 10, 'none of them'),
        (11, captions.OPEN_END / 1e6, 'last'),
      ],
    )
    reasons = [note.reason for note in notes.as_list()]
    self.assertLen(reasons, 5)
    for line in (3, 4, 5, 6, 7):
      self.assertTrue(any(f'line {line}: ' in one for one in reasons), reasons)

  def test_tables_with_other_delimiters_or_an_open_quote(self):
    for text, message in (
      ('video_id;start;end;text\na;1;2;x\n', 'separated by `;`'),
      ('video_id,text\na,x\nb,"open\nc,d\n', 'line 3, is not csv'),
    ):
      with self.assertRaisesRegex(errors.MediaError, message):
        captions.read_table(self.write('a.csv', text), {'a'})

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
