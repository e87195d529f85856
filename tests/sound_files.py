"""Sound files in memory."""

import io
import unittest

import av
import numpy as np

from vatt_tf.input_pipeline import encoded_audio

FORMATS = {
  'flac': 'flac',
  'libmp3lame': 'mp3',
  'libopus': 'ogg',
}


needs_native_ops = unittest.skipUnless(
  encoded_audio.has_native_ops(),
  'The native ops of tensorflow-io do not load on this TensorFlow.',
)


def write(
  codec: str,
  samples: np.ndarray,
  rate: int,
  layout: str = '',
  sample_format: str = '',
) -> bytes:
  """Encodes sound.

  Args:
    codec: Of FFmpeg, such as `pcm_s16le`, which gives a WAV file.
    samples: (channels, S) float32.
    rate: Samples a second.
    layout: Of the channels; by default mono or stereo.
    sample_format: Of FFmpeg, such as `s32`; by default the codec's first.

  Returns:
    The bytes of the file.
  """
  layout = layout or {1: 'mono', 2: 'stereo'}[len(samples)]
  file = io.BytesIO()
  with av.open(file, 'w', format=FORMATS.get(codec, 'wav')) as container:
    stream = container.add_stream(codec, rate=rate, layout=layout)
    if sample_format:
      stream.codec_context.format = sample_format
    frame = av.AudioFrame.from_ndarray(
      np.ascontiguousarray(samples, np.float32), 'fltp', layout
    )
    frame.sample_rate = rate
    resampler = av.AudioResampler(
      stream.codec_context.format,
      layout,
      rate,
      frame_size=stream.codec_context.frame_size or None,
    )
    for part in resampler.resample(frame) + resampler.resample(None):
      container.mux(stream.encode(part))
    container.mux(stream.encode(None))
  return file.getvalue()
