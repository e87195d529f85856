"""The recipe of fine-tuning on images, and what a fine-tuning starts from."""

import os
import pathlib
import tempfile

from absl.testing import absltest, parameterized
import gin
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import logical_devices
from tests.training import recipes
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import folders, manager
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import runner


def setUpModule():
  logical_devices.make()


_SMALL = (
  'TABLE_FRAMES=4',
  'TABLE_FRAME_SIZE=16',
  'video/PatchTower.patch_size=(2, 8, 8)',
  'FRAME_SIZE=16',
  *recipes.sizes('video/'),
)


class RecipeImages(tfds.core.GeneratorBasedBuilder):
  """Noise in three classes."""

  VERSION = tfds.core.Version('1.0.0')
  pkg_dir_path = pathlib.Path(__file__).parent

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(encoding_format='jpeg'),
          'label': tfds.features.ClassLabel(num_classes=3),
        }
      )
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      'train': self._generate_examples(8),
      'validation': self._generate_examples(5),
    }

  def _generate_examples(self, count):
    for number in range(count):
      image = np.random.RandomState(number).randint(0, 256, [20, 24, 3])
      yield number, {'image': image.astype(np.uint8), 'label': number % 3}


class ImageRecipeTest(tf.test.TestCase, parameterized.TestCase):
  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def test_one_and_two_devices(self):
    folder = tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())
    tfds.builder('recipe_images', data_dir=folder).download_and_prepare()
    _, metrics, _ = recipes.check_devices(
      self,
      'finetune_imagenet',
      '',
      *_SMALL,
      "IMAGE_SET='recipe_images'",
      f"DATA_DIR='{folder}'",
      use_records=False,
    )
    self.assertEqual(metrics['num_clips'], 5)

  def test_starts_from_a_pretrained_model(self):
    folder = self.create_tempdir().full_path
    recipes.write_records(folder)
    vocabulary = os.path.join(folder, 'words.txt')
    with open(vocabulary, 'w', encoding='utf-8') as file:
      file.write('<pad>\n<bos>\n<eos>\n<unk>\nclip\n')
    gin_utils.parse(
      ['gin/pretrain_sample.gin', 'gin/models/specific.gin'],
      [
        f"TRAIN_RECORDS='{folder}/train-*'",
        f"VOCABULARY='{vocabulary}'",
        'BATCH_SIZE=4',
        'TRAIN_STEPS=1',
        'WARMUP_STEPS=0',
        'NUM_FRAMES=4',
        'FRAME_SIZE=16',
        'NUM_AUDIO_SAMPLES=8000',
        'train.eval_dataset=None',
        *(
          b
          for scope in ('video/', 'audio/', 'text/')
          for b in recipes.sizes(scope)
        ),
        "STRATEGY='cpu'",
      ],
    )
    pretrained = os.path.join(folder, 'pretrained')
    gin_utils.write_config(pretrained)
    model = gin_utils.get_task().build_model()
    folders.save(tf.train.Checkpoint(model=model), pretrained, 1, 1)
    model_dir = os.path.join(folder, 'model')
    small = (*_SMALL, 'NUM_FRAMES=4', "STRATEGY='cpu'")
    _, trained, text = recipes.run(
      'finetune_kinetics400',
      folder,
      model_dir,
      *small,
      f"INIT_CHECKPOINT='{pretrained}'",
      "FROZEN=('^vatt/',)",
    )
    self.assertIn('Starting from the weights of ', text)
    self.assertRegex(text, r'logits: new, 27 weights')
    self.assertRegex(text, r'Frozen: \d+ of \d+ trainable weights')
    metrics, _ = runner.evaluate(model_dir)
    self.assertEqual(metrics, trained)
    before = tf.train.load_checkpoint(manager.latest(pretrained))
    after = tf.train.load_checkpoint(manager.latest(model_dir))
    suffix = 'video_encoder/norm/gamma/.ATTRIBUTES/VARIABLE_VALUE'
    self.assertAllEqual(
      before.get_tensor(f'model/{suffix}'),
      after.get_tensor(f'model/tower/{suffix}'),
    )

  @parameterized.parameters(
    ({'num_classes': 0}, 'no clip of the last steps had both a class'),
    ({'num_classes': 9}, 'a label is not among the classes'),
  )
  def test_records_that_do_not_fit(self, arguments, message):
    folder = self.create_tempdir().full_path
    recipes.write_records(folder, **arguments)
    with self.assertRaisesRegex((ValueError, tf.errors.OpError), message):
      recipes.run(
        'finetune_kinetics400',
        folder,
        os.path.join(folder, 'model'),
        *_SMALL,
        'NUM_FRAMES=4',
        "STRATEGY='cpu'",
      )

  def test_records_without_the_modality(self):
    folder = self.create_tempdir().full_path
    recipes.write_records(folder, num_samples=0)
    with self.assertRaisesRegex(ValueError, 'the modality that the model'):
      recipes.run(
        'scratch_esc_waveform',
        folder,
        os.path.join(folder, 'model'),
        'AUDIO_RATE=4000',
        'NUM_AUDIO_SAMPLES=1600',
        'audio/PatchTower.patch_size=(64,)',
        'TABLE_AUDIO_SAMPLES=1280',
        *recipes.sizes('audio/'),
        "STRATEGY='cpu'",
      )


if __name__ == '__main__':
  tf.test.main()
