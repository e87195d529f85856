"""Progress bars for terminals and for log files."""

import sys
from typing import Any

import tqdm

# Seconds between two lines of a log file.
_SECONDS = 10.0


class _Lines:
  """A stream that turns a bar that redraws itself into lines."""

  def __init__(self, stream):
    self._stream = stream

  def write(self, text):
    text = text.strip()
    if text:
      self._stream.write(f'{text}\n')

  def flush(self):
    self._stream.flush()


def make(*args: Any, **kwargs: Any) -> tqdm.tqdm:
  """Makes a progress bar on standard error, or lines if it is not a terminal.

  Args:
    *args: Arguments of `tqdm.tqdm`.
    **kwargs: Arguments of `tqdm.tqdm`.

  Returns:
    The bar. On a terminal it is redrawn in one line. In a log file it writes a
    line every few seconds, and nothing for shorter work.
  """
  if sys.stderr.isatty():
    return tqdm.tqdm(*args, mininterval=0.2, maxinterval=0.2, **kwargs)
  return tqdm.tqdm(
    *args,
    file=_Lines(sys.stderr),
    mininterval=_SECONDS,
    maxinterval=_SECONDS,
    delay=_SECONDS,
    **kwargs,
  )
