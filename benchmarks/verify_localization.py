"""Trains models that say where it sounds, and measures them beside baselines.

    python -m benchmarks.verify_localization --output=found.json

It renders sample clips: half of the training clips show a second, silent shape,
and the validation clips are pairs of one picture with two shapes, each of which
sounds in turn. For three seeds it trains, as a user would, a Transformer
(gin/pretrain_localize_sample.gin) and a convolutional tower
(gin/pretrain_localize_tsm_sample.gin).

- Proof: both sounds of a picture must be found at their shapes. A model that
  does not listen has 0, one that guesses a shape 0.25. The same model is also
  measured on pairs of shapes of one colour.
- Floor: one shape that moves: the share of the best that the grid allows.
- Controls, on the same clips: right and wrong sounds are told apart, the best
  place moves with the picture, and silence has no map.
- Retrieval must not lose by the term: the Transformer without it.
"""

import json
import re
import statistics
import sys
import tempfile

from benchmarks import checks
from benchmarks import localization_sets as sets

_SEEDS = (0, 1, 2)
_DIRECTIONS = ('video -> audio', 'audio -> video')
_TRANSFORMER = 'Transformer'
_MODELS = {
  _TRANSFORMER: 'gin/pretrain_localize_sample.gin',
  'TSM-ResNet': 'gin/pretrain_localize_tsm_sample.gin',
}


def _train(found, title, run, gin_file, bindings):
  """Trains a model; returns R@5 by direction.

  The two clips of a picture tie, so that a sound never finds its own at R@1.
  """
  text = checks.train(found, title, run, gin_file, bindings)
  return {each: checks.recalls(text, each)[1] for each in _DIRECTIONS}


def _evaluate(found, title, folder, run, name):
  """Evaluates a run on one of the sets; returns the metrics."""
  output = f'{run}_{name}.json'
  _, code = checks.run_module(
    'evaluate',
    f'--checkpoint={run}',
    '--gin_file=gin/eval/localization.gin',
    f"--gin_param=EVAL_RECORDS='{sets.pattern(folder, name)}'",
    f'--output={output}',
  )
  found.check(f'{title}: exit code of evaluate on {name}', code, equal=0)
  with open(output, encoding='utf-8') as file:
    metrics = json.load(file)['localization']
  found.note(f'{title}, {name}', metrics)
  return metrics


def _verify_run(found, title, folder, run):
  """Measures a run; returns the share of the pairs that are both right."""
  proof = _evaluate(found, title, folder, run, sets.PAIRS)['interactive']
  found.check(f'{title}: pairs', proof['num_pairs'], at_least=144)
  found.check(f'{title}: both right', proof['both_right'], at_least=0.8)
  _evaluate(found, title, folder, run, sets.SAME_COLOUR)
  floor = _evaluate(found, title, folder, run, sets.MOVING)
  for name, value in (
    (
      'pointing at a moving shape, share of the bound',
      floor['pointing'] / floor['pointing_grid_bound'],
    ),
    ('right against wrong sound, AUROC', floor['auroc']),
    (
      'clips whose best place moves with the picture',
      floor['roll_share_clips'],
    ),
  ):
    found.check(f'{title}: {name}', round(value, 3), at_least=0.9)
  text, code = checks.run_module(
    'localize',
    f'--checkpoint={run}',
    f'--records={sets.pattern(folder, sets.SILENT)}',
    f'--output={run}_silent',
    '--num_videos=0',
  )
  found.check(f'{title}: exit code of localize', code, equal=0)
  count = re.search(r'^(\d+) maps in', text, re.MULTILINE)
  found.check(f'{title}: maps of silence', int(count.group(1)), equal=0)
  return proof['both_right']


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__.splitlines()[0])
  found = checks.Checks(__doc__.splitlines()[0])
  proofs = {title: [] for title in _MODELS}
  recalls = {'with the term': [], 'without': []}
  with tempfile.TemporaryDirectory() as folder:
    data = sets.make(found, folder)
    for seed in _SEEDS:
      for title, gin_file in _MODELS.items():
        name = f'{title}, seed {seed}'
        run = f'{folder}/{re.sub("[^a-z0-9]", "_", name.lower())}'
        bindings = [*data, f'SEED={seed}']
        recall = _train(found, name, run, gin_file, bindings)
        proofs[title].append(_verify_run(found, name, folder, run))
        if title != _TRANSFORMER:
          continue
        recalls['with the term'].append(recall)
        bindings.append('LOCAL_WEIGHT=0.0')
        name, run = f'{name}, without the term', f'{run}_plain'
        recalls['without'].append(_train(found, name, run, gin_file, bindings))
  for title, values in proofs.items():
    found.note(f'{title}: both right, all seeds', values)
  for direction in _DIRECTIONS:
    with_term, without = (
      [recall[direction] for recall in each] for each in recalls.values()
    )
    found.note(f'R@5, {direction}, with the term', with_term)
    found.note(f'R@5, {direction}, without', without)
    found.check(
      f'mean R@5, {direction}, at least the lowest seed without the term',
      round(statistics.mean(with_term), 3),
      at_least=min(without),
    )
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
