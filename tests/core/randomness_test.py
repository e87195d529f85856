"""Tests of the counter-based random numbers."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.core import randomness


class RandomnessTest(tf.test.TestCase, parameterized.TestCase):
  def test_a_row_draws_the_same_numbers_wherever_it_is(self):
    rng = randomness.fold_in(randomness.make(3, 7), 'layer')
    whole = randomness.uniform(rng, [5], 8)
    half = randomness.uniform(
      randomness.fold_in(randomness.make(3, 7, 4), 'layer'), [5], 4
    )
    self.assertAllEqual(whole[4:], half)

  def test_dropout_of_a_row_does_not_depend_on_its_place(self):
    x = tf.ones([8, 33, 7])
    whole = randomness.dropout(x, 0.3, randomness.make(3, 7))
    half = randomness.dropout(x[4:], 0.3, randomness.make(3, 7, 4))
    self.assertAllEqual(whole[4:], half)

  def test_rows_of_captions_follow_their_clip(self):
    x = tf.ones([6, 10])  # 2 clips of 3 captions
    whole = randomness.dropout(
      x, 0.5, randomness.rows(randomness.make(1, 1), 3)
    )
    second = randomness.dropout(
      x[3:], 0.5, randomness.rows(randomness.make(1, 1, 1), 3)
    )
    self.assertAllEqual(whole[3:], second)

  def test_seed_step_and_layer_change_the_numbers(self):
    def draw(seed, step, name):
      rng = randomness.fold_in(randomness.make(seed, step), name)
      return randomness.uniform(rng, [64], 2).numpy()

    base = draw(0, 0, 'a')
    self.assertAllEqual(base, draw(0, 0, 'a'))
    for other in (draw(1, 0, 'a'), draw(0, 1, 'a'), draw(0, 0, 'b')):
      self.assertGreater(np.mean(base != other), 0.99)

  def test_uniform_is_uniform(self):
    values = randomness.uniform(randomness.make(0, 0), [1000], 100).numpy()
    self.assertGreaterEqual(values.min(), 0)
    self.assertLess(values.max(), 1)
    counts, _ = np.histogram(values, 10, (0, 1))
    self.assertAllClose(counts / 1e5, np.full(10, 0.1), atol=5e-3)

  @parameterized.parameters(0.1, 0.5, 0.9)
  def test_dropout_keeps_the_mean_and_the_share(self, rate):
    x = tf.ones([256, 1001])
    y = randomness.dropout(x, rate, randomness.make(0, 1)).numpy()
    self.assertAllClose(np.mean(y), 1.0, atol=0.02)
    self.assertAllClose(np.mean(y == 0), round(rate * 256) / 256, atol=0.01)
    self.assertLen(np.unique(y), 2)

  @parameterized.parameters(tf.float32, tf.bfloat16)
  def test_gradient_uses_the_same_mask(self, dtype):
    x = tf.ones([4, 50], dtype)
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = randomness.dropout(x, 0.4, randomness.make(0, 1))
    self.assertEqual(y.dtype, dtype)
    self.assertAllEqual(tape.gradient(y, x), y)

  def test_small_rates_still_drop(self):
    y = randomness.dropout(tf.ones([64, 4096]), 1e-4, randomness.make(0, 0))
    self.assertGreater(np.mean(y.numpy() == 0), 0)

  def test_rate_zero_is_the_identity(self):
    x = tf.ones([2, 3])
    self.assertIs(randomness.dropout(x, 0.0, randomness.make(0, 0)), x)

  def test_without_a_key_each_call_differs(self):
    x = tf.ones([4, 100])
    first = randomness.dropout(x, 0.5)
    self.assertNotAllEqual(first, randomness.dropout(x, 0.5))

  def test_compiled_equals_plain(self):
    def draw(first_row):
      rng = randomness.fold_in(randomness.make(3, 7, first_row), 'd')
      return randomness.dropout(tf.ones([8, 33]), 0.1, rng)

    self.assertAllEqual(
      tf.function(draw)(tf.constant(2)),
      tf.function(draw, jit_compile=True)(tf.constant(2)),
    )

  def test_bad_rate(self):
    with self.assertRaisesRegex(ValueError, r'`rate` must be in \[0, 1\)'):
      randomness.dropout(tf.ones([1, 1]), 1.0)


if __name__ == '__main__':
  tf.test.main()
