"""MMV's towers against the numbers of the published code."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import mmv_fixtures
from vatt_tf.models import (
  resnet_tower,
  s3d_tower,
  tsm_resnet_tower,
  word_tower,
)


def _build(tower, seed, backbone='s3d', scope='vatt/'):
  with tf.name_scope(scope):
    tower.build()
  mmv_fixtures.fill(tower, seed, backbone)
  return tower


def _video(fixture):
  return tf.constant(fixture['video'] / 127.5 - 1.0, tf.float64)


class S3DTowerTest(parameterized.TestCase, tf.test.TestCase):
  """Every endpoint, in double precision and in single precision."""

  @parameterized.product(
    first_layer=('plain', 'space_to_depth'), dtype=('float64', 'float32')
  )
  def test_endpoints(self, first_layer, dtype):
    expected = mmv_fixtures.arrays('s3d')
    about = mmv_fixtures.description('s3d')
    tower = s3d_tower.S3DTower(first_layer=first_layer, dtype=dtype)
    _build(tower, seed=about['seed'])
    noise = about['float32_noise'][f'{first_layer}/Embeddings']
    share = 10 * noise if dtype == 'float32' else 1e-6
    video = tf.cast(_video(expected), dtype)
    endpoints = tower.endpoints(video)
    maps = [
      key.removesuffix('.sample')
      for key in expected
      if key.startswith(f'{first_layer}/') and key.endswith('.sample')
    ]
    self.assertNotEmpty(maps)
    for key in maps:
      name = key.split('/')[1:]
      if len(name) == 1:
        x = endpoints[name[0].lower()]
        mmv_fixtures.assert_map(self, x, key, expected, about['arrays'], share)
    feature = tower(video).feature
    mmv_fixtures.assert_near(
      self, feature, expected[f'{first_layer}/Embeddings'], share
    )

  def test_inside_of_a_block(self):
    expected = mmv_fixtures.arrays('s3d')
    about = mmv_fixtures.description('s3d')
    tower = s3d_tower.S3DTower(first_layer='plain', dtype='float64')
    _build(tower, seed=about['seed'])
    endpoints = tower.endpoints(_video(expected))
    unit = tower.video_conv2d_2c_3x3
    scores = unit.self_gating.scores(unit.ungated(endpoints['conv2d_2b_1x1']))
    mmv_fixtures.assert_near(
      self, scores, expected['plain/Conv2d_2c_3x3/self_gating'], 1e-6
    )
    block = tower.video_mixed_3b
    seen = set()
    for layers in block._branches():
      x = endpoints['maxpool_3a_3x3']
      for layer in layers:
        name = layer.name.replace('branch', 'Branch').replace('conv', 'Conv')
        key = f'plain/Mixed_3b/{name}'
        if f'{key}/self_gating' in expected:
          scores = layer.self_gating.scores(layer.ungated(x))
          mmv_fixtures.assert_near(
            self, scores, expected[f'{key}/self_gating'], 1e-6
          )
        x = layer(x)
        if f'{key}.sample' in expected:
          mmv_fixtures.assert_map(self, x, key, expected, about['arrays'], 1e-6)
          seen.add(key)
    self.assertLen(
      seen, sum('Mixed_3b/B' in k and k.endswith('.sample') for k in expected)
    )

  @parameterized.parameters(('plain', 9_162_704), ('space_to_depth', 9_146_000))
  def test_parameters(self, first_layer, expected):
    tower = s3d_tower.S3DTower(first_layer=first_layer)
    tower.build()
    self.assertEqual(_count(tower.trainable_weights), expected)
    statistics = [
      w for w in tower.non_trainable_weights if 'num_updates' not in w.name
    ]
    self.assertEqual(_count(statistics), 21_088)

  def test_gradients_are_those_of_the_first_maximum(self):
    # Against differences: TensorFlow's own 3-D pool fails on ties here.
    x = tf.constant([0.0, 1, 1, 0, 2, 2], tf.float64)
    x = tf.reshape(x, [1, 6, 1, 1, 1])
    with tf.GradientTape() as tape:
      tape.watch(x)
      y = s3d_tower.space_time.max_pool(x, (2, 1, 1), (2, 1, 1))
    gradient = tape.gradient(y, x)
    self.assertAllEqual(np.ravel(gradient), [0, 1, 1, 0, 1, 0])

  @parameterized.parameters(
    ([1, 7, 32, 32, 3], 'even number of frames'),
    ([1, 8, 31, 32, 3], '31 x 32'),
    ([1, 8, 32, 32, 1], r'\(B, T, H, W, 3\)'),
  )
  def test_bad_input(self, shape, message):
    with self.assertRaisesRegex(ValueError, message):
      s3d_tower.S3DTower()(tf.zeros(shape))

  def test_costs_of_what_it_does_not_take(self):
    tower = s3d_tower.S3DTower()
    with self.assertRaisesRegex(ValueError, 'even number of frames'):
      tower.flops((7, 32, 32, 3))
    s3d_tower.S3DTower(first_layer='plain').flops((7, 31, 32, 3))


def _count(weights):
  return sum(w.shape.num_elements() for w in weights)


class ResNetTest(parameterized.TestCase, tf.test.TestCase):
  """TSM-ResNet-50 on video, and ResNet-50 on spectrograms."""

  @parameterized.parameters('float64', 'float32')
  def test_tsm(self, dtype):
    expected = mmv_fixtures.arrays('tsm_resnet50')
    about = mmv_fixtures.description('tsm_resnet50')
    tower = tsm_resnet_tower.TSMResNetTower(dtype=dtype)
    _build(tower, about['seed'], 'tsm')
    share = 10 * about['float32_noise']['Embeddings']
    video = tf.cast(_video(expected), dtype)
    self._check_maps(
      tower.endpoints(video),
      expected,
      about,
      share,
      {'tsm_resnet_stem': 'stem', 'last_conv': 'last_norm'},
    )
    feature = tower(video).feature
    mmv_fixtures.assert_near(self, feature, expected['Embeddings'], share)
    # The layout of TPUs rounds the shift to bfloat16.
    mmv_fixtures.assert_near(
      self, feature, expected['tpu_mode/Embeddings'], 1e-3
    )

  @parameterized.parameters('float64', 'float32')
  def test_audio(self, dtype):
    expected = mmv_fixtures.arrays('audio_resnet50')
    about = mmv_fixtures.description('audio_resnet50')
    tower = _build(resnet_tower.ResNetTower(dtype=dtype), about['seed'])
    share = 10 * about['float32_noise']['output']
    spectrogram = tf.constant(expected['spectrogram'][..., 0], dtype)
    endpoints = tower.endpoints(spectrogram)
    x = spectrogram[:, None, :, :, None]
    endpoints['initial'] = tower.audio_stem.convolution(x)
    self._check_maps(
      endpoints, expected, about, share, {'initial_conv': 'initial'}
    )
    feature = tower(spectrogram).feature
    mmv_fixtures.assert_near(self, feature, expected['output'], share)

  def _check_maps(self, endpoints, expected, about, share, parts):
    maps = [key for key in about['arrays'] if key.endswith('.sample')]
    self.assertLen(maps, len(parts) + 8)
    for key in maps:
      key = key.removesuffix('.sample')
      part = parts.get(key, key.replace('/', '_'))
      mmv_fixtures.assert_map(
        self, endpoints[part], key, expected, about['arrays'], share
      )

  @parameterized.parameters(
    (tsm_resnet_tower.TSMResNetTower, {}, 23_500_352, 45_440),
    (
      tsm_resnet_tower.TSMResNetTower,
      {'width_factor': 2},
      93_891_712,
      90_880,
    ),
    (resnet_tower.ResNetTower, {}, 23_494_080, 45_440),
  )
  def test_parameters(self, tower, options, expected, expected_statistics):
    tower = tower(**options)
    tower.build()
    self.assertEqual(_count(tower.trainable_weights), expected)
    statistics = [
      w for w in tower.non_trainable_weights if 'num_updates' not in w.name
    ]
    self.assertEqual(_count(statistics), expected_statistics)


class CostTest(parameterized.TestCase, tf.test.TestCase):
  """Multiply-adds, in billions, as measured on the published code."""

  @parameterized.parameters(
    (s3d_tower.S3DTower, {'first_layer': 'plain'}, (32, 224, 224, 3), 39.64),
    (s3d_tower.S3DTower, {'first_layer': 'plain'}, (16, 200, 200, 3), 16.06),
    (s3d_tower.S3DTower, {}, (32, 224, 224, 3), 36.29),
    (s3d_tower.S3DTower, {}, (32, 200, 200, 3), 29.44),
    (
      s3d_tower.S3DTower,
      {'first_layer': 'plain', 'is_deflated': True},
      (1, 224, 224, 3),
      1.75,
    ),
    (tsm_resnet_tower.TSMResNetTower, {}, (32, 224, 224, 3), 130.79),
    (tsm_resnet_tower.TSMResNetTower, {}, (32, 200, 200, 3), 111.90),
    (
      tsm_resnet_tower.TSMResNetTower,
      {'width_factor': 2},
      (32, 224, 224, 3),
      515.60,
    ),
    (
      tsm_resnet_tower.TSMResNetTower,
      {'is_deflated': True},
      (1, 224, 224, 3),
      4.09,
    ),
    (resnet_tower.ResNetTower, {}, (150, 80), 1.035),
    (resnet_tower.ResNetTower, {}, (96, 40), 0.362),
  )
  def test_multiply_adds(self, tower, options, input_shape, expected):
    tower = tower(**options)
    tower.build()
    flops = sum(tower.flops(input_shape).values())
    self.assertAllClose(flops / 2e9, expected, rtol=0.01)


class WordTowerTest(tf.test.TestCase):
  """The text tower, in which padding takes part."""

  def test_sentence(self):
    expected = mmv_fixtures.arrays('heads_fac')
    about = mmv_fixtures.description('heads_fac')
    tower = word_tower.WordTower(vocabulary_size=1000)
    _build(tower, about['seed'])
    ids = tf.constant(expected['word_ids'])
    mmv_fixtures.assert_near(
      self, tower(ids).feature, expected['eval/sentence'], 5e-6
    )
    mmv_fixtures.assert_near(
      self, tower(ids[:, None]).feature[:, 0], expected['eval/sentence'], 5e-6
    )


class DeflationTest(parameterized.TestCase, tf.test.TestCase):
  """The image networks that follow from the video networks' weights."""

  @parameterized.parameters(
    ('s3d', s3d_tower.S3DTower, {'first_layer': 'plain'}),
    ('s3d_space_to_depth', s3d_tower.S3DTower, {}),
    ('tsm_resnet50', tsm_resnet_tower.TSMResNetTower, {}),
  )
  def test_deflated(self, name, tower, options):
    expected = mmv_fixtures.arrays('deflation')
    about = mmv_fixtures.description('deflation')
    tower = tower(**options, dtype='float64')
    backbone = 'tsm' if name.startswith('tsm') else 's3d'
    _build(tower, about['seed'], backbone)
    images = tf.constant(expected['images'] / 127.5 - 1.0)[:, None]
    for frames in (8, 32):
      static = tower(tf.repeat(images, frames, 1)).feature
      mmv_fixtures.assert_near(
        self, static, expected[f'{name}/static_{frames}'], 1e-6
      )
    deflated = tower.deflate()
    mmv_fixtures.assert_near(
      self, deflated(images).feature, expected[f'{name}/deflated'], 1e-6
    )
    with self.assertRaisesRegex(ValueError, 'NUM_FRAMES = 1'):
      deflated(tf.repeat(images, 8, 1))

  def test_parameters(self):
    tower = s3d_tower.S3DTower(first_layer='plain', is_deflated=True)
    tower.build()
    self.assertEqual(_count(tower.trainable_weights), 7_589_712)


if __name__ == '__main__':
  tf.test.main()
