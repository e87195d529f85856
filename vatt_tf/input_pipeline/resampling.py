"""A windowed-sinc resampler in core TensorFlow ops.

The evaluation pipeline and exported models share it.
"""

import math

import tensorflow as tf

# The low-pass filter of the resampler: zero crossings on each side, and share
# of the smaller rate's band that passes.
_NUM_ZEROS = 16

_ROLLOFF = 0.95

# With more numbers than this in its bank of filters, the resampler computes the
# filter of each output sample instead.
_MAX_BANK = 1 << 18


# Rate.


def _lowpass(times, rate_in, rate_out):
  """The windowed sinc, at times in samples of the input."""
  cut = _ROLLOFF * tf.minimum(1.0, rate_out / rate_in)
  scaled = times * cut
  inside = tf.abs(scaled) < _NUM_ZEROS
  window = tf.cos(scaled * (math.pi / 2.0 / _NUM_ZEROS)) ** 2
  angle = math.pi * scaled
  is_zero = tf.abs(angle) < 1e-6
  sinc = tf.sin(angle) / tf.where(is_zero, 1.0, angle)
  sinc = tf.where(is_zero, 1.0, sinc)
  return tf.where(inside, cut * window * sinc, 0.0)


def half_width(
  rate_in: tf.Tensor | int, rate_out: tf.Tensor | int
) -> tf.Tensor:
  """Returns the input samples on each side of a filter's centre: () int32."""
  rate_in, rate_out = (tf.cast(r, tf.float32) for r in (rate_in, rate_out))
  cut = _ROLLOFF * tf.minimum(1.0, rate_out / rate_in)
  return tf.cast(tf.math.ceil(_NUM_ZEROS / cut), tf.int32) + 1


def _greatest_common_divisor(a, b):
  def has_remainder(a, b):
    del a
    return b > 0

  def step(a, b):
    return b, a % b

  return tf.while_loop(has_remainder, step, [a, b])[0]


def reduced_rates(
  rate_in: int | tf.Tensor, rate_out: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Divides both rates by their greatest common divisor: () int32."""
  if isinstance(rate_in, int) and isinstance(rate_out, int):
    divisor = math.gcd(rate_in, rate_out)
    return tf.constant(rate_in // divisor), tf.constant(rate_out // divisor)
  rate_in = tf.cast(rate_in, tf.int32)
  rate_out = tf.cast(rate_out, tf.int32)
  divisor = _greatest_common_divisor(rate_in, rate_out)
  return rate_in // divisor, rate_out // divisor


def resample(
  waveform: tf.Tensor, rate_in: int | tf.Tensor, rate_out: int | tf.Tensor
) -> tf.Tensor:
  """Changes the rate of waveforms with a windowed-sinc low-pass filter.

  Outside the given samples, the sound is assumed to be silent. The filter has
  16 zero crossings on each side under a Hann window, and passes 95 % of the
  band of the smaller rate.

  Args:
    waveform: (..., S) float32.
    rate_in: Samples per second of `waveform`, Python or tensor integer.
    rate_out: Samples per second of the result, Python or tensor integer.

  Returns:
    (..., ceil(S * rate_out / rate_in)) float32. Output sample i is the sound at
    i / rate_out seconds.
  """
  waveform = tf.convert_to_tensor(waveform, tf.float32)
  shape = tf.shape(waveform)
  flat = tf.reshape(waveform, [-1, shape[-1]])  # (B, S)
  resampled = resample_by_factors(flat, *reduced_rates(rate_in, rate_out))
  return tf.reshape(
    resampled, tf.concat([shape[:-1], [tf.shape(resampled)[1]]], 0)
  )


def resample_by_factors(
  waveform: tf.Tensor, down: tf.Tensor, up: tf.Tensor
) -> tf.Tensor:
  """Resamples (B, S) waveforms by rates of `reduced_rates`."""

  def as_is():
    return waveform

  def change():
    # One filter for each of the `up` positions between input samples. Blocks
    # much shorter than the filter would copy each sample many times.
    half = half_width(down, up)
    times = tf.maximum(2 * half // down, 1)
    size = tf.cast(up * times, tf.float32) * tf.cast(
      down * times + 2 * half, tf.float32
    )
    is_small = size <= _MAX_BANK

    def by_bank():
      return _resample_by_bank(waveform, down * times, up * times)

    def by_gather():
      return _resample_by_gather(waveform, down, up)

    return tf.cond(is_small, by_bank, by_gather)

  return tf.cond(tf.equal(down, up), as_is, change)


def _output_length(length, down, up):
  """The number of output samples, ceil(length * up / down): () int32."""
  length, down, up = (tf.cast(x, tf.int64) for x in (length, down, up))
  return tf.cast((length * up + down - 1) // down, tf.int32)


def _resample_by_bank(waveform, down, up):
  """Turns blocks of `down` inputs into blocks of `up` outputs by a product."""
  length = tf.shape(waveform)[1]
  half = half_width(down, up)
  num_outputs = _output_length(length, down, up)
  num_blocks = (num_outputs + up - 1) // up
  rate_in, rate_out = tf.cast(down, tf.float32), tf.cast(up, tf.float32)
  reach = tf.range(down + 2 * half) - half  # (K,), inputs of a block
  offsets = tf.range(up, dtype=tf.float32) * (rate_in / rate_out)  # (up,)
  times = offsets[None, :] - tf.cast(reach, tf.float32)[:, None]
  bank = _lowpass(times, rate_in, rate_out)  # (K, up)
  num_zeros = tf.maximum(num_blocks * down + half - length, 0)
  padded = tf.pad(waveform, tf.stack([[0, 0], tf.stack([half, num_zeros])]))
  starts = tf.range(num_blocks)[:, None] * down + half
  blocks = tf.gather(padded, starts + reach[None, :], axis=1)
  blocks = tf.einsum('bnk,ku->bnu', blocks, bank)
  blocks = tf.reshape(blocks, [tf.shape(waveform)[0], -1])  # (B, blocks*up)
  return blocks[:, :num_outputs]


def _resample_by_gather(waveform, down, up):
  """Computes each output sample with the filter for its place."""
  length = tf.shape(waveform)[1]
  half = half_width(down, up)
  num_outputs = _output_length(length, down, up)
  rate_in, rate_out = tf.cast(down, tf.float32), tf.cast(up, tf.float32)
  places = tf.range(num_outputs, dtype=tf.int64) * tf.cast(down, tf.int64)
  first = tf.cast(places // tf.cast(up, tf.int64), tf.int32)  # (N,)
  fraction = tf.cast(places % tf.cast(up, tf.int64), tf.float32) / rate_out
  padded = tf.pad(waveform, tf.stack([[0, 0], tf.stack([half, half + 1])]))

  def add_tap(tap, total):
    times = fraction - tf.cast(tap - half, tf.float32)
    weights = _lowpass(times, rate_in, rate_out)
    return tap + 1, total + weights * tf.gather(padded, first + tap, axis=1)

  def has_tap(tap, total):
    del total
    return tap < 2 * half + 1

  zeros = tf.zeros([tf.shape(waveform)[0], num_outputs])
  return tf.while_loop(has_tap, add_tap, [0, zeros])[1]
