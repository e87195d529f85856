"""Layers on time and space, against TensorFlow's and MMV's numbers."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import mmv_fixtures
from vatt_tf.layers import space_time, temporal_shift


def _random(*shape):
  random = np.random.default_rng(0)
  return tf.constant(random.normal(size=shape), tf.float32)


class TemporalShiftTest(tf.test.TestCase):
  def test_fixture(self):
    expected = mmv_fixtures.arrays('temporal_shift')
    x = expected['input'].reshape([2, 4, 2, 3, 20])
    actual = temporal_shift.temporal_shift(tf.constant(x))
    self.assertAllEqual(actual, expected['output'].reshape(x.shape))
    # The layout of TPUs is time-major and rounds to bfloat16.
    x = expected['tpu_input'].reshape([4, 2, 2, 3, 20]).swapaxes(0, 1)
    actual = temporal_shift.temporal_shift(tf.constant(x))
    output = expected['tpu_output'].reshape([4, 2, 2, 3, 20]).swapaxes(0, 1)
    self.assertAllClose(actual, output, rtol=1e-2)

  def test_order_of_a_clip_that_stands_still(self):
    x = tf.repeat(_random(1, 1, 2, 2, 20), 3, 1)
    shifted = temporal_shift.temporal_shift(x)
    order = temporal_shift.unshifted_order(20)
    self.assertAllEqual(shifted[:, 1], tf.gather(x, order, axis=-1)[:, 1])


class SpaceTimeTest(parameterized.TestCase, tf.test.TestCase):
  def test_space_to_depth(self):
    expected = mmv_fixtures.arrays('space_to_depth')
    actual = space_time.space_to_depth(tf.constant(expected['input']))
    self.assertAllEqual(actual, expected['output'])

  @parameterized.parameters(
    ((1, 1, 1), (1, 1, 1)),
    ((1, 3, 3), (1, 2, 2)),
    ((3, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1)),
    ((7, 7, 7), (2, 2, 2)),
    ((2, 4, 4), (1, 1, 1)),
    ((1, 1, 1), (1, 2, 2)),
  )
  def test_convolution_equals_tensorflows(self, window, strides):
    x = _random(2, 5, 7, 6, 3)
    layer = space_time.SpaceTimeConvolution(4, window, strides)
    actual = layer(x)
    expected = tf.nn.conv3d(x, layer.kernel, [1, *strides, 1], 'SAME')
    self.assertAllClose(actual, expected, rtol=1e-4, atol=1e-4)
    self.assertEqual(actual.shape, layer.compute_output_shape(x.shape))

  @parameterized.parameters(
    ((1, 3, 3), (1, 2, 2)),
    ((3, 3, 3), (2, 2, 2)),
    ((2, 2, 2), (2, 2, 2)),
    ((3, 3, 3), (1, 1, 1)),
  )
  def test_max_pool_equals_tensorflows(self, window, strides):
    x = _random(2, 5, 7, 6, 3)
    layer = space_time.MaxPool(window, strides)
    actual = layer(x)
    expected = tf.nn.max_pool3d(x, window, strides, 'SAME')
    self.assertAllEqual(actual, expected)
    self.assertEqual(actual.shape, layer.compute_output_shape(x.shape))


if __name__ == '__main__':
  tf.test.main()
