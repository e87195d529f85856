"""Turns JPEG frames into pixels: decodes a window of them, resizes, flips."""

from collections.abc import Sequence

import tensorflow as tf

from vatt_tf.input_pipeline import crop_windows, video_config

# The scales at which a JPEG can be decoded directly from its coefficients.
JPEG_RATIOS = (1, 2, 4, 8)

NUM_SCALES = len(JPEG_RATIOS)


# Decoding.


def jpeg_ratio(window: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
  """Returns the scale to decode a window at: () int32, an index of 1, 2, 4, 8.

  It is the largest scale at which the window is no smaller than the output.
  """
  times = tf.minimum(window[2] // size[0], window[3] // size[1])
  return tf.reduce_sum(tf.cast(times >= tf.constant(JPEG_RATIOS[1:]), tf.int32))


def decode_frames(
  frames: tf.Tensor, window: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
  """Decodes a window of JPEG frames.

  Only the window is decoded, and where it is at least twice as large as the
  output, at half (a quarter, an eighth) of its resolution. The pixels equal the
  pixels of the whole frame decoded at that resolution.

  Args:
    frames: (n,) string: JPEG images of one size; n > 0.
    window: (4,) int32: top, left, height, width.
    size: Height and width of the output.

  Returns:
    (n, h, w, 3) uint8; h and w are the sides of the window, or a half (a
    quarter, an eighth) of them.

  Raises:
    tf.errors.InvalidArgumentError: A frame is corrupt, not a JPEG image, or
      smaller than the window or the first frame. It is raised when the graph
      runs.
  """
  spec = tf.TensorSpec([None, None, 3], tf.uint8)
  full_width = frame_shape(frames)[1]
  branches = []
  for ratio in JPEG_RATIOS:

    def branch(ratio=ratio):
      top, left, height, width = tf.unstack(window // ratio)
      start, end = left, left + width
      if ratio == 1:
        # The colours of a pixel depend on its neighbours in the row: with one
        # more column on each side, the window equals that of the whole frame.
        start = tf.maximum(start - 1, 0)
        end = tf.minimum(end + 1, tf.maximum(full_width, end))
      wider = tf.stack([top, start, height, end - start])

      def decode(frame):
        return tf.io.decode_and_crop_jpeg(frame, wider, channels=3, ratio=ratio)

      images = tf.map_fn(decode, frames, fn_output_signature=spec)
      return images[:, :, left - start : left - start + width]

    branches.append(branch)
  return tf.switch_case(jpeg_ratio(window, size), branches)


def decode_whole(
  frames: tf.Tensor, config: video_config.VideoConfig
) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
  """Decodes whole frames, at all the scales that training clips may use.

  Args:
    frames: (n,) string: JPEG images of one size; n > 0.
    config: See `VideoConfig`.

  Returns:
    (n, h, w, 3) uint8 for each of `NUM_SCALES` scales, (0, 0, 0, 3) for the
    scales that no training window uses; and the size of the frames, (2,) int32.

  Raises:
    tf.errors.InvalidArgumentError: A frame is corrupt, not a JPEG image, or of
      another size. It is raised when the graph runs.
  """
  height, width = frame_shape(frames)
  low, high = (
    jpeg_ratio(window, config.size)
    for window in crop_windows.extreme_windows(height, width, config)
  )
  spec = tf.TensorSpec([None, None, 3], tf.uint8)
  decoded = []
  for scale, ratio in enumerate(JPEG_RATIOS):

    def decode(frame, ratio=ratio):
      return tf.io.decode_jpeg(frame, channels=3, ratio=ratio)

    def all_frames(decode=decode):
      return tf.map_fn(decode, frames, fn_output_signature=spec)

    def nothing():
      return tf.zeros([0, 0, 0, 3], tf.uint8)

    decoded.append(
      tf.cond((low <= scale) & (scale <= high), all_frames, nothing)
    )
  return tuple(decoded), tf.stack([height, width])


def take_frames(
  decoded: Sequence[tf.Tensor],
  frame_size: tf.Tensor,
  indices: tf.Tensor,
  config: video_config.VideoConfig,
  seed: tf.Tensor,
) -> tf.Tensor:
  """Cuts a training clip out of frames that are already decoded.

  Args:
    decoded: Frames of `decode_whole`.
    frame_size: Size of the frames of `decode_whole`.
    indices: (T,) int32: indices of the frames of the clip.
    config: See `VideoConfig`.
    seed: (2,) integer.

  Returns:
    (T, h, w, 3) uint8, the same as `load_frames` returns for this seed.
  """
  window = crop_windows.random_window(
    frame_size[0], frame_size[1], config, seed
  )
  branches = []
  for frames, ratio in zip(decoded, JPEG_RATIOS, strict=True):

    def branch(frames=frames, ratio=ratio):
      place = window // ratio
      return tf.slice(
        tf.gather(frames, indices),
        tf.concat([[0], place[:2], [0]], axis=0),
        tf.concat([[-1], place[2:], [3]], axis=0),
      )

    branches.append(branch)
  return tf.switch_case(jpeg_ratio(window, config.size), branches)


def resize(frames: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
  """Resizes frames (bilinear), unless they already have the size.

  Args:
    frames: (n, h, w, 3) uint8.
    size: Height and width.

  Returns:
    (n, *size, 3) float32, in [0, 255].
  """

  def cast():
    return tf.cast(frames, tf.float32)

  def scale():
    return tf.image.resize(frames, size)

  shape = tf.shape(frames)
  has_size = (shape[1] == size[0]) & (shape[2] == size[1])
  frames = tf.cond(has_size, cast, scale)
  frames.set_shape([None, *size, 3])
  return frames


# Augmentation.


def flip(frames: tf.Tensor) -> tf.Tensor:
  """Mirrors frames (n, h, w, 3) left to right."""
  shape = tf.shape(frames)
  rows = tf.reshape(frames, [-1, shape[2], 3])  # (n*h, w, 3)
  return tf.reshape(tf.reverse(rows, [1]), shape)


def is_flipped(rate: float, seed: tf.Tensor) -> tf.Tensor:
  """Returns whether `random_flip` mirrors a clip, () bool."""
  return tf.random.stateless_uniform([], seed) < rate


def random_flip(frames: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
  """Mirrors the frames (n, h, w, 3) of a share of the clips."""
  if not rate:
    return frames

  def mirrored():
    return flip(frames)

  def as_is():
    return frames

  return tf.cond(is_flipped(rate, seed), mirrored, as_is)


def scale_values(frames: tf.Tensor) -> tf.Tensor:
  """Scales values from [0, 255] to [-1, 1]; float32 of any shape."""
  return frames * (2.0 / 255.0) - 1.0


def frame_shape(frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns height and width, () int32, of the first of some JPEG images.

  Raises:
    tf.errors.InvalidArgumentError: The first is not a JPEG image. It is raised
      when the graph runs.
  """
  shape = tf.io.extract_jpeg_shape(frames[0], output_type=tf.int32)
  return shape[0], shape[1]
