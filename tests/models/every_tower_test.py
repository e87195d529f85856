"""What every tower must do, for each model of `tests.tower_table`."""

import importlib
import inspect
import os
import pkgutil

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config
import tf_keras

from tests import logical_devices, tower_table
from tests.analysis import graph_costs
from tests.export import stock_process
from vatt_tf import models
from vatt_tf.analysis import summary
from vatt_tf.core import randomness, strategies
from vatt_tf.export import saved_model, signatures
from vatt_tf.models import tower
from vatt_tf.training import pretrain

_NAMES = tuple(tower_table.MODELS)


def setUpModule():
  logical_devices.make()


def _step(model, batch, step=0):
  """The loss of a training step and the gradients of all weights."""
  task = pretrain.PretrainTask(lambda **_: model, local_weight=1.0)
  with tf.GradientTape() as tape:
    outputs = model(batch, training=True, rng=randomness.make(7, step))
    loss, _ = task.loss(batch, outputs)
  return loss, tape.gradient(loss, model.trainable_variables)


def _norm(gradients):
  return float(tf.linalg.global_norm(gradients))


class EveryTowerTest(parameterized.TestCase, tf.test.TestCase):
  def test_the_table_has_every_tower(self):
    classes = set()
    for module in pkgutil.iter_modules(models.__path__):
      module = importlib.import_module(f'vatt_tf.models.{module.name}')
      for _, value in inspect.getmembers(module, inspect.isclass):
        is_base = 'flops' not in dir(value) or value.build is tower.Tower.build
        if issubclass(value, tower.Tower) and not is_base:
          if value.width.fget is not tower.Tower.width.fget:
            classes.add(value)
    classes = {
      x for x in classes if not any(issubclass(y, x) for y in classes - {x})
    }
    used = {
      type(each)
      for row in tower_table.MODELS.values()
      for each in row.towers().values()
    }
    self.assertEqual(used, classes)

  @parameterized.parameters(*_NAMES)
  def test_compiles_with_xla(self, name):
    batch = tower_table.features(name)
    loss, gradients = _step(tower_table.build(name), batch)
    model = tower_table.build(name)
    step = tf.function(
      lambda batch: _step(model, batch), autograph=False, jit_compile=True
    )
    compiled_loss, compiled_gradients = step(batch)
    self.assertAllClose(compiled_loss, loss, rtol=1e-3)
    self.assertAllClose(_norm(compiled_gradients), _norm(gradients), rtol=2e-2)

  @parameterized.parameters(*_NAMES)
  def test_bfloat16(self, name):
    batch = tower_table.features(name)
    loss, _ = _step(tower_table.build(name), batch)
    self.addCleanup(tf_keras.mixed_precision.set_global_policy, 'float32')
    tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
    model = tower_table.build(name)
    half_loss, gradients = _step(model, batch)
    self.assertAllClose(half_loss, loss, rtol=0.1)
    self.assertTrue(np.isfinite(_norm(gradients)))
    outputs = model(batch)
    self.assertEqual({x.dtype for x in outputs.values()}, {tf.float32})

  @parameterized.parameters(*_NAMES)
  def test_two_replicas_equal_one(self, name):
    batch = tower_table.features(name)
    model = tower_table.build(name)
    loss, gradients = _step(model, batch)
    strategy = strategies.make_strategy('mirrored', num_devices=2)
    with strategy.scope():
      mirrored = tower_table.build(name)
    if name == 'mmv_s3d':
      mirrored.towers['video'].use_remat = True  # as well
    parts = {key: tf.split(value, 2) for key, value in batch.items()}
    values = {
      key: strategy.experimental_distribute_values_from_function(
        lambda context, pair=pair: pair[context.replica_id_in_sync_group]
      )
      for key, pair in parts.items()
    }

    def replica_step(batch):
      loss, gradients = _step(mirrored, batch)
      context = tf.distribute.get_replica_context()
      gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
      return context.all_reduce('sum', [loss, *gradients])

    step = tf.function(
      lambda values: strategy.run(replica_step, args=(values,)),
      autograph=False,
    )
    results = [strategy.experimental_local_results(x)[0] for x in step(values)]
    self.assertAllClose(results[0], loss, rtol=1e-4)
    self.assertAllClose(_norm(results[1:]), _norm(gradients), rtol=2e-2)
    for one, two in zip(
      model.non_trainable_variables, mirrored.non_trainable_variables
    ):
      self.assertAllClose(two, one, rtol=1e-3, atol=1e-4, msg=one.name)

  @parameterized.parameters('mmv_s3d', 'tsm_and_transformers')
  def test_remat_changes_nothing(self, name):
    batch = tower_table.features(name)
    results = []
    for use_remat in (False, True):
      model = tower_table.build(name)
      for each in model.towers.values():
        each.use_remat = use_remat
      step = tf.function(lambda model=model: _step(model, batch))
      loss, gradients = step()
      results.append((loss, gradients, model.non_trainable_variables))
    (loss, gradients, statistics), (loss_2, gradients_2, statistics_2) = results
    self.assertAllClose(loss_2, loss, rtol=1e-5)
    self.assertAllClose(_norm(gradients_2), _norm(gradients), rtol=1e-3)
    for one, two in zip(statistics, statistics_2):
      self.assertAllClose(two, one, rtol=1e-4, atol=1e-5, msg=one.name)

  @parameterized.parameters(*_NAMES)
  def test_resumes_bit_equal(self, name):
    self.addCleanup(config.disable_op_determinism)
    tf.config.experimental.enable_op_determinism()
    batch = tower_table.features(name)

    def make():
      model = tower_table.build(name)
      optimizer = tf_keras.optimizers.Adam(1e-3)
      optimizer.build(model.trainable_variables)
      checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)

      @tf.function(autograph=False)
      def step(number):
        _, gradients = _step(model, batch, number)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))

      return model, checkpoint, step

    model, checkpoint, step = make()
    step(tf.constant(0))
    path = checkpoint.save(os.path.join(self.get_temp_dir(), name))
    step(tf.constant(1))
    resumed, checkpoint, step = make()
    checkpoint.restore(path).assert_consumed()
    step(tf.constant(1))
    for one, two in zip(model.variables, resumed.variables):
      self.assertAllEqual(one, two, one.name)

  @parameterized.parameters(*_NAMES)
  def test_exported(self, name):
    model = tower_table.build(name)
    row = tower_table.MODELS[name]
    with tower_table.first_parts():  # of the image network
      served = signatures.ServedModel(
        model, tower_table.VIDEO, row.audio, tower_table.TEXT
      )
    output = os.path.join(self.get_temp_dir(), name)
    path = saved_model.write(served, output, 'runs/x/ckpt-7', 'A = 1\n')
    random = np.random.default_rng(3)
    frames = random.integers(0, 256, [2, 4, 32, 32, 3], np.uint8)
    sounds = random.uniform(-1, 1, [2, 8192]).astype(np.float32)
    requests = {
      'embed_video/frames': frames,
      'embed_image/image': frames[:, 0],
      'embed_audio/waveform': sounds,
      'embed_audio/sample_rate': np.full([2], 8000, np.int32),
      'embed_text/text': np.array([b'a red star', b'blue']),
      'localize_audio/frames': frames,
      'localize_audio/waveform': sounds,
      'localize_audio/sample_rate': np.full([2], 8000, np.int32),
    }
    for space in ('video_audio', 'video_text'):
      name = f'localize_{space}'
      width = served.functions[name].input_signature[1].shape[1]
      requests[f'{name}/frames'] = frames
      requests[f'{name}/embedding'] = random.standard_normal([2, width]).astype(
        np.float32
      )
    answers, ops = stock_process.ask(path, requests)
    self.assertNotIn(False, ops.values())
    for signature in (
      'embed_video',
      'embed_image',
      'embed_audio',
      'embed_text',
      'localize_audio',
      'localize_video_audio',
      'localize_video_text',
    ):
      inputs = {
        key.split('/')[1]: tf.constant(value)
        for key, value in requests.items()
        if key.startswith(f'{signature}/')
      }
      expected = served.functions[signature](**inputs)
      for key, value in expected.items():
        actual = answers[f'{signature}/{key}']
        self.assertAllClose(actual, value, rtol=1e-3, atol=1e-4, msg=key)

  @parameterized.parameters(*_NAMES)
  def test_gradients_are_derivatives(self, name):
    self.addCleanup(tf_keras.mixed_precision.set_global_policy, 'float32')
    tf_keras.mixed_precision.set_global_policy('float64')
    batch = tower_table.features(name)
    random = np.random.default_rng(4)
    for each in tower_table.build(name).towers.values():
      weights = each.trainable_variables
      x = batch[each.input_name]
      if x.dtype.is_floating:
        x = tf.cast(x, tf.float64)
      factors = random.standard_normal(each(x).feature.shape)
      directions = [random.standard_normal(w.shape) for w in weights]

      def loss(each=each, x=x, factors=factors):
        return tf.reduce_sum(each(x, training=True).feature * factors)

      with tf.GradientTape() as tape:
        value = loss()
      expected = sum(
        float(tf.reduce_sum(tf.convert_to_tensor(gradient) * direction))
        for gradient, direction in zip(
          tape.gradient(value, weights), directions
        )
      )
      slopes = []
      # ReLUs need small steps; a tower that has float32 inside, large ones.
      for size in (1e-8, 1e-4, 1e-3):
        values = []
        for step in (size, -2 * size, size):
          for weight, direction in zip(weights, directions):
            weight.assign_add(step * direction)
          values.append(float(loss()))
        slopes.append((values[0] - values[1]) / (2 * size))
      nearest = min(slopes, key=lambda slope: abs(slope - expected))
      self.assertAllClose(nearest, expected, rtol=2e-3, msg=each.name)

  @parameterized.parameters(
    ('vatt', 'float32', False),
    ('mmv_s3d', 'float32', False),
    ('mmv_s3d', 'mixed_bfloat16', False),
    ('mmv_s3d', 'float32', True),
    ('tsm_and_transformers', 'float32', False),
    ('tsm_and_transformers', 'mixed_bfloat16', True),
  )
  def test_memory_is_what_the_graph_keeps(self, name, policy, use_remat):
    self.addCleanup(tf_keras.mixed_precision.set_global_policy, 'float32')
    tf_keras.mixed_precision.set_global_policy(policy)
    batch = tower_table.features(name)
    for each in tower_table.build(name).towers.values():
      x = batch[each.input_name]
      row = x.shape[-_row_rank(each) :]
      if hasattr(each, 'use_remat'):
        each.use_remat = use_remat
      operations, num_forward = graph_costs.trace(
        lambda x, training, each=each: {'y': each(x, training).feature},
        tf.TensorSpec(x.shape, x.dtype),
        training=True,
        with_gradients=True,
        weights=each.trainable_variables,
      )
      found = sum(n for _, n in graph_costs.kept(operations, num_forward))
      estimate = each.activation_bytes(tuple(row), x.shape[0])
      # Of the two texts, the few words are less than what is neglected.
      limit = 0.25 if each.input_name == 'text' else 0.03
      self.assertAllClose(
        estimate.kept / found, 1, rtol=0, atol=limit, msg=each.name
      )
      self.assertGreater(estimate.workspace, 0)

  @parameterized.parameters(*_NAMES)
  def test_summarized(self, name):
    batch = tower_table.features(name)
    model = tower_table.build(name)
    spec = {
      key: tf.TensorSpec(value.shape[1:], value.dtype)
      for key, value in batch.items()
    }
    text = summary.summarize(model, spec, 4)
    for modality, each in model.towers.items():
      self.assertIn(modality, str(text))
      shape = tuple(batch[each.input_name].shape[-_row_rank(each) :])
      grid = each.token_grid(shape)
      output = each(batch[each.input_name], need_tokens=True)
      self.assertEqual(output.tokens.shape[-2], np.prod(grid))


def _row_rank(each):
  """The rank of one row of a tower's input."""
  return {'video': 4, 'audio': 2, 'spectrogram': 2, 'text': 1}[each.input_name]


if __name__ == '__main__':
  tf.test.main()
