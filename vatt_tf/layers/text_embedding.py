"""The embedding table of token ids, and word vectors that fill it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import tensor_utils


def read_word_vectors(
  path: str, words: Sequence[str], d_embedding: int
) -> tuple[np.ndarray, np.ndarray]:
  """Reads word vectors in the text format of word2vec, GloVe and fastText.

  Each line is a word and its numbers, separated by spaces. A first line of two
  integers (count and width) is skipped.

  Args:
    path: Path of the file, in UTF-8; `tf.io.gfile` opens it.
    words: Vocabulary in the order of its ids.
    d_embedding: Width of a vector.

  Returns:
    (vectors, ids): (n, d_embedding) float32, the vectors of the words in the
    file; and (n,) int32, the ids of these words.

  Raises:
    ValueError: A line does not hold a word and `d_embedding` numbers, or no
      word of the vocabulary is in the file.
  """
  id_of_word = {word: i for i, word in enumerate(words)}
  vectors = {}
  with tf.io.gfile.GFile(path) as lines:
    for number, line in enumerate(lines, 1):
      fields = line.rstrip().split(' ')
      if number == 1 and len(fields) == 2:
        continue
      # A word may contain spaces, so the numbers are the last fields.
      word = ' '.join(fields[:-d_embedding])
      if not word:
        raise ValueError(
          f'{path}, line {number}: expected a word and `d_embedding` = '
          f'{d_embedding} numbers. Received: {len(fields)} fields. Set '
          '`d_embedding` to the width of the file.'
        )
      if word not in id_of_word or id_of_word[word] in vectors:
        continue
      try:
        vector = np.asarray(fields[-d_embedding:], np.float32)
      except ValueError as e:
        raise ValueError(
          f'{path}, line {number}: expected a word and {d_embedding} numbers. '
          f'Received: {line[:80]!r}'
        ) from e
      vectors[id_of_word[word]] = vector
  if not vectors:
    raise ValueError(
      f'{path} holds no word of the vocabulary ({len(words)} words, such as '
      f'{list(words[:8])}). Use the vocabulary that belongs to the vectors.'
    )
  ids = np.asarray(sorted(vectors), np.int32)
  return np.stack([vectors[i] for i in ids]), ids


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class TextEmbedding(tf_keras.layers.Layer):
  """Looks up token ids in a table (paper, section 3.1.1).

  The table is trained, unless `is_frozen`. A frozen table must be filled from
  word vectors (`fill`) or from a checkpoint (then call `mark_filled`):
  training with random vectors that never change is an error.

  Args:
    vocabulary_size: Rows of the table.
    d_embedding: Width of a vector.
    is_frozen: Whether the table is not trained.
    initializer: Initializer of the table. None means a normal with deviation 1,
      as in T5, so that words weigh no less than positions.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    ids: Integer tensor of any shape, in [0, vocabulary_size).
    training: Whether dropout and DropToken apply.

  Returns:
    (..., d_embedding) in the compute dtype.

  Raises:
    ValueError: An argument is out of range; or, at a call in training, the
      table is frozen and was not filled.

  Example:
    >>> TextEmbedding(100, 8)(tf.constant([[2, 7, 0]])).shape
    TensorShape([1, 3, 8])
  """

  def __init__(
    self,
    vocabulary_size: int,
    d_embedding: int = 300,
    is_frozen: bool = False,
    initializer: str | tf_keras.initializers.Initializer | None = None,
    **kwargs: Any,
  ):
    # Integer ids need no cast.
    super().__init__(autocast=False, **kwargs)
    if vocabulary_size < 1 or d_embedding < 1:
      raise ValueError(
        '`vocabulary_size` and `d_embedding` must be positive. Received: '
        f'vocabulary_size={vocabulary_size}, d_embedding={d_embedding}'
      )
    self.vocabulary_size = vocabulary_size
    self.d_embedding = d_embedding
    self.is_frozen = is_frozen
    self.is_filled = False
    if initializer is None:
      initializer = tf_keras.initializers.RandomNormal(stddev=1.0)
    self.initializer = tf_keras.initializers.get(initializer)

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `embeddings`, (vocabulary_size, d_embedding)."""
    # Cast after the look-up, because the table is far larger than the vectors.
    self.embeddings = self.add_weight(
      name='embeddings',
      shape=[self.vocabulary_size, self.d_embedding],
      initializer=self.initializer,
      trainable=not self.is_frozen,
      experimental_autocast=False,
    )
    super().build(input_shape)

  def fill(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> None:
    """Writes vectors into the table, which counts as filled from then on.

    Args:
      vectors: (n, d_embedding) float: vectors to write.
      ids: (n,) integer: rows to write. None means the first n.

    Raises:
      ValueError: The layer is not built, or a shape or an id does not fit.
    """
    if not self.built:
      raise ValueError(
        f'Layer `{self.name}` has no table yet. Build it before filling it.'
      )
    vectors = np.asarray(vectors, np.float32)
    ids = np.arange(len(vectors)) if ids is None else np.asarray(ids)
    expected = (len(ids), self.d_embedding)
    if vectors.shape != expected:
      raise ValueError(
        f'`vectors` must have the shape (number of ids, d_embedding) = '
        f'{expected}. Received: vectors.shape={vectors.shape}'
      )
    if len(ids) and not 0 <= ids.min() <= ids.max() < self.vocabulary_size:
      raise ValueError(
        f'`ids` must be in [0, {self.vocabulary_size}). '
        f'Received: ids from {ids.min()} to {ids.max()}'
      )
    table = self.embeddings.numpy()
    table[ids] = vectors
    self.embeddings.assign(table)
    self.mark_filled()

  def mark_filled(self) -> None:
    """Marks that the table holds trained vectors from a checkpoint."""
    self.is_filled = True

  def call(self, ids: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Looks up `ids`; see the class."""
    if training and self.is_frozen and not self.is_filled:
      raise ValueError(
        'The embedding table is frozen (`is_frozen=True`) but holds random '
        'values. Fill it from a word-vector file, or restore a checkpoint and '
        'call `mark_filled()`, or train it (`is_frozen=False`).'
      )
    vectors = tf.nn.embedding_lookup(self.embeddings, ids)  # (..., D)
    return tf.cast(vectors, self.compute_dtype)

  def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
    """Returns the shape of the ids, extended by `d_embedding`."""
    return tf.TensorShape(input_shape).concatenate(self.d_embedding)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'vocabulary_size': self.vocabulary_size,
      'd_embedding': self.d_embedding,
      'is_frozen': self.is_frozen,
      'initializer': tf_keras.initializers.serialize(self.initializer),
    }


def padding_mask(ids: tf.Tensor, has_agg: bool = False) -> tf.Tensor:
  """Returns the mask of the positions of a text that hold a token.

  Args:
    ids: (B, L) integer: token ids, 0 is padding.
    has_agg: Whether an AGG token, which is never masked, comes first.

  Returns:
    (B, L) bool, or (B, 1 + L) with `has_agg`.
  """
  mask = ids != 0
  if not has_agg:
    return mask
  return tf.concat(
    [tf.ones([tensor_utils.shape_list(ids)[0], 1], tf.bool), mask], 1
  )
