"""Time and memory of the losses against the global batch, on this machine.

    python -m benchmarks.loss --output=found.json

Each case is forward and gradient of an objective as in training, a video-audio
term in a space of 512 and a video-text term in one of 256, with 5 captions per
clip:

- `joint`, `joint_once`, `per_direction`: NCE and MIL-NCE, with this denominator
- `sigmoid`: the sigmoid loss for both

Each has two forms: `plain` holds all similarities at once, `chunked` those of
--chunk_size rows. A case runs in a separate process. Its memory is the peak of
the process minus its memory right before, inputs included; its time is the
median of the calls after the first.
"""

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from vatt_tf.core import file_utils
from vatt_tf.losses import contrastive, sigmoid

OBJECTIVES = (*contrastive.DENOMINATORS, 'sigmoid')
FORMS = ('plain', 'chunked')
NUM_CAPTIONS = 5
_D_VA, _D_VT = 512, 256
_ROOT = pathlib.Path(__file__).resolve().parent.parent


def measure(objective, form, batch_size, chunk_size, num_calls):
  """Measures a case in a new process.

  Args:
    objective: one of `OBJECTIVES`.
    form: one of `FORMS`.
    batch_size: int, clips of the global batch.
    chunk_size: int, rows at a time of the form `chunked`.
    num_calls: int, calls whose times are measured.

  Returns:
    A dictionary of figures.
  """
  arguments = {
    'objective': objective,
    'batch_size': batch_size,
    'chunk_size': chunk_size if form == 'chunked' else None,
    'num_calls': num_calls,
  }
  command = [sys.executable, '-m', 'benchmarks.loss']
  done = subprocess.run(
    [*command, f'--case={json.dumps(arguments)}'],
    cwd=_ROOT,
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  found = json.loads(done.stdout.splitlines()[-1])
  return {'form': form, **arguments, **found}


def describe(found):
  """A line for people about what `measure` returned."""
  return (
    f'{found["objective"]:>13} {found["form"]:>7}, batch '
    f'{found["batch_size"]:>5,}: {found["seconds"]:8.3f} s, '
    f'{found["peak_memory_mb"]:8,.0f} MB, loss {found["loss"]:.6f}'
  )


def total(objective, chunk_size, video_va, audio_va, video_vt, text_vt):
  """The two terms, added."""
  if objective == 'sigmoid':
    return (
      sigmoid.sigmoid_loss(video_va, audio_va, chunk_size=chunk_size).loss
      + sigmoid.sigmoid_loss(video_vt, text_vt, chunk_size=chunk_size).loss
    )
  options = {'denominator': objective, 'chunk_size': chunk_size}
  return (
    contrastive.contrastive_loss(video_va, audio_va, **options).loss
    + contrastive.contrastive_loss(video_vt, text_vt, **options).loss
  )


def _held():
  """Bytes that the process holds now."""
  pages = pathlib.Path('/proc/self/statm').read_text().split()[1]
  return int(pages) * resource.getpagesize()


def _peak():
  """Most bytes that the process held since `_forget_peak`."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_peak():
  """Sets the peak of the process to what it holds now (Linux, proc(5))."""
  pathlib.Path('/proc/self/clear_refs').write_text('5')


def make_inputs(batch_size):
  """Embeddings of some clips: the arguments of `total` after its options."""
  tf.random.set_seed(0)
  video_va = tf.random.normal([batch_size, _D_VA])
  video_vt = tf.random.normal([batch_size, _D_VT])
  # Nearer to the clip's own video than to others, as in training.
  audio_va = video_va + 2 * tf.random.normal(video_va.shape)
  text_vt = video_vt[:, tf.newaxis] + 2 * tf.random.normal(
    [batch_size, NUM_CAPTIONS, _D_VT]
  )
  return [video_va, audio_va, video_vt, text_vt]


def _measure_here(objective, batch_size, chunk_size, num_calls):
  """Measures a case in this process."""
  inputs = make_inputs(batch_size)

  @tf.function(autograph=False)
  def step(*inputs):
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      loss = total(objective, chunk_size, *inputs)
    return loss, tape.gradient(loss, inputs)

  step = step.get_concrete_function(*inputs)
  _forget_peak()
  before = _held()
  times = []
  for _ in range(num_calls + 1):
    start = time.perf_counter()
    loss, gradients = step(*inputs)
    loss = float(loss)
    [gradient.numpy() for gradient in gradients]
    times.append(time.perf_counter() - start)
    del gradients
  return {
    'loss': loss,
    'seconds': float(np.median(times[1:])),
    'peak_memory_mb': (_peak() - before) / 1e6,
  }


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Times the losses.')
  parser.add_argument('--objectives', default=','.join(OBJECTIVES))
  parser.add_argument('--batch_sizes', default='256,1024,4096')
  parser.add_argument('--chunk_size', type=int, default=256)
  parser.add_argument('--calls', type=int, default=5)
  parser.add_argument('--output', help='a JSON file to write')
  parser.add_argument('--case', help=argparse.SUPPRESS)  # what measure() runs
  arguments = parser.parse_args()
  if arguments.case:
    print(json.dumps(_measure_here(**json.loads(arguments.case))))
    return
  found = []
  for objective in arguments.objectives.split(','):
    for batch_size in arguments.batch_sizes.split(','):
      for form in FORMS:
        found.append(
          measure(
            objective,
            form,
            int(batch_size),
            arguments.chunk_size,
            arguments.calls,
          )
        )
        print(describe(found[-1]), flush=True)
  print(json.dumps(found))
  if arguments.output:
    file_utils.write_text(arguments.output, json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  main()
