"""Runs recipes of fine-tuning on generated records, at a tiny size."""

import contextlib
import io
import os
from unittest import mock

import gin
import tensorflow as tf

from tests import fake_clips
from vatt_tf.core import gin_utils
from vatt_tf.input_pipeline.records import writing
from vatt_tf.training import loop, progress

NUM_CLASSES = 3
_NUM_TRAIN, _NUM_EVAL = 8, 5

# Two epochs of 8 records.
_SMALL = (
  'BATCH_SIZE=4',
  'TRAIN_STEPS=4',
  'WARMUP_STEPS=1',
  'STEPS_PER_LOOP=1',
  'LOG_INTERVAL=1',
  'LEARNING_RATE=0.05',
  'train.eval_batch_size=6',
)


class RecordsCase(tf.test.TestCase):
  """A test with records in `folder`, and no gin left over afterwards."""

  def setUp(self):
    super().setUp()
    self.folder = self.create_tempdir().full_path
    write_records(self.folder)

  def tearDown(self):
    gin.clear_config()
    super().tearDown()


def sizes(scope):
  """Bindings that make an encoder tiny: of `Size`, or of `video/Size`."""
  owner = {
    'video/': ('video/PatchTower.size=@video/Size()',),
    'audio/': ('audio/PatchTower.size=@audio/Size()',),
    'text/': ('TextTower.size=@text/Size()',),
  }
  return owner.get(scope, ()) + tuple(
    f'{scope}Size.{name}={value}'
    for name, value in (
      ('num_layers', 1),
      ('d_model', 8),
      ('d_ff', 16),
      ('num_heads', 2),
      ('d_kv', 4),
    )
  )


def write_records(folder, num_classes=NUM_CLASSES, **arguments):
  """Writes `train-*` and `validation-*`; `arguments` are of `fake_clip`."""
  for split, seeds in (
    ('train', range(_NUM_TRAIN)),
    ('validation', range(_NUM_TRAIN, _NUM_TRAIN + _NUM_EVAL)),
  ):
    path = writing.shard_path(folder, split, 0, 1)
    with writing.ShardWriter(path) as writer:
      for seed in seeds:
        writer.write(
          fake_clips.fake_clip(
            seed,
            num_frames=10,
            height=20,
            width=24,
            sample_rate=4000,
            num_classes=num_classes,
            **arguments,
          )
        )


def run(recipe, folder, model_dir, *params, use_records=True):
  """Trains and evaluates.

  Args:
    recipe: name of a top gin file.
    folder: of `write_records`.
    model_dir: directory to write to.
    *params: more bindings.
    use_records: whether the recipe reads records.

  Returns:
    (losses, metrics, text): the loss of each step, the last evaluation's
    metrics, and what was printed.
  """
  paths = (
    f"TRAIN_RECORDS='{os.path.join(folder, 'train-*')}'",
    f"EVAL_RECORDS='{os.path.join(folder, 'validation-*')}'",
  )
  gin_utils.parse(
    [f'gin/{recipe}.gin'],
    [
      *(paths if use_records else ()),
      f'NUM_CLASSES={NUM_CLASSES}',
      'LABEL_NAMES=None',
      *_SMALL,
      *params,
    ],
  )
  losses = []
  update = progress.Progress.update

  def record(line, step, metrics, *others):
    losses.append(metrics['loss'])
    return update(line, step, metrics, *others)

  stream = io.StringIO()
  with (
    mock.patch.object(progress.Progress, 'update', record),
    contextlib.redirect_stdout(stream),
  ):
    metrics = loop.train(model_dir)
  return losses, metrics, stream.getvalue()


def check_devices(test, recipe, folder, *params, **options):
  """Runs a recipe on one and on two logical devices: the figures are equal.

  Args:
    test: `tf.test.TestCase`.
    recipe: see `run`.
    folder: see `run`.
    *params: see `run`.
    **options: see `run`.

  Returns:
    What `run` returned for one device.
  """
  one = run(
    recipe,
    folder,
    os.path.join(test.create_tempdir().full_path, 'one'),
    *params,
    "STRATEGY='cpu'",
    **options,
  )
  two = run(
    recipe,
    folder,
    os.path.join(test.create_tempdir().full_path, 'two'),
    *params,
    "STRATEGY='mirrored'",
    'NUM_DEVICES=2',
    **options,
  )
  test.assertIn('2 replicas', two[2])
  test.assertLen(one[0], 4)
  test.assertAllClose(one[0], two[0], rtol=1e-4)
  test.assertEqual(one[1].keys(), two[1].keys())
  for name, value in one[1].items():
    if isinstance(value, float):
      test.assertAllClose(value, two[1][name], rtol=1e-3, msg=name)
    else:
      test.assertEqual(value, two[1][name], name)
  return one
