"""The inspect_records command."""

import json
import os

import tensorflow as tf

from tests import fake_clips, mains
from vatt_tf import inspect_records
from vatt_tf.input_pipeline.records import writing


class InspectRecordsTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.create_tempdir().full_path
    for i in range(2):
      path = writing.shard_path(self.folder, 'train', i, 2)
      with writing.ShardWriter(path) as writer:
        for j in range(3):
          clip = fake_clips.fake_clip(2 * i + j, 4, height=32, width=48)
          writer.write(clip)

  def run_main(self, **values):
    """Exit code, and what is printed on both outputs."""
    return mains.run_here(inspect_records, **values)

  def test_words_and_picture(self):
    sheet = os.path.join(self.folder, 'sheet.png')
    _, text, _ = self.run_main(
      pattern=[f'{self.folder}/train-*'], num_records=4, contact_sheet=sheet
    )
    self.assertIn('2 shards, 6 records; 4 of them inspected.', text)
    self.assertIn('48x32', text)
    self.assertIn(f'The contact sheet is {sheet}.', text)
    with open(sheet, 'rb') as file:
      self.assertEqual(file.read(8), b'\x89PNG\r\n\x1a\n')

  def test_json(self):
    _, text, _ = self.run_main(pattern=[f'{self.folder}/train-*'], json=True)
    value = json.loads(text)
    self.assertEqual(value['num_records'], 6)
    self.assertEqual([one['num_records'] for one in value['shards']], [3, 3])
    self.assertLen(value['records'], 6)
    self.assertEqual(value['records'][0]['num_frames'], 4)

  def test_no_shard(self):
    code, _, error = self.run_main(pattern=[f'{self.folder}/none-*'])
    self.assertEqual(code, 1)
    self.assertIn('No file matches the record pattern', error)
    self.assertIn('python -m vatt_tf.ingest', error)

  def test_truncated_shard(self):
    path = writing.shard_path(self.folder, 'train', 1, 2)
    with open(path, 'r+b') as file:
      file.truncate(os.path.getsize(path) - 10)
    code, _, error = self.run_main(pattern=[f'{self.folder}/train-*'])
    self.assertEqual(code, 1)
    self.assertIn('train-00001-of-00002.tfrecord is truncated', error)


if __name__ == '__main__':
  tf.test.main()
