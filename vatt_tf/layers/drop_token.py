"""DropToken: training on a random share of the tokens."""

import math
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import randomness, tensor_utils


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class DropToken(tf_keras.layers.Layer):
  """Keeps a random share of the tokens of each example (paper, section 3.2).

  In training each example keeps its own random `floor((1 - rate) * N)` tokens,
  at least one, which is a static number. In inference all tokens are kept.

  `sample` returns only the kept positions, so that patches can be gathered
  before they are projected, and position embeddings with the same positions.

  Args:
    drop_token_rate: Share of the tokens that are dropped, in [0, 1).
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Tensor (B, N, ...), N static.
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng` or None.

  Returns:
    (B, K, ...) like `x`, tokens in random order; `x` itself in inference.

  Raises:
    ValueError: `drop_token_rate` is out of range, or N is not static.

  Example:
    >>> DropToken(0.5)(tf.zeros([2, 9, 4]), training=True).shape
    TensorShape([2, 4, 4])
  """

  def __init__(self, drop_token_rate: float = 0.5, **kwargs: Any):
    super().__init__(**kwargs)
    if not 0 <= drop_token_rate < 1:
      raise ValueError(
        '`drop_token_rate` must be in [0, 1). '
        f'Received: drop_token_rate={drop_token_rate}'
      )
    self.drop_token_rate = drop_token_rate

  def num_kept(self, num_tokens: int) -> int:
    """Returns the number of tokens that training keeps of `num_tokens`."""
    # Rounding is needed, because (1 - 0.9) * 10 is slightly less than 1.
    share = round((1 - self.drop_token_rate) * num_tokens, 6)
    return max(1, math.floor(share))

  def sample(
    self,
    num_rows: int | tf.Tensor,
    num_tokens: int,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor | None:
    """Draws which tokens are kept.

    Args:
      num_rows: Number B of rows.
      num_tokens: Number N of tokens.
      training: Whether dropout and DropToken apply.
      rng: `randomness.Rng` or None.

    Returns:
      (B, K) int32, different positions in [0, N) in random order; None if all
      tokens are kept.
    """
    if not training or self.drop_token_rate == 0:
      return None
    scores = randomness.uniform(rng, [num_tokens], num_rows)  # (B, N)
    return tf.math.top_k(scores, self.num_kept(num_tokens), sorted=False)[1]

  def call(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor:
    """Drops tokens of `x`; see the class."""
    num_rows, num_tokens = tensor_utils.shape_list(x)[:2]
    if not isinstance(num_tokens, int):
      raise ValueError(
        f'`x` must have a static number of tokens. Received: x.shape={x.shape}'
      )
    keep = self.sample(num_rows, num_tokens, training, rng)
    return x if keep is None else tf.gather(x, keep, batch_dims=1)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {**super().get_config(), 'drop_token_rate': self.drop_token_rate}
