"""Decoded frames kept in memory, so that a JPEG image is decoded once."""

from collections.abc import Callable
import os

import tensorflow as tf

# A key is the number of the record, of the frame in it, and of the scale.
_MAX_FRAMES = 2**20
_MAX_SCALES = 4

_GIB = 2**30


def _total_gib():
  """Memory of the machine."""
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / _GIB


class FrameCache:
  """Whole decoded frames by record, frame and scale, up to a limit of memory.

  What is in the cache is what decoding gives, so that results do not depend on
  it. When it is full, what is not in it is decoded again each time. It lives as
  long as the data set that uses it.

  Args:
    limit_gib: Memory that the frames may take, in GiB.

  Raises:
    ValueError: The limit is not above 0, or above the machine's memory.
  """

  def __init__(self, limit_gib: float):
    total = _total_gib()
    if not 0 < limit_gib <= total:
      raise ValueError(
        '`cache_gib` must be above 0, and at most the memory of this machine, '
        f'{total:.1f} GiB, of which training needs its part; 0 is no cache. '
        f'Received: cache_gib={limit_gib}'
      )
    self._limit = int(limit_gib * _GIB)
    with tf.device('/cpu:0'):
      self._size = tf.Variable(0, trainable=False, dtype=tf.int64)
      # A frame is a list of one tensor: it is shared and not copied.
      self._table = tf.raw_ops.AnonymousMutableHashTable(
        key_dtype=tf.int64, value_dtype=tf.variant
      )

  @property
  def num_bytes(self) -> int:
    """Memory that the frames take."""
    return int(self._size.numpy())

  def __len__(self) -> int:
    return int(tf.raw_ops.LookupTableSizeV2(table_handle=self._table))

  def get(
    self,
    record: tf.Tensor,
    frame: tf.Tensor,
    scale: int,
    decode: Callable[[], tf.Tensor],
  ) -> tf.Tensor:
    """Gives a frame, decoding it if it is not there.

    Args:
      record: () int64, number of the record among those of all sources.
      frame: () int32, number of the frame in the record.
      scale: Number of the scale, below 4.
      decode: Gives the whole frame, (h, w, 3) uint8.

    Returns:
      (h, w, 3) uint8.

    Raises:
      tf.errors.InvalidArgumentError: What `decode` raises.
    """
    key = record * _MAX_FRAMES + tf.cast(frame, tf.int64)
    key = tf.reshape(key * _MAX_SCALES + scale, [1])
    nothing = tf.raw_ops.EmptyTensorList(
      element_shape=tf.constant(-1),
      max_num_elements=1,
      element_dtype=tf.uint8,
    )
    found = tf.raw_ops.LookupTableFindV2(
      table_handle=self._table, keys=key, default_value=nothing
    )[0]

    def stored():
      return tf.raw_ops.TensorListGetItem(
        input_handle=found,
        index=0,
        element_shape=tf.constant([-1, -1, 3]),
        element_dtype=tf.uint8,
      )

    def made():
      image = decode()
      num_bytes = tf.size(image, tf.int64)
      is_room = self._size + num_bytes <= self._limit

      def insert():
        self._size.assign_add(num_bytes)
        value = tf.raw_ops.TensorListPushBack(
          input_handle=nothing, tensor=image
        )
        tf.raw_ops.LookupTableInsertV2(
          table_handle=self._table, keys=key, values=value[None]
        )
        return tf.constant(0)

      def leave():
        return tf.constant(0)

      tf.cond(is_room, insert, leave)
      return image

    is_stored = tf.raw_ops.TensorListLength(input_handle=found) > 0
    return tf.cond(is_stored, stored, made)
