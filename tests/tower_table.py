"""Small models that together hold every tower, for tests of all of them.

The convolutional towers have only their first parts: at the small sizes of
these tests, batch norms of the later ones would see a value or two.
"""

import contextlib
import os
from typing import NamedTuple
from unittest import mock

import numpy as np
import tensorflow as tf
import tf_keras

from tests import shared_data
from vatt_tf.input_pipeline import audio_config, text, video_config
from vatt_tf.layers import projection_head
from vatt_tf.models import (
  mmv_head,
  patch_tower,
  resnet_blocks,
  resnet_tower,
  s3d_tower,
  sizes,
  text_tower,
  tsm_resnet_tower,
  vatt,
  word_tower,
)

SIZE = sizes.Size(1, 8, 16, 2, 4)
_NUM_SAMPLES = 8192

VIDEO = video_config.VideoConfig(num_frames=4, frame_rate=5.0, frame_size=32)
TEXT = text.TextConfig(
  num_captions=1,
  max_words=6,
  vocabulary=os.path.join(
    shared_data.REPOSITORY, 'data', 'sample', 'vocabulary.txt'
  ),
  vocabulary_size=512,
)


class Row(NamedTuple):
  """A model of the table.

  Attributes:
    towers: Function that makes the towers by modality.
    head: Class of the head.
    audio: Configuration of the sound.
  """

  towers: object
  head: object
  audio: audio_config.AudioConfig


def _audio(form):
  return audio_config.AudioConfig(
    num_samples=_NUM_SAMPLES, sample_rate=8000, max_frequency=4e3, form=form
  )


def _patches(name, **options):
  return patch_tower.PatchTower(
    name, size=SIZE, drop_token_rate=0.0, dropout_rate=0.0, **options
  )


def _words():
  return text_tower.TextTower(
    SIZE, vocabulary_size=512, d_embedding=12, dropout_rate=0.0
  )


MODELS = {
  'vatt': Row(
    lambda: {
      'video': _patches('video', patch_size=(2, 8, 8), input_size=(4, 32)),
      'audio': _patches('audio', input_size=_NUM_SAMPLES),
      'text': _words(),
    },
    projection_head.ProjectionHead,
    _audio('waveform'),
  ),
  'mmv_s3d': Row(
    lambda: {
      'video': s3d_tower.S3DTower(),
      'audio': resnet_tower.ResNetTower(),
      'text': word_tower.WordTower(64, vocabulary_size=512, d_embedding=12),
    },
    mmv_head.MMVHead,
    _audio('log_mel'),
  ),
  'tsm_and_transformers': Row(
    lambda: {
      'video': tsm_resnet_tower.TSMResNetTower(),
      'audio': _patches('spectrogram', input_size=(48, 80)),
      'text': _words(),
    },
    mmv_head.MMVHead,
    _audio('spectrogram'),
  ),
}


@contextlib.contextmanager
def first_parts():
  """Makes convolutional towers of their first parts."""
  parts = list(s3d_tower._PARTS.items())
  parts = dict(parts[: [name for name, _ in parts].index('mixed_3c')])
  with (
    mock.patch.object(s3d_tower, '_PARTS', parts),
    mock.patch.object(s3d_tower, '_WIDTH', 256),
    mock.patch.object(resnet_blocks, 'UNITS', ((2, 64), (1, 128))),
  ):
    yield


def build(name: str) -> vatt.VATT:
  """Returns a built model of the table with the same weights every time."""
  tf_keras.utils.set_random_seed(1)
  row = MODELS[name]
  with first_parts():
    model = vatt.VATT(
      row.towers(),
      lambda **x: row.head(d_va=16, d_vt=8, **x),
      use_token_head=True,
    )
    model.build()
  return model


def features(name: str, batch: int = 4) -> dict[str, tf.Tensor]:
  """Returns random inputs of a model of the table, all of which exist."""
  random = np.random.default_rng(2)
  audio = MODELS[name].audio
  video_shape = [batch, *VIDEO.shape]
  return {
    'video': tf.constant(random.uniform(-1, 1, video_shape), tf.float32),
    audio.input_name: tf.constant(
      random.uniform(0, 1, [batch, *audio.shape]), tf.float32
    ),
    'text': tf.constant(random.integers(1, 512, [batch, 1, 6]), tf.int32),
    'video_mask': tf.ones([batch], tf.bool),
    'audio_mask': tf.ones([batch], tf.bool),
    'text_mask': tf.ones([batch, 1], tf.bool),
  }
