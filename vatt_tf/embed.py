"""Embeds clips with an exported model: `python -m vatt_tf.embed`.

To embed a folder of media files, cut into windows of the model's length:

    python -m vatt_tf.embed --saved_model=runs/quickstart/saved_model \\
        --media=/data/videos --output=runs/embeddings

To embed the rows of a manifest as for `python -m vatt_tf.ingest`, or shards of
records:

    python -m vatt_tf.embed --saved_model=... --manifest=/data/train.csv ...
    python -m vatt_tf.embed --saved_model=... --records='/data/train-*' ...

The output is a folder with Parquet files. The same command, run again
after an interruption, resumes where it stopped, unless a --runner did the work.
See docs/embedding.md.
"""

from collections.abc import Sequence
import shlex

from absl import app, flags

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import (
  command_line,
  gin_utils,
)
from vatt_tf.embedding import model, reports, run, run_options, table
from vatt_tf.media import caption_sources, errors

command_line.define_path(
  'saved_model',
  None,
  'Folder of an exported model, of which the newest version is taken, or a '
  'version in it.',
)
command_line.define_path(
  'output', None, 'Folder to write the Parquet files to.'
)
command_line.define_path(
  'media',
  '',
  'Media files: a folder, a file, or a pattern in quotes (** for folders of '
  'any depth).',
)
command_line.define_path(
  'manifest', '', 'Csv of media files and times, as for ingest.'
)
command_line.define_path(
  'records',
  '',
  'Shards of records: a pattern; several are separated by commas.',
)
command_line.define_path(
  'media_root',
  '',
  'Folder of the media files, which the paths of the manifest (by default its '
  'own folder) or of the records are relative to.',
)
flags.DEFINE_list(
  'modalities',
  [],
  f'Modalities among {", ".join(table.MODALITIES)}. By default all of the '
  'model.',
)
flags.DEFINE_float(
  'clip_seconds',
  None,
  'Length of the windows that longer files are cut into. By default what the '
  'model takes. 0 means no cutting, so that the model takes the middle of a '
  'longer clip.',
)
flags.DEFINE_float(
  'stride_seconds',
  None,
  'Time from the start of a window to that of the next. By default '
  '--clip_seconds, without overlap.',
)
command_line.define_path(
  'captions',
  caption_sources.AUTO,
  'Source of the captions of media files, as for ingest: auto (a '
  'file beside the media file or a track in it), a folder, a .json or .csv '
  'file, or none.',
)
flags.DEFINE_integer(
  'shorter_side', 256, "Pixels of a frame's shorter side, as ingest stores it."
)
flags.DEFINE_integer(
  'jpeg_quality', 90, 'Quality of the frames, 1 to 100, as ingest stores them.'
)
flags.DEFINE_integer(
  'audio_rate',
  None,
  'Samples per second of the decoded sound. By default those of the model.',
)
flags.DEFINE_integer(
  'batch_size',
  run_options.DEFAULT_BATCH_SIZE,
  'Clips that are computed together.',
)
flags.DEFINE_integer(
  'clips_per_file',
  run_options.DEFAULT_CLIPS_PER_FILE,
  'Approximate number of clips in a Parquet file; an interrupted run resumes '
  'after the last whole file.',
)
flags.DEFINE_integer(
  'num_workers',
  None,
  'Processes that decode media files. By default one per core; 0 decodes in '
  'the main process.',
)
flags.DEFINE_float(
  'max_failed_share',
  0.1,
  'When more of the clips fail, the exit code is 1 (all others are written).',
)
flags.DEFINE_bool(
  'overwrite', False, 'Remove the table in --output and start again.'
)
flags.DEFINE_string(
  'runner',
  '',
  'Runner of Apache Beam: DirectRunner, FlinkRunner, SparkRunner, '
  'DataflowRunner. By default Beam is not used.',
)
flags.DEFINE_string(
  'pipeline_options',
  '',
  'Options of Beam, as on its own command line: '
  '"--flink_master=host:8081 --parallelism=8".',
)

# Flags that have the names of the arguments of `run_options.Options`.
ARGUMENTS = (
  'saved_model output media manifest records media_root modalities '
  'clip_seconds stride_seconds captions shorter_side jpeg_quality audio_rate '
  'batch_size clips_per_file num_workers max_failed_share overwrite'
).split()


def _embed() -> reports.Result:
  """Embeds according to the flags."""
  arguments = {name: flags.FLAGS[name].value for name in ARGUMENTS}
  arguments['modalities'] = tuple(arguments['modalities'])
  options = run_options.Options(**arguments)
  runner = flags.FLAGS.runner
  pipeline_options = shlex.split(flags.FLAGS.pipeline_options)
  if pipeline_options and not runner:
    raise ValueError(
      '`pipeline_options` needs a `runner` (--runner=DirectRunner). Received: '
      f'pipeline_options={flags.FLAGS.pipeline_options!r}'
    )
  gin_utils.parse([model.find_config(model.find_version(options.saved_model))])
  form = model.Form.configured()
  if not runner:
    return run.embed(options, form)
  # Beam is an extra.
  from vatt_tf.embedding import beam

  return beam.embed(options, form, runner, pipeline_options)


def main(argv: Sequence[str]) -> None:
  """Parses the flags and embeds."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  advice = 'Rerun the same command to resume.'
  if flags.FLAGS.runner:
    advice = (
      'A pipeline cannot resume: give another --output, or --overwrite to '
      'begin again.'
    )
  with command_line.exit_on_error(
    errors.TooManyFailedError, ImportError, advice=advice
  ):
    result = _embed()
  print(result.describe())


if __name__ == '__main__':
  command_line.run(
    main,
    command_line.Use.INFERS,
    required=['saved_model', 'output'],
  )
