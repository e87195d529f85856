"""Segments to ingest: the rows of a manifest csv, or the files of a folder.

A manifest has a header and one row per part of a media file:

    video_path,start,end,label,caption
    a.mp4,0,3.5,dog|barking,a dog barks at the door
    a.mp4,0,3.5,,a small dog makes noise

`video_path` or `audio_path` is needed, relative to the media folder; a row with
both takes its sound from the latter. The others may be left out: without
`start` and `end` (seconds, or `hh:mm:ss`) a row is the whole file. Several
labels are separated by `|`. Rows with the same files and times are one clip
with several captions and all their labels.

A data set that is divided in several ways keeps one set of records, with lists
of their ids beside it. `splits` names the lists a clip belongs to
(`train_1|test_2`); `fold` is short for `test_F` of its own fold F and `train_G`
of every other fold G.

A row may also be a picture: a clip of one frame.

Rows of empty cells are skipped. A cell that holds what programs write for no
value (`nan`, `None`, `null` and the like) is an empty one. Captions and labels
have the form of `plain_text`.
"""

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import difflib
import io
import math
import os
import re
import shlex

from absl import logging

from vatt_tf.core import (
  file_utils,
  plain_text,
)
from vatt_tf.media import caption_cues, clock, errors, folders, text_files

COLUMNS = (
  'video_path',
  'audio_path',
  'start',
  'end',
  'label',
  'caption',
  'splits',
  'fold',
)

ENCODING_OPTION = '--manifest_encoding'

# File names that promise sound or video: one that cannot be read has failed,
# while other files are merely not media.
MEDIA_EXTENSIONS = frozenset(
  """.3g2 .3gp .aac .ac3 .aif .aiff .amr .ape .asf .au .avi .caf .dts .dv .f4v
  .flac .flv .gif .m2ts .m2v .m4a .m4v .mj2 .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg
  .mpg .mts .mxf .oga .ogg .ogv .opus .qt .ra .rm .rmvb .spx .ts .tta .vob .wav
  .webm .wma .wmv .wv .y4m""".split()
)

# A manifest may list pictures; in a folder they are not media.
PICTURE_EXTENSIONS = frozenset(('.jpeg', '.jpg', '.png'))

# No media file lasts longer than this.
_MAX_SECONDS = 1e9
# Maximum length of a header in a message.
_MAX_LENGTH = 500

# A list of ids is a file of this name.
_SPLIT = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')


@dataclasses.dataclass(frozen=True)
class Segment:
  """A part of a media file.

  Attributes:
    video_path: Path as in the manifest; '' for sound alone.
    audio_path: Path as in the manifest; '' where `video_path` has the sound.
    start: Start in µs.
    end: End in µs, or None for the end of the file.
    labels: Names of its classes.
    captions: Texts that describe it.
    splits: Names of the lists of ids that it belongs to.
  """

  video_path: str = ''
  audio_path: str = ''
  start: int = 0
  end: int | None = None
  labels: tuple[str, ...] = ()
  captions: tuple[str, ...] = ()
  splits: tuple[str, ...] = ()

  @property
  def path(self) -> str:
    """The path of the video, or of the sound alone."""
    return self.video_path or self.audio_path


def _parse_time(text: str, column: str, where: str) -> int | None:
  """Returns the µs of seconds or `hh:mm:ss`; None for an empty cell."""
  text = text.strip()
  if not text:
    return None
  time = caption_cues.parse_clock(text)
  if time is not None:
    return time
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not 0 <= value <= _MAX_SECONDS:
    raise errors.MediaError(
      f'{where}: `{column}` must be seconds from 0, or hh:mm:ss. Received: '
      f'{column}={text[:80]!r}'
    )
  return round(value * clock.SECOND)


def _check_splits(names: Sequence[str], column: str, where: str) -> None:
  for name in names:
    if not _SPLIT.fullmatch(name):
      raise errors.MediaError(
        f'{where}: `{column}` must be of letters, digits, `_`, `.` and `-`, '
        f'since a list becomes a file of its name. Received: {name[:80]!r}'
      )


def _check_header(
  header: Sequence[str], name: str, ignore_columns: Sequence[str]
) -> None:
  valid = f'Valid columns: {", ".join(COLUMNS)}.'
  received = ', '.join(header)[:_MAX_LENGTH] or 'an empty file'
  received = f'Received: {received}'
  known = [column for column in header if column not in ignore_columns]
  if 'video_path' not in known and 'audio_path' not in known:
    others = [column for column in known if column not in COLUMNS]
    hint = next(
      (
        f'is it `{column}`? '
        for column in others
        if difflib.get_close_matches(column, COLUMNS[:2], n=1, cutoff=0.5)
      ),
      '',
    )
    raise errors.MediaError(
      f'{name} needs a header with a column `video_path` or `audio_path`: '
      f'{hint}{valid} {received}'
    )
  for column in known:
    if column not in COLUMNS:
      near = difflib.get_close_matches(column, COLUMNS, n=1)
      hint = f'is it `{near[0]}`? If not, leave' if near else 'leave'
      # The option is a list itself.
      option = column
      if re.search('[",]', column):
        option = '"' + column.replace('"', '""') + '"'
      option = shlex.quote(f'--ignore_columns={option}')
      raise errors.MediaError(
        f'{name} has a column `{column}`: {hint} it out with {option}. {valid} '
        f'{received}'
      )
  if len(set(known)) < len(known):
    raise errors.MediaError(f'{name} has a column twice. {received}')


def _read_table(
  path: str, encoding: str, data: bytes | None
) -> text_files.CsvTable:
  if data is None:
    data = text_files.read_bytes(path)
  text = text_files.decode(data, path, encoding, ENCODING_OPTION)
  table = text_files.CsvTable(text, os.path.basename(path), COLUMNS)
  if '' in table.header:
    logging.warning(
      '%s: column %d has no name, as the row numbers that pandas writes '
      '(index=False leaves them out): it is not read.',
      path,
      table.header.index('') + 1,
    )
  return table


class _Cells:
  """The cells of rows, in the form in which they are used.

  Args:
    path: Path of the manifest, for the message.
  """

  def __init__(self, path: str):
    self._path = path
    self._num_missing = 0

  def _present(self, text: str) -> str:
    """Returns a cell, or a name in it; '' if it stands for no value."""
    text = text.strip()
    if plain_text.is_missing(text):
      self._num_missing += 1
      return ''
    return text

  def row(self, row: dict[str, str]) -> dict[str, str]:
    """Returns the cells of all columns; '' where they stand for no value."""
    return {column: self._present(row.get(column, '')) for column in COLUMNS}

  def labels(self, cell: str) -> list[str]:
    """Returns the labels of a cell, each once."""
    labels = map(self._present, cell.split('|'))
    labels = map(plain_text.clean_name, labels)
    return list(dict.fromkeys(label for label in labels if label))

  def log(self) -> None:
    """Logs how many cells were left out."""
    if self._num_missing:
      logging.warning(
        '%s: %d cells hold nan, None, null or the like, which stand for no '
        'value: they are taken as empty.',
        self._path,
        self._num_missing,
      )


def read_manifest(
  path: str,
  encoding: str = '',
  ignore_columns: Sequence[str] = (),
  data: bytes | None = None,
) -> list[Segment]:
  """Reads a manifest.

  Args:
    path: Path of a csv file in the form of the module docstring.
    encoding: Encoding of its text; '' for UTF-8. A byte order mark takes
      precedence.
    ignore_columns: Columns to leave out.
    data: Content of the file if it was read before, or None.

  Returns:
    Segments in the order of their first rows.

  Raises:
    errors.MediaError: The file cannot be read; the message names the line.
  """
  name = os.path.basename(path)
  table = _read_table(path, encoding, data)
  _check_header(list(filter(None, table.header)), name, ignore_columns)
  cells_of = _Cells(path)
  segments = {}
  for line, values in table.rows:
    where = f'{name}, line {line}'
    row = table.row(line, values)
    for column in ignore_columns:
      row.pop(column, None)
    cells = cells_of.row(row)
    if not any(cells.values()):
      continue
    if not cells['video_path'] and not cells['audio_path']:
      raise errors.MediaError(
        f'{where}: `video_path` or `audio_path` must be given.'
      )
    start = _parse_time(cells['start'], 'start', where) or 0
    end = _parse_time(cells['end'], 'end', where)
    if end is not None and end <= start:
      raise errors.MediaError(
        f'{where}: `end` must be after `start`. Received: '
        f'start={cells["start"]}, end={cells["end"]}'
      )
    key = (cells['video_path'], cells['audio_path'], start, end)
    labels, texts, splits, folds = segments.setdefault(key, ([], [], [], []))
    labels += [
      label for label in cells_of.labels(cells['label']) if label not in labels
    ]
    caption = plain_text.clean(cells['caption'])
    if caption and caption not in texts:
      texts.append(caption)
    for column, earlier in (('splits', splits), ('fold', folds)):
      names = [name.strip() for name in cells[column].split('|')]
      names = [name for name in names if name and name not in earlier]
      _check_splits(names, column, where)
      earlier += names
  cells_of.log()
  if not segments:
    raise errors.MediaError(f'{name} has a header but no rows.')
  all_folds = {fold for *_, folds in segments.values() for fold in folds}
  return [
    Segment(
      *key,
      labels=tuple(labels),
      captions=tuple(texts),
      splits=(*splits, *fold_splits(folds, all_folds)),
    )
    for key, (labels, texts, splits, folds) in segments.items()
  ]


def read_captions(
  path: str,
  encoding: str = '',
  ignore_columns: Sequence[str] = (),
  data: bytes | None = None,
) -> list[str]:
  """Reads the captions of a manifest, or of a table of captions alone.

  Args:
    path: Path of a manifest; it may have columns that `read_manifest` does not
      know, and needs only `caption`.
    encoding: See `read_manifest`.
    ignore_columns: See `read_manifest`.
    data: See `read_manifest`.

  Returns:
    Captions as `read_manifest` returns them, those of a clip each once.

  Raises:
    errors.MediaError: The file cannot be read, or has no column `caption`.
  """
  table = _read_table(path, encoding, data)
  columns = [
    column for column in table.header if column and column not in ignore_columns
  ]
  if 'caption' not in columns:
    raise errors.MediaError(
      f'{os.path.basename(path)} must have a column `caption`. Received: '
      f'{", ".join(columns) or "an empty file"}'
    )
  if 'video_path' in columns or 'audio_path' in columns:
    others = [column for column in table.header if column not in COLUMNS]
    segments = read_manifest(path, encoding, [*ignore_columns, *others], data)
    return [text for segment in segments for text in segment.captions]
  cells_of = _Cells(path)
  texts = [
    plain_text.clean(cells_of.row(table.row(line, values))['caption'])
    for line, values in table.rows
  ]
  cells_of.log()
  return [text for text in texts if text]


def fold_splits(
  folds: Iterable[str], all_folds: Iterable[str]
) -> tuple[str, ...]:
  """Returns the names of the lists of a clip in a cross-validation.

  Args:
    folds: Folds of the clip; none for a clip without lists.
    all_folds: Folds of the data set.

  Returns:
    `test_F` of its folds, then `train_G` of the others.
  """
  folds = list(folds)
  if not folds:
    return ()
  others = sorted(set(all_folds) - set(folds))
  return (
    *(f'test_{fold}' for fold in folds),
    *(f'train_{fold}' for fold in others),
  )


def _seconds(time: int | None) -> str:
  if time is None:
    return ''
  return f'{time / clock.SECOND:.6f}'.rstrip('0').rstrip('.')


def write_manifest(path: str, segments: Iterable[Segment]) -> None:
  """Writes a manifest that `read_manifest` reads as the same segments.

  Args:
    path: Path of the csv.
    segments: Segments, no two of which have the same files and times.

  Raises:
    ValueError: A label holds `|`, which separates labels, or a manifest cannot
      hold a path.
  """
  text = io.StringIO(newline='')
  table = csv.writer(text, lineterminator='\n')
  table.writerow(column for column in COLUMNS if column != 'fold')
  for segment in segments:
    if any('|' in label for label in segment.labels):
      raise ValueError(
        'A label must not hold `|`, which separates labels. Received: '
        f'labels={segment.labels}'
      )
    for path_in_cell in (segment.video_path, segment.audio_path):
      is_kept = path_in_cell == path_in_cell.strip()
      if plain_text.is_missing(path_in_cell) or not is_kept:
        raise ValueError(
          'A path in a manifest must not begin or end with white space, or '
          'stand for no value, such as nan. Received: '
          f'{path_in_cell!r}'
        )
    for i, caption in enumerate(segment.captions or ('',)):
      table.writerow(
        [
          segment.video_path,
          segment.audio_path,
          _seconds(segment.start or None),
          _seconds(segment.end),
          '|'.join(segment.labels) if i == 0 else '',
          caption,
          '|'.join(segment.splits) if i == 0 else '',
        ]
      )
  file_utils.write_text(path, text.getvalue())


def scan_folder(root: str) -> list[Segment]:
  """Returns every file of a folder and its subfolders as a segment.

  Caption files are among them; hidden files and folders are not. Links to
  folders are followed (see `folders.walk`).

  Args:
    root: Path of the folder.

  Returns:
    Segments with paths relative to `root`, in the order of their names.
  """
  paths = [
    os.path.relpath(os.path.join(folder, name), root)
    for folder, names in folders.walk(root)
    for name in names
  ]
  return [Segment(video_path=path) for path in sorted(paths)]
