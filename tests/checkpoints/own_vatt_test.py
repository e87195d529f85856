"""Classifiers that start from checkpoints of training."""

import contextlib
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import shared_data, vatt_models
from vatt_tf.checkpoints import ema, manager, own_vatt, plans, weight_sources
from vatt_tf.models import sizes

_SIZE = sizes.Size(1, 8, 16, 2, 4)
_TABLES = {'num_frames': 4, 'frame_size': 32, 'num_audio_samples': 512}
_AGNOSTIC = {'is_agnostic': True, 'd_post_projection': 12}


def _features(frame_size=32, num_samples=512):
  random = np.random.RandomState(0)
  shape = (2, 4, frame_size, frame_size, 3)
  return {
    'video': tf.constant(random.uniform(-1, 1, shape), tf.float32),
    'audio': tf.constant(
      random.uniform(-1, 1, (2, num_samples, 1)), tf.float32
    ),
    'text': tf.constant(random.randint(1, 9, [2, 1, 3]), tf.int32),
  }


def _pretrained(is_agnostic, **changes):
  of_encoders = {'size': _SIZE, 'd_post_projection': 12}
  if not is_agnostic:
    of_encoders = {f'{name}_size': _SIZE for name in ('video', 'audio', 'text')}
  return vatt_models.build_vatt(
    **{
      **of_encoders,
      **_TABLES,
      'max_words': 3,
      'vocabulary_size': 9,
      'd_embedding': 6,
      'd_va': 8,
      'd_vt': 6,
      **changes,
    }
  )


def _classifier(modality='video', num_classes=5, is_agnostic=True, **changes):
  arguments = {**_TABLES, **(_AGNOSTIC if is_agnostic else {}), **changes}
  return vatt_models.build_classifier(
    modality, num_classes, **{'size': _SIZE, **arguments}
  )


def _values(model):
  return {
    name: variable.numpy()
    for name, variable in plans.target_variables(model).items()
  }


class ClassifierTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    tf_keras.utils.set_random_seed(0)

  def _train(self, model, features=None, ema_decay=None):
    """Two steps; returns averages and checkpoint, as training writes it."""
    optimizer = tf_keras.optimizers.legacy.Adam(0.01)
    average = None if ema_decay is None else ema.WeightAverage(model, ema_decay)
    for step in range(2):
      with tf.GradientTape() as tape:
        outputs = model(features or _features(), training=True)
        loss = tf.add_n([tf.reduce_sum(x**2) for x in outputs.values()])
      weights = model.trainable_variables
      gradients = tape.gradient(
        loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
      )
      optimizer.apply_gradients(zip(gradients, weights, strict=True))
      if average is not None:
        average.update(tf.distribute.get_strategy(), step + 1)
    parts = {'model': model, 'optimizer': optimizer}
    if average is not None:
      parts['ema'] = average.checkpoint
    path = os.path.join(self.get_temp_dir(), 'ckpt')
    return average, tf.train.Checkpoint(**parts).save(path)

  @parameterized.product(
    modality=('video', 'audio'),
    is_agnostic=(False, True),
    ema_decay=(None, 0.5),
  )
  def test_features_are_those_of_pretraining(
    self, modality, is_agnostic, ema_decay
  ):
    pretrained = _pretrained(is_agnostic)
    before = _values(pretrained)
    average, path = self._train(pretrained, ema_decay=ema_decay)
    classifier = _classifier(modality, is_agnostic=is_agnostic)
    start = _values(classifier)
    lines = manager.initialize(classifier, path)
    width = 12 if is_agnostic else 8
    self.assertEqual(
      lines,
      [f'logits: new, {width * 5 + 5} weights (the checkpoint has no classes)'],
    )
    features = _features()
    with (
      contextlib.nullcontext() if average is None else (average.as_weights())
    ):
      expected = pretrained(features)[f'{modality}_feature']
    got = classifier(features)[f'{modality}_feature']
    self.assertAllEqual(got, expected)
    trained = _values(pretrained)
    for name, value in _values(classifier).items():
      if name.startswith('classifier/'):
        self.assertAllEqual(value, start[name])
        continue
      self.assertNotAllEqual(value, before[name], msg=name)
      if ema_decay is not None:
        self.assertNotAllEqual(value, trained[name], msg=name)
    if ema_decay is not None:
      manager.initialize(classifier, path, use_ema=False)
      got = classifier(features)[f'{modality}_feature']
      self.assertAllEqual(got, pretrained(features)[f'{modality}_feature'])

  def test_larger_inputs_from_the_tables_of_pretraining(self):
    pretrained = _pretrained(is_agnostic=True)
    _, path = self._train(pretrained)
    larger = _features(frame_size=64, num_samples=1024)
    for modality in ('video', 'audio'):
      classifier = _classifier(modality)
      manager.initialize(classifier, path)
      self.assertAllEqual(
        classifier(larger)[f'{modality}_feature'],
        pretrained(larger)[f'{modality}_feature'],
      )

  @parameterized.parameters(
    (
      'video',
      {'frame_size': 64},
      'position_embedding/vertical is 4x8.* 2x8.*'
      'no larger tables.*`input_size` of the tower',
    ),
    (
      'audio',
      {'num_audio_samples': 1024},
      'position_embedding/temporal is 8x8.* 4x8.*no larger tables',
    ),
    (
      'video',
      {'size': sizes.Size(2, 8, 16, 2, 4)},
      'vatt/encoder/layer_1/.* has no source: the checkpoint has no such weight'
      '.*The checkpoint must have the whole tower',
    ),
    (
      'video',
      {'size': sizes.Size(1, 8, 24, 2, 4)},
      'vatt/encoder/layer_0/feed_forward/wi/.* is .*24, and of model/.*16',
    ),
    ('video', {'is_agnostic': False}, 'vatt/video_encoder/.* has no source'),
    ('video', {'patch_size': (4, 8, 8)}, 'tokenizer/kernel is 768x8, and of'),
  )
  def test_what_does_not_fit(self, modality, changes, message):
    _, path = self._train(_pretrained(is_agnostic=True))
    classifier = _classifier(modality, **changes)
    start = _values(classifier)
    with self.assertRaisesRegex(ValueError, message):
      manager.initialize(classifier, path)
    self.assertAllClose(_values(classifier), start, atol=0, rtol=0)

  def test_a_tower_that_was_not_trained(self):
    model = _pretrained(is_agnostic=True, pairs=('video_text',))
    _, path = self._train(model)
    with self.assertRaisesRegex(ValueError, 'vatt/audio_.* has no source'):
      manager.initialize(_classifier('audio'), path)

  @parameterized.parameters(None, 0.5)
  def test_from_a_classifier(self, ema_decay):
    trained = _classifier()
    features = {'video': _features()['video']}
    average, path = self._train(trained, features, ema_decay=ema_decay)
    same, other = _classifier(), _classifier(num_classes=4)
    start = _values(other)
    self.assertEqual(
      manager.initialize(same, path),
      ['logits: from the checkpoint, whose number of classes is the same'],
    )
    with (
      contextlib.nullcontext() if average is None else (average.as_weights())
    ):
      expected = trained(features)
    self.assertAllEqual(same(features)['logits'], expected['logits'])
    self.assertEqual(
      manager.initialize(other, path),
      ['logits: new, 52 weights (the checkpoint has 5 classes)'],
    )
    got = other(features)
    self.assertAllEqual(got['video_feature'], expected['video_feature'])
    for name, value in _values(other).items():
      if name.startswith('classifier/'):
        self.assertAllEqual(value, start[name])
    # Evaluation takes nothing but the whole.
    with self.assertRaisesRegex(ValueError, 'written by another model'):
      manager.restore_model(other, path)

  def test_in_a_strategy(self):
    _, path = self._train(_pretrained(is_agnostic=True), ema_decay=0.5)
    with tf.distribute.MirroredStrategy(['CPU:0']).scope():
      classifier = _classifier()
      manager.initialize(classifier, path)
    expected = _classifier()
    manager.initialize(expected, path)
    video = {'video': _features()['video']}
    self.assertAllEqual(
      classifier(video)['video_feature'], expected(video)['video_feature']
    )

  def test_pretraining_starts_as_before(self):
    trained = _pretrained(is_agnostic=True)
    _, path = self._train(trained)
    model = _pretrained(is_agnostic=True)
    self.assertEqual(manager.initialize(model, path), [])
    self.assertAllClose(_values(model), _values(trained), atol=0, rtol=0)

  def test_not_of_training(self):
    path = tf.train.Checkpoint(a=tf.Variable(1.0)).save(
      os.path.join(self.get_temp_dir(), 'other')
    )
    with self.assertRaisesRegex(ValueError, 'neither a checkpoint of vatt_tf'):
      manager.initialize(_classifier(), path)

  def test_every_variable_is_accounted_for(self):
    _, path = self._train(_pretrained(is_agnostic=True), ema_decay=0.5)
    source = weight_sources.open_source(path)
    classifier = _classifier()
    report = own_vatt.load(classifier, source)
    named = {name for row in report.rows for name in row.sources}
    self.assertEqual(named, set(source.shapes))
    targets = {row.target for row in report.rows if row.target}
    self.assertEqual(targets, set(plans.target_variables(classifier)))


class ReleasedTest(parameterized.TestCase, tf.test.TestCase):
  """From the files of the release."""

  def _model(self, num_classes, d_post_projection):
    return vatt_models.build_classifier(
      'video',
      num_classes,
      sizes.Size(2, 32, 64, 4, 8),
      is_agnostic=True,
      d_post_projection=d_post_projection,
      num_frames=8,
      frame_size=48,
    )

  @parameterized.parameters(
    (
      'ut_fac',
      5,
      40,
      'logits: new, 205 weights (a pre-trained checkpoint has no classes)',
    ),
    (
      'finetuned_vit_ma',
      5,
      44,
      'logits: new, 225 weights (the checkpoint has 7 classes)',
    ),
    (
      'finetuned_vit_ma',
      7,
      44,
      'logits: from the checkpoint, whose number of classes is the same',
    ),
  )
  def test_starts(self, fixture, num_classes, width, line):
    path = manager.resolve(str(shared_data.path('fixtures', fixture)))
    model = self._model(num_classes, width)
    start = _values(model)
    self.assertEqual(manager.initialize(model, path), [line])
    for name, value in _values(model).items():
      is_same = np.array_equal(value, start[name])
      is_new = 'new' in line and name.startswith('classifier/')
      # Biases and norms may have been at their initial values there, too.
      if is_new or name.endswith('kernel'):
        self.assertEqual(is_same, is_new, msg=name)

  def test_evaluation_wants_classes(self):
    path = manager.resolve(str(shared_data.path('fixtures', 'ut_fac')))
    with self.assertRaisesRegex(
      ValueError, 'pre-trained checkpoint and has no classes'
    ):
      manager.restore_model(self._model(5, 40), path)


if __name__ == '__main__':
  tf.test.main()
