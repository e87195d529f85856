"""Communication of replicas and workers: sums and concatenations."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from vatt_tf.core import workers


def num_replicas() -> int:
  """Returns the number of replicas that run in sync with the caller.

  It is 1 outside a strategy and in the cross-replica context.
  """
  context = tf.distribute.get_replica_context()
  return 1 if context is None else context.num_replicas_in_sync


def first_row(per_replica_batch: int | tf.Tensor) -> tf.Tensor:
  """Returns the number of this replica's first row in the global batch.

  Args:
    per_replica_batch: Number of rows per replica.

  Returns:
    () int32: the replica's number times `per_replica_batch`.
  """
  per_replica_batch = tf.cast(per_replica_batch, tf.int32)
  if num_replicas() == 1:
    return tf.zeros_like(per_replica_batch)
  context = tf.distribute.get_replica_context()
  replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
  return replica * per_replica_batch


def all_reduce_sum(tensors: Any) -> Any:
  """Sums tensors over the replicas, with gradient.

  Each replica gets the sum. The gradient of each replica's own part is the sum
  of the gradients of all replicas' results, so it is exact if the global loss
  is the sum of the replicas' losses.

  Args:
    tensors: Structure of tensors, all float or all integer, each with the same
      shape on all replicas.

  Returns:
    A structure like `tensors`. With one replica, `tensors` itself.
  """
  if num_replicas() == 1:
    return tensors
  context = tf.distribute.get_replica_context()
  return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def cross_replica_concat(tensors: Any) -> Any:
  """Concatenates the replicas' tensors along axis 0, with gradient.

  Each replica gets the rows of all, in the order of `first_row`. The gradient
  of a replica's rows is the sum of their gradients on all replicas, so it is
  exact if the global loss is the sum of the replicas' losses.

  Args:
    tensors: Structure of tensors (B, ...), numeric or bool, each with the same
      shape on all replicas.

  Returns:
    A structure of tensors (B * replicas, ...). With one replica, `tensors`
    itself.
  """
  if num_replicas() == 1:
    return tensors
  # Gather one tensor at a time: TensorFlow's gradient of a gathered list needs
  # tensors of one shape.
  return tf.nest.map_structure(_concat_tensor, tensors)


def _concat_tensor(x):
  x = tf.convert_to_tensor(x)
  context = tf.distribute.get_replica_context()
  gathered = context.all_gather(
    tf.cast(x, tf.int32) if x.dtype.is_bool else x, axis=0
  )
  # Gathering loses the static shape, and fails if shapes differ by replica.
  rows = None if x.shape[0] is None else x.shape[0] * num_replicas()
  gathered = tf.ensure_shape(gathered, [rows, *x.shape[1:]])
  return tf.cast(gathered, x.dtype)


def gather_from_workers(
  strategy: tf.distribute.Strategy, value: tf.Tensor
) -> np.ndarray:
  """Returns the values of all workers on every worker.

  All workers must call this at the same point of the program.

  Args:
    strategy: Strategy of the workers.
    value: Value of this worker.

  Returns:
    A list of ints, in the order of the workers; `[value]` with one worker.
  """
  num_workers = workers.num_workers(strategy)
  if num_workers == 1:
    return [value]
  position = tf.one_hot(workers.worker_index(strategy), num_workers)
  # Each replica of a worker adds the same share of its value.
  share = position * value / (strategy.num_replicas_in_sync // num_workers)
  total = _sum_function(strategy)(share).numpy()
  return [round(float(x)) for x in total]


@functools.cache
def _sum_function(strategy):
  @tf.function
  def run(x):
    sums = strategy.run(tf.identity, args=(x,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

  return run
