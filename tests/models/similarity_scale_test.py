"""Tests of the learned scalars of the similarities, and of models with them."""

import math
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import vatt_models
from vatt_tf.core import modalities
from vatt_tf.models import similarity_scale, sizes
from vatt_tf.training import schedules

_SIZE = sizes.Size(1, 8, 16, 2, 4)
_PAIRS = tuple(modalities.PAIRS)


def _layer(*arguments, **keywords):
  layer = similarity_scale.SimilarityScale(*arguments, **keywords)
  layer.build()
  return layer


def _model(**arguments):
  return vatt_models.build_vatt(
    _SIZE,
    num_frames=4,
    frame_size=16,
    num_audio_samples=256,
    max_words=5,
    vocabulary_size=20,
    d_embedding=6,
    d_post_projection=8,
    d_va=8,
    d_vt=6,
    **arguments,
  )


def _features():
  random = np.random.RandomState(0)
  return {
    'video': random.uniform(-1, 1, [4, 4, 16, 16, 3]).astype(np.float32),
    'audio': random.uniform(-1, 1, [4, 256, 1]).astype(np.float32),
    'text': random.randint(1, 20, [4, 2, 5]).astype(np.int32),
  }


class SimilarityScaleTest(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(
      tf_keras.mixed_precision.set_global_policy,
      tf_keras.mixed_precision.global_policy(),
    )

  def test_temperature_starts_where_told(self):
    values = _layer(_PAIRS, 'temperature', temperature=0.05).values()
    self.assertSameElements(
      values, [f'{pair}_inverse_temperature' for pair in _PAIRS]
    )
    for value in values.values():
      self.assertAllClose(value, 20.0, rtol=1e-6)

  def test_temperature_and_bias_start_as_in_siglip(self):
    values = _layer(['audio_text'], 'temperature_and_bias').values()
    self.assertLen(values, 2)
    self.assertAllClose(
      values['audio_text_inverse_temperature'], 10.0, rtol=1e-6
    )
    self.assertAllEqual(values['audio_text_bias'], -10.0)

  def test_inverse_temperature_is_kept_as_its_logarithm(self):
    layer = _layer(['video_text'])
    weight = layer.trainable_weights[0]
    self.assertAllClose(weight, math.log(1 / 0.07))
    with tf.GradientTape() as tape:
      value = layer.values()['video_text_inverse_temperature']
    self.assertAllClose(tape.gradient(value, weight), value)

  @parameterized.named_parameters(
    ('temperature', 'temperature', 100.0),
    ('temperature and bias', 'temperature_and_bias', math.exp(7)),
  )
  def test_inverse_temperature_is_cut_after_updates(self, kind, limit):
    layer = _layer(['video_text'], kind)
    weight = layer.trainable_weights[0]
    weight.assign(4.0)
    optimizer = schedules.make_optimizer(3.0)

    @tf.function(autograph=False)
    def step(gradient):
      optimizer.apply_gradients([(gradient, weight)])
      return layer.values()['video_text_inverse_temperature']

    self.assertAllClose(step(-1.0), limit, rtol=1e-5)
    # It comes back: the cut does not stop gradients.
    for _ in range(4):
      value = step(1.0)
    self.assertLess(value, 0.9 * limit)

  def test_config_round_trip(self):
    layer = _layer(['video_text'], 'temperature', temperature=0.2, name='s')
    copy = similarity_scale.SimilarityScale.from_config(layer.get_config())
    copy.build()
    self.assertEqual(copy.get_config(), layer.get_config())
    self.assertAllClose(copy.get_weights(), layer.get_weights())

  @parameterized.named_parameters(
    ('pair', {'pairs': ['text_video']}, 'video_audio, video_text, audio_text'),
    ('no pair', {'pairs': []}, 'video_audio, video_text, audio_text'),
    ('kind', {'kind': 'bias'}, "temperature_and_bias. Received: kind='bias'"),
    ('small', {'temperature': 0.005}, 'at least 0.01.*temperature=0.005'),
    ('zero', {'temperature': 0.0}, 'at least 0.01.*temperature=0.0'),
  )
  def test_errors(self, changed, message):
    with self.assertRaisesRegex(ValueError, message):
      similarity_scale.SimilarityScale(**{'pairs': _PAIRS, **changed})


class ModelTest(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(
      tf_keras.mixed_precision.set_global_policy,
      tf_keras.mixed_precision.global_policy(),
    )

  @parameterized.named_parameters(
    ('temperature', 'temperature', {}, 2),
    ('temperature and bias', 'temperature_and_bias', {}, 4),
    ('all pairs', 'temperature', {'pairs': _PAIRS}, 3),
    ('one pair', 'temperature_and_bias', {'pairs': ('video_text',)}, 2),
  )
  def test_scalars_are_weights_of_the_model(self, kind, weights, expected):
    names = {weight.name for weight in _model(**weights).weights}
    model = _model(learned_similarity=kind, **weights)
    new = {weight.name for weight in model.trainable_weights} - names
    self.assertLen(new, expected)
    self.assertLen(model.weights, len(names) + expected)
    for name in new:
      self.assertStartsWith(name, 'vatt/similarity_scale/')
    # Only the pairs that a term compares.
    is_compared = weights.get('pairs') != ('video_text',)
    self.assertEqual('video_audio' in ' '.join(new), is_compared)

  def test_absent_by_default(self):
    model = _model()
    self.assertIsNone(model.similarity_scale)
    self.assertNoCommonElements(
      model(_features()),
      [f'{pair}_inverse_temperature' for pair in _PAIRS],
    )

  def test_temperature_of_the_build(self):
    model = _model(learned_similarity='temperature', temperature=0.1)
    outputs = model(_features())
    self.assertAllClose(outputs['video_text_inverse_temperature'], 10.0)

  @parameterized.parameters('float32', 'mixed_bfloat16', 'mixed_float16')
  def test_outputs_are_float32_under_any_precision(self, precision):
    tf_keras.mixed_precision.set_global_policy(precision)
    model = _model(learned_similarity='temperature_and_bias')
    for weight in model.similarity_scale.trainable_weights:
      # Not representable in half precision.
      weight.assign(1.0001)
    outputs = tf.function(model, autograph=False)(_features(), training=True)
    for pair in ('video_audio', 'video_text'):
      for name, expected in (
        (f'{pair}_inverse_temperature', math.exp(1.0001)),
        (f'{pair}_bias', 1.0001),
      ):
        self.assertEqual(outputs[name].dtype, tf.float32)
        self.assertEqual(outputs[name].shape, [])
        self.assertAllClose(outputs[name], expected, rtol=1e-6)

  def test_scalars_are_in_the_checkpoint(self):
    model = _model(learned_similarity='temperature_and_bias')
    path = os.path.join(self.create_tempdir().full_path, 'ckpt')
    for i, weight in enumerate(model.similarity_scale.trainable_weights):
      weight.assign(float(i + 1))
    tf.train.Checkpoint(model=model).write(path)
    keys = [key for key, _ in tf.train.list_variables(path)]
    self.assertSameElements(
      [key.split('/.')[0] for key in keys if 'similarity_scale' in key],
      [
        f'model/similarity_scale/{pair}/{name}'
        for pair in ('video_audio', 'video_text')
        for name in ('scale', 'bias')
      ],
    )
    other = _model(learned_similarity='temperature_and_bias')
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    self.assertAllEqual(
      other.similarity_scale.get_weights(), [1.0, 2.0, 3.0, 4.0]
    )

  def test_model_round_trips(self):
    model = _model(learned_similarity='temperature')
    copy = type(model).from_config(model.get_config())
    copy.build()
    self.assertEqual(
      [weight.name for weight in copy.weights],
      [weight.name for weight in model.weights],
    )
    path = os.path.join(self.create_tempdir().full_path, 'saved')
    features = {key: tf.constant(x) for key, x in _features().items()}
    expected = model(features)
    model.save(path)
    found = tf_keras.models.load_model(path)(features)
    self.assertAllClose(found, expected, rtol=1e-5, atol=1e-5)


if __name__ == '__main__':
  tf.test.main()
