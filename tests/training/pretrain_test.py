"""Tests of the pre-training task: its terms, objectives and learned scalars."""

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf
import tf_keras

from tests import logical_devices, vatt_models
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import gin_utils, strategies
from vatt_tf.losses import contrastive, local, sigmoid
from vatt_tf.models import sizes
from vatt_tf.training import pretrain, schedules, trainer

_SIZE = sizes.Size(1, 8, 16, 2, 4)
_BATCH = 8
_ALL_TERMS = {
  'video_audio_weight': 1.0,
  'video_text_weight': 0.5,
  'audio_text_weight': 2.0,
}
_OBJECTIVES = (
  ('nce', {}, None),
  ('learned', {'learned_temperature': True}, 'temperature'),
  ('sigmoid', {'objective': 'sigmoid'}, 'temperature_and_bias'),
)


def setUpModule():
  logical_devices.make()


def _model(drop_token_rate=0.0, **arguments):
  tf_keras.utils.set_random_seed(1)
  return vatt_models.build_vatt(
    _SIZE,
    num_frames=4,
    frame_size=16,
    video_patch_size=(2, 8, 8),
    num_audio_samples=256,
    audio_patch_size=32,
    max_words=5,
    vocabulary_size=20,
    d_embedding=6,
    d_post_projection=8,
    d_va=8,
    d_vt=6,
    dropout_rate=0.0,
    drop_token_rate=drop_token_rate,
    **arguments,
  )


def _features():
  random = np.random.RandomState(0)
  b = _BATCH
  text_mask = random.rand(b, 2) < 0.7
  text_mask[0] = False
  return {
    'video': random.uniform(-1, 1, [b, 4, 16, 16, 3]).astype(np.float32),
    'audio': random.uniform(-1, 1, [b, 256, 1]).astype(np.float32),
    'text': random.randint(1, 20, [b, 2, 5]).astype(np.int32),
    'video_mask': np.arange(b) != 5,
    'audio_mask': np.arange(b) != 3,
    'text_mask': text_mask,
  }


def _outputs():
  """Embeddings, as a model without learned scalars returns them."""
  random = np.random.RandomState(1)
  shapes = {
    'video_va': [_BATCH, 8],
    'audio_va': [_BATCH, 8],
    'video_vt': [_BATCH, 6],
    'audio_vt': [_BATCH, 6],
    'text_vt': [_BATCH, 2, 6],
  }
  return {
    name: tf.constant(random.randn(*shape), tf.float32)
    for name, shape in shapes.items()
  }


def _scalars(has_bias):
  """Other learned scalars for each pair."""
  scalars = {}
  for i, pair in enumerate(('video_audio', 'video_text', 'audio_text')):
    scalars[f'{pair}_inverse_temperature'] = tf.constant(5.0 + i)
    if has_bias:
      scalars[f'{pair}_bias'] = tf.constant(-3.0 - i)
  return scalars


def _trainer(task, num_replicas=1, learning_rate=0.01, **arguments):
  strategy = strategies.make_strategy(
    *(('mirrored', num_replicas) if num_replicas > 1 else ('cpu',))
  )
  dataset = tf.data.Dataset.from_tensors(_features()).unbatch().repeat()
  dataset = dataset.batch(_BATCH, drop_remainder=True)
  with strategy.scope():
    model = task.build_model()
    optimizer = schedules.make_optimizer(learning_rate)
  return trainer.Trainer(
    task,
    model,
    optimizer,
    strategy.experimental_distribute_dataset(dataset),
    strategy,
    seed=0,
    **arguments,
  ), model


class LossTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(is_learned=(False, True), chunk_size=(None, 3))
  def test_nce_terms(self, is_learned, chunk_size):
    features, outputs = _features(), _outputs()
    options = {'denominator': 'joint_once', 'chunk_size': chunk_size}
    task = pretrain.PretrainTask(
      None,
      **_ALL_TERMS,
      temperature=0.3,
      learned_temperature=is_learned,
      **options,
    )
    temperatures = (0.3, 0.3, 0.3)
    if is_learned:
      outputs.update(_scalars(has_bias=False))
      temperatures = (1 / 5, 1 / 6, 1 / 7)
    loss, metrics = task.loss(features, outputs)
    masks = [features[f'{name}_mask'] for name in ('video', 'audio', 'text')]
    video_audio = contrastive.contrastive_loss(
      outputs['video_va'],
      outputs['audio_va'],
      *masks[:2],
      temperatures[0],
      **options,
    )
    video_text = contrastive.contrastive_loss(
      outputs['video_vt'],
      outputs['text_vt'],
      masks[0],
      masks[2],
      temperatures[1],
      **options,
    )
    audio_text = contrastive.contrastive_loss(
      outputs['audio_vt'],
      outputs['text_vt'],
      *masks[1:],
      temperatures[2],
      **options,
    )
    self.assertAllClose(
      loss, video_audio.loss + 0.5 * video_text.loss + 2.0 * audio_text.loss
    )
    expected = {}
    for (one, other), term in (
      (('video', 'audio'), video_audio),
      (('video', 'text'), video_text),
      (('audio', 'text'), audio_text),
    ):
      pair = f'{one}_{other}'
      expected.update(
        {
          f'{pair}_loss': term[0],
          f'pairs/{pair}': term[1],
          f'accuracy/{one}_to_{other}': term[2],
          f'accuracy/{other}_to_{one}': term[3],
        }
      )
      if is_learned:
        expected[f'inverse_temperature/{pair}'] = outputs[
          f'{pair}_inverse_temperature'
        ]
    self.assertAllClose(metrics, expected)

  @parameterized.parameters(None, 3)
  def test_sigmoid_terms(self, chunk_size):
    features, outputs = _features(), {**_outputs(), **_scalars(has_bias=True)}
    task = pretrain.PretrainTask(
      None, **_ALL_TERMS, objective='sigmoid', chunk_size=chunk_size
    )
    loss, metrics = task.loss(features, outputs)
    expected = 0.0
    for i, (one, other, space, weight) in enumerate(
      (
        ('video', 'audio', 'va', 1.0),
        ('video', 'text', 'vt', 0.5),
        ('audio', 'text', 'vt', 2.0),
      )
    ):
      term = sigmoid.sigmoid_loss(
        outputs[f'{one}_{space}'],
        outputs[f'{other}_{space}'],
        features[f'{one}_mask'],
        features[f'{other}_mask'],
        5.0 + i,
        -3.0 - i,
      )
      expected += weight * term.loss
      pair = f'{one}_{other}'
      for name, value in (
        (f'{pair}_loss', term.loss),
        (f'pairs/{pair}', term.num_pairs),
        (f'accuracy/{one}_to_{other}', term.forward_accuracy),
        (f'accuracy/{other}_to_{one}', term.backward_accuracy),
        (f'inverse_temperature/{pair}', 5.0 + i),
        (f'bias/{pair}', -3.0 - i),
      ):
        self.assertAllClose(metrics[name], value, msg=name)
    self.assertAllClose(loss, expected)
    self.assertLen(metrics, 18)

  def test_terms_of_weight_zero_need_no_inputs(self):
    features = _features()
    del features['audio_mask']
    task = pretrain.PretrainTask(None, video_audio_weight=0.0)
    _, metrics = task.loss(
      features, {name: _outputs()[name] for name in ('video_vt', 'text_vt')}
    )
    self.assertIn('video_text_loss', metrics)
    self.assertLen(metrics, 4)

  @parameterized.product(is_learned=(False, True), pool=local.POOLS)
  def test_local_term(self, is_learned, pool):
    features, outputs = _features(), _outputs()
    random = np.random.RandomState(2)
    outputs['video_token_va'] = tf.constant(
      random.randn(_BATCH, 2, 2, 2, 8), tf.float32
    )
    mask = random.rand(_BATCH, 2, 2, 2) < 0.6
    outputs['video_token_mask'] = tf.constant(mask)
    if is_learned:
      outputs.update(_scalars(has_bias=False))
    options = {'temperature': 0.3, 'learned_temperature': is_learned}
    plain, _ = pretrain.PretrainTask(None, **options).loss(features, outputs)
    task = pretrain.PretrainTask(
      None, local_weight=0.5, local_pool=pool, chunk_size=3, **options
    )
    loss, metrics = task.loss(features, outputs)
    expected = local.local_contrastive_loss(
      outputs['video_token_va'],
      outputs['audio_va'],
      mask,
      features['video_mask'],
      features['audio_mask'],
      1 / 5 if is_learned else 0.3,
      pool=pool,
    )
    self.assertAllClose(loss, plain + 0.5 * expected.loss, rtol=1e-5)
    self.assertAllClose(metrics['local_loss'], expected.loss, rtol=1e-5)
    self.assertAllClose(
      metrics['accuracy/places_to_audio'], expected.forward_accuracy
    )
    self.assertAllClose(
      metrics['accuracy/audio_to_places'], expected.backward_accuracy
    )

  @parameterized.named_parameters(
    ('local_weight', {'local_weight': -1.0}, 'local_weight=-1'),
    ('local_pool', {'local_pool': 'mean'}, "local_pool='mean'"),
    (
      'local_of_sigmoid',
      {'local_weight': 1.0, 'objective': 'sigmoid'},
      "objective='sigmoid'",
    ),
    (
      'local_without_sound',
      {'local_weight': 1.0, 'video_audio_weight': 0.0},
      'needs the video-audio term',
    ),
    (
      'negative',
      {'video_text_weight': -1.0},
      'must be at least 0, and one of them',
    ),
    (
      'nothing',
      {'video_audio_weight': 0.0, 'video_text_weight': 0.0},
      'one of them above',
    ),
    ('objective', {'objective': 'clip'}, "nce, sigmoid. .*objective='clip'"),
  )
  def test_errors(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      pretrain.PretrainTask(None, **arguments)

  def test_the_task_builds_the_model_with_what_it_learns(self):
    for _, arguments, kind in _OBJECTIVES:
      task = pretrain.PretrainTask(
        _model, video_audio_weight=0.0, temperature=0.1, **arguments
      )
      model = task.build_model()
      self.assertEqual(model.pairs, ('video_text',))
      scale = model.similarity_scale
      self.assertEqual(scale and scale.kind, kind)
      if kind == 'temperature':
        self.assertEqual(scale.temperature, 0.1)


class TrainingTest(tf.test.TestCase, parameterized.TestCase):
  def _task(self, arguments, **others):
    return pretrain.PretrainTask(_model, **arguments, **others)

  def test_learned_temperature_starts_like_the_fixed_one(self):
    found = []
    for _, arguments, _ in _OBJECTIVES[:2]:
      one, _ = _trainer(self._task(arguments))
      found.append(one.train(tf.constant(1)))
    self.assertAllClose(found[0]['loss'], found[1]['loss'], rtol=1e-5)
    self.assertAllClose(
      found[1]['inverse_temperature/video_text'], 1 / 0.07, rtol=1e-5
    )

  @parameterized.named_parameters(*_OBJECTIVES)
  def test_training_lowers_the_loss(self, arguments, kind):
    one, model = _trainer(self._task(arguments, audio_text_weight=1.0))
    first = one.train(tf.constant(1))
    one.train(tf.constant(40))
    last = one.train(tf.constant(1))
    for pair in ('video_audio', 'video_text', 'audio_text'):
      self.assertLess(last[f'{pair}_loss'], 0.95 * first[f'{pair}_loss'])
      for name in ('inverse_temperature', 'bias'):
        self.assertEqual(
          f'{name}/{pair}' in last,
          kind == 'temperature_and_bias'
          or (kind == 'temperature' and name == 'inverse_temperature'),
        )
        if f'{name}/{pair}' in last:
          change = last[f'{name}/{pair}'] - first[f'{name}/{pair}']
          self.assertGreater(abs(change), 0.01)
    if kind:
      now = model.similarity_scale.values()['video_text_inverse_temperature']
      self.assertAllClose(
        last['inverse_temperature/video_text'], now, rtol=0.02
      )

  def test_two_replicas_train_like_one(self):
    found = []
    for num_replicas in (1, 2):
      task = self._task(_OBJECTIVES[2][1], video_text_weight=0.0)
      one, model = _trainer(task, num_replicas)
      metrics = one.train(tf.constant(1))
      del metrics[trainer.INPUT_WAIT]
      found.append((metrics, model.similarity_scale.get_weights()))
    (metrics, scalars), (metrics_of_two, scalars_of_two) = found
    self.assertAllClose(metrics_of_two, metrics, rtol=1e-4, atol=1e-5)
    self.assertAllClose(scalars_of_two, scalars, rtol=1e-6)

  def test_micro_batches_train_the_scalars_too(self):
    found = []
    for micro_batch_size in (None, 2):
      one, model = _trainer(
        self._task(_OBJECTIVES[2][1]), micro_batch_size=micro_batch_size
      )
      metrics = one.train(tf.constant(2))
      found.append((metrics['loss'], model.similarity_scale.get_weights()))
    self.assertAllClose(found[0], found[1], rtol=1e-4)

  @parameterized.parameters((2, None), (1, 2))
  def test_local_term_in_parts(self, num_replicas, micro_batch_size):
    found = []
    for replicas, micro_batch in ((1, None), (num_replicas, micro_batch_size)):
      task = pretrain.PretrainTask(
        lambda **options: _model(drop_token_rate=0.5, **options),
        local_weight=1.0,
      )
      one, model = _trainer(task, replicas, micro_batch_size=micro_batch)
      before = model.video_token_head.kernel.numpy()
      metrics = one.train(tf.constant(2))
      kernel = model.video_token_head.kernel.numpy()
      self.assertGreater(np.abs(kernel - before).max(), 0.01)
      found.append((metrics['loss'], metrics['local_loss'], kernel))
    for one, other in zip(*found):
      self.assertAllClose(one, other, rtol=1e-4, atol=1e-4)

  def test_mixed_precision_keeps_the_scalars_in_float32(self):
    self.addCleanup(
      tf_keras.mixed_precision.set_global_policy,
      tf_keras.mixed_precision.global_policy(),
    )
    tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
    task = self._task(_OBJECTIVES[2][1], video_audio_weight=0.0)
    model = task.build_model()
    scalars = model.similarity_scale.trainable_weights
    with tf.GradientTape() as tape:
      outputs = model(_features(), training=True)
      loss, _ = task.loss(_features(), outputs)
    gradients = tape.gradient(loss, scalars)
    # A step smaller than those of bfloat16 between 8 and 16.
    optimizer = schedules.make_optimizer(1e-3)
    optimizer.apply_gradients(zip(gradients, scalars))
    bias = model.similarity_scale.values()['video_text_bias']
    self.assertAllClose(abs(bias + 10), 1e-3, rtol=0.01)


class GinTest(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(gin.clear_config)

  def _task_and_model(self, *params):
    gin_utils.parse(
      ['gin/pretrain_sample.gin'],
      [
        'Size.num_layers = 1',
        'Size.d_model = 8',
        'Size.d_ff = 8',
        'VOCABULARY_SIZE = 20',
        *params,
      ],
    )
    task = gin.get_configurable('PretrainTask')()
    return task, task.build_model()

  def test_default_learns_nothing(self):
    _, model = self._task_and_model()
    self.assertIsNone(model.similarity_scale)

  @parameterized.named_parameters(
    (
      'sigmoid',
      ("PretrainTask.objective='sigmoid'",),
      'temperature_and_bias',
      10.0,
    ),
    (
      'learned',
      ('PretrainTask.learned_temperature=True',),
      'temperature',
      1 / 0.07,
    ),
    (
      'learned from elsewhere',
      ('PretrainTask.learned_temperature=True', 'PretrainTask.temperature=0.1'),
      'temperature',
      10.0,
    ),
  )
  def test_a_macro_is_enough(self, params, kind, start):
    task, model = self._task_and_model(*params, 'AUDIO_TEXT_WEIGHT=1.0')
    self.assertEqual(model.similarity_scale.kind, kind)
    scalars = model.similarity_scale.values()
    self.assertAllClose(
      scalars['audio_text_inverse_temperature'], start, rtol=1e-5
    )
    _, metrics = task.loss(_features(), {**_outputs(), **scalars})
    self.assertIn('inverse_temperature/audio_text', metrics)

  def test_unknown_objective(self):
    with self.assertRaisesRegex(ValueError, "nce, sigmoid.*'siglip'"):
      self._task_and_model("PretrainTask.objective='siglip'")


if __name__ == '__main__':
  tf.test.main()
