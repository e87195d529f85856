"""What models of one tower share: names of weights, and the tower's feature."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities, randomness
from vatt_tf.models import tower as tower_lib

# The tower's weights have the same names as in the pre-trained model.
_SCOPE = 'vatt'


def is_output(name: str, model: tf_keras.Model) -> bool:
  """Returns whether a weight's name is of what follows the tower of a model."""
  return isinstance(model, SingleTowerModel) and not name.startswith(
    f'{_SCOPE}/'
  )


class SingleTowerModel(tf_keras.Model):
  """A model of one tower and an output layer, started from a pre-trained one.

  A subclass implements `_build_outputs`, `encode` and `project`.

  Args:
    tower: Tower of the modality.
    **kwargs: Arguments of `tf_keras.Model`.
  """

  head = None  # like a `vatt.VATT` without common spaces

  def __init__(self, tower: tower_lib.Tower, **kwargs: Any):
    super().__init__(autocast=False, **kwargs)
    self.tower = tower

  @property
  def modality(self) -> str:
    """Modality of the tower."""
    return self.tower.modality

  @property
  def modalities(self) -> tuple[str, ...]:
    """Modality of the tower, in a tuple."""
    return (self.modality,)

  @property
  def towers(self) -> dict[str, tower_lib.Tower]:
    """Tower by its modality."""
    return {self.modality: self.tower}

  @property
  def shared_layers(self) -> tuple[tf_keras.layers.Layer, ...]:
    """Layers that the tower shared in the pre-trained model."""
    return self.tower.shared_layers

  def build(self, input_shape: Any = None) -> None:
    """Creates all weights, which do not depend on the shape of an input."""
    del input_shape
    if self.built:
      return
    with tf.name_scope(f'{_SCOPE}/'):
      self.tower.build()
    with tf.name_scope(f'{self.name}/'):
      self._build_outputs()
    self.built = True

  def _build_outputs(self) -> None:
    """Creates the weights after the tower."""
    raise NotImplementedError

  def call(
    self,
    features: Mapping[str, tf.Tensor],
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> dict[str, tf.Tensor]:
    """Computes all outputs; see the class."""
    return self.project(self.encode(features, training, rng))

  def _input(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """The tower's input.

    Raises:
      ValueError: It is missing.
    """
    name = self.tower.input_name
    if name not in features:
      raise ValueError(
        f'`features` must have the key {name!r}, the input of the {self.name}. '
        f'Received: keys {sorted(features)}'
      )
    return features[name]

  def embed(self, modality: str, x: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the feature of the tower, as `vatt.VATT.embed` does.

    Args:
      modality: Modality of the tower.
      x: Input of the tower, see `tower.Tower`.

    Returns:
      Dictionary with the feature (B, d), such as `video_feature`, float32.

    Raises:
      ValueError: The model has another modality.
    """
    if modality != self.modality:
      raise ValueError(
        f'The model is a {self.name} of {self.modality}. '
        f'Received: modality={modality!r}'
      )
    return {modalities.MODALITIES[modality].feature: self.tower(x).feature}
