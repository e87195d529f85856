"""Tests of `vatt_tf.input_pipeline.encoded_audio`."""

import struct
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import shared_data, sound_files
from vatt_tf.input_pipeline import encoded_audio

_RATE = 16000
_SAMPLE = 'ZASFX_ADSR_no_sustain'  # 14,336 samples at 44,100 a second
_MISC = ('media', 'misc', 'audio')


def _sound(channels, rate=_RATE):
  times = np.arange(rate) / rate
  noise = np.random.RandomState(0).randn(channels, rate)
  tones = [np.sin(2 * np.pi * (440 + 90 * i) * times) for i in range(channels)]
  return (0.5 * np.array(tones) + 0.05 * noise).astype(np.float32)


def _in_graph(content):
  """What a graph gives, by a data set."""
  dataset = tf.data.Dataset.from_tensors(content)
  samples, rate, reason = next(iter(dataset.map(encoded_audio.decode_in_graph)))
  return samples.numpy(), float(rate), reason.numpy().decode()


def _with_python():
  """Graphs as they are made where tensorflow-io does not load."""
  return mock.patch.object(encoded_audio, 'has_native_ops', lambda: False)


class DecodeTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(
    (
      {'codec': 'pcm_u8', 'error': 1 / 128},
      {'codec': 'pcm_s16le', 'error': 1 / 32768},
      {'codec': 'pcm_s24le', 'error': 1e-6},
      {'codec': 'pcm_s32le', 'error': 1e-6},
      {'codec': 'pcm_f32le', 'error': 1e-6},
      {'codec': 'pcm_alaw', 'error': 0.02},
      {'codec': 'flac', 'error': 1 / 32768},
      {'codec': 'libmp3lame', 'error': 0.2},
      {'codec': 'libopus', 'error': 0.5},
    ),
    channels=(1, 2),
  )
  def test_formats(self, codec, error, channels):
    rate = 48000 if codec == 'libopus' else _RATE
    sound = _sound(channels, rate)
    content = sound_files.write(codec, sound, rate)
    samples, found = encoded_audio.decode(content)
    self.assertEqual(found, rate)
    self.assertEqual(samples.dtype, np.float32)
    # Opus ends where its last block does.
    self.assertBetween(len(samples), rate, rate + 1000)
    self.assertAllClose(samples[:rate], sound.mean(axis=0), atol=error, rtol=0)
    for result in (_in_graph(content), self._by_python(content)):
      self.assertEqual(result[1:], (rate, ''))
      self.assertAllClose(result[0], samples, atol=1e-4)

  def _by_python(self, content):
    with _with_python():
      return _in_graph(content)

  @parameterized.parameters('ogg', 'flac', 'u8.wav', 's24.wav')
  def test_a_sound_in_all_formats(self, suffix):
    folder = shared_data.path(*_MISC)
    expected, _ = encoded_audio.decode((folder / f'{_SAMPLE}.wav').read_bytes())
    samples, rate = encoded_audio.decode(
      (folder / f'{_SAMPLE}.{suffix}').read_bytes()
    )
    self.assertEqual(rate, 44100)
    self.assertLen(samples, 14336)
    self.assertGreater(np.corrcoef(samples, expected)[0, 1], 0.99)

  def test_many_channels(self):
    sound = _sound(6)
    content = sound_files.write('pcm_s16le', sound, _RATE, '5.1')
    samples, _ = encoded_audio.decode(content)
    self.assertAllClose(samples, sound.mean(axis=0), atol=1e-4)

  @parameterized.parameters(
    (b'abcdefgh', "starts with b'abcd'"),
    (b'', "starts with b''"),
    (b'fLaC' + b'\x01' * 60, 'cannot be decoded'),
    (b'RIFF' + b'\0' * 80, 'cannot be decoded'),
    (b'OggS', 'cannot be decoded'),
    (b'ID3', 'cannot be decoded'),
    (b'\xff\xfb\x94\x64', 'cannot be decoded'),
    (b'RIFF\x24\0\0\0WAVEfmt \x10\0\0\0' + b'\1\0\1\0' + b'\0' * 20, 'decoded'),
  )
  def test_what_cannot_be_read(self, content, reason):
    with self.assertRaisesRegex(ValueError, reason):
      encoded_audio.decode(content)
    for result in (_in_graph(content), self._by_python(content)):
      self.assertEmpty(result[0])
      self.assertEqual(result[1], 0.0)
      self.assertRegex(result[2], reason)

  def test_damaged_files_cost_themselves_alone(self):
    random = np.random.RandomState(0)
    for codec in ('pcm_s16le', 'flac', 'libmp3lame', 'libopus'):
      rate = 48000 if codec == 'libopus' else _RATE
      content = sound_files.write(codec, _sound(1, rate), rate)
      for _ in range(20):
        damaged = bytearray(content[: random.randint(4, len(content))])
        for place in random.randint(4, len(damaged), size=8):
          damaged[place] = random.randint(256)
        try:
          samples, _ = encoded_audio.decode(bytes(damaged))
        except ValueError as e:
          self.assertIn('cannot be decoded', str(e))
        else:
          self.assertEqual(samples.dtype, np.float32)

  def test_another_process_finds_the_function(self):
    # A graph holds the name of the function, which `register` gives.
    content = sound_files.write('pcm_f32le', _sound(1), _RATE)
    with _with_python():
      dataset = tf.data.Dataset.from_tensors(content).map(
        encoded_audio.decode_in_graph
      )
    tokens = [
      node.attr['token'].s
      for function in _functions(dataset)
      for node in function.node_def
      if node.op == 'PyFuncStateless'
    ]
    self.assertEqual(tokens, [b'vatt_tf_decode_sound'])


def _functions(dataset):
  """The functions of a data set's graph."""
  graph = tf.compat.v1.GraphDef.FromString(
    dataset._as_serialized_graph().numpy()
  )
  return graph.library.function


@sound_files.needs_native_ops
class NativeOpsTest(tf.test.TestCase, parameterized.TestCase):
  """Both ways give the same samples."""

  def _check(self, content, tolerance):
    expected, rate = encoded_audio.decode(content)
    samples, found, reason = _in_graph(content)
    self.assertEqual((found, reason), (rate, ''))
    self.assertLen(samples, len(expected))
    self.assertAllClose(samples, expected, atol=tolerance, rtol=0)

  def _is_native(self, content):
    with mock.patch.object(encoded_audio, '_decode_with_python') as python:
      python.return_value = tf.zeros([0]), tf.zeros([]), tf.constant('python')
      return _in_graph(content)[2] != 'python'

  @parameterized.product(
    codec=('pcm_u8', 'pcm_s16le', 'flac', 'libmp3lame'),
    channels=(1, 2),
    rate=(16000, 44100),
  )
  def test_formats(self, codec, channels, rate):
    content = sound_files.write(codec, _sound(channels, rate), rate)
    self.assertTrue(self._is_native(content))
    self._check(content, 1e-4 if codec == 'libmp3lame' else 0)

  @parameterized.parameters('ogg', 'flac', 'wav', 'u8.wav')
  def test_files(self, suffix):
    folder = shared_data.path(*_MISC)
    content = (folder / f'{_SAMPLE}.{suffix}').read_bytes()
    self.assertTrue(self._is_native(content))
    self._check(content, 1e-4 if suffix == 'ogg' else 0)

  @parameterized.parameters(1, 2)
  def test_vorbis(self, channels):
    import tensorflow_io as tfio

    sound = _sound(channels, 44100)
    content = tfio.audio.encode_vorbis(tf.constant(sound.T), 44100).numpy()
    self._check(content, 1e-4)

  def test_flac_of_24_bits(self):
    content = sound_files.write('flac', _sound(1), _RATE, sample_format='s32')
    self.assertTrue(self._is_native(content))
    self._check(content, 0)

  def test_mp3_behind_a_tag(self):
    content = sound_files.write('libmp3lame', _sound(1), _RATE)
    if content[:3] != b'ID3':
      content = (
        b'ID3\x04\x00\x00'
        + struct.pack('4B', 0, 0, 1, 2)
        + bytes(130)
        + content
      )
    self.assertTrue(self._is_native(content))
    self._check(content, 1e-4)


if __name__ == '__main__':
  tf.test.main()
