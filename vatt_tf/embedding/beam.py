"""The same embedding as a transform of Apache Beam.

It needs `pip install 'vatt_tf[beam]'`. The work is planned where the pipeline
is started; its workers read, decode and embed. They need vatt_tf with the
extra, and the model, the media files or the records under the same paths.
"""

from collections.abc import Iterable, Iterator, Sequence
import csv
import dataclasses
import io
import itertools

try:
  import apache_beam as beam
  from apache_beam.io import filesystems
  from apache_beam.options import pipeline_options as options_lib
  from apache_beam.utils import shared
except ImportError as e:
  raise ImportError(
    "A `runner` needs Apache Beam. Install it: pip install 'vatt_tf[beam]'. "
    f'({e})'
  ) from e

from vatt_tf.core import strategies
from vatt_tf.embedding import (
  batches,
  jobs,
  journal,
  reports,
  run,
  run_options,
  sources,
  table,
)
from vatt_tf.embedding import model as model_lib
from vatt_tf.media import skip_lines, worker

SKIPS = 'skips'

_COUNTERS = 'vatt_tf.embedding'
# Batches of an element, all of which are lost when a worker dies.
_BATCHES_PER_ELEMENT = 4


@dataclasses.dataclass(frozen=True)
class _Settings:
  """Settings of the workers."""

  version: str
  model_version: str
  form: model_lib.Form
  modalities: tuple[str, ...]
  reader: sources.Reader
  batch_size: int
  num_workers: int


class _Shared:
  """An embedder that several threads of a process share."""

  def __init__(self, settings: _Settings):
    self.embedder = model_lib.Embedder(
      settings.version, settings.form, settings.modalities
    )


class _EmbedItems(beam.DoFn):
  """Embeds lists of items; the rows are tagged with their space."""

  def __init__(self, settings: _Settings):
    self._settings = settings
    self._handle = shared.Shared()
    self._embedder = self._pool = None

  def setup(self):
    settings = self._settings
    # Processes start while the model is loaded.
    self._pool = worker.Pool(settings.num_workers)
    self._pool.__enter__()
    self._shared = self._handle.acquire(lambda: _Shared(settings))
    self._embedder = self._shared.embedder
    if self._embedder.name != settings.model_version:
      raise ValueError(
        f'`saved_model` must be the same for all workers: {settings.version} '
        f'is {self._embedder.name} here, and was {settings.model_version} '
        'where the pipeline was started.'
      )

  def teardown(self):
    if self._pool is not None:
      self._pool.__exit__(None, None, None)
      self._pool = None

  def process(self, items: Sequence[sources.Item]):
    clips = itertools.chain.from_iterable(
      self._settings.reader.read(items, self._pool)
    )
    for outcome in batches.embed_clips(
      clips, self._embedder, self._settings.batch_size
    ):
      for name, count in outcome.counts.items():
        beam.metrics.Metrics.counter(_COUNTERS, name).inc(count)
      for row in outcome.rows:
        space = row[table.SPACE]
        beam.metrics.Metrics.counter(_COUNTERS, space).inc()
        yield beam.pvalue.TaggedOutput(space, row)
      for skip in outcome.skips:
        yield beam.pvalue.TaggedOutput(SKIPS, skip)


class EmbedItems(beam.PTransform):
  """Embeds a PCollection of lists of items (`sources.Item`).

  Args:
    job: Work that `jobs.prepare` returns.

  Returns:
    PCollections of rows, dictionaries with `table.COLUMNS`, by the spaces of
    `job.dimensions`; and of `skip_lines.Skip`, by `SKIPS`.
  """

  def __init__(self, job: jobs.Job):
    super().__init__()
    num_workers = job.options.num_workers
    self._settings = _Settings(
      version=job.version,
      model_version=job.model_version,
      form=job.form,
      modalities=job.modalities,
      reader=job.reader,
      batch_size=job.options.batch_size,
      num_workers=1 if num_workers is None else num_workers,
    )
    self._tags = (*job.dimensions, SKIPS)

  def expand(self, items: beam.PCollection) -> beam.pvalue.DoOutputsTuple:
    """Returns the rows and skip lines of a PCollection of items."""
    return (
      items
      | beam.Reshuffle()
      | beam.ParDo(_EmbedItems(self._settings)).with_outputs(*self._tags)
    )


def _csv_line(skip: skip_lines.Skip) -> str:
  text = io.StringIO(newline='')
  csv.writer(text, lineterminator='').writerow(skip[:4])
  return text.getvalue()


def _find_files(output: str) -> list[str]:
  """Returns the paths of the files of a table, local or remote."""
  files = filesystems.FileSystems
  patterns = [
    files.join(output, space, '*.parquet') for space in table.SPACES
  ] + [files.join(output, name) for name in (journal.FILE, run.SKIP_REPORT)]
  return [
    file.path for match in files.match(patterns) for file in match.metadata_list
  ]


def _read_skips(path: str) -> Iterator[skip_lines.Skip]:
  with filesystems.FileSystems.open(path) as file:
    text = file.read().decode()
  for row in csv.DictReader(io.StringIO(text, newline='')):
    yield skip_lines.Skip(*row.values())


def _write(output: str, schemas: dict, outputs, plan_skips: Iterable) -> None:
  """Writes the rows of each space and the skip report."""
  join = filesystems.FileSystems.join
  for space, schema in schemas.items():
    _ = outputs[space] | f'write {space}' >> beam.io.WriteToParquet(
      join(output, space, 'part'), schema, file_name_suffix='.parquet'
    )
  pipeline = outputs[SKIPS].pipeline
  planned = pipeline | 'planned skips' >> beam.Create(list(plan_skips))
  _ = (
    (outputs[SKIPS], planned)
    | beam.Flatten()
    | 'skip lines' >> beam.Map(_csv_line)
    | 'write skips'
    >> beam.io.WriteToText(
      join(output, run.SKIP_REPORT),
      shard_name_template='',
      header=','.join(skip_lines.Skip._fields[:4]),
    )
  )


def embed(
  options: run_options.Options,
  form: model_lib.Form,
  runner: str,
  pipeline_options: Sequence[str] = (),
) -> reports.Result:
  """Embeds media files or records in a pipeline, and waits for its end.

  The rows are those of `run.embed`. The output must be empty: a pipeline cannot
  be resumed.

  Args:
    options: Options of the run. `output` may be remote; `num_workers` is the
      number of decoding processes beside each worker's model, by default 1.
    form: Form of the model's inputs.
    runner: Name of a runner.
    pipeline_options: Options of Beam, as on its command line.

  Returns:
    Counts and paths of the table.

  Raises:
    ValueError: An option is wrong, or the folder holds another table.
    errors.TooManyFailedError: More than `max_failed_share` of the clips failed,
      or nothing was embedded. All others are written.
  """
  options.check()
  version = model_lib.find_version(options.saved_model)
  embedder = model_lib.Embedder(version, form, options.modalities)
  job = jobs.prepare(options, embedder)
  files = _find_files(options.output)
  if files and options.overwrite:
    filesystems.FileSystems.delete(files)
  elif files:
    raise ValueError(
      f'{options.output} has embeddings already, such as {files[0]}. Give '
      'another `output` (--output), or `overwrite` (--overwrite) to replace '
      'them.'
    )
  with worker.Pool(0 if options.records else strategies.num_cores()) as pool:
    parts, plan_skips = job.plan(
      pool,
      sources.EndsInMemory(),
      show_progress=True,
      clips_per_part=_BATCHES_PER_ELEMENT * options.batch_size,
    )
  pipeline = beam.Pipeline(
    options=options_lib.PipelineOptions(list(pipeline_options), runner=runner)
  )
  outputs = pipeline | beam.Create(parts) | EmbedItems(job)
  _write(options.output, job.schemas(), outputs, plan_skips)
  done = pipeline.run()
  done.wait_until_finish()
  return _finish(job, done, plan_skips)


def _finish(job: jobs.Job, done, plan_skips: Iterable) -> reports.Result:
  """Returns the result of a finished pipeline."""
  counters = done.metrics().query(
    beam.metrics.MetricsFilter().with_namespace(_COUNTERS)
  )['counters']
  totals = {counter.key.metric.name: counter.result for counter in counters}
  report = filesystems.FileSystems.join(job.options.output, run.SKIP_REPORT)
  result = reports.Result(
    output=job.options.output,
    model_version=job.model_version,
    num_clips=totals.get('clips', 0),
    num_failed=(
      totals.get('failed', 0) + sum(skip.is_failure for skip in plan_skips)
    ),
    num_others=(
      totals.get('others', 0) + sum(not skip.is_failure for skip in plan_skips)
    ),
    num_of={name: totals.get(name, 0) for name in job.modalities},
    num_rows={space: totals.get(space, 0) for space in job.dimensions},
    skip_report=report,
  )
  reports.check_share(result, job.options.max_failed_share, _read_skips(report))
  return result
