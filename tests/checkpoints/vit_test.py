"""ViT: outputs of the original, video towers, npz files, what does not fit."""

import json
import os

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import shared_data, vatt_models
from tests.checkpoints import transformers_reference
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import (
  plans,
  reports,
  vit,
  weight_files,
  weight_sources,
)
from vatt_tf.core import gin_utils
from vatt_tf.models import patch_tower, sizes, vatt

# That of the fixture: 2 x 2 patches of 16 x 16.
_SIZE = sizes.Size(2, 32, 64, 4, 8)
_SMALL = sizes.Size(1, 8, 16, 2, 4)


def _fixture():
  return shared_data.path('fixtures', 'vit')


def _tower(size=_SIZE, frames=4, slots=1, **overrides):
  """A model whose video tower has the sizes of the fixture."""
  arguments = {'video_form': 'vit', 'frame_size': 32, **overrides}
  arguments.setdefault('video_patch_size', (frames, 16, 16))
  return vatt_models.build_vatt(
    video_size=size,
    audio_size=_SMALL,
    num_frames=frames * slots,
    num_audio_samples=256,
    d_va=4,
    d_vt=4,
    pairs=('video_audio',),
    **arguments,
  )


class _WithoutNorm(patch_tower.PatchTower):
  """Has position tables for each axis, whose sums no norm follows."""

  _FORMS = {'release': ({'use_position_norm': False}, {'epsilon': 1e-12})}


def _load(model, path, **options):
  return vit.load(model, weight_sources.open_source(path), **options)


def _values(model):
  return {
    name: variable.numpy()
    for name, variable in plans.target_variables(model).items()
  }


def _randomize(model):
  """New values for all weights, so that none is as it was initialised."""
  random = np.random.default_rng(0)
  for variable in model.variables:
    noise = random.normal(scale=0.1, size=variable.shape)
    variable.assign_add(noise.astype(np.float32))


def _outputs(model, pixels):
  """Feature and tokens of images (B, 3, H, W), in one tensor."""
  frames = model.video_tower.embedding.patch_size[0]
  video = np.repeat(pixels.transpose(0, 2, 3, 1)[:, None], frames, 1)
  feature, tokens = model.video_tower(video, need_tokens=True)
  return np.concatenate([feature[:, None], tokens], 1)


def _npz_arrays(read, num_layers=2, num_heads=4):
  """The arrays of a file of Hugging Face's under Google's names."""

  def heads(value):
    return value.reshape(*value.shape[:-1], num_heads, -1)

  patches = 'embeddings.patch_embeddings.projection'
  arrays = {
    'cls': read('embeddings.cls_token'),
    'embedding/kernel': read(f'{patches}.weight').transpose(2, 3, 1, 0),
    'embedding/bias': read(f'{patches}.bias'),
    'Transformer/posembed_input/pos_embedding': read(
      'embeddings.position_embeddings'
    ),
    'Transformer/encoder_norm/scale': read('layernorm.weight'),
    'Transformer/encoder_norm/bias': read('layernorm.bias'),
  }
  for i in range(num_layers):
    theirs, ours = f'encoder.layer.{i}', f'Transformer/encoderblock_{i}'
    for name, norm in (
      ('layernorm_before', 'LayerNorm_0'),
      ('layernorm_after', 'LayerNorm_2'),
    ):
      arrays[f'{ours}/{norm}/scale'] = read(f'{theirs}.{name}.weight')
      arrays[f'{ours}/{norm}/bias'] = read(f'{theirs}.{name}.bias')
    for name, dense in (('intermediate', 'Dense_0'), ('output', 'Dense_1')):
      kernel = read(f'{theirs}.{name}.dense.weight').T
      arrays[f'{ours}/MlpBlock_3/{dense}/kernel'] = kernel
      arrays[f'{ours}/MlpBlock_3/{dense}/bias'] = read(
        f'{theirs}.{name}.dense.bias'
      )
    attention = f'{ours}/MultiHeadDotProductAttention_1'
    for name in ('query', 'key', 'value'):
      part = f'{theirs}.attention.attention.{name}'
      arrays[f'{attention}/{name}/kernel'] = heads(read(f'{part}.weight').T)
      arrays[f'{attention}/{name}/bias'] = heads(read(f'{part}.bias'))
    kernel = read(f'{theirs}.attention.output.dense.weight').T  # (heads * k, d)
    arrays[f'{attention}/out/kernel'] = kernel.reshape(
      num_heads, -1, kernel.shape[-1]
    )
    arrays[f'{attention}/out/bias'] = read(
      f'{theirs}.attention.output.dense.bias'
    )
  return arrays


class VitTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(gin.clear_config)

  def _folder(self):
    return self.create_tempdir().full_path

  def _changed(self, arrays=(), drop=(), prefix='', **config):
    """A copy of the fixture, changed."""
    opened = weight_files.open_weights(_fixture())
    kept = {
      prefix + name: opened.read(name)
      for name in opened.shapes
      if name not in drop
    }
    folder = self._folder()
    weight_files.write_model(
      folder, kept | dict(arrays), {**opened.config, **config}
    )
    return folder

  def test_last_hidden_state(self):
    source = weight_sources.open_source(_fixture())
    model = vit.build_image_model(vit.detect(source.shapes, source.config))
    report = vit.load(model, source)
    self.assertLen(report.rows, len(model.variables))
    self.assertEqual(
      report.count('matched') + report.count('transformed'),
      len(model.variables),
    )
    data = np.load(_fixture() / 'io.npz')
    self.assertAllClose(
      _outputs(model, data['pixel_values']),
      data['last_hidden_state'],
      atol=2e-5,
      rtol=2e-5,
    )

  @parameterized.parameters(1, 2, 3, 4)
  def test_still_image(self, frames):
    model = _tower(frames=frames, slots=2)
    report = _load(model, _fixture())
    data = np.load(_fixture() / 'io.npz')
    # One slot of time reads the first rows of the table.
    self.assertAllClose(
      _outputs(model, data['pixel_values']),
      data['last_hidden_state'],
      atol=2e-5,
      rtol=2e-5,
    )
    table = model.video_tower.embedding.position_embedding.tables[
      'full'
    ].numpy()
    self.assertAllEqual(table[:4], table[4:])
    how = {row.target: row.how for row in report.rows}
    self.assertEqual(
      how['vatt/video_embedding/position_embedding/full'],
      'without CLS, repeated for 2 slots of time',
    )
    if frames > 1:
      self.assertEqual(
        how['vatt/video_embedding/tokenizer/kernel'],
        f'kernel inflated from 16x16 to {frames}x16x16',
      )

  def test_other_towers_stay(self):
    model = _tower()
    before = _values(model)
    report = _load(model, _fixture())
    new = [row.target for row in report.rows if row.status == 'new']
    self.assertCountEqual(
      new, [n for n in before if not n.startswith('vatt/video_')]
    )
    after = _values(model)
    for name in new:
      self.assertAllEqual(before[name], after[name])

  def test_image_classifier(self):
    other = np.ones([2, 3], np.float32)
    folder = self._changed(
      {'classifier.weight': other, 'vit.pooler.dense.bias': other[0]},
      prefix='vit.',
    )
    model = _tower()
    report = _load(model, folder)
    self.assertEqual(
      {
        row.sources[0]: row.how
        for row in report.rows
        if row.status == 'ignored'
      },
      {
        'classifier.weight': 'classes of the task that it was trained for',
        'vit.pooler.dense.bias': (
          'the pooler: the feature is the output of CLS itself'
        ),
      },
    )
    expected = _tower()
    _load(expected, _fixture())
    self.assertAllEqual(
      model.video_tower.encoder.norm.gamma,
      expected.video_tower.encoder.norm.gamma,
    )

  def _npz(self, **changes):
    arrays = _npz_arrays(weight_files.open_weights(_fixture()).read)
    arrays |= {
      'head/kernel': np.ones([32, 3], np.float32),
      'head/bias': np.ones([3], np.float32),
      'pre_logits/kernel': np.ones([32, 32], np.float32),
      **changes,
    }
    path = os.path.join(self._folder(), 'ViT-B_16.npz')
    np.savez(path, **arrays)
    return path

  def test_npz(self):
    expected, model = _tower(slots=2), _tower(slots=2)
    _load(expected, _fixture())
    report = _load(model, self._npz())
    expected, found = _values(expected), _values(model)
    rows = {row.target: row for row in report.rows}
    self.assertEqual(report.count('ignored'), 3)
    self.assertIn('tanh', report.notes[0])
    for name, value in expected.items():
      if rows[name].status != 'new':
        self.assertEqual(value.tobytes(), found[name].tobytes(), name)

  def test_hybrid(self):
    path = self._npz(
      **{'embedding/kernel': np.ones([1, 1, 24, 32], np.float32)}
    )
    with self.assertRaisesRegex(ValueError, 'hybrids.*1, 1, 24, 32'):
      _load(_tower(), path)

  @parameterized.parameters(False, True)
  def test_factorized_positions(self, use_norm):
    """Against least squares that is solved as a system of equations."""
    make = patch_tower.PatchTower if use_norm else _WithoutNorm
    tower = make('video', input_size=(8, (32, 48)), size=_SIZE)
    model = vatt.VATT({'video': tower}, head=None)
    model.build()
    random = np.random.default_rng(1)
    positions = random.normal(size=[1, 7, 32]).astype(np.float32)
    folder = self._changed(
      {'embeddings.position_embeddings': positions}, image_size=[32, 48]
    )
    report = _load(model, folder, factorize_positions=True)
    # Columns: a constant, two rows and three columns of patches.
    design = np.zeros([6, 6])
    design[:, 0] = 1
    for k in range(6):
      design[k, 1 + k // 3] = design[k, 3 + k % 3] = 1
    wanted = positions[0, 1:].astype(np.float64)
    fitted = design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    if use_norm:
      unit = fitted - fitted.mean(1, keepdims=True)
      unit /= np.sqrt(fitted.var(1, keepdims=True) + 1e-6)
      for c in range(32):
        line = np.stack([unit[:, c], np.ones(6)], 1)
        fitted[:, c] = line @ np.linalg.lstsq(line, wanted[:, c], rcond=None)[0]
    found = model.video_tower.embedding.position_embedding.positions((2, 2, 3))
    self.assertAllClose(found[:6], fitted, atol=1e-5)
    self.assertAllClose(found[6:], fitted, atol=1e-5)
    residual = np.linalg.norm(wanted - fitted) / np.linalg.norm(wanted)
    self.assertGreater(residual, 0.1)
    self.assertEqual(
      report.notes,
      [f'Positions factorized: relative RMS of the residual {residual:.4f}.'],
    )

  def test_separable_positions_are_factorized_exactly(self):
    random = np.random.default_rng(2)
    rows, columns = random.normal(size=[2, 2, 32]).astype(np.float32)
    positions = (rows[:, None] + columns).reshape(4, 32)
    folder = self._changed(
      {
        'embeddings.position_embeddings': np.pad(positions, [[1, 0], [0, 0]])[
          None
        ]
      }
    )
    tower = _WithoutNorm('video', input_size=(4, 32), size=_SIZE)
    model = vatt.VATT({'video': tower}, head=None)
    model.build()
    report = _load(model, folder, factorize_positions=True)
    self.assertEndsWith(report.notes[0], 'residual 0.0000.')
    self.assertAllClose(
      model.video_tower.embedding.position_embedding.positions((1, 2, 2)),
      positions,
      atol=1e-5,
    )

  @parameterized.parameters(1, 2, 4)
  def test_round_trip(self, frames):
    first, second = (
      _tower(frames=frames, slots=2),
      _tower(frames=frames, slots=2),
    )
    _load(first, _fixture())
    folder = self._folder()
    vit.export(first, folder)
    report = _load(second, folder)
    values, again = _values(first), _values(second)
    rows = {row.target: row for row in report.rows}
    for name, value in values.items():
      if rows[name].status != 'new':
        self.assertEqual(value.tobytes(), again[name].tobytes(), name)

  def test_export_is_the_fixture(self):
    source = weight_sources.open_source(_fixture())
    model = vit.build_image_model(vit.detect(source.shapes, source.config))
    vit.load(model, source)
    folder = self._folder()
    vit.export(model, folder)
    written = weight_files.open_weights(folder)
    self.assertEqual(written.shapes, source.shapes)
    for name in written.shapes:
      if name not in ('embeddings.cls_token', 'embeddings.position_embeddings'):
        self.assertAllEqual(written.read(name), source.read(name))
    cls, positions = 'embeddings.cls_token', 'embeddings.position_embeddings'
    self.assertAllEqual(
      written.read(cls)[0, 0] + written.read(positions)[0, 0],
      source.read(cls)[0, 0] + source.read(positions)[0, 0],
    )
    for name, value in written.config.items():
      self.assertEqual(value, source.config[name], name)

  def test_tower_of_the_release_as_an_image_model(self):
    # Norm and temporal table are baked in, voxels summed.
    model = _tower(frames=4, slots=2, video_form='release')
    _randomize(model)
    folder = self._folder()
    vit.export(model, folder)
    source = weight_sources.open_source(folder)
    image_model = vit.build_image_model(
      vit.detect(source.shapes, source.config)
    )
    vit.load(image_model, source)
    pixels = np.load(_fixture() / 'io.npz')['pixel_values']
    self.assertAllClose(
      _outputs(image_model, pixels),
      _outputs(model, pixels),
      atol=1e-5,
      rtol=1e-5,
    )

  @parameterized.parameters(
    {'video_form': 'vit'},
    {
      'video_form': 'release',
      'video_patch_size': (4, 16, 8),
      'frame_size': (32, 48),
    },
  )
  def test_transformers_agrees(self, **arguments):
    model = _tower(frames=4, slots=2, **arguments)
    if arguments['video_form'] == 'vit':
      _load(model, _fixture())
    _randomize(model)
    folder = self._folder()
    vit.export(model, folder)
    random = np.random.default_rng(3)
    size = arguments.get('frame_size', (32, 32))
    pixels = random.uniform(-1, 1, [2, 3, *size]).astype(np.float32)
    states, lost = transformers_reference.last_hidden_state(
      'ViTModel', folder, pixel_values=pixels
    )
    self.assertEqual(lost, '{}')
    self.assertAllClose(_outputs(model, pixels), states, atol=1e-5, rtol=1e-5)

  @parameterized.parameters(
    (
      {'size': _SIZE._replace(d_model=16, d_kv=4)},
      r'`video/Size.d_model` is 32 in .* 16 in .*so do video/Size.d_kv\. .*'
      r'video/Size.d_model = 32',
    ),
    ({'size': _SIZE._replace(num_layers=1)}, '`video/Size.num_layers` is 2'),
    (
      {'size': _SIZE._replace(num_heads=8, d_kv=4)},
      r'`video/Size.num_heads` is 4 .* 8 .*; so do video/Size.d_kv\.',
    ),
    (
      {'frame_size': 64},
      r'`FRAME_SIZE` is \(32, 32\) .*\(64, 64\)',
    ),
    (
      {'video_patch_size': (4, 8, 8), 'frame_size': 16},
      r'`video/PatchTower.patch_size` is \(4, 16, 16\) .*\(4, 8, 8\)',
    ),
    ({'video_form': 'release'}, "form = 'vit', or .*--factorize_pos"),
  )
  def test_sizes_that_differ(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      _load(_tower(**arguments), _fixture())

  @parameterized.parameters(
    ({'layer_norm_eps': 1e-6}, '`epsilon` is 1e-06 .* and 1e-12'),
    ({'hidden_act': 'relu'}, "`hidden_act` must be 'gelu'"),
    ({'qkv_bias': False}, '`qkv_bias` must be True'),
    ({'image_size': 64}, 'Received: 4 patches, image_size=64'),
  )
  def test_configs_that_differ(self, config, message):
    with self.assertRaisesRegex(ValueError, message):
      _load(_tower(), self._changed(**config))

  def test_other_files(self):
    with self.assertRaisesRegex(ValueError, 'no ViT.*1 arrays: shared.weight'):
      vit.detect({'shared.weight': (3, 8)})
    folder = self._changed(drop=['embeddings.cls_token'])
    with self.assertRaisesRegex(ValueError, 'part of one.*cls_token of 3'):
      _load(_tower(), folder)
    folder = self._changed()
    os.remove(os.path.join(folder, 'config.json'))
    with self.assertRaisesRegex(ValueError, 'needs its config.json'):
      _load(_tower(), folder)
    path = self._npz()
    with open(path, 'r+b') as file:
      file.truncate(os.path.getsize(path) // 2)
    with self.assertRaisesRegex(ValueError, 'no complete npz file'):
      _load(_tower(), path)

  def test_partial(self):
    lost = 'encoder.layer.1.output.dense.weight'
    folder = self._changed({'unknown': np.ones([1], np.float32)}, drop=[lost])
    model = _tower()
    with self.assertRaises(reports.ConversionError) as caught:
      _load(model, folder)
    self.assertEqual(
      {
        (row.status, row.target or row.sources[0], row.how)
        for row in caught.exception.report.rows
        if row.status in ('missing', 'unused')
      },
      {
        (
          'missing',
          'vatt/video_encoder/layer_1/feed_forward/wo/kernel',
          f'the checkpoint has no {lost}',
        ),
        ('unused', 'unknown', 'nothing takes it'),
      },
    )
    before = model.video_tower.encoder.layers[1].feed_forward.wo.kernel.numpy()
    _load(model, folder, allow_partial=True)
    self.assertAllEqual(
      model.video_tower.encoder.layers[1].feed_forward.wo.kernel, before
    )
    self.assertAllEqual(
      model.video_tower.encoder.layers[1].attention.q.kernel,
      weight_files.open_weights(_fixture())
      .read('encoder.layer.1.attention.attention.query.weight')
      .T,
    )

  def test_video_form(self):
    with self.assertRaisesRegex(ValueError, r"\['release', 'vit'\].*='t5'"):
      _tower(video_form='t5')
    with self.assertRaisesRegex(ValueError, 'release.*serves all modalities'):
      vatt_models.build_vatt(_SMALL, vocabulary_size=10, video_form='vit')

  def test_factorizing_what_is_exact(self):
    with self.assertRaisesRegex(ValueError, 'holds them exactly'):
      _load(_tower(), _fixture(), factorize_positions=True)

  def test_models_without_such_a_tower(self):
    agnostic = vatt_models.build_vatt(
      _SMALL, vocabulary_size=10, pairs=('video_text',)
    )
    no_video = vatt_models.build_vatt(
      audio_size=_SMALL,
      text_size=_SMALL,
      vocabulary_size=10,
      pairs=('audio_text',),
    )
    for convert in (
      lambda model: _load(model, _fixture()),
      lambda model: vit.export(model, self._folder()),
    ):
      with self.assertRaisesRegex(ValueError, 'modality-agnostic.*Dense'):
        convert(agnostic)
      with self.assertRaisesRegex(ValueError, "none, only .'audio', 'text'"):
        convert(no_video)
    with self.assertRaisesRegex(ValueError, 'must be 32. Received: num_h'):
      vit.export(_tower(_SIZE._replace(d_kv=4)), self._folder())

  def test_dense_after_the_encoder(self):
    tower = patch_tower.PatchTower(
      'video', size=_SIZE, form='vit', d_post_projection=8
    )
    model = vatt.VATT({'video': tower}, head=None)
    model.build()
    with self.assertRaisesRegex(ValueError, 'Dense layer there.*exactly'):
      vit.export(model, self._folder())

  @parameterized.parameters(False, True)
  def test_gin_config(self, factorize_positions):
    source = weight_sources.open_source(_fixture())
    found = vit.detect(source.shapes, source.config)
    files, bindings = vit.gin_config(found, factorize_positions)
    small = [
      'audio/PatchTower.size = @audio/Size()',
      'TextTower.size = @text/Size()',
    ] + [
      f'{scope}/Size.{key} = {value}'
      for scope in ('audio', 'text')
      for key, value in zip(_SMALL._fields, _SMALL)
    ]
    gin_utils.parse(files, [*bindings, *small, 'VOCABULARY_SIZE = 10'])
    model = gin_utils.get_task().build_model()
    report = vit.load(model, source, factorize_positions=factorize_positions)
    self.assertEqual(report.count('unused') + report.count('missing'), 0)
    self.assertEqual(
      json.loads(json.dumps(report.as_json()))['counts']['new'],
      report.count('new'),
    )


if __name__ == '__main__':
  tf.test.main()
