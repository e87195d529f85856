"""Bars of progress, for terminals and for log files."""

import sys
from typing import Any

import tqdm

# Between two lines of a log file.
_SECONDS = 10.0


class _Lines:
  """A stream on which a bar that redraws itself becomes lines."""

  def __init__(self, stream):
    self._stream = stream

  def write(self, text):
    text = text.strip()
    if text:
      self._stream.write(f'{text}\n')

  def flush(self):
    self._stream.flush()


def make(*args: Any, **kwargs: Any) -> tqdm.tqdm:
  """Makes a bar on standard error; where that is no terminal, lines.

  Args:
    *args: Those of `tqdm.tqdm`.
    **kwargs: Those of `tqdm.tqdm`.

  Returns:
    The bar. A terminal has it redrawn in one line. A log file gets a line every
    few seconds, and none of what takes less.
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
