"""Small checkpoints for tests, whole and broken."""

import os

import tensorflow as tf


def write(prefix, arrays):
  """Writes a TensorFlow checkpoint.

  Args:
    prefix: string, `…/ckpt-500000`.
    arrays: dictionary from names to NumPy arrays.
  """
  tf.raw_ops.SaveV2(
    prefix=prefix,
    tensor_names=list(arrays),
    shape_and_slices=[''] * len(arrays),
    tensors=list(arrays.values()),
  )


def read(prefix):
  """Returns a dictionary from the names of a checkpoint to its arrays."""
  reader = tf.train.load_checkpoint(str(prefix))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if name != '_CHECKPOINTABLE_OBJECT_GRAPH'
  }


def truncate(path):
  """Cuts a file in half, as an interrupted download does."""
  os.truncate(path, os.path.getsize(path) // 2)
