"""Checks `make quickstart` in a fresh clone: its time and what it finds.

    python -m benchmarks.verify_quickstart --output=found.json

It clones what is committed into a temporary folder and types the command
there, so that the environment is made anew too.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import checks

_DIRECTIONS = ('text_to_video', 'audio_to_video')


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('make quickstart in a fresh clone')
  with tempfile.TemporaryDirectory() as folder:
    clone = pathlib.Path(folder, 'clone')
    subprocess.run(
      ['git', 'clone', '--quiet', str(checks.ROOT), str(clone)], check=True
    )
    start = time.monotonic()
    subprocess.run(['make', 'quickstart'], cwd=clone, check=True)
    seconds = time.monotonic() - start
    result = json.loads((clone / 'runs/quickstart/result.json').read_text())
  found.check('seconds in all', round(seconds), at_most=600)
  found.note('seconds', result['seconds'])
  found.note('retrieval', result['retrieval'])
  for direction in _DIRECTIONS:
    metrics = result['retrieval'][direction]
    found.check(f'{direction} pool', metrics['pool_size'], at_least=100)
    found.check(f'{direction} R@5', metrics['R@5'], at_least=0.70)
    found.check(f'{direction} R@10', metrics['R@10'], at_least=0.95)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
