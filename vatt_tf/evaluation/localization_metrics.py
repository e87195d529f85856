"""Measures of maps that say where in a picture something sounds.

A map has a value for each place of a grid (t, h, w) over a clip; a frame has
the map of its time step. Ties rank worst: a map that is equal everywhere points
nowhere.
"""

import numpy as np

from vatt_tf.models import token_maps

# Similarities closer than this are a tie.
TIE = 1e-6
_AUC_THRESHOLDS = np.linspace(0, 1, 21)


def _steps_of_frames(num_frames, num_steps):
  """The time step of each frame, (T,)."""
  return np.arange(num_frames) * num_steps // num_frames


def of_frames(maps: np.ndarray, num_frames: int) -> np.ndarray:
  """Returns the map of each frame, (N, T, h, w), of maps (N, t, h, w)."""
  return maps[:, _steps_of_frames(num_frames, maps.shape[1])]


def reachable(
  inside: np.ndarray, seen: np.ndarray, num_steps: int
) -> np.ndarray:
  """Returns which frames the best map can point at.

  Frames of one time step have one map, so it may not be right for all of them.

  Args:
    inside: (N, T, P) bool: whether each place of the grid is in a box.
    seen: (N, T) bool: the frames that count.
    num_steps: Number of time steps of a map.

  Returns:
    (N, T) bool: the frames in which the place is right that is right for most
    of the frames of its step.
  """
  steps = _steps_of_frames(inside.shape[1], num_steps)
  hits = inside & seen[..., np.newaxis]
  result = np.zeros(seen.shape, bool)
  for step in range(num_steps):
    frames = steps == step
    best = hits[:, frames].sum(1).argmax(-1)  # (N,)
    chosen = np.take_along_axis(hits[:, frames], best[:, None, None], -1)
    result[:, frames] = chosen[..., 0]
  return result


def is_inside(
  points: np.ndarray, boxes: np.ndarray, mask: np.ndarray
) -> np.ndarray:
  """Returns whether points are in any of the boxes of their frame.

  Args:
    points: (P, 2): x and y in [0, 1].
    boxes: (N, T, K, 4): left, upper, right and lower edges.
    mask: (N, T, K) bool: the boxes that count.

  Returns:
    (N, T, P) bool.
  """
  x, y = points[:, [0]], points[:, [1]]  # (P, 1)
  left, top, right, bottom = np.moveaxis(boxes[:, :, np.newaxis], -1, 0)
  inside = (left <= x) & (x < right) & (top <= y) & (y < bottom)
  return (inside & mask[:, :, np.newaxis]).any(-1)


def pointing_hits(
  maps: np.ndarray, boxes: np.ndarray, mask: np.ndarray
) -> np.ndarray:
  """Returns whether the best place of each frame is in a box.

  Args:
    maps: (N, T, h, w) float: a map for each frame.
    boxes: See `is_inside`.
    mask: See `is_inside`.

  Returns:
    (N, T) bool: whether the centres of all places that are as good as the best
    one lie in a box.
  """
  num, steps, height, width = maps.shape
  values = maps.reshape([num, steps, -1])
  best = values >= values.max(-1, keepdims=True) - TIE
  inside = is_inside(
    token_maps.centres(height, width).reshape([-1, 2]), boxes, mask
  )
  return (inside | ~best).all(-1)


def cover(
  boxes: np.ndarray, mask: np.ndarray, size: int, agreement: int = 1
) -> np.ndarray:
  """Returns how much of each pixel boxes agree on.

  Args:
    boxes: See `is_inside`.
    mask: See `is_inside`.
    size: Height and width of the result.
    agreement: Number of boxes that a pixel must be in to count as a whole; 2
      for the several annotators of Flickr-SoundNet.

  Returns:
    (N, T, size, size) float in [0, 1].
  """
  points = token_maps.centres(size, size).reshape([-1, 2])
  count = sum(
    is_inside(points, boxes[:, :, [k]], mask[:, :, [k]]).astype(int)
    for k in range(boxes.shape[2])
  )
  shares = np.minimum(count / agreement, 1.0)
  return shares.reshape([*boxes.shape[:2], size, size])


def adaptive_iou(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Returns the IoU of as many of the best pixels as the truth has.

  Args:
    maps: (F, S, S) float: maps of frames, enlarged to pixels.
    truth: (F, S, S) float in [0, 1]; pixels of at least a half count, of which
      each frame has one.

  Returns:
    (F,) float in [0, 1]. Of equal pixels those outside come first.
  """
  result = np.zeros([len(maps)])
  for i, (values, shares) in enumerate(zip(maps, truth, strict=True)):
    inside = np.asarray(shares) >= 0.5
    order = np.lexsort((inside.ravel(), -values.ravel()))
    area = int(inside.sum())
    hit = int(inside.ravel()[order[:area]].sum())
    result[i] = hit / (2 * area - hit)
  return result


def half_frame_iou(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Returns the field's IoU, whose prediction is the better half of the pixels.

  It is sum(P G) / (sum(G) + sum(P where G = 0)), with P the half of the frame
  whose values are highest, as for VGG-SS and Flickr-SoundNet (Chen et al.
  2021). Arguments and result are those of `adaptive_iou`; shares of the truth
  count as they are.
  """
  result = np.zeros([len(maps)])
  for i, (values, inside) in enumerate(zip(maps, truth, strict=True)):
    inside = np.asarray(inside, np.float64).ravel()
    order = np.lexsort((inside, -values.ravel()))
    predicted = np.zeros(len(inside), bool)
    predicted[order[: len(order) // 2]] = True
    false = (predicted & (inside == 0)).sum()
    result[i] = inside[predicted].sum() / (inside.sum() + false)
  return result


def auc(ious: np.ndarray) -> float:
  """Returns the area under the share of IoUs that reach 0, 0.05, …, 1."""
  ious = np.asarray(ious)
  shares = np.array([np.mean(ious >= each) for each in _AUC_THRESHOLDS])
  return float(np.mean((shares[1:] + shares[:-1]) / 2))


def auroc(right: np.ndarray, wrong: np.ndarray) -> float:
  """Returns how often a right score is above a wrong one; ties count as not.

  Args:
    right: (P,) float.
    wrong: (Q,) float.
  """
  wrong = np.sort(np.asarray(wrong))
  return float(np.mean(np.searchsorted(wrong, right, 'left')) / len(wrong))


def wilson_interval(num_right: int, count: int) -> list[float]:
  """Returns the 95 % interval of a share by Wilson's formula, low and high."""
  z = 1.959964
  share = num_right / count
  centre = share + z**2 / (2 * count)
  reach = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
  factor = 1 + z**2 / count
  low, high = (centre - reach) / factor, (centre + reach) / factor
  return [max(0.0, float(low)), min(1.0, float(high))]


def shifted_share(maps: np.ndarray, rolled: np.ndarray) -> np.ndarray:
  """Returns the share of frames whose best place moves with the picture.

  Args:
    maps: (N, t, h, w).
    rolled: (N, t, h, w): maps of the same clips, whose pictures were rolled by
      one place to the right.

  Returns:
    (N,) float in [0, 1]; a step whose best place is not the only one counts as
    not moved.
  """

  def best(values):
    flat = values.reshape([*values.shape[:2], -1])
    ties = (flat >= flat.max(-1, keepdims=True) - TIE).sum(-1)
    rows, columns = np.divmod(flat.argmax(-1), values.shape[-1])
    return rows, columns, ties == 1

  width = maps.shape[-1]
  (y, x, one), (new_y, new_x, new_one) = best(maps), best(rolled)
  moved = (new_y == y) & (new_x == (x + 1) % width) & one & new_one
  return moved.mean(-1)
