"""The sizes of encoders (paper, table 1 of the appendix).

gin files name them as constants: `PatchTower.size = %MEDIUM`.
"""

from typing import NamedTuple

import gin


@gin.register
class Size(NamedTuple):
  """Size of a Transformer encoder.

  Attributes:
    num_layers: Number of layers.
    d_model: Width of the tokens.
    d_ff: Inner width of the feed-forward.
    num_heads: Number of attention heads.
    d_kv: Width of a head.
  """

  num_layers: int
  d_model: int
  d_ff: int
  num_heads: int
  d_kv: int = 64


SMALL = Size(6, 512, 2048, 8)
BASE = Size(12, 768, 3072, 12)
MEDIUM = Size(12, 1024, 4096, 16)
LARGE = Size(24, 1024, 4096, 16)
# For training from scratch on a few hundred labelled clips.
TINY = Size(4, 128, 512, 4, d_kv=32)

NAMED = {
  'TINY': TINY,
  'SMALL': SMALL,
  'BASE': BASE,
  'MEDIUM': MEDIUM,
  'LARGE': LARGE,
}
for _name, _size in NAMED.items():
  gin.constant(f'vatt_tf.{_name}', _size)
