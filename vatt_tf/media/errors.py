"""The errors of media, caption and manifest files, and notes on them."""

from typing import NamedTuple


class MediaError(ValueError):
  """A file cannot be used; the message says which part of it, and why.

  While files are ingested it becomes one line of the skip report. It carries
  its message alone, so that it can pass between processes.
  """


class Note(NamedTuple):
  """Something of a file that was left out or changed, while the rest was kept.

  Becomes a line of the skip report, which does not count as a failure.

  Attributes:
    reason: What was left out or changed, and why, on one line.
    file: The file it is in, if that is not the media file itself: its base
      name.
    start: µs where it begins, or None if it has no time.
    end: µs where it ends, or None.
  """

  reason: str
  file: str = ''
  start: int | None = None
  end: int | None = None


class TooManyFailedError(RuntimeError):
  """More clips failed than `max_failed_share` allows, or nothing is left.

  Attributes:
    result: What the run made: it is complete but for these clips.
  """

  def __init__(self, message: str, result):
    super().__init__(message)
    self.result = result
