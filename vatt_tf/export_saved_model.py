"""Exports a checkpoint as a SavedModel for TF Serving.

`python -m vatt_tf.export_saved_model --checkpoint=runs/quickstart/model
--output=runs/quickstart/saved_model` writes the next version of a model whose
signatures take raw frames, JPEG frames, waveforms and strings. The model is
that of the `config.gin` beside the checkpoint, or of the gin files given.
"""

from collections.abc import Sequence

from absl import app, flags
import gin
import tf_keras

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import manager
from vatt_tf.core import (
  command_line,
  gin_utils,
)
from vatt_tf.export import saved_model, signatures
from vatt_tf.input_pipeline import audio_config, text, video_config

_CHECKPOINT = command_line.define_path(
  'checkpoint',
  None,
  'The directory of a run (its newest checkpoint is taken) or a checkpoint, '
  'such as runs/NAME/ckpt-1000.',
)
_OUTPUT = command_line.define_path(
  'output', None, 'The directory of the model; versions are folders in it.'
)
_NAME = flags.DEFINE_string(
  'model_name', 'vatt', 'Name by which clients ask for the model.'
)
_VERSION = flags.DEFINE_integer(
  'version',
  None,
  'Number of the version, above 0; by default the next.',
  lower_bound=1,
)
_PRECISION = flags.DEFINE_enum(
  'precision',
  'float32',
  ('float32', 'bfloat16'),
  'Type of the computation; outputs are float32.',
)
_LABELS = command_line.define_path(
  'label_names',
  None,
  'For a classifier: the labels.txt of its records, for the model card.',
)
gin_utils.define_flags()

# Configurations in the gin scope of held-out data, as evaluation uses them.
_CONFIGS = {
  'video': video_config.VideoConfig,
  'audio': audio_config.AudioConfig,
  'text': text.TextConfig,
}


def export(
  checkpoint: str,
  output: str,
  gin_files: Sequence[str] = (),
  gin_params: Sequence[str] = (),
  model_name: str = 'vatt',
  version: int | None = None,
  precision: str = 'float32',
  label_names: str | None = None,
) -> str:
  """Exports a checkpoint.

  Args:
    checkpoint: Directory of a run, or prefix of a checkpoint.
    output: Directory of the model.
    gin_files: Paths of gin files; empty for the `config.gin` beside the
      checkpoint.
    gin_params: Further bindings.
    model_name: Name by which clients ask for the model.
    version: Number of the version, or None; see `saved_model.write`.
    precision: Type of the computation, `float32` or `bfloat16`.
    label_names: Path of a file with the name of a class in each line, or None.

  Returns:
    Path of the version.

  Raises:
    ValueError: There is no checkpoint, it belongs to another model, or the
      version exists.
  """
  path = manager.resolve(checkpoint)
  gin_utils.parse(gin_files or [gin_utils.config_beside(path)], gin_params)
  policy = 'mixed_bfloat16' if precision == 'bfloat16' else precision
  tf_keras.mixed_precision.set_global_policy(policy)
  model = gin_utils.get_task().build_model()
  manager.restore_model(model, path)
  with gin.config_scope('eval'):
    configs = {
      modality: gin.get_configurable(_CONFIGS[modality])()
      for modality in model.modalities
    }
  names = None
  if label_names is not None:
    with open(label_names, encoding='utf-8') as file:
      names = file.read().splitlines()
  return saved_model.write(
    signatures.ServedModel(model, **configs),
    output,
    path,
    gin.config_str(),
    model_name=model_name,
    version=version,
    precision=precision,
    label_names=names,
  )


def main(argv: Sequence[str]) -> None:
  """Parses the flags and exports."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    path = export(
      _CHECKPOINT.value,
      _OUTPUT.value,
      flags.FLAGS.gin_file or [],
      flags.FLAGS.gin_param,
      model_name=_NAME.value,
      version=_VERSION.value,
      precision=_PRECISION.value,
      label_names=_LABELS.value,
    )
  print(f'Written: {path}')


if __name__ == '__main__':
  command_line.run(
    main,
    command_line.Use.INFERS,
    required=['checkpoint', 'output'],
  )
