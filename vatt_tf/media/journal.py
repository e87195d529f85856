"""What an unfinished ingest has done so far, in a file."""

import contextlib
import fcntl
import json
import os


def describe_change(path: str) -> str:
  """The error for a file at `path` that other options have made."""
  return (
    f'{path} belongs to an ingest with another manifest, other files or other '
    'options. Run it with the same ones to go on, give another `name` or '
    '`output_dir`, or start again with `overwrite` (--overwrite), which '
    'removes the shards of this name.'
  )


class Journal:
  """`NAME.progress.jsonl`: what an unfinished ingest has done so far.

  Args:
    path: The file.
    fingerprint: Of everything that the records depend on.

  Attributes:
    ends: From (video_path, audio_path) to where the file ends, or the error.
    tasks: What each finished task gave, in order.
  """

  def __init__(self, path: str, fingerprint: str):
    self._path = path
    self.ends = {}
    self.tasks = []
    self._file = open(path, 'a+', encoding='utf-8')  # noqa: SIM115
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      self._file.close()
      raise ValueError(
        f'Another ingest is writing {path}: let it end, or give another '
        '`name` or `output_dir`.'
      ) from e
    try:
      self._load(fingerprint)
    except ValueError:
      self._file.close()
      raise

  def _load(self, fingerprint: str) -> None:
    self._file.seek(0)
    text = self._file.read()
    # A line that a killed run left half-written is as good as not there.
    whole = text[: text.rfind('\n') + 1]
    if whole != text:
      self._file.truncate(len(whole.encode('utf-8')))
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
      self._write({'fingerprint': fingerprint})
      return
    if lines[0].get('fingerprint') != fingerprint:
      if any('records' in line for line in lines):
        raise ValueError(describe_change(self._path))
      # Nothing was made yet: nothing is lost.
      self._file.truncate(0)
      self._write({'fingerprint': fingerprint})
      return
    for line in lines[1:]:
      if 'end' in line:
        self.ends[tuple(line['file'])] = line['end']
      else:
        self.tasks.append(line)

  def _write(self, line: dict) -> None:
    self._file.write(json.dumps(line, ensure_ascii=False) + '\n')
    self._file.flush()

  def add_end(self, key: tuple[str, str], end: int | str) -> None:
    """Notes where a file ends."""
    self.ends[key] = end
    self._write({'file': key, 'end': end})

  def add_task(self, line: dict) -> None:
    """Notes a task that is done."""
    self.tasks.append(line)
    self._write(line)

  def forget_tasks_from(self, index: int) -> None:
    """Takes back tasks whose records were not saved."""
    if index == len(self.tasks):
      return
    kept, self.tasks = self.tasks[:index], []
    self._file.seek(0)
    head = [
      line
      for line in self._file.read().splitlines()
      if 'records' not in json.loads(line)
    ]
    self._file.seek(0)
    self._file.truncate()
    self._file.write(''.join(line + '\n' for line in head))
    for line in kept:
      self.add_task(line)

  def close(self) -> None:
    """Closes the file and lets others have it."""
    # Every line was flushed when it was added: what is left is one whose error
    # was raised there, such as that of a full disk.
    with contextlib.suppress(OSError):
      self._file.close()

  def remove(self) -> None:
    """Removes the file: the work is finished."""
    os.remove(self._path)
