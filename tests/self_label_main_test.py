"""The self_label command, and a detector that learns from its records."""

import json
import os
import tempfile

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import mains
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import folders
from vatt_tf.core import gin_utils
from vatt_tf.input_pipeline.records import reading
from vatt_tf.media import ingest
from vatt_tf.media.sample import rendering

_SMALL = (
  'NUM_FRAMES=4',
  'FRAME_RATE=5.0',
  'FRAME_SIZE=32',
  'NUM_AUDIO_SAMPLES=12800',
  'TABLE_SPECTROGRAM_FRAMES=40',
  'Size.num_layers=2',
  'Size.d_model=16',
  'Size.d_ff=16',
  'Size.num_heads=2',
  'Size.d_kv=8',
  'VIDEO_TEXT_WEIGHT=0.0',
  "VOCABULARY='data/sample/vocabulary.txt'",
  'VOCABULARY_SIZE=512',
  'LOCAL_WEIGHT=1.0',
)
_DETECTOR = (
  'NUM_CLASSES=3',
  'TRAIN_STEPS=6',
  'WARMUP_STEPS=1',
  'BATCH_SIZE=8',
  'LOG_INTERVAL=3',
  'CHECKPOINT_INTERVAL=6',
  'STEPS_PER_LOOP=3',
  'Size.num_layers=1',
  'Size.d_model=16',
  'Size.d_ff=16',
  'Size.d_kv=8',
  'Detector.num_convs=1',
  'Detector.width=16',
  'CACHE_GIB=0.1',
)


class SelfLabelMainTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    media = os.path.join(cls.dir, 'media')
    rendering.write_sample_media(
      media,
      num_workers=1,
      num_train=10,
      num_validation=6,
      distractor_share=1.0,
      silent_share=0.1,
      duration=1.2,
    )
    cls.records = os.path.join(cls.dir, 'records')
    for split in ('train', 'validation'):
      ingest.ingest(
        cls.records,
        f'{media}/{split}.csv',
        name=split,
        boxes=f'{media}/{split}_boxes.csv',
        num_workers=0,
        show_progress=False,
      )
    cls.run_dir = os.path.join(cls.dir, 'run')
    gin_utils.parse(['gin/pretrain_localize_sample.gin'], _SMALL)
    model = gin_utils.get_task().build_model()
    gin_utils.write_config(cls.run_dir)
    folders.save(
      tf.train.Checkpoint(model=model), cls.run_dir, step=1, max_to_keep=1
    )
    gin.clear_config()

  def _label(self, *flags):
    self.out = os.path.join(self.create_tempdir().full_path, 'labels')
    return mains.run(
      'self_label',
      f'--checkpoint={self.run_dir}',
      f'--output_dir={self.out}',
      '--num_clusters=3',
      '--num_heads=2',
      *flags,
    )

  def test_labels_train_a_detector(self):
    done = self._label(
      f'--records={self.records}/train-*.tfrecord',
      '--num_shards=2',
      '--kept_share=0.5',
      '--max_area=1.0',
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertRegex(
      done.stdout, r'\d+ boxes in \d+ clips of 3 clusters .* left out'
    )
    with open(f'{self.out}/labels.txt', encoding='utf-8') as file:
      names = file.read().splitlines()
    self.assertEqual(names, ['cluster_00', 'cluster_01', 'cluster_02'])
    with open(f'{self.out}/clusters.json', encoding='utf-8') as file:
      found = json.load(file)
    self.assertLen(found['heads'], 2)
    clips = [
      clip
      for shard in range(2)
      for clip in reading.read_shard(
        f'{self.out}/train-0000{shard}-of-00002.tfrecord'
      )
    ]
    self.assertEqual(sum(found['heads'][found['head']]['sizes']), len(clips))
    self.assertNotEmpty(clips)
    for clip in clips:
      self.assertLen(clip.regions, len(clip.frames))
      for (region,) in clip.regions:
        self.assertIn(region.label, names)
        self.assertTrue(0 <= region.xmin < region.xmax <= 1)
        self.assertTrue(0 <= region.ymin < region.ymax <= 1)
    model_dir = os.path.join(self.dir, 'detector')
    done = mains.run(
      'train',
      '--gin_file=gin/detect_sample.gin',
      f'--model_dir={model_dir}',
      f"--gin_param=TRAIN_RECORDS='{self.out}/train-*'",
      f"--gin_param=EVAL_RECORDS='{self.records}/validation-*'",
      f"--gin_param=LABEL_NAMES='{self.out}/labels.txt'",
      *(f'--gin_param={param}' for param in _DETECTOR),
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('mAP at IoU 0.3', done.stdout)
    # The tower of the detector starts a detector of other classes.
    done = mains.run(
      'train',
      '--gin_file=gin/detect_sample.gin',
      f'--model_dir={model_dir}_true',
      f"--gin_param=TRAIN_RECORDS='{self.records}/train-*'",
      f"--gin_param=EVAL_RECORDS='{self.records}/validation-*'",
      '--gin_param=LABEL_NAMES=%EVAL_LABEL_NAMES',
      '--gin_param=MATCHING=None',
      f"--gin_param=INIT_CHECKPOINT='{model_dir}'",
      *(f'--gin_param={param}' for param in _DETECTOR[1:]),
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('logits: new', done.stdout + done.stderr)
    self.assertNotIn('agree after matching', done.stdout)
    output = os.path.join(self.dir, 'metrics.json')
    done = mains.run(
      'evaluate',
      f'--checkpoint={model_dir}',
      f'--output={output}',
      f'--report={self.dir}/report',
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    with open(f'{self.dir}/report/report.html', encoding='utf-8') as file:
      self.assertIn('What is found', file.read())
    with open(output, encoding='utf-8') as file:
      metrics = json.load(file)['detection']
    self.assertEqual(metrics['num_images'], 6)
    self.assertEqual(np.shape(metrics['counts']), (3, 6))
    done = mains.run(
      'export_saved_model',
      f'--checkpoint={model_dir}',
      f'--output={self.dir}/served',
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    loaded = tf.saved_model.load(f'{self.dir}/served/1')
    image = tf.zeros([2, 40, 64, 3], tf.uint8)
    self.assertAllEqual(
      loaded.signatures['detect'](image=image)['boxes'].shape, [2, 100, 4]
    )
    done = mains.run('summarize', f'--gin_file={model_dir}/config.gin')
    self.assertEqual(done.returncode, 0, done.stderr)

  def test_errors(self):
    records = f'--records={self.records}/train-*.tfrecord'
    for flags, message in (
      ([], 'either `media`'),
      ([records, '--kept_share=0'], 'kept_share=0'),
      ([records, '--threshold=1'], 'threshold=1'),
      ([records, '--head=2'], 'head=2'),
      ([records, '--num_clusters=30'], 'num_clusters=30'),
      ([records, '--max_area=0.0001'], 'a place that stands out'),
    ):
      with self.subTest(flags=flags):
        done = self._label(*flags)
        self.assertEqual(done.returncode, 1)
        self.assertIn(message, done.stderr)
        self.assertNotIn('Traceback', done.stderr)


if __name__ == '__main__':
  tf.test.main()
