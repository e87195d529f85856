"""Tests of the form of public functions: type hints, and one docstring form.

The form is in CONTRIBUTING.md.
"""

import ast
import re

from absl.testing import absltest

from tests.project import sources

SECTIONS = (
  'Attributes',
  'Args',
  'Call arguments',
  'Returns',
  'Yields',
  'Raises',
  'Example',
)
# From this number of arguments on, each is described.
NUM_DESCRIBED = 4
# Their arguments are those of the class, or of the base class.
OF_THE_BASE = ('call', 'build', 'get_config', '__init__', '__call__')

_ENTRY = re.compile(r'^  (\*{0,2}\w+): (\S(?:.|\n(?=    |\n))*)', re.MULTILINE)


def public_definitions():
  """Yields path, class (or None) and node of all that is public."""

  def visit(node, path, owner):
    for child in ast.iter_child_nodes(node):
      if isinstance(child, ast.ClassDef) and not child.name.startswith('_'):
        yield path, owner, child
        yield from visit(child, path, child)
      elif isinstance(child, ast.FunctionDef):
        if not child.name.startswith('_') or child.name == '__init__':
          yield path, owner, child

  for path in sources.python_files('vatt_tf'):
    text = (sources.ROOT / path).read_text(encoding='utf-8')
    yield from visit(ast.parse(text), path, None)


def arguments(function):
  """The arguments of a function but the first of a method, with their stars."""
  args = function.args
  plain = [*args.posonlyargs, *args.args, *args.kwonlyargs]
  named = [('', arg) for arg in plain if arg.arg not in ('self', 'cls')]
  starred = [('*', args.vararg), ('**', args.kwarg)]
  return named + [(star, arg) for star, arg in starred if arg is not None]


def without_hint(function):
  """The names that lack a type hint; `return` is the value's."""
  found = [arg.arg for _, arg in arguments(function) if arg.annotation is None]
  if function.returns is None and function.name != '__init__':
    found.append('return')
  return found


def sections(docstring):
  """The sections of a docstring in order: pairs of a name and its text."""
  parts = re.split(r'^(\w[\w ]*):\n', docstring, flags=re.MULTILINE)
  return list(zip(parts[1::2], parts[2::2]))


def faults(owner, node):
  """What is wrong with the docstring of a definition, as a list of texts."""
  docstring = ast.get_docstring(node)
  if node.name == '__init__':
    return []
  if not docstring:
    return ['it has none']
  found = []
  first = docstring.split('\n')[0]
  if not re.search(r'[.?]$|[.]\)$|:$', first):
    found.append(f'the first line is not a sentence: {first!r}')
  if not re.match(r'[A-Z`\'"(\[0-9√]|mAP', first):
    found.append(f'the first line begins with a small letter: {first!r}')
  described = sections(docstring)
  names = [name for name, _ in described if name in SECTIONS]
  if names != sorted(names, key=SECTIONS.index):
    found.append(f'the order of the sections: {names}')
  described = dict(described)
  for section in ('Attributes', 'Args', 'Call arguments'):
    for name, text in _ENTRY.findall(described.get(section, '')):
      text = text.strip()
      if not re.match(r'[A-Z\d(\[`\'"…]', text) or not text.endswith(
        ('.', ':')
      ):
        found.append(f'`{name}` is not described by a sentence: {text!r}')
  if isinstance(node, ast.ClassDef):
    inits = [
      child
      for child in node.body
      if isinstance(child, ast.FunctionDef) and child.name == '__init__'
    ]
    expected = arguments(inits[0]) if inits else None
  else:
    expected = None if node.name in OF_THE_BASE else arguments(node)
  if expected is None:
    return found
  expected = [star + arg.arg for star, arg in expected]
  actual = [name for name, _ in _ENTRY.findall(described.get('Args', ''))]
  if actual and actual != expected:
    found.append(f'`Args` has {actual}, the signature {expected}')
  plain = [name for name in expected if not name.startswith('*')]
  if not actual and len(plain) >= NUM_DESCRIBED:
    found.append(f'{len(plain)} arguments, and no `Args`')
  return found


class DocstringsTest(absltest.TestCase):
  def test_every_public_function_has_type_hints(self):
    missing, count = [], 0
    for path, _, node in public_definitions():
      if isinstance(node, ast.FunctionDef):
        count += 1
        names = without_hint(node)
        if names:
          missing.append(f'{path}:{node.lineno} {node.name}: {names}')
    self.assertGreater(count, 700)
    self.assertEmpty(missing, '\n'.join(missing))

  def test_one_form(self):
    wrong = [
      f'{path}:{node.lineno} {node.name}: {fault}'
      for path, owner, node in public_definitions()
      for fault in faults(owner, node)
    ]
    self.assertEmpty(wrong, '\n'.join(wrong))

  def test_the_check_itself(self):
    def of(text):
      (node,) = ast.parse(text).body
      return faults(None, node)

    good = '"""Adds.\n\n  Args:\n    a: The first.\n    b: The second.\n  """'
    self.assertEmpty(of(f'def add(a, b):\n  {good}'))
    for signature, docstring, message in (
      ('a, b', '"""Adds"""', 'not a sentence'),
      ('a, b', '"""adds."""', 'small letter'),
      ('a, b, c, d', '"""Adds."""', 'no `Args`'),
      ('b, a', good, 'the signature'),
      ('a, b', good.replace('The first.', 'int, the first.'), '`a` is not'),
      (
        'a',
        '"""Adds.\n\n  Returns:\n    It.\n\n  Args:\n    a: A.\n  """',
        'order',
      ),
    ):
      self.assertIn(
        message, '\n'.join(of(f'def f({signature}):\n  {docstring}'))
      )
    (node,) = ast.parse('def f(a: int, b): return a').body
    self.assertEqual(without_hint(node), ['b', 'return'])


if __name__ == '__main__':
  absltest.main()
