"""Tests of the inner loop, on a model of one weight."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.training import schedules, trainer


class _Scale(tf_keras.layers.Layer):
  """Multiplies `x` by one weight; the unused weight can be switched on."""

  def __init__(self, has_unused_weight=False):
    super().__init__()
    self._has_unused_weight = has_unused_weight

  def build(self, input_shape):
    del input_shape
    self.weight = self.add_weight('video_scale', [], initializer='ones')
    if self._has_unused_weight:
      self.unused = self.add_weight('nobody', [], initializer='ones')
    self.built = True

  def call(self, features, training=False, rng=None):
    del training, rng
    return {'y': self.weight * features['x']}


class _Task:
  """Pulls `y` towards 3; the loss is infinite where `x` is."""

  def loss(self, features, outputs):
    del features
    loss = tf.reduce_mean(tf.square(outputs['y'] - 3.0))
    return loss, {'distance': tf.sqrt(loss)}

  def variable_group(self, name):
    return 'video' if 'video' in name else 'shared'


def _trainer(values, clip_norm=None, has_unused_weight=False, **kwargs):
  strategy = tf.distribute.OneDeviceStrategy('/cpu:0')
  dataset = tf.data.Dataset.from_tensor_slices(
    {'x': np.array(values, np.float32)}
  ).batch(1, drop_remainder=True)
  with strategy.scope():
    model = _Scale(has_unused_weight)
    model.build(None)
    optimizer = schedules.make_optimizer(0.1, clip_norm=clip_norm)
  return trainer.Trainer(
    _Task(),
    model,
    optimizer,
    strategy.experimental_distribute_dataset(dataset),
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
