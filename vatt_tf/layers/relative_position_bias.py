"""The relative position bias of T5."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras


def relative_buckets(
  offsets: tf.Tensor, num_buckets: int, max_distance: int
) -> tf.Tensor:
  """Maps relative positions to the buckets of T5's encoder.

  Half of the buckets are for keys after the query, half for keys before it. In
  each half, each small distance has a bucket, and larger ones share buckets
  whose size grows logarithmically up to `max_distance`.

  Args:
    offsets: Integers: key position minus query position.
    num_buckets: Number of all buckets, even, at least 4.
    max_distance: Distance from which all offsets are in the last bucket.

  Returns:
    Int32 array like `offsets`, in [0, num_buckets).
  """
  offsets = np.asarray(offsets)
  half = num_buckets // 2
  num_exact = half // 2
  distance = np.abs(offsets)
  # Use float32, as T5 does: bucket edges at exact powers depend on rounding.
  ratio = np.log(
    np.maximum(distance, 1).astype(np.float32) / np.float32(num_exact)
  ) / np.float32(math.log(max_distance / num_exact))
  large = num_exact + (ratio * np.float32(half - num_exact)).astype(np.int32)
  bucket = np.where(distance < num_exact, distance, np.minimum(large, half - 1))
  return (bucket + half * (offsets > 0)).astype(np.int32)


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class RelativePositionBias(tf_keras.layers.Layer):
  """A learned bias of attention logits for each head and relative position.

  T5's encoder has it (Raffel et al., 2020), and in VATT the text tower of the
  modality-specific model (paper, section 3.1.2). All layers share its table.

  Args:
    num_heads: Number of attention heads.
    num_buckets: Number of buckets, even, at least 4.
    max_distance: Distance from which all offsets are in the last bucket, above
      `num_buckets // 4` (128 in T5, 64 in the release).
    initializer: Initializer of the table.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Tensor (B, N, D), N static. Only its length is used.

  Returns:
    Tensor (1, num_heads, N, N) in the compute dtype: query, then key.

  Raises:
    ValueError: An argument is out of its range, or N is not static.

  Example:
    >>> RelativePositionBias(num_heads=2)(tf.zeros([1, 5, 8])).shape
    TensorShape([1, 2, 5, 5])
  """

  def __init__(
    self,
    num_heads: int,
    num_buckets: int = 32,
    max_distance: int = 128,
    initializer: str | tf_keras.initializers.Initializer = 'glorot_uniform',
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    if num_buckets < 4 or num_buckets % 2:
      raise ValueError(
        '`num_buckets` must be even and at least 4. '
        f'Received: num_buckets={num_buckets}'
      )
    if max_distance <= num_buckets // 4:
      raise ValueError(
        f'`max_distance` must be above num_buckets // 4 = {num_buckets // 4}. '
        f'Received: max_distance={max_distance}'
      )
    self.num_heads = num_heads
    self.num_buckets = num_buckets
    self.max_distance = max_distance
    self.initializer = tf_keras.initializers.get(initializer)

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `embeddings`, (num_buckets, num_heads)."""
    self.embeddings = self.add_weight(
      name='embeddings',
      shape=[self.num_buckets, self.num_heads],
      initializer=self.initializer,
    )
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Returns the bias for sequences as long as `x`; see the class."""
    length = x.shape[1]
    if length is None:
      raise ValueError(
        f'`x` must have a static length. Received: x.shape={x.shape}'
      )
    positions = np.arange(length)
    buckets = relative_buckets(
      positions[None, :] - positions[:, None],
      self.num_buckets,
      self.max_distance,
    )  # (N, N), query then key
    bias = tf.gather(tf.convert_to_tensor(self.embeddings), buckets)
    return tf.transpose(bias, [2, 0, 1])[None]  # (1, num_heads, N, N)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'num_heads': self.num_heads,
      'num_buckets': self.num_buckets,
      'max_distance': self.max_distance,
      'initializer': tf_keras.initializers.serialize(self.initializer),
    }
