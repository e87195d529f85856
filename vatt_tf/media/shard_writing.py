"""Writes the records of the tasks of a plan, after those that are finished."""

import bisect
from collections.abc import Iterator, Sequence
import contextlib
import itertools
import os

import tensorflow as tf

from vatt_tf.core import progress_bar
from vatt_tf.input_pipeline.records import schema, shard_files, writing
from vatt_tf.media import (
  box_tables,
  caption_cues,
  decoded_clip,
  errors,
  ingest_options,
  output_folder,
  planning,
  record_clips,
  skip_lines,
  worker,
)
from vatt_tf.media import journal as journal_lib

# Counts of each task in the journal, beside its records.
COUNTS = (
  'num_with_video',
  'num_with_audio',
  'num_with_captions',
  'num_captions',
  'microseconds',
)


def _whole_records(path: str) -> Iterator[bytes]:
  """Yields the whole records at the beginning of an unfinished shard."""
  with contextlib.suppress(tf.errors.DataLossError):
    yield from tf.data.TFRecordDataset(path).as_numpy_iterator()


def _make_clip(
  work: planning.Work,
  decoded: decoded_clip.DecodedClip,
  options: ingest_options.Options,
  label_indices: dict[str, int],
  boxes: box_tables.BoxTable | None,
) -> schema.Clip:
  """Returns a decoded clip with its captions, labels and provenance.

  Times of captions count from the start of the clip, as those of frames do.
  """
  cues = decoded.cues
  if work.cues is not None:
    cues = caption_cues.in_span(
      work.cues, decoded.start, decoded.end, work.task.caption_margin
    )
  limits = (decoded.start, decoded.end)
  if not work.segment.captions:
    limits = (-(1 << 62), 1 << 62)
  segment = work.segment
  captions = [
    schema.Caption(
      cue.text,
      max(cue.start, limits[0]) - decoded.start,
      min(cue.end, limits[1]) - decoded.start,
    )
    for cue in cues
  ]
  return record_clips.make_clip(
    decoded,
    options.settings,
    captions,
    example_id=f'{segment.path}:{decoded.start}-{decoded.end}',
    dataset_name=options.dataset_name,
    label_indices=[label_indices[label] for label in segment.labels],
    label_names=list(segment.labels),
    data_path=segment.path,
    regions=[] if boxes is None else boxes.regions(segment.path, decoded),
  )


class ShardTasks:
  """Does the unfinished tasks of a plan, and writes their records.

  Args:
    output_dir: Folder of the shards.
    options: Options of the ingest.
    plan: Plan of the work.
    journal: Journal of the work; notes each finished task.
    label_names: Classes in the order of `labels.txt`.
  """

  def __init__(
    self,
    output_dir: str,
    options: ingest_options.Options,
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
    """Finds the work of an interrupted run.

    Returns:
      Number of tasks that need not be done again; number of their records in an
      unfinished shard; and the path of that shard, or ''.
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
      num_whole, leftover = max(
        (
          (sum(1 for _ in _whole_records(part)), part)
          for part in output_folder.find_temporary_shards(
            self._output_dir, self._options.name
          )
          if os.path.basename(part).startswith(prefix)
        ),
        default=(0, ''),
      )
      kept = 0
      for count in counts:
        if kept + count > num_whole:
          break
        kept += count
        done += 1
      return done, kept, leftover
    return done, 0, ''

  def run(self, pool: worker.Pool, show_progress: bool) -> int:
    """Writes every missing shard.

    Args:
      pool: Workers that decode.
      show_progress: Whether to draw a progress bar on standard error.

    Returns:
      Number of records that an earlier run had written.
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
    for path in output_folder.find_temporary_shards(
      self._output_dir, self._options.name
    ):
      if path != kept_path:
        os.remove(path)
    first_shard = plan.shards[done - 1] if num_kept else 0
    if not num_kept and done < len(plan.shards):
      first_shard = plan.shards[done]
    results = pool.map(work.task for work in plan.work[done:])
    with progress_bar.make(
      total=plan.num_clips,
      initial=sum(work.task.num_results for work in plan.work[:done]),
      desc=self._options.name,
      unit=' clips',
      disable=not show_progress,
    ) as bar:
      i = done
      for shard in range(first_shard, plan.num_shards):
        last = bisect.bisect_right(plan.shards, shard)
        if i >= last and not kept_path:
          continue
        # No `with`: the next run resumes from what is written so far.
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
    results: Sequence[decoded_clip.DecodedClip | errors.MediaError],
    shard_writer: writing.ShardWriter,
  ) -> None:
    """Writes the records of a task, then notes that it is done."""
    line = dict.fromkeys(('records', *COUNTS), 0)
    skips = []
    for span, result in zip(work.task.spans, results):
      if isinstance(result, errors.MediaError):
        skips.append(
          skip_lines.skip_of(
            work.segment,
            span.start,
            span.end,
            result,
            bool(self._options.manifest),
          )
        )
        continue
      clip = _make_clip(
        work, result, self._options, self._label_indices, self._plan.boxes
      )
      shard_writer.write(clip)
      skips += [
        skip_lines.skip_of_note(work.segment, note) for note in result.notes
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
