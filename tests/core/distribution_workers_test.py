"""Two worker processes against one device."""

import contextlib
import os
import subprocess
import sys

import numpy as np
import tensorflow as tf

from tests import replicas, shared_data
from vatt_tf.core import strategies

_TIMEOUT_SECONDS = 240


def _start_worker(config, path, log):
  environment = {
    **os.environ,
    'TF_CONFIG': config,
    'CUDA_VISIBLE_DEVICES': '-1',
    'PYTHONPATH': str(shared_data.REPOSITORY),
  }
  return subprocess.Popen(
    [sys.executable, '-m', 'tests.replicas', path],
    cwd=shared_data.REPOSITORY,
    env=environment,
    stdout=log,
    stderr=subprocess.STDOUT,
  )


class WorkersTest(tf.test.TestCase):
  def test_training_step_of_two_workers_equals_one_device(self):
    folder = self.get_temp_dir()
    paths = [os.path.join(folder, f'{index}.npz') for index in (0, 1)]
    logs = [os.path.join(folder, f'{index}.log') for index in (0, 1)]
    with contextlib.ExitStack() as stack:
      workers = []
      for index, config in enumerate(replicas.tf_configs(2)):
        log = stack.enter_context(open(logs[index], 'w'))
        workers.append(_start_worker(config, paths[index], log))
        stack.callback(workers[-1].kill)
      expected = replicas.run(strategies.make_strategy('cpu'))
      for worker, log in zip(workers, logs):
        code = worker.wait(_TIMEOUT_SECONDS)
        with open(log) as f:
          self.assertEqual(code, 0, f.read()[-3000:])
    results = []
    for path in paths:
      with np.load(path) as data:
        results.append(dict(data))
    for found in results:
      self.assertEqual(replicas.differences(found, expected), [])
    # What is the same on all replicas is bit-equal, whatever it is.
    for name, value in results[0].items():
      self.assertAllEqual(value, results[1][name], msg=name)


if __name__ == '__main__':
  tf.test.main()
