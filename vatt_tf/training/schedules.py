"""Learning-rate schedules and the optimizer."""

from collections.abc import Sequence
import math
from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.training import optimizers

_SHAPES = ('quarter_cosine', 'half_cosine', 'constant')


@gin.register
class WarmupCosine(tf_keras.optimizers.schedules.LearningRateSchedule):
  """A linear warm-up, then a cosine decay (the paper's appendix on training).

  With p, the share of completed steps after the warm-up, in [0, 1]:

  - `quarter_cosine` (the paper): final + (peak - final)·cos(π/2·p)
  - `half_cosine` (the released code): final + (peak - final)/2·(1 + cos πp)
  - `constant`: peak

  Args:
    total_steps: Step where the decay ends.
    warmup_steps: Number of steps from 0 up to the peak.
    peak_learning_rate: Learning rate at the end of the warm-up.
    final_learning_rate: Learning rate at the last step.
    shape: Shape of the decay, one of the names above.

  Raises:
    ValueError: The shape is unknown, or the warm-up is as long as the training.
  """

  def __init__(
    self,
    total_steps: int = 500_000,
    warmup_steps: int = 10_000,
    peak_learning_rate: float = 1e-4,
    final_learning_rate: float = 5e-5,
    shape: str = 'quarter_cosine',
  ):
    super().__init__()
    if shape not in _SHAPES:
      raise ValueError(
        f'`shape` must be one of {", ".join(_SHAPES)}. Received: shape={shape}'
      )
    if not 0 <= warmup_steps < total_steps:
      raise ValueError(
        '`warmup_steps` must be at least 0 and less than `total_steps`. '
        f'Received: warmup_steps={warmup_steps}, total_steps={total_steps}. '
        'Shorten the warm-up (WARMUP_STEPS in the gin files) or train longer '
        '(TRAIN_STEPS).'
      )
    self.total_steps = total_steps
    self.warmup_steps = warmup_steps
    self.peak_learning_rate = peak_learning_rate
    self.final_learning_rate = final_learning_rate
    self.shape = shape

  def __call__(self, step):
    """Returns the learning rate at a step.

    Args:
      step: () integer: number of the step, 0 at the first update.

    Returns:
      Scalar float32 tensor.
    """
    step = tf.cast(step, tf.float32)
    peak, final = self.peak_learning_rate, self.final_learning_rate
    decay_steps = self.total_steps - self.warmup_steps
    p = tf.clip_by_value((step - self.warmup_steps) / decay_steps, 0.0, 1.0)
    if self.shape == 'quarter_cosine':
      rate = final + (peak - final) * tf.cos(math.pi / 2 * p)
    elif self.shape == 'half_cosine':
      rate = final + (peak - final) / 2 * (1 + tf.cos(math.pi * p))
    else:
      rate = tf.constant(peak, tf.float32)
    # The first update already moves the weights: step 0 counts as 1.
    warmup = tf.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
    return tf.where(step < self.warmup_steps, peak * warmup, rate)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the constructor."""
    return {
      'total_steps': self.total_steps,
      'warmup_steps': self.warmup_steps,
      'peak_learning_rate': self.peak_learning_rate,
      'final_learning_rate': self.final_learning_rate,
      'shape': self.shape,
    }


@gin.register
def make_optimizer(
  learning_rate: float | tf_keras.optimizers.schedules.LearningRateSchedule,
  kind: str = 'adam',
  beta_1: float = 0.9,
  beta_2: float = 0.999,
  epsilon: float = 1e-7,
  momentum: float = 0.9,
  clip_norm: float | None = None,
  clip_pattern: str | None = None,
  weight_decay: float = 0.0,
  decay_exclude: Sequence[str] = optimizers.DECAY_EXCLUDE,
  learning_rate_multipliers: Sequence[tuple[str, float]] = (),
  frozen: Sequence[str] = (),
  ema_decay: float | None = None,
) -> optimizers.Adam | optimizers.Sgd:
  """Makes the optimizer: Adam to pre-train, SGD to fine-tune (the paper).

  Patterns are regular expressions that are searched in the names of the
  trainable weights (`vatt/encoder/layer_0/attention/q/kernel`). A pattern that
  matches no weight is an error.

  Args:
    learning_rate: A schedule or a float.
    kind: `adam` (Kingma and Ba 2015) or `sgd`, with momentum.
    beta_1: Decay of Adam's first moments.
    beta_2: Decay of Adam's second moments.
    epsilon: Number that Adam adds to the root of the variance.
    momentum: Momentum of SGD, in [0, 1].
    clip_norm: Largest global norm of the gradients after the sum over the
      replicas, or None.
    clip_pattern: Pattern of the weights whose gradients are clipped, by their
      norm without the other weights, such as `'^vatt/'` for a classifier's
      backbone. None means all.
    weight_decay: Factor of the decay: each step subtracts learning rate ·
      `weight_decay` · weight (AdamW, Loshchilov and Hutter 2019).
    decay_exclude: Patterns of the weights without decay; by default biases,
      norms, aggregation tokens and position tables.
    learning_rate_multipliers: Pairs of a pattern and a positive float, such as
      `[('/layer_[0-5]/', 0.1)]`. The first pattern that matches a weight
      multiplies its learning rate.
    frozen: Patterns of the weights that are not trained, such as
      `['^vatt/text_embedding/']`. They have no gradient and no moments; a batch
      normalisation without trainable weights does not update its statistics.
    ema_decay: Decay of an exponential moving average of the weights, in (0, 1),
      which evaluation uses (see `ema.WeightAverage`); or None.

  Returns:
    An `optimizers.Adam` or `optimizers.Sgd`, with `clip_norm` as an attribute
    for the trainer, which clips the summed gradients.

  Raises:
    ValueError: An argument is out of range.
  """
  options = {
    'clip_norm': clip_norm,
    'clip_pattern': clip_pattern,
    'weight_decay': weight_decay,
    'decay_exclude': decay_exclude,
    'learning_rate_multipliers': learning_rate_multipliers,
    'frozen': frozen,
    'ema_decay': ema_decay,
  }
  if kind == 'adam':
    return optimizers.Adam(learning_rate, beta_1, beta_2, epsilon, **options)
  if kind == 'sgd':
    return optimizers.Sgd(learning_rate, momentum, **options)
  raise ValueError(f"`kind` must be 'adam' or 'sgd'. Received: kind={kind!r}")
