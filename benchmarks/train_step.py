"""The speed and memory of one training step, on this machine.

    python -m benchmarks.train_step --workload=p1 --precision=mixed_bfloat16

A step is forward, loss, backward and the update of Adam, on a batch of noise.
Machines differ and are noisy, so that a figure is the clips a second over the
float32 matmul peak (GFLOP/s, of 2048 x 2048 matrices) measured in the same run:
the median of `--rounds` alternations of {peak, 3 steps}. A run in which the
peak varies by more than 10 % says that it is void, and ends with exit code 1.
"""

import argparse
import json
import resource
import sys
import time

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf import distribution, file_utils
from vatt_tf.input_pipeline import audio, pipeline, text, video
from vatt_tf.models import build
from vatt_tf.training import pretrain, schedules, trainer

_PRECISIONS = ('float32', 'mixed_bfloat16')
_NUM_STEPS = 3
_PEAK_SIZE = 2048
_PEAK_REPEATS = 10
# Size of the one encoder, batch, frames, frame size, samples.
_WORKLOADS = {
  'p1': (build.Size(6, 512, 2048, 8), 8, 16, 112, 51_200),
  'p2': (build.Size(12, 1024, 4096, 16), 2, 32, 224, 153_600),
}
_VOID_SPREAD = 0.1


def _make_trainer(arguments):
  """A trainer of a workload on one batch of noise, and its batch size."""
  size, batch_size, num_frames, frame_size, num_samples = _WORKLOADS[
    arguments.workload
  ]
  strategy = distribution.make_strategy('one_device')
  tf_keras.mixed_precision.set_global_policy(arguments.precision)
  vocabulary_size = 65_536

  def make_model():
    return build.build_model(
      size,
      num_frames=num_frames,
      frame_size=frame_size,
      num_audio_samples=num_samples,
      vocabulary_size=vocabulary_size,
      d_post_projection=size.d_model,
      drop_token_rate=arguments.drop_token_rate,
      dropout_rate=arguments.dropout_rate,
      use_remat=arguments.use_remat,
    )

  def make_dataset(context):
    return pipeline.fake_dataset(
      batch_size,
      video.VideoConfig(num_frames=num_frames, frame_size=frame_size),
      audio.AudioConfig(num_samples=num_samples),
      text.TextConfig(
        num_captions=5, max_words=16, vocabulary_size=vocabulary_size
      ),
      input_context=context,
    )

  task = pretrain.PretrainTask(make_model)
  with strategy.scope():
    model = task.build_model()
    optimizer = schedules.make_optimizer(1e-4)
  dataset = strategy.distribute_datasets_from_function(make_dataset)
  return (
    trainer.Trainer(
      task,
      model,
      optimizer,
      dataset,
      strategy,
      seed=0,
      jit_compile=arguments.jit_compile,
    ),
    batch_size,
  )


def _make_peak():
  """A function that measures the float32 matmul peak in GFLOP/s."""
  a = tf.random.normal([_PEAK_SIZE, _PEAK_SIZE])

  @tf.function
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
  step_trainer, batch_size = _make_trainer(arguments)
  peak = _make_peak()
  step_trainer.train(tf.constant(1))  # traces, and fills the caches
  peaks, times = [], []
  for _ in range(arguments.rounds):
    peaks.append(peak())
    start = time.perf_counter()
    step_trainer.train(tf.constant(_NUM_STEPS))
    times.append((time.perf_counter() - start) / _NUM_STEPS)
  scores = [
    batch_size / seconds / rate
    for seconds, rate in zip(times, peaks, strict=True)
  ]
  spread = (max(peaks) - min(peaks)) / np.median(peaks)
  return {
    'workload': arguments.workload,
    'precision': arguments.precision,
    'dropout_rate': arguments.dropout_rate,
    'drop_token_rate': arguments.drop_token_rate,
    'use_remat': arguments.use_remat,
    'jit_compile': arguments.jit_compile,
    'batch_size': batch_size,
    'seconds_per_step': float(np.median(times)),
    'clips_per_second': float(batch_size / np.median(times)),
    'peak_gflops_per_second': float(np.median(peaks)),
    'peak_spread': float(spread),
    'is_void': bool(spread > _VOID_SPREAD),
    'score': float(np.median(scores)),
    'peak_memory_gb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    * 1024
    / 1e9,
  }


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Times a training step.')
  parser.add_argument('--workload', choices=sorted(_WORKLOADS), default='p1')
  parser.add_argument('--precision', choices=_PRECISIONS, default='float32')
  parser.add_argument('--dropout_rate', type=float, default=0.1)
  parser.add_argument('--drop_token_rate', type=float, default=0.5)
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
  if arguments.output:
    file_utils.write_text(
      arguments.output, json.dumps(found, indent=2) + '\n'
    )
  if found['is_void']:
    print('Void: the peak varied by over 10 %. Measure on an idle machine.')
  return int(found['is_void'])


if __name__ == '__main__':
  sys.exit(main())
