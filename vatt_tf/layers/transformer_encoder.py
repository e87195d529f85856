"""The Transformer encoder, in the forms of ViT, T5 and VATT's text tower."""

from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import randomness
from vatt_tf.layers import (
  feed_forward,
  layer_norm,
  multi_head_attention,
  recompute,
  relative_position_bias,
  rms_norm,
)

_NORMS = {'layer': layer_norm.LayerNorm, 'rms': rms_norm.RMSNorm}


def _make_norm(argument, value, epsilon, name, dtype):
  if value not in _NORMS:
    raise ValueError(
      f'`{argument}` must be one of {sorted(_NORMS)}. '
      f'Received: {argument}={value!r}'
    )
  return _NORMS[value](epsilon, name=name, dtype=dtype)


class _EncoderLayer(tf_keras.layers.Layer):
  """Pre-norm attention and feed-forward, each with a residual connection."""

  def __init__(self, encoder, **kwargs):
    super().__init__(**kwargs)
    dtype = self.dtype_policy
    self._dropout_rate = encoder.dropout_rate
    self.attention_norm = _make_norm(
      'attention_norm',
      encoder.attention_norm,
      encoder.epsilon,
      'attention_norm',
      dtype,
    )
    self.attention = multi_head_attention.MultiHeadAttention(
      encoder.num_heads,
      encoder.d_kv,
      use_bias=encoder.use_bias,
      use_scale=encoder.use_attention_scale,
      dropout_rate=encoder.dropout_rate,
      initializer=encoder.initializer,
      dtype=dtype,
      name='attention',
    )
    self.feed_forward_norm = _make_norm(
      'feed_forward_norm',
      encoder.feed_forward_norm,
      encoder.epsilon,
      'feed_forward_norm',
      dtype,
    )
    self.feed_forward = feed_forward.FeedForward(
      encoder.d_ff,
      activation=encoder.activation,
      is_gated=encoder.is_gated,
      use_bias=encoder.use_bias,
      dropout_rate=encoder.dropout_rate,
      initializer=encoder.initializer,
      dtype=dtype,
      name='feed_forward',
    )

  def build(self, input_shape):
    for layer in (
      self.attention_norm,
      self.attention,
      self.feed_forward_norm,
      self.feed_forward,
    ):
      with tf.name_scope(layer.name):
        layer.build(input_shape)
    super().build(input_shape)

  def call(
    self,
    x,
    mask=None,
    bias=None,
    num_outputs=None,
    training=False,
    rng=None,
  ):
    y, x = self.feed_forward_output(x, mask, bias, num_outputs, training, rng)
    return self._residual(x, y, 'feed_forward_output', training, rng)

  def feed_forward_output(
    self, x, mask, bias, num_outputs=None, training=False, rng=None
  ):
    """The output of the feed-forward, and the tokens that it is added to."""
    y = self.attention(
      self.attention_norm(x),
      mask=mask,
      bias=bias,
      num_outputs=num_outputs,
      training=training,
      rng=randomness.fold_in(rng, 'attention'),
    )
    if num_outputs is not None:
      x = x[:, :num_outputs]  # (B, num_outputs, D)
    x = self._residual(x, y, 'attention_output', training, rng)
    y = self.feed_forward(
      self.feed_forward_norm(x),
      training=training,
      rng=randomness.fold_in(rng, 'feed_forward'),
    )
    return y, x

  def _residual(self, x, y, name, training, rng):
    rate = self._dropout_rate if training else 0.0
    return x + randomness.dropout(y, rate, randomness.fold_in(rng, name))


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class TransformerEncoder(tf_keras.layers.Layer):
  """A stack of pre-norm encoder layers and a final norm (section 3.1.2).

  The defaults are the ViT / BERT form. The other forms are:

  | form | arguments |
  |---|---|
  | T5 v1.0 | `t5_arguments('t5_v1_0')` |
  | T5 v1.1 | `t5_arguments('t5_v1_1')` |
  | the text tower of the released VATT | `t5_arguments('release')` |

  Args:
    num_layers: Number of layers.
    d_model: Width D of the tokens.
    d_ff: Inner width of the feed-forward.
    num_heads: Number of attention heads.
    d_kv: Width of a head.
    attention_norm: `layer` or `rms`, the norm before attention.
    feed_forward_norm: `layer` or `rms`, the norm before the feed-forward.
    final_norm: `layer` or `rms`, the norm at the end.
    epsilon: Number added to the variance of all norms.
    activation: `gelu` (exact), `gelu_tanh` or `relu`.
    is_gated: Whether the feed-forward is gated.
    use_bias: Whether linear maps have biases.
    use_attention_scale: Whether logits are scaled by d_kv^-1/2.
    num_relative_buckets: Number of buckets of T5's relative position bias,
      which all layers share. 0 means no such bias.
    max_relative_distance: Distance that the last bucket begins with.
    dropout_rate: Dropout rate, in [0, 1), of attention probabilities, attention
      output, activation, feed-forward output, and after the final norm.
    initializer: Initializer of all kernels, `glorot_uniform` or `t5`.
    use_remat: Whether to keep only the input of each layer and to compute the
      layer again in the backward pass, which takes about a third more time and
      far less memory.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Tokens (B, N, D).
    mask: (B, N) bool: the tokens that may be attended to, at least one per row.
      None means all.
    num_outputs: Number of tokens, from the first, for which the last layer
      computes outputs. None means all.
    inner_layer: Number of layers after which all tokens are also returned, or
      None.
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng` or None.

  Returns:
    (B, N, D), or (B, num_outputs, D), in the compute dtype. With `inner_layer`
    a pair of it and the inner tokens (B, N, D), without a norm.

  Raises:
    ValueError: An argument is out of its range.

  Example:
    >>> encoder = TransformerEncoder(2, d_model=8, d_ff=16, num_heads=2, d_kv=4)
    >>> encoder(tf.zeros([1, 5, 8]), num_outputs=1).shape
    TensorShape([1, 1, 8])
  """

  def __init__(
    self,
    num_layers: int,
    d_model: int,
    d_ff: int,
    num_heads: int,
    d_kv: int = 64,
    attention_norm: str = 'layer',
    feed_forward_norm: str = 'layer',
    final_norm: str = 'layer',
    epsilon: float = 1e-6,
    activation: str = 'gelu',
    is_gated: bool = False,
    use_bias: bool = True,
    use_attention_scale: bool = True,
    num_relative_buckets: int = 0,
    max_relative_distance: int = 128,
    dropout_rate: float = 0.0,
    initializer: str = 'glorot_uniform',
    use_remat: bool = False,
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    if num_layers < 1:
      raise ValueError(
        f'`num_layers` must be positive. Received: num_layers={num_layers}'
      )
    self.num_layers = num_layers
    self.d_model = d_model
    self.d_ff = d_ff
    self.num_heads = num_heads
    self.d_kv = d_kv
    self.attention_norm = attention_norm
    self.feed_forward_norm = feed_forward_norm
    self.final_norm = final_norm
    self.epsilon = epsilon
    self.activation = activation
    self.is_gated = is_gated
    self.use_bias = use_bias
    self.use_attention_scale = use_attention_scale
    self.num_relative_buckets = num_relative_buckets
    self.max_relative_distance = max_relative_distance
    self.dropout_rate = dropout_rate
    self.initializer = initializer
    self.use_remat = use_remat

    dtype = self.dtype_policy
    self.position_bias = None
    if num_relative_buckets:
      self.position_bias = relative_position_bias.RelativePositionBias(
        num_heads,
        num_relative_buckets,
        max_relative_distance,
        initializer=multi_head_attention.kernel_initializer(
          initializer, d_model**-0.5
        ),
        dtype=dtype,
        name='position_bias',
      )
    self.layers = [
      _EncoderLayer(self, dtype=dtype, name=f'layer_{i}')
      for i in range(num_layers)
    ]
    self.norm = _make_norm('final_norm', final_norm, epsilon, 'norm', dtype)

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates the weights of `position_bias`, `layer_0`, ... and `norm`."""
    input_shape = tf.TensorShape(input_shape)
    if input_shape[-1] != self.d_model:
      raise ValueError(
        f'`x` must be `d_model` = {self.d_model} wide. '
        f'Received: x.shape={input_shape}'
      )
    for layer in (self.position_bias, *self.layers, self.norm):
      if layer is not None:
        with tf.name_scope(layer.name):
          layer.build(input_shape)
    super().build(input_shape)

  def call(
    self,
    x: tf.Tensor,
    mask: tf.Tensor | None = None,
    num_outputs: int | None = None,
    inner_layer: int | None = None,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
    """Encodes `x`; see the class."""
    x, inner = self._run_layers(
      x, self.num_layers, mask, training, rng, num_outputs, inner_layer
    )
    x = self.norm(x)
    rate = self.dropout_rate if training else 0.0
    x = randomness.dropout(x, rate, randomness.fold_in(rng, 'output'))
    return x if inner_layer is None else (x, inner)

  def inner_outputs(
    self,
    x: tf.Tensor,
    num_layers: int | None = None,
    mask: tf.Tensor | None = None,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor:
    """Returns the outputs of the first layers, without a norm.

    Args:
      x: See the call.
      num_layers: Number of layers. None means all.
      mask: (B, N) bool or (B or 1, N, N) bool, see `MultiHeadAttention`.
      training: See the call.
      rng: See the call.

    Returns:
      (B, N, D) in the compute dtype.
    """
    count = self.num_layers if num_layers is None else num_layers
    return self._run_layers(x, count, mask, training, rng)[0]

  def _run_layers(
    self, x, count, mask, training, rng, num_outputs=None, inner_layer=None
  ):
    """The output of the first `count` layers, and that of `inner_layer`."""
    bias = []
    if self.position_bias is not None:
      bias = [self.position_bias(x)]
    use_remat = self.use_remat and training
    if use_remat:
      rng = recompute.fixed_key(rng)
    inner = None
    for i, layer in enumerate(self.layers[:count]):
      is_last = i == self.num_layers - 1

      # Every tensor that gets a gradient, except variables, must be an
      # argument.
      def run(rng, x, *bias, layer=layer, is_last=is_last):
        return layer(
          x,
          mask=mask,
          bias=bias[0] if bias else None,
          num_outputs=num_outputs if is_last else None,
          training=training,
          rng=randomness.fold_in(rng, layer.name),
        )

      if use_remat:
        x = recompute.recomputed(run, rng)(x, *bias)
      else:
        x = run(rng, x, *bias)
      if i + 1 == inner_layer:
        inner = x
    return x, inner

  def feed_forward_outputs(
    self, x: tf.Tensor, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Returns the outputs of each layer's feed-forward.

    These are the activations of the nodes that the paper's figure 4 compares
    between modalities.

    Args:
      x: (B, N, D): tokens.
      mask: (B, N) bool: mask of the tokens, see the call.

    Returns:
      (B, num_layers, N, D) in the compute dtype, without dropout.
    """
    bias = None if self.position_bias is None else self.position_bias(x)
    outputs = []
    for layer in self.layers:
      y, x = layer.feed_forward_output(x, mask, bias)
      outputs.append(y)
      x = x + y
    return tf.stack(outputs, axis=1)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'num_layers': self.num_layers,
      'd_model': self.d_model,
      'd_ff': self.d_ff,
      'num_heads': self.num_heads,
      'd_kv': self.d_kv,
      'attention_norm': self.attention_norm,
      'feed_forward_norm': self.feed_forward_norm,
      'final_norm': self.final_norm,
      'epsilon': self.epsilon,
      'activation': self.activation,
      'is_gated': self.is_gated,
      'use_bias': self.use_bias,
      'use_attention_scale': self.use_attention_scale,
      'num_relative_buckets': self.num_relative_buckets,
      'max_relative_distance': self.max_relative_distance,
      'dropout_rate': self.dropout_rate,
      'initializer': self.initializer,
      'use_remat': self.use_remat,
    }


_T5 = {
  'attention_norm': 'rms',
  'final_norm': 'rms',
  'use_bias': False,
  'use_attention_scale': False,
  'num_relative_buckets': 32,
  'initializer': 't5',
}
_T5_FORMS = {
  't5_v1_0': {
    'feed_forward_norm': 'rms',
    'activation': 'relu',
    'max_relative_distance': 128,
  },
  't5_v1_1': {
    'feed_forward_norm': 'rms',
    'activation': 'gelu_tanh',
    'is_gated': True,
    'max_relative_distance': 128,
  },
  'release': {
    'feed_forward_norm': 'layer',
    'activation': 'gelu',
    'max_relative_distance': 64,
  },
}


def t5_arguments(form: str) -> dict[str, Any]:
  """Returns the arguments of a `TransformerEncoder` in T5's form.

  Args:
    form: `t5_v1_0` (ReLU), `t5_v1_1` (gated tanh-GeLU), or `release` (the text
      tower of the released VATT: exact GeLU, LayerNorm before the
      feed-forward, relative distances up to 64).

  Returns:
    A new dictionary, without sizes and dropout.

  Raises:
    ValueError: There is no such form.
  """
  if form not in _T5_FORMS:
    raise ValueError(
      f'`form` must be one of {sorted(_T5_FORMS)}. Received: form={form!r}'
    )
  return {**_T5, **_T5_FORMS[form]}
