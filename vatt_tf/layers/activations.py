"""Activation functions by name, with their values and slopes."""

from collections.abc import Callable
import math

import tensorflow as tf

from vatt_tf.layers import recompute

_SQRT_HALF = math.sqrt(0.5)
_SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715  # cubic term of the tanh form (Hendrycks and Gimpel, 2016)


def _gelu(z):
  """Exact GeLU and its slope."""
  cdf = tf.math.erf(z * _SQRT_HALF) * 0.5 + 0.5
  density = tf.exp(tf.square(z) * -0.5) * (1 / math.sqrt(2 * math.pi))
  return z * cdf, z * density + cdf


def _gelu_tanh(z):
  """GeLU in its tanh approximation and its slope."""
  square = tf.square(z)
  t = tf.tanh(z * (square * _CUBIC + 1) * _SQRT_TWO_OVER_PI)
  half = t * 0.5 + 0.5
  inner = (square * (3 * _CUBIC) + 1) * _SQRT_TWO_OVER_PI
  return z * half, half + z * (1 - tf.square(t)) * inner * 0.5


def _relu(z):
  """ReLU and its slope."""
  return tf.nn.relu(z), tf.cast(z > 0, z.dtype)


_VALUES_AND_SLOPES = {'gelu': _gelu, 'gelu_tanh': _gelu_tanh, 'relu': _relu}


def value_and_slope(
  name: str,
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
  """Looks up an activation function together with its derivative.

  Args:
    name: `gelu` (exact), `gelu_tanh` or `relu`.

  Returns:
    A function from a tensor to two tensors like it, value and slope. A graph
    that uses only one of them does not compute the other.

  Raises:
    ValueError: There is no function of that name.
  """
  if name not in _VALUES_AND_SLOPES:
    raise ValueError(
      f'`activation` must be one of {sorted(_VALUES_AND_SLOPES)}. '
      f'Received: activation={name!r}'
    )
  return _VALUES_AND_SLOPES[name]


def get(name: str) -> Callable[[tf.Tensor], tf.Tensor]:
  """Looks up an activation function.

  Args:
    name: `gelu` (exact), `gelu_tanh` or `relu`.

  Returns:
    A function from a floating-point tensor to one of the same shape and dtype.
    It computes in float32 if the tensor has half precision, and keeps only its
    input for the backward pass.

  Raises:
    ValueError: There is no function of that name.
  """
  return recompute.elementwise(value_and_slope(name))


gelu = get('gelu')
