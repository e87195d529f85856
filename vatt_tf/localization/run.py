"""Writes where media files or records sound: a Parquet file and videos.

<output>/
  maps.parquet   a row for each clip: its map, or none for silence
  NAME.mp4       the frames with their maps laid over them, and the sound
  skipped.csv    what has no map, and why
"""

from collections.abc import Iterable
import contextlib
import dataclasses
import os
import re

import pyarrow as pa
from pyarrow import parquet
import tf_keras

from vatt_tf.embedding import model as model_lib
from vatt_tf.localization import maps, overlay, reading
from vatt_tf.media import clock, ingest_report

MAPS = 'maps.parquet'
SKIP_REPORT = 'skipped.csv'

_SCHEMA = pa.schema(
  [
    ('path', pa.string()),
    ('clip_start', pa.float64()),  # seconds in the file
    ('clip_end', pa.float64()),
    ('map_start', pa.float64()),
    ('map_end', pa.float64()),
    ('steps', pa.int32()),
    ('height', pa.int32()),
    ('width', pa.int32()),
    ('map', pa.list_(pa.float32())),  # row-major; null for silence
    ('score', pa.float32()),
    ('window', pa.list_(pa.float32(), 4)),
  ]
)


@dataclasses.dataclass(frozen=True)
class Options:
  """Input and output of a localisation.

  Attributes:
    output: Folder to write to.
    media: Folder, file or pattern of media; or ''.
    records: Pattern of shards; or ''.
    frame_rate: Frames per second of the videos that are written.
    shorter_side: Pixels of a frame's shorter side.
    num_videos: Number of files (or records) that get a video; None means all.
    batch_size: Number of clips that are computed together.
    num_workers: Number of processes that decode, or None for one per core.
  """

  output: str
  media: str = ''
  records: str = ''
  frame_rate: float = 25.0
  shorter_side: int = 256
  num_videos: int | None = None
  batch_size: int = 8
  num_workers: int | None = None

  def source(self) -> reading.Source:
    """Returns where the clips come from."""
    return reading.Source(
      self.media,
      self.records,
      self.frame_rate,
      self.shorter_side,
      self.batch_size,
      self.num_workers,
    )

  def check(self) -> None:
    """Raises `ValueError` if an option is wrong."""
    self.source().check()
    path = os.path.join(self.output, MAPS)
    if os.path.exists(path):
      raise ValueError(
        f'{path} exists already. Give another `output` (--output), or remove '
        'it.'
      )


@dataclasses.dataclass
class Result:
  """What was written.

  Attributes:
    output: Folder.
    num_maps: Number of clips with a map.
    num_silent: Number of silent clips, which have none.
    num_failed: Number of clips or files that could not be read.
    videos: Paths of the videos.
  """

  output: str
  num_maps: int = 0
  num_silent: int = 0
  num_failed: int = 0
  videos: list[str] = dataclasses.field(default_factory=list)

  def describe(self) -> str:
    """Returns the line that the command prints."""
    text = (
      f'{self.num_maps} maps in {os.path.join(self.output, MAPS)}, '
      f'{len(self.videos)} videos'
    )
    if self.num_silent:
      text += f', {self.num_silent} silent clips without a map'
    if self.num_failed:
      report = os.path.join(self.output, SKIP_REPORT)
      text += f', {self.num_failed} skipped ({report} says why)'
    return text + '.'


def localize(
  model: tf_keras.Model,
  form: model_lib.Form,
  options: Options,
  show_progress: bool = True,
) -> Result:
  """Writes where clips sound.

  Args:
    model: Built `models.vatt.VATT` that was trained with the local term.
    form: Form of the model's inputs.
    options: Input and output.
    show_progress: Whether to draw a progress bar on standard error.

  Returns:
    Counts and paths of what was written.

  Raises:
    ValueError: An option is wrong, no clip has frames and sound, or the model
      was not trained with the local term.
  """
  options.check()
  locator = maps.Locator(model, form)
  os.makedirs(options.output, exist_ok=True)
  result, rows, skips = Result(options.output), [], []
  with contextlib.closing(_Videos(options, form, result)) as videos:
    for located, faults in reading.locate_all(
      locator, form, options.source(), show_progress
    ):
      skips += faults
      for each in located:
        rows.append(_row(each, form))
        result.num_silent += each.map is None
        videos.add(each)
  result.num_maps = len(rows) - result.num_silent
  result.num_failed = sum(skip.is_failure for skip in skips)
  ingest_report.write_skip_report(
    os.path.join(options.output, SKIP_REPORT), skips
  )
  if not rows:
    reasons = '\n'.join(f'  {skip.file}: {skip.reason}' for skip in skips[:5])
    raise ValueError(
      f'No clip has frames and sound, so there is no map:\n{reasons}'
    )
  _write_table(os.path.join(options.output, MAPS), rows)
  return result


def _row(located, form):
  """The row of a clip in the table."""
  clip = located.clip
  start = (clip.start + located.offset) / clock.SECOND
  values = located.map
  return {
    'path': clip.data_path,
    'clip_start': clip.start / clock.SECOND,
    'clip_end': clip.end / clock.SECOND,
    'map_start': start,
    'map_end': start + form.video.seconds,
    'steps': None if values is None else values.shape[0],
    'height': None if values is None else values.shape[1],
    'width': None if values is None else values.shape[2],
    'map': None if values is None else values.ravel(),
    'score': None if values is None else located.score,
    'window': list(located.window),
  }


def _write_table(path: str, rows: Iterable[dict]) -> None:
  """Writes the table whole or not at all."""
  temporary = f'{path}.{os.getpid()}.part'
  parquet.write_table(pa.Table.from_pylist(list(rows), _SCHEMA), temporary)
  os.replace(temporary, path)


class _Videos:
  """Writes a video for each file, whose clips come one after another."""

  def __init__(self, options, form, result):
    self._options = options
    self._form = form
    self._result = result
    self._key = None
    self._writer = None
    self._names = set()

  def add(self, located: maps.Located) -> None:
    """Adds a clip to the video of its file."""
    clip = located.clip
    limit = self._options.num_videos
    # A record is a video of its own.
    key = clip.data_path if self._options.media else id(clip)
    if key != self._key:
      self.close()
      self._key = key
      if limit is None or len(self._names) < limit:
        path = os.path.join(self._options.output, self._name(clip))
        self._writer = overlay.Writer(
          path,
          clip.frame_rate or self._form.video.frame_rate,
          round(clip.sample_rate),
        )
        self._result.videos.append(path)
    if self._writer is not None:
      self._writer.add(
        overlay.frames_of(located, self._form.video.frame_rate), clip.waveform
      )

  def _name(self, clip):
    """A name of its own for the video of a clip."""
    stem = os.path.splitext(os.path.basename(clip.data_path))[0]
    stem = re.sub(r'[^\w.-]+', '_', stem) or 'clip'
    name, number = stem, 1
    while name in self._names:
      number += 1
      name = f'{stem}_{number}'
    self._names.add(name)
    return f'{name}.mp4'

  def close(self) -> None:
    """Completes the video that is being written."""
    if self._writer is not None:
      self._writer.close()
      self._writer = None
