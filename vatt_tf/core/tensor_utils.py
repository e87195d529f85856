"""Shapes that are static where they can be, and other helpers of graphs."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# For functions that are graphs as they stand; converting them takes seconds.
as_graph = tf.autograph.experimental.do_not_convert


def shape_list(x: tf.Tensor) -> list[int | tf.Tensor]:
  """The shape of `x`, as integers where they are known.

  Args:
    x: A tensor of known rank, any dtype.

  Returns:
    A list with one entry a dimension: a Python int where the size is static,
    otherwise a scalar int32 tensor.

  Raises:
    ValueError: The rank of `x` is not known.
  """
  x = tf.convert_to_tensor(x)
  if x.shape.rank is None:
    raise ValueError(
      '`x` must have a known rank, so that its shape can be listed. '
      f'Received: x={x}'
    )
  static = x.shape.as_list()
  if None not in static:
    return static
  dynamic = tf.shape(x)
  return [
    dynamic[axis] if size is None else size for axis, size in enumerate(static)
  ]


def accumulation_dtype(dtype: tf.DType | str) -> tf.DType:
  """The dtype for sums, norms and softmaxes over values of `dtype`.

  Args:
    dtype: A floating-point dtype, or its name.

  Returns:
    `tf.float32` for bfloat16 and float16; any other dtype as it is.
  """
  dtype = tf.as_dtype(dtype)
  return tf.float32 if dtype in (tf.bfloat16, tf.float16) else dtype


def zero_after(x: tf.Tensor) -> tf.Tensor:
  """Makes a zero that is only there once a tensor is.

  Adding it delays what would otherwise be computed, and take memory, as soon
  as the step begins; and keeps a compiler from seeing that the backward pass
  computes the same as the forward pass did, and keeping the latter's result.

  Args:
    x: Floating-point tensor, not empty.

  Returns:
    Scalar float32, 0; NaN where the first value of `x` is.
  """
  element = tf.cast(tf.reshape(x, [-1])[0], tf.float32)
  # Not simplified away, since it does not hold for NaN.
  return tf.where(element == element, 0.0, float('nan'))


def guarded(
  function: Callable[..., object],
  arguments: tuple[tf.Tensor, ...],
  fallback: Callable[..., object],
) -> Any:
  """Runs TensorFlow ops, and others instead when one of them fails.

  All of it stays in the graph: the ops run as a data set of one element, whose
  errors are dropped.

  Args:
    function: From the arguments to a structure of tensors.
    arguments: Tensors.
    fallback: Gives the same structure; it is run in any case.

  Returns:
    The result of `function`, or of `fallback` if it failed.
  """
  result = tf.data.Dataset.from_tensors(arguments).map(function)
  # Not by a second function, which takes time to start.
  other = tf.data.Dataset.from_tensors(fallback())
  result = result.ignore_errors(log_warning=False).concatenate(other)
  return result.take(1).get_single_element()
