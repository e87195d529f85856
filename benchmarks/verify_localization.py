"""Trains models that say where it sounds, and measures them beside baselines.

    python -m benchmarks.verify_localization --output=found.json

It renders sample clips: half of the training clips show a second, silent shape,
and the validation clips are pairs of one picture with two shapes, each of which
sounds in turn. For three seeds it trains `gin/pretrain_localize_sample.gin`, a
Transformer, as a user would, and the convolutional S3D-G with the same term.

- Proof: both sounds of a picture must be found at their shapes. A model that
  does not listen has 0, one that guesses a shape 0.25. The same model is also
  measured on pairs of shapes of one colour.
- Floor: one shape that moves: the share of the best that the grid allows.
- Controls: right and wrong sounds are told apart, and the best place moves with
  the picture.
- Retrieval must not lose by the term: the same run without it.
"""

import csv
import json
import re
import statistics
import sys
import tempfile

from benchmarks import checks
from vatt_tf.media.sample import plan

_SEEDS = (0, 1, 2)
_MOVING = ('sideways', 'vertical', 'diagonal', 'orbit')
_DIRECTIONS = ('video -> audio', 'audio -> video')
# Bindings of each model, after those of the data.
_MODELS = {
  'Transformer': ('gin/pretrain_localize_sample.gin', ()),
  'S3D-G': (
    'gin/pretrain_mmv_sample.gin',
    ('LOCAL_WEIGHT=1.0', "video/S3DTower.token_layer='mixed_3c'"),
  ),
}
_WITHOUT = 'LOCAL_WEIGHT=0.0'
_INGEST = ('--shorter_side=48', '--audio_rate=16000')


def _ingest(found, folder, media, split, name, manifest=None):
  """Makes records, with boxes, of a split of a sample."""
  checks.ingest(
    found,
    name,
    f'--manifest={manifest or f"{media}/{split}.csv"}',
    f'--media_root={media}',
    f'--boxes={media}/{split}_boxes.csv',
    f'--output_dir={folder}/records',
    *_INGEST,
  )


def _make_data(found, folder):
  """Makes the records of all sets, and the vocabulary; returns bindings."""
  media = f'{folder}/media'
  checks.make_sample_media(
    media,
    '--num_train=1152',
    '--num_validation=288',
    '--distractor_share=0.5',
  )
  for split in plan.SPLITS:
    _ingest(found, folder, media, split, split)
  same = f'{folder}/same_colour'
  checks.make_sample_media(
    same,
    '--num_train=0',
    '--num_validation=288',
    '--distractor_share=0.5',
    '--distractor_colour=same',
  )
  _ingest(found, folder, same, 'validation', 'same_colour')
  one = f'{folder}/one_shape'
  options = plan.Options(num_train=0, num_validation=288)
  checks.make_sample_media(one, '--num_train=0', '--num_validation=288')
  moving = {
    clip.video_path
    for clip in plan.plan_clips(options)
    if clip.motion in _MOVING
  }
  manifest = f'{folder}/moving.csv'
  with (
    open(f'{one}/validation.csv', encoding='utf-8', newline='') as source,
    open(manifest, 'w', encoding='utf-8', newline='') as target,
  ):
    rows = csv.DictReader(source)
    writer = csv.DictWriter(target, rows.fieldnames)
    writer.writeheader()
    writer.writerows(row for row in rows if row['video_path'] in moving)
  _ingest(found, folder, one, 'validation', 'moving', manifest)
  _, code = checks.run_module(
    'build_vocabulary',
    f'--records={folder}/records/train-*.tfrecord',
    f'--output={folder}/vocabulary.txt',
  )
  found.check('exit code of build_vocabulary', code, equal=0)
  return [
    f"TRAIN_RECORDS='{folder}/records/train-*.tfrecord'",
    f"EVAL_RECORDS='{folder}/records/validation-*.tfrecord'",
    f"VOCABULARY='{folder}/vocabulary.txt'",
  ]


def _train(found, title, run, gin_file, bindings):
  """Trains a model; returns R@5 by direction.

  The two clips of a picture tie, so that a sound never finds its own at R@1.
  """
  text = checks.train(found, title, run, gin_file, bindings)
  return {each: checks.recalls(text, each)[1] for each in _DIRECTIONS}


def _localize(found, title, folder, run, name):
  """Evaluates a run on one of the sets; returns the metrics."""
  output = f'{run}_{name}.json'
  _, code = checks.run_module(
    'evaluate',
    f'--checkpoint={run}',
    '--gin_file=gin/eval/localization.gin',
    f"--gin_param=EVAL_RECORDS='{folder}/records/{name}-*.tfrecord'",
    f'--output={output}',
  )
  found.check(f'{title}: exit code of evaluate on {name}', code, equal=0)
  with open(output) as file:
    content = json.load(file)
  return content['localization']


def _verify_model(found, title, folder, gin_file, bindings):
  """Trains and measures a model for all seeds."""
  proofs, recalls, plain = [], [], []
  for seed in _SEEDS:
    name = f'{title}, seed {seed}'
    run = f'{folder}/{re.sub("[^a-z0-9]", "_", name.lower())}'
    of_seed = [*bindings, f'SEED={seed}']
    recalls.append(_train(found, name, run, gin_file, of_seed))
    for records in ('validation', 'same_colour', 'moving'):
      metrics = _localize(found, name, folder, run, records)
      found.note(f'{name}, {records}', metrics)
      if records == 'validation':
        proofs.append(metrics['interactive'])
        found.check(
          f'{name}: both right',
          metrics['interactive']['both_right'],
          at_least=0.8,
        )
        found.check(
          f'{name}: right against wrong sound, AUROC',
          round(metrics['auroc'], 3),
          at_least=0.9,
        )
        found.check(
          f'{name}: best places that move with the picture',
          round(metrics['roll_share'], 3),
          at_least=0.9,
        )
      elif records == 'moving':
        found.check(
          f'{name}: pointing at a moving shape, share of the bound',
          round(metrics['pointing'] / metrics['pointing_grid_bound'], 3),
          at_least=0.9,
        )
    plain.append(
      _train(
        found,
        f'{name}, without the term',
        f'{run}_plain',
        gin_file,
        [*of_seed, _WITHOUT],
      )
    )
  found.note(
    f'{title}: both right, all seeds', [x['both_right'] for x in proofs]
  )
  for direction in _DIRECTIONS:
    with_term, without = (
      [recall[direction] for recall in each] for each in (recalls, plain)
    )
    found.note(f'{title}: R@5, {direction}, with the term', with_term)
    found.note(f'{title}: R@5, {direction}, without', without)
    found.check(
      f'{title}: mean R@5, {direction}, at least the lowest seed without',
      round(statistics.mean(with_term), 3),
      at_least=min(without),
    )


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__.splitlines()[0])
  found = checks.Checks(__doc__.splitlines()[0])
  with tempfile.TemporaryDirectory() as folder:
    data = _make_data(found, folder)
    for title, (gin_file, bindings) in _MODELS.items():
      _verify_model(found, title, folder, gin_file, [*data, *bindings])
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
