"""Blocks of a ResNet v2 with bottlenecks (He et al. 2016), on time and space.

Maps are (B, T, H, W, C); convolutions see single frames. Frames exchange values
only by the temporal shift of `BottleneckBlock`.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.layers import (
  cross_replica_batch_norm,
  space_time,
  temporal_shift,
)
from vatt_tf.models import tower

# Number of blocks, and output channels at width 1, of the units of ResNet-50.
UNITS = ((3, 256), (4, 512), (6, 1024), (3, 2048))


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class Stem(tf_keras.layers.Layer):
  """A 7 x 7 convolution and a 3 x 3 max pool, each with stride 2.

  Args:
    filters: Number of output channels.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, T, H, W, C) float, all static but B.
    training: Not used: there is no norm.

  Returns:
    (B, T, H / 4, W / 4, filters), sizes rounded up, in the compute dtype.
  """

  def __init__(self, filters: int, **kwargs: Any):
    super().__init__(**kwargs)
    self.filters = filters
    dtype = self.dtype_policy
    self.convolution = space_time.SpaceTimeConvolution(
      filters, (1, 7, 7), (1, 2, 2), dtype=dtype, name='convolution'
    )
    self.max_pool = space_time.MaxPool(
      (1, 3, 3), (1, 2, 2), dtype=dtype, name='max_pool'
    )

  @property
  def steps_of_places(
    self,
  ) -> list[tuple[space_time.Window, space_time.Window]]:
    """Windows and strides; see `ConvolutionalTower`."""
    layers = (self.convolution, self.max_pool)
    return [(layer.window, layer.strides) for layer in layers]

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates the weights of the convolution."""
    tower.build_scoped(self.convolution, input_shape)
    super().build(input_shape)

  def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Convolves and pools `x`; see the class."""
    del training
    return self.max_pool(self.convolution(x))

  def compute_output_shape(self, input_shape: Sequence[int]) -> tf.TensorShape:
    """Returns (B, T, H / 4, W / 4, filters)."""
    layers = (self.convolution, self.max_pool)
    return space_time.shapes_along(layers, input_shape)[-1]

  def flops(self, input_shape: Sequence[int]) -> int:
    """Returns the FLOPs on one clip, of an input (B, T, H, W, C)."""
    return self.convolution.flops(input_shape)

  def num_kept(self, input_shape: Sequence[int]) -> int:
    """Returns the values per clip between convolution and pool."""
    return space_time.num_elements(
      self.convolution.compute_output_shape(input_shape)
    )

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {**super().get_config(), 'filters': self.filters}


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class BottleneckBlock(tf_keras.layers.Layer):
  """Norm and ReLU before each of three convolutions, and a shortcut.

  Args:
    filters: Number of output channels.
    stride: Step of the 3 x 3 convolution in height and width.
    has_projection: Whether the shortcut is a convolution, of the input after
      norm and ReLU. Otherwise it is the input.
    shift_share: Share of the channels that the temporal shift moves each way
      before the first convolution; 0 for no shift.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, T, H, W, C) float, all static but B.
    training: Whether batch norms use the statistics of the batch.

  Returns:
    (B, T, H', W', filters) in the compute dtype.
  """

  def __init__(
    self,
    filters: int,
    stride: int = 1,
    has_projection: bool = False,
    shift_share: float = 0.0,
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    self.filters = filters
    self.stride = stride
    self.has_projection = has_projection
    self.shift_share = shift_share
    dtype = self.dtype_policy
    strides = (1, stride, stride)
    width = filters // 4
    self.shortcut = None
    if has_projection:
      self.shortcut = space_time.SpaceTimeConvolution(
        filters, (1, 1, 1), strides, dtype=dtype, name='shortcut'
      )
    for i, options in enumerate(
      (
        (width, (1, 1, 1)),
        (width, (1, 3, 3), strides),
        (filters, (1, 1, 1)),
      )
    ):
      norm = cross_replica_batch_norm.mmv_norm(f'norm_{i}', dtype)
      setattr(self, f'norm_{i}', norm)
      convolution = space_time.SpaceTimeConvolution(
        *options, dtype=dtype, name=f'convolution_{i}'
      )
      setattr(self, f'convolution_{i}', convolution)

  @property
  def _steps(self):
    """The pairs of a norm and the convolution after it."""
    return (
      (self.norm_0, self.convolution_0),
      (self.norm_1, self.convolution_1),
      (self.norm_2, self.convolution_2),
    )

  @property
  def _convolutions(self):
    return [convolution for _, convolution in self._steps]

  @property
  def steps_of_places(
    self,
  ) -> list[tuple[space_time.Window, space_time.Window]]:
    """Windows and strides; see `ConvolutionalTower`."""
    # The window of the 3 x 3 convolution lies as far to one side as that of the
    # shortcut to the other.
    strides = (1, self.stride, self.stride)
    return [(strides, strides)]

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates the weights of the sub-layers."""
    tower.build_scoped(self.shortcut, input_shape)
    shape = input_shape
    for norm, convolution in self._steps:
      tower.build_scoped(norm, shape)
      tower.build_scoped(convolution, shape)
      shape = convolution.compute_output_shape(shape)
    super().build(input_shape)

  def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Runs the block on `x`; see the class."""
    shortcut = x
    for i, (norm, convolution) in enumerate(self._steps):
      x = tf.nn.relu(norm(x, training=training))
      if i == 0:
        if self.shortcut is not None:
          shortcut = self.shortcut(x)
        x = temporal_shift.temporal_shift(x, self.shift_share)
      x = convolution(x)
    return shortcut + x

  def compute_output_shape(self, input_shape: Sequence[int]) -> tf.TensorShape:
    """Returns (B, T, H', W', filters)."""
    return space_time.shapes_along(self._convolutions, input_shape)[-1]

  def flops(self, input_shape: Sequence[int]) -> int:
    """Returns the FLOPs on one clip, of an input (B, T, H, W, C)."""
    shortcut = self.shortcut.flops(input_shape) if self.has_projection else 0
    return shortcut + space_time.flops_along(self._convolutions, input_shape)

  def num_kept(self, input_shape: Sequence[int]) -> int:
    """Returns the values per clip that are kept for gradients.

    They are the outputs of the three ReLUs and of the first two convolutions,
    and what the temporal shift makes.

    Args:
      input_shape: (B, T, H, W, C).

    Returns:
      Number of values beside input and output.
    """
    first, *inner, _ = map(
      space_time.num_elements,
      space_time.shapes_along(self._convolutions, input_shape),
    )
    has_shift = temporal_shift.num_shifted(input_shape[-1], self.shift_share)
    return first * (2 if has_shift else 1) + 2 * sum(inner)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'filters': self.filters,
      'stride': self.stride,
      'has_projection': self.has_projection,
      'shift_share': self.shift_share,
    }


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class NormAndRelu(tf_keras.layers.Layer):
  """The batch norm and ReLU after the last block.

  Args:
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (..., C) float.
    training: Whether the norm uses the statistics of the batch.

  Returns:
    Like `x`.
  """

  def __init__(self, **kwargs: Any):
    super().__init__(**kwargs)
    self.norm = cross_replica_batch_norm.mmv_norm('norm', self.dtype_policy)

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates the weights of the norm."""
    tower.build_scoped(self.norm, input_shape)
    super().build(input_shape)

  def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Normalises `x`; see the class."""
    return tf.nn.relu(self.norm(x, training=training))

  def compute_output_shape(self, input_shape: Sequence[int]) -> tf.TensorShape:
    """Returns the shape of `x`."""
    return tf.TensorShape(input_shape)

  def flops(self, input_shape: Sequence[int]) -> int:
    """Returns 0: elementwise operations are not counted."""
    del input_shape
    return 0

  def num_kept(self, input_shape: Sequence[int]) -> int:
    """Returns 0: only input and output are kept."""
    del input_shape
    return 0


def scaled(channels: int, width_factor: float) -> int:
  """Returns a number of channels at a width.

  Args:
    channels: Number of channels at width 1, a multiple of 64.
    width_factor: Factor of all numbers of channels, a multiple of 1 / 8.

  Raises:
    ValueError: `width_factor` is not a positive multiple of 1 / 8.
  """
  eighths = width_factor * 8
  if eighths < 1 or eighths != int(eighths):
    raise ValueError(
      '`width_factor` must be a multiple of 1/8, such as 0.25, 1 or 2. '
      f'Received: width_factor={width_factor}'
    )
  return channels // 8 * int(eighths)


def parts(
  width_factor: float, shift_share: float
) -> dict[str, tuple[type[tf_keras.layers.Layer], dict[str, Any]]]:
  """Returns the parts of a ResNet-50, from the stem to the last norm.

  Args:
    width_factor: See `scaled`.
    shift_share: See `BottleneckBlock`.

  Returns:
    The class of each part and its arguments by the part's name, in the order in
    which they run.

  Raises:
    ValueError: See `scaled`.
  """
  layers = {'stem': (Stem, {'filters': scaled(64, width_factor)})}
  for i, (num_blocks, channels) in enumerate(UNITS):
    for j in range(num_blocks):
      layers[f'unit_{i}_block_{j}'] = (
        BottleneckBlock,
        {
          'filters': scaled(channels, width_factor),
          'stride': 2 if i and not j else 1,
          'has_projection': not j,
          'shift_share': shift_share,
        },
      )
  layers['last_norm'] = (NormAndRelu, {})
  return layers
