"""Trains MMV's towers, mixed with VATT's, as their gin files say."""

import contextlib
import io
import os
from unittest import mock

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import shared_data, tower_table
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import gin_utils
from vatt_tf.training import loop, progress

_SAMPLE = shared_data.REPOSITORY / 'data' / 'sample'
_SMALL = (
  f"TRAIN_RECORDS='{_SAMPLE}/train-*.tfrecord'",
  f"EVAL_RECORDS='{_SAMPLE}/validation-*.tfrecord'",
  f"VOCABULARY='{_SAMPLE}/vocabulary.txt'",
  'BATCH_SIZE=4',
  'TRAIN_STEPS=12',
  'WARMUP_STEPS=0',
  'STEPS_PER_LOOP=1',
  'LOG_INTERVAL=1',
  'NUM_FRAMES=4',
  'FRAME_SIZE=32',
  'NUM_AUDIO_SAMPLES=8192',
  'Size.num_layers=1',
  'Size.d_model=16',
  'Size.d_ff=16',
  'Size.num_heads=2',
  'Size.d_kv=8',
  'CACHE_GIB=0.0',
  "STRATEGY='cpu'",
)
_MIXED = (
  "TOWERS={'video': @video/S3DTower(), 'audio': @audio/PatchTower(), "
  "'text': @TextTower()}",
  "audio/PatchTower.input_name='audio'",
  'audio/PatchTower.patch_size=128',
  'audio/PatchTower.input_size=8192',
  'audio/PatchTower.size=@Size()',
  'TextTower.size=@Size()',
  "AudioConfig.form='waveform'",
)


class MMVRecipeTest(parameterized.TestCase, tf.test.TestCase):
  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _train(self, *params):
    gin_utils.parse(['gin/pretrain_mmv_sample.gin'], [*_SMALL, *params])
    losses, update = [], progress.Progress.update

    def record(line, step, metrics, *others):
      losses.append(metrics['loss'])
      return update(line, step, metrics, *others)

    with (
      tower_table.first_parts(),
      mock.patch.object(progress.Progress, 'update', record),
      contextlib.redirect_stdout(io.StringIO()),
    ):
      metrics = loop.train(os.path.join(self.create_tempdir().full_path, 'run'))
    return losses, metrics

  @parameterized.parameters((), _MIXED)
  def test_overfits_one_batch(self, *params):
    losses, metrics = self._train('train.overfit_one_batch=True', *params)
    self.assertLess(np.mean(losses[-3:]), 0.7 * losses[0])
    self.assertIn('text_to_video', metrics)

  def test_micro_batches_are_refused(self):
    with self.assertRaisesRegex(ValueError, 'S3DTower for video has batch'):
      self._train('MICRO_BATCH_SIZE=2', 'train.eval_dataset=None')


if __name__ == '__main__':
  tf.test.main()
