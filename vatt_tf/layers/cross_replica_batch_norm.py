"""Batch normalisation with the statistics of the global batch."""

from collections.abc import Iterator
import contextlib
import threading
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import collectives, tensor_utils

_state = threading.local()  # replicas run in threads of their own


@contextlib.contextmanager
def fixed_moving_statistics() -> Iterator[None]:
  """Keeps the moving statistics as they are, while layers are called again.

  A backward pass that computes a forward pass again must not count its batch
  twice.
  """
  before = getattr(_state, 'is_fixed', False)
  _state.is_fixed = True
  try:
    yield
  finally:
    _state.is_fixed = before


class CrossReplicaBatchNormalization(tf_keras.layers.Layer):
  """Batch normalisation over the rows of all replicas (paper, section 3.3).

  N replicas of B / N rows compute the same as one replica of B rows, gradients
  included, even with different numbers of valid rows. The variance is computed
  from centred values, `mean((x - mean)^2)`, which is precise even if the mean
  is much larger than the deviation. The moving statistics also use the
  population variance.

  With `use_zero_debias` the moving statistics are those of Haiku and MMV: after
  n updates the share of an update is `(1 - momentum) / (1 - momentum^n)`, so
  that they are the exponentially weighted mean of the n batches, and the
  initial values have no weight (Adam's bias correction).

  Statistics and outputs are computed in float32 under a half-precision policy.
  A frozen layer (`trainable = False`) normalises with its moving statistics and
  does not update them, also in training.

  Args:
    momentum: Share of the moving statistics that a step keeps, in [0, 1].
    epsilon: Number added to the variance, positive.
    use_zero_debias: Whether initial values have no weight in the moving
      statistics.
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
    self,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    use_zero_debias: bool = False,
    **kwargs: Any,
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
    self.use_zero_debias = use_zero_debias
    self.supports_masking = True

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `gamma`, `beta`, `moving_mean`, `moving_variance`, each (D,).

    With `use_zero_debias` there is also `num_updates`, a scalar.

    Args:
      input_shape: Shape of `x`.
    """
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
    if self.use_zero_debias:
      self.num_updates = self.add_weight(
        name='num_updates', initializer='zeros', **{**arguments, 'shape': []}
      )
    super().build(input_shape)

  def call(
    self, x: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Normalises `x`; see the class."""
    moving_mean = tf.convert_to_tensor(self.moving_mean)
    moving_variance = tf.convert_to_tensor(self.moving_variance)
    if not (training and self.trainable):
      scale = self.gamma * tf.math.rsqrt(moving_variance + self.epsilon)
      x = tf.cast(x, scale.dtype) - moving_mean
      return tf.cast(x * scale + self.beta, self.compute_dtype)
    valid = _valid_rows(x, mask)
    statistics = self._global_statistics(tf.stop_gradient(x), valid)
    centre, offset, variance, count = statistics
    has_rows = count > 0
    centre = tf.where(has_rows, centre, moving_mean)
    variance = tf.where(has_rows, variance, moving_variance)
    if not getattr(_state, 'is_fixed', False):
      share = self._count_update(has_rows)
      self._move(self.moving_mean, moving_mean, centre + offset, share)
      self._move(self.moving_variance, moving_variance, variance, share)
    return self._normalize(x, valid, (centre, offset, variance, count))

  def _global_statistics(self, x, valid):
    """The mean (D,) in two parts, the variance (D,) and the number of rows."""
    dtype = self.gamma.dtype
    axes = list(range(x.shape.rank - 1))

    def mask(values):
      if valid is None:
        return values
      return tf.where(valid, values, tf.zeros([], dtype))

    x = tf.cast(x, dtype)
    if valid is None:
      num_rows = tf.size(x, tf.int64) // x.shape[-1]
    else:
      num_rows = tf.math.count_nonzero(valid)
    total, count = collectives.all_reduce_sum(
      (tf.reduce_sum(mask(x), axes), tf.cast(num_rows, dtype))
    )
    divisor = tf.maximum(count, 1)
    # `centre` is the mean up to rounding. The two sums below give the exact
    # statistics around any constant.
    centre = total / divisor
    x = mask(x - centre)
    first, second = collectives.all_reduce_sum(
      (tf.reduce_sum(x, axes), tf.reduce_sum(tf.square(x), axes))
    )
    offset = first / divisor
    variance = tf.maximum(second / divisor - tf.square(offset), 0)
    return centre, offset, variance, count

  def _normalize(self, x, valid, statistics):
    """Normalises `x`, such that the backward pass keeps nothing else.

    With N valid rows, x' the normalised rows and d the gradients of the output,
    the gradient of a valid row is gamma / deviation * (d - mean(d) - x' *
    mean(d x')), where the means are sums over all rows, divided by N. The
    statistics do not depend on other rows, whose gradient is the first term.
    """
    centre, offset, variance, count = statistics
    dtype = self.gamma.dtype
    axes = list(range(x.shape.rank - 1))
    inverse = tf.math.rsqrt(variance + self.epsilon)  # (D,)

    def standard(x):
      # Their sum, the mean, would lose the offset's digits.
      return ((tf.cast(x, dtype) - centre) - offset) * inverse

    @tf.custom_gradient
    def normalize(x, gamma, beta):
      def grad(upstream):
        d = tf.cast(upstream, dtype)
        rows = standard(x)
        d_beta, d_gamma = tf.reduce_sum(d, axes), tf.reduce_sum(d * rows, axes)
        first, second = collectives.all_reduce_sum((d_beta, d_gamma))
        common = tf.math.divide_no_nan(first + rows * second, count)
        if valid is not None:
          common = tf.where(valid, common, tf.zeros([], dtype))
        d_x = (gamma * inverse) * (d - common)
        return tf.cast(d_x, x.dtype), d_gamma, d_beta

      return tf.cast(standard(x) * gamma + beta, self.compute_dtype), grad

    return normalize(x, tf.identity(self.gamma), tf.identity(self.beta))

  def _count_update(self, has_rows):
    """The share of this batch in the moving statistics, in [0, 1]."""
    if not self.use_zero_debias:
      return 1 - self.momentum
    num_updates = tf.convert_to_tensor(self.num_updates)
    num_updates += tf.cast(has_rows, num_updates.dtype)
    self.num_updates.assign(num_updates)
    weight = 1 - tf.pow(
      tf.cast(self.momentum, num_updates.dtype), tf.maximum(num_updates, 1)
    )
    return tf.math.divide_no_nan(1 - self.momentum, weight)

  def _move(self, variable, old, new, share):
    """Updates a moving statistic from `old` towards `new`."""
    new = tf.stop_gradient(new)
    variable.assign(old + (new - old) * share)

  def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
    """Returns the shape of `x`."""
    return tf.TensorShape(input_shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'momentum': self.momentum,
      'epsilon': self.epsilon,
      'use_zero_debias': self.use_zero_debias,
    }


def mmv_norm(
  name: str, dtype: str | tf_keras.mixed_precision.Policy
) -> CrossReplicaBatchNormalization:
  """Returns a batch norm as MMV has it, with zero-debiased statistics."""
  return CrossReplicaBatchNormalization(
    0.9, 1e-5, use_zero_debias=True, dtype=dtype, name=name
  )


def _valid_rows(x, mask):
  """The mask of the rows of `x` (..., D) that count, or None for all.

  Args:
    x: (..., D).
    mask: Bool mask of leading axes of `x`, or None.

  Returns:
    Bool tensor of the rank of `x`, which broadcasts to its rows.

  Raises:
    ValueError: The mask has another shape.
  """
  if mask is None:
    return None
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
  mask = tf.broadcast_to(mask, tensor_utils.shape_list(x)[:-1])
  return tf.expand_dims(mask, -1)
