"""Patches of video, waveforms and spectrograms, projected to tokens."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import tensor_utils


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class PatchTokenizer(tf_keras.layers.Layer):
  """Cuts the input into patches and projects each linearly (section 3.1.1).

  The same layer cuts video into voxels of t x h x w (the paper: 4 x 16 x 16),
  a waveform into segments (128 samples), and a spectrogram into patches of
  frames x bins (16 x 5).

  Args:
    d_model: Width of the tokens.
    patch_size: Size of a patch along each axis between the batch and the
      channels.
    use_padding: Whether to pad the end of an axis with zeros to a multiple of
      the patch size (spectrograms), instead of raising an error.
    input_rms: Usual root mean square of the input's values. The kernel's
      initial values then give tokens of unit variance, which weigh as much as
      positions. None means glorot uniform.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: Tensor (B, S_1, ..., S_n, C), all but B static.
    keep: (B, K) int32: numbers of the patches to project, or None for all. The
      others are neither copied nor projected.

  Returns:
    (B, N, d_model), or (B, K, d_model) with `keep`. N is the product of
    `grid(x.shape)`, the first axis slowest.

  Raises:
    ValueError: The shape of `x` does not fit the patch size.

  Example:
    >>> PatchTokenizer(8, (4, 16, 16))(tf.zeros([2, 8, 32, 32, 3])).shape
    TensorShape([2, 8, 8])
  """

  def __init__(
    self,
    d_model: int,
    patch_size: tuple[int, ...],
    use_padding: bool = False,
    input_rms: float | None = None,
    **kwargs: Any,
  ):
    # The input is cast after the patches are chosen, not as a whole.
    super().__init__(autocast=False, **kwargs)
    patch_size = tuple(patch_size)
    if not patch_size or any(
      not isinstance(size, int) or size < 1 for size in patch_size
    ):
      raise ValueError(
        '`patch_size` must have one positive integer per axis. '
        f'Received: patch_size={patch_size}'
      )
    if input_rms is not None and input_rms <= 0:
      raise ValueError(
        f'`input_rms` must be positive. Received: input_rms={input_rms}'
      )
    self.d_model = d_model
    self.patch_size = patch_size
    self.use_padding = use_padding
    self.input_rms = input_rms

  def grid(
    self, input_shape: Sequence[int | None] | tf.TensorShape
  ) -> tuple[int, ...]:
    """The number of patches along each axis.

    Args:
      input_shape: (B, S_1, ..., S_n, C).

    Returns:
      Tuple of n ints.

    Raises:
      ValueError: The shape does not fit the patch size.
    """
    input_shape = tf.TensorShape(input_shape)
    rank = len(self.patch_size)
    if input_shape.rank != rank + 2 or None in input_shape[1:].as_list():
      raise ValueError(
        f'`x` must have a batch axis, {rank} static axes to cut into patches '
        f'of {self.patch_size}, and channels. Received: x.shape={input_shape}'
      )
    sizes = input_shape[1:-1].as_list()
    for size, patch in zip(sizes, self.patch_size):
      if size % patch and not self.use_padding:
        raise ValueError(
          f'Each axis of `x` must be a multiple of the patch size '
          f'{self.patch_size}: crop or resize the input, or choose another '
          f'patch size. Received: x.shape={input_shape}'
        )
    return tuple(-(-s // p) for s, p in zip(sizes, self.patch_size))

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `kernel`, (patch values, d_model), and `bias`, (d_model,)."""
    num_values = math.prod(self.patch_size) * int(input_shape[-1])
    initializer = 'glorot_uniform'
    if self.input_rms is not None:
      initializer = tf_keras.initializers.RandomNormal(
        stddev=1 / (self.input_rms * math.sqrt(num_values))
      )
    self.kernel = self.add_weight(
      name='kernel',
      shape=[num_values, self.d_model],
      initializer=initializer,
    )
    self.bias = self.add_weight(
      name='bias', shape=[self.d_model], initializer='zeros'
    )
    super().build(input_shape)

  def call(self, x: tf.Tensor, keep: tf.Tensor | None = None) -> tf.Tensor:
    """Makes tokens of `x`; see the class."""
    patches = tf.cast(self.patches(x, keep), self.compute_dtype)
    tokens = tf.tensordot(patches, self.kernel, 1)  # (B, K, d_model)
    return tf.nn.bias_add(tokens, self.bias)

  def patches(self, x: tf.Tensor, keep: tf.Tensor | None = None) -> tf.Tensor:
    """Cuts `x` into patches.

    Args:
      x: Tensor (B, S_1, ..., S_n, C).
      keep: (B, K) int32 or None, as in the call.

    Returns:
      (B, N or K, P) in the dtype of `x`; P values in the order of the axes,
      channels last.
    """
    x = tf.convert_to_tensor(x)
    grid = self.grid(x.shape)
    channels = x.shape[-1]
    num_rows = tensor_utils.shape_list(x)[0]
    sizes = [g * p for g, p in zip(grid, self.patch_size)]
    if sizes != x.shape[1:-1].as_list():
      ends = [size - length for size, length in zip(sizes, x.shape[1:-1])]
      x = tf.pad(x, [[0, 0], *([0, end] for end in ends), [0, 0]])
    num_patches = math.prod(grid)
    num_values = math.prod(self.patch_size) * channels
    rank = len(grid)
    if keep is None:
      split = [n for pair in zip(grid, self.patch_size) for n in pair]
      x = tf.reshape(x, [num_rows, *split, channels])
      order = [*range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2)]
      x = tf.transpose(x, [0, *order, 2 * rank + 1])  # (B, grid, patch, C)
      return tf.reshape(x, [num_rows, num_patches, num_values])  # (B, N, P)
    # Values of a patch that are neighbours in memory are copied at once.
    runs = _runs_of_patches(grid, self.patch_size)  # (N, runs of a patch)
    run_length = self.patch_size[-1] * channels
    x = tf.reshape(x, [num_rows, runs.size, run_length])
    picked = tf.gather(tf.constant(runs), keep)  # (B, K, runs of a patch)
    x = tf.gather(x, picked, batch_dims=1)  # (B, K, runs, run_length)
    return tf.reshape(x, [num_rows, keep.shape[1], num_values])

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'd_model': self.d_model,
      'patch_size': self.patch_size,
      'use_padding': self.use_padding,
      'input_rms': self.input_rms,
    }


def _runs_of_patches(grid, patch_size):
  """The numbers of the memory runs of each patch: (N, runs per patch) int32.

  A run holds the values of a patch along the last axis; runs are numbered in
  memory order.
  """
  rank = len(grid)
  sizes = [g * p for g, p in zip(grid[:-1], patch_size[:-1])] + [grid[-1]]
  runs = np.arange(math.prod(sizes), dtype=np.int32)
  split = [n for pair in zip(grid[:-1], patch_size[:-1]) for n in pair]
  runs = runs.reshape([*split, grid[-1]])
  order = [*range(0, 2 * (rank - 1), 2), 2 * (rank - 1)]
  order += range(1, 2 * (rank - 1), 2)
  return runs.transpose(order).reshape(math.prod(grid), -1)
