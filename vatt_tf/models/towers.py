"""From an input to the tokens of an encoder: patches, words, AGG token."""

import math

import tensorflow as tf
import tf_keras

from vatt_tf import randomness, tensor_utils
from vatt_tf.layers import (
  activations,
  drop_token,
  patch_tokenizer,
  position_embedding,
  text_embedding,
)


def _prepend(token, x):
  """Puts a vector (D,) in front of the tokens (B, N, D): (B, 1 + N, D)."""
  batch, _, width = tensor_utils.shape_list(x)
  token = tf.broadcast_to(tf.cast(token, x.dtype), [batch, 1, width])
  return tf.concat([token, x], 1)


def _agg_weight(layer, width):
  """Makes the AGG vector of a layer, (width,)."""
  return layer.add_weight(
    name='agg', shape=[width], initializer='glorot_normal'
  )


def build_scoped(layer, input_shape):
  """Builds a sub-layer, so that its weights' names begin with its own."""
  if layer is not None and not layer.built:
    with tf.name_scope(layer.name):
      layer.build(input_shape)


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class GeluDense(tf_keras.layers.Dense):
  """A linear map followed by exact GeLU.

  Args:
    units: int, width of the output.
    **kwargs: of `tf_keras.layers.Dense`, without `activation`.

  Call arguments:
    inputs: (..., D).

  Returns:
    (..., units) in the compute dtype.

  Example:
    >>> GeluDense(4)(tf.zeros([2, 8])).shape
    TensorShape([2, 4])
  """

  def call(self, inputs):
    """Maps `inputs`; see the class."""
    return activations.gelu(super().call(inputs))


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class PatchEmbedding(tf_keras.layers.Layer):
  """Tokens of a video, a waveform or a spectrogram, behind an AGG token.

  Patches, of which DropToken keeps a share in training, are projected; then,
  in the modality-agnostic model, a Dense + GeLU of the modality; then
  positions, dropout, and the AGG token in front (paper, sections 3.1 and 3.2).

  Args:
    d_model: int.
    patch_size: tuple of ints, see `PatchTokenizer`.
    table_shape: tuple of ints, see `PositionEmbedding`.
    use_padding: bool, see `PatchTokenizer`.
    input_rms: float or None, see `PatchTokenizer`.
    use_pre_projection: bool, the Dense + GeLU.
    position_form: `separable` or `full`.
    use_position_norm: bool.
    epsilon: float, of the position norm.
    position_interpolation: `exact` or `release`, see `PositionEmbedding`.
    drop_token_rate: float in [0, 1).
    dropout_rate: float in [0, 1), of the sum of tokens and positions.
    **kwargs: of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, S_1, ..., S_n, C), all but B static.
    training: bool.
    rng: `randomness.Rng` or None.

  Returns:
    (B, 1 + K, d_model) in the compute dtype; the AGG token is the first, and
    K is N in inference.

  Example:
    >>> layer = PatchEmbedding(8, (128,), (10,))
    >>> layer(tf.zeros([1, 1280, 1])).shape
    TensorShape([1, 11, 8])
  """

  def __init__(
    self,
    d_model,
    patch_size,
    table_shape,
    use_padding=False,
    input_rms=None,
    use_pre_projection=False,
    position_form='separable',
    use_position_norm=True,
    epsilon=1e-6,
    position_interpolation='exact',
    drop_token_rate=0.0,
    dropout_rate=0.0,
    **kwargs,
  ):
    super().__init__(autocast=False, **kwargs)
    self.d_model = d_model
    self.patch_size = tuple(patch_size)
    self.table_shape = tuple(table_shape)
    self.use_padding = use_padding
    self.input_rms = input_rms
    self.use_pre_projection = use_pre_projection
    self.position_form = position_form
    self.use_position_norm = use_position_norm
    self.epsilon = epsilon
    self.position_interpolation = position_interpolation
    self.drop_token_rate = drop_token_rate
    self.dropout_rate = dropout_rate

    dtype = self.dtype_policy
    self.drop_token = drop_token.DropToken(
      drop_token_rate, dtype=dtype, name='drop_token'
    )
    self.tokenizer = patch_tokenizer.PatchTokenizer(
      d_model,
      patch_size,
      use_padding,
      input_rms,
      dtype=dtype,
      name='tokenizer',
    )
    self.pre_projection = None
    if use_pre_projection:
      self.pre_projection = GeluDense(
        d_model, dtype=dtype, name='pre_projection'
      )
    self.position_embedding = position_embedding.PositionEmbedding(
      table_shape,
      position_form,
      use_position_norm,
      epsilon,
      position_interpolation,
      dtype=dtype,
      name='position_embedding',
    )

  def build(self, input_shape):
    """Makes `agg`, (d_model,), and the weights of the sub-layers."""
    tokens = tf.TensorShape([None, None, self.d_model])
    build_scoped(self.tokenizer, input_shape)
    build_scoped(self.pre_projection, tokens)
    build_scoped(self.position_embedding, tokens)
    self.agg = _agg_weight(self, self.d_model)
    super().build(input_shape)

  def call(self, x, training=False, rng=None):
    """Makes tokens of `x`; see the class."""
    grid = self.tokenizer.grid(x.shape)
    keep = self.drop_token.sample(
      tensor_utils.shape_list(x)[0],
      math.prod(grid),
      training,
      randomness.fold_in(rng, 'drop_token'),
    )
    x = self.tokenizer(x, keep=keep)  # (B, K, d_model)
    if self.pre_projection is not None:
      x = self.pre_projection(x)
    x = self.position_embedding(x, grid=grid, keep=keep)
    rate = self.dropout_rate if training else 0.0
    x = randomness.dropout(x, rate, randomness.fold_in(rng, 'dropout'))
    return _prepend(self.agg, x)

  def get_config(self):
    """The arguments of the layer."""
    return {
      **super().get_config(),
      'd_model': self.d_model,
      'patch_size': self.patch_size,
      'table_shape': self.table_shape,
      'use_padding': self.use_padding,
      'input_rms': self.input_rms,
      'use_pre_projection': self.use_pre_projection,
      'position_form': self.position_form,
      'use_position_norm': self.use_position_norm,
      'epsilon': self.epsilon,
      'position_interpolation': self.position_interpolation,
      'drop_token_rate': self.drop_token_rate,
      'dropout_rate': self.dropout_rate,
    }


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class WordEmbedding(tf_keras.layers.Layer):
  """Tokens of a text, behind an AGG token.

  Two forms. With `num_positions` (modality-agnostic): table, Dense + GeLU with
  bias, positions, dropout, AGG of width `d_model` in front. Without
  (modality-specific): AGG of the table's width in front, Dense + GeLU without
  bias, dropout; positions are the encoder's relative bias. There is no Dense
  where `d_embedding` is None, and the table is `d_model` wide, as T5's is.

  Args:
    d_model: int.
    vocabulary_size: int.
    d_embedding: int, width of the table, or None.
    num_positions: int, rows of the position table, or None.
    has_agg: bool; False gives the words alone, as T5 itself does.
    is_frozen: bool, do not train the table (see `TextEmbedding`).
    use_position_norm: bool.
    epsilon: float, of the position norm.
    position_interpolation: `exact` or `release`, see `PositionEmbedding`.
    dropout_rate: float in [0, 1), of the tokens.
    **kwargs: of `tf_keras.layers.Layer`.

  Call arguments:
    ids: (B, L) integers, 0 is padding.
    training: bool.
    rng: `randomness.Rng` or None.

  Returns:
    tokens: (B, 1 + L, d_model) in the compute dtype, (B, L, d_model) without
      AGG.
    mask: bool, as the first two axes of `tokens`: false for padding, true for
      the AGG token.

  Example:
    >>> tokens, mask = WordEmbedding(8, 100)(tf.constant([[5, 6, 0]]))
    >>> mask.numpy()
    array([[ True,  True,  True, False]])
  """

  def __init__(
    self,
    d_model,
    vocabulary_size,
    d_embedding=300,
    num_positions=None,
    has_agg=True,
    is_frozen=False,
    use_position_norm=True,
    epsilon=1e-6,
    position_interpolation='exact',
    dropout_rate=0.0,
    **kwargs,
  ):
    super().__init__(autocast=False, **kwargs)
    self.d_model = d_model
    self.vocabulary_size = vocabulary_size
    self.d_embedding = d_embedding
    self.num_positions = num_positions
    self.has_agg = has_agg
    self.is_frozen = is_frozen
    self.use_position_norm = use_position_norm
    self.epsilon = epsilon
    self.position_interpolation = position_interpolation
    self.dropout_rate = dropout_rate

    dtype = self.dtype_policy
    self.table = text_embedding.TextEmbedding(
      vocabulary_size,
      d_embedding or d_model,
      is_frozen,
      dtype=dtype,
      name='table',
    )
    self.pre_projection = None
    if d_embedding:
      self.pre_projection = GeluDense(
        d_model,
        use_bias=num_positions is not None,
        dtype=dtype,
        name='pre_projection',
      )
    self.position_embedding = None
    if num_positions:
      self.position_embedding = position_embedding.PositionEmbedding(
        (num_positions,),
        use_layer_norm=use_position_norm,
        epsilon=epsilon,
        interpolation=position_interpolation,
        dtype=dtype,
        name='position_embedding',
      )

  def build(self, input_shape):
    """Makes `agg` and the weights of the sub-layers."""
    width = self.d_embedding or self.d_model
    build_scoped(self.table, input_shape)
    build_scoped(self.pre_projection, tf.TensorShape([None, None, width]))
    build_scoped(
      self.position_embedding, tf.TensorShape([None, None, self.d_model])
    )
    if self.has_agg:
      agg_width = self.d_model if self.num_positions else width
      self.agg = _agg_weight(self, agg_width)
    super().build(input_shape)

  def call(self, ids, training=False, rng=None):
    """Makes tokens of `ids`; see the class."""
    x = self.table(ids, training=training)  # (B, L, width)
    has_positions = self.position_embedding is not None
    if self.has_agg and not has_positions:
      x = _prepend(self.agg, x)
    if self.pre_projection is not None:
      x = self.pre_projection(x)
    if has_positions:
      x = self.position_embedding(x)
    rate = self.dropout_rate if training else 0.0
    x = randomness.dropout(x, rate, randomness.fold_in(rng, 'dropout'))
    if self.has_agg and has_positions:
      x = _prepend(self.agg, x)
    return x, text_embedding.padding_mask(ids, self.has_agg)

  def get_config(self):
    """The arguments of the layer."""
    return {
      **super().get_config(),
      'd_model': self.d_model,
      'vocabulary_size': self.vocabulary_size,
      'd_embedding': self.d_embedding,
      'num_positions': self.num_positions,
      'has_agg': self.has_agg,
      'is_frozen': self.is_frozen,
      'use_position_norm': self.use_position_norm,
      'epsilon': self.epsilon,
      'position_interpolation': self.position_interpolation,
      'dropout_rate': self.dropout_rate,
    }
