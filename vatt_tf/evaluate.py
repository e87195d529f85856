"""Evaluates a run or checkpoint on held-out clips.

`python -m vatt_tf.evaluate --checkpoint=runs/quickstart/model` prints retrieval
between video, audio and text, with pool size and chance beside each metric. The
model and the records are those of the `config.gin` beside the checkpoint; gin
files that are given override it: `--gin_file=gin/eval/linear_probe.gin`
selects another evaluation, and its data.
"""

from collections.abc import Sequence
import os

from absl import app, flags
import gin

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.analysis import report
from vatt_tf.core import (
  command_line,
  file_utils,
  gin_utils,
)
from vatt_tf.evaluation import runner

_CHECKPOINT = command_line.define_path(
  'checkpoint',
  None,
  'The directory of a run (its newest checkpoint is taken) or a checkpoint, '
  'such as runs/NAME/ckpt-1000.',
)
_CHECKPOINTS = flags.DEFINE_enum(
  'checkpoints',
  runner.NEWEST,
  [runner.NEWEST, runner.ALL],
  'Checkpoints of a run to evaluate: the newest, or all that it has kept.',
)
_FOLLOW = flags.DEFINE_bool(
  'follow',
  False,
  'Evaluate the checkpoints of a run as they are written, up to that of its '
  'last step.',
)
_LAST_STEP = flags.DEFINE_integer(
  'last_step',
  None,
  'Step of the checkpoint at which --follow ends; by default TRAIN_STEPS of '
  'the gin files.',
)
_TIMEOUT = flags.DEFINE_float(
  'timeout',
  60.0,
  'Minutes without a new checkpoint after which --follow gives up.',
)
_OUTPUT = command_line.define_path(
  'output', None, 'A json file to write the metrics to.'
)
_EVENT_DIR = command_line.define_path(
  'event_dir',
  None,
  'Directory for TensorBoard events of the metrics, such as runs/NAME/eval.',
)
_ALLOW_RANDOM_WEIGHTS = flags.DEFINE_bool(
  'allow_random_weights',
  False,
  'Evaluate a model that has learned nothing, for comparison: give --gin_file '
  'and no --checkpoint.',
)
_REPORT = command_line.define_path(
  'report',
  None,
  'A directory for report.html: the metrics with pictures of the model. Each '
  'of several checkpoints has a directory in it.',
)
gin_utils.define_flags()


def _gin_files(timeout):
  """Returns the gin files to parse, in order."""
  given = flags.FLAGS.gin_file or []
  checkpoint = _CHECKPOINT.value
  if checkpoint is None:
    return given
  if _FOLLOW.value and not given:
    path = os.path.join(checkpoint, 'config.gin')
    runner.wait_for(lambda: os.path.exists(path), path, timeout)
  try:
    return [gin_utils.config_beside(checkpoint), *given]
  except ValueError:
    if given:
      return given
    raise


def _last_step():
  """Returns the step at which the followed run ends, or None."""
  if _LAST_STEP.value is not None:
    return _LAST_STEP.value
  try:
    return gin.query_parameter('%TRAIN_STEPS')
  except ValueError:
    return None


def _show(result):
  """Prints the metrics of a checkpoint, and writes its report."""
  for title, table in result.tables():
    print(f'{title}:\n{table}', flush=True)
  if _REPORT.value is None:
    return
  directory = _REPORT.value
  if _FOLLOW.value or _CHECKPOINTS.value == runner.ALL:
    directory = os.path.join(directory, os.path.basename(result.path))
  with gin.config_scope('eval'):
    writer = gin.get_configurable(report.Report)()
  print(f'Report: {writer.write(directory, result)}', flush=True)


def main(argv: Sequence[str]) -> None:
  """Parses the flags and evaluates."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    if _CHECKPOINT.value is None and not _ALLOW_RANDOM_WEIGHTS.value:
      raise ValueError(
        'Give --checkpoint, the directory of a run or a checkpoint in it. To '
        'evaluate a model that has learned nothing, for comparison, give '
        '--gin_file and --allow_random_weights instead.'
      )
    if _OUTPUT.value is not None:
      file_utils.check_writable(os.path.dirname(_OUTPUT.value))
    for folder in (_EVENT_DIR.value, _REPORT.value):
      if folder is not None:
        file_utils.check_writable(folder)
    timeout = 60 * _TIMEOUT.value
    gin_utils.parse(_gin_files(timeout), flags.FLAGS.gin_param)
    follow = None
    if _FOLLOW.value:
      follow = runner.Follow(timeout, _last_step())
    runner.evaluate(
      _CHECKPOINT.value,
      output=_OUTPUT.value,
      which=_CHECKPOINTS.value,
      follow=follow,
      event_dir=_EVENT_DIR.value,
      allow_random_weights=_ALLOW_RANDOM_WEIGHTS.value,
      on_result=_show,
    )


if __name__ == '__main__':
  command_line.run(main, command_line.Use.INFERS)
