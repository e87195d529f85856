"""Captions and labels of odd files, from the files to the records."""

import csv
import glob
import json
import os
from unittest import mock

from absl.testing import parameterized
import tensorflow as tf

from tests import sample_media
from vatt_tf.input_pipeline.records import reading
from vatt_tf.media import ingest, planning


class CaptionIngestTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.root = self.create_tempdir().full_path
    self.out = self.create_tempdir().full_path

  def media(self, *names, seconds=2.0, **arguments):
    for name in names:
      sample_media.write(
        os.path.join(self.root, name), seconds, frame_rate=5, **arguments
      )

  def write(self, name, text):
    path = os.path.join(self.root, name)
    data = text if isinstance(text, bytes) else text.encode('utf-8')
    with open(path, 'wb') as file:
      file.write(data)
    return path

  def ingest(self, **arguments):
    """Captions (text, seconds) by example, and the skip report."""
    result = ingest.ingest(
      output_dir=self.out,
      media_root=self.root,
      num_workers=0,
      show_progress=False,
      use_audio=False,
      **arguments,
    )
    self.assertEqual(result.num_failed, 0)
    clips = {
      clip.example_id: [
        (one.text, one.start / 1e6, one.end / 1e6) for one in clip.captions
      ]
      for path in glob.glob(f'{glob.escape(self.out)}/*.tfrecord')
      for clip in reading.read_shard(path)
    }
    with open(result.skip_report, encoding='utf-8') as file:
      rows = [(row['file'], row['reason']) for row in csv.DictReader(file)]
    self.assertEqual(result.num_notes, len(rows))
    self.assertEqual(result.num_clips, len(clips))
    return clips, rows

  def test_no_caption_file_takes_a_video_with_it(self):
    texts = {
      'swapped.srt': '1\n00:00:00,500 --> 00:00:01,000\ngood\n\n'
      '2\n00:00:01,900 --> 00:00:01,500\nbad\n',
      'before.srt': '-00:00:02,000 --> -00:00:01,000\nbad\n\n'
      '00:00:00,500 --> 00:00:01,000\ngood\n',
      'arrow.vtt': 'WEBVTT\n\n00:00.500 --> 00:01.000\ngood\n\n'
      '00:01.000 --> 00:01.500\na --> b\n',
      'null.json': '[{"start": 0.5, "end": null, "text": "good"}]',
      'list.json': '{"start": [0, 0.5], "end": [1, 1], '
      '"text": [["b"], "good"]}',
      'empty.srt': '',
      'header.vtt': 'WEBVTT\n',
      'nobody.json': '{"text": "", "segments": []}',
      'words.json': '{"segments": [{"start": 0, "end": 1, "text": null}]}',
      'about.json': '{"url": "http://a", "caption": "a dog", "key": "1"}',
      'number.json': '5',
      'cut.json': '{"segments": [{"start": 0',
      'latin.srt': b'1\n00:00:00,500 --> 00:00:01,000\ncaf\xe9\n',
      'plain.srt': 'no times at all\n',
    }
    for name, text in texts.items():
      self.write(name, text)
      self.media(os.path.splitext(name)[0] + '.mp4')
    clips, rows = self.ingest()
    self.assertLen(clips, len(texts))
    for name in texts:
      stem = os.path.splitext(name)[0]
      expected = []
      if stem in ('swapped', 'before', 'arrow', 'list'):
        expected = [('good', 0.5, 1)]
      if stem == 'null':
        expected = [('good', 0.5, 2)]
      self.assertEqual(clips[f'{stem}.mp4:0-2000000'], expected, name)
    rows = dict(rows)
    for name, message in {
      'swapped.srt': 'note: line 6: it ends before it starts',
      'before.srt': 'note: line 1: it ends before the file starts',
      'arrow.vtt': "line 7: .*'a --> b'",
      'list.json': r"entry 0: `text` must be a text.*\['b'\]",
      'about.json': '--captions=none',
      'number.json': '--captions=none',
      'cut.json': 'not json.*--captions=none',
      'latin.srt': '0xe9.*--caption_encoding=cp1252',
      'plain.srt': 'holds no caption: expected lines such as',
    }.items():
      self.assertRegex(rows.pop(name), message)
    self.assertEmpty(rows)

  def test_a_track_is_read_where_the_file_beside_holds_no_captions(self):
    self.media('a.mkv', captions=[(0.5, 1.0, 'of the track')])
    self.write('a.json', '{"url": "http://a", "caption": "a dog"}')
    clips, rows = self.ingest()
    self.assertEqual(clips, {'a.mkv:0-2000000': [('of the track', 0.5, 1)]})
    self.assertLen(rows, 1)
    self.write('a.json', '{"segments": []}')
    clips, rows = self.ingest(overwrite=True)
    self.assertEqual(clips, {'a.mkv:0-2000000': []})

  def test_notes_come_once(self):
    self.media('a.mp4', seconds=4.0)
    self.write('a.srt', '00:00:03,000 --> 00:00:01,000\nbad\n')
    with mock.patch.object(planning, '_TASK_LENGTH', 0):
      clips, rows = self.ingest(clip_seconds=1.0)
    self.assertLen(clips, 4)
    self.assertLen(rows, 1)

  @parameterized.parameters('.json', '.csv')
  def test_entries_of_a_table_cost_themselves_alone(self, extension):
    self.media('a.mp4', 'b.mp4', 'c.mp4')
    folder = self.create_tempdir().full_path
    path = os.path.join(folder, f'all{extension}')
    entries = {
      'a': {'start': [0, 1], 'end': [1, 2], 'text': ['pour', 'stir']},
      'b': {'start': [0, 1.5], 'end': [1, 1.25], 'text': ['one', 'bad']},
      'c': {'start': [0], 'end': [1], 'text': [float('nan')]},
    }
    with open(path, 'w') as file:
      if extension == '.json':
        json.dump(entries, file)
      else:
        table = csv.writer(file)
        table.writerow(['video_id', 'start', 'end', 'text'])
        for key, one in entries.items():
          table.writerows([key, *row] for row in zip(*one.values()))
    clips, rows = self.ingest(captions=path)
    self.assertEqual(
      clips,
      {
        'a.mp4:0-2000000': [('pour', 0, 1), ('stir', 1, 2)],
        'b.mp4:0-2000000': [('one', 0, 1)],
        'c.mp4:0-2000000': [],
      },
    )
    self.assertEqual({file for file, _ in rows}, {f'all{extension}'})
    self.assertRegex(rows[0][1] + rows[-1][1], 'it ends before it starts')

  def test_captions_without_times_end_with_the_clip(self):
    self.media('a.mp4')
    path = os.path.join(self.create_tempdir().full_path, 'all.csv')
    with open(path, 'w') as file:
      file.write('video_id,caption\na,a dog\n')
    clips, _ = self.ingest(captions=path)
    self.assertEqual(clips, {'a.mp4:0-2000000': [('a dog', 0, 2)]})

  def test_rolling_captions_of_a_track(self):
    lines = [
      (0.0, 0.5, 'one'),
      (0.5, 1.0, 'one\ntwo'),
      (1.0, 1.5, 'two\nthree'),
      (1.75, 2.0, 'three'),
    ]
    self.media('a.mkv', captions=lines)
    clips, _ = self.ingest()
    self.assertEqual(
      clips['a.mkv:0-2000000'],
      [
        ('one', 0, 0.5),
        ('two', 0.5, 1),
        ('three', 1, 1.5),
        ('three', 1.75, 2),
      ],
    )

  def test_one_class_in_two_unicode_forms(self):
    self.media('a.mp4', 'b.mp4')
    path = os.path.join(self.create_tempdir().full_path, 'm.csv')
    with open(path, 'w', encoding='utf-8') as file:
      file.write('video_path,label\na.mp4,caf\u00e9\nb.mp4,cafe\u0301\u200e\n')
    self.ingest(manifest_path=path)
    labels = os.path.join(self.out, 'labels.txt')
    with open(labels, encoding='utf-8') as file:
      self.assertEqual(file.read(), 'caf\u00e9\n')
    # A file of classes in the other form is one of the same classes.
    with open(labels, 'w', encoding='utf-8') as file:
      file.write('cafe\u0301\n')
    clips, _ = self.ingest(manifest_path=path, name='validation')
    self.assertLen(clips, 2)


if __name__ == '__main__':
  tf.test.main()
