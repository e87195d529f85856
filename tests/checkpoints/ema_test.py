"""Tests of reading the averages of a checkpoint."""

import os

import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import ema, manager


def _model():
  model = tf_keras.Sequential(
    [
      tf_keras.layers.Dense(2, name='first'),
      tf_keras.layers.BatchNormalization(name='norm'),
    ],
    name='model',
  )
  model.build([None, 3])
  return model


class EmaTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = self.get_temp_dir()

  def _save(self, **parts):
    checkpoint = tf.train.Checkpoint(**parts)
    return checkpoint.save(os.path.join(self.dir, 'ckpt'))

  def test_name_of_a_weight(self):
    for name in ('a/b/kernel:0', 'a/b/kernel/replica_1:0', 'a/b/kernel'):
      self.assertEqual(ema.weight_name(name), 'a/b/kernel')

  def test_restores_average_or_weights(self):
    model = _model()
    average = ema.WeightAverage(model, 0.9)
    self.assertLen(average.values, 6)
    for value in average.values:
      value.assign(value * 0 + 5.0)
    path = self._save(model=model, ema=average.checkpoint)
    found = _model()
    self.assertTrue(manager.restore_model(found, path))
    for value in found.variables:
      self.assertAllEqual(value, value * 0 + 5.0)
    self.assertFalse(manager.restore_model(found, path, use_ema=False))
    for value, expected in zip(found.variables, model.variables, strict=True):
      self.assertAllEqual(value, expected)

  def test_frozen_weights_keep_their_value(self):
    model = _model()
    model.layers[0].trainable = False
    average = ema.WeightAverage(model, 0.9)
    self.assertLen(average.values, 4)
    path = self._save(model=model, ema=average.checkpoint)
    found = _model()
    self.assertTrue(manager.restore_model(found, path))
    self.assertAllEqual(found.layers[0].kernel, model.layers[0].kernel)

  def test_checkpoint_without_averages(self):
    model, found = _model(), _model()
    path = self._save(model=model)
    self.assertFalse(manager.restore_model(found, path))
    self.assertAllEqual(found.layers[0].kernel, model.layers[0].kernel)

  def test_averages_of_other_weights(self):
    model = _model()
    path = self._save(model=model, ema=ema.WeightAverage(model, 0.9).checkpoint)
    model.layers[1].gamma._handle_name = 'model/other/gamma:0'
    with self.assertRaisesRegex(ValueError, 'averages of weights.*norm/gamma'):
      manager.restore_model(model, path)

  def test_two_weights_of_one_name(self):
    model = _model()
    model.layers[1].gamma._handle_name = 'first/kernel:0'
    with self.assertRaisesRegex(ValueError, 'several of: first/kernel'):
      ema.WeightAverage(model, 0.9)


if __name__ == '__main__':
  tf.test.main()
