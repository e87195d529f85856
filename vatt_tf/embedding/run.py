"""Embeds media files or records: a table of Parquet files, to be resumed.

The clips are dealt to parts (`sources`). A part is made whole or not at all: a
file for each space, then a line in the journal. Batches do not reach over a
part, so that a run that was interrupted makes the files that it would have made
otherwise. While the model computes, worker processes decode what comes next.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import os

import tensorflow as tf

from vatt_tf.core import (
  command_line,
  distribution,
  progress_bar,
)
from vatt_tf.embedding import journal as journal_lib
from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import sources, table
from vatt_tf.input_pipeline import records
from vatt_tf.media import (
  clock,
  decode_settings,
  errors,
  ingest_report,
  manifest,
  planning,
  worker,
)

SKIP_REPORT = 'skipped.csv'

DEFAULT_BATCH_SIZE = 32
DEFAULT_CLIPS_PER_FILE = 1024

# What the journal counts of each part, beside its rows.
_COUNTS = ('clips', 'failed', 'others', *table.MODALITIES)


@dataclasses.dataclass
class Result:
  """What a run made.

  Attributes:
    output: Folder of the table.
    model_version: Of all rows.
    num_clips: Clips of which nothing failed.
    num_failed: Clips of which something could not be embedded.
    num_others: Files of a folder that are no media, and captions that have no
      word that the model knows.
    num_of: Clips with video, clips with sound, and captions, by modality.
    num_rows: By space.
    num_resumed: Clips that an earlier run had embedded.
    skip_report: Path of the csv that names what has no row, and why.
  """

  output: str
  model_version: str
  num_clips: int = 0
  num_failed: int = 0
  num_others: int = 0
  num_of: dict[str, int] = dataclasses.field(default_factory=dict)
  num_rows: dict[str, int] = dataclasses.field(default_factory=dict)
  num_resumed: int = 0
  skip_report: str = ''

  def describe(self) -> str:
    """One paragraph for people."""
    count = command_line.count
    rows = [
      f'{count(size, "row")} in {name}' for name, size in self.num_rows.items()
    ]
    num_clips = count(self.num_clips + self.num_failed, 'clip')
    text = (
      f'{num_clips} in {self.output}, by model {self.model_version}: '
      f'{self.num_of.get(table.VIDEO, 0)} with video, '
      f'{self.num_of.get(table.AUDIO, 0)} with sound, '
      f'{count(self.num_of.get(table.CAPTION, 0), "caption")}; '
      f'{", ".join(rows)}'
    )
    if self.num_resumed:
      text += f'; {self.num_resumed} of the clips were there from earlier'
    text += '.'
    if self.num_failed or self.num_others:
      text += (
        f' {count(self.num_failed, "clip")} failed, in part or whole, and '
        f'{self.num_others} of the files and captions hold nothing to embed: '
        f'see {self.skip_report}.'
      )
    return text


@dataclasses.dataclass(frozen=True)
class Options:
  """What is embedded, and how.

  Attributes:
    saved_model: Folder of the model, or of a version of it.
    output: Folder of the table.
    media: Folder, file or pattern.
    manifest: Path of a csv.
    records: Pattern of shards.
    media_root: Folder.
    modalities: Of `table.MODALITIES`; empty for all of the model.
    clip_seconds: Length of a window, or None for what the model takes.
    stride_seconds: From window to window, or None for their length.
    captions: Where the captions of media files come from.
    shorter_side: Pixels of a frame's shorter side.
    jpeg_quality: 1 to 100.
    audio_rate: Samples a second, or None for those of the model.
    batch_size: Clips that are computed together.
    clips_per_file: About so many in a Parquet file.
    num_workers: Processes that decode, or None for one a core.
    max_failed_share: Of the clips.
    overwrite: Whether to remove the table that is there.
  """

  saved_model: str
  output: str
  media: str = ''
  manifest: str = ''
  records: str = ''
  media_root: str = ''
  modalities: tuple[str, ...] = ()
  clip_seconds: float | None = None
  stride_seconds: float | None = None
  captions: str = planning.AUTO
  shorter_side: int = 256
  jpeg_quality: int = 90
  audio_rate: int | None = None
  batch_size: int = DEFAULT_BATCH_SIZE
  clips_per_file: int = DEFAULT_CLIPS_PER_FILE
  num_workers: int | None = None
  max_failed_share: float = 0.1
  overwrite: bool = False

  def check(self) -> None:
    """Raises `ValueError` where an argument is wrong."""
    given = [
      name for name in ('media', 'manifest', 'records') if getattr(self, name)
    ]
    if len(given) != 1:
      raise ValueError(
        'One of `media`, `manifest` and `records` must be given. Received: '
        f'{", ".join(given) or "none"}'
      )
    if self.media and self.media_root:
      raise ValueError(
        '`media_root` goes with `manifest` or `records`: the paths of `media` '
        f'are relative to its own folder. Received: media={self.media!r}, '
        f'media_root={self.media_root!r}'
      )
    for name, low in (
      ('batch_size', 1),
      ('clips_per_file', 1),
      ('num_workers', 0),
    ):
      value = getattr(self, name)
      if value is not None and value < low:
        raise ValueError(
          f'`{name}` must be at least {low}. Received: {name}={value}'
        )
    if not 0 <= self.max_failed_share <= 1:
      raise ValueError(
        '`max_failed_share` must be in [0, 1]. Received: '
        f'max_failed_share={self.max_failed_share}'
      )
    for one in self.modalities:
      if one not in table.MODALITIES:
        raise ValueError(
          f'`modalities` must be among {", ".join(table.MODALITIES)}. '
          f'Received: modalities={",".join(self.modalities)}'
        )


def _file_size(path: str) -> int:
  """Bytes of a file; 0 where there is none."""
  return os.path.getsize(path) if os.path.isfile(path) else 0


@dataclasses.dataclass(frozen=True)
class Job:
  """What is to be done, as far as it is known without a look at the files.

  Attributes:
    options: As given.
    version: Folder of the model's version.
    form: What the model takes.
    model_version: Its name.
    modalities: To be embedded.
    dimensions: By space.
    reader: Reads items.
    media_root: Folder that paths are relative to, or ''.
    segments: Media files or rows.
    shards: Number of records by shard.
  """

  options: Options
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
    """What the rows depend on, by the names of arguments.

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
      if captions not in (planning.AUTO, planning.NONE):
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
    """The bytes of each file of the segments; 0 where there is none."""
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

  def schemas(self) -> dict:
    """The schema of each space."""
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
  ) -> tuple[list[tuple[sources.Item, ...]], list[planning.Skip]]:
    """The parts, and what is to be said of files that have none.

    Args:
      pool: Finds how long files are.
      ends: What is known of that.
      show_progress: Whether to draw a progress bar for it.
      clips_per_part: About so many.
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


def _windows(options: Options, form: model_lib.Form) -> sources.Windows:
  """How clips are cut."""
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
    return records.match_shards(pattern)
  except ValueError as e:
    # It speaks of gin, for the commands that are configured by it.
    raise ValueError(
      '`records` (--records) must be a pattern that matches shards, or several '
      f'separated by commas, each of which does. Received: records={pattern!r}.'
      ' `python -m vatt_tf.ingest` makes shards.'
    ) from e


def prepare(options: Options, embedder: model_lib.Embedder) -> Job:
  """Finds what is to be embedded.

  Args:
    options: As given.
    embedder: Of the model.

  Raises:
    ValueError: An argument is wrong, or there is nothing to embed.
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
    shards = dict(zip(paths, records.count_all_records(paths)))
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


# One part.


@dataclasses.dataclass
class Outcome:
  """What became of some clips.

  Attributes:
    rows: Dictionaries with `table.COLUMNS`.
    skips: What has no row, and why.
    counts: Clips of which nothing failed and of which something did, what holds
      nothing to embed, and what has rows, by modality.
  """

  rows: list[dict] = dataclasses.field(default_factory=list)
  skips: list[planning.Skip] = dataclasses.field(default_factory=list)
  counts: dict[str, int] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(_COUNTS, 0)
  )


def _seconds(time: int) -> str:
  return f'{time / clock.SECOND:g}'


def embed_clips(
  found: Iterable[records.Clip | planning.Skip],
  embedder: model_lib.Embedder,
  batch_size: int,
) -> Iterator[Outcome]:
  """Embeds clips in batches.

  Args:
    found: Clips, and what is to be said of those that could not be read.
    embedder: Of the model.
    batch_size: Clips of a batch.

  Yields:
    What became of each batch.
  """
  found = iter(found)
  while True:
    outcome, clips = Outcome(), []
    for one in found:
      if isinstance(one, planning.Skip):
        outcome.skips.append(one)
        outcome.counts['failed' if one.is_failure else 'others'] += 1
        continue
      clips.append(one)
      if len(clips) == batch_size:
        break
    if not clips and not outcome.skips:
      return
    if clips:
      _embed_batch(clips, embedder, outcome)
    yield outcome


def _embed_batch(
  clips: Sequence[records.Clip],
  embedder: model_lib.Embedder,
  outcome: Outcome,
) -> None:
  """Adds what becomes of some clips."""
  for clip, result in zip(clips, embedder.embed(clips)):
    times = _seconds(clip.start), _seconds(clip.end)
    faults, notes = result.faults, result.notes
    if not result.rows and not faults and not notes:
      missing = f'it has nothing of {", ".join(embedder.modalities)}'
      # Not every clip has captions.
      is_text = embedder.modalities == (table.CAPTION,)
      (notes if is_text else faults).append(missing)
    outcome.rows += result.rows
    outcome.counts['failed' if faults else 'clips'] += 1
    outcome.counts['others'] += len(notes)
    for modality, count in result.num_of.items():
      outcome.counts[modality] += count
    outcome.skips += [
      planning.Skip(clip.data_path, *times, reason, reason in faults)
      for reason in faults + notes
    ]


# All parts.


def _remove_table(output: str) -> None:
  """Removes the files of a table, but for the journal that holds it."""
  paths = [os.path.join(output, SKIP_REPORT)]
  for space in table.SPACES:
    folder = os.path.join(glob.escape(output), space)
    paths += glob.glob(os.path.join(folder, 'part-*.parquet'))
  for path in paths:
    if os.path.exists(path):
      os.remove(path)


def _check_free(output: str) -> None:
  """Raises `ValueError` if a table is there."""
  for space in table.SPACES:
    folder = os.path.join(glob.escape(output), space)
    found = glob.glob(os.path.join(folder, '*.parquet'))
    if found:
      raise ValueError(
        f'{output} has embeddings already, such as {found[0]}, of a run that '
        'cannot be gone on with. Give another `output` (--output), or '
        '`overwrite` (--overwrite) to remove them and make them anew.'
      )


def _remove_leftovers(output: str) -> None:
  """Removes what a killed run has left half-written."""
  for space in table.SPACES:
    folder = os.path.join(glob.escape(output), space)
    for path in glob.glob(os.path.join(folder, '.part-*.part')):
      os.remove(path)


def _is_done(output: str, part: dict | None, number: int) -> bool:
  """Whether a part is noted and its files are there."""
  return part is not None and all(
    os.path.exists(table.part_path(output, space, number))
    for space in part['rows']
  )


def _make_parts(
  job: Job,
  parts: Sequence[Sequence[sources.Item]],
  embedder: model_lib.Embedder,
  pool: worker.Pool,
  journal: journal_lib.Journal,
  show_progress: bool,
) -> int:
  """Makes the parts that are not there.

  Returns:
    How many clips an earlier run had embedded.
  """
  output, schemas = job.options.output, job.schemas()
  sizes = [sum(map(sources.num_clips, part)) for part in parts]
  missing = [
    number
    for number in range(len(parts))
    if not _is_done(output, journal.parts.get(number), number)
  ]
  num_there = sum(sizes) - sum(sizes[number] for number in missing)
  num_resumed = sum(
    part['clips'] + part['failed']
    for number, part in journal.parts.items()
    if number not in missing
  )
  items = [item for number in missing for item in parts[number]]
  stream = job.reader.read(items, pool)
  with progress_bar.make(
    total=sum(sizes),
    initial=num_there,
    desc='embed',
    unit=' records' if job.options.records else ' clips',
    disable=not show_progress,
  ) as bar:

    def clips_of(part):
      for item in part:
        yield from next(stream)
        bar.update(sources.num_clips(item))

    for number in missing:
      total = Outcome()
      for outcome in embed_clips(
        clips_of(parts[number]), embedder, job.options.batch_size
      ):
        total.rows += outcome.rows
        total.skips += outcome.skips
        for name in _COUNTS:
          total.counts[name] += outcome.counts[name]
      rows = {}
      for space, schema in schemas.items():
        of_space = [row for row in total.rows if row[table.SPACE] == space]
        if of_space:
          path = table.part_path(output, space, number)
          with journal_lib.writing(output):
            table.write_file(path, of_space, schema)
          rows[space] = len(of_space)
      journal.add_part(
        number, {**total.counts, 'rows': rows, 'skips': total.skips}
      )
  return num_resumed


def _finish(
  job: Job,
  journal: journal_lib.Journal,
  plan_skips: Sequence[planning.Skip],
  num_resumed: int,
) -> tuple[Result, list[planning.Skip]]:
  """Writes the skip report and adds everything up."""
  output = job.options.output
  parts = [journal.parts[number] for number in sorted(journal.parts)]
  skips = [
    *plan_skips,
    *(planning.Skip(*skip) for part in parts for skip in part['skips']),
  ]
  skips = planning.without_repeated_notes(skips)
  report = os.path.join(output, SKIP_REPORT)
  with journal_lib.writing(output):
    ingest_report.write_skip_report(report, skips)
  totals = {name: sum(part[name] for part in parts) for name in _COUNTS}
  result = Result(
    output=output,
    model_version=job.model_version,
    num_clips=totals['clips'],
    num_failed=(totals['failed'] + sum(skip.is_failure for skip in plan_skips)),
    num_others=(
      totals['others'] + sum(not skip.is_failure for skip in plan_skips)
    ),
    num_of={name: totals[name] for name in job.modalities},
    num_rows={
      space: sum(part['rows'].get(space, 0) for part in parts)
      for space in job.dimensions
    },
    num_resumed=num_resumed,
    skip_report=report,
  )
  return result, skips


def check_share(
  result: Result, max_failed_share: float, examples: Iterable[planning.Skip]
) -> None:
  """Raises `TooManyFailedError` if too many clips failed or there is no row.

  Args:
    result: Of the run.
    max_failed_share: At most so many may have failed.
    examples: What has no row, for the message.
  """
  total = result.num_clips + result.num_failed
  clips = command_line.count(total, 'clip')
  failed = f'{result.num_failed} of {clips} failed'
  if result.num_failed > max_failed_share * total:
    message = (
      f'{failed}, more than `max_failed_share`={max_failed_share:g} allows; '
      f'the others are written. {result.skip_report} says why each one did:'
    )
  elif not sum(result.num_rows.values()):
    message = (
      f'Nothing was embedded: {failed}, and the others hold nothing of '
      f'{", ".join(result.num_of)}. {result.skip_report} names each one:'
    )
  else:
    return
  lines = [
    f'  {skip.file}: {skip.reason}' for skip in itertools.islice(examples, 5)
  ]
  raise errors.TooManyFailedError('\n'.join([message, *lines]), result)


def embed(
  options: Options, form: model_lib.Form, show_progress: bool = True
) -> Result:
  """Embeds media files or records into a table.

  Run again with the same options it goes on where it was interrupted, or finds
  that nothing is left to do. The rows do not depend on `num_workers`.

  Args:
    options: What is embedded, and how.
    form: What the model takes.
    show_progress: Whether to draw progress bars on standard error.

  Returns:
    What was made.

  Raises:
    ValueError: An argument is wrong, or the folder holds another table.
    errors.TooManyFailedError: More than `max_failed_share` of the clips failed,
      or nothing was embedded. All others are written.
  """
  options.check()
  output = options.output
  if '://' in output:
    raise ValueError(
      '`output` must be a folder of this machine, unless a `runner` of Beam is '
      f'given. Received: output={output!r}'
    )
  num_workers = options.num_workers
  if options.records:
    num_workers = 0
  elif num_workers is None:
    num_workers = distribution.num_cores()
  version = model_lib.find_version(options.saved_model)
  # Processes start while the model is loaded.
  with worker.Pool(num_workers) as pool:
    embedder = model_lib.Embedder(version, form, options.modalities)
    job = prepare(options, embedder)
    with journal_lib.writing(output):
      os.makedirs(output, exist_ok=True)
      journal = journal_lib.Journal(output)
    with contextlib.closing(journal):
      with journal_lib.writing(output):
        if options.overwrite:
          # The journal last: a run that is killed between the two goes on.
          _remove_table(output)
          journal.clear()
        if journal.is_empty():
          _check_free(output)
        _remove_leftovers(output)
      journal.begin(job.fixed)
      parts, plan_skips = job.plan(
        pool, journal, show_progress, options.clips_per_file
      )
      num_resumed = _make_parts(
        job, parts, embedder, pool, journal, show_progress
      )
      result, skips = _finish(job, journal, plan_skips, num_resumed)
  failures = [skip for skip in skips if skip.is_failure]
  check_share(result, options.max_failed_share, failures or skips)
  return result
