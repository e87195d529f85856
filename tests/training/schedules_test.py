"""Tests of the learning-rate schedules and the optimizer."""

import math

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.training import schedules


class WarmupCosineTest(tf.test.TestCase, parameterized.TestCase):
  def test_quarter_cosine_is_the_papers_formula(self):
    schedule = schedules.WarmupCosine(
      total_steps=500_000, warmup_steps=10_000, shape='quarter_cosine'
    )
    for step in (10_000, 123_456, 499_999, 500_000, 600_000):
      p = min((step - 10_000) / 490_000, 1)
      expected = 5e-5 + 5e-5 * math.cos(math.pi / 2 * p)
      self.assertAllClose(schedule(step), expected, rtol=1e-5)

  def test_half_cosine_is_the_released_formula(self):
    schedule = schedules.WarmupCosine(
      total_steps=500_000, warmup_steps=5_000, shape='half_cosine'
    )
    for step in (5_000, 250_000, 500_000):
      p = (step - 5_000) / 495_000
      expected = 5e-5 + 2.5e-5 * (1 + math.cos(math.pi * p))
      self.assertAllClose(schedule(step), expected, rtol=1e-5)

  def test_warmup_is_linear_and_reaches_the_peak(self):
    schedule = schedules.WarmupCosine(total_steps=100, warmup_steps=10)
    rates = np.array([float(schedule(step)) for step in range(11)])
    self.assertAllClose(rates[:10], 1e-4 * np.arange(1, 11) / 10, rtol=1e-5)
    self.assertAllClose(rates[10], 1e-4, rtol=1e-5)

  def test_no_warmup_starts_at_the_peak(self):
    schedule = schedules.WarmupCosine(total_steps=100, warmup_steps=0)
    self.assertAllClose(schedule(0), 1e-4, rtol=1e-5)

  def test_constant_stays(self):
    schedule = schedules.WarmupCosine(
      total_steps=100, warmup_steps=0, shape='constant'
    )
    self.assertAllClose(schedule(99), 1e-4, rtol=1e-5)

  def test_config_round_trip(self):
    schedule = schedules.WarmupCosine(total_steps=7, warmup_steps=3)
    again = schedules.WarmupCosine.from_config(schedule.get_config())
    self.assertAllEqual(schedule(5), again(5))

  @parameterized.parameters(
    ({'shape': 'cosine'}, 'quarter_cosine, half_cosine, constant'),
    ({'warmup_steps': 10, 'total_steps': 10}, 'WARMUP_STEPS'),
  )
  def test_bad_arguments(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      schedules.WarmupCosine(**arguments)


class OptimizerTest(tf.test.TestCase):
  def test_one_update_is_adams(self):
    optimizer = schedules.make_optimizer(0.1, clip_norm=2.0)
    self.assertEqual(optimizer.global_clip_norm, 2.0)
    variable = tf.Variable([1.0, -2.0])
    gradient = np.array([0.3, -0.01])
    optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    # The first step of Adam is the learning rate in the gradient's direction.
    self.assertAllClose(variable, [0.9, -1.9], atol=1e-4)


if __name__ == '__main__':
  tf.test.main()
