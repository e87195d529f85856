"""Writes BUILD from the imports: `make regenerate`.

The targets: each package of vatt_tf is a `py_library`, with all its modules.
Every other file is a target of its own: a `py_test` if it is a test, a
`py_binary` if it has a `__main__` part, else a `py_library`. A target depends
on what its files import.
"""

import ast
import pathlib
import sys

if __name__ == '__main__':
  # Run by its path, the file finds the folder `tests` in the root.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.project import sources

HEADER = '''"""Targets of vatt_tf, written by `make regenerate`."""

load("@pypi//:requirements.bzl", "requirement")
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])

licenses(["notice"])

exports_files(["LICENSE"])
'''

# Import name: distribution, as setup.cfg calls it. The rest have one name.
DISTRIBUTIONS = {
  'PIL': 'pillow',
  'absl': 'absl-py',
  'apache_beam': 'apache-beam',
  'cv2': 'opencv-python-headless',
  'gin': 'gin-config',
  'google.protobuf': 'protobuf',
  'grpc': 'grpcio',
  'grpc_health': 'grpcio-health-checking',
  'official': 'tf-models-official',
  'orbit': 'tf-models-official',
  'prometheus_client': 'prometheus-client',
  'sklearn': 'scikit-learn',
  'tensorflow_datasets': 'tensorflow-datasets',
  'tensorflow_io': 'tensorflow-io',
  'tensorflow_metadata': 'tensorflow-metadata',
  'tensorflow_serving': 'tensorflow-serving-api',
  'tensorflow_text': 'tensorflow-text',
  'tf_keras': 'tf-keras',
}


# What the package itself imports is part of its target.
OF_PACKAGE = ('vatt_tf/quiet.py',)


def is_main(path: str) -> bool:
  """Returns whether a file has a part under `if __name__ == '__main__'`."""
  return any(
    isinstance(node, ast.If)
    and ast.unparse(node.test) == "__name__ == '__main__'"
    for node in sources.parse(path).body
  )


def target_name(path: str) -> str:
  """Returns the name of the target that a file belongs to."""
  parts = path.removesuffix('.py').split('/')
  if path in OF_PACKAGE:
    return parts[0]
  if parts[0] == 'vatt_tf':
    if parts[-1] == '__init__':
      return '/'.join(parts[:-1])
    if len(parts) > 2:
      return '/'.join(parts[:-1])
  return '/'.join(parts)


def rule_name(path: str) -> str:
  """Returns the rule of the target that a file belongs to."""
  if path.endswith('_test.py'):
    return 'py_test'
  in_package = path.startswith('vatt_tf/') and path.count('/') > 1
  return 'py_binary' if is_main(path) and not in_package else 'py_library'


def dependency(module: str) -> str | None:
  """Returns the label of an imported module, or None for Python's own.

  It is `':target'` for a module of this project and the name of the
  distribution for any other.
  """
  path = sources.module_file(module)
  if path:
    return f':{target_name(path)}'
  for name, distribution in DISTRIBUTIONS.items():
    if module == name or module.startswith(f'{name}.'):
      return distribution
  top = module.split('.', 1)[0]
  return None if top in sys.stdlib_module_names else top


def dependencies(path: str) -> set[str]:
  """Returns the labels of everything a file imports but its own target's.

  Importing a module of a package imports the packages around it, so they
  count too.
  """
  labels = set()
  for module in sources.imports(path):
    labels.add(dependency(module))
    parts = module.split('.')
    for count in range(1, len(parts)):
      package = '.'.join(parts[:count])
      if sources.module_file(package):
        labels.add(dependency(package))
  if path.startswith('vatt_tf/'):
    labels.add(':vatt_tf')
  return labels - {None, f':{target_name(path)}'}


def targets() -> dict[str, dict]:
  """Returns the targets: name -> `rule`, `srcs` and `deps`."""
  found = {}
  for path in sources.python_files():
    target = found.setdefault(
      target_name(path),
      {'rule': rule_name(path), 'srcs': [], 'deps': set()},
    )
    target['srcs'].append(path)
    target['deps'] |= dependencies(path)
  return dict(sorted(found.items()))


def _render_list(name, items):
  if not items:
    return []
  if len(items) == 1:
    return [f'    {name} = [{items[0]}],']
  return [f'    {name} = [', *(f'        {item},' for item in items), '    ],']


def render() -> str:
  """Returns the text of BUILD."""
  blocks = [HEADER]
  for name, target in targets().items():
    internal = sorted(dep for dep in target['deps'] if dep[0] == ':')
    external = sorted(dep for dep in target['deps'] if dep[0] != ':')
    deps = [f'"{dep}"' for dep in internal]
    deps += [f'requirement("{dep}")' for dep in external]
    lines = [f'{target["rule"]}(', f'    name = "{name}",']
    if name.startswith('tests/') and target['rule'] != 'py_test':
      lines.append('    testonly = True,')
    lines += _render_list('srcs', [f'"{path}"' for path in target['srcs']])
    if target['rule'] != 'py_library':
      lines.append(f'    main = "{target["srcs"][0]}",')
    lines += _render_list('deps', deps)
    blocks.append('\n'.join([*lines, ')\n']))
  return '\n'.join(blocks)


def main():
  """Writes BUILD."""
  text = render()
  (sources.ROOT / 'BUILD').write_text(text, encoding='utf-8')
  print(f'BUILD: {len(targets())} targets')


if __name__ == '__main__':
  main()
