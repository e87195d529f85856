"""What an embedding run has done so far, in a file of its table.

`progress.jsonl` holds the options that the rows depend on, how long the media
files are, and for each part that is whole what it holds and what failed. It
stays when all is done, so that the same command finds nothing left to do.
"""

import contextlib
import fcntl
import json
import os

FILE = 'progress.jsonl'


class Journal:
  """The file, open and held against other processes.

  Args:
    folder: Of the table; it is there.
    options: What the rows depend on: JSON values by the names of arguments.

  Attributes:
    ends: From (video_path, audio_path) to where the file ends, or the error.
    parts: What each part holds, by its number.

  Raises:
    ValueError: Another process has it, or it is of other options.
  """

  def __init__(self, folder: str, options: dict):
    self._folder = folder
    self.ends = {}
    self.parts = {}
    path = os.path.join(folder, FILE)
    self._file = open(path, 'a+', encoding='utf-8')  # noqa: SIM115
    try:
      try:
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as e:
        raise ValueError(
          f'Another process is writing {folder}: let it end, or give another '
          '`output` (--output).'
        ) from e
      self._load(json.loads(json.dumps(options)))
    except BaseException:
      self._file.close()
      raise

  def _load(self, options: dict) -> None:
    self._file.seek(0)
    text = self._file.read()
    # A line that a killed run left half-written is as good as not there.
    whole = text[: text.rfind('\n') + 1]
    if whole != text:
      self._file.truncate(len(whole.encode('utf-8')))
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
      self._write({'options': options})
      return
    self._check(lines[0]['options'], options)
    for line in lines[1:]:
      if 'end' in line:
        self.ends[tuple(line['file'])] = line['end']
      else:
        self.parts[line['part']] = line

  def _check(self, before: dict, now: dict) -> None:
    """Raises `ValueError` where options have changed."""
    names = [
      name for name in {**before, **now} if before.get(name) != now.get(name)
    ]
    if not names:
      return
    changes = '; '.join(
      f'`{name}` was {before.get(name)!r}, and is {now.get(name)!r}'
      for name in names
    )
    raise ValueError(
      f'The table in {self._folder} was made with other options: {changes}. '
      'Give the same ones to go on with it, or another `output` (--output), or '
      '`overwrite` (--overwrite) to remove it and start again.'
    )

  def _write(self, line: dict) -> None:
    self._file.write(json.dumps(line, ensure_ascii=False) + '\n')
    self._file.flush()

  def add_end(self, key: tuple[str, str], end: int | str) -> None:
    """Notes where a file ends."""
    self.ends[key] = end
    self._write({'file': key, 'end': end})

  def add_part(self, number: int, content: dict) -> None:
    """Notes a part whose files are written."""
    line = {'part': number, **content}
    self.parts[number] = line
    self._write(line)

  def close(self) -> None:
    """Closes the file and lets others have it."""
    # Every line was flushed when it was added: what is left is one whose error
    # was raised there, such as that of a full disk.
    with contextlib.suppress(OSError):
      self._file.close()
