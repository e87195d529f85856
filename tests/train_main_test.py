"""The train command: Ctrl-C, going on, and what it says of bad input."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys

from absl.testing import parameterized
import tensorflow as tf

from tests import replicas, shared_data

# A small model on the sample records, which lie in the repository.
_ARGUMENTS = (
  '--gin_file=gin/pretrain_sample.gin',
  '--gin_file=gin/data/sample.gin',
  '--gin_param=BATCH_SIZE=4',
  '--gin_param=STEPS_PER_LOOP=1',
  '--gin_param=LOG_INTERVAL=1',
  '--gin_param=Size.num_layers=1',
  '--gin_param=WARMUP_STEPS=1',
)


class TrainMainTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.model_dir = os.path.join(self.create_tempdir().full_path, 'model')

  def start(self, *arguments, **variables):
    return subprocess.Popen(
      [
        sys.executable, '-m', 'vatt_tf.train', *_ARGUMENTS,
        f'--model_dir={self.model_dir}', *arguments,
      ],
      cwd=shared_data.REPOSITORY,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env={**os.environ, **variables},
    )

  def test_two_workers(self):
    workers = [f'localhost:{port}' for port in replicas.free_ports(2)]
    processes = []
    for index in range(2):
      config = {
        'cluster': {'worker': workers},
        'task': {'type': 'worker', 'index': index},
      }
      process = self.start(
        "--gin_param=STRATEGY='multi_worker_mirrored'",
        '--gin_param=TRAIN_STEPS=2',
        TF_CONFIG=json.dumps(config),
      )
      self.addCleanup(process.kill)
      processes.append(process)
    with concurrent.futures.ThreadPoolExecutor() as pool:
      outputs = list(pool.map(lambda p: p.communicate()[0], processes))
    for process, text in zip(processes, outputs, strict=True):
      self.assertEqual(process.returncode, 0, text)
    # Only the chief speaks of the steps.
    self.assertIn('global batch 4 on 2 replica(s)', outputs[0])
    self.assertIn('step 2/2', outputs[0])
    self.assertNotIn('step 2/2', outputs[1])

  def test_interrupted_from_the_keyboard_and_typed_again(self):
    with self.start('--gin_param=TRAIN_STEPS=100000') as process:
      lines = []
      for line in process.stdout:
        lines.append(line)
        if line.startswith('step 2/'):
          process.send_signal(signal.SIGINT)
    text = ''.join(lines)
    self.assertEqual(process.returncode, 0, text)
    self.assertRegex(text, r'Stopped by SIGINT at step \d+; the checkpoint is')
    step = int(tf.train.latest_checkpoint(self.model_dir).rsplit('-', 1)[1])
    self.assertIn(f'Stopped by SIGINT at step {step};', text)

    end = step + 1
    with self.start(f'--gin_param=TRAIN_STEPS={end}') as process:
      text = process.stdout.read()
    self.assertEqual(process.returncode, 0, text)
    self.assertIn(f'Going on at step {step} of {end}', text)
    self.assertIn(f'Done: step {end}', text)

  @parameterized.parameters(
    ("TRAIN_RECORDS='nowhere/train-*'", 'nowhere/train-\\*.*TRAIN_RECORDS'),
    ('BATCH_SISE=8', 'BATCH_SIZE'),
  )
  def test_bad_input(self, param, message):
    with self.start(f'--gin_param={param}') as process:
      text = process.stdout.read()
    self.assertEqual(process.returncode, 1, text)
    self.assertRegex(text, message)


if __name__ == '__main__':
  tf.test.main()
