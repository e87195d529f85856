"""Names of variables in released VATT checkpoints, for ours.

`released_names(model)` gives, for each weight of a model, the name that the
release's checkpoint has for the same values.
"""

import re

_SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'
_BASE = 'model/layer_with_weights-0/_base_layer/'
_HEAD = 'model/layer_with_weights-0/_head_layer/_bridge_heads/0/'

_HEADS = {
  'video_to_hidden': 'vid_to_hid',
  'hidden_norm': 'hid_to_va/pre_bn',
  'hidden_to_va': 'hid_to_va/dense',
  'va_norm': 'hid_to_va/bn',
  'audio_to_va': 'aud_to_va',
  'va_to_vt': 'va_to_vat/dense',
  'vt_norm': 'va_to_vat/bn',
  'text_to_vt': 'txt_to_vat',
}
_BACKBONES = {
  'video': 'vid_backbone/_base/',
  'audio': 'aud_backbone/_base/',
  'text': 'txt_backbone/',
}


def _encoder(name, is_t5=False):
  """Names inside an encoder."""
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


def _agnostic(part, name):
  """Names in the modality-agnostic model's backbone."""
  prefix = _BASE + 'unified_backbone/unified_transformer/'
  if part == 'encoder':
    return f'{prefix}tx/{_encoder(name)}'
  modality, part = part.split('_', 1)
  if part == 'post_projection':
    return f'{prefix}post_proj/{modality}/{name}'
  if name == 'agg':
    return f'{prefix}{modality[:3].replace("tex", "txt")}_agg_embedding'
  part, name = name.split('/', 1)
  if part in ('tokenizer', 'table'):
    return f'{prefix}raw_to_embeddings/{modality}/{name}'
  if part == 'pre_projection':
    return f'{prefix}pre_proj/{modality}/{name}'
  return f'{prefix}pos_embedding_lookup/{modality}/{_position(name)}'


def _position(name):
  if name.startswith('norm/'):
    return name.replace('norm', 'layernorm')
  return f'{name}_position_embeddings/embeddings'


def _specific(part, name):
  """Names in the modality-specific model's backbones."""
  modality, part = part.split('_', 1)
  prefix = _BASE + _BACKBONES[modality]
  if part == 'encoder':
    root = 'base_lm/' if modality == 'text' else 'tx/'
    return prefix + root + _encoder(name, is_t5=modality == 'text')
  if name == 'agg':
    return f'{prefix}agg_embedding'
  part, name = name.split('/', 1)
  if part == 'tokenizer':
    tokenizer = 'voxel_to_patch' if modality == 'video' else 'wave_to_patch'
    return f'{prefix}{tokenizer}/{name}'
  if part == 'table':
    return f'{prefix}embedding/{name}'
  if part == 'pre_projection':
    return f'{prefix}pre_proj/{name}'
  return f'{prefix}pos_embedding_lookup/{_position(name)}'


def released_names(model):
  """Maps the names of a model's weights to those of the release.

  Args:
    model: a built `vatt.VATT`.

  Returns:
    Dictionary from weight name (with `:0`) to the released name, without the
    suffix of checkpoint files.
  """
  names = {}
  for weight in model.weights:
    _, part, name = weight.name[:-2].split('/', 2)
    if part == 'head':
      layer, name = name.split('/')
      released = f'{_HEAD}{_HEADS[layer]}/{name}'
    elif model.encoder is not None:
      released = _agnostic(part, name)
    else:
      released = _specific(part, name)
    names[weight.name] = released
  return names


def load(model, reader):
  """Assigns a released checkpoint's values to all weights of a model.

  Args:
    model: a built `vatt.VATT`.
    reader: of `tf.train.load_checkpoint`.
  """
  names = released_names(model)
  for weight in model.weights:
    value = reader.get_tensor(names[weight.name] + _SUFFIX)
    # Kernels of patches are stored as those of convolutions.
    weight.assign(value.reshape(weight.shape))
