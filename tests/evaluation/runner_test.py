"""Tests of the evaluation of one, all and coming checkpoints."""

import contextlib
import io
import json
import os
import time
import types
from unittest import mock

from absl.testing import parameterized
import tensorflow as tf
import tf_keras

from vatt_tf.evaluation import runner


class _Weight:
  """An evaluation that gives the model's one weight."""

  name = 'weight'
  title = 'The weight'

  def __call__(self, model, dataset):
    return {'value': float(model.weight), 'size': len(dataset)}

  def scalars(self, metrics):
    return {'value': metrics['value']}

  def format_table(self, metrics):
    return f'value {metrics["value"]:g}'


class _Model(tf_keras.Model):
  """A model of one weight."""

  def __init__(self, value=-1.0):
    super().__init__()
    self.weight = tf.Variable(value)
    self.built = True


class RunnerTest(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = self.create_tempdir().full_path
    self.manager = self._manager(max_to_keep=5)
    self.results = []
    self.out = ''

  def _manager(self, max_to_keep):
    self.model = _Model()
    return tf.train.CheckpointManager(
      tf.train.Checkpoint(model=self.model), self.dir, max_to_keep
    )

  def _save(self, *steps):
    for step in steps:
      self.model.weight.assign(step)
      self.manager.save(checkpoint_number=step)

  def _evaluate(self, checkpoint='', **options):
    options = {'evaluation': _Weight(), **options}
    stdout = io.StringIO()
    try:
      with contextlib.redirect_stdout(stdout):
        return runner.evaluate(
          self.dir if checkpoint == '' else checkpoint,
          task=types.SimpleNamespace(build_model=_Model),
          dataset=lambda global_batch_size: [0] * global_batch_size,
          on_result=self.results.append,
          **options,
        )
    finally:
      self.out = stdout.getvalue()

  def _steps(self):
    return [result.step for result in self.results]

  def test_newest(self):
    self._save(10, 9)
    metrics, path = self._evaluate(batch_size=7)
    self.assertEqual(metrics, {'value': 9.0, 'size': 7})
    self.assertEqual(path, os.path.join(self.dir, 'ckpt-9'))
    self.assertEqual(
      self.results[0].tables(),
      [(f'The weight, step 9, {path}', 'value 9')],
    )

  def test_one(self):
    self._save(9, 10)
    metrics, _ = self._evaluate(os.path.join(self.dir, 'ckpt-9'))
    self.assertEqual(metrics['value'], 9)

  def test_all_by_step(self):
    self._save(100, 9, 20)
    output = os.path.join(self.dir, 'all.json')
    events = os.path.join(self.dir, 'events')
    metrics, _ = self._evaluate(which='all', output=output, event_dir=events)
    self.assertEqual(self._steps(), [9, 20, 100])
    self.assertEqual(metrics['value'], 100)
    with open(output, encoding='utf-8') as file:
      found = json.load(file)['checkpoints']
    self.assertEqual([one['weight']['value'] for one in found], [9, 20, 100])
    self.assertEqual(found[0]['step'], 9)
    self.assertFalse(found[0]['random_weights'])
    (path,) = tf.io.gfile.glob(os.path.join(events, '*'))
    written = {
      (event.step, value.tag): float(tf.make_ndarray(value.tensor))
      for event in tf.compat.v1.train.summary_iterator(path)
      for value in event.summary.value
    }
    self.assertEqual(written, {(step, 'value'): step for step in (9, 20, 100)})

  def test_all_without_the_record_of_the_run(self):
    self._save(100, 9)
    os.remove(os.path.join(self.dir, 'checkpoint'))
    self._evaluate(which='all')
    self.assertEqual(self._steps(), [9, 100])

  def test_several_evaluations(self):
    self._save(3)
    output = os.path.join(self.dir, 'found.json')
    metrics, _ = self._evaluate(
      evaluation=[_Weight(), _Weight()], output=output
    )
    self.assertEqual(list(metrics), ['weight', 'weight_2'])
    self.assertEqual(
      self.results[0].scalars(), {'weight/value': 3, 'weight_2/value': 3}
    )
    with open(output, encoding='utf-8') as file:
      self.assertEqual(json.load(file)['weight_2'], metrics['weight_2'])

  def test_refuses_random_weights_unless_told(self):
    with self.assertRaisesRegex(ValueError, 'allow_random_weights'):
      self._evaluate(None)
    self._save(1)
    with self.assertRaisesRegex(ValueError, 'allow_random_weights'):
      self._evaluate(allow_random_weights=True)
    metrics, path = self._evaluate(None, allow_random_weights=True)
    self.assertIsNone(path)
    self.assertEqual(metrics['value'], -1)
    self.assertEqual(
      self.results[0].tables()[0][0], 'RANDOM WEIGHTS: The weight'
    )

  def test_bad_input(self):
    with self.assertRaisesRegex(ValueError, 'no checkpoint in'):
      self._evaluate()
    with self.assertRaisesRegex(ValueError, 'no complete checkpoints ckpt-N'):
      self._evaluate(which='all')
    with self.assertRaisesRegex(ValueError, '`which`.*newest, all'):
      self._evaluate(which='some')
    with self.assertRaisesRegex(ValueError, '`evaluation`'):
      self._evaluate(evaluation=[])

  # The clock moves when it is slept, and the run goes on then.
  def _follow(self, events, **options):
    """Follows a run that saves at some times: pairs of a time and steps."""
    now = [1000.0]
    waiting = sorted(events)

    def sleep(seconds):
      now[0] += seconds
      while waiting and now[0] >= 1000 + waiting[0][0]:
        self._save(*waiting.pop(0)[1])

    with mock.patch.object(time, 'monotonic', lambda: now[0]):
      with mock.patch.object(time, 'sleep', sleep):
        return self._evaluate(follow=runner.Follow(**options))

  def test_follows_to_the_last_step(self):
    self._save(1, 2)
    metrics, _ = self._follow([(40, [3]), (110, [4])], last_step=4)
    self.assertEqual(self._steps(), [1, 2, 3, 4])
    self.assertEqual(metrics['value'], 4)
    lines = self.out.splitlines()
    # At 0 and 30 s, then anew at 40, 70 and 100 s.
    self.assertLen(lines, 5)
    self.assertIn('after that of step 2 (the last is 4): 30 s', lines[1])
    self.assertIn('after that of step 3', lines[2])

  def test_gives_up(self):
    with self.assertRaisesRegex(TimeoutError, 'within 100 s.*--timeout'):
      self._follow([], timeout=100.0)
    self.assertIn('Waiting for a checkpoint in', self.out)
    self.assertIn('90 s of 100 s', self.out)
    self.assertNotIn('31 s', self.out)
    with self.assertRaisesRegex(TimeoutError, 'after that of step 5'):
      self._follow([(60, [5])], timeout=100.0)
    self.assertEqual(self._steps(), [5])

  def test_checkpoint_that_is_deleted_before_its_turn(self):
    self.manager = self._manager(max_to_keep=1)
    self._save(1)
    restore = runner.manager.restore_model

    def slow(model, path, use_ema):
      if path.endswith('ckpt-1'):
        self._save(2)
      return restore(model, path, use_ema)

    with mock.patch.object(runner.manager, 'restore_model', slow):
      with self.assertLogs(level='WARNING') as logs:
        self._follow([], last_step=2)
    self.assertIn('ckpt-1 was deleted', logs.output[0])
    self.assertEqual(self._steps(), [2])


if __name__ == '__main__':
  tf.test.main()
