"""Learned position tables, with interpolation to larger inputs."""

from collections.abc import Sequence
import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.layers import layer_norm, released_spline

_AXES = {
  1: ('temporal',),
  2: ('temporal', 'frequency'),
  3: ('temporal', 'vertical', 'horizontal'),
}


@functools.lru_cache(maxsize=64)
def interpolation_matrix(
  table_shape: Sequence[int], grid: Sequence[int]
) -> np.ndarray:
  """Returns the matrix that reads a position table at a grid of another size.

  A polyharmonic spline, phi(r) = r^3 and an affine term, passes through the
  table's rows at positions i / n_table. Along an axis that is larger than the
  table, it is read at j / n_input; along other axes, at the table's first rows.
  The spline is linear in the table, so reading it is a matrix product.

  Args:
    table_shape: Rows of the table along each axis.
    grid: Positions of the input along each axis.

  Returns:
    Float64 array (positions of the grid, rows of the table); do not change it.
  """
  table_axes, grid_axes = [], []
  for rows, positions in zip(table_shape, grid):
    if rows == 1:  # nothing varies along this axis
      table_axes.append(np.zeros(1))
      grid_axes.append(np.zeros(positions))
    else:
      table_axes.append(np.arange(rows) / rows)
      grid_axes.append(np.arange(positions) / max(rows, positions))
  varying = [axis for axis, rows in enumerate(table_shape) if rows > 1]

  def points(axes):
    """The coordinates of all points in row-major order: (points, axes)."""
    mesh = np.meshgrid(*axes, indexing='ij')
    return np.stack([np.ravel(m) for m in mesh], 1)[:, varying]

  def basis(x, centres):
    """The spline and affine basis functions at points x, one per column."""
    distance = np.linalg.norm(x[:, None] - centres[None], axis=-1)
    return np.concatenate([distance**3, x, np.ones([len(x), 1])], 1)

  table_points, grid_points = points(table_axes), points(grid_axes)
  num_rows, num_affine = len(table_points), len(varying) + 1
  system = np.zeros([num_rows + num_affine] * 2)
  system[:num_rows] = basis(table_points, table_points)
  system[num_rows:, :num_rows] = system[:num_rows, num_rows:].T
  values = np.eye(num_rows + num_affine, num_rows)
  return basis(grid_points, table_points) @ np.linalg.solve(system, values)


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class PositionEmbedding(tf_keras.layers.Layer):
  """Adds learned position embeddings to tokens (paper, section 3.1.1).

  `separable` has one table per axis; the embedding of a position is the sum of
  its rows. `full` has one table with a row for each position. With
  `use_layer_norm`, a LayerNorm follows before the result is added.

  For an input that is larger than a table along an axis, the table is
  interpolated; a smaller input uses the first rows.

  Args:
    table_shape: Rows of the tables along each axis: video (T, H, W),
      spectrogram (T, F), waveform and text (T,).
    form: `separable` or `full`.
    use_layer_norm: Whether a LayerNorm follows the sum of the tables.
    epsilon: Number added to the variance of the LayerNorm.
    interpolation: `exact`, the spline through the table, which is solved in
      float64 once for all values (see `interpolation_matrix`); or `release`,
      for `separable` tables: the same spline with the rounding errors of the
      released code, which solves in float32 (see `released_spline`). Errors
      grow with the number of rows: `release` is for the numbers that a
      released checkpoint had there, at inputs larger than its tables.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Tokens (B, N, D), or (B, K, D) with `keep`.
    grid: Tuple of ints, positions along each axis; their product is N. None:
      (N,), for one axis.
    keep: (B, K) int32: positions of the tokens of `x`. None means all.

  Returns:
    A tensor like `x` in the compute dtype.

  Raises:
    ValueError: An argument is not valid, or `grid` does not fit.

  Example:
    >>> layer = PositionEmbedding((2, 3, 3))
    >>> layer(tf.zeros([1, 18, 8]), grid=(2, 3, 3)).shape
    TensorShape([1, 18, 8])
  """

  def __init__(
    self,
    table_shape: Sequence[int],
    form: str = 'separable',
    use_layer_norm: bool = True,
    epsilon: float = 1e-6,
    interpolation: str = 'exact',
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    table_shape = tuple(table_shape)
    if len(table_shape) not in _AXES or min(table_shape) < 1:
      raise ValueError(
        '`table_shape` must be one to three positive integers. '
        f'Received: table_shape={table_shape}'
      )
    if form not in ('separable', 'full'):
      raise ValueError(
        f"`form` must be one of ['full', 'separable']. Received: form={form!r}"
      )
    if interpolation not in ('exact', 'release'):
      raise ValueError(
        "`interpolation` must be one of ['exact', 'release']. "
        f'Received: interpolation={interpolation!r}'
      )
    if interpolation == 'release' and form != 'separable':
      raise ValueError(
        "`interpolation` must be 'exact' for one table of all positions, which "
        f'the release does not have. Received: interpolation={interpolation!r},'
        f' form={form!r}'
      )
    self.table_shape = table_shape
    self.form = form
    self.use_layer_norm = use_layer_norm
    self.epsilon = epsilon
    self.interpolation = interpolation
    if use_layer_norm:
      self.norm = layer_norm.LayerNorm(epsilon, name='norm', dtype='float32')

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates a table per axis, (rows, D), or `full`, (all rows, D)."""
    width = int(input_shape[-1])
    if self.form == 'full':
      rows = {'full': math.prod(self.table_shape)}
    else:
      rows = dict(zip(_AXES[len(self.table_shape)], self.table_shape))
    self.tables = {
      name: self.add_weight(
        name=name,
        shape=[count, width],
        initializer=tf_keras.initializers.TruncatedNormal(stddev=width**-0.5),
        experimental_autocast=False,
      )
      for name, count in rows.items()
    }
    if self.use_layer_norm:
      with tf.name_scope('norm'):
        self.norm.build(tf.TensorShape([None, width]))
    super().build(input_shape)

  def call(
    self,
    x: tf.Tensor,
    grid: Sequence[int] | None = None,
    keep: tf.Tensor | None = None,
  ) -> tf.Tensor:
    """Adds positions to `x`; see the class."""
    positions = tf.cast(self.positions(grid or (x.shape[1],)), x.dtype)
    if keep is not None:
      positions = tf.gather(positions, keep)  # (B, K, D)
    if positions.shape[-2] != x.shape[1]:
      raise ValueError(
        '`grid` must have as many positions as `x` has tokens. '
        f'Received: grid={grid}, x.shape={x.shape}'
      )
    return x + positions

  def positions(self, grid: Sequence[int]) -> tf.Tensor:
    """Returns the embeddings of all positions of a grid.

    Args:
      grid: Number of positions along each axis.

    Returns:
      (N, D) float32, in row-major order of the grid.

    Raises:
      ValueError: `grid` has another number of axes than the tables.
    """
    grid = tuple(grid)
    rank = len(self.table_shape)
    if len(grid) != rank or None in grid:
      raise ValueError(
        f'`grid` must be {rank} integers, as `table_shape`='
        f'{self.table_shape}. Received: grid={grid}'
      )
    if self.form == 'full':
      total = _read(self.tables['full'], self.table_shape, grid)
    else:
      total = 0
      for axis, name in enumerate(_AXES[rank]):
        rows = _read(
          self.tables[name],
          self.table_shape[axis : axis + 1],
          grid[axis : axis + 1],
          self.interpolation,
        )
        shape = [1] * rank + [rows.shape[-1]]
        shape[axis] = grid[axis]
        total += tf.reshape(rows, shape)  # broadcasts to (*grid, D)
      total = tf.reshape(total, [math.prod(grid), total.shape[-1]])  # (N, D)
    return self.norm(total) if self.use_layer_norm else total

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'table_shape': self.table_shape,
      'form': self.form,
      'use_layer_norm': self.use_layer_norm,
      'epsilon': self.epsilon,
      'interpolation': self.interpolation,
    }


def _read(table, table_shape, grid, interpolation='exact'):
  """The rows of a table for each position of a grid: (positions, D)."""
  table = tf.convert_to_tensor(table)
  if grid == table_shape:
    return table
  if all(size <= rows for size, rows in zip(grid, table_shape)):
    rows = np.arange(math.prod(table_shape), dtype=np.int32)
    rows = rows.reshape(table_shape)[tuple(slice(n) for n in grid)]
    return tf.gather(table, rows.ravel())
  if interpolation == 'release' and table_shape[0] > 1:
    return released_spline.read(table, grid[0])
  matrix = interpolation_matrix(table_shape, grid)
  return tf.matmul(tf.constant(matrix, table.dtype), table)
