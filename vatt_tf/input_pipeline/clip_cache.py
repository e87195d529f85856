"""Decoded clips kept in memory, so that a record is read and decoded once."""

import os

import numpy as np
import tensorflow as tf

_GIB = 2**30


def _total_gib():
  """The memory of the machine in GiB."""
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / _GIB


def _num_bytes(tensor):
  """The number of bytes of an eager tensor's values."""
  if tensor.dtype == tf.string:
    return sum(len(value) for value in np.ravel(tensor.numpy()))
  return tensor.shape.num_elements() * tensor.dtype.size


class ClipCache:
  """Decoded clips by number, up to a limit of memory.

  A clip is a dictionary of tensors, which are shared and not copied. The cache
  lives as long as the data sets that read from it.

  Args:
    limit_gib: Memory that the clips may take, in GiB.
    spec: Shapes and types of the tensors of a clip.

  Raises:
    ValueError: The limit is not above 0, or above the machine's memory.
  """

  def __init__(self, limit_gib: float, spec: dict[str, tf.TensorSpec]):
    total = _total_gib()
    if not 0 < limit_gib <= total:
      raise ValueError(
        '`cache_gib` must be above 0, and at most the memory of this machine, '
        f'{total:.1f} GiB, a part of which training needs; 0 means no cache. '
        f'Received: cache_gib={limit_gib}'
      )
    self.limit_gib = limit_gib
    self.num_bytes = 0
    self._spec = spec
    with tf.device('/cpu:0'):
      self._nothing = tf.raw_ops.OptionalNone()
      self._table = tf.raw_ops.AnonymousMutableHashTable(
        key_dtype=tf.int64, value_dtype=tf.variant
      )

  def __len__(self) -> int:
    return int(tf.raw_ops.LookupTableSizeV2(table_handle=self._table))

  @property
  def gib(self) -> float:
    """Memory that the clips take in GiB."""
    return self.num_bytes / _GIB

  def add(self, number: tf.Tensor, clip: dict[str, tf.Tensor]) -> bool:
    """Adds a clip if there is room for it.

    Args:
      number: () int64: key of the clip.
      clip: Eager tensors, as `spec` describes them.

    Returns:
      Whether the clip was added.
    """
    num_bytes = sum(_num_bytes(tensor) for tensor in clip.values())
    if self.num_bytes + num_bytes > self.limit_gib * _GIB:
      return False
    self.num_bytes += num_bytes
    with tf.device('/cpu:0'):
      value = tf.raw_ops.OptionalFromValue(
        components=[clip[key] for key in self._spec]
      )
      tf.raw_ops.LookupTableInsertV2(
        table_handle=self._table, keys=number, values=value
      )
    return True

  def find(self, number: tf.Tensor) -> tf.Tensor:
    """Looks up a clip: returns a () variant for `is_found` and `take`."""
    return tf.raw_ops.LookupTableFindV2(
      table_handle=self._table, keys=number, default_value=self._nothing
    )

  def is_found(self, found: tf.Tensor) -> tf.Tensor:
    """Returns whether `find` found a clip, () bool."""
    return tf.raw_ops.OptionalHasValue(optional=found)

  def take(self, found: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the tensors of a clip that `find` found."""
    specs = self._spec.values()
    values = tf.raw_ops.OptionalGetValue(
      optional=found,
      output_types=[spec.dtype for spec in specs],
      output_shapes=[spec.shape for spec in specs],
    )
    return dict(zip(self._spec, values, strict=True))
