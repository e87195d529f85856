"""Tests of what commands print beside their own words."""

import os
import subprocess
import sys

from absl.testing import absltest, parameterized

from tests import shared_data
from vatt_tf.core import quiet


class WantedTest(parameterized.TestCase):
  @parameterized.parameters(
    ('python -m vatt_tf', True),
    ('python -m vatt_tf.train --gin_file=a', True),
    ('python -W ignore -m vatt_tf.train', True),
    ('python -m vatt_tf.train --verbosity=0', True),
    ('python -m vatt_tf.train --verbosity=-1', True),
    ('python -m vatt_tf.train --verbosity=1', False),
    ('python -m vatt_tf.train --verbosity 1', False),
    ('python -m vatt_tf.train -v 2', False),
    ('python -m vatt_tf.train --verbosity', True),
    ('python -m pytest vatt_tf', False),
    ('python -m vatt_tf_other', False),
    ('python train.py -m', False),
    ('python', False),
  )
  def test_commands(self, line, expected):
    self.assertEqual(quiet.is_wanted(line.split(), 'vatt_tf'), expected)


class OutputTest(parameterized.TestCase):
  def _run(self, *arguments, cwd=shared_data.REPOSITORY, **variables):
    environment = {
      name: value
      for name, value in os.environ.items()
      if name not in ('TF_CPP_MIN_LOG_LEVEL', 'PYTHONWARNINGS')
    }
    return subprocess.run(
      [sys.executable, *arguments],
      cwd=cwd,
      env={**environment, **variables},
      capture_output=True,
      text=True,
    )

  def test_a_command_prints_its_own_lines_alone(self):
    done = self._run(
      '-m', 'vatt_tf.summarize', '--gin_file=gin/pretrain_sample.gin'
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(done.stderr, r'^TensorFlow \S+ on [^\n]*\n$')

  def test_from_another_folder(self):
    done = self._run(
      '-m',
      'vatt_tf.summarize',
      '--gin_file=gin/pretrain_ms_bbs.gin',
      cwd=self.create_tempdir().full_path,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(done.stderr, r'^TensorFlow \S+ on [^\n]*\n$')

  def test_the_settings_of_the_environment_stay(self):
    code = (
      "import os, sys; sys.argv = ['-m']; "
      "sys.orig_argv = ['python', '-m', 'vatt_tf.train']; "
      "import vatt_tf; print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'))"
    )
    self.assertEqual(self._run('-c', code).stdout, '3\n')
    done = self._run('-c', code, TF_CPP_MIN_LOG_LEVEL='1')
    self.assertEqual(done.stdout, '1\n')

  def test_an_import_changes_nothing(self):
    code = (
      'import os, warnings, vatt_tf; '
      "print(os.environ.get('TF_CPP_MIN_LOG_LEVEL'), "
      "any(f[:3] == ('ignore', None, Warning) for f in warnings.filters))"
    )
    self.assertEqual(self._run('-c', code).stdout, 'None False\n')

  @parameterized.parameters(
    (('train',), '--gin_file: Path of a gin file'),
    (('embed', '--output=/tmp/x'), '--saved_model: '),
    (('train', '--gin_fiel=a'), "Unknown command line flag 'gin_fiel'"),
    (('serve', '--port=many'), 'flag --port=many'),
  )
  def test_wrong_flags(self, arguments, expected):
    done = self._run('-m', f'vatt_tf.{arguments[0]}', *arguments[1:])
    self.assertEqual(done.returncode, 1)
    self.assertStartsWith(done.stderr, 'Error: ')
    self.assertIn(expected, done.stderr)
    self.assertNotIn('FATAL', done.stderr)
    self.assertNotIn('Traceback', done.stderr)
    self.assertLessEqual(len(done.stderr.splitlines()), 4)

  def test_the_commands_are_listed(self):
    done = self._run('-m', 'vatt_tf')
    self.assertEqual(done.stderr, '')
    for name in ('train', 'quickstart', 'ingest', 'make_sample_records'):
      self.assertRegex(done.stdout, rf'python -m vatt_tf\.{name} +[A-Z]')
    self.assertNotIn('devices', done.stdout)


if __name__ == '__main__':
  absltest.main()
