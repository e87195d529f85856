"""Captions of many videos: json and csv tables, bad rows, keys."""

import json

from absl.testing import parameterized
import tensorflow as tf

from tests import shared_data
from tests.media import caption_case
from vatt_tf.media import (
  caption_cues,
  caption_files,
  caption_tables,
  errors,
)


class CaptionTablesTest(caption_case.CaptionCase):
  def test_table_as_of_howto100m(self):
    table = {
      f'video{i}': {'start': [i], 'end': [i + 1.5], 'text': [f'"text" {i} é']}
      for i in range(1000)
    }
    for indent in (None, 2):
      path = self.write('all.json', json.dumps(table, indent=indent))
      found = caption_tables.read_table(path, {'video7', 'video999', 'other'})
      self.assertEqual(
        found,
        {
          'video7': [caption_cues.Cue(7_000_000, 8_500_000, '"text" 7 é')],
          'video999': [
            caption_cues.Cue(999_000_000, 1000_500_000, '"text" 999 é')
          ],
        },
      )
    self.assertEqual(
      caption_tables.read_table(self.write('a.json', '{}'), {'a'}), {}
    )
    for encoding in ('utf-8-sig', 'utf-16', 'utf-32'):
      path = self.write('all.json', json.dumps(table).encode(encoding))
      self.assertLen(caption_tables.read_table(path, {'video7'})['video7'], 1)

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
      caption_tables.read_table(self.write(name, text), {'a'}),
      {
        'a': [
          caption_cues.Cue(1_000_000, 2_000_000, 'early'),
          caption_cues.Cue(3_000_000, 4_000_000, 'late'),
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
      caption_tables.read_table(self.write('all.json', text), {'a'})

  def test_table_as_csv(self):
    path = self.write(
      'a.csv', 'end,start,task,text,video_id\n60,47,226,"pick, the ends",x-1\n'
    )
    self.assertEqual(
      caption_tables.read_table(path, {'x-1'}),
      {'x-1': [caption_cues.Cue(47_000_000, 60_000_000, 'pick, the ends')]},
    )
    path = self.write('b.csv', 'video_path,begin\nx,1\n')
    with self.assertRaisesRegex(errors.MediaError, 'column.*for the text'):
      caption_tables.read_table(path, {'x'})

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
    notes = caption_cues.Notes('all.json')
    table = caption_tables.read_table(path, {*'abcdefg', 'café'}, notes=notes)
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
    self.assertRegex(reasons[1], "'d': .*the same length")
    self.assertRegex(reasons[2], "'e' holds no captions")

  def test_rows_of_a_table_cost_themselves_alone(self):
    path = self.write(
      'a.csv',
      ',video_id,start,end,text\n0,a,1,2,good\n1,a,4,3,swapped\n2,a,x,3,bad\n'
      '3,a,5\n4,a,5,6,with, commas\n5,a,7,8,nan\n6,a,8,,open\n,,,,\n'
      '7,a,9,10,none of them\n8,a,11,nan,last\n',
    )
    notes = caption_cues.Notes('a.csv')
    cues = caption_tables.read_table(path, {'a'}, notes=notes)['a']
    self.assertEqual(
      [(cue.start / 1e6, cue.end / 1e6, cue.text) for cue in cues],
      [
        (1, 2, 'good'),
        (8, 9, 'open'),
        (9, 10, 'none of them'),
        (11, caption_cues.OPEN_END / 1e6, 'last'),
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
        caption_tables.read_table(self.write('a.csv', text), {'a'})

  def test_shared_tables(self):
    path = shared_data.path('media', 'misc', 'captions')
    found = caption_tables.read_table(
      str(path / 'validation_youcook.csv'), {'xHr8X2Wpmno'}
    )['xHr8X2Wpmno']
    self.assertEqual(
      found[0],
      caption_cues.Cue(
        47_000_000, 60_000_000, 'pick the ends off the verdalago'
      ),
    )
    found = caption_tables.read_table(
      str(path / 'msrvtt_test.csv'), {'video9771'}
    )
    self.assertEqual(
      found['video9771'][0].text, 'a little girl does gymnastics'
    )
    found = caption_files.read_captions(str(path / 'sintel-en.vtt'))
    self.assertEqual(found[0].text, '[Test]')
    found = caption_tables.read_table(
      str(shared_data.path('media', 'grid', 'words.csv')), {'bbaf2n'}
    )['bbaf2n']
    self.assertEqual([cue.text for cue in found][:2], ['bin', 'blue'])


if __name__ == '__main__':
  tf.test.main()
