"""The temporal shift of MMV's TSM networks (Lin et al. 2019)."""

import tensorflow as tf


def num_shifted(channels: int, share: float) -> int:
  """Returns the number of channels that are shifted each way."""
  return int(channels * share)


def temporal_shift(x: tf.Tensor, share: float = 0.125) -> tf.Tensor:
  """Moves a share of the channels to the frames before and after.

  As in MMV, and unlike the original shift, the two groups swap places: the
  output has the last channels of the next frame, then the middle, then the
  first channels of the frame before. Past the ends of the clip are zeros.

  Args:
    x: (B, T, H, W, C) float.
    share: Share of the channels that is shifted each way, in [0, 0.5].

  Returns:
    Like `x`.
  """
  n = num_shifted(x.shape[-1], share)
  if n == 0:
    return x
  padding = [[0, 0]] * 5
  padding[1] = [0, 1]
  later = tf.pad(x[:, 1:, ..., -n:], padding)
  padding[1] = [1, 0]
  earlier = tf.pad(x[:, :-1, ..., :n], padding)
  return tf.concat([later, x[..., n:-n], earlier], -1)


def unshifted_order(channels: int, share: float = 0.125) -> list[int]:
  """Returns the input channel of each output channel of `temporal_shift`."""
  n = num_shifted(channels, share)
  places = list(range(channels))
  return places[channels - n :] + places[n : channels - n] + places[:n]
