"""Root mean square normalisation, as in T5."""

from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import tensor_utils


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class RMSNorm(tf_keras.layers.Layer):
  """Divides by the root mean square of the last axis, then scales.

  No mean is subtracted and nothing is added (Zhang and Sennrich, 2019); T5 and
  VATT's text tower (paper, section 3.1.2) use it.

  Args:
    epsilon: Number added to the mean square.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Floating-point tensor (..., D), D static.

  Returns:
    A tensor like `x` in the compute dtype; inside, everything is float32.

  Raises:
    ValueError: `epsilon` is not positive.

  Example:
    >>> RMSNorm()(tf.constant([[3.0, 3.0, -3.0]])).numpy().round(3)
    array([[ 1.,  1., -1.]], dtype=float32)
  """

  def __init__(self, epsilon: float = 1e-6, **kwargs: Any):
    super().__init__(**kwargs)
    if not epsilon > 0:
      raise ValueError(
        f'`epsilon` must be positive. Received: epsilon={epsilon}'
      )
    self.epsilon = epsilon
    self.supports_masking = True

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `scale`, (D,)."""
    self.scale = self.add_weight(
      name='scale',
      shape=[int(input_shape[-1])],
      initializer='ones',
      dtype=tensor_utils.accumulation_dtype(self.variable_dtype),
      experimental_autocast=False,
    )
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Normalises `x`; see the class."""
    value = tf.cast(x, self.scale.dtype)
    mean_square = tf.reduce_mean(tf.square(value), -1, keepdims=True)
    value *= tf.math.rsqrt(mean_square + self.epsilon)
    return tf.cast(value * self.scale, x.dtype)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {**super().get_config(), 'epsilon': self.epsilon}
