"""Cached gradients against those of the whole batch at once."""

import functools

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import logical_devices, vatt_models
from vatt_tf.core import collectives, strategies
from vatt_tf.core import feature_names as names
from vatt_tf.models import sizes
from vatt_tf.training import (
  gradient_caching,
  pretrain,
  schedules,
  trainer,
)

_BATCH = 32


def setUpModule():
  logical_devices.make()


def _features():
  """A batch of clips, of which some lack a modality or captions."""
  random = np.random.RandomState(0)
  b = _BATCH
  text = random.randint(1, 30, [b, 3, 5]).astype(np.int32)
  text[:, :, 3:] *= random.randint(0, 2, [b, 3, 1]).astype(np.int32)
  text_mask = random.rand(b, 3) < 0.6
  text_mask[4:8] = False  # a whole micro-batch without captions
  return {
    names.VIDEO: random.uniform(-1, 1, [b, 4, 16, 16, 3]).astype(np.float32),
    names.AUDIO: random.uniform(-1, 1, [b, 256, 1]).astype(np.float32),
    names.TEXT: text,
    names.VIDEO_MASK: random.rand(b) < 0.9,
    names.AUDIO_MASK: random.rand(b) < 0.7,
    names.TEXT_MASK: text_mask,
  }


def _model(kind, use_remat=False):
  tf_keras.utils.set_random_seed(1)
  size = sizes.Size(1, 8, 16, 2, 4)
  of_encoders = {'size': size}
  if kind == 'specific':
    of_encoders = {f'{name}_size': size for name in ('video', 'audio', 'text')}
  return vatt_models.build_vatt(
    **of_encoders,
    num_frames=4,
    frame_size=16,
    video_patch_size=(2, 8, 8),
    num_audio_samples=256,
    audio_patch_size=32,
    max_words=5,
    vocabulary_size=30,
    d_embedding=6,
    d_post_projection=10,
    d_va=12,
    d_vt=6,
    drop_token_rate=0.5,
    dropout_rate=0.1,
    use_remat=use_remat,
  )


def _trainer(
  strategy, kind='agnostic', use_remat=False, loss_scale=None, **kwargs
):
  with strategy.scope():
    model = _model(kind, use_remat)
    optimizer = schedules.make_optimizer(1e-3)
    if loss_scale is not None:
      optimizer = tf_keras.mixed_precision.LossScaleOptimizer(
        optimizer, initial_scale=loss_scale
      )
  task = pretrain.PretrainTask(lambda: model)
  return trainer.Trainer(task, model, optimizer, [], strategy, 3, **kwargs)


@functools.cache
def _whole_batch(kind, **kwargs):
  return _step(tf.distribute.OneDeviceStrategy('/cpu:0'), kind, **kwargs)


def _step(strategy, *args, **kwargs):
  """Runs one step's forward and backward pass.

  Returns:
    NumPy arrays by name: metrics, gradients and the moving statistics.
  """
  one = _trainer(strategy, *args, **kwargs)
  model = one._model
  parts = {
    name: np.split(array, strategy.num_replicas_in_sync)
    for name, array in _features().items()
  }
  features = {
    name: strategy.experimental_distribute_values_from_function(
      lambda context, shares=shares: tf.constant(
        shares[context.replica_id_in_sync_group]
      )
    )
    for name, shares in parts.items()
  }

  def replica_step(features):
    gradients, metrics = one._gradients(features, tf.constant(5, tf.int64))
    return collectives.all_reduce_sum((gradients, metrics))

  @tf.function(autograph=False)
  def step(features):
    return strategy.run(replica_step, args=(features,))

  gradients, found = tf.nest.map_structure(
    lambda x: strategy.experimental_local_results(x)[-1].numpy(),
    step(features),
  )
  for variable, gradient in zip(
    model.trainable_variables, gradients, strict=True
  ):
    found[f'gradient/{variable.name}'] = gradient
  for variable in model.non_trainable_variables:
    if 'moving' in variable.name:
      found[variable.name] = variable.numpy()
  return found


def _gradient_error(found, expected):
  """The difference of two results' gradients, relative to their size."""
  found, expected = (
    np.concatenate(
      [
        array.ravel()
        for name, array in sorted(arrays.items())
        if name.startswith('gradient/')
      ]
    )
    for arrays in (found, expected)
  )
  return np.linalg.norm(found - expected) / np.linalg.norm(expected)


class GradientCachingTest(tf.test.TestCase, parameterized.TestCase):
  def _assert_same(self, found, expected):
    self.assertEqual(found.keys(), expected.keys())
    for name, array in expected.items():
      if name.endswith('/k/bias:0'):
        # Softmax does not change with it: the gradient is 0 but for rounding.
        self.assertAllClose(found[name], array, atol=1e-5)
        continue
      size = np.abs(array).max()
      if name.startswith('gradient/'):
        self.assertGreater(size, 0, name)
      self.assertAllClose(
        found[name], array, rtol=0, atol=1e-5 * size, msg=name
      )
    moved = [
      name
      for name, array in expected.items()
      if 'moving_mean' in name and np.abs(array).max() > 0
    ]
    self.assertLen(moved, 3)

  @parameterized.parameters(('agnostic', False), ('specific', True))
  def test_equals_the_gradient_of_the_whole_batch(self, kind, use_remat):
    found = _step(
      tf.distribute.OneDeviceStrategy('/cpu:0'),
      kind,
      use_remat,
      micro_batch_size=4,
    )
    self._assert_same(found, _whole_batch(kind))

  def test_compiled(self):
    # Compiled, DropToken keeps its tokens in another order.
    arguments = {'kind': 'specific', 'jit_compile': True}
    found = _step(
      tf.distribute.OneDeviceStrategy('/cpu:0'),
      micro_batch_size=8,
      **arguments,
    )
    self._assert_same(found, _whole_batch(**arguments))

  def test_two_replicas_equal_one(self):
    found = _step(
      strategies.make_strategy('mirrored', 2),
      'specific',
      use_remat=True,
      micro_batch_size=4,
    )
    self._assert_same(found, _whole_batch('specific'))

  def test_float16_with_loss_scale(self):
    strategy = tf.distribute.OneDeviceStrategy('/cpu:0')
    tf_keras.mixed_precision.set_global_policy('mixed_float16')
    try:
      whole, found = (
        _step(strategy, micro_batch_size=size, loss_scale=2.0**10)
        for size in (None, 16)
      )
    finally:
      tf_keras.mixed_precision.set_global_policy('float32')
    self.assertAllClose(found['loss'], whole['loss'], rtol=1e-3)
    self.assertLess(_gradient_error(found, whole), 2e-3)
    # Batch norm over features that hardly differ magnifies the rounding.
    self.assertLess(_gradient_error(found, _whole_batch('agnostic')), 0.2)

  @parameterized.parameters(5, 64, 0)
  def test_micro_batches_must_divide_the_batch(self, micro_batch_size):
    with self.assertRaisesRegex(
      ValueError,
      '`micro_batch_size` must divide the 32 rows .*'
      f'Received: micro_batch_size={micro_batch_size}',
    ):
      _step(
        tf.distribute.OneDeviceStrategy('/cpu:0'),
        micro_batch_size=micro_batch_size,
      )

  def test_number_of_micro_batches(self):
    self.assertEqual(gradient_caching.num_micro_batches(32, 4), 8)
    self.assertEqual(gradient_caching.num_micro_batches(6, 6), 1)


if __name__ == '__main__':
  tf.test.main()
