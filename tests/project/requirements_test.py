"""Tests that setup.cfg, the locks and the Python check agree."""

import configparser
import importlib
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
from packaging import requirements

from tests.project import sources
import vatt_tf

_PYTHONS = ('3.11', '3.12', '3.13')
_OWN = f'{sys.version_info.major}.{sys.version_info.minor}'


def _normal(name):
  return re.sub(r'[-_.]+', '-', name).lower()


def _requirements(lines, python):
  """Returns requirement lines as distribution -> `==1.0` or the like.

  Those whose marker is not true of a Python are left out.
  """
  found = {}
  for line in lines:
    line = line.split('#')[0].strip()
    if line:
      requirement = requirements.Requirement(line)
      marker = requirement.marker
      if marker is None or marker.evaluate({'python_version': python}):
        found[_normal(requirement.name)] = str(requirement.specifier)
  return found


def _setup():
  parser = configparser.ConfigParser()
  parser.read(sources.ROOT / 'setup.cfg')
  return parser


def _lock(python, kind=''):
  path = sources.ROOT / f'requirements-{python}{kind}.txt'
  return _requirements(path.read_text(encoding='utf-8').splitlines(), python)


_VARIABLES = ('PYTHON', 'VENV', 'DEVICE', 'INSTALLER')  # of the Makefile


class RequirementsTest(parameterized.TestCase):
  def _check(self, wanted, locked):
    for name, specifier in wanted.items():
      self.assertIn(name, locked, 'Run `make lock`.')
      if specifier.startswith('=='):
        self.assertEqual(locked[name], specifier, f'{name}: `make lock`.')

  @parameterized.parameters(*_PYTHONS)
  def test_locks_hold_the_pins(self, python):
    setup = _setup()

    def wanted(section, option):
      return _requirements(setup[section][option].splitlines(), python)

    base = wanted('options', 'install_requires')
    self._check(base, _lock(python))
    for extra in ('test', 'gpu'):
      more = wanted('options.extras_require', extra)
      self._check(base | more, _lock(python, f'-{extra}'))

  @parameterized.parameters(*_PYTHONS)
  def test_locks_pin_everything_and_agree(self, python):
    base, test, gpu = (_lock(python, kind) for kind in ('', '-test', '-gpu'))
    for name, specifier in (test | gpu).items():
      self.assertRegex(specifier, r'^==\S+$', name)
    self.assertLessEqual(base.items(), test.items())
    self.assertLessEqual(base.items(), gpu.items())
    for name in ('nvidia-cudnn-cu12', 'nvidia-nccl-cu12', 'nvidia-cublas-cu12'):
      self.assertIn(name, gpu)
      self.assertNotIn(name, base)

  def test_two_stacks(self):
    for name, first, second in (
      ('tensorflow', '==2.17.1', '==2.20.0'),
      ('tensorflow-io', '==0.37.1', None),
    ):
      self.assertEqual(_lock('3.11').get(name), first)
      self.assertEqual(_lock('3.12').get(name), second)
      self.assertEqual(_lock('3.13').get(name), second)

  def test_install_is_what_the_lock_says(self):
    for name, specifier in _lock(_OWN, '-test').items():
      self.assertEqual(f'=={importlib.metadata.version(name)}', specifier, name)

  @parameterized.parameters(*_PYTHONS)
  def test_setuptools_still_has_pkg_resources(self, python):
    version = _lock(python)['setuptools'].removeprefix('==')
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
    self.assertEqual(wanted, '>=3.11,<3.14')

  @parameterized.parameters((3, 14, 1), (3, 10, 9), (4, 11, 0))
  def test_other_versions_are_refused(self, *version):
    received = '.'.join(map(str, version))
    with mock.patch.object(sys, 'version_info', version):
      with self.assertRaisesRegex(
        ImportError, 'needs Python 3.11, 3.12 or 3.13'
      ) as caught:
        importlib.reload(vatt_tf)
    self.assertIn(f'Received: Python {received}', str(caught.exception))
    self.assertIn('apt-get install python3.13', str(caught.exception))

  @parameterized.parameters((3, 11, 0), (3, 12, 1), (3, 13, 9))
  def test_these_versions_are_taken(self, *version):
    with mock.patch.object(sys, 'version_info', version):
      importlib.reload(vatt_tf)

  def _make(self, *arguments):
    return subprocess.run(
      ['make', *arguments],
      cwd=sources.ROOT,
      env={
        key: value
        for key, value in os.environ.items()
        # Variables of the command line that runs the tests are not this one's.
        if not key.startswith('MAKE') and key not in _VARIABLES
      },
      capture_output=True,
      text=True,
    )

  def test_make_says_what_to_install(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    done = self._make('venv', 'PYTHON=/no/python3.14', f'VENV={folder}/new')
    self.assertNotEqual(done.returncode, 0)
    self.assertIn('vatt_tf needs Python 3.11, 3.12 or 3.13', done.stderr)
    self.assertIn('PYTHON=/no/python3.14, which is not there', done.stderr)
    self.assertIn('apt-get install python3.13 python3.13-venv', done.stderr)

  def test_make_finds_a_python(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    done = self._make('-s', 'python', f'VENV={folder}/new')
    self.assertEqual(done.returncode, 0, done.stderr)
    code = 'import sys; print(*sys.version_info[:2], sep=".")'
    found = subprocess.check_output(
      [done.stdout.strip(), '-c', code], text=True
    )
    self.assertIn(found.strip(), _PYTHONS)
    self.assertGreaterEqual(found.strip(), _OWN)

  def test_make_changes_no_environment_of_another_python(self):
    folder = self.enter_context(tempfile.TemporaryDirectory())
    path = pathlib.Path(folder) / 'pyvenv.cfg'
    path.write_text('version = 3.10.2\n', encoding='utf-8')
    done = self._make('venv', f'VENV={folder}')
    self.assertIn('holds Python 3.10, and vatt_tf needs one of', done.stderr)
    other = '3.12' if _OWN != '3.12' else '3.13'
    path.write_text(f'version = {other}.2\n', encoding='utf-8')
    done = self._make('venv', f'VENV={folder}', f'PYTHON={sys.executable}')
    self.assertNotEqual(done.returncode, 0)
    self.assertIn(f'{folder} holds Python {other}. For another', done.stderr)


if __name__ == '__main__':
  absltest.main()
