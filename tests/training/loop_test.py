"""Trains a small model on records end to end: start, stop, go on, evaluate."""

import contextlib
import copy
import io
import json
import os
import re
import shutil
import signal
import tempfile
from unittest import mock

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import config
import tf_keras

from tests import fake_clips, logical_devices
from tests.checkpoints import checkpoint_files
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import manager
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import retrieval, runner
from vatt_tf.input_pipeline.records import writing
from vatt_tf.training import loop, progress


def setUpModule():
  logical_devices.make()


_SMALL = (
  'BATCH_SIZE=4',
  'TRAIN_STEPS=4',
  'WARMUP_STEPS=0',
  'STEPS_PER_LOOP=1',
  'LOG_INTERVAL=1',
  'NUM_FRAMES=4',
  'FRAME_SIZE=32',
  'NUM_AUDIO_SAMPLES=8000',
  'TABLE_SPECTROGRAM_FRAMES=24',
  'Size.num_layers=1',
  'Size.d_model=16',
  'Size.d_ff=16',
  'Size.num_heads=2',
  'Size.d_kv=8',
  'CACHE_GIB=0.0',
  "STRATEGY='cpu'",
)
_NO_EVALUATION = 'train.eval_dataset=None'

_OPTIONS = (
  'make_optimizer.weight_decay=0.1',
  "make_optimizer.learning_rate_multipliers=[('/encoder/', 0.5)]",
  "make_optimizer.frozen=['text_embedding/table']",
  'make_optimizer.ema_decay=0.5',
  'make_optimizer.clip_norm=1.0',
  'CACHE_GIB=0.1',
)


class LoopTest(tf.test.TestCase, parameterized.TestCase):
  trained = None  # the shared run: its folder, its metrics and what it printed

  def setUp(self):
    super().setUp()
    self.dir = self.get_temp_dir()
    self.model_dir = os.path.join(self.dir, 'model')
    for split, seeds in (('train', range(8)), ('validation', range(8, 14))):
      path = writing.shard_path(self.dir, split, 0, 1)
      if not os.path.exists(path):
        with writing.ShardWriter(path) as writer:
          for seed in seeds:
            writer.write(
              fake_clips.fake_clip(
                seed, num_frames=10, height=40, width=48, sample_rate=16000
              )
            )
    self.vocabulary = os.path.join(self.dir, 'vocabulary.txt')
    with open(self.vocabulary, 'w', encoding='utf-8') as file:
      file.write('<pad>\n<bos>\n<eos>\n<unk>\nclip\n')
    self.out = ''

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _parse(self, *params):
    gin_utils.parse(
      ['gin/pretrain_sample.gin'],
      [
        f"TRAIN_RECORDS='{self.dir}/train-*'",
        f"EVAL_RECORDS='{self.dir}/validation-*'",
        f"VOCABULARY='{self.vocabulary}'",
        *_SMALL,
        *params,
      ],
    )

  def _train(self, *params, model_dir=None):
    self._parse(*params)
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
      metrics = loop.train(model_dir or self.model_dir)
    self.out = stream.getvalue()
    return metrics

  def _printed_losses(self):
    """The losses of each step, as they were printed."""
    lines = re.findall(r'loss \d.*video_text_loss [\d.]+', self.out)
    return [[float(x) for x in re.findall(r'[\d.]+', line)] for line in lines]

  def _copy_trained_run(self, model_dir=None):
    """Copies the run of two steps with an evaluation that tests share.

    Args:
      model_dir: Where to; None means the folder of the test.

    Returns:
      The metrics of its evaluation.
    """
    cls = type(self)
    if cls.trained is None:
      folder = tempfile.TemporaryDirectory()
      cls.addClassCleanup(folder.cleanup)
      model_dir_of_class = os.path.join(folder.name, 'model')
      metrics = self._train('TRAIN_STEPS=2', model_dir=model_dir_of_class)
      cls.trained = model_dir_of_class, metrics, self.out
      gin.clear_config()
    source, metrics, self.out = cls.trained
    shutil.copytree(source, model_dir or self.model_dir)
    return copy.deepcopy(metrics)

  def test_goes_on_from_what_is_whole(self):
    self.model_dir = os.path.join(self.dir, 'exp [lr=1e-3], 2', 'run')
    self._copy_trained_run()
    state = os.path.join(self.model_dir, 'checkpoint')
    os.remove(state)
    options = ('train.keep_checkpoints=2', 'CHECKPOINT_INTERVAL=1')
    self._train('TRAIN_STEPS=4', *options, _NO_EVALUATION)
    self.assertIn('Resuming at step 2 of 4', self.out)
    names = [name for name in os.listdir(self.model_dir) if 'index' in name]
    self.assertCountEqual(names, ['ckpt-3.index', 'ckpt-4.index'])
    # A power cut, that is.
    with open(state, 'wb') as file:
      file.write(bytes(32))
    checkpoint_files.truncate(
      os.path.join(self.model_dir, 'ckpt-4.data-00000-of-00001')
    )
    self._train('TRAIN_STEPS=4', *options, _NO_EVALUATION)
    self.assertIn('Resuming at step 3 of 4', self.out)
    whole = manager.latest(self.model_dir)
    self.assertEndsWith(whole, 'ckpt-4')
    # Nothing is left but the best.
    for name in os.listdir(self.model_dir):
      if 'ckpt' in name:
        os.remove(os.path.join(self.model_dir, name))
    os.remove(state)
    self._train('TRAIN_STEPS=3', _NO_EVALUATION)
    self.assertIn('Resuming at step 2 of 3', self.out)
    # Nothing that is whole.
    for name in os.listdir(self.model_dir):
      if name.endswith('.index'):
        os.remove(os.path.join(self.model_dir, name))
    with self.assertRaisesRegex(ValueError, 'No checkpoint in .* is complete'):
      self._train('TRAIN_STEPS=4', _NO_EVALUATION)

  def test_step_of_a_checkpoint_under_another_name(self):
    self._copy_trained_run()
    for name in os.listdir(self.model_dir):
      path = os.path.join(self.model_dir, name)
      os.rename(path, path.replace('ckpt-2', 'ckpt-7'))
    with self.assertRaisesRegex(ValueError, 'ckpt-7 holds .* step 2'):
      self._train('TRAIN_STEPS=9', _NO_EVALUATION)

  def test_without_records_to_evaluate(self):
    metrics = self._train('TRAIN_STEPS=1', 'EVAL_RECORDS=None')
    self.assertEmpty(metrics)
    self.assertIn('No evaluation: EVAL_RECORDS is None.', self.out)
    self.assertIn('Done: step 1', self.out)
    with self.assertRaisesRegex(ValueError, 'TRAIN_RECORDS must be a pattern'):
      self._train('TRAIN_RECORDS=None', model_dir=f'{self.model_dir}2')

  def test_folder_that_cannot_be_written(self):
    path = os.path.join(self.dir, 'file')
    with open(path, 'w') as file:
      file.write('')
    with self.assertRaisesRegex(OSError, 'file/run cannot be written'):
      self._train(model_dir=os.path.join(path, 'run'))
    with self.assertRaisesRegex(OSError, 'nothing://b/run cannot be written'):
      self._train(model_dir='nothing://b/run')

  def test_trains_evaluates_and_goes_on(self):
    metrics = self._copy_trained_run()
    self.assertEqual(metrics['text_to_video']['pool_size'], 6)
    for part in (metrics, metrics['text_to_video']):
      self.assertIs(type(part), dict)  # else JSON does not take it
    self.assertIn('Starting at step 0 of 2', self.out)
    self.assertIn('step 2/2', self.out)
    self.assertIn('text -> video', self.out)
    for name in ('config.gin', 'operative_config.gin', 'best', 'train', 'eval'):
      self.assertTrue(os.path.exists(os.path.join(self.model_dir, name)), name)
    events = os.listdir(os.path.join(self.model_dir, 'train'))
    self.assertLen(events, 1)
    tags = {
      value.tag
      for event in tf.compat.v1.train.summary_iterator(
        os.path.join(self.model_dir, 'train', events[0])
      )
      for value in event.summary.value
    }
    self.assertContainsSubset(
      {
        'loss',
        'video_audio_loss',
        'video_text_loss',
        'learning_rate',
        'accuracy/video_to_text',
        'accuracy/text_to_video',
        'examples_per_second',
        'gradient_norm/video',
        'gradient_norm/audio',
      },
      tags,
    )
    self._train('TRAIN_STEPS=4')
    self.assertIn('Resuming at step 2 of 4', self.out)
    self.assertEndsWith(manager.latest(self.model_dir), 'ckpt-4')
    self._train('TRAIN_STEPS=4')
    self.assertIn('Done: step 4', self.out)

  def test_interrupted_equals_uninterrupted(self):
    self._train(_NO_EVALUATION)
    other = os.path.join(self.dir, 'interrupted')
    update = progress.Progress.update

    def interrupt(line, step, *others):
      if step == 2:
        os.kill(os.getpid(), signal.SIGINT)
      return update(line, step, *others)

    with mock.patch.object(progress.Progress, 'update', interrupt):
      self._train(_NO_EVALUATION, model_dir=other)
    self.assertIn('Stopped by SIGINT at step 2', self.out)
    self.assertEndsWith(manager.latest(other), 'ckpt-2')
    self._train(_NO_EVALUATION, model_dir=other)
    whole = checkpoint_files.trained_values(self.model_dir)
    parts = checkpoint_files.trained_values(other)
    self.assertEqual(set(whole), set(parts))
    for name, value in whole.items():
      self.assertAllClose(value, parts[name], atol=1e-6, msg=name)

  def test_interrupted_equals_uninterrupted_with_every_option(self):
    # Threads add up in any order otherwise.
    options = (*_OPTIONS, 'train.deterministic=True')
    self.addCleanup(config.disable_op_determinism)
    self._train(*options, _NO_EVALUATION)
    self.assertRegex(self.out, r'Frozen: 1 of \d+ trainable weights')
    self.assertIn('Average of the weights', self.out)
    other = os.path.join(self.dir, 'interrupted')
    for steps in (2, 4):
      # The learning rate follows TRAIN_STEPS, which here is where to stop.
      self._train(
        *options,
        _NO_EVALUATION,
        f'train.train_steps={steps}',
        model_dir=other,
      )
    whole = checkpoint_files.trained_values(self.model_dir)
    parts = checkpoint_files.trained_values(other)
    self.assertEqual(set(whole), set(parts))
    self.assertTrue(any(name.startswith('ema/') for name in whole))
    frozen = [name for name in whole if 'text_embedding/table' in name]
    self.assertLen(frozen, 1)  # no moments, no average
    for name, value in whole.items():
      self.assertAllEqual(value, parts[name], name)

  def test_evaluation_uses_the_average(self):
    trained = self._train('TRAIN_STEPS=2', 'make_optimizer.ema_decay=0.999')
    self._parse()
    average, _ = runner.evaluate(self.model_dir)
    self.assertEqual(average, trained)
    best, _ = runner.evaluate(os.path.join(self.model_dir, 'best'))
    self.assertEqual(best, trained)

    def used_weights(**options):
      with mock.patch.object(
        retrieval,
        'evaluate_retrieval',
        lambda model, *_: {'gamma': model.encoder.norm.gamma.numpy().tolist()},
      ):
        return runner.evaluate(self.model_dir, **options)[0]['gamma']

    name = 'ema/vatt/encoder/norm/gamma/.ATTRIBUTES/VARIABLE_VALUE'
    model = 'model/encoder/norm/gamma/.ATTRIBUTES/VARIABLE_VALUE'
    first = checkpoint_files.trained_values(self.model_dir)
    self.assertNotAllClose(first[model], first[name], rtol=1e-9, atol=1e-9)
    self.assertAllEqual(used_weights(), first[name])
    self.assertAllEqual(used_weights(use_ema=False), first[model])
    # A new run starts from the average too.
    other = os.path.join(self.dir, 'second')
    self._train(
      'TRAIN_STEPS=1',
      f"INIT_CHECKPOINT='{self.model_dir}'",
      'make_optimizer.ema_decay=0.5',
      'WarmupCosine.peak_learning_rate=0.0',
      'WarmupCosine.final_learning_rate=0.0',
      _NO_EVALUATION,
      model_dir=other,
    )
    second = checkpoint_files.trained_values(other)
    self.assertAllEqual(second[model], first[name])
    self.assertAllClose(second[name], first[name])

  def test_average_of_a_run_that_had_none(self):
    self._copy_trained_run()
    with self.assertRaisesRegex(ValueError, 'another model or optimizer'):
      self._train('TRAIN_STEPS=3', 'make_optimizer.ema_decay=0.5')

  def test_float16_with_cached_gradients_goes_on(self):
    options = ("PRECISION='mixed_float16'", 'MICRO_BATCH_SIZE=2')
    self.addCleanup(tf_keras.mixed_precision.set_global_policy, 'float32')
    self._train('TRAIN_STEPS=1', _NO_EVALUATION, *options)
    self._train('TRAIN_STEPS=2', _NO_EVALUATION, *options)
    self.assertIn('Resuming at step 1', self.out)
    self.assertIn('Done: step 2', self.out)

  def test_two_devices_train_as_one(self):
    self._train('TRAIN_STEPS=2', _NO_EVALUATION)
    losses = self._printed_losses()
    self.assertLen(losses, 2)
    other = os.path.join(self.dir, 'mirrored')
    self._train(
      'TRAIN_STEPS=2',
      _NO_EVALUATION,
      "STRATEGY='mirrored'",
      'NUM_DEVICES=2',
      model_dir=other,
    )
    self.assertIn('2 replicas', self.out)
    # They may differ by one in the last digit.
    self.assertAllClose(self._printed_losses(), losses, atol=1.01e-3)
    one = checkpoint_files.trained_values(self.model_dir)
    two = checkpoint_files.trained_values(other)
    self.assertEqual(set(one), set(two))
    for name, value in one.items():
      if 'iter' in name or '/m/' in name or '/v/' in name:
        continue
      # Adam turns the rounding of a gradient of zero into a step of the
      # learning rate, either way.
      self.assertAllClose(value, two[name], atol=4e-3, msg=name)

  def test_overfits_one_batch(self):
    losses = []
    update = progress.Progress.update

    def record(line, step, metrics, *others):
      losses.append(metrics['loss'])
      return update(line, step, metrics, *others)

    with mock.patch.object(progress.Progress, 'update', record):
      self._train(
        'TRAIN_STEPS=30',
        'STEPS_PER_LOOP=5',
        'train.overfit_one_batch=True',
        _NO_EVALUATION,
        'DROPOUT_RATE=0.1',
        'DROP_TOKEN_RATE=0.5',
        "WarmupCosine.shape='constant'",
      )
    # The draws stay the same too, so that every loop is better.
    self.assertAllLess(np.diff(losses), 0)

  def test_evaluate_reads_what_training_wrote(self):
    trained = self._copy_trained_run()
    self._parse()
    output = os.path.join(self.dir, 'metrics.json')
    metrics, path = runner.evaluate(self.model_dir, output=output)
    self.assertEndsWith(path, 'ckpt-2')
    for direction, result in trained.items():
      for name, value in result.items():
        self.assertEqual(metrics[direction][name], value)
    with open(output, encoding='utf-8') as file:
      self.assertIn('text_to_video', json.load(file)['retrieval'])

  def test_starts_from_the_weights_of_another_run(self):
    self._copy_trained_run()
    other = os.path.join(self.dir, 'second')
    self._train(
      'TRAIN_STEPS=2',
      _NO_EVALUATION,
      f"INIT_CHECKPOINT='{self.model_dir}'",
      'WarmupCosine.peak_learning_rate=0.0',
      'WarmupCosine.final_learning_rate=0.0',
      _NO_EVALUATION,
      model_dir=other,
    )
    first = checkpoint_files.trained_values(self.model_dir)
    second = checkpoint_files.trained_values(other)
    name = 'model/encoder/norm/gamma/.ATTRIBUTES/VARIABLE_VALUE'
    self.assertAllClose(first[name], second[name])
    self.assertGreater(np.abs(first[name] - 1).max(), 0)

  def test_checkpoint_of_another_model(self):
    self._copy_trained_run()
    with self.assertRaisesRegex(ValueError, 'written by another model'):
      self._train('TRAIN_STEPS=3', 'Size.d_ff=24')

  @parameterized.parameters(
    (("TRAIN_RECORDS='/nowhere/x-*'",), 'TRAIN_RECORDS'),
    (('BATCH_SIZE=3', "STRATEGY='mirrored'", 'NUM_DEVICES=2'), '3|divisible'),
    (("STRATEGY='gpu'",), 'one_device'),
    (("PRECISION='float64'",), 'mixed_bfloat16'),
    (("train.best_metric='R@3'",), 'text_to_video/R@10'),
    (("make_optimizer.frozen=['tabel']",), "`frozen`.*'tabel'.*vatt/encoder"),
  )
  def test_bad_configuration(self, params, message):
    with self.assertRaisesRegex(ValueError, message):
      self._train('TRAIN_STEPS=1', *params)


if __name__ == '__main__':
  tf.test.main()
