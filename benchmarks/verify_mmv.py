"""Pre-trains small MMVs on the sample media, with each of its video towers.

    python -m benchmarks.verify_mmv --output=found.json

It renders the sample media and trains `gin/pretrain_mmv_sample.gin` on them as
a user would, with S3D-G and with TSM-ResNet-50 of a quarter of the width. Each
must learn to find held-out clips by text and by sound in ten minutes on two
idle cores; `verify_deflation` repeats the first for three seeds.
"""

import sys
import tempfile

from benchmarks import checks
from vatt_tf import quickstart

_DIRECTIONS = ('text -> video', 'audio -> video')
_TOWERS = {
  'S3D-G': (),
  'TSM-ResNet-50, a quarter of the width': (
    'VIDEO_TOWER=@video/TSMResNetTower()',
    'TSMResNetTower.width_factor=0.25',
  ),
}


def train(found, title, run, bindings):
  """Trains a model of the recipe, and checks what it retrieves.

  Args:
    found: Checks to add to.
    title: Name of the model in the results.
    run: Folder for the run.
    bindings: Bindings of gin.
  """
  text = checks.train(
    found, title, run, 'gin/pretrain_mmv_sample.gin', bindings
  )
  for direction in _DIRECTIONS:
    recall = checks.recalls(text, direction)[-1]
    found.check(f'{title}: R@10, {direction}', recall, at_least=0.85)


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__.splitlines()[0])
  found = checks.Checks(__doc__.splitlines()[0])
  with tempfile.TemporaryDirectory() as folder:
    data = quickstart.make_data(folder)
    for number, (title, bindings) in enumerate(_TOWERS.items()):
      train(found, title, f'{folder}/run_{number}', [*data, *bindings])
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
