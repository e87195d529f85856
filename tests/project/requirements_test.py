"""Tests that setup.cfg, the locks and the Python check agree."""

import configparser
import importlib
import importlib.metadata
import re
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from tests.project import sources
import vatt_tf


def _normal(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def _requirements(lines):
  """Returns requirement lines as distribution -> `==1.0` or the like."""
  found = {}
  for line in lines:
    line = line.split('#')[0].strip()
    if line:
      name, specifier = re.match(r'([\w.-]+)(?:\[.*\])?(.*)', line).groups()
      found[_normal(name)] = specifier.strip()
  return found


def _setup():
  parser = configparser.ConfigParser()
  parser.read(sources.ROOT / 'setup.cfg')
  return parser


def _lock(name):
  text = (sources.ROOT / name).read_text(encoding='utf-8')
  return _requirements(text.splitlines())


class RequirementsTest(absltest.TestCase):
  def _check(self, wanted, locked):
    for name, specifier in wanted.items():
      self.assertIn(name, locked, 'Run `make lock`.')
      if specifier.startswith('=='):
        self.assertEqual(locked[name], specifier, f'{name}: `make lock`.')

  def test_locks_hold_the_pins(self):
    setup = _setup()
    wanted = _requirements(setup['options']['install_requires'].splitlines())
    self._check(wanted, _lock('requirements.txt'))
    test = _requirements(setup['options.extras_require']['test'].splitlines())
    self._check(wanted | test, _lock('requirements-test.txt'))

  def test_locks_pin_everything_and_agree(self):
    base, test = _lock('requirements.txt'), _lock('requirements-test.txt')
    for name, specifier in test.items():
      self.assertRegex(specifier, r'^==\S+$', name)
    self.assertLessEqual(base.items(), test.items())

  def test_install_is_what_the_lock_says(self):
    for name, specifier in _lock('requirements-test.txt').items():
      self.assertEqual(f'=={importlib.metadata.version(name)}', specifier, name)

  def test_setuptools_still_has_pkg_resources(self):
    version = _lock('requirements.txt')['setuptools'].removeprefix('==')
    self.assertLess(int(version.split('.')[0]), 81)

  def test_nothing_installed_is_in_conflict(self):
    done = subprocess.run(
      [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'check'],
      capture_output=True,
      text=True,
    )
    self.assertEqual(done.returncode, 0, done.stdout)


class PythonVersionTest(parameterized.TestCase):
  def test_setup_says_the_same(self):
    wanted = _setup()['options']['python_requires']
    self.assertEqual(wanted, '>=3.11,<3.12')

  @parameterized.parameters((3, 12, 1), (3, 10, 9), (4, 11, 0))
  def test_other_versions_are_refused(self, *version):
    received = '.'.join(map(str, version))
    with mock.patch.object(sys, 'version_info', version):
      with self.assertRaisesRegex(ImportError, 'needs Python 3.11') as caught:
        importlib.reload(vatt_tf)
    self.assertIn(f'Received: Python {received}', str(caught.exception))
    self.assertIn('apt-get install python3.11', str(caught.exception))

  def test_this_version_is_taken(self):
    importlib.reload(vatt_tf)

  def test_make_says_what_to_install(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    done = subprocess.run(
      ['make', 'venv', 'PYTHON=/no/python3.12', f'VENV={folder}/new'],
      cwd=sources.ROOT,
      capture_output=True,
      text=True,
    )
    self.assertNotEqual(done.returncode, 0)
    self.assertIn('vatt_tf needs Python 3.11', done.stderr)
    self.assertIn('apt-get install python3.11 python3.11-venv', done.stderr)


if __name__ == '__main__':
  absltest.main()
