"""Sound of a clip: its slice, sample rate, augmentation and model input.

Each step is a pure function in core TensorFlow ops, so that a served model can
contain it. Random steps take a `seed`, a (2,) integer tensor.
"""

import tensorflow as tf

from vatt_tf.input_pipeline import audio_config, resampling, spectrogram

# Faults of a waveform, as numbers that a graph can return.
NO_FAULT = 0

NOT_FINITE = 1

DENORMAL = 2

_SIGN_OFF = 0x7FFFFFFF

_SMALLEST_NORMAL_BITS = 0x00800000

_INFINITY_BITS = 0x7F800000


# Reading.


def find_fault(waveform: tf.Tensor) -> tf.Tensor:
  """Finds values in a waveform that are not sound.

  The bits are compared as integers: TensorFlow treats denormal numbers as 0.

  Args:
    waveform: (S,) float32.

  Returns:
    () int32: `NO_FAULT`, `NOT_FINITE` (an infinite value or a NaN) or
    `DENORMAL` (all values are denormal, at least one is not 0: integer samples
    whose bits were read as float32).
  """
  # As signed integers, the bits of positive values rise with the value; as
  # unsigned integers, negative values follow all positive ones and rise with
  # their size.
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
    num_samples = tf.size(waveform) // num_channels * num_channels
    frames = tf.reshape(waveform[:num_samples], [-1, num_channels])
    return tf.reduce_mean(frames, axis=1)

  def as_is():
    return waveform

  return tf.cond(num_channels > 1, average, as_is)


# Slice.


def slice_waveform(
  waveform: tf.Tensor,
  rate_in: tf.Tensor,
  offset: tf.Tensor,
  duration: tf.Tensor,
  config: audio_config.AudioConfig,
  is_looped: bool = True,
) -> tf.Tensor:
  """Cuts the sound of a clip out of a record, at the sample rate of `config`.

  Args:
    waveform: (n,) float32: sound of the record from its time 0.
    rate_in: () int32: samples per second of the record.
    offset: () int64: start of the clip, µs.
    duration: () int64: length of the record, µs. Missing samples before it are
      silent.
    config: See `AudioConfig`.
    is_looped: Whether the sound starts again at `duration`, instead of being
      silent beyond it.

  Returns:
    (num_samples,) float32, in [-1, 1].
  """
  down, up = resampling.reduced_rates(rate_in, config.sample_rate)
  # The slice has a margin for the filter of the resampler, which is a whole
  # number of samples at both rates.
  half = tf.where(tf.equal(down, up), 0, resampling.half_width(down, up))
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
    loop = _cut(waveform, 0, tf.minimum(count, end))
    tail = tf.tile(loop, [(count + end - 1) // end])[:count]
  else:
    tail = tf.zeros([count])
  samples = tf.concat([silence, head, tail], axis=0)
  samples = resampling.resample_by_factors(samples[tf.newaxis], down, up)[0]
  samples = samples[blocks * up : blocks * up + config.num_samples]
  samples = tf.ensure_shape(samples, [config.num_samples])
  return tf.clip_by_value(samples, -1.0, 1.0)


def _cut(waveform, start, count):
  """`count` samples from `start` on, followed by silence if there are fewer."""
  samples = waveform[start : start + count]
  return tf.pad(samples, [[0, count - tf.size(samples)]])


def _samples_at(time, rate):
  """The sample nearest to a time in µs, () int32."""
  seconds = tf.cast(time, tf.float64) * 1e-6
  return tf.cast(tf.round(seconds * tf.cast(rate, tf.float64)), tf.int32)


# Augmentation.


def augment(
  waveform: tf.Tensor, config: audio_config.AudioConfig, seed: tf.Tensor
) -> tf.Tensor:
  """Shifts the clip in a circle, changes its volume and adds noise.

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
  """Draws the share of a row's own sound from Beta(alpha, alpha).

  The larger of the share and 1 - share is used.

  Args:
    seeds: (B, 2) integer: a seed for each row.
    alpha: Parameter of the distribution, above 0.

  Returns:
    (B,) float32, in [0.5, 1].
  """

  def draw(seed):
    # A Beta variable is the share of one of two Gamma variables.
    pair = tf.random.stateless_gamma([2], seed, alpha)
    total = tf.maximum(tf.reduce_sum(pair), 1e-20)
    return tf.maximum(pair[0], pair[1]) / total

  return tf.map_fn(draw, seeds, fn_output_signature=tf.float32)


def finish_waveform(
  waveform: tf.Tensor,
  config: audio_config.AudioConfig,
  seed: tf.Tensor | None = None,
) -> tf.Tensor:
  """Augments a slice and converts it to the form of the model's input.

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
  if config.form != audio_config.WAVEFORM:
    x = tf.ensure_shape(spectrogram.spectrogram(waveform, config), config.shape)
    return x if seed is None else spectrogram.mask_spectrogram(x, config, seed)
  if config.standardize:
    waveform = spectrogram.standardize(waveform, [-1])
  return waveform[:, None]
