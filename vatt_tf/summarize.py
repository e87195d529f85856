"""Prints the costs of a model: `python -m vatt_tf.summarize --gin_file=…`.

`python -m vatt_tf.summarize --gin_file=gin/pretrain_ma_medium.gin` prints the
parameters, tokens and FLOPs of each tower, and the FLOPs, memory and (with
`--flops_per_second`) time of a training step. It reads no records and creates
no weights.
"""

from collections.abc import Sequence
import json

from absl import app, flags
import gin
import tensorflow as tf
import tf_keras

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.analysis import summary
from vatt_tf.core import (
  command_line,
  gin_utils,
)
from vatt_tf.input_pipeline import plan as plan_lib

_JSON = flags.DEFINE_boolean('json', False, 'Print JSON, with all numbers.')
_FLOPS_PER_SECOND = flags.DEFINE_float(
  'flops_per_second',
  None,
  'Speed of the machine, such as 4.2e11, to estimate the time of a step.',
)
gin_utils.define_flags()


def _summarize():
  """Returns the summary of the model that the parsed gin files describe."""
  run = gin.get_bindings('train')
  with gin.config_scope('train'):
    inputs = gin.get_bindings('make_dataset')
  if 'global_batch_size' not in run or not inputs:
    raise ValueError(
      '`gin_file` must describe a run, with `train.global_batch_size` and '
      '`make_dataset`, as gin/pretrain_ma_medium.gin does. '
      f'Received: gin_file={flags.FLAGS.gin_file}'
    )
  features = plan_lib.row_spec(
    *(inputs.get(name) for name in ('video', 'audio', 'text'))
  )
  tf_keras.mixed_precision.set_global_policy(run.get('precision', 'float32'))
  # In a graph that never runs, variables have shapes and no values.
  with tf.Graph().as_default():
    gin_utils.bind_no_word_vectors()  # no file is read
    model = gin_utils.get_task().build_model()
    return summary.summarize(
      model,
      features,
      run['global_batch_size'],
      run.get('micro_batch_size'),
      _FLOPS_PER_SECOND.value,
    )


def main(argv: Sequence[str]) -> None:
  """Parses the flags and prints the summary."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    gin_utils.parse(flags.FLAGS.gin_file, flags.FLAGS.gin_param)
    costs = _summarize()
  print(
    json.dumps(costs, indent=2)
    if _JSON.value
    else (summary.format_table(costs))
  )


if __name__ == '__main__':
  command_line.run(main, command_line.Use.INFERS, required=['gin_file'])
