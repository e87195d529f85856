"""Activation functions by name, with cheap backward passes.

The GeLUs keep only their input for the backward pass. Differentiated op by op
they would keep four tensors as wide as the feed-forward layer.
"""

import math

import tensorflow as tf

from vatt_tf import tensor_utils

_SQRT_HALF = math.sqrt(0.5)
_SQRT_TWO_OVER_PI = math.sqrt(2 / math.pi)
_CUBIC = 0.044715  # of the tanh approximation (Hendrycks and Gimpel, 2016)


@tf.custom_gradient
def gelu(x):
  """Exact GeLU, `x * Phi(x)` with the normal distribution function `Phi`.

  Args:
    x: floating point tensor of any shape.

  Returns:
    A tensor like `x`. Computed in float32 where `x` has half precision.
  """
  wide = tensor_utils.accumulation_dtype(x.dtype)
  value = tf.cast(x, wide)
  value *= tf.math.erf(value * _SQRT_HALF) * 0.5 + 0.5

  def grad(upstream):
    # So that these are computed again, not taken (and kept) from above.
    with tf.control_dependencies([upstream]):
      z = tf.cast(x, wide)
      slope = tf.exp(tf.square(z) * -0.5) * (1 / math.sqrt(2 * math.pi))
      slope = z * slope + (tf.math.erf(z * _SQRT_HALF) * 0.5 + 0.5)
    return tf.cast(tf.cast(upstream, wide) * slope, x.dtype)

  return tf.cast(value, x.dtype), grad


@tf.custom_gradient
def gelu_tanh(x):
  """GeLU in its tanh approximation, as T5 v1.1 uses it.

  Args:
    x: floating point tensor of any shape.

  Returns:
    A tensor like `x`. Computed in float32 where `x` has half precision.
  """
  wide = tensor_utils.accumulation_dtype(x.dtype)

  def tanh_of(z):
    return tf.tanh((z + _CUBIC * z * tf.square(z)) * _SQRT_TWO_OVER_PI)

  value = tf.cast(x, wide)
  value *= tanh_of(value) * 0.5 + 0.5

  def grad(upstream):
    with tf.control_dependencies([upstream]):
      z = tf.cast(x, wide)
      t = tanh_of(z)
      inner = (3 * _CUBIC * tf.square(z) + 1) * _SQRT_TWO_OVER_PI
      slope = (t + 1) * 0.5 + z * (1 - tf.square(t)) * inner * 0.5
    return tf.cast(tf.cast(upstream, wide) * slope, x.dtype)

  return tf.cast(value, x.dtype), grad


_ACTIVATIONS = {'gelu': gelu, 'gelu_tanh': gelu_tanh, 'relu': tf.nn.relu}


def get(name):
  """Looks an activation function up.

  Args:
    name: `gelu` (exact), `gelu_tanh` or `relu`.

  Returns:
    A function from a tensor to a tensor of the same shape and dtype.

  Raises:
    ValueError: when there is no function of that name.
  """
  if name not in _ACTIVATIONS:
    raise ValueError(
      f'`activation` must be one of {sorted(_ACTIVATIONS)}. '
      f'Received: activation={name!r}'
    )
  return _ACTIVATIONS[name]
