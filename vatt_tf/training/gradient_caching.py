"""Gradients of a large batch from micro-batches, exactly (gradient caching).

Gao et al. 2021, "Scaling deep contrastive learning batch size under memory
limited setup". A contrastive loss couples all rows of the batch, but only
through the pooled features, which are small:

1. The towers compute the pooled features, one micro-batch after another, and
   keep no activations.
2. The heads, batch norm and the loss see the features of the whole batch, once,
   and give the gradients of the heads' weights and of the features.
3. The towers run again, one micro-batch after another, with the same dropout
   and DropToken, and propagate the features' gradients to their weights.

Only the activations of one micro-batch are in memory; the forward pass of the
towers is computed twice. The result is the gradient of the whole batch. Plain
accumulation, the sum of the gradients of a loss for each micro-batch, differs:
each loss would see only its own rows as negatives and for the statistics of
batch norm. It is therefore not offered.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import randomness, tensor_utils


def num_micro_batches(batch_size: int, micro_batch_size: int) -> int:
  """Returns the number of micro-batches of a replica's batch.

  Raises:
    ValueError: `micro_batch_size` does not divide `batch_size`.
  """
  if micro_batch_size < 1 or batch_size % micro_batch_size:
    divisors = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
    raise ValueError(
      f'`micro_batch_size` must divide the {batch_size} rows of each replica: '
      f'use one of {divisors}. '
      f'Received: micro_batch_size={micro_batch_size}'
    )
  return batch_size // micro_batch_size


def _check_rows_are_independent(model, micro_batch_size):
  """Raises ValueError if the rows of a tower depend on each other."""
  for tower in getattr(model, 'towers', {}).values():
    if tower.has_batch_norm:
      raise ValueError(
        f'The {type(tower).__name__} for {tower.modality} has batch norms, '
        'whose statistics need the whole batch: micro-batches would have '
        'others. Set MICRO_BATCH_SIZE = None, and use a smaller batch or more '
        f'devices. Received: micro_batch_size={micro_batch_size}'
      )


def gradients(
  model: tf_keras.Model,
  loss_fn: Callable[..., Any],
  features: Mapping[str, tf.Tensor],
  rng: randomness.Rng | None,
  micro_batch_size: int | None,
) -> Any:
  """Computes the gradients of this replica's rows, with little memory.

  Args:
    model: Model, such as a `VATT`, with `encode(features, training, rng)`,
      which returns a dictionary of tensors (B, ...) whose rows do not depend on
      each other, and `project(pooled, masks, training)`, which returns the
      outputs for them.
    loss_fn: Function from the outputs to `(loss, metrics)`; the loss is a
      scalar, this replica's share.
    features: Tensors (B, ...) by name, B static.
    rng: Random numbers of the rows.
    micro_batch_size: Rows that the towers take at a time, a divisor of B.

  Returns:
    (gradients, metrics): a list of dense tensors like the model's trainable
    variables, None where the loss does not depend on the variable; and the
    metrics.

  Raises:
    ValueError: `micro_batch_size` does not divide B, or a tower has batch
      norms.
  """
  _check_rows_are_independent(model, micro_batch_size)
  variables = model.trainable_variables
  batch_size = next(iter(features.values())).shape[0]
  num = num_micro_batches(batch_size, micro_batch_size)
  parts = {
    name: tf.reshape(x, [num, micro_batch_size, *x.shape[1:]])
    for name, x in features.items()
  }

  def encode(index):
    first_row = rng.first_row + tf.cast(index, tf.int64) * micro_batch_size
    return model.encode(
      {name: x[index] for name, x in parts.items()},
      training=True,
      rng=rng._replace(first_row=first_row),
    )

  pooled = _encode_all(encode, model, num)
  with tf.GradientTape() as tape:
    tape.watch([x for x in pooled.values() if x.dtype.is_floating])
    outputs = model.project(pooled, features, training=True)
    loss, metrics = loss_fn(outputs)
  totals, d_pooled = tape.gradient(
    loss,
    [variables, {n: x for n, x in pooled.items() if x.dtype.is_floating}],
  )
  d_pooled = {
    name: tf.reshape(d, [num, micro_batch_size, *d.shape[1:]])
    for name, d in d_pooled.items()
    if d is not None
  }
  in_heads = {i for i, total in enumerate(totals) if total is not None}
  totals = [
    tf.zeros(variable.shape, variable.dtype) if total is None else dense(total)
    for variable, total in zip(variables, totals, strict=True)
  ]
  in_towers = set()

  def add_gradients(index, *totals):
    with tf.GradientTape() as tape:
      recomputed = encode(index)
      targets = [recomputed[name] for name in d_pooled]
    upstream = [d[index] for d in d_pooled.values()]
    gradients = tape.gradient(targets, variables, output_gradients=upstream)
    totals = list(totals)
    for i, gradient in enumerate(gradients):
      if gradient is not None:
        in_towers.add(i)
        totals[i] = _add(totals[i], gradient)
    return index + 1, *totals

  totals = tf.while_loop(
    lambda index, *_: index < num,
    add_gradients,
    (tf.constant(0), *totals),
    parallel_iterations=1,
  )[1:]
  used = in_heads | in_towers
  return [
    total if i in used else None for i, total in enumerate(totals)
  ], metrics


def _encode_all(encode, model, num):
  """The pooled features of all micro-batches, (B, ...) each."""
  pooled = tf.map_fn(
    encode,
    tf.range(num),
    parallel_iterations=1,
    fn_output_signature=model.encoded_dtypes,
  )  # (micro-batches, rows, ...)
  return {
    name: tf.reshape(x, [-1, *tensor_utils.shape_list(x)[2:]])
    for name, x in pooled.items()
  }


def dense(gradient: tf.Tensor | tf.IndexedSlices | None) -> tf.Tensor | None:
  """Returns a dense gradient: slices of an embedding table are summed.

  One dense Adam update of a 65,536-row table is faster than a sparse one, which
  touches every moment anyway; and norms of slices would count repeated rows
  wrongly.

  Args:
    gradient: A tensor or `tf.IndexedSlices`.

  Returns:
    A tensor.
  """
  if isinstance(gradient, tf.IndexedSlices):
    return tf.math.unsorted_segment_sum(
      gradient.values, gradient.indices, gradient.dense_shape[0]
    )
  return gradient


def _add(total, gradient):
  """Adds a gradient to a dense tensor."""
  if isinstance(gradient, tf.IndexedSlices):
    return tf.tensor_scatter_nd_add(
      total, gradient.indices[:, tf.newaxis], gradient.values
    )
  # Without `Snapshot`, TensorFlow merges this addition with the previous ones
  # and sums in a temporary variable, which the loop's last test creates and
  # never frees, so that the next step fails. `Snapshot` keeps the additions
  # apart, at no cost.
  return total + tf.raw_ops.Snapshot(input=gradient)
