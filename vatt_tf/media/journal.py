"""Journals of unfinished runs."""

import contextlib
import fcntl
import json
import os

_HELD = (
  'Another ingest is writing {}: wait for its end, or give another `name` or '
  '`output_dir`.'
)


def describe_change(path: str) -> str:
  """Returns the error for a file that other options have written."""
  return (
    f'{path} belongs to an ingest with another manifest, other files or other '
    'options. Run it with the same ones to resume, give another `name` or '
    '`output_dir`, or start again with `overwrite` (--overwrite), which '
    'removes the shards of this name.'
  )


class JsonLines:
  """A file of JSON values, one per line, locked against other processes.

  Attributes:
    ends: End of a file in µs, or its error, by (video_path, audio_path).

  Args:
    path: Path of the file; created if it is missing.
    held: Message of the error if another process holds it.

  Raises:
    ValueError: Another process holds it.
  """

  def __init__(self, path: str, held: str):
    self.ends = {}
    # Bytes: a write may stop in the middle of a character.
    self._file = open(path, 'a+b')  # noqa: SIM115
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      self._file.close()
      raise ValueError(held) from e
    except BaseException:
      self._file.close()
      raise

  def _read(self) -> list:
    """Returns the values of the file."""
    self._file.seek(0)
    content = self._file.read()
    # A line that a killed run left half-written does not count.
    whole = content[: content.rfind(b'\n') + 1]
    if whole != content:
      self._file.truncate(len(whole))
    return [json.loads(line) for line in whole.split(b'\n')[:-1]]

  def _write(self, *values) -> None:
    lines = [json.dumps(value, ensure_ascii=False) + '\n' for value in values]
    self._file.write(''.join(lines).encode('utf-8'))
    self._file.flush()

  def is_empty(self) -> bool:
    """Returns whether nothing is noted."""
    return not os.fstat(self._file.fileno()).st_size

  def clear(self) -> None:
    """Removes every line."""
    self._file.truncate(0)

  def add_end(self, key: tuple[str, str], end: int | str) -> None:
    """Notes where a file ends."""
    self.ends[key] = end
    self._write({'file': key, 'end': end})

  def close(self) -> None:
    """Closes the file and lets others have it."""
    # Every line was flushed when it was added: what is left is one whose error
    # was raised there, such as that of a full disk.
    with contextlib.suppress(OSError):
      self._file.close()


def hold(path: str) -> JsonLines:
  """Returns the locked journal of an ingest, without reading it.

  Args:
    path: Path of the file; created if it is missing.

  Raises:
    ValueError: Another ingest holds it.
  """
  return JsonLines(path, _HELD.format(path))


class Journal(JsonLines):
  """`NAME.progress.jsonl`: the finished work of an ingest.

  Attributes:
    ends: End of a file in µs, or its error, by (video_path, audio_path).
    tasks: Counts of each finished task, in order.

  Args:
    path: Path of the file.
    fingerprint: Digest of everything that the records depend on.

  Raises:
    ValueError: Another process holds it, or it belongs to other options.
  """

  def __init__(self, path: str, fingerprint: str):
    super().__init__(path, _HELD.format(path))
    self._path = path
    self.tasks = []
    try:
      self._load(fingerprint)
    except BaseException:
      self.close()
      raise

  def _load(self, fingerprint: str) -> None:
    lines = self._read()
    if not lines:
      self._write({'fingerprint': fingerprint})
      return
    if lines[0].get('fingerprint') != fingerprint:
      if any('records' in line for line in lines):
        raise ValueError(describe_change(self._path))
      # Nothing is finished yet: nothing is lost.
      self.clear()
      self._write({'fingerprint': fingerprint})
      return
    for line in lines[1:]:
      if 'end' in line:
        self.ends[tuple(line['file'])] = line['end']
      else:
        self.tasks.append(line)

  def add_task(self, line: dict) -> None:
    """Notes a finished task."""
    self.tasks.append(line)
    self._write(line)

  def forget_tasks_from(self, index: int) -> None:
    """Removes tasks whose records were not saved."""
    if index == len(self.tasks):
      return
    self.tasks = self.tasks[:index]
    head = [line for line in self._read() if 'records' not in line]
    self.clear()
    self._write(*head, *self.tasks)

  def remove(self) -> None:
    """Removes the file: the work is finished."""
    os.remove(self._path)
