"""The model of a run, for commands that say where it sounds."""

from collections.abc import Sequence

import tf_keras

from vatt_tf.checkpoints import manager
from vatt_tf.core import gin_utils
from vatt_tf.embedding import model as model_lib
from vatt_tf.localization import maps


def load(
  checkpoint: str, gin_files: Sequence[str], gin_params: Sequence[str]
) -> tuple[tf_keras.Model, model_lib.Form]:
  """Returns the model of a run, and the form of its inputs.

  Args:
    checkpoint: Directory of a run, or prefix of a checkpoint.
    gin_files: Paths of gin files; empty for the `config.gin` beside it.
    gin_params: Further bindings.

  Raises:
    ValueError: There is no checkpoint, or its model was not trained with the
      local term.
  """
  path = manager.resolve(checkpoint)
  gin_utils.parse(gin_files or [gin_utils.config_beside(path)], gin_params)
  tf_keras.mixed_precision.set_global_policy('float32')
  model = gin_utils.get_task().build_model()
  maps.check_model(model)
  manager.restore_model(model, path)
  return model, model_lib.Form.configured()
