"""Reads the `config.gin` of old runs, whose model a function built.

Such files bind `build_model` and `build_classifier`, which had arguments for
all towers. `upgrade` binds these to the towers, the head and the task.
"""

import re

_BUILDERS = ('build_model', 'build_classifier', 'similarity_kind')
# New names of the arguments of `build_model`.
_NEW_NAMES = {
  'video_patch_size': ('video/PatchTower.patch_size',),
  'video_form': ('video/PatchTower.form',),
  'vocabulary_size': ('TextTower.vocabulary_size',),
  'd_embedding': ('TextTower.d_embedding',),
  'word_vectors': ('TextTower.word_vectors',),
  'vocabulary': ('TextTower.vocabulary',),
  'is_table_frozen': ('TextTower.is_table_frozen',),
  'text_form': ('TextTower.form',),
  'num_relative_buckets': ('TextTower.num_relative_buckets',),
  'max_relative_distance': ('TextTower.max_relative_distance',),
  'max_words': ('TextTower.max_words',),
  'common_space': ('ProjectionHead.form',),
  'd_va': ('ProjectionHead.d_va',),
  'd_vt': ('ProjectionHead.d_vt',),
  'd_post_projection': ('share_encoder.d_post_projection',),
  'drop_token_rate': ('PatchTower.drop_token_rate',),
  'dropout_rate': (
    'PatchTower.dropout_rate',
    'TextTower.dropout_rate',
    'share_encoder.dropout_rate',
  ),
  'position_interpolation': (
    'PatchTower.position_interpolation',
    'TextTower.position_interpolation',
  ),
  'use_remat': (
    'PatchTower.use_remat',
    'TextTower.use_remat',
    'share_encoder.use_remat',
  ),
  'num_classes': ('Classifier.num_classes',),
  'is_multi_label': ('Classifier.is_multi_label',),
  'classifier_dropout_rate': ('Classifier.classifier_dropout_rate',),
}
_TOWERS = {
  'video': 'video/PatchTower',
  'audio': 'audio/PatchTower',
  'text': 'TextTower',
}


def is_old(text: str) -> bool:
  """Returns whether the text of a gin file belongs to an old run."""
  return bool(re.search(r'^evaluate\.model\s*=', text, re.MULTILINE))


def upgrade(text: str) -> str:
  """Binds the towers, the head and the task in place of the old functions.

  Args:
    text: Text of an old `config.gin`.

  Returns:
    Text that binds the same model.
  """
  statements = _statements(text)
  builder = statements['evaluate.model'].lstrip('@')
  old = {
    name.partition('.')[2]: value
    for name, value in statements.items()
    if name.startswith(f'{builder}.')
  }
  new = {
    name: value
    for name, value in statements.items()
    if name.split('.')[0] not in _BUILDERS
    and name
    not in ('evaluate.model', 'PretrainTask.model', 'FinetuneTask.model')
  }
  for name, value in old.items():
    new.update(dict.fromkeys(_NEW_NAMES.get(name, ()), value))
  modalities = tuple(_TOWERS)
  if builder == 'build_classifier':
    modality = _resolve(old['modality'], statements)
    modalities = (modality.strip('\'"'),)
    new['evaluate.task'] = '@FinetuneTask()'
    new['FinetuneTask.model'] = '@Classifier'
    new['Classifier.tower'] = '@select_tower()'
    new['select_tower.towers'] = '%TOWERS'
    new['select_tower.modality'] = modality
    is_agnostic = _resolve(old.get('is_agnostic'), statements) == 'True'
    size = old.get('size', 'None')
    if size == 'None':
      size = old.get(f'{modalities[0]}_size', 'None')
    if not is_agnostic:
      old = {**old, f'{modalities[0]}_size': size}
    patch_size = old.get('patch_size', 'None')
    new[f'{_TOWERS[modalities[0]]}.patch_size'] = patch_size
  else:
    new['evaluate.task'] = '@PretrainTask()'
    new['PretrainTask.model'] = '@VATT'
    new['VATT.towers'] = '%TOWERS'
    new['VATT.head'] = '@ProjectionHead'
    size = old.get('size', 'None')
    is_agnostic = size != 'None'
  ends = '' if is_agnostic else '()'
  towers = ', '.join(
    f'{name!r}: @{_TOWERS[name]}{ends}'
    for name in modalities
    if is_agnostic or old.get(f'{name}_size', 'None') != 'None'
  )
  if is_agnostic:
    new['TOWERS'] = '@share_encoder()'
    new['share_encoder.towers'] = f'{{{towers}}}'
    new['share_encoder.size'] = size
  else:
    new['TOWERS'] = f'{{{towers}}}'
    for name in modalities:
      new[f'{_TOWERS[name]}.size'] = old.get(f'{name}_size', 'None')
  new.update(_inputs(old, statements, builder))
  return ''.join(f'{name} = {value}\n' for name, value in new.items())


def _inputs(old, statements, builder):
  """The bindings of the inputs of the patch towers, and of their sizes."""
  bindings = {
    'video/PatchTower.input_name': "'video'",
    'video/PatchTower.input_size': (
      f'({old.get("num_frames", "32")}, {old.get("frame_size", "224")})'
    ),
    'audio/PatchTower.input_name': "'audio'",
    'audio/PatchTower.input_size': old.get('num_audio_samples', '153600'),
  }
  patch_size = old.get('audio_patch_size')
  if 'spectrogram' in _resolve(old.get('audio_form', ''), statements):
    patch_size = old.get('spectrogram_patch_size')
    bindings['audio/PatchTower.input_name'] = "'spectrogram'"
    bindings['audio/PatchTower.input_size'] = (
      f'({old.get("num_spectrogram_frames", "150")}, '
      f'{old.get("num_mel_bins", "80")})'
    )
  if patch_size is not None and builder == 'build_model':
    bindings['audio/PatchTower.patch_size'] = patch_size
  return bindings


def _resolve(value, statements):
  """The value of a macro, or the given value if it is not one; '' for None."""
  while value and value.startswith('%'):
    value = statements.get(value[1:])
  return value or ''


def _statements(text):
  """The texts of the values by the names that a written gin file binds."""
  text = re.sub(r'^\s*#.*$', '', text, flags=re.MULTILINE)
  text = re.sub(r'\\\n\s*', '', text)  # join continued lines
  values = {}
  for statement in re.split(r'\n(?=\S)', text):
    name, equals, value = statement.partition('=')
    if equals:
      values[name.strip()] = re.sub(r'\n\s*', ' ', value.strip())
  return values
