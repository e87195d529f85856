"""The whole model at small size."""

import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import vatt_models
from vatt_tf.core import randomness
from vatt_tf.losses import contrastive
from vatt_tf.models import patch_tower, sizes, text_tower, vatt

_SIZE = sizes.Size(2, 8, 16, 2, 4)
_INPUTS = {
  'num_frames': 4,
  'frame_size': 16,
  'video_patch_size': (2, 8, 8),
  'num_audio_samples': 256,
  'audio_patch_size': 32,
  'num_spectrogram_frames': 20,
  'num_mel_bins': 10,
  'max_words': 5,
  'vocabulary_size': 20,
  'd_embedding': 6,
  'd_post_projection': 10,
  'd_va': 12,
  'd_vt': 6,
}
_ALL = {
  'video_feature',
  'audio_feature',
  'text_feature',
  'video_va',
  'audio_va',
  'video_vt',
  'text_vt',
  'audio_vt',
}


def _model(is_agnostic=True, **arguments):
  tf_keras.utils.set_random_seed(1)
  arguments = {**_INPUTS, **arguments}
  if is_agnostic:
    return vatt_models.build_vatt(_SIZE, **arguments)
  return vatt_models.build_vatt(
    video_size=_SIZE,
    audio_size=sizes.Size(1, 4, 8, 1, 4),
    text_size=sizes.Size(2, 12, 8, 2, 4),
    **arguments,
  )


def _features(batch=3, captions=2):
  random = np.random.RandomState(0)
  text = random.randint(1, 20, [batch, captions, 5])
  text[:, :, 3:] = 0
  text_mask = np.ones([batch, captions], bool)
  text[1] = 0  # a clip without captions
  text_mask[1] = False
  features = {
    'video': random.uniform(-1, 1, [batch, 4, 16, 16, 3]),
    'audio': random.uniform(-1, 1, [batch, 256, 1]),
    'spectrogram': random.uniform(0, 1, [batch, 20, 10]),
    'video_mask': np.ones([batch], bool),
    'audio_mask': np.arange(batch) != 2,
    'text_mask': text_mask,
  }
  features = {
    key: value if value.dtype == bool else value.astype(np.float32)
    for key, value in features.items()
  }
  features['text'] = text.astype(np.int32)
  return {key: tf.constant(value) for key, value in features.items()}


def _loss(features, outputs):
  video_audio = contrastive.contrastive_loss(
    outputs['video_va'],
    outputs['audio_va'],
    features['video_mask'],
    features['audio_mask'],
  )
  video_text = contrastive.contrastive_loss(
    outputs['video_vt'],
    outputs['text_vt'],
    features['video_mask'],
    features['text_mask'],
  )
  return video_audio.loss + video_text.loss


def _loss_and_gradients(model, features, step):
  with tf.GradientTape() as tape:
    outputs = model(features, training=True, rng=randomness.make(7, step))
    loss = _loss(features, outputs)
  gradients = tape.gradient(loss, model.trainable_variables)
  return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]


class VattTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.product(
    is_agnostic=(True, False),
    common_space=('fine_and_coarse', 'shared', 'disjoint'),
    audio_form=('waveform', 'spectrogram'),
  )
  def test_outputs_and_gradients(self, is_agnostic, **arguments):
    model = _model(is_agnostic, **arguments)
    features = _features()
    outputs = model(features)
    names = set(_ALL)
    if arguments['common_space'] == 'disjoint':
      names.remove('audio_vt')
    self.assertEqual(set(outputs), names)
    d_vt = 12 if arguments['common_space'] == 'shared' else 6
    d_audio, d_text = (10, 10) if is_agnostic else (4, 12)
    shapes = {
      'video_feature': (3, 10 if is_agnostic else 8),
      'audio_feature': (3, d_audio),
      'text_feature': (3, 2, d_text),
      'video_va': (3, 12),
      'audio_va': (3, 12),
      'video_vt': (3, d_vt),
      'audio_vt': (3, d_vt),
      'text_vt': (3, 2, d_vt),
    }
    for name in names:
      self.assertEqual(outputs[name].shape, shapes[name], name)
      self.assertEqual(outputs[name].dtype, tf.float32)
    loss, gradients = _loss_and_gradients(model, features, 1)
    self.assertTrue(np.isfinite(loss))
    for gradient, variable in zip(gradients, model.trainable_variables):
      self.assertTrue(np.isfinite(gradient).all(), variable.name)
      self.assertGreater(np.abs(gradient).max(), 0, variable.name)

  @parameterized.parameters(True, False)
  def test_parts_give_what_the_whole_does(self, is_agnostic):
    model = _model(is_agnostic)
    features = _features()
    outputs = model(features)
    parts = {
      **model.embed('video', features['video']),
      **model.embed('audio', features['audio']),
      **model.embed('text', features['text']),
    }
    self.assertAllClose(parts, outputs, atol=1e-5)
    # Captions one by one.
    single = model.embed('text', features['text'][:, 1])
    self.assertAllClose(single['text_vt'], outputs['text_vt'][:, 1], atol=1e-5)
    # With tokens.
    for modality, num_tokens in (('video', 8), ('audio', 8)):
      tower = model.towers[modality]
      feature, tokens = tower(features[modality], need_tokens=True)
      self.assertEqual(tokens.shape[1], num_tokens)
      self.assertAllClose(feature, outputs[f'{modality}_feature'], atol=1e-5)
    feature, tokens = model.text_tower(features['text'], need_tokens=True)
    self.assertEqual(tokens.shape[:3], (3, 2, 5))
    self.assertAllClose(feature, outputs['text_feature'], atol=1e-5)

  @parameterized.parameters(
    (
      {'pairs': ('video_audio',)},
      ('video', 'audio'),
      {'video_feature', 'audio_feature', 'video_va', 'audio_va'},
    ),
    (
      {'pairs': ('video_text',)},
      ('video', 'text'),
      {'video_feature', 'text_feature', 'video_vt', 'text_vt'},
    ),
    (
      {'pairs': ('video_audio', 'video_text', 'audio_text')},
      ('video', 'audio', 'text'),
      _ALL,
    ),
  )
  def test_towers_that_nothing_uses_are_not_built(
    self, arguments, modalities, names
  ):
    for is_agnostic in (True, False):
      model = _model(is_agnostic, **arguments)
      self.assertEqual(model.modalities, modalities)
      self.assertEqual(set(model(_features())), names)
      missing = {'video', 'audio', 'text'} - set(modalities)
      for weight in model.weights:
        for modality in missing:
          self.assertNotIn(f'/{modality}', weight.name)
      for modality in missing:
        with self.assertRaisesRegex(ValueError, f'no {modality} tower'):
          model.embed(modality, _features()[modality])

  @parameterized.parameters(True, False)
  def test_rows_draw_the_same_wherever_they_are(self, is_agnostic):
    # Batch norm aside: features only.
    model = _model(is_agnostic)
    features = _features(4)
    whole = model(features, training=True, rng=randomness.make(1, 2))
    half = model(
      {key: value[2:] for key, value in features.items()},
      training=True,
      rng=randomness.make(1, 2, first_row=2),
    )
    for name in ('video_feature', 'audio_feature', 'text_feature'):
      self.assertAllClose(half[name], whole[name][2:], atol=1e-5)
      self.assertNotAllClose(half[name], whole[name][:2], atol=1e-2)

  def test_drop_token_and_dropout_are_for_training(self):
    model = _model(dropout_rate=0.0)
    video = _features()['video']
    rng = randomness.make(1, 2)
    _, kept = model.video_tower(video, training=True, rng=rng, need_tokens=True)
    self.assertEqual(kept.shape[1], 4)
    _, tokens = model.video_tower(video, need_tokens=True)
    self.assertEqual(tokens.shape[1], 8)
    a, _ = model.video_tower(video, training=True, rng=randomness.make(1, 3))
    b, _ = model.video_tower(video, training=True, rng=rng)
    self.assertNotAllClose(a, b)

  def test_remat_gives_the_same_gradients(self):
    results, weights = [], None
    for use_remat in (False, True):
      model = _model(False, use_remat=use_remat)
      if weights:
        model.set_weights(weights)
      weights = model.get_weights()
      results.append(
        tf.function(_loss_and_gradients, autograph=False)(
          model, _features(), tf.constant(1)
        )
      )
    self.assertAllClose(results[0], results[1], atol=1e-5, rtol=1e-4)

  def test_compiles(self):
    model, features = _model(False), _features()
    compiled = tf.function(
      _loss_and_gradients, jit_compile=True, autograph=False
    )
    loss, gradients = compiled(model, features, tf.constant(1))
    self.assertTrue(np.isfinite(loss))
    for gradient in gradients:
      self.assertTrue(np.isfinite(gradient).all())

  def test_compiled_values(self):
    # The compiler draws other random numbers: none are drawn here.
    model = _model(drop_token_rate=0.0, dropout_rate=0.0)
    features = _features()
    weights = model.get_weights()
    compiled = tf.function(
      _loss_and_gradients, jit_compile=True, autograph=False
    )
    loss, gradients = compiled(model, features, tf.constant(1))
    model.set_weights(weights)
    expected_loss, expected = _loss_and_gradients(model, features, 1)
    self.assertAllClose(loss, expected_loss, rtol=1e-4)
    largest = max(np.abs(gradient).max() for gradient in expected)
    for a, b in zip(gradients, expected):
      self.assertAllClose(a, b, rtol=1e-3, atol=1e-4 * largest)

  def test_half_precision(self):
    features = _features()
    exact = _model()
    outputs = exact(features)
    tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
    self.addCleanup(tf_keras.mixed_precision.set_global_policy, 'float32')
    model = _model()
    model.set_weights(exact.get_weights())
    self.assertEqual(model.encoder.compute_dtype, 'bfloat16')
    for name, value in model(features).items():
      self.assertEqual(value.dtype, tf.float32)
      self.assertAllClose(value, outputs[name], atol=0.1, msg=name)
    _, gradients = _loss_and_gradients(model, features, 1)
    for gradient in gradients:
      self.assertEqual(gradient.dtype, tf.float32)
      self.assertTrue(np.isfinite(gradient).all())

  def test_larger_and_smaller_inputs(self):
    model = _model()
    feature = model.embed('video', tf.zeros([1, 8, 24, 16, 3]))['video_feature']
    self.assertEqual(feature.shape, (1, 10))
    feature = model.embed('audio', tf.zeros([1, 96, 1]))['audio_feature']
    self.assertEqual(feature.shape, (1, 10))
    feature = model.embed('text', tf.ones([1, 7], tf.int32))['text_feature']
    self.assertEqual(feature.shape, (1, 10))

  @parameterized.parameters(True, False)
  def test_config_round_trip(self, is_agnostic):
    model = _model(is_agnostic)
    copy = vatt.VATT.from_config(model.get_config())
    features = _features()
    copy(features)
    self.assertEqual(
      [w.name for w in copy.weights], [w.name for w in model.weights]
    )
    copy.set_weights(model.get_weights())
    self.assertAllClose(copy(features), model(features), atol=1e-5)

  def test_checkpoint(self):
    model, other = _model(), _model(drop_token_rate=0.0)
    for weight in other.weights:
      weight.assign(weight + 1)
    path = tf.train.Checkpoint(model=model).save(
      os.path.join(self.get_temp_dir(), 'ckpt')
    )
    status = tf.train.Checkpoint(model=other).restore(path)
    status.assert_consumed()
    self.assertAllClose(other.get_weights(), model.get_weights())

  def test_export(self):
    module = tf.Module()
    model = _model(False)
    # The variables, not the model: Keras would trace every layer.
    module.model_variables = model.variables
    features = _features()
    expected = model.embed('video', features['video'])

    @tf.function(
      autograph=False,
      input_signature=[tf.TensorSpec([None, 4, 16, 16, 3], name='video')],
    )
    def embed_video(video):
      return model.embed('video', video)

    module.embed_video = embed_video
    path = os.path.join(self.get_temp_dir(), 'saved')
    tf.saved_model.save(module, path)
    loaded = tf.saved_model.load(path)
    self.assertAllClose(
      loaded.embed_video(features['video']), expected, atol=1e-5
    )

  def test_word_vectors(self):
    folder = self.get_temp_dir()
    vectors = os.path.join(folder, 'vectors.txt')
    vocabulary = os.path.join(folder, 'words.txt')
    with open(vectors, 'w') as f:
      f.write('dog 1 2 3 4 5 6\n')
    with open(vocabulary, 'w') as f:
      f.write('<pad>\n<bos>\n<eos>\n<unk>\ncat\ndog\n')
    model = _model(word_vectors=vectors, vocabulary=vocabulary)
    table = model.text_tower.embedding.table
    self.assertAllEqual(table.embeddings[5], [1, 2, 3, 4, 5, 6])
    self.assertTrue(table.is_filled)
    with self.assertRaisesRegex(ValueError, 'needs `vocabulary`'):
      _model(word_vectors=vectors)
    frozen = _model(is_table_frozen=True)
    with self.assertRaisesRegex(ValueError, 'frozen'):
      frozen(_features(), training=True)

  def test_errors(self):
    model = _model()
    features = _features()
    del features['audio']
    with self.assertRaisesRegex(ValueError, "must have the key 'audio'"):
      model(features)
    with self.assertRaisesRegex(ValueError, 'token ids'):
      model.embed('text', tf.zeros([3], tf.int32))
    with self.assertRaisesRegex(ValueError, 'multiple of the patch size'):
      model.embed('audio', tf.zeros([1, 100, 1]))
    with self.assertRaisesRegex(ValueError, 'one for video, which `pairs`'):
      vatt.VATT({'text': model.text_tower}, pairs=('video_text',))
    with self.assertRaisesRegex(ValueError, 'pairs=.*text_video'):
      vatt.VATT(model.towers, pairs=('text_video',))
    with self.assertRaisesRegex(ValueError, 'either the `size`.*size=None'):
      patch_tower.PatchTower('video')
    with self.assertRaisesRegex(ValueError, 'either the `size`.*size=Size'):
      text_tower.TextTower(_SIZE, model.encoder)
    with self.assertRaisesRegex(ValueError, "input_name='sound'"):
      patch_tower.PatchTower('sound', size=_SIZE)
    with self.assertRaisesRegex(ValueError, "input_name='text'"):
      patch_tower.PatchTower('text', size=_SIZE)
    with self.assertRaisesRegex(ValueError, 'must have 3 numbers'):
      patch_tower.PatchTower('video', patch_size=(16, 16), size=_SIZE)
    with self.assertRaisesRegex(ValueError, '`drop_token_rate` must be in'):
      _model(drop_token_rate=1.2)


if __name__ == '__main__':
  tf.test.main()
