"""Checks that need an accelerator, in one run of at most ten minutes.

    python -m benchmarks.device_check --output=found.json

It measures on the GPUs of this machine, or at small sizes on its CPU:

- losses, and the gradients of a small model, against the CPU, in float32
  without TF32: 1e-4 of their norm at most, with and without XLA
- the device's bfloat16 matmul peak, and the seconds, the share of that peak and
  the memory of training steps, beside the memory that `summarize` estimates:
  p1 and p2 of `benchmarks.train_step`, and Medium at the largest batch that
  fits, in mixed_bfloat16, with and without XLA
- clips per second from records to the device
- embeddings per second of each modality
- a step of `mirrored` over all GPUs (two halves of the CPU) against one device

Each case runs in a separate process, so that a case that runs out of memory
ends alone. Cases without time to run are listed as such. A table of the steps
comes last; the exit code is 1 if a check failed.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
import types

import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks import checks, train_step
from benchmarks import loss as loss_benchmark
from vatt_tf.analysis import summary
from vatt_tf.core import devices, feature_names, strategies
from vatt_tf.input_pipeline import (
  audio_config,
  fake_batches,
  pipeline,
  text,
  video_config,
)
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.models import sizes
from vatt_tf.training import pretrain

_SECONDS = 600
_TOLERANCE = 1e-4
_RATES = {'dropout_rate': 0.1, 'drop_token_rate': 0.5}
_EXHAUSTED = 'memory ran out'
_NO_TIME = 'no time was left'

# Small enough for a CPU to step through in a second.
_TINY = train_step.Workload(
  sizes.Size(2, 64, 128, 2, d_kv=32), 4, 8, 64, 25_600, num_steps=2
)
_WORKLOADS = {
  **train_step.WORKLOADS,
  'tiny': _TINY,
  'medium': train_step.WORKLOADS['p2'],
}
# What is measured on which kind of device: the workloads, the batches that are
# tried for the largest (each after the one before fitted), the side of the
# matrices of the peak, and the workload that embeds.
_PLANS = {
  'GPU': (('p1', 'p2'), (4, 8, 16, 32, 64, 128, 256), 8192, 'medium'),
  'CPU': (('tiny', 'p1'), (), 1024, 'tiny'),
}


def _kind():
  return 'GPU' if tf.config.list_physical_devices('GPU') else 'CPU'


# The cases, each in a process of its own.


def _relative_error(values, expected):
  """The norm of the difference over the norm, of lists of tensors."""
  values, expected = (
    np.concatenate([np.ravel(tf.convert_to_tensor(x)) for x in each])
    for each in (values, expected)
  )
  difference = np.linalg.norm(values - expected)
  return float(difference / np.linalg.norm(expected))


def _on(device, function, jit_compile=False):
  """A function as a graph on a device."""

  @tf.function(autograph=False, jit_compile=jit_compile)
  def run(*arguments):
    with tf.device(device):
      return function(*arguments)

  return run


def _compare(function, *arguments):
  """Errors of a function on the device against the CPU, by the way."""
  expected = tf.nest.flatten(_on('/cpu:0', function)(*arguments))
  device = f'/{_kind().lower()}:0'
  return {
    name: _relative_error(
      tf.nest.flatten(_on(device, function, jit)(*arguments)), expected
    )
    for name, jit in (('plain', False), ('xla', True))
  }


def _case_losses(batch_size):
  tf.config.experimental.enable_tensor_float_32_execution(False)
  inputs = loss_benchmark.make_inputs(batch_size)
  found = {}
  for objective in loss_benchmark.OBJECTIVES:
    for chunk_size in (None, batch_size // 4):

      def loss_and_gradients(
        *inputs, objective=objective, chunk_size=chunk_size
      ):
        with tf.GradientTape() as tape:
          tape.watch(inputs)
          loss = loss_benchmark.total(objective, chunk_size, *inputs)
        return loss, tape.gradient(loss, inputs)

      form = 'chunked' if chunk_size else 'whole'
      for way, error in _compare(loss_and_gradients, *inputs).items():
        found[f'{objective}, {form}, {way}'] = error
  return found


def _case_gradients():
  tf.config.experimental.enable_tensor_float_32_execution(False)
  tf_keras.utils.set_random_seed(0)
  rates = {'dropout_rate': 0.0, 'drop_token_rate': 0.0}
  task = pretrain.PretrainTask(
    functools.partial(
      train_step.make_model,
      _TINY,
      types.SimpleNamespace(use_remat=False),
      rates,
    )
  )
  model = task.build_model()
  batch = _fake_batch(_TINY)

  def loss_and_gradients():
    with tf.GradientTape() as tape:
      outputs = model(batch, training=True)
      loss, _ = task.loss(batch, outputs)
    gradients = tape.gradient(loss, model.trainable_variables)
    return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

  return _compare(loss_and_gradients)


def _fake_batch(workload):
  return fake_batches.make_fake_batch(
    workload.batch_size,
    train_step.make_video_config(workload),
    audio_config.AudioConfig(num_samples=workload.num_samples),
    train_step.text_config(),
  )


def _case_peak(size):
  a = tf.cast(tf.random.normal([size, size]), tf.bfloat16)

  def multiply():
    product = a
    for _ in range(4):
      product = tf.matmul(product, a) * 1e-2
    return tf.reduce_sum(tf.cast(product[0], tf.float32))

  peaks = []
  # On a CPU XLA multiplies bfloat16 at half the speed of TensorFlow's library.
  for jit_compile in (False, True):
    compiled = tf.function(multiply, jit_compile=jit_compile, autograph=False)
    compiled()
    times = []
    for _ in range(10):
      start = time.perf_counter()
      compiled().numpy()
      times.append(time.perf_counter() - start)
    peaks.append(4 * 2 * size**3 / float(np.median(times)))
  return {'flops_per_second': max(peaks)}


def _case_step(workload, batch_size, jit_compile):
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  found = _WORKLOADS[workload]._replace(batch_size=batch_size)
  arguments = types.SimpleNamespace(use_remat=False, jit_compile=jit_compile)
  run = train_step.make_train_steps(found, arguments, _RATES)
  run(1)  # traces and compiles
  times = []
  for _ in range(3):
    start = time.perf_counter()
    run(found.num_steps)
    times.append((time.perf_counter() - start) / found.num_steps)
  estimate = _summarize(found, arguments)
  return {
    'seconds_per_step': float(np.median(times)),
    'flops_per_step': estimate['step']['flops'],
    'estimated_bytes': estimate['memory']['total'],
    'peak_bytes': _peak_bytes(),
  }


def _summarize(workload, arguments):
  features = plan_lib.row_spec(
    train_step.make_video_config(workload),
    audio_config.AudioConfig(num_samples=workload.num_samples),
    train_step.text_config(),
  )
  with tf.Graph().as_default():
    model = train_step.make_model(workload, arguments, _RATES)
    return summary.summarize(model, features, workload.batch_size)


def _peak_bytes():
  """The peak memory of the device in this process."""
  if _kind() == 'GPU':
    return tf.config.experimental.get_memory_info('GPU:0')['peak']
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _case_records(batch_size, num_batches):
  folder = checks.ROOT / 'data' / 'sample'
  dataset = pipeline.make_dataset(
    str(folder / 'train-*.tfrecord'),
    batch_size,
    is_training=True,
    video=video_config.VideoConfig(),
    audio=audio_config.AudioConfig(),
    text=text.TextConfig(vocabulary=str(folder / 'vocabulary.txt')),
  )
  strategy = strategies.make_strategy('one_device')
  batches = iter(strategy.experimental_distribute_dataset(dataset))

  @tf.function(autograph=False)
  def touch(batch):
    return tf.add_n(
      [
        tf.reduce_sum(tf.cast(value, tf.float32))
        for value in tf.nest.flatten(batch)
        if value.dtype != tf.string
      ]
    )

  def take(number):
    for _ in range(number):
      batch = next(batches)
      numbers = {k: v for k, v in batch.items() if v.dtype != tf.string}
      strategy.run(touch, args=(numbers,))

  take(2)
  start = time.perf_counter()
  take(num_batches)
  seconds = time.perf_counter() - start
  return {'clips_per_second': num_batches * batch_size / seconds}


def _case_embeddings(workload, batch_size):
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  workload = _WORKLOADS[workload]._replace(batch_size=batch_size)
  arguments = types.SimpleNamespace(use_remat=False)
  model = train_step.make_model(workload, arguments, _RATES)
  batch = _fake_batch(workload)
  found = {}
  for modality in model.modalities:
    x = batch[modality]
    if modality == feature_names.TEXT:
      x = x[:, :1]
    embed = tf.function(
      functools.partial(model.embed, modality), jit_compile=True
    )
    embed(x)
    start = time.perf_counter()
    rounds = 3
    for _ in range(rounds):
      outputs = embed(x)
    for value in tf.nest.flatten(outputs):
      value.numpy()
    seconds = time.perf_counter() - start
    found[modality] = rounds * batch_size / seconds
  return found


def _case_mirrored(workload, num_devices):
  tf.config.experimental.enable_tensor_float_32_execution(False)
  if _kind() == 'CPU':
    devices_of = strategies.make_strategy('mirrored', num_devices)
  else:
    devices_of = strategies.make_strategy('mirrored')
  replicas = devices_of.num_replicas_in_sync
  workload = _WORKLOADS[workload]
  workload = workload._replace(batch_size=4 * replicas)
  arguments = types.SimpleNamespace(use_remat=False, jit_compile=False)
  found = {'replicas': replicas}

  def make_dataset(context):
    # The same global batch, whatever the number of replicas.
    rows = tf.data.Dataset.from_tensor_slices(_fake_batch(workload))
    rows = rows.batch(
      context.get_per_replica_batch_size(workload.batch_size),
      drop_remainder=True,
    )
    return rows.cache().repeat()

  trainers, models = {}, {}
  for name, strategy in (('all', devices_of), ('one', None)):
    trainers[name], models[name] = train_step.make_trainer(
      workload, arguments, _RATES, strategy, make_dataset
    )
  models['one'].set_weights(models['all'].get_weights())
  losses = []
  for name, each in trainers.items():
    losses.append(float(each.train(tf.constant(2))['loss']))
    start = time.perf_counter()
    each.train(tf.constant(workload.num_steps))
    seconds = (time.perf_counter() - start) / workload.num_steps
    found[f'clips_per_second_{name}'] = workload.batch_size / seconds
  found['losses'] = losses
  return found


_CASES = {
  'losses': _case_losses,
  'gradients': _case_gradients,
  'peak': _case_peak,
  'step': _case_step,
  'records': _case_records,
  'embeddings': _case_embeddings,
  'mirrored': _case_mirrored,
}


# The run.


class _Runner:
  """Runs cases until the time is over."""

  def __init__(self, seconds):
    self._end = time.monotonic() + seconds

  def run(self, case, **arguments):
    """The results of a case, a dictionary, or why there are none, a string."""
    left = self._end - time.monotonic()
    if left < 10:
      return _NO_TIME
    command = [sys.executable, '-m', 'benchmarks.device_check']
    try:
      done = subprocess.run(
        [*command, f'--case={json.dumps([case, arguments])}'],
        cwd=checks.ROOT,
        env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3'},
        capture_output=True,
        text=True,
        timeout=left,
      )
    except subprocess.TimeoutExpired:
      return _NO_TIME
    if done.returncode:
      text_of_error = done.stderr + done.stdout
      is_memory = done.returncode < 0 or any(
        sign in text_of_error
        for sign in ('ResourceExhausted', 'OOM', 'RESOURCE_EXHAUSTED')
      )
      return _EXHAUSTED if is_memory else text_of_error.strip()[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def _check_errors(found, name, errors):
  if isinstance(errors, str):
    found.check(name, errors, equal='measured')
    return
  for way, error in errors.items():
    found.check(f'{name}, {way}: error', error, at_most=_TOLERANCE)


def _measure_step(runner, found, peak, workload, batch_size, jit_compile):
  """Measures a step; returns its row of the table, or None."""
  name = f'{workload}, batch {batch_size}{", XLA" if jit_compile else ""}'
  step = runner.run(
    'step', workload=workload, batch_size=batch_size, jit_compile=jit_compile
  )
  if isinstance(step, str):
    found.note(name, step)
    return None
  step['share_of_peak'] = (
    step['flops_per_step'] / step['seconds_per_step'] / peak
  )
  found.note(name, step)
  return (
    name,
    f'{step["seconds_per_step"]:.3f}',
    f'{batch_size / step["seconds_per_step"]:.1f}',
    f'{step["share_of_peak"]:.0%}',
    f'{step["peak_bytes"] / 2**30:.1f}',
    f'{step["estimated_bytes"] / 2**30:.1f}',
  )


def _measure_steps(runner, found, workloads, batches):
  """Measures all steps; returns the rows of the table."""
  peak = runner.run('peak', size=_PLANS[_kind()][2])
  if isinstance(peak, str):
    found.check('bfloat16 peak', peak, equal='measured')
    return []
  peak = peak['flops_per_second']
  found.note('bfloat16 peak, TFLOP/s', round(peak / 1e12, 3))
  rows = []
  for workload in workloads:
    batch_size = _WORKLOADS[workload].batch_size
    for jit_compile in (False, True):
      row = _measure_step(
        runner, found, peak, workload, batch_size, jit_compile
      )
      found.check(
        f'{workload}{", XLA" if jit_compile else ""}: a step',
        'measured' if row else 'not measured',
        equal='measured',
      )
      rows.append(row)
  largest = {}
  for jit_compile in (False, True):
    for batch_size in batches:
      row = _measure_step(
        runner, found, peak, 'medium', batch_size, jit_compile
      )
      if row is None:
        break
      largest[jit_compile] = row
  return [row for row in [*rows, *largest.values()] if row]


def check(seconds: float = _SECONDS) -> checks.Checks:
  """Runs all cases.

  Args:
    seconds: Time limit, after which no further case starts and the current one
      is ended.

  Returns:
    The checks.
  """
  kind = _kind()
  workloads, batches, _, embedding = _PLANS[kind]
  found = checks.Checks(f'The devices: {devices.describe()}')
  runner = _Runner(seconds)
  _check_errors(
    found,
    'losses and their gradients',
    runner.run('losses', batch_size=256 if kind == 'GPU' else 32),
  )
  _check_errors(found, "a model's gradients", runner.run('gradients'))
  # On a GPU the steps need most of the time, and come last.
  records = runner.run('records', batch_size=8, num_batches=10)
  found.check(
    'records to the device, clips/s',
    0.0 if isinstance(records, str) else records['clips_per_second'],
    at_least=1.0,
  )
  embeddings = runner.run('embeddings', workload=embedding, batch_size=8)
  found.note('embeddings a second', embeddings)
  found.check('embeddings', isinstance(embeddings, dict), equal=True)
  mirrored = runner.run('mirrored', workload='tiny', num_devices=2)
  found.note('mirrored', mirrored)
  if isinstance(mirrored, dict):
    several, one = mirrored['losses']
    error = abs(several - one) / abs(one)
    found.check('mirrored against one device: error', error, at_most=1e-3)
  else:
    found.check('mirrored', mirrored, equal='measured')
  rows = _measure_steps(runner, found, workloads, batches)
  titles = ('step', 's', 'clips/s', 'of peak', 'GiB', 'estimated GiB')
  rows = [titles, *rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  print()
  for row in rows:
    cells = [cell.rjust(width) for cell, width in zip(row, widths)]
    print('  '.join([row[0].ljust(widths[0]), *cells[1:]]))
  return found


def main(argv):
  """Parses the command line and checks."""
  parser = argparse.ArgumentParser(description='Checks the devices.')
  parser.add_argument('--output', help='a JSON file to write')
  parser.add_argument('--seconds', type=float, default=_SECONDS)
  parser.add_argument('--case', help=argparse.SUPPRESS)
  arguments = parser.parse_args(argv)
  if arguments.case:
    devices.grow_memory()
    case, options = json.loads(arguments.case)
    print(json.dumps(_CASES[case](**options)))
    return 0
  start = time.monotonic()
  found = check(arguments.seconds)
  found.note('seconds', round(time.monotonic() - start))
  if not arguments.output:
    return 0
  return found.write(arguments.output)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
