"""Vocabularies: words counted in captions, and the file that holds them."""

import collections
from collections.abc import Iterable, Iterator
import csv
import itertools

from absl import logging
import tensorflow as tf

from vatt_tf import file_utils
from vatt_tf.input_pipeline import records, text

# Captions that are normalised at once.
_CHUNK = 4096


def captions_of_records(pattern: str) -> Iterator[bytes]:
  """The captions of all records that a pattern matches.

  Raises:
    ValueError: No file matches, or a shard is truncated or corrupt.
  """
  for path in records.match_shards(pattern):
    for clip in records.read_shard(path):
      for caption in clip.captions:
        yield caption.text.encode('utf-8')


def captions_of_manifest(path: str) -> Iterator[bytes]:
  """The `caption` column of a manifest csv.

  Raises:
    ValueError: There is no such file, it is not UTF-8, or has no such column.
  """
  if not tf.io.gfile.exists(path):
    raise ValueError(
      f'There is no manifest {path}. Set --manifest to a csv file with a '
      'column `caption`, or --records to a pattern of shards.'
    )
  with tf.io.gfile.GFile(path, 'rb') as file:
    content = file.read()
  try:
    lines = content.decode('utf-8-sig').splitlines(keepends=True)
  except UnicodeDecodeError as e:
    raise ValueError(
      f'The manifest {path} must be UTF-8 text; byte {e.start} is not. '
      'Convert it, for example with `iconv -t utf-8`.'
    ) from e
  reader = csv.DictReader(lines)
  if 'caption' not in (reader.fieldnames or ()):
    raise ValueError(
      f'The manifest {path} must have a column `caption`. Received: '
      f'{", ".join(reader.fieldnames or ())}'
    )
  for row in reader:
    if row['caption']:
      yield row['caption'].encode('utf-8')


def build_vocabulary(
  captions: Iterable[bytes], max_size: int = 65536, min_count: int = 1
) -> list[str]:
  """Counts words.

  Args:
    captions: UTF-8 texts.
    max_size: Most entries of the result.
    min_count: Words seen less often are left out.

  Returns:
    The special tokens, then the words: the most frequent first, ties in
    alphabetical order.

  Raises:
    ValueError: There is no room for a word, or there are no words.
  """
  if max_size <= len(text.SPECIAL_TOKENS):
    raise ValueError(
      '`max_size` must leave room beside the '
      f'{len(text.SPECIAL_TOKENS)} special tokens. Received: '
      f'max_size={max_size}'
    )
  counter = collections.Counter()
  captions = iter(captions)
  while chunk := list(itertools.islice(captions, _CHUNK)):
    counter.update(text.split_words(tf.constant(chunk)).flat_values.numpy())
  words = [word for word, count in counter.items() if count >= min_count]
  if not words:
    raise ValueError(
      'The captions hold no word to make a vocabulary of. Point --records or '
      '--manifest to data with captions, or lower --min_count.'
    )
  words.sort(key=lambda word: (-counter[word], word))
  kept = words[: max_size - len(text.SPECIAL_TOKENS)]
  logging.info(
    "%d words in %d captions' tokens; %d of them are kept.",
    len(words),
    counter.total(),
    len(kept),
  )
  return [*text.SPECIAL_TOKENS, *(word.decode('utf-8') for word in kept)]


def write_vocabulary(path: str, words: list[str]) -> None:
  """Writes a vocabulary file: a word a line, the line's number its id."""
  file_utils.write_text(path, ''.join(f'{word}\n' for word in words))
