"""The evaluate command, and the files of gin/eval, on the sample records."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import parameterized
import gin
import tensorflow as tf

from tests import mains, shared_data
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import probe_classifiers, runner
from vatt_tf.input_pipeline.records import reading

_SAMPLE = shared_data.REPOSITORY / 'data' / 'sample'
_SMALL = (
  'NUM_FRAMES=2',
  'FRAME_SIZE=16',
  'NUM_AUDIO_SAMPLES=8000',
  'TABLE_SPECTROGRAM_FRAMES=24',
  'Size.num_layers=1',
  'Size.d_model=16',
  'Size.d_ff=16',
  'Size.num_heads=2',
  'Size.d_kv=8',
)


class EvaluateMainTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.dir = tempfile.mkdtemp()
    cls.addClassCleanup(shutil.rmtree, cls.dir)
    cls.model_dir = os.path.join(cls.dir, 'run')
    gin_utils.parse(
      ['gin/pretrain_sample.gin'],
      [
        *_SMALL,
        f"TRAIN_RECORDS='{_SAMPLE}/train-*.tfrecord'",
        f"EVAL_RECORDS='{_SAMPLE}/validation-*.tfrecord'",
        f"VOCABULARY='{_SAMPLE}/vocabulary.txt'",
        'TRAIN_STEPS=2',
      ],
    )
    gin_utils.write_config(cls.model_dir)
    model = gin_utils.get_task().build_model()
    manager = tf.train.CheckpointManager(
      tf.train.Checkpoint(model=model), cls.model_dir, max_to_keep=3
    )
    for step in (1, 2):
      manager.save(checkpoint_number=step)
    gin.clear_config()

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _parse(self, name, *params):
    gin_utils.parse(
      [os.path.join(self.model_dir, 'config.gin'), f'gin/eval/{name}.gin'],
      [f"LABEL_NAMES='{_SAMPLE}/labels.txt'", *params],
    )

  def _evaluate(self, name, *params):
    self._parse(name, *params)
    tables = []
    metrics, _ = runner.evaluate(
      self.model_dir, on_result=lambda result: tables.extend(result.tables())
    )
    ((title, table),) = tables
    return metrics, title, table

  # The command.

  def test_follows_until_the_last_step(self):
    output = os.path.join(self.dir, 'followed.json')
    result = mains.run(
      'evaluate',
      f'--checkpoint={self.model_dir}',
      '--follow',
      '--timeout=1',
      f'--output={output}',
      '--gin_file=gin/eval/retrieval.gin',
      '--gin_param=EVAL_CLIPS=2',
    )
    self.assertEqual(result.returncode, 0, result.stderr)
    for step in (1, 2):
      self.assertIn(
        f'Retrieval on held-out clips, step {step}, {self.model_dir}/ckpt-',
        result.stdout,
      )
    self.assertNotIn('Waiting', result.stdout)  # TRAIN_STEPS is 2
    self.assertIn('16 clips, 0 dropped (0.0%)', result.stdout)
    self.assertIn(
      'Clips per video: 2, combined by mean_embedding', result.stdout
    )
    with open(output, encoding='utf-8') as file:
      found = json.load(file)['checkpoints']
    self.assertEqual([one['step'] for one in found], [1, 2])
    # Two checkpoints of the same weights.
    self.assertEqual(found[0]['retrieval'], found[1]['retrieval'])
    self.assertEqual(found[0]['retrieval']['text_to_audio']['pool_size'], 8)

  def test_gives_up_waiting(self):
    missing = os.path.join(self.dir, 'missing')
    result = mains.run(
      'evaluate', f'--checkpoint={missing}', '--follow', '--timeout=0.02'
    )
    self.assertEqual(result.returncode, 1)
    self.assertIn(f'Waiting for {missing}/config.gin: 0 s', result.stdout)
    self.assertIn('--timeout', result.stderr)

  def test_random_weights(self):
    result = mains.run('evaluate', f'--gin_file={self.model_dir}/config.gin')
    self.assertEqual(result.returncode, 1)
    self.assertIn('--allow_random_weights', result.stderr)
    result = mains.run(
      'evaluate',
      f'--gin_file={self.model_dir}/config.gin',
      '--allow_random_weights',
    )
    self.assertEqual(result.returncode, 0, result.stderr)
    self.assertIn('RANDOM WEIGHTS: Retrieval on held-out', result.stdout)

  # The gin files.

  def _records(self, pattern):
    return f"'{_SAMPLE}/{pattern}-*.tfrecord'"

  def test_linear_probe(self):
    metrics, title, table = self._evaluate(
      'linear_probe',
      f'TRAIN_RECORDS={self._records("train")}',
      f'EVAL_RECORDS={self._records("validation")}',
      'PROBE_CLIPS=2',
      'lrc.num_epochs=3',
      'svm.c_values=(1e-3, 1.0)',
      r"GROUP_PATTERN=r'(\d+)\.mp4'",
    )
    self.assertStartsWith(title, 'Probes of frozen features, step 2')
    self.assertEqual(metrics['num_videos'], 24)
    self.assertEqual(metrics['max_clips_per_video'], 2)
    self.assertEqual(metrics['num_classes'], 6)
    self.assertEqual(metrics['label_names'][0], 'circle')
    for feature in ('video_feature', 'audio_feature'):
      self.assertEqual(
        list(metrics['features'][feature]), ['lrc', 'svm', 'knn']
      )
    self.assertIn('16 videos to learn from, 8 to test on; 0 of', table)

  def _write_folds(self):
    """Lists of three folds of the sample records: their folder."""
    ids = []
    paths = sorted(str(path) for path in _SAMPLE.glob('*.tfrecord'))
    for record in tf.data.TFRecordDataset(paths):
      (name,) = reading.parse_record(record, ['example_id'])['example_id']
      ids.append(name.numpy().decode())
    folder = self.create_tempdir().full_path
    for fold in range(3):
      for part in ('train', 'test'):
        path = os.path.join(folder, f'{part}_{fold}.txt')
        with open(path, 'w', encoding='utf-8') as file:
          for i, name in enumerate(ids):
            if (i % 3 == fold) == (part == 'test'):
              file.write(f'{name}\n')
    return folder

  def test_linear_probe_over_splits(self):
    folder = self._write_folds()
    metrics, _, table = self._evaluate(
      'linear_probe_splits',
      f'EVAL_RECORDS={self._records("*")}',
      f"SPLITS='{folder}'",
      "FEATURES=('audio_feature',)",
      'VIDEO_INPUT=None',
      'PROBES=[@svm, @knn]',
      'PROBE_CLIPS=2',
    )
    result = metrics['features']['audio_feature']['svm']
    self.assertEqual(list(result['splits']), ['0', '1', '2'])
    self.assertIsNotNone(result['top_1_spread'])
    self.assertRegex(table, r'audio_feature +svm +0\.\d{3} ± 0\.\d{3} \(0\.167')
    self.assertIn('Split 2: 16 videos to learn from, 8 to test on', table)

  def test_the_protocol_of_mmv(self):
    folder = self._write_folds()
    with mock.patch.object(
      probe_classifiers, '_svm_scores', wraps=probe_classifiers._svm_scores
    ) as scores:
      metrics, _, table = self._evaluate(
        'mmv_video',
        f'EVAL_RECORDS={self._records("*")}',
        f"SPLITS='{folder}'",
        'NUM_EPOCHS=3',
        'PROBE_CLIPS=2',
        'probe/VideoConfig.num_frames=2',
        'probe/VideoConfig.frame_size=16',
        'evaluate.batch_size=8',
      )
    self.assertEqual(scores.call_count, 3)
    for (train, test, *_), _ in scores.call_args_list:
      # Three random windows to learn from, two even ones to be tested on.
      self.assertEqual(train.values.shape[0], 3 * len(train.labels))
      self.assertEqual(test.values.shape[0], 2 * len(test.labels))
      self.assertLen(train.labels, 16)
    result = metrics['features']['video_feature']['svm']
    self.assertEqual(result['splits']['0']['C'], 0.001)
    self.assertIn('C = 0.001, 0.001, 0.001', table)

  def test_the_protocol_of_mmv_for_sound(self):
    metrics, _, table = self._evaluate(
      'mmv_audio',
      f'EVAL_RECORDS={self._records("*")}',
      f"SPLITS='{self._write_folds()}'",
      'PROBE_CLIPS=2',
    )
    self.assertEqual(list(metrics['features']), ['audio_feature'])
    self.assertRegex(table, r'audio_feature +svm +0\.\d{3} ± 0\.\d{3}')

  def test_zero_shot(self):
    metrics, title, table = self._evaluate(
      'zero_shot',
      f'EVAL_RECORDS={self._records("validation")}',
      'ZERO_SHOT_CLIPS=2',
    )
    self.assertStartsWith(title, 'Zero-shot classification of held-out')
    self.assertEqual(metrics['num_videos'], 8)
    self.assertEqual(metrics['num_rows'], 16)
    self.assertIn('Prompts: a video of {}.; a {}.', table)
    metrics, _, _ = self._evaluate(
      'zero_shot',
      f'EVAL_RECORDS={self._records("validation")}',
      "MODALITY='audio'",
      'VIDEO_INPUT=None',
      'AUDIO_INPUT=@zero_shot/AudioConfig()',
    )
    self.assertEqual(metrics['num_rows'], 32)

  def test_label_outside_the_range(self):
    with self.assertRaisesRegex(
      ValueError, '2 of 8 records are bad.*validation/.*not among the classes'
    ):
      self._evaluate(
        'zero_shot',
        f'EVAL_RECORDS={self._records("validation")}',
        'NUM_CLASSES=3',
        "LABEL_NAMES=('circle', 'cross', 'ring')",
      )
    with self.assertRaisesRegex(
      ValueError, r'in \[0, 3\).*have none: validation/0000'
    ):
      self._evaluate(
        'zero_shot',
        f'EVAL_RECORDS={self._records("validation")}',
        'NUM_CLASSES=3',
        "LABEL_NAMES=('circle', 'cross', 'ring')",
        'make_dataset.max_bad_record_share=1.0',
      )

  def test_every_file_is_read_by_the_command(self):
    # Without the modules that tests import.
    script = (
      'import gin, sys\n'
      'from vatt_tf import configurables\n'
      'from vatt_tf.core import gin_utils\n'
      'for path in sys.argv[1:]:\n'
      "  gin_utils.parse(['gin/pretrain_sample.gin', path])\n"
      '  gin.clear_config()\n'
    )
    folder = gin_utils.PACKAGE / 'gin' / 'eval'
    files = sorted(str(path) for path in folder.glob('*.gin'))
    done = subprocess.run(
      [sys.executable, '-c', script, *files],
      capture_output=True,
      text=True,
      cwd=shared_data.REPOSITORY,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-2000:])

  def test_every_file_is_tried(self):
    folder = gin_utils.PACKAGE / 'gin' / 'eval'
    names = {path.stem for path in folder.glob('*.gin')}
    tests = shared_data.REPOSITORY / 'tests'
    files = (
      pathlib.Path(__file__),
      tests / 'evaluation' / 'image_probe_test.py',
      tests / 'localize_main_test.py',
    )
    text = ''.join(path.read_text('utf-8') for path in files)
    tried = re.findall(r"_evaluate\(\s*'(\w+)'|gin/eval/(\w+)\.gin'", text)
    self.assertEqual(names, {first or second for first, second in tried})


if __name__ == '__main__':
  tf.test.main()
