"""Tests that BUILD says what the sources are and import."""

import ast
import collections
import configparser
import re

from absl.testing import absltest

from tests.project import regenerate_build, sources

RULES = ('py_library', 'py_binary', 'py_test')


def _read_targets():
  """Returns the targets that BUILD holds: name -> rule, srcs and deps."""
  found = {}
  for statement in sources.parse('BUILD').body:
    call = getattr(statement, 'value', None)
    if not isinstance(call, ast.Call) or call.func.id not in RULES:
      continue
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    name = ast.literal_eval(keywords['name'])
    deps = []
    for item in getattr(keywords.get('deps'), 'elts', []):
      # `requirement("numpy")` or `":vatt_tf"`.
      value = item.args[0] if isinstance(item, ast.Call) else item
      deps.append(ast.literal_eval(value))
    if name in found:
      raise ValueError(f'BUILD has two targets of the name {name}')
    found[name] = {
      'rule': call.func.id,
      'srcs': ast.literal_eval(keywords['srcs']),
      'deps': deps,
    }
  return found


class BuildFileTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.targets = _read_targets()

  def test_each_source_file_is_in_exactly_one_target(self):
    counts = collections.Counter(
      path for target in self.targets.values() for path in target['srcs']
    )
    expected = dict.fromkeys(sources.python_files(), 1)
    self.assertEqual(dict(counts), expected, 'Run `make regenerate`.')

  def test_deps_are_the_imports(self):
    for name, target in self.targets.items():
      with self.subTest(name):
        imported = set()
        for path in target['srcs']:
          imported |= regenerate_build.dependencies(path)
        self.assertCountEqual(
          target['deps'], imported - {f':{name}'}, 'Run `make regenerate`.'
        )

  def test_deps_are_targets_or_requirements(self):
    setup = configparser.ConfigParser()
    setup.read(sources.ROOT / 'setup.cfg')
    listed = setup['options']['install_requires']
    listed += ''.join(setup['options.extras_require'].values())
    required = set(re.findall(r'^([a-z0-9-]+)', listed, re.MULTILINE))
    for name, target in self.targets.items():
      for dep in target['deps']:
        with self.subTest(f'{name} {dep}'):
          if dep.startswith(':'):
            self.assertIn(dep[1:], self.targets)
          else:
            self.assertIn(dep, required, 'setup.cfg does not require it.')

  def test_no_target_depends_on_itself(self):
    def visit(name, above):
      self.assertNotIn(name, above, ' -> '.join([*above, name]))
      if name in done:
        return
      for dep in self.targets[name]['deps']:
        if dep.startswith(':'):
          visit(dep[1:], [*above, name])
      done.add(name)

    done = set()
    for name in self.targets:
      visit(name, [])

  def test_each_package_and_each_test_has_a_target(self):
    for path in sources.python_files('vatt_tf', 'tests'):
      if path.endswith('/__init__.py'):
        name = path.removesuffix('/__init__.py')
        self.assertEqual(self.targets[name]['rule'], 'py_library')
      if path.endswith('_test.py'):
        name = path.removesuffix('.py')
        self.assertEqual(self.targets[name]['rule'], 'py_test')
        self.assertEqual(self.targets[name]['srcs'], [path])

  def test_file_is_as_written(self):
    text = (sources.ROOT / 'BUILD').read_text(encoding='utf-8')
    self.assertEqual(
      text, regenerate_build.render(), 'Run `make regenerate`.'
    )


if __name__ == '__main__':
  absltest.main()
