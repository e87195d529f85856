"""Pictures of the sample media."""

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


def render_frames(clip: plan.Clip, options: plan.Options) -> np.ndarray:
  """Returns the frames of a clip, (T, H, W, 3) uint8."""
  rng = plan.make_generator(options, clip.split, 1, clip.index)
  period, start = plan.draw_pace(clip, options)
  size = options.frame_size
  background = _texture(rng, size)
  radius = rng.uniform(0.18, 0.22)
  centre = 0.5 + rng.uniform(-0.05, 0.05, 2)
  tilt = rng.uniform(-0.2, 0.2)
  colour = np.array(words.COLOURS[clip.colour][0], np.float32)
  colour = np.clip(colour * rng.uniform(0.92, 1.0), 0, 255)
  grid = (np.arange(size, dtype=np.float32) + 0.5) / size
  frames = []
  # The last frame may begin before the end of the clip and last beyond it.
  count = math.ceil(options.duration * options.frame_rate - 1e-6)
  for number in range(count):
    phase = start + number / options.frame_rate / period
    x, y, scale = path(clip.motion, phase)
    frame = background
    if scale > 0:
      reach = radius * scale
      right = (grid[np.newaxis, :] - centre[0] - x) / reach
      down = (grid[:, np.newaxis] - centre[1] - y) / reach
      distance = _distance(
        clip.shape,
        right * np.cos(tilt) + down * np.sin(tilt),
        down * np.cos(tilt) - right * np.sin(tilt),
      )
      # An edge about one pixel wide.
      cover = np.clip(0.5 - distance * reach * size, 0, 1)[..., np.newaxis]
      frame = background + cover * (colour - background)
    frames.append(frame.round().clip(0, 255).astype(np.uint8))
  return np.stack(frames)
