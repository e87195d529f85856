"""Pictures of the sample media."""

import dataclasses
import math

import numpy as np

from vatt_tf.media.sample import plan, words


def _texture(rng, size):
  """Returns a dull background, (size, size, 3) float32 in [0, 255]."""
  y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
  kind = rng.integers(4)
  angle = rng.uniform(0, 2 * np.pi)
  along = x * np.cos(angle) + y * np.sin(angle)
  if kind == 0:  # stripes
    pattern = np.sin(2 * np.pi * rng.uniform(3, 9) * along)
  elif kind == 1:  # checks
    across = y * np.cos(angle) - x * np.sin(angle)
    count = rng.uniform(3, 7)
    pattern = np.sign(np.sin(2 * np.pi * count * along))
    pattern = pattern * np.sign(np.sin(2 * np.pi * count * across))
  elif kind == 2:  # blotches
    pattern = np.zeros_like(x)
    for _ in range(6):
      u, v = rng.uniform(-6, 6, 2)
      pattern += np.sin(2 * np.pi * (u * x + v * y + rng.uniform()))
    pattern /= 3
  else:  # a gradient
    pattern = 2 * (along - along.min()) / (along.max() - along.min()) - 1
  level = rng.uniform(45, 105) + rng.uniform(12, 30) * pattern
  tint = 1 + rng.uniform(-0.1, 0.1, 3)
  return (level[..., np.newaxis] * tint).astype(np.float32)


def _distance(shape, x, y):
  """Returns the signed distance to the outline of a shape of radius 1.

  Args:
    shape: Key of `words.SHAPES`.
    x: Positions to the right, of any shape.
    y: Positions downwards, of the same shape.

  Returns:
    An array like `x`: negative inside, positive outside, and near the outline
    about the distance to it.
  """
  if shape == 'circle':
    return np.hypot(x, y) - 0.9
  if shape == 'ring':
    return np.abs(np.hypot(x, y) - 0.72) - 0.23
  if shape == 'square':
    return np.maximum(np.abs(x), np.abs(y)) - 0.8
  if shape == 'triangle':
    return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.5
  if shape == 'cross':
    first = np.maximum(np.abs(x) - 0.95, np.abs(y) - 0.3)
    second = np.maximum(np.abs(x) - 0.3, np.abs(y) - 0.95)
    return np.minimum(first, second)
  # A star of five points: its outline is a straight line in each half point.
  radius = np.hypot(x, y)
  angle = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
  tip = np.array([1.0, 0.0])
  notch = 0.42 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
  edge = notch - tip
  normal = np.array([-edge[1], edge[0]]) / np.hypot(*edge)
  sign = np.sign(normal @ tip)
  return sign * (
    (radius * np.cos(angle) - tip[0]) * normal[0]
    + (radius * np.sin(angle) - tip[1]) * normal[1]
  )


def path(motion: str, phase: float) -> tuple[float, float, float]:
  """Returns what a motion does at a phase.

  Args:
    motion: Key of `words.MOTIONS`.
    phase: Time in periods of the motion.

  Returns:
    `(x, y, scale)`: the way from the centre in shares of the frame, and what
    the size is multiplied by (0 while the shape cannot be seen).
  """
  turn = 2 * np.pi * phase
  if motion == 'sideways':
    return 0.27 * np.sin(turn), 0.0, 1.0
  if motion == 'vertical':
    return 0.0, 0.27 * np.sin(turn), 1.0
  if motion == 'diagonal':
    return 0.24 * np.sin(turn), 0.24 * np.sin(turn), 1.0
  if motion == 'orbit':
    return 0.25 * np.cos(turn), 0.25 * np.sin(turn), 1.0
  if motion == 'pulse':
    return 0.0, 0.0, 1.15 + 0.6 * np.sin(turn)
  return 0.0, 0.0, 1.3 if (2 * phase) % 1 < 0.5 else 0.0


@dataclasses.dataclass(frozen=True)
class Box:
  """Where a shape is in a frame.

  Attributes:
    left: Left edge, in shares of the frame, from 0 to 1.
    top: Top edge.
    right: Right edge.
    bottom: Bottom edge.
    label: Attribute of the shape that `plan.Options.label` names.
    is_sounding: Whether it is the shape that sounds.
  """

  left: float
  top: float
  right: float
  bottom: float
  label: str
  is_sounding: bool


@dataclasses.dataclass(frozen=True)
class _Look:
  """How a shape is drawn: its size, place, tilt and colour."""

  clip: plan.Clip
  radius: float
  centre: np.ndarray
  tilt: float
  colour: np.ndarray
  is_of_pair: bool

  def at(self, phase):
    """Returns the centre (x, y) and the size at a phase of the motion."""
    x, y, scale = path(self.clip.motion, phase)
    radius = self.radius
    if self.is_of_pair:
      # So small that the shapes stay apart.
      x, y, radius = 0.3 * x, 0.5 * y, 0.8 * radius
      if self.clip.motion == 'pulse':
        scale = 1 + 0.4 * (scale - 1.15) / 0.6
    return self.centre + (x, y), radius * scale


def _draw_look(clip, rng, centre=None):
  """Draws the look of a shape; `centre` is given in a picture with two."""
  radius = rng.uniform(0.18, 0.22)
  is_of_pair = centre is not None
  if not is_of_pair:
    centre = 0.5 + rng.uniform(-0.05, 0.05, 2)
  tilt = rng.uniform(-0.2, 0.2)
  colour = np.array(words.COLOURS[clip.colour][0], np.float32)
  colour = np.clip(colour * rng.uniform(0.92, 1.0), 0, 255)
  return _Look(clip, radius, centre, tilt, colour, is_of_pair)


def _draw_looks(clip, rng):
  """Draws the looks of all shapes of a clip."""
  if clip.distractor is None:
    return [_draw_look(clip, rng)]
  # Both clips of a pair draw the same.
  shapes = sorted((clip, clip.distractor), key=lambda shape: shape.index)
  centre = 0.5 + rng.uniform(-0.05, 0.05, 2)
  side = rng.choice([-0.25, 0.25])
  return [
    _draw_look(shape, rng, centre + (sign * side, 0))
    for shape, sign in zip(shapes, (1, -1), strict=True)
  ]


def _cover(look, phase, grid):
  """Returns how much of each pixel a shape covers, (H, W), or None."""
  (x, y), reach = look.at(phase)
  if reach <= 0:
    return None
  right = (grid[np.newaxis, :] - x) / reach
  down = (grid[:, np.newaxis] - y) / reach
  distance = _distance(
    look.clip.shape,
    right * np.cos(look.tilt) + down * np.sin(look.tilt),
    down * np.cos(look.tilt) - right * np.sin(look.tilt),
  )
  # An edge about one pixel wide.
  return np.clip(0.5 - distance * reach * len(grid), 0, 1)


def _box(look, cover, is_sounding, label):
  """Returns the box of the pixels that a shape mostly covers, or None."""
  is_inside = cover > 0.5
  rows, columns = (np.flatnonzero(is_inside.any(axis)) for axis in (1, 0))
  if not len(rows):
    return None
  size = len(cover)
  return Box(
    float(columns[0] / size),
    float(rows[0] / size),
    float((columns[-1] + 1) / size),
    float((rows[-1] + 1) / size),
    getattr(look.clip, label),
    is_sounding,
  )


def render(
  clip: plan.Clip, options: plan.Options
) -> tuple[np.ndarray, list[list[Box]]]:
  """Renders the frames of a clip.

  Args:
    clip: Content of the clip.
    options: Options of the set.

  Returns:
    (frames, boxes): (T, H, W, 3) uint8, and for each frame the boxes of the
    shapes that can be seen.
  """
  key = clip.index
  if clip.distractor is not None:
    key = min(key, clip.distractor.index)
  rng = plan.make_generator(options, clip.split, 1, key)
  size = options.frame_size
  background = _texture(rng, size)
  looks = _draw_looks(clip, rng)
  paces = [plan.draw_pace(look.clip, options) for look in looks]
  grid = (np.arange(size, dtype=np.float32) + 0.5) / size
  frames, boxes = [], []
  # The last frame may begin before the end of the clip and last beyond it.
  count = math.ceil(options.duration * options.frame_rate - 1e-6)
  for number in range(count):
    frame, of_frame = background, []
    for look, (period, start) in zip(looks, paces, strict=True):
      phase = start + number / options.frame_rate / period
      cover = _cover(look, phase, grid)
      if cover is None:
        continue
      frame = frame + cover[..., np.newaxis] * (look.colour - frame)
      of_frame.append(
        _box(look, cover, look.clip.index == clip.index, options.label)
      )
    frames.append(frame.round().clip(0, 255).astype(np.uint8))
    boxes.append([box for box in of_frame if box is not None])
  return np.stack(frames), boxes
