"""The convert command: what it writes is trained from, and evaluated."""

import json
import os

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import mains, sentence_pieces, shared_data
from tests.checkpoints import checkpoint_files
from vatt_tf import convert
from vatt_tf.checkpoints import manager, reports, t5, vit, weight_sources
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import runner
from vatt_tf.input_pipeline import text
from vatt_tf.training import loop

# The sizes of the fixtures, whose attention is too narrow to tell its heads.
_UT_FAC = (
  'NUM_FRAMES=8',
  'FRAME_SIZE=48',
  'NUM_AUDIO_SAMPLES=1280',
  'AUDIO_RATE=1600',
  'MAX_WORDS=6',
  'VOCABULARY_SIZE=96',
  'share_encoder.size=@Size()',
  'Size.num_layers=2',
  'Size.d_model=32',
  'Size.d_ff=64',
  'Size.num_heads=4',
  'Size.d_kv=8',
  'share_encoder.d_post_projection=40',
  'TextTower.d_embedding=12',
  'ProjectionHead.d_va=24',
  'ProjectionHead.d_vt=16',
)
_GIN_FILE = 'gin/pretrain_ma_medium.gin'
_AUDIO = (
  "MODALITY = 'audio'",
  'VIDEO_INPUT = None',
  'AUDIO_INPUT = @AudioConfig()',
  'NUM_TEST_CROPS = 1',
  'train/LabelConfig.is_multi_label = True',
)


def _classifier(modality, size, is_agnostic=False, **macros):
  numbers = ('num_layers', 'd_model', 'd_ff', 'num_heads', 'd_kv')
  if is_agnostic:
    towers = [
      'TOWERS = @share_encoder()',
      f"share_encoder.towers = {{'{modality}': @{modality}/PatchTower}}",
      'share_encoder.size = @Size()',
      'share_encoder.d_post_projection = 44',
    ]
  else:
    towers = [
      f"TOWERS = {{'{modality}': @{modality}/PatchTower()}}",
      f'{modality}/PatchTower.size = @Size()',
    ]
  macros = {
    'NUM_CLASSES': 7,
    'TRAIN_RECORDS': '',
    'EVAL_RECORDS': '',
    'TABLE_FRAMES': 8,
    'TABLE_FRAME_SIZE': 48,
    'TABLE_AUDIO_SAMPLES': 1280,
    **macros,
  }
  return [
    "include 'gin/runs/finetune.gin'",
    *(_AUDIO if modality == 'audio' else ()),
    *towers,
    *(f'Size.{name} = {value}' for name, value in zip(numbers, size)),
    *(f'{name} = {value!r}' for name, value in macros.items()),
  ]


def _params(*params):
  return [f'--gin_param={param}' for param in params]


class LibraryTest(parameterized.TestCase, tf.test.TestCase):
  """From a released file to numbers, by way of the written checkpoint."""

  def setUp(self):
    super().setUp()
    self.output = os.path.join(self.get_temp_dir(), 'output')

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _folder(self, fixture):
    return shared_data.path('fixtures', fixture)

  def _restored(self):
    """The model that config.gin describes, with the weights beside it."""
    gin_utils.parse([os.path.join(self.output, 'config.gin')])
    model = gin_utils.get_task().build_model()
    manager.restore_model(model, manager.resolve(self.output))
    return model

  @parameterized.parameters('ut_fac', 'ut_fac_highres')
  def test_pretrained(self, fixture):
    folder = self._folder(fixture)
    path, report = convert.import_checkpoint(
      'released_vatt', folder / 'ckpt-3', self.output, [_GIN_FILE], _UT_FAC
    )
    self.assertEqual(path, os.path.join(self.output, 'ckpt-0'))
    self.assertEqual(report.count('ignored'), 2)
    data = np.load(folder / 'io.npz')
    model = self._restored()
    features = {
      'video': data['in/video'],
      'audio': data['in/audio'],
      'text': data['in/text'][:, None],
    }

    calls = [model]
    if fixture == 'ut_fac_highres':  # in a graph the positions are stretched
      calls.append(tf.function(model, autograph=False))
    for call in calls:
      outputs = call(features)
      for name, key in (
        ('video_feature', 'video/features_pooled'),
        ('audio_feature', 'audio/features_pooled'),
        ('text_feature', 'text/features_pooled'),
        ('video_va', 'head_stack/bridge/video/toaud'),
        ('video_vt', 'head_stack/bridge/video/totxt'),
        ('audio_va', 'head_stack/bridge/audio/tovid'),
        ('text_vt', 'head_stack/bridge/text/tovid'),
      ):
        expected = data[f'out/{key}']
        got = np.reshape(outputs[name], expected.shape)
        self.assertAllClose(got, expected, atol=2e-5, rtol=0, msg=name)
    with open(os.path.join(self.output, 'origin.json')) as file:
      origin = json.load(file)
    self.assertEqual(origin['source'], 'released_vatt')
    self.assertEqual(origin['path'], str(folder / 'ckpt-3'))

  def test_gin_says_how_to_interpolate(self):
    folder = self._folder('ut_fac')
    convert.import_checkpoint(
      'released_vatt',
      folder / 'ckpt-3',
      self.output,
      [_GIN_FILE],
      [*_UT_FAC, "PatchTower.position_interpolation='exact'"],
    )
    model = self._restored()
    self.assertEqual(model.audio_tower.position_interpolation, 'exact')

  @parameterized.parameters(
    ('finetuned_vit', _classifier('video', (2, 32, 64, 4, 8))),
    (
      'finetuned_vit_ma',
      _classifier('video', (2, 32, 64, 4, 8), is_agnostic=True),
    ),
    (
      'finetuned_wat',
      _classifier('audio', (2, 24, 48, 3, 8), IS_MULTI_LABEL=True),
    ),
  )
  def test_classifier(self, fixture, params):
    folder = self._folder(fixture)
    gin_file = os.path.join(self.get_temp_dir(), 'classifier.gin')
    with open(gin_file, 'w') as file:
      file.write('\n'.join(params))
    convert.import_checkpoint(
      'released_vatt', folder / 'ckpt-3', self.output, [gin_file]
    )
    model = self._restored()
    data = np.load(folder / 'io.npz')
    name = f'in/{model.modality}'
    outputs = model.classify({model.modality: data[name]}, num_windows=2)
    for name, value in outputs.items():
      self.assertAllClose(value, data[f'out/{name}'], atol=2e-5, rtol=0)

  def test_sizes_are_those_of_the_file(self):
    # As wide as released models: heads of 64.
    arrays = {
      name.removesuffix('/.ATTRIBUTES/VARIABLE_VALUE'): value
      for name, value in checkpoint_files.read(
        self._folder('finetuned_wat') / 'ckpt-3'
      ).items()
    }
    wide = {
      name: np.ones(
        [{24: 64, 48: 96}.get(size, size) for size in value.shape], np.float32
      )
      for name, value in arrays.items()
    }
    prefix = os.path.join(self.get_temp_dir(), 'ckpt-500000')
    checkpoint_files.write(prefix, wide)
    convert.import_checkpoint('released_vatt', prefix, self.output)
    model = self._restored()
    encoder = model.tower.encoder
    self.assertEqual((encoder.num_heads, encoder.d_kv), (1, 64))
    self.assertTrue(model.is_multi_label)
    for variable in model.variables:
      self.assertAllEqual(variable, tf.ones_like(variable))

  def _write_wide(self):
    """A classifier of sounds whose attention is 64 wide; returns its prefix."""
    rng = np.random.default_rng(0)
    arrays = {
      name.removesuffix('/.ATTRIBUTES/VARIABLE_VALUE'): rng.normal(
        0, 0.1, [{24: 64, 48: 96}.get(size, size) for size in value.shape]
      ).astype(np.float32)
      for name, value in checkpoint_files.read(
        self._folder('finetuned_wat') / 'ckpt-3'
      ).items()
    }
    prefix = os.path.join(self.get_temp_dir(), 'wide-500000')
    checkpoint_files.write(prefix, arrays)
    return prefix

  @parameterized.parameters((8, 8), (4, 16), (2, 32), (1, 64))
  def test_heads_that_are_stated_win(self, num_heads, d_kv):
    prefix = self._write_wide()
    sound = np.random.default_rng(1).normal(size=[1, 1280, 1])
    outputs = []
    for i, params in enumerate(
      (
        (f'Size.num_heads={num_heads}',),
        (f'Size.d_kv={d_kv}',),
        (f'Size.num_heads={num_heads}', f'Size.d_kv={d_kv}'),
      )
    ):
      output = f'{self.output}-{num_heads}-{i}'
      convert.import_checkpoint(
        'released_vatt', prefix, output, gin_params=params
      )
      gin_utils.parse([os.path.join(output, 'config.gin')])
      model = gin_utils.get_task().build_model()
      manager.restore_model(model, manager.resolve(output))
      encoder = model.tower.encoder
      self.assertEqual((encoder.num_heads, encoder.d_kv), (num_heads, d_kv))
      outputs.append(model({'audio': sound.astype(np.float32)})['logits'])
      # The released file fills the model that the gin files describe.
      own = gin_utils.get_task().build_model()
      manager.restore_model(own, prefix)
      outputs.append(own({'audio': sound.astype(np.float32)})['logits'])
    for other in outputs[1:]:
      self.assertAllEqual(outputs[0], other)

  def test_heads_that_do_not_fit(self):
    prefix = self._write_wide()
    for params, message in (
      (('Size.num_heads=7',), r'num_heads` must divide 64.*num_heads=7'),
      (('Size.d_kv=0',), r'd_kv` must divide 64.*d_kv=0'),
      (
        ('Size.num_heads=8', 'Size.d_kv=16'),
        r'Size.num_heads \* Size.d_kv` is 64 in the checkpoint and 128',
      ),
    ):
      with self.assertRaisesRegex(ValueError, message):
        convert.import_checkpoint(
          'released_vatt', prefix, self.output, gin_params=params
        )

  def test_report_of_what_does_not_fit(self):
    arrays = checkpoint_files.read(self._folder('ut_fac') / 'ckpt-3')
    lost = next(name for name in arrays if 'vid_agg_embedding' in name)
    del arrays[lost]
    prefix = os.path.join(self.get_temp_dir(), 'ckpt-500000')
    checkpoint_files.write(prefix, arrays)
    report = os.path.join(self.get_temp_dir(), 'report.json')
    arguments = ('released_vatt', prefix, self.output, [_GIN_FILE], _UT_FAC)
    with self.assertRaises(reports.ConversionError):
      convert.import_checkpoint(*arguments, report_path=report)
    with open(report) as file:
      self.assertEqual(json.load(file)['counts']['missing'], 1)
    self.assertFalse(os.path.exists(self.output))
    convert.import_checkpoint(
      *arguments, allow_partial=True, report_path=report
    )
    manager.resolve(self.output)

  def test_nothing_is_written_over(self):
    os.mkdir(self.output)
    tf.train.CheckpointManager(
      tf.train.Checkpoint(a=tf.Variable(1.0)), self.output, max_to_keep=1
    ).save()
    with self.assertRaisesRegex(ValueError, '`output` must be a folder'):
      convert.import_checkpoint('released_vatt', 'anything', self.output)

  def test_options_of_other_sources(self):
    with self.assertRaisesRegex(ValueError, '`tokenizer` belongs to'):
      convert.import_checkpoint(
        'released_vatt', 'x', self.output, tokenizer='spiece.model'
      )
    with self.assertRaisesRegex(ValueError, '`factorize_positions` belongs'):
      convert.import_checkpoint(
        'released_vatt', 'x', self.output, factorize_positions=True
      )
    with self.assertRaisesRegex(ValueError, '`source` must be t5 or vit'):
      convert.export_checkpoint('released_vatt', 'x', self.output)


class OtherSourcesTest(parameterized.TestCase, tf.test.TestCase):
  """T5 and ViT: in, as a tower of a tiny model, and out again."""

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  @parameterized.parameters('t5_v1_1', 'vit')
  def test_in_and_out(self, fixture):
    source, module = ('vit', vit) if fixture == 'vit' else ('t5', t5)
    folder = str(shared_data.path('fixtures', fixture))
    opened = weight_sources.open_source(folder)
    sizes = ('num_layers=1', 'd_model=8', 'd_ff=16', 'num_heads=2', 'd_kv=4')
    found = module.detect(opened.shapes, opened.config)
    params = [
      'video/PatchTower.size=@video/Size()',
      'audio/PatchTower.size=@audio/Size()',
      'TextTower.size=@text/Size()',
      *(
        f'{modality}/Size.{size}'
        for modality in ('video', 'audio', 'text')
        for size in sizes
      ),
      'VOCABULARY_SIZE=8',
      *module.gin_config(found)[1],
    ]
    output = os.path.join(self.get_temp_dir(), 'output')
    _, report = convert.import_checkpoint(
      source, folder, output, ['gin/pretrain_ms_mbs.gin'], params
    )
    self.assertGreater(report.count('new'), 0)
    exported = os.path.join(self.get_temp_dir(), 'exported')
    convert.export_checkpoint(source, output, exported)
    again = weight_sources.open_source(exported)
    same = [
      name
      for name in opened.shapes
      if opened.shapes[name] == again.shapes.get(name)
      and np.allclose(opened.read(name), again.read(name), atol=1e-6)
    ]
    # CLS and its position are one vector, and T5's table has a row for AGG.
    lost = {'t5': 1, 'vit': 2}[source]
    self.assertLen(same, len(opened.shapes) - lost)

  @parameterized.parameters(True, False)
  def test_tokenizer(self, has_gin_file):
    folder = str(shared_data.path('fixtures', 't5_v1_1'))
    tokenizer = os.path.join(self.get_temp_dir(), 'downloaded.model')
    with open(tokenizer, 'wb') as file:
      file.write(sentence_pieces.train())
    params = [
      'video/PatchTower.size=@video/Size()',
      'audio/PatchTower.size=@audio/Size()',
    ] + [
      f'{modality}/Size.{size}'
      for modality in ('video', 'audio')
      for size in ('num_layers=1', 'd_model=8', 'd_ff=16', 'num_heads=2')
    ]
    gin_files = []
    if has_gin_file:
      opened = weight_sources.open_source(folder)
      found = t5.detect(opened.shapes, opened.config)
      gin_files, bindings = t5.gin_config(found)
      # A file of one's own, with another kind of vocabulary.
      gin_files.append(os.path.join(self.get_temp_dir(), 'own.gin'))
      with open(gin_files[-1], 'w') as file:
        file.write("VOCABULARY = 'words.txt'\nTextConfig.kind = 'word'\n")
      params += bindings
    output = os.path.join(self.get_temp_dir(), 'output')
    convert.import_checkpoint(
      't5', folder, output, gin_files, params, tokenizer=tokenizer
    )
    copied = os.path.join(output, 'spiece.model')
    with open(copied, 'rb') as file:
      self.assertEqual(file.read(), sentence_pieces.train())
    os.remove(tokenizer)
    gin_utils.parse([os.path.join(output, 'config.gin')])
    config = gin.get_configurable(text.TextConfig)()
    self.assertEqual(config.vocabulary, copied)
    words = text.make_tokenizer(config).tokenize(tf.constant(['the red ball']))
    self.assertGreater(words.shape[-1] or len(words[0]), 1)

  def test_tokenizer_of_another_vocabulary(self):
    folder = str(shared_data.path('fixtures', 't5_v1_1'))
    tokenizer = os.path.join(self.get_temp_dir(), 'downloaded.model')
    with open(tokenizer, 'w') as file:
      file.write('no model')
    output = os.path.join(self.get_temp_dir(), 'output')
    with self.assertRaisesRegex(ValueError, 'cannot be read as a SentencePie'):
      convert.import_checkpoint('t5', folder, output, tokenizer=tokenizer)
    self.assertFalse(os.path.exists(output))


class CommandTest(tf.test.TestCase):
  """From the shell."""

  def setUp(self):
    super().setUp()
    self.output = os.path.join(self.get_temp_dir(), 'output')
    self.vocabulary = os.path.join(self.get_temp_dir(), 'vocabulary.txt')
    words = ['<pad>', '<bos>', '<eos>', '<unk>', 'a', 'circle', 'red', 'blue']
    with open(self.vocabulary, 'w') as file:
      file.write('\n'.join(words) + '\n')
    self.released = str(shared_data.path('fixtures', 'ut_fac') / 'ckpt-3')
    self.addCleanup(gin.clear_config)
    sample = shared_data.REPOSITORY / 'data' / 'sample'
    self.params = _params(
      *_UT_FAC,
      f"VOCABULARY='{self.vocabulary}'",
      f"TRAIN_RECORDS='{sample}/train-*.tfrecord'",
      f"EVAL_RECORDS='{sample}/validation-*.tfrecord'",
    )

  def test_converts_then_evaluates_and_trains_from_either(self):
    result = mains.run(
      'convert',
      '--source=released_vatt',
      f'--checkpoint={self.released}',
      f'--output={self.output}',
      f'--gin_file={_GIN_FILE}',
      *self.params,
    )
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn('Released VATT, pre-trained, modality-ag', result.stdout)
    self.assertIn('ignored     - <- optimizer/_iterations', result.stdout)
    self.assertIn('In all: 82 matched, 2 transformed, 2 ignored', result.stdout)

    config = os.path.join(self.output, 'config.gin')
    found = []
    for checkpoint in (self.output, self.released):
      gin_utils.parse([config])
      metrics, _ = runner.evaluate(checkpoint)
      found.append(metrics)
    self.assertEqual(found[0], found[1])

    model_dir = os.path.join(self.get_temp_dir(), 'run')
    gin_utils.parse(
      [config],
      [
        f"INIT_CHECKPOINT='{self.released}'",
        'TRAIN_STEPS=1',
        'WARMUP_STEPS=0',
        'TextTower.is_table_frozen=True',
        'train.eval_dataset=None',
      ],
    )
    loop.train(model_dir)
    trained, converted = (
      weight_sources.open_source(folder) for folder in (model_dir, self.output)
    )
    table = 'model/text_embedding/table/embeddings'
    self.assertAllEqual(trained.read(table), converted.read(table))
    kernel = 'model/video_embedding/tokenizer/kernel'
    moved = np.abs(trained.read(kernel) - converted.read(kernel)).max()
    self.assertBetween(moved, 1e-12, 1e-3)

  def test_what_does_not_fit_ends_with_1(self):
    result = mains.run(
      'convert',
      '--source=released_vatt',
      f'--checkpoint={self.released}',
      f'--output={self.output}',
      f'--gin_file={_GIN_FILE}',
      *self.params,
      *_params('VOCABULARY_SIZE=50'),
    )
    self.assertEqual(result.returncode, 1)
    self.assertIn(
      'Error: The sizes differ: `TextTower.vocabulary_size` is 96 in the '
      'checkpoint and 50 in the model',
      result.stderr,
    )
    self.assertNotIn('Traceback', result.stderr)
    self.assertFalse(os.path.exists(self.output))


if __name__ == '__main__':
  tf.test.main()
