"""The feed-forward part of an encoder layer."""

from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import randomness
from vatt_tf.layers import activations, multi_head_attention, recompute


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class FeedForward(tf_keras.layers.Layer):
  """Two linear maps with an activation between them (paper, section 3.1.2).

  The gated form (T5 v1.1) is `wo(activation(wi(x)) * wi_linear(x))`.

  Args:
    d_ff: Inner width.
    activation: `gelu` (exact), `gelu_tanh` or `relu`.
    is_gated: Whether the feed-forward is gated.
    use_bias: Whether linear maps have biases.
    dropout_rate: Dropout rate after the activation, in [0, 1).
    initializer: `glorot_uniform`, or `t5` for normals with deviation D^-1/2,
      and d_ff^-1/2 for `wo`.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, N, D).
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng` or None.

  Returns:
    A tensor like `x` in the compute dtype.

  Raises:
    ValueError: An argument is out of its range.

  Example:
    >>> FeedForward(d_ff=16)(tf.zeros([1, 5, 8])).shape
    TensorShape([1, 5, 8])
  """

  def __init__(
    self,
    d_ff: int,
    activation: str = 'gelu',
    is_gated: bool = False,
    use_bias: bool = True,
    dropout_rate: float = 0.0,
    initializer: str = 'glorot_uniform',
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    if not 0 <= dropout_rate < 1:
      raise ValueError(
        '`dropout_rate` must be in [0, 1). '
        f'Received: dropout_rate={dropout_rate}'
      )
    self.d_ff = d_ff
    self.activation = activation
    self.is_gated = is_gated
    self.use_bias = use_bias
    self.dropout_rate = dropout_rate
    self.initializer = initializer
    self._activate = activations.get(activation)
    self._value_and_slope = activations.value_and_slope(activation)

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `wi` and `wi_linear` (gated), (D, d_ff), and `wo`, (d_ff, D)."""
    width = int(input_shape[-1])
    names = ['wi', 'wi_linear', 'wo'] if self.is_gated else ['wi', 'wo']
    for name in names:
      d_in, d_out = (self.d_ff, width) if name == 'wo' else (width, self.d_ff)
      dense = tf_keras.layers.Dense(
        d_out,
        use_bias=self.use_bias,
        kernel_initializer=multi_head_attention.kernel_initializer(
          self.initializer, d_in**-0.5
        ),
        dtype=self.dtype_policy,
        name=name,
      )
      with tf.name_scope(name):
        dense.build(tf.TensorShape([None, None, d_in]))
      setattr(self, name, dense)
    super().build(input_shape)

  def call(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor:
    """Maps each token; see the class."""
    rate = self.dropout_rate if training else 0.0
    hidden = self.wi(x)  # (B, N, d_ff)
    if self.is_gated:
      hidden = self._activate(hidden) * self.wi_linear(x)
      return self.wo(randomness.dropout(hidden, rate, rng))
    kernel = tf.convert_to_tensor(self.wo.kernel)
    y = recompute.activated_projection(
      self._value_and_slope, hidden, kernel, rate, rng
    )  # (B, N, D)
    return tf.nn.bias_add(y, self.wo.bias) if self.use_bias else y

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'd_ff': self.d_ff,
      'activation': self.activation,
      'is_gated': self.is_gated,
      'use_bias': self.use_bias,
      'dropout_rate': self.dropout_rate,
      'initializer': self.initializer,
    }
