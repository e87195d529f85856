"""The Transformer tower on words (paper, section 3.1.2)."""

from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import (
  position_embedding,
  text_embedding,
  transformer_encoder,
)
from vatt_tf.models import (
  sizes,
  tower,
  transformer_costs,
  transformer_tower,
  word_table,
)


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class WordEmbedding(tf_keras.layers.Layer):
  """Turns a text into tokens, AGG first.

  It has two forms. With `num_positions` (modality-agnostic), the steps are:
  table, Dense + GeLU with bias, positions, dropout, AGG of width `d_model` in
  front. Without it (modality-specific): table, AGG of the table's width in
  front, Dense + GeLU without bias, dropout; the encoder's relative bias encodes
  positions. If `d_embedding` is None, there is no Dense, and the table is
  `d_model` wide, as T5's is.

  Args:
    d_model: Width D of the tokens.
    vocabulary_size: Rows of the table.
    d_embedding: Width of the table, or None.
    num_positions: Rows of the position table, or None.
    has_agg: Whether there is an AGG token, which T5 does not have.
    is_frozen: Whether the table is not trained (see `TextEmbedding`).
    use_position_norm: Whether a LayerNorm follows the positions.
    epsilon: Number added to the variance of the position norm.
    position_interpolation: `exact` or `release`, see `PositionEmbedding`.
    dropout_rate: Dropout rate of the tokens, in [0, 1).
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    ids: (B, L) integers, 0 is padding.
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng` or None.

  Returns:
    (tokens, mask): (B, 1 + L, d_model) in the compute dtype, (B, L, d_model)
    without AGG; and a bool mask of the first two axes, false for padding, true
    for the AGG token.

  Example:
    >>> tokens, mask = WordEmbedding(8, 100)(tf.constant([[5, 6, 0]]))
    >>> mask.numpy()
    array([[ True,  True,  True, False]])
  """

  def __init__(
    self,
    d_model: int,
    vocabulary_size: int,
    d_embedding: int | None = 300,
    num_positions: int | None = None,
    has_agg: bool = True,
    is_frozen: bool = False,
    use_position_norm: bool = True,
    epsilon: float = 1e-6,
    position_interpolation: str = 'exact',
    dropout_rate: float = 0.0,
    **kwargs: Any,
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
      self.pre_projection = transformer_tower.GeluDense(
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

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `agg` and the weights of the sub-layers."""
    width = self.d_embedding or self.d_model
    tower.build_scoped(self.table, input_shape)
    tower.build_scoped(self.pre_projection, tf.TensorShape([None, None, width]))
    tower.build_scoped(
      self.position_embedding, tf.TensorShape([None, None, self.d_model])
    )
    if self.has_agg:
      agg_width = self.d_model if self.num_positions else width
      self.agg = transformer_tower.add_agg(self, agg_width)
    super().build(input_shape)

  def call(
    self,
    ids: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor:
    """Turns `ids` into tokens; see the class."""
    x = self.table(ids, training=training)  # (B, L, width)
    has_positions = self.position_embedding is not None
    if self.has_agg and not has_positions:
      x = transformer_tower.prepend(self.agg, x)
    if self.pre_projection is not None:
      x = self.pre_projection(x)
    if has_positions:
      x = self.position_embedding(x)
    rate = self.dropout_rate if training else 0.0
    x = randomness.dropout(x, rate, randomness.fold_in(rng, 'dropout'))
    if self.has_agg and has_positions:
      x = transformer_tower.prepend(self.agg, x)
    return x, text_embedding.padding_mask(ids, self.has_agg)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
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


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class TextTower(transformer_tower.TransformerTower):
  """A Transformer on words (paper, section 3.1.2).

  With its own encoder, it has T5's form, with relative positions, an AGG vector
  of the table's width in front of the words, and a Dense + GeLU to the
  encoder's width. With a shared `encoder`, it has a Dense + GeLU, a position
  table, and AGG of the encoder's width.

  Args:
    size: Size of the tower's own encoder, or None.
    encoder: Encoder that other towers share, or None.
    max_words: Rows of the position table with a shared encoder.
    vocabulary_size: Rows of the word table.
    d_embedding: Width of the word table. None means the width of the encoder,
      without a map between them, as in T5.
    word_vectors: Path of a word-vector file in text format that fills the
      table, or None. Words that it does not have keep their initial values.
    vocabulary: Path of the vocabulary file (word-level), for `word_vectors`.
    is_table_frozen: Whether the table is not trained; it must then be filled
      from word vectors or a checkpoint before training.
    form: Form of the tower's own encoder, `release`, `t5_v1_0` or `t5_v1_1`.
    num_relative_buckets: Number of buckets of its relative positions. None
      means 32.
    max_relative_distance: Distance that the last bucket begins with. None means
      64 for the form `release`, 128 for T5's forms.
    epsilon: Number added to the variance of the norms of the tower's own
      encoder. None means 1e-6.
    has_agg: Whether there is an AGG token, which T5 does not have. Without it,
      the tower returns only the states of the words.
    d_post_projection: Width of a Dense + GeLU after the encoder. None means
      that there is none.
    position_interpolation: `exact` or `release`, see `PositionEmbedding`.
    dropout_rate: Dropout rate, in [0, 1).
    use_remat: Whether to save memory in training at the cost of time (see
      `TransformerEncoder`).
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    See `tower.Tower`.

  Returns:
    `tower.TowerOutput`, with leading axes (B, C) for captions (B, C, L).

  Raises:
    ValueError: An argument is out of its range, or the input does not fit.

  Example:
    >>> text = TextTower(sizes.Size(1, 8, 16, 2, d_kv=4), vocabulary_size=100)
    >>> text(tf.constant([[[5, 6, 0]]])).feature.shape
    TensorShape([1, 1, 8])
  """

  def __init__(
    self,
    size: sizes.Size | None = None,
    encoder: transformer_encoder.TransformerEncoder | None = None,
    max_words: int = 16,
    vocabulary_size: int = 65536,
    d_embedding: int | None = 300,
    word_vectors: str | None = None,
    vocabulary: str | None = None,
    is_table_frozen: bool = False,
    form: str = 'release',
    num_relative_buckets: int | None = None,
    max_relative_distance: int | None = None,
    epsilon: float | None = None,
    has_agg: bool = True,
    d_post_projection: int | None = None,
    position_interpolation: str = 'exact',
    dropout_rate: float = 0.1,
    use_remat: bool = False,
    **kwargs: Any,
  ):
    super().__init__(
      names.TEXT,
      size,
      encoder,
      d_post_projection,
      position_interpolation,
      dropout_rate,
      use_remat,
      **kwargs,
    )
    word_table.check_files(word_vectors, vocabulary)
    self.max_words = max_words
    self.vocabulary_size = vocabulary_size
    self.d_embedding = d_embedding
    self.is_table_frozen = is_table_frozen
    self.form = form
    self.num_relative_buckets = num_relative_buckets
    self.max_relative_distance = max_relative_distance
    self.epsilon = epsilon
    self._word_vectors = word_vectors
    self._vocabulary = vocabulary
    self.embedding = WordEmbedding(
      self._d_model,
      vocabulary_size,
      d_embedding,
      num_positions=None if encoder is None else max_words,
      has_agg=has_agg,
      is_frozen=is_table_frozen,
      position_interpolation=position_interpolation,
      dropout_rate=dropout_rate,
      dtype=self.dtype_policy,
      name='text_embedding',
    )
    options = {
      'num_relative_buckets': num_relative_buckets,
      'max_relative_distance': max_relative_distance,
      'epsilon': epsilon,
    }
    self._add_encoder(
      **{
        **transformer_encoder.t5_arguments(form),
        **{key: x for key, x in options.items() if x is not None},
      },
    )

  @property
  def has_agg(self) -> bool:
    """Whether the first token is AGG, whose output is the feature."""
    return self.embedding.has_agg

  def build(self, input_shape: Any = None) -> None:
    """Creates all weights, and fills the table from `word_vectors`."""
    del input_shape
    self._build_parts([None, None])
    word_table.fill(self.embedding.table, self._word_vectors, self._vocabulary)

  def call(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
    need_tokens: bool = False,
  ) -> tower.TowerOutput:
    """Encodes `x`; see the base class."""
    x = tf.convert_to_tensor(x)
    word_table.check_ids(x)
    leading = tensor_utils.shape_list(x)[:-1]
    has_captions = len(leading) == 2
    if has_captions:
      rng = randomness.rows(rng, leading[1])
      x = tf.reshape(x, [-1, x.shape[-1]])  # (B * C, L)
      if isinstance(leading[0], int):
        x = tf.ensure_shape(x, [leading[0] * leading[1], None])
    tokens, mask = self.embed_tokens(x, training, rng)
    output = self._encode(tokens, mask, training, rng, need_tokens)
    if not has_captions:
      return output
    return tower.TowerOutput(
      *(
        None if y is None else tf.reshape(y, [*leading, *y.shape[1:]])
        for y in output
      )
    )

  def embed_tokens(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the input tokens of the encoder, and their mask.

    Args:
      x: (B, L) integer: token ids.
      training: See the call.
      rng: See the call.

    Returns:
      (B, N, d_model) in the compute dtype, AGG first, and the mask (B, N).
    """
    return self.embedding(
      x, training=training, rng=randomness.fold_in(rng, 'embedding')
    )

  def token_grid(self, input_shape: tower.Shape) -> tower.Shape:
    """Returns the number of words of a text, (L,)."""
    return (input_shape[-1],)

  def _num_patches(self, input_shape, training=False):
    del training  # words are not dropped
    return input_shape[-1]

  def _patch_flops(self, input_shape):
    del input_shape
    return 0  # a look-up

  def _pre_projection_flops(self, num_patches):
    if self.embedding.pre_projection is None:
      return 0
    # Without positions, the map also applies to the AGG token.
    if self.has_agg and not self.embedding.num_positions:
      num_patches += 1
    return transformer_costs.product(
      num_patches, self.d_embedding, self._d_model
    )

  @property
  def _is_pre_projection_first(self):
    return self.is_table_frozen and self.embedding.num_positions is not None

  def _embedding_bytes(self, input_shape, width):
    numbers = self.d_embedding or 0
    if self.embedding.pre_projection is not None:
      numbers += self._d_model  # the map's output, for GeLU
    return width * numbers * self._num_patches(input_shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    config = super().get_config()
    return {
      **config,
      'max_words': self.max_words,
      'vocabulary_size': self.vocabulary_size,
      'd_embedding': self.d_embedding,
      'is_table_frozen': self.is_table_frozen,
      'form': self.form,
      'num_relative_buckets': self.num_relative_buckets,
      'max_relative_distance': self.max_relative_distance,
      'epsilon': self.epsilon,
      'has_agg': self.has_agg,
    }
