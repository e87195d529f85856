"""Windows that are cut out of frames, random or central.

A window is (4,) int32: top, left, height and width in pixels.
"""

import tensorflow as tf

from vatt_tf.input_pipeline import video_config


def window_of(
  height: tf.Tensor, width: tf.Tensor, size: tuple[int, int], scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the largest window of the output's aspect ratio, times `scale`.

  Args:
    height: () int32: height of the frames.
    width: () int32: width of the frames.
    size: Height and width of the output.
    scale: () float32: factor of the sides; values above 1 count as 1.

  Returns:
    Height and width of the window, () int32, at least 1.
  """
  height_f, width_f = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
  unit = tf.minimum(height_f / size[0], width_f / size[1])
  unit *= tf.minimum(scale, 1.0)
  window_height = tf.cast(tf.round(unit * size[0]), tf.int32)
  window_width = tf.cast(tf.round(unit * size[1]), tf.int32)
  return (
    tf.clip_by_value(window_height, 1, height),
    tf.clip_by_value(window_width, 1, width),
  )


def random_window(
  height: tf.Tensor,
  width: tf.Tensor,
  config: video_config.VideoConfig,
  seed: tf.Tensor,
) -> tf.Tensor:
  """Returns a random window for a training clip.

  Args:
    height: () int32: height of the frames.
    width: () int32: width of the frames.
    config: See `VideoConfig`.
    seed: (2,) integer.

  Returns:
    (4,) int32: top, left, height, width.
  """
  draws = tf.random.stateless_uniform([4], seed)
  if config.area_range is None:
    jitter = 1.0 + config.scale_jitter * (2.0 * draws[0] - 1.0)
    window_height, window_width = window_of(
      height, width, config.size, config.scale / jitter
    )
  else:
    low, high = config.area_range
    area = low + (high - low) * draws[0]
    area *= tf.cast(height * width, tf.float32)
    low, high = (tf.math.log(r) for r in config.aspect_ratio_range)
    ratio = tf.exp(low + (high - low) * draws[1])
    # A window that does not fit is clipped to the frame.
    window_height = tf.cast(tf.round(tf.sqrt(area / ratio)), tf.int32)
    window_width = tf.cast(tf.round(tf.sqrt(area * ratio)), tf.int32)
    window_height = tf.clip_by_value(window_height, 1, height)
    window_width = tf.clip_by_value(window_width, 1, width)

  def place(free, draw):
    moved = draw * tf.cast(free + 1, tf.float32)
    return tf.minimum(tf.cast(moved, tf.int32), free)

  top = place(height - window_height, draws[2])
  left = place(width - window_width, draws[3])
  return tf.stack([top, left, window_height, window_width])


def extreme_windows(
  height: tf.Tensor, width: tf.Tensor, config: video_config.VideoConfig
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns windows, (4,) int32, that bound the size of training windows."""
  height_f, width_f = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
  if config.area_range is None:
    jitter = config.scale_jitter
    sizes = [
      window_of(height, width, config.size, tf.constant(config.scale / factor))
      for factor in (1.0 + jitter, 1.0 - jitter)
    ]
  else:
    (small, large), ratios = config.area_range, config.aspect_ratio_range
    sizes = []
    for share, ratio in ((small, ratios), (large, ratios[::-1])):
      area = share * height_f * width_f
      sides = tf.sqrt(area / ratio[1]), tf.sqrt(area * ratio[0])
      sizes.append([tf.cast(tf.round(side), tf.int32) for side in sides])
  # One pixel more, because rounding may differ with the order of operations.
  (low, narrow), (high, wide) = sizes
  return (
    tf.stack([0, 0, tf.maximum(low - 1, 1), tf.maximum(narrow - 1, 1)]),
    tf.stack([0, 0, tf.minimum(high + 1, height), tf.minimum(wide + 1, width)]),
  )


def central_window(
  height: tf.Tensor,
  width: tf.Tensor,
  config: video_config.VideoConfig,
  crop: int = 0,
) -> tf.Tensor:
  """Returns the window of an evaluation clip.

  Args:
    height: () int32: height of the frames.
    width: () int32: width of the frames.
    config: See `VideoConfig`.
    crop: Number of the window with three crops: 0 is the left or upper one, 1
      the middle, 2 the right or lower one.

  Returns:
    (4,) int32: top, left, height, width.
  """
  window_height, window_width = window_of(
    height, width, config.size, tf.constant(config.scale)
  )
  free_height, free_width = height - window_height, width - window_width
  top, left = free_height // 2, free_width // 2
  if config.num_crops == 3:
    top = tf.where(free_height > free_width, free_height * crop // 2, top)
    left = tf.where(free_height > free_width, left, free_width * crop // 2)
  return tf.stack([top, left, window_height, window_width])
