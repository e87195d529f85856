"""Tests of the classifier: form, dropout, windows, sizes."""

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf
import tf_keras

from tests import vatt_models
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import (
  gin_utils,
  randomness,
)
from vatt_tf.models import classification, patch_tower, sizes

_SIZE = sizes.Size(1, 8, 16, 2, 4)


def _video_model(**arguments):
  tf_keras.utils.set_random_seed(0)
  return vatt_models.build_classifier(
    'video',
    3,
    _SIZE,
    patch_size=(2, 8, 8),
    num_frames=4,
    frame_size=16,
    **arguments,
  )


class ClassifierTest(tf.test.TestCase, parameterized.TestCase):
  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  @parameterized.parameters(False, True)
  def test_spectrograms(self, is_agnostic):
    model = vatt_models.build_classifier(
      'audio',
      5,
      size=_SIZE,
      is_agnostic=is_agnostic,
      d_post_projection=6,
      audio_form='spectrogram',
      patch_size=(4, 2),
      num_spectrogram_frames=10,
      num_mel_bins=6,
    )
    # 10 frames are 3 patches of 4, the last one filled up.
    table = model.tower.embedding.position_embedding.table_shape
    self.assertEqual(table, (3, 3))
    outputs = model({'spectrogram': tf.random.uniform([2, 14, 6])})
    self.assertEqual(outputs['logits'].shape, [2, 5])
    self.assertEqual(
      outputs['audio_feature'].shape, [2, 6 if is_agnostic else 8]
    )
    again = classification.Classifier.from_config(model.get_config())
    again.build()
    self.assertEqual(
      [w.name for w in again.weights], [w.name for w in model.weights]
    )

  def test_dropout_of_the_feature_alone(self):
    model = _video_model(
      classifier_dropout_rate=0.5, drop_token_rate=0.0, dropout_rate=0.0
    )
    features = {'video': tf.random.uniform([64, 4, 16, 16, 3], -1, 1)}
    plain = model(features)
    rng = randomness.make(1, tf.constant(2, tf.int64))
    trained = model(features, training=True, rng=rng)
    self.assertNotAllClose(trained['logits'], plain['logits'])
    again = model(features, training=True, rng=rng)
    self.assertAllEqual(trained['logits'], again['logits'])
    # Each kernel row's share of the logits is kept or dropped.
    model.logits.kernel.assign(tf.eye(8, 3))
    dropped = model(features, training=True, rng=rng)['logits'].numpy()
    share = np.mean(dropped == 0)
    self.assertBetween(share, 0.35, 0.65)
    expected = 2 * plain['video_feature'].numpy()[:, :3]
    self.assertAllClose(
      dropped[dropped != 0], expected[dropped != 0], rtol=1e-2
    )

  @parameterized.parameters(False, True)
  def test_windows_give_the_mean_of_the_logits(self, is_multi_label):
    model = _video_model(is_multi_label=is_multi_label)
    video = tf.random.uniform([6, 4, 24, 24, 3], -1, 1)
    found = model.classify({'video': video}, num_windows=3)
    single = np.concatenate(
      [model({'video': video[i : i + 1]})['logits'] for i in range(6)]
    )
    expected = single.reshape([2, 3, 3]).mean(1)
    self.assertAllClose(found['logits'], expected, rtol=1e-5, atol=1e-6)
    odds = np.exp(expected)
    total = 1 + odds if is_multi_label else odds.sum(1, keepdims=True)
    self.assertAllClose(found['probabilities'], odds / total, rtol=1e-5)

  def test_an_image_is_a_video_of_equal_frames(self):
    model = _video_model()
    image = tf.random.uniform([2, 1, 16, 16, 3], -1, 1)
    outputs = model({'video': tf.repeat(image, 2, axis=1)})
    self.assertEqual(outputs['logits'].shape, [2, 3])

  @parameterized.parameters(
    ({'num_classes': 0}, 'num_classes=0'),
    ({'classifier_dropout_rate': 1.0}, 'classifier_dropout_rate=1.0'),
  )
  def test_errors(self, arguments, message):
    arguments = {'num_classes': 2, **arguments}
    with self.assertRaisesRegex(ValueError, message):
      vatt_models.build_classifier('video', size=_SIZE, **arguments)

  def test_no_tower_of_the_modality(self):
    tower = patch_tower.PatchTower('video', size=_SIZE)
    with self.assertRaisesRegex(ValueError, r"\['video'\].*modality='text'"):
      classification.select_tower({'video': tower}, 'text')

  @parameterized.parameters(
    ('finetune_kinetics400', 'specific', 'video_encoder', False),
    ('finetune_kinetics400', 'agnostic', 'encoder', True),
    ('finetune_audioset', 'agnostic', 'encoder', True),
    ('finetune_audioset', 'specific', 'audio_encoder', False),
  )
  def test_second_file_sets_the_model(self, recipe, file, encoder, is_agnostic):
    # Whatever came before: the last model file wins.
    files = ['gin/models/agnostic.gin', f'gin/models/{file}.gin']
    sizes = [f'{name}SIZE = %TINY' for name in ('', 'VIDEO_', 'AUDIO_')]
    gin_utils.parse([f'gin/{recipe}.gin', *files], sizes)
    model = gin_utils.get_task().build_model()
    names = {weight.name for weight in model.weights}
    self.assertIn(f'vatt/{encoder}/layer_3/attention/q/kernel:0', names)
    self.assertNotIn(f'vatt/{encoder}/layer_4/attention/q/kernel:0', names)
    kind = model.modality
    self.assertEqual(
      f'vatt/{kind}_post_projection/kernel:0' in names, is_agnostic
    )


if __name__ == '__main__':
  tf.test.main()
