"""The interface of a tower: from one modality's input to a feature and tokens.

A model is a dictionary of towers and a head. The tower answers all questions
that commands have about a backbone, so that a new backbone is one file.
"""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities, randomness
from vatt_tf.layers import cross_replica_batch_norm

Shape = tuple[int, ...]


class TowerOutput(NamedTuple):
  """Outputs of a tower for B rows; captions have the leading axes (B, C).

  Attributes:
    feature: (B, width) float32: input of the head or a classifier; None if the
      tower pools nothing.
    tokens: (B, N, d) float32: outputs for the places of `Tower.token_grid`; in
      training, only the tokens that DropToken keeps, in random order. None
      unless requested.
  """

  feature: tf.Tensor | None
  tokens: tf.Tensor | None


class ActivationBytes(NamedTuple):
  """Memory of a tower's activations in a training step.

  Attributes:
    kept: Bytes that the forward pass keeps for the backward pass.
    workspace: Additional bytes of the backward pass of the layer that needs
      most.
  """

  kept: int
  workspace: int


def build_scoped(layer: tf_keras.layers.Layer | None, input_shape: Any) -> None:
  """Builds a sub-layer such that its weights' names begin with its name."""
  if layer is not None and not layer.built:
    with tf.name_scope(layer.name):
      layer.build(input_shape)


def serialize(layer: tf_keras.layers.Layer) -> dict[str, Any]:
  """Returns the class and the arguments of a layer as a dictionary."""
  return tf_keras.layers.serialize(layer, use_legacy_format=True)


def deserialize(
  config: dict[str, Any], custom_objects: Any = None
) -> tf_keras.layers.Layer:
  """Makes a layer, without weights, from the dictionary of `serialize`."""
  # The new format builds layers immediately, in a separate name scope.
  return tf_keras.layers.deserialize(
    config, custom_objects, use_legacy_format=True
  )


class Tower(tf_keras.layers.Layer):
  """A backbone of one modality.

  A subclass implements `width`, `build`, `call`, `flops` and `get_config`, and
  the other methods where it has more to tell than the defaults.

  Weight names are API: a tower opens no name scope, so that weights are named
  `vatt/<part>/…` after its parts. The names of the parts begin with the
  modality (`video_encoder`), except for parts that several towers share.

  Args:
    input_name: Key of the input in the feature dictionary: `video`, `audio`,
      `spectrogram` or `text`.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Input: video (B, T, H, W, 3) in [-1, 1], audio (B, S, 1) in [-1, 1],
      spectrogram (B, F, M), or text (B, C, L) or (B, L), integer ids where 0 is
      padding.
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng`, or None to draw from TensorFlow's global state.
    need_tokens: Whether to return the tokens, which may be more work.

  Returns:
    `TowerOutput`. No row depends on another, except through batch norm.

  Raises:
    ValueError: The input does not fit.
  """

  def __init__(self, input_name: str, **kwargs: Any):
    self.modality = modalities.of_input(input_name)
    kwargs.setdefault('name', self.modality)
    # The parts cast inputs, after DropToken has chosen the patches.
    super().__init__(autocast=False, **kwargs)
    self.input_name = input_name

  @property
  def width(self) -> int:
    """Width of the feature."""
    raise NotImplementedError

  @property
  def shared_layers(self) -> tuple[tf_keras.layers.Layer, ...]:
    """Parts that other towers also use, such as the agnostic encoder."""
    return ()

  @property
  def has_batch_norm(self) -> bool:
    """Whether rows depend on each other in training, through batch norms."""
    norms = (
      cross_replica_batch_norm.CrossReplicaBatchNormalization,
      tf_keras.layers.BatchNormalization,
    )
    return any(isinstance(layer, norms) for layer in self.submodules)

  def build(self, input_shape: Any = None) -> None:
    """Creates all weights, which do not depend on the shape of an input."""
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

  @property
  def token_width(self) -> int:
    """Width d of the tokens."""
    return self.width

  def flops(self, input_shape: Shape, training: bool = False) -> dict[str, int]:
    """Returns the FLOPs of this package's forward pass on one row.

    Args:
      input_shape: Shape of one row, without the batch axis (for text: (L,)).
      training: Whether DropToken applies.

    Returns:
      FLOPs by part; a multiplication and an addition are two.
    """
    raise NotImplementedError

  def step_flops(self, input_shape: Shape) -> dict[str, int]:
    """Returns the FLOPs of a training step on one row, forward and backward.

    For each product of the forward pass, the backward pass has two of the same
    size, one for each factor's gradient.

    Args:
      input_shape: Shape of one row, without the batch axis.

    Returns:
      FLOPs by part, as in `flops`.
    """
    forward = self.flops(input_shape, training=True)
    return {part: 3 * count for part, count in forward.items()}

  def token_flops(self, input_shape: Shape) -> int:
    """Returns the forward FLOPs that tokens add on one row in training.

    Args:
      input_shape: Shape of one row, without the batch axis.

    Returns:
      Number of FLOPs; 0 if the feature needs all tokens.
    """
    del input_shape
    return 0

  def paper_flops(self, input_shape: Shape, training: bool = False) -> int:
    """Returns the forward FLOPs of one row as the tower's paper counts them.

    Args:
      input_shape: Shape of one row, without the batch axis.
      training: Whether DropToken applies.

    Returns:
      Number of FLOPs.
    """
    return sum(self.flops(input_shape, training).values())

  def token_grid(self, input_shape: Shape) -> Shape | None:
    """Returns the grid of the tokens.

    Args:
      input_shape: Shape of one row, without the batch axis.

    Returns:
      (t, h, w) or (n,), whose product is the number of tokens without
      DropToken, in row-major order; None if the tower has no tokens.
    """
    del input_shape
    return None

  def token_offset(self, input_shape: Shape) -> tuple[float, float]:
    """Returns how far what a token sees lies from its place in the frame.

    Args:
      input_shape: Shape of one row of video, without the batch axis.

    Returns:
      The distance, down and to the right, of the middle of what a token sees
      from the middle of its place, in places.
    """
    del input_shape
    return 0.0, 0.0

  def token_places(
    self, x: tf.Tensor, training: bool, rng: randomness.Rng | None
  ) -> tf.Tensor | None:
    """Returns where the tokens of a call with the same arguments lie.

    Args:
      x: See the call.
      training: See the call.
      rng: See the call; not None in training.

    Returns:
      (B, N) int32: the place of each token in the grid, counted in row-major
      order. None if all places have a token, in this order.
    """
    del x, training, rng
    return None

  def num_tokens(
    self, input_shape: Shape, training: bool = False
  ) -> int | None:
    """Returns the length of the tower's sequence, with AGG.

    Args:
      input_shape: Shape of one row, without the batch axis.
      training: Whether DropToken applies.

    Returns:
      Number of tokens, or None if the tower has no sequence.
    """
    del input_shape, training
    return None

  def activation_bytes(
    self, input_shape: Shape, num_rows: int
  ) -> ActivationBytes | None:
    """Estimates the memory of the activations in a training step.

    Args:
      input_shape: Shape of one row, without the batch axis.
      num_rows: Rows of the batch.

    Returns:
      `ActivationBytes`, or None if the tower does not estimate them.
    """
    del input_shape, num_rows
    return None

  def deflate(self) -> 'Tower | None':
    """Returns the image network that follows from a video network.

    It takes an image as a video of one frame, and computes about what this
    tower computes for a video that repeats the image (Alayrac et al. 2020,
    section 3.3): kernels are summed over time. What differs is what the video
    network sees at the ends of a clip, to which the image network can be
    trained (`training.deflation`).

    Returns:
      A built tower, which may share layers with this one; None if this tower
      has no image network.
    """
    return None

  def _trackable_children(self, save_type='checkpoint', **kwargs):
    """The parts by their names in checkpoints, which equal those of weights."""
    children = super()._trackable_children(save_type, **kwargs)
    if save_type != 'checkpoint':
      return children
    return {
      child.name
      if isinstance(child, tf_keras.layers.Layer)
      else f'{self.modality}_{name}': child
      for name, child in children.items()
    }
