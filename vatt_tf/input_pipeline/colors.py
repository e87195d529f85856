"""Color augmentation of frames, as one affine map of their values."""

import math

import tensorflow as tf

from vatt_tf.input_pipeline import video_config

# Colours as brightness and two axes of chroma (YIQ), and back.
_RGB_TO_YIQ = (
  (0.299, 0.59590059, 0.21153661),
  (0.587, -0.27455667, -0.52273617),
  (0.114, -0.32134392, 0.31119955),
)

_YIQ_TO_RGB = (
  (1.0, 1.0, 1.0),
  (0.95598634, -0.27201283, -1.10674021),
  (0.6208248, -0.64720424, 1.70423049),
)


def color_transform(
  mean: tf.Tensor, config: video_config.VideoConfig, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Draws a change of colours, as one affine map of the three channels.

  On a scale from 0 to 1, and in this order: brightness is added; saturation
  scales and hue rotates the chroma (in YIQ, where both are linear; `tf.image`
  works in HSV); contrast scales the distance from the clip's mean colour.

  Args:
    mean: (3,) float32: mean colour of the clip, in [0, 1].
    config: See `VideoConfig`.
    seed: (2,) integer.

  Returns:
    Matrix (3, 3) and bias (3,), float32: the new colour is
    `color @ matrix + bias`, clipped to [0, 1].
  """
  draws = tf.random.stateless_uniform([6], seed)

  def between(bounds, draw):
    return bounds[0] + (bounds[1] - bounds[0]) * draw

  limit = config.max_brightness
  brightness = between((-limit, limit), draws[0])
  contrast = between(config.contrast_range, draws[1])
  saturation = between(config.saturation_range, draws[2])
  limit = 2.0 * math.pi * config.max_hue
  angle = between((-limit, limit), draws[3])
  is_changed = draws[4] < config.color_rate
  brightness = tf.where(is_changed, brightness, 0.0)
  contrast = tf.where(is_changed, contrast, 1.0)
  saturation = tf.where(is_changed, saturation, 1.0)
  angle = tf.where(is_changed, angle, 0.0)
  # A clip can be made gray even where its other colours do not change.
  saturation = tf.where(draws[5] < config.gray_rate, 0.0, saturation)
  cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
  zero = tf.zeros([])
  rotation = tf.reshape(
    tf.stack([tf.ones([]), zero, zero, zero, cos, sin, zero, -sin, cos]), [3, 3]
  )
  chroma = tf.constant(_RGB_TO_YIQ) @ rotation @ tf.constant(_YIQ_TO_RGB)
  bias = tf.fill([1, 3], brightness) @ chroma
  bias += (1.0 - contrast) * (mean[None] @ chroma)
  return contrast * chroma, bias[0]


def mean_color(frames: tf.Tensor) -> tf.Tensor:
  """Returns the mean colour of a clip, over a grid of its pixels.

  The grid has every fourth frame. Where the frames are larger than 64 pixels,
  it has every eighth pixel of every eighth row, otherwise every pixel.

  Args:
    frames: (n, h, w, 3) float32, in [0, 255].

  Returns:
    (3,) float32, in [0, 1].
  """
  step = 8 if min(frames.shape[1:3]) > 64 else 1
  pixels = tf.cast(frames[::4, ::step, ::step], tf.float32)
  return tf.reduce_mean(pixels, axis=[0, 1, 2]) / 255.0


def apply_transform(
  frames: tf.Tensor, matrix: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
  """Applies a change of colours and brings the values to [-1, 1].

  Args:
    frames: (T, H, W, 3) float32 of static shape, in [0, 255].
    matrix: (3, 3) float32: matrix of `color_transform`.
    bias: (3,) float32: bias of `color_transform`.

  Returns:
    (T, H, W, 3) float32, in [-1, 1].
  """
  shape = frames.shape
  # Four pixels at a time, because matrix products and sums over a last axis of
  # 3 are several times slower. Likewise the bias is added to whole rows.
  group = 4 if shape.num_elements() % 12 == 0 else 1
  blocks = tf.einsum('ij,cd->icjd', tf.eye(group), matrix * (2.0 / 255.0))
  blocks = tf.reshape(blocks, [3 * group, 3 * group])  # Copies of `matrix`.
  frames = tf.reshape(frames, [-1, 3 * group]) @ blocks
  frames = tf.reshape(frames, [-1, 3 * shape[2]])  # (T*H, W*3)
  frames += tf.tile(2.0 * bias - 1.0, [shape[2]])
  # This op needs one pass, where `tf.clip_by_value` needs two.
  frames = tf.raw_ops.ClipByValue(
    t=frames, clip_value_min=-1.0, clip_value_max=1.0
  )
  return tf.reshape(frames, shape)
