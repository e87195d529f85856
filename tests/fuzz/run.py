"""Looks for inputs that break something: `python -m tests.fuzz.run`.

Each target draws inputs and checks what must hold of any of them: an error that
names what is wrong, in time, and nothing lost or false. What is drawn follows
from `--seed`; a finding is reduced to a small input, printed, and ends the run
with exit code 1.
"""

import importlib
import time
import traceback

from absl import app, flags, logging
import av.logging
import hypothesis

TARGETS = ('media',)

_SECONDS = flags.DEFINE_float('seconds', 600, 'How long to look, in all.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the first round of each target.')
_TARGETS = flags.DEFINE_list('targets', list(TARGETS), 'Which ones.')
_EXAMPLES = flags.DEFINE_integer('examples', 20, 'Inputs of a round.')


def fuzz(target: str, seed: int, examples: int) -> None:
  """One round of a target; raises what it finds.

  Args:
    target: One of `TARGETS`.
    seed: Of the inputs.
    examples: How many.
  """
  module = importlib.import_module(f'tests.fuzz.{target}_target')

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=examples,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    print_blob=False,
  )
  @hypothesis.given(module.STRATEGY)
  def run(value):
    module.check(value)

  run()


def main(argv):
  """Runs rounds of all targets in turn."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  logging.set_verbosity(logging.ERROR)
  av.logging.set_level(None)
  end = time.monotonic() + _SECONDS.value
  rounds = dict.fromkeys(_TARGETS.value, 0)
  seconds = dict.fromkeys(_TARGETS.value, 0.0)
  while time.monotonic() < end:
    # The one that had the least time so far.
    target = min(seconds, key=seconds.get)
    start = time.monotonic()
    seed = _SEED.value + rounds[target]
    try:
      fuzz(target, seed, _EXAMPLES.value)
    except Exception:
      traceback.print_exc()
      print(
        f'FOUND by: python -m tests.fuzz.run --targets={target} --seed={seed} '
        f'--examples={_EXAMPLES.value} --seconds=1'
      )
      raise SystemExit(1) from None
    rounds[target] += 1
    seconds[target] += time.monotonic() - start
  for target, count in rounds.items():
    print(
      f'{target}: {count * _EXAMPLES.value} inputs in {seconds[target]:.0f} s, '
      'nothing found'
    )


if __name__ == '__main__':
  app.run(main)
