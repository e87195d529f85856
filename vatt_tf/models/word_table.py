"""What towers on words have in common: their input, and filling their table."""

import tensorflow as tf

from vatt_tf.input_pipeline import tokenizers
from vatt_tf.layers import text_embedding


def check_files(word_vectors: str | None, vocabulary: str | None) -> None:
  """Raises ValueError if there are word vectors without a vocabulary."""
  if word_vectors and not vocabulary:
    raise ValueError(
      '`word_vectors` needs `vocabulary`, the file with the words of the '
      f'table. Received: word_vectors={word_vectors!r}, vocabulary=None'
    )


def fill(
  table: text_embedding.TextEmbedding,
  word_vectors: str | None,
  vocabulary: str | None,
) -> None:
  """Fills a table from a file of word vectors, if there is one.

  Args:
    table: A built table.
    word_vectors: Path of the file, or None.
    vocabulary: Path of the vocabulary file with the words of the table.

  Raises:
    ValueError: A file does not fit the table.
  """
  if word_vectors:
    words = tokenizers.WordTokenizer(vocabulary).words
    table.fill(
      *text_embedding.read_word_vectors(word_vectors, words, table.d_embedding)
    )


def check_ids(ids: tf.Tensor) -> None:
  """Raises ValueError unless a tensor is shaped like token ids."""
  if ids.shape.rank not in (2, 3):
    raise ValueError(
      '`text` must be token ids (B, C, L) or (B, L). '
      f'Received: text.shape={ids.shape}'
    )
