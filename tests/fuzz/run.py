"""Looks for inputs that break something: `python -m tests.fuzz.run`.

Each target draws inputs and checks what must hold of any of them: an error that
names what is wrong, in time, and nothing lost or false. What is drawn follows
from `--seed`; a finding is reduced to a small input, printed, and ends the run
with exit code 1.
"""

import importlib
import os
import pprint
import sys
import time
import traceback
import warnings

# TensorFlow and tqdm read them when they are imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TQDM_DISABLE', '1')
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')

from absl import app, flags, logging  # noqa: E402
import av.logging  # noqa: E402
import hypothesis  # noqa: E402

TARGETS = (
  'media',
  'captions',
  'manifests',
  'records',
  'checkpoints',
  'requests',
)

# For reducing a finding to a small one.
_REDUCE_SECONDS = 60

_SECONDS = flags.DEFINE_float('seconds', 600, 'How long to look, in all.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the first round of each target.')
_TARGETS = flags.DEFINE_list('targets', list(TARGETS), 'Which ones.')
_EXAMPLES = flags.DEFINE_integer('examples', 20, 'Inputs of a round.')


class _TimeIsUpError(BaseException):
  """Ends a round, which hypothesis goes on with after other errors."""


def fuzz(
  target: str, seed: int, examples: int, end: float = float('inf')
) -> int:
  """One round of a target; raises what it finds.

  Args:
    target: One of `TARGETS`.
    seed: Of the inputs.
    examples: How many.
    end: When to end before, by `time.monotonic`.

  Returns:
    How many inputs were checked.

  Raises:
    Exception: What `check` of the target raised, with a note that holds the
      smallest input found.
  """
  module = importlib.import_module(f'tests.fuzz.{target}_target')
  count = 0
  finding, place, size = None, None, 0

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=examples,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    report_multiple_bugs=False,
    print_blob=False,
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    verbosity=hypothesis.Verbosity.quiet,
  )
  @hypothesis.given(module.STRATEGY)
  def run(value):
    nonlocal count, end, finding, place, size
    if time.monotonic() > end:
      raise _TimeIsUpError
    count += 1
    try:
      module.check(value)
    except Exception as e:
      text = pprint.pformat(value)
      if finding is None:
        end = time.monotonic() + _REDUCE_SECONDS
      if finding is None or len(text) < size:
        e.add_note(f'Input of {target}:\n{text}')
        # Without the frames of hypothesis, which come later.
        finding, place, size = e, e.__traceback__, len(text)
      raise

  try:
    run()
  except _TimeIsUpError:
    pass
  except Exception:
    if finding is None:
      raise
  if finding is not None:
    raise finding.with_traceback(place) from None
  return count


def main(argv):
  """Runs rounds of all targets in turn."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  logging.set_verbosity(logging.FATAL)
  warnings.simplefilter('ignore')
  av.logging.set_level(None)
  try:
    _run(time.monotonic() + _SECONDS.value)
  finally:
    close()


def close() -> None:
  """Ends what targets have started."""
  for target in TARGETS:
    module = sys.modules.get(f'tests.fuzz.{target}_target')
    if hasattr(module, 'close'):
      module.close()


def _run(end):
  """Runs rounds until the time is up; exits with 1 at a finding."""
  rounds = dict.fromkeys(_TARGETS.value, 0)
  counts = dict.fromkeys(_TARGETS.value, 0)
  seconds = dict.fromkeys(_TARGETS.value, 0.0)
  while time.monotonic() < end:
    # The one that had the least time so far.
    target = min(seconds, key=seconds.get)
    start = time.monotonic()
    seed = _SEED.value + rounds[target]
    try:
      counts[target] += fuzz(target, seed, _EXAMPLES.value, end)
    except Exception:  # noqa: BLE001 - whatever is wrong
      traceback.print_exc(file=sys.stdout)
      print(
        f'FOUND by: python -m tests.fuzz.run --targets={target} --seed={seed} '
        f'--examples={_EXAMPLES.value}'
      )
      raise SystemExit(1) from None
    rounds[target] += 1
    seconds[target] += time.monotonic() - start
  for target, count in counts.items():
    print(f'{target}: {count} inputs in {seconds[target]:.0f} s, nothing found')


if __name__ == '__main__':
  app.run(main)
