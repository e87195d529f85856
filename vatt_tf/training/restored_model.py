"""The model of a run with the weights of a checkpoint, for commands."""

from collections.abc import Callable, Sequence

import tf_keras

from vatt_tf.checkpoints import manager
from vatt_tf.core import gin_utils


def load(
  checkpoint: str,
  gin_files: Sequence[str],
  gin_params: Sequence[str],
  check: Callable[[tf_keras.Model], None],
) -> tf_keras.Model:
  """Parses the configuration of a run and restores its model in float32.

  Args:
    checkpoint: Directory of a run, or prefix of a checkpoint.
    gin_files: Paths of gin files; empty for the `config.gin` beside it.
    gin_params: Further bindings.
    check: Raises ValueError if the model, before it is restored, does not serve
      the command.

  Returns:
    The model.

  Raises:
    ValueError: There is no checkpoint, or `check` raises it.
  """
  path = manager.resolve(checkpoint)
  gin_utils.parse(gin_files or [gin_utils.config_beside(path)], gin_params)
  tf_keras.mixed_precision.set_global_policy('float32')
  model = gin_utils.get_task().build_model()
  check(model)
  manager.restore_model(model, path)
  return model
