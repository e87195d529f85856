"""Frames of a clip: their choice, decoding and augmentation.

Each step is a pure function in TensorFlow ops, so that a served model can
contain it. Random steps take a `seed`, a (2,) integer tensor.
"""

import tensorflow as tf

from vatt_tf.input_pipeline import colors, crop_windows, frame_ops, video_config


def sample_indices(
  timestamps: tf.Tensor,
  offset: tf.Tensor,
  duration: tf.Tensor,
  config: video_config.VideoConfig,
) -> tf.Tensor:
  """Returns the stored frames nearest to the times of a clip's frames.

  Args:
    timestamps: (n,) int64: rising times of the stored frames in µs; n > 0.
    offset: () int64: time of the clip's first frame in µs.
    duration: () int64: length of the record in µs, after which `loop` starts
      again.
    config: See `VideoConfig`; its `num_frames` is T.

  Returns:
    (T,) int32, in [0, n).
  """
  steps = tf.range(config.num_frames, dtype=tf.float64)
  if config.is_still:
    steps = tf.zeros_like(steps)
  steps *= 1e6 / config.frame_rate
  times = offset + tf.cast(tf.round(steps), tf.int64)  # (T,)
  if config.short_clip == video_config.LOOP:
    times %= tf.maximum(duration, 1)
  # A time belongs to frame i if it is before the middle of i and i + 1.
  middles = (timestamps[:-1] + timestamps[1:] + 1) // 2  # (n - 1,)
  return tf.searchsorted(middles, times, side='right', out_type=tf.int32)


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
    crop: Number of the window in evaluation (`central_window`).

  Returns:
    (T, h, w, 3) uint8.

  Raises:
    tf.errors.InvalidArgumentError: A frame is corrupt. It is raised when the
      graph runs.
  """
  unique_indices, places = tf.unique(indices)
  frames = tf.gather(frames, unique_indices)
  height, width = frame_ops.frame_shape(frames)
  if seed is None:
    window = crop_windows.central_window(height, width, config, crop)
  else:
    window = crop_windows.random_window(height, width, config, seed)
  frames = frame_ops.decode_frames(frames, window, config.size)
  return tf.gather(frames, places)


def split_seed(seed: tf.Tensor) -> list[tf.Tensor]:
  """Returns the seeds of the flip and of the colours, of `finish_frames`."""
  return tf.unstack(tf.random.split(seed, 2))


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
  flip_seed, color_seed = split_seed(seed)
  frames = frame_ops.random_flip(frames, config.flip_rate, flip_seed)
  frames = tf.ensure_shape(frame_ops.resize(frames, config.size), config.shape)
  if not config.color_rate and not config.gray_rate:
    return frame_ops.scale_values(frames)
  mean = colors.mean_color(frames)
  return colors.apply_transform(
    frames, *colors.color_transform(mean, config, color_seed)
  )
