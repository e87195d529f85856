"""Tests of the layout: which module may import which, and what lies where."""

import ast
import csv
import importlib.util
import re
import sys

from absl.testing import absltest

from tests.project import sources

# The layers, from the lowest: a module imports from lower layers only. What
# shares a layer is independent (1), or may import each other without a circle.
LAYERS = {
  # The package itself, and helpers.
  '': 0,
  'core': 0,
  # The parts, which never import each other.
  'layers': 1,
  'losses': 1,
  'input_pipeline': 1,
  'media': 1,
  # The models.
  'models': 2,
  # What is done with models and their outputs.
  'checkpoints': 3,
  'evaluation': 3,
  'analysis': 3,
  'embedding': 3,
  'retrieval_index': 3,
  'export': 3,
  'localization': 3,
  'serving': 3,
  'client': 3,
  # Training.
  'training': 4,
  # Imports whatever gin files may name.
  'configurables': 4,
}
# The only parser of gin: what is below it works with no gin file parsed.
PARSER = 'vatt_tf.core.gin_utils'
# Every other module that lies directly in vatt_tf is a main.
MAIN_LAYER = 5
INDEPENDENT_LAYERS = (1, MAIN_LAYER)
# What may import what, although the layers say no.
EXCEPTIONS = {
  # Ingest writes records.
  ('media', 'vatt_tf.input_pipeline.records'),
}
# The mains that call others.
CALLS_MAINS = ('quickstart',)

MEGABYTE = 2**20


def _unit(module):
  """Returns the part of vatt_tf a module belongs to, e.g. `layers`."""
  return (module.split('.') + [''])[1]


def _module(path):
  """Returns the module name of a file, e.g. `vatt_tf.layers.rms_norm`."""
  return path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')


def _layer(module):
  return LAYERS.get(_unit(module), MAIN_LAYER)


def _may_import(importer, imported):
  """Returns whether the layers let one module import the other."""
  above, below = _unit(importer), _unit(imported)
  if imported == PARSER:
    return _layer(importer) >= LAYERS['training']
  if above == below or any(
    above == part and f'{imported}.'.startswith(f'{module}.')
    for part, module in EXCEPTIONS
  ):
    return True
  if _layer(importer) == _layer(imported):
    if _layer(importer) in INDEPENDENT_LAYERS:
      return above in CALLS_MAINS
    return True
  return _layer(importer) > _layer(imported)


def _is_module(name):
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:
    return False


def _package_files():
  return sources.python_files('vatt_tf')


class ImportsTest(absltest.TestCase):
  def test_the_rule_itself(self):
    for importer, imported, expected in (
      ('vatt_tf.layers.rms_norm', 'vatt_tf.core.tensor_utils', True),
      ('vatt_tf.layers.rms_norm', 'vatt_tf.layers.projection_head', True),
      ('vatt_tf.layers.rms_norm', 'vatt_tf.losses.sigmoid', False),
      ('vatt_tf.layers.rms_norm', 'vatt_tf.models.vatt', False),
      ('vatt_tf.media.ingest', 'vatt_tf.input_pipeline.records', True),
      ('vatt_tf.media.ingest', 'vatt_tf.input_pipeline.video', False),
      ('vatt_tf.core.tensor_utils', 'vatt_tf.layers.rms_norm', False),
      ('vatt_tf.models.vatt', 'vatt_tf.core.gin_utils', False),
      ('vatt_tf.training.loop', 'vatt_tf.core.gin_utils', True),
      ('vatt_tf.evaluation.retrieval', 'vatt_tf.models.vatt', True),
      ('vatt_tf.models.vatt', 'vatt_tf.evaluation.retrieval', False),
      ('vatt_tf.train', 'vatt_tf.training.loop', True),
      ('vatt_tf.train', 'vatt_tf.evaluate', False),
      ('vatt_tf.quickstart', 'vatt_tf.train', True),
      ('vatt_tf.training.loop', 'vatt_tf.train', False),
    ):
      self.assertEqual(
        _may_import(importer, imported), expected, (importer, imported)
      )

  def test_imports_go_down(self):
    for path in _package_files():
      importer = _module(path)
      for imported in sources.imports(path):
        if imported.split('.')[0] == 'vatt_tf':
          with self.subTest(f'{importer} imports {imported}'):
            self.assertTrue(
              _may_import(importer, imported),
              'The layers in tests/project/layout_test.py forbid it.',
            )

  def test_no_circle(self):
    graph = {
      _module(path): {
        name for name in sources.imports(path) if sources.module_file(name)
      }
      for path in _package_files()
    }

    def visit(module, above):
      self.assertNotIn(module, above, ' -> '.join([*above, module]))
      if module not in done:
        for imported in graph.get(module, ()):
          visit(imported, [*above, module])
        done.add(module)

    done = set()
    for module in graph:
      visit(module, [])

  def test_nothing_imports_tests_or_scripts(self):
    for path in _package_files():
      tops = {name.split('.')[0] for name in sources.imports(path)}
      self.assertFalse(tops & {'tests', 'data', 'benchmarks'}, path)

  def test_keras_2_only(self):
    for path in sources.python_files():
      with self.subTest(path):
        for name in sources.imports(path):
          self.assertNotEqual(name.split('.')[0], 'keras')
          self.assertFalse(name.startswith(('tensorflow.keras', 'gin.tf')))
        for node in ast.walk(sources.parse(path)):
          if isinstance(node, ast.Attribute):
            self.assertNotIn(ast.unparse(node), ('tf.keras', 'gin.tf'))

  def test_modules_are_imported_and_not_names(self):
    for path in _package_files():
      for node in ast.walk(sources.parse(path)):
        if not isinstance(node, ast.ImportFrom):
          continue
        self.assertEqual(node.level, 0, f'{path}: relative import')
        top = node.module.split('.')[0]
        for alias in node.names:
          name = f'{node.module}.{alias.name}'
          if top == 'vatt_tf':
            self.assertIsNotNone(
              sources.module_file(name), f'{path}: {name} is no module'
            )
          elif top in sys.stdlib_module_names:
            # Types have no better name than their own.
            if node.module not in ('typing', 'collections.abc'):
              self.assertTrue(_is_module(name), f'{path}: {name} is no module')

  def test_only_gin_utils_parses_gin(self):
    for path in _package_files():
      if path == 'vatt_tf/core/gin_utils.py':
        continue
      for node in ast.walk(sources.parse(path)):
        if isinstance(node, ast.Call):
          called = ast.unparse(node.func)
          self.assertFalse(
            called.startswith('gin.parse_') or called == 'gin.bind_parameter',
            f'{path}: {called}',
          )

  def test_mains_define_no_configurables(self):
    for path in _package_files():
      if _layer(_module(path)) != MAIN_LAYER:
        continue
      for node in ast.walk(sources.parse(path)):
        for decorator in getattr(node, 'decorator_list', []):
          self.assertFalse(
            ast.unparse(decorator).startswith('gin.'), f'{path}: {node.name}'
          )

  def test_package_import_is_cheap(self):
    path = 'vatt_tf/__init__.py'
    self.assertEqual(sources.imports(path), {'sys', 'vatt_tf.core.quiet'})
    quiet = sources.imports('vatt_tf/core/quiet.py')
    self.assertLessEqual(quiet, sys.stdlib_module_names)
    for path in _package_files():
      if path.endswith('/__init__.py'):
        self.assertLessEqual(
          sources.imports(path), {'sys', 'vatt_tf.core.quiet'}, path
        )


class FilesTest(absltest.TestCase):
  def test_every_file_has_a_docstring(self):
    for path in [*sources.python_files(), 'BUILD']:
      self.assertTrue(ast.get_docstring(sources.parse(path)), path)

  def test_whatever_is_public_has_a_docstring(self):
    for path in _package_files():
      for node in sources.parse(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
          if not node.name.startswith('_'):
            self.assertTrue(ast.get_docstring(node), f'{path}: {node.name}')

  def test_no_assert_in_the_package(self):
    for path in _package_files():
      for node in ast.walk(sources.parse(path)):
        self.assertNotIsInstance(node, ast.Assert, path)

  def test_packages_and_folders(self):
    files = set(sources.files())
    for path in sources.python_files('gin', 'data', 'benchmarks', 'tests'):
      # In gin/ and data/ it would shadow the gin package, or a user's data.
      self.assertFalse(path.endswith('__init__.py'), path)
    for path in _package_files():
      package = path.rsplit('/', 1)[0]
      self.assertIn(f'{package}/__init__.py', files)

  def test_every_test_file_has_its_own_name(self):
    # Without packages, two test files of one name are one module.
    names = [
      path.rsplit('/', 1)[1]
      for path in sources.python_files('tests')
      if path.endswith('_test.py')
    ]
    self.assertCountEqual(names, set(names))

  def test_every_test_file_runs_alone(self):
    for path in sources.python_files('tests'):
      if path.endswith('_test.py'):
        tests = [
          node
          for node in sources.parse(path).body
          if isinstance(node, ast.If) and '__main__' in ast.unparse(node.test)
        ]
        self.assertNotEmpty(tests, path)

  def test_sizes(self):
    sizes = {
      path: (sources.ROOT / path).stat().st_size for path in sources.files()
    }
    for path, size in sizes.items():
      self.assertLess(size, 5 * MEGABYTE, path)
      if path.endswith('.tfrecord'):
        self.assertLess(size, 2 * MEGABYTE, path)
    data = [size for path, size in sizes.items() if path.startswith('data/')]
    self.assertLess(sum(data), 12 * MEGABYTE)

  def test_text_is_about_the_product(self):
    # Paths of somebody's machine, and notes of work to be done.
    home = re.compile(r'(?<![\w.~}/-])/(?:home|root|work|Users)/')
    notes = re.compile(r'\b(?:TODO|FIXME|XXX)\b')
    own = 'tests/project/layout_test.py'
    binary = (
      *('.tfrecord', '.png', '.jpg', '.mp4', '.pb', '.index', '.npz'),
      *('.npy', '.parquet'),
    )
    for path in sources.files():
      if path == own or path.endswith(binary) or '.data-' in path:
        continue
      text = (sources.ROOT / path).read_text(encoding='utf-8')
      for number, line in enumerate(text.splitlines(), 1):
        self.assertIsNone(home.search(line), f'{path}:{number}: {line}')
        self.assertIsNone(notes.search(line), f'{path}:{number}: {line}')

  def test_benchmark_results_are_json(self):
    for path in sources.files():
      if path.startswith('benchmarks/results/'):
        self.assertTrue(path.endswith('.json'), path)

  def test_csv_files_parse(self):
    for path in sources.files():
      if path.endswith('.csv'):
        with open(sources.ROOT / path, encoding='utf-8', newline='') as file:
          self.assertNotEmpty(list(csv.reader(file)), path)


if __name__ == '__main__':
  absltest.main()
