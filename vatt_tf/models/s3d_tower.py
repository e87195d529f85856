"""The convolutional video tower S3D-G (Xie et al. 2018), as MMV uses it."""

from collections.abc import Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.layers import cross_replica_batch_norm, space_time
from vatt_tf.models import convolutional_tower, tower

_FIRST_LAYERS = ('space_to_depth', 'plain')

_Window = space_time.Window

# The parts after the first in the order in which they run. Of a pool: window
# and strides in frames, height and width. Of a mixed block: channels of branch
# 0, of the reduction and the output of branches 1 and 2, and of branch 3.
_PARTS = {
  'maxpool_2a_3x3': ((1, 3, 3), (1, 2, 2)),
  'conv2d_2b_1x1': 64,
  'conv2d_2c_3x3': 192,
  'maxpool_3a_3x3': ((1, 3, 3), (1, 2, 2)),
  'mixed_3b': (64, 96, 128, 16, 32, 32),
  'mixed_3c': (128, 128, 192, 32, 96, 64),
  'maxpool_4a_3x3': ((3, 3, 3), (2, 2, 2)),
  'mixed_4b': (192, 96, 208, 16, 48, 64),
  'mixed_4c': (160, 112, 224, 24, 64, 64),
  'mixed_4d': (128, 128, 256, 24, 64, 64),
  'mixed_4e': (112, 144, 288, 32, 64, 64),
  'mixed_4f': (256, 160, 320, 32, 128, 128),
  'maxpool_5a_2x2': ((2, 2, 2), (2, 2, 2)),
  'mixed_5b': (256, 160, 320, 32, 128, 128),
  'mixed_5c': (384, 192, 384, 48, 128, 128),
}

_WIDTH = 1024


def _one_frame(window):
  """The window or the strides of the image network."""
  return (1, *window[1:])


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class SelfGating(tf_keras.layers.Layer):
  """Scales channels by a sigmoid of a linear map of their means.

  Args:
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, T, H, W, C) float.

  Returns:
    Like `x`.
  """

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `kernel` (C, C) and `bias` (C,)."""
    width = input_shape[-1]
    self.kernel = self.add_weight(
      name='kernel', shape=[width, width], initializer='glorot_uniform'
    )
    self.bias = self.add_weight(name='bias', shape=[width], initializer='zeros')
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Scales `x`; see the class."""
    gate = tf.cast(tf.sigmoid(self.scores(x)), x.dtype)
    return x * gate[:, tf.newaxis, tf.newaxis, tf.newaxis]

  def scores(self, x: tf.Tensor) -> tf.Tensor:
    """Returns the inputs of the sigmoid, (B, C), at least float32."""
    mean = space_time.mean_over_places(x)
    kernel = tf.cast(self.kernel, mean.dtype)
    return mean @ kernel + tf.cast(self.bias, mean.dtype)


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class ConvolutionUnit(tf_keras.layers.Layer):
  """Convolution, batch norm and ReLU, in one or two steps, and a gate.

  Args:
    filters: Number of output channels.
    windows: Windows of the steps, such as ((1, 3, 3), (3, 1, 1)).
    strides: Strides of the first step.
    is_gated: Whether a gate follows.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, T, H, W, C) float, all static but B.
    training: Whether batch norms use the statistics of the batch.

  Returns:
    (B, T', H', W', filters) in the compute dtype.
  """

  def __init__(
    self,
    filters: int,
    windows: Sequence[_Window],
    strides: _Window = (1, 1, 1),
    is_gated: bool = False,
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    self.filters = filters
    self.windows = tuple(tuple(window) for window in windows)
    self.strides = tuple(strides)
    self.is_gated = is_gated
    for i, window in enumerate(self.windows):
      convolution = space_time.SpaceTimeConvolution(
        filters,
        window,
        (1, 1, 1) if i else self.strides,
        dtype=self.dtype_policy,
        name=f'convolution_{i}',
      )
      setattr(self, f'convolution_{i}', convolution)
      norm = cross_replica_batch_norm.mmv_norm(f'norm_{i}', self.dtype_policy)
      setattr(self, f'norm_{i}', norm)
    self.self_gating = None
    if is_gated:
      self.self_gating = SelfGating(dtype=self.dtype_policy, name='self_gating')

  def _steps(self):
    """The pairs of a convolution and its norm."""
    for i in range(len(self.windows)):
      yield getattr(self, f'convolution_{i}'), getattr(self, f'norm_{i}')

  def _convolutions(self):
    return [convolution for convolution, _ in self._steps()]

  @property
  def steps_of_places(
    self,
  ) -> list[tuple[space_time.Window, space_time.Window]]:
    """Windows and strides; see `ConvolutionalTower`."""
    return [(each.window, each.strides) for each in self._convolutions()]

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates the weights of the sub-layers."""
    shape = input_shape
    for convolution, norm in self._steps():
      tower.build_scoped(convolution, shape)
      shape = convolution.compute_output_shape(shape)
      tower.build_scoped(norm, shape)
    tower.build_scoped(self.self_gating, shape)
    super().build(input_shape)

  def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Convolves `x`; see the class."""
    x = self.ungated(x, training)
    return x if self.self_gating is None else self.self_gating(x)

  def ungated(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Returns the input of the gate; see the call."""
    for convolution, norm in self._steps():
      x = tf.nn.relu(norm(convolution(x), training=training))
    return x

  def compute_output_shape(self, input_shape: Sequence[int]) -> tf.TensorShape:
    """Returns (B, T', H', W', filters)."""
    return space_time.shapes_along(self._convolutions(), input_shape)[-1]

  def flops(self, input_shape: Sequence[int]) -> int:
    """Returns the FLOPs on one clip, of an input (B, T, H, W, C)."""
    gate = 2 * self.filters**2 if self.is_gated else 0
    return gate + space_time.flops_along(self._convolutions(), input_shape)

  def num_kept(self, input_shape: Sequence[int]) -> int:
    """Returns the values per clip that are kept for gradients.

    They are the inputs and outputs of the norms with ReLU, apart from the
    output of the unit.

    Args:
      input_shape: (B, T, H, W, C).

    Returns:
      Number of values.
    """
    _, *outputs = space_time.shapes_along(self._convolutions(), input_shape)
    kept = 2 * sum(space_time.num_elements(shape) for shape in outputs)
    return (
      kept if self.is_gated else kept - space_time.num_elements(outputs[-1])
    )

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'filters': self.filters,
      'windows': self.windows,
      'strides': self.strides,
      'is_gated': self.is_gated,
    }


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class InceptionBlock(tf_keras.layers.Layer):
  """Four branches of gated units, whose outputs are concatenated.

  Args:
    channels: Channels of branch 0; of the reduction and the output of branches
      1 and 2; and of branch 3, which follows a max pool.
    is_deflated: Whether windows have one frame.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, T, H, W, C) float, all static but B.
    training: Whether batch norms use the statistics of the batch.

  Returns:
    (B, T, H, W, C') in the compute dtype.
  """

  def __init__(
    self, channels: Sequence[int], is_deflated: bool = False, **kwargs: Any
  ):
    super().__init__(**kwargs)
    self.channels = tuple(channels)
    self.is_deflated = is_deflated
    a, b, c, d, e, f = self.channels
    dtype = self.dtype_policy
    point = ((1, 1, 1),)
    separable = _separable(is_deflated)
    window = _one_frame((3, 3, 3)) if is_deflated else (3, 3, 3)
    self.branch_3_maxpool_0a_3x3 = space_time.MaxPool(
      window, (1, 1, 1), dtype=dtype, name='branch_3_maxpool_0a_3x3'
    )
    for name, filters, windows, is_gated in (
      ('branch_0_conv2d_0a_1x1', a, point, True),
      ('branch_1_conv2d_0a_1x1', b, point, False),
      ('branch_1_conv2d_0b_3x3', c, separable, True),
      ('branch_2_conv2d_0a_1x1', d, point, False),
      ('branch_2_conv2d_0b_3x3', e, separable, True),
      ('branch_3_conv2d_0b_1x1', f, point, True),
    ):
      unit = ConvolutionUnit(
        filters, windows, is_gated=is_gated, dtype=dtype, name=name
      )
      setattr(self, name, unit)

  def _branches(self):
    """The layers of each branch, in the order in which they run."""
    return (
      (self.branch_0_conv2d_0a_1x1,),
      (self.branch_1_conv2d_0a_1x1, self.branch_1_conv2d_0b_3x3),
      (self.branch_2_conv2d_0a_1x1, self.branch_2_conv2d_0b_3x3),
      (self.branch_3_maxpool_0a_3x3, self.branch_3_conv2d_0b_1x1),
    )

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates the weights of the sub-layers."""
    for branch in self._branches():
      shapes = space_time.shapes_along(branch, input_shape)
      for layer, shape in zip(branch, shapes):
        tower.build_scoped(layer, shape)
    super().build(input_shape)

  def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Runs the branches on `x`; see the class."""
    outputs = []
    for branch in self._branches():
      y = x
      for layer in branch:
        y = layer(y, training=training)
      outputs.append(y)
    return tf.concat(outputs, -1)

  def compute_output_shape(self, input_shape: Sequence[int]) -> tf.TensorShape:
    """Returns (B, T, H, W, C')."""
    a, _, c, _, e, f = self.channels
    return tf.TensorShape([*input_shape[:4], a + c + e + f])

  def flops(self, input_shape: Sequence[int]) -> int:
    """Returns the FLOPs on one clip, of an input (B, T, H, W, C)."""
    return sum(
      space_time.flops_along(branch, input_shape) for branch in self._branches()
    )

  def num_kept(self, input_shape: Sequence[int]) -> int:
    """Returns the values per clip that are kept for gradients.

    Args:
      input_shape: (B, T, H, W, C).

    Returns:
      Number of values beside input and output.
    """
    return sum(
      space_time.kept_along(branch, input_shape) for branch in self._branches()
    )

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'channels': self.channels,
      'is_deflated': self.is_deflated,
    }


def _separable(is_deflated):
  """The windows of a 3 x 3 x 3 convolution in two steps."""
  return ((1, 3, 3), (1, 1, 1) if is_deflated else (3, 1, 1))


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class S3DTower(convolutional_tower.ConvolutionalTower):
  """S3D-G: separable 3-D convolutions with gates, on video.

  A network of Inception blocks whose 3 x 3 x 3 convolutions are split into
  space and time, with a gate after them (Xie et al. 2018, "Rethinking
  Spatiotemporal Feature Learning"; Alayrac et al. 2020, MMV). It sees pixels in
  [0, 1], to which it maps its input, and its feature has a width of 1,024.

  Args:
    input_name: `video`.
    first_layer: `space_to_depth` for a kernel of 2 x 4 x 4 on blocks of 2 x 2 x
      2 pixels, as in MMV's released weights, which needs even sizes; or `plain`
      for a kernel of 7 x 7 x 7 with stride 2. They are different networks.
    is_deflated: Whether this is the image network, for videos of one frame.
    use_remat: See `ConvolutionalTower`.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    See `tower.Tower`.

  Returns:
    `tower.TowerOutput`; the tokens are the places of the last map.

  Raises:
    ValueError: An argument is out of its range, or the input does not fit.

  Example:
    >>> S3DTower()(tf.zeros([1, 8, 32, 32, 3])).feature.shape
    TensorShape([1, 1024])
  """

  def __init__(
    self,
    input_name: str = names.VIDEO,
    first_layer: str = 'space_to_depth',
    is_deflated: bool = False,
    use_remat: bool = False,
    **kwargs: Any,
  ):
    super().__init__(input_name, is_deflated, use_remat, **kwargs)
    convolutional_tower.check_input_name(input_name, names.VIDEO)
    if first_layer not in _FIRST_LAYERS:
      raise ValueError(
        f'`first_layer` must be one of {list(_FIRST_LAYERS)}. '
        f'Received: first_layer={first_layer!r}'
      )
    self.first_layer = first_layer
    self._width = _WIDTH
    self._add_parts(self._make_parts())

  def _make_parts(self):
    """The class and the arguments of each part."""
    crop = _one_frame if self.is_deflated else tuple
    window, strides = (7, 7, 7), (2, 2, 2)
    if self.first_layer == 'space_to_depth':
      window, strides = (2, 4, 4), (1, 1, 1)
    parts = {
      'conv2d_1a_7x7': (
        ConvolutionUnit,
        {'filters': 64, 'windows': (crop(window),), 'strides': crop(strides)},
      )
    }
    for name, sizes in _PARTS.items():
      if name.startswith('mixed'):
        options = {'channels': sizes, 'is_deflated': self.is_deflated}
        parts[name] = InceptionBlock, options
      elif name.startswith('maxpool'):
        window, strides = sizes
        options = {'window': crop(window), 'strides': crop(strides)}
        parts[name] = space_time.MaxPool, options
      else:
        is_separable = name.endswith('3x3')
        windows = ((1, 1, 1),)
        if is_separable:
          windows = _separable(self.is_deflated)
        parts[name] = (
          ConvolutionUnit,
          {'filters': sizes, 'windows': windows, 'is_gated': is_separable},
        )
    return parts

  @property
  def width(self) -> int:
    """Width of the feature, 1,024."""
    return self._width

  def _input_map(self, x):
    convolutional_tower.check_video(x, self.is_deflated)
    x = convolutional_tower.unit_range(x, self.compute_dtype)
    if self.first_layer == 'space_to_depth':
      x = space_time.space_to_depth(x)
    return x

  def _input_map_shape(self, input_shape):
    shape = [None, *(input_shape or (None, None, None, 3))]
    if self.first_layer == 'plain':
      return shape
    if input_shape:
      space_time.check_blocks(*input_shape[:3])
    block = (1 if self.is_deflated else 2, 2, 2)
    size = space_time.output_size(shape[1:4], block)
    return [None, *size, (4 if self.is_deflated else 8) * 3]

  def _deflate_weight(self, weight, shape):
    value = np.asarray(weight)
    if len(shape) == 5 and value.shape[3] == 2 * shape[3]:
      # Blocks of two frames: channels of the earlier, then of the later.
      value = value[..., : shape[3], :] + value[..., shape[3] :, :]
    return super()._deflate_weight(value, shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    return {**super().get_config(), 'first_layer': self.first_layer}
