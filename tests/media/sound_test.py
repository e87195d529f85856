"""Sound of a file: channels, rates, damaged samples, its place in time."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import sample_media
from tests.media import decode_case
from vatt_tf.media import decoded_clip, sound


class SoundTest(decode_case.DecodeCase):
  @parameterized.parameters(
    ('a.mp4', 'aac', 44100),
    ('a.mkv', 'libopus', 48000),
    ('a.mkv', 'flac', 44100),
    ('a.mov', 'pcm_s16le', 22050),
    ('a.mkv', 'libmp3lame', 44100),
  )
  def test_sound_is_in_time_with_the_video(self, name, codec, rate):
    path = sample_media.write(
      self.path(name),
      2.0,
      sound=sample_media.tone(2.0, rate, start=1.0),
      sound_rate=rate,
      sound_codec=codec,
    )
    clip = self.decode_ok(path)
    self.assertLen(clip.audio, 96_000)
    self.assertEqual(clip.audio.dtype, np.float32)
    self.assertAlmostEqual(self.onset(clip), 1.0, delta=0.003)
    self.assertAlmostEqual(float(np.abs(clip.audio).max()), 0.5, delta=0.05)
    # The file's clock need not begin at 0; the two still go together.
    first = self.numbers(clip)[10]
    self.assertAlmostEqual(first / 25, self.onset(clip), delta=0.06)

  def test_sound_that_starts_late(self):
    path = sample_media.write(
      self.path('a.mp4'), 2.0, sound=sample_media.tone(1.5), sound_start=0.5
    )
    clip = self.decode_ok(path)
    self.assertLen(clip.audio, 96_000)
    self.assertAlmostEqual(self.onset(clip), 0.5, delta=0.003)

  def test_sound_shorter_than_half_the_clip_is_none(self):
    path = sample_media.write(
      self.path('a.mp4'), 2.0, sound=sample_media.tone(0.8)
    )
    self.assertIsNone(self.decode_ok(path).audio)
    clip = self.decode_ok(path, decoded_clip.Span(0, 1_000_000))
    self.assertLen(clip.audio, 48_000)
    self.assertAllEqual(clip.audio[42_000:], np.zeros(6000))

  def test_channels_are_averaged(self):
    left = sample_media.tone(1.0)
    path = sample_media.write(
      self.path('a.wav'),
      0,
      sound=np.stack([left, np.zeros_like(left)]),
      sound_codec='pcm_f32le',
    )
    clip = self.decode_ok(path, audio_rate=44100)
    np.testing.assert_allclose(clip.audio, left / 2, atol=1e-6)

  @parameterized.parameters(100, 1000, 5000, 15000)
  def test_resampling_against_the_sine(self, frequency):
    times = np.arange(44100) / 44100
    wave = np.sin(2 * np.pi * frequency * times).astype(np.float32)
    result = sound.resample(wave, 44100, 48000)
    expected = np.sin(2 * np.pi * frequency * np.arange(48000) / 48000)
    inner = slice(2000, 46000)
    self.assertAllClose(result[inner], expected[inner], atol=1e-4)

  def test_resampling_leaves_no_aliases(self):
    times = np.arange(44100) / 44100
    wave = np.sin(2 * np.pi * 14000 * times).astype(np.float32)
    result = sound.resample(wave, 44100, 16000)
    self.assertLess(float(np.abs(result[1000:-1000]).max()), 1e-3)

  def raw_sound(self, values):
    """A wav file with these float32 numbers."""
    data = np.asarray(values, '<f4').tobytes()
    header = b'fmt ' + (16).to_bytes(4, 'little')
    header += (3).to_bytes(2, 'little') + (1).to_bytes(2, 'little')
    header += (8000).to_bytes(4, 'little') + (32000).to_bytes(4, 'little')
    header += (4).to_bytes(2, 'little') + (32).to_bytes(2, 'little')
    body = b'WAVE' + header + b'data' + len(data).to_bytes(4, 'little') + data
    path = self.path('raw.wav')
    with open(path, 'wb') as file:
      file.write(b'RIFF' + len(body).to_bytes(4, 'little') + body)
    return path

  def test_sound_with_not_a_number(self):
    values = np.full([8000], 0.1)
    values[4000] = np.nan
    values[5000] = np.inf
    path = self.raw_sound(values)
    self.assert_fails('2 of 8000 samples are not finite', path)
    # Another part of the file is sound.
    clip = self.decode_ok(path, decoded_clip.Span(0, 400_000))
    self.assertLen(clip.audio, 19_200)

  def test_denormal_sound(self):
    path = self.raw_sound(np.arange(8000, dtype=np.int32).view(np.float32))
    self.assert_fails('denormal', path)

  def test_sound_of_another_scale(self):
    path = self.raw_sound(np.full([8000], 3000.0))
    self.assert_fails('samples reach 3000', path)

  def test_silence_is_sound(self):
    clip = self.decode_ok(self.raw_sound(np.zeros([8000])))
    self.assertAllEqual(clip.audio, np.zeros([48000]))

  def test_slightly_too_loud_is_clipped(self):
    clip = self.decode_ok(self.raw_sound(np.full([8000], 1.5)))
    self.assertEqual(float(clip.audio.max()), 1.0)


if __name__ == '__main__':
  tf.test.main()
