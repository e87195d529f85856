"""The journal of an embedding run, in a file of its table.

`progress.jsonl` holds the options that the rows depend on, how long the media
files are, and for each finished part its counts and its failures. It remains
when all is done, so that the same command finds nothing left to do.
"""

from collections.abc import Iterator
import contextlib
import json
import os

from vatt_tf.media import journal

FILE = 'progress.jsonl'


@contextlib.contextmanager
def writing(folder: str) -> Iterator[None]:
  """Adds the folder and the remedy to the `OSError` of a write."""
  try:
    yield
  except OSError as e:
    raise OSError(
      f'{folder} cannot be written: {e}. Finished work is kept. Fix the '
      'problem (most often a full disk) and rerun the same command to resume.'
    ) from e


class Journal(journal.JsonLines):
  """The open file, locked against other processes.

  Attributes:
    ends: End of a file in µs, or its error, by (video_path, audio_path).
    parts: Counts and skip lines of each finished part, by its number.

  Args:
    folder: Folder of the table, which exists.

  Raises:
    ValueError: Another process holds it.
  """

  def __init__(self, folder: str):
    super().__init__(
      os.path.join(folder, FILE),
      f'Another process is writing {folder}: wait for its end, or give another '
      '`output` (--output).',
    )
    self._folder = folder
    self.parts = {}

  def begin(self, options: dict) -> None:
    """Reads the finished work, or notes the options if there is none.

    Args:
      options: JSON values that the rows depend on, by the names of arguments.

    Raises:
      ValueError: The journal belongs to other options.
    """
    options = json.loads(json.dumps(options))
    lines = self._read()
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
    """Raises `ValueError` if options have changed."""
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
      f'The table in {self._folder} has other options: {changes}. '
      'Give the same ones to resume, or another `output` (--output), or '
      '`overwrite` (--overwrite) to remove it and start again.'
    )

  def _write(self, *values) -> None:
    with writing(self._folder):
      super()._write(*values)

  def add_part(self, number: int, content: dict) -> None:
    """Notes a part whose files are written."""
    line = {'part': number, **content}
    self.parts[number] = line
    self._write(line)
