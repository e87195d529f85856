"""Random numbers keyed by (seed, step, layer, row of the global batch).

Everything random in a training step draws from a counter-based generator
(Philox, Salmon et al. 2011), so that a row gets the same numbers wherever it
is computed: on one device, on any of several replicas, in a micro-batch, or
again when activations are recomputed. The 64-bit key holds the seed and the
layer, the 128-bit counter the step and the position of the row.

Dropout compares random bytes instead of random floats: this takes a quarter of
the random words, and the backward pass keeps one byte per element.
"""

from collections.abc import Sequence
import math
from typing import NamedTuple
import zlib

import tensorflow as tf

from vatt_tf.core import tensor_utils

_PHILOX = 1  # tf.random.Algorithm.PHILOX as the raw op takes it
_WORDS_PER_COUNT = 4  # uint32 words per value of the Philox counter


class Rng(NamedTuple):
  """A key from which any number of independent draws are made.

  Attributes:
    seed: () int64: seed of the run.
    step: () int64: number of the training step.
    first_row: () int64: number of the first local row in the global batch.
    path: Hash of the names folded in so far.
  """

  seed: tf.Tensor
  step: tf.Tensor
  first_row: tf.Tensor
  path: int


def make(
  seed: int | tf.Tensor, step: int | tf.Tensor, first_row: int | tf.Tensor = 0
) -> Rng:
  """Makes the key of a training step.

  Args:
    seed: Seed of every random choice.
    step: Number of the global step.
    first_row: Number of this replica's (or micro-batch's) first row in the
      global batch.

  Returns:
    An `Rng`.
  """
  return Rng(
    tf.cast(seed, tf.int64),
    tf.cast(step, tf.int64),
    tf.cast(first_row, tf.int64),
    0,
  )


def fold_in(rng: Rng | None, name: str) -> Rng | None:
  """Returns the key for a named part, independent of its siblings' keys.

  Args:
    rng: An `Rng` or None.
    name: Fixed name of the part, such as a sub-layer's name.

  Returns:
    An `Rng`, or None when `rng` is None.
  """
  if rng is None:
    return None
  return rng._replace(path=zlib.crc32(name.encode(), rng.path))


def rows(rng: Rng | None, factor: int) -> Rng | None:
  """Returns the key for tensors that hold `factor` rows for each batch row.

  Args:
    rng: An `Rng` or None.
    factor: Number of rows per batch row; axis 0 of the tensors is B * factor,
      batch-major.

  Returns:
    An `Rng`, or None when `rng` is None.
  """
  if rng is None:
    return None
  return rng._replace(first_row=rng.first_row * factor)


def after(x: tf.Tensor, rng: Rng | None) -> Rng | None:
  """Returns a key that gives the same draws, but only once `x` is computed.

  Draws have few other dependencies, so a step would otherwise begin with the
  draws of all its layers, and hold them until they are used.

  Args:
    x: Floating-point tensor, not empty.
    rng: An `Rng` or None.

  Returns:
    An `Rng`, or None when `rng` is None.
  """
  if rng is None:
    return None
  zero = tf.cast(tensor_utils.zero_after(x), tf.int64)
  return rng._replace(step=rng.step + zero)


def _words(rng, num_rows, words_per_row):
  """Draws uint32 words, (num_rows, words_per_row); `words_per_row` is a
  multiple of 4, so that every row begins at a new counter value."""
  if rng is None:
    # A fresh key from TensorFlow's own state: `tf.random.set_seed` governs it.
    fresh = tf.random.uniform(
      [2], minval=tf.int64.min, maxval=tf.int64.max, dtype=tf.int64
    )
    key, step, first_row = fresh[:1], fresh[1], tf.constant(0, tf.int64)
  else:
    mixed = tf.bitwise.bitwise_xor(
      tf.bitwise.left_shift(rng.seed, tf.constant(32, tf.int64)),
      tf.constant(rng.path, tf.int64),
    )
    key, step, first_row = tf.reshape(mixed, [1]), rng.step, rng.first_row
  position = first_row * (words_per_row // _WORDS_PER_COUNT)
  counter = tf.stack([position, step])
  return tf.raw_ops.StatelessRandomUniformFullIntV2(
    shape=tf.stack([num_rows, words_per_row]),
    key=tf.bitcast(key, tf.uint64),
    counter=tf.bitcast(counter, tf.uint64),
    alg=tf.constant(_PHILOX, tf.int32),
    dtype=tf.uint32,
  )


def _round_up(value, multiple):
  return -(-value // multiple) * multiple


def uniform(
  rng: Rng, row_shape: Sequence[int], num_rows: int | tf.Tensor
) -> tf.Tensor:
  """Draws uniform numbers.

  Args:
    rng: An `Rng`, or None to draw a fresh key from TensorFlow's global state.
    row_shape: Static shape of one row.
    num_rows: Number of rows, which may be a () int32 tensor.

  Returns:
    Float32 tensor (num_rows, *row_shape) in [0, 1), in steps of 2^-24.
  """
  size = math.prod(row_shape)
  padded = _round_up(size, _WORDS_PER_COUNT)
  words = _words(rng, num_rows, padded)[:, :size]  # (rows, size)
  words = tf.bitwise.right_shift(words, tf.constant(8, tf.uint32))
  # The remaining 24 bits fit an int32, which XLA and the CPU convert faster.
  values = tf.cast(tf.bitcast(words, tf.int32), tf.float32) * 2.0**-24
  return tf.reshape(values, [num_rows, *row_shape])


def _keep_mask(rng, row_shape, num_rows, threshold):
  """A bool mask (num_rows, *row_shape), true in (256 - threshold) / 256."""
  size = math.prod(row_shape)
  padded = _round_up(size, 4 * _WORDS_PER_COUNT)
  words = _words(rng, num_rows, padded // 4)
  octets = tf.bitcast(words, tf.uint8)  # (rows, padded // 4, 4)
  octets = tf.reshape(octets, [num_rows, padded])
  if padded != size:
    octets = octets[:, :size]
  return tf.reshape(
    octets >= tf.constant(threshold, tf.uint8), [num_rows, *row_shape]
  )


def dropout(x: tf.Tensor, rate: float, rng: Rng | None = None) -> tf.Tensor:
  """Zeroes a random share of `x` and scales the rest to keep its mean.

  Args:
    x: Floating-point tensor (rows, ...), whose axes but the first are static.
      Axis 0 is the row axis of the key.
    rate: Share that is dropped, in [0, 1), rounded to a multiple of 1/256 (at
      least 1/256 unless it is 0). The scale follows from the rounded rate.
    rng: An `Rng`, or None to draw a fresh key from TensorFlow's global state.

  Returns:
    A tensor like `x`.

  Raises:
    ValueError: `rate` is not in [0, 1), or an inner axis is not static.
  """
  if not 0 <= rate < 1:
    raise ValueError(f'`rate` must be in [0, 1). Received: rate={rate}')
  if rate == 0:
    return x
  row_shape = x.shape[1:].as_list()
  if None in row_shape:
    raise ValueError(
      f'`x` must have static axes after the first. Received: x.shape={x.shape}'
    )
  threshold = min(max(round(rate * 256), 1), 255)
  num_rows = x.shape[0] if x.shape[0] is not None else tf.shape(x)[0]
  keep = _keep_mask(after(x, rng), row_shape, num_rows, threshold)
  scale = 256 / (256 - threshold)

  def apply(value):
    return value * (tf.cast(keep, value.dtype) * tf.cast(scale, value.dtype))

  @tf.custom_gradient
  def masked(value):
    def grad(upstream):
      # Only the byte mask is kept for the backward pass. Without the
      # dependency, TensorFlow would merge this cast with the one of the forward
      # pass, and keep its larger result.
      with tf.control_dependencies([upstream]):
        return apply(upstream)

    return apply(value), grad

  return masked(x)
