"""Readers of the files that lists come in: csv, json and text.

Errors name the file and the line.
"""

from collections.abc import Iterator, Sequence
import contextlib
import csv
import glob
import io
import json
import os

from vatt_tf.core import plain_text
from vatt_tf.media import errors, text_files


class ListFiles:
  """The files of a folder of lists, and of the folders in it.

  Args:
    folder: Path of the folder.
  """

  def __init__(self, folder: str):
    self.folder = folder

  def find(self, *names: str) -> str:
    """Returns the path of the first of some files that exists, or ''."""
    root = glob.escape(self.folder)
    for name in names:
      for levels in ((name,), ('*', name), ('*', '*', name)):
        paths = sorted(glob.glob(os.path.join(root, *levels)))
        if paths:
          return paths[0]
    return ''

  def need(self, *names: str) -> str:
    """Returns the same as `find`, for a list that must exist.

    Raises:
      errors.MediaError: None of the files exists.
    """
    path = self.find(*names)
    if not path:
      files = sorted(os.listdir(self.folder))
      raise errors.MediaError(
        f'`annotations` must be the folder with the lists of the data set: '
        f'expected {" or ".join(names)} in it. Received: '
        f'annotations={self.folder!r}, which has '
        f'{", ".join(files[:8]) or "no file"}{", ..." if files[8:] else ""}'
      )
    return path


def unexpected(
  path: str, line: int, expected: str, received: object
) -> errors.MediaError:
  """Returns the error for a line of another form.

  Args:
    path: Path of the list.
    line: Number of the line, from 1.
    expected: Description of the right form.
    received: Text or value in its place.
  """
  return errors.MediaError(
    f'{os.path.basename(path)}, line {line}: expected {expected}. Is it the '
    f'list of another data set? Received: {received!r}'
  )


def lines(path: str) -> Iterator[tuple[int, str]]:
  """Yields the lines of a text file that are not empty, with their numbers."""
  for number, line in enumerate(text_files.read_text(path).split('\n'), 1):
    if line.strip():
      yield number, line.strip()


def csv_rows(path: str, needed: Sequence[str]) -> Iterator[tuple[int, dict]]:
  """Yields the rows of a csv file with a header, with their line numbers."""
  text = text_files.read_text(path)
  reader = csv.DictReader(io.StringIO(text, newline=''))
  reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
  if not set(needed) <= set(reader.fieldnames):
    raise unexpected(
      path,
      1,
      f'a header with the columns {", ".join(needed)}',
      ','.join(reader.fieldnames),
    )
  for row in reader:
    if any(row[name] is None for name in needed):
      raise unexpected(path, reader.line_num, 'as many cells as columns', row)
    yield reader.line_num, row


def parse_seconds(text: str, path: str, line: int) -> float:
  """Returns the seconds of a cell.

  Args:
    text: Text of the cell.
    path: Path of the list, for errors.
    line: Number of the line, for errors.

  Raises:
    errors.MediaError: The text is not a number.
  """
  try:
    return float(text)
  except ValueError as e:
    raise unexpected(path, line, 'a number of seconds', text) from e


def read_json(path: str) -> dict:
  """Returns the object of a json file.

  Raises:
    errors.MediaError: The file is not json, or holds something else.
  """
  try:
    value = json.loads(text_files.read_text(path))
  except json.JSONDecodeError as e:
    raise errors.MediaError(
      f'{os.path.basename(path)}, line {e.lineno}, is not json: {e.msg}.'
    ) from e
  if not isinstance(value, dict):
    raise unexpected(path, 1, 'a json object', str(value)[:40])
  return value


@contextlib.contextmanager
def check_layout(path: str, where: str) -> Iterator[None]:
  """Turns the lack of a key in a json file into an error that names it."""
  try:
    yield
  except (KeyError, TypeError) as e:
    raise errors.MediaError(
      f'{os.path.basename(path)}, {where}: not the layout that docs/datasets '
      f'describes ({type(e).__name__}: {e}). Is it the list of another data '
      'set?'
    ) from e


def clean_caption(value: object) -> str:
  """Returns a caption of a list in the form that is kept; '' for none."""
  if value is None or value != value:  # NaN
    return ''
  if not isinstance(value, str):
    raise TypeError(f'a caption must be a text, received {value!r}')
  return plain_text.clean(value)
