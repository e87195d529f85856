"""The contract of a tower: from one modality's input to a feature and tokens.

A model is a dictionary of towers and a head. Whatever a command has to know of
a backbone it asks the tower, so that a new backbone is one file.
"""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities, randomness

Shape = tuple[int, ...]


class TowerOutput(NamedTuple):
  """What a tower gives for B rows (of text: captions, (B, C) in front).

  Attributes:
    feature: (B, width) float32, what the head and a classifier take; None of a
      tower that pools nothing.
    tokens: (B, N, d) float32, outputs for the places of `Tower.token_grid`; in
      training those that DropToken kept, in random order. None unless asked
      for.
  """

  feature: tf.Tensor | None
  tokens: tf.Tensor | None


class ActivationBytes(NamedTuple):
  """Memory of a tower's activations in a training step.

  Attributes:
    kept: What the forward pass keeps for the backward pass.
    workspace: What the backward pass of the layer that needs most takes on top.
  """

  kept: int
  workspace: int


def build_scoped(layer: tf_keras.layers.Layer | None, input_shape: Any) -> None:
  """Builds a sub-layer, so that its weights' names begin with its own name."""
  if layer is not None and not layer.built:
    with tf.name_scope(layer.name):
      layer.build(input_shape)


def serialize(layer: tf_keras.layers.Layer) -> dict[str, Any]:
  """The class and the arguments of a layer, as a dictionary."""
  return tf_keras.layers.serialize(layer, use_legacy_format=True)


def deserialize(
  config: dict[str, Any], custom_objects: Any = None
) -> tf_keras.layers.Layer:
  """Makes a layer, without weights, from what `serialize` returned."""
  # The other format builds layers at once, in a name scope of its own.
  return tf_keras.layers.deserialize(
    config, custom_objects, use_legacy_format=True
  )


class Tower(tf_keras.layers.Layer):
  """A backbone of one modality.

  A subclass implements `width`, `build`, `call` and `flops`, and the others
  where it can say more than the defaults.

  Weight names are API: a tower opens no name scope of its own, so that weights
  are named `vatt/<part>/…` after its parts. The names of the parts begin with
  the modality (`video_encoder`), but for parts that several towers share.

  Args:
    input_name: Key of the input in the feature dictionary: `video`, `audio`,
      `spectrogram` or `text`.
    **kwargs: Of `tf_keras.layers.Layer`.

  Call arguments:
    x: The input: video (B, T, H, W, 3) in [-1, 1], audio (B, S, 1) in [-1, 1],
      spectrogram (B, F, M) in [0, 1], text (B, C, L) or (B, L) integer ids of
      which 0 is padding.
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng`, or None to draw from TensorFlow's global state.
    need_tokens: Bool. False may save work.

  Returns:
    `TowerOutput`. No row depends on another one, except by batch norm.

  Raises:
    ValueError: The input does not fit.
  """

  def __init__(self, input_name: str, **kwargs: Any):
    self.modality = modalities.of_input(input_name)
    kwargs.setdefault('name', self.modality)
    # Inputs are cast by the parts, after DropToken has picked the patches.
    super().__init__(autocast=False, **kwargs)
    self.input_name = input_name

  @property
  def width(self) -> int:
    """Width of the feature."""
    raise NotImplementedError

  @property
  def shared_layers(self) -> tuple[tf_keras.layers.Layer, ...]:
    """Parts that other towers use too, such as the agnostic encoder."""
    return ()

  def build(self, input_shape: Any = None) -> None:
    """Makes all weights; none depends on the shape of an input."""
    raise NotImplementedError

  def call(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
    need_tokens: bool = False,
  ) -> TowerOutput:
    """Encodes `x`; see the class."""
    raise NotImplementedError

  def flops(self, input_shape: Shape, training: bool = False) -> dict[str, int]:
    """FLOPs of the forward pass on one row, as this package computes it.

    Args:
      input_shape: Of one row, without the batch axis (of text: (L,)).
      training: Whether DropToken is on.

    Returns:
      From the name of a part to its FLOPs; a multiplication and an addition
      are two.
    """
    raise NotImplementedError

  def step_flops(self, input_shape: Shape) -> dict[str, int]:
    """FLOPs of a training step on one row, forward and backward.

    Every product of the forward pass has two as large as itself in the
    backward pass, one for each factor's gradient.

    Args:
      input_shape: Of one row, without the batch axis.

    Returns:
      As `flops`.
    """
    forward = self.flops(input_shape, training=True)
    return {part: 3 * count for part, count in forward.items()}

  def paper_flops(self, input_shape: Shape, training: bool = False) -> int:
    """FLOPs of the forward pass on one row, as the tower's paper counts them.

    Args:
      input_shape: Of one row, without the batch axis.
      training: Whether DropToken is on.

    Returns:
      A count.
    """
    return sum(self.flops(input_shape, training).values())

  def token_grid(self, input_shape: Shape) -> Shape | None:
    """Where each token lies.

    Args:
      input_shape: Of one row, without the batch axis.

    Returns:
      (t, h, w) or (n,), whose product is the number of tokens without
      DropToken, in row-major order; None of a tower without tokens.
    """
    del input_shape
    return None

  def num_tokens(
    self, input_shape: Shape, training: bool = False
  ) -> int | None:
    """The length of the sequence that the tower works on, with AGG.

    Args:
      input_shape: Of one row, without the batch axis.
      training: Whether DropToken is on.

    Returns:
      A count, or None of a tower that works on no sequence.
    """
    del input_shape, training
    return None

  def activation_bytes(
    self, input_shape: Shape, num_rows: int
  ) -> ActivationBytes | None:
    """Memory of the activations in a training step, estimated.

    Args:
      input_shape: Of one row, without the batch axis.
      num_rows: Rows of the batch.

    Returns:
      `ActivationBytes`, or None of a tower that does not estimate it.
    """
    del input_shape, num_rows
    return None

  def _trackable_children(self, save_type='checkpoint', **kwargs):
    """Parts as checkpoints name them: as the names of their weights do."""
    children = super()._trackable_children(save_type, **kwargs)
    if save_type != 'checkpoint':
      return children
    return {
      child.name
      if isinstance(child, tf_keras.layers.Layer)
      else f'{self.modality}_{name}': child
      for name, child in children.items()
    }
