"""Class-balanced sampling: how often each record comes in an epoch.

A record's weight is that of drawing a class, all with equal chance, and then
one of its records: the sum of 1 / (records of the class) over its classes.
Weights are scaled to a mean of 1 and cut at `max_repeats`; their sum, rounded,
is the number of examples of an epoch.

In each epoch a record comes floor(w) or floor(w) + 1 times, w on average. The
records are laid out in random order on a line, each as long as its weight, and
an example is taken at every whole number: so all epochs have one length, and
where a run stands follows from its step. A record that comes 0 times is passed
over before anything of it is decoded.
"""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import struct

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.input_pipeline.records import reading, shard_files

# What is read of a record at first; its labels stand in front.
_HEAD_BYTES = 1 << 14


@gin.register
@dataclasses.dataclass(frozen=True)
class ClassBalance:
  """How records are balanced by their classes.

  Attributes:
    max_repeats: The most often that a record comes in an epoch, on average.
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
  """A protocol buffer's integer, and where it ends."""
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
  """The labels of a record, of which no more is read than its context."""
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
  """The labels of every record of a shard.

  Args:
    path: Of a shard that `records.count_records` found whole.

  Returns:
    A list of class numbers for each record; none for a damaged one.
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
  """`read_labels` of many shards, several at a time."""
  with futures.ThreadPoolExecutor(max_workers=16) as pool:
    return list(pool.map(read_labels, paths))


# How often each comes.


def record_weights(
  labels: Sequence[Sequence[int]], num_classes: int, balance: ClassBalance
) -> np.ndarray:
  """How often each record comes in an epoch, on average.

  Args:
    labels: The classes of each record; those outside [0, num_classes) do not
      count.
    num_classes: Of the model.
    balance: See `ClassBalance`.

  Returns:
    (N,) float64; 0 for a record without a class.

  Raises:
    ValueError: No record has a class.
  """
  classes = [
    sorted({label for label in one if 0 <= label < num_classes})
    for one in labels
  ]
  counts = np.bincount(
    np.array([label for one in classes for label in one], np.int64),
    minlength=num_classes,
  )
  if not counts.any():
    raise ValueError(
      'Class-balanced sampling needs labels, and none of the '
      f'{len(labels)} records has a class in [0, {num_classes}). Look at them '
      'with `python -m vatt_tf.inspect_records`, or leave out '
      '`make_dataset.balance`.'
    )
  weights = np.array([sum(1.0 / counts[one]) for one in classes], np.float64)
  weights *= len(weights) / weights.sum()
  return np.minimum(weights, balance.max_repeats)


def epoch_length(weights: np.ndarray) -> int:
  """The examples of an epoch: the sum of the weights, rounded, at least 1."""
  return max(1, round(float(np.sum(weights))))


def count_repeats(
  weights: np.ndarray, length: int, seed: tf.Tensor
) -> tf.Tensor:
  """How often each record comes in one epoch.

  Args:
    weights: (N,) float64, some above 0.
    length: `epoch_length` of them.
    seed: (2,) integer, of the epoch.

  Returns:
    (N,) int64, whose sum is `length`; 0 where the weight is.
  """
  own = np.flatnonzero(weights)  # (n,)
  shares = tf.constant(weights[own] / np.sum(weights) * length, tf.float64)
  order = tf.random.experimental.stateless_shuffle(tf.range(len(own)), seed)
  start = tf.random.stateless_uniform([], seed, dtype=tf.float64)
  ends = tf.cumsum(tf.gather(shares, order))
  # Its last value is `length`, but for rounding.
  ends = tf.concat([ends[:-1], [tf.constant(length, tf.float64)]], axis=0)
  ends = tf.cast(tf.floor(ends + start), tf.int64)  # (n,)
  counts = ends - tf.concat([[tf.constant(0, tf.int64)], ends[:-1]], axis=0)
  places = tf.gather(tf.constant(own, tf.int64), order)
  return tf.scatter_nd(places[:, tf.newaxis], counts, [len(weights)])
