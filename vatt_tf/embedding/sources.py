"""What is embedded: clips of media files, or of records.

The clips are planned first, as ingest plans them: media files, rows of a
manifest and records are cut into windows. The plan is a list of items, each of
which gives one or more clips, dealt in their order to parts. It depends on the
input alone, so that a part has the same rows whenever and wherever it is made.
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
from vatt_tf.input_pipeline import encoded_audio, records
from vatt_tf.media import (
  caption_cues,
  clock,
  decode,
  decode_settings,
  errors,
  manifest,
  planning,
  worker,
)


class RecordRange(NamedTuple):
  """Records of a shard that follow each other."""

  path: str
  first: int
  count: int


Item = planning.Work | RecordRange


def num_clips(item: Item) -> int:
  """Clips of a media file, or records, whose windows nobody has counted."""
  if isinstance(item, RecordRange):
    return item.count
  return item.task.num_results


@dataclasses.dataclass(frozen=True)
class Windows:
  """How clips are cut.

  Attributes:
    length: µs; 0 for no cutting.
    overlap: Of a window with the next, µs.
  """

  length: int
  overlap: int


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads the clips of items. It can be sent to another process.

  Attributes:
    settings: What is taken from media files.
    windows: How records are cut.
    is_listed: Whether the media files stand in a manifest: then one that is
      none has failed.
  """

  settings: decode_settings.Settings
  windows: Windows
  is_listed: bool = False

  def read(
    self, items: Sequence[Item], pool: worker.Pool
  ) -> Iterator[Iterable[records.Clip | planning.Skip]]:
    """Reads items, the media files among them some ahead of the caller.

    Args:
      items: Of the plan.
      pool: Decodes media files.

    Yields:
      Of each item its clips, or what is to be said of those that it has not.
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
    results: Sequence[decode.DecodedClip | errors.MediaError],
  ) -> list[records.Clip | planning.Skip]:
    clips = []
    for span, result in zip(work.task.spans, results):
      if isinstance(result, errors.MediaError):
        clips.append(
          planning.skip_of(
            work.segment, span.start, span.end, result, self.is_listed
          )
        )
        continue
      clips += [
        planning.skip_of_note(work.segment, note) for note in result.notes
      ]
      cues = result.cues
      if work.cues is not None:
        cues = caption_cues.in_span(work.cues, result.start, result.end)
      clips.append(
        records.Clip(
          frames=result.frames,
          timestamps=records.frame_times(
            len(result.frames), self.settings.frame_rate
          ),
          frame_rate=self.settings.frame_rate if result.frames else 0.0,
          height=result.height,
          width=result.width,
          waveform=result.audio,
          sample_rate=(
            0.0 if result.audio is None else self.settings.audio_rate
          ),
          captions=[
            records.Caption(
              cue.text, cue.start - result.start, cue.end - result.start
            )
            for cue in cues
          ],
          data_path=work.segment.path,
          start=result.start,
          end=result.end,
        )
      )
    return clips

  def _read_records(
    self, item: RecordRange
  ) -> Iterator[records.Clip | planning.Skip]:
    dataset = records.open_shard(item.path).skip(item.first)
    dataset = dataset.take(item.count)
    try:
      for i, record in enumerate(dataset.as_numpy_iterator(), item.first):
        name = f'{item.path}:{i}'
        try:
          clip = records.read_clip(record)
        except records.RecordError as e:
          yield planning.Skip(name, '', '', f'it is no record: {e}')
          continue
        clip.data_path = clip.data_path or clip.example_id or name
        try:
          _decode_sound(clip, record)
        except ValueError as e:
          yield planning.Skip(clip.data_path, '', '', f'audio: {e}')
        if not clip.end:
          clip.end = clip.start + _duration(clip)
        yield from cut_clip(clip, self.windows)
    except tf.errors.OpError as e:
      raise ValueError(
        f'The shard {item.path} cannot be read, or is truncated or corrupt '
        f'({e.message}). {records.advise(item.path)} Then the same command '
        'goes on.'
      ) from e


def _decode_sound(clip: records.Clip, record: bytes) -> None:
  """Decodes the sound of a record that has it as a sound file, if it has."""
  if clip.waveform is not None:
    return
  encoded = records.read_values(record)['waveform_encoded']
  if len(encoded):
    waveform, rate = encoded_audio.decode(encoded[0])
    clip.waveform, clip.sample_rate = waveform, float(rate)


def _duration(clip: records.Clip) -> int:
  """How long a clip is, µs, by that of it which has times and rates."""
  faults = model_lib.time_faults(clip)
  timed = dataclasses.replace(
    clip,
    frames=() if table.VIDEO in faults else clip.frames,
    waveform=None if table.AUDIO in faults else clip.waveform,
  )
  return round(timed.duration * records.MICROSECONDS)


def cut_clip(clip: records.Clip, windows: Windows) -> list[records.Clip]:
  """Cuts a clip into windows, as media files are cut.

  Args:
    clip: Of a record.
    windows: How.

  Returns:
    The clip itself where it gives one window; otherwise its parts. Frames and
    sound that cannot be cut, for their times or rates are wrong, stand in each
    of them as they are, so that each is found to have failed.
  """
  # Frames and samples may last a little longer than the clip that they fill.
  duration = min(clip.end - clip.start, _duration(clip))
  pieces = planning.cut(0, duration, windows.length, windows.overlap)
  if len(pieces) == 1:
    return [clip]
  faults = model_lib.time_faults(clip)
  times = list(clip.timestamps)
  if clip.frames and not times and table.VIDEO not in faults:
    times = records.frame_times(len(clip.frames), clip.frame_rate)
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
        round(time * clip.sample_rate / records.MICROSECONDS)
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
          records.Caption(cue.text, cue.start - start, cue.end - start)
          for cue in cues
        ],
        start=clip.start + start,
        end=clip.start + end,
      )
    )
  return parts


# Finding and planning.


def find_media(media: str) -> tuple[str, list[manifest.Segment]]:
  """The files that `--media` names.

  Args:
    media: A folder, a file, or a glob pattern (`**` for folders of any depth).

  Returns:
    The folder that the paths are relative to, and the files.

  Raises:
    ValueError: There is none.
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
  """Where files end, as far as that is known (`journal.Journal`)."""

  ends: dict[tuple[str, str], int | str]

  def add_end(self, key: tuple[str, str], end: int | str) -> None:
    """Notes where a file ends."""


class EndsInMemory:
  """Where files end, for this process alone."""

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
) -> tuple[list[planning.Work], list[planning.Skip]]:
  """Cuts media files into clips.

  Args:
    segments: The files, or the rows of a manifest.
    media_root: What their paths are relative to.
    manifest_path: Of the manifest, or ''.
    settings: What is taken from files.
    captions: Where captions come from, as ingest takes it.
    windows: How files and rows are cut.
    pool: Finds how long files are.
    ends: What is known of that already.
    show_progress: Whether to draw a progress bar for it.

  Returns:
    The items, and what is to be said of files that give none.

  Raises:
    ValueError: An argument is wrong, or there is nothing to embed.
  """
  options = planning.Options(
    manifest=manifest_path,
    media_root=media_root,
    name='embeddings',
    num_shards=None,
    settings=settings,
    captions=captions,
    caption_encoding='',
    caption_margin_seconds=0.0,
    clip_seconds=windows.length / clock.SECOND,
    clip_overlap_seconds=windows.overlap / clock.SECOND,
    min_clip_seconds=None,
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
    counts: Of each shard its number of records.
    records_per_range: At most so many in a range.
  """
  return [
    RecordRange(path, first, min(records_per_range, count - first))
    for path, count in counts.items()
    for first in range(0, count, records_per_range)
  ]


def make_parts(
  items: Iterable[Item], clips_per_part: int
) -> list[tuple[Item, ...]]:
  """Deals items to parts of at least so many clips, but for the last."""
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
