"""Tests of the batch norm over all replicas."""

import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import logical_devices, mmv_fixtures
from vatt_tf.core import collectives, strategies
from vatt_tf.layers import cross_replica_batch_norm

_Layer = cross_replica_batch_norm.CrossReplicaBatchNormalization


def setUpModule():
  logical_devices.make()


def _rows(mean, deviation, shape, seed=0):
  random = np.random.RandomState(seed)
  return (mean + deviation * random.randn(*shape)).astype(np.float32)


def _loop(x, upstream, mask, gamma, beta, epsilon=1e-5):
  """Output, statistics and gradients in float64, from the definition."""
  x, upstream = np.float64(x), np.float64(upstream)
  count = np.sum(mask)
  mean = sum(x[i] for i in range(len(x)) if mask[i]) / count
  variance = sum((x[i] - mean) ** 2 for i in range(len(x)) if mask[i]) / count
  deviation = np.sqrt(variance + epsilon)
  normal = (x - mean) / deviation
  # d loss / d x = d / deviation for each row's own part, and for rows that
  # count the parts through the mean and the variance.
  d = upstream * gamma
  d_mean = -np.sum(d, axis=0) / deviation
  d_variance = -0.5 * np.sum(d * normal, axis=0) / deviation**2
  through = d_mean / count + d_variance * 2 * (x - mean) / count
  d_x = d / deviation + np.where(mask[:, np.newaxis], through, 0)
  return {
    'output': normal * gamma + beta,
    'mean': mean,
    'variance': variance,
    'x': d_x,
    'gamma': np.sum(upstream * normal, axis=0),
    'beta': np.sum(upstream, axis=0),
  }


def _set_weights(layer):
  size = layer.gamma.shape[0]
  layer.gamma.assign(np.linspace(0.5, 2, size))
  layer.beta.assign(np.linspace(-1, 1, size))


def _run(strategy, x, upstream, mask, steps=1):
  """One training step of the layer, on rows divided among the replicas."""
  with strategy.scope():
    layer = _Layer()
    layer.build([None, x.shape[-1]])
    _set_weights(layer)
  num_replicas = strategy.num_replicas_in_sync

  def share(array):
    parts = np.split(array, num_replicas)
    return strategy.experimental_distribute_values_from_function(
      lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )

  @tf.function(autograph=False)
  def step(x, upstream, mask):
    with tf.GradientTape() as tape:
      tape.watch(x)
      output = layer(x, training=True, mask=mask)
      loss = tf.reduce_sum(output * upstream)
    d_x, *d_weights = tape.gradient(loss, [x, layer.gamma, layer.beta])
    return output, d_x, *collectives.all_reduce_sum(d_weights)

  arguments = (share(x), share(upstream), share(mask))
  for _ in range(steps):
    results = strategy.run(step, args=arguments)
  results = [strategy.experimental_local_results(each) for each in results]
  return {
    'output': np.concatenate([each.numpy() for each in results[0]]),
    'x': np.concatenate([each.numpy() for each in results[1]]),
    'gamma': results[2][0].numpy(),
    'beta': results[3][-1].numpy(),
    'moving': [
      [each.numpy() for each in strategy.experimental_local_results(variable)]
      for variable in (layer.moving_mean, layer.moving_variance)
    ],
  }


class CrossReplicaBatchNormalizationTest(
  tf.test.TestCase, parameterized.TestCase
):
  def _assert_near(self, found, expected, tolerance=1e-6):
    """Near relative to the tensor's size."""
    found, expected = np.asarray(found), np.asarray(expected)
    self.assertEqual(found.shape, expected.shape)
    error = np.max(np.abs(found - expected))
    self.assertLessEqual(error, tolerance * np.max(np.abs(expected)))

  @parameterized.product(
    num_devices=(1, 2),
    mean_and_deviation=((0, 1), (50, 3), (1000, 2)),
    use_mask=(False, True),
  )
  def test_equals_a_loop(self, num_devices, mean_and_deviation, use_mask):
    mean, deviation = mean_and_deviation
    x = _rows(mean, deviation, [12, 5])
    upstream = _rows(0, 1, [12, 5], seed=1)
    mask = np.ones(12, bool)
    if use_mask:  # 5 valid rows in the first half, 2 in the second
      mask[[0, 6, 7, 9, 11]] = False
    strategy = strategies.make_strategy('mirrored', num_devices)
    found = _run(strategy, x, upstream, mask)
    expected = _loop(
      x, upstream, mask, np.linspace(0.5, 2, 5), np.linspace(-1, 1, 5)
    )
    for name in ('output', 'x', 'gamma', 'beta'):
      self._assert_near(found[name], expected[name])
    moving_mean, moving_variance = found['moving']
    for copies in (moving_mean, moving_variance):
      self.assertLen(copies, num_devices)
      self.assertAllEqual(copies[0], copies[-1])
    self._assert_near(moving_mean[0], 0.1 * expected['mean'])
    self._assert_near(moving_variance[0], 0.9 + 0.1 * expected['variance'])

  @parameterized.parameters(1, 2)
  def test_all_masked_changes_nothing(self, num_devices):
    x = _rows(5, 2, [8, 3])
    x[2] = np.inf
    strategy = strategies.make_strategy('mirrored', num_devices)
    found = _run(strategy, x, np.ones_like(x), np.zeros(8, bool))
    for mean, variance in zip(*found['moving']):
      self.assertAllEqual(mean, np.zeros(3))
      self.assertAllEqual(variance, np.ones(3))
    finite = np.arange(8) != 2
    # The moving statistics normalise.
    self._assert_near(
      found['output'][finite],
      x[finite] * np.linspace(0.5, 2, 3) / np.sqrt(1 + 1e-5)
      + np.linspace(-1, 1, 3),
    )
    self.assertTrue(np.isfinite(found['x']).all())

  @parameterized.parameters(1, 2)
  def test_masked_rows_may_hold_anything(self, num_devices):
    x = _rows(5, 2, [8, 3])
    mask = np.array([True, False, True, True, False, False, True, True])
    upstream = mask[:, np.newaxis] * _rows(0, 1, [8, 3], seed=1)
    strategy = strategies.make_strategy('mirrored', num_devices)
    expected = _run(strategy, x, upstream, mask)
    x[~mask] = 1e3
    found = _run(strategy, x, upstream, mask)
    self.assertAllEqual(found['x'][mask], expected['x'][mask])
    x[~mask] = np.nan
    found = _run(strategy, x, upstream, mask)
    self.assertAllEqual(found['output'][mask], expected['output'][mask])
    self.assertAllEqual(found['moving'], expected['moving'])

  def test_copies_stay_equal_over_steps(self):
    strategy = strategies.make_strategy('mirrored', 2)
    arguments = (_rows(50, 3, [8, 3]), _rows(0, 1, [8, 3]), np.arange(8) < 5)
    found = _run(strategy, *arguments, steps=20)
    for copies in found['moving']:
      self.assertAllEqual(copies[0], copies[1])
    mean = np.mean(arguments[0][:5], axis=0)
    self._assert_near(found['moving'][0][0], mean * (1 - 0.9**20))

  @parameterized.parameters(([4],), ([4, 3],))
  def test_mask_over_leading_axes(self, mask_shape):
    x = _rows(3, 2, [4, 3, 5])
    mask = np.random.RandomState(2).rand(*mask_shape) < 0.6
    layer = _Layer()
    output = layer(x, training=True, mask=mask)
    full = np.broadcast_to(mask.reshape([4, -1]), [4, 3])
    valid = output.numpy()[full]
    self.assertAllClose(np.mean(valid, axis=0), np.zeros(5), atol=1e-6)
    self.assertAllClose(np.var(valid, axis=0), np.ones(5), atol=1e-4)
    self.assertAllClose(
      layer.moving_mean, 0.1 * np.mean(x[full], axis=0), rtol=1e-5
    )

  def test_inference_uses_the_moving_statistics(self):
    layer = _Layer()
    x = _rows(3, 2, [6, 4])
    layer(x, training=True)
    moving_mean, moving_variance = (
      layer.moving_mean.numpy(),
      layer.moving_variance.numpy(),
    )
    self.assertAllClose(
      layer(x), (x - moving_mean) / np.sqrt(moving_variance + 1e-5)
    )
    self.assertAllEqual(layer.moving_mean, moving_mean)

  def test_frozen_layer_keeps_its_statistics(self):
    layer = _Layer(trainable=False)
    x = _rows(3, 2, [6, 4])
    self.assertAllClose(layer(x, training=True), x / np.sqrt(1 + 1e-5))
    self.assertAllEqual(layer.moving_mean, np.zeros(4))

  def test_weights_are_named(self):
    layer = _Layer(name='norm')
    layer.build([None, 4])
    self.assertEqual(
      [variable.name for variable in layer.weights],
      ['gamma:0', 'beta:0', 'moving_mean:0', 'moving_variance:0'],
    )
    self.assertLen(layer.trainable_weights, 2)

  def test_mixed_precision_computes_in_float32(self):
    layer = _Layer(dtype='mixed_bfloat16')
    x = tf.cast(_rows(50, 3, [64, 4]), tf.bfloat16)
    output = layer(x, training=True)
    self.assertEqual(output.dtype, tf.bfloat16)
    for variable in layer.weights:
      self.assertEqual(variable.dtype, tf.float32)
    exact = _Layer()
    expected = exact(tf.cast(x, tf.float32), training=True)
    self.assertAllEqual(output, tf.cast(expected, tf.bfloat16))
    self.assertAllEqual(layer.moving_variance, exact.moving_variance)

  def test_config_round_trip(self):
    layer = _Layer(momentum=0.7, epsilon=1e-3, name='norm')
    copy = _Layer.from_config(layer.get_config())
    self.assertEqual(copy.get_config(), layer.get_config())
    self.assertEqual((copy.momentum, copy.epsilon), (0.7, 1e-3))

  @parameterized.parameters(False, True)
  def test_trains_compiled(self, jit_compile):
    x, mask = _rows(3, 2, [6, 4]), np.arange(6) < 4
    layer, eager = _Layer(), _Layer()

    @tf.function(autograph=False, jit_compile=jit_compile)
    def step(x, mask):
      with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True, mask=mask) ** 3)
      return loss, tape.gradient(loss, x)

    layer.build([None, 4])
    loss, _ = step(tf.constant(x), tf.constant(mask))
    expected = tf.reduce_sum(eager(x, training=True, mask=mask) ** 3)
    self.assertAllClose(loss, expected)
    self.assertAllClose(layer.moving_mean, eager.moving_mean)

  def test_symbolic_use_and_saved_model(self):
    inputs = tf_keras.Input([4])
    model = tf_keras.Model(inputs, _Layer(name='norm')(inputs))
    model.compile('sgd', 'mse')
    x = _rows(3, 2, [32, 4])
    model.fit(x, x, epochs=2, verbose=0)
    self.assertNotAllClose(model.layers[-1].moving_mean, np.zeros(4))
    path = os.path.join(self.get_temp_dir(), 'model')
    tf.saved_model.save(model, path)
    loaded = tf.saved_model.load(path)
    self.assertAllClose(loaded(x, training=False), model(x))

  def test_saves_and_restores_under_a_strategy(self):
    path = os.path.join(self.get_temp_dir(), 'ckpt')
    x = _rows(3, 2, [6, 4])
    layer = _Layer()
    layer(x, training=True)
    tf.train.Checkpoint(layer=layer).write(path)
    strategy = strategies.make_strategy('mirrored', 2)
    with strategy.scope():
      copy = _Layer()
      copy.build([None, 4])
      checkpoint = tf.train.Checkpoint(layer=copy)
      checkpoint.read(path).assert_consumed()
    for value in strategy.experimental_local_results(copy.moving_mean):
      self.assertAllEqual(value, layer.moving_mean)
    # In the cross-replica context the batch is the caller's own.
    with strategy.scope():
      self.assertAllClose(copy(x), layer(x))

  @parameterized.named_parameters(
    ('momentum', {'momentum': 1.5}, '`momentum` must be in'),
    ('epsilon', {'epsilon': 0.0}, '`epsilon` must be positive'),
  )
  def test_bad_arguments(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      _Layer(**arguments)

  @parameterized.named_parameters(
    ('rank', [4], None, 'rank 2 or more'),
    ('mask rows', [4, 3], [5], 'mask.shape='),
    ('mask rank', [4, 3], [4, 3], 'mask.shape='),
  )
  def test_bad_shapes(self, shape, mask_shape, message):
    mask = None if mask_shape is None else tf.ones(mask_shape, tf.bool)
    with self.assertRaisesRegex(ValueError, message):
      _Layer()(tf.ones(shape), training=True, mask=mask)


class ZeroDebiasTest(tf.test.TestCase):
  """Moving statistics as in Haiku, against MMV's published code."""

  def test_steps_over_two_replicas(self):
    expected = mmv_fixtures.arrays('batch_norm')
    strategy = strategies.make_strategy('mirrored', num_devices=2)
    with strategy.scope():
      layer = _Layer(use_zero_debias=True)
      layer.build([None, 5])
      layer.gamma.assign(expected['scale'][0])
      layer.beta.assign(expected['offset'][0])
    step = tf.function(lambda x: layer(x, training=True))
    for i, x in enumerate(expected['inputs']):
      parts = np.split(x, 2)
      values = strategy.experimental_distribute_values_from_function(
        lambda context, parts=parts: tf.constant(
          parts[context.replica_id_in_sync_group]
        )
      )
      outputs = strategy.experimental_local_results(
        strategy.run(step, args=(values,))
      )
      mmv_fixtures.assert_near(
        self, np.concatenate(outputs), expected[f'step_{i}/output'], 5e-6
      )
      weight = 1 - 0.9 ** (i + 1)
      for variable, name in (
        (layer.moving_mean, f'step_{i}/mean_ema'),
        (layer.moving_variance, f'step_{i}/var_ema'),
      ):
        value = variable.numpy()
        for leaf, factor in (('average', 1), ('hidden', weight)):
          mmv_fixtures.assert_near(
            self, value * factor, expected[f'{name}/{leaf}'][0], 5e-6, name
          )
        self.assertEqual(layer.num_updates.numpy(), expected[f'{name}/counter'])
    actual = layer(tf.constant(expected['inputs'][0]))
    mmv_fixtures.assert_near(self, actual, expected['eval/output'], 5e-6)

  def test_a_batch_without_rows_is_not_counted(self):
    layer = _Layer(use_zero_debias=True)
    x, nothing = tf.ones([4, 2]), tf.zeros([4], tf.bool)
    layer(x, training=True, mask=nothing)
    self.assertEqual(layer.num_updates.numpy(), 0)
    self.assertAllEqual(layer.moving_mean, [0, 0])
    layer(x, training=True)
    self.assertAllClose(layer.moving_mean, [1, 1])


if __name__ == '__main__':
  tf.test.main()
