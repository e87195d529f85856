"""The text tower of MMV: a linear map of words, and their maximum."""

from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import text_embedding
from vatt_tf.models import tower, word_table


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class WordTower(tower.Tower):
  """The maximum over the words of a text, after a Dense and ReLU on each.

  The words are looked up in a table, which MMV fills with word2vec's vectors
  and does not train (Alayrac et al. 2020). Padding is not masked: its vector
  takes part in the maximum, as in MMV's released weights. Texts of another
  length than the 16 words of training therefore have other features.

  Args:
    width: Width of the feature.
    vocabulary_size: Rows of the word table.
    d_embedding: Width of the word table.
    word_vectors: Path of a word-vector file in text format that fills the
      table, or None. Words that it does not have keep their initial values.
    vocabulary: Path of the vocabulary file (word-level), for `word_vectors`.
    is_table_frozen: Whether the table is not trained; it must then be filled
      from word vectors or a checkpoint before training.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    See `tower.Tower`.

  Returns:
    `tower.TowerOutput`, with leading axes (B, C) for captions (B, C, L); the
    tokens are the words before the maximum.

  Raises:
    ValueError: An argument is out of its range, or the input does not fit.

  Example:
    >>> text = WordTower(width=8, vocabulary_size=100)
    >>> text(tf.constant([[[5, 6, 0]]])).feature.shape
    TensorShape([1, 1, 8])
  """

  def __init__(
    self,
    width: int = 2048,
    vocabulary_size: int = 65536,
    d_embedding: int = 300,
    word_vectors: str | None = None,
    vocabulary: str | None = None,
    is_table_frozen: bool = False,
    **kwargs: Any,
  ):
    super().__init__(names.TEXT, **kwargs)
    word_table.check_files(word_vectors, vocabulary)
    self._width = width
    self.vocabulary_size = vocabulary_size
    self.d_embedding = d_embedding
    self.is_table_frozen = is_table_frozen
    self._word_vectors = word_vectors
    self._vocabulary = vocabulary
    self.table = text_embedding.TextEmbedding(
      vocabulary_size,
      d_embedding,
      is_table_frozen,
      dtype=self.dtype_policy,
      name='text_table',
    )
    self.projection = tf_keras.layers.Dense(
      width, 'relu', dtype=self.dtype_policy, name='text_projection'
    )

  @property
  def width(self) -> int:
    """Width of the feature."""
    return self._width

  def build(self, input_shape: Any = None) -> None:
    """Creates all weights, and fills the table from `word_vectors`."""
    del input_shape
    tower.build_scoped(self.table, tf.TensorShape([None, None]))
    words = tf.TensorShape([None, None, self.d_embedding])
    tower.build_scoped(self.projection, words)
    word_table.fill(self.table, self._word_vectors, self._vocabulary)
    self.built = True

  def call(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
    need_tokens: bool = False,
  ) -> tower.TowerOutput:
    """Encodes `x`; see the base class."""
    del rng
    x = tf.convert_to_tensor(x)
    word_table.check_ids(x)
    tokens = self.projection(self.table(x, training=training))
    dtype = tensor_utils.accumulation_dtype(tokens.dtype)
    tokens = tf.cast(tokens, dtype)  # (..., L, width)
    feature = tf.reduce_max(tokens, -2)
    return tower.TowerOutput(feature, tokens if need_tokens else None)

  def token_grid(self, input_shape: tower.Shape) -> tower.Shape:
    """Returns the number of words of a text, (L,)."""
    return (input_shape[-1],)

  def flops(self, input_shape: tower.Shape, training: bool = False) -> dict:
    """Returns the FLOPs by part; see the base class."""
    del training
    return {'projection': 2 * input_shape[-1] * self.d_embedding * self.width}

  def activation_bytes(
    self, input_shape: tower.Shape, num_rows: int
  ) -> tower.ActivationBytes:
    """Counts word vectors, features of words and maxima; see the base class."""
    width = tf.as_dtype(self.compute_dtype).size
    wide = tensor_utils.accumulation_dtype(self.compute_dtype).size
    row = width * (self.d_embedding + self.width)
    if wide != width:
      row += wide * self.width
    row = input_shape[-1] * row + wide * self.width
    workspace = input_shape[-1] * wide * self.width
    return tower.ActivationBytes(num_rows * row, num_rows * workspace)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    config = super().get_config()
    return {
      **config,
      'width': self.width,
      'vocabulary_size': self.vocabulary_size,
      'd_embedding': self.d_embedding,
      'is_table_frozen': self.is_table_frozen,
    }
