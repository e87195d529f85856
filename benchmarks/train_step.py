"""The speed and memory of one training step, on this machine.

    python -m benchmarks.train_step --workload=p1 --precision=mixed_bfloat16

A step is forward, loss, backward and the update of Adam, on a batch of noise;
for `p2_video`, forward and backward of the video tower alone. Machines differ
and are noisy, so a score is the clips per second divided by the float32 matmul
peak (GFLOP/s, of 2048 x 2048 matrices) measured in the same run: the median of
`--rounds` alternations of {peak, some steps}. A run in which the peak varies by
more than 10 % reports that it is void, and ends with exit code 1.

The cost of dropout, or the gain of DropToken, is measured against a second
model in the same process, whose steps alternate with those of the first:

    python -m benchmarks.train_step --against_dropout_rate=0
    python -m benchmarks.train_step --workload=p2_video \\
      --against_drop_token_rate=0

`time_ratio` is the second model's time over the first one's, the median over
the rounds. The memory is then for both models.
"""

import argparse
import functools
import json
import resource
import sys
import time
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from tests import vatt_models
from vatt_tf.core import (
  feature_names,
  file_utils,
  modalities,
  randomness,
  strategies,
)
from vatt_tf.input_pipeline import (
  audio_config,
  fake_batches,
  text,
  video_config,
)
from vatt_tf.models import sizes
from vatt_tf.training import pretrain, schedules, trainer

_PRECISIONS = ('float32', 'mixed_bfloat16')
_PEAK_SIZE = 2048
_PEAK_REPEATS = 10
_VOCABULARY_SIZE = 65_536


class Workload(NamedTuple):
  """Computation of a step, and number of steps per round."""

  size: sizes.Size
  batch_size: int
  num_frames: int
  frame_size: int
  num_samples: int
  num_steps: int
  is_video_tower: bool = False


WORKLOADS = {
  'p1': Workload(sizes.SMALL, 8, 16, 112, 51_200, num_steps=3),
  'p2': Workload(sizes.MEDIUM, 2, 32, 224, 153_600, num_steps=3),
  'p2_video': Workload(
    sizes.MEDIUM, 2, 32, 224, 153_600, num_steps=1, is_video_tower=True
  ),
}
_VOID_SPREAD = 0.1


def make_model(workload, arguments, rates, **others):
  """The model of a workload.

  Args:
    workload: `Workload`.
    arguments: with `use_remat`, a bool.
    rates: dictionary of `dropout_rate` and `drop_token_rate`.
    **others: of `vatt_models.build_vatt`.

  Returns:
    `models.vatt.VATT`.
  """
  return vatt_models.build_vatt(
    workload.size,
    num_frames=workload.num_frames,
    frame_size=workload.frame_size,
    num_audio_samples=workload.num_samples,
    vocabulary_size=_VOCABULARY_SIZE,
    d_post_projection=workload.size.d_model,
    use_remat=arguments.use_remat,
    **rates,
    **others,
  )


def make_trainer(workload, arguments, rates, strategy=None, make_dataset=None):
  """Makes a trainer of a workload's model on one batch of noise.

  Args:
    workload: `Workload`; the batch is that of all devices.
    arguments: with `use_remat` and `jit_compile`, bools.
    rates: dictionary of `dropout_rate` and `drop_token_rate`.
    strategy: `tf.distribute.Strategy`; None: one device.
    make_dataset: makes the data set of an input pipeline from its
      `tf.distribute.InputContext`. None: every replica gets the same noise.

  Returns:
    (`trainer.Trainer`, its model).
  """
  strategy = strategy or strategies.make_strategy('one_device')

  def make_noise(context):
    return fake_batches.fake_dataset(
      workload.batch_size,
      make_video_config(workload),
      audio_config.AudioConfig(num_samples=workload.num_samples),
      text_config(),
      input_context=context,
    )

  task = pretrain.PretrainTask(
    functools.partial(make_model, workload, arguments, rates)
  )
  with strategy.scope():
    model = task.build_model()
    optimizer = schedules.make_optimizer(1e-4)
  step_trainer = trainer.Trainer(
    task,
    model,
    optimizer,
    strategy.distribute_datasets_from_function(make_dataset or make_noise),
    strategy,
    seed=0,
    jit_compile=arguments.jit_compile,
  )
  return step_trainer, model


def make_train_steps(workload, arguments, rates):
  """A function that runs N training steps on one batch of noise."""
  step_trainer, _ = make_trainer(workload, arguments, rates)
  return lambda num_steps: step_trainer.train(tf.constant(num_steps))


def _make_video_steps(workload, arguments, rates):
  """A function that runs the video tower forward and backward N times."""
  model = make_model(
    workload, arguments, rates, pairs=(modalities.VIDEO_AUDIO,)
  )
  tower = model.towers[modalities.VIDEO]
  variables = tower.trainable_variables
  batch = fake_batches.make_fake_batch(
    workload.batch_size, make_video_config(workload)
  )
  video_input = batch[feature_names.VIDEO]
  upstream = tf.random.normal([workload.batch_size, workload.size.d_model])

  @tf.function(autograph=False, jit_compile=arguments.jit_compile)
  def step(index):
    with tf.GradientTape() as tape:
      feature, _ = tower(
        video_input, training=True, rng=randomness.make(0, index)
      )
    return tape.gradient(feature, variables, output_gradients=upstream)

  def run(num_steps):
    for index in range(num_steps):
      step(tf.constant(index))

  return run


def make_video_config(workload):
  """The frames that a workload takes of a clip."""
  return video_config.VideoConfig(
    num_frames=workload.num_frames, frame_size=workload.frame_size
  )


def text_config():
  """The captions that each workload takes of a clip."""
  return text.TextConfig(
    num_captions=5, max_words=16, vocabulary_size=_VOCABULARY_SIZE
  )


def _make_peak():
  """A function that measures the float32 matmul peak in GFLOP/s."""
  a = tf.random.normal([_PEAK_SIZE, _PEAK_SIZE])

  @tf.function(autograph=False)
  def multiply():
    # The first row depends on all of the product, so that none is left out.
    return tf.reduce_sum(tf.matmul(a, a)[0])

  def measure():
    times = []
    for _ in range(_PEAK_REPEATS):
      start = time.perf_counter()
      multiply().numpy()
      times.append(time.perf_counter() - start)
    return 2 * _PEAK_SIZE**3 / np.median(times) / 1e9

  measure()
  return measure


def measure(arguments):
  """Measures a workload.

  Args:
    arguments: the parsed command line.

  Returns:
    A dictionary of figures.
  """
  tf_keras.mixed_precision.set_global_policy(arguments.precision)
  workload = WORKLOADS[arguments.workload]
  make_steps = make_train_steps
  if workload.is_video_tower:
    make_steps = _make_video_steps
  rates = {
    'dropout_rate': arguments.dropout_rate,
    'drop_token_rate': arguments.drop_token_rate,
  }
  changed = {
    'dropout_rate': arguments.against_dropout_rate,
    'drop_token_rate': arguments.against_drop_token_rate,
  }
  changed = {key: rate for key, rate in changed.items() if rate is not None}
  runs = [make_steps(workload, arguments, rates)]
  if changed:
    runs.append(make_steps(workload, arguments, {**rates, **changed}))
  peak = _make_peak()
  for run in runs:
    run(1)  # traces, and fills the caches
  peaks, times = [], []
  for _ in range(arguments.rounds):
    peaks.append(peak())
    times.append([_seconds_per_step(run, workload.num_steps) for run in runs])
  times = np.array(times)  # (rounds, runs)
  spread = (max(peaks) - min(peaks)) / np.median(peaks)
  batch_size = workload.batch_size
  seconds = times[:, 0]
  scores = batch_size / seconds / np.array(peaks)
  against = None
  if changed:
    against = {
      **changed,
      'seconds_per_step': float(np.median(times[:, 1])),
      'time_ratio': float(np.median(times[:, 1] / seconds)),
    }
  return {
    'workload': arguments.workload,
    'precision': arguments.precision,
    **rates,
    'use_remat': arguments.use_remat,
    'jit_compile': arguments.jit_compile,
    'batch_size': batch_size,
    'seconds_per_step': float(np.median(seconds)),
    'clips_per_second': float(batch_size / np.median(seconds)),
    'peak_gflops_per_second': float(np.median(peaks)),
    'peak_spread': float(spread),
    'is_void': bool(spread > _VOID_SPREAD),
    'score': float(np.median(scores)),
    'peak_memory_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    * 1024
    / 1e9,
    'against': against,
  }


def _seconds_per_step(run, num_steps):
  start = time.perf_counter()
  run(num_steps)
  return (time.perf_counter() - start) / num_steps


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Times a training step.')
  parser.add_argument('--workload', choices=sorted(WORKLOADS), default='p1')
  parser.add_argument('--precision', choices=_PRECISIONS, default='float32')
  parser.add_argument('--dropout_rate', type=float, default=0.1)
  parser.add_argument('--drop_token_rate', type=float, default=0.5)
  parser.add_argument('--against_dropout_rate', type=float)
  parser.add_argument('--against_drop_token_rate', type=float)
  parser.add_argument('--use_remat', action='store_true')
  parser.add_argument('--jit_compile', action='store_true')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--output', help='a JSON file to write')
  arguments = parser.parse_args()
  found = measure(arguments)
  print(json.dumps(found))
  print(
    f'{found["workload"]} {found["precision"]}: '
    f'{found["seconds_per_step"]:.2f} s a step, '
    f'{found["clips_per_second"]:.2f} clips/s, score {found["score"]:.5f} '
    f'(peak {found["peak_gflops_per_second"]:.0f} GFLOP/s, spread '
    f'{found["peak_spread"]:.0%}), {found["peak_memory_gb"]:.1f} GB'
  )
  if found['against']:
    changed = dict(found['against'])
    ratio, seconds = changed.pop('time_ratio'), changed.pop('seconds_per_step')
    changed = ', '.join(f'{name} {rate}' for name, rate in changed.items())
    print(f'against {changed}: {seconds:.2f} s a step, {ratio:.3f} of the time')
  if arguments.output:
    file_utils.write_text(arguments.output, json.dumps(found, indent=2) + '\n')
  if found['is_void']:
    print('Void: the peak varied by over 10 %. Measure on an idle machine.')
  return int(found['is_void'])


if __name__ == '__main__':
  sys.exit(main())
