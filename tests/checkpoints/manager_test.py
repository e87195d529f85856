"""Tests of restoring, keeping and cleaning checkpoints."""

import os
import resource

import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import folders, manager

_STEP = 'step/.ATTRIBUTES/VARIABLE_VALUE'


class CheckpointsTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = self.get_temp_dir()

  def _save(self, **variables):
    checkpoint = tf.train.Checkpoint(**variables)
    return checkpoint.save(os.path.join(self.dir, 'ckpt'))

  def test_restores_every_value(self):
    path = self._save(a=tf.Variable([1.0, 2.0]))
    a = tf.Variable([0.0, 0.0])
    manager.restore(tf.train.Checkpoint(a=a), path)
    self.assertAllEqual(a, [1.0, 2.0])

  def test_other_shape_is_another_model(self):
    path = self._save(a=tf.Variable([1.0, 2.0]))
    with self.assertRaisesRegex(ValueError, 'written by another model'):
      manager.restore(tf.train.Checkpoint(a=tf.Variable([0.0, 0.0, 0.0])), path)

  def test_missing_variable_is_another_model(self):
    path = self._save(a=tf.Variable(1.0))
    with self.assertRaisesRegex(ValueError, 'written by another model'):
      manager.restore(
        tf.train.Checkpoint(a=tf.Variable(0.0), b=tf.Variable(0.0)), path
      )

  def test_more_variables_than_the_model_has(self):
    path = self._save(a=tf.Variable(1.0), b=tf.Variable(2.0))
    a = tf.Variable(0.0)
    with self.assertRaisesRegex(ValueError, 'written by another model'):
      manager.restore(tf.train.Checkpoint(a=a), path)
    manager.restore(tf.train.Checkpoint(a=a), path, expect_optimizer=False)
    self.assertAllEqual(a, 1.0)

  def test_weights_alone(self):
    path = self._save(model=tf.Module())
    optimizer = tf_keras.optimizers.Adam()
    optimizer.build([tf.Variable(1.0)])
    with self.assertRaisesRegex(ValueError, 'weights alone.*INIT_CHECKPOINT'):
      manager.restore(
        tf.train.Checkpoint(model=tf.Module(), optimizer=optimizer), path
      )

  def test_damaged_file(self):
    path = self._save(a=tf.Variable(tf.ones([1000])))
    with open(path + '.data-00000-of-00001', 'r+b') as file:
      file.truncate(100)
    with self.assertRaisesRegex(ValueError, 'cannot be read'):
      manager.restore(
        tf.train.Checkpoint(a=tf.Variable(tf.zeros([1000]))), path
      )

  def test_resolve(self):
    with self.assertRaisesRegex(ValueError, 'no checkpoint in'):
      manager.resolve(self.dir)
    with self.assertRaisesRegex(ValueError, 'no checkpoint at'):
      manager.resolve(os.path.join(self.dir, 'ckpt-3'))
    writer = tf.train.CheckpointManager(
      tf.train.Checkpoint(a=tf.Variable(1.0)), self.dir, max_to_keep=2
    )
    path = writer.save(checkpoint_number=5)
    self.assertEqual(manager.resolve(self.dir), path)
    self.assertEqual(manager.resolve(path), path)

  def test_leftovers_are_removed_and_nothing_else(self):
    writer = tf.train.CheckpointManager(
      tf.train.Checkpoint(a=tf.Variable(1.0)), self.dir, max_to_keep=2
    )
    path = writer.save(checkpoint_number=5)
    os.mkdir(os.path.join(self.dir, 'ckpt-6_temp'))
    with open(os.path.join(self.dir, 'ckpt-6_temp', 'part'), 'w') as file:
      file.write('x')
    folders.remove_leftovers(self.dir)
    self.assertFalse(os.path.exists(os.path.join(self.dir, 'ckpt-6_temp')))
    self.assertTrue(os.path.exists(path + '.index'))
    folders.remove_leftovers(os.path.join(self.dir, 'nothing'))

  def _manager(self, **arguments):
    self.step = tf.Variable(0, dtype=tf.int64)
    return manager.Manager(
      tf.train.Checkpoint(a=tf.Variable(tf.zeros([1 << 16])), step=self.step),
      self.dir,
      max_to_keep=2,
      step_counter=self.step,
      **arguments,
    )

  def test_saves_where_the_steps_pass_a_multiple(self):
    writer = self._manager(checkpoint_interval=10)
    saved = []
    for step in range(3, 40, 3):
      self.step.assign(step)
      if writer.save(checkpoint_number=step) is not None:
        saved.append(step)
    self.assertEqual(saved, [12, 21, 30])
    self.assertIsNotNone(writer.save(self.step, check_interval=False))
    self.assertIsNone(writer.save(self.step, check_interval=False))

  def test_interval_goes_on_after_a_restore(self):
    writer = self._manager(checkpoint_interval=10)
    self.step.assign(17)
    writer.save(self.step)
    writer = self._manager(
      checkpoint_interval=10, restore_path=manager.latest(self.dir)
    )
    writer.restore_or_initialize()
    self.step.assign(19)
    self.assertIsNone(writer.save(self.step))
    self.step.assign(20)
    self.assertEndsWith(writer.save(self.step), 'ckpt-20')

  def test_file_that_cannot_be_written(self):
    writer = self._manager()
    self.step.assign(1)
    path = writer.save(self.step)
    self.step.assign(2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel lets no file grow beyond this, as on a full disk. Python
    # ignores the signal that comes with it.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, limits[1]))
    try:
      with self.assertRaisesRegex(OSError, 'cannot be written.*ckpt-1 is kept'):
        writer.save(self.step)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    self.assertEqual(manager.latest(self.dir), path)
    self.assertEqual(tf.train.load_checkpoint(path).get_tensor(_STEP), 1)
    self.assertFalse([n for n in os.listdir(self.dir) if 'ckpt-2' in n])
    self.assertEndsWith(writer.save(self.step), 'ckpt-2')

  def test_best_checkpoint_follows_the_metric(self):
    value, step = tf.Variable(0.0), tf.Variable(0, dtype=tf.int64)
    best = manager.BestCheckpoint(
      tf.train.Checkpoint(value=value), self.dir, 'R@10', step
    )
    for number, score in ((1, 0.2), (2, 0.5), (3, 0.4)):
      step.assign(number)
      value.assign(score)
      best({'R@10': score})
    path = manager.latest(os.path.join(self.dir, 'best'))
    self.assertEndsWith(path, 'ckpt-2')
    manager.restore(
      tf.train.Checkpoint(value=value), path, expect_optimizer=False
    )
    self.assertAllClose(value, 0.5)
    with self.assertRaisesRegex(ValueError, 'must be one of R@10'):
      manager.BestCheckpoint(
        tf.train.Checkpoint(value=value), self.dir, 'R@3', step
      )({'R@10': 1.0})


if __name__ == '__main__':
  tf.test.main()
