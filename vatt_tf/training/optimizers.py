"""Optimizers with options: decay, learning rates, freezing, averages."""

import re
from typing import Any

from official.modeling.optimization import legacy_adamw
import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import ema

# By default, these have no weight decay: biases, norms, aggregation tokens and
# position tables.
DECAY_EXCLUDE = (
  '/(bias|gamma|beta|scale|agg)$',
  '/position_(embedding|bias)/',
)


class _Options:
  """Options that `Adam` and `Sgd` share, as a base before the Keras class.

  Patterns are regular expressions that are searched in the weights' names
  (`vatt/encoder/layer_0/attention/q/kernel`, see `ema.weight_name`).

  Attributes:
    global_clip_norm: See `clip_norm` of `schedules.make_optimizer`.
    clip_pattern: See `schedules.make_optimizer`.
    ema: Average of the weights that `prepare` created, or None.
  """

  def _set_options(
    self,
    weight_decay,
    decay_exclude,
    learning_rate_multipliers,
    frozen,
    ema_decay,
    clip_norm,
    clip_pattern,
  ):
    """Checks and stores the arguments that the classes share."""
    if not weight_decay >= 0:
      raise ValueError(
        f'`weight_decay` must be at least 0. Received: {weight_decay}'
      )
    for pattern, multiplier in learning_rate_multipliers:
      if not multiplier > 0:
        raise ValueError(
          '`learning_rate_multipliers` must be pairs of a pattern and a '
          f'positive number. Received: ({pattern!r}, {multiplier}). Use '
          '`frozen` for weights that must not be trained.'
        )
    self.weight_decay_rate = weight_decay
    self._decay_exclude = tuple(decay_exclude)
    self._multipliers = tuple(learning_rate_multipliers)
    self._frozen = tuple(frozen)
    self._ema_decay = ema_decay
    self._is_prepared = False
    self.global_clip_norm = clip_norm
    self.clip_pattern = clip_pattern
    self.ema = None

  def prepare(self, model):
    """Freezes weights of a model, and creates the optimizer's variables.

    A layer whose weights are all frozen is frozen as a whole: batch
    normalisation then uses its moving statistics and does not update them.

    Args:
      model: A built `tf_keras.Model`. Call this in the strategy's scope.

    Returns:
      A line for each option in use, with the number of weights that it applies
      to.

    Raises:
      ValueError: A pattern matches no trainable weight, or no weight is left to
        train.
    """
    weights = model.trainable_variables
    names = [ema.weight_name(weight.name) for weight in weights]
    for pattern in self._decay_exclude:
      if pattern not in DECAY_EXCLUDE:  # some models lack some of these
        _check_pattern('decay_exclude', pattern, names)
    for pattern, _ in self._multipliers:
      _check_pattern('learning_rate_multipliers', pattern, names)
    for pattern in self._frozen:
      _check_pattern('frozen', pattern, names)
    if self.clip_pattern is not None:
      _check_pattern('clip_pattern', self.clip_pattern, names)
    notes = []
    frozen = [
      weight
      for weight, name in zip(weights, names, strict=True)
      if any(re.search(pattern, name) for pattern in self._frozen)
    ]
    if frozen:
      if len(frozen) == len(weights):
        raise ValueError(
          '`frozen` must leave weights to train. '
          f'Received: frozen={list(self._frozen)}, which matches all of them.'
        )
      _freeze(model, frozen)
      notes.append(
        f'Frozen: {len(frozen)} of {len(weights)} trainable weights, '
        f'{_num_parameters(frozen):,} of {_num_parameters(weights):,} '
        'parameters.'
      )
      weights = model.trainable_variables
    for pattern, multiplier in self._multipliers:
      matching = [
        weight
        for weight in weights
        if self._multiplier(weight.name) == (pattern, multiplier)
      ]
      notes.append(
        f'Learning rate × {multiplier:g} ({pattern}): {len(matching)} weights, '
        f'{_num_parameters(matching):,} parameters.'
      )
    if self.weight_decay_rate:
      matching = [
        weight for weight in weights if self._do_use_weight_decay(weight.name)
      ]
      notes.append(
        f'Weight decay {self.weight_decay_rate:g}: {len(matching)} of '
        f'{len(weights)} weights, {_num_parameters(matching):,} parameters.'
      )
    if self.clip_pattern is not None and self.global_clip_norm is not None:
      matching = [weight for weight in weights if self.is_clipped(weight.name)]
      notes.append(
        f'Gradient norm at most {self.global_clip_norm:g} '
        f'({self.clip_pattern}): {len(matching)} of {len(weights)} weights, '
        f'{_num_parameters(matching):,} parameters.'
      )
    self._create_all_weights(weights)
    if self._ema_decay is not None:
      self.ema = ema.WeightAverage(model, self._ema_decay)
      notes.append(
        f'Average of the weights, decay {self._ema_decay:g}, for evaluation.'
      )
    self._is_prepared = True
    return notes

  def apply_gradients(self, grads_and_vars, *args, **kwargs):
    """Updates weights; see `tf_keras.optimizers.legacy.Optimizer`.

    Raises:
      ValueError: `prepare` was not called, and an option needs it.
    """
    if (self._frozen or self._ema_decay is not None) and not self._is_prepared:
      raise ValueError(
        '`frozen` and `ema_decay` need the model: call '
        'optimizer.prepare(model) before the first step.'
      )
    return super().apply_gradients(grads_and_vars, *args, **kwargs)

  def _distributed_apply(self, distribution, *args, **kwargs):
    update = super()._distributed_apply(distribution, *args, **kwargs)
    if self.ema is not None:
      self.ema.update(distribution, self.iterations)
    return update

  def _with_multiplier(self, var, apply_state):
    """The state `apply_state` with the learning rate of a weight."""
    _, multiplier = self._multiplier(var.name)
    if multiplier == 1:
      return apply_state
    key = (var.device, var.dtype.base_dtype)
    coefficients = dict(apply_state[key])
    coefficients['lr_t'] *= multiplier
    return {**apply_state, key: coefficients}

  def _resource_apply_sparse(self, grad, var, indices, apply_state=None):
    raise ValueError(f'Gradients must be dense. Received: slices of {var.name}')

  def is_clipped(self, name):
    """Returns whether `clip_norm` applies to the gradient of a weight."""
    if self.clip_pattern is None:
      return True
    return re.search(self.clip_pattern, ema.weight_name(name)) is not None

  def _do_use_weight_decay(self, param_name):
    """Whether a weight is decayed."""
    # Copies of a weight on other devices have a suffix in their names.
    name = ema.weight_name(param_name)
    return self.weight_decay_rate > 0 and not any(
      re.search(pattern, name) for pattern in self._decay_exclude
    )

  def _multiplier(self, name):
    """The first (pattern, multiplier) that matches a name, or (None, 1)."""
    for pattern, multiplier in self._multipliers:
      if re.search(pattern, ema.weight_name(name)):
        return pattern, multiplier
    return None, 1.0


class Adam(_Options, legacy_adamw.AdamWeightDecay):
  """Adam (Kingma and Ba 2015), and AdamW (Loshchilov and Hutter 2019).

  The update is one fused kernel per weight; decay adds one subtraction of
  rate · `weight_decay` · weight before it.

  Args:
    learning_rate: A schedule or a float.
    beta_1: Decay of the first moments.
    beta_2: Decay of the second moments.
    epsilon: Number added to the root of the variance.
    **options: See `schedules.make_optimizer`.

  Raises:
    ValueError: An option is out of range.
  """

  def __init__(
    self,
    learning_rate: float | tf_keras.optimizers.schedules.LearningRateSchedule,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    **options: Any,
  ):
    super().__init__(
      learning_rate,
      beta_1,
      beta_2,
      epsilon,
      # The trainer clips the gradients after the sum over the replicas.
      gradient_clip_norm=0.0,
      name='Adam',
    )
    self._set_options(**options)

  def _resource_apply_dense(self, grad, var, apply_state=None):
    state = self._with_multiplier(var, apply_state)
    return super()._resource_apply_dense(grad, var, state)


class Sgd(_Options, tf_keras.optimizers.legacy.SGD):
  """Stochastic gradient descent with momentum (Sutskever et al. 2013).

  velocity ← momentum · velocity - rate · gradient, weight ← weight + velocity;
  decay subtracts rate · `weight_decay` · weight before the update.

  Args:
    learning_rate: A schedule or a float.
    momentum: Momentum of the velocity, in [0, 1].
    **options: See `schedules.make_optimizer`.

  Raises:
    ValueError: An option is out of range.
  """

  def __init__(
    self,
    learning_rate: float | tf_keras.optimizers.schedules.LearningRateSchedule,
    momentum: float,
    **options: Any,
  ):
    super().__init__(learning_rate, momentum, name='SGD')
    self._set_options(**options)

  def _resource_apply_dense(self, grad, var, apply_state=None):
    state = self._with_multiplier(var, apply_state)
    decay = tf.no_op()
    if self._do_use_weight_decay(var.name):
      rate = state[var.device, var.dtype.base_dtype]['lr_t']
      decay = var.assign_sub(
        rate * self.weight_decay_rate * var, use_locking=self._use_locking
      )
    with tf.control_dependencies([decay]):
      return super()._resource_apply_dense(grad, var, state)


def _check_pattern(argument, pattern, names):
  try:
    is_match = any(re.search(pattern, name) for name in names)
  except re.error as error:
    raise ValueError(
      f'`{argument}` must be regular expressions. '
      f'Received: {pattern!r} ({error})'
    ) from error
  if not is_match:
    examples = names[:: max(1, len(names) // 8)]
    raise ValueError(
      f'`{argument}` has a pattern that matches no trainable weight. '
      f'Received: {pattern!r}. Some of the weights: {", ".join(examples)}'
    )


def _num_parameters(weights):
  return sum(weight.shape.num_elements() for weight in weights)


def _freeze(model, weights):
  """Removes weights from the trainable weights of a built model."""
  frozen = {id(weight) for weight in weights}
  for layer in (model, *model.submodules):
    if not isinstance(layer, tf_keras.layers.Layer):
      continue
    trained = [id(weight) for weight in layer.trainable_weights]
    if trained and frozen.issuperset(trained):
      layer.trainable = False
      continue
    # Change the list in place: a layer would track a newly assigned list.
    layer_weights = layer._trainable_weights  # pylint: disable=protected-access
    layer._non_trainable_weights.extend(  # pylint: disable=protected-access
      weight for weight in layer_weights if id(weight) in frozen
    )
    layer_weights[:] = [
      weight for weight in layer_weights if id(weight) not in frozen
    ]
