"""Trains an image network to equal a video network on still clips.

Deflation (Alayrac et al. 2020, section 3.3): the image network that follows
from a video network (`models.tower.Tower.deflate`) differs from it where the
video network sees the ends of a clip. The scales and offsets of its norms are
trained to the smallest L1 distance between both features, on images without
labels; everything else is frozen, and batch norms use their moving statistics.
"""

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.models import tower as tower_lib

# Names of the weights that are trained.
_NORM_WEIGHTS = ('/gamma', '/beta')
# Least variance of a feature, as a share of the mean one, that gets a scale.
_MIN_SPREAD = 1e-6


@dataclasses.dataclass(frozen=True)
class Distances:
  """Mean L1 distances of image features to those of still clips.

  Attributes:
    naive: Distance without training.
    trained: Distance after training the norms.
    control: Distance of the untrained features after the best scale and offset
      of each feature, fitted on the training images: what training inside the
      network must surpass.
    feature: Mean absolute value of the still clips' features.
    num_images: Number of images.
  """

  naive: float
  trained: float
  control: float
  feature: float
  num_images: int

  def __str__(self):
    return (
      f'L1 distance to the still clip on {self.num_images} images: '
      f'{self.naive:.4g} naive, {self.control:.4g} with the best scale and '
      f'offset of each feature, {self.trained:.4g} trained; '
      f'mean |feature| {self.feature:.4g}'
    )


def norm_weights(tower: tower_lib.Tower) -> list[tf.Variable]:
  """Returns the scales and offsets of a tower's norms.

  Layers that the tower shares, such as the agnostic encoder, are left out, as
  other modalities need them as they are.

  Raises:
    ValueError: There are none.
  """
  shared = {
    id(weight) for layer in tower.shared_layers for weight in layer.weights
  }
  weights = [
    weight
    for weight in tower.trainable_weights
    if weight.name.removesuffix(':0').endswith(_NORM_WEIGHTS)
    and id(weight) not in shared
  ]
  if not weights:
    raise ValueError(
      f'The {type(tower).__name__} has no norms whose scales and offsets could '
      'be trained. Use --steps=0.'
    )
  return weights


def still_features(
  video_tower: tower_lib.Tower, images: tf.Tensor, num_frames: int
) -> tf.Tensor:
  """Returns the features of images that are repeated to clips.

  Args:
    video_tower: Tower of the video network.
    images: (B, 1, H, W, 3) float32 in [-1, 1].
    num_frames: Frames of a clip.

  Returns:
    (B, width) float32.
  """
  return video_tower(tf.repeat(images, num_frames, 1)).feature


def train(
  video_tower: tower_lib.Tower,
  image_tower: tower_lib.Tower,
  images: Iterable[tf.Tensor],
  num_frames: int,
  steps: int,
  learning_rate: float,
  on_step: Callable[[int, float], Any] | None = None,
) -> None:
  """Trains the norms of an image network.

  Args:
    video_tower: Tower of the video network, which does not change; it must not
      share layers with `image_tower`.
    image_tower: Tower of the image network, built.
    images: At least `steps` batches (B, 1, H, W, 3) float32 in [-1, 1].
    num_frames: Frames of a clip, as in the training of the video network.
    steps: Number of steps of Adam.
    learning_rate: Peak of the learning rate, which falls to 0 in half a cosine.
    on_step: Function that is called with the number of each step, from 1, and
      its loss.
  """
  weights = norm_weights(image_tower)
  schedule = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
  optimizer = tf_keras.optimizers.Adam(schedule)

  @tf.function(autograph=False)
  def step(batch):
    target = still_features(video_tower, batch, num_frames)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(weights)
      feature = image_tower(batch).feature
      loss = tf.reduce_mean(tf.abs(feature - target))
    gradients = tape.gradient(loss, weights)
    optimizer.apply_gradients(
      (gradient, weight)
      for gradient, weight in zip(gradients, weights)
      if gradient is not None
    )
    return loss

  for i, batch in zip(range(1, steps + 1), images):
    loss = float(step(batch))
    if not np.isfinite(loss):
      raise ValueError(
        f'The loss of step {i} is {loss}. Use a smaller learning rate. '
        f'Received: learning_rate={learning_rate}'
      )
    if on_step is not None:
      on_step(i, loss)


class Comparison:
  """Features of two sets of images, from the video and the image network.

  Args:
    video_tower: Tower of the video network.
    train_images: Batches (B, 1, H, W, 3): images on which the control is
      fitted.
    test_images: Batches of held-out images.
    num_frames: Frames of a clip.

  Raises:
    ValueError: A feature of the video network is not finite.
  """

  def __init__(
    self,
    video_tower: tower_lib.Tower,
    train_images: Iterable[tf.Tensor],
    test_images: Iterable[tf.Tensor],
    num_frames: int,
  ):
    self._images = [list(train_images), list(test_images)]
    still = tf.function(
      lambda x: still_features(video_tower, x, num_frames), autograph=False
    )
    self._targets = [self._run(still, images) for images in self._images]
    if not all(np.isfinite(targets).all() for targets in self._targets):
      raise ValueError(
        'The features of the video network are not finite: its weights are '
        'wrong. Take another checkpoint.'
      )

  def _run(self, function, images):
    return np.concatenate([function(batch).numpy() for batch in images])

  def features(self, image_tower: tower_lib.Tower) -> list[np.ndarray]:
    """Returns the image network's features of both sets, (N, width) each."""
    function = tf.function(lambda x: image_tower(x).feature, autograph=False)
    return [self._run(function, images) for images in self._images]

  def distances(
    self, naive: list[np.ndarray], trained: list[np.ndarray]
  ) -> Distances:
    """Compares features before and after training, on the held-out images.

    Args:
      naive: Result of `features` before training.
      trained: Result of `features` after training.

    Returns:
      `Distances`.
    """
    x, y = naive[0], self._targets[0]
    centre = x.mean(0)
    spread = np.square(x - centre).mean(0)
    slope = ((x - centre) * (y - y.mean(0))).mean(0)
    # A feature that hardly changes over the training images gets no scale.
    changes = spread > _MIN_SPREAD * spread.mean()
    slope = np.where(changes, slope / np.where(changes, spread, 1.0), 0.0)
    control = (naive[1] - centre) * slope + y.mean(0)
    target = self._targets[1]

    def distance(features):
      return float(np.abs(features - target).mean())

    return Distances(
      naive=distance(naive[1]),
      trained=distance(trained[1]),
      control=distance(control),
      feature=float(np.abs(target).mean()),
      num_images=len(target),
    )
