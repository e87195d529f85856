"""What an import refuses to assign."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import plans, reports, weight_sources


class ApplyTest(parameterized.TestCase, tf.test.TestCase):
  def _apply(self, variance):
    model = tf_keras.Sequential([tf_keras.layers.BatchNormalization()])
    model.build([None, 2])
    target = next(
      name
      for name in plans.target_variables(model)
      if name.endswith('/moving_variance')
    )
    value = np.array(variance, np.float32)
    source = weight_sources.Source(
      'a.npz', {'v': value.shape}, lambda name: value, {}, []
    )
    plan = plans.Plan(
      [plans.Assignment(target, ('v',), 'as it is', lambda read: read('v'))]
    )
    reports.apply(plan, model, source, allow_partial=True)
    return plans.target_variables(model)[target]

  def test_a_variance(self):
    self.assertAllEqual(self._apply([0.0, 2.0]), [0.0, 2.0])

  @parameterized.parameters(
    ([-0.1, 2.0], 'v in a.npz must not be negative: it is a variance'),
    ([np.nan, 2.0], 'v in a.npz must hold finite numbers'),
  )
  def test_what_is_no_variance(self, variance, message):
    with self.assertRaisesRegex(ValueError, message):
      self._apply(variance)


if __name__ == '__main__':
  tf.test.main()
