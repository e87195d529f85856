"""The names and shapes of a ViT's weights in its two file formats."""

from collections.abc import Mapping
import dataclasses
from typing import Any

NUM_CHANNELS = 3

# Names of the encoder, a layer, the parts of a layer, and the kinds of weights
# in each format. Both formats hold the same weights.
PARTS = {
  'safetensors': {
    'cls': 'embeddings.cls_token',
    'positions': 'embeddings.position_embeddings',
    'tokenizer/kernel': 'embeddings.patch_embeddings.projection.weight',
    'tokenizer/bias': 'embeddings.patch_embeddings.projection.bias',
    'norm': 'layernorm',
    'layer': 'encoder.layer.{}.',
    'attention/q': 'attention.attention.query',
    'attention/k': 'attention.attention.key',
    'attention/v': 'attention.attention.value',
    'attention/o': 'attention.output.dense',
    'feed_forward/wi': 'intermediate.dense',
    'feed_forward/wo': 'output.dense',
    'attention_norm': 'layernorm_before',
    'feed_forward_norm': 'layernorm_after',
    'kernel': '.weight',
    'gamma': '.weight',
    'bias': '.bias',
    'beta': '.bias',
  },
  'npz': {
    'cls': 'cls',
    'positions': 'Transformer/posembed_input/pos_embedding',
    'tokenizer/kernel': 'embedding/kernel',
    'tokenizer/bias': 'embedding/bias',
    'norm': 'Transformer/encoder_norm',
    'layer': 'Transformer/encoderblock_{}/',
    'attention/q': 'MultiHeadDotProductAttention_1/query',
    'attention/k': 'MultiHeadDotProductAttention_1/key',
    'attention/v': 'MultiHeadDotProductAttention_1/value',
    'attention/o': 'MultiHeadDotProductAttention_1/out',
    'feed_forward/wi': 'MlpBlock_3/Dense_0',
    'feed_forward/wo': 'MlpBlock_3/Dense_1',
    'attention_norm': 'LayerNorm_0',
    'feed_forward_norm': 'LayerNorm_2',
    'kernel': '/kernel',
    'gamma': '/scale',
    'bias': '/bias',
    'beta': '/bias',
  },
}

IGNORED = (
  (r'(^|\.)pooler\.', 'the pooler: the feature is the output of CLS itself'),
  (r'^classifier\.|^head/', 'classes of the task that it was trained for'),
  (r'^pre_logits/', 'a map of the classes that it was trained for'),
  (r'mask_token$', 'used only in training with masked patches'),
)

ENCODER = {
  'attention_norm': 'layer',
  'feed_forward_norm': 'layer',
  'final_norm': 'layer',
  'activation': 'gelu',
  'is_gated': False,
  'use_bias': True,
  'use_attention_scale': True,
  'num_relative_buckets': 0,
}


@dataclasses.dataclass(frozen=True)
class ViT:
  """Kind and sizes of a ViT checkpoint.

  Attributes:
    kind: `safetensors` (Hugging Face's names) or `npz` (Google's).
    prefix: Prefix of the names, such as `vit.`.
    num_layers: Number of layers.
    d_model: Width D of the tokens.
    d_ff: Inner width of the feed-forward.
    num_heads: Number of attention heads.
    patch_size: (height, width) of a patch in pixels.
    grid: (vertical, horizontal): number of patches of an image.
    epsilon: Number added to the variance, or None if the file does not tell.
  """

  kind: str
  prefix: str
  num_layers: int
  d_model: int
  d_ff: int
  num_heads: int
  patch_size: tuple[int, int]
  grid: tuple[int, int]
  epsilon: float | None

  def __str__(self):
    return (
      f'ViT ({self.kind}): num_layers = {self.num_layers}, d_model = '
      f'{self.d_model}, d_ff = {self.d_ff}, num_heads = {self.num_heads}, '
      f'patch_size = {self.patch_size}, images of {self.frame_size}'
    )

  @property
  def frame_size(self) -> tuple[int, ...]:
    """(height, width) of the images in pixels."""
    return tuple(n * p for n, p in zip(self.grid, self.patch_size))


def kind_and_prefix(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str]:
  """Returns the format whose names the weights have, and their prefix."""
  for kind, parts in PARTS.items():
    anchor = parts['layer'].format(0) + parts['attention/q'] + parts['kernel']
    anchors = [name for name in shapes if name.endswith(anchor)]
    if len(anchors) == 1:
      return kind, anchors[0].removesuffix(anchor)
  raise ValueError(
    'This is no ViT: expected arrays such as embeddings.cls_token and '
    'encoder.layer.0.… (Hugging Face) or cls and Transformer/encoderblock_0/… '
    f'(npz). Received {len(shapes)} arrays: {", ".join(list(shapes)[:4])}, …'
  )


def heads(config: Mapping[str, Any] | None) -> int:
  """Returns the number of heads in config.json, after a check of its form."""
  if not config or 'num_attention_heads' not in config:
    raise ValueError(
      'A ViT of Hugging Face needs its config.json beside the weights, with '
      '`num_attention_heads`, which the weights do not show. Download it too.'
    )
  for name, expected in (('hidden_act', 'gelu'), ('qkv_bias', True)):
    value = config.get(name, expected)
    if value != expected:
      raise ValueError(
        f'`{name}` must be {expected!r} in config.json. Received: '
        f'{name}={value!r}'
      )
  return config['num_attention_heads']


def encoder_name(name: str, kind: str) -> str:
  """Returns ViT's name for a weight inside the encoder."""
  parts = PARTS[kind]
  path, _, weight = name.rpartition('/')
  if path == 'norm':
    return parts['norm'] + parts[weight]
  layer, _, path = path.partition('/')
  number = layer.removeprefix('layer_')
  return parts['layer'].format(number) + parts[path] + parts[weight]
