"""The errors of media, caption and manifest files."""


class MediaError(ValueError):
  """A file cannot be used; the message says which part of it, and why.

  While files are ingested it becomes one line of the skip report. It carries
  its message alone, so that it can pass between processes.
  """


class TooManyFailedError(RuntimeError):
  """More clips failed than `max_failed_share` allows, or nothing is left.

  Attributes:
    result: What the run made: it is complete but for these clips.
  """

  def __init__(self, message: str, result):
    super().__init__(message)
    self.result = result
