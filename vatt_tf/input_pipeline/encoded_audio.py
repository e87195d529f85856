"""Decodes sound files that records hold in place of samples.

PyAV decodes them. In a graph, the native ops of tensorflow-io do so where they
load (with TensorFlow 2.17), because they run without Python. Both give the same
samples: exactly for integer PCM, to rounding for MP3 and Vorbis.
"""

import functools
import io

import av
import numpy as np
import tensorflow as tf
from tensorflow.python.ops import script_ops

from vatt_tf.core import tensor_utils

# First bytes of a file, and the name of FFmpeg's reader of it.
_READERS = (
  (b'RIFF', 'wav'),
  (b'RF64', 'wav'),
  (b'fLaC', 'flac'),
  (b'OggS', 'ogg'),
  (b'ID3', 'mp3'),
)
_MPEG_RATES = (44100, 48000, 32000)
_MPEG_DIVISORS = {3: 1, 2: 2, 0: 4}  # by the number of the version

# Number of bytes of a header that a graph reads.
_HEAD = 64

# Python functions in a graph are registered under a number in the process that
# builds the graph. This one has a name, so that other processes find it too.
_DECODER = 'vatt_tf_decode_sound'


def decode(content: bytes) -> tuple[np.ndarray, int]:
  """Decodes a sound file held in memory.

  Args:
    content: Bytes of a WAV file of any coding, or of a FLAC, MP3 or Ogg
      (Vorbis, Opus) file.

  Returns:
    (S,) float32, the mean of the channels in [-1, 1]; and the sample rate in
    samples per second.

  Raises:
    ValueError: The bytes are corrupt, or of another format.
  """
  reader = _reader(content)
  try:
    with av.open(io.BytesIO(content), format=reader) as container:
      samples, rate = _decode_stream(container, container.streams.audio[0])
  except Exception as e:  # noqa: BLE001, damaged files raise any class
    reason = getattr(e, 'strerror', None) or e
    raise ValueError(f'The sound cannot be decoded: {reason}') from e
  if not samples.size:
    raise ValueError('The sound cannot be decoded: there are no samples.')
  return samples, rate


def _reader(content):
  for start, name in _READERS:
    if content.startswith(start):
      return name
  if len(content) > 1 and content[0] == 0xFF and content[1] >> 5 == 7:
    return 'mp3'
  raise ValueError(
    'The sound is not in a format that can be read (WAV, FLAC, MP3, Ogg '
    f'Vorbis or Opus): it starts with {content[:4]!r}.'
  )


def _decode_stream(container, stream):
  first, length = 0, None
  if stream.codec_context.name == 'vorbis':
    # The first block overlaps the second and has no samples of its own. FFmpeg
    # skips it but counts it in the length, so it would cut the end by as much.
    stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
    first, length = 1, stream.duration
  parts = [_to_mono(frame) for frame in container.decode(stream)][first:]
  samples = np.concatenate([np.zeros([0], np.float32), *parts])[:length]
  return samples, stream.rate


def _to_mono(frame):
  """The mean of a frame's channels, (n,) float32."""
  samples = frame.to_ndarray()
  if not frame.format.is_planar:
    samples = samples.reshape([-1, frame.layout.nb_channels]).T
  if samples.dtype == np.uint8:
    samples = (samples.astype(np.float32) - 128.0) / 128.0
  elif samples.dtype.kind == 'i':
    samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
  return samples.mean(axis=0, dtype=np.float32)


# In a graph.


def _decode_or_explain(content):
  """Decodes like `decode`, but returns errors as strings, for graphs."""
  try:
    samples, rate = decode(content)
  except ValueError as e:
    return np.zeros([0], np.float32), np.float32(0.0), str(e).encode()
  return samples, np.float32(rate), b''


def register() -> None:
  """Prepares this process for graphs of `decode_in_graph` from other ones."""
  script_ops._py_funcs._funcs[_DECODER] = _decode_or_explain
  has_native_ops()


@functools.cache
def has_native_ops() -> bool:
  """Returns whether the native ops of tensorflow-io load."""
  try:
    import tensorflow_io as tfio

    with tf.Graph().as_default():
      tfio.audio.decode_wav('', dtype=tf.int16)
  except (ImportError, NotImplementedError):
    return False
  return True


def decode_in_graph(
  content: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Decodes a sound file in a graph.

  The graph may run in another process, such as an input machine, after
  `register` was called there.

  Args:
    content: () string: bytes of a file as for `decode`.

  Returns:
    (S,) float32, the mean of the channels in [-1, 1]; () float32, the sample
    rate; and () string, the fault, or ''. With a fault, there are no samples
    and the rate is 0.
  """
  if not has_native_ops():
    return _decode_with_python(content)
  return _decode_natively(content)


def _decode_with_python(content):
  register()
  samples, rate, reason = tf.raw_ops.PyFuncStateless(
    input=[content], token=_DECODER, Tout=[tf.float32, tf.float32, tf.string]
  )
  samples.set_shape([None])
  rate.set_shape([])
  reason.set_shape([])
  return samples, rate, reason


def _decode_natively(content):
  """Decodes with tensorflow-io, or with Python the formats that it lacks."""
  import tensorflow_io as tfio

  def native(function, dtype, rate):
    """A branch that decodes with a function of tensorflow-io."""

    def run(content):
      samples = function(content, dtype=dtype)  # (S, channels)
      if dtype == tf.uint8:
        samples = (tf.cast(samples, tf.float32) - 128.0) / 128.0
      elif dtype != tf.float32:
        samples = tf.cast(samples, tf.float32) / -float(dtype.min)
      return (
        tf.reduce_mean(samples, axis=1),
        tf.cast(rate, tf.float32),
        tf.constant(''),
      )

    def corrupt():
      reason = tf.constant('The sound cannot be decoded: it is corrupt.')
      return tf.zeros([0]), tf.zeros([]), reason

    return lambda: tensor_utils.guarded(run, (content,), corrupt)

  def without_dtype(function):
    return lambda content, **_: function(content)

  head = _bytes_at(content, 0)
  wav, wav_bits, wav_rate = _wav_header(head)
  flac, flac_bits, flac_rate = _flac_header(head)
  vorbis, vorbis_rate = _vorbis_header(head)
  mp3, mp3_rate = _mp3_header(content, head)
  decode_wav, decode_flac = tfio.audio.decode_wav, tfio.audio.decode_flac
  decode_vorbis = without_dtype(tfio.audio.decode_vorbis)
  decode_mp3 = without_dtype(tfio.audio.decode_mp3)
  cases = [
    (wav & (wav_bits == 8), native(decode_wav, tf.uint8, wav_rate)),
    (wav & (wav_bits == 16), native(decode_wav, tf.int16, wav_rate)),
    (flac & (flac_bits == 16), native(decode_flac, tf.int16, flac_rate)),
    (flac & (flac_bits == 24), native(decode_flac, tf.int32, flac_rate)),
    (vorbis, native(decode_vorbis, tf.float32, vorbis_rate)),
    (mp3, native(decode_mp3, tf.float32, mp3_rate)),
  ]
  return tf.case(cases, default=lambda: _decode_with_python(content))


def _bytes_at(content, position):
  """The `_HEAD` bytes from a position on, int32; 0 beyond the end."""
  padded = tf.strings.join([content, b'\0' * _HEAD])
  position = tf.minimum(position, tf.strings.length(content))
  values = tf.io.decode_raw(
    tf.strings.substr(padded, position, _HEAD), tf.uint8
  )
  return tf.cast(tf.ensure_shape(values, [_HEAD]), tf.int32)


def _begins(head, position, expected):
  """Whether bytes are at a position of a header, () bool."""
  actual = head[position : position + len(expected)]
  return tf.reduce_all(actual == list(expected))


def _little_endian(head, position, size):
  return sum(head[position + i] * 256**i for i in range(size))


def _wav_header(head):
  """Whether a file is plain PCM, its bits per sample, and its rate."""
  is_pcm = (
    _begins(head, 0, b'RIFF')
    & _begins(head, 8, b'WAVEfmt ')
    & (_little_endian(head, 20, 2) == 1)
  )
  return is_pcm, _little_endian(head, 34, 2), _little_endian(head, 24, 4)


def _flac_header(head):
  """Whether a file is FLAC, its bits per sample, and its rate."""
  is_flac = _begins(head, 0, b'fLaC') & (head[4] % 128 == 0)
  bits = head[20] % 2 * 16 + head[21] // 16 + 1
  return is_flac, bits, head[18] * 4096 + head[19] * 16 + head[20] // 16


def _vorbis_header(head):
  """Whether a file is Ogg with Vorbis in its first page, and its rate."""
  is_vorbis = (
    _begins(head, 0, b'OggS')
    & (head[26] == 1)
    & _begins(head, 28, b'\x01vorbis')
  )
  return is_vorbis, _little_endian(head, 40, 4)


def _mp3_header(content, head):
  """Whether a frame of MP3 is at the start or behind a tag, and its rate."""
  size = sum(head[6 + i] % 128 * 128 ** (3 - i) for i in range(4))
  start = tf.where(_begins(head, 0, b'ID3'), 10 + size, 0)
  frame = _bytes_at(content, start)
  version, layer = frame[1] // 8 % 4, frame[1] // 2 % 4
  index = frame[2] // 4 % 4
  is_mp3 = (
    (frame[0] == 0xFF)
    & (frame[1] // 32 == 7)
    & (version != 1)
    & (layer == 1)
    & (index != 3)
  )
  divisors = [_MPEG_DIVISORS.get(number, 1) for number in range(4)]
  rate = tf.gather([*_MPEG_RATES, 0], index) // tf.gather(divisors, version)
  return is_mp3, rate
