"""Checks the choice between exact search and ScaNN, around the threshold.

    python -m benchmarks.verify_search --output=found.json

It uses half and twice as many vectors as the threshold, in clusters and random
(see `benchmarks.search`). Below it, exact search must answer a hundred queries
before ScaNN's index is built, and one query must not be noticeably slow; above
it, ScaNN must be faster at every query, with a recall@10 of at least 0.95.
"""

import sys

from benchmarks import checks, search
from vatt_tf.retrieval_index import building, nearest

_NUM_DIMENSIONS = 256
_NUM_QUERIES = 256
_FEW_QUERIES = 100
# Milliseconds that a person does not notice, beside those of the model.
_UNNOTICED = 20
_MIN_RECALL = 0.95


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks(
    f'exact search below {building.EXACT_BELOW:,} vectors of '
    f'{_NUM_DIMENSIONS}, '
    'ScaNN from there on'
  )
  for times in (0.5, 2):
    count = int(times * building.EXACT_BELOW)
    chosen = building.choose_method(building.AUTO, count)
    expected = nearest.EXACT if times < 1 else nearest.SCANN
    found.check(f'choice at {count:,}', chosen, equal=expected)
    for data in search.DATA:
      of = search.measure(data, count, _NUM_DIMENSIONS, _NUM_QUERIES)
      for method, figures in of.items():
        print(f'  {search.describe(method, figures)}', flush=True)
        found.note(f'{count:,} {data}, {method}', figures)
      exact, scann = of[nearest.EXACT], of[nearest.SCANN]
      what = f'{count:,} {data}'
      if times < 1:
        found.check(
          f'{what}: p99 of exact search, ms', exact['p99_ms'],
          at_most=_UNNOTICED,
        )  # fmt: skip
        ready = (
          scann['build_seconds']
          + scann['open_seconds']
          + _FEW_QUERIES * (scann['p50_ms'] - exact['p50_ms']) / 1e3
        )
        found.check(
          f'{what}: seconds by which exact search has {_FEW_QUERIES} answers '
          'earlier, building included',
          ready,
          at_least=0,
        )
      else:
        found.check(f'{what}: recall@10', scann['recall'], at_least=_MIN_RECALL)
        for name in ('p50_ms', 'p99_ms', 'batch_ms'):
          found.check(
            f'{what}: {name} of ScaNN over exact',
            scann[name] / exact[name],
            at_most=1,
          )
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
