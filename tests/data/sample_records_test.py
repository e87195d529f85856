"""Tests of data/sample: that it is what its README says, and can train."""

import glob
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import tensorflow as tf

from tests import shared_data
from vatt_tf.input_pipeline.records import reading

ROOT = shared_data.REPOSITORY
SAMPLE = ROOT / 'data/sample'


def _read(folder, split):
  """Returns the clips of a split by their names."""
  shards = sorted(glob.glob(os.path.join(folder, f'{split}-*.tfrecord')))
  clips = {}
  for shard in shards:
    for clip in reading.read_shard(shard):
      clips[clip.example_id] = clip
  return clips


def _frames(clip):
  return np.stack(
    [tf.io.decode_jpeg(frame).numpy().astype(int) for frame in clip.frames]
  )


class SampleRecordsTest(tf.test.TestCase):
  def test_sizes(self):
    sizes = [path.stat().st_size for path in SAMPLE.iterdir()]
    self.assertLess(sum(sizes), 8 * 2**20)

  def test_clips_are_long_and_large_enough_for_the_paper(self):
    for split, count, shards in (('train', 16, 4), ('validation', 8, 2)):
      self.assertLen(list(SAMPLE.glob(f'{split}-*.tfrecord')), shards)
      clips = _read(SAMPLE, split)
      self.assertLen(clips, count)
      for clip in clips.values():
        self.assertEqual(clip.frame_rate, 10.0)
        self.assertGreaterEqual(len(clip.frames), 33)
        self.assertEqual((clip.height, clip.width), (112, 112))
        self.assertEqual(clip.dataset_name, 'sample')
        self.assertFalse(os.path.isabs(clip.data_path))
        if clip.waveform is not None:
          self.assertEqual(clip.sample_rate, 16000.0)
          self.assertGreaterEqual(clip.waveform.size, 3.3 * 16000)

  def test_some_training_clips_lack_something(self):
    train, validation = _read(SAMPLE, 'train'), _read(SAMPLE, 'validation')
    self.assertLen([c for c in train.values() if c.waveform is None], 1)
    self.assertLen([c for c in train.values() if not c.captions], 1)
    for clip in validation.values():
      self.assertIsNotNone(clip.waveform)
      self.assertLen(clip.captions, 1)
    texts = [
      {caption.text for clip in clips.values() for caption in clip.captions}
      for clips in (train, validation)
    ]
    self.assertEmpty(texts[0] & texts[1])

  def test_readme_commands_make_these_records(self):
    page = (ROOT / 'data/README.md').read_text(encoding='utf-8')
    page = page.split('## How `sample/` was made')[1]
    (block,) = re.findall(r'```\n(.*?)```', page, re.DOTALL)
    folder = self.create_tempdir().full_path
    block = block.replace('data/generated/for_records', f'{folder}/media')
    block = block.replace('data/sample', f'{folder}/sample')
    for command in block.replace('\\\n', '').splitlines():
      arguments = shlex.split(command)
      self.assertEqual(arguments[0], 'python')
      arguments[0] = sys.executable
      subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    for split in ('train', 'validation'):
      committed = _read(SAMPLE, split)
      made = _read(f'{folder}/sample', split)
      self.assertCountEqual(made, committed)
      for name, clip in committed.items():
        self.assertEqual(clip.captions, made[name].captions)
        self.assertEqual(clip.label_names, made[name].label_names)
        self.assertEqual(clip.label_indices, made[name].label_indices)
        # Another processor may round another way, inside the codecs too.
        difference = np.abs(_frames(clip) - _frames(made[name]))
        self.assertLess(difference.mean(), 2)
        if clip.waveform is not None:
          self.assertAllClose(clip.waveform, made[name].waveform, atol=1e-2)
    for name in ('labels.txt', 'vocabulary.txt'):
      with open(f'{folder}/sample/{name}', encoding='utf-8') as file:
        expected = file.read()
      self.assertEqual((SAMPLE / name).read_text(encoding='utf-8'), expected)


if __name__ == '__main__':
  tf.test.main()
