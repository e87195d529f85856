"""Sources of an embedding: clips of media files, or of records.

The clips are planned first, as ingest plans them: media files, rows of a
manifest and records are cut into windows. The plan is a list of items, each of
which gives one or more clips, assigned in their order to parts. It depends on
the input alone, so that a part always has the same rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import glob
import os
from typing import NamedTuple, Protocol

import tensorflow as tf

from vatt_tf.core import file_utils
from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import table
from vatt_tf.input_pipeline import encoded_audio
from vatt_tf.input_pipeline.records import reading, schema, shard_files
from vatt_tf.media import (
  caption_cues,
  clock,
  decode_settings,
  decoded_clip,
  errors,
  ingest_options,
  manifest,
  planning,
  record_clips,
  skip_lines,
  worker,
)


class RecordRange(NamedTuple):
  """Consecutive records of a shard.

  Attributes:
    path: Path of the shard.
    first: Number of the first record, from 0.
    count: Number of records.
  """

  path: str
  first: int
  count: int


Item = planning.Work | RecordRange


def num_clips(item: Item) -> int:
  """Returns the number of clips of a media file, or of uncut records."""
  if isinstance(item, RecordRange):
    return item.count
  return item.task.num_results


@dataclasses.dataclass(frozen=True)
class Windows:
  """Windows that clips are cut into.

  Attributes:
    length: Length of a window in µs; 0 for no cutting.
    overlap: Overlap of a window with the next in µs.
  """

  length: int
  overlap: int


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads the clips of items.

  It can be sent to another process.

  Attributes:
    settings: Streams that are taken from media files, and their form.
    windows: Windows that records are cut into.
    is_listed: Whether a manifest lists the media files, so that one that is not
      media has failed.
  """

  settings: decode_settings.Settings
  windows: Windows
  is_listed: bool = False

  def read(
    self, items: Sequence[Item], pool: worker.Pool
  ) -> Iterator[Iterable[schema.Clip | skip_lines.Skip]]:
    """Reads items; media files among them are decoded ahead of the caller.

    Args:
      items: Items of the plan.
      pool: Workers that decode media files.

    Yields:
      The clips of each item, and the skip lines of those that failed.
    """
    works = [item for item in items if not isinstance(item, RecordRange)]
    results = pool.map(work.task for work in works)
    for item in items:
      if isinstance(item, RecordRange):
        yield self._read_records(item)
      else:
        yield self._media_clips(item, next(results)[1])

  def _media_clips(
    self,
    work: planning.Work,
    results: Sequence[decoded_clip.DecodedClip | errors.MediaError],
  ) -> list[schema.Clip | skip_lines.Skip]:
    clips = []
    for span, result in zip(work.task.spans, results):
      if isinstance(result, errors.MediaError):
        clips.append(
          skip_lines.skip_of(
            work.segment, span.start, span.end, result, self.is_listed
          )
        )
        continue
      clips += [
        skip_lines.skip_of_note(work.segment, note) for note in result.notes
      ]
      cues = result.cues
      if work.cues is not None:
        cues = caption_cues.in_span(work.cues, result.start, result.end)
      captions = [
        schema.Caption(
          cue.text, cue.start - result.start, cue.end - result.start
        )
        for cue in cues
      ]
      clips.append(
        record_clips.make_clip(
          result, self.settings, captions, data_path=work.segment.path
        )
      )
    return clips

  def _read_records(
    self, item: RecordRange
  ) -> Iterator[schema.Clip | skip_lines.Skip]:
    dataset = shard_files.open_shard(item.path).skip(item.first)
    dataset = dataset.take(item.count)
    try:
      for i, record in enumerate(dataset.as_numpy_iterator(), item.first):
        name = f'{item.path}:{i}'
        try:
          clip = reading.read_clip(record)
        except reading.RecordError as e:
          yield skip_lines.Skip(name, '', '', f'it is not a record: {e}')
          continue
        clip.data_path = clip.data_path or clip.example_id or name
        try:
          _decode_sound(clip, record)
        except ValueError as e:
          yield skip_lines.Skip(clip.data_path, '', '', f'audio: {e}')
        if not clip.end:
          clip.end = clip.start + _duration(clip)
        yield from cut_clip(clip, self.windows)
    except tf.errors.OpError as e:
      raise ValueError(
        f'The shard {item.path} cannot be read, or is truncated or corrupt '
        f'({e.message}). {shard_files.advise(item.path)} Then the same command '
        'resumes.'
      ) from e


def _decode_sound(clip: schema.Clip, record: bytes) -> None:
  """Decodes the sound of a record that holds it as a sound file."""
  if clip.waveform is not None:
    return
  encoded = reading.read_values(record)['waveform_encoded']
  if len(encoded):
    waveform, rate = encoded_audio.decode(encoded[0])
    clip.waveform, clip.sample_rate = waveform, float(rate)


def _duration(clip: schema.Clip) -> int:
  """Returns the length of a clip in µs, from its valid times and rates."""
  faults = model_lib.time_faults(clip)
  timed = dataclasses.replace(
    clip,
    frames=() if table.VIDEO in faults else clip.frames,
    waveform=None if table.AUDIO in faults else clip.waveform,
  )
  return round(timed.duration * schema.MICROSECONDS)


def cut_clip(clip: schema.Clip, windows: Windows) -> list[schema.Clip]:
  """Cuts a clip into windows, as media files are cut.

  Args:
    clip: Clip of a record.
    windows: Windows to cut it into.

  Returns:
    The clip itself if it gives one window; otherwise its parts. Frames and
    sound that cannot be cut, since their times or rates are wrong, are in each
    part unchanged, so that each of them fails.
  """
  # Frames and samples may last a little longer than the clip that they fill.
  duration = min(clip.end - clip.start, _duration(clip))
  pieces = planning.cut(0, duration, windows.length, windows.overlap)
  if len(pieces) == 1:
    return [clip]
  faults = model_lib.time_faults(clip)
  times = list(clip.timestamps)
  if clip.frames and not times and table.VIDEO not in faults:
    times = schema.frame_times(len(clip.frames), clip.frame_rate)
  parts = []
  for start, end in pieces:
    frames, timestamps = clip.frames, times
    if table.VIDEO not in faults:
      inside = [i for i, time in enumerate(times) if start <= time < end]
      frames = [frames[i] for i in inside]
      timestamps = [times[i] - start for i in inside]
    waveform = clip.waveform
    if waveform is not None and table.AUDIO not in faults:
      first, last = (
        round(time * clip.sample_rate / schema.MICROSECONDS)
        for time in (start, end)
      )
      waveform = waveform[first:last] if first < waveform.size else None
    cues = caption_cues.in_span(
      [
        caption_cues.Cue(caption.start, caption.end, caption.text)
        for caption in clip.captions
      ],
      start,
      end,
    )
    parts.append(
      dataclasses.replace(
        clip,
        frames=frames,
        timestamps=timestamps,
        waveform=waveform,
        captions=[
          schema.Caption(cue.text, cue.start - start, cue.end - start)
          for cue in cues
        ],
        start=clip.start + start,
        end=clip.start + end,
      )
    )
  return parts


# Finding and planning.


def find_media(media: str) -> tuple[str, list[manifest.Segment]]:
  """Finds the files that `--media` names.

  Args:
    media: Path of a folder or a file, or a glob pattern (`**` for folders of
      any depth).

  Returns:
    The folder that the paths are relative to, and the files.

  Raises:
    ValueError: There is no such file.
  """
  if os.path.isdir(media):
    return os.path.abspath(media), manifest.scan_folder(media)
  if os.path.isfile(media):
    folder, name = os.path.split(os.path.abspath(media))
    return folder, [manifest.Segment(video_path=name)]
  root, pattern = file_utils.split_pattern(media)
  root = os.path.abspath(root)
  paths = [
    os.path.join(root, path)
    for path in sorted(glob.glob(pattern, root_dir=root, recursive=True))
    if os.path.isfile(os.path.join(root, path))
  ]
  if not paths:
    raise ValueError(
      '`media` must be a folder, a media file, or a pattern in quotes that '
      f'matches some. Received: media={media!r}'
    )
  return root, [
    manifest.Segment(video_path=os.path.relpath(path, root)) for path in paths
  ]


class Ends(Protocol):
  """Known ends of files (`journal.Journal` is one).

  Attributes:
    ends: End of a file in µs, or its error, by (video_path, audio_path).
  """

  ends: dict[tuple[str, str], int | str]

  def add_end(self, key: tuple[str, str], end: int | str) -> None:
    """Notes where a file ends."""


class EndsInMemory:
  """Known ends of files, for this process alone.

  Attributes:
    ends: See `Ends`.
  """

  def __init__(self):
    self.ends = {}

  def add_end(self, key: tuple[str, str], end: int | str) -> None:
    """Notes where a file ends."""
    self.ends[key] = end


def plan_media(
  segments: Sequence[manifest.Segment],
  media_root: str,
  manifest_path: str,
  settings: decode_settings.Settings,
  captions: str,
  windows: Windows,
  pool: worker.Pool,
  ends: Ends,
  show_progress: bool,
) -> tuple[list[planning.Work], list[skip_lines.Skip]]:
  """Cuts media files into clips.

  Args:
    segments: Media files, or rows of a manifest.
    media_root: Folder that their paths are relative to.
    manifest_path: Path of the manifest, or ''.
    settings: Streams that are taken from files, and their form.
    captions: Source of captions (see `ingest.ingest`).
    windows: Windows to cut files and rows into.
    pool: Workers that measure how long files are.
    ends: Known ends of files; takes new ones.
    show_progress: Whether to draw a progress bar on standard error.

  Returns:
    The items, and the skip lines of files without any.

  Raises:
    ValueError: An option is wrong, or there is nothing to embed.
  """
  options = ingest_options.Options(
    manifest=manifest_path,
    media_root=media_root,
    name='embeddings',
    num_shards=None,
    settings=settings,
    captions=captions,
    caption_encoding='',
    boxes='',
    caption_margin_seconds=0.0,
    clip_seconds=windows.length / clock.SECOND,
    clip_overlap_seconds=windows.overlap / clock.SECOND,
    min_clip_seconds=None,
    first_seconds=None,
    labels='',
    dataset_name='',
    shuffle=False,
    manifest_encoding='',
    ignore_columns=(),
  )
  options.check()
  plan = planning.Plan(options, segments, pool, ends, show_progress)
  return plan.work, plan.skips


def plan_records(
  counts: Mapping[str, int], records_per_range: int
) -> list[RecordRange]:
  """Cuts shards into ranges of records.

  Args:
    counts: Number of records of each shard.
    records_per_range: Maximum number of records in a range.
  """
  return [
    RecordRange(path, first, min(records_per_range, count - first))
    for path, count in counts.items()
    for first in range(0, count, records_per_range)
  ]


def make_parts(
  items: Iterable[Item], clips_per_part: int
) -> list[tuple[Item, ...]]:
  """Assigns items to parts in their order.

  Args:
    items: Items of the plan.
    clips_per_part: Minimum number of clips in a part, except the last.
  """
  parts, part, count = [], [], 0
  for item in items:
    part.append(item)
    count += num_clips(item)
    if count >= clips_per_part:
      parts.append(tuple(part))
      part, count = [], 0
  if part:
    parts.append(tuple(part))
  return parts
