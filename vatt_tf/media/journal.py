"""What an unfinished run has done so far, in a file."""

import contextlib
import fcntl
import json
import os

_HELD = (
  'Another ingest is writing {}: let it end, or give another `name` or '
  '`output_dir`.'
)


def describe_change(path: str) -> str:
  """The error for a file at `path` that other options have made."""
  return (
    f'{path} belongs to an ingest with another manifest, other files or other '
    'options. Run it with the same ones to go on, give another `name` or '
    '`output_dir`, or start again with `overwrite` (--overwrite), which '
    'removes the shards of this name.'
  )


class JsonLines:
  """A file of JSON values, one a line, held against other processes.

  Args:
    path: The file; it is made if it is not there.
    held: What the error says if another process has it.

  Attributes:
    ends: From (video_path, audio_path) to where the file ends, or the error.

  Raises:
    ValueError: Another process has it.
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
    """The values of the file."""
    self._file.seek(0)
    content = self._file.read()
    # A line that a killed run left half-written is as good as not there.
    whole = content[: content.rfind(b'\n') + 1]
    if whole != content:
      self._file.truncate(len(whole))
    return [json.loads(line) for line in whole.split(b'\n')[:-1]]

  def _write(self, *values) -> None:
    lines = [json.dumps(value, ensure_ascii=False) + '\n' for value in values]
    self._file.write(''.join(lines).encode('utf-8'))
    self._file.flush()

  def is_empty(self) -> bool:
    """Whether nothing is noted."""
    return not os.fstat(self._file.fileno()).st_size

  def clear(self) -> None:
    """Takes every line out."""
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
  """The journal at a path as lines alone, held against other ingests.

  Args:
    path: The file; it is made if it is not there.

  Raises:
    ValueError: Another ingest has it.
  """
  return JsonLines(path, _HELD.format(path))


class Journal(JsonLines):
  """`NAME.progress.jsonl`: what an unfinished ingest has done so far.

  Args:
    path: The file.
    fingerprint: Of everything that the records depend on.

  Attributes:
    ends: From (video_path, audio_path) to where the file ends, or the error.
    tasks: What each finished task gave, in order.

  Raises:
    ValueError: Another process has it, or it is of other options.
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
      # Nothing was made yet: nothing is lost.
      self.clear()
      self._write({'fingerprint': fingerprint})
      return
    for line in lines[1:]:
      if 'end' in line:
        self.ends[tuple(line['file'])] = line['end']
      else:
        self.tasks.append(line)

  def add_task(self, line: dict) -> None:
    """Notes a task that is done."""
    self.tasks.append(line)
    self._write(line)

  def forget_tasks_from(self, index: int) -> None:
    """Takes back tasks whose records were not saved."""
    if index == len(self.tasks):
      return
    self.tasks = self.tasks[:index]
    head = [line for line in self._read() if 'records' not in line]
    self.clear()
    self._write(*head, *self.tasks)

  def remove(self) -> None:
    """Removes the file: the work is finished."""
    os.remove(self._path)
