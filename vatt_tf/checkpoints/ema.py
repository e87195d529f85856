"""Averages of a model's weights over the training steps.

The exponential moving average of the weights usually evaluates better than the
weights of the last step (Polyak and Juditsky 1992). It is kept beside the
model and the optimizer, as `ema` of the training checkpoint, so that a reader
of the checkpoint can use either.
"""

from collections.abc import Iterator
import contextlib

import tensorflow as tf
import tf_keras

from vatt_tf.core import file_utils

_KEY = 'ema/{}/.ATTRIBUTES/VARIABLE_VALUE'


def weight_name(name: str) -> str:
  """Returns the name of a weight, which its copies on all devices share.

  Args:
    name: Name of a `tf.Variable`, such as
      `vatt/encoder/layer_0/attention/q/kernel/replica_1:0`.

  Returns:
    The name without replica and number, such as
    `vatt/encoder/layer_0/attention/q/kernel`.
  """
  return name.split(':')[0].split('/replica_')[0]


class WeightAverage:
  """Exponential moving average of the weights that training updates.

  After update t the average is d·average + (1 - d)·weight, with
  d = min(`decay`, (1 + t) / (10 + t)): early weights, which are close to the
  initial weights, count little in the end. The average covers trainable weights
  and the statistics of batch normalisation that belong to them, but not frozen
  weights.

  Attributes:
    values: Variables that hold the averages.
    checkpoint: `tf.train.Checkpoint` of the averages, which a training
      checkpoint holds under the name `ema`.

  Args:
    model: A built `tf_keras.Model`; call this in the strategy's scope.
    decay: Decay d of the average, in (0, 1).

  Raises:
    ValueError: `decay` is out of range, or two weights have one name.
  """

  def __init__(self, model: tf_keras.Model, decay: float):
    if not 0 < decay < 1:
      raise ValueError(
        '`ema_decay` must be in (0, 1), such as 0.999, or None for no average. '
        f'Received: ema_decay={decay}'
      )
    self._decay = decay
    self._strategy = tf.distribute.get_strategy()
    weights = model.trainable_variables + [
      variable
      for layer in (model, *model.submodules)
      if getattr(layer, 'trainable', False)
      for variable in (
        getattr(layer, 'moving_mean', None),
        getattr(layer, 'moving_variance', None),
      )
      if variable is not None
    ]
    names = [weight_name(weight.name) for weight in weights]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
      raise ValueError(
        'Averaged weights must have unique names. Received several of: '
        f'{", ".join(sorted(repeated))}. Give the layers different names.'
      )
    self.values = [
      tf.Variable(
        lambda weight=weight: tf.convert_to_tensor(weight),
        trainable=False,
        dtype=weight.dtype,
        name=f'ema/{name}',
      )
      for name, weight in zip(names, weights, strict=True)
    ]
    self._pairs = [*zip(self.values, weights, strict=True)]
    # The tree follows the names, which makes them the keys of the checkpoint.
    tree = {}
    for name, average in zip(names, self.values, strict=True):
      *parents, leaf = name.split('/')
      node = tree
      for parent in parents:
        node = node.setdefault(parent, {})
      node[leaf] = average
    self.checkpoint = tf.train.Checkpoint(**tree)

  def reset(self) -> None:
    """Sets the average to the current weights, as before the first step."""
    with self._strategy.scope():
      for average, weight in self._pairs:
        average.assign(weight)

  def update(
    self, strategy: tf.distribute.Strategy, num_updates: tf.Tensor
  ) -> None:
    """Moves the average towards the weights.

    Args:
      strategy: Strategy in whose context an optimizer applies gradients.
      num_updates: () integer: updates of the weights so far.
    """
    t = tf.cast(num_updates, tf.float32)
    rate = 1.0 - tf.minimum(self._decay, (1.0 + t) / (10.0 + t))

    def move(average, weight):
      difference = average - weight
      return average.assign_sub(tf.cast(rate, difference.dtype) * difference)

    for average, weight in self._pairs:
      strategy.extended.update(average, move, args=(weight,), group=False)

  @contextlib.contextmanager
  def as_weights(self) -> Iterator[None]:
    """Returns a context in which the model's weights are the average."""
    self._swap()
    try:
      yield
    finally:
      self._swap()

  def _swap(self):
    with self._strategy.scope():
      for average, weight in self._pairs:
        value = tf.identity(weight)
        weight.assign(average)
        average.assign(value)


def restore_average(model: tf_keras.Model, path: str) -> bool:
  """Sets a model's weights to their averages, if a checkpoint has averages.

  Args:
    model: A built `tf_keras.Model` that holds the checkpoint's weights. Call
      this in the strategy's scope, if the model was built in one.
    path: Prefix of the checkpoint, `…/ckpt-N`.

  Returns:
    Whether the checkpoint has averages.

  Raises:
    ValueError: An average belongs to no weight of the model.
  """
  reader = tf.train.load_checkpoint(file_utils.literal_path(path))
  keys = reader.get_variable_to_shape_map()
  unused_keys = {key for key in keys if key.startswith('ema/')}
  has_average = bool(unused_keys)
  for variable in model.variables:
    key = _KEY.format(weight_name(variable.name))
    if key in unused_keys:
      variable.assign(reader.get_tensor(key))
      unused_keys.remove(key)
  if unused_keys:
    raise ValueError(
      f'The checkpoint {path} has averages of weights that the model lacks: '
      f'{", ".join(sorted(unused_keys))}. Use the gin file that wrote it '
      '(config.gin beside it), or the weights of the last step (use_ema=False).'
    )
  return has_average
