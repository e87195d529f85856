"""Video of a clip: which frames, how they are decoded, cropped and coloured.

Each step is a pure function. What is random takes a `seed`, a (2,) integer
tensor as TensorFlow's stateless functions take it: equal seeds, equal results.
One draw serves all frames of a clip.
"""

from collections.abc import Sequence
import dataclasses
import math

import gin
import tensorflow as tf

LOOP = 'loop'
HOLD = 'hold'

# The scales at which a JPEG can be decoded directly from its coefficients.
JPEG_RATIOS = (1, 2, 4, 8)
NUM_SCALES = len(JPEG_RATIOS)

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


def _check_range(name, value, low, high):
  if len(value) != 2 or not low <= value[0] <= value[1] <= high:
    raise ValueError(
      f'`{name}` must be two rising numbers in [{low}, {high}]. '
      f'Received: {name}={value}'
    )


@gin.register
@dataclasses.dataclass(frozen=True)
class VideoConfig:
  """What the pipeline makes of the video of a record.

  The paper: 32 frames at 10 frames a second, 224 x 224 pixels.

  The window that is cut out of each frame is chosen in one of two ways. By
  default it has the aspect ratio of the output and `scale` times the size of
  the largest such window, divided by a random factor in
  [1 - scale_jitter, 1 + scale_jitter]. With `area_range` its area is a random
  share of the frame's, and its aspect ratio is drawn from `aspect_ratio_range`.
  In training its place is random; in evaluation it lies in the centre, has no
  jitter, and with three crops lies at both ends and in the middle of the longer
  side. It is then resized to `frame_size`, up or down.

  Attributes:
    num_frames: Frames of a clip.
    frame_rate: Frames a second.
    frame_size: Height and width of the output, or a pair of them.
    short_clip: When a record is shorter than the clip: `loop` starts it again
      from its first frame, sound and all (as DMVR does); `hold` repeats its
      last frame, in silence.
    scale: Share of the largest window that is cut out, in (0, 1].
    scale_jitter: In [0, 1).
    area_range: Two numbers in (0, 1], or None.
    aspect_ratio_range: Width by height of the window when `area_range` is
      given.
    flip_rate: Share of training clips that are mirrored left to right.
    color_rate: Share of training clips whose colours are changed.
    max_brightness: Largest amount added, on a scale from 0 to 1.
    contrast_range: Factors of the distance from the clip's mean colour.
    saturation_range: Factors of the chroma.
    max_hue: Largest turn of the hue, as a share of the circle.
    gray_rate: Share of training clips made gray.
    num_clips: Clips taken of a record in evaluation, spread evenly.
    num_crops: Windows of each of them in evaluation, 1 or 3.
  """

  num_frames: int = 32
  frame_rate: float = 10.0
  frame_size: int | tuple[int, int] = 224
  short_clip: str = LOOP
  scale: float = 0.875
  scale_jitter: float = 0.0
  area_range: tuple[float, float] | None = None
  aspect_ratio_range: tuple[float, float] = (0.5, 2.0)
  flip_rate: float = 0.5
  color_rate: float = 0.8
  max_brightness: float = 32.0 / 255.0
  contrast_range: tuple[float, float] = (0.6, 1.4)
  saturation_range: tuple[float, float] = (0.6, 1.4)
  max_hue: float = 0.2
  gray_rate: float = 0.0
  num_clips: int = 1
  num_crops: int = 1

  def __post_init__(self):
    for name in ('num_frames', 'num_clips'):
      if getattr(self, name) < 1:
        raise ValueError(
          f'`{name}` must be at least 1. Received: {name}={getattr(self, name)}'
        )
    if not self.frame_rate > 0:
      raise ValueError(
        f'`frame_rate` must be above 0. Received: frame_rate={self.frame_rate}'
      )
    if min(self.size) < 1:
      raise ValueError(
        '`frame_size` must be at least 1. Received: '
        f'frame_size={self.frame_size}'
      )
    if self.short_clip not in (LOOP, HOLD):
      raise ValueError(
        f'`short_clip` must be {LOOP!r} or {HOLD!r}. Received: '
        f'short_clip={self.short_clip!r}'
      )
    if not 0 < self.scale <= 1:
      raise ValueError(
        f'`scale` must be in (0, 1]. Received: scale={self.scale}'
      )
    if not 0 <= self.scale_jitter < 1:
      raise ValueError(
        '`scale_jitter` must be in [0, 1). Received: '
        f'scale_jitter={self.scale_jitter}'
      )
    for name in ('flip_rate', 'color_rate', 'gray_rate', 'max_hue'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
          f'`{name}` must be in [0, 1]. Received: {name}={getattr(self, name)}'
        )
    if self.area_range is not None:
      _check_range('area_range', self.area_range, 1e-4, 1.0)
    _check_range('aspect_ratio_range', self.aspect_ratio_range, 0.01, 100.0)
    _check_range('contrast_range', self.contrast_range, 0.0, 100.0)
    _check_range('saturation_range', self.saturation_range, 0.0, 100.0)
    if self.num_crops not in (1, 3):
      raise ValueError(
        f'`num_crops` must be 1 or 3. Received: num_crops={self.num_crops}'
      )

  @property
  def size(self) -> tuple[int, int]:
    """Height and width of the output."""
    if isinstance(self.frame_size, int):
      return self.frame_size, self.frame_size
    height, width = self.frame_size
    return height, width

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """(T, H, W, 3)."""
    return (self.num_frames, *self.size, 3)

  @property
  def seconds(self) -> float:
    """What the clip lasts."""
    return self.num_frames / self.frame_rate


# Which frames.


def sample_indices(
  timestamps: tf.Tensor,
  offset: tf.Tensor,
  duration: tf.Tensor,
  num_frames: int,
  frame_rate: float,
  short_clip: str = LOOP,
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
  if short_clip == LOOP:
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
  height: tf.Tensor, width: tf.Tensor, config: VideoConfig, seed: tf.Tensor
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


def _extreme_windows(height, width, config):
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
  height: tf.Tensor, width: tf.Tensor, config: VideoConfig, crop: int = 0
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


# Decoding.


def jpeg_ratio(window: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
  """The scale to decode a window at: () int32, an index of 1, 2, 4, 8.

  It is the largest at which the window has at least the pixels of the output.
  """
  times = tf.minimum(window[2] // size[0], window[3] // size[1])
  return tf.reduce_sum(tf.cast(times >= tf.constant(JPEG_RATIOS[1:]), tf.int32))


def decode_frames(
  frames: tf.Tensor, window: tf.Tensor, size: tuple[int, int]
) -> tf.Tensor:
  """Decodes a window of JPEG frames.

  Only the window is decoded, and where it is at least twice as large as the
  output, at half (a quarter, an eighth) of its resolution. The pixels are those
  of the whole frame decoded at that resolution.

  Args:
    frames: (n,) string, JPEG images of one size; n > 0.
    window: (4,) int32: top, left, height, width.
    size: Height and width that the frames are going to have.

  Returns:
    (n, h, w, 3) uint8; h and w are those of the window, or the half (...) of
    them.

  Raises:
    tf.errors.InvalidArgumentError: A frame is corrupt, no JPEG image, or
      smaller than the window or the first frame. Raised when it runs.
  """
  spec = tf.TensorSpec([None, None, 3], tf.uint8)
  full_width = frame_shape(frames)[1]
  branches = []
  for ratio in JPEG_RATIOS:

    def branch(ratio=ratio):
      top, left, height, width = tf.unstack(window // ratio)
      start, end = left, left + width
      if ratio == 1:
        # The colours of a pixel depend on those beside it, in its row: one more
        # column to each side makes the window that of the whole frame.
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
  frames: tf.Tensor, config: VideoConfig
) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
  """Decodes whole frames, at all the scales that training clips may want.

  Args:
    frames: (n,) string, JPEG images of one size; n > 0.
    config: See `VideoConfig`.

  Returns:
    (n, h, w, 3) uint8 for each of `NUM_SCALES` scales, (0, 0, 0, 3) for those
    that no window of training is decoded at; and the size of the frames, (2,)
    int32.

  Raises:
    tf.errors.InvalidArgumentError: A frame is corrupt, no JPEG image, or of
      another size. Raised when it runs.
  """
  height, width = frame_shape(frames)
  low, high = (
    jpeg_ratio(window, config.size)
    for window in _extreme_windows(height, width, config)
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
  config: VideoConfig,
  seed: tf.Tensor,
) -> tf.Tensor:
  """Cuts a training clip out of frames that are decoded already.

  Args:
    decoded: Of `decode_whole`.
    frame_size: Of `decode_whole`.
    indices: (T,) int32, the frames of the clip.
    config: See `VideoConfig`.
    seed: (2,) integer.

  Returns:
    (T, h, w, 3) uint8, what `load_frames` gives for the same seed.
  """
  window = random_window(frame_size[0], frame_size[1], config, seed)
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
  """Resizes frames (bilinear), where they do not have the size already.

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
  is_right = (shape[1] == size[0]) & (shape[2] == size[1])
  frames = tf.cond(is_right, cast, scale)
  frames.set_shape([None, *size, 3])
  return frames


# Augmentation.


def flip(frames: tf.Tensor) -> tf.Tensor:
  """Mirrors frames left to right: (n, h, w, 3) to the same."""
  shape = tf.shape(frames)
  rows = tf.reshape(frames, [-1, shape[2], 3])  # (n*h, w, 3)
  return tf.reshape(tf.reverse(rows, [1]), shape)


def random_flip(frames: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
  """Mirrors a share of the clips: (n, h, w, 3) to the same."""
  if not rate:
    return frames

  def mirrored():
    return flip(frames)

  def as_is():
    return frames

  draw = tf.random.stateless_uniform([], seed)
  return tf.cond(draw < rate, mirrored, as_is)


def color_transform(
  mean: tf.Tensor, config: VideoConfig, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Draws a change of colours, as one affine map of the three channels.

  In this order, on a scale from 0 to 1: brightness is added; saturation scales
  and hue turns the chroma (in YIQ, where both are linear; `tf.image` works in
  HSV); contrast scales the distance from the clip's mean colour.

  Args:
    mean: (3,) float32, mean colour of the clip in [0, 1].
    config: See `VideoConfig`.
    seed: (2,) integer.

  Returns:
    matrix (3, 3) and bias (3,), float32: the new colour is
    `color @ matrix + bias`, to be cut to [0, 1].
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
  # A clip can be made gray though its other colours stay as they are.
  saturation = tf.where(draws[5] < config.gray_rate, 0.0, saturation)
  cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
  one, zero = tf.ones([]), tf.zeros([])
  turn = tf.reshape(
    tf.stack([one, zero, zero, zero, cos, sin, zero, -sin, cos]), [3, 3]
  )
  chroma = tf.constant(_RGB_TO_YIQ) @ turn @ tf.constant(_YIQ_TO_RGB)
  bias = tf.fill([1, 3], brightness) @ chroma
  bias += (1.0 - contrast) * (mean[None] @ chroma)
  return contrast * chroma, bias[0]


def identity_transform() -> tuple[tf.Tensor, tf.Tensor]:
  """The transform of `color_transform` that changes nothing."""
  return tf.eye(3), tf.zeros([3])


def mean_color(frames: tf.Tensor) -> tf.Tensor:
  """Mean colour of a clip, taken on a grid of its pixels.

  Args:
    frames: (n, h, w, 3) float32, in [0, 255]. Of every fourth frame, every
      eighth pixel of every eighth row is taken when the frames are larger than
      64 pixels, and every pixel when not.

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
    matrix: (3, 3) float32, of `color_transform`.
    bias: (3,) float32, of `color_transform`.

  Returns:
    (T, H, W, 3) float32, in [-1, 1].
  """
  shape = frames.shape
  # Four pixels at a time: matrix products and sums over a last axis of 3 are
  # several times slower. One row of pixels takes the same bias.
  group = 4 if shape.num_elements() % 12 == 0 else 1
  blocks = tf.einsum('ij,cd->icjd', tf.eye(group), matrix * (2.0 / 255.0))
  blocks = tf.reshape(blocks, [3 * group, 3 * group])  # Copies of `matrix`.
  frames = tf.reshape(frames, [-1, 3 * group]) @ blocks
  frames = tf.reshape(frames, [-1, 3 * shape[2]])  # (T*H, W*3)
  frames += tf.tile(2.0 * bias - 1.0, [shape[2]])
  # In one pass; `tf.clip_by_value` takes two.
  frames = tf.raw_ops.ClipByValue(
    t=frames, clip_value_min=-1.0, clip_value_max=1.0
  )
  return tf.reshape(frames, shape)


def scale_values(frames: tf.Tensor) -> tf.Tensor:
  """[0, 255] to [-1, 1], float32 of any shape."""
  return frames * (2.0 / 255.0) - 1.0


# All of it.


def frame_shape(frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """Height and width, () int32, of the first of some JPEG images.

  Raises:
    tf.errors.InvalidArgumentError: It is no JPEG image. Raised when it runs.
  """
  shape = tf.io.extract_jpeg_shape(frames[0], output_type=tf.int32)
  return shape[0], shape[1]


def load_frames(
  frames: tf.Tensor,
  indices: tf.Tensor,
  config: VideoConfig,
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
  height, width = frame_shape(frames)
  if seed is None:
    window = central_window(height, width, config, crop)
  else:
    window = random_window(height, width, config, seed)
  frames = decode_frames(frames, window, config.size)
  return tf.gather(frames, places)


def finish_frames(
  frames: tf.Tensor, config: VideoConfig, seed: tf.Tensor | None = None
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
    frames = tf.ensure_shape(resize(frames, config.size), config.shape)
    return scale_values(frames)
  flip_seed, color_seed = tf.unstack(tf.random.split(seed, 2))
  frames = random_flip(frames, config.flip_rate, flip_seed)
  frames = tf.ensure_shape(resize(frames, config.size), config.shape)
  if not config.color_rate and not config.gray_rate:
    return scale_values(frames)
  mean = mean_color(frames)
  return apply_transform(frames, *color_transform(mean, config, color_seed))
