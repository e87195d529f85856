"""The summarize command, from the shell."""

import json
import pathlib

from absl.testing import parameterized
import tensorflow as tf

from tests import mains

_GOLDEN = pathlib.Path(__file__).parent / 'models' / 'golden'


class SummarizeMainTest(parameterized.TestCase, tf.test.TestCase):
  def test_json_of_the_papers_model_and_run(self):
    # Neither the records nor the vocabulary of these files are there.
    result = mains.run(
      'summarize',
      '--gin_file=gin/pretrain_ms_mbs.gin',
      '--gin_file=gin/runs/paper.gin',
      '--gin_file=gin/data/howto100m_audioset.gin',
      '--gin_param=BATCH_SIZE=64',
      "--gin_param=PRECISION='mixed_bfloat16'",
      '--flops_per_second=4.2e11',
      '--json',
    )
    self.assertEqual(result.returncode, 0, result.stderr)
    found = json.loads(result.stdout)
    golden = json.loads((_GOLDEN / 'parameters.json').read_text())
    self.assertEqual(found['total']['parameters'], golden['ms_mbs'])
    self.assertEqual(found['precision'], 'mixed_bfloat16')
    self.assertEqual(found['step']['batch_size'], 64)
    self.assertEqual(found['towers']['video']['input'], [32, 224, 224, 3])
    self.assertEqual(found['towers']['text']['num_rows'], 5)
    self.assertAllClose(
      found['total']['paper_training_flops'], 375.4e9, rtol=0.015
    )
    self.assertAllClose(
      found['step']['seconds'], found['step']['flops'] / 4.2e11
    )

  def test_table_of_a_spectrogram_model(self):
    result = mains.run('summarize', '--gin_file=gin/pretrain_sample.gin')
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn('audio 76 x 80', result.stdout)
    self.assertIn('648,896', result.stdout)
    self.assertIn('a step of 32 clips', result.stdout)

  def test_a_file_without_a_run(self):
    path = self.create_tempfile(content='ProjectionHead.d_va = 8').full_path
    result = mains.run('summarize', f'--gin_file={path}')
    self.assertEqual(result.returncode, 1)
    self.assertIn('`gin_file` must describe a run', result.stderr)


if __name__ == '__main__':
  tf.test.main()
