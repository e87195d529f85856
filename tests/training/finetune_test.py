"""Tests of the fine-tuning task, against NumPy and across replicas."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import logical_devices, vatt_models
from vatt_tf.core import strategies
from vatt_tf.models import sizes
from vatt_tf.training import finetune, schedules, trainer

_BATCH, _CLASSES = 8, 3


def setUpModule():
  logical_devices.make()


def _model(is_multi_label=False, **arguments):
  tf_keras.utils.set_random_seed(1)
  return vatt_models.build_classifier(
    'audio',
    _CLASSES,
    sizes.Size(1, 8, 16, 2, 4),
    patch_size=(32,),
    num_audio_samples=256,
    is_multi_label=is_multi_label,
    **arguments,
  )


def _features(kind='index'):
  random = np.random.RandomState(0)
  labels = np.array([0, 1, 2, -1, 0, 2, 1, 1], np.int32)
  if kind != 'index':
    labels = np.where(labels[:, None] >= 0, np.eye(_CLASSES)[labels], 0.0)
    if kind == 'shares':
      labels[:2] = [[0.7, 0.3, 0.0], [0.0, 0.6, 0.4]]
    else:
      labels[2] = [1, 0, 1]
    labels = labels.astype(np.float32)
  return {
    'audio': random.uniform(-1, 1, [_BATCH, 256, 1]).astype(np.float32),
    'audio_mask': np.arange(_BATCH) != 5,
    'label': labels,
  }


def _numpy_loss(logits, labels, smoothing, is_multi_label):
  """Loss and accuracy over the rows that count, one after the other."""
  losses, hits = [], []
  for row, (x, label) in enumerate(zip(logits, labels)):
    if label.ndim == 0:
      label = np.eye(_CLASSES)[label] if label >= 0 else np.zeros(_CLASSES)
    if row == 5 or not label.any():
      continue
    if is_multi_label:
      target = (1 - smoothing) * label + smoothing / 2
      p = 1 / (1 + np.exp(-x.astype(np.float64)))
      terms = target * np.log(p) + (1 - target) * np.log(1 - p)
      losses.append(-terms.mean())
    else:
      target = (1 - smoothing) * label + smoothing / _CLASSES
      p = np.exp(x.astype(np.float64))
      losses.append(-(target * np.log(p / p.sum())).sum())
    hits.append(label[np.argmax(x)] >= 0.5)
  return np.mean(losses), np.mean(hits), len(hits)


class LossTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    ('index', False, 0.1),
    ('index', False, 0.0),
    ('shares', False, 0.1),
    ('several', True, 0.0),
    ('several', True, 0.2),
  )
  def test_equals_numpy(self, kind, is_multi_label, smoothing):
    task = finetune.FinetuneTask(lambda: _model(is_multi_label), smoothing)
    task.build_model()
    features = _features(kind)
    logits = np.random.RandomState(1).randn(_BATCH, _CLASSES)
    logits = logits.astype(np.float32)
    logits[3] = np.nan  # has no label
    outputs = {'logits': tf.constant(logits), 'audio_feature': tf.zeros([8, 8])}
    loss, metrics = task.loss(
      {key: tf.constant(value) for key, value in features.items()}, outputs
    )
    expected = _numpy_loss(logits, features['label'], smoothing, is_multi_label)
    self.assertAllClose(
      (loss, metrics['accuracy'], metrics['examples']), expected, rtol=1e-5
    )

  def test_nothing_to_learn_from(self):
    task = finetune.FinetuneTask(_model)
    model = task.build_model()
    features = _features()
    features['audio_mask'] = np.zeros([_BATCH], bool)
    with tf.GradientTape() as tape:
      outputs = model(features)
      loss, metrics = task.loss(
        features | {'label': tf.constant(features['label'])}, outputs
      )
    self.assertEqual(loss.numpy(), 0)
    self.assertEqual(metrics['examples'].numpy(), 0)
    for gradient in tape.gradient(loss, model.trainable_variables):
      self.assertAllEqual(gradient, tf.zeros_like(gradient))

  @parameterized.parameters(
    (None, 'needs labels'),
    (np.zeros([_BATCH, 4], np.float32), r'\(B, 3\).*\(8, 4\)'),
    (np.zeros([_BATCH], np.float32), r'\(B, 3\).*\(8,\)'),
  )
  def test_wrong_labels(self, labels, message):
    task = finetune.FinetuneTask(_model)
    task.build_model()
    features = {'audio_mask': tf.ones([_BATCH], tf.bool)}
    if labels is not None:
      features['label'] = tf.constant(labels)
    with self.assertRaisesRegex(ValueError, message):
      task.loss(features, {'logits': tf.zeros([_BATCH, _CLASSES])})

  def test_label_smoothing_out_of_range(self):
    with self.assertRaisesRegex(ValueError, '`label_smoothing`.*=1'):
      finetune.FinetuneTask(_model, 1)


class TrainingTest(tf.test.TestCase, parameterized.TestCase):
  def _train(self, strategy, micro_batch_size=None, **arguments):
    """Two steps with dropout and DropToken: metrics and weights."""
    strategy = strategies.make_strategy(strategy)
    rows = strategies.check_batch_divisible(_BATCH, strategy)
    task = finetune.FinetuneTask(_model)
    with strategy.scope():
      model = task.build_model()
      optimizer = schedules.make_optimizer(0.1, kind='sgd', **arguments)
      optimizer.prepare(model)
    dataset = tf.data.Dataset.from_tensor_slices(_features()).repeat()
    dataset = dataset.batch(rows, drop_remainder=True)
    steps = trainer.Trainer(
      task,
      model,
      optimizer,
      strategy.distribute_datasets_from_function(lambda _: dataset),
      strategy,
      seed=3,
      micro_batch_size=micro_batch_size,
    )
    metrics = steps.train(tf.constant(2))
    del metrics[trainer.INPUT_WAIT]
    return metrics, [w.numpy() for w in model.trainable_variables]

  def test_two_replicas_and_micro_batches_equal_one(self):
    expected = self._train('cpu')
    self.assertEqual(expected[0]['examples'], 6)
    self.assertContainsSubset(
      {
        'loss',
        'accuracy',
        'gradient_norm/backbone',
        'gradient_norm/classifier',
      },
      expected[0],
    )
    for found in (self._train('mirrored'), self._train('cpu', 2)):
      self.assertAllClose(found[0], expected[0], rtol=1e-5)
      for one, other in zip(found[1], expected[1], strict=True):
        self.assertAllClose(one, other, rtol=1e-4, atol=1e-6)

  def test_clips_the_backbone_alone(self):
    before = [w.numpy() for w in _model().trainable_variables]
    free = self._train('cpu')[0]
    norms = []
    for clip_norm in (None, 1e-3):
      arguments = {'clip_norm': clip_norm, 'clip_pattern': '^vatt/'}
      weights = self._train('cpu', **arguments)[1]
      names = [w.name for w in _model().trainable_variables]
      squares = {'vatt': 0.0, 'classifier': 0.0}
      for name, old, new in zip(names, before, weights, strict=True):
        squares[name.split('/')[0]] += np.sum((old - new) ** 2)
      norms.append({k: np.sqrt(v) for k, v in squares.items()})
    self.assertGreater(free['gradient_norm/backbone'], 0.01)
    # Two steps of rate 0.1, momentum 0.9: at most 0.1 (1 + 1.9) norms.
    self.assertBetween(norms[1]['vatt'], 1e-5, 0.29e-3 * 1.001)
    self.assertGreater(norms[0]['vatt'], 1e-3)
    self.assertAllClose(
      norms[0]['classifier'], norms[1]['classifier'], rtol=0.2
    )

  def test_frozen_backbone(self):
    before = [w.numpy() for w in _model().trainable_variables]
    weights = self._train(
      'cpu', frozen=['^vatt/'], clip_norm=0.75, clip_pattern='^vatt/'
    )[1]
    self.assertLen(weights, 2)  # the classifier's kernel and bias
    self.assertNotAllClose(weights[0], before[-2])

  def test_variable_groups(self):
    task = finetune.FinetuneTask(_model)
    groups = [task.variable_group(w.name) for w in _model().trainable_variables]
    self.assertEqual(groups[-2:], ['classifier'] * 2)
    self.assertEqual(set(groups[:-2]), {'backbone'})


if __name__ == '__main__':
  tf.test.main()
