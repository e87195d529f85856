"""DropToken on the sample data: accuracy against the cost of a step.

    python -m benchmarks.verify_drop_token --output=found.json

The study of the paper's table 5 at a small scale: a video tower of 4 layers and
576 patches (gin/scratch_sample_video.gin) is trained from scratch to
distinguish the motions of the sample media, and drops 75, 50, 25 and 0 % of the
patches. Evaluation always sees all of them.
"""

import pathlib
import re
import statistics
import sys
import tempfile

import gin

from benchmarks import checks
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import gin_utils

_GIN_FILE = 'gin/scratch_sample_video.gin'
_RATES = (0.75, 0.5, 0.25, 0.0)
_ROW = '{:>9} {:>8} {:>15} {:>11} {:>9} {:>7}'


def _make_records(found, folder):
  media, records = folder / 'media', folder / 'records'
  checks.make_sample_media(media, '--label=motion')
  for name in ('train', 'validation'):
    checks.ingest(
      found,
      name,
      f'--manifest={media}/{name}.csv',
      f'--output_dir={records}',
      '--shorter_side=96',
      '--use_audio=false',
    )
  return records


def _costs(rate):
  """Tokens of a training clip, and GFLOPs of a step on it."""
  gin_utils.parse([_GIN_FILE], [f'DROP_TOKEN_RATE={rate}'])
  tower = gin_utils.get_task().build_model().tower
  size = gin.query_parameter('%FRAME_SIZE')
  shape = (gin.query_parameter('%NUM_FRAMES'), size, size, 3)
  tokens = tower.num_tokens(shape, training=True)
  step = sum(tower.step_flops(shape).values())
  return tokens, step / 1e9


def _train(found, records, folder, rate):
  """Trains; returns seconds per step and the held-out accuracy."""
  text, code = checks.run_module(
    'train',
    f'--gin_file={_GIN_FILE}',
    f'--model_dir={folder}/drop_{rate}',
    f'--gin_param=DROP_TOKEN_RATE={rate}',
    f"--gin_param=TRAIN_RECORDS='{records}/train-*.tfrecord'",
    f"--gin_param=EVAL_RECORDS='{records}/validation-*.tfrecord'",
  )
  found.check(f'DropToken {rate}: exit code', code, equal=0)
  seconds = [float(each) for each in re.findall(r'([\d.]+) s/step', text)]
  scalars = checks.read_scalars(f'{folder}/drop_{rate}/eval')
  # The first interval traces the graph.
  return statistics.median(seconds[1:]), scalars['top_1'][-1]


def main():
  """Runs the study."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('DropToken at 75, 50, 25 and 0 %')
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    records = _make_records(found, folder)
    rows = []
    for rate in _RATES:
      tokens, cost = _costs(rate)
      seconds, accuracy = _train(found, records, folder, rate)
      rows.append(
        {
          'drop_token_rate': rate,
          'tokens': tokens,
          'gflops_per_training_clip': cost,
          'seconds_per_step': seconds,
          'top_1': accuracy,
        }
      )
  found.note('study', rows)
  whole = rows[-1]['seconds_per_step']
  print(
    _ROW.format(
      'DropToken', 'tokens', 'GFLOPs a clip', 's a step', 'speed-up', 'top-1'
    )
  )
  for row in rows:
    print(
      _ROW.format(
        f'{row["drop_token_rate"]:.0%}',
        row['tokens'],
        f'{row["gflops_per_training_clip"]:.2f}',
        f'{row["seconds_per_step"]:.3f}',
        f'{whole / row["seconds_per_step"]:.2f}',
        f'{row["top_1"]:.3f}',
      )
    )
  # Chance is 1/6 and its standard deviation on 144 clips 0.03.
  found.check(
    'accuracy with half of the tokens', rows[1]['top_1'], at_least=0.5
  )
  found.check(
    'a step with half of the tokens against a whole one',
    rows[1]['seconds_per_step'] / whole,
    at_most=0.6,
  )
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
