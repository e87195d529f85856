"""Turns the video networks of MMV into image networks, and probes them.

    python -m benchmarks.verify_deflation --output=found.json

First without training: the distance between TSM-ResNet-50 and its image network
must fall as 1 / T, as only the ends of a still clip of T frames differ. Then
for three seeds: it trains `gin/pretrain_mmv_sample.gin` on the sample media as
a user would, and runs `python -m vatt_tf.deflate`. On frames of held-out clips
the image network must be nearer to the video network after training its norms
than before, and nearer than with the best scale and offset of each feature.

Linear probes are tested on held-out clips: of what a frame shows (shape,
colour), of what it shows in part (the kind of motion, by the place and size of
the shape) and of what it cannot show (whether the shape moves forward or back
on its line, or grows or shrinks: `direction`). `refitted` ones learn from the
features on which they are tested; `transferred` ones learn from the video
network's features of still clips. It takes about 25 minutes on two cores.
"""

import json
import math
import os
import statistics
import sys
import tempfile

import gin
import numpy as np
from sklearn import linear_model, pipeline, preprocessing
import tensorflow as tf
import tf_keras

from benchmarks import checks, verify_mmv
from vatt_tf import (
  configurables,  # noqa: F401
  quickstart,
)
from vatt_tf.checkpoints import manager
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import features
from vatt_tf.media.sample import plan, words
from vatt_tf.models import s3d_tower, tsm_resnet_tower

_SEEDS = (0, 1, 2)
_INFLATION, _TRAINED, _NAIVE = 'input inflation', 'trained', 'naive'
_CHANCE = {'shape': 1 / 6, 'colour': 1 / 8, 'motion': 1 / 6, 'direction': 0.5}
# Start of the frame in the middle of a clip of 3.2 s, at 5 frames per second.
_FRAME_SECONDS = 1.5
# Motions whose place and size at a time do not tell their direction.
_REVERSING = ('sideways', 'vertical', 'diagonal', 'pulse')


def _randomised(tower, random):
  """Builds a tower and gives all scales, offsets and statistics a spread."""
  tower.build()
  for weight in tower.weights:
    name = weight.name.removesuffix(':0').rsplit('/', 1)[-1]
    noise = random.standard_normal(weight.shape)
    if name == 'gamma':
      weight.assign(1 + 0.1 * noise)
    elif name in ('beta', 'moving_mean'):
      weight.assign(0.1 * noise)
    elif name == 'moving_variance':
      weight.assign(1.5 * np.exp(0.2 * noise))
  return tower


def _verify_ends(found):
  """The distance of untrained networks falls as the length of the clip."""
  random = np.random.default_rng(0)
  tf_keras.utils.set_random_seed(0)
  tower = _randomised(tsm_resnet_tower.TSMResNetTower(), random)
  images = tf.constant(random.uniform(-1, 1, [4, 1, 96, 96, 3]), tf.float32)
  feature = tower.deflate()(images).feature
  distances = {}
  for frames in (8, 16, 32):
    still = tower(tf.repeat(images, frames, 1)).feature
    distances[frames] = float(tf.reduce_mean(tf.abs(still - feature)))
  found.note('TSM, random weights: L1 distance by frames', distances)
  for frames in (16, 32):
    found.check(
      f'TSM: distance of 8 frames over that of {frames}',
      round(distances[8] / distances[frames], 3),
      at_least=frames / 8 * 0.93,
      at_most=frames / 8 * 1.07,
    )


def _note_costs(found):
  """FLOPs of a video network on a still clip, over those of the image."""
  for tower in (
    s3d_tower.S3DTower(first_layer='plain'),
    s3d_tower.S3DTower(),
    tsm_resnet_tower.TSMResNetTower(),
  ):
    tower.build()
    video, image = (
      sum(each.flops((frames, 224, 224, 3)).values())
      for each, frames in ((tower, 32), (tower.deflate(), 1))
    )
    name = type(tower).__name__
    if name == 'S3DTower':
      name += f', {tower.first_layer}'
    found.note(
      f'cost ratio, {name}, 32 frames of 224 pixels', round(video / image, 1)
    )


def _deflate(found, folder, run, name, *flags):
  """Deflates a run; returns the folder of the result and the distances."""
  output = f'{run}_{name}'
  _, code = checks.run_module(
    'deflate',
    f'--checkpoint={run}',
    f'--images={folder}/records/train-*.tfrecord',
    f'--output={output}',
    *flags,
  )
  found.check(
    f'{os.path.basename(output)}: exit code of deflate', code, equal=0
  )
  with open(f'{output}/deflation.json') as file:
    return output, json.load(file)


def _features(run, bindings):
  """Features of one frame of each clip, and the clips, for both splits.

  A video network sees the frame repeated: input inflation.
  """
  gin_utils.parse(
    [f'{run}/config.gin', 'gin/eval/linear_probe.gin'],
    [*bindings, 'PROBE_CLIPS=1', 'INFLATE_IMAGES=True', 'AUDIO_INPUT=None'],
  )
  model = gin_utils.get_task().build_model()
  manager.restore_model(model, manager.resolve(run))
  clips = {clip.video_path: clip for clip in plan.plan_clips(plan.Options())}
  result = []
  for scope in ('train', 'test'):
    with gin.config_scope(f'probe/{scope}'):
      dataset = gin.get_configurable('make_dataset')(global_batch_size=32)
    extracted = features.extract(model, dataset, ['video_feature'])
    # An id is PATH:START-END.
    chosen = [clips[name.rsplit(':', 1)[0]] for name in extracted.ids]
    result.append((extracted.values['video_feature'], chosen))
  return result


def _label(clip, attribute):
  """Label of the frame of a clip that `_features` takes, or None."""
  if attribute != 'direction':
    return getattr(clip, attribute)
  if clip.motion not in _REVERSING:
    return None
  # The frame in the middle of the clip, which begins at `_FRAME_SECONDS`.
  period, phase = plan.draw_pace(clip, plan.Options())
  return math.cos(2 * math.pi * (phase + _FRAME_SECONDS / period)) > 0


def _labelled(split, attribute):
  """Features and labels of the clips that have a label."""
  values, clips = split
  labels = [_label(clip, attribute) for clip in clips]
  kept = [i for i, label in enumerate(labels) if label is not None]
  return values[kept], [labels[i] for i in kept]


def _accuracy(train, test, attribute):
  """Accuracy on `test` of a linear classifier of an attribute.

  The strength of its penalty is chosen on the training clips.
  """
  classifier = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.RidgeClassifierCV(np.logspace(0, 5, 11)),
  )
  classifier.fit(*_labelled(train, attribute))
  return round(float(classifier.score(*_labelled(test, attribute))), 3)


def _verify_seed(found, folder, bindings, seed):
  """Trains, deflates and probes a model.

  Returns:
    Accuracy by (attribute, kind of probe, network).
  """
  run = f'{folder}/run_{seed}'
  verify_mmv.train(found, f'seed {seed}', run, [*bindings, f'SEED={seed}'])
  runs = {_INFLATION: run}
  runs[_TRAINED], distances = _deflate(found, folder, run, _TRAINED)
  runs[_NAIVE], _ = _deflate(found, folder, run, _NAIVE, '--steps=0')
  for name, value in distances.items():
    found.note(f'seed {seed}: {name}', value)
  for other in ('naive', 'control'):
    found.check(
      f'seed {seed}: trained distance over {other}',
      round(distances['trained'] / distances[other], 3),
      at_most=0.9,
    )
  values = {name: _features(path, bindings) for name, path in runs.items()}
  accuracies = {}
  for attribute in _CHANCE:
    for name, (train, test) in values.items():
      accuracies[attribute, 'refitted', name] = _accuracy(
        train, test, attribute
      )
      accuracies[attribute, 'transferred', name] = _accuracy(
        values[_INFLATION][0], test, attribute
      )
  return accuracies


def _verify_probes(found, of_seeds):
  """Compares the accuracies of all seeds."""
  for key in of_seeds[0]:
    attribute, kind, name = key
    if kind == 'transferred' and name == _INFLATION:
      continue  # the same as refitted
    found.note(
      f'{attribute} (chance {_CHANCE[attribute]:.3f}), {kind}, {name}',
      [accuracies[key] for accuracies in of_seeds],
    )
  for attribute in ('shape', 'colour'):
    trained, inflation = (
      [accuracies[attribute, 'refitted', name] for accuracies in of_seeds]
      for name in (_TRAINED, _INFLATION)
    )
    found.check(
      f'{attribute}: mean of the trained network, at least the lowest seed of '
      'input inflation',
      round(statistics.mean(trained), 3),
      at_least=min(inflation),
    )
  count = plan.Options().num_validation * len(_REVERSING) / len(words.MOTIONS)
  for name in (_INFLATION, _TRAINED):
    direction = [each['direction', 'refitted', name] for each in of_seeds]
    # Three standard deviations of a guess.
    found.check(
      f'direction, {name}: mean over the seeds, near chance',
      round(statistics.mean(direction), 3),
      at_most=round(0.5 + 3 * (0.25 / count) ** 0.5, 3),
    )


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__.splitlines()[0])
  found = checks.Checks(__doc__.splitlines()[0])
  _verify_ends(found)
  _note_costs(found)
  with tempfile.TemporaryDirectory() as folder:
    bindings = quickstart.make_data(folder)
    _verify_probes(
      found, [_verify_seed(found, folder, bindings, seed) for seed in _SEEDS]
    )
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
