"""Names of MMV's released arrays for the variables of a model.

The release has two dictionaries, `params` and `state`, of module names and
leaves; as one mapping, `params/text_audio_video/…/w`.
"""

from collections.abc import Iterable
import re

ROOT = 'text_audio_video/'
VIDEO = f'{ROOT}visual_module/~/'
AUDIO = f'{ROOT}audio_module/~/res_net_v2/'
TEXT = f'{ROOT}text_module/~/'
HEADS = f'{ROOT}~_get_pair_embedding_heads/'
S3D = f'{VIDEO}S3D/'
TSM = f'{VIDEO}TSMResNetV2/'

PARAMS = 'params/'
STATE = 'state/'

_NORM = '__cross_replica_batch_norm'

# Leaves of a batch norm. The moving averages in use are those without the bias
# of their initial values.
_NORM_LEAVES = {
  'gamma': (PARAMS, 'scale'),
  'beta': (PARAMS, 'offset'),
  'moving_mean': (STATE, '~/mean_ema/average'),
  'moving_variance': (STATE, '~/var_ema/average'),
  'num_updates': (STATE, '~/mean_ema/counter'),
}

_LEAVES = {'kernel': 'w', 'bias': 'b', 'embeddings': 'embeddings'}

# Modules of the head's maps, by the form of the head.
HEAD_MODULES = {
  'fac': {
    'video_to_va': 'vid2audio_embd',
    'va_to_vt': 'vis_embd',
    'audio_to_va': 'audio_embd',
    'text_to_vt': 'txt_embd',
    'audio_to_at': 'audio2txt_embd',
    'text_to_at': 'txt2audio_embd',
  },
  'shared': {
    'video_to_va': 'vis_embd',
    'audio_to_va': 'audio_embd',
    'text_to_vt': 'txt_embd',
  },
  'disjoint': {
    'video_to_va': 'vid2audio_embd',
    'video_to_vt': 'vis_embd',
    'audio_to_va': 'audio_embd',
    'text_to_vt': 'txt_embd',
    'audio_to_at': 'audio2txt_embd',
    'text_to_at': 'txt2audio_embd',
  },
}


def _numbered(name, i):
  """The name of the i-th module of a kind, as Haiku numbers them."""
  return f'{name}_{i}' if int(i) else name


def _norm_leaf(module, i, leaf):
  root, name = _NORM_LEAVES[leaf]
  return f'{root}{module}/{_numbered(_NORM, i)}/{name}'


def _s3d(part, rest):
  """The array of a weight of S3D-G; `part` such as `mixed_3b`."""
  *layers, inner, leaf = f'{part}/{rest}'.split('/')
  module = re.sub(
    '(?<![a-z0-9])(mixed|conv2d|branch)',
    lambda match: match[0].capitalize(),
    '/'.join(layers),
  )
  module = S3D + module
  if inner == 'self_gating':
    return f'{PARAMS}{module}/self_gating/{_LEAVES[leaf]}'
  kind, i = inner.split('_')
  if kind == 'norm':
    return _norm_leaf(module, i, leaf)
  return f'{PARAMS}{module}/~/{_numbered("conv3_d", i)}/w'


def _resnet(root, unit, separator, part, rest):
  """The array of a weight of a ResNet; `part` such as `unit_0_block_1`."""
  if part == 'stem':
    stem = 'tsm_resnet_stem' if root == TSM else '~/initial_conv'
    return f'{PARAMS}{root}{stem}/w'
  if part == 'last_norm':
    return _norm_leaf(root.rstrip('/'), 0, rest.removeprefix('norm/'))
  _, i, _, j = part.split('_')
  module = f'{root}{unit}{i}/block_{j}'
  inner, leaf = rest.split('/')
  if inner == 'shortcut':
    return f'{PARAMS}{module}/{separator}shortcut_conv/w'
  kind, k = inner.split('_')
  if kind == 'norm':
    return _norm_leaf(module, k, leaf)
  return f'{PARAMS}{module}/{separator}conv_{k}/w'


def _head(modules, rest):
  """The array of a weight of the head; None if the release has no such map."""
  name, *inner, leaf = rest.split('/')
  if name == 'va_norm':
    module = f'{ROOT}~_activate_interaction'
    return _norm_leaf(module, 0, leaf)
  if name not in modules:
    return None
  module = f'{HEADS}{modules[name]}'
  (inner,) = inner
  if inner == 'hidden_norm':
    return _norm_leaf(module, 0, leaf)
  if inner == 'output_norm':
    return _norm_leaf(module, 1 if name.startswith('video_') else 0, leaf)
  layer = 'final_projection_inner' if inner == 'hidden' else 'final_projection'
  return f'{PARAMS}{module}/{layer}/{_LEAVES[leaf]}'


def source_of(target: str, backbone: str, form: str | None) -> str | None:
  """Returns the name of the released array for a variable.

  Args:
    target: Name of the variable, such as `vatt/video_stem/convolution/kernel`.
    backbone: `s3d` or `tsm`.
    form: Form of the head, or None without a head.

  Returns:
    Name such as `params/text_audio_video/…/w`; None if the release has none.
  """
  part, _, rest = target.removeprefix('vatt/').partition('/')
  if part == 'head':
    form = 'fac' if form.startswith('fac') else form
    return _head(HEAD_MODULES[form], rest)
  modality, _, part = part.partition('_')
  if modality == 'video' and backbone == 's3d':
    return _s3d(part, rest)
  if modality == 'video':
    return _resnet(TSM, 'tsm_resnet_unit_', '', part, rest)
  if modality == 'audio':
    return _resnet(AUDIO, '~/block_group_', '~/', part, rest)
  if part == 'table':
    return f'{PARAMS}{TEXT}embed/embeddings'
  if part == 'projection':
    return f'{PARAMS}{TEXT}text_conv1/{_LEAVES[rest]}'
  return None


def is_released(names: Iterable[str]) -> bool:
  """Returns whether some names are of MMV's released arrays."""
  return any(name.startswith(PARAMS + ROOT) for name in names)


def is_of_norm_state(name: str) -> bool:
  """Returns whether an array is a part of moving averages beside `average`."""
  return re.search(r'/(mean|var)_ema/(hidden|counter)$', name) is not None
