"""The maths against that of the released VATT."""

import json

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import shared_data, vatt_models
from vatt_tf.checkpoints import released_vatt, weight_sources
from vatt_tf.core import feature_names
from vatt_tf.models import classification, sizes


def _size(numbers):
  return sizes.Size(
    *(
      numbers[key]
      for key in ('num_layers', 'd_model', 'd_ff', 'num_heads', 'd_kv')
    )
  )


def _released_model(config, position_interpolation='release'):
  """Builds the model that a fixture's config.json describes."""
  numbers = config['overrides']
  common = {
    'position_interpolation': position_interpolation,
    'd_va': config['common_space_dims'][0],
    'd_vt': config['common_space_dims'][1],
    'num_frames': 8,
    'frame_size': 48,
    'num_audio_samples': 1280,
    'max_words': config['text_len'],
    'vocabulary_size': config['vocab'],
    'd_embedding': 12,
  }
  if config['arch'] == 'ut_fac':
    numbers = numbers['ut_medium']
    return vatt_models.build_vatt(
      _size(numbers), d_post_projection=numbers['d_post_proj'], **common
    )
  # The fixture's buckets are smaller than the release's: 8, up to 16.
  text = numbers['t5_small']
  return vatt_models.build_vatt(
    video_size=_size(numbers['vit_base']),
    audio_size=_size(numbers['wat_base']),
    text_size=_size(text),
    num_relative_buckets=text['num_relative_buckets'],
    max_relative_distance=text['max_relative_distance'],
    **common,
  )


class ReleasedVattTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters('ut_fac', 'ut_fac_highres', 'tx_fac')
  def test_outputs(self, fixture):
    self._check_outputs(fixture, 2e-5)

  def test_outputs_of_the_exact_interpolation(self):
    # The difference is the rounding of the release.
    self._check_outputs('ut_fac_highres', 5e-4, 'exact')
    with self.assertRaises(AssertionError):
      self._check_outputs('ut_fac_highres', 2e-5, 'exact')

  def _check_outputs(self, fixture, tolerance, interpolation='release'):
    folder = shared_data.path('fixtures', fixture)
    config = json.loads((folder / 'config.json').read_text())
    model = _released_model(config, interpolation)
    released_vatt.load(model, weight_sources.open_source(folder / 'ckpt-3'))
    data = np.load(folder / 'io.npz')
    video, audio, text = (data[f'in/{m}'] for m in ('video', 'audio', 'text'))
    expected = {
      name: data[f'out/{key}']
      for name, key in (
        (feature_names.VIDEO_FEATURE, 'video/features_pooled'),
        (feature_names.AUDIO_FEATURE, 'audio/features_pooled'),
        (feature_names.TEXT_FEATURE, 'text/features_pooled'),
        (feature_names.VIDEO_VA, 'head_stack/bridge/video/toaud'),
        (feature_names.VIDEO_VT, 'head_stack/bridge/video/totxt'),
        (feature_names.AUDIO_VA, 'head_stack/bridge/audio/tovid'),
        (feature_names.TEXT_VT, 'head_stack/bridge/text/tovid'),
      )
    }
    outputs = model({'video': video, 'audio': audio, 'text': text[:, None]})
    self.assertEqual(set(outputs), {*expected, feature_names.AUDIO_VT})
    tolerances = {'atol': tolerance, 'rtol': 0}
    for name, value in expected.items():
      got = np.reshape(outputs[name], value.shape)
      self.assertAllClose(got, value, **tolerances, msg=name)
    for modality, x in (('video', video), ('audio', audio), ('text', text)):
      value = data[f'out/{modality}/features']
      feature, tokens = model.towers[modality](x, need_tokens=True)
      self.assertAllClose(np.reshape(tokens, value.shape), value, **tolerances)
      self.assertAllClose(
        feature, expected[f'{modality}_feature'], **tolerances
      )

  @parameterized.parameters(
    'finetuned_vit', 'finetuned_vit_ma', 'finetuned_wat'
  )
  def test_classifier(self, fixture):
    folder = shared_data.path('fixtures', fixture)
    config = json.loads((folder / 'config.json').read_text())
    numbers = config['overrides']
    modality = 'audio' if fixture == 'finetuned_wat' else 'video'
    model = vatt_models.build_classifier(
      modality,
      config['num_classes'],
      _size(numbers),
      is_agnostic=fixture == 'finetuned_vit_ma',
      d_post_projection=numbers.get('d_post_proj'),
      num_frames=8,
      frame_size=48,
      num_audio_samples=1280,
      is_multi_label=modality == 'audio',
    )
    released_vatt.load(model, weight_sources.open_source(folder / 'ckpt-3'))
    data = np.load(folder / 'io.npz')
    outputs = model.classify(
      {modality: data[f'in/{modality}']}, config['num_test_windows']
    )
    for name in (classification.LOGITS, classification.PROBABILITIES):
      self.assertAllClose(outputs[name], data[f'out/{name}'], atol=2e-5, rtol=0)


if __name__ == '__main__':
  tf.test.main()
