"""What the tests of the pipeline share: clips, configurations, a folder."""

import pathlib

from absl.testing import parameterized
import tensorflow as tf

from tests import fake_clips
from vatt_tf.input_pipeline import (
  audio_config,
  pipeline,
  text,
  video_config,
)
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline.records import writing

_WORDS = ['clip', 'says', *(f'word{i}' for i in range(8))]

VIDEO = video_config.VideoConfig(num_frames=3, frame_size=8)

AUDIO = audio_config.AudioConfig(num_samples=240, sample_rate=800)

LABEL = plan_lib.LabelConfig(num_classes=10)


def clip(number, **arguments):
  arguments = {
    'num_frames': 6,
    'height': 12,
    'width': 16,
    'sample_rate': 800.0,
    'num_captions': 2,
    **arguments,
  }
  return fake_clips.fake_clip(number, **arguments)


def write_shards(folder, clips, num_shards, name='train'):
  """Writes clips (or bytes) to shards in turn; returns their pattern."""
  for shard in range(num_shards):
    path = writing.shard_path(str(folder), name, shard, num_shards)
    with writing.ShardWriter(path) as writer:
      for clip in clips[shard::num_shards]:
        writer.write(clip)
  return str(folder / f'{name}-*')


class Case(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.get_temp_dir()) / self._testMethodName
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / 'words.txt'
    path.write_text('\n'.join(_WORDS), encoding='utf-8')
    self._text = text.TextConfig(
      num_captions=3, max_words=4, vocabulary=str(path)
    )

  def _write(self, clips, num_shards=1, name='train'):
    return write_shards(self._folder, clips, num_shards, name)

  def _make(self, sources, batch_size=2, is_training=True, **arguments):
    if not {'video', 'audio', 'text'} & set(arguments):
      arguments['audio'] = AUDIO
    arguments.setdefault('with_example_id', True)
    return pipeline.make_dataset(sources, batch_size, is_training, **arguments)

  def _ids(self, dataset, num_batches=None):
    if num_batches is not None:
      dataset = dataset.take(num_batches)
    return [i.decode() for b in dataset for i in b['example_id'].numpy()]


def numbers(ids):
  return [int(i.rsplit('-', 1)[1]) for i in ids]
