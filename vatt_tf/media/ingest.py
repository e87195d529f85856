"""From media files to shards of records, on every core, to be resumed.

The work is planned first: segments (rows of a manifest, or the files of a
folder) become clips, clips of one file that follow each other become tasks,
tasks are shuffled and dealt to shards. The plan depends on the input alone, so
that the shards are the same for any number of workers, and however often the
work was interrupted. Then the tasks are done in order: one shard at a time
grows under a temporary name, while `NAME.progress.jsonl` notes each task that
is done and why clips were skipped.
"""

import bisect
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import csv
import dataclasses
import fcntl
import glob
import hashlib
import io
import itertools
import json
import os
import random
import re
import sys
from typing import NamedTuple

from absl import logging
import tensorflow as tf
import tqdm

from vatt_tf.input_pipeline import records
from vatt_tf.media import captions as captions_lib
from vatt_tf.media import (
  decode,
  errors,
  manifest,
  media_file,
  text_files,
  worker,
)

DEFAULT_NUM_SHARDS = 16
DEFAULT_FOLDER_CLIP_SECONDS = 10.0

LABELS_FILE = 'labels.txt'
INFO_FILE = 'dataset_info.json'

# How captions are found when no file is named.
AUTO = 'auto'
NONE = 'none'

# Clips of one file that are decoded in one go.
_TASK_LENGTH = 30 * decode.SECOND

_FORMAT_VERSION = 1

# What the journal counts of each task, beside its records.
_COUNTS = (
  'num_with_video',
  'num_with_audio',
  'num_with_captions',
  'num_captions',
  'microseconds',
)


class TooManyFailedError(RuntimeError):
  """More clips failed than `max_failed_share` allows.

  Attributes:
    result: The `Result`: the shards are complete but for these clips.
  """

  def __init__(self, message: str, result: 'Result'):
    super().__init__(message)
    self.result = result


@dataclasses.dataclass
class Result:
  """What an ingest made.

  Attributes:
    pattern: Matches the shards.
    num_clips: Records written.
    num_failed: Clips that could not be made.
    num_other_files: Files of the folder that are no media.
    num_with_video: Records with frames.
    num_with_audio: Records with sound.
    num_with_captions: Records with a caption.
    num_captions: Captions of all records.
    num_labels: Lines of `labels.txt`; 0 without labels.
    num_shards: Shards written.
    seconds: Length of all clips together.
    num_resumed: Of the records, those that an earlier run had made.
    skip_report: Path of the csv that names each file without a record.
    labels_path: Path of `labels.txt`, or ''.
  """

  pattern: str = ''
  num_clips: int = 0
  num_failed: int = 0
  num_other_files: int = 0
  num_with_video: int = 0
  num_with_audio: int = 0
  num_with_captions: int = 0
  num_captions: int = 0
  num_labels: int = 0
  num_shards: int = 0
  seconds: float = 0.0
  num_resumed: int = 0
  skip_report: str = ''
  labels_path: str = ''

  def describe(self) -> str:
    """One paragraph for people."""
    text = (
      f'{self.num_clips} clips ({self.seconds / 60:.1f} minutes) in '
      f'{self.num_shards} shards {self.pattern}: {self.num_with_video} with '
      f'video, {self.num_with_audio} with sound, {self.num_with_captions} with '
      f'captions ({self.num_captions} in all)'
    )
    if self.num_labels:
      text += f', {self.num_labels} classes'
    if self.num_resumed:
      text += f'; {self.num_resumed} of them were there from an earlier run'
    text += '.'
    if self.num_failed or self.num_other_files:
      text += (
        f' {self.num_failed} clips failed and {self.num_other_files} files are '
        f'no media: see {self.skip_report}.'
      )
    return text


class Skip(NamedTuple):
  """A line of the skip report.

  Attributes:
    file: The path, as in the manifest.
    start: Seconds, or ''.
    end: Seconds, or ''.
    reason: Why there is no record.
    is_failure: Whether it counts as failed; a file that is no media does not.
  """

  file: str
  start: str
  end: str
  reason: str
  is_failure: bool = True


class _Work(NamedTuple):
  """A task and what it belongs to."""

  segment: manifest.Segment
  task: worker.Task
  cues: list[captions_lib.Cue] | None


@dataclasses.dataclass(frozen=True)
class _Options:
  """Every argument of `ingest` that the records depend on."""

  manifest: str
  media_root: str
  name: str
  num_shards: int | None
  settings: decode.Settings
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


def _write_text(path: str, text: str) -> None:
  """Writes a file so that it is either whole or as it was before."""
  temporary = f'{path}.{os.getpid()}.part'
  with open(temporary, 'w', encoding='utf-8', newline='') as file:
    file.write(text)
  os.replace(temporary, path)


def _progress_bar(*args, **kwargs) -> tqdm.tqdm:
  """A bar on standard error; in a log file a line now and then."""
  seconds = 0.2 if sys.stderr.isatty() else 15.0
  return tqdm.tqdm(*args, mininterval=seconds, maxinterval=seconds, **kwargs)


# Planning.


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
  """

  def __init__(self, options: _Options, segments: Sequence[manifest.Segment]):
    self._options = options
    self._names = {}
    self._table = None
    self._folder = None
    self.used = set()
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
      wanted = {captions_lib.video_key(segment.path) for segment in segments}
      self._table = captions_lib.read_table(
        where, wanted, options.caption_encoding
      )
      logging.info(
        '%s has captions for %d of %d files.',
        where,
        len(self._table),
        len(wanted),
      )

  def cues(self, segment: manifest.Segment) -> list[captions_lib.Cue] | None:
    """Captions that are known now; None if they are read with the media."""
    if segment.captions:
      end = 1 << 62 if segment.end is None else segment.end
      return [
        captions_lib.Cue(segment.start, end, text) for text in segment.captions
      ]
    if self._table is not None:
      return self._table.get(captions_lib.video_key(segment.path), [])
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
      if extension.lower() in captions_lib.EXTENSIONS:
        # With and without what may be a language.
        for stem in {base, os.path.splitext(base)[0]}:
          self._by_stem.setdefault(stem, []).append(name)

  def find(self, media_name: str, language: str) -> str:
    """The caption file of a media file, or ''."""
    stem = os.path.splitext(media_name)[0]
    names = self._by_stem.get(stem, ())
    return captions_lib.find_beside(names, media_name, language)


def _absolute(root: str, path: str) -> str:
  return os.path.join(root, path) if path else ''


def _skip_of(
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
  times = [
    '' if time is None else f'{time / decode.SECOND:g}' for time in (start, end)
  ]
  return Skip(segment.path, *times, reason, is_failure)


class _Plan:
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
    options: _Options,
    segments: Sequence[manifest.Segment],
    pool: worker.Pool,
    journal: '_Journal',
    show_progress: bool,
  ):
    self._options = options
    self._is_folder = not options.manifest
    self.skips = []
    self._finder = _CaptionFinder(options, segments)
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
    """In a folder: the files that are not captions of another one."""
    if not self._is_folder:
      return list(segments)
    media, texts = [], []
    for segment in segments:
      extension = os.path.splitext(segment.path)[1].lower()
      is_text = extension in captions_lib.EXTENSIONS
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
    journal: '_Journal',
    show_progress: bool,
  ) -> list[tuple[manifest.Segment, list[decode.Span]]]:
    """The clips of each segment."""
    options = self._options
    clip_seconds = options.clip_seconds
    if clip_seconds is None:
      clip_seconds = DEFAULT_FOLDER_CLIP_SECONDS if self._is_folder else 0.0
    length = round(clip_seconds * decode.SECOND)
    shortest = None
    if options.min_clip_seconds is not None:
      shortest = round(options.min_clip_seconds * decode.SECOND)
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
          _skip_of(segment, None, None, error, not self._is_folder)
        )
        continue
      if end is not None and shortest and end - segment.start < shortest:
        error = errors.MediaError(
          f'it is {media_file.seconds(max(0, end - segment.start))} long, '
          f'shorter than `min_clip_seconds`={options.min_clip_seconds:g}'
        )
        self.skips.append(_skip_of(segment, segment.start, end, error, True))
        continue
      if end is None or end <= segment.start:
        spans = [decode.Span(segment.start, segment.end, is_exact)]
      else:
        overlap = round(options.clip_overlap_seconds * decode.SECOND)
        spans = [
          decode.Span(*times, is_exact)
          for times in cut(segment.start, end, length, overlap, shortest)
        ]
      pieces.append((segment, spans))
    return pieces

  def _find_ends(
    self,
    segments: Sequence[manifest.Segment],
    pool: worker.Pool,
    journal: '_Journal',
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
      )
      for video, audio in missing
    ]
    results = _progress_bar(
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
  ) -> Iterator[_Work]:
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
            caption_margin=round(
              options.caption_margin_seconds * decode.SECOND
            ),
            use_caption_stream=(
              cues is None and not path and self._finder.reads_streams
            ),
          )
          yield _Work(segment, task, cues)
          group = []


# What is done.


class _Journal:
  """`NAME.progress.jsonl`: what an unfinished ingest has done so far.

  Args:
    path: The file.
    fingerprint: Of everything that the records depend on.

  Attributes:
    ends: From (video_path, audio_path) to where the file ends, or the error.
    tasks: What each finished task gave, in order.
  """

  def __init__(self, path: str, fingerprint: str):
    self._path = path
    self.ends = {}
    self.tasks = []
    self._file = open(path, 'a+', encoding='utf-8')  # noqa: SIM115
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
      self._file.close()
      raise ValueError(
        f'Another ingest is writing {path}: let it end, or give another '
        '`name` or `output_dir`.'
      ) from e
    try:
      self._load(fingerprint)
    except ValueError:
      self._file.close()
      raise

  def _load(self, fingerprint: str) -> None:
    self._file.seek(0)
    text = self._file.read()
    # A line that a killed run left half-written is as good as not there.
    whole = text[: text.rfind('\n') + 1]
    if whole != text:
      self._file.truncate(len(whole.encode('utf-8')))
    lines = [json.loads(line) for line in whole.splitlines()]
    if not lines:
      self._write({'fingerprint': fingerprint})
      return
    if lines[0].get('fingerprint') != fingerprint:
      raise ValueError(_changed(self._path))
    for line in lines[1:]:
      if 'end' in line:
        self.ends[tuple(line['file'])] = line['end']
      else:
        self.tasks.append(line)

  def _write(self, line: dict) -> None:
    self._file.write(json.dumps(line, ensure_ascii=False) + '\n')
    self._file.flush()

  def add_end(self, key: tuple[str, str], end: int | str) -> None:
    """Notes where a file ends."""
    self.ends[key] = end
    self._write({'file': key, 'end': end})

  def add_task(self, line: dict) -> None:
    """Notes a task that is done."""
    self.tasks.append(line)
    self._write(line)

  def forget_tasks_from(self, index: int) -> None:
    """Takes back tasks whose records were not saved."""
    if index == len(self.tasks):
      return
    kept, self.tasks = self.tasks[:index], []
    self._file.seek(0)
    head = [
      line
      for line in self._file.read().splitlines()
      if 'records' not in json.loads(line)
    ]
    self._file.seek(0)
    self._file.truncate()
    self._file.write(''.join(line + '\n' for line in head))
    for line in kept:
      self.add_task(line)

  def close(self) -> None:
    """Closes the file and lets others have it."""
    self._file.close()

  def remove(self) -> None:
    """Removes the file: the work is finished."""
    os.remove(self._path)


def _changed(path: str) -> str:
  return (
    f'{path} belongs to an ingest with another manifest, other files or other '
    'options. Run it with the same ones to go on, give another `name` or '
    '`output_dir`, or start again with `overwrite` (--overwrite), which '
    'removes the shards of this name.'
  )


def _fingerprint(
  options: _Options,
  segments: Sequence[manifest.Segment],
  label_names: Sequence[str],
) -> str:
  """A digest of everything that the records depend on, but for the files."""
  values = dataclasses.asdict(options)
  for key in ('manifest', 'media_root', 'labels'):
    values.pop(key)
  values['is_folder'] = not options.manifest
  values['settings'].pop('num_threads')
  if options.captions not in (AUTO, NONE):
    values['captions'] = os.path.basename(os.path.normpath(options.captions))
  values['segments'] = [dataclasses.astuple(segment) for segment in segments]
  values['label_names'] = list(label_names)
  values['format'] = _FORMAT_VERSION
  text = json.dumps(values, sort_keys=True, ensure_ascii=True)
  return hashlib.sha256(text.encode('utf-8')).hexdigest()


def read_labels(path: str) -> list[str]:
  """The class names of a `labels.txt`: line i names class i.

  Raises:
    errors.MediaError: It cannot be read, or has an empty line or a class twice.
  """
  names = text_files.read_text(path).split('\n')
  if names and not names[-1]:
    names.pop()
  if '' in names or len(set(names)) < len(names):
    raise errors.MediaError(
      f'{path} must have one class a line, each once, and no empty line.'
    )
  return names


def _load_labels(
  options: _Options, output_dir: str, segments: Sequence[manifest.Segment]
) -> tuple[str, list[str]]:
  """Path and names of the classes; writes `labels.txt` if there is none."""
  used = {label for segment in segments for label in segment.labels}
  own = os.path.join(output_dir, LABELS_FILE)
  path = options.labels or own
  if options.labels or os.path.exists(own):
    if not used and not options.labels:
      return '', []
    names = read_labels(path)
    unknown = sorted(used - set(names))
    if unknown:
      raise ValueError(
        f'{len(unknown)} labels of {options.manifest} are not in {path}: '
        f'{", ".join(unknown[:5])}{", ..." if len(unknown) > 5 else ""}. It '
        f'has {len(names)}: {", ".join(names[:10])}'
        f'{", ..." if len(names) > 10 else ""}. Correct the manifest; or, to '
        'make the classes anew, remove that file (or give another '
        '`output_dir`) and ingest every split again with --overwrite.'
      )
    if options.labels and not os.path.exists(own):
      _write_text(own, ''.join(f'{name}\n' for name in names))
    elif options.labels and read_labels(own) != names:
      raise ValueError(
        f'{own} has other classes than `labels`={options.labels}. Leave '
        '`labels` out, or give another `output_dir`.'
      )
    return own, names
  if not used:
    return '', []
  names = sorted(used)
  _write_text(own, ''.join(f'{name}\n' for name in names))
  return own, names


def _read_info(output_dir: str) -> dict:
  path = os.path.join(output_dir, INFO_FILE)
  if not os.path.exists(path):
    return {'format_version': _FORMAT_VERSION, 'splits': {}}
  text = text_files.read_text(path)
  try:
    info = json.loads(text)
    info['splits'].keys()
  except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as e:
    raise ValueError(
      f'{path} is not what ingest writes. Move it away, or give another '
      '`output_dir`.'
    ) from e
  return info


def _shard_glob(output_dir: str, name: str) -> list[str]:
  """The shards of a name that are in a folder, whatever their number."""
  pattern = os.path.join(
    glob.escape(output_dir), f'{glob.escape(name)}-*-of-*.tfrecord'
  )
  form = re.compile(re.escape(name) + r'-\d{5}-of-\d{5}\.tfrecord')
  return [
    path
    for path in sorted(glob.glob(pattern))
    if form.fullmatch(os.path.basename(path))
  ]


def _temporary_shards(output_dir: str, name: str) -> list[str]:
  """Unfinished shards that a run which was killed has left."""
  form = re.compile(
    r'\.' + re.escape(name) + r'-\d{5}-of-\d{5}\.tfrecord\.\d+\.part'
  )
  return [
    os.path.join(output_dir, one)
    for one in sorted(os.listdir(output_dir))
    if form.fullmatch(one)
  ]


def _whole_records(path: str) -> Iterator[bytes]:
  """The records of an unfinished shard, as far as they are whole."""
  with contextlib.suppress(tf.errors.DataLossError):
    yield from tf.data.TFRecordDataset(path).as_numpy_iterator()


def _make_clip(
  work: _Work,
  decoded: decode.DecodedClip,
  options: _Options,
  label_indices: dict[str, int],
) -> records.Clip:
  """A decoded clip with its captions, labels and provenance.

  Times of captions count from the start of the clip, as those of frames do.
  """
  cues = decoded.cues
  if work.cues is not None:
    cues = captions_lib.in_span(
      work.cues, decoded.start, decoded.end, work.task.caption_margin
    )
  limits = (decoded.start, decoded.end)
  if not work.segment.captions:
    limits = (-(1 << 62), 1 << 62)
  segment = work.segment
  rate = options.settings.frame_rate
  return records.Clip(
    example_id=f'{segment.path}:{decoded.start}-{decoded.end}',
    dataset_name=options.dataset_name,
    frames=decoded.frames,
    timestamps=records.frame_times(len(decoded.frames), rate),
    frame_rate=rate if decoded.frames else 0.0,
    height=decoded.height,
    width=decoded.width,
    waveform=decoded.audio,
    sample_rate=0.0 if decoded.audio is None else options.settings.audio_rate,
    captions=[
      records.Caption(
        cue.text,
        max(cue.start, limits[0]) - decoded.start,
        min(cue.end, limits[1]) - decoded.start,
      )
      for cue in cues
    ],
    label_indices=[label_indices[label] for label in segment.labels],
    label_names=list(segment.labels),
    data_path=segment.path,
    start=decoded.start,
    end=decoded.end,
  )


class _Writer:
  """Does the tasks of a plan that are not done, and writes their records."""

  def __init__(
    self,
    output_dir: str,
    options: _Options,
    plan: _Plan,
    journal: _Journal,
    label_names: Sequence[str],
  ):
    self._output_dir = output_dir
    self._options = options
    self._plan = plan
    self._journal = journal
    self._label_indices = {name: i for i, name in enumerate(label_names)}

  def _path(self, shard: int) -> str:
    return records.shard_path(
      self._output_dir, self._options.name, shard, self._plan.num_shards
    )

  def _salvage(self) -> tuple[int, int, str]:
    """Finds what an interrupted run has left.

    Returns:
      How many tasks need not be done again; how many of their records are in
      a shard that was not finished; and the path of that one, or ''.
    """
    plan, noted = self._plan, self._journal.tasks
    done = 0
    while done < len(noted):
      shard = plan.shards[done]
      last = bisect.bisect_right(plan.shards, shard)
      counts = [line['records'] for line in noted[done:last]]
      path = self._path(shard)
      if last <= len(noted) and os.path.exists(path):
        if records.count_records(path) != sum(counts):
          break
        done = last
        continue
      prefix = f'.{os.path.basename(path)}.'
      found, leftover = max(
        (
          (sum(1 for _ in _whole_records(one)), one)
          for one in _temporary_shards(self._output_dir, self._options.name)
          if os.path.basename(one).startswith(prefix)
        ),
        default=(0, ''),
      )
      kept = 0
      for count in counts:
        if kept + count > found:
          break
        kept += count
        done += 1
      return done, kept, leftover
    return done, 0, ''

  def run(self, pool: worker.Pool, show_progress: bool) -> int:
    """Writes every shard that is not there.

    Returns:
      How many records an earlier run had made.
    """
    plan = self._plan
    done, num_kept, leftover = self._salvage()
    self._journal.forget_tasks_from(done)
    num_resumed = sum(line['records'] for line in self._journal.tasks)
    # From here on it cannot have the name of the shard that is opened below.
    kept_path = ''
    if num_kept:
      kept_path = os.path.join(
        self._output_dir,
        f'.{os.path.basename(self._path(plan.shards[done - 1]))}.0.part',
      )
      os.replace(leftover, kept_path)
    for path in _temporary_shards(self._output_dir, self._options.name):
      if path != kept_path:
        os.remove(path)
    first_shard = plan.shards[done - 1] if num_kept else 0
    if not num_kept and done < len(plan.shards):
      first_shard = plan.shards[done]
    results = pool.map(one.task for one in plan.work[done:])
    with _progress_bar(
      total=plan.num_clips,
      initial=sum(one.task.num_results for one in plan.work[:done]),
      desc=self._options.name,
      unit=' clips',
      disable=not show_progress,
    ) as bar:
      i = done
      for shard in range(first_shard, plan.num_shards):
        last = bisect.bisect_right(plan.shards, shard)
        if i == last and not kept_path:
          continue
        # No `with`: what is written so far is for the next run to go on from.
        shard_writer = records.ShardWriter(self._path(shard))
        if kept_path:
          for record in itertools.islice(_whole_records(kept_path), num_kept):
            shard_writer.write(record)
          os.remove(kept_path)
          kept_path = ''
        while i < last:
          _, decoded = next(results)
          self._write_task(plan.work[i], decoded, shard_writer)
          bar.update(len(decoded))
          i += 1
        shard_writer.close()
    return num_resumed

  def _write_task(
    self,
    work: _Work,
    results: Sequence[decode.DecodedClip | errors.MediaError],
    shard_writer: records.ShardWriter,
  ) -> None:
    """Writes the records of a task, then notes that it is done."""
    line = dict.fromkeys(('records', *_COUNTS), 0)
    skips = []
    for span, result in zip(work.task.spans, results):
      if isinstance(result, errors.MediaError):
        skips.append(
          _skip_of(
            work.segment,
            span.start,
            span.end,
            result,
            bool(self._options.manifest),
          )
        )
        continue
      clip = _make_clip(work, result, self._options, self._label_indices)
      shard_writer.write(clip)
      line['records'] += 1
      line['num_with_video'] += bool(clip.frames)
      line['num_with_audio'] += clip.waveform is not None
      line['num_with_captions'] += bool(clip.captions)
      line['num_captions'] += len(clip.captions)
      line['microseconds'] += clip.end - clip.start
    line['skips'] = skips
    self._journal.add_task(line)


def _write_skip_report(path: str, skips: Iterable[Skip]) -> None:
  text = io.StringIO(newline='')
  table = csv.writer(text, lineterminator='\n')
  table.writerow(['file', 'start', 'end', 'reason'])
  table.writerows(skip[:4] for skip in sorted(skips))
  _write_text(path, text.getvalue())


def _finish(
  output_dir: str,
  options: _Options,
  plan: _Plan,
  journal: _Journal,
  fingerprint: str,
  label_names: Sequence[str],
) -> dict:
  """Writes the skip report and the entry of `dataset_info.json`."""
  skips = plan.skips + [
    Skip(*skip) for line in journal.tasks for skip in line['skips']
  ]
  _write_skip_report(
    os.path.join(output_dir, f'{options.name}.skipped.csv'), skips
  )
  shard_lengths = [0] * plan.num_shards
  for shard, line in zip(plan.shards, journal.tasks):
    shard_lengths[shard] += line['records']
  settings = options.settings
  entry = {
    'fingerprint': fingerprint,
    'dataset_name': options.dataset_name,
    'shards': f'{options.name}-?????-of-{plan.num_shards:05d}.tfrecord',
    'num_examples': sum(shard_lengths),
    'shard_lengths': shard_lengths,
    'num_failed': sum(skip.is_failure for skip in skips),
    'num_other_files': sum(not skip.is_failure for skip in skips),
    **{count: sum(line[count] for line in journal.tasks) for count in _COUNTS},
    'num_labels': len(label_names),
    'frame_rate': settings.frame_rate if settings.use_video else 0,
    'shorter_side': settings.shorter_side,
    'jpeg_quality': settings.jpeg_quality,
    'audio_rate': settings.audio_rate if settings.use_audio else 0,
  }
  # Another split of this folder may be finishing at the same moment.
  path = os.path.join(output_dir, INFO_FILE)
  with _locked(output_dir):
    info = _read_info(output_dir)
    info['splits'][options.name] = entry
    info['splits'] = dict(sorted(info['splits'].items()))
    _write_text(path, json.dumps(info, indent=2, ensure_ascii=False) + '\n')
  return entry


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
  """Holds a folder against other processes that ask the same."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def _result(
  output_dir: str, options: _Options, entry: dict, num_resumed: int
) -> Result:
  labels_path = os.path.join(output_dir, LABELS_FILE)
  return Result(
    pattern=os.path.join(output_dir, f'{options.name}-*.tfrecord'),
    num_clips=entry['num_examples'],
    num_failed=entry['num_failed'],
    num_other_files=entry['num_other_files'],
    num_with_video=entry['num_with_video'],
    num_with_audio=entry['num_with_audio'],
    num_with_captions=entry['num_with_captions'],
    num_captions=entry['num_captions'],
    num_labels=entry['num_labels'],
    num_shards=len(entry['shard_lengths']),
    seconds=entry['microseconds'] / decode.SECOND,
    num_resumed=num_resumed,
    skip_report=os.path.join(output_dir, f'{options.name}.skipped.csv'),
    labels_path=labels_path if entry['num_labels'] else '',
  )


def _is_complete(output_dir: str, entry: dict, name: str) -> bool:
  count = len(entry['shard_lengths'])
  return all(
    os.path.exists(records.shard_path(output_dir, name, i, count))
    for i in range(count)
  )


def _remove_split(output_dir: str, name: str) -> None:
  """Removes every file of a split but `labels.txt`."""
  for path in (
    *_shard_glob(output_dir, name),
    *_temporary_shards(output_dir, name),
    os.path.join(output_dir, f'{name}.skipped.csv'),
    _journal_path(output_dir, name),
  ):
    if os.path.exists(path):
      os.remove(path)
  path = os.path.join(output_dir, INFO_FILE)
  with _locked(output_dir):
    info = _read_info(output_dir)
    if info['splits'].pop(name, None) is not None:
      _write_text(path, json.dumps(info, indent=2, ensure_ascii=False) + '\n')


def _journal_path(output_dir: str, name: str) -> str:
  return os.path.join(output_dir, f'{name}.progress.jsonl')


def _check_free(output_dir: str, name: str, num_shards: int | None) -> None:
  """Raises `ValueError` if shards are there that no journal speaks of."""
  shards = _shard_glob(output_dir, name)
  if shards and not os.path.exists(_journal_path(output_dir, name)):
    raise ValueError(
      f'{output_dir} has {len(shards)} shards named {name}, such as '
      f'{os.path.basename(shards[0])}, that no {INFO_FILE} there describes. '
      'Give another `name` or `output_dir`, or `overwrite` (--overwrite) to '
      'remove them.'
    )


def ingest(
  output_dir: str,
  manifest_path: str = '',
  media_root: str = '',
  name: str = 'train',
  num_shards: int | None = None,
  frame_rate: float = 10.0,
  shorter_side: int = 256,
  enlarge: bool = False,
  jpeg_quality: int = 90,
  audio_rate: int = 48000,
  use_video: bool = True,
  use_audio: bool = True,
  video_stream: int | None = None,
  audio_stream: int | None = None,
  caption_stream: int | None = None,
  captions: str = AUTO,
  caption_language: str = '',
  caption_encoding: str = '',
  caption_margin_seconds: float = 0.0,
  clip_seconds: float | None = None,
  clip_overlap_seconds: float = 0.0,
  min_clip_seconds: float | None = None,
  labels: str = '',
  dataset_name: str = '',
  shuffle: bool = True,
  manifest_encoding: str = '',
  ignore_columns: Sequence[str] = (),
  num_workers: int | None = None,
  max_failed_share: float = 0.1,
  overwrite: bool = False,
  show_progress: bool = True,
) -> Result:
  """Makes shards of records from media files.

  Run again with the same arguments it goes on where it was interrupted, or
  finds that nothing is left to do. The shards do not depend on `num_workers`.

  Args:
    output_dir: Folder of the shards; made if it is not there.
    manifest_path: A manifest csv (see `manifest`). Without it every file of
      `media_root` is taken.
    media_root: Folder that the manifest's paths are relative to; by default
      that of the manifest.
    name: What the shards' names begin with: `train`, `validation`.
    num_shards: Files to write; by default 16, or the number of clips if that
      is less.
    frame_rate: Frames a second to keep.
    shorter_side: Pixels of a frame's shorter side.
    enlarge: Whether to scale smaller videos up; otherwise they keep their size.
    jpeg_quality: 1 to 100.
    audio_rate: Samples a second.
    use_video: Whether to keep frames.
    use_audio: Whether to keep sound.
    video_stream: Which video stream of a file, from 0; by default the first one
      marked as default, or else the first.
    audio_stream: Which audio stream, likewise.
    caption_stream: Which text track, likewise.
    captions: Where the captions of clips come from that have none in the
      manifest. `auto`: from a .srt, .vtt or .json file of the same name beside
      the media file, or else from a text track in it. A folder: from such files
      there. A .json or .csv file: from this table (see
      `captions.read_table`). `none`: from nowhere.
    caption_language: Which of several caption files (`clip.en.vtt`) or text
      tracks, such as `en`.
    caption_encoding: Of caption files; by default UTF-8. A byte order mark goes
      first.
    caption_margin_seconds: Captions up to so far outside a clip are kept too.
    clip_seconds: What is longer is cut into clips of this length. By default
      10 for a folder, and no cutting for a manifest: a row is a clip. 0: no
      cutting.
    clip_overlap_seconds: Of a clip with the next.
    min_clip_seconds: A rest shorter than this joins the clip before it, and
      files and rows that are shorter are skipped. By default a rest under half
      of `clip_seconds` joins, and nothing is skipped.
    labels: A `labels.txt` to take the classes from; by default the one in
      `output_dir`, or else it is made of the labels of the manifest.
    dataset_name: For `example/dataset_name`; by default the name of the media
      folder.
    shuffle: Whether to shuffle the clips (always in the same way).
    manifest_encoding: Of the manifest; by default UTF-8.
    ignore_columns: Columns of the manifest to leave out.
    num_workers: Processes that decode; by default one a core. 0 decodes in
      this one.
    max_failed_share: Of the clips: when more fail, an error is raised after
      all the others are written.
    overwrite: Whether to remove shards of this name and start again.
    show_progress: Whether to draw a progress bar on standard error.

  Returns:
    What was made.

  Raises:
    ValueError: An argument, the manifest or the label file is wrong, or the
      folder holds other shards of this name. `errors.MediaError` is one too.
    TooManyFailedError: More than `max_failed_share` of the clips failed, or
      all of them. All others are written.
  """
  if not manifest_path and not media_root:
    raise ValueError(
      '`manifest_path` (--manifest) or `media_root` (--media_root) must be '
      f'given. Received: manifest_path={manifest_path!r}, '
      f'media_root={media_root!r}'
    )
  if not output_dir or '://' in output_dir:
    raise ValueError(
      '`output_dir` must be a folder of this machine. Received: '
      f'output_dir={output_dir!r}'
    )
  if not 0 <= max_failed_share <= 1:
    raise ValueError(
      '`max_failed_share` must be in [0, 1]. Received: '
      f'max_failed_share={max_failed_share}'
    )
  num_workers = worker.num_cores() if num_workers is None else num_workers
  if num_workers < 0:
    raise ValueError(
      f'`num_workers` must not be negative. Received: num_workers={num_workers}'
    )
  media_root = os.path.abspath(media_root or os.path.dirname(manifest_path))
  if not os.path.isdir(media_root):
    raise ValueError(
      '`media_root` must be a folder with media files. Received: '
      f'media_root={media_root!r}'
    )
  options = _Options(
    manifest=manifest_path,
    media_root=media_root,
    name=name,
    num_shards=num_shards,
    settings=decode.Settings(
      frame_rate=frame_rate,
      shorter_side=shorter_side,
      enlarge=enlarge,
      jpeg_quality=jpeg_quality,
      audio_rate=audio_rate,
      use_video=use_video,
      use_audio=use_audio,
      video_stream=video_stream,
      audio_stream=audio_stream,
      caption_stream=caption_stream,
      caption_language=caption_language,
    ),
    captions=captions,
    caption_encoding=caption_encoding,
    caption_margin_seconds=caption_margin_seconds,
    clip_seconds=clip_seconds,
    clip_overlap_seconds=clip_overlap_seconds,
    min_clip_seconds=min_clip_seconds,
    labels=labels,
    dataset_name=dataset_name or os.path.basename(media_root),
    shuffle=shuffle,
    manifest_encoding=manifest_encoding,
    ignore_columns=tuple(ignore_columns),
  )
  options.check()
  if manifest_path:
    segments = manifest.read_manifest(
      manifest_path, manifest_encoding, ignore_columns
    )
  else:
    segments = manifest.scan_folder(media_root)
  os.makedirs(output_dir, exist_ok=True)
  if overwrite:
    _remove_split(output_dir, name)
  _, label_names = _load_labels(options, output_dir, segments)
  fingerprint = _fingerprint(options, segments, label_names)
  entry = _read_info(output_dir)['splits'].get(name)
  if entry and _is_complete(output_dir, entry, name):
    if entry['fingerprint'] != fingerprint:
      raise ValueError(_changed(os.path.join(output_dir, INFO_FILE)))
    logging.info('%s is complete: nothing is left to do.', name)
    result = _result(output_dir, options, entry, entry['num_examples'])
  else:
    _check_free(output_dir, name, num_shards)
    entry, num_resumed = _make(
      output_dir,
      options,
      segments,
      label_names,
      fingerprint,
      num_workers,
      show_progress,
    )
    result = _result(output_dir, options, entry, num_resumed)
  _check_share(result, max_failed_share)
  return result


def _make(
  output_dir: str,
  options: _Options,
  segments: Sequence[manifest.Segment],
  label_names: Sequence[str],
  fingerprint: str,
  num_workers: int,
  show_progress: bool,
) -> tuple[dict, int]:
  """Plans and does the work; returns the info entry and what was resumed."""
  journal = _Journal(_journal_path(output_dir, options.name), fingerprint)
  try:
    with worker.Pool(num_workers) as pool:
      plan = _Plan(options, segments, pool, journal, show_progress)
      writer = _Writer(output_dir, options, plan, journal, label_names)
      num_resumed = writer.run(pool, show_progress)
    entry = _finish(
      output_dir, options, plan, journal, fingerprint, label_names
    )
    journal.remove()
  finally:
    journal.close()
  return entry, num_resumed


def _check_share(result: Result, max_failed_share: float) -> None:
  total = result.num_clips + result.num_failed
  if result.num_clips and result.num_failed <= max_failed_share * total:
    return
  with open(result.skip_report, encoding='utf-8', newline='') as file:
    rows = list(csv.DictReader(file))
  examples = '\n'.join(f'  {row["file"]}: {row["reason"]}' for row in rows[:5])
  raise TooManyFailedError(
    f'{result.num_failed} of {total} clips failed, more than '
    f'`max_failed_share`={max_failed_share:g} allows; the others are written. '
    f'{result.skip_report} says why each one did:\n{examples}',
    result,
  )
