"""Pre-trains a small MMV and turns its video network into an image network.

    python -m benchmarks.verify_mmv --output=found.json

It renders the sample media and trains `gin/pretrain_mmv_sample.gin` on them as
a user would, for three seeds; then it runs `python -m vatt_tf.deflate`.
Retrieval must be far above chance. On held-out images, the image network must
be nearer to the video network after training its norms than without, and nearer
than with the best scale and offset of each feature. It takes about 25 minutes
on two cores.
"""

import json
import os
import re
import sys
import tempfile

from benchmarks import checks
from vatt_tf import quickstart

_SEEDS = (0, 1, 2)


def _verify(found, folder, bindings, seed):
  """Trains and deflates one model."""
  run, deflated = f'{folder}/run_{seed}', f'{folder}/deflated_{seed}'
  text, code = checks.run_module(
    'train',
    '--gin_file=gin/pretrain_mmv_sample.gin',
    f'--model_dir={run}',
    *(f'--gin_param={binding}' for binding in bindings),
    f'--gin_param=SEED={seed}',
  )
  found.check(f'seed {seed}: exit code of train', code, equal=0)
  for direction in ('text -> video', 'audio -> video'):
    # Columns: queries, pool, R@1 (chance), R@5 (chance), R@10 (chance).
    row = re.search(rf'^{direction} +\d+ +\d+ +(.+)$', text, re.MULTILINE)
    recall = float(row.group(1).split()[4])
    found.check(f'seed {seed}: R@10, {direction}', recall, at_least=0.5)
  _, code = checks.run_module(
    'deflate',
    f'--checkpoint={run}',
    f'--images={folder}/records/train-*.tfrecord',
    f'--output={deflated}',
  )
  found.check(f'seed {seed}: exit code of deflate', code, equal=0)
  with open(os.path.join(deflated, 'deflation.json')) as file:
    distances = json.load(file)
  for name, value in distances.items():
    found.note(f'seed {seed}: {name}', value)
  for other in ('naive', 'control'):
    found.check(
      f'seed {seed}: trained distance over {other}',
      round(distances['trained'] / distances[other], 3),
      at_most=0.9,
    )


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__.splitlines()[0])
  found = checks.Checks(__doc__.splitlines()[0])
  with tempfile.TemporaryDirectory() as folder:
    bindings = quickstart.make_data(folder)
    for seed in _SEEDS:
      _verify(found, folder, bindings, seed)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
