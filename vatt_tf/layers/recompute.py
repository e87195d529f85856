"""Gradients that recompute the tensors that differentiation would keep.

Differentiated op by op, an encoder layer keeps every tensor between its input
and its output; the attention probabilities and the activations of the
feed-forward are the largest tensors of the model. The functions here keep their
inputs, and at most a few numbers per row, and compute the rest again in the
backward pass. Values and gradients equal those of the plain formulas in the
layers that call them, random numbers included, because the same key draws the
same numbers.
"""

from collections.abc import Callable

import tensorflow as tf

from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import cross_replica_batch_norm


def fixed_key(rng: randomness.Rng | None) -> randomness.Rng:
  """Returns `rng`, or if it is None, a fresh key that can be used twice."""
  if rng is not None:
    return rng
  seed = tf.random.uniform([], maxval=2**31 - 1, dtype=tf.int32)
  return randomness.make(seed, 0)


def recomputed(
  function: Callable[..., tf.Tensor], rng: randomness.Rng | None
) -> Callable[..., tf.Tensor]:
  """Wraps a function so that the backward pass computes it again.

  This is `tf.recompute_grad` that also repeats random numbers, and counts the
  batch once in the moving statistics of batch norms.

  Args:
    function: Function from a key (`Rng` or None) and tensors to a tensor.
    rng: Key of the random numbers.

  Returns:
    A function of the tensors.
  """

  @tf.custom_gradient
  def wrapped(*inputs):
    def grad(upstream, variables=()):
      zero = tensor_utils.zero_after(upstream)
      with tf.GradientTape() as tape:
        delayed = [x + tf.cast(zero, x.dtype) for x in inputs]
        tape.watch(delayed)
        with cross_replica_batch_norm.fixed_moving_statistics():
          y = function(randomness.after(upstream, rng), *delayed)
      gradients = tape.gradient(y, [*delayed, *variables], upstream)
      return gradients[: len(inputs)], gradients[len(inputs) :]

    return function(rng, *inputs), grad

  return wrapped


def elementwise(
  value_and_slope: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
) -> Callable[[tf.Tensor], tf.Tensor]:
  """Makes a function whose backward pass keeps only its input.

  Args:
    value_and_slope: Function from a tensor to the values and the derivatives of
      an elementwise function.

  Returns:
    A function from a floating-point tensor to one of the same shape and dtype,
    which computes in float32 where the tensor has half precision.
  """

  @tf.custom_gradient
  def function(x):
    wide = tensor_utils.accumulation_dtype(x.dtype)

    def grad(upstream):
      # The dependency prevents TensorFlow from reusing (and keeping) the
      # values of the forward pass below.
      with tf.control_dependencies([upstream]):
        _, slope = value_and_slope(tf.cast(x, wide))
      return tf.cast(tf.cast(upstream, wide) * slope, x.dtype)

    value, _ = value_and_slope(tf.cast(x, wide))
    return tf.cast(value, x.dtype), grad

  return function


def normalized(
  forward: Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
  x: tf.Tensor,
  gamma: tf.Tensor,
  beta: tf.Tensor,
) -> tf.Tensor:
  """Computes layer normalisation, and keeps its input and two numbers per row.

  Args:
    forward: Function from `x` in float32, `gamma` and `beta` to the output, the
      mean (..., 1) and the inverse standard deviation (..., 1).
    x: (..., D) floating-point.
    gamma: (D,) float32.
    beta: (D,) float32.

  Returns:
    A tensor like `x`.
  """

  @tf.custom_gradient
  def function(x, gamma, beta):
    value, mean, scale = forward(tf.cast(x, gamma.dtype), gamma, beta)

    def grad(upstream):
      # The dependency prevents TensorFlow from reusing (and keeping) the
      # values of the forward pass above.
      with tf.control_dependencies([upstream]):
        unit = (tf.cast(x, gamma.dtype) - mean) * scale
      upstream = tf.cast(upstream, gamma.dtype)
      rows = list(range(x.shape.rank - 1))
      d_gamma = tf.reduce_sum(upstream * unit, rows)  # (D,)
      d_beta = tf.reduce_sum(upstream, rows)  # (D,)
      upstream *= gamma
      along = tf.reduce_mean(upstream * unit, -1, keepdims=True)
      offset = tf.reduce_mean(upstream, -1, keepdims=True)
      d_x = (upstream - offset - unit * along) * scale
      return tf.cast(d_x, x.dtype), d_gamma, d_beta

    return tf.cast(value, x.dtype), grad

  return function(x, gamma, beta)


def attended(
  probabilities: Callable[..., tf.Tensor],
  q: tf.Tensor,
  k: tf.Tensor,
  v: tf.Tensor,
  bias: tf.Tensor | None,
  dropout_rate: float,
  rng: randomness.Rng | None,
) -> tf.Tensor:
  """Computes `dropout(probabilities(q, k, bias)) v`, and keeps no probability.

  The backward pass keeps q, k, v and the result.

  Args:
    probabilities: Function from `q`, `k` and `bias` to softmax(q k^T + bias),
      (B, heads, M, N) float32.
    q: (B, heads, M, d_kv) floating-point.
    k: (B, heads, N, d_kv) like `q`.
    v: (B, heads, N, d_kv) like `q`.
    bias: (1, heads, M, N), or None.
    dropout_rate: Dropout rate of the probabilities, in [0, 1).
    rng: `randomness.Rng`, or None to draw a fresh key.

  Returns:
    (B, heads, M, d_kv) in the dtype of `q`.
  """
  wide = tensor_utils.accumulation_dtype(q.dtype)
  if dropout_rate:
    rng = fixed_key(rng)

  def drop(x, rng):
    return randomness.dropout(x, dropout_rate, rng) if dropout_rate else x

  @tf.custom_gradient
  def function(q, k, v, *bias):
    p = tf.cast(probabilities(q, k, *bias), q.dtype)
    context = tf.matmul(drop(p, rng), v)  # (B, heads, M, d_kv)

    def grad(d_context):
      zero = tensor_utils.zero_after(d_context)
      p = probabilities(q + tf.cast(zero, q.dtype), k, *bias)
      delayed_rng = randomness.after(d_context, rng) if dropout_rate else None
      dropped = drop(tf.cast(p, q.dtype), delayed_rng)
      d_v = tf.matmul(dropped, d_context, transpose_a=True)
      d_p = drop(tf.matmul(d_context, v, transpose_b=True), delayed_rng)
      # The sum of p * d_p over the keys, without a tensor of their size.
      along = tf.reduce_sum(
        tf.cast(context, wide) * tf.cast(d_context, wide), -1, keepdims=True
      )
      d_logits = p * (tf.cast(d_p, wide) - along)  # (B, heads, M, N)
      d_bias = [
        tf.cast(tf.reduce_sum(d_logits, 0, keepdims=True), term.dtype)
        for term in bias
      ]
      d_logits = tf.cast(d_logits, q.dtype)
      d_q = tf.matmul(d_logits, k)
      d_k = tf.matmul(d_logits, q, transpose_a=True)
      return d_q, d_k, d_v, *d_bias

    return context, grad

  return function(q, k, v, *([] if bias is None else [bias]))


def activated_projection(
  value_and_slope: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
  hidden: tf.Tensor,
  kernel: tf.Tensor,
  dropout_rate: float,
  rng: randomness.Rng | None,
) -> tf.Tensor:
  """Computes `dropout(activation(hidden)) kernel`, and keeps only `hidden`.

  Args:
    value_and_slope: Function from a tensor to the activations and their
      derivatives.
    hidden: (B, N, d_ff) floating-point, by far the widest tensor of a layer.
    kernel: (d_ff, D) like `hidden`.
    dropout_rate: Dropout rate of the activations, in [0, 1).
    rng: `randomness.Rng`, or None to draw a fresh key.

  Returns:
    (B, N, D) in the dtype of `hidden`.
  """
  wide = tensor_utils.accumulation_dtype(hidden.dtype)
  width = hidden.shape[-1]
  if dropout_rate:
    rng = fixed_key(rng)

  def drop(value, rng):
    value = tf.cast(value, hidden.dtype)
    return (
      randomness.dropout(value, dropout_rate, rng) if dropout_rate else value
    )

  @tf.custom_gradient
  def function(hidden, kernel):
    def grad(upstream):
      with tf.control_dependencies([upstream]):
        value, slope = value_and_slope(tf.cast(hidden, wide))
      delayed_rng = randomness.after(upstream, rng) if dropout_rate else None
      rows = tf.reshape(upstream, [-1, upstream.shape[-1]])  # (B * N, D)
      inputs = tf.reshape(drop(value, delayed_rng), [-1, width])
      d_kernel = tf.matmul(inputs, rows, transpose_a=True)
      d_value = tf.matmul(rows, kernel, transpose_b=True)  # (B * N, d_ff)
      d_value = tf.reshape(d_value, tensor_utils.shape_list(hidden))
      d_hidden = tf.cast(drop(d_value, delayed_rng), wide) * slope
      return tf.cast(d_hidden, hidden.dtype), d_kernel

    value, _ = value_and_slope(tf.cast(hidden, wide))
    return tf.tensordot(drop(value, rng), kernel, 1), grad

  return function(hidden, kernel)
