"""A tiny VATT that takes whole sample records, and these records."""

import numpy as np
import tensorflow as tf

from tests import shared_data, vatt_models
from vatt_tf.export import signatures
from vatt_tf.input_pipeline import audio_config, text, video_config
from vatt_tf.input_pipeline.records import reading
from vatt_tf.models import sizes

RECORDS = shared_data.REPOSITORY / 'data' / 'sample'
SIZE = sizes.Size(1, 8, 16, 2, d_kv=4)
# The whole of a sample record, so that a clip is what the record holds.
VIDEO = video_config.VideoConfig(num_frames=34, frame_rate=10.0, frame_size=64)
AUDIO = audio_config.AudioConfig(num_samples=54400, sample_rate=16000)
TEXT = text.TextConfig(
  num_captions=1, max_words=12, vocabulary=str(RECORDS / 'vocabulary.txt')
)


def make(stddev=0.1, **arguments):
  """A model that tells clips apart.

  Args:
    stddev: float, of what is added to every variable.
    **arguments: of `vatt_models.build_vatt`.

  Returns:
    The model.
  """
  model = vatt_models.build_vatt(
    **{
      'size': SIZE,
      'video_patch_size': (2, 16, 16),
      'num_frames': VIDEO.num_frames,
      'frame_size': VIDEO.frame_size,
      'num_audio_samples': AUDIO.num_samples,
      'num_spectrogram_frames': 160,
      'vocabulary_size': 256,
      'd_embedding': 8,
      'd_va': 8,
      'd_vt': 8,
      'd_post_projection': 8,
      **arguments,
    }
  )
  for variable in model.variables:  # also those that start as zeros and ones
    noise = tf.random.stateless_normal(variable.shape, [1, 2], stddev=stddev)
    variable.assign_add(tf.abs(noise))
  return model


def served(model=None, audio=AUDIO):
  """A `ServedModel` of a model, by default of what `make` gives."""
  return signatures.ServedModel(model or make(), VIDEO, audio, TEXT)


def clips():
  """The sample records, in the order in which evaluation reads them."""
  paths = sorted(map(str, RECORDS.glob('validation-*')))
  dataset = tf.data.TFRecordDataset(paths)
  return [reading.read_clip(record) for record in dataset.as_numpy_iterator()]


def frames():
  """Those of the sample records: uint8 (clip, frame, height, width, 3)."""
  return np.array(
    [
      [tf.io.decode_jpeg(frame).numpy() for frame in clip.frames]
      for clip in clips()
    ]
  )
