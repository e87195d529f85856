"""Gradients that compute again what differentiation would keep.

Differentiated op by op, an encoder layer keeps every tensor between its input
and its output; the attention probabilities and the activations of the
feed-forward are the largest tensors of the model. The functions here keep their
inputs, and at most a few numbers per row, and compute the rest again in the
backward pass. Their values and gradients are those of the plain mathematics in
the layers that call them, random numbers included: the same key draws the same
numbers.
"""

from collections.abc import Callable

import tensorflow as tf

from vatt_tf.core import randomness, tensor_utils


def fixed_key(rng: randomness.Rng | None) -> randomness.Rng:
  """Returns `rng`, or where it is None a fresh key that can be drawn twice."""
  if rng is not None:
    return rng
  seed = tf.random.uniform([], maxval=2**31 - 1, dtype=tf.int32)
  return randomness.make(seed, 0)


def recomputed(
  function: Callable[..., tf.Tensor], rng: randomness.Rng | None
) -> Callable[..., tf.Tensor]:
  """Wraps a function so that the backward pass computes all of it again.

  This is `tf.recompute_grad` with random numbers that are drawn again too.

  Args:
    function: Maps a key (`Rng` or None) and tensors to a tensor.
    rng: The key.

  Returns:
    A function of the tensors.
  """

  @tf.custom_gradient
  def wrapped(*inputs):
    def grad(upstream, variables=()):
      zero = tensor_utils.zero_after(upstream)
      with tf.GradientTape() as tape:
        again = [x + tf.cast(zero, x.dtype) for x in inputs]
        tape.watch(again)
        y = function(randomness.after(upstream, rng), *again)
      gradients = tape.gradient(y, [*again, *variables], upstream)
      return gradients[: len(inputs)], gradients[len(inputs) :]

    return function(rng, *inputs), grad

  return wrapped


def elementwise(
  value_and_slope: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
) -> Callable[[tf.Tensor], tf.Tensor]:
  """Makes a function whose backward pass keeps its input alone.

  Args:
    value_and_slope: Maps a tensor to the values of an elementwise function and
      to its derivative there.

  Returns:
    A function from a floating point tensor to one of the same shape and dtype,
    which computes in float32 where the tensor has half precision.
  """

  @tf.custom_gradient
  def function(x):
    wide = tensor_utils.accumulation_dtype(x.dtype)

    def grad(upstream):
      # So that this is computed again, not taken (and kept) from below.
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
  """Layer normalisation that keeps its input and two numbers per row.

  Args:
    forward: Maps `x` in float32, `gamma` and `beta` to the output, the mean
      (..., 1) and the inverse standard deviation (..., 1).
    x: (..., D) floating point.
    gamma: (D,) float32.
    beta: (D,) float32.

  Returns:
    A tensor like `x`.
  """

  @tf.custom_gradient
  def function(x, gamma, beta):
    value, mean, scale = forward(tf.cast(x, gamma.dtype), gamma, beta)

    def grad(upstream):
      # So that this is computed again, not taken (and kept) from above.
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
  """`dropout(probabilities(q, k, bias)) v`, keeping q, k, v and the result.

  Args:
    probabilities: Maps `q`, `k` and `bias` to softmax(q k^T + bias), of shape
      (B, heads, M, N), in float32.
    q: (B, heads, M, d_kv) floating point.
    k: (B, heads, N, d_kv) like `q`.
    v: (B, heads, N, d_kv) like `q`.
    bias: (1, heads, M, N), or None.
    dropout_rate: In [0, 1), of the probabilities.
    rng: None draws a fresh key.

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
      again = randomness.after(d_context, rng) if dropout_rate else None
      dropped = drop(tf.cast(p, q.dtype), again)
      d_v = tf.matmul(dropped, d_context, transpose_a=True)
      d_p = drop(tf.matmul(d_context, v, transpose_b=True), again)
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
  """`dropout(activation(hidden)) kernel`, keeping `hidden` alone.

  Args:
    value_and_slope: Maps a tensor to the activations and to their derivative.
    hidden: (B, N, d_ff) floating point, by far the widest tensor of a layer.
    kernel: (d_ff, D) like `hidden`.
    dropout_rate: In [0, 1), of the activations.
    rng: None draws a fresh key.

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
      again = randomness.after(upstream, rng) if dropout_rate else None
      rows = tf.reshape(upstream, [-1, upstream.shape[-1]])  # (B * N, D)
      inputs = tf.reshape(drop(value, again), [-1, width])
      d_kernel = tf.matmul(inputs, rows, transpose_a=True)
      d_value = tf.matmul(rows, kernel, transpose_b=True)  # (B * N, d_ff)
      d_value = tf.reshape(d_value, tensor_utils.shape_list(hidden))
      d_hidden = tf.cast(drop(d_value, again), wide) * slope
      return tf.cast(d_hidden, hidden.dtype), d_kernel

    value, _ = value_and_slope(tf.cast(hidden, wide))
    return tf.tensordot(drop(value, rng), kernel, 1), grad

  return function(hidden, kernel)
