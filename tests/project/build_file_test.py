"""Tests that BUILD holds every source file, and says what packages import.

BUILD is Starlark, of which it uses what Python has too: it is run, with rules
that collect their targets.
"""

import collections
import configparser
import re

from absl.testing import absltest

from tests.project import sources


def _glob(include, exclude=(), allow_empty=False):
  """The files of the project that Bazel's `glob` finds."""

  def fits(path, patterns):
    for pattern in patterns:
      # `**/` may be nothing; `*` does not cross a folder.
      expression = re.escape(pattern)
      for starred, meaning in (
        (r'\*\*/', '(?:.*/)?'),
        (r'\*\*', '.*'),
        (r'\*', '[^/]*'),
      ):
        expression = expression.replace(starred, meaning)
      if re.fullmatch(expression, path):
        return True
    return False

  found = [
    path
    for path in sources.files()
    if fits(path, include) and not fits(path, exclude)
  ]
  if not found and not allow_empty:
    raise ValueError(f'glob({include}) finds nothing')
  return found


def _run():
  """The targets of BUILD by their names, and its globals."""
  targets = {}

  def rule(kind):
    def make(name, **attributes):
      if name in targets:
        raise ValueError(f'BUILD has two targets of the name {name}')
      targets[name] = {'rule': kind, **attributes}

    return make

  values = {
    'glob': _glob,
    'requirement': lambda name: f'@pypi//{name}',
    **{name: lambda *_, **__: None for name in ('load', 'package', 'licenses')},
    'exports_files': lambda files: None,
    **{
      kind: rule(kind)
      for kind in ('py_library', 'py_binary', 'py_test', 'filegroup')
    },
  }
  exec((sources.ROOT / 'BUILD').read_text(encoding='utf-8'), values)
  return targets, values


class BuildFileTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.targets, self.values = _run()

  def test_each_source_file_is_in_one_library_or_test(self):
    counts = collections.Counter(
      path
      for target in self.targets.values()
      if target['rule'] in ('py_library', 'py_test')
      for path in target['srcs']
    )
    self.assertEqual(dict(counts), dict.fromkeys(sources.python_files(), 1))

  def test_packages_are_what_they_import(self):
    imported = {package: set() for package in self.values['PACKAGES']}
    for path in sources.python_files('vatt_tf'):
      _, package, *rest = path.split('/')
      if not rest:
        continue
      for name in sources.imports(path):
        parts = name.split('.')
        if parts[0] == 'vatt_tf' and parts[1:2] not in ([], [package]):
          imported[package].add(parts[1])
    self.assertEqual(
      {k: set(v) for k, v in self.values['PACKAGES'].items()}, imported
    )

  def test_requirements_are_those_of_setup_cfg(self):
    setup = configparser.ConfigParser()
    setup.read(sources.ROOT / 'setup.cfg')

    def names(text):
      return set(re.findall(r'^([A-Za-z0-9-]+)', text, re.MULTILINE))

    extras = setup['options.extras_require']
    for key, expected in (
      ('REQUIREMENTS', names(setup['options']['install_requires'])),
      ('TEST_REQUIREMENTS', names(extras['test']) | names(extras['beam'])),
    ):
      found = {name.removeprefix('@pypi//') for name in self.values[key]}
      self.assertEqual(found, expected, key)

  def test_dependencies_are_targets(self):
    for name, target in self.targets.items():
      for dependency in target.get('deps', ()):
        if not dependency.startswith('@'):
          self.assertIn(dependency.lstrip('/').lstrip(':'), self.targets, name)

  def test_commands_are_binaries(self):
    for path in sources.python_files('vatt_tf'):
      text = (sources.ROOT / path).read_text(encoding='utf-8')
      if path.count('/') == 1 and "== '__main__'" in text:
        target = self.targets[path.removesuffix('.py')]
        self.assertEqual(target['rule'], 'py_binary', path)


if __name__ == '__main__':
  absltest.main()
