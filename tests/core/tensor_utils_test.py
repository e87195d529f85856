"""Tests of the shape helpers."""

import tensorflow as tf

from vatt_tf.core import tensor_utils


class TensorUtilsTest(tf.test.TestCase):
  def test_known_sizes_are_integers(self):
    self.assertEqual(tensor_utils.shape_list(tf.ones([2, 3])), [2, 3])
    self.assertEqual(tensor_utils.shape_list(1.0), [])

  def test_unknown_sizes_are_tensors(self):
    seen = []

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def count(x):
      shape = tensor_utils.shape_list(x)
      seen.append(shape[1])
      return tf.reshape(x, [shape[0] * shape[1]]), shape[0]

    flat, rows = count(tf.ones([4, 3]))
    self.assertEqual(flat.shape, [12])
    self.assertEqual(rows, 4)
    self.assertEqual(seen, [3])

  def test_unknown_rank_is_an_error(self):
    @tf.function(input_signature=[tf.TensorSpec(None)])
    def count(x):
      return tensor_utils.shape_list(x)

    with self.assertRaisesRegex(ValueError, '`x` must have a known rank'):
      count(tf.ones([4, 3]))

  def test_half_precision_is_summed_in_float32(self):
    for dtype in ('bfloat16', tf.float16, tf.float32):
      self.assertEqual(tensor_utils.accumulation_dtype(dtype), tf.float32)
    self.assertEqual(tensor_utils.accumulation_dtype('float64'), tf.float64)


if __name__ == '__main__':
  tf.test.main()
