"""The train command: Ctrl-C, going on, and what it says of bad input."""

import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import time

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import replicas, warm_processes
from tests.checkpoints import checkpoint_files

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
    return warm_processes.Process(
      'vatt_tf.train',
      *_ARGUMENTS,
      f'--model_dir={self.model_dir}',
      *arguments,
      stderr=subprocess.STDOUT,
      **variables,
    )

  def run_two_workers(self, *arguments, number):
    """Sends worker 1 a signal at the chief's second step.

    Returns:
      The text and the exit code of both.
    """
    processes = []
    for config in replicas.tf_configs(2):
      process = self.start(
        "--gin_param=STRATEGY='multi_worker_mirrored'",
        *arguments,
        TF_CONFIG=config,
      )
      self.addCleanup(process.kill)
      processes.append(process)
    lines = []
    with concurrent.futures.ThreadPoolExecutor() as pool:
      other = pool.submit(processes[1].communicate)
      for line in processes[0].stdout:
        lines.append(line)
        if number and re.match(r'step \d+/', line):
          processes[1].send_signal(number)
          number = None
      texts = ''.join(lines), other.result()[0]
    return texts, [process.wait() for process in processes]

  def test_two_workers(self):
    texts, codes = self.run_two_workers(
      '--gin_param=TRAIN_STEPS=100000', number=signal.SIGTERM
    )
    self.assertEqual(codes, [0, 0], texts)
    # Both stop, at the same step.
    step = int(tf.train.latest_checkpoint(self.model_dir).rsplit('-', 1)[1])
    for text in texts:
      self.assertIn(f'Stopped by SIGTERM (worker 1) at step {step};', text)
    # Only the chief speaks of the steps.
    self.assertIn('global batch 4 on 2 replicas', texts[0])
    self.assertIn(f'step {step}/', texts[0])
    self.assertNotIn(f'step {step}/', texts[1])

    texts, codes = self.run_two_workers(
      '--gin_param=TRAIN_STEPS=100000', number=signal.SIGKILL
    )
    self.assertEqual(codes, [75, -9], texts)
    self.assertIn(f'Resuming at step {step} of', texts[0])
    self.assertRegex(texts[0], r'Error: Worker 1 \(localhost:\d+\) is gone')

  def test_killed_while_it_writes_a_checkpoint(self):
    arguments = (
      '--gin_param=DETERMINISTIC=True',
      '--gin_param=CHECKPOINT_INTERVAL=2',
      '--gin_param=TRAIN_STEPS=4',
      '--gin_param=train.eval_dataset=None',
    )
    with self.start(*arguments) as process:
      text = process.stdout.read()
    self.assertEqual(process.returncode, 0, text)
    whole = checkpoint_files.trained_values(self.model_dir)
    self.model_dir += '_killed'
    folder = pathlib.Path(self.model_dir)
    with self.start(*arguments) as process:
      self.addCleanup(process.kill)
      while process.poll() is None:
        if list(folder.glob('ckpt-4_temp*')):
          process.kill()
        time.sleep(0.001)
    self.assertEqual(process.returncode, -9)
    self.assertNotEmpty(list(folder.glob('ckpt-4_temp*')))
    with self.start(*arguments) as process:
      text = process.stdout.read()
    self.assertEqual(process.returncode, 0, text)
    self.assertIn('Resuming at step 2 of 4', text)
    self.assertEmpty(list(folder.glob('*_temp*')))
    values = checkpoint_files.trained_values(self.model_dir)
    self.assertEqual(values.keys(), whole.keys())
    for name, value in whole.items():
      self.assertTrue(np.array_equal(value, values[name]), name)

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
    self.assertIn(f'Resuming at step {step} of {end}', text)
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
