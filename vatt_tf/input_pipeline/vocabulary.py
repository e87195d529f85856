"""Builds vocabularies from the words of captions, and writes their files."""

import collections
from collections.abc import Iterable, Iterator
import itertools
import re

from absl import logging
import tensorflow as tf

from vatt_tf.core import file_utils
from vatt_tf.input_pipeline import tokenizers
from vatt_tf.input_pipeline.records import reading, shard_files

# Number of captions that are normalised at once.
_CHUNK = 4096

# Thai, Lao, Burmese and Khmer letters, kana and Chinese characters: these
# scripts do not separate words.
_WITHOUT_SPACES = re.compile(
  '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf'
  '\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]'
)


def captions_of_records(pattern: str) -> Iterator[bytes]:
  """Yields the captions of all records that a pattern matches.

  Raises:
    ValueError: No file matches, or a shard is truncated or corrupt.
  """
  for path in shard_files.match_shards(pattern):
    for clip in reading.read_shard(path):
      for caption in clip.captions:
        yield caption.text.encode('utf-8')


def build_vocabulary(
  captions: Iterable[bytes], max_size: int = 65536, min_count: int = 1
) -> list[str]:
  """Builds a vocabulary of the most frequent words of captions.

  Args:
    captions: Texts in UTF-8.
    max_size: Largest number of entries, special tokens included.
    min_count: Smallest number of occurrences of a word.

  Returns:
    The special tokens, then the words: the most frequent first, ties in
    alphabetical order.

  Raises:
    ValueError: `max_size` leaves no room for a word, or the captions have none.
  """
  if max_size <= len(tokenizers.SPECIAL_TOKENS):
    raise ValueError(
      '`max_size` must leave room for words besides the '
      f'{len(tokenizers.SPECIAL_TOKENS)} special tokens. Received: '
      f'max_size={max_size}'
    )
  counter = collections.Counter()
  captions = iter(captions)
  while chunk := list(itertools.islice(captions, _CHUNK)):
    counter.update(
      tokenizers.split_words(tf.constant(chunk)).flat_values.numpy()
    )
  words = [word for word, count in counter.items() if count >= min_count]
  if not words:
    raise ValueError(
      'The captions hold no word for a vocabulary. Point --records or '
      '--manifest to data with captions, or lower --min_count.'
    )
  words.sort(key=lambda word: (-counter[word], word))
  entries = words[: max_size - len(tokenizers.SPECIAL_TOKENS)]
  logging.info(
    "%d words in %d captions' tokens; %d of them are kept.",
    len(words),
    counter.total(),
    len(entries),
  )
  entries = [word.decode('utf-8') for word in entries]
  num_once = sum(count == 1 for count in counter.values())
  letters = ''.join(entries)
  num_unspaced = len(_WITHOUT_SPACES.findall(letters))
  if 2 * num_once > len(counter) and 2 * num_unspaced > len(letters):
    logging.warning(
      'The captions are in a script that does not separate words: most "words" '
      'are whole sentences, seen once. Use a SentencePiece model instead '
      "(TextConfig.kind = 'sentencepiece'), or put spaces between the words."
    )
  return [*tokenizers.SPECIAL_TOKENS, *entries]


def write_vocabulary(path: str, words: list[str]) -> None:
  """Writes a vocabulary file: one word per line, whose number is its id."""
  file_utils.write_text(path, ''.join(f'{word}\n' for word in words))
