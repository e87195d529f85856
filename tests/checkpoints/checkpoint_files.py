"""Small checkpoints for tests, whole and broken."""

import os

import tensorflow as tf

# The released checkpoints whose names and shapes the shared data lists.
LISTINGS = (
  'ut_fac_medium',
  'tx_fac_bbs',
  'tx_fac_mbs',
  'tx_fac_lbs',
  'finetuned_vit_base_k400',
  'finetuned_vit_medium_ma_k400',
  'finetuned_wat_base_audioset',
)


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
  """The arrays of a checkpoint.

  Args:
    prefix: of the checkpoint, or the directory of a run, for its newest.

  Returns:
    Dictionary from their names.
  """
  reader = tf.train.load_checkpoint(str(prefix))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if name != '_CHECKPOINTABLE_OBJECT_GRAPH'
  }


def trained_values(directory):
  """What the newest checkpoint of a run holds but the count of its saves."""
  return {
    name: value
    for name, value in read(directory).items()
    if 'VARIABLE_VALUE' in name and 'save_counter' not in name
  }


def truncate(path):
  """Cuts a file in half, as an interrupted download does."""
  os.truncate(path, os.path.getsize(path) // 2)
