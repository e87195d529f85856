"""Probes of what a small model learned from real clips: words and sounds.

    python -m benchmarks.verify_probe --output=found.json

A small modality-agnostic model is pre-trained on the training clips of
`verify_real_clips` (talking heads) and on the sample media together. Then
classifiers of its frozen sound features are tested on unseen data: the colour
word in the held-out clips' sentences (4 classes), and the 10 classes of the
sounds of `verify_esc10`, fold by fold. The report also has the results of
random weights.
"""

import pathlib
import statistics
import sys
import tempfile

from benchmarks import checks, verify_esc10, verify_real_clips
from tests import shared_data

_STEPS = 1000
_PROBES = ('lrc', 'svm', 'knn')
# Sounds of 5 s are heard through windows of 2 s; a sentence fits into one.
_WINDOWS = {'words': 1, 'sounds': 4}
_NUM_CLASSES = {'words': 4, 'sounds': 10}


def _make_sample_records(found, folder):
  checks.make_sample_media(folder / 'media')
  checks.ingest(
    found,
    'train',
    f'--manifest={folder}/media/train.csv',
    f'--output_dir={folder}/records',
    '--shorter_side=64',
    '--audio_rate=16000',
  )


def _pretrain(found, folder):
  """Pre-trains on both sets of records; returns the folder of the run."""
  checks.run_module(
    'build_vocabulary',
    f'--records={folder}/*/records/train-*.tfrecord',
    f'--output={folder}/vocabulary.txt',
  )
  params = {
    **verify_real_clips.PARAMS,
    'TRAIN_RECORDS': f"'{folder}/*/records/train-*.tfrecord'",
    'EVAL_RECORDS': f"'{folder}/real/records/validation-*.tfrecord'",
    'VOCABULARY': f"'{folder}/vocabulary.txt'",
    'VOCABULARY_SIZE': 256,
    'TRAIN_STEPS': _STEPS,
  }
  _, code = checks.run_module(
    'train',
    '--gin_file=gin/pretrain_sample.gin',
    f'--model_dir={folder}/model',
    *(f'--gin_param={key}={value}' for key, value in params.items()),
  )
  found.check('exit code of train', code, equal=0)
  return folder / 'model'


def _probe(found, task, records, train, test, weights):
  """Learns from some records, tests on others; returns accuracies by probe."""
  params = {
    'TRAIN_RECORDS': f"'{records}/{train}-*.tfrecord'",
    'EVAL_RECORDS': f"'{records}/{test}-*.tfrecord'",
    'LABEL_NAMES': f"'{records}/labels.txt'",
    'NUM_CLASSES': _NUM_CLASSES[task],
    'PROBE_CLIPS': _WINDOWS[task],
    'FEATURES': "('audio_feature',)",
    'VIDEO_INPUT': None,
  }
  with tempfile.TemporaryDirectory() as events:
    _, code = checks.run_module(
      'evaluate',
      *weights,
      '--gin_file=gin/eval/linear_probe.gin',
      *(f'--gin_param={key}={value}' for key, value in params.items()),
      f'--event_dir={events}',
    )
    found.check(f'{task}, {test}: exit code of evaluate', code, equal=0)
    scalars = checks.read_scalars(events)
  return {
    probe: scalars[f'audio_feature/{probe}/top_1'][-1] for probe in _PROBES
  }


def main():
  """Runs the check."""
  output = checks.parse_output(__doc__)
  found = checks.Checks('probes of sound features, 4 colour words and ESC-10')
  media = shared_data.root() / 'media'
  if not media.exists():
    print(f'Skipped: there is no {media}. Set VATT_TF_SHARED to its folder.')
    return 0
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for part in ('real', 'sample', 'esc10'):
      (folder / part).mkdir()
    words = verify_real_clips.make_records(
      found, media / 'grid', folder / 'real'
    )
    _make_sample_records(found, folder / 'sample')
    sounds = verify_esc10.make_records(found, media / 'esc10', folder / 'esc10')
    model_dir = _pretrain(found, folder)
    weights = {
      'pre-trained': [f'--checkpoint={model_dir}'],
      'random weights': [
        '--allow_random_weights',
        f'--gin_file={model_dir}/config.gin',
      ],
    }
    for title, flags in weights.items():
      accuracies = _probe(found, 'words', words, 'train', 'validation', flags)
      found.note(f'{title}: colour words', accuracies)
      if title == 'pre-trained':
        found.check('colour words, svm', accuracies['svm'], at_least=0.5)
      of_folds = [
        _probe(found, 'sounds', sounds, others, fold, flags)
        for others, fold in map(verify_esc10.split, verify_esc10.FOLDS)
      ]
      found.note(f'{title}: ESC-10, folds', of_folds)
      found.note(
        f'{title}: ESC-10, mean over the folds',
        {
          probe: statistics.mean(each[probe] for each in of_folds)
          for probe in _PROBES
        },
      )
  return found.write(output)


if __name__ == '__main__':
  sys.exit(main())
