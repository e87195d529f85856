"""Tests of `vatt_tf.input_pipeline.audio`."""

import dataclasses
import math

from absl.testing import parameterized
import numpy as np
import scipy.signal
import tensorflow as tf

from tests import mmv_fixtures, sound_files
from vatt_tf.input_pipeline import audio, audio_config, resampling, spectrogram


def _tones(rate, seconds, highest):
  """Band-limited sound, computed exactly at any rate."""
  times = np.arange(int(rate * seconds)) / rate
  frequencies = np.linspace(60.0, highest, 7)
  tones = [np.sin(2 * np.pi * f * times + f) / 8 for f in frequencies]
  return np.sum(tones, axis=0).astype(np.float32)


def _int64(value):
  return tf.constant(value, tf.int64)


class ResampleTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    (44100, 48000),
    (48000, 44100),
    (48000, 16000),
    (16000, 48000),
    (22050, 48000),
    (8000, 44100),
    (7919, 8000),  # No common divisor: the other way of computing.
    (44100, 44100),
  )
  def test_values(self, rate_in, rate_out):
    highest = 0.38 * min(rate_in, rate_out)
    sound = _tones(rate_in, 0.5, highest)
    result = tf.function(resampling.resample, autograph=False)(
      tf.constant(sound), tf.constant(rate_in), tf.constant(rate_out)
    )
    self.assertLen(result, math.ceil(len(sound) * rate_out / rate_in))
    inside = slice(400, -400)  # The ends see the silence around them.
    expected = _tones(rate_out, 0.5, highest)
    count = min(len(expected), len(result))
    self.assertAllClose(
      result[:count][inside], expected[:count][inside], atol=5e-4
    )
    divisor = math.gcd(rate_in, rate_out)
    other = scipy.signal.resample_poly(
      sound, rate_out // divisor, rate_in // divisor
    )
    self.assertAllClose(
      result[:count][inside], other[:count][inside], atol=2e-3
    )

  @sound_files.needs_native_ops
  def test_agrees_with_tensorflow_io(self):
    import tensorflow_io as tfio

    sound = _tones(44100, 0.5, 9000.0)
    ours = resampling.resample(sound, 44100, 48000).numpy()
    theirs = tfio.audio.resample(sound[:, None], 44100, 48000).numpy()[:, 0]
    # Theirs comes late by the delay of its filter.
    spectrum = np.fft.rfft(theirs, 1 << 16) * np.conj(
      np.fft.rfft(ours, 1 << 16)
    )
    delay = int(np.argmax(np.fft.irfft(spectrum)[:200]))
    ours, theirs = ours[500 : -500 - delay], theirs[500 + delay : -500]
    self.assertGreater(np.corrcoef(ours, theirs)[0, 1], 0.99)

  def test_removes_what_the_lower_rate_cannot_hold(self):
    times = np.arange(48000) / 48000
    sound = np.sin(2 * np.pi * 11000 * times).astype(np.float32)
    result = resampling.resample(sound, 48000, 16000)
    self.assertLess(np.abs(result[100:-100]).max(), 1e-3)

  def test_batch_and_tensor_rates(self):
    sound = np.stack([_tones(8000, 0.1, 1000.0), _tones(8000, 0.1, 3000.0)])
    result = resampling.resample(sound[:, None], 8000, tf.constant(16000))
    self.assertEqual(result.shape, [2, 1, 1600])
    for row in range(2):
      self.assertAllClose(
        result[row, 0], resampling.resample(sound[row], 8000, 16000), atol=1e-6
      )

  def test_constant_stays(self):
    result = resampling.resample(tf.ones([2000]), 44100, 48000)
    self.assertAllClose(result[200:-200], tf.ones([2177 - 400]), atol=1e-3)


class SliceTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(0, 100_000, 250_000)
  def test_same_rate_takes_the_samples(self, offset):
    config = audio_config.AudioConfig(num_samples=160, sample_rate=1000)
    sound = np.arange(1000, dtype=np.float32) / 1000
    result = tf.function(audio.slice_waveform, autograph=False)(
      sound, tf.constant(1000), _int64(offset), _int64(1_000_000), config
    )
    self.assertAllEqual(result, sound[offset // 1000 :][:160])

  @parameterized.parameters((8000, 16000), (48000, 16000), (44100, 16000))
  def test_other_rate(self, rate_in, rate_out):
    config = audio_config.AudioConfig(num_samples=4000, sample_rate=rate_out)
    sound = _tones(rate_in, 1.0, 0.3 * min(rate_in, rate_out))
    expected = _tones(rate_out, 1.0, 0.3 * min(rate_in, rate_out))
    result = audio.slice_waveform(
      sound, tf.constant(rate_in), _int64(500_000), _int64(1_000_000), config
    )
    # Inside of a record the margin makes the ends as good as the middle.
    start = rate_out // 2
    self.assertAllClose(result, expected[start : start + 4000], atol=1e-3)

  def test_loops_at_the_end_of_the_record(self):
    config = audio_config.AudioConfig(num_samples=9, sample_rate=10)
    sound = np.float32([0.1, 0.2, 0.3])
    arguments = (sound, tf.constant(10), _int64(0), _int64(400_000), config)
    self.assertAllEqual(
      audio.slice_waveform(*arguments),
      np.float32([0.1, 0.2, 0.3, 0.0] * 3)[:9],
    )
    self.assertAllEqual(
      audio.slice_waveform(*arguments, is_looped=False),
      np.float32([0.1, 0.2, 0.3] + [0.0] * 6),
    )

  @parameterized.product(
    offset=(0, 30, 90, 140),  # samples
    duration=(1, 60, 140, 200),
    is_looped=(True, False),
  )
  def test_each_sample_is_that_of_its_time(self, offset, duration, is_looped):
    config = audio_config.AudioConfig(num_samples=150, sample_rate=1000)
    sound = np.random.default_rng(0).uniform(-1, 1, 100).astype(np.float32)
    result = tf.function(audio.slice_waveform, autograph=False)(
      sound,
      tf.constant(1000),
      _int64(offset * 1000),
      _int64(duration * 1000),
      config,
      is_looped,
    )
    silence = np.zeros([400], np.float32)
    record = np.concatenate([sound, silence])[:duration]
    record = np.concatenate([record] * 300 if is_looped else [record, silence])
    self.assertAllEqual(result, record[offset : offset + 150])

  def test_sound_before_the_record_is_silent(self):
    config = audio_config.AudioConfig(num_samples=4000, sample_rate=16000)
    sound = _tones(8000, 1.0, 2000)
    first, later = (
      audio.slice_waveform(
        np.concatenate([np.zeros([start], np.float32), sound]),
        tf.constant(8000),
        _int64(start * 125),
        _int64(2_000_000),
        config,
      )
      for start in (0, 4000)
    )
    self.assertAllClose(first, later, atol=1e-6)


class FaultTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.named_parameters(
    ('sound', np.float32([0.1, -0.2]), audio.NO_FAULT),
    ('silence', np.zeros([4], np.float32), audio.NO_FAULT),
    ('empty', np.zeros([0], np.float32), audio.NO_FAULT),
    ('one_denormal', np.float32([0.1, 1e-40]), audio.NO_FAULT),
    ('nan', np.float32([0.1, np.nan]), audio.NOT_FINITE),
    ('infinite', np.float32([-np.inf, 0.1]), audio.NOT_FINITE),
    (
      'positive_integers',
      np.array([5, 0, 77], np.int32).view(np.float32),
      audio.DENORMAL,
    ),
    (
      'integers',
      np.array([5, -3, 77], np.int32).view(np.float32),
      audio.NOT_FINITE,
    ),
  )
  def test_faults(self, waveform, expected):
    self.assertEqual(audio.find_fault(tf.constant(waveform)), expected)
    dataset = tf.data.Dataset.from_tensors(waveform).map(audio.find_fault)
    self.assertEqual(next(iter(dataset)), expected)

  def test_channels(self):
    sound = tf.constant([0.0, 1.0, 0.5, 0.5, 9.0])
    mix = tf.function(audio.mix_channels, autograph=False)
    self.assertAllClose(mix(sound, tf.constant(2)), [0.5, 0.5])
    self.assertAllClose(mix(sound, tf.constant(1)), sound)


def _mel_reference(num_bins, num_frequencies, rate, low, high):
  """Triangles on the mel scale, by their definition."""

  def mel(hertz):
    return 1127.0 * math.log(1.0 + hertz / 700.0)

  edges = np.linspace(mel(low), mel(high), num_bins + 2)
  matrix = np.zeros([num_frequencies, num_bins])
  for row in range(1, num_frequencies):  # The constant part is left out.
    place = mel(row * rate / 2.0 / (num_frequencies - 1))
    for column in range(num_bins):
      left, center, right = edges[column : column + 3]
      rising = (place - left) / (center - left)
      falling = (right - place) / (right - center)
      matrix[row, column] = max(0.0, min(rising, falling))
  return matrix


def _spectrogram_reference(sound, rate, window, hop, num_bins, low, high):
  """The equations of the documentation, with loops."""
  size = 1
  while size < window:
    size *= 2
  taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
  num_frames = -(-len(sound) // hop)
  sound = np.concatenate([sound, np.zeros(window)])
  to_mel = _mel_reference(num_bins, size // 2 + 1, rate, low, high)
  result = np.zeros([num_frames, num_bins])
  for frame in range(num_frames):
    part = sound[frame * hop : frame * hop + window] * taper
    result[frame] = np.abs(np.fft.rfft(part, size)) @ to_mel
  result = np.log(1.0 + 1e4 * result)
  return (result - result.min()) / (result.max() - result.min())


class SpectrogramTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters((48000, 2048, 1024), (16000, 683, 341))
  def test_values(self, rate, window, hop):
    config = audio_config.AudioConfig(
      num_samples=rate // 2, sample_rate=rate, form=audio_config.SPECTROGRAM
    )
    self.assertEqual((config.window_length, config.hop_length), (window, hop))
    sound = _tones(rate, 0.5, 5000.0)
    sound += np.random.default_rng(0).normal(0, 0.01, sound.shape)
    result = spectrogram.spectrogram(tf.constant(sound, tf.float32), config)
    expected = _spectrogram_reference(
      sound.astype(np.float32), rate, window, hop, 80, 80.0, 7600.0
    )
    self.assertEqual(result.shape, config.shape)
    self.assertAllClose(result, expected, atol=2e-4)

  def test_form_of_the_paper(self):
    config = audio_config.AudioConfig(form=audio_config.SPECTROGRAM)
    self.assertEqual(config.shape, (150, 80))

  def test_silence_is_zero(self):
    config = audio_config.AudioConfig(
      num_samples=8000, sample_rate=16000, form=audio_config.SPECTROGRAM
    )
    result = audio.finish_waveform(tf.zeros([8000]), config)
    self.assertAllEqual(result, tf.zeros(config.shape))

  def test_each_clip_is_normalised_by_itself(self):
    config = audio_config.AudioConfig(
      num_samples=4000, sample_rate=16000, form=audio_config.SPECTROGRAM
    )
    sound = _tones(16000, 0.25, 3000.0)
    both = spectrogram.spectrogram(tf.stack([sound, 0.01 * sound]), config)
    self.assertAllClose(tf.reduce_max(both, [1, 2]), [1.0, 1.0])
    self.assertAllClose(tf.reduce_min(both, [1, 2]), [0.0, 0.0])
    self.assertAllClose(
      both[0], spectrogram.spectrogram(sound, config), atol=1e-5
    )

  def test_standardized(self):
    config = audio_config.AudioConfig(
      num_samples=4000, sample_rate=16000, form=audio_config.SPECTROGRAM
    )
    standard = dataclasses.replace(config, standardize=True)
    sound = _tones(16000, 0.25, 3000.0)
    sounds = tf.stack([sound, 0.01 * sound, 0 * sound])
    expected = spectrogram.spectrogram(sounds, config).numpy()
    expected -= expected.mean((1, 2), keepdims=True)
    expected[:2] /= expected[:2].std((1, 2), keepdims=True)
    found = spectrogram.spectrogram(sounds, standard)
    self.assertAllClose(found, expected, atol=1e-4)
    config = dataclasses.replace(standard, form=audio_config.WAVEFORM)
    for each in (sound, 0.01 * sound):
      found = audio.finish_waveform(tf.constant(each), config)
      expected = (sound - sound.mean()) / sound.std()
      self.assertAllClose(found, expected[:, None], atol=1e-4)
    silence = audio.finish_waveform(tf.zeros([4000]), config)
    self.assertAllEqual(silence, tf.zeros([4000, 1]))


class LogMelTest(tf.test.TestCase):
  """MMV's form, against the numbers of DMVR's function."""

  def test_values(self):
    expected = mmv_fixtures.arrays('log_mel')
    config = audio_config.AudioConfig(num_samples=30720, form='log_mel')
    self.assertEqual(config.shape, (30, 80))
    self.assertEqual(config.input_name, 'spectrogram')
    actual = spectrogram.spectrogram(expected['waveform'], config)
    self.assertAllClose(actual, expected['log_mel'], rtol=0, atol=2e-4)

  def test_silence(self):
    config = audio_config.AudioConfig(num_samples=4096, form='log_mel')
    actual = spectrogram.spectrogram(tf.zeros([4096]), config)
    self.assertAllClose(actual, np.full([4, 80], np.log(1e-6)), rtol=1e-6)

  def test_pipeline_gives_it(self):
    config = audio_config.AudioConfig(num_samples=4096, form='log_mel')
    waveform = tf.constant(np.random.RandomState(0).randn(4096), tf.float32)
    self.assertAllEqual(
      audio.finish_waveform(waveform, config),
      spectrogram.spectrogram(waveform, config),
    )


class AugmentTest(tf.test.TestCase, parameterized.TestCase):
  def test_gain(self):
    config = audio_config.AudioConfig(max_gain_db=6.0)
    sound = tf.constant(_tones(8000, 0.1, 1000.0)) * 0.4
    gains = []
    for number in range(50):
      result = audio.augment(sound, config, tf.constant([0, number]))
      gains.append(float(result[10] / sound[10]))
    self.assertBetween(min(gains), 0.5, 0.6)
    self.assertBetween(max(gains), 1.7, 2.0)

  def test_noise(self):
    config = audio_config.AudioConfig(noise_std=0.1)
    result = audio.augment(tf.zeros([20000]), config, tf.constant([0, 1]))
    self.assertAllClose(tf.math.reduce_std(result), 0.1, rtol=0.05)
    again = audio.augment(tf.zeros([20000]), config, tf.constant([0, 1]))
    self.assertAllEqual(result, again)

  def test_nothing_in_evaluation(self):
    config = audio_config.AudioConfig(
      num_samples=9, noise_std=0.1, max_gain_db=6.0
    )
    sound = tf.ones([9]) * 0.5
    self.assertAllEqual(audio.finish_waveform(sound, config)[:, 0], sound)

  def test_shift_turns_the_clip(self):
    config = audio_config.AudioConfig(num_samples=100, max_shift=0.3)
    sound = tf.range(100, dtype=tf.float32) / 100
    shifts = []
    for number in range(60):
      seed = tf.constant([0, number])
      result = audio.augment(sound, config, seed).numpy()
      shift = int(round(100 * result[0]))
      self.assertAllEqual(result, np.roll(sound, -shift))
      shifts.append((shift + 50) % 100 - 50)
    self.assertBetween(min(shifts), -30, -20)
    self.assertBetween(max(shifts), 20, 30)

  def test_shift_leaves_the_other_draws(self):
    arguments = {'num_samples': 50, 'noise_std': 0.1, 'max_gain_db': 6.0}
    seed = tf.constant([3, 4])
    silence = tf.zeros([50])
    self.assertAllEqual(
      audio.augment(silence, audio_config.AudioConfig(**arguments), seed),
      audio.augment(
        silence, audio_config.AudioConfig(**arguments, max_shift=1.0), seed
      ),
    )

  def test_masks(self):
    config = audio_config.AudioConfig(
      num_samples=4000,
      sample_rate=8000,
      form='spectrogram',
      max_frequency=4000.0,
      num_mel_bins=12,
      num_time_masks=1,
      max_time_mask=6,
      num_frequency_masks=1,
      max_frequency_mask=4,
    )
    x = tf.constant(
      np.random.RandomState(0).uniform(1, 2, [20, 12]).astype(np.float32)
    )
    widths = {0: set(), 1: set()}
    masked = np.zeros([20, 12])
    for number in range(300):
      seed = tf.constant([1, number])
      result = spectrogram.mask_spectrogram(x, config, seed).numpy()
      self.assertAllEqual(result, spectrogram.mask_spectrogram(x, config, seed))
      is_kept = result == x.numpy()
      # What is masked are whole frames and whole bins, next to each other.
      frames = np.flatnonzero(~is_kept.any(1))
      bins = np.flatnonzero(~is_kept.any(0))
      expected = np.ones([20, 12], bool)
      expected[frames] = False
      expected[:, bins] = False
      self.assertAllEqual(is_kept, expected)
      for axis, places in enumerate((frames, bins)):
        self.assertAllEqual(np.diff(places), np.ones(max(len(places) - 1, 0)))
        widths[axis].add(len(places))
      masked += ~is_kept
    self.assertEqual(widths, {0: set(range(7)), 1: set(range(5))})
    self.assertAllGreater(masked, 0)  # everywhere, the ends too
    one = spectrogram.mask_axis(x, 0, 1, 6, tf.constant([1, 2])).numpy()
    changed = one[one != x.numpy()]
    self.assertNotEmpty(changed)
    self.assertAllClose(changed, np.full(changed.shape, np.mean(x)))

  def test_masks_in_training_only(self):
    config = audio_config.AudioConfig(
      num_samples=4000,
      sample_rate=8000,
      form='spectrogram',
      max_frequency=4000.0,
      num_time_masks=2,
      max_time_mask=10,
      max_shift=0.5,
    )
    sound = tf.constant(_tones(8000, 0.5, 1000.0))
    plain = spectrogram.spectrogram(sound, config)
    self.assertAllClose(audio.finish_waveform(sound, config), plain)
    self.assertNotAllClose(
      audio.finish_waveform(sound, config, tf.constant([0, 1])), plain
    )

  def test_mixup_weights(self):
    seeds = tf.stack([tf.zeros([500], tf.int32), tf.range(500)], axis=1)
    weights = audio.mixup_weights(seeds, 5.0)
    self.assertAllInRange(weights, 0.5, 1.0)
    expected = np.random.default_rng(0).beta(5.0, 5.0, 100_000)
    expected = np.maximum(expected, 1.0 - expected).mean()
    self.assertAllClose(tf.reduce_mean(weights), expected, atol=0.02)
    self.assertAllEqual(weights[3:5], audio.mixup_weights(seeds[3:5], 5.0))


class ConfigTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    ({'num_samples': 0}, 'num_samples=0'),
    ({'sample_rate': 0.5}, 'sample_rate=0.5'),
    ({'form': 'mfcc'}, "'waveform', 'spectrogram', 'log_mel'.*form='mfcc'"),
    ({'noise_std': -1.0}, 'noise_std=-1.0'),
    ({'max_shift': 1.5}, 'max_shift=1.5'),
    ({'num_clips': 0}, 'num_clips=0'),
    ({'num_time_masks': 1}, "must be 0 for waveforms.*form='waveform'"),
    (
      {
        'form': 'spectrogram',
        'num_frequency_masks': 1,
        'max_frequency_mask': 81,
      },
      r'`max_frequency_mask` in \[0, 80\].*=81',
    ),
    (
      {'form': 'spectrogram', 'sample_rate': 8000},
      'max_frequency=7600.0, sample_rate=8000',
    ),
  )
  def test_errors(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      audio_config.AudioConfig(**arguments)


if __name__ == '__main__':
  tf.test.main()
