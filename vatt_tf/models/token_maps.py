"""The tokens of a tower at their places of its grid."""

import math

import numpy as np
import tensorflow as tf

from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import recompute
from vatt_tf.models import tower as tower_lib


def encode(
  tower: tower_lib.Tower,
  x: tf.Tensor,
  training: bool = False,
  rng: randomness.Rng | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Runs a video tower and puts its tokens at their places.

  Args:
    tower: Tower with a `token_grid` of three axes.
    x: (B, T, H, W, 3): input of the tower.
    training: Whether DropToken and dropout apply.
    rng: `randomness.Rng` or None.

  Returns:
    The feature (B, width); the tokens (B, t, h, w, d), with zeros where
    DropToken drops them; and (B, t, h, w) bool, where there is a token.
  """
  if training:
    rng = recompute.fixed_key(rng)  # gives the places of the tokens again
  output = tower(x, training=training, rng=rng, need_tokens=True)
  grid = tower.token_grid(tuple(x.shape[1:]))
  places = tower.token_places(x, training, rng)
  return output.feature, *_on_grid(output.tokens, places, grid)


def _on_grid(tokens, places, grid):
  """Tokens at their places of a grid, with zeros between them, and a mask.

  Args:
    tokens: (B, N, d).
    places: (B, N) int32 or None, as of `Tower.token_places`.
    grid: (t, h, w).

  Returns:
    (B, t, h, w, d) and (B, t, h, w) bool.
  """
  num_rows, count, width = tensor_utils.shape_list(tokens)
  if places is None:
    mask = tf.ones([num_rows, *grid], tf.bool)
  else:
    num_places = math.prod(grid)
    rows = tf.range(num_rows)[:, tf.newaxis] * num_places
    index = tf.reshape(rows + places, [-1, 1])
    shape = [num_rows * num_places]
    mask = tf.scatter_nd(index, tf.ones([num_rows * count], tf.int32), shape)
    mask = tf.reshape(tf.cast(mask, tf.bool), [num_rows, *grid])
    tokens = tf.scatter_nd(
      index, tf.reshape(tokens, [-1, width]), [*shape, width]
    )
  return tf.reshape(tokens, [num_rows, *grid, width]), mask


def align(maps: tf.Tensor, offset: tuple[float, float]) -> tf.Tensor:
  """Moves maps so that what a place sees is in its middle.

  Args:
    maps: (B, t, h, w, D) float.
    offset: `Tower.token_offset`.

  Returns:
    Like `maps`, bilinearly interpolated; places at the edges repeat.
  """
  for axis, distance in zip((2, 3), offset):
    if not distance:
      continue
    whole = math.floor(distance)
    share = distance - whole
    places = tf.range(tf.shape(maps)[axis])
    parts = [
      tf.gather(maps, tf.clip_by_value(places - step, 0, places[-1]), axis=axis)
      for step in (whole, whole + 1)
    ]
    maps = (1 - share) * parts[0] + share * parts[1]
  return maps


def centres(height: int, width: int) -> np.ndarray:
  """Returns the centres (x, y) of a grid's places, (h, w, 2), in [0, 1]."""
  y, x = np.mgrid[:height, :width]
  return np.stack([(x + 0.5) / width, (y + 0.5) / height], -1)
