"""What is to be ingested: the rows of a manifest csv, or the files of a folder.

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
"""

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import difflib
import io
import math
import os
import re

from vatt_tf import file_utils
from vatt_tf.media import captions, errors, text_files

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

# A manifest may list pictures; in a folder they are no media.
PICTURE_EXTENSIONS = frozenset(('.jpeg', '.jpg', '.png'))

_SECOND = 1_000_000

# A list of ids is a file of this name.
_SPLIT = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.-]*')


@dataclasses.dataclass(frozen=True)
class Segment:
  """A part of a media file.

  Attributes:
    video_path: As the manifest has it; '' for sound alone.
    audio_path: As the manifest has it; '' where `video_path` has the sound.
    start: µs.
    end: µs, or None for the end of the file.
    labels: Names of its classes.
    captions: Texts that speak of it.
    splits: Lists of ids that it belongs to.
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
    """The path that names it: of the video, or of the sound alone."""
    return self.video_path or self.audio_path


def _parse_time(text: str, column: str, where: str) -> int | None:
  """µs of seconds or of `hh:mm:ss`; None for an empty cell."""
  text = text.strip()
  if not text:
    return None
  time = captions.parse_clock(text)
  if time is not None:
    return time
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not (math.isfinite(value) and value >= 0):
    raise errors.MediaError(
      f'{where}: `{column}` must be seconds from 0 on, or hh:mm:ss. Received: '
      f'{column}={text!r}'
    )
  return round(value * _SECOND)


def _check_splits(names: Sequence[str], column: str, where: str) -> None:
  for name in names:
    if not _SPLIT.fullmatch(name):
      raise errors.MediaError(
        f'{where}: `{column}` must be of letters, digits, `_`, `.` and `-`, '
        f'since a list becomes a file of its name. Received: {name!r}'
      )


def _check_header(
  header: Sequence[str], name: str, ignore_columns: Sequence[str]
) -> None:
  valid = f'Valid columns: {", ".join(COLUMNS)}.'
  received = f'Received: {", ".join(header) or "an empty file"}'
  known = [column for column in header if column not in ignore_columns]
  for column in known:
    if column not in COLUMNS:
      near = difflib.get_close_matches(column, COLUMNS, n=1)
      hint = f'is it `{near[0]}`? If not, leave' if near else 'leave'
      raise errors.MediaError(
        f'{name} has a column `{column}`: {hint} it out with '
        f'--ignore_columns={column}. {valid} {received}'
      )
  if 'video_path' not in known and 'audio_path' not in known:
    raise errors.MediaError(
      f'{name} needs a header with a column `video_path` or `audio_path`. '
      f'{valid} {received}'
    )
  if len(set(known)) < len(known):
    raise errors.MediaError(f'{name} has a column twice. {received}')


def read_manifest(
  path: str, encoding: str = '', ignore_columns: Sequence[str] = ()
) -> list[Segment]:
  """Reads a manifest.

  Args:
    path: A csv file as the module docstring says.
    encoding: Of its text; '' for UTF-8. A byte order mark goes first.
    ignore_columns: Columns to leave out.

  Returns:
    Its segments in the order of their first rows.

  Raises:
    errors.MediaError: It cannot be read; the message names the line.
  """
  name = os.path.basename(path)
  text = text_files.read_text(path, encoding, ENCODING_OPTION)
  reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  segments = {}
  try:
    header = [column.strip() for column in reader.fieldnames or []]
    _check_header(header, name, ignore_columns)
    reader.fieldnames = header
    for row in reader:
      where = f'{name}, line {reader.line_num}'
      if None in row or None in row.values():
        cells = sum(value is not None for value in row.values())
        cells += len(row.get(None, [None])) - 1
        raise errors.MediaError(
          f'{where}: expected {len(header)} cells, as in the header (put cells '
          f'with commas in double quotes). Received: {cells}'
        )
      for column in ignore_columns:
        row.pop(column, None)
      cells = {column: (row.get(column) or '').strip() for column in COLUMNS}
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
      for label in cells['label'].split('|'):
        label = ' '.join(label.split())
        if label and label not in labels:
          labels.append(label)
      caption = ' '.join(cells['caption'].split())
      if caption and caption not in texts:
        texts.append(caption)
      for column, found in (('splits', splits), ('fold', folds)):
        names = [name.strip() for name in cells[column].split('|')]
        names = [name for name in names if name and name not in found]
        _check_splits(names, column, where)
        found += names
  except csv.Error as e:
    raise errors.MediaError(
      f'{name}, line {reader.line_num}, is not csv: {e}.'
    ) from e
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


def fold_splits(
  folds: Iterable[str], all_folds: Iterable[str]
) -> tuple[str, ...]:
  """The lists of a clip in a cross-validation.

  Args:
    folds: Those of the clip: one, or none for a clip of no list.
    all_folds: Those of the data set.

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
  return f'{time / _SECOND:.6f}'.rstrip('0').rstrip('.')


def write_manifest(path: str, segments: Iterable[Segment]) -> None:
  """Writes a manifest that `read_manifest` reads as the same segments.

  Args:
    path: Of the csv.
    segments: Each with files and times of its own.

  Raises:
    ValueError: A label holds `|`, which separates labels.
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
  """Every file of a folder and of those in it, each as a segment.

  Caption files are among them; hidden files and folders are not.

  Args:
    root: The folder.

  Returns:
    Segments with paths relative to `root`, in order of their names.
  """
  paths = []
  for folder, folders, names in os.walk(root):
    folders[:] = [one for one in folders if not one.startswith('.')]
    paths += [
      os.path.relpath(os.path.join(folder, name), root)
      for name in names
      if not name.startswith('.')
    ]
  return [Segment(video_path=path) for path in sorted(paths)]
