"""Image networks of video networks: what they compute, and their training."""

import dataclasses
import json
import os
from unittest import mock

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf
import tf_keras

from tests import fake_clips, tower_table, vatt_models
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import folders, manager, plans
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import runner
from vatt_tf.input_pipeline.records import writing
from vatt_tf.models import patch_tower, sizes
from vatt_tf.training import deflation, image_network

_SIZE = sizes.Size(2, 8, 16, 2, 4)


def _images(count, seed=0, size=16):
  random = np.random.default_rng(seed)
  return tf.constant(
    random.uniform(-1, 1, [count, 1, size, size, 3]), tf.float32
  )


class PatchTowerTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters('release', 'vit')
  def test_one_slot_is_exact(self, form):
    tf_keras.utils.set_random_seed(1)
    tower = patch_tower.PatchTower(
      'video', (4, 8, 8), (4, 16), size=_SIZE, form=form
    )
    tower.build()
    images = _images(3)
    image_tower = tower.deflate()
    self.assertAllClose(
      image_tower(images).feature,
      tower(tf.repeat(images, 4, 1)).feature,
      atol=1e-5,
    )
    self.assertEqual(image_tower.token_grid((1, 16, 16, 3)), (1, 2, 2))

  @parameterized.parameters('release', 'vit')
  def test_positions_are_means_over_time(self, form):
    tower = patch_tower.PatchTower(
      'video', (2, 8, 8), (6, 16), size=_SIZE, form=form
    )
    tower.build()
    image_tower = tower.deflate()
    table = tower.embedding.position_embedding.weights[0].numpy()
    expected = np.mean(np.reshape(table, [3, -1, 8]), 0)
    actual = image_tower.embedding.position_embedding.weights[0]
    self.assertAllClose(actual, expected)

  def test_the_agnostic_encoder_is_shared(self):
    model = vatt_models.build_vatt(
      _SIZE,
      num_frames=4,
      frame_size=16,
      video_patch_size=(2, 8, 8),
      num_audio_samples=256,
      audio_patch_size=32,
      vocabulary_size=20,
      d_post_projection=10,
    )
    image_tower = model.towers['video'].deflate()
    self.assertIs(image_tower.encoder, model.encoder)
    self.assertEqual(image_tower(_images(2)).feature.shape, [2, 10])
    names = [plans.target_name(w) for w in deflation.norm_weights(image_tower)]
    self.assertNotEmpty(names)
    for name in names:
      self.assertStartsWith(name, 'vatt/video_embedding/')

  def test_other_modalities_have_none(self):
    tower = patch_tower.PatchTower('audio', input_size=256, size=_SIZE)
    self.assertIsNone(tower.deflate())


class TrainingTest(tf.test.TestCase):
  def test_only_norms_move_and_the_distance_falls(self):
    tf_keras.utils.set_random_seed(1)
    tower = patch_tower.PatchTower(
      'video', (2, 8, 8), (6, 16), size=_SIZE, drop_token_rate=0.0
    )
    tower.build()
    copy = patch_tower.PatchTower.from_config(tower.get_config())
    copy.build()
    copy.set_weights(tower.get_weights())
    image_tower = copy.deflate()
    before = [w.numpy() for w in image_tower.weights]
    video_before = [w.numpy() for w in tower.weights]
    train = [_images(16, seed) for seed in range(8)]
    test = [_images(16, seed) for seed in (100, 101)]
    comparison = deflation.Comparison(tower, train, test, 6)
    naive = comparison.features(image_tower)
    deflation.train(tower, image_tower, train * 10, 6, 80, 1e-2)
    distances = comparison.distances(naive, comparison.features(image_tower))
    self.assertLess(distances.trained, distances.naive)
    self.assertEqual(distances.num_images, 32)
    self.assertAllEqual([w.numpy() for w in tower.weights][0], video_before[0])
    moved = {id(w) for w in deflation.norm_weights(image_tower)}
    for weight, value in zip(image_tower.weights, before):
      if id(weight) not in moved:
        self.assertAllEqual(weight, value, weight.name)

  def test_distances_by_hand(self):
    class Tower:
      def __init__(self, factor):
        self.factor = factor

      def __call__(self, x):
        return type('Output', (), {'feature': self.factor * x[:, 0, 0, 0]})

    train, test = _images(6, 1), _images(5, 2)
    comparison = deflation.Comparison(Tower(3.0), [train], [test], 4)
    naive = comparison.features(Tower(1.0))
    trained = comparison.features(Tower(2.0))
    distances = comparison.distances(naive, trained)
    mean = np.abs(test[:, 0, 0, 0]).mean()
    self.assertAllClose(distances.feature, 3 * mean)
    self.assertAllClose(distances.naive, 2 * mean)
    self.assertAllClose(distances.trained, mean)
    self.assertAllClose(distances.control, 0, atol=1e-6)  # a factor mends it

  def test_a_constant_feature_gets_no_scale(self):
    class Tower:
      def __init__(self, noise):
        self.noise = noise

      def __call__(self, x):
        feature = x[:, 0, 0, 0] * [1.0, 1.0, self.noise]
        return type('Output', (), {'feature': feature})

    train, test = _images(6, 1), 5 * _images(5, 2)
    comparison = deflation.Comparison(Tower(1.0), [train], [test], 4)
    naive = comparison.features(Tower(1e-5))
    distances = comparison.distances(naive, naive)
    self.assertLess(distances.control, 2 * distances.naive)

  def test_features_must_be_finite(self):
    def tower(x):
      return type('Output', (), {'feature': x[:, 0, 0, 0] / 0.0})

    with self.assertRaisesRegex(ValueError, 'not finite'):
      deflation.Comparison(tower, [_images(2)], [_images(2)], 4)


class CommandTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = self.create_tempdir().full_path
    for split, seeds in (('train', range(8)), ('validation', range(8, 12))):
      path = writing.shard_path(self.dir, split, 0, 1)
      with writing.ShardWriter(path) as writer:
        for seed in seeds:
          writer.write(
            fake_clips.fake_clip(
              seed, num_frames=10, height=40, width=48, sample_rate=16000
            )
          )
    vocabulary = os.path.join(self.dir, 'words.txt')
    with open(vocabulary, 'w', encoding='utf-8') as file:
      file.write('<pad>\n<bos>\n<eos>\n<unk>\nclip\n')
    self.params = [
      f"TRAIN_RECORDS='{self.dir}/train-*'",
      f"EVAL_RECORDS='{self.dir}/validation-*'",
      f"VOCABULARY='{vocabulary}'",
      'NUM_FRAMES=4',
      'FRAME_SIZE=32',
      'NUM_AUDIO_SAMPLES=8000',
      'TABLE_SPECTROGRAM_FRAMES=24',
      *(
        f'Size.{name}={size}'
        for name, size in (
          ('num_layers', 1),
          ('d_model', 16),
          ('d_ff', 16),
          ('num_heads', 2),
          ('d_kv', 8),
        )
      ),
      'text/Size.num_layers=1',
      'CACHE_GIB=0.0',
    ]

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _run(self, *gin_files):
    """A run of random weights."""
    gin_utils.parse(['gin/pretrain_sample.gin', *gin_files], self.params)
    run = os.path.join(self.dir, 'run')
    model = gin_utils.get_task().build_model()
    gin_utils.write_config(run)
    checkpoint = tf.train.Checkpoint(model=model)
    folders.save(checkpoint, run, step=1, max_to_keep=1)
    gin.clear_config()
    return run, model

  @parameterized.parameters(
    'gin/models/agnostic.gin', 'gin/models/specific.gin'
  )
  def test_writes_a_run(self, model_file):
    run, video_model = self._run(model_file)
    output = os.path.join(self.dir, 'deflated')
    path, distances = image_network.write(
      run, f'{self.dir}/train-*', output, steps=3, batch_size=4, num_images=8
    )
    self.assertEqual(distances.num_images, 4)
    with open(os.path.join(output, 'deflation.json')) as file:
      self.assertEqual(json.load(file)['naive'], distances.naive)
    gin_utils.parse([os.path.join(output, 'config.gin')])
    model = gin_utils.get_task().build_model()
    manager.restore_model(model, path)
    self.assertEqual(model.towers['video'].patch_size, (1, 8, 8))
    for modality in ('audio', 'text'):
      for mine, theirs in zip(
        model.towers[modality].weights, video_model.towers[modality].weights
      ):
        self.assertAllEqual(mine, theirs, mine.name)
    metrics, _ = runner.evaluate(output)  # on one frame of each clip
    self.assertIn('text_to_video', metrics)
    with self.assertRaisesRegex(ValueError, 'already takes one frame'):
      image_network.write(output, f'{self.dir}/train-*', f'{output}2')

  def test_frames_of_the_run_in_a_scope(self):
    self.params.append('eval/VideoConfig.num_frames=8')
    run, _ = self._run('gin/models/specific.gin')
    output = f'{self.dir}/out'
    image_network.write(
      run,
      f'{self.dir}/train-*',
      output,
      steps=1,
      batch_size=4,
      num_images=4,
    )
    metrics, _ = runner.evaluate(output)
    self.assertIn('text_to_video', metrics)

  def test_records_without_video(self):
    run, _ = self._run('gin/models/specific.gin')
    path = writing.shard_path(self.dir, 'sound', 0, 1)
    clip = fake_clips.fake_clip(0, num_frames=10, sample_rate=16000)
    with writing.ShardWriter(path) as writer:
      writer.write(dataclasses.replace(clip, frames=[], timestamps=[]))
    there, silent = f'{self.dir}/train-*', f'{self.dir}/sound-*'
    for images, held_out, message in (
      (silent, there, 'sound-.* have no video.*--images'),
      (there, silent, 'sound-.* have no video.*--held_out'),
      (f'{self.dir}/none-*', there, '--images must match'),
      (there, f'{self.dir}/none-*', '--held_out must match'),
    ):
      with self.subTest(images=images, held_out=held_out):
        with self.assertRaisesRegex(ValueError, message):
          image_network.write(
            run, images, f'{self.dir}/out', held_out, steps=1, batch_size=4
          )

  def test_a_tower_in_another_scope(self):
    path = os.path.join(self.dir, 'towers.gin')
    with open(path, 'w', encoding='utf-8') as file:
      file.write("TOWERS = {'video': @TSMResNetTower(), ")
      file.write("'audio': @audio/PatchTower(), 'text': @TextTower()}\n")
    with tower_table.first_parts():
      run, _ = self._run('gin/models/specific.gin', path)
      with self.assertRaisesRegex(ValueError, '@video/TSMResNetTower'):
        image_network.write(
          run,
          f'{self.dir}/train-*',
          f'{self.dir}/out',
          steps=1,
          batch_size=4,
          num_images=4,
        )

  def test_nothing_to_deflate(self):
    with self.assertRaisesRegex(ValueError, 'no image network'):
      run, _ = self._run('gin/models/specific.gin')
      with mock.patch.object(
        patch_tower.PatchTower, 'deflate', lambda self: None
      ):
        image_network.write(run, f'{self.dir}/train-*', f'{self.dir}/out')


if __name__ == '__main__':
  tf.test.main()
