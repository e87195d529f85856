"""Reading text and csv files whose form is not known for certain."""

import codecs
from collections.abc import Iterator, Sequence
import csv
import io
import os
import re

from vatt_tf.media import errors

# Longer marks first: that of UTF-32 starts with that of UTF-16.
_BYTE_ORDER_MARKS = (
  (codecs.BOM_UTF8, 'utf-8-sig'),
  (codecs.BOM_UTF32_LE, 'utf-32'),
  (codecs.BOM_UTF32_BE, 'utf-32'),
  (codecs.BOM_UTF16_LE, 'utf-16'),
  (codecs.BOM_UTF16_BE, 'utf-16'),
)

_LINE_END = re.compile(r'\r+\n|\r')

# Delimiters of spreadsheets where numbers contain commas.
_OTHER_DELIMITERS = {
  ';': '`;`',
  '\t': 'tabs',
  '|': '`|`',
  ':': '`:`',
  '，': '`，`',
  ' ': 'spaces',
}

# The column of row numbers that pandas writes and reads again.
_UNNAMED = re.compile(r'Unnamed: \d+')


def check_encoding(encoding: str, argument: str = 'encoding') -> None:
  """Raises `ValueError` unless Python knows the encoding; '' is allowed."""
  try:
    # Some of Python's encodings are not of texts.
    b''.decode(encoding or 'utf-8')
    ''.encode(encoding or 'utf-8')
  except (LookupError, UnicodeError) as e:
    raise ValueError(
      f'`{argument}` must be an encoding that Python knows, such as utf-8, '
      f'cp1252, latin-1, shift_jis, gb18030 or utf-16-le. Received: '
      f'{argument}={encoding!r}'
    ) from e


def read_bytes(path: str) -> bytes:
  """Returns the content of a file.

  Raises:
    errors.MediaError: The file cannot be read.
  """
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as e:
    raise errors.MediaError(f'{path} cannot be read: {e.strerror or e}.') from e


def marked_encoding(data: bytes) -> str:
  """Returns the encoding of a byte order mark at the beginning, or ''."""
  return next(
    (name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), ''
  )


def decode(
  data: bytes, path: str, encoding: str = '', option: str = '--encoding'
) -> str:
  """Decodes the bytes of a text file.

  A byte order mark (UTF-8, UTF-16, UTF-32) takes precedence over `encoding`.
  Without either the text must be UTF-8: other encodings cannot be
  distinguished, and a wrong guess would spoil the text silently.

  Args:
    data: Bytes of the file.
    path: Path of the file, for the error.
    encoding: Name of an encoding, or '' for UTF-8.
    option: Option that sets `encoding`, for the error.

  Returns:
    The text, with line ends as `\\n`.

  Raises:
    errors.MediaError: The bytes are not in that encoding.
  """
  name = marked_encoding(data) or encoding or 'utf-8'
  try:
    text = data.decode(name)
  except UnicodeDecodeError as e:
    line = data.count(b'\n', 0, e.start) + 1
    remedy = (
      f'Give the encoding it was saved in, such as {option}=cp1252 (Western '
      'Windows), shift_jis or gb18030, or save it as UTF-8.'
    )
    raise errors.MediaError(
      f'{os.path.basename(path)} is not {name.upper()} text: byte '
      f'0x{data[e.start]:02x} at position {e.start} (line {line}). {remedy}'
    ) from e
  if '\0' in text:
    position = data.index(b'\0')
    raise errors.MediaError(
      f'{os.path.basename(path)} is not {name.upper()} text: zero byte at '
      f'position {position}. If it is UTF-16 without a byte order mark, give '
      f'{option}=utf-16-le (or utf-16-be).'
    )
  # Programs that write a CR and an LF in text mode make CR CR LF of them.
  return _LINE_END.sub('\n', text)


def read_text(path: str, encoding: str = '', option: str = '--encoding') -> str:
  """Returns the text of a file; see `decode` for encodings and errors.

  Args:
    path: Path of the file.
    encoding: Name of an encoding, or '' for UTF-8.
    option: Option that sets `encoding`, for the error.
  """
  return decode(read_bytes(path), path, encoding, option)


class CsvTable:
  """A csv file with a header: its columns and its rows.

  Rows whose cells are all empty are skipped, before the header as well.

  Attributes:
    header: Names of the columns; '' for those without a name, such as the row
      numbers that pandas writes.
    rows: Iterator over the line of each row and its cells. It raises
      `errors.MediaError` for what is not csv.

  Args:
    text: Text of the file.
    name: Name of the file, for errors.
    known: Columns of which it should have one; they reveal another delimiter.

  Raises:
    errors.MediaError: The file is not csv.
  """

  def __init__(self, text: str, name: str, known: Sequence[str]):
    self._text = text
    self._name = name
    lines = (line for line in text.split('\n') if line.strip(' ,;\t|"'))
    # Before parsing: with another delimiter, quotes may make it invalid csv.
    self._check_delimiter([next(lines, '')], known)
    self.rows = self._read()
    _, header = next(self.rows, (0, []))
    if header[0:1] and re.fullmatch('sep=.?', header[0].strip()):
      _, header = next(self.rows, (0, []))
    self._check_delimiter(header, known)
    # A name may be broken into lines, which messages must not be.
    names = [' '.join(column.split()) for column in header]
    self.header = ['' if _UNNAMED.fullmatch(name) else name for name in names]

  def _read(self) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(self._text, newline=''), strict=True)
    line = 0
    try:
      for cells in reader:
        if any(cell.strip() for cell in cells):
          yield line + 1, cells
        line = reader.line_num
    except csv.Error as e:
      opened = self._open_quote(line)
      reason = str(e)
      if opened:
        reason = (
          'a cell begins there with a double quote, which is not closed before '
          f'a comma or the end of a line ({e}). Write quotes in a cell twice, '
          'as in "he said ""hi"""'
        )
      raise errors.MediaError(
        f'{self._name}, line {opened or line + 1}, is not csv: {reason}.'
      ) from e

  def _open_quote(self, line: int) -> int:
    """Returns the line of an open quote in the row after `line`; 0 for none."""
    text = ''.join(self._text.split('\n', line)[line:])
    opened = i = 0
    number = line + 1
    is_start = True
    while i < len(text):
      character, after = text[i], text[i + 1 : i + 2]
      number += character == '\n'
      if not opened:
        if is_start and character == '"':
          opened = number
        is_start = character in ',\n'
      elif character == '"' and after == '"':
        i += 1
      elif character == '"':
        if after not in ('', ',', '\n'):
          break
        opened = 0
      i += 1
    return opened

  def _check_delimiter(self, header: list[str], known: Sequence[str]) -> None:
    columns = {column.strip() for column in header}
    if columns & set(known):
      return
    for delimiter, described in _OTHER_DELIMITERS.items():
      for cell in header:
        parts = {part.strip(' "') for part in cell.strip().split(delimiter)}
        is_known = parts & set(known)
        if delimiter == ' ':  # names of columns may hold spaces
          is_known = parts <= set(known)
        if delimiter in cell.strip() and is_known:
          raise errors.MediaError(
            f'The cells of {self._name} are separated by {described}: save it '
            'with commas (in a spreadsheet: as "CSV UTF-8 (comma delimited)"; '
            f'in Python: sep=","). Received: {cell[:80]!r}'
          )

  def row(self, line: int, cells: list[str]) -> dict[str, str]:
    """Returns the cells of a row by the names of their columns.

    Args:
      line: Number of the row's line.
      cells: Cells of the row.

    Returns:
      The cells of the columns that have a name.

    Raises:
      errors.MediaError: The row has fewer cells than the header, or more.
    """
    num_cells = len(self.header)
    has_more = any(cell.strip() for cell in cells[num_cells:])
    if len(cells) < num_cells or has_more:
      raise errors.MediaError(
        f'{self._name}, line {line}: expected {num_cells} cells, as in the '
        'header (put cells with commas in double quotes). Received: '
        f'{len(cells)}'
      )
    return {column: cell for column, cell in zip(self.header, cells) if column}
