"""Imports and exports weights: `python -m vatt_tf.convert --source=…`.

`python -m vatt_tf.convert --source=released_vatt
--checkpoint=DOWNLOADS/ckpt-500000 --output=runs/released` writes a checkpoint
for training (`INIT_CHECKPOINT`) and evaluation, with a report of every variable
of both models. `--direction=export` writes a tower as T5 or ViT.
"""

from collections.abc import Sequence
import json
import os

from absl import app, flags
import gin
import tensorflow as tf

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import (
  manager,
  mmv,
  released_vatt,
  reports,
  t5,
  vit,
  weight_sources,
)
from vatt_tf.core import (
  command_line,
  file_utils,
  gin_utils,
)

_SOURCES = {'released_vatt': released_vatt, 'mmv': mmv, 't5': t5, 'vit': vit}

_SOURCE = flags.DEFINE_enum(
  'source', None, list(_SOURCES), 'Format of the weights to import or export.'
)
_CHECKPOINT = command_line.define_path(
  'checkpoint',
  None,
  'Weights to read: the prefix of a TensorFlow checkpoint such as '
  'DOWNLOADS/ckpt-500000, a .safetensors or .npz file, or a folder with one. '
  'For an export, a run or a checkpoint of vatt_tf.',
)
_OUTPUT = command_line.define_path(
  'output', None, 'The folder to write to; it must not hold a checkpoint.'
)
_DIRECTION = flags.DEFINE_enum(
  'direction',
  'import',
  ('import', 'export'),
  'Whether weights are imported or exported.',
)
_ALLOW_PARTIAL = flags.DEFINE_boolean(
  'allow_partial',
  False,
  'Import the weights that fit; the rest of the model keeps initial values.',
)
_REPORT = command_line.define_path(
  'report',
  None,
  'A json file for the report, which is written even if nothing is converted.',
)
_TOKENIZER = command_line.define_path(
  'tokenizer',
  None,
  'For t5: its SentencePiece model (spiece.model), which is copied to the '
  'output and used by its config.gin.',
)
_FACTORIZE_POSITIONS = flags.DEFINE_boolean(
  'factorize_positions',
  False,
  'For vit: fit the position tables of VATT, one for each axis, to that of the '
  'image model. The report states what this loses.',
)
gin_utils.define_flags()


def _build():
  """Builds the model that the parsed gin files describe."""
  gin_utils.bind_no_word_vectors()  # the checkpoint has them
  return gin_utils.get_task().build_model()


def import_checkpoint(
  source: str,
  checkpoint: str,
  output: str,
  gin_files: Sequence[str] = (),
  gin_params: Sequence[str] = (),
  allow_partial: bool = False,
  report_path: str | None = None,
  tokenizer: str | None = None,
  factorize_positions: bool = False,
) -> tuple[str, reports.Report]:
  """Writes a vatt_tf checkpoint with the weights of another one.

  Args:
    source: Kind of the checkpoint: `released_vatt`, `mmv`, `t5` or `vit`.
    checkpoint: Path of the checkpoint, see `conversion.open_source`.
    output: Folder to write to.
    gin_files: Paths of the gin files of the model; empty to derive its sizes
      from the checkpoint.
    gin_params: Further bindings.
    allow_partial: Whether to import only the weights that fit.
    report_path: Path of a json file for the report, or None. It is written even
      if a variable does not fit.
    tokenizer: Path of the SentencePiece model of a T5, or None. It is copied to
      `output`, and the written config.gin uses the copy.
    factorize_positions: Whether to factorize the positions of a ViT; see
      `vit.plan`.

  Returns:
    Prefix of the new checkpoint, and the report.

  Raises:
    ValueError: The file has another kind, is damaged, or does not fit.
  """
  reports.check_output(output)
  if tokenizer is not None and source != 't5':
    raise ValueError(
      '`tokenizer` belongs to source=t5. '
      f'Received: tokenizer={tokenizer}, source={source}'
    )
  if factorize_positions and source != 'vit':
    raise ValueError(
      f'`factorize_positions` belongs to source=vit. Received: source={source}'
    )
  module = _SOURCES[source]
  opened = weight_sources.open_source(checkpoint)
  architecture = module.detect(opened.shapes, opened.config)
  print(architecture, flush=True)
  options = {}
  if source == 'vit':
    options['factorize_positions'] = factorize_positions
  gin_files, gin_params = list(gin_files or []), list(gin_params)
  if not gin_files:
    gin_options = dict(options)
    if source == 'released_vatt':
      gin_options['given'] = dict(map(gin_utils.parse_binding, gin_params))
    gin_files, bindings = module.gin_config(architecture, **gin_options)
    gin_params = bindings + gin_params
  if tokenizer is not None:
    t5.check_tokenizer(tokenizer, architecture)
    copied = os.path.join(os.path.abspath(output), t5.TOKENIZER)
    gin_params += t5.tokenizer_bindings(copied)
  gin_utils.parse(gin_files, gin_params)
  if source == 'released_vatt':
    # Inputs larger than the tables get the positions of the release.
    for tower in ('PatchTower', 'TextTower'):
      gin_utils.bind_default(f'{tower}.position_interpolation', 'release')
  model = _build()
  try:
    report = module.load(model, opened, allow_partial, **options)
  except reports.ConversionError as e:
    if report_path is not None:
      _write_report(report_path, e.report)
    raise
  if report_path is not None:
    _write_report(report_path, report)
  if tokenizer is not None:
    tf.io.gfile.makedirs(output)
    tf.io.gfile.copy(tokenizer, copied, overwrite=True)
  origin = reports.origin_of(opened, source, report)
  path = reports.write_checkpoint(
    model, output, origin, gin.config_str(), report
  )
  return path, report


def _write_report(path, report):
  text = json.dumps(report.as_json(), indent=1) + '\n'
  file_utils.write_text(path, text)


def export_checkpoint(
  source: str,
  checkpoint: str,
  output: str,
  gin_files: Sequence[str] = (),
  gin_params: Sequence[str] = (),
) -> None:
  """Writes a tower in the format of another program.

  Args:
    source: Format, `t5` or `vit`.
    checkpoint: Directory of a run, or prefix of a checkpoint.
    output: Folder to write to.
    gin_files: Paths of the gin files of the model; empty for the `config.gin`
      beside the checkpoint.
    gin_params: Further bindings.

  Raises:
    ValueError: There is no such format, or the model does not fit it.
  """
  module = _SOURCES[source]
  if not hasattr(module, 'export'):
    raise ValueError(
      '`source` must be t5 or vit when exporting: whole VATT models have only '
      f'the format of vatt_tf. Received: source={source}'
    )
  gin_utils.parse(
    gin_files or [gin_utils.config_beside(checkpoint)], gin_params
  )
  model = _build()
  manager.restore_model(model, manager.resolve(checkpoint))
  module.export(model, output)


def main(argv: Sequence[str]) -> None:
  """Parses the flags and converts."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  values = flags.FLAGS
  with command_line.exit_on_error():
    if _DIRECTION.value == 'export':
      export_checkpoint(
        _SOURCE.value,
        _CHECKPOINT.value,
        _OUTPUT.value,
        values.gin_file,
        values.gin_param,
      )
      print(f'Written: {_OUTPUT.value}')
      return
    path, report = import_checkpoint(
      _SOURCE.value,
      _CHECKPOINT.value,
      _OUTPUT.value,
      values.gin_file,
      values.gin_param,
      _ALLOW_PARTIAL.value,
      _REPORT.value,
      _TOKENIZER.value,
      _FACTORIZE_POSITIONS.value,
    )
    print(report.format())
    print(f'Written: {path}, with config.gin, origin.json and report.json.')


if __name__ == '__main__':
  command_line.run(
    main,
    command_line.Use.INFERS,
    required=['source', 'checkpoint', 'output'],
  )
