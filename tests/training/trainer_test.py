"""Tests of the inner loop, on a model of one weight."""

import time
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import logical_devices
from vatt_tf.checkpoints import manager
from vatt_tf.core import collectives, strategies
from vatt_tf.training import schedules, trainer


def setUpModule():
  logical_devices.make()


class _Scale(tf_keras.layers.Layer):
  """Multiplies `x` by one weight; the unused weight can be switched on."""

  def __init__(self, has_unused_weight=False, **kwargs):
    super().__init__(autocast=False, **kwargs)
    self._has_unused_weight = has_unused_weight

  def build(self, input_shape):
    del input_shape
    self.weight = self.add_weight('video_scale', [], initializer='ones')
    if self._has_unused_weight:
      self.unused = self.add_weight('nobody', [], initializer='ones')
    self.built = True

  def call(self, features, training=False, rng=None):
    del training, rng
    x = tf.cast(features['x'], self.compute_dtype)
    return {'y': tf.cast(self.weight * x, tf.float32)}


class _Task:
  """Pulls `y` towards 3; the loss is infinite where `x` is."""

  def loss(self, features, outputs):
    del features
    loss = tf.reduce_mean(tf.square(outputs['y'] - 3.0))
    loss /= collectives.num_replicas()
    return loss, {'distance': tf.sqrt(loss)}

  def variable_group(self, name):
    return 'video' if 'video' in name else 'shared'


class _SlowTask(_Task):
  """Takes 0.4 s."""

  def loss(self, features, outputs):
    outputs = {name: _after(y, 0.4) for name, y in outputs.items()}
    return super().loss(features, outputs)


def _after(x, seconds):
  """`x`, some time later."""
  pause = tf.py_function(lambda: time.sleep(seconds), [], [])
  with tf.control_dependencies([pause]):
    return tf.identity(x)


def _trainer(
  values,
  clip_norm=None,
  has_unused_weight=False,
  is_half=False,
  strategy=None,
  prepare=lambda dataset: dataset,
  task=None,
  **kwargs,
):
  strategy = strategy or tf.distribute.OneDeviceStrategy('/cpu:0')
  dataset = tf.data.Dataset.from_tensor_slices(
    {'x': np.array(values, np.float32)}
  ).batch(strategy.num_replicas_in_sync, drop_remainder=True)
  with strategy.scope():
    model = _Scale(
      has_unused_weight, dtype='mixed_float16' if is_half else None
    )
    model.build(None)
    optimizer = schedules.make_optimizer(0.1, clip_norm=clip_norm)
    if is_half:
      optimizer = tf_keras.mixed_precision.LossScaleOptimizer(optimizer)
  return trainer.Trainer(
    task or _Task(),
    model,
    optimizer,
    strategy.experimental_distribute_dataset(prepare(dataset)),
    strategy,
    seed=0,
    **kwargs,
  )


class TrainerTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_metrics_are_means_over_the_steps(self, jit_compile):
    metrics = _trainer([1.0, 1.0], jit_compile=jit_compile).train(
      tf.constant(2)
    )
    # The weight is 1, then 1.1 after Adam's first step.
    self.assertAllClose(metrics['loss'], (4 + 1.9**2) / 2, rtol=1e-4)
    self.assertAllClose(metrics['distance'], 1.95, rtol=1e-4)
    self.assertAllClose(metrics['gradient_norm'], (4 + 3.8) / 2, rtol=1e-4)
    self.assertAllClose(
      metrics['gradient_norm/video'], metrics['gradient_norm']
    )

  @mock.patch.object(strategies, 'num_cores', return_value=2)
  def test_seconds_that_steps_wait_for_data(self, _):
    def slow(features):
      return {'x': tf.ensure_shape(_after(features['x'], 0.2), [1])}

    steps = _trainer([1.0, 1.0, 1.0], prepare=lambda d: d.map(slow))
    waited = steps.train(tf.constant(3))[trainer.INPUT_WAIT]
    self.assertGreater(waited, 0.5)
    self.assertLess(
      _trainer([1.0, 1.0, 1.0]).train(tf.constant(3))[trainer.INPUT_WAIT],
      waited,
    )
    # All but the first come while the step before is under way.
    steps = _trainer(
      [1.0, 1.0, 1.0, 1.0],
      prepare=lambda d: d.map(slow).prefetch(1),
      task=_SlowTask(),
    )
    waited = steps.train(tf.constant(4))[trainer.INPUT_WAIT]
    self.assertBetween(waited, 0.1, 0.6)

  def test_one_core_does_not_measure_the_wait(self):
    with mock.patch.object(strategies, 'num_cores', return_value=1):
      steps = _trainer([1.0])
    self.assertEqual(steps.train(tf.constant(1))[trainer.INPUT_WAIT], 0)

  def test_not_finite_names_metric_and_step(self):
    with self.assertRaisesRegex(
      trainer.NonFiniteError, '`loss` is inf at step 3'
    ):
      _trainer([1.0, 1.0, np.inf, 1.0]).train(tf.constant(4))

  def test_clipping_reports_the_norm_before_it(self):
    one = _trainer([1.0, 1.0], clip_norm=0.5)
    metrics = one.train(tf.constant(1))
    self.assertAllClose(metrics['gradient_norm'], 4.0, rtol=1e-4)
    # Adam's first moment after one step is (1 - beta_1) times the clipped one.
    slot = one._optimizer.get_slot(one._model.trainable_variables[0], 'm')
    self.assertAllClose(slot, -0.1 * 0.5, rtol=1e-4)

  @parameterized.parameters(
    ('cpu', 2, None), ('mirrored', 1, None), ('cpu', 2, 0.5)
  )
  def test_float16_skips_steps_until_the_gradients_fit(
    self, strategy, num_skipped, clip_norm
  ):
    strategy = strategies.make_strategy(strategy)
    one = _trainer(
      [1.0] * 4 * strategy.num_replicas_in_sync,
      clip_norm,
      is_half=True,
      strategy=strategy,
    )
    metrics = one.train(tf.constant(num_skipped + 1))
    # The gradient is -4 (on each of two replicas -2): times 2^15 and 2^14 it is
    # more than float16 holds.
    self.assertEqual(metrics['skipped_steps'], num_skipped)
    scales = 2.0 ** (15 - np.arange(num_skipped + 1))
    self.assertAllClose(metrics['loss_scale'], scales.mean())
    self.assertAllClose(metrics['gradient_norm'], 4)
    self.assertAllClose(metrics['loss'], 4)
    self.assertEqual(one._optimizer.iterations.numpy(), num_skipped + 1)
    slot = one._optimizer.get_slot(one._model.trainable_variables[0], 'm')
    self.assertAllClose(slot, -0.1 * (clip_norm or 4))
    weight = one._model.weight.numpy()
    self.assertGreater(weight, 1.05)
    metrics = one.train(tf.constant(1))
    self.assertEqual(metrics['skipped_steps'], 0)
    self.assertEqual(metrics['loss_scale'], scales[-1])
    self.assertAllClose(metrics['gradient_norm'], 2 * (3 - weight), rtol=1e-3)

  def test_float16_stops_after_many_skipped_steps(self):
    # The gradient 2 * 297 * 300 is more than float16 holds at any scale.
    one = _trainer([300.0] * 60, is_half=True)
    metrics = one.train(tf.constant(49))
    self.assertEqual(metrics['skipped_steps'], 49)
    self.assertTrue(np.isnan(metrics['gradient_norm']))
    self.assertAllClose(metrics['loss'], 297**2)
    with self.assertRaisesRegex(
      trainer.NonFiniteError,
      'not finite in 50 consecutive steps .* step 50, .* scale 1;',
    ):
      one.train(tf.constant(1))
    self.assertEqual(one._model.weight.numpy(), 1)

  def test_float16_loss_not_finite_stops(self):
    with self.assertRaisesRegex(
      trainer.NonFiniteError, '`loss` is inf at step 4'
    ):
      _trainer([1.0, 1.0, 1.0, np.inf], is_half=True).train(tf.constant(4))

  def test_loss_scale_is_in_the_checkpoint(self):
    checkpoints = []
    for _ in range(2):
      one = _trainer([1.0] * 4, is_half=True)
      checkpoints.append(
        tf.train.Checkpoint(model=one._model, optimizer=one._optimizer)
      )
      one._optimizer._create_all_weights(one._model.trainable_variables)
    first, second = checkpoints
    first.optimizer.apply_gradients([(np.inf, first.model.weight)])
    path = first.save(self.create_tempdir().full_path + '/ckpt')
    manager.restore(second, path)
    self.assertEqual(second.optimizer.loss_scale.numpy(), 2**14)
    self.assertEqual(second.optimizer.iterations.numpy(), 1)

  def test_weight_without_gradient_is_named(self):
    with self.assertRaisesRegex(ValueError, 'nobody'):
      _trainer([1.0], has_unused_weight=True).train(tf.constant(1))

  def test_one_replica_for_compilation(self):
    class TwoReplicas:
      num_replicas_in_sync = 2

    with self.assertRaisesRegex(ValueError, 'needs one replica'):
      trainer.Trainer(
        _Task(), _Scale(), None, [], TwoReplicas(), seed=0, jit_compile=True
      )


if __name__ == '__main__':
  tf.test.main()
