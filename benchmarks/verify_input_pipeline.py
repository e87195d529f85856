"""Checks that the input pipeline is faster than its consumers.

    python -m benchmarks.verify_input_pipeline --output=found.json

The limits are 65 clips per second at the paper's sizes on two cores, and 10
times the speed of the training of the quickstart's model (see
`benchmarks/input_pipeline.py`). The report also has the number of JPEG images
that a core decodes per second, to compare results of different machines.
"""

import sys

from benchmarks import checks, input_pipeline

_ROUNDS = 5
_BAR = 65.0
_BAR_CORES = 2
_TIMES_BAR = 10.0


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('the speed of the input pipeline')
  figures = {}
  for workload in input_pipeline.WORKLOADS:
    figures[workload] = input_pipeline.measure(workload, _ROUNDS)
    print(f'  {input_pipeline.describe(figures[workload])}', flush=True)
    found.note(workload, figures[workload])
  f4 = figures['f4']
  found.check(
    f'f4: clips/s on {f4["cores"]} cores',
    round(f4['clips_per_second'], 1),
    at_least=_BAR * min(f4['cores'], _BAR_CORES) / _BAR_CORES,
  )
  found.check(
    'quickstart: times the training',
    round(figures['quickstart']['times_the_training'], 2),
    at_least=_TIMES_BAR,
  )
  found.check(
    'f4: times as fast with decoded clips in memory',
    round(figures['f4_cached']['clips_per_second'] / f4['clips_per_second'], 2),
    at_least=1.0,
  )
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
