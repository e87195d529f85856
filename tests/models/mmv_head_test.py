"""MMV's heads against the numbers of the published code."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import mmv_fixtures
from vatt_tf.checkpoints import mmv_names
from vatt_tf.models import mmv_head, tower

# Outputs of the head by the names of the fixture.
_OUTPUTS = {
  'vid_embd/toaud': 'video_va',
  'vid_embd/totxt': 'video_vt',
  'aud_embd/tovid': 'audio_va',
  'aud_embd/totxt': 'audio_vt',
  'txt_embd/tovid': 'text_vt',
  'txt_embd/toaud': 'text_at',
}


def _released_head(seed):
  head = mmv_head.MMVHead(has_audio_text_maps=True, name='head')
  shapes = {
    f'{name}_feature': tf.TensorShape([None, width])
    for name, width in (('video', 1024), ('audio', 2048), ('text', 2048))
  }
  with tf.name_scope('vatt/'):
    tower.build_scoped(head, shapes)
  mmv_fixtures.fill(head, seed, form='fac_relu')
  return head


def _features(expected):
  return {
    'video_feature': tf.constant(expected['video_feature']),
    'audio_feature': tf.constant(expected['audio_feature']),
    'text_feature': tf.constant(expected['eval/sentence']),
  }


class ReleasedHeadTest(tf.test.TestCase):
  """The form `fac_relu`."""

  def setUp(self):
    super().setUp()
    self.expected = mmv_fixtures.arrays('heads_fac')
    about = mmv_fixtures.description('heads_fac')
    self.head = _released_head(about['seed'])

  def test_evaluation(self):
    outputs = self.head(_features(self.expected))
    for key, name in _OUTPUTS.items():
      mmv_fixtures.assert_near(
        self, outputs[name], self.expected[f'eval/{key}'], 5e-6, key
      )

  def test_training_with_statistics(self):
    outputs = self.head(_features(self.expected), training=True)
    # In training the published code has sound in the space of its own.
    keys = {**_OUTPUTS, 'aud_embd/totxt': 'audio_at'}
    for key, name in keys.items():
      mmv_fixtures.assert_near(
        self, outputs[name], self.expected[f'train/{key}'], 5e-6, key
      )
    seen = 0
    for variable in self.head.non_trainable_variables:
      name = mmv_names.source_of(
        variable.name.removesuffix(':0'), 's3d', 'fac_relu'
      )
      name = f'train/{name}'
      value = variable.numpy()
      if name.endswith('counter'):
        self.assertEqual(value, self.expected[name])
        continue
      mmv_fixtures.assert_near(
        self, value, np.ravel(self.expected[name]), 5e-6, name
      )
      hidden = np.ravel(self.expected[name.replace('/average', '/hidden')])
      mmv_fixtures.assert_near(self, value * (1 - 0.9), hidden, 5e-6, name)
      seen += 1
    self.assertEqual(seen, 6)


class FormsTest(parameterized.TestCase, tf.test.TestCase):
  """The other forms, against their formulas in NumPy."""

  def _run(self, form, training=False, **options):
    random = np.random.default_rng(0)
    features = {
      'video_feature': random.normal(size=[5, 6]),
      'audio_feature': random.normal(size=[5, 7]),
      'text_feature': random.normal(size=[5, 2, 8]),
    }
    head = mmv_head.MMVHead(
      form, **{'d_va': 4, 'd_vt': 3, 'dtype': 'float64', **options}
    )
    head({key: tf.constant(x) for key, x in features.items()})
    for variable in head.variables:
      if 'num_updates' not in variable.name:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    outputs = head(
      {key: tf.constant(x) for key, x in features.items()}, training=training
    )
    return head, features, outputs

  def _norm(self, x, layer):
    scale = layer.gamma.numpy() / np.sqrt(layer.moving_variance.numpy() + 1e-5)
    return (x - layer.moving_mean.numpy()) * scale + layer.beta.numpy()

  def _perceptron(self, x, layer):
    x = x @ layer.hidden.kernel.numpy() + layer.hidden.bias.numpy()
    x = np.maximum(self._norm(x, layer.hidden_norm), 0)
    self.assertFalse(layer.projection.use_bias)
    return self._norm(x @ layer.projection.kernel.numpy(), layer.output_norm)

  def _linear(self, x, layer):
    x = x @ layer.projection.kernel.numpy() + layer.projection.bias.numpy()
    if layer.output_norm is not None:
      x = self._norm(x, layer.output_norm)
    return x

  @parameterized.parameters('fac', 'fac_relu', 'fac_bnrelu')
  def test_fine_and_coarse(self, form):
    head, features, outputs = self._run(form)

    def coarse(va):
      if form == 'fac_bnrelu':
        va = self._norm(va, head.va_norm)
      if form != 'fac':
        va = np.maximum(va, 0)
      return self._linear(va, head.va_to_vt)

    video = self._perceptron(features['video_feature'], head.video_to_va)
    audio = self._linear(features['audio_feature'], head.audio_to_va)
    text = self._linear(features['text_feature'], head.text_to_vt)
    self.assertAllClose(
      outputs,
      {
        'video_va': video,
        'video_vt': coarse(video),
        'audio_va': audio,
        'audio_vt': coarse(audio),
        'text_vt': text,
      },
    )

  def test_disjoint(self):
    head, features, outputs = self._run('disjoint')
    video = features['video_feature']
    self.assertAllClose(
      outputs,
      {
        'video_va': self._perceptron(video, head.video_to_va),
        'video_vt': self._perceptron(video, head.video_to_vt),
        'audio_va': self._linear(features['audio_feature'], head.audio_to_va),
        'text_vt': self._linear(features['text_feature'], head.text_to_vt),
      },
    )

  def test_shared(self):
    head, features, outputs = self._run('shared', d_vt=4)
    video = self._perceptron(features['video_feature'], head.video_to_va)
    audio = self._linear(features['audio_feature'], head.audio_to_va)
    self.assertAllClose(outputs['video_va'], video)
    self.assertAllClose(outputs['video_vt'], video)
    self.assertAllClose(outputs['audio_vt'], audio)

  def test_shared_updates_its_statistics_for_each_pair(self):
    head, features, _ = self._run('shared', training=True, d_vt=4)
    norm = head.video_to_va.hidden_norm
    self.assertEqual(norm.num_updates.numpy(), 2)
    layer = head.video_to_va.hidden
    hidden = features['video_feature'] @ layer.kernel.numpy()
    mean = (hidden + layer.bias.numpy()).mean(0)
    self.assertAllClose(norm.moving_mean, mean)  # twice the same batch

  def test_sound_does_not_move_the_norms_of_the_second_map(self):
    head, _, _ = self._run('fac_bnrelu', training=True)
    self.assertEqual(head.va_to_vt.output_norm.num_updates.numpy(), 1)
    self.assertEqual(head.va_norm.num_updates.numpy(), 1)

  @parameterized.parameters(
    ({'form': 'coarse'}, '`form` must be one of'),
    ({'form': 'shared'}, 'must be equal'),
    ({'form': 'disjoint', 'pairs': ('audio_text',)}, 'no space for sound'),
  )
  def test_bad_arguments(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      mmv_head.MMVHead(**options)

  def test_only_the_maps_of_the_pairs_exist(self):
    head = mmv_head.MMVHead(pairs=('video_audio',))
    outputs = head(
      {'video_feature': tf.zeros([2, 4]), 'audio_feature': tf.zeros([2, 4])}
    )
    self.assertEqual(set(outputs), {'video_va', 'audio_va'})
    self.assertEqual(head.flops('video'), 2 * (4 * 512 + 512 * 512))


if __name__ == '__main__':
  tf.test.main()
