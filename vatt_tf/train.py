"""Trains: `python -m vatt_tf.train --gin_file=gin/pretrain_ma_medium.gin`.

The gin file describes the model, the data and the training;
`--gin_param=NAME=value` overrides it. The same command, run again, resumes
where the run stopped.
"""

from collections.abc import Sequence
import os
import pathlib

from absl import app, flags

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import command_line, gin_utils, workers
from vatt_tf.training import loop, trainer

_MODEL_DIR = command_line.define_path(
  'model_dir',
  None,
  'Directory of checkpoints and TensorBoard events. By default runs/NAME, with '
  'the name of the first gin file.',
)
gin_utils.define_flags()


def main(argv: Sequence[str]) -> None:
  """Parses the flags and trains."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_files = flags.FLAGS.gin_file
  gin_utils.quiet_logging()
  model_dir = _MODEL_DIR.value
  if model_dir is None:
    model_dir = os.path.join('runs', pathlib.PurePath(gin_files[0]).stem)
  with (
    command_line.exit_on_error(trainer.NonFiniteError, workers.WorkerLostError),
    workers.lost_workers_named(),
  ):
    gin_utils.parse(gin_files, flags.FLAGS.gin_param)
    loop.train(model_dir)


if __name__ == '__main__':
  command_line.run(main, command_line.Use.TRAINS, required=['gin_file'])
