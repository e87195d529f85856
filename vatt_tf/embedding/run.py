"""Embeds media files or records: a resumable table of Parquet files.

The clips are assigned to parts (`sources`). A part is written whole or not at
all: a file for each space, then a line in the journal. Batches do not span
parts, so that a run that was interrupted writes the same files as any other.
While the model computes, worker processes decode what comes next.
"""

from collections.abc import Sequence
import contextlib
import glob
import os

from vatt_tf.core import progress_bar, strategies
from vatt_tf.embedding import (
  batches,
  jobs,
  reports,
  run_options,
  sources,
  table,
)
from vatt_tf.embedding import journal as journal_lib
from vatt_tf.embedding import model as model_lib
from vatt_tf.media import ingest_report, skip_lines, worker

SKIP_REPORT = 'skipped.csv'


def _remove_table(output: str) -> None:
  """Removes the files of a table, except the journal that holds it."""
  paths = [os.path.join(output, SKIP_REPORT)]
  for space in table.SPACES:
    folder = os.path.join(glob.escape(output), space)
    paths += glob.glob(os.path.join(folder, 'part-*.parquet'))
  for path in paths:
    if os.path.exists(path):
      os.remove(path)


def _check_free(output: str) -> None:
  """Raises `ValueError` if the folder has a table."""
  for space in table.SPACES:
    folder = os.path.join(glob.escape(output), space)
    paths = glob.glob(os.path.join(folder, '*.parquet'))
    if paths:
      raise ValueError(
        f'{output} has embeddings already, such as {paths[0]}, of a run that '
        'cannot be resumed. Give another `output` (--output), or '
        '`overwrite` (--overwrite) to replace them.'
      )


def _remove_leftovers(output: str) -> None:
  """Removes half-written files of a killed run."""
  for space in table.SPACES:
    folder = os.path.join(glob.escape(output), space)
    for path in glob.glob(os.path.join(folder, '.part-*.part')):
      os.remove(path)


def _is_done(output: str, part: dict | None, number: int) -> bool:
  """Returns whether a part is noted and its files exist."""
  return part is not None and all(
    os.path.exists(table.part_path(output, space, number))
    for space in part['rows']
  )


def _make_parts(
  job: jobs.Job,
  parts: Sequence[Sequence[sources.Item]],
  embedder: model_lib.Embedder,
  pool: worker.Pool,
  journal: journal_lib.Journal,
  show_progress: bool,
) -> int:
  """Writes the missing parts.

  Returns:
    Number of clips that an earlier run had embedded.
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
      total = batches.Outcome()
      for outcome in batches.embed_clips(
        clips_of(parts[number]), embedder, job.options.batch_size
      ):
        total.rows += outcome.rows
        total.skips += outcome.skips
        for name in batches.COUNTS:
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
  job: jobs.Job,
  journal: journal_lib.Journal,
  plan_skips: Sequence[skip_lines.Skip],
  num_resumed: int,
) -> tuple[reports.Result, list[skip_lines.Skip]]:
  """Writes the skip report, and returns the result and the skip lines."""
  output = job.options.output
  parts = [journal.parts[number] for number in sorted(journal.parts)]
  skips = [
    *plan_skips,
    *(skip_lines.Skip(*skip) for part in parts for skip in part['skips']),
  ]
  skips = skip_lines.without_repeated_notes(skips)
  report = os.path.join(output, SKIP_REPORT)
  with journal_lib.writing(output):
    ingest_report.write_skip_report(report, skips)
  totals = {name: sum(part[name] for part in parts) for name in batches.COUNTS}
  result = reports.Result(
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


def embed(
  options: run_options.Options, form: model_lib.Form, show_progress: bool = True
) -> reports.Result:
  """Embeds media files or records into a table.

  Called again with the same options it resumes where it was interrupted, or
  does nothing if all is done. The rows do not depend on `num_workers`.

  Args:
    options: Options of the run.
    form: Form of the model's inputs.
    show_progress: Whether to draw progress bars on standard error.

  Returns:
    Counts and paths of the table.

  Raises:
    ValueError: An option is wrong, or the folder holds another table.
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
    num_workers = strategies.num_cores()
  version = model_lib.find_version(options.saved_model)
  # Processes start while the model is loaded.
  with worker.Pool(num_workers) as pool:
    embedder = model_lib.Embedder(version, form, options.modalities)
    job = jobs.prepare(options, embedder)
    with journal_lib.writing(output):
      os.makedirs(output, exist_ok=True)
      journal = journal_lib.Journal(output)
    with contextlib.closing(journal):
      with journal_lib.writing(output):
        if options.overwrite:
          # The journal last: a run that is killed between the two resumes.
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
  reports.check_share(result, options.max_failed_share, failures or skips)
  return result
