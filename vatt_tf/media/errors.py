"""The errors of media, caption and manifest files, and notes on them."""

from typing import NamedTuple


class MediaError(ValueError):
  """A file cannot be used; the message names the part and the reason.

  While files are ingested it becomes a line of the skip report. It carries
  its message alone, so that it can pass between processes.
  """


class Note(NamedTuple):
  """A part of a file that was left out or changed, while the rest was kept.

  It becomes a line of the skip report, which does not count as a failure.

  Attributes:
    reason: Description of the part and the reason, on one line.
    file: Base name of the file that it is in; '' for the media file itself.
    start: Start of the part in µs, or None.
    end: End of the part in µs, or None.
  """

  reason: str
  file: str = ''
  start: int | None = None
  end: int | None = None


class TooManyFailedError(RuntimeError):
  """More clips failed than `max_failed_share` allows, or nothing is left.

  Attributes:
    result: Result of the run, which is complete except for these clips.

  Args:
    message: Text of the error.
    result: See the attribute.
  """

  def __init__(self, message: str, result: object):
    super().__init__(message)
    self.result = result
