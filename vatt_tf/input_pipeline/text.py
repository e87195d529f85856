"""Captions of a clip as token ids, in TensorFlow ops."""

import dataclasses

import gin
import tensorflow as tf

from vatt_tf.input_pipeline import tokenizers

WORD = 'word'

WORDPIECE = 'wordpiece'

SENTENCEPIECE = 'sentencepiece'

_TOKENIZERS = {
  WORD: tokenizers.WordTokenizer,
  WORDPIECE: tokenizers.WordpieceTokenizer,
  SENTENCEPIECE: tokenizers.SentencepieceTokenizer,
}


@gin.register
@dataclasses.dataclass(frozen=True)
class TextConfig:
  """How the pipeline turns the captions of a record into token ids.

  The paper uses 5 captions of 16 words.

  Attributes:
    num_captions: Number of captions per clip; missing ones are rows with a
      false mask.
    max_words: Number of ids per caption; longer captions are cut, shorter ones
      are padded with 0.
    kind: Kind of the tokenizer, `word`, `wordpiece` or `sentencepiece`.
    vocabulary: Path of the vocabulary or model file.
    vocabulary_size: Rows of the model's embedding table. None means one for
      each word of the file.
    use_bos: Whether captions begin with the id of the start of a sentence.
    use_eos: Whether captions end with the id of the end of a sentence, which T5
      expects.
  """

  num_captions: int = 5
  max_words: int = 16
  kind: str = WORD
  vocabulary: str = ''
  vocabulary_size: int | None = None
  use_bos: bool = False
  use_eos: bool = False

  def __post_init__(self):
    for name in ('num_captions', 'max_words'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'`{name}` must be at least 1. Received: {name}={getattr(self, name)}'
        )
    if self.kind not in _TOKENIZERS:
      raise ValueError(
        f'`kind` must be one of {", ".join(_TOKENIZERS)}. Received: '
        f'kind={self.kind!r}'
      )
    if self.max_words <= self.use_bos + self.use_eos:
      raise ValueError(
        '`max_words` must leave room for a word besides the ids of start and '
        f'end. Received: max_words={self.max_words}'
      )

  @property
  def shape(self) -> tuple[int, int]:
    """(C, L)."""
    return self.num_captions, self.max_words


def make_tokenizer(config: TextConfig) -> tokenizers.Tokenizer:
  """Makes the tokenizer of a configuration.

  Raises:
    ValueError: The file is missing or of another form, has more words than
      `vocabulary_size`, or lacks a requested id.
  """
  tokenizer = _TOKENIZERS[config.kind](config.vocabulary)
  size = config.vocabulary_size
  if size is not None and tokenizer.vocabulary_size > size:
    raise ValueError(
      f'The vocabulary {config.vocabulary} has {tokenizer.vocabulary_size} '
      f'words, more than the {size} rows of the embedding table. Set the gin '
      f'macro VOCABULARY_SIZE to at least {tokenizer.vocabulary_size}, or make '
      f'the file again with `python -m vatt_tf.build_vocabulary '
      f'--max_size={size}`. Received: vocabulary_size={size}'
    )
  for name, is_used in (('bos', config.use_bos), ('eos', config.use_eos)):
    if is_used and getattr(tokenizer, f'{name}_id') is None:
      raise ValueError(
        f'`use_{name}` must be False: the vocabulary {config.vocabulary} has '
        'no such id.'
      )
  return tokenizer


# Captions.


def nearest_captions(
  starts: tf.Tensor,
  ends: tf.Tensor,
  num_texts: tf.Tensor,
  center: tf.Tensor,
  num_captions: int,
  seed: tf.Tensor | None = None,
) -> tf.Tensor:
  """Chooses the captions nearest in time to the centre of a clip.

  A caption that spans the centre has the distance 0; of captions at equal
  distance, the one whose middle is nearer comes first. Captions that are still
  equal (for example because a record has no times) are in random order in
  training, and in the order of the record in evaluation.

  Args:
    starts: (n,) int64: starts of the captions, µs; 0 unless there are
      `num_texts`.
    ends: (n,) int64: ends of the captions, µs; 0 unless there are `num_texts`.
    num_texts: () int32: number of captions of the record.
    center: () int64: centre of the clip, µs.
    num_captions: Number C of captions to choose.
    seed: (2,) integer, or None in evaluation.

  Returns:
    (m,) int32, m = min(C, num_texts): indices, the nearest first.
  """
  zeros = tf.zeros([num_texts], tf.int64)
  is_timed = tf.equal(tf.size(starts), num_texts)
  is_timed &= tf.equal(tf.size(ends), num_texts)
  # Both are first cut to one length, because `tf.where` needs equal shapes.
  starts = tf.where(is_timed, tf.concat([starts, zeros], 0)[:num_texts], zeros)
  ends = tf.where(is_timed, tf.concat([ends, zeros], 0)[:num_texts], zeros)
  order = tf.range(num_texts)
  if seed is not None:
    order = tf.random.experimental.stateless_shuffle(order, seed)
  away = tf.maximum(tf.maximum(starts - center, center - ends), 0)  # (n,)
  middle = tf.abs((starts + ends) // 2 - center)
  # The last sort decides, and the earlier one breaks its ties.
  for distance in (middle, away):
    places = tf.argsort(tf.gather(distance, order), stable=True)
    order = tf.gather(order, places)
  return order[:num_captions]


def encode_texts(
  texts: tf.Tensor, tokenizer: tokenizers.Tokenizer, config: TextConfig
) -> tuple[tf.Tensor, tf.Tensor]:
  """Turns any number of texts into ids.

  Args:
    texts: (m,) string.
    tokenizer: Tokenizer of `make_tokenizer`.
    config: See `TextConfig`.

  Returns:
    Ids (m, L) int32, 0 where there is nothing; mask (m,) bool, true for the
    texts that have at least one token.
  """
  ids = tokenizer.tokenize(texts)  # (m, None)
  mask = ids.row_lengths() > 0  # (m,)
  room = config.max_words - config.use_bos - config.use_eos
  ids = ids[:, :room]
  num_texts = ids.nrows(out_type=tf.int32)
  parts = [ids]
  if config.use_bos:
    parts.insert(0, tf.fill([num_texts, 1], tokenizer.bos_id))
  if config.use_eos:
    parts.append(tf.fill([num_texts, 1], tokenizer.eos_id))
  ids = tf.concat(parts, axis=1) if len(parts) > 1 else ids
  ids = ids.to_tensor(shape=[None, config.max_words])  # (m, L)
  return tf.where(mask[:, None], ids, 0), mask


def encode_captions(
  texts: tf.Tensor, tokenizer: tokenizers.Tokenizer, config: TextConfig
) -> tuple[tf.Tensor, tf.Tensor]:
  """Turns captions into ids.

  Args:
    texts: (m,) string, m <= C.
    tokenizer: Tokenizer of `make_tokenizer`.
    config: See `TextConfig`.

  Returns:
    Ids (C, L) int32, 0 where there is nothing; mask (C,) bool, true for the
    captions that have at least one token.
  """
  ids, mask = encode_texts(texts, tokenizer, config)  # (m, L), (m,)
  num_padding = config.num_captions - tf.shape(ids)[0]
  ids = tf.pad(ids, [[0, num_padding], [0, 0]])
  mask = tf.pad(mask, [[0, num_padding]])
  return (
    tf.ensure_shape(ids, config.shape),
    tf.ensure_shape(mask, [config.num_captions]),
  )
