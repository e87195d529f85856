"""Configuration of how the pipeline turns the frames of a record into input."""

from collections.abc import Sequence
import dataclasses

import gin

LOOP = 'loop'

HOLD = 'hold'


def _check_range(name, value, low, high):
  if len(value) != 2 or not low <= value[0] <= value[1] <= high:
    raise ValueError(
      f'`{name}` must be two rising numbers in [{low}, {high}]. '
      f'Received: {name}={value}'
    )


@gin.register
@dataclasses.dataclass(frozen=True)
class VideoConfig:
  """How the pipeline turns the video of a record into a model's input.

  The paper uses 32 frames at 10 frames per second, 224 x 224 pixels.

  The window that is cut out of each frame is chosen in one of two ways. By
  default it has the aspect ratio of the output and `scale` times the size of
  the largest such window, divided by a random factor in
  [1 - scale_jitter, 1 + scale_jitter]. With `area_range` its area is a random
  share of the frame's, and its aspect ratio is drawn from `aspect_ratio_range`.
  In training its place is random. In evaluation it is in the centre, without
  jitter; with three crops, the windows are at both ends and in the middle of
  the longer side. The window is then resized to `frame_size`, up or down.

  Attributes:
    num_frames: Number of frames per clip.
    frame_rate: Frames per second.
    frame_size: Height and width of the output, or a pair of them.
    is_still: Whether all frames of a clip are one frame of the record: input
      inflation, with which a video network sees an image (Alayrac et al. 2020,
      MMV, section 3.3). A served model takes the frames that it is given.
    short_clip: What follows the end of a record that is shorter than the clip:
      `loop` starts again with its first frame and its sound (as DMVR does);
      `hold` repeats its last frame, in silence.
    scale: Share of the largest window that is cut out, in (0, 1].
    scale_jitter: Largest relative change of the scale, in [0, 1).
    area_range: Smallest and largest share of the frame's area, in (0, 1], or
      None.
    aspect_ratio_range: Smallest and largest ratio of width to height of the
      window with `area_range`.
    flip_rate: Share of training clips that are mirrored left to right.
    color_rate: Share of training clips whose colours are changed.
    max_brightness: Largest change of the brightness, on a scale from 0 to 1.
    contrast_range: Range of the factor of the distance from the clip's mean
      colour.
    saturation_range: Range of the factor of the chroma.
    max_hue: Largest rotation of the hue, as a share of the circle.
    gray_rate: Share of training clips that are made gray.
    num_clips: Number of evenly spread clips per record in evaluation.
    num_crops: Number of windows per clip in evaluation, 1 or 3.
    max_boxes: Number of boxes per frame; further ones are left out. 0 means
      none.
    box_labels: Classes of the boxes: the labels in their order, or the path of
      a `labels.txt` (line i names class i). None means one class, 0, whatever
      the label.
  """

  num_frames: int = 32
  frame_rate: float = 10.0
  frame_size: int | tuple[int, int] = 224
  is_still: bool = False
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
  max_boxes: int = 0
  box_labels: Sequence[str] | str | None = None

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
    """Length of the clip in seconds, of one frame if it is still."""
    return (1 if self.is_still else self.num_frames) / self.frame_rate
