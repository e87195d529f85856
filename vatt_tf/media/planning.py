"""What an ingest is going to do: clips, in tasks, in shards.

Segments (rows of a manifest, or the files of a folder) become clips; clips of
one file that follow each other become a task, which is decoded in one go; tasks
are shuffled and dealt to shards. All of it follows from the input alone.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import os
import random
import re
from typing import NamedTuple

from absl import logging

from vatt_tf.core import progress_bar
from vatt_tf.media import (
  caption_cues,
  caption_files,
  caption_tables,
  clock,
  decode,
  decode_settings,
  errors,
  manifest,
  text_files,
  worker,
)
from vatt_tf.media import journal as journal_lib

DEFAULT_NUM_SHARDS = 16
DEFAULT_FOLDER_CLIP_SECONDS = 10.0

# How captions are found when no file is named.
AUTO = 'auto'
NONE = 'none'

# Clips of one file that are decoded in one go.
_TASK_LENGTH = 30 * clock.SECOND


# What the reasons of notes begin with.
NOTE = 'note: '


class Skip(NamedTuple):
  """A line of the skip report.

  Attributes:
    file: The path, as in the manifest.
    start: Seconds, or ''.
    end: Seconds, or ''.
    reason: Why there is no record.
    is_failure: Whether it counts as failed; a file that is no media does not.
    is_note: Whether there is a record all the same, and a part of the file is
      not in it.
  """

  file: str
  start: str
  end: str
  reason: str
  is_failure: bool = True
  is_note: bool = False


class Work(NamedTuple):
  """A task and what it belongs to."""

  segment: manifest.Segment
  task: worker.Task
  cues: list[caption_cues.Cue] | None


@dataclasses.dataclass(frozen=True)
class Options:
  """Every argument of `ingest` that the records depend on."""

  manifest: str
  media_root: str
  name: str
  num_shards: int | None
  settings: decode_settings.Settings
  captions: str
  caption_encoding: str
  caption_margin_seconds: float
  clip_seconds: float | None
  clip_overlap_seconds: float
  min_clip_seconds: float | None
  labels: str
  dataset_name: str
  shuffle: bool
  manifest_encoding: str
  ignore_columns: tuple[str, ...]

  def check(self) -> None:
    """Raises `ValueError` where an argument is out of range."""
    settings = self.settings
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', self.name):
      raise ValueError(
        '`name` must begin with a letter or digit and hold only letters, '
        f'digits, `_`, `.` and `-`. Received: name={self.name!r}'
      )
    for name, value, low, high in (
      ('num_shards', self.num_shards, 1, 99999),
      ('frame_rate', settings.frame_rate, 0.001, 1000),
      ('shorter_side', settings.shorter_side, 1, 16384),
      ('jpeg_quality', settings.jpeg_quality, 1, 100),
      ('audio_rate', settings.audio_rate, 1000, 768000),
      ('video_stream', settings.video_stream, 0, 1000),
      ('audio_stream', settings.audio_stream, 0, 1000),
      ('caption_stream', settings.caption_stream, 0, 1000),
      ('caption_margin_seconds', self.caption_margin_seconds, 0, 1e6),
      ('clip_seconds', self.clip_seconds, 0, 1e6),
      ('clip_overlap_seconds', self.clip_overlap_seconds, 0, 1e6),
      ('min_clip_seconds', self.min_clip_seconds, 0, 1e6),
    ):
      if value is not None and not low <= value <= high:
        raise ValueError(
          f'`{name}` must be in [{low:g}, {high:g}]. Received: {name}={value}'
        )
    if self.clip_seconds and self.clip_overlap_seconds >= self.clip_seconds:
      raise ValueError(
        '`clip_overlap_seconds` must be less than `clip_seconds`. Received: '
        f'clip_overlap_seconds={self.clip_overlap_seconds}, '
        f'clip_seconds={self.clip_seconds}'
      )
    if self.clip_overlap_seconds and not self.clip_seconds:
      raise ValueError(
        '`clip_overlap_seconds` needs `clip_seconds`. Received: '
        f'clip_overlap_seconds={self.clip_overlap_seconds}, '
        f'clip_seconds={self.clip_seconds}'
      )
    if not (settings.use_video or settings.use_audio):
      raise ValueError(
        '`use_video` or `use_audio` must be true. Received: '
        'use_video=False, use_audio=False'
      )
    text_files.check_encoding(self.caption_encoding, 'caption_encoding')
    text_files.check_encoding(self.manifest_encoding, 'manifest_encoding')


def cut(
  start: int,
  end: int,
  length: int,
  overlap: int = 0,
  min_length: int | None = None,
) -> list[tuple[int, int]]:
  """Cuts a span of time into clips; nothing of it is lost.

  Args:
    start: µs.
    end: µs.
    length: Of a clip, µs; 0 for no cutting.
    overlap: Of a clip with the next, µs.
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


class _CaptionFinder:
  """Finds the captions of a segment: the first source that has some.

  The order: the manifest's own, the `captions` file or folder, a caption file
  beside the media file, a text track in it.

  Attributes:
    used: Paths of the caption files that belong to a segment.
    skips: Notes on what was left out of the file with all captions.
  """

  def __init__(self, options: Options, segments: Sequence[manifest.Segment]):
    self._options = options
    self._names = {}
    self._table = None
    self._folder = None
    self.used = set()
    self.skips = []
    where = options.captions
    if where in (AUTO, NONE):
      return
    if os.path.isdir(where):
      self._folder = where
    elif not os.path.isfile(where):
      raise ValueError(
        f'`captions` must be {AUTO}, {NONE}, a folder of caption files, or a '
        'json or csv file with the captions of all videos. Received: '
        f'captions={where!r}, which is not there'
      )
    elif os.path.splitext(where)[1].lower() not in ('.json', '.csv'):
      raise ValueError(
        '`captions` as a file must be .json or .csv and hold the captions of '
        'all videos; name the folder for .srt and .vtt files. Received: '
        f'captions={where!r}'
      )
    else:
      wanted = {caption_tables.video_key(segment.path) for segment in segments}
      name = os.path.basename(where)
      notes = caption_cues.Notes(name)
      self._table = caption_tables.read_table(
        where, wanted, options.caption_encoding, notes
      )
      self.skips = [
        Skip(name, '', '', f'{NOTE}{note.reason}', False, True)
        for note in notes.as_list()
      ]
      logging.info(
        '%s has captions for %d of %d files.',
        where,
        len(self._table),
        len(wanted),
      )

  def cues(self, segment: manifest.Segment) -> list[caption_cues.Cue] | None:
    """Captions that are known now; None if they are read with the media."""
    if segment.captions:
      end = caption_cues.OPEN_END if segment.end is None else segment.end
      return [
        caption_cues.Cue(segment.start, end, text) for text in segment.captions
      ]
    if self._table is not None:
      return self._table.get(caption_tables.video_key(segment.path), [])
    if self._options.captions == NONE:
      return []
    return None

  def file(self, segment: manifest.Segment) -> str:
    """The caption file of a segment, or ''."""
    folder, name = os.path.split(
      os.path.join(self._options.media_root, segment.path)
    )
    if self._folder is not None:
      folder = self._folder
    if folder not in self._names:
      names = os.listdir(folder) if os.path.isdir(folder) else []
      self._names[folder] = _CaptionNames(names)
    found = self._names[folder].find(
      name, self._options.settings.caption_language
    )
    if not found:
      return ''
    self.used.add(os.path.normpath(os.path.join(folder, found)))
    return os.path.join(folder, found)

  @property
  def reads_streams(self) -> bool:
    """Whether a file without captions elsewhere is asked for its tracks."""
    return self._options.captions == AUTO


class _CaptionNames:
  """The caption files of a folder, by what their names begin with."""

  def __init__(self, names: Iterable[str]):
    self._by_stem = {}
    for name in names:
      base, extension = os.path.splitext(name)
      if extension.lower() in caption_files.EXTENSIONS:
        # With and without what may be a language.
        for stem in {base, os.path.splitext(base)[0]}:
          self._by_stem.setdefault(stem, []).append(name)

  def find(self, media_name: str, language: str) -> str:
    """The caption file of a media file, or ''."""
    stem = os.path.splitext(media_name)[0]
    names = self._by_stem.get(stem, ())
    return caption_files.find_beside(names, media_name, language)


def _absolute(root: str, path: str) -> str:
  return os.path.join(root, path) if path else ''


def skip_of(
  segment: manifest.Segment,
  start: int | None,
  end: int | None,
  error: errors.MediaError,
  is_listed: bool,
) -> Skip:
  """The line of the skip report for a clip that could not be made."""
  reason = str(error)
  extension = os.path.splitext(segment.path)[1].lower()
  is_failure = is_listed or extension in manifest.MEDIA_EXTENSIONS
  if not is_failure:
    reason = f'not a media file: {reason}'
  return Skip(segment.path, *_seconds(start, end), reason, is_failure)


def skip_of_note(segment: manifest.Segment, note: errors.Note) -> Skip:
  """The line of the skip report for a part of a file that was left out."""
  file = segment.path
  if note.file:
    file = os.path.join(os.path.dirname(file), note.file)
  times = _seconds(note.start, note.end)
  return Skip(file, *times, f'{NOTE}{note.reason}', False, True)


def without_repeated_notes(skips: Iterable[Skip]) -> list[Skip]:
  """Skips with each note once: several tasks of a file may have the same."""
  skips = list(skips)
  notes = dict.fromkeys(skip for skip in skips if skip.is_note)
  return [skip for skip in skips if not skip.is_note] + list(notes)


def _seconds(*times: int | None) -> list[str]:
  return ['' if one is None else f'{one / clock.SECOND:g}' for one in times]


class Plan:
  """All tasks in the order in which they are done, and their shards.

  Attributes:
    work: The tasks.
    shards: Of each task the index of its shard.
    skips: Of segments that need no task to know that they fail.
    num_shards: Files to write.
    num_clips: Clips to make if none fails.
  """

  def __init__(
    self,
    options: Options,
    segments: Sequence[manifest.Segment],
    pool: worker.Pool,
    journal: journal_lib.Journal,
    show_progress: bool,
  ):
    self._options = options
    self._is_folder = not options.manifest
    self.skips = []
    self._finder = _CaptionFinder(options, segments)
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
    """In a folder: the files that are not captions and can be named."""
    if not self._is_folder:
      return list(segments)
    media, texts = [], []
    for segment in segments:
      # Bytes that are no UTF-8 are surrogates in Python's paths.
      name = segment.path.encode('utf-8', 'backslashreplace').decode('utf-8')
      if name != segment.path:
        error = errors.MediaError(
          'records hold names as UTF-8, and its name is in another encoding: '
          'rename it'
        )
        named = dataclasses.replace(segment, video_path=name)
        self.skips.append(skip_of(named, None, None, error, False))
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
          Skip(
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
  ) -> list[tuple[manifest.Segment, list[decode.Span]]]:
    """The clips of each segment."""
    options = self._options
    clip_seconds = options.clip_seconds
    if clip_seconds is None:
      clip_seconds = DEFAULT_FOLDER_CLIP_SECONDS if self._is_folder else 0.0
    length = round(clip_seconds * clock.SECOND)
    shortest = None
    if options.min_clip_seconds is not None:
      shortest = round(options.min_clip_seconds * clock.SECOND)
    ends = {}
    if length or shortest:
      ends = self._find_ends(
        [one for one in segments if one.end is None],
        pool,
        journal,
        show_progress,
      )
    pieces = []
    for segment in segments:
      end, is_exact = segment.end, True
      if segment.end is None and ends:
        end, is_exact = ends[segment.video_path, segment.audio_path], False
      if isinstance(end, str):
        error = errors.MediaError(end)
        self.skips.append(
          skip_of(segment, None, None, error, not self._is_folder)
        )
        continue
      if end is not None and shortest and end - segment.start < shortest:
        error = errors.MediaError(
          f'it is {clock.format_seconds(max(0, end - segment.start))} long, '
          f'shorter than `min_clip_seconds`={options.min_clip_seconds:g}'
        )
        self.skips.append(skip_of(segment, segment.start, end, error, True))
        continue
      if end is None or end <= segment.start:
        spans = [decode.Span(segment.start, segment.end, is_exact)]
      else:
        overlap = round(options.clip_overlap_seconds * clock.SECOND)
        spans = [
          decode.Span(*times, is_exact)
          for times in cut(segment.start, end, length, overlap, shortest)
        ]
      pieces.append((segment, spans))
    return pieces

  def _is_picture(self, video_path: str, audio_path: str) -> bool:
    """Whether a row is a picture; in a folder pictures are no media."""
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
    """Where the files of segments end, µs, or why that cannot be known."""
    options = self._options
    keys = dict.fromkeys((one.video_path, one.audio_path) for one in segments)
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
    pieces: Iterable[tuple[manifest.Segment, list[decode.Span]]],
    length: int,
  ) -> Iterator[Work]:
    """Tasks of clips that follow each other, up to `length` µs together."""
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
