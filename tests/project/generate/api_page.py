"""Writes docs/api.md: the public classes and functions, from their docstrings.

The files are read and not imported: the page does not depend on what is
installed.
"""

import ast
import re

from tests.project import sources

PATH = 'docs/api.md'
# What a program that uses the library calls, and what a heading says of it.
# Modules are found in these packages, so that a new or moved one is listed.
PACKAGES = (
  ('vatt_tf/client.py', 'Clients of the server.'),
  ('vatt_tf/models', 'Towers, and the models that they make up.'),
  ('vatt_tf/layers', 'Keras layers.'),
  ('vatt_tf/losses', 'Losses between the embeddings of two modalities.'),
  ('vatt_tf/input_pipeline', 'From records to batches.'),
  ('vatt_tf/media', 'From media files to records.'),
  ('vatt_tf/training', 'Tasks, optimizers and the training loop.'),
  (
    'vatt_tf/checkpoints',
    'Saving, restoring, importing and exporting weights.',
  ),
  ('vatt_tf/evaluation', 'Retrieval, classification, probes and metrics.'),
  ('vatt_tf/analysis', 'The cost of a model, and reports with pictures.'),
  ('vatt_tf/export', 'SavedModels and their signatures.'),
  ('vatt_tf/embedding', 'Embeddings of media files, as Parquet files.'),
  ('vatt_tf/retrieval_index', 'Indexes, queries and the web page.'),
  ('vatt_tf/core/modalities.py', 'The tables of modalities and pairs.'),
  ('vatt_tf/core/feature_names.py', 'Keys of inputs and outputs.'),
  ('vatt_tf/core/randomness.py', 'Random numbers from seed, step and row.'),
)
_INTRODUCTION = """\
# API

This page lists the public classes and functions of the packages that a program
may import, with the first sentence of each docstring; the docstrings have the
arguments, shapes and examples. `make regenerate` writes it. Every function and
class takes plain arguments: gin is not needed.
"""
# Methods that all layers and models have.
_COMMON = ('build', 'call', 'get_config', 'from_config')


def _first_sentence(node):
  """The first sentence of a docstring, on one line, for a table."""
  text = (ast.get_docstring(node) or '').split('\n\n')[0]
  text = ' '.join(text.split())
  sentence = re.split(r'(?<=[^.][.!?])\s+(?=[A-Z`(])', text)[0]
  return sentence.rstrip(':') if sentence.endswith(':') else sentence


def _is_field(node):
  return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)


def _signature(name, node):
  """A call with names and defaults, without types."""
  arguments = node.args
  texts = [argument.arg for argument in arguments.posonlyargs + arguments.args]
  for i, default in enumerate(arguments.defaults[::-1], 1):
    texts[-i] += f'={ast.unparse(default)}'
  if texts and texts[0] in ('self', 'cls'):
    texts = texts[1:]
  if arguments.vararg:
    texts.append(f'*{arguments.vararg.arg}')
  elif arguments.kwonlyargs:
    texts.append('*')
  for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
    suffix = '' if default is None else f'={ast.unparse(default)}'
    texts.append(argument.arg + suffix)
  if arguments.kwarg:
    texts.append(f'**{arguments.kwarg.arg}')
  return f'{name}({", ".join(texts)})'


def _functions(nodes):
  """The public functions and classes among some nodes."""
  kinds = (ast.FunctionDef, ast.ClassDef)
  return [
    node
    for node in nodes
    if isinstance(node, kinds) and not node.name.startswith('_')
  ]


def _class_signature(node):
  """The call that makes an object, from `__init__` or from fields."""
  for child in node.body:
    if isinstance(child, ast.FunctionDef) and child.name == '__init__':
      return _signature(node.name, child)
  fields = [
    child.target.id + (f'={ast.unparse(child.value)}' if child.value else '')
    for child in node.body
    if _is_field(child)
  ]
  return f'{node.name}({", ".join(fields)})' if fields else node.name


def _row(signature, node):
  cells = (f'`{signature}`', _first_sentence(node))
  return '| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |'


def _is_property(node):
  return any('property' in ast.unparse(one) for one in node.decorator_list)


def _rows(module):
  """The rows of a module's table."""
  private = {
    node.name: node.body
    for node in module.body
    if isinstance(node, ast.ClassDef) and node.name.startswith('_')
  }
  rows = []
  for node in _functions(module.body):
    if isinstance(node, ast.FunctionDef):
      rows.append(_row(_signature(node.name, node), node))
      continue
    rows.append(_row(_class_signature(node), node))
    methods = _functions(node.body)
    for base in node.bases:  # a private base class of the same module
      methods += _functions(private.get(ast.unparse(base), ()))
    for method in methods:
      if method.name in _COMMON or not ast.get_docstring(method):
        continue
      name = f'{node.name}.{method.name}'
      if not _is_property(method):
        name = _signature(name, method)
      rows.append(_row(name, method))
  return rows


def render() -> str:
  """Returns the page."""
  lines = [_INTRODUCTION]
  for package, note in PACKAGES:
    name = package.removesuffix('.py').replace('/', '.')
    lines += [f'## {name}', '', note, '']
    for path in sources.python_files('vatt_tf'):
      if path != package and not path.startswith(f'{package}/'):
        continue
      module = sources.parse(path)
      rows = _rows(module)
      if path.endswith('__init__.py') or not rows:
        continue
      if path != package:
        dotted = path.removesuffix('.py').replace('/', '.')
        lines += [f'### {dotted}', '']
      lines += ['| name | what it is |', '|---|---|', *rows, '']
  return '\n'.join(lines)
