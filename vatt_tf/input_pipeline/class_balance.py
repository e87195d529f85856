"""Class-balanced sampling: how often an epoch contains each record.

A record's weight is proportional to the chance of drawing it by first drawing a
class, all with equal chance, and then one of its records: the sum of
1 / (records of the class) over its classes. Weights are scaled to a mean of 1
and clipped at `max_repeats`; their sum, rounded, is the number of examples of
an epoch.

Each epoch contains a record floor(w) or floor(w) + 1 times, w on average. The
records are laid out in random order on a line, each as long as its weight, and
an example is taken at every whole number. All epochs therefore have the same
length, and the position of a run follows from its step. A record that an epoch
contains 0 times is skipped before it is decoded.
"""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import struct

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.input_pipeline.records import reading, shard_files

# Bytes of a record that are read first; its labels come at the beginning.
_HEAD_BYTES = 1 << 14


@gin.register
@dataclasses.dataclass(frozen=True)
class ClassBalance:
  """How records are balanced by their classes.

  Attributes:
    max_repeats: Largest mean number of times that an epoch contains a record.
  """

  max_repeats: float = 5.0

  def __post_init__(self):
    if not self.max_repeats > 0:
      raise ValueError(
        '`max_repeats` must be above 0. Received: '
        f'max_repeats={self.max_repeats}'
      )


# The labels of all records.


def _varint(data: bytes, position: int) -> tuple[int, int]:
  """An integer of a protocol buffer, and the position of its end."""
  value, shift = 0, 0
  while position < len(data):
    byte = data[position]
    position += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      break
    shift += 7
  return value, position


def _labels_in(record: bytes) -> list[int]:
  """The labels of a record; a damaged one has none."""
  try:
    return reading.read_values(record)['label_index']
  except reading.RecordError:
    return []


def _labels_of(file, start: int, length: int) -> list[int]:
  """The labels of a record, of which only the context is read if possible."""
  file.seek(start)
  head = file.read(min(length, _HEAD_BYTES))
  if head[:1] == b'\x0a' and len(head) > 11:  # field 1: the context
    size, position = _varint(head, 1)
    end = position + size
    if end <= length:
      if end > len(head):
        head += file.read(end - len(head))
      labels = _labels_in(head[:end])
      if labels:
        return labels
  file.seek(start)
  return _labels_in(file.read(length))


def read_labels(path: str) -> list[list[int]]:
  """Reads the labels of every record of a shard.

  Args:
    path: Path of a shard, which `shard_files.count_records` has checked.

  Returns:
    A list of class numbers for each record; empty for a damaged record.
  """
  if shard_files.find_compression(path):
    return [
      _labels_in(record)
      for record in shard_files.open_shard(path).as_numpy_iterator()
    ]
  labels = []
  with tf.io.gfile.GFile(path, 'rb') as file:
    size = file.size()
    if '://' not in path:
      file = open(path, 'rb')  # noqa: SIM115
    with file:
      position = 0
      while position < size:
        file.seek(position)
        (length,) = struct.unpack('<Q', file.read(8))
        labels.append(_labels_of(file, position + 12, length))
        position += 16 + length
  return labels


def read_all_labels(paths: Sequence[str]) -> list[list[list[int]]]:
  """Reads the labels of many shards, several at a time."""
  with futures.ThreadPoolExecutor(max_workers=16) as pool:
    return list(pool.map(read_labels, paths))


# How often an epoch contains each record.


def record_weights(
  labels: Sequence[Sequence[int]], num_classes: int, balance: ClassBalance
) -> np.ndarray:
  """Returns how often an epoch contains each record, on average.

  Args:
    labels: Classes of each record; those outside [0, num_classes) do not count.
    num_classes: Number of classes.
    balance: See `ClassBalance`.

  Returns:
    (N,) float64; 0 for a record without a class.

  Raises:
    ValueError: No record has a class.
  """
  classes = [
    sorted({label for label in record if 0 <= label < num_classes})
    for record in labels
  ]
  counts = np.bincount(
    np.array([label for record in classes for label in record], np.int64),
    minlength=num_classes,
  )
  if not counts.any():
    raise ValueError(
      'Class-balanced sampling needs labels, and none of the '
      f'{len(labels)} records has a class in [0, {num_classes}). Look at them '
      'with `python -m vatt_tf.inspect_records`, or leave out '
      '`make_dataset.balance`.'
    )
  weights = np.array(
    [sum(1.0 / counts[record]) for record in classes], np.float64
  )
  weights *= len(weights) / weights.sum()
  return np.minimum(weights, balance.max_repeats)


def epoch_length(weights: np.ndarray) -> int:
  """Returns the examples per epoch: the rounded sum of weights, at least 1."""
  return max(1, round(float(np.sum(weights))))


def count_repeats(
  weights: np.ndarray, length: int, seed: tf.Tensor
) -> tf.Tensor:
  """Returns how often one epoch contains each record.

  Args:
    weights: (N,) float64: weights of the records, some above 0.
    length: `epoch_length` of the weights.
    seed: (2,) integer: seed of the epoch.

  Returns:
    (N,) int64, whose sum is `length`; 0 where the weight is 0.
  """
  weighted = np.flatnonzero(weights)  # (n,)
  shares = tf.constant(weights[weighted] / np.sum(weights) * length, tf.float64)
  order = tf.random.experimental.stateless_shuffle(
    tf.range(len(weighted)), seed
  )
  start = tf.random.stateless_uniform([], seed, dtype=tf.float64)
  ends = tf.cumsum(tf.gather(shares, order))
  # The last value is `length`, except for rounding errors.
  ends = tf.concat([ends[:-1], [tf.constant(length, tf.float64)]], axis=0)
  ends = tf.cast(tf.floor(ends + start), tf.int64)  # (n,)
  counts = ends - tf.concat([[tf.constant(0, tf.int64)], ends[:-1]], axis=0)
  places = tf.gather(tf.constant(weighted, tf.int64), order)
  return tf.scatter_nd(places[:, tf.newaxis], counts, [len(weights)])
