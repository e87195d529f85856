"""From official lists to records, with what is not there."""

import csv
import glob
import os
import shutil

import tensorflow as tf

from tests import sample_media
from vatt_tf.input_pipeline.records import reading, schema
from vatt_tf.media import errors
from vatt_tf.media.datasets import ingestion

_UCF = 'v_{}_g0{}_c01'


class IngestionTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.lists = self.create_tempdir('lists')
    self.media = self.create_tempdir('media').full_path
    self.out = os.path.join(self.create_tempdir().full_path, 'out')

  def add_video(self, name, **kwargs):
    path = os.path.join(self.media, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    sample_media.write(path, **{'seconds': 1.0, **kwargs})

  def ingest(self, dataset, split='', **kwargs):
    return ingestion.ingest_dataset(
      dataset,
      self.lists.full_path,
      self.media,
      self.out,
      split,
      num_workers=0,
      show_progress=False,
      **kwargs,
    )

  def clips(self, name):
    found = []
    for path in sorted(glob.glob(f'{self.out}/{name}-*.tfrecord')):
      found += list(reading.read_shard(path))
    return sorted(found, key=lambda clip: clip.example_id)

  def text(self, name):
    with open(os.path.join(self.out, name), encoding='utf-8') as file:
      return file.read()

  def write_ucf101(self):
    names = [_UCF.format(label, i) for label in ('B', 'A') for i in (1, 2, 3)]
    self.lists.create_file('classInd.txt', content='1 B\n2 A\n')
    for part in (1, 2, 3):
      train, test = '', ''
      for i, name in enumerate(names):
        label = name.split('_')[1]
        if i % 3 + 1 == part:
          test += f'{label}/{name}.avi\n'
        else:
          train += f'{label}/{name}.avi {1 if label == "B" else 2}\n'
      self.lists.create_file(f'trainlist0{part}.txt', content=train)
      self.lists.create_file(f'testlist0{part}.txt', content=test)
    return names

  def test_one_set_of_records_with_lists(self):
    names = self.write_ucf101()
    self.add_video('one.avi')
    for name in names:
      folder = os.path.join(self.media, name.split('_')[1])
      os.makedirs(folder, exist_ok=True)
      shutil.copy(
        os.path.join(self.media, 'one.avi'),
        os.path.join(folder, f'{name}.avi'),
      )
    result = self.ingest('ucf101')
    self.assertEqual((result.num_clips, result.num_failed), (6, 0))
    self.assertEqual(self.text('labels.txt'), 'B\nA\n')
    clips = self.clips('all')
    self.assertEqual(
      [(clip.label_names, clip.label_indices) for clip in clips],
      [(['A'], [1])] * 3 + [(['B'], [0])] * 3,
    )
    self.assertEqual({clip.dataset_name for clip in clips}, {'ucf101'})
    ids = {clip.example_id for clip in clips}
    for part in (1, 2, 3):
      train, test = (
        self.text(f'splits/{kind}_{part}.txt').splitlines()
        for kind in ('train', 'test')
      )
      self.assertEqual({*train, *test}, ids)
      self.assertLen(train, 4)
      self.assertEqual(
        test, [f'{c}/{_UCF.format(c, part)}.avi:0-1000000' for c in 'AB']
      )
    # Typed again it has nothing left to do.
    self.assertEqual(self.ingest('ucf101').num_resumed, 6)

  def write_kinetics(self, count):
    rows = [f'jump,v{i},{i},{i + 1},train\n' for i in range(count)]
    text = 'label,youtube_id,time_start,time_end,split\n' + ''.join(rows)
    self.lists.create_file('train.csv', content=text)

  def test_what_is_not_there_is_named_and_counted(self):
    self.write_kinetics(4)
    self.add_video('v0.mp4')
    self.add_video('v1_000001_000002.mp4')
    self.add_video('v2.mp4')  # It ends before the listed part.
    result = self.ingest('kinetics400', 'train', max_failed_share=0.5)
    self.assertEqual((result.num_clips, result.num_failed), (2, 2))
    with open(result.skip_report, encoding='utf-8') as file:
      rows = list(csv.DictReader(file))
    self.assertEqual([row['file'] for row in rows], ['v2.mp4', 'v3.mp4'])
    self.assertIn('ends at 1 s', rows[0]['reason'])
    self.assertEqual(
      rows[1],
      {
        'file': 'v3.mp4',
        'start': '3',
        'end': '4',
        'reason': 'the file does not exist',
      },
    )

  def test_too_much_that_is_not_there_is_an_error_before_the_work(self):
    self.write_kinetics(4)
    self.add_video('v0.mp4')
    with self.assertRaisesRegex(
      errors.MediaError,
      r'(?s)3 of 4 clips that .*train.csv lists are not in .*\(75.0%\), more '
      r'than `max_failed_share`=0.5 allows.*train.skipped.csv.*  v1.mp4',
    ):
      self.ingest('kinetics400', 'train', max_failed_share=0.5)
    self.assertEqual(os.listdir(self.out), ['train.skipped.csv'])
    self.assertEqual(
      self.text('train.skipped.csv').splitlines()[:2],
      ['file,start,end,reason', 'v1.mp4,1,2,the file does not exist'],
    )

  def test_list_of_another_data_set_makes_nothing(self):
    self.write_ucf101()
    self.add_video('brush_hair/x.avi')
    with self.assertRaisesRegex(errors.MediaError, 'None of the 6 clips'):
      self.ingest('ucf101', max_failed_share=1.0)
    self.assertFalse(os.path.exists(self.out))

  def test_classes_of_another_data_set(self):
    self.write_kinetics(1)
    self.add_video('v0.mp4')
    os.makedirs(self.out)
    with open(os.path.join(self.out, 'labels.txt'), 'w') as file:
      file.write('walk\n')
    with self.assertRaisesRegex(ValueError, 'other classes than.*Kinetics-600'):
      self.ingest('kinetics600', 'train')

  def test_captions_and_clip_length_of_the_data_set(self):
    self.lists.create_file('HowTo100M_v1.csv', content='video_id,rank\na,1\n')
    self.lists.create_file(
      'caption.json',
      content='{"a": {"start": [0, 11], "end": [1, 12], "text": ["x", "y"]}}',
    )
    self.add_video('a.mp4', seconds=20.0, frame_rate=5)
    result = self.ingest('howto100m', 'train', frame_rate=1.0)
    self.assertEqual(result.num_clips, 2)
    self.assertEqual(
      [clip.captions for clip in self.clips('train')],
      [
        [schema.Caption('x', 0, 1_000_000)],
        [schema.Caption('y', 1_000_000, 2_000_000)],
      ],
    )
    result = self.ingest(
      'howto100m', 'train', name='whole', clip_seconds=0.0, captions='none'
    )
    self.assertEqual((result.num_clips, result.num_captions), (1, 0))

  def test_folders_must_be_given(self):
    with self.assertRaisesRegex(ValueError, "media_root=''"):
      ingestion.ingest_dataset('ucf101', 'x', '', self.out)


if __name__ == '__main__':
  tf.test.main()
