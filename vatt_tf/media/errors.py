"""The error of media, caption and manifest files."""


class MediaError(ValueError):
  """A file cannot be used; the message says which part of it, and why.

  While files are ingested it becomes one line of the skip report. It carries
  its message alone, so that it can pass between processes.
  """
