"""The inspect_records command."""

import contextlib
import io
import json
import os

from absl import flags
from absl.testing import flagsaver
import tensorflow as tf

from vatt_tf import inspect_records
from vatt_tf.input_pipeline import records


class InspectRecordsTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    if not flags.FLAGS.is_parsed():
      flags.FLAGS(['test'])
    self.folder = self.create_tempdir().full_path
    for i in range(2):
      path = records.shard_path(self.folder, 'train', i, 2)
      with records.ShardWriter(path) as writer:
        for j in range(3):
          clip = records.fake_clip(2 * i + j, 4, height=32, width=48)
          writer.write(clip)

  def run_main(self, **values):
    output = io.StringIO()
    with flagsaver.flagsaver(**values), contextlib.redirect_stdout(output):
      inspect_records.main(['inspect_records'])
    return output.getvalue()

  def test_words_and_picture(self):
    sheet = os.path.join(self.folder, 'sheet.png')
    text = self.run_main(
      pattern=[f'{self.folder}/train-*'], num_records=4, contact_sheet=sheet
    )
    self.assertIn('2 shards, 6 records; looked into 4 of them.', text)
    self.assertIn('48x32', text)
    self.assertIn(f'The contact sheet is {sheet}.', text)
    with open(sheet, 'rb') as file:
      self.assertEqual(file.read(8), b'\x89PNG\r\n\x1a\n')

  def test_json(self):
    text = self.run_main(pattern=[f'{self.folder}/train-*'], json=True)
    value = json.loads(text)
    self.assertEqual(value['num_records'], 6)
    self.assertEqual([one['num_records'] for one in value['shards']], [3, 3])
    self.assertLen(value['records'], 6)
    self.assertEqual(value['records'][0]['num_frames'], 4)

  def test_no_shard(self):
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
      with self.assertRaises(SystemExit) as context:
        self.run_main(pattern=[f'{self.folder}/none-*'])
    self.assertEqual(context.exception.code, 1)
    self.assertIn('No file matches the record pattern', error.getvalue())
    self.assertIn('python -m vatt_tf.ingest', error.getvalue())

  def test_truncated_shard(self):
    path = records.shard_path(self.folder, 'train', 1, 2)
    with open(path, 'r+b') as file:
      file.truncate(os.path.getsize(path) - 10)
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
      with self.assertRaises(SystemExit):
        self.run_main(pattern=[f'{self.folder}/train-*'])
    self.assertIn(
      'train-00001-of-00002.tfrecord is truncated', error.getvalue()
    )


if __name__ == '__main__':
  tf.test.main()
