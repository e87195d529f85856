"""Tests of `vatt_tf.core.devices`, and of what commands say of them."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import tensorflow as tf

from tests import shared_data
from vatt_tf.core import devices

_GPU = tf.config.PhysicalDevice('/physical_device:GPU:0', 'GPU')
_VERSION = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Sep  7 18:28:16 UTC 2026
GCC version:  gcc version 12.2.0
"""


def _with_gpus(number, **details):
  """As on a machine with GPUs."""
  return (
    mock.patch.object(
      tf.config,
      'list_physical_devices',
      lambda kind=None: [_GPU] * number if kind == 'GPU' else [],
    ),
    mock.patch.object(
      tf.config.experimental, 'get_device_details', lambda _: details
    ),
  )


class DescribeTest(parameterized.TestCase):
  def test_cpu(self):
    patches = _with_gpus(0)
    with patches[0]:
      self.assertRegex(devices.describe(), r'^on the CPU, \d+ cores?$')

  @parameterized.parameters(
    (1, 139 << 30, 'on 1 GPU: NVIDIA H200, compute 9.0, 139 GiB'),
    (8, 139 << 30, 'on 8 GPUs: NVIDIA H200, compute 9.0, 139 GiB'),
    (1, None, 'on 1 GPU: NVIDIA H200, compute 9.0'),
  )
  def test_gpus(self, number, memory, expected):
    patches = _with_gpus(
      number, device_name='NVIDIA H200', compute_capability=(9, 0)
    )
    with patches[0], patches[1]:
      with mock.patch.object(devices, '_memory_of_gpu', lambda _: memory):
        self.assertEqual(devices.describe(), expected)

  def test_a_gpu_of_which_nothing_is_known(self):
    patches = _with_gpus(1)
    with patches[0], patches[1]:
      self.assertEqual(devices.describe(), 'on 1 GPU: /physical_device:GPU:0')

  def test_no_library_of_the_driver(self):
    self.assertIsNone(devices._memory_of_gpu(0, 'no_such_library.so'))


class MissingGpuTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.create_tempdir().full_path)
    self.enter_context(_with_gpus(0)[0])
    self.enter_context(
      mock.patch.dict(os.environ, {'PATH': '/no'}, clear=False)
    )
    os.environ.pop('CUDA_VISIBLE_DEVICES', None)

  def _explain(self, driver='535.129.03'):
    if driver:
      (self._folder / 'version').write_text(_VERSION.format(driver))
    return devices.explain_missing_gpu(str(self._folder))

  def test_no_driver(self):
    self.assertEqual(devices.explain_missing_gpu('/no/driver'), '')
    self.assertEqual(devices.check(False, '/no/driver'), '')
    with self.assertRaisesRegex(ValueError, '--require_gpu: there is no GPU'):
      devices.check(True, '/no/driver')

  @parameterized.parameters('', '-1', 'none')
  def test_hidden(self, visible):
    with mock.patch.dict(os.environ, {'CUDA_VISIBLE_DEVICES': visible}):
      text = self._explain()
    self.assertRegex(text, 'hides it. Run `unset CUDA_VISIBLE_DEVICES`')
    self.assertIn('docs/gpu.md', text)

  @parameterized.parameters('0', '1,2', 'GPU-8932f937', 'MIG-1')
  def test_not_hidden(self, visible):
    with mock.patch.dict(os.environ, {'CUDA_VISIBLE_DEVICES': visible}):
      self.assertNotIn('hides', self._explain())

  def test_without_libraries(self):
    with (
      mock.patch.object(
        importlib.metadata,
        'version',
        side_effect=importlib.metadata.PackageNotFoundError,
      ),
      mock.patch.object(tf.test, 'is_built_with_cuda', lambda: True),
    ):
      self.assertIn('make venv DEVICE=gpu', self._explain())

  def test_built_without_cuda(self):
    with mock.patch.object(tf.test, 'is_built_with_cuda', lambda: False):
      self.assertRegex(self._explain(), r'built without CUDA.*vatt_tf\[gpu\]')

  def test_old_driver(self):
    with mock.patch.object(tf.test, 'is_built_with_cuda', lambda: True):
      self.assertRegex(self._explain('470.57.02'), 'driver 470.57.02 is too')

  @parameterized.parameters('', '535.129.03')
  def test_whatever_else(self, driver):
    with (
      mock.patch.object(importlib.metadata, 'version', lambda _: '8.9'),
      mock.patch.object(tf.test, 'is_built_with_cuda', lambda: True),
    ):
      self.assertRegex(self._explain(driver), 'nvidia-smi.*--verbosity=1')

  def test_required(self):
    with self.assertRaisesRegex(ValueError, "require_gpu.*NVIDIA's driver"):
      devices.check(True, str(self._folder))
    self.assertIn('sees no GPU', devices.check(False, str(self._folder)))


_COMMAND = """
import sys
from vatt_tf.core import command_line, devices
devices.check.__defaults__ = (sys.argv.pop(1),)

def main(argv):
  print('here')

if __name__ == '__main__':
  command_line.run(main, command_line.Use.INFERS)
"""


class CommandTest(absltest.TestCase):
  def _run(self, *arguments):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'command.py').write_text(_COMMAND, encoding='utf-8')
    (folder / 'driver').mkdir()
    return subprocess.run(
      [sys.executable, 'command.py', 'driver', *arguments],
      cwd=folder,
      env={
        **os.environ,
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': str(shared_data.REPOSITORY),
      },
      capture_output=True,
      text=True,
    )

  def test_first_line_and_warning(self):
    done = self._run()
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertEqual(done.stdout, 'here\n')
    lines = [line for line in done.stderr.splitlines() if 'TensorFlow' in line]
    self.assertRegex(lines[0], rf'^TensorFlow {tf.__version__} on the CPU, \d')
    self.assertIn("CUDA_VISIBLE_DEVICES='' hides it", lines[1])

  def test_required(self):
    done = self._run('--require_gpu')
    self.assertEqual(done.returncode, 1)
    self.assertEqual(done.stdout, '')
    self.assertIn('Error: --require_gpu: This machine has', done.stderr)


if __name__ == '__main__':
  absltest.main()
