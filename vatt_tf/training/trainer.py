"""The inner loop: several training steps in one graph, on every replica."""

import collections

import orbit
import tensorflow as tf

from vatt_tf import distribution, randomness


class NonFiniteError(ArithmeticError):
  """A loss or a gradient became infinite or NaN."""


def _dense(gradient):
  """A dense gradient: the embedding table's slices, summed.

  One dense Adam update of a 65,536-row table is faster than the sparse one,
  which touches every moment anyway; and norms of slices would count repeated
  rows wrongly.
  """
  if isinstance(gradient, tf.IndexedSlices):
    return tf.math.unsorted_segment_sum(
      gradient.values, gradient.indices, gradient.dense_shape[0]
    )
  return gradient


def _squared_norm(tensors):
  return tf.add_n(
    [2.0 * tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors]
  )


class Trainer(orbit.AbstractTrainer):
  """Trains a model on a task, in loops of steps that run as one graph.

  Args:
    task: has `loss(features, outputs)` that returns this replica's share of
      the loss (the sum over the replicas is the loss) and a dictionary of
      shares of metrics.
    model: the task's model, called as `model(features, training=True, rng=…)`.
    optimizer: a `tf_keras` legacy optimizer.
    dataset: distributed dataset of feature dictionaries.
    strategy: `tf.distribute.Strategy`.
    seed: int, seed of dropout and DropToken.
    jit_compile: compile forward, loss and gradients with XLA; one replica.
    repeat_draws: draw the same dropout and DropToken at every step.

  Raises:
    ValueError: `jit_compile` with several replicas outside a TPU.
  """

  def __init__(
    self,
    task,
    model,
    optimizer,
    dataset,
    strategy,
    seed,
    jit_compile=False,
    repeat_draws=False,
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
    self._iterator = iter(dataset)
    self._metric_names = []
    # A TPU compiles the whole step anyway; and with several replicas a graph of
    # its own must not hold what replicas exchange.
    self._gradients = self.compute_gradients
    if jit_compile and not is_tpu:
      self._gradients = tf.function(self.compute_gradients, jit_compile=True)
    self._loop = tf.function(self._run_loop)

  def compute_gradients(self, features, step):
    """Forward, loss and gradients of this replica's rows.

    Args:
      features: dictionary of tensors, this replica's part of the batch.
      step: scalar int64 tensor.

    Returns:
      (gradients, metrics): a list of dense tensors like the trainable
      variables, and a dictionary of scalar shares; both sum over the replicas.

    Raises:
      ValueError: when a variable has no gradient.
    """
    rows = next(iter(features.values())).shape[0]
    rng = randomness.make(self._seed, step, distribution.first_row(rows))
    variables = self._model.trainable_variables
    with tf.GradientTape() as tape:
      outputs = self._model(features, training=True, rng=rng)
      loss, metrics = self._task.loss(features, outputs)
    gradients = tape.gradient(loss, variables)
    missing = [
      variable.name
      for variable, gradient in zip(variables, gradients, strict=True)
      if gradient is None
    ]
    if missing:
      raise ValueError(
        'The loss does not depend on these weights of the model: '
        f'{", ".join(missing)}. Give the model and the loss the same term '
        'weights.'
      )
    return [_dense(gradient) for gradient in gradients], {
      'loss': loss,
      **metrics,
    }

  def _replica_step(self, features):
    step = tf.identity(self._optimizer.iterations)
    if self._repeat_draws:
      step = tf.zeros_like(step)
    gradients, metrics = self._gradients(features, step)
    gradients = distribution.all_reduce_sum(gradients)
    norms = self._gradient_norms(gradients)
    clip_norm = self._optimizer.global_clip_norm
    if clip_norm is not None:
      factor = clip_norm / tf.maximum(norms['gradient_norm'], clip_norm)
      gradients = [gradient * factor for gradient in gradients]
    self._optimizer.apply_gradients(
      zip(gradients, self._model.trainable_variables, strict=True),
      experimental_aggregate_gradients=False,
    )
    # The norms are of the summed gradients, so that each replica gives a part.
    replicas = self._strategy.num_replicas_in_sync
    metrics.update({name: norm / replicas for name, norm in norms.items()})
    self._metric_names = list(metrics)
    return tf.stack([tf.cast(value, tf.float32) for value in metrics.values()])

  def _gradient_norms(self, gradients):
    """Norms of all gradients, and of those of each modality's own weights."""
    groups = collections.defaultdict(list)
    variables = self._model.trainable_variables
    for variable, gradient in zip(variables, gradients, strict=True):
      groups[self._task.variable_group(variable.name)].append(gradient)
    squares = {name: _squared_norm(group) for name, group in groups.items()}
    norms = {
      f'gradient_norm/{name}': tf.sqrt(square)
      for name, square in squares.items()
    }
    return {'gradient_norm': tf.sqrt(tf.add_n(list(squares.values()))), **norms}

  def _run_loop(self, iterator, num_steps):
    history = tf.TensorArray(tf.float32, size=num_steps)
    for index in tf.range(num_steps):
      shares = self._strategy.run(self._replica_step, args=(next(iterator),))
      values = self._strategy.reduce(
        tf.distribute.ReduceOp.SUM, shares, axis=None
      )
      history = history.write(index, values)
    return history.stack()  # (num_steps, M)

  def train(self, num_steps):
    """Runs training steps.

    Args:
      num_steps: scalar int32 tensor.

    Returns:
      Dictionary: metric name → mean over the steps, a float.

    Raises:
      NonFiniteError: when a metric is not finite; it names metric and step.
    """
    first = int(self._optimizer.iterations.numpy())
    history = self._loop(self._iterator, num_steps).numpy()
    for offset, values in enumerate(history):
      for name, value in zip(self._metric_names, values, strict=True):
        if not tf.math.is_finite(value):
          raise NonFiniteError(
            f'`{name}` is {value} at step {first + offset + 1}. The last '
            'checkpoint is from before this step and stays. Lower the '
            'learning rate, lengthen the warm-up or clip the gradients '
            '(make_optimizer.clip_norm), then start again from it.'
          )
    means = history.mean(axis=0)
    return {
      name: float(value)
      for name, value in zip(self._metric_names, means, strict=True)
    }
