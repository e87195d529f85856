"""The work of a run, as far as it is known without opening media files."""

import dataclasses
import hashlib
import json
import os

import pyarrow
import tensorflow as tf

from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import run_options, sources, table
from vatt_tf.input_pipeline.records import shard_files
from vatt_tf.media import (
  caption_sources,
  clock,
  decode_settings,
  manifest,
  skip_lines,
  worker,
)


def _file_size(path: str) -> int:
  """Returns the bytes of a file; 0 if it is missing."""
  return os.path.getsize(path) if os.path.isfile(path) else 0


@dataclasses.dataclass(frozen=True)
class Job:
  """Work of a run, as far as it is known without opening media files.

  Attributes:
    options: Options of the run.
    version: Folder of the model's version.
    form: Form of the model's inputs.
    model_version: Name of the model's version.
    modalities: Modalities to embed.
    dimensions: Dimension of the vectors by space.
    reader: Reads items.
    media_root: Folder that paths are relative to, or ''.
    segments: Media files, or rows of the manifest.
    shards: Number of records by shard.
  """

  options: run_options.Options
  version: str
  form: model_lib.Form
  model_version: str
  modalities: tuple[str, ...]
  dimensions: dict[str, int]
  reader: sources.Reader
  media_root: str
  segments: tuple[manifest.Segment, ...] = ()
  shards: dict[str, int] = dataclasses.field(default_factory=dict)

  @property
  def fixed(self) -> dict:
    """Values that the rows depend on, by the names of arguments.

    Files are told apart by their names and sizes, so that a folder may move.
    """
    options, settings = self.options, self.reader.settings
    values = {
      'saved_model': self.model_version,
      'modalities': ','.join(self.modalities),
      'clip_seconds': self.reader.windows.length / clock.SECOND,
      'stride_seconds': self._stride / clock.SECOND,
      'clips_per_file': options.clips_per_file,
    }
    if options.records:
      sizes = {path: tf.io.gfile.stat(path).length for path in self.shards}
      inputs = [
        [os.path.basename(path), count, sizes[path]]
        for path, count in self.shards.items()
      ]
      name, what = 'records', f'{sum(self.shards.values())} records'
    else:
      sizes = self._media_sizes()
      inputs = [
        *(dataclasses.astuple(segment) for segment in self.segments),
        sizes,
      ]
      name = 'manifest' if options.manifest else 'media'
      what = f'{len(self.segments)} {"rows" if options.manifest else "files"}'
      captions = options.captions
      if captions not in (caption_sources.AUTO, caption_sources.NONE):
        size = _file_size(captions)
        captions = os.path.basename(os.path.normpath(captions))
        captions += f' ({size} bytes)' if size else ''
      values |= {
        'captions': captions,
        'shorter_side': settings.shorter_side,
        'jpeg_quality': settings.jpeg_quality,
        'audio_rate': settings.audio_rate,
      }
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    values[name] = f'{what} of {sum(sizes.values())} bytes ({digest[:12]})'
    return values

  def _media_sizes(self) -> dict[str, int]:
    """Returns the bytes of each file of the segments; 0 if it is missing."""
    paths = {
      path
      for segment in self.segments
      for path in (segment.video_path, segment.audio_path)
      if path
    }
    return {
      path: _file_size(os.path.join(self.media_root, path))
      for path in sorted(paths)
    }

  @property
  def _stride(self) -> int:
    return self.reader.windows.length - self.reader.windows.overlap

  def schemas(self) -> dict[str, pyarrow.Schema]:
    """Returns the schema of each space."""
    settings = self.reader.settings
    metadata = {
      'model_path': self.version,
      'model_version': self.model_version,
      'clip_seconds': self.reader.windows.length / clock.SECOND,
      'stride_seconds': self._stride / clock.SECOND,
      'model_seconds': self.form.seconds,
      'media_root': self.media_root,
    }
    if not self.options.records:
      metadata |= {
        'frame_rate': settings.frame_rate,
        'shorter_side': settings.shorter_side,
        'jpeg_quality': settings.jpeg_quality,
        'audio_rate': settings.audio_rate,
      }
    return {
      space: table.make_schema(space, dimension, metadata)
      for space, dimension in self.dimensions.items()
    }

  def plan(
    self,
    pool: worker.Pool,
    ends: sources.Ends,
    show_progress: bool,
    clips_per_part: int,
  ) -> tuple[list[tuple[sources.Item, ...]], list[skip_lines.Skip]]:
    """Returns the parts of the work, and the skip lines of files without any.

    Args:
      pool: Workers that measure how long files are.
      ends: Known lengths; takes new ones.
      show_progress: Whether to draw a progress bar on standard error.
      clips_per_part: Approximate number of clips in a part.
    """
    if self.options.records:
      items, skips = sources.plan_records(self.shards, clips_per_part), []
    else:
      items, skips = sources.plan_media(
        self.segments,
        self.media_root,
        self.options.manifest,
        self.reader.settings,
        self.options.captions,
        self.reader.windows,
        pool,
        ends,
        show_progress,
      )
    return sources.make_parts(items, clips_per_part), skips


def _windows(
  options: run_options.Options, form: model_lib.Form
) -> sources.Windows:
  """Returns how clips are cut."""
  seconds = options.clip_seconds
  seconds = form.seconds if seconds is None else seconds
  stride = options.stride_seconds
  stride = seconds if stride is None else stride
  if not seconds >= 0:
    raise ValueError(
      f'`clip_seconds` must not be negative. Received: clip_seconds={seconds}'
    )
  if not 0 <= stride <= seconds or (seconds and not stride):
    raise ValueError(
      '`stride_seconds` must be above 0 and at most `clip_seconds`, so that no '
      f'part of a file is left out. Received: stride_seconds={stride}, '
      f'clip_seconds={seconds}'
    )
  length = round(seconds * clock.SECOND)
  return sources.Windows(length, length - round(stride * clock.SECOND))


def _match_shards(pattern: str) -> list[str]:
  try:
    return shard_files.match_shards(pattern)
  except ValueError as e:
    # Its message names gin, for the commands that gin configures.
    raise ValueError(
      '`records` (--records) must be a pattern that matches shards, or several '
      f'separated by commas, each of which does. Received: records={pattern!r}.'
      ' `python -m vatt_tf.ingest` makes shards.'
    ) from e


def prepare(options: run_options.Options, embedder: model_lib.Embedder) -> Job:
  """Finds the media files or records to embed.

  Args:
    options: Options of the run.
    embedder: Embedder of the model.

  Raises:
    ValueError: An option is wrong, or there is nothing to embed.
  """
  form = embedder.form
  modalities = embedder.modalities
  is_text = modalities == (table.CAPTION,)
  audio_rate = options.audio_rate
  if audio_rate is None:
    audio_rate = form.audio.sample_rate if form.audio else 48000
  settings = decode_settings.Settings(
    frame_rate=form.video.frame_rate if form.video else 10.0,
    shorter_side=options.shorter_side,
    jpeg_quality=options.jpeg_quality,
    audio_rate=audio_rate,
    # Captions belong to clips, whichever of the two these have.
    use_video=table.VIDEO in modalities or is_text,
    use_audio=table.AUDIO in modalities or is_text,
  )
  media_root, segments, shards = options.media_root, [], {}
  if options.records:
    paths = _match_shards(options.records)
    shards = dict(zip(paths, shard_files.count_all_records(paths)))
    if not sum(shards.values()):
      raise ValueError(
        '`records` must be shards with records in them. Received: '
        f'records={options.records!r}'
      )
  elif options.manifest:
    segments = manifest.read_manifest(options.manifest)
    media_root = media_root or os.path.dirname(options.manifest)
  else:
    media_root, segments = sources.find_media(options.media)
    # The table may lie among the media.
    own = os.path.join(os.path.abspath(options.output), '')
    segments = [
      segment
      for segment in segments
      if not os.path.join(media_root, segment.path).startswith(own)
    ]
  if media_root or not options.records:
    media_root = os.path.abspath(media_root)
    if not os.path.isdir(media_root):
      raise ValueError(
        '`media_root` must be a folder with media files. Received: '
        f'media_root={media_root!r}'
      )
  return Job(
    options=options,
    version=embedder.version,
    form=form,
    model_version=embedder.name,
    modalities=modalities,
    dimensions=embedder.dimensions,
    reader=sources.Reader(
      settings, _windows(options, form), is_listed=bool(options.manifest)
    ),
    media_root=media_root,
    segments=tuple(segments),
    shards=shards,
  )
