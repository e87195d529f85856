"""Tests of the strategies and of two replicas against one device."""

import json
import os
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import logical_devices, replicas
from vatt_tf.core import collectives, strategies
from vatt_tf.losses import contrastive


def setUpModule():
  logical_devices.make()


def _two():
  return strategies.make_strategy('mirrored', 2)


def _share(strategy, array):
  """The rows of an array, divided among the replicas."""
  parts = np.split(np.asarray(array), strategy.num_replicas_in_sync)
  return strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant(parts[context.replica_id_in_sync_group])
  )


def _run(strategy, function, *arrays):
  """Runs a function of row shares in every replica; lists of local results."""
  arguments = [_share(strategy, array) for array in arrays]

  @tf.function(autograph=False)
  def step(*arguments):
    return strategy.run(function, args=arguments)

  return tf.nest.map_structure(
    lambda x: [y.numpy() for y in strategy.experimental_local_results(x)],
    step(*arguments),
  )


class MakeStrategyTest(tf.test.TestCase, parameterized.TestCase):
  def test_one_device(self):
    for name in ('cpu', 'one_device'):
      strategy = strategies.make_strategy(name)
      self.assertEqual(strategy.num_replicas_in_sync, 1)
    device = strategies.make_strategy('cpu').extended.worker_devices[0]
    self.assertIn('CPU:0', device.upper())

  def test_mirrored_over_logical_devices(self):
    self.assertEqual(_two().num_replicas_in_sync, 2)
    strategy = strategies.make_strategy('mirrored', 1)
    self.assertEqual(strategy.num_replicas_in_sync, 1)
    strategy = strategies.make_strategy('mirrored')
    self.assertEqual(strategy.num_replicas_in_sync, 2)

  def test_mirrored_strategy_of_the_same_devices_is_the_same(self):
    self.assertIs(_two(), strategies.make_strategy('mirrored'))

  def test_unknown_name_lists_the_valid_ones(self):
    with self.assertRaisesRegex(
      ValueError, "cpu, one_device, mirrored, multi_worker_mirrored, tpu.*'gpu'"
    ):
      strategies.make_strategy('gpu')

  @parameterized.named_parameters(
    ('devices of cpu', {'name': 'cpu', 'num_devices': 2}, 'num_devices=2'),
    ('no devices', {'name': 'mirrored', 'num_devices': 0}, 'num_devices=0'),
    ('tpu name', {'name': 'mirrored', 'tpu_name': 'x'}, "tpu_name='x'"),
  )
  def test_bad_arguments(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      strategies.make_strategy(**arguments)

  def test_more_devices_than_there_can_be(self):
    tf.constant(0.0) + 1.0  # TensorFlow has started
    with self.assertRaisesRegex(RuntimeError, 'TensorFlow has started'):
      strategies.make_strategy('mirrored', 3)

  @parameterized.named_parameters(
    ('unset', '', 'It is not set'),
    ('no json', '{', 'Received: TF_CONFIG'),
    ('no task', '{"cluster": {"worker": ["a:1"]}}', 'Received: TF_CONFIG'),
    (
      'no such worker',
      json.dumps(
        {
          'cluster': {'worker': ['a:1']},
          'task': {'type': 'worker', 'index': 1},
        }
      ),
      'Received: TF_CONFIG',
    ),
    ('not a cluster', '{"cluster": 3, "task": 4}', 'Received: TF_CONFIG'),
  )
  def test_workers_want_tf_config(self, text, message):
    with mock.patch.dict(os.environ, TF_CONFIG=text):
      with self.assertRaisesRegex(ValueError, f'host1:2222.*{message}'):
        strategies.make_strategy('multi_worker_mirrored')

  def test_workers_come_before_anything_else(self):
    tf.constant(0.0) + 1.0
    config = {
      'cluster': {'worker': ['localhost:1', 'localhost:2']},
      'task': {'type': 'worker', 'index': 0},
    }
    with mock.patch.dict(os.environ, TF_CONFIG=json.dumps(config)):
      with self.assertRaisesRegex(RuntimeError, 'make it first'):
        strategies.make_strategy('multi_worker_mirrored')

  def test_no_tpu(self):
    if tf.config.list_physical_devices('TPU'):
      self.skipTest('There is a TPU.')
    with self.assertRaisesRegex(RuntimeError, 'No TPU was found'):
      strategies.make_strategy('tpu')

  def test_batch_must_divide(self):
    self.assertEqual(strategies.check_batch_divisible(6, _two()), 3)
    with self.assertRaisesRegex(ValueError, 'use 6 or 8.*global_batch_size=7'):
      strategies.check_batch_divisible(7, _two())
    with self.assertRaisesRegex(ValueError, 'use 2,.*global_batch_size=1'):
      strategies.check_batch_divisible(1, _two())


class ReplicasTest(tf.test.TestCase, parameterized.TestCase):
  def test_first_row(self):
    rows = _run(_two(), lambda: collectives.first_row(5))
    self.assertEqual(rows, [0, 5])

  def test_concat_gives_all_rows_in_order(self):
    floats = np.arange(12, dtype=np.float32).reshape([4, 3])
    bools = np.array([True, False, False, True])

    def replica(floats, bools):
      found = collectives.cross_replica_concat({'f': floats, 'b': bools})
      self.assertEqual(found['f'].shape, [4, 3])
      self.assertEqual(found['b'].dtype, tf.bool)
      return found

    found = _run(_two(), replica, floats, bools)
    for each in (0, 1):
      self.assertAllEqual(found['f'][each], floats)
      self.assertAllEqual(found['b'][each], bools)

  def test_concat_and_sum_have_exact_gradients(self):
    random = np.random.RandomState(0)
    x, y = random.randn(6, 3), random.randn(6, 3)

    def replica(x, y):
      with tf.GradientTape() as tape:
        tape.watch(x)
        everyone = collectives.cross_replica_concat(x)
        total = collectives.all_reduce_sum(tf.reduce_sum(x**2, 0))
        # This replica's part of a loss in which every row meets every other.
        loss = tf.reduce_sum(tf.sin(y @ tf.transpose(everyone)) * total[0])
      return collectives.all_reduce_sum(loss), tape.gradient(loss, x)

    one = _run(strategies.make_strategy('cpu'), replica, x, y)
    two = _run(_two(), replica, x, y)
    self.assertAllClose(two[0], [one[0][0]] * 2)
    self.assertAllClose(np.concatenate(two[1]), one[1][0])

  def test_without_replicas_nothing_is_exchanged(self):
    x = tf.ones([2, 3])
    self.assertIs(collectives.cross_replica_concat(x), x)
    self.assertIs(collectives.all_reduce_sum(x), x)
    self.assertEqual(collectives.first_row(4), 0)
    with _two().scope():  # the cross-replica context
      self.assertIs(collectives.cross_replica_concat(x), x)
      self.assertIs(collectives.all_reduce_sum(x), x)
      self.assertEqual(collectives.first_row(4), 0)
      self.assertEqual(collectives.num_replicas(), 1)

  @parameterized.product(
    denominator=('joint', 'joint_once', 'per_direction'),
    chunk_size=(None, 2),
  )
  def test_loss_of_two_replicas_equals_one(self, denominator, chunk_size):
    random = np.random.RandomState(0)
    video = random.randn(8, 5).astype(np.float32)
    text = random.randn(8, 3, 5).astype(np.float32)
    video_mask, text_mask = random.rand(8) < 0.8, random.rand(8, 3) < 0.5
    text_mask[4:] &= random.rand(4, 3) < 0.5

    def replica(*inputs):
      with tf.GradientTape() as tape:
        tape.watch(inputs[:2])
        result = contrastive.contrastive_loss(
          *inputs, denominator=denominator, chunk_size=chunk_size
        )
      gradients = tape.gradient(result.loss, inputs[:2])
      return tuple(collectives.all_reduce_sum(result)), gradients

    inputs = (video, text, video_mask, text_mask)
    results, gradients = _run(_two(), replica, *inputs)
    expected, expected_gradients = _run(
      strategies.make_strategy('cpu'), replica, *inputs
    )
    for found, value in zip(results, expected):
      self.assertAllClose(found, value * 2, rtol=1e-6)
    for found, value in zip(gradients, expected_gradients):
      error = np.max(np.abs(np.concatenate(found) - value[0]))
      self.assertLessEqual(error, 1e-6 * np.max(np.abs(value)))

  @parameterized.parameters(
    ('agnostic', 'joint', None),
    ('specific', 'joint_once', 3),
  )
  def test_training_step_of_two_replicas_equals_one(
    self, kind, denominator, chunk_size
  ):
    one = replicas.run(
      strategies.make_strategy('cpu'), kind, denominator, chunk_size
    )
    two = replicas.run(_two(), kind, denominator, chunk_size)
    self.assertEqual(replicas.differences(two, one), [])


if __name__ == '__main__':
  tf.test.main()
