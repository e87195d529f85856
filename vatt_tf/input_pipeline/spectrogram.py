"""Log-mel spectrograms and the masks of SpecAugment, in TensorFlow ops."""

from collections.abc import Sequence
import functools
import math

import numpy as np
import tensorflow as tf

from vatt_tf.core import tensor_utils
from vatt_tf.input_pipeline import audio_config

# Spectrogram.


@functools.cache
def _hann_window(length):
  """The periodic Hann window (`tf.signal`'s is not for odd lengths)."""
  with tf.init_scope():
    phase = 2.0 * math.pi * tf.range(length, dtype=tf.float32) / length
    return (0.5 - 0.5 * tf.cos(phase)).numpy()


@functools.cache
def _mel_weights(config, num_bins):
  """The weights from `num_bins` frequencies to mel bins: (num_bins, M)."""
  with tf.init_scope():
    return tf.signal.linear_to_mel_weight_matrix(
      num_mel_bins=config.num_mel_bins,
      num_spectrogram_bins=num_bins,
      sample_rate=config.sample_rate,
      lower_edge_hertz=config.min_frequency,
      upper_edge_hertz=config.max_frequency,
    ).numpy()


def _windows(waveform, length, hop):
  """Overlapping windows of the last axis, under `_hann_window`.

  The result equals `tf.signal.frame`, which gathers single samples where
  `length` is not a multiple of `hop`; this function copies whole hops.

  Args:
    waveform: (..., S), S static, zeros beyond it.
    length: Samples of a window.
    hop: Samples between the starts of windows.

  Returns:
    (..., F, L), F = ceil(S / hop); L is at least `length`, zeros beyond it.
  """
  size = waveform.shape[-1]
  count, overlap = -(-size // hop), -(-length // hop)
  padding = [[0, 0]] * (waveform.shape.rank - 1)
  padding.append([0, (count + overlap - 1) * hop - size])
  batch = tensor_utils.shape_list(waveform)[:-1]
  hops = tf.reshape(tf.pad(waveform, padding), [*batch, -1, hop])
  places = np.arange(count)[:, np.newaxis] + np.arange(overlap)
  windows = tf.gather(hops, places, axis=-2)  # (..., F, overlap, hop)
  windows = tf.reshape(windows, [*batch, count, overlap * hop])
  return windows * np.pad(_hann_window(length), [0, overlap * hop - length])


def standardize(x: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
  """Scales to mean 0 and deviation 1 over some axes; equal values become 0."""
  mean, variance = tf.nn.moments(x, axes, keepdims=True)
  return tf.math.divide_no_nan(x - mean, tf.sqrt(variance))


def spectrogram(
  waveform: tf.Tensor, config: audio_config.AudioConfig
) -> tf.Tensor:
  """Returns the log-mel spectrogram of waveforms.

  The magnitudes of the Fourier transform under a Hann window, which is as long
  as the next power of two and padded with zeros beyond the end, are summed to
  mel bins. VATT's form scales them to log(1 + 10^4 mel), and each clip to [0,
  1]; MMV's form (`log_mel`) is log(mel + 10^-6), about -14 to 5. With
  `standardize`, each clip is scaled to mean 0 and standard deviation 1 instead
  (to 0 where all values are equal, as in silence).

  Args:
    waveform: (..., S) float32.
    config: See `AudioConfig`.

  Returns:
    (..., F, M) float32, F = ceil(S / hop).
  """
  waveform = tf.convert_to_tensor(waveform, tf.float32)
  windows = _windows(waveform, config.window_length, config.hop_length)
  size = 1 << (config.window_length - 1).bit_length()
  transform = tf.signal.rfft(windows, [size])  # (..., F, size / 2 + 1)
  # `tf.abs` would also guard against overflow, but takes twice the time.
  power = tf.square(tf.math.real(transform))
  power += tf.square(tf.math.imag(transform))
  mel = tf.sqrt(power) @ _mel_weights(config, size // 2 + 1)  # (..., F, M)
  is_log_mel = config.form == audio_config.LOG_MEL
  mel = tf.math.log(mel + 1e-6) if is_log_mel else tf.math.log1p(1e4 * mel)
  if config.standardize:
    return standardize(mel, [-2, -1])
  if is_log_mel:
    return mel
  low = tf.reduce_min(mel, axis=[-2, -1], keepdims=True)
  high = tf.reduce_max(mel, axis=[-2, -1], keepdims=True)
  return tf.math.divide_no_nan(mel - low, high - low)


def mask_axis(
  x: tf.Tensor, axis: int, num_masks: int, max_width: int, seed: tf.Tensor
) -> tf.Tensor:
  """Replaces random stretches of an axis by the mean (SpecAugment).

  Each mask is 0 to `max_width` wide, and has a random place. Masks may overlap.

  Args:
    x: (F, M) float32.
    axis: Axis to mask, 0 for time, 1 for frequency.
    num_masks: Number of masks.
    max_width: Largest width of a mask.
    seed: (2,) integer.

  Returns:
    Like `x`.
  """
  size = tensor_utils.shape_list(x)[axis]
  draws = tf.random.stateless_uniform([2, num_masks], seed)
  widths = tf.cast(tf.floor(draws[0] * (max_width + 1)), tf.int32)
  room = tf.cast(size - widths + 1, tf.float32)
  starts = tf.cast(tf.floor(draws[1] * room), tf.int32)  # (n,)
  places = tf.range(size)[:, tf.newaxis]
  is_masked = (places >= starts) & (places < starts + widths)  # (size, n)
  is_masked = tf.reduce_any(is_masked, axis=1)
  is_masked = tf.expand_dims(is_masked, 1 - axis)  # (F, 1) or (1, M)
  return tf.where(is_masked, tf.reduce_mean(x), x)


def mask_spectrogram(
  x: tf.Tensor, config: audio_config.AudioConfig, seed: tf.Tensor
) -> tf.Tensor:
  """Masks time spans and frequency bands of a spectrogram (SpecAugment).

  Args:
    x: (F, M) float32.
    config: See `AudioConfig`.
    seed: (2,) integer.

  Returns:
    Like `x`.
  """
  for axis, num_masks, max_width in (
    (0, config.num_time_masks, config.max_time_mask),
    (1, config.num_frequency_masks, config.max_frequency_mask),
  ):
    if num_masks:
      axis_seed = tf.random.experimental.stateless_fold_in(seed, 2 + axis)
      x = mask_axis(x, axis, num_masks, max_width, axis_seed)
  return x
