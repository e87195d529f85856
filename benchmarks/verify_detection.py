"""Trains detectors on boxes and classes that come from sound alone.

    python -m benchmarks.verify_detection --output=found.json

For three seeds it trains a model that says where it sounds, labels the training
clips with it (no label is read), trains a detector on these labels, which sees
single frames without sound, and measures it on held-out clips: pictures of two
shapes, and of one. The classes are the colours of the shapes, since the pitch
of the sample sounds follows the colour, and clusters of picture and sound find
it first; all attributes are compared with the clusters of the training clips.
"""

import collections
import json
import sys
import tempfile

from benchmarks import checks
from benchmarks import localization_sets as sets
from vatt_tf.evaluation import detection_metrics
from vatt_tf.input_pipeline.records import reading, shard_files
from vatt_tf.media.sample import plan, words

_SEEDS = (0, 1, 2)
_CLASSES = tuple(words.COLOURS)


def _agreement(folder, labels):
  """How well the clusters of the training clips match each attribute."""
  options = plan.Options(
    num_train=sets.NUM_TRAIN,
    num_validation=sets.NUM_HELD_OUT,
    distractor_share=0.5,
  )
  clips = {clip.video_path: clip for clip in plan.plan_clips(options)}
  counts = {name: collections.Counter() for name in plan.LABELS}
  for path in shard_files.match_shards(f'{labels}/train-*.tfrecord'):
    for record in reading.read_shard(path):
      cluster = int(record.regions[0][0].label.rsplit('_', 1)[1])
      clip = clips[record.data_path]
      for name, counter in counts.items():
        counter[cluster, getattr(clip, name)] += 1
  result = {}
  for name, counter in counts.items():
    values = sorted({value for _, value in counter})
    table = [
      [counter[cluster, value] for value in values]
      for cluster in range(len(_CLASSES))
    ]
    _, agreement = detection_metrics.match_clusters(table)
    result[name] = round(agreement, 3)
  return result


def _verify_seed(found, folder, data, seed):
  """Does all steps for a seed."""
  title = f'seed {seed}'
  run, labels, detector = (
    f'{folder}/{name}_{seed}' for name in ('localizer', 'labels', 'detector')
  )
  checks.train(
    found,
    f'{title}: localizer',
    run,
    'gin/pretrain_localize_sample.gin',
    [*data, f'SEED={seed}'],
  )
  _, code = checks.run_module(
    'self_label',
    f'--checkpoint={run}',
    f'--records={sets.pattern(folder, sets.TRAIN)}',
    f'--output_dir={labels}',
    f'--num_clusters={len(_CLASSES)}',
    f'--seed={seed}',
    '--batch_size=32',
  )
  found.check(f'{title}: exit code of self_label', code, equal=0)
  found.note(f'{title}: clusters and attributes', _agreement(folder, labels))
  checks.train(
    found,
    f'{title}: detector',
    detector,
    'gin/detect_sample.gin',
    [
      f"TRAIN_RECORDS='{labels}/train-*.tfrecord'",
      f"EVAL_RECORDS='{sets.pattern(folder, sets.PAIRS)}'",
      f"LABEL_NAMES='{labels}/labels.txt'",
      f'EVAL_LABEL_NAMES={_CLASSES}',
      f'NUM_CLASSES={len(_CLASSES)}',
      f'SEED={seed}',
    ],
  )
  for name in (sets.PAIRS, sets.MOVING):
    output = f'{detector}_{name}.json'
    _, code = checks.run_module(
      'evaluate',
      f'--checkpoint={detector}',
      f"--gin_param=EVAL_RECORDS='{sets.pattern(folder, name)}'",
      f'--output={output}',
    )
    of_set = f'{title}, {name}'
    found.check(f'{of_set}: exit code of evaluate', code, equal=0)
    with open(output, encoding='utf-8') as file:
      metrics = json.load(file)['detection']
    found.note(of_set, metrics)
    found.check(
      f'{of_set}: mAP at IoU 0.3, twice that of the central box',
      round(metrics['mAP_30'], 3),
      at_least=round(2 * metrics['baseline_mAP_30'], 3),
    )
    found.check(
      f'{of_set}: agreement of the classes',
      round(metrics['agreement'], 3),
      at_least=0.5,
    )


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__.splitlines()[0])
  found = checks.Checks(__doc__.splitlines()[0])
  with tempfile.TemporaryDirectory() as folder:
    data = sets.make(found, folder, label='colour')
    for seed in _SEEDS:
      _verify_seed(found, folder, data, seed)
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
