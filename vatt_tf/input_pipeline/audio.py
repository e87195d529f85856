"""Sound of a clip: the slice, its rate, its augmentation, its spectrogram.

Each step is a pure function in core TensorFlow ops, so that a served model can
hold it. What is random takes a `seed`, a (2,) integer tensor.
"""

import dataclasses
import functools
import math

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.core import (
  feature_names,
  tensor_utils,
)

WAVEFORM = 'waveform'
SPECTROGRAM = 'spectrogram'

# Faults of a waveform, as numbers that can leave a graph.
NO_FAULT = 0
NOT_FINITE = 1
DENORMAL = 2

_SIGN_OFF = 0x7FFFFFFF
_SMALLEST_NORMAL_BITS = 0x00800000
_INFINITY_BITS = 0x7F800000

# The low-pass of the resampler: zero crossings on each side, and the share of
# the smaller rate's band that passes.
_NUM_ZEROS = 16
_ROLLOFF = 0.95

# Above this many numbers in its bank of filters the resampler computes each
# output sample's own filter instead.
_MAX_BANK = 1 << 18


@gin.register
@dataclasses.dataclass(frozen=True)
class AudioConfig:
  """What the pipeline makes of the sound of a record.

  The paper: 153,600 samples at 48 kHz, the 3.2 seconds of 32 frames at 10
  frames a second. The spectrogram has 80 mel bins from 80 to 7,600 Hz, windows
  of 42.67 ms every 21.34 ms.

  Attributes:
    num_samples: Length of the waveform.
    sample_rate: Samples a second.
    form: `waveform` for the key `audio`, `spectrogram` for `spectrogram`.
    noise_std: Standard deviation of the Gaussian noise added in training.
    max_gain_db: Largest change of the volume in training, in decibels up or
      down.
    max_shift: In training the clip is turned by up to this share of its length
      to either side; what leaves at one end comes in at the other.
    mixup_alpha: In training each clip's sound is mixed with that of another
      clip of the batch, with weights drawn from Beta(alpha, alpha), and its
      label likewise; 0 for none.
    num_mel_bins: Of the spectrogram.
    min_frequency: Lower edge of the lowest bin, Hz.
    max_frequency: Upper edge of the highest bin, Hz.
    window_seconds: Length of a window of the spectrogram.
    hop_seconds: From the start of a window to that of the next.
    standardize: Whether a clip's waveform, or spectrogram, is brought to mean 0
      and standard deviation 1. Otherwise the waveform stays as it is, and the
      spectrogram's least value becomes 0 and its largest 1.
    num_time_masks: Stretches of time of the spectrogram that training replaces
      by its mean (SpecAugment).
    max_time_mask: Frames of the longest.
    num_frequency_masks: Bands of the spectrogram, likewise.
    max_frequency_mask: Bins of the broadest.
    num_clips: Clips taken of a record in evaluation, spread evenly, where there
      is no video; otherwise the `VideoConfig` says it.
  """

  num_samples: int = 153600
  sample_rate: int = 48000
  form: str = WAVEFORM
  noise_std: float = 0.0
  max_gain_db: float = 0.0
  max_shift: float = 0.0
  mixup_alpha: float = 0.0
  num_mel_bins: int = 80
  min_frequency: float = 80.0
  max_frequency: float = 7600.0
  window_seconds: float = 2048 / 48000
  hop_seconds: float = 1024 / 48000
  standardize: bool = False
  num_time_masks: int = 0
  max_time_mask: int = 0
  num_frequency_masks: int = 0
  max_frequency_mask: int = 0
  num_clips: int = 1

  def __post_init__(self):
    for name in ('num_samples', 'sample_rate', 'num_mel_bins', 'num_clips'):
      value = getattr(self, name)
      if value < 1 or value != int(value):
        raise ValueError(
          f'`{name}` must be an integer of at least 1. Received: {name}={value}'
        )
    if self.form not in (WAVEFORM, SPECTROGRAM):
      raise ValueError(
        f'`form` must be {WAVEFORM!r} or {SPECTROGRAM!r}. Received: '
        f'form={self.form!r}'
      )
    for name in ('noise_std', 'max_gain_db', 'mixup_alpha'):
      if getattr(self, name) < 0:
        raise ValueError(
          f'`{name}` must be at least 0. Received: {name}={getattr(self, name)}'
        )
    if not 0 <= self.max_shift <= 1:
      raise ValueError(
        f'`max_shift` must be in [0, 1]. Received: max_shift={self.max_shift}'
      )
    self._check_masks()
    if self.form == SPECTROGRAM:
      if not 0 <= self.min_frequency < self.max_frequency:
        raise ValueError(
          '`min_frequency` must be at least 0 and below `max_frequency`. '
          f'Received: min_frequency={self.min_frequency}, '
          f'max_frequency={self.max_frequency}'
        )
      if self.max_frequency > self.sample_rate / 2:
        raise ValueError(
          '`max_frequency` must be at most half of `sample_rate`. Received: '
          f'max_frequency={self.max_frequency}, '
          f'sample_rate={self.sample_rate}'
        )
      if not (self.window_length >= 2 and self.hop_length >= 1):
        raise ValueError(
          '`window_seconds` must be at least two samples and `hop_seconds` '
          f'one. Received: window_seconds={self.window_seconds}, '
          f'hop_seconds={self.hop_seconds}'
        )

  def _check_masks(self):
    """Raises unless masks fit, and are of a spectrogram."""
    for axis, size in (
      ('time', math.ceil(self.num_samples / max(self.hop_length, 1))),
      ('frequency', self.num_mel_bins),
    ):
      count = getattr(self, f'num_{axis}_masks')
      width = getattr(self, f'max_{axis}_mask')
      received = f'Received: num_{axis}_masks={count}, max_{axis}_mask={width}'
      if count < 0 or (count and not 0 <= width <= size):
        raise ValueError(
          f'`num_{axis}_masks` must be at least 0, and `max_{axis}_mask` in '
          f'[0, {size}], the size of the spectrogram. {received}'
        )
      if count and self.form != SPECTROGRAM:
        raise ValueError(
          f'`num_{axis}_masks` must be 0 for waveforms: masks are of a '
          f'spectrogram. {received}, form={self.form!r}'
        )

  @property
  def window_length(self) -> int:
    """Samples of a window of the spectrogram."""
    return round(self.window_seconds * self.sample_rate)

  @property
  def hop_length(self) -> int:
    """Samples from a window of the spectrogram to the next."""
    return round(self.hop_seconds * self.sample_rate)

  @property
  def input_name(self) -> str:
    """Key of the feature dictionary that the sound has."""
    if self.form == SPECTROGRAM:
      return feature_names.SPECTROGRAM
    return feature_names.AUDIO

  @property
  def shape(self) -> tuple[int, int]:
    """(S, 1) of a waveform, (F, M) of a spectrogram."""
    if self.form == WAVEFORM:
      return self.num_samples, 1
    return math.ceil(self.num_samples / self.hop_length), self.num_mel_bins

  @property
  def seconds(self) -> float:
    """What the slice lasts."""
    return self.num_samples / self.sample_rate


# Reading.


def find_fault(waveform: tf.Tensor) -> tf.Tensor:
  """Finds waveforms that hold anything but sound.

  The bits are compared as integers: TensorFlow treats denormal numbers as 0.

  Args:
    waveform: (S,) float32.

  Returns:
    () int32: `NO_FAULT`, `NOT_FINITE` (an infinite value or a NaN) or
    `DENORMAL` (all values are denormal, at least one is not 0: integer samples
    whose bits were read as float32).
  """
  # As signed numbers the bits rise with positive values, as unsigned ones with
  # the size of negative values, which come after all positive ones.
  largest = tf.maximum(tf.reduce_max(tf.bitcast(waveform, tf.int32)), 0)
  lowest = tf.reduce_max(tf.bitcast(waveform, tf.uint32))
  lowest = tf.bitwise.bitwise_and(tf.bitcast(lowest, tf.int32), _SIGN_OFF)
  largest = tf.maximum(largest, lowest)
  is_denormal = (largest > 0) & (largest < _SMALLEST_NORMAL_BITS)
  fault = tf.where(is_denormal, DENORMAL, NO_FAULT)
  return tf.where(largest >= _INFINITY_BITS, NOT_FINITE, fault)


def mix_channels(waveform: tf.Tensor, num_channels: tf.Tensor) -> tf.Tensor:
  """Averages interleaved channels.

  Args:
    waveform: (S * num_channels,) float32.
    num_channels: () integer.

  Returns:
    (S,) float32.
  """
  num_channels = tf.maximum(tf.cast(num_channels, tf.int32), 1)

  def average():
    whole = tf.size(waveform) // num_channels * num_channels
    frames = tf.reshape(waveform[:whole], [-1, num_channels])
    return tf.reduce_mean(frames, axis=1)

  def as_is():
    return waveform

  return tf.cond(num_channels > 1, average, as_is)


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


def _half_width(rate_in, rate_out):
  """() int32, input samples that a filter reaches to each side."""
  rate_in, rate_out = (tf.cast(r, tf.float32) for r in (rate_in, rate_out))
  cut = _ROLLOFF * tf.minimum(1.0, rate_out / rate_in)
  return tf.cast(tf.math.ceil(_NUM_ZEROS / cut), tf.int32) + 1


def _greatest_common_divisor(a, b):
  def has_rest(a, b):
    del a
    return b > 0

  def step(a, b):
    return b, a % b

  return tf.while_loop(has_rest, step, [a, b])[0]


def reduced_rates(
  rate_in: int | tf.Tensor, rate_out: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
  """Both rates divided by their greatest common divisor, () int32."""
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

  Outside of the given samples the sound is taken to be silent. The filter
  has 16 zero crossings a side under a Hann window, and passes 95 % of the band
  of the smaller rate.

  Args:
    waveform: (..., S) float32.
    rate_in: Samples a second of `waveform`, Python or tensor integer.
    rate_out: Samples a second of the result, Python or tensor integer.

  Returns:
    (..., ceil(S * rate_out / rate_in)) float32. Output sample i is the sound at
    i / rate_out seconds.
  """
  waveform = tf.convert_to_tensor(waveform, tf.float32)
  shape = tf.shape(waveform)
  flat = tf.reshape(waveform, [-1, shape[-1]])  # (B, S)
  result = _resample(flat, *reduced_rates(rate_in, rate_out))
  return tf.reshape(result, tf.concat([shape[:-1], [tf.shape(result)[1]]], 0))


def _resample(waveform, down, up):
  """`resample` of (B, S) waveforms, by rates of `reduced_rates`."""

  def as_is():
    return waveform

  def change():
    # One filter for each of the `up` positions between input samples. Blocks
    # much shorter than the filter would copy each sample many times.
    half = _half_width(down, up)
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
  """() int32, ceil(length * up / down)."""
  length, down, up = (tf.cast(x, tf.int64) for x in (length, down, up))
  return tf.cast((length * up + down - 1) // down, tf.int32)


def _resample_by_bank(waveform, down, up):
  """Blocks of `down` input samples to blocks of `up` outputs: a product."""
  length = tf.shape(waveform)[1]
  half = _half_width(down, up)
  num_outputs = _output_length(length, down, up)
  num_blocks = (num_outputs + up - 1) // up
  rate_in, rate_out = tf.cast(down, tf.float32), tf.cast(up, tf.float32)
  reach = tf.range(down + 2 * half) - half  # (K,), inputs of a block
  offsets = tf.range(up, dtype=tf.float32) * (rate_in / rate_out)  # (up,)
  times = offsets[None, :] - tf.cast(reach, tf.float32)[:, None]
  bank = _lowpass(times, rate_in, rate_out)  # (K, up)
  after = tf.maximum(num_blocks * down + half - length, 0)
  padded = tf.pad(waveform, tf.stack([[0, 0], tf.stack([half, after])]))
  starts = tf.range(num_blocks)[:, None] * down + half
  blocks = tf.gather(padded, starts + reach[None, :], axis=1)
  blocks = tf.einsum('bnk,ku->bnu', blocks, bank)
  blocks = tf.reshape(blocks, [tf.shape(waveform)[0], -1])  # (B, blocks*up)
  return blocks[:, :num_outputs]


def _resample_by_gather(waveform, down, up):
  """Each output sample by the filter at its own place."""
  length = tf.shape(waveform)[1]
  half = _half_width(down, up)
  num_outputs = _output_length(length, down, up)
  rate_in, rate_out = tf.cast(down, tf.float32), tf.cast(up, tf.float32)
  places = tf.range(num_outputs, dtype=tf.int64) * tf.cast(down, tf.int64)
  whole = tf.cast(places // tf.cast(up, tf.int64), tf.int32)  # (N,)
  rest = tf.cast(places % tf.cast(up, tf.int64), tf.float32) / rate_out
  padded = tf.pad(waveform, tf.stack([[0, 0], tf.stack([half, half + 1])]))

  def add_tap(tap, total):
    times = rest - tf.cast(tap - half, tf.float32)
    weights = _lowpass(times, rate_in, rate_out)
    return tap + 1, total + weights * tf.gather(padded, whole + tap, axis=1)

  def has_tap(tap, total):
    del total
    return tap < 2 * half + 1

  zeros = tf.zeros([tf.shape(waveform)[0], num_outputs])
  return tf.while_loop(has_tap, add_tap, [0, zeros])[1]


# Slice.


def slice_waveform(
  waveform: tf.Tensor,
  rate_in: tf.Tensor,
  offset: tf.Tensor,
  duration: tf.Tensor,
  config: AudioConfig,
  is_looped: bool = True,
) -> tf.Tensor:
  """Cuts the sound of a clip out of a record, at the wanted rate.

  Args:
    waveform: (n,) float32, the sound of the record from its time 0.
    rate_in: () int32, its samples a second.
    offset: () int64, µs, where the clip starts.
    duration: () int64, µs, what the record lasts. There the sound starts again
      if `is_looped`; samples that are missing until there are silent.
    config: See `AudioConfig`.
    is_looped: Otherwise the sound beyond `duration` is silent.

  Returns:
    (num_samples,) float32, in [-1, 1].
  """
  down, up = reduced_rates(rate_in, config.sample_rate)
  # The slice is taken with a margin, for the filter of the resampler; one that
  # is a whole number of samples at both rates.
  half = tf.where(tf.equal(down, up), 0, _half_width(down, up))
  blocks = (half + down - 1) // down
  start = _samples_at(offset, rate_in)
  end = tf.maximum(_samples_at(duration, rate_in), 1)
  length = tf.cast(
    tf.math.ceil(
      config.num_samples * tf.cast(down, tf.float64) / tf.cast(up, tf.float64)
    ),
    tf.int32,
  )
  first = start - blocks * down
  count = length + 2 * blocks * down

  silence = tf.zeros([tf.clip_by_value(-first, 0, count)])  # before time 0
  first = tf.maximum(first, 0)
  count -= tf.size(silence)
  waveform = waveform[:end]
  if is_looped:
    first %= end
  head = _cut(waveform, first, tf.clip_by_value(end - first, 0, count))
  count -= tf.size(head)
  if is_looped:
    again = _cut(waveform, 0, tf.minimum(count, end))
    tail = tf.tile(again, [(count + end - 1) // end])[:count]
  else:
    tail = tf.zeros([count])
  samples = tf.concat([silence, head, tail], axis=0)
  samples = _resample(samples[tf.newaxis], down, up)[0]
  samples = samples[blocks * up : blocks * up + config.num_samples]
  samples = tf.ensure_shape(samples, [config.num_samples])
  return tf.clip_by_value(samples, -1.0, 1.0)


def _cut(waveform, start, count):
  """`count` samples from `start` on; silence where there are none."""
  samples = waveform[start : start + count]
  return tf.pad(samples, [[0, count - tf.size(samples)]])


def _samples_at(time, rate):
  """() int32: the sample nearest to a time in µs."""
  seconds = tf.cast(time, tf.float64) * 1e-6
  return tf.cast(tf.round(seconds * tf.cast(rate, tf.float64)), tf.int32)


# Augmentation.


def augment(
  waveform: tf.Tensor, config: AudioConfig, seed: tf.Tensor
) -> tf.Tensor:
  """Turns the clip, changes the volume and adds noise.

  Args:
    waveform: (S,) float32.
    config: See `AudioConfig`.
    seed: (2,) integer.

  Returns:
    (S,) float32, in [-1, 1].
  """
  if config.max_shift:
    shift_seed = tf.random.experimental.stateless_fold_in(seed, 1)
    draw = tf.random.stateless_uniform([], shift_seed, -1.0, 1.0)
    reach = config.max_shift * tf.cast(tf.size(waveform), tf.float32)
    waveform = tf.roll(waveform, tf.cast(tf.round(draw * reach), tf.int32), 0)
  if not config.max_gain_db and not config.noise_std:
    return waveform
  gain_seed, noise_seed = tf.unstack(tf.random.split(seed, 2))
  if config.max_gain_db:
    draw = tf.random.stateless_uniform([], gain_seed, -1.0, 1.0)
    waveform *= 10.0 ** (draw * config.max_gain_db / 20.0)
  if config.noise_std:
    waveform += tf.random.stateless_normal(
      tf.shape(waveform), noise_seed, stddev=config.noise_std
    )
  return tf.clip_by_value(waveform, -1.0, 1.0)


def mixup_weights(seeds: tf.Tensor, alpha: float) -> tf.Tensor:
  """The share of a row's own sound, from Beta(alpha, alpha), at least a half.

  Args:
    seeds: (B, 2) integer, one for each row.
    alpha: Above 0.

  Returns:
    (B,) float32, in [0.5, 1].
  """

  def draw(seed):
    # A Beta variable is the share of one of two Gamma variables.
    pair = tf.random.stateless_gamma([2], seed, alpha)
    total = tf.maximum(tf.reduce_sum(pair), 1e-20)
    return tf.maximum(pair[0], pair[1]) / total

  return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)


# Spectrogram.


@functools.cache
def _hann_window(length):
  """The periodic window (`tf.signal`'s is not, where the length is odd)."""
  with tf.init_scope():
    phase = 2.0 * math.pi * tf.range(length, dtype=tf.float32) / length
    return (0.5 - 0.5 * tf.cos(phase)).numpy()


@functools.cache
def _mel_weights(config, num_bins):
  """The sums of `num_bins` frequencies to mel bins: (num_bins, M) float32."""
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

  Numbers are those of `tf.signal.frame`, which gathers single samples where
  `length` is no multiple of `hop`; here whole hops are copied.

  Args:
    waveform: (..., S), S static, zeros beyond it.
    length: samples of a window.
    hop: samples between the starts of windows.

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


def _standardize(x, axes):
  """Mean 0 and standard deviation 1 over some axes; 0 where all is equal."""
  mean, variance = tf.nn.moments(x, axes, keepdims=True)
  return tf.math.divide_no_nan(x - mean, tf.sqrt(variance))


def spectrogram(waveform: tf.Tensor, config: AudioConfig) -> tf.Tensor:
  """The log-mel spectrogram of waveforms, each normalized.

  Magnitudes of the Fourier transform under a Hann window, windows beyond the
  end filled with zeros, the transform as long as the next power of two;
  summed to mel bins; log(1 + 10^4 mel); then the clip's least value becomes 0
  and its largest 1, or with `standardize` its mean 0 and its standard deviation
  1 (all 0 when they are equal, as in silence).

  Args:
    waveform: (..., S) float32.
    config: See `AudioConfig`.

  Returns:
    (..., F, M) float32, F = ceil(S / hop); in [0, 1] by default.
  """
  waveform = tf.convert_to_tensor(waveform, tf.float32)
  windows = _windows(waveform, config.window_length, config.hop_length)
  size = 1 << (config.window_length - 1).bit_length()
  transform = tf.signal.rfft(windows, [size])  # (..., F, size / 2 + 1)
  # `tf.abs` guards against overflow too, at twice the time.
  power = tf.square(tf.math.real(transform))
  power += tf.square(tf.math.imag(transform))
  mel = tf.sqrt(power) @ _mel_weights(config, size // 2 + 1)  # (..., F, M)
  mel = tf.math.log1p(1e4 * mel)
  if config.standardize:
    return _standardize(mel, [-2, -1])
  low = tf.reduce_min(mel, axis=[-2, -1], keepdims=True)
  high = tf.reduce_max(mel, axis=[-2, -1], keepdims=True)
  return tf.math.divide_no_nan(mel - low, high - low)


def mask_axis(
  x: tf.Tensor, axis: int, num_masks: int, max_width: int, seed: tf.Tensor
) -> tf.Tensor:
  """Replaces random stretches of an axis by the mean (SpecAugment).

  Each mask is 0 to `max_width` wide, and lies anywhere with equal chance; they
  may overlap.

  Args:
    x: (F, M) float32.
    axis: 0 for time, 1 for frequency.
    num_masks: How many.
    max_width: Of the widest.
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
  x: tf.Tensor, config: AudioConfig, seed: tf.Tensor
) -> tf.Tensor:
  """Masks stretches of time and bands of a spectrogram (SpecAugment).

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
      own = tf.random.experimental.stateless_fold_in(seed, 2 + axis)
      x = mask_axis(x, axis, num_masks, max_width, own)
  return x


def finish_waveform(
  waveform: tf.Tensor, config: AudioConfig, seed: tf.Tensor | None = None
) -> tf.Tensor:
  """Augments a slice and gives it its form.

  Args:
    waveform: (S,) float32.
    config: See `AudioConfig`.
    seed: (2,) integer, or None for evaluation: no augmentation.

  Returns:
    (S, 1) float32, in [-1, 1] without `standardize`, or (F, M) float32, see
    `spectrogram`.
  """
  if seed is not None:
    waveform = augment(waveform, config, seed)
  if config.form == SPECTROGRAM:
    x = tf.ensure_shape(spectrogram(waveform, config), config.shape)
    return x if seed is None else mask_spectrogram(x, config, seed)
  if config.standardize:
    waveform = _standardize(waveform, [-1])
  return waveform[:, None]
