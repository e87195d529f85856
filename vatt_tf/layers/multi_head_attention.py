"""Multi-head self-attention that keeps little for the backward pass."""

from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import recompute


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class MultiHeadAttention(tf_keras.layers.Layer):
  """Self-attention (paper, section 3.1.2) in ViT's or T5's form.

  Attention probabilities, by far the largest tensors of the model, are
  computed again in the backward pass instead of kept.

  Args:
    num_heads: Number of attention heads.
    d_kv: Width of a head.
    use_bias: Whether the four projections have biases (ViT: yes, T5: no).
    use_scale: Whether logits are scaled by d_kv^-1/2 (ViT: yes, T5: no).
    dropout_rate: Dropout rate of the attention probabilities, in [0, 1).
    initializer: `glorot_uniform`, or `t5` for T5's own: normal, with
      deviations (D * d_kv)^-1/2 for q, D^-1/2 for k and v,
      (num_heads * d_kv)^-1/2 for o.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Tokens (B, N, D).
    mask: (B, N) bool: the tokens that may be attended to, at least one per row;
      or (B or 1, N, N) bool: those that each token may attend to. None means
      all.
    bias: (1, num_heads, N, N): bias of the logits, or None.
    num_outputs: Compute outputs for the first `num_outputs` tokens only; None
      means all.
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng` or None.

  Returns:
    (B, N, D), or (B, num_outputs, D), in the compute dtype. The softmax is
    computed in float32.

  Raises:
    ValueError: An argument is out of its range.

  Example:
    >>> MultiHeadAttention(num_heads=2, d_kv=4)(tf.zeros([1, 5, 8])).shape
    TensorShape([1, 5, 8])
  """

  def __init__(
    self,
    num_heads: int,
    d_kv: int = 64,
    use_bias: bool = True,
    use_scale: bool = True,
    dropout_rate: float = 0.0,
    initializer: str = 'glorot_uniform',
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    if num_heads < 1 or d_kv < 1:
      raise ValueError(
        '`num_heads` and `d_kv` must be positive. '
        f'Received: num_heads={num_heads}, d_kv={d_kv}'
      )
    if not 0 <= dropout_rate < 1:
      raise ValueError(
        '`dropout_rate` must be in [0, 1). '
        f'Received: dropout_rate={dropout_rate}'
      )
    self.num_heads = num_heads
    self.d_kv = d_kv
    self.use_bias = use_bias
    self.use_scale = use_scale
    self.dropout_rate = dropout_rate
    self.initializer = initializer

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `q`, `k`, `v`, (D, num_heads * d_kv), and `o`, the transposed."""
    width = int(input_shape[-1])
    inner = self.num_heads * self.d_kv
    deviations = {
      'q': (width * self.d_kv) ** -0.5,
      'k': width**-0.5,
      'v': width**-0.5,
      'o': inner**-0.5,
    }
    for name, deviation in deviations.items():
      d_in, d_out = (inner, width) if name == 'o' else (width, inner)
      dense = tf_keras.layers.Dense(
        d_out,
        use_bias=self.use_bias,
        kernel_initializer=kernel_initializer(self.initializer, deviation),
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
    mask: tf.Tensor | None = None,
    bias: tf.Tensor | None = None,
    num_outputs: int | None = None,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor:
    """Attends from tokens of `x` to tokens of `x`; see the class."""
    if num_outputs is None:
      q, k, v = self._project(x, [self.q, self.k, self.v])
    else:
      (q,) = self._project(x[:, :num_outputs], [self.q])
      k, v = self._project(x, [self.k, self.v])
      if bias is not None:
        bias = bias[:, :, :num_outputs]
    if self.use_scale:
      q *= tf.cast(self.d_kv**-0.5, q.dtype)
    rate = self.dropout_rate if training else 0.0
    context = attend(q, k, v, mask, bias, rate, rng)  # (B, heads, N, d_kv)
    batch, _, length, _ = tensor_utils.shape_list(context)
    context = tf.transpose(context, [0, 2, 1, 3])  # (B, N, heads, d_kv)
    context = tf.reshape(
      context, [batch, length, self.num_heads * self.d_kv]
    )  # (B, N, heads * d_kv)
    return self.o(context)

  def _project(self, x, layers):
    """Projects `x` by several layers at once: tensors (B, heads, N, d_kv)."""
    batch, length, width = tensor_utils.shape_list(x)
    kernel = tf.concat([layer.kernel for layer in layers], 1)
    y = tf.matmul(tf.reshape(x, [batch * length, width]), kernel)
    if self.use_bias:
      y = tf.nn.bias_add(y, tf.concat([layer.bias for layer in layers], 0))
    y = tf.reshape(
      y, [batch, length, len(layers), self.num_heads, self.d_kv]
    )  # (B, N, layers, heads, d_kv)
    return tf.unstack(tf.transpose(y, [2, 0, 3, 1, 4]))

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'num_heads': self.num_heads,
      'd_kv': self.d_kv,
      'use_bias': self.use_bias,
      'use_scale': self.use_scale,
      'dropout_rate': self.dropout_rate,
      'initializer': self.initializer,
    }


def kernel_initializer(
  name: str, deviation: float
) -> tf_keras.initializers.Initializer:
  """Looks up the initializer of a kernel.

  Args:
    name: `glorot_uniform` or `t5`.
    deviation: Standard deviation of the normal distribution of `t5`.

  Returns:
    A `tf_keras.initializers.Initializer`.

  Raises:
    ValueError: The name is unknown.
  """
  if name == 'glorot_uniform':
    return tf_keras.initializers.GlorotUniform()
  if name == 't5':
    return tf_keras.initializers.RandomNormal(stddev=deviation)
  raise ValueError(
    "`initializer` must be one of ['glorot_uniform', 't5']. "
    f'Received: initializer={name!r}'
  )


def attend(
  q: tf.Tensor,
  k: tf.Tensor,
  v: tf.Tensor,
  mask: tf.Tensor | None = None,
  bias: tf.Tensor | None = None,
  dropout_rate: float = 0.0,
  rng: randomness.Rng | None = None,
) -> tf.Tensor:
  """Computes dot-product attention, `dropout(softmax(q k^T + bias)) v`.

  Args:
    q: (B, heads, M, d_kv) floating-point.
    k: (B, heads, N, d_kv) like `q`.
    v: (B, heads, N, d_kv) like `q`.
    mask: (B, N) bool: the keys that may be attended to; or (B or 1, M, N) bool.
      None means all.
    bias: (1, heads, M, N): bias of the logits, or None.
    dropout_rate: Dropout rate of the probabilities, in [0, 1).
    rng: `randomness.Rng`, or None to draw a fresh key.

  Returns:
    (B, heads, M, d_kv) in the dtype of `q`.
  """
  wide = tensor_utils.accumulation_dtype(q.dtype)

  def probabilities(q, k, *bias):
    logits = tf.cast(tf.matmul(q, k, transpose_b=True), wide)  # (B, h, M, N)
    for term in bias:
      logits += tf.cast(term, wide)
    if mask is not None:
      keys = mask[:, None, None] if len(mask.shape) == 2 else mask[:, None]
      logits = tf.where(keys, logits, wide.min)
    return tf.nn.softmax(logits)

  return recompute.attended(probabilities, q, k, v, bias, dropout_rate, rng)
