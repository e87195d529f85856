"""Layer normalisation, computed in float32 and cheap to differentiate."""

from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import tensor_utils
from vatt_tf.layers import recompute


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class LayerNorm(tf_keras.layers.Layer):
  """Normalises the last axis to mean 0 and variance 1, then scales and shifts.

  The backward pass keeps the input and two numbers per row (Ba et al., 2016;
  pre-normalisation of the encoder: VATT paper, section 3.1.2).

  Args:
    epsilon: Number added to the variance.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Floating-point tensor (..., D), D static.

  Returns:
    A tensor like `x` in the compute dtype; inside, everything is float32.

  Raises:
    ValueError: `epsilon` is not positive.

  Example:
    >>> LayerNorm()(tf.constant([[1.0, 3.0]])).numpy().round(3)
    array([[-1.,  1.]], dtype=float32)
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
    """Creates `gamma` and `beta`, each (D,)."""
    width = int(input_shape[-1])
    arguments = {
      'shape': [width],
      'dtype': tensor_utils.accumulation_dtype(self.variable_dtype),
      'experimental_autocast': False,
    }
    self.gamma = self.add_weight(name='gamma', initializer='ones', **arguments)
    self.beta = self.add_weight(name='beta', initializer='zeros', **arguments)
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Normalises `x`; see the class."""

    def forward(x, gamma, beta):
      mean = tf.reduce_mean(x, -1, keepdims=True)  # (..., 1)
      x -= mean
      variance = tf.reduce_mean(tf.square(x), -1, keepdims=True)
      scale = tf.math.rsqrt(variance + self.epsilon)  # (..., 1)
      return x * scale * gamma + beta, mean, scale

    gamma = tf.convert_to_tensor(self.gamma)
    beta = tf.convert_to_tensor(self.beta)
    return recompute.normalized(forward, x, gamma, beta)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {**super().get_config(), 'epsilon': self.epsilon}
