"""Checks that interrupted runs equal an uninterrupted one, bit by bit.

    python -m benchmarks.verify_resume --output=found.json

The train command runs 40 steps with `DETERMINISTIC=True`, on a mixture of two
data sets, with dropout, DropToken, an average of the weights and a model whose
products are large enough for sums to be split over threads. One run is not
interrupted; the others are stopped by Ctrl-C, SIGTERM, kill -9 between
checkpoints and kill -9 while a checkpoint is written, and resumed by the same
command. Losses and all values of the last checkpoint must be equal on one
device, on two logical devices (`mirrored`), and on two workers of which one
dies.
"""

import concurrent.futures
import pathlib
import re
import signal
import sys
import tempfile
import time

import numpy as np

from benchmarks import checks
from tests import replicas
from tests.checkpoints import checkpoint_files

_STEPS = 40
_LOST = 75  # exit code of a worker that lost another
_ARGUMENTS = (
  '--gin_file=gin/pretrain_sample.gin',
  '--gin_file=gin/data/sample.gin',
  '--gin_param=train/make_dataset.sources=[@first/Source(), @second/Source()]',
  "--gin_param=first/Source.pattern='data/sample/train-0000[01]*'",
  '--gin_param=first/Source.weight=2.0',
  "--gin_param=second/Source.pattern='data/sample/train-0000[23]*'",
  '--gin_param=Size.d_model=256',
  '--gin_param=Size.d_ff=1024',
  '--gin_param=DROPOUT_RATE=0.1',
  '--gin_param=DROP_TOKEN_RATE=0.5',
  '--gin_param=make_optimizer.ema_decay=0.9',
  '--gin_param=BATCH_SIZE=16',
  '--gin_param=STEPS_PER_LOOP=1',
  '--gin_param=LOG_INTERVAL=1',
  '--gin_param=WARMUP_STEPS=4',
  '--gin_param=CHECKPOINT_INTERVAL=10',
  '--gin_param=train.eval_dataset=None',
  f'--gin_param=TRAIN_STEPS={_STEPS}',
)
_STRATEGIES = {
  'one_device': (),
  'mirrored': (
    "--gin_param=STRATEGY='mirrored'",
    '--gin_param=NUM_DEVICES=2',
  ),
  'two workers': ("--gin_param=STRATEGY='multi_worker_mirrored'",),
}


def _kill_in_checkpoint(process, model_dir):
  """Kills a process while it writes a checkpoint; returns its exit code."""
  with concurrent.futures.ThreadPoolExecutor() as pool:
    output = pool.submit(checks.finish, process)
    while process.poll() is None:
      if any(model_dir.glob('ckpt-*_temp*')):
        process.kill()
      time.sleep(0.001)
    return output.result()[1]


class _Trial:
  """A run in a separate folder, in several parts.

  Args:
    folder: Folder of the run.
    strategy: Name of a strategy of `_STRATEGIES`.
    deterministic: Whether repeats are bit-equal.
  """

  def __init__(self, folder, strategy, deterministic=True):
    self.dir = pathlib.Path(folder)
    self._num_workers = 2 if strategy == 'two workers' else 1
    self._arguments = (
      *_ARGUMENTS,
      *_STRATEGIES[strategy],
      f'--gin_param=DETERMINISTIC={deterministic}',
      f'--model_dir={folder}',
    )

  def start(self):
    """Starts its process, or its two workers: a list of processes."""
    if self._num_workers == 1:
      return [checks.start_module('train', *self._arguments)]
    return [
      checks.start_module('train', *self._arguments, TF_CONFIG=config)
      for config in replicas.tf_configs(self._num_workers)
    ]

  def run(self, stop_at=None, number=signal.SIGINT, worker=0):
    """Runs until it ends.

    Args:
      stop_at: Step after which a signal is sent. None means no signal.
      number: Number of the signal.
      worker: Number of the worker that gets it.

    Returns:
      A list of (text, exit code, seconds from the signal to the end), one for
      each worker.
    """
    processes = self.start()
    sent = []

    def follow(process):
      text, code = checks.finish(process)
      return text, code, time.monotonic() - sent[0] if sent else 0.0

    with concurrent.futures.ThreadPoolExecutor() as pool:
      others = [pool.submit(follow, process) for process in processes[1:]]
      lines = []
      # Only the chief speaks of the steps.
      for line in processes[0].stdout:
        print(f'    {line}', end='', flush=True)
        lines.append(line)
        if stop_at is not None and line.startswith(f'step {stop_at}/'):
          processes[worker].send_signal(number)
          sent.append(time.monotonic())
      chief = ''.join(lines), *follow(processes[0])[1:]
      return [chief, *(other.result() for other in others)]

  def losses(self):
    """The loss of each step."""
    return checks.read_scalars(f'{self.dir}/train')['loss']

  def values(self):
    """All values of the last checkpoint, by name."""
    return checkpoint_files.trained_values(self.dir)


def _compare(found, name, trial, whole):
  """Checks that a trial equals the whole run."""
  losses, expected = trial.losses(), whole.losses()
  found.check(f'{name}: steps', len(losses), equal=_STEPS)
  found.check(
    f'{name}: losses that differ',
    sum(a != b for a, b in zip(losses, expected, strict=True)),
    equal=0,
  )
  values, expected = trial.values(), whole.values()
  differ = [
    key
    for key in sorted(values.keys() | expected.keys())
    if key not in values
    or key not in expected
    or not np.array_equal(values[key], expected[key])
  ]
  found.note(f'{name}: values of the last checkpoint', len(expected))
  found.check(f'{name}: values that differ', differ, equal=[])


def _check_one_process(found, folder, strategy):
  """Stops runs of one process in all four ways."""
  whole = _Trial(folder / 'whole', strategy)
  found.check(f'{strategy}: exit code', whole.run()[0][1], equal=0)

  asked = _Trial(folder / 'asked', strategy)
  for number, step in ((signal.SIGINT, 13), (signal.SIGTERM, 26)):
    ((text, code, _),) = asked.run(step, number)
    name = f'{strategy}, {number.name}'
    found.check(f'{name}: exit code', code, equal=0)
    stopped = re.search(rf'Stopped by {number.name} at step (\d+);', text)
    found.check(
      f'{name}: steps until it stopped',
      int(stopped[1]) - step if stopped else -1,
      at_least=0,
      at_most=1,
    )
  found.check(f'{strategy}: exit code at the end', asked.run()[0][1], equal=0)
  _compare(found, f'{strategy}, Ctrl-C and SIGTERM', asked, whole)

  killed = _Trial(folder / 'killed', strategy)
  ((_, code, _),) = killed.run(17, signal.SIGKILL)
  found.check(f'{strategy}, kill -9: exit code', code, equal=-9)
  (process,) = killed.start()
  code = _kill_in_checkpoint(process, killed.dir)
  found.check(f'{strategy}, kill -9 in a checkpoint: exit code', code, equal=-9)
  leftovers = [path.name for path in killed.dir.glob('ckpt-*_temp*')]
  found.check(f'{strategy}: unfinished files', len(leftovers), at_least=1)
  ((text, code, _),) = killed.run()
  found.check(f'{strategy}: exit code after that', code, equal=0)
  found.check(
    f'{strategy}: resumes from the previous checkpoint',
    re.findall(r'Resuming at step (\d+)', text),
    equal=['10'],
  )
  found.check(
    f'{strategy}: unfinished files at the end',
    len(list(killed.dir.glob('ckpt-*_temp*'))),
    equal=0,
  )
  _compare(found, f'{strategy}, kill -9', killed, whole)


def _check_workers(found, folder):
  """Two workers: one is asked to stop, then each of them dies once."""
  whole = _Trial(folder / 'whole', 'two workers')
  codes = [code for _, code, _ in whole.run()]
  found.check('two workers: exit codes', codes, equal=[0, 0])
  trial = _Trial(folder / 'parts', 'two workers')
  outcomes = trial.run(7, signal.SIGTERM, worker=1)
  codes = [code for _, code, _ in outcomes]
  found.check('two workers, SIGTERM for one: exit codes', codes, equal=[0, 0])
  for victim, step in ((1, 17), (0, 27)):
    outcomes = trial.run(step, signal.SIGKILL, worker=victim)
    text, code, seconds = outcomes[1 - victim]
    name = f'two workers, kill -9 of worker {victim}'
    found.check(f'{name}: exit code of the other', code, equal=_LOST)
    found.check(
      f'{name}: the other names it',
      re.findall(r'Error: (Worker \d) \(localhost:\d+\) is gone', text),
      equal=[f'Worker {victim}'],
    )
    found.check(f'{name}: seconds', round(seconds, 1), at_most=60)
  codes = [code for _, code, _ in trial.run()]
  found.check('two workers: exit codes at the end', codes, equal=[0, 0])
  _compare(found, 'two workers', trial, whole)


def _seconds_per_step(trial):
  """The median seconds per step after the first ten."""
  rates = checks.read_scalars(f'{trial.dir}/train')['examples_per_second']
  return 16 / float(np.median(rates[10:]))


def main():
  """Runs the checks."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('interrupted runs of 40 steps equal a whole one')
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    _check_one_process(found, folder / 'one', 'one_device')
    _check_one_process(found, folder / 'mirrored', 'mirrored')
    _check_workers(found, folder / 'workers')
    # Next to each other, since other programs may come and go.
    for deterministic in (True, False):
      name = f'DETERMINISTIC={deterministic}'
      trial = _Trial(folder / name, 'one_device', deterministic)
      trial.run()
      found.note(f'{name}: seconds a step', _seconds_per_step(trial))
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
