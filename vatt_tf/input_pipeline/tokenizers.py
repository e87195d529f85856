"""Tokenizers, which turn captions into token ids.

A tokenizer is a `tf.Module` that maps strings to ids inside the graph. It keeps
its vocabulary as a tracked resource, so that a SavedModel with a tokenizer
needs no other file: a vocabulary file becomes an asset, and a SentencePiece
model is part of the graph. In all of them id 0 is padding.
"""

import dataclasses
from typing import Protocol

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from vatt_tf.core import file_utils, plain_text

PAD_TOKEN = '<pad>'

BOS_TOKEN = '<bos>'

EOS_TOKEN = '<eos>'

UNKNOWN_TOKEN = '<unk>'

SPECIAL_TOKENS = (PAD_TOKEN, BOS_TOKEN, EOS_TOKEN, UNKNOWN_TOKEN)


def _class(*tables: plain_text.Ranges) -> str:
  """Ranges of characters in the syntax of regular expressions in a graph."""
  return ''.join(
    f'\\x{{{first:x}}}-\\x{{{last:x}}}'
    for table in tables
    for first, last in table
  )


_WHITE_SPACE = f'[{_class(plain_text.WHITE_SPACE)}]+'

_HIDDEN = f'[{_class(plain_text.HIDDEN)}]+'

# Characters that are not part of a word: ASCII punctuation and symbols, all
# other punctuation of Unicode, format characters, and invisible marks.
_NO_WORD = r'[[:punct:]\pP\p{Cf}' + (
  _class(plain_text.HIDDEN, plain_text.JOINERS, plain_text.LONE_ACCENTS) + ']+'
)


class Tokenizer(Protocol):
  """Interface of the tokenizers of the pipeline.

  Attributes:
    vocabulary_size: Number of ids; all are in [0, vocabulary_size).
    eos_id: Id of the end of a sentence, or None.
    bos_id: Id of the start of a sentence, or None.
  """

  vocabulary_size: int
  eos_id: int | None
  bos_id: int | None

  def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    """Returns ids (n, None) of texts (n,), without padding and special ids."""

  def detokenize(self, ids: np.ndarray) -> list[str]:
    """Returns n texts of ids (n, L), without padding and special ids."""


# Words.


def clean(texts: tf.Tensor) -> tf.Tensor:
  """Brings texts into the form of `plain_text.clean`, in the graph.

  Ingest stores captions in this form. Queries, and records of other programs,
  get it here, before any tokenizer.

  Args:
    texts: String tensor of any shape, UTF-8; bytes that are not are replaced.

  Returns:
    A string tensor of the same shape: NFC, without invisible marks, with single
    spaces for white space.
  """
  texts = tf.strings.unicode_transcode(texts, 'UTF-8', 'UTF-8')
  texts = tf.strings.regex_replace(texts, _HIDDEN, '')
  texts = tf.strings.regex_replace(texts, _WHITE_SPACE, ' ')
  return tf.strings.strip(tf_text.normalize_utf8(texts, 'NFC'))


def normalize(texts: tf.Tensor) -> tf.Tensor:
  """Brings texts into the form in which their words are compared.

  The form is Unicode's NFKC, lower case, without punctuation and invisible
  marks, with spaces for white space. A text has the same words before and after
  `clean`.

  Args:
    texts: String tensor of any shape, UTF-8; bytes that are not are replaced.

  Returns:
    A string tensor of the same shape.
  """
  texts = tf.strings.unicode_transcode(texts, 'UTF-8', 'UTF-8')
  texts = tf.strings.regex_replace(texts, _NO_WORD, '')
  texts = tf.strings.regex_replace(texts, _WHITE_SPACE, ' ')
  texts = tf_text.normalize_utf8(texts, 'NFKC')
  texts = tf.strings.lower(texts, encoding='utf-8')
  # NFKC can add punctuation, such as (1) from U+2474, between a letter and its
  # accent.
  texts = tf.strings.regex_replace(texts, _NO_WORD, '')
  return tf_text.normalize_utf8(texts, 'NFKC')


def split_words(texts: tf.Tensor) -> tf.RaggedTensor:
  """Normalises texts and splits them on white space: (n,) to (n, None)."""
  return tf.strings.split(normalize(texts))


@dataclasses.dataclass(frozen=True)
class _VocabularyFile:
  """The words of a vocabulary file, and the places of words and ids in it."""

  words: list[str]
  key_index: int
  value_index: int
  delimiter: str
  offset: int


def _read_lines(path: str) -> list[str]:
  if not path:
    raise ValueError(
      'The vocabulary has no path. Set the gin macro VOCABULARY to a file, or '
      'make one from captions with `python -m vatt_tf.build_vocabulary`.'
    )
  if not tf.io.gfile.exists(path):
    raise ValueError(
      f'There is no vocabulary file {path}. Set the gin macro VOCABULARY to '
      'one that exists, or make it from captions with `python -m '
      f'vatt_tf.build_vocabulary`.{file_utils.advise_on_sample(path)}'
    )
  with tf.io.gfile.GFile(path, 'rb') as file:
    content = file.read()
  try:
    text = content.decode('utf-8')
  except UnicodeDecodeError as e:
    raise ValueError(
      f'The vocabulary file {path} must be UTF-8 text; byte {e.start} is not. '
      'Convert it, or set `kind` to the tokenizer that the file is for.'
    ) from e
  if '\r' in text:
    raise ValueError(
      f'The vocabulary file {path} has carriage returns (Windows line ends), '
      'which would become part of each word. Remove them.'
    )
  lines = text.split('\n')
  return lines[:-1] if lines and not lines[-1] else lines


def _read_word_file(path: str) -> _VocabularyFile:
  """Reads a file of lines `word` or `id word` and checks it."""
  lines = _read_lines(path)
  if not lines:
    raise ValueError(f'The vocabulary file {path} is empty.')
  delimiter = '\t' if '\t' in lines[0] else ' '
  if delimiter in lines[0]:
    words = {}
    for number, line in enumerate(lines, 1):
      index, _, word = line.partition(delimiter)
      if not index.isdecimal() or not word or delimiter in word:
        raise ValueError(
          f'Line {number} of the vocabulary file {path} must be `id word`, as '
          f'its first line is. Received: {line!r}'
        )
      if int(index) in words or int(index) >= len(lines):
        raise ValueError(
          f'The ids of the vocabulary file {path} must be 0 to '
          f'{len(lines) - 1}, each once. Received: {line!r} in line {number}'
        )
      words[int(index)] = word
    vocabulary = _VocabularyFile(
      [words[i] for i in range(len(lines))], 1, 0, delimiter, 0
    )
  else:
    for number, line in enumerate(lines, 1):
      if not line or len(line.split()) != 1 or line.strip() != line:
        raise ValueError(
          f'Line {number} of the vocabulary file {path} must be one word, as '
          f'its first line is. Received: {line!r}'
        )
    vocabulary = _VocabularyFile(
      lines,
      tf.lookup.TextFileIndex.WHOLE_LINE,
      tf.lookup.TextFileIndex.LINE_NUMBER,
      '\t',
      0,
    )
  if len(set(vocabulary.words)) < len(vocabulary.words):
    earlier_words = set()
    repeated = next(
      w for w in vocabulary.words if w in earlier_words or earlier_words.add(w)
    )
    raise ValueError(
      f'The vocabulary file {path} must hold each word once. Received: '
      f'{repeated!r} twice'
    )
  specials = tuple(vocabulary.words[: len(SPECIAL_TOKENS)])
  if specials != SPECIAL_TOKENS:
    if vocabulary.key_index == 1 or set(SPECIAL_TOKENS) & set(vocabulary.words):
      raise ValueError(
        f'The vocabulary file {path} must begin with '
        f'{" ".join(SPECIAL_TOKENS)} (ids 0 to 3). Received: '
        f'{" ".join(specials)}'
      )
    # A list of words alone: the special tokens are added before it.
    vocabulary = dataclasses.replace(
      vocabulary,
      words=[*SPECIAL_TOKENS, *vocabulary.words],
      offset=len(SPECIAL_TOKENS),
    )
  return vocabulary


def _word_table(
  path: str, vocabulary: _VocabularyFile
) -> tf.lookup.StaticHashTable:
  """A table from words in the form of `normalize` to ids.

  A file may hold words in another Unicode form, such as `cafe` and a separate
  accent. The table has their normal form; where several words share it, the
  word that is in this form takes precedence, otherwise the first. Capitals and
  punctuation are not removed, so that such words never match.
  """
  cased = tf.constant(vocabulary.words)
  cased = tf.strings.lower(cased, encoding='utf-8')
  cased = tf.strings.regex_replace(cased, r'[[:punct:]\pP]', '').numpy()
  normal = normalize(tf.constant(vocabulary.words)).numpy()
  ids = {word.encode('utf-8'): i for i, word in enumerate(vocabulary.words)}
  for word, i in list(ids.items()):
    if cased[i] == word and normal[i] and b' ' not in normal[i]:
      ids.setdefault(normal[i], i)
  if len(ids) == len(vocabulary.words):
    initializer = tf.lookup.TextFileInitializer(
      path,
      key_dtype=tf.string,
      key_index=vocabulary.key_index,
      value_dtype=tf.int64,
      value_index=vocabulary.value_index,
      delimiter=vocabulary.delimiter,
      value_index_offset=vocabulary.offset,
    )
  else:
    initializer = tf.lookup.KeyValueTensorInitializer(
      tf.constant(list(ids)), tf.constant(list(ids.values()), tf.int64)
    )
  return tf.lookup.StaticHashTable(
    initializer, default_value=SPECIAL_TOKENS.index(UNKNOWN_TOKEN)
  )


class WordTokenizer(tf.Module):
  """A tokenizer of whole words, with a vocabulary file.

  The text is brought into the form of `normalize` (NFKC, lower case, without
  punctuation) and split on white space (`split_words`); a word that the file
  does not have becomes `<unk>`.

  Args:
    path: Path of a file of lines `word` (whose number is the id) or `id word`.
      It begins with `<pad> <bos> <eos> <unk>`; if a file of lines `word` has
      none of them, they are added before its words.
    name: Name of the module.

  Raises:
    ValueError: The file is missing or not of this form.
  """

  def __init__(self, path: str, name: str | None = None):
    super().__init__(name=name)
    vocabulary = _read_word_file(path)
    self.words = vocabulary.words
    self.vocabulary_size = len(vocabulary.words)
    self.bos_id = SPECIAL_TOKENS.index(BOS_TOKEN)
    self.eos_id = SPECIAL_TOKENS.index(EOS_TOKEN)
    self._table = _word_table(path, vocabulary)

  def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    """Returns the ids of the words of texts.

    Args:
      texts: (n,) string.

    Returns:
      (n, None) int32 ragged.
    """
    words = split_words(texts)
    ids = self._table.lookup(words.flat_values)
    return words.with_flat_values(tf.cast(ids, tf.int32))

  def detokenize(self, ids: np.ndarray) -> list[str]:
    """Returns the words of ids; see `Tokenizer`."""
    return [' '.join(self.words[i] for i in row) for row in _plain(self, ids)]


class WordpieceTokenizer(tf.Module):
  """BERT's WordPiece tokenizer, with its vocabulary file.

  Args:
    path: Path of BERT's `vocab.txt`: one piece per line, the first `[PAD]`.
    lower_case: Whether the model is an uncased model.
    name: Name of the module.

  Raises:
    ValueError: The file is missing or not of this form.
  """

  def __init__(
    self, path: str, lower_case: bool = True, name: str | None = None
  ):
    super().__init__(name=name)
    pieces = _read_lines(path)
    for number, piece in ((0, '[PAD]'), (None, '[UNK]')):
      has_piece = pieces[:1] == [piece] if number == 0 else piece in pieces
      if not has_piece:
        raise ValueError(
          f'The WordPiece vocabulary {path} must have {piece}'
          f'{" in its first line" if number == 0 else ""}. Received: '
          f'{", ".join(pieces[:4])}, …'
        )
    self._pieces = pieces
    self.vocabulary_size = len(pieces)
    self.bos_id = pieces.index('[CLS]') if '[CLS]' in pieces else None
    self.eos_id = pieces.index('[SEP]') if '[SEP]' in pieces else None
    initializer = tf.lookup.TextFileInitializer(
      path,
      key_dtype=tf.string,
      key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
      value_dtype=tf.int64,
      value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    self._table = tf.lookup.StaticHashTable(
      initializer, default_value=pieces.index('[UNK]')
    )
    self._tokenizer = tf_text.BertTokenizer(
      self._table, token_out_type=tf.int64, lower_case=lower_case
    )

  def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    """Splits texts into pieces.

    Args:
      texts: (n,) string.

    Returns:
      (n, None) int32 ragged.
    """
    pieces = self._tokenizer.tokenize(clean(texts))  # (n, words, pieces)
    return tf.cast(pieces.merge_dims(-2, -1), tf.int32)

  def detokenize(self, ids: np.ndarray) -> list[str]:
    """Joins the pieces of ids; see `Tokenizer`."""
    return [
      ' '.join(self._pieces[i] for i in row).replace(' ##', '')
      for row in _plain(self, ids)
    ]


class SentencepieceTokenizer(tf.Module):
  """A SentencePiece tokenizer, with a model file such as T5's `spiece.model`.

  Args:
    path: Path of the model file, whose id 0 must be padding, as T5's is.
    name: Name of the module.

  Raises:
    ValueError: The file is missing, not a SentencePiece model, or without
      padding.
  """

  def __init__(self, path: str, name: str | None = None):
    super().__init__(name=name)
    if not path or not tf.io.gfile.exists(path):
      raise ValueError(
        f'There is no SentencePiece model {path!r}. Set the gin macro '
        'VOCABULARY to the path of one, such as the spiece.model of T5.'
      )
    with tf.io.gfile.GFile(path, 'rb') as file:
      model = file.read()
    try:
      self._tokenizer = tf_text.SentencepieceTokenizer(
        model=model, out_type=tf.int32
      )
      self.vocabulary_size = int(self._tokenizer.vocab_size())
      first = self._tokenizer.id_to_string(tf.constant(0)).numpy()
      eos_id = int(self._tokenizer.string_to_id('</s>'))
      bos_id = int(self._tokenizer.string_to_id('<s>'))
      unknown_id = int(self._tokenizer.string_to_id('<unk>'))
    except tf.errors.OpError as e:
      raise ValueError(
        f'The file {path} cannot be read as a SentencePiece model: {e.message}'
      ) from e
    if first != PAD_TOKEN.encode():
      raise ValueError(
        f'Id 0 of the SentencePiece model {path} must be {PAD_TOKEN}, as in '
        f"T5's models. Received: {first.decode('utf-8', 'replace')!r}"
      )
    self.eos_id = eos_id if eos_id != unknown_id else None
    self.bos_id = bos_id if bos_id != unknown_id else None

  def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    """Splits texts into pieces.

    Args:
      texts: (n,) string.

    Returns:
      (n, None) int32 ragged.
    """
    return self._tokenizer.tokenize(clean(texts))

  def detokenize(self, ids: np.ndarray) -> list[str]:
    """Joins the pieces of ids; see `Tokenizer`."""
    rows = tf.ragged.constant(_plain(self, ids), tf.int32, ragged_rank=1)
    texts = self._tokenizer.detokenize(rows).numpy()
    return [text.decode('utf-8', 'replace') for text in texts]


def _plain(tokenizer, ids):
  """The rows of ids as lists, without padding, start and end."""
  special = (0, tokenizer.bos_id, tokenizer.eos_id)
  return [[i for i in row if i not in special] for row in ids.tolist()]
