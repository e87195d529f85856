"""T5's encoder: outputs of the original, towers, files that do not fit."""

import json
import os

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import sentence_pieces, shared_data, vatt_models
from tests.checkpoints import transformers_reference
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import plans, reports, t5, weight_files, weight_sources
from vatt_tf.core import gin_utils
from vatt_tf.input_pipeline import text
from vatt_tf.layers import relative_position_bias
from vatt_tf.models import sizes

_FORMS = ('t5_v1_0', 't5_v1_1')
_VIDEO = sizes.Size(1, 8, 16, 2, 4)


def _fixture(form):
  return shared_data.path('fixtures', form)


def _tower(form, **overrides):
  """A model whose text tower has the sizes of a fixture."""
  config = json.loads((_fixture(form) / 'config.json').read_text())
  size = {
    key: config[key]
    for key in ('num_layers', 'd_model', 'd_ff', 'num_heads', 'd_kv')
  }
  arguments = {
    'text_form': form,
    'd_embedding': None,
    'vocabulary_size': 120,
  }
  for key, value in overrides.items():
    (size if key in size else arguments)[key] = value
  return vatt_models.build_vatt(
    video_size=_VIDEO,
    text_size=sizes.Size(**size),
    num_frames=4,
    frame_size=16,
    d_va=4,
    d_vt=4,
    pairs=('video_text',),
    **arguments,
  )


def _load(model, path, **options):
  return t5.load(model, weight_sources.open_source(path), **options)


def _values(model):
  return {
    name: variable.numpy()
    for name, variable in plans.target_variables(model).items()
  }


def _randomize(model, seed=0):
  """New values for all weights, so that none is as it was initialised."""
  random = np.random.default_rng(seed)
  for variable in model.variables:
    noise = random.normal(scale=0.1, size=variable.shape)
    variable.assign_add(noise.astype(np.float32))


class T5Test(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(gin.clear_config)

  def _folder(self):
    return self.create_tempdir().full_path

  def _changed(self, form, arrays=(), drop=(), prefix='', **config):
    """A copy of a fixture, changed."""
    opened = weight_files.open_weights(_fixture(form))
    kept = {name: opened.read(name) for name in opened.shapes}
    kept = {name: x for name, x in kept.items() if name not in drop}
    kept |= dict(arrays)
    folder = self._folder()
    weight_files.write_model(
      folder,
      {prefix + name: value for name, value in kept.items()},
      {**opened.config, **config},
    )
    return folder

  @parameterized.parameters(*_FORMS)
  def test_last_hidden_state(self, form):
    source = weight_sources.open_source(_fixture(form))
    found = t5.detect(source.shapes, source.config)
    self.assertEqual(found.kind, form)
    model = t5.build_encoder(found)
    report = _load(model, _fixture(form))
    self.assertEqual(
      report.count('matched') + report.count('transformed'),
      len(model.variables),
    )
    self.assertLen(report.rows, len(model.variables))
    self.assertLen(report.rows, len(source.shapes))
    data = np.load(_fixture(form) / 'io.npz')
    feature, states = model.text_tower(data['input_ids'], need_tokens=True)
    self.assertIsNone(feature)
    mask = data['attention_mask'].astype(bool)
    self.assertAllEqual(mask, data['input_ids'] != 0)
    self.assertAllClose(states, data['last_hidden_state'], atol=2e-5, rtol=2e-5)

  @parameterized.parameters(*_FORMS)
  def test_buckets(self, form):
    data = np.load(_fixture(form) / 'buckets.npz')
    arrays = {name: data[name] for name in data}
    offsets = next(v for k, v in arrays.items() if 'bucket' not in k)
    buckets = next(v for k, v in arrays.items() if 'bucket' in k)
    self.assertAllEqual(
      relative_position_bias.relative_buckets(offsets, 32, 128), buckets
    )

  @parameterized.parameters(*_FORMS)
  def test_tower(self, form):
    model = _tower(form)
    before = _values(model)
    report = _load(model, _fixture(form))
    arrays = weight_files.open_weights(_fixture(form))
    self.assertAllEqual(
      model.text_tower.embedding.table.embeddings, arrays.read('shared.weight')
    )
    self.assertAllEqual(
      model.text_tower.encoder.layers[1].attention.q.kernel,
      arrays.read('encoder.block.1.layer.0.SelfAttention.q.weight').T,
    )
    new = {row.target: row for row in report.rows if row.status == 'new'}
    self.assertEqual(new['vatt/text_embedding/agg'].how, 'T5 has no AGG vector')
    after = _values(model)
    for name, value in before.items():
      is_kept = np.array_equal(value, after[name])
      is_ones = name.endswith('scale')  # the fixture's may be ones too
      self.assertTrue(is_kept == (name in new) or is_ones, name)
    self.assertTrue(
      all(name.startswith('vatt/text_') for name in before if name not in new)
    )

  @parameterized.parameters(*_FORMS)
  def test_tower_as_words_of_an_encoder(self, form):
    # What T5's encoder computes with AGG for a word is the tower's output.
    model = _tower(form)
    _load(model, _fixture(form))
    folder = self._folder()
    t5.export(model, folder)
    opened = weight_files.open_weights(folder)
    config = {**opened.config}
    agg_id = config.pop('agg_token_id')
    encoder = t5.build_encoder(t5.detect(opened.shapes, config))
    source = weight_sources.open_source(folder)
    reports.apply(t5.plan(source.shapes, encoder, config), encoder, source)
    ids = np.load(_fixture(form) / 'io.npz')['input_ids']
    feature, tokens = model.text_tower(ids, need_tokens=True)
    _, states = encoder.text_tower(
      np.pad(ids, [[0, 0], [1, 0]], constant_values=agg_id), need_tokens=True
    )
    self.assertAllClose(states[:, 0], feature, atol=1e-5, rtol=1e-5)
    self.assertAllClose(states[:, 1:], tokens, atol=1e-5, rtol=1e-5)

  @parameterized.parameters('', 'text_model.')
  def test_whole_model(self, prefix):
    other = np.ones([2, 3], np.float32)
    folder = self._changed(
      't5_v1_0',
      arrays={
        'decoder.block.0.layer.0.SelfAttention.q.weight': other,
        'decoder.embed_tokens.weight': other,
        'encoder.embed_tokens.weight': other,
        'lm_head.weight': other,
      },
      prefix=prefix,
    )
    model = _tower('t5_v1_0')
    report = _load(model, folder)
    self.assertAllEqual(
      model.text_tower.embedding.table.embeddings,
      weight_files.open_weights(_fixture('t5_v1_0')).read('shared.weight'),
    )
    decoder = 'the decoder, which the text tower does not have'
    table = f'{prefix}shared.weight'
    self.assertEqual(
      {
        row.sources[0].removeprefix(prefix): row.how
        for row in report.rows
        if row.status == 'ignored'
      },
      {
        'decoder.block.0.layer.0.SelfAttention.q.weight': decoder,
        'decoder.embed_tokens.weight': decoder,
        'encoder.embed_tokens.weight': f'tied: the same as {table}',
        'lm_head.weight': 'output layer of the decoder',
      },
    )

  def test_table_by_its_other_name(self):
    table = weight_files.open_weights(_fixture('t5_v1_0')).read('shared.weight')
    folder = self._changed(
      't5_v1_0',
      arrays={'encoder.embed_tokens.weight': table},
      drop=['shared.weight'],
    )
    model = _tower('t5_v1_0')
    _load(model, folder)
    self.assertAllEqual(model.text_tower.embedding.table.embeddings, table)

  def test_without_config(self):
    folder = self._changed('t5_v1_0')
    os.remove(os.path.join(folder, 'config.json'))
    report = _load(_tower('t5_v1_0'), folder)
    self.assertIn('no config.json', report.notes[0])

  @parameterized.parameters(*_FORMS)
  def test_round_trip(self, form):
    first, second = _tower(form), _tower(form)
    _load(first, _fixture(form))
    folder = self._folder()
    t5.export(first, folder)
    report = _load(second, folder)
    values, again = _values(first), _values(second)
    new = {row.target for row in report.rows if row.status == 'new'}
    self.assertNotIn('vatt/text_embedding/agg', new)
    for name, value in values.items():
      if name not in new:
        self.assertEqual(value.tobytes(), again[name].tobytes(), name)
    other_folder = self._folder()
    t5.export(second, other_folder)
    for name in ('model.safetensors', 'config.json'):
      with open(os.path.join(folder, name), 'rb') as file:
        content = file.read()
      with open(os.path.join(other_folder, name), 'rb') as file:
        self.assertEqual(file.read(), content)

  @parameterized.parameters(*_FORMS)
  def test_export_is_the_fixture(self, form):
    source = weight_sources.open_source(_fixture(form))
    model = t5.build_encoder(t5.detect(source.shapes, source.config))
    _load(model, _fixture(form))
    folder = self._folder()
    t5.export(model, folder)
    written = weight_files.open_weights(folder)
    self.assertEqual(written.shapes, source.shapes)
    for name in written.shapes:
      self.assertAllEqual(written.read(name), source.read(name))
    for name, value in written.config.items():
      self.assertEqual(
        value, source.config[name] if name != 'dropout_rate' else 0.0, name
      )

  @parameterized.parameters(
    ('t5_v1_0', None), ('t5_v1_1', None), ('t5_v1_0', 12)
  )
  def test_transformers_agrees(self, form, d_embedding):
    model = _tower(form, d_embedding=d_embedding)
    if d_embedding is None:
      _load(model, _fixture(form))
    _randomize(model)
    folder = self._folder()
    t5.export(model, folder)
    config = weight_files.open_weights(folder).config
    ids = np.load(_fixture(form) / 'io.npz')['input_ids'].astype(np.int64)
    ids_with_agg = np.pad(
      ids, [[0, 0], [1, 0]], constant_values=config['agg_token_id']
    )
    states, lost = transformers_reference.last_hidden_state(
      'T5EncoderModel',
      folder,
      input_ids=ids_with_agg,
      attention_mask=(ids_with_agg != 0).astype(np.int64),
    )
    self.assertEqual(lost, '{}')
    feature, tokens = model.text_tower(ids, need_tokens=True)
    self.assertAllClose(states[:, 0], feature, atol=1e-5, rtol=1e-5)
    self.assertAllClose(states[:, 1:], tokens, atol=1e-5, rtol=1e-5)

  @parameterized.parameters(
    ({'d_model': 16}, r'`text/Size.d_model` is 32 in .* 16 in .*d_model = 32'),
    ({'num_layers': 1}, r'`text/Size.num_layers` is 2 .* and 1'),
    ({'d_ff': 32}, r'`text/Size.d_ff` is 64 .* and 32'),
    (
      {'num_heads': 8, 'd_kv': 4},
      r'`text/Size.num_heads` is 4 .* 8 .*; so do text/Size.d_kv\.',
    ),
    (
      {'vocabulary_size': 100},
      r'`TextTower.vocabulary_size` is 120 .* 100 .*VOCABULARY_SIZE = 120',
    ),
    (
      {'text_form': 'release'},
      r"`TextTower.form` is 't5_v1_0' .* 'release' .*"
      r"TextTower.form = 't5_v1_0'",
    ),
    ({'d_embedding': 300}, r'`TextTower.d_embedding` is None .* and 300'),
  )
  def test_sizes_that_differ(self, overrides, message):
    with self.assertRaisesRegex(ValueError, message):
      _load(_tower('t5_v1_0', **overrides), _fixture('t5_v1_0'))

  @parameterized.parameters(
    (
      {'relative_attention_max_distance': 64},
      '`TextTower.max_relative_distance` is 64',
    ),
    ({'layer_norm_epsilon': 1e-5}, '`epsilon` is 1e-05 .* and 1e-06'),
    ({'feed_forward_proj': 'gated-silu'}, "Received: .*'gated-silu'"),
  )
  def test_configs_that_differ(self, config, message):
    folder = self._changed('t5_v1_0', **config)
    with self.assertRaisesRegex(ValueError, message):
      _load(_tower('t5_v1_0'), folder)

  def test_other_files(self):
    shapes = {'embeddings.cls_token': (1, 1, 8)}
    with self.assertRaisesRegex(ValueError, 'no T5 .*1 arrays: embeddings'):
      t5.detect(shapes)
    folder = self._changed('t5_v1_0', drop=['shared.weight'])
    with self.assertRaisesRegex(ValueError, 'part of a T5 .*shared.weight'):
      _load(_tower('t5_v1_0'), folder)
    folder = self._changed('t5_v1_0')
    path = os.path.join(folder, 'model.safetensors')
    with open(path, 'r+b') as file:
      file.truncate(os.path.getsize(path) // 2)
    with self.assertRaisesRegex(ValueError, 'no complete safetensors file'):
      _load(_tower('t5_v1_0'), folder)

  def test_partial(self):
    lost = 'encoder.block.1.layer.1.DenseReluDense.wo.weight'
    folder = self._changed(
      't5_v1_0',
      arrays={'encoder.final_layer_norm.weight': np.ones([5], np.float32)},
      drop=[lost],
    )
    model = _tower('t5_v1_0')
    with self.assertRaises(reports.ConversionError) as caught:
      _load(model, folder)
    rows = {row.target: row for row in caught.exception.report.rows}
    target = 'vatt/text_encoder/layer_1/feed_forward/wo/kernel'
    self.assertEqual(rows[target].status, 'missing')
    self.assertIn(lost, rows[target].how)
    self.assertEqual(rows['vatt/text_encoder/norm/scale'].status, 'misshapen')
    before = _values(model)
    _load(model, folder, allow_partial=True)
    after = _values(model)
    self.assertAllEqual(before[target], after[target])
    table = 'vatt/text_embedding/table/embeddings'
    self.assertNotAllEqual(before[table], after[table])

  def test_fewer_layers_in_part(self):
    model = _tower('t5_v1_1', num_layers=2)
    report = _load(model, _fixture('t5_v1_1'), allow_partial=True)
    self.assertEqual(report.count('missing'), 0)
    self.assertGreater(report.count('unused'), 0)
    # Other heads would take the same arrays for something else.
    with self.assertRaisesRegex(ValueError, 'num_heads` is 4'):
      _load(
        _tower('t5_v1_1', num_heads=8, d_kv=4),
        _fixture('t5_v1_1'),
        allow_partial=True,
      )

  def test_models_without_such_a_tower(self):
    agnostic = vatt_models.build_vatt(
      _VIDEO, vocabulary_size=120, d_embedding=None, pairs=('video_text',)
    )
    for convert in (
      lambda model: _load(model, _fixture('t5_v1_0')),
      lambda model: t5.export(model, self._folder()),
    ):
      with self.assertRaisesRegex(ValueError, 'this model is modality-agn'):
        convert(agnostic)
      model = vatt_models.build_vatt(
        video_size=_VIDEO, audio_size=_VIDEO, pairs=('video_audio',)
      )
      with self.assertRaisesRegex(ValueError, "none, only .'video', 'audio'"):
        convert(model)
    with self.assertRaisesRegex(ValueError, 'exactly: .* form release'):
      t5.export(_tower('t5_v1_0', text_form='release'), self._folder())

  def _tokenizer(self):
    path = os.path.join(self._folder(), 'of_t5.model')
    with open(path, 'wb') as file:
      file.write(sentence_pieces.train())
    return path

  def test_tokenizer(self):
    path = self._tokenizer()
    source = weight_sources.open_source(_fixture('t5_v1_1'))
    found = t5.detect(source.shapes, source.config)
    t5.check_tokenizer(path, found)
    files, bindings = t5.gin_config(found)
    gin_utils.parse(files, bindings + t5.tokenizer_bindings(path))
    config = gin.get_configurable(text.TextConfig)()
    tokenizer = text.make_tokenizer(config)
    ids, _ = text.encode_captions(
      tf.constant(['the red ball']), tokenizer, config
    )
    words = tokenizer.tokenize(tf.constant(['the red ball'])).to_list()[0]
    self.assertEqual(
      ids[0].numpy().tolist()[: len(words) + 1],
      [*words, 1],  # </s>
    )

  @parameterized.parameters(8, 1000)
  def test_tokenizer_of_another_vocabulary(self, rows):
    path = self._tokenizer()
    source = weight_sources.open_source(_fixture('t5_v1_0'))
    shapes = {**source.shapes, 'shared.weight': (rows, 32)}
    found = t5.detect(shapes, source.config)
    with self.assertRaisesRegex(
      ValueError, rf'table has {rows} rows.*of_t5.model with \d+ pieces'
    ):
      t5.check_tokenizer(path, found)

  @parameterized.parameters(*_FORMS)
  def test_gin_config(self, form):
    source = weight_sources.open_source(_fixture(form))
    files, bindings = t5.gin_config(t5.detect(source.shapes, source.config))
    small = [
      'video/PatchTower.size = @video/Size()',
      'audio/PatchTower.size = @audio/Size()',
    ] + [
      f'{scope}/Size.{key} = {value}'
      for scope in ('video', 'audio')
      for key, value in zip(_VIDEO._fields, _VIDEO)
    ]
    gin_utils.parse(files, [*bindings, *small])
    model = gin_utils.get_task().build_model()
    report = _load(model, _fixture(form))
    self.assertEqual(report.count('unused') + report.count('missing'), 0)


if __name__ == '__main__':
  tf.test.main()
