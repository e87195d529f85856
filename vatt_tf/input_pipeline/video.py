"""Frames of a clip: which of them, which window, and the model's input.

Each step is a pure function in TensorFlow ops, so that a served model can hold
it. What is random takes a `seed`, a (2,) integer tensor.
"""

import tensorflow as tf

from vatt_tf.input_pipeline import colors, frame_ops, video_config

# Which frames.


def sample_indices(
  timestamps: tf.Tensor,
  offset: tf.Tensor,
  duration: tf.Tensor,
  num_frames: int,
  frame_rate: float,
  short_clip: str = video_config.LOOP,
) -> tf.Tensor:
  """The stored frames nearest to the wanted times.

  Args:
    timestamps: (n,) int64, rising times of the stored frames in µs; n > 0.
    offset: () int64, time of the first wanted frame in µs.
    duration: () int64, what the record lasts in µs, at which `loop` starts
      again.
    num_frames: T.
    frame_rate: Frames a second.
    short_clip: `loop` or `hold`.

  Returns:
    (T,) int32, in [0, n).
  """
  steps = tf.range(num_frames, dtype=tf.float64) * (1e6 / frame_rate)
  times = offset + tf.cast(tf.round(steps), tf.int64)  # (T,)
  if short_clip == video_config.LOOP:
    times %= tf.maximum(duration, 1)
  # A time belongs to frame i when it lies before the middle of i and i + 1.
  middles = (timestamps[:-1] + timestamps[1:] + 1) // 2  # (n - 1,)
  return tf.searchsorted(middles, times, side='right', out_type=tf.int32)


# Which window.


def window_of(
  height: tf.Tensor, width: tf.Tensor, size: tuple[int, int], scale: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """The largest window of the output's aspect ratio, times `scale`.

  Args:
    height: () int32, of the frames.
    width: () int32, of the frames.
    size: Height and width of the output.
    scale: () float32; above 1 is taken as 1.

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
  """The window of a training clip.

  Args:
    height: () int32, of the frames.
    width: () int32, of the frames.
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
    # What does not fit is cut to the frame.
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
  """Windows, (4,) int32, that no one of training is smaller or larger than."""
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
  # A pixel to spare, for what rounding may do in another order.
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
  """The window of an evaluation clip.

  Args:
    height: () int32, of the frames.
    width: () int32, of the frames.
    config: See `VideoConfig`.
    crop: With three crops: 0 is the left or upper one, 1 the middle, 2 the
      right or lower one.

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


def load_frames(
  frames: tf.Tensor,
  indices: tf.Tensor,
  config: video_config.VideoConfig,
  seed: tf.Tensor | None = None,
  crop: int = 0,
) -> tf.Tensor:
  """Decodes the sampled frames of a record, each stored frame at most once.

  Args:
    frames: (n,) string, JPEG images.
    indices: (T,) int32, the frames of the clip.
    config: See `VideoConfig`.
    seed: (2,) integer, or None for the central window of evaluation.
    crop: Which window of evaluation (`central_window`).

  Returns:
    (T, h, w, 3) uint8.

  Raises:
    tf.errors.InvalidArgumentError: A frame is corrupt. Raised when it runs.
  """
  wanted, places = tf.unique(indices)
  frames = tf.gather(frames, wanted)
  height, width = frame_ops.frame_shape(frames)
  if seed is None:
    window = central_window(height, width, config, crop)
  else:
    window = random_window(height, width, config, seed)
  frames = frame_ops.decode_frames(frames, window, config.size)
  return tf.gather(frames, places)


def finish_frames(
  frames: tf.Tensor,
  config: video_config.VideoConfig,
  seed: tf.Tensor | None = None,
) -> tf.Tensor:
  """Resizes and augments a decoded clip.

  Args:
    frames: (T, h, w, 3) uint8.
    config: See `VideoConfig`.
    seed: (2,) integer, or None for evaluation: no augmentation.

  Returns:
    (T, H, W, 3) float32, in [-1, 1].
  """
  if seed is None:
    frames = tf.ensure_shape(
      frame_ops.resize(frames, config.size), config.shape
    )
    return frame_ops.scale_values(frames)
  flip_seed, color_seed = tf.unstack(tf.random.split(seed, 2))
  frames = frame_ops.random_flip(frames, config.flip_rate, flip_seed)
  frames = tf.ensure_shape(frame_ops.resize(frames, config.size), config.shape)
  if not config.color_rate and not config.gray_rate:
    return frame_ops.scale_values(frames)
  mean = colors.mean_color(frames)
  return colors.apply_transform(
    frames, *colors.color_transform(mean, config, color_seed)
  )
