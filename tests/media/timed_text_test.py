"""SubRip and WebVTT as editors and translators have spoilt them."""

from absl.testing import parameterized
import tensorflow as tf

from tests.media import caption_case
from vatt_tf.media import (
  caption_cues,
  caption_files,
)


class TimedTextTest(caption_case.CaptionCase):
  def read(self, name, text):
    """Cues in seconds, and what was noted."""
    cues, notes = caption_files.read_for_clips(self.write(name, text))
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
    self.assertLen(notes, caption_cues.MAX_NOTES + 1)
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


if __name__ == '__main__':
  tf.test.main()
