"""Writes the table of docs/records.md from `schema.FEATURE_SPEC`."""

from tests.project import sources
from vatt_tf.input_pipeline.records import schema

PATH = 'docs/records.md'
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
  """Returns the page with its table as the package has it now."""
  text = (sources.ROOT / PATH).read_text(encoding='utf-8')
  before, rest = text.split(BEGIN)
  _, after = rest.split(END)
  return ''.join([before, BEGIN, render_table(), END, after])
