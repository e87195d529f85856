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
import re

from absl import logging
import tensorflow as tf

from vatt_tf.core import (
  command_line,
  file_utils,
  plain_text,
  progress_bar,
  strategies,
)
from vatt_tf.input_pipeline.records import schema, shard_files, writing
from vatt_tf.media import captions as captions_lib
from vatt_tf.media import (
  decode,
  errors,
  manifest,
  planning,
  text_files,
  worker,
)
from vatt_tf.media import journal as journal_lib

LABELS_FILE = 'labels.txt'
INFO_FILE = 'dataset_info.json'
SPLITS_FOLDER = 'splits'

_FORMAT_VERSION = 1

# What the journal counts of each task, beside its records.
_COUNTS = (
  'num_with_video',
  'num_with_audio',
  'num_with_captions',
  'num_captions',
  'microseconds',
)


@dataclasses.dataclass
class Result:
  """What an ingest made.

  Attributes:
    pattern: Matches the shards.
    num_clips: Records written.
    num_failed: Clips that could not be made.
    num_other_files: Files of the folder that are no media.
    num_notes: Parts of files that were left out or changed.
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
    split_sizes: From the lists of ids to how many each holds.
  """

  pattern: str = ''
  num_clips: int = 0
  num_failed: int = 0
  num_other_files: int = 0
  num_notes: int = 0
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
  split_sizes: dict[str, int] = dataclasses.field(default_factory=dict)

  def describe(self) -> str:
    """One paragraph for people."""
    count = command_line.count
    text = (
      f'{count(self.num_clips, "clip")} ({self.seconds / 60:.1f} minutes) in '
      f'{count(self.num_shards, "shard")} {self.pattern}: '
      f'{self.num_with_video} with video, {self.num_with_audio} with sound, '
      f'{self.num_with_captions} with captions ({self.num_captions} in all)'
    )
    if self.num_labels:
      text += f', {count(self.num_labels, "class")}'
    if self.num_resumed:
      text += f'; {self.num_resumed} of them were there from an earlier run'
    text += '.'
    if self.split_sizes:
      folder = os.path.join(os.path.dirname(self.pattern), SPLITS_FOLDER)
      sizes = [f'{name} {size}' for name, size in self.split_sizes.items()]
      text += f' Lists of ids in {folder}: {", ".join(sizes)}.'
    if self.num_failed or self.num_other_files:
      text += (
        f' {count(self.num_failed, "clip")} failed and '
        f'{count(self.num_other_files, "file")} of another kind: see '
        f'{self.skip_report}.'
      )
    if self.num_notes:
      text += (
        f' {count(self.num_notes, "note")} on parts of files that were left '
        f'out or changed: see {self.skip_report}.'
      )
    return text


def _fingerprint(
  options: planning.Options,
  segments: Sequence[manifest.Segment],
  label_names: Sequence[str],
) -> str:
  """A digest of everything that the records depend on, but for the files."""
  values = dataclasses.asdict(options)
  for key in ('manifest', 'media_root', 'labels'):
    values.pop(key)
  values['is_folder'] = not options.manifest
  values['settings'].pop('num_threads')
  if options.captions not in (planning.AUTO, planning.NONE):
    values['captions'] = os.path.basename(os.path.normpath(options.captions))
  # Without lists a data set keeps the digest of versions that had none.
  values['segments'] = [
    dataclasses.astuple(segment)[: None if segment.splits else -1]
    for segment in segments
  ]
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
  names = [plain_text.clean_name(name) for name in names]
  if names and not names[-1]:
    names.pop()
  if '' in names or len(set(names)) < len(names):
    raise errors.MediaError(
      f'{path} must have one class a line, each once (in one Unicode form, '
      'without marks that are not seen), and no empty line.'
    )
  return names


def _load_labels(
  options: planning.Options,
  output_dir: str,
  segments: Sequence[manifest.Segment],
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
      file_utils.write_text(own, ''.join(f'{name}\n' for name in names))
    elif options.labels and read_labels(own) != names:
      raise ValueError(
        f'{own} has other classes than `labels`={options.labels}. Leave '
        '`labels` out, or give another `output_dir`.'
      )
    return own, names
  if not used:
    return '', []
  names = sorted(used)
  file_utils.write_text(own, ''.join(f'{name}\n' for name in names))
  return own, names


def _write_info(output_dir: str, info: dict) -> None:
  text = json.dumps(info, indent=2, ensure_ascii=False) + '\n'
  file_utils.write_text(os.path.join(output_dir, INFO_FILE), text)


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
  work: planning.Work,
  decoded: decode.DecodedClip,
  options: planning.Options,
  label_indices: dict[str, int],
) -> schema.Clip:
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
  return schema.Clip(
    example_id=f'{segment.path}:{decoded.start}-{decoded.end}',
    dataset_name=options.dataset_name,
    frames=decoded.frames,
    timestamps=schema.frame_times(len(decoded.frames), rate),
    frame_rate=rate if decoded.frames else 0.0,
    height=decoded.height,
    width=decoded.width,
    waveform=decoded.audio,
    sample_rate=0.0 if decoded.audio is None else options.settings.audio_rate,
    captions=[
      schema.Caption(
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
    options: planning.Options,
    plan: planning.Plan,
    journal: journal_lib.Journal,
    label_names: Sequence[str],
  ):
    self._output_dir = output_dir
    self._options = options
    self._plan = plan
    self._journal = journal
    self._label_indices = {name: i for i, name in enumerate(label_names)}

  def _path(self, shard: int) -> str:
    return writing.shard_path(
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
        if shard_files.count_records(path) != sum(counts):
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
    with progress_bar.make(
      total=plan.num_clips,
      initial=sum(one.task.num_results for one in plan.work[:done]),
      desc=self._options.name,
      unit=' clips',
      disable=not show_progress,
    ) as bar:
      i = done
      for shard in range(first_shard, plan.num_shards):
        last = bisect.bisect_right(plan.shards, shard)
        if i >= last and not kept_path:
          continue
        # No `with`: what is written so far is for the next run to go on from.
        shard_writer = writing.ShardWriter(self._path(shard))
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
    work: planning.Work,
    results: Sequence[decode.DecodedClip | errors.MediaError],
    shard_writer: writing.ShardWriter,
  ) -> None:
    """Writes the records of a task, then notes that it is done."""
    line = dict.fromkeys(('records', *_COUNTS), 0)
    skips = []
    for span, result in zip(work.task.spans, results):
      if isinstance(result, errors.MediaError):
        skips.append(
          planning.skip_of(
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
      skips += [
        planning.skip_of_note(work.segment, note) for note in result.notes
      ]
      line['records'] += 1
      line['num_with_video'] += bool(clip.frames)
      line['num_with_audio'] += clip.waveform is not None
      line['num_with_captions'] += bool(clip.captions)
      line['num_captions'] += len(clip.captions)
      line['microseconds'] += clip.end - clip.start
      if work.segment.splits:
        line.setdefault('ids', []).append(clip.example_id)
    line['skips'] = skips
    self._journal.add_task(line)


def write_skip_report(path: str, skips: Iterable[planning.Skip]) -> None:
  """Writes the csv that names each file without a record, and says why."""
  text = io.StringIO(newline='')
  table = csv.writer(text, lineterminator='\n')
  table.writerow(['file', 'start', 'end', 'reason'])
  table.writerows(skip[:4] for skip in sorted(skips))
  file_utils.write_text(path, text.getvalue())


def _split_path(output_dir: str, split: str) -> str:
  return os.path.join(output_dir, SPLITS_FOLDER, f'{split}.txt')


def _write_splits(
  output_dir: str,
  segments: Sequence[manifest.Segment],
  plan: planning.Plan,
  journal: journal_lib.Journal,
) -> dict[str, int]:
  """Writes the lists of ids; returns how many each holds."""
  ids = {split: [] for segment in segments for split in segment.splits}
  for work, line in zip(plan.work, journal.tasks):
    for split in work.segment.splits:
      ids[split] += line.get('ids', [])
  for split, names in ids.items():
    file_utils.write_text(
      _split_path(output_dir, split),
      ''.join(f'{name}\n' for name in sorted(names)),
    )
  return {split: len(names) for split, names in sorted(ids.items())}


def _finish(
  output_dir: str,
  options: planning.Options,
  segments: Sequence[manifest.Segment],
  plan: planning.Plan,
  journal: journal_lib.Journal,
  fingerprint: str,
  label_names: Sequence[str],
) -> dict:
  """Writes the skip report and the entry of `dataset_info.json`."""
  skips = plan.skips + [
    planning.Skip(*skip) for line in journal.tasks for skip in line['skips']
  ]
  skips = planning.without_repeated_notes(skips)
  write_skip_report(
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
    'num_other_files': sum(
      not skip.is_failure and not skip.is_note for skip in skips
    ),
    'num_notes': sum(skip.is_note for skip in skips),
    **{count: sum(line[count] for line in journal.tasks) for count in _COUNTS},
    'num_labels': len(label_names),
    'frame_rate': settings.frame_rate if settings.use_video else 0,
    'shorter_side': settings.shorter_side,
    'jpeg_quality': settings.jpeg_quality,
    'audio_rate': settings.audio_rate if settings.use_audio else 0,
  }
  split_sizes = _write_splits(output_dir, segments, plan, journal)
  if split_sizes:
    entry['split_sizes'] = split_sizes
  # Another split of this folder may be finishing at the same moment.
  with _locked(output_dir):
    info = _read_info(output_dir)
    info['splits'][options.name] = entry
    info['splits'] = dict(sorted(info['splits'].items()))
    _write_info(output_dir, info)
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
  output_dir: str, options: planning.Options, entry: dict, num_resumed: int
) -> Result:
  labels_path = os.path.join(output_dir, LABELS_FILE)
  return Result(
    pattern=os.path.join(output_dir, f'{options.name}-*.tfrecord'),
    num_clips=entry['num_examples'],
    num_failed=entry['num_failed'],
    num_other_files=entry['num_other_files'],
    num_notes=entry.get('num_notes', 0),
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
    split_sizes=entry.get('split_sizes', {}),
  )


def _is_complete(output_dir: str, entry: dict, name: str) -> bool:
  count = len(entry['shard_lengths'])
  paths = [
    writing.shard_path(output_dir, name, i, count) for i in range(count)
  ] + _split_paths(output_dir, entry)
  return all(map(os.path.exists, paths))


def _split_paths(output_dir: str, entry: dict) -> list[str]:
  return [
    _split_path(output_dir, split) for split in entry.get('split_sizes', ())
  ]


def _check_splits_free(
  output_dir: str, name: str, segments: Sequence[manifest.Segment]
) -> None:
  """Raises `ValueError` if shards of another name have lists of these names."""
  wanted = {split for segment in segments for split in segment.splits}
  for other, entry in _read_info(output_dir)['splits'].items():
    taken = sorted(wanted & set(entry.get('split_sizes', ())))
    if taken and other != name:
      raise ValueError(
        f'{output_dir} has a list of ids {taken[0]!r} already, of the shards '
        f'named {other}. Give another `output_dir`, or other names in the '
        'column `splits`.'
      )


def _remove_split(output_dir: str, name: str) -> None:
  """Removes every file of a split but `labels.txt`."""
  entry = _read_info(output_dir)['splits'].get(name, {})
  for path in (
    *_shard_glob(output_dir, name),
    *_split_paths(output_dir, entry),
    *_temporary_shards(output_dir, name),
    os.path.join(output_dir, f'{name}.skipped.csv'),
    _journal_path(output_dir, name),
  ):
    if os.path.exists(path):
      os.remove(path)
  with _locked(output_dir):
    info = _read_info(output_dir)
    if info['splits'].pop(name, None) is not None:
      _write_info(output_dir, info)


def _journal_path(output_dir: str, name: str) -> str:
  return os.path.join(output_dir, f'{name}.progress.jsonl')


def _check_free(output_dir: str, name: str, is_described: bool) -> None:
  """Raises `ValueError` if shards are there that no journal speaks of."""
  shards = _shard_glob(output_dir, name)
  if shards and not os.path.exists(_journal_path(output_dir, name)):
    fault = f'that no {INFO_FILE} there describes'
    if is_described:
      fault = f'but not all that {INFO_FILE} there describes'
    raise ValueError(
      f'{output_dir} has {len(shards)} shards named {name}, such as '
      f'{os.path.basename(shards[0])}, {fault}. Give another `name` or '
      '`output_dir`, or `overwrite` (--overwrite) to remove them and make '
      'them anew.'
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
  captions: str = planning.AUTO,
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
    errors.TooManyFailedError: More than `max_failed_share` of the clips
      failed, or all of them. All others are written.
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
  num_workers = strategies.num_cores() if num_workers is None else num_workers
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
  options = planning.Options(
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
  file_utils.check_writable(output_dir, 'Give another `output_dir`.')
  if overwrite:
    journal = journal_lib.hold(_journal_path(output_dir, name))
    with contextlib.closing(journal):
      journal.clear()
      _remove_split(output_dir, name)
  _check_splits_free(output_dir, name, segments)
  _, label_names = _load_labels(options, output_dir, segments)
  fingerprint = _fingerprint(options, segments, label_names)
  entry = _read_info(output_dir)['splits'].get(name)
  if entry and _is_complete(output_dir, entry, name):
    if entry['fingerprint'] != fingerprint:
      raise ValueError(
        journal_lib.describe_change(os.path.join(output_dir, INFO_FILE))
      )
    logging.info('%s is complete: nothing is left to do.', name)
    result = _result(output_dir, options, entry, entry['num_examples'])
  else:
    _check_free(output_dir, name, bool(entry))
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
  options: planning.Options,
  segments: Sequence[manifest.Segment],
  label_names: Sequence[str],
  fingerprint: str,
  num_workers: int,
  show_progress: bool,
) -> tuple[dict, int]:
  """Plans and does the work; returns the info entry and what was resumed."""
  path = _journal_path(output_dir, options.name)
  journal = journal_lib.Journal(path, fingerprint)
  try:
    with worker.Pool(num_workers) as pool:
      plan = planning.Plan(options, segments, pool, journal, show_progress)
      writer = _Writer(output_dir, options, plan, journal, label_names)
      num_resumed = writer.run(pool, show_progress)
    entry = _finish(
      output_dir, options, segments, plan, journal, fingerprint, label_names
    )
    journal.remove()
  except (OSError, tf.errors.OpError) as e:
    raise OSError(
      f'{output_dir} cannot be written: {e}. Finished work is kept. Fix the '
      'problem (most often a full disk) and rerun the same command to resume.'
    ) from e
  finally:
    journal.close()
  return entry, num_resumed


def _check_share(result: Result, max_failed_share: float) -> None:
  total = result.num_clips + result.num_failed
  if result.num_clips and result.num_failed <= max_failed_share * total:
    return
  with open(result.skip_report, encoding='utf-8', newline='') as file:
    rows = [
      row
      for row in csv.DictReader(file)
      if not row['reason'].startswith(planning.NOTE)
    ]
  examples = '\n'.join(f'  {row["file"]}: {row["reason"]}' for row in rows[:5])
  clips = command_line.count(total, 'clip')
  raise errors.TooManyFailedError(
    f'{result.num_failed} of {clips} failed, more than '
    f'`max_failed_share`={max_failed_share:g} allows; the others are written. '
    f'{result.skip_report} says why each one did:\n{examples}',
    result,
  )
