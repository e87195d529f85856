"""Batch normalisation with the statistics of the global batch."""

from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import collectives, tensor_utils


class CrossReplicaBatchNormalization(tf_keras.layers.Layer):
  """Batch normalisation over the rows of all replicas (paper, section 3.3).

  N replicas of B / N rows compute the same as one replica of B rows, gradients
  included, even with different numbers of valid rows. The variance is computed
  from centred values, `mean((x - mean)^2)`, which is precise even if the mean
  is much larger than the deviation. The moving statistics also use the
  population variance.

  Statistics and outputs are computed in float32 under a half-precision policy.
  A frozen layer (`trainable = False`) normalises with its moving statistics and
  does not update them, also in training.

  Args:
    momentum: Share of the moving statistics that a step keeps, in [0, 1].
    epsilon: Number added to the variance, positive.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (..., D) float, at least rank 2; D is static.
    training: Whether to normalise with the batch's statistics and to update the
      moving ones, instead of normalising with the moving statistics.
    mask: Bool mask of leading axes of `x` (at most all but the last): the rows
      that count in the statistics. None means all. Rows that do not count are
      also normalised. If no row of the global batch counts, the moving
      statistics are used and not updated.

  Returns:
    (..., D), in the layer's compute dtype.

  Raises:
    ValueError: An argument is out of its range, or a shape does not fit.

  Example:
    >>> layer = CrossReplicaBatchNormalization()
    >>> layer(tf.constant([[1.0], [3.0], [9.0]]), training=True,
    ...       mask=tf.constant([True, True, False])).numpy().round(3)
    array([[-1.],
           [ 1.],
           [ 7.]], dtype=float32)
  """

  def __init__(
    self, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any
  ):
    super().__init__(**kwargs)
    if not 0 <= momentum <= 1:
      raise ValueError(
        f'`momentum` must be in [0, 1]. Received: momentum={momentum}'
      )
    if not epsilon > 0:
      raise ValueError(
        f'`epsilon` must be positive. Received: epsilon={epsilon}'
      )
    self.momentum = momentum
    self.epsilon = epsilon
    self.supports_masking = True

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `gamma`, `beta`, `moving_mean`, `moving_variance`, each (D,)."""
    input_shape = tf.TensorShape(input_shape)
    if input_shape.rank is None or input_shape.rank < 2:
      raise ValueError(
        '`x` must be of rank 2 or more, (..., D). '
        f'Received: x.shape={input_shape}'
      )
    if input_shape[-1] is None:
      raise ValueError(
        'The last axis of `x` must have a static size. '
        f'Received: x.shape={input_shape}'
      )
    arguments = {
      'shape': [input_shape[-1]],
      'dtype': tensor_utils.accumulation_dtype(self.variable_dtype),
      'experimental_autocast': False,
    }
    self.gamma = self.add_weight(name='gamma', initializer='ones', **arguments)
    self.beta = self.add_weight(name='beta', initializer='zeros', **arguments)
    # Each replica updates its own copy with the same all-reduced statistics:
    # the copies stay equal without communication, and reading uses the first.
    arguments.update(
      trainable=False,
      synchronization=tf.VariableSynchronization.ON_READ,
      aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
    self.moving_mean = self.add_weight(
      name='moving_mean', initializer='zeros', **arguments
    )
    self.moving_variance = self.add_weight(
      name='moving_variance', initializer='ones', **arguments
    )
    super().build(input_shape)

  def call(
    self, x: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Normalises `x`; see the class."""
    dtype = self.gamma.dtype
    x = tf.cast(x, dtype)
    moving_mean = tf.convert_to_tensor(self.moving_mean)
    moving_variance = tf.convert_to_tensor(self.moving_variance)
    if training and self.trainable:
      centre, offset, variance, count = self._global_statistics(x, mask)
      has_rows = count > 0
      centre = tf.where(has_rows, centre, moving_mean)
      variance = tf.where(has_rows, variance, moving_variance)
      self._move(self.moving_mean, moving_mean, centre + offset)
      self._move(self.moving_variance, moving_variance, variance)
      x = (x - centre) - offset  # their sum would lose the offset's digits
    else:
      variance = moving_variance
      x = x - moving_mean
    scale = self.gamma * tf.math.rsqrt(variance + self.epsilon)  # (D,)
    return tf.cast(x * scale + self.beta, self.compute_dtype)

  def _global_statistics(self, x, mask):
    """The mean (D,) in two parts, the variance (D,) and the number of rows."""
    valid = _valid_rows(x, mask)  # (rows, 1)
    x = tf.reshape(x, [-1, x.shape[-1]])  # (rows, D)
    zero = tf.zeros([], x.dtype)
    total, count = collectives.all_reduce_sum(
      (
        tf.reduce_sum(tf.where(valid, x, zero), 0),
        tf.reduce_sum(tf.cast(valid, x.dtype)),
      )
    )
    divisor = tf.maximum(count, 1)
    # `centre` is the mean up to rounding. The two sums below give the exact
    # statistics around any constant, so it needs no gradient.
    centre = tf.stop_gradient(total / divisor)
    x = tf.where(valid, x - centre, zero)
    first, second = collectives.all_reduce_sum(
      (tf.reduce_sum(x, 0), tf.reduce_sum(tf.square(x), 0))
    )
    offset = first / divisor
    variance = tf.maximum(second / divisor - tf.square(offset), 0)
    return centre, offset, variance, count

  def _move(self, variable, old, new):
    """Updates a moving statistic from `old` towards `new`."""
    new = tf.stop_gradient(new)
    variable.assign(old + (new - old) * (1 - self.momentum))

  def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
    """Returns the shape of `x`."""
    return tf.TensorShape(input_shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'momentum': self.momentum,
      'epsilon': self.epsilon,
    }


def _valid_rows(x, mask):
  """The mask of the rows of `x` (..., D) that count: (rows, 1) bool."""
  leading = tensor_utils.shape_list(x)[:-1]
  if mask is None:
    return tf.reshape(tf.ones(leading, tf.bool), [-1, 1])
  mask = tf.cast(mask, tf.bool)
  rank = mask.shape.rank
  if (
    rank is None
    or not 1 <= rank < x.shape.rank
    or not mask.shape.is_compatible_with(x.shape[:rank])
  ):
    raise ValueError(
      '`mask` must be shaped like leading axes of `x`, without the last. '
      f'Received: mask.shape={mask.shape}, x.shape={x.shape}'
    )
  ones = [1] * (x.shape.rank - 1 - rank)
  mask = tf.reshape(mask, tensor_utils.shape_list(mask) + ones)
  return tf.reshape(tf.broadcast_to(mask, leading), [-1, 1])
