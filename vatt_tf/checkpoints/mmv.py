"""Imports the weights that the authors of MMV released.

The release is a pickle with the dictionaries `params` and `state`, by module
and leaf. Unpickling runs code, so this module reads an npz file of the same
arrays; docs/mmv.md has the command that writes it.

The kind and the sizes of the model follow from names and shapes.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import tf_keras

from vatt_tf.checkpoints import (
  gin_sizes,
  mmv_names,
  plans,
  reports,
  weight_sources,
)

# Updates of moving averages whose number a file does not have: enough that the
# initial values have no weight.
_SETTLED = 1e6

# Class of the video tower, and gin file, of a backbone.
_TOWERS = {'s3d': 'S3DTower', 'tsm': 'TSMResNetTower'}
_GIN_FILES = {
  's3d': 'gin/pretrain_mmv_s3d.gin',
  'tsm': 'gin/pretrain_mmv_tsm50.gin',
}


@dataclasses.dataclass(frozen=True)
class Released:
  """Kind and sizes of a released checkpoint.

  Attributes:
    backbone: `s3d` or `tsm`.
    sizes: Values by gin parameter, such as `MMVHead.d_va`.
  """

  backbone: str
  sizes: dict[str, Any]

  def __str__(self):
    sizes = ', '.join(f'{name} = {size!r}' for name, size in self.sizes.items())
    return f'Released MMV: {sizes}'


def detect(
  shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None = None
) -> Released:
  """Detects the backbone, the head and the sizes of a released checkpoint.

  Args:
    shapes: Shapes of all its arrays by name.
    config: Content of `config.json`, which the release does not have.

  Returns:
    `Released`.

  Raises:
    ValueError: The checkpoint is not a released one, or only a part of one.
  """
  del config
  if not mmv_names.is_released(shapes):
    raise ValueError(
      'This is not a file of MMV: expected arrays such as '
      'params/text_audio_video/visual_module/~/…/w and state/…/average, which '
      'docs/mmv.md tells how to write. '
      f'Received {len(shapes)} arrays: {", ".join(list(shapes)[:4])}, …'
    )
  if not any(name.startswith(mmv_names.STATE) for name in shapes):
    raise ValueError(
      'The file has no `state`, the statistics of the batch norms, without '
      'which the model computes something else. Write the npz file with both '
      '`params` and `state`; docs/mmv.md has the command.'
    )

  def shape(name, rank):
    name = mmv_names.PARAMS + name
    if name not in shapes:
      raise ValueError(
        f'This is only a part of a checkpoint of MMV: it lacks {name}. Write '
        'or copy the whole file again.'
      )
    if len(shapes[name]) != rank:
      raise ValueError(
        f'{name} must have {rank} axes. Received: shape={shapes[name]}. Write '
        'or copy the whole file again.'
      )
    return shapes[name]

  sizes = {}
  if any(mmv_names.S3D in name for name in shapes):
    backbone = 's3d'
    channels = shape(f'{mmv_names.S3D}Conv2d_1a_7x7/~/conv3_d/w', 5)[-2]
    sizes['S3DTower.first_layer'] = (
      'plain' if channels == 3 else 'space_to_depth'
    )
  else:
    backbone = 'tsm'
    filters = shape(f'{mmv_names.TSM}tsm_resnet_stem/w', 4)[-1]
    factor = filters / 64
    sizes['TSMResNetTower.width_factor'] = (
      int(factor) if factor.is_integer() else factor
    )
  table = shape(f'{mmv_names.TEXT}embed/embeddings', 2)
  sizes['WordTower.vocabulary_size'], sizes['WordTower.d_embedding'] = table
  sizes['WordTower.width'] = shape(f'{mmv_names.TEXT}text_conv1/w', 3)[-1]
  sizes['MMVHead.form'] = _head_form(shapes)
  audio = shape(f'{mmv_names.HEADS}audio_embd/final_projection/w', 2)
  text = shape(f'{mmv_names.HEADS}txt_embd/final_projection/w', 2)
  sizes['MMVHead.d_va'], sizes['MMVHead.d_vt'] = audio[-1], text[-1]
  return Released(backbone, sizes)


def _head_form(shapes):
  """The form of the head, as its names tell."""
  root = mmv_names.PARAMS + mmv_names.HEADS
  if not any(name.startswith(f'{root}vid2audio_embd/') for name in shapes):
    return 'shared'
  if f'{root}vis_embd/final_projection_inner/w' in shapes:
    return 'disjoint'
  if any('/~_activate_interaction/' in name for name in shapes):
    return 'fac_bnrelu'
  return 'fac_relu'


def gin_config(released: Released) -> tuple[list[str], list[str]]:
  """Returns the gin files and bindings that build the model of a checkpoint.

  Args:
    released: `Released`, from `detect`.

  Returns:
    (files, bindings), two lists of strings for `gin_utils.parse`.
  """
  sizes = dict(released.sizes)
  sizes['VOCABULARY_SIZE'] = sizes.pop('WordTower.vocabulary_size')
  # The release's table holds word2vec vectors that were never trained.
  sizes['WordTower.is_table_frozen'] = True
  return [_GIN_FILES[released.backbone]], gin_sizes.bindings(sizes)


def plan(
  shapes: Mapping[str, tuple[int, ...]], model: tf_keras.Model
) -> plans.Plan:
  """Plans how a released checkpoint fills a model.

  Args:
    shapes: Shapes of all its arrays by name.
    model: A built `vatt.VATT` with MMV's towers.

  Returns:
    `plans.Plan`.

  Raises:
    ValueError: The checkpoint is not a released one, or the model has other
      towers.
  """
  released = detect(shapes)
  _check_towers(released, model)
  form = getattr(model.head, 'form', None)
  mapping = plans.Plan([])
  used = set()
  variables = plans.target_variables(model)
  for target, variable in variables.items():
    source = mmv_names.source_of(target, released.backbone, form)
    if '/similarity_scale/' in target:
      mapping.new[target] = 'the release learns no temperature'
    elif source in shapes:
      used.add(source)
      mapping.assignments.append(_assignment(target, source, variable, shapes))
    elif target.endswith('/num_updates'):
      average = source.replace('/counter', '/average')
      mapping.assignments.append(
        plans.Assignment(
          target,
          (average,),
          'the file has no counter: taken as settled',
          lambda read: np.float32(_SETTLED),
        )
      )
    else:
      mapping.missing[target] = f'the checkpoint has no {source or "such part"}'
  if form in ('fac', 'fac_relu') and released.sizes['MMVHead.form'] != form:
    mapping.notes.append('The form of the head is not the one of the file.')
  for name in shapes:
    why = _why_unused(name, model)
    if name not in used and why is not None:
      mapping.ignored[name] = why
  return mapping


def _assignment(target, source, variable, shapes):
  """The assignment of one array, whose axes of size 1 the variable lacks."""
  shape = tuple(variable.shape)

  def fit(value):
    # What does not fit is left as it is, which the report shows.
    squeezed = [size for size in np.shape(value) if size != 1]
    is_same = squeezed == [size for size in shape if size != 1]
    return np.reshape(value, shape) if is_same else value

  if shapes[source] == shape:
    return plans.copy(target, source)
  return plans.copy(target, source, 'reshaped', fit)


def _check_towers(released, model):
  """Raises ValueError unless the model has the towers of a checkpoint."""
  expected = {
    'video': _TOWERS[released.backbone],
    'audio': 'ResNetTower',
    'text': 'WordTower',
  }
  for modality, tower in model.towers.items():
    name = type(tower).__name__
    if name != expected[modality]:
      raise ValueError(
        f'The {modality} tower of the checkpoint is {expected[modality]}, and '
        f'the gin files describe {name}. Use '
        f'{_GIN_FILES[released.backbone]}, or no gin file.'
      )


def _why_unused(name, model):
  """The reason why a model does not use an array; None if it should."""
  if mmv_names.is_of_norm_state(name):
    return 'the average and its counter are used'
  for modality, root in (
    ('video', mmv_names.VIDEO),
    ('audio', mmv_names.AUDIO),
    ('text', mmv_names.TEXT),
  ):
    if root in name and modality not in model.modalities:
      return f'the model has no {modality} tower'
  if mmv_names.HEADS in name:
    if model.head is None:
      return 'the model has no heads'
    for unused in ('audio2txt_embd', 'txt2audio_embd'):
      if f'/{unused}/' in name:
        return 'a map that no term of the loss uses'
  return None


def load(
  model: tf_keras.Model,
  source: weight_sources.Source,
  allow_partial: bool = False,
) -> reports.Report:
  """Fills a model from a released checkpoint.

  Args:
    model: A built `vatt.VATT` with MMV's towers; call this in its strategy's
      scope.
    source: The opened checkpoint.
    allow_partial: Whether to import only the parts that fit.

  Returns:
    `reports.Report`.

  Raises:
    ValueError: The checkpoint cannot be read, or does not fit; see `plan`.
  """
  mapping = plan(source.shapes, model)
  return reports.apply(mapping, model, source, allow_partial)
