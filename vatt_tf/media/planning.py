"""The work of an ingest: clips, in tasks, in shards.

Segments (rows of a manifest, or the files of a folder) become clips; clips of
one file that follow each other become a task, which is decoded in one go; tasks
are shuffled and assigned to shards. All of it follows from the input alone.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import os
import random
from typing import NamedTuple

from vatt_tf.core import progress_bar
from vatt_tf.media import (
  box_tables,
  caption_cues,
  caption_files,
  caption_sources,
  clock,
  decoded_clip,
  errors,
  ingest_options,
  manifest,
  skip_lines,
  worker,
)
from vatt_tf.media import journal as journal_lib

DEFAULT_NUM_SHARDS = 16
DEFAULT_FOLDER_CLIP_SECONDS = 10.0

# Clips of one file that are decoded in one go.
_TASK_LENGTH = 30 * clock.SECOND


class Work(NamedTuple):
  """A task and what it belongs to.

  Attributes:
    segment: Segment of its clips.
    task: Task of a worker.
    cues: Captions of the segment, or None if the task reads them.
  """

  segment: manifest.Segment
  task: worker.Task
  cues: list[caption_cues.Cue] | None


def cut(
  start: int,
  end: int,
  length: int,
  overlap: int = 0,
  min_length: int | None = None,
) -> list[tuple[int, int]]:
  """Cuts a span of time into clips; nothing of it is lost.

  Args:
    start: Start of the span in µs.
    end: End of the span in µs.
    length: Length of a clip in µs; 0 for no cutting.
    overlap: Overlap of a clip with the next in µs.
    min_length: A rest shorter than this joins the clip before it. By default
      half of `length`.

  Returns:
    Start and end of each clip.

  Example:

  >>> cut(0, 25, 10, min_length=5)
  [(0, 10), (10, 20), (20, 25)]
  >>> cut(0, 23, 10, min_length=5)
  [(0, 10), (10, 23)]
  """
  if not length or end - start <= length:
    return [(start, end)]
  shortest = length // 2 if min_length is None else min_length
  step = length - overlap
  count = (end - start - length) // step + 1
  pieces = [(start + i * step, start + i * step + length) for i in range(count)]
  if pieces[-1][1] < end:
    rest = (start + count * step, end)
    if rest[1] - rest[0] < shortest or rest[0] >= end:
      pieces[-1] = (pieces[-1][0], end)
    else:
      pieces.append(rest)
  return pieces


def _absolute(root: str, path: str) -> str:
  return os.path.join(root, path) if path else ''


class Plan:
  """All tasks in the order in which they are done, and their shards.

  Attributes:
    work: Tasks of the ingest.
    shards: Index of the shard of each task.
    skips: Skip lines of segments that fail without a task.
    boxes: Boxes in the frames, or None.
    num_shards: Number of shards.
    num_clips: Number of clips if none fails.

  Args:
    options: Options of the ingest.
    segments: Segments of the manifest or folder.
    pool: Workers that measure how long files are.
    journal: Journal of the ingest, with the lengths that are known.
    show_progress: Whether to draw a progress bar on standard error.
  """

  def __init__(
    self,
    options: ingest_options.Options,
    segments: Sequence[manifest.Segment],
    pool: worker.Pool,
    journal: journal_lib.Journal,
    show_progress: bool,
  ):
    self._options = options
    self._is_folder = not options.manifest
    self.skips = []
    self.boxes = box_tables.BoxTable(options.boxes) if options.boxes else None
    self._finder = caption_sources.CaptionFinder(options, segments)
    self.skips += self._finder.skips
    segments = self._without_caption_files(segments)
    pieces = self._cut(segments, pool, journal, show_progress)
    self.num_clips = sum(len(spans) for _, spans in pieces)
    if not self.num_clips:
      self._raise_nothing()
    wanted = options.num_shards
    if wanted is not None and wanted > self.num_clips:
      raise ValueError(
        f'`num_shards` must be at most the number of clips, {self.num_clips}. '
        f'Received: num_shards={wanted}'
      )
    self.num_shards = wanted or min(DEFAULT_NUM_SHARDS, self.num_clips)
    self.work = list(self._tasks(pieces, _TASK_LENGTH))
    if len(self.work) < self.num_shards:
      self.work = list(self._tasks(pieces, 0))
    if options.shuffle:
      random.Random(0).shuffle(self.work)
    self.shards = [
      i * self.num_shards // len(self.work) for i in range(len(self.work))
    ]

  def _raise_nothing(self) -> None:
    reasons = '\n'.join(
      f'  {skip.file}: {skip.reason}' for skip in self.skips[:10]
    )
    source = self._options.manifest or self._options.media_root
    raise errors.MediaError(
      f'{source} gives no clip: it needs at least one file with video or '
      f'sound.{" The files:" if reasons else ""}\n{reasons}'.rstrip()
    )

  def _without_caption_files(
    self, segments: Sequence[manifest.Segment]
  ) -> list[manifest.Segment]:
    """Returns the files of a folder except captions and unusable names."""
    if not self._is_folder:
      return list(segments)
    media, texts = [], []
    for segment in segments:
      # Bytes that are not UTF-8 are surrogates in Python's paths.
      name = segment.path.encode('utf-8', 'backslashreplace').decode('utf-8')
      if name != segment.path:
        error = errors.MediaError(
          'records hold names as UTF-8, and its name is in another encoding: '
          'rename it'
        )
        named = dataclasses.replace(segment, video_path=name)
        self.skips.append(skip_lines.skip_of(named, None, None, error, False))
        continue
      extension = os.path.splitext(segment.path)[1].lower()
      is_text = extension in caption_files.EXTENSIONS
      (texts if is_text else media).append(segment)
      if not is_text and self._finder.reads_streams:
        self._finder.file(segment)
    for segment in texts:
      path = os.path.join(self._options.media_root, segment.path)
      if os.path.normpath(path) not in self._finder.used:
        self.skips.append(
          skip_lines.Skip(
            segment.path,
            '',
            '',
            'not a media file, and the captions of none: no media file of its '
            'name is beside it',
            False,
          )
        )
    return media

  def _cut(
    self,
    segments: Sequence[manifest.Segment],
    pool: worker.Pool,
    journal: journal_lib.Journal,
    show_progress: bool,
  ) -> list[tuple[manifest.Segment, list[decoded_clip.Span]]]:
    """Returns the clips of each segment."""
    options = self._options
    clip_seconds = options.clip_seconds
    if clip_seconds is None:
      clip_seconds = DEFAULT_FOLDER_CLIP_SECONDS if self._is_folder else 0.0
    length = round(clip_seconds * clock.SECOND)
    shortest = None
    if options.min_clip_seconds is not None:
      shortest = round(options.min_clip_seconds * clock.SECOND)
    limit = None
    if options.first_seconds is not None:
      limit = round(options.first_seconds * clock.SECOND)
    ends = {}
    if length or shortest or limit:
      ends = self._find_ends(
        [segment for segment in segments if segment.end is None],
        pool,
        journal,
        show_progress,
      )
    pieces = []
    for segment in segments:
      end, is_exact = segment.end, segment.end is not None
      if segment.end is None and ends:
        end = ends[segment.video_path, segment.audio_path]
      if isinstance(end, str):
        error = errors.MediaError(end)
        self.skips.append(
          skip_lines.skip_of(segment, None, None, error, not self._is_folder)
        )
        continue
      if limit is not None and end is not None:
        end = min(end, segment.start + limit)
      if end is not None and shortest and end - segment.start < shortest:
        error = errors.MediaError(
          f'it is {clock.format_seconds(max(0, end - segment.start))} long, '
          f'shorter than `min_clip_seconds`={options.min_clip_seconds:g}'
        )
        self.skips.append(
          skip_lines.skip_of(segment, segment.start, end, error, True)
        )
        continue
      if end is None or end <= segment.start:
        spans = [decoded_clip.Span(segment.start, segment.end)]
      else:
        overlap = round(options.clip_overlap_seconds * clock.SECOND)
        spans = [
          decoded_clip.Span(*times, is_exact)
          for times in cut(segment.start, end, length, overlap, shortest)
        ]
      pieces.append((segment, spans))
    return pieces

  def _is_picture(self, video_path: str, audio_path: str) -> bool:
    """Returns whether a row is a picture; in a folder they are not media."""
    extension = os.path.splitext(video_path)[1].lower()
    is_listed = not self._is_folder and not audio_path
    return is_listed and extension in manifest.PICTURE_EXTENSIONS

  def _find_ends(
    self,
    segments: Sequence[manifest.Segment],
    pool: worker.Pool,
    journal: journal_lib.Journal,
    show_progress: bool,
  ) -> dict[tuple[str, str], int | str]:
    """Returns where the files of segments end, in µs, or why it is unknown."""
    options = self._options
    keys = dict.fromkeys(
      (segment.video_path, segment.audio_path) for segment in segments
    )
    missing = [key for key in keys if key not in journal.ends]
    tasks = [
      worker.Task(
        _absolute(options.media_root, video),
        _absolute(options.media_root, audio),
        None,
        options.settings,
        is_picture=self._is_picture(video, audio),
      )
      for video, audio in missing
    ]
    results = progress_bar.make(
      pool.map(tasks),
      desc='lengths',
      total=len(tasks),
      unit=' files',
      disable=not show_progress or not tasks,
    )
    for key, (_, (end,)) in zip(missing, results):
      journal.add_end(key, end if isinstance(end, int) else str(end))
    return {key: journal.ends[key] for key in keys}

  def _tasks(
    self,
    pieces: Iterable[tuple[manifest.Segment, list[decoded_clip.Span]]],
    length: int,
  ) -> Iterator[Work]:
    """Yields tasks of clips in a row, up to `length` µs together."""
    options = self._options
    for segment, spans in pieces:
      cues = self._finder.cues(segment)
      path = '' if cues is not None else self._finder.file(segment)
      group = []
      for i, span in enumerate(spans):
        group.append(span)
        is_last = i + 1 == len(spans)
        if is_last or spans[i + 1].end - group[0].start > length:
          task = worker.Task(
            _absolute(options.media_root, segment.video_path),
            _absolute(options.media_root, segment.audio_path),
            tuple(group),
            options.settings,
            caption_path=path,
            caption_encoding=options.caption_encoding,
            caption_margin=round(options.caption_margin_seconds * clock.SECOND),
            use_caption_stream=cues is None and self._finder.reads_streams,
            is_picture=self._is_picture(segment.video_path, segment.audio_path),
          )
          yield Work(segment, task, cues)
          group = []
