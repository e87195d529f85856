"""Evaluates a run or checkpoint on held-out clips.

`python -m vatt_tf.evaluate --checkpoint=runs/quickstart/model` prints retrieval
between video, audio and text, with pool size and chance beside each figure. The
model and the records are those of the `config.gin` beside the checkpoint, or of
the gin files that are given.
"""

from absl import app, flags

from vatt_tf import (
  command_line,
  configurables,  # noqa: F401
  gin_utils,
)
from vatt_tf.evaluation import retrieval, runner

_CHECKPOINT = flags.DEFINE_string(
  'checkpoint',
  None,
  'The directory of a run (its newest checkpoint is taken) or a checkpoint, '
  'such as runs/NAME/ckpt-1000.',
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'A json file to write the figures to.'
)
gin_utils.define_flags()


def main(argv):
  """Parses the flags and evaluates."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    gin_files = flags.FLAGS.gin_file or [
      gin_utils.config_beside(_CHECKPOINT.value)
    ]
    gin_utils.parse(gin_files, flags.FLAGS.gin_param)
    metrics, path = runner.evaluate(_CHECKPOINT.value, output=_OUTPUT.value)
  print(f'Retrieval on held-out clips, {path}:')
  print(retrieval.format_table(metrics))


if __name__ == '__main__':
  flags.mark_flag_as_required('checkpoint')
  app.run(main)
