"""Imports checkpoints of the released sizes: time, memory and exact values.

    python -m benchmarks.verify_convert --output=found.json

The released files are not available everywhere, but their names and shapes are
known (`fixtures/listings` of the shared data, by default `shared` beside the
repository). `python -m vatt_tf.convert` imports a checkpoint of the same names
and shapes, with random numbers; then every variable of the model that the
written config.gin describes must have the numbers of the file, bit by bit. Time
and memory are those of the whole process.
"""

import json
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import checks
from tests import shared_data
from tests.checkpoints import checkpoint_files
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import manager, plans, weight_sources
from vatt_tf.core import gin_utils

_SUFFIX = '/.ATTRIBUTES/VARIABLE_VALUE'
# Runs a command and prints its peak memory in KiB. A process begins with the
# peak of the one that starts it, so that this one must be small.
_LAUNCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
_MAX_SECONDS = 60
_LARGEST = 'tx_fac_lbs'


def write_random(listing, prefix):
  """Writes a checkpoint of the names and shapes of a listing.

  Args:
    listing: path of its json file.
    prefix: of the checkpoint.
  """
  with open(listing) as file:
    shapes = json.load(file)['variables']
  rng = np.random.default_rng(0)
  checkpoint_files.write(
    prefix,
    {
      name + _SUFFIX: rng.standard_normal(shape, np.float32)
      for name, shape in shapes.items()
    },
  )


def check(found, name, folder):
  """Imports a checkpoint of one listing.

  Args:
    found: `checks.Checks`.
    name: of the listing.
    folder: for the files.
  """
  listing = shared_data.path('fixtures', 'listings', f'{name}.json')
  prefix, output = f'{folder}/ckpt-500000', f'{folder}/output'
  # In a process of its own, so that its memory is given back.
  subprocess.run(
    [
      sys.executable,
      '-c',
      'import sys; from benchmarks import verify_convert as v; '
      'v.write_random(*sys.argv[1:])',
      str(listing),
      prefix,
    ],
    cwd=checks.ROOT,
    check=True,
  )
  source = weight_sources.open_source(prefix)
  size = sum(file['bytes'] for file in source.describe_files())
  found.note(f'{name}: file in GiB', round(size / 2**30, 3))

  start = time.time()
  process = subprocess.run(
    [
      sys.executable,
      '-c',
      _LAUNCHER,
      sys.executable,
      '-m',
      'vatt_tf.convert',
      '--source=released_vatt',
      f'--checkpoint={prefix}',
      f'--output={output}',
    ],
    cwd=checks.ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  text, _, peak = process.stdout.rstrip().rpartition('\n')
  found.check(f'{name}: exit code', process.returncode, equal=0)
  found.check(
    f'{name}: seconds', round(time.time() - start, 1), at_most=_MAX_SECONDS
  )
  memory = round(int(peak) * 2**10 / size, 2)
  if name == _LARGEST:
    found.check(
      f'{name}: peak memory over size of the file', memory, at_most=2.0
    )
  else:  # TensorFlow itself takes as much as a small file
    found.note(f'{name}: peak memory over size of the file', memory)
  print('\n'.join(text.splitlines()[-2:]), flush=True)

  with open(f'{output}/report.json') as file:
    report = json.load(file)
  rows = report['variables']
  used = {name for row in rows for name in row['sources'] if row['target']}
  found.check(
    f'{name}: variables of the file that are not used',
    len(set(source.shapes) - used),
    equal=0,
  )
  gin_utils.parse([f'{output}/config.gin'])
  model = gin_utils.get_task().build_model()
  manager.restore_model(model, manager.resolve(output))
  variables = plans.target_variables(model)
  for row in rows:
    (origin,) = row['sources']
    value = variables.pop(row['target']).numpy()
    if not np.array_equal(source.read(origin).reshape(value.shape), value):
      variables[row['target']] = 'differs'
  found.check(
    f'{name}: variables of the model that are not those of the file',
    len(variables),
    equal=0,
  )


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('import of checkpoints of the released sizes')
  for name in checkpoint_files.LISTINGS:
    with tempfile.TemporaryDirectory() as folder:
      check(found, name, folder)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
