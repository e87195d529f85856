"""Lists the commands: `python -m vatt_tf`."""

import ast
import pathlib

import vatt_tf


def commands() -> dict[str, str]:
  """Returns the first line of each command's docstring, by its name."""
  lines = {}
  for path in sorted(pathlib.Path(vatt_tf.__file__).parent.glob('*.py')):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    is_main = any(
      isinstance(node, ast.If)
      and ast.unparse(node.test) == "__name__ == '__main__'"
      for node in tree.body
    )
    if is_main and not path.stem.startswith('__'):
      line = ast.get_docstring(tree).partition('\n')[0]
      lines[path.stem] = line.partition(': `')[0].rstrip('.')
  return lines


def main() -> None:
  """Prints the list."""
  lines = commands()
  width = max(map(len, lines))
  print(f'vatt_tf {vatt_tf.__version__}. Commands, each with --help:\n')
  for name, line in lines.items():
    print(f'  python -m vatt_tf.{name:<{width}}  {line}')


if __name__ == '__main__':
  main()
