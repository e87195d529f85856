"""The recipes of fine-tuning on video, on one device and on two."""

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import logical_devices
from tests.training import recipes
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import classification


def setUpModule():
  logical_devices.make()


_SMALL = (
  'NUM_FRAMES=4',
  'FRAME_SIZE=24',  # larger than the tables
  'TABLE_FRAMES=4',
  'TABLE_FRAME_SIZE=16',
  'video/PatchTower.patch_size=(2, 8, 8)',
  *recipes.sizes('video/'),
)


class VideoRecipesTest(recipes.RecordsCase, parameterized.TestCase):
  def test_one_and_two_devices(self):
    _, metrics, text = recipes.check_devices(
      self, 'finetune_kinetics400', self.folder, *_SMALL
    )
    self.assertEqual(metrics['num_clips'], 5)
    self.assertEqual(metrics['num_views'], 12)
    self.assertEqual(metrics['num_dropped'], 0)
    self.assertIn('Gradient norm at most 0.75 (^vatt/)', text)
    self.assertIn('accuracy', text)

  def test_views_give_the_mean_of_their_logits(self):
    gin_utils.parse(
      ['gin/finetune_kinetics400.gin'],
      [
        f"EVAL_RECORDS='{self.folder}/validation-*'",
        f'NUM_CLASSES={recipes.NUM_CLASSES}',
        'NUM_TEST_CLIPS=2',
        *_SMALL,
      ],
    )
    model = gin_utils.get_task().build_model()
    with gin.config_scope('eval'):
      dataset = gin.get_configurable('make_dataset')(global_batch_size=4)
    clips = classification.classify_dataset(model, dataset, num_views=6)
    single = []
    for row in dataset.unbatch().batch(1):
      if row['valid'][0]:
        single.append(model({'video': row['video']})['logits'][0])
    self.assertLen(single, 30)
    # The clips and crops of a record are different views of it.
    self.assertGreater(np.ptp(single[:6], axis=0).max(), 1e-4)
    expected = np.reshape(single, [5, 6, recipes.NUM_CLASSES]).mean(1)
    self.assertAllClose(clips.logits, expected, rtol=1e-5, atol=1e-6)

  @parameterized.parameters('kinetics600', 'kinetics700', 'moments_in_time')
  def test_others_differ_in_their_data_only(self, name):
    gin_utils.parse(['gin/finetune_kinetics400.gin'])
    kinetics400 = gin.config_str().splitlines()
    gin_utils.parse(['gin/finetune_kinetics400.gin', f'gin/data/{name}.gin'])
    changed = set(gin.config_str().splitlines()) - set(kinetics400)
    self.assertSameElements(
      {line.split(' = ')[0] for line in changed},
      {'EVAL_RECORDS', 'LABEL_NAMES', 'NUM_CLASSES', 'TRAIN_RECORDS'},
    )


if __name__ == '__main__':
  tf.test.main()
