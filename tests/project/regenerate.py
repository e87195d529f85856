"""Writes the pages and figures of docs/ that follow from the code."""

import pathlib
import sys

if __name__ == '__main__':
  # Run by its path, the file finds the folder `tests` in the root.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests.project import sources
from tests.project.generate import (
  api_page,
  architecture_figure,
  imports_figure,
  record_table,
)

# Each has the `PATH` that it writes and `render()`, which returns the text.
GENERATORS = (api_page, architecture_figure, imports_figure, record_table)


def main():
  """Writes every generated file, and prints which of them changed."""
  for generator in GENERATORS:
    path = sources.ROOT / generator.PATH
    text = generator.render()
    is_current = path.exists() and path.read_text(encoding='utf-8') == text
    path.write_text(text, encoding='utf-8')
    print(f'{generator.PATH}: {"unchanged" if is_current else "written"}')


if __name__ == '__main__':
  main()
