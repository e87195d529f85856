"""Writes the record table of README.md from `records.FEATURE_SPEC`."""

import pathlib
import sys

if __name__ == '__main__':
  # Run by its path, the file finds the folder `tests` in the root.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.project import sources
from vatt_tf.input_pipeline.records import schema

BEGIN = '<!-- records -->\n'
END = '<!-- /records -->\n'


def render_table() -> str:
  """Returns the table in Markdown."""
  lines = [
    '| key | where | type | meaning | also read from |',
    '|---|---|---|---|---|',
  ]
  for field in schema.FEATURE_SPEC:
    aliases = ', '.join(f'`{alias}`' for alias in field.aliases)
    lines.append(
      f'| `{field.key}` | {field.placement} | {field.dtype}, {field.count} | '
      f'{field.meaning} | {aliases} |'
    )
  return '\n'.join([*lines, ''])


def render() -> str:
  """Returns README.md with the table of now."""
  text = (sources.ROOT / 'README.md').read_text(encoding='utf-8')
  before, rest = text.split(BEGIN)
  _, after = rest.split(END)
  return ''.join([before, BEGIN, render_table(), END, after])


def main():
  """Writes README.md."""
  text = render()
  (sources.ROOT / 'README.md').write_text(text, encoding='utf-8')
  print(f'README.md: {len(schema.FEATURE_SPEC)} features')


if __name__ == '__main__':
  main()
