"""Reading text whose encoding is not known for certain."""

import codecs
import os

from vatt_tf.media import errors

# Longer marks first: that of UTF-32 starts with that of UTF-16.
_BYTE_ORDER_MARKS = (
  (codecs.BOM_UTF8, 'utf-8-sig'),
  (codecs.BOM_UTF32_LE, 'utf-32'),
  (codecs.BOM_UTF32_BE, 'utf-32'),
  (codecs.BOM_UTF16_LE, 'utf-16'),
  (codecs.BOM_UTF16_BE, 'utf-16'),
)


def check_encoding(encoding: str, argument: str = 'encoding') -> None:
  """Raises `ValueError` unless Python knows the encoding; '' is allowed."""
  try:
    codecs.lookup(encoding or 'utf-8')
  except LookupError as e:
    raise ValueError(
      f'`{argument}` must be an encoding that Python knows, such as utf-8, '
      f'cp1252, latin-1, shift_jis, gb18030 or utf-16-le. Received: '
      f'{argument}={encoding!r}'
    ) from e


def read_bytes(path: str) -> bytes:
  """Reads a file whole.

  Raises:
    errors.MediaError: It cannot be read.
  """
  try:
    with open(path, 'rb') as file:
      return file.read()
  except OSError as e:
    raise errors.MediaError(f'{path} cannot be read: {e.strerror or e}.') from e


def decode(
  data: bytes, path: str, encoding: str = '', option: str = '--encoding'
) -> str:
  """Decodes the bytes of a text file.

  A byte order mark decides first (UTF-8, UTF-16, UTF-32), then `encoding`.
  Without either the text must be UTF-8: other encodings cannot be told apart,
  and a wrong guess would spoil the text without a word.

  Args:
    data: The file's bytes.
    path: Its path, for the error.
    encoding: Name of an encoding, or '' for UTF-8.
    option: The option that sets `encoding`, for the error.

  Returns:
    The text, with line ends as `\\n`.

  Raises:
    errors.MediaError: The bytes are not in that encoding.
  """
  name = encoding or 'utf-8'
  for mark, marked in _BYTE_ORDER_MARKS:
    if data.startswith(mark):
      name = marked
      break
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
  return text.replace('\r\n', '\n').replace('\r', '\n')


def read_text(path: str, encoding: str = '', option: str = '--encoding') -> str:
  """Reads a text file; see `decode` for encodings and errors."""
  return decode(read_bytes(path), path, encoding, option)
