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
"""

from collections.abc import Sequence
import csv
import dataclasses
import difflib
import io
import math
import os

from vatt_tf.media import captions, errors, text_files

COLUMNS = ('video_path', 'audio_path', 'start', 'end', 'label', 'caption')

ENCODING_OPTION = '--manifest_encoding'

# File names that promise sound or video: one that cannot be read has failed,
# while other files are merely not media.
MEDIA_EXTENSIONS = frozenset(
  """.3g2 .3gp .aac .ac3 .aif .aiff .amr .ape .asf .au .avi .caf .dts .dv .f4v
  .flac .flv .gif .m2ts .m2v .m4a .m4v .mj2 .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg
  .mpg .mts .mxf .oga .ogg .ogv .opus .qt .ra .rm .rmvb .spx .ts .tta .vob .wav
  .webm .wma .wmv .wv .y4m""".split()
)

_SECOND = 1_000_000


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
  """

  video_path: str = ''
  audio_path: str = ''
  start: int = 0
  end: int | None = None
  labels: tuple[str, ...] = ()
  captions: tuple[str, ...] = ()

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
      labels, texts = segments.setdefault(key, ([], []))
      for label in cells['label'].split('|'):
        label = ' '.join(label.split())
        if label and label not in labels:
          labels.append(label)
      caption = ' '.join(cells['caption'].split())
      if caption and caption not in texts:
        texts.append(caption)
  except csv.Error as e:
    raise errors.MediaError(
      f'{name}, line {reader.line_num}, is not csv: {e}.'
    ) from e
  if not segments:
    raise errors.MediaError(f'{name} has a header but no rows.')
  return [
    Segment(*key, labels=tuple(labels), captions=tuple(texts))
    for key, (labels, texts) in segments.items()
  ]


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
