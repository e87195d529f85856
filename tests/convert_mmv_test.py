"""Imports of MMV's released parameters, by lists of their full names."""

import os

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import mmv_fixtures
from vatt_tf import convert
from vatt_tf.checkpoints import manager, mmv, plans
from vatt_tf.core import gin_utils

_TEXT_AND_HEADS = 'heads_fac'


def _shapes(video):
  """The names and shapes of a whole released model."""
  shapes = {}
  for listing in (video, 'audio_resnet50', _TEXT_AND_HEADS):
    shapes.update(mmv_fixtures.names(listing))
  if 'x2' in video or 'tsm' in video:
    width = 4096 if 'x2' in video else 2048
    for name, shape in shapes.items():
      if 'vid2audio_embd/final_projection_inner/w' in name:
        shapes[name] = (width, *shape[1:])
  return shapes


class ConvertTest(parameterized.TestCase, tf.test.TestCase):
  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _write(self, shapes, seed=15):
    path = os.path.join(self.create_tempdir().full_path, 'mmv.npz')
    np.savez(
      path,
      **{
        name: mmv_fixtures.value(name, shape, seed)
        for name, shape in shapes.items()
      },
    )
    return path

  def test_whole_model(self):
    expected = mmv_fixtures.arrays('whole_s3d_fac')
    seed = mmv_fixtures.description('whole_s3d_fac')['seed']
    path = self._write(_shapes('s3d_space_to_depth'), seed)
    output = self.create_tempdir().full_path
    _, report = convert.import_checkpoint('mmv', path, output)
    for status in ('missing', 'misshapen', 'unused', 'new'):
      self.assertEqual(report.count(status), 0, status)
    self.assertEqual(report.count('ignored'), 4)  # the maps without a term
    gin_utils.parse([os.path.join(output, 'config.gin')])
    model = gin_utils.get_task().build_model()
    manager.restore_model(model, manager.resolve(output))
    outputs = model(
      {
        'video': tf.constant(expected['video'] / np.float32(127.5) - 1),
        'spectrogram': tf.constant(expected['spectrogram'][..., 0]),
        'text': tf.constant(expected['word_ids'][:, None]),
      }
    )
    noise = mmv_fixtures.description('whole_s3d_fac')['float32_noise']
    for name, key in (
      ('video_feature', 'vid_repr'),
      ('audio_feature', 'aud_repr'),
      ('video_va', 'vid_embd/toaud'),
      ('video_vt', 'vid_embd/totxt'),
      ('audio_va', 'aud_embd/tovid'),
      ('audio_vt', 'aud_embd/totxt'),
      ('text_vt', 'txt_embd/tovid'),
    ):
      actual = np.reshape(outputs[name], expected[key].shape)
      share = max(10 * noise[key], 5e-6)
      mmv_fixtures.assert_near(self, actual, expected[key], share, key)

  @parameterized.parameters(
    ('s3d', "plain'"),
    ('s3d_space_to_depth', "space_to_depth'"),
    ('tsm_resnet50', 'width_factor = 1'),
    ('tsm_resnet50x2', 'width_factor = 2'),
  )
  def test_all_names_both_ways(self, listing, text):
    shapes = _shapes(listing)
    released = mmv.detect(shapes)
    self.assertIn(text, str(released))
    files, bindings = mmv.gin_config(released)
    gin_utils.parse(files, bindings)
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
      plan = mmv.plan(shapes, model)
      variables = plans.target_variables(model)
    self.assertEmpty(plan.missing)
    self.assertLen(plan.assignments, len(variables))
    used = {name for a in plan.assignments for name in a.sources}
    self.assertEqual(used | set(plan.ignored), set(shapes))
    unused = [n for n in plan.ignored if '/audio2txt' in n or '/txt2aud' in n]
    self.assertLen(plan.ignored, len(unused))
    self.assertLen(unused, 4)

  def test_counters_of_moving_averages(self):
    shapes = _shapes('s3d_space_to_depth')
    counter = 'mean_ema/counter'
    shapes.update(
      {
        name.replace('/average', f'/{leaf}'): shape if leaf == 'hidden' else ()
        for name, shape in list(shapes.items())
        if name.endswith('/average')
        for leaf in ('hidden', 'counter')
      }
    )
    files, bindings = mmv.gin_config(mmv.detect(shapes))
    gin_utils.parse(files, bindings)
    with tf.Graph().as_default():
      plan = mmv.plan(shapes, gin_utils.get_task().build_model())
    sources = {a.target: a.sources[0] for a in plan.assignments}
    for target, source in sources.items():
      self.assertEqual(target.endswith('/num_updates'), counter in source)
    self.assertIn(
      next(n for n in shapes if n.endswith('mean_ema/hidden')), plan.ignored
    )

  def test_other_files(self):
    shapes = _shapes('s3d_space_to_depth')
    no_state = {n: s for n, s in shapes.items() if n.startswith('params/')}
    with self.assertRaisesRegex(ValueError, 'no `state`'):
      mmv.detect(no_state)
    with self.assertRaisesRegex(ValueError, 'not a file of MMV'):
      mmv.detect({'a/kernel': (1,)})
    part = {n: s for n, s in shapes.items() if 'text_conv1' not in n}
    with self.assertRaisesRegex(ValueError, 'only a part.*text_conv1'):
      mmv.detect(part)
    for name, shape in (
      ('Conv2d_1a_7x7/~/conv3_d/w', ()),
      ('embed/embeddings', (5,)),
    ):
      name = next(n for n in shapes if n.endswith(name))
      with self.assertRaisesRegex(ValueError, f'{name} must have . axes'):
        mmv.detect({**shapes, name: shape})
    path = self._write({'state/x/mean_ema/average': (1,)})
    with self.assertRaisesRegex(ValueError, 'not a file of MMV'):
      convert.import_checkpoint('mmv', path, self.create_tempdir().full_path)

  def test_a_narrow_backbone(self):
    shapes = _shapes('tsm_resnet50')
    name = next(n for n in shapes if n.endswith('tsm_resnet_stem/w'))
    shapes[name] = (*shapes[name][:-1], 40)
    sizes = mmv.detect(shapes).sizes
    self.assertEqual(sizes['TSMResNetTower.width_factor'], 0.625)

  def test_another_backbone(self):
    shapes = _shapes('tsm_resnet50')
    gin_utils.parse(['gin/pretrain_mmv_s3d.gin'], [])
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
      with self.assertRaisesRegex(
        ValueError, 'video tower .* is TSMResNetTower'
      ):
        mmv.plan(shapes, model)
    gin.clear_config()
    gin_utils.parse(['gin/pretrain_ms_mbs.gin'], [])
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
      with self.assertRaisesRegex(ValueError, 'PatchTower.*pretrain_mmv_tsm'):
        mmv.plan(shapes, model)


if __name__ == '__main__':
  tf.test.main()
