"""The names of variables in the checkpoints that the VATT authors released."""

from collections.abc import Iterable
import re

import tf_keras

from vatt_tf.checkpoints import plans

MODALITIES = {'video': 'vid', 'audio': 'aud', 'text': 'txt'}

_TOKENIZERS = {'video': 'voxel_to_patch', 'audio': 'wave_to_patch'}

_UNIFIED = 'unified_transformer/'

HEAD = '_bridge_heads/0/'

CLASSES = 'cls/'

# The prefix before these parts of a name varies and is dropped.
_ROOTS = re.compile(
  r'(?:^|/)(unified_transformer/.+|(?:vid|aud|txt)_backbone/.+'
  r'|_bridge_heads/0/.+|cls/(?:kernel|bias)|agg_embedding'
  r'|(?:pos_embedding_lookup|tx|voxel_to_patch|wave_to_patch|pre_proj'
  r'|post_proj)/.+)$'
)

_BESIDE_THE_MODEL = (
  (r'/\.OPTIMIZER_SLOT/', 'slot of the optimizer'),
  (r'(^|/)optimizer(/|$)', 'state of the optimizer'),
  (r'(^|/)(save_counter|global_step)$', 'counter'),
)

HEADS = {
  'video_to_hidden': 'vid_to_hid',
  'hidden_norm': 'hid_to_va/pre_bn',
  'hidden_to_va': 'hid_to_va/dense',
  'va_norm': 'hid_to_va/bn',
  'audio_to_va': 'aud_to_va',
  'va_to_vt': 'va_to_vat/dense',
  'vt_norm': 'va_to_vat/bn',
  'text_to_vt': 'txt_to_vat',
}


def short_names(names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
  """Returns the names without their prefixes, and those outside the model.

  Args:
    names: Names of the variables in a checkpoint.

  Returns:
    (short, ignored): a dictionary from short to full names, and a dictionary
    from the full names of variables outside the model to what they are.

  Raises:
    ValueError: Two names have the same short name.
  """
  short, ignored = {}, {}
  for name in names:
    kinds = [k for pattern, k in _BESIDE_THE_MODEL if re.search(pattern, name)]
    if kinds:
      ignored[name] = kinds[0]
    elif root := _ROOTS.search(name):
      if root[1] in short:
        raise ValueError(
          f'The checkpoint holds two models: {short[root[1]]} and {name}. Save '
          'one of them alone.'
        )
      short[root[1]] = name
  return short, ignored


def is_released(names: Iterable[str]) -> bool:
  """Returns whether variable names belong to a checkpoint of the release."""
  return any(
    re.search(
      r'(^|/)(unified_transformer|(vid|aud|txt)_backbone|voxel_to_patch'
      r'|wave_to_patch)/',
      name,
    )
    for name in names
  )


def kind_of(short: Iterable[str]) -> str:
  """Returns the kind of short names: `ut_fac`, `tx_fac` or `classifier`."""
  if any(name.startswith(_UNIFIED) for name in short):
    return 'ut_fac'
  if any('_backbone/' in name for name in short):
    return 'tx_fac'
  return 'classifier'


def tower_roots(kind: str, modality: str) -> dict[str, str]:
  """Returns the prefix of each part's short names (for `agg`, its name)."""
  if kind == 'ut_fac':
    return {
      'encoder': f'{_UNIFIED}tx/',
      'agg': f'{_UNIFIED}{MODALITIES[modality]}_agg_embedding',
      'tokenizer': f'{_UNIFIED}raw_to_embeddings/{modality}/',
      'pre_projection': f'{_UNIFIED}pre_proj/{modality}/',
      'position_embedding': f'{_UNIFIED}pos_embedding_lookup/{modality}/',
      'post_projection': f'{_UNIFIED}post_proj/{modality}/',
    }
  root = ''
  if kind == 'tx_fac':
    root = f'{MODALITIES[modality]}_backbone/'
    if modality == 'text':
      return {
        'encoder': f'{root}base_lm/',
        'agg': f'{root}agg_embedding',
        'tokenizer': f'{root}embedding/',
        'pre_projection': f'{root}pre_proj/',
      }
    root += '_base/'
  return {
    'encoder': f'{root}tx/',
    'agg': f'{root}agg_embedding',
    'tokenizer': f'{root}{_TOKENIZERS[modality]}/',
    'pre_projection': f'{root}pre_proj/',
    'position_embedding': f'{root}pos_embedding_lookup/',
    'post_projection': f'{root}post_proj/',
  }


def _encoder_name(name, is_t5):
  """The release's name of a weight inside an encoder."""
  attention = 'self_attention/attention' if is_t5 else 'mha'
  norm = 'self_attention/layer_norm' if is_t5 else 'layer_norm'
  for pattern, replacement in (
    (r'^layer_(\d+)/attention_norm/', rf'layers/\1/{norm}/'),
    (r'^layer_(\d+)/attention/', rf'layers/\1/{attention}/'),
    (r'^layer_(\d+)/feed_forward_norm/', r'layers/\1/feed_forward/layer_norm/'),
    (r'^layer_(\d+)/feed_forward/', r'layers/\1/feed_forward/mlp/'),
    (r'^norm/', 'final_layer_norm/'),
    (
      r'^position_bias/',
      'layers/0/self_attention/attention/relative_attention_bias/',
    ),
    (r'/scale$', '/weight'),
  ):
    name = re.sub(pattern, replacement, name)
  return name


def _short_name(target, kind, modalities, head_form):
  """The short name of a weight of the model; None if the release has none."""
  _, part, name = target.split('/', 2)
  if target.startswith('classifier/logits/'):
    return CLASSES + name if kind == 'classifier' else None
  if part == 'head':
    layer, name = name.split('/')
    if head_form != 'fine_and_coarse' or layer not in HEADS:
      return None
    return f'{HEAD}{HEADS[layer]}/{name}'
  if part == 'encoder':
    return tower_roots(kind, modalities[0])['encoder'] + _encoder_name(
      name, False
    )
  modality, _, part = part.partition('_')
  if modality not in MODALITIES:
    return None
  roots = tower_roots(kind, modality)
  if part == 'encoder':
    is_t5 = kind == 'tx_fac' and modality == 'text'
    return roots['encoder'] + _encoder_name(name, is_t5)
  if part == 'post_projection':
    return roots[part] + name
  if name == 'agg':
    return roots['agg']
  part, name = name.split('/', 1)
  if part == 'table':
    part = 'tokenizer'
  elif part == 'position_embedding':
    if name.startswith('norm/'):
      name = name.replace('norm', 'layernorm')
    else:
      name = f'{name}_position_embeddings/embeddings'
  return roots[part] + name if part in roots else None


def short_names_of(model: tf_keras.Model, kind: str) -> dict[str, str | None]:
  """Maps each target of a model to the release's short name, or to None."""
  form = getattr(model.head, 'form', None)
  return {
    target: _short_name(target, kind, model.modalities, form)
    for target in plans.target_variables(model)
  }


def is_agnostic(names: Iterable[str], kind: str, modality: str) -> bool:
  """Returns whether short names belong to a modality-agnostic model."""
  root = tower_roots(kind, modality)['pre_projection']
  return kind == 'ut_fac' or (
    kind == 'classifier' and any(name.startswith(root) for name in names)
  )
