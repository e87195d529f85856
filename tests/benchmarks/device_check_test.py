"""Tests of `benchmarks.device_check`: what it makes of what its cases find."""

import json
import subprocess
from unittest import mock

from absl.testing import absltest, parameterized

from benchmarks import device_check

_GIB = 2**30
_FOUND = {
  'losses': {'joint, whole, plain': 1e-7, 'joint, whole, xla': 2e-5},
  'gradients': {'plain': 1e-6, 'xla': 3e-5},
  'records': {'clips_per_second': 12.5},
  'embeddings': {'video': 100.0, 'audio': 200.0, 'text': 300.0},
  'mirrored': {'replicas': 2, 'losses': [5.0, 5.0001]},
  'peak': {'flops_per_second': 1e14},
  'step': {
    'seconds_per_step': 0.5,
    'flops_per_step': 2.5e13,
    'estimated_bytes': 3 * _GIB,
    'peak_bytes': 2 * _GIB,
  },
}


class _Runner:
  """Answers with what was found."""

  def __init__(self, found, largest=None):
    self._found, self._largest = found, largest

  def run(self, case, **arguments):
    is_too_large = arguments.get('batch_size', 0) > (self._largest or 1000)
    if case == 'step' and is_too_large:
      return device_check._EXHAUSTED
    return self._found[case]


class DeviceCheckTest(parameterized.TestCase):
  def _check(self, found, kind='CPU', **options):
    output = self.create_tempfile('found.json').full_path
    with (
      mock.patch.object(device_check, '_kind', lambda: kind),
      mock.patch.object(
        device_check, '_Runner', lambda _: _Runner(found, **options)
      ),
    ):
      code = device_check.main([f'--output={output}'])
    with open(output, encoding='utf-8') as file:
      return code, json.load(file)

  def test_all_is_well(self):
    code, found = self._check(_FOUND)
    self.assertEqual(code, 0)
    self.assertEqual(found['failed'], [])
    step = found['figures']['p1, batch 8, XLA']
    self.assertAlmostEqual(step['share_of_peak'], 0.5)

  def test_largest_batch_that_fits(self):
    code, found = self._check(_FOUND, kind='GPU', largest=16)
    self.assertEqual(code, 0)
    figures = found['figures']
    self.assertIn('medium, batch 16', figures)
    self.assertEqual(figures['medium, batch 32'], device_check._EXHAUSTED)
    self.assertNotIn('medium, batch 64', figures)

  @parameterized.parameters(
    ('gradients', {'plain': 1e-3, 'xla': 1e-6}),
    ('losses', 'it broke'),
    ('mirrored', {'replicas': 2, 'losses': [5.0, 6.0]}),
    ('records', 'it broke'),
    ('embeddings', 'it broke'),
    ('step', device_check._NO_TIME),
    ('peak', 'it broke'),
  )
  def test_failures(self, case, value):
    code, found = self._check({**_FOUND, case: value})
    self.assertEqual(code, 1)
    self.assertNotEmpty(found['failed'])


class RunnerTest(absltest.TestCase):
  def _run(self, seconds=60, **done):
    with mock.patch.object(
      subprocess, 'run', return_value=mock.Mock(**done)
    ) as run:
      result = device_check._Runner(seconds).run('peak', size=8)
    return result, run

  def test_result(self):
    found, run = self._run(returncode=0, stdout='a line\n{"a": 1}\n', stderr='')
    self.assertEqual(found, {'a': 1})
    self.assertIn('--case=["peak", {"size": 8}]', run.call_args.args[0])

  def test_no_time(self):
    found, run = self._run(seconds=1)
    self.assertEqual(found, device_check._NO_TIME)
    run.assert_not_called()
    with mock.patch.object(
      subprocess, 'run', side_effect=subprocess.TimeoutExpired('a', 1)
    ):
      runner = device_check._Runner(60)
      self.assertEqual(runner.run('peak'), device_check._NO_TIME)

  def test_memory_and_other_errors(self):
    for code, text, expected in (
      (1, 'ResourceExhaustedError: OOM', device_check._EXHAUSTED),
      (-9, '', device_check._EXHAUSTED),
      (1, 'ValueError: no', 'ValueError: no'),
    ):
      found, _ = self._run(returncode=code, stdout='', stderr=text)
      self.assertEqual(found, expected)

  def test_a_small_case(self):
    found = device_check._case_peak(16)
    self.assertGreater(found['flops_per_second'], 0)


if __name__ == '__main__':
  absltest.main()
