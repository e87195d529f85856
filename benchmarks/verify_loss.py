"""Checks the memory and the time of the chunked loss at a large batch.

    python -m benchmarks.verify_loss --output=found.json

It compares the chunked form of NCE and MIL-NCE, added as in training by
default, with the plain one, at a batch of 4,096 with 5 captions per clip, in
alternating processes (see `benchmarks.loss`).
"""

import statistics
import sys

from benchmarks import checks, loss

_BATCH_SIZE = 4096
_CHUNK_SIZE = 256
_ROUNDS = 3
_CALLS = 3


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks(
    f'the chunked loss against the plain one, batch {_BATCH_SIZE}, '
    f'{loss.NUM_CAPTIONS} captions, chunks of {_CHUNK_SIZE}'
  )
  memory, seconds, difference = [], [], []
  for _ in range(_ROUNDS):
    plain, chunked = (
      loss.measure('joint', form, _BATCH_SIZE, _CHUNK_SIZE, _CALLS)
      for form in ('plain', 'chunked')
    )
    for case in (plain, chunked):
      print(f'  {loss.describe(case)}', flush=True)
    memory.append(chunked['peak_memory_mb'] / plain['peak_memory_mb'])
    seconds.append(chunked['seconds'] / plain['seconds'])
    difference.append(abs(chunked['loss'] / plain['loss'] - 1))
    found.note('plain', plain)
    found.note('chunked', chunked)
  found.check('peak memory over the plain one', max(memory), at_most=0.5)
  found.check(
    'time over the plain one, median', statistics.median(seconds), at_most=1.2
  )
  found.check('relative difference of the loss', max(difference), at_most=1e-5)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
