"""The inner loop: several training steps in one graph, on every replica."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import orbit
import tensorflow as tf
import tf_keras

from vatt_tf.core import collectives, randomness, strategies, tensor_utils
from vatt_tf.training import gradient_caching

# Name of the metric with the seconds that a loop of steps waited for data.
INPUT_WAIT = 'input_wait_seconds'

# After this many consecutive skipped steps, give up searching for a loss scale.
_MAX_SKIPPED_IN_A_ROW = 50


class NonFiniteError(ArithmeticError):
  """A loss or a gradient became infinite or NaN."""


def _timed_next(iterator):
  """The next batch, and the seconds that it took to arrive, () float64."""
  with tf.device('/device:CPU:0'):
    start = tf.timestamp()
  with tf.control_dependencies([start]):
    batch = next(iterator)
  tensors = tf.nest.flatten(batch, expand_composites=True)
  with tf.control_dependencies(tensors), tf.device('/device:CPU:0'):
    return batch, tf.timestamp() - start


def _is_of_gradients(metric_name):
  return metric_name.startswith('gradient_norm')


def _squared_norm(tensors):
  # `tf.add_n` begins with the input whose memory it may take, which depends on
  # time, and so would the rounding of the sum.
  return tf.reduce_sum(
    [2.0 * tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors]
  )


class Trainer(orbit.AbstractTrainer):
  """Trains a model on a task, in loops of steps that run as one graph.

  Args:
    task: Task with `loss(features, outputs)`, which returns this replica's
      share of the loss (the sum over the replicas is the loss) and a dictionary
      of shares of metrics.
    model: Model of the task, called as `model(features, training=True, rng=…)`.
    optimizer: `optimizers.Adam` or `Sgd`, which tells how gradients are clipped
      (`global_clip_norm`, `is_clipped`); or for float16 a `LossScaleOptimizer`
      around it: the loss is then scaled for the backward pass, and the
      gradients are divided by the scale before they are used. A step whose
      gradients are not finite changes no weight and lowers the scale.
    dataset: Distributed data set of feature dictionaries.
    strategy: Strategy that distributes the steps.
    seed: Seed of dropout and DropToken.
    jit_compile: Whether to compile forward, loss and gradients with XLA, which
      needs one replica or a TPU.
    repeat_draws: Whether every step has the same draws of dropout and
      DropToken.
    deterministic: Whether TensorFlow's operations are deterministic. Reading
      the clock is not, so that the wait for data is then not measured. Nor is
      it measured on one core, where the step delays the clock.
    micro_batch_size: Rows of a replica that the towers take at a time, for the
      same gradients in less memory (see `gradient_caching`, which also explains
      why sums of the gradients of small batches would differ). None means all
      at once.

  Raises:
    ValueError: `jit_compile` is used with several replicas and no TPU; or, in
      the first step, `micro_batch_size` does not divide a replica's batch.
  """

  def __init__(
    self,
    task: Any,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    seed: int,
    jit_compile: bool = False,
    repeat_draws: bool = False,
    deterministic: bool = False,
    micro_batch_size: int | None = None,
  ):
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if jit_compile and strategy.num_replicas_in_sync > 1 and not is_tpu:
      raise ValueError(
        '`jit_compile` needs one replica: XLA cannot compile the exchange of '
        'embeddings between replicas on CPUs and GPUs. '
        f'Received: num_replicas={strategy.num_replicas_in_sync}. Use '
        'jit_compile=False or STRATEGY="one_device".'
      )
    self._task = task
    self._model = model
    self._optimizer = optimizer
    self._strategy = strategy
    self._seed = seed
    self._repeat_draws = repeat_draws
    self._is_timed = not deterministic and strategies.num_cores() > 1
    self._micro_batch_size = micro_batch_size
    self._uses_loss_scale = isinstance(
      optimizer, tf_keras.mixed_precision.LossScaleOptimizer
    )
    inner = optimizer.inner_optimizer if self._uses_loss_scale else optimizer
    self._clip_norm = inner.global_clip_norm
    self._is_clipped = inner.is_clipped
    self._iterator = iter(dataset)
    self._metric_names = []
    self._skipped_in_a_row = 0
    # A TPU compiles the whole step anyway; and with several replicas, a
    # separate graph must not contain the exchange between replicas.
    self._gradients = self.compute_gradients
    if jit_compile and not is_tpu:
      self._gradients = tf.function(
        self.compute_gradients, jit_compile=True, autograph=False
      )
    self._loop = tf.function(self._run_loop)

  def compute_gradients(
    self, features: Mapping[str, tf.Tensor], step: tf.Tensor
  ) -> Any:
    """Computes the gradients and metrics of this replica's rows.

    Args:
      features: Tensors of this replica's part of the batch.
      step: () int64: number of the step.

    Returns:
      (gradients, metrics): a list of dense tensors like the trainable
      variables, and a dictionary of scalar shares; both sum over the replicas.

    Raises:
      ValueError: A variable has no gradient.
    """
    rows = next(iter(features.values())).shape[0]
    rng = randomness.make(self._seed, step, collectives.first_row(rows))
    variables = self._model.trainable_variables

    def loss_fn(outputs):
      loss, metrics = self._task.loss(features, outputs)
      metrics = {'loss': loss, **metrics}
      if self._uses_loss_scale:
        loss = self._optimizer.get_scaled_loss(loss)
      return loss, metrics

    if self._micro_batch_size is None:
      with tf.GradientTape() as tape:
        outputs = self._model(features, training=True, rng=rng)
        loss, metrics = loss_fn(outputs)
      gradients = tape.gradient(loss, variables)
    else:
      gradients, metrics = gradient_caching.gradients(
        self._model, loss_fn, features, rng, self._micro_batch_size
      )
    unused_weights = [
      variable.name
      for variable, gradient in zip(variables, gradients, strict=True)
      if gradient is None
    ]
    if unused_weights:
      raise ValueError(
        'The loss does not depend on these weights of the model: '
        f'{", ".join(unused_weights)}. Leave out the parts of the model that '
        'no term of the loss uses, or freeze them (make_optimizer.frozen).'
      )
    gradients = [gradient_caching.dense(gradient) for gradient in gradients]
    if self._uses_loss_scale:
      gradients = self._optimizer.get_unscaled_gradients(gradients)
    return gradients, metrics

  @tensor_utils.as_graph
  def _replica_step(self, features):
    step = tf.identity(self._optimizer.iterations)
    if self._repeat_draws:
      step = tf.zeros_like(step)
    gradients, metrics = self._gradients(features, step)
    gradients = collectives.all_reduce_sum(gradients)
    norms = self._gradient_norms(gradients)
    if self._clip_norm is not None:
      gradients = self._clip(gradients)
    values = dict(norms)
    if self._uses_loss_scale:
      is_finite = tf.math.is_finite(norms['gradient_norm'])
      values['skipped_steps'] = tf.cast(~is_finite, tf.float32)
      values['loss_scale'] = tf.identity(self._optimizer.loss_scale)
    self._optimizer.apply_gradients(
      zip(gradients, self._model.trainable_variables, strict=True),
      experimental_aggregate_gradients=False,
    )
    # These describe the summed gradients, so each replica contributes a part.
    replicas = self._strategy.num_replicas_in_sync
    metrics.update({name: value / replicas for name, value in values.items()})
    self._metric_names = list(metrics)
    return tf.stack([tf.cast(value, tf.float32) for value in metrics.values()])

  def _clip(self, gradients):
    """Clips the global norm of the gradients to which `clip_norm` applies."""
    is_clipped = [
      self._is_clipped(variable.name)
      for variable in self._model.trainable_variables
    ]
    if not any(is_clipped):  # all such weights are frozen
      return gradients
    clipped = [g for g, is_in in zip(gradients, is_clipped) if is_in]
    norm = tf.sqrt(_squared_norm(clipped))
    factor = self._clip_norm / tf.maximum(norm, self._clip_norm)
    return [
      gradient * factor if is_in else gradient
      for gradient, is_in in zip(gradients, is_clipped, strict=True)
    ]

  def _gradient_norms(self, gradients):
    """The norm of all gradients, and of the gradients of each weight group."""
    groups = collections.defaultdict(list)
    variables = self._model.trainable_variables
    for variable, gradient in zip(variables, gradients, strict=True):
      groups[self._task.variable_group(variable.name)].append(gradient)
    squares = {name: _squared_norm(group) for name, group in groups.items()}
    norms = {
      f'gradient_norm/{name}': tf.sqrt(square)
      for name, square in squares.items()
    }
    return {
      'gradient_norm': tf.sqrt(tf.reduce_sum(list(squares.values()))),
      **norms,
    }

  def _run_loop(self, iterator, num_steps):
    history = tf.TensorArray(tf.float32, size=num_steps)
    waited = tf.zeros([], tf.float64)
    for index in tf.range(num_steps):
      if self._is_timed:
        batch, seconds = _timed_next(iterator)
        waited += seconds
      else:
        batch = next(iterator)
      shares = self._strategy.run(self._replica_step, args=(batch,))
      values = self._strategy.reduce(
        tf.distribute.ReduceOp.SUM, shares, axis=None
      )
      history = history.write(index, values)
    return history.stack(), waited  # (num_steps, M), ()

  def train(self, num_steps: tf.Tensor) -> dict[str, Any]:
    """Runs training steps.

    Args:
      num_steps: () int32: number of steps.

    Returns:
      Mean of each metric over the steps; and under `INPUT_WAIT` the seconds
      that all steps together waited for data. With a `LossScaleOptimizer`, also
      `loss_scale`, and `skipped_steps`, the number of steps that changed no
      weight because their gradients were not finite; they do not count in the
      means of gradient norms.

    Raises:
      NonFiniteError: A metric is not finite; the message names metric and step.
        Gradients may be non-finite for a few steps while the optimizer searches
        for a loss scale.
    """
    first = int(self._optimizer.iterations.numpy())
    history, waited = self._loop(self._iterator, num_steps)
    history = dict(zip(self._metric_names, history.numpy().T, strict=True))
    skipped = np.zeros(len(history['loss']), bool)
    if self._uses_loss_scale:
      skipped = history['skipped_steps'] > 0
    for offset, is_skipped in enumerate(skipped):
      self._check_finite(
        {name: values[offset] for name, values in history.items()},
        is_skipped,
        first + offset + 1,
      )
    means = {}
    for name, values in history.items():
      if _is_of_gradients(name):
        values = values[~skipped]
      means[name] = float(values.mean()) if len(values) else float('nan')
    if self._uses_loss_scale:
      means['skipped_steps'] = float(skipped.sum())
    means[INPUT_WAIT] = float(waited)  # 0 where it is not measured
    return means

  def _check_finite(self, values, is_skipped, step):
    """Raises NonFiniteError for a step, unless skipping it was enough."""
    for name, value in values.items():
      if not np.isfinite(value) and not (is_skipped and _is_of_gradients(name)):
        raise NonFiniteError(
          f'`{name}` is {value} at step {step}. The last checkpoint is from '
          'before this step and is kept. Lower the learning rate, lengthen the '
          'warm-up or clip the gradients (make_optimizer.clip_norm), then '
          'resume from it.'
        )
    self._skipped_in_a_row = self._skipped_in_a_row + 1 if is_skipped else 0
    if self._skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
      raise NonFiniteError(
        f'`gradient_norm` was not finite in {self._skipped_in_a_row} '
        f'consecutive steps up to step {step}, down to the loss scale '
        f'{values["loss_scale"]:g}; none of them changed a weight. Train in '
        'another precision (mixed_bfloat16 or float32), which has a wider '
        'range, or resume from the last checkpoint with a lower learning rate.'
      )
