"""The recipes of fine-tuning on video, on one device and on two."""

from absl.testing import parameterized
import gin
import tensorflow as tf

from tests import logical_devices
from tests.training import recipes
from vatt_tf import (
  configurables,  # noqa: F401
  gin_utils,
)


def setUpModule():
  logical_devices.make()


_SMALL = (
  'NUM_FRAMES=4',
  'FRAME_SIZE=24',  # larger than the tables
  'TABLE_FRAMES=4',
  'TABLE_FRAME_SIZE=16',
  'PATCH_SIZE=(2, 8, 8)',
  *recipes.sizes('video/'),
)


class VideoRecipesTest(tf.test.TestCase, parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = self.create_tempdir().full_path
    recipes.write_records(self.folder)

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def test_one_and_two_devices(self):
    _, metrics, text = recipes.check_devices(
      self, 'finetune_kinetics400', self.folder, *_SMALL
    )
    self.assertEqual(metrics['num_clips'], 5)
    self.assertEqual(metrics['num_views'], 12)
    self.assertEqual(metrics['num_dropped'], 0)
    self.assertIn('Gradient norm at most 0.75 (^vatt/)', text)
    self.assertIn('accuracy', text)

  @parameterized.parameters(
    ('finetune_kinetics600', 'kinetics600', 600),
    ('finetune_kinetics700', 'kinetics700', 700),
    ('finetune_moments_in_time', 'moments_in_time', 339),
  )
  def test_others_differ_in_their_data_only(self, recipe, folder, num_classes):
    gin_utils.parse([f'gin/{recipe}.gin'])
    found = gin.config_str()
    gin_utils.parse(
      ['gin/finetune_kinetics400.gin'],
      [
        f"TRAIN_RECORDS='data/{folder}/train-*.tfrecord'",
        f"EVAL_RECORDS='data/{folder}/validation-*.tfrecord'",
        f'NUM_CLASSES={num_classes}',
      ],
    )
    self.assertEqual(found, gin.config_str())


if __name__ == '__main__':
  tf.test.main()
