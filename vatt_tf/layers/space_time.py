"""Convolutions and max pools over time and space, with padding SAME.

They compute what `tf.nn.conv3d` and `tf.nn.max_pool3d` compute, from operations
on two axes where that is possible: these are faster on CPUs, and the gradient
of TensorFlow's 3-D max pool on CPUs goes to every one of equal maxima instead
of the first.
"""

from collections.abc import Iterable, Sequence
import math
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import tensor_utils

Window = tuple[int, int, int]
Steps = tuple[Window, Window]  # window and strides


def check_blocks(frames: int, height: int, width: int) -> None:
  """Raises ValueError unless `space_to_depth` takes a video of this size."""
  if (frames % 2 and frames != 1) or height % 2 or width % 2:
    raise ValueError(
      'Space to depth needs an even number of frames and an even height and '
      f'width. Received: {frames} frames of {height} x {width}. Change the '
      "size of the frames or their number, or use first_layer='plain'."
    )


def space_to_depth(video: tf.Tensor) -> tf.Tensor:
  """Moves blocks of 2 x 2 x 2 pixels to channels.

  Args:
    video: (B, T, H, W, C); T even or 1, in which case only space is moved; H
      and W even; all static but B.

  Returns:
    (B, T/2, H/2, W/2, 8 C), or (B, 1, H/2, W/2, 4 C); the channel is ((t * 2 +
    h) * 2 + w) * C + c.

  Raises:
    ValueError: A size is odd.
  """
  t, h, w, c = video.shape[1:]
  block = 1 if t == 1 else 2
  check_blocks(t, h, w)
  x = tf.reshape(video, [-1, t // block, block, h // 2, 2, w // 2, 2, c])
  x = tf.transpose(x, [0, 1, 3, 5, 2, 4, 6, 7])
  return tf.reshape(x, [-1, t // block, h // 2, w // 2, block * 4 * c])


def max_pool(x: tf.Tensor, window: Window, strides: Window) -> tf.Tensor:
  """Returns the maxima of windows; the gradient goes to the first maximum.

  Args:
    x: (B, T, H, W, C) float; all static but B.
    window: Frames, height and width of a window.
    strides: Steps between windows, likewise.

  Returns:
    (B, T', H', W', C).
  """
  t, h, w, c = x.shape[1:]
  if window[1:] != (1, 1) or strides[1:] != (1, 1):
    x = tf.reshape(x, [-1, h, w, c])
    x = tf.nn.max_pool2d(x, window[1:], strides[1:], 'SAME')
    h, w = x.shape[1:3]
    x = tf.reshape(x, [-1, t, h, w, c])
  if window[0] != 1 or strides[0] != 1:
    x = tf.reshape(x, [-1, t, h * w, c])
    x = tf.nn.max_pool2d(x, (window[0], 1), (strides[0], 1), 'SAME')
    x = tf.reshape(x, [-1, x.shape[1], h, w, c])
  return x


def output_size(size: Sequence[int | None], strides: Window) -> Window:
  """Returns the frames, height and width after a stride, rounded up."""
  return tuple(
    n if n is None else -(-n // stride) for n, stride in zip(size, strides)
  )


def shapes_along(
  layers: Iterable[tf_keras.layers.Layer], input_shape: Sequence[int | None]
) -> list[tf.TensorShape]:
  """Returns the shapes between layers that run one after another.

  Args:
    layers: Layers with `compute_output_shape`.
    input_shape: Shape of the input of the first.

  Returns:
    The input's shape of each layer, and the output's shape of the last.
  """
  shapes = [tf.TensorShape(input_shape)]
  for layer in layers:
    shapes.append(layer.compute_output_shape(shapes[-1]))
  return shapes


def flops_along(
  layers: Sequence[tf_keras.layers.Layer], input_shape: Sequence[int]
) -> int:
  """Returns the FLOPs on one clip of layers that run one after another.

  Args:
    layers: Layers with `compute_output_shape` and `flops`.
    input_shape: Shape of the input of the first.

  Returns:
    Number of FLOPs; a multiplication and an addition are two.
  """
  shapes = shapes_along(layers, input_shape)
  return sum(layer.flops(shape) for layer, shape in zip(layers, shapes))


def num_elements(shape: Sequence[int | None]) -> int:
  """Returns the number of values per clip of a map (B, T, H, W, C)."""
  return math.prod(shape[1:])


def kept_along(
  layers: Sequence[tf_keras.layers.Layer], input_shape: Sequence[int]
) -> int:
  """Returns what layers that run one after another keep for their gradients.

  Args:
    layers: Layers with `compute_output_shape` and `num_kept`, the number of
      values per clip that are kept beside the layer's input and output.
    input_shape: Shape of the input of the first.

  Returns:
    Number of values per clip, beside the first input and the last output.
  """
  *inputs, _ = shapes_along(layers, input_shape)
  kept = sum(layer.num_kept(shape) for layer, shape in zip(layers, inputs))
  return kept + sum(num_elements(shape) for shape in inputs[1:])


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class MaxPool(tf_keras.layers.Layer):
  """`max_pool` as a layer, which has no weights.

  Args:
    window: Frames, height and width of a window.
    strides: Steps between windows, likewise.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, T, H, W, C) float; all static but B.
    training: Not used.

  Returns:
    (B, T', H', W', C).
  """

  def __init__(self, window: Window, strides: Window, **kwargs: Any):
    super().__init__(**kwargs)
    self.window = tuple(window)
    self.strides = tuple(strides)

  @property
  def steps_of_places(self) -> list[Steps]:
    """Window and strides; see `models.convolutional_tower`."""
    return [(self.window, self.strides)]

  def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
    """Pools `x`; see the class."""
    del training
    return max_pool(x, self.window, self.strides)

  def compute_output_shape(self, input_shape: Sequence[int]) -> tf.TensorShape:
    """Returns (B, T', H', W', C)."""
    size = output_size(input_shape[1:4], self.strides)
    return tf.TensorShape([input_shape[0], *size, input_shape[-1]])

  def flops(self, input_shape: Sequence[int]) -> int:
    """Returns 0: comparisons are not counted."""
    del input_shape
    return 0

  def num_kept(self, input_shape: Sequence[int]) -> int:
    """Returns the values per clip between the pools over space and time."""
    if self.window[0] == 1 or self.window[1:] == (1, 1):
      return 0
    size = output_size(input_shape[1:4], (1, *self.strides[1:]))
    return num_elements([None, *size, input_shape[-1]])

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'window': self.window,
      'strides': self.strides,
    }


def window_offset(size: int, window: int, stride: int) -> float:
  """Returns how far a window's middle is from that of the steps it stands for.

  With padding `SAME`, output i is at input stride i to stride (i + 1) - 1. If
  the window cannot be padded evenly at both ends, it lies further on.

  Args:
    size: Size of the input along an axis.
    window: Size of the window.
    stride: Steps between windows.

  Returns:
    The offset in steps of the input.
  """
  padding = max((-(-size // stride) - 1) * stride + window - size, 0)
  return (window - stride) / 2 - padding // 2


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class SpaceTimeConvolution(tf_keras.layers.Layer):
  """A convolution over time and space without bias.

  Args:
    filters: Number of output channels.
    window: Frames, height and width of the kernel.
    strides: Steps, likewise.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, T, H, W, C) float; all static but B.

  Returns:
    (B, T', H', W', filters) in the compute dtype.

  Example:
    >>> layer = SpaceTimeConvolution(4, (3, 1, 1), strides=(2, 1, 1))
    >>> layer(tf.zeros([1, 8, 5, 5, 3])).shape
    TensorShape([1, 4, 5, 5, 4])
  """

  def __init__(
    self,
    filters: int,
    window: Window,
    strides: Window = (1, 1, 1),
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    self.filters = filters
    self.window = tuple(window)
    self.strides = tuple(strides)

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `kernel`, (frames, height, width, C, filters)."""
    self.kernel = self.add_weight(
      name='kernel',
      shape=[*self.window, input_shape[-1], self.filters],
      initializer=tf_keras.initializers.HeNormal(),
    )
    super().build(input_shape)

  def call(self, x: tf.Tensor) -> tf.Tensor:
    """Convolves `x`; see the class."""
    t, h, w, c = x.shape[1:]
    kernel = tf.cast(self.kernel, x.dtype)
    if self.window[0] == 1:  # frame by frame
      if self.strides[0] > 1:
        x = x[:, :: self.strides[0]]
        t = x.shape[1]
      x = tf.reshape(x, [-1, h, w, c])
      x = tf.nn.conv2d(x, tf.squeeze(kernel, 0), self.strides[1:], 'SAME')
      return tf.reshape(x, [-1, t, *x.shape[1:]])
    if self.window[1:] == (1, 1) and self.strides[1:] == (1, 1):
      x = tf.reshape(x, [-1, t, h * w, c])
      kernel = tf.squeeze(kernel, 1)
      x = tf.nn.conv2d(x, kernel, (self.strides[0], 1), 'SAME')
      return tf.reshape(x, [-1, x.shape[1], h, w, self.filters])
    return tf.nn.conv3d(x, kernel, [1, *self.strides, 1], 'SAME')

  def compute_output_shape(self, input_shape: Sequence[int]) -> tf.TensorShape:
    """Returns (B, T', H', W', filters)."""
    size = output_size(input_shape[1:4], self.strides)
    return tf.TensorShape([input_shape[0], *size, self.filters])

  def flops(self, input_shape: Sequence[int]) -> int:
    """Returns the FLOPs on one clip, a multiply-add counted as two.

    Args:
      input_shape: (B, T, H, W, C).

    Returns:
      Number of FLOPs.
    """
    numbers = num_elements(self.compute_output_shape(input_shape))
    return 2 * numbers * math.prod(self.window) * input_shape[-1]

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'filters': self.filters,
      'window': self.window,
      'strides': self.strides,
    }


def mean_over_places(x: tf.Tensor) -> tf.Tensor:
  """Returns the mean over time and space: (B, ..., C) to (B, C) float32."""
  x = tf.cast(x, tensor_utils.accumulation_dtype(x.dtype))
  return tf.reduce_mean(x, list(range(1, x.shape.rank - 1)))
