"""Small models on real talking-head clips: records, training, retrieval.

    python -m benchmarks.verify_real_clips --output=found.json

The 799 clips are in `media/grid` of the folder VATT_TF_SHARED, by default
`shared` beside the repository: a person speaks sentences of six words, such as
"bin blue at f two now". A small modality-agnostic and a small modality-specific
model are trained on 700 of them; the others are searched. The search metrics
are recorded without limits; the checks are that all clips become records, and
that sound finds its video more often than by chance.
"""

import csv
import json
import pathlib
import random
import sys
import tempfile

from benchmarks import checks
from tests import shared_data

_NUM_HELD_OUT = 99
_NUM_CLIPS = 799
PARAMS = {
  'VOCABULARY_SIZE': 64,
  'TRAIN_STEPS': 600,
  'LOG_INTERVAL': 20,
  # The lips say the sentence in about two seconds.
  'NUM_FRAMES': 20,
  'FRAME_RATE': 10.0,
  'FRAME_SIZE': 64,
  'NUM_AUDIO_SAMPLES': 32000,
  'video/PatchTower.patch_size': (4, 8, 8),
  'TABLE_SPECTROGRAM_FRAMES': 94,
  'audio/PatchTower.patch_size': (4, 20),
  # What is said is in the sound, far more than in the lips.
  'AUDIO_TEXT_WEIGHT': 1.0,
}
_MODELS = {
  'modality_agnostic': (),
  'modality_specific': ('--gin_file=gin/models/specific.gin',),
}


def _split(media, folder):
  """Writes the manifests of both splits; every clip is in one of them."""
  with open(media / 'manifest.csv', encoding='utf-8', newline='') as file:
    rows = list(csv.DictReader(file))
  random.Random(0).shuffle(rows)
  for name, part in (
    ('validation', rows[:_NUM_HELD_OUT]),
    ('train', rows[_NUM_HELD_OUT:]),
  ):
    with open(
      folder / f'{name}.csv', 'w', encoding='utf-8', newline=''
    ) as file:
      writer = csv.DictWriter(file, list(rows[0]))
      writer.writeheader()
      writer.writerows(part)


def make_records(found, media, folder):
  """Makes records of both splits, and returns their folder."""
  _split(media, folder)
  records = folder / 'records'
  counts = {}
  for name in ('train', 'validation'):
    checks.ingest(
      found,
      name,
      f'--manifest={folder / name}.csv',
      f'--media_root={media}',
      f'--output_dir={records}',
      '--shorter_side=64',
      '--audio_rate=16000',
    )
    info = json.loads((records / 'dataset_info.json').read_text())
    counts[name] = info['splits'][name]['num_examples']
  found.check('clips', sum(counts.values()), equal=_NUM_CLIPS)
  return records


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('small models on 799 real talking-head clips')
  media = shared_data.root() / 'media' / 'grid'
  if not media.exists():
    print(f'Skipped: there is no {media}. Set VATT_TF_SHARED to its folder.')
    return 0
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    records = make_records(found, media, folder)
    checks.run_module(
      'build_vocabulary',
      f'--records={records}/train-*.tfrecord',
      f'--output={folder}/vocabulary.txt',
    )
    params = {
      'TRAIN_RECORDS': f"'{records}/train-*.tfrecord'",
      'EVAL_RECORDS': f"'{records}/validation-*.tfrecord'",
      'VOCABULARY': f"'{folder}/vocabulary.txt'",
      **PARAMS,
    }
    for model, files in _MODELS.items():
      model_dir = folder / model
      _, code = checks.run_module(
        'train',
        '--gin_file=gin/pretrain_sample.gin',
        *files,
        f'--model_dir={model_dir}',
        *(f'--gin_param={key}={value}' for key, value in params.items()),
      )
      found.check(f'{model}: exit code', code, equal=0)
      scalars = checks.read_scalars(f'{model_dir}/eval')
      metrics = {tag: values[-1] for tag, values in sorted(scalars.items())}
      found.note(f'{model}: retrieval', metrics)
      # Chance gives 50, with a standard deviation of 2.9.
      found.check(
        f'{model}: mean rank, audio to video',
        metrics['audio_to_video/mean_rank'],
        at_most=43,
      )
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
