"""Tests of released VATT checkpoints: what they are, and what does not fit."""

import json
import os

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import shared_data, vatt_models
from tests.checkpoints import checkpoint_files
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import (
  manager,
  plans,
  released_vatt,
  reports,
  weight_sources,
)
from vatt_tf.core import gin_utils
from vatt_tf.models import sizes

_SIZES = {
  'd_va': 24,
  'd_vt': 16,
  'num_frames': 8,
  'frame_size': 48,
  'num_audio_samples': 1280,
  'max_words': 6,
  'vocabulary_size': 96,
  'd_embedding': 12,
  'd_post_projection': 40,
}
_AGG = 'vatt/video_embedding/agg'


def _fixture(name):
  return str(shared_data.path('fixtures', name) / 'ckpt-3')


def _model(**changes):
  """The model of the fixture `ut_fac`."""
  return vatt_models.build_vatt(
    sizes.Size(2, 32, 64, 4, 8), **{**_SIZES, **changes}
  )


def _classifier(num_classes=7, **changes):
  """The model of the fixture `finetuned_vit_ma`."""
  arguments = {
    'is_agnostic': True,
    'd_post_projection': 44,
    'num_frames': 8,
    'frame_size': 48,
    **changes,
  }
  return vatt_models.build_classifier(
    'video', num_classes, sizes.Size(2, 32, 64, 4, 8), **arguments
  )


def _values(model):
  return {
    name: variable.numpy()
    for name, variable in plans.target_variables(model).items()
  }


class ListingsTest(parameterized.TestCase, tf.test.TestCase):
  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  @parameterized.parameters(*checkpoint_files.LISTINGS)
  def test_every_name_and_shape_of_both_sides(self, listing):
    path = shared_data.path('fixtures', 'listings', f'{listing}.json')
    listed = json.loads(path.read_text())
    shapes = {name: tuple(shape) for name, shape in listed['variables'].items()}
    found = released_vatt.detect(shapes)
    gin_utils.parse(*released_vatt.gin_config(found))
    # In a graph that never runs, variables have shapes and no values.
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
      plan = released_vatt.plan(shapes, model)
      report = reports.check(plan, model, shapes)
    counts = report.as_json()['counts']
    self.assertCountEqual(counts, ['matched', 'transformed'])
    self.assertEqual(sum(counts.values()), len(shapes))
    self.assertEqual(
      sum(variable.shape.num_elements() for variable in model.variables),
      listed['parameters'],
    )

  def test_says_what_it_is(self):
    path = shared_data.path('fixtures', 'listings', 'tx_fac_lbs.json')
    shapes = json.loads(path.read_text())['variables']
    found = released_vatt.detect({k: tuple(v) for k, v in shapes.items()})
    self.assertEqual(found.kind, 'tx_fac')
    self.assertEqual(found.sizes['video/Size.num_layers'], 24)
    self.assertEqual(found.sizes['text/Size.num_heads'], 8)
    self.assertRegex(
      str(found), 'pre-trained, modality-specific: video/Size.num_layers = 24'
    )


class PlanTest(parameterized.TestCase, tf.test.TestCase):
  def _write(self, arrays):
    prefix = os.path.join(self.get_temp_dir(), 'ckpt-500000')
    checkpoint_files.write(prefix, arrays)
    return prefix

  @parameterized.parameters('', 'root/student/')
  def test_other_prefix(self, prefix):
    arrays = checkpoint_files.read(_fixture('ut_fac'))
    renamed = self._write(
      {
        name.replace('model/layer_with_weights-0/', prefix): value
        for name, value in arrays.items()
      }
    )
    expected, got = _model(), _model()
    released_vatt.load(expected, weight_sources.open_source(_fixture('ut_fac')))
    released_vatt.load(got, weight_sources.open_source(renamed))
    self.assertAllClose(_values(expected), _values(got), atol=0, rtol=0)

  @parameterized.parameters('', 'root/student/')
  def test_other_prefix_of_a_classifier(self, prefix):
    arrays = checkpoint_files.read(_fixture('finetuned_vit_ma'))
    renamed = self._write(
      {
        name.replace('model/layer_with_weights-0/', prefix): value
        for name, value in arrays.items()
      }
    )
    model = _classifier()
    report = released_vatt.load(model, weight_sources.open_source(renamed))
    self.assertEqual(report.count('matched'), len(model.variables) - 1)

  def test_two_models_in_one_file(self):
    arrays = checkpoint_files.read(_fixture('ut_fac'))
    copies = {
      name.replace('model/', 'ema/'): value for name, value in arrays.items()
    }
    source = weight_sources.open_source(self._write({**arrays, **copies}))
    with self.assertRaisesRegex(ValueError, 'two models'):
      released_vatt.detect(source.shapes)

  def test_state_of_the_optimizer_is_ignored(self):
    arrays = checkpoint_files.read(_fixture('ut_fac'))
    suffix = '/.ATTRIBUTES/VARIABLE_VALUE'
    model_names = [name for name in arrays if name.startswith('model/')]
    for name in model_names:
      slot = name.replace(suffix, f'/.OPTIMIZER_SLOT/optimizer/m{suffix}')
      arrays[slot] = arrays[name]
    arrays[f'save_counter{suffix}'] = np.int64(3)
    source = weight_sources.open_source(self._write(arrays))
    report = released_vatt.load(_model(), source)
    # The fixture has two scalars of the optimizer.
    self.assertEqual(report.count('ignored'), len(model_names) + 3)
    reasons = {row.how for row in report.rows if row.status == 'ignored'}
    self.assertEqual(
      reasons, {'slot of the optimizer', 'state of the optimizer', 'counter'}
    )
    self.assertIn('slot of the optimizer', report.format())

  def test_a_variable_too_many_or_too_few(self):
    arrays = checkpoint_files.read(_fixture('ut_fac'))
    suffix = '/.ATTRIBUTES/VARIABLE_VALUE'
    root = 'model/layer_with_weights-0/'
    more = {f'{root}surprise{suffix}': np.float32(1)}
    with self.assertRaisesRegex(
      reports.ConversionError, 'nothing takes model/.*surprise'
    ):
      released_vatt.load(
        _model(), weight_sources.open_source(self._write({**arrays, **more}))
      )
    agg = next(name for name in arrays if 'vid_agg_embedding' in name)
    del arrays[agg]
    source = weight_sources.open_source(self._write(arrays))
    with self.assertRaisesRegex(
      reports.ConversionError,
      f'{_AGG} .32. has no source: the checkpoint has no unified_transformer/',
    ):
      released_vatt.load(_model(), source)
    report = released_vatt.load(_model(), source, allow_partial=True)
    self.assertEqual(report.count('missing'), 1)

  @parameterized.parameters(
    (
      {'num_frames': 16},
      r'`video/PatchTower.input_size` is \(8, 48, 48\) in '
      r'the checkpoint and \(16, 48, 48\) in the model .*need no larger table',
    ),
    (
      {'vocabulary_size': 100},
      '`TextTower.vocabulary_size` is 96 .* and 100 '
      '.*belongs to one vocabulary',
    ),
    ({'d_embedding': 10}, '`TextTower.d_embedding` is 12'),
    ({'d_post_projection': 32}, '`share_encoder.d_post_projection` is 40'),
    (
      {'d_va': 25, 'd_vt': 17},
      '`ProjectionHead.d_va` is 24 .*so do ProjectionHead.d_vt',
    ),
    ({'max_words': 7}, '`TextTower.max_words` is 6'),
    (
      {'video_patch_size': (2, 16, 16)},
      r'`video/PatchTower.patch_size` is \(4, 16, 16\)',
    ),
  )
  def test_sizes_that_do_not_fit(self, changes, message):
    source = weight_sources.open_source(_fixture('ut_fac'))
    with self.assertRaisesRegex(ValueError, message):
      released_vatt.load(_model(**changes), source)
    report = released_vatt.load(_model(**changes), source, allow_partial=True)
    self.assertGreater(report.count('misshapen'), 0)
    self.assertGreater(report.count('matched'), 50)

  def test_sizes_of_the_encoder_that_do_not_fit(self):
    source = weight_sources.open_source(_fixture('ut_fac'))
    for size, message in (
      (sizes.Size(3, 32, 64, 4, 8), 'Size.num_layers` is 2 .* and 3'),
      (sizes.Size(2, 40, 64, 4, 8), 'Size.d_model` is 32 .* and 40'),
      (sizes.Size(2, 32, 60, 4, 8), 'Size.d_ff` is 64 .* and 60'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        released_vatt.load(vatt_models.build_vatt(size, **_SIZES), source)

  def test_number_of_heads_that_the_shapes_do_not_tell(self):
    # All released heads are 64 wide.
    path = shared_data.path('fixtures', 'listings', 'ut_fac_medium.json')
    shapes = {
      name: tuple(shape)
      for name, shape in json.loads(path.read_text())['variables'].items()
    }
    with tf.Graph().as_default():
      model = vatt_models.build_vatt(sizes.Size(12, 1024, 4096, 8, 128))
      with self.assertRaisesRegex(ValueError, 'Size.num_heads` is 16 .* and 8'):
        released_vatt.plan(shapes, model)
    found = released_vatt.detect(
      weight_sources.open_source(_fixture('ut_fac')).shapes
    )
    with self.assertRaisesRegex(ValueError, 'does not tell Size.num_heads'):
      released_vatt.gin_config(found)
    with self.assertRaisesRegex(ValueError, 'does not tell Size.d_kv'):
      released_vatt.gin_config(found, ['Size.num_heads'])
    _, bindings = released_vatt.gin_config(
      found, ['Size.num_heads', 'Size.d_kv', 'Size.d_model']
    )
    self.assertIn('Size.d_model = 32', bindings)
    self.assertFalse([b for b in bindings if 'num_heads' in b or 'd_kv' in b])

  def test_other_family(self):
    of_towers = {
      f'{modality}_size': sizes.Size(1, 8, 16, 2, 4)
      for modality in ('video', 'audio', 'text')
    }
    specific = vatt_models.build_vatt(**of_towers, **_SIZES)
    source = weight_sources.open_source(_fixture('ut_fac'))
    with self.assertRaisesRegex(ValueError, 'modality-agnostic model, and'):
      released_vatt.load(specific, source, allow_partial=True)
    source = weight_sources.open_source(_fixture('tx_fac'))
    with self.assertRaisesRegex(ValueError, 'modality-specific model, and'):
      released_vatt.load(_model(), source)

  def test_not_of_the_release(self):
    path = tf.train.Checkpoint(a=tf.Variable(1.0)).save(
      os.path.join(self.get_temp_dir(), 'ckpt')
    )
    with self.assertRaisesRegex(ValueError, 'not a checkpoint of the released'):
      released_vatt.detect(weight_sources.open_source(path).shapes)

  def test_a_part_of_a_checkpoint(self):
    arrays = checkpoint_files.read(_fixture('ut_fac'))
    source = weight_sources.open_source(
      self._write({k: v for k, v in arrays.items() if 'text' not in k})
    )
    with self.assertRaisesRegex(ValueError, 'only a part.*vocabulary_size'):
      released_vatt.detect(source.shapes)


class OtherModelsTest(tf.test.TestCase):
  """Models that have a part of what a checkpoint has."""

  def test_fewer_towers(self):
    source = weight_sources.open_source(_fixture('ut_fac'))
    model = _model(pairs=('video_audio',))
    report = released_vatt.load(model, source)
    reasons = {row.how for row in report.rows if row.status == 'ignored'}
    self.assertEqual(
      reasons,
      {
        'the model has no text tower',
        'the model has no head va_to_vt',
        'the model has no head vt_norm',
        'the model has no head text_to_vt',
        'state of the optimizer',
      },
    )
    whole = _model()
    released_vatt.load(whole, source)
    everything = _values(whole)
    for name, value in _values(model).items():
      self.assertAllEqual(value, everything[name])

  def test_classifier_from_a_pretrained_tower(self):
    model = _classifier(num_classes=5, d_post_projection=40)
    report = released_vatt.load(
      model, weight_sources.open_source(_fixture('ut_fac'))
    )
    self.assertEqual(report.count('new'), 2)  # the linear map to 5 classes
    whole = _model()
    released_vatt.load(whole, weight_sources.open_source(_fixture('ut_fac')))
    everything = _values(whole)
    for name, value in _values(model).items():
      if not name.startswith('classifier/'):
        self.assertAllEqual(value, everything[name])

  def test_classifier_of_other_classes(self):
    with self.assertRaisesRegex(ValueError, 'num_classes` is 7 .* and 5'):
      released_vatt.load(
        _classifier(num_classes=5),
        weight_sources.open_source(_fixture('finetuned_vit_ma')),
      )

  def test_classifier_of_the_other_modality(self):
    source = weight_sources.open_source(_fixture('finetuned_wat'))
    with self.assertRaisesRegex(ValueError, 'classifies audio, and .* video'):
      released_vatt.load(_classifier(is_agnostic=False), source)

  def test_other_common_space_and_a_learned_temperature(self):
    source = weight_sources.open_source(_fixture('ut_fac'))
    model = _model(common_space='shared', learned_similarity='temperature')
    with self.assertRaisesRegex(
      reports.ConversionError, 'vatt/head/.* has no source'
    ):
      released_vatt.load(model, source)
    report = released_vatt.load(
      _model(learned_similarity='temperature'), source
    )
    self.assertEqual(
      {row.how for row in report.rows if row.status == 'new'},
      {'the release learns no temperature'},
    )


class InitCheckpointTest(tf.test.TestCase):
  """`manager.restore_model` takes a released checkpoint as it is."""

  def test_restores(self):
    expected, got = _model(), _model()
    released_vatt.load(expected, weight_sources.open_source(_fixture('ut_fac')))
    is_average = manager.restore_model(got, manager.resolve(_fixture('ut_fac')))
    self.assertFalse(is_average)
    self.assertAllClose(_values(expected), _values(got), atol=0, rtol=0)

  def test_a_folder_without_the_file_checkpoint(self):
    folder = os.path.join(self.get_temp_dir(), 'download')
    prefix = os.path.join(folder, 'ckpt-500000')
    checkpoint_files.write(prefix, checkpoint_files.read(_fixture('ut_fac')))
    self.assertEqual(manager.resolve(folder), prefix)

  def test_in_a_strategy(self):
    with tf.distribute.MirroredStrategy(['CPU:0']).scope():
      model = _model()
      manager.restore_model(model, _fixture('ut_fac'))
    expected = _model()
    manager.restore_model(expected, _fixture('ut_fac'))
    self.assertAllClose(_values(expected), _values(model), atol=0, rtol=0)

  def test_a_frozen_word_table_counts_as_filled(self):
    ids = tf.constant([[[1, 2, 3, 0, 0, 0]]])
    model = _model(is_table_frozen=True)
    with self.assertRaisesRegex(ValueError, 'table is frozen'):
      model.embed('text', ids, training=True)
    manager.restore_model(model, _fixture('ut_fac'))
    model.embed('text', ids, training=True)
    path = tf.train.Checkpoint(model=model).save(
      os.path.join(self.get_temp_dir(), 'ckpt')
    )
    again = _model(is_table_frozen=True)
    manager.restore(tf.train.Checkpoint(model=again), path)
    again.embed('text', ids, training=True)


if __name__ == '__main__':
  tf.test.main()
