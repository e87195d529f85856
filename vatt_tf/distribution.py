"""Strategies by name, and what replicas say to each other.

Every function here may be called without a strategy, in a one-device one and
in the cross-replica context (where a model is built, say): there is one
replica then, and nothing to exchange.
"""

import tensorflow as tf


def num_replicas():
  """The number of replicas that run in step with the caller, an int.

  1 outside a strategy and in the cross-replica context.
  """
  context = tf.distribute.get_replica_context()
  return 1 if context is None else context.num_replicas_in_sync


def all_reduce_sum(tensors):
  """Sums tensors over the replicas, with gradient.

  Each replica gets the sum; the gradient of each replica's own part is the sum
  of what flows back into all of them, so it is exact when the global loss is
  the sum of the replicas' losses. Call it in a `tf.function`.

  Args:
    tensors: a structure of float or integer tensors, of one shape on all
      replicas.

  Returns:
    A structure like `tensors`. With one replica, `tensors` itself.
  """
  if num_replicas() == 1:
    return tensors
  context = tf.distribute.get_replica_context()
  return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)
