"""Tests of conversion: files opened or refused, plans checked and applied."""

import json
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests.checkpoints import checkpoint_files
from vatt_tf.checkpoints import manager, plans, reports, weight_sources

_ARRAYS = {
  'theirs/w': np.arange(6, dtype=np.float32).reshape(2, 3),
  'theirs/b': np.array([7.0, 8.0], np.float32),
}


def _model():
  """Three numbers to two: `dense/kernel` (3, 2) and `dense/bias` (2,)."""
  layer = tf_keras.layers.Dense(2, name='dense')
  model = tf_keras.Sequential([layer])
  model.build([None, 3])
  return model


def _plan(**changes):
  assignments = [
    plans.copy('dense/kernel', 'theirs/w', 'transposed', np.transpose),
    plans.copy('dense/bias', 'theirs/b'),
  ]
  return plans.Plan(**{'assignments': assignments, **changes})


class SourceTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = self.get_temp_dir()
    self.prefix = os.path.join(self.dir, 'ckpt-500000')
    checkpoint_files.write(self.prefix, _ARRAYS)

  @parameterized.parameters(
    '', 'ckpt-500000', 'ckpt-500000.index', 'ckpt-500000.data-00000-of-00001'
  )
  def test_tensorflow(self, name):
    source = weight_sources.open_source(os.path.join(self.dir, name))
    self.assertEqual(source.path, self.prefix)
    self.assertEqual(source.shapes, {'theirs/b': (2,), 'theirs/w': (2, 3)})
    for name, value in _ARRAYS.items():
      self.assertAllEqual(source.read(name), value)
    index, data = source.describe_files()
    self.assertEqual(index['name'], 'ckpt-500000.index')
    self.assertLen(index['sha256'], 64)
    self.assertEqual(data['bytes'], 8 * 4)

  def test_names_of_object_checkpoints(self):
    path = tf.train.Checkpoint(a=tf.Variable(1.0)).save(
      os.path.join(self.dir, 'objects', 'ckpt')
    )
    source = weight_sources.open_source(path)
    self.assertEqual(source.shapes, {'a': (), 'save_counter': ()})
    self.assertAllEqual(source.read('a'), 1.0)

  def test_npz(self):
    path = os.path.join(self.dir, 'a.npz')
    np.savez(path, **_ARRAYS)
    source = weight_sources.open_source(path)
    self.assertEqual(source.shapes, {'theirs/b': (2,), 'theirs/w': (2, 3)})
    self.assertAllEqual(source.read('theirs/w'), _ARRAYS['theirs/w'])

  def test_nothing_there(self):
    with self.assertRaisesRegex(ValueError, 'no checkpoint.*ckpt-500000.index'):
      weight_sources.open_source(os.path.join(self.dir, 'ckpt-5'))

  def test_not_a_checkpoint(self):
    path = os.path.join(self.dir, 'notes.txt')
    with open(path, 'w') as file:
      file.write('no weights')
    with self.assertRaisesRegex(ValueError, 'There is no checkpoint at'):
      weight_sources.open_source(path)
    os.rename(path, os.path.join(self.dir, 'notes.index'))
    with self.assertRaisesRegex(ValueError, 'not the index of a TensorFlow'):
      weight_sources.open_source(os.path.join(self.dir, 'notes'))

  def test_several_in_a_folder(self):
    checkpoint_files.write(os.path.join(self.dir, 'other'), _ARRAYS)
    with self.assertRaisesRegex(ValueError, 'must name one of.*other.index'):
      weight_sources.open_source(self.dir)

  def test_data_missing_beside_the_index(self):
    os.remove(self.prefix + '.data-00000-of-00001')
    with self.assertRaisesRegex(ValueError, 'data of .* are not beside it'):
      weight_sources.open_source(self.prefix)

  def test_part_of_the_data_missing(self):
    os.rename(
      self.prefix + '.data-00000-of-00001', self.prefix + '.data-00000-of-00002'
    )
    with self.assertRaisesRegex(ValueError, 'expected all parts of'):
      weight_sources.open_source(self.prefix)

  def test_half_downloaded(self):
    checkpoint_files.truncate(self.prefix + '.data-00000-of-00001')
    with self.assertRaisesRegex(ValueError, 'incomplete: 16 bytes.*take 32'):
      weight_sources.open_source(self.prefix)

  def test_damaged_in_the_middle(self):
    with open(self.prefix + '.data-00000-of-00001', 'r+b') as file:
      file.seek(20)
      file.write(b'x')
    source = weight_sources.open_source(self.prefix)
    with self.assertRaisesRegex(ValueError, 'theirs/w` cannot.*damaged'):
      reports.apply(_plan(), _model(), source)

  def test_half_downloaded_index(self):
    checkpoint_files.truncate(self.prefix + '.index')
    with self.assertRaisesRegex(ValueError, 'or only a part of one'):
      weight_sources.open_source(self.prefix)


class PlanTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.prefix = os.path.join(self.get_temp_dir(), 'ckpt')
    self.model = _model()

  def _source(self, **changes):
    arrays = {**_ARRAYS, **changes}
    checkpoint_files.write(
      self.prefix, {k: v for k, v in arrays.items() if v is not None}
    )
    return weight_sources.open_source(self.prefix)

  def test_applies_and_reports(self):
    source = self._source(slot=np.zeros(3, np.float32))
    report = reports.apply(
      _plan(ignored={'slot': 'slot of the optimizer'}), self.model, source
    )
    kernel, bias = self.model.weights
    self.assertAllEqual(kernel, _ARRAYS['theirs/w'].T)
    self.assertAllEqual(bias, [7.0, 8.0])
    self.assertEqual(
      report.format().splitlines(),
      [
        'transformed dense/kernel 3x2 <- theirs/w 2x3: transposed',
        'matched     dense/bias 2 <- theirs/b 2',
        'ignored     - <- slot 3: slot of the optimizer',
        'In all: 1 transformed, 1 matched, 1 ignored.',
      ],
    )
    found = json.loads(json.dumps(report.as_json()))
    self.assertEqual(found['counts']['transformed'], 1)
    self.assertEqual(found['variables'][0]['source_shapes'], [[2, 3]])

  def test_layers_share_a_line(self):
    rows = [
      reports.Row('matched', f'a/layer_{i}/k', (2,), (f'b/{i}/k',), ((2,),), '')
      for i in range(12)
    ]
    self.assertEqual(
      reports.Report(rows, ['a note']).format().splitlines(),
      [
        'matched     a/layer_*/k 2 <- b/*/k 2 (12x)',
        'a note',
        'In all: 12 matched.',
      ],
    )

  @parameterized.parameters(
    (
      {'theirs/w': np.zeros([2, 4], np.float32)},
      {},
      'misshapen',
      'dense/kernel is 3x2, and of theirs/w comes 4x2; 0 others',
    ),
    (
      {'more': np.zeros(3, np.float32)},
      {},
      'unused',
      'nothing takes more .3.; 0 others',
    ),
    (
      {'theirs/b': None, 'more': np.zeros(3, np.float32)},
      {
        'assignments': _plan().assignments[:1],
        'missing': {'dense/bias': 'the file has none'},
      },
      'missing',
      'dense/bias .2. has no source: the file has none; 1 others',
    ),
    (
      {'theirs/b': None},
      {'assignments': _plan().assignments[:1]},
      'missing',
      'nothing was planned',
    ),
  )
  def test_does_not_fit(self, arrays, plan, status, message):
    source = self._source(**arrays)
    before = [weight.numpy() for weight in self.model.weights]
    with self.assertRaisesRegex(reports.ConversionError, message) as caught:
      reports.apply(_plan(**plan), self.model, source)
    self.assertEqual(caught.exception.report.count(status), 1)
    for value, weight in zip(before, self.model.weights, strict=True):
      self.assertAllEqual(value, weight)
    report = reports.apply(_plan(**plan), self.model, source, True)
    self.assertEqual(report.count(status), 1)
    if status != 'misshapen':
      self.assertAllEqual(self.model.weights[0], _ARRAYS['theirs/w'].T)

  def test_new_by_design(self):
    source = self._source(**{'theirs/b': None})
    report = reports.apply(
      _plan(assignments=_plan().assignments[:1], new={'dense/bias': 'our own'}),
      self.model,
      source,
    )
    self.assertEqual(report.count('new'), 1)
    self.assertIn('new         dense/bias 2 <- : our own', report.format())

  def test_plans_that_contradict_themselves(self):
    source = self._source()
    for changes in (
      {'assignments': _plan().assignments[:1] * 2},
      {'missing': {'dense/bias': 'no'}},
      {'new': {'dense/scale': 'no'}},
      {'ignored': {'nobody': 'no'}},
      {'assignments': [plans.copy('dense/bias', 'nobody')]},
    ):
      with self.subTest(str(changes)):
        with self.assertRaisesRegex(ValueError, '[Tt]he plan'):
          reports.check(_plan(**changes), self.model, source.shapes)

  def test_values_that_are_not_finite(self):
    source = self._source(**{'theirs/b': np.array([1, np.nan], np.float32)})
    with self.assertRaisesRegex(ValueError, 'theirs/b.*must hold finite'):
      reports.apply(_plan(), self.model, source)

  def test_notes_of_what_was_measured(self):
    plan = _plan()

    def measure(value):
      plan.notes.append('residual 0.1')
      return value

    plan.assignments[1] = plans.copy(
      'dense/bias', 'theirs/b', 'fitted', measure
    )
    report = reports.apply(plan, self.model, self._source())
    self.assertEqual(report.notes[-1], 'residual 0.1')

  def test_written_as_training_writes(self):
    source = self._source()
    report = reports.apply(_plan(), self.model, source)
    output = os.path.join(self.get_temp_dir(), 'output')
    path = reports.write_checkpoint(
      self.model,
      output,
      reports.origin_of(source, 'theirs', report),
      'a.b = 1\n',
      report,
    )
    self.assertEqual(manager.resolve(output), path)
    found = _model()
    manager.restore_model(found, path)
    self.assertAllEqual(found.weights[0], _ARRAYS['theirs/w'].T)
    with open(os.path.join(output, 'origin.json')) as file:
      origin = json.load(file)
    self.assertEqual(origin['source'], 'theirs')
    self.assertEqual(origin['parameters'], 8)
    self.assertEqual(origin['files'][0]['name'], 'ckpt.index')
    self.assertTrue(os.path.exists(os.path.join(output, 'report.json')))
    with self.assertRaisesRegex(ValueError, 'without a checkpoint'):
      reports.check_output(output)


if __name__ == '__main__':
  tf.test.main()
