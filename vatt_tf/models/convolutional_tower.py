"""What convolutional towers have in common: parts in a row, and a mean."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import recompute, space_time
from vatt_tf.models import tower

# Maps that the gradient of a batch norm holds at a time: the gradients of its
# output and input, the normalised values, and the part of all rows.
_NUM_GRADIENT_MAPS = 4


def check_input_name(input_name: str, expected: str) -> None:
  """Raises ValueError unless a tower takes this input."""
  if input_name != expected:
    raise ValueError(
      f'`input_name` must be {expected!r}. Received: input_name={input_name!r}'
    )


def check_video(video: tf.Tensor, is_deflated: bool) -> None:
  """Raises ValueError unless the shape of a video fits a tower."""
  shape = video.shape
  if shape.rank != 5 or None in shape[1:] or shape[-1] != 3:
    raise ValueError(
      'A video must be (B, T, H, W, 3), and all but B static. '
      f'Received: shape={shape}'
    )
  if is_deflated and shape[1] != 1:
    raise ValueError(
      'A deflated tower takes images, as videos of one frame. Received: '
      f'{shape[1]} frames. Set NUM_FRAMES = 1, or num_frames = 1 of the '
      'VideoConfig that a gin file of evaluation names.'
    )


def unit_range(video: tf.Tensor, dtype: tf.DType | str) -> tf.Tensor:
  """Maps a video from [-1, 1] to [0, 1], which MMV's towers see."""
  wide = tensor_utils.accumulation_dtype(dtype)
  return tf.cast((tf.cast(video, wide) + 1.0) / 2.0, dtype)


class ConvolutionalTower(tower.Tower):
  """A tower whose parts run one after another, on (B, T, H, W, C).

  The feature is the mean of the last map, and the tokens are its places. A part
  is a layer with `call(x, training)`, `compute_output_shape`, `flops` and
  `num_kept`; one with strides has `steps_of_places`, the windows and strides
  that follow one another.

  A subclass adds its parts with `_add_parts`, and implements `width` and
  `_input_map`.

  Args:
    input_name: See `tower.Tower`.
    is_deflated: Whether this is an image network, for videos of one frame (see
      `deflate`).
    use_remat: Whether the backward pass computes each part again, which takes
      less memory and more time.
    token_layer: Name of the part whose places are the tokens, one of those in
      `endpoints`. None means the last.
    **kwargs: Arguments of `tf_keras.layers.Layer`.
  """

  def __init__(
    self,
    input_name: str,
    is_deflated: bool = False,
    use_remat: bool = False,
    token_layer: str | None = None,
    **kwargs: Any,
  ):
    super().__init__(input_name, **kwargs)
    self.is_deflated = is_deflated
    self.use_remat = use_remat
    self.token_layer = token_layer
    self._part_names = ()

  def _add_parts(self, parts):
    """Makes and adds the parts in the order in which they run.

    Args:
      parts: (class, arguments) by name.
    """
    for part, (layer_class, options) in parts.items():
      name = f'{self.modality}_{part}'
      layer = layer_class(**options, dtype=self.dtype_policy, name=name)
      setattr(self, name, layer)
      self._part_names += (name,)
    if self.token_layer is not None and self.token_layer not in parts:
      raise ValueError(
        f'`token_layer` must be one of {", ".join(parts)}, or None for the '
        f'last. Received: token_layer={self.token_layer!r}'
      )

  @property
  def parts(self) -> tuple[tf_keras.layers.Layer, ...]:
    """Parts in the order in which they run."""
    return tuple(getattr(self, name) for name in self._part_names)

  def _input_map(self, x):
    """The input of the first part, (B, T, H, W, C), from the tower's input."""
    raise NotImplementedError

  def _input_map_shape(self, input_shape):
    """The shape of `_input_map`: (None, T, H, W, C), sizes may be None."""
    raise NotImplementedError

  def _shapes(self, input_shape):
    """The shapes of the inputs of all parts, and of the last map."""
    shape = tf.TensorShape(self._input_map_shape(input_shape))
    return space_time.shapes_along(self.parts, shape)

  def build(self, input_shape: Any = None) -> None:
    """Creates all weights; see the base class."""
    del input_shape
    for part, shape in zip(self.parts, self._shapes(None)):
      tower.build_scoped(part, shape)
    self.built = True

  def call(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
    need_tokens: bool = False,
  ) -> tower.TowerOutput:
    """Encodes `x`; see the base class."""
    del rng
    endpoints = self.endpoints(x, training)
    *_, last = endpoints.values()
    feature = space_time.mean_over_places(last)
    tokens = None
    if need_tokens:
      tokens = last
      if self.token_layer is not None:
        tokens = endpoints[self.token_layer]
      num_places, width = math.prod(tokens.shape[1:4]), tokens.shape[4]
      tokens = tf.reshape(tokens, [-1, num_places, width])
      tokens = tf.cast(tokens, feature.dtype)
    return tower.TowerOutput(feature, tokens)

  def endpoints(
    self, x: tf.Tensor, training: bool = False
  ) -> dict[str, tf.Tensor]:
    """Returns the outputs of all parts.

    Args:
      x: See the call.
      training: See the call.

    Returns:
      (B, T, H, W, C) in the compute dtype by the part's name without the
      modality, such as `mixed_5c`, in the order in which they run.
    """
    x = self._input_map(x)
    outputs = {}
    for part in self.parts:
      x = self._run(part, x, training)
      outputs[part.name.removeprefix(f'{self.modality}_')] = x
    return outputs

  def _run(self, part, x, training):
    if not (training and self.use_remat):
      return part(x, training=training)
    run = recompute.recomputed(lambda _, x: part(x, training=True), rng=None)
    return run(x)

  def token_grid(self, input_shape: tower.Shape) -> tower.Shape:
    """Returns the places of the map of `token_layer`."""
    return tuple(self._token_shape(input_shape)[1:4])

  def token_offset(self, input_shape: tower.Shape) -> tuple[float, float]:
    """Returns the offset of windows with strides; see the base class."""
    offset, stride = np.zeros(2), np.ones(2)
    size = np.array(self._input_map_shape(input_shape)[2:4])
    last = self._part_names[-1]
    if self.token_layer is not None:
      last = f'{self.modality}_{self.token_layer}'
    for part in self.parts:
      for window, strides in getattr(part, 'steps_of_places', ()):
        steps = np.array(strides[1:])
        moves = map(space_time.window_offset, size, window[1:], steps)
        offset += stride * list(moves)
        stride *= steps
        size = -(-size // steps)
      if part.name == last:
        break
    down, right = offset / stride
    return float(down), float(right)

  @property
  def token_width(self) -> int:
    """Number of channels of the map of `token_layer`."""
    return self._token_shape(None)[4]

  def _token_shape(self, input_shape):
    """The shape of the map whose places are the tokens."""
    shapes = self._shapes(input_shape)
    if self.token_layer is None:
      return shapes[-1]
    name = f'{self.modality}_{self.token_layer}'
    return shapes[1 + self._part_names.index(name)]

  def flops(self, input_shape: tower.Shape, training: bool = False) -> dict:
    """Returns the FLOPs by part; see the base class."""
    del training
    return {
      part.name.removeprefix(f'{self.modality}_'): flops
      for part, shape in zip(self.parts, self._shapes(input_shape))
      if (flops := part.flops(shape))
    }

  def activation_bytes(
    self, input_shape: tower.Shape, num_rows: int
  ) -> tower.ActivationBytes:
    """Estimates memory from the maps that gradients need; see the base class.

    The workspace is what the gradient of a batch norm of the largest map holds,
    in float32, and with `use_remat` the maps of one part.
    """
    width = tf.as_dtype(self.compute_dtype).size
    *shapes, last = self._shapes(input_shape)
    maps = sum(space_time.num_elements(shape) for shape in shapes)
    inside = [part.num_kept(shape) for part, shape in zip(self.parts, shapes)]
    kernels = 0
    workspace = max(space_time.num_elements(shape) for shape in shapes)
    workspace *= _NUM_GRADIENT_MAPS * tf.float32.size
    if self.use_remat:
      workspace += max(inside) * width
    else:
      maps += sum(inside) + space_time.num_elements(last)
    if not self.use_remat and self.compute_dtype != self.variable_dtype:
      kernels = width * sum(
        math.prod(weight.shape)
        for weight in self.trainable_weights
        if weight.name.removesuffix(':0').endswith('/kernel')
      )
    return tower.ActivationBytes(
      num_rows * maps * width + kernels, num_rows * workspace
    )

  def deflate(self) -> 'ConvolutionalTower | None':
    """Returns the image network of a video tower; see the base class."""
    if self.input_name != names.VIDEO:
      return None
    config = {**self.get_config(), 'is_deflated': True}
    image_tower = type(self).from_config(config)
    with tf.name_scope('vatt/'):
      image_tower.build()
    for source, target in zip(self.weights, image_tower.weights, strict=True):
      target.assign(self._deflate_weight(source, target.shape))
    return image_tower

  def _deflate_weight(self, weight, shape):
    """The value of a weight in the image network."""
    value = np.asarray(weight)
    if value.shape != tuple(shape):  # a kernel, summed over time
      value = np.sum(value, 0, keepdims=True, dtype=np.float64)
    return value

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    return {
      **super().get_config(),
      'input_name': self.input_name,
      'is_deflated': self.is_deflated,
      'use_remat': self.use_remat,
      'token_layer': self.token_layer,
    }
