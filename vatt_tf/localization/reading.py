"""Reads the clips of media files or records, and finds where they sound."""

from collections.abc import Iterator
import dataclasses

from vatt_tf.core import progress_bar, strategies
from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import sources
from vatt_tf.input_pipeline.records import schema, shard_files
from vatt_tf.localization import maps
from vatt_tf.media import (
  caption_sources,
  clock,
  decode_settings,
  skip_lines,
  worker,
)


@dataclasses.dataclass(frozen=True)
class Source:
  """Where clips come from: media files or records.

  Attributes:
    media: Folder, file or pattern of media; or ''.
    records: Pattern of shards; or ''.
    frame_rate: Frames per second of media files.
    shorter_side: Pixels of the shorter side of their frames.
    batch_size: Number of clips that are computed together.
    num_workers: Number of processes that decode, or None for one per core.
  """

  media: str = ''
  records: str = ''
  frame_rate: float = 25.0
  shorter_side: int = 256
  batch_size: int = 8
  num_workers: int | None = None

  def check(self) -> None:
    """Raises `ValueError` if an option is wrong."""
    if bool(self.media) == bool(self.records):
      raise ValueError(
        'Give either `media` (--media) or `records` (--records). Received: '
        f'media={self.media!r}, records={self.records!r}'
      )
    if not 1 <= self.frame_rate <= 120:
      raise ValueError(
        '`frame_rate` must be in [1, 120]. '
        f'Received: frame_rate={self.frame_rate}'
      )


def read_clips(
  source: Source,
  form: model_lib.Form,
  show_progress: bool = True,
  description: str = 'localize',
) -> Iterator[tuple[list[schema.Clip], list[skip_lines.Skip]]]:
  """Yields the clips of media files or records in batches, in a fixed order.

  Files and records are cut into windows of the length of the model's clips.

  Args:
    source: Where the clips come from.
    form: Form of the model's inputs.
    show_progress: Whether to draw a progress bar on standard error.
    description: Text of the bar.

  Yields:
    Clips, up to the size of a batch, and what could not be read.
  """
  settings = decode_settings.Settings(
    frame_rate=source.frame_rate,
    shorter_side=source.shorter_side,
    audio_rate=form.audio.sample_rate,
  )
  length = round(form.seconds * clock.SECOND)
  reader = sources.Reader(settings, sources.Windows(length, 0))
  num_workers = source.num_workers
  if source.records:
    num_workers = 0
  elif num_workers is None:
    num_workers = strategies.num_cores()
  with worker.Pool(num_workers) as pool:
    items, skips = _plan(source, settings, reader.windows, pool)
    yield [], skips
    with progress_bar.make(
      total=sum(sources.num_clips(item) for item in items),
      desc=description,
      unit=' clips',
      disable=not show_progress,
    ) as bar:
      batch = []
      for item, clips in zip(items, reader.read(items, pool)):
        for clip in clips:
          batch.append(clip)
          if len(batch) == source.batch_size:
            yield _split(batch)
            batch = []
        bar.update(sources.num_clips(item))
      yield _split(batch)


def _split(batch):
  """The clips of a batch, and the others."""
  return (
    [clip for clip in batch if isinstance(clip, schema.Clip)],
    [clip for clip in batch if not isinstance(clip, schema.Clip)],
  )


def _plan(source, settings, windows, pool):
  """The items of the work, and the skip lines of files without any."""
  if source.records:
    paths = shard_files.match_shards(source.records, '--records')
    counts = dict(zip(paths, shard_files.count_all_records(paths)))
    return sources.plan_records(counts, source.batch_size), []
  root, segments = sources.find_media(source.media)
  work, skips = sources.plan_media(
    segments,
    root,
    '',
    settings,
    caption_sources.NONE,
    windows,
    pool,
    sources.EndsInMemory(),
    show_progress=False,
  )
  return work, skips


def locate_all(
  locator: maps.Locator,
  form: model_lib.Form,
  source: Source,
  show_progress: bool = True,
) -> Iterator[tuple[list[maps.Located], list[skip_lines.Skip]]]:
  """Yields where the clips of media files or records sound, in batches.

  Args:
    locator: Computes the maps.
    form: See `read_clips`.
    source: See `read_clips`.
    show_progress: See `read_clips`.

  Yields:
    Clips with frames and sound, and what has no map, with the reason.
  """
  for clips, skips in read_clips(source, form, show_progress):
    located, faults = locator.locate(clips)
    for clip, fault in faults:
      start, end = clip.start / clock.SECOND, clip.end / clock.SECOND
      skips.append(
        skip_lines.Skip(clip.data_path, f'{start:g}', f'{end:g}', fault)
      )
    yield located, skips
