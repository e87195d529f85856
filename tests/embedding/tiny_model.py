"""A tiny exported model, and media files to embed with it."""

import atexit
import dataclasses
import functools
import os
import shutil
import tempfile

import numpy as np
import tensorflow as tf
import tf_keras

from tests import sample_media, tiny_vatt
from vatt_tf.embedding import model as model_lib
from vatt_tf.export import saved_model, signatures
from vatt_tf.input_pipeline import audio_config, text, video_config

# It takes 0.8 s of a clip.
VIDEO = video_config.VideoConfig(num_frames=8, frame_rate=10.0, frame_size=32)
AUDIO = audio_config.AudioConfig(num_samples=12800, sample_rate=16000)
TEXT = text.TextConfig(
  num_captions=1,
  max_words=8,
  vocabulary=str(tiny_vatt.RECORDS / 'vocabulary.txt'),
)
FORM = model_lib.Form(VIDEO, AUDIO)
GIN = """
eval/VideoConfig.num_frames = 8
eval/VideoConfig.frame_rate = 10.0
eval/VideoConfig.frame_size = 32
eval/AudioConfig.num_samples = 12800
eval/AudioConfig.sample_rate = 16000
"""


def make(seed: int = 0):
  """A model whose embeddings tell clips apart."""
  tf_keras.utils.set_random_seed(seed)
  return tiny_vatt.make(
    stddev=0.3,
    num_frames=VIDEO.num_frames,
    frame_size=VIDEO.frame_size,
    num_audio_samples=AUDIO.num_samples,
    d_vt=6,
  )


@functools.cache
def exported() -> tuple[str, tf.Module]:
  """A folder with version 1 of the model, and the model; made once."""
  folder = tempfile.mkdtemp(dir=os.environ.get('TEST_TMPDIR'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  model = make()
  served = signatures.ServedModel(model, VIDEO, AUDIO, TEXT)
  path = os.path.join(folder, 'saved')
  saved_model.write(served, path, 'runs/x/ckpt-7', GIN)
  return path, model


def write_media(folder: str) -> None:
  """Writes media files of several kinds: 2 s, 0.5 s, and so on.

  Windows of 0.8 s: 3 + 3 + 1 + 2 + 3 = 12 clips.
  """
  os.makedirs(os.path.join(folder, 'ünter'))
  rng = np.random.default_rng(0)
  images = [rng.integers(0, 256, [48, 64, 3], np.uint8) for _ in range(7)]
  tone = sample_media.tone

  def path(name):
    return os.path.join(folder, name)

  sample_media.write(path('a.mp4'), 2.0, sound=tone(2.0), images=images)
  with open(path('a.srt'), 'w', encoding='utf-8') as file:
    file.write(
      sample_media.srt(
        [(0.0, 0.7, 'a red star moves'), (0.9, 2.0, 'a blue ring')]
      )
    )
  # Without sound; its name is not ASCII.
  sample_media.write(path('ünter/☂ kreis.mp4'), 2.0)
  sample_media.write(path('short.mp4'), 0.5, sound=tone(0.5), images=images)
  # A rest that is too short for a clip of its own: 0.8 s and 1.0 s.
  sample_media.write(path('rest.mp4'), 1.8, sound=tone(1.8), images=images)
  sample_media.write(
    path('sound.wav'), 0, sound=tone(2.0, 22050, 0.6), sound_rate=22050,
    sound_codec='pcm_s16le',
  )  # fmt: skip


def options(**values):
  """`run_options.Options` with names for what a test does not ask for."""
  from vatt_tf.embedding import run_options

  return run_options.Options(**{'num_workers': 0, 'batch_size': 5, **values})


def rows(found) -> dict:
  """The rows of an `Embeddings`, by what names them."""
  table = {}
  values = dataclasses.asdict(found)
  for i in range(len(found)):
    key = (
      values['path'][i],
      round(values['clip_start'][i], 3),
      values['modality'][i],
      values['space'][i],
      values['text'][i],
    )
    if key in table:
      raise ValueError(f'Twice: {key}')
    table[key] = values['embedding'][i]
  return table
