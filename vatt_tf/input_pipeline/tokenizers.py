"""Captions of a clip: which ones, and their token ids.

A tokenizer is a `tf.Module` that maps strings to ids inside the graph. It keeps
its vocabulary as a tracked resource, so that a SavedModel which holds one needs
no file beside it: a vocabulary file becomes an asset, a SentencePiece model is
part of the graph. Id 0 is padding for all of them.
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
  """Ranges of characters, as regular expressions in the graph write them."""
  return ''.join(
    f'\\x{{{first:x}}}-\\x{{{last:x}}}'
    for table in tables
    for first, last in table
  )


_WHITE_SPACE = f'[{_class(plain_text.WHITE_SPACE)}]+'

_HIDDEN = f'[{_class(plain_text.HIDDEN)}]+'

# What is no part of a word: ASCII punctuation with its symbols, all other
# punctuation of Unicode, format characters, and marks that nobody sees.
_NO_WORD = r'[[:punct:]\pP\p{Cf}' + (
  _class(plain_text.HIDDEN, plain_text.JOINERS, plain_text.LONE_ACCENTS) + ']+'
)


class Tokenizer(Protocol):
  """What the pipeline asks of a tokenizer.

  Attributes:
    vocabulary_size: Number of ids; all are in [0, vocabulary_size).
    eos_id: Id of the end of a sentence, or None.
    bos_id: Id of the start of a sentence, or None.
  """

  vocabulary_size: int
  eos_id: int | None
  bos_id: int | None

  def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    """(n,) string to (n, None) int32, with no padding and no special ids."""

  def detokenize(self, ids: np.ndarray) -> list[str]:
    """(n, L) ids to n texts for people, without padding and special ids."""


# Words.


def clean(texts: tf.Tensor) -> tf.Tensor:
  """Brings texts into the form of `plain_text.clean`, in the graph.

  Ingest keeps captions in this form. Records of others and queries get it here,
  before any tokenizer.

  Args:
    texts: String tensor of any shape, UTF-8; bytes that are not are replaced.

  Returns:
    A string tensor of the same shape: NFC, without marks that nobody sees, with
    single spaces for white space.
  """
  texts = tf.strings.unicode_transcode(texts, 'UTF-8', 'UTF-8')
  texts = tf.strings.regex_replace(texts, _HIDDEN, '')
  texts = tf.strings.regex_replace(texts, _WHITE_SPACE, ' ')
  return tf.strings.strip(tf_text.normalize_utf8(texts, 'NFC'))


def normalize(texts: tf.Tensor) -> tf.Tensor:
  """Brings texts into the form in which their words are compared.

  That is: Unicode's form NFKC, lower case, without punctuation and marks that
  nobody sees, with spaces for white space. What `clean` keeps has the words
  that it had before.

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
  # NFKC can make punctuation ((1) of U+2474), between a letter and its accent.
  texts = tf.strings.regex_replace(texts, _NO_WORD, '')
  return tf_text.normalize_utf8(texts, 'NFKC')


def split_words(texts: tf.Tensor) -> tf.RaggedTensor:
  """Normalises texts and splits them on white space: (n,) to (n, None)."""
  return tf.strings.split(normalize(texts))


@dataclasses.dataclass(frozen=True)
class _VocabularyFile:
  """Where the words and ids stand in a vocabulary file."""

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
    found = _VocabularyFile(
      [words[i] for i in range(len(lines))], 1, 0, delimiter, 0
    )
  else:
    for number, line in enumerate(lines, 1):
      if not line or len(line.split()) != 1 or line.strip() != line:
        raise ValueError(
          f'Line {number} of the vocabulary file {path} must be one word, as '
          f'its first line is. Received: {line!r}'
        )
    found = _VocabularyFile(
      lines,
      tf.lookup.TextFileIndex.WHOLE_LINE,
      tf.lookup.TextFileIndex.LINE_NUMBER,
      '\t',
      0,
    )
  if len(set(found.words)) < len(found.words):
    seen = set()
    twice = next(w for w in found.words if w in seen or seen.add(w))
    raise ValueError(
      f'The vocabulary file {path} must hold each word once. Received: '
      f'{twice!r} twice'
    )
  specials = tuple(found.words[: len(SPECIAL_TOKENS)])
  if specials != SPECIAL_TOKENS:
    if found.key_index == 1 or set(SPECIAL_TOKENS) & set(found.words):
      raise ValueError(
        f'The vocabulary file {path} must begin with '
        f'{" ".join(SPECIAL_TOKENS)} (ids 0 to 3). Received: '
        f'{" ".join(specials)}'
      )
    # A bare list of words: the special tokens go before it.
    found = dataclasses.replace(
      found,
      words=[*SPECIAL_TOKENS, *found.words],
      offset=len(SPECIAL_TOKENS),
    )
  return found


def _word_table(path: str, found: _VocabularyFile) -> tf.lookup.StaticHashTable:
  """The ids of words, by the form in which `normalize` gives them.

  A file may hold words in another Unicode form, such as `cafe` and an accent of
  its own. They are found by their normal form; where several words have the
  same, by the one that is in it, else by the first. Capitals and punctuation
  are not taken off: such a word is never found.
  """
  cased = tf.constant(found.words)
  cased = tf.strings.lower(cased, encoding='utf-8')
  cased = tf.strings.regex_replace(cased, r'[[:punct:]\pP]', '').numpy()
  normal = normalize(tf.constant(found.words)).numpy()
  ids = {word.encode('utf-8'): i for i, word in enumerate(found.words)}
  for word, i in list(ids.items()):
    if cased[i] == word and normal[i] and b' ' not in normal[i]:
      ids.setdefault(normal[i], i)
  if len(ids) == len(found.words):
    initializer = tf.lookup.TextFileInitializer(
      path,
      key_dtype=tf.string,
      key_index=found.key_index,
      value_dtype=tf.int64,
      value_index=found.value_index,
      delimiter=found.delimiter,
      value_index_offset=found.offset,
    )
  else:
    initializer = tf.lookup.KeyValueTensorInitializer(
      tf.constant(list(ids)), tf.constant(list(ids.values()), tf.int64)
    )
  return tf.lookup.StaticHashTable(
    initializer, default_value=SPECIAL_TOKENS.index(UNKNOWN_TOKEN)
  )


class WordTokenizer(tf.Module):
  """Whole words, by a vocabulary file.

  The text is brought into the form of `normalize` (NFKC, lower case, without
  punctuation) and split on white space (`split_words`); a word that the file
  does not have becomes `<unk>`.

  Args:
    path: A file of lines `word` (the line's number is the id) or `id word`. It
      begins with `<pad> <bos> <eos> <unk>`; in a file of lines `word` that has
      none of them they are put in front.
    name: Name of the module.

  Raises:
    ValueError: The file is missing or not of this form.
  """

  def __init__(self, path: str, name: str | None = None):
    super().__init__(name=name)
    found = _read_word_file(path)
    self.words = found.words
    self.vocabulary_size = len(found.words)
    self.bos_id = SPECIAL_TOKENS.index(BOS_TOKEN)
    self.eos_id = SPECIAL_TOKENS.index(EOS_TOKEN)
    self._table = _word_table(path, found)

  def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
    """Looks the words of texts up.

    Args:
      texts: (n,) string.

    Returns:
      (n, None) int32 ragged.
    """
    words = split_words(texts)
    ids = self._table.lookup(words.flat_values)
    return words.with_flat_values(tf.cast(ids, tf.int32))

  def detokenize(self, ids: np.ndarray) -> list[str]:
    """Writes the words of ids out; see `Tokenizer`."""
    return [' '.join(self.words[i] for i in row) for row in _plain(self, ids)]


class WordpieceTokenizer(tf.Module):
  """BERT's WordPiece, by its vocabulary file.

  Args:
    path: BERT's `vocab.txt`: one piece a line, the first `[PAD]`.
    lower_case: Whether the model is an uncased one.
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
      is_found = pieces[:1] == [piece] if number == 0 else piece in pieces
      if not is_found:
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
    """Puts the pieces of ids together; see `Tokenizer`."""
    return [
      ' '.join(self._pieces[i] for i in row).replace(' ##', '')
      for row in _plain(self, ids)
    ]


class SentencepieceTokenizer(tf.Module):
  """SentencePiece, by a model file such as T5's `spiece.model`.

  Args:
    path: The model file. Its id 0 must be padding, as T5's is.
    name: Name of the module.

  Raises:
    ValueError: The file is missing, no SentencePiece model, or without padding.
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
        f'those of T5. Received: {first.decode("utf-8", "replace")!r}'
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
    """Puts the pieces of ids together; see `Tokenizer`."""
    rows = tf.ragged.constant(_plain(self, ids), tf.int32, ragged_rank=1)
    texts = self._tokenizer.detokenize(rows).numpy()
    return [text.decode('utf-8', 'replace') for text in texts]


def _plain(tokenizer, ids):
  """Rows of ids, lists without padding, start and end."""
  special = (0, tokenizer.bos_id, tokenizer.eos_id)
  return [[i for i in row if i not in special] for row in ids.tolist()]
