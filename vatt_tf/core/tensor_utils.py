"""Static shapes where possible, and other helpers for graphs."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Decorator of functions that autograph need not convert, which takes seconds.
as_graph = tf.autograph.experimental.do_not_convert


def shape_list(x: tf.Tensor) -> list[int | tf.Tensor]:
  """Returns the shape of `x`, with integers where sizes are static.

  Args:
    x: Tensor of known rank, of any dtype.

  Returns:
    A list with an entry for each axis: a Python int if the size is static,
    otherwise a scalar int32 tensor.

  Raises:
    ValueError: The rank of `x` is unknown.
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
  """Returns the dtype for sums, norms and softmaxes over values of `dtype`.

  Args:
    dtype: A floating-point dtype, or its name.

  Returns:
    `tf.float32` for bfloat16 and float16, otherwise `dtype`.
  """
  dtype = tf.as_dtype(dtype)
  return tf.float32 if dtype in (tf.bfloat16, tf.float16) else dtype


def zero_after(x: tf.Tensor) -> tf.Tensor:
  """Returns a zero that can be computed only after a tensor.

  Adding it delays a computation that would otherwise run, and take memory, as
  soon as the step begins. It also hides from a compiler that the backward pass
  computes the same as the forward pass, whose result it would keep.

  Args:
    x: Floating-point tensor, not empty.

  Returns:
    () float32: 0, or NaN if the first value of `x` is NaN.
  """
  element = tf.cast(tf.reshape(x, [-1])[0], tf.float32)
  # This is not simplified to 0, because the comparison is false for NaN.
  return tf.where(element == element, 0.0, float('nan'))


def guarded(
  function: Callable[..., object],
  arguments: tuple[tf.Tensor, ...],
  fallback: Callable[..., object],
) -> Any:
  """Runs TensorFlow ops, and returns a fallback if one of them fails.

  Everything stays in the graph: the ops run as a data set of one element, whose
  errors are ignored.

  Args:
    function: Function from the arguments to a structure of tensors.
    arguments: Tensors.
    fallback: Function that returns the same structure. It always runs.

  Returns:
    The result of `function`, or of `fallback` if it failed.
  """
  result = tf.data.Dataset.from_tensors(arguments).map(function)
  # The fallback is not a mapped function, because that takes time to start.
  replacement = tf.data.Dataset.from_tensors(fallback())
  result = result.ignore_errors(log_warning=False).concatenate(replacement)
  return result.take(1).get_single_element()
