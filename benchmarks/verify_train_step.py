"""Checks the speed and memory of a training step, on this machine.

    python -m benchmarks.verify_train_step --output=found.json

Limits are relative to the machine's float32 matmul peak, or ratios of two times
(see `benchmarks.train_step`). A processor without bfloat16 products (AVX-512
BF16 or AMX) gains nothing from mixed_bfloat16: its scores are then recorded
without limits.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from benchmarks import checks

_BFLOAT16_FLAGS = {'avx512_bf16', 'amx_bf16'}
# Name, least score, most GB.
_STEPS = (
  ('p1', 'float32', 7, 0.0140, None),
  ('p1', 'mixed_bfloat16', 7, 0.0221, None),
  ('p2', 'mixed_bfloat16', 3, 0.00070, 9.0),
)


def measure(*arguments):
  """Runs `python -m benchmarks.train_step`, again if the first run is void.

  Args:
    *arguments: strings, of its command line.

  Returns:
    The dictionary that it wrote.
  """
  command = [sys.executable, '-m', 'benchmarks.train_step', *arguments]
  for _ in range(2):
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder, 'found.json')
      done = subprocess.run([*command, f'--output={path}'], cwd=checks.ROOT)
      if not path.exists():
        raise RuntimeError(
          f'It ended with exit code {done.returncode}, having measured '
          f'nothing: {" ".join(command)}'
        )
      found = json.loads(path.read_text())
    if not found['is_void']:
      break
  return found


def _has_bfloat16():
  """Whether the processor multiplies bfloat16 numbers itself."""
  for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
    if line.startswith('flags'):
      return bool(_BFLOAT16_FLAGS & set(line.split()))
  return False


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('a training step: speed, memory, dropout, DropToken')
  has_bfloat16 = _has_bfloat16()
  found.note('bfloat16 products', has_bfloat16)

  def step(name, *arguments):
    result = measure(*arguments)
    found.note(name, result)
    found.check(f'{name}: void', result['is_void'], equal=False)
    return result

  for workload, precision, rounds, least_score, most_gb in _STEPS:
    name = f'{workload} {precision}'
    result = step(
      name,
      f'--workload={workload}',
      f'--precision={precision}',
      f'--rounds={rounds}',
    )
    if precision == 'float32' or has_bfloat16:
      found.check(f'{name}: score', result['score'], at_least=least_score)
    else:
      found.note(f'{name}: score', result['score'])
    if most_gb is not None:
      found.check(f'{name}: GB', result['peak_memory_gb'], at_most=most_gb)

  for precision in ('float32', 'mixed_bfloat16'):
    name = f'dropout of p1 {precision}'
    result = step(name, f'--precision={precision}', '--against_dropout_rate=0')
    share = 1 - result['against']['time_ratio']
    found.check(f'{name}: share of a step', share, at_most=0.15)
    name = f'DropToken of p2_video {precision}'
    result = step(
      name,
      '--workload=p2_video',
      f'--precision={precision}',
      '--against_drop_token_rate=0',
      '--rounds=3',
    )
    ratio = result['against']['time_ratio']
    found.check(f'{name}: times as fast', ratio, at_least=1.9)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
