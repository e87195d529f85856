"""What the tests of decoding share: a folder, and checks of clips."""

import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import sample_media
from vatt_tf.media import decode, decode_settings, decoded_clip, errors


class DecodeCase(parameterized.TestCase, tf.test.TestCase):
  """A folder, and what decoding the files in it gives."""

  def setUp(self):
    super().setUp()
    self.folder = self.create_tempdir().full_path

  def path(self, name):
    return os.path.join(self.folder, name)

  def decode(self, path, *spans, audio_path='', captions=False, **settings):
    spans = spans or [decoded_clip.Span(is_exact=False)]
    results = decode.decode_spans(
      str(path),
      audio_path,
      spans,
      decode_settings.Settings(**settings),
      captions,
    )
    return results[0] if len(results) == 1 else results

  def decode_ok(self, path, *spans, **kwargs):
    result = self.decode(path, *spans, **kwargs)
    if isinstance(result, errors.MediaError):
      raise result
    return result

  def assert_fails(self, message, path, *spans, **kwargs):
    result = self.decode(path, *spans, **kwargs)
    self.assertIsInstance(result, errors.MediaError)
    self.assertRegex(str(result), message)

  def numbers(self, clip):
    return [sample_media.frame_number(frame) for frame in clip.frames]

  def onset(self, clip):
    """Seconds at which the sound begins."""
    loud = np.flatnonzero(np.abs(clip.audio) > 0.1)
    return loud[0] / decode_settings.Settings().audio_rate
