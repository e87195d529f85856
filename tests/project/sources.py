"""What the tests of the project know of its files: lists and imports."""

import ast
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def files() -> list[str]:
  """Returns the paths of the project's files, relative to its root, sorted.

  They are what git tracks, with what is new and not ignored; in a copy without
  git, everything but hidden folders and caches.
  """
  if (ROOT / '.git').exists():
    listed = subprocess.run(
      ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=True,
    )
    paths = set(listed.stdout.split('\0')) - {''}
    return sorted(path for path in paths if (ROOT / path).is_file())
  skipped = ('.venv', '.git', '__pycache__', 'runs', 'build', 'dist')
  paths = [path.relative_to(ROOT) for path in ROOT.rglob('*') if path.is_file()]
  return sorted(
    path.as_posix()
    for path in paths
    if not any(
      part.startswith(skipped[:1]) or part in skipped for part in path.parts
    )
  )


def python_files(*folders: str) -> list[str]:
  """Returns the Python files of the project, or of some of its folders."""
  return [
    path
    for path in files()
    if path.endswith('.py')
    and (not folders or path.split('/', 1)[0] in folders)
  ]


def parse(path: str) -> ast.Module:
  """Returns the syntax tree of a file of the project."""
  return ast.parse((ROOT / path).read_text(encoding='utf-8'), path)


def module_file(name: str) -> str | None:
  """Returns the file of a module of the project, e.g. of `vatt_tf.train`.

  Returns None if there is no such module: `name` may be a name in a module,
  or belong to another distribution.
  """
  path = name.replace('.', '/')
  for candidate in (f'{path}.py', f'{path}/__init__.py'):
    if (ROOT / candidate).is_file():
      return candidate
  return None


def imports(path: str) -> set[str]:
  """Returns the full names of the modules that a file imports.

  `from a import b` gives `a.b` if that is a module of this project, and `a`
  otherwise. Imports inside functions count.
  """
  found = set()
  for node in ast.walk(parse(path)):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        found.add(whole if module_file(whole) else node.module)
  return found
