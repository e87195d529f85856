"""The localize command: maps, videos, and what it refuses."""

import json
import os
import tempfile

from absl.testing import parameterized
import av
import gin
import numpy as np
from pyarrow import parquet
import tensorflow as tf

from tests import mains, sample_media
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import folders
from vatt_tf.core import gin_utils
from vatt_tf.embedding import model as model_lib
from vatt_tf.input_pipeline.records import reading
from vatt_tf.localization import maps
from vatt_tf.media import ingest
from vatt_tf.media.sample import rendering

_SMALL = (
  'NUM_FRAMES=4',
  'FRAME_RATE=4.0',
  'FRAME_SIZE=32',
  'NUM_AUDIO_SAMPLES=16000',
  'TABLE_SPECTROGRAM_FRAMES=48',
  'Size.num_layers=2',
  'Size.d_model=16',
  'Size.d_ff=16',
  'Size.num_heads=2',
  'Size.d_kv=8',
  'VIDEO_TEXT_WEIGHT=0.0',
  "VOCABULARY='data/sample/vocabulary.txt'",
  'VOCABULARY_SIZE=512',
)


class LocalizeMainTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.run_dir, cls.model, cls.form = cls._make_run('LOCAL_WEIGHT=1.0')
    media = os.path.join(cls.dir, 'media')
    os.makedirs(media)
    for name, sound in (
      ('tone', sample_media.tone(2.0)),
      ('silence', np.zeros([2 * 44100], np.float32)),
      ('mute', None),
    ):
      sample_media.write(f'{media}/{name}.mp4', 2.0, sound=sound)
    cls.media = media
    cls.records = os.path.join(cls.dir, 'records')
    ingest.ingest(
      cls.records, media_root=media, num_workers=0, show_progress=False
    )

  @classmethod
  def _make_run(cls, *params):
    """A run of random weights, its model, and the form of its inputs."""
    folder = os.path.join(cls.dir, f'run_{len(params)}')
    gin_utils.parse(['gin/pretrain_localize_sample.gin'], [*_SMALL, *params])
    model = gin_utils.get_task().build_model()
    form = model_lib.Form.configured()
    gin_utils.write_config(folder)
    folders.save(
      tf.train.Checkpoint(model=model), folder, step=1, max_to_keep=1
    )
    gin.clear_config()
    return folder, model, form

  def _localize(self, *flags):
    self.out = os.path.join(self.create_tempdir().full_path, 'out')
    return mains.run(
      'localize',
      f'--checkpoint={self.run_dir}',
      f'--output={self.out}',
      *flags,
    )

  def test_media(self):
    done = self._localize(f'--media={self.media}', '--frame_rate=8')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('2 maps in', done.stdout)
    self.assertIn('2 videos, 2 silent clips without a map', done.stdout)
    rows = parquet.read_table(f'{self.out}/maps.parquet').to_pylist()
    by_path = {}
    for row in rows:
      by_path.setdefault(row['path'], []).append(row)
    self.assertCountEqual(by_path, ['tone.mp4', 'silence.mp4'])
    self.assertIsNone(by_path['silence.mp4'][0]['map'])
    first, second = by_path['tone.mp4']
    self.assertEqual(
      (first['steps'], first['height'], first['width']), (2, 4, 4)
    )
    self.assertLen(first['map'], 32)
    self.assertEqual(
      (first['map_start'], first['map_end'], second['clip_start']),
      (0.0, 1.0, 1.0),
    )
    best = np.reshape(first['map'], [2, -1]).max(1).mean()
    self.assertAllClose(first['score'], best)
    with open(f'{self.out}/skipped.csv', encoding='utf-8') as file:
      self.assertIn('mute.mp4', file.read())
    # The video lasts as long as the file, and keeps its sound.
    with av.open(f'{self.out}/tone.mp4') as container:
      self.assertEqual(container.streams.video[0].frames, 16)
      sound = np.concatenate(
        [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
      )
    self.assertGreater(np.abs(sound).max(), 0.1)

  def test_records(self):
    pattern = f'{self.records}/train-*'
    done = self._localize(f'--records={pattern}', '--num_videos=1')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertLen(
      [name for name in os.listdir(self.out) if name.endswith('.mp4')], 1
    )
    rows = parquet.read_table(f'{self.out}/maps.parquet').to_pylist()
    clips = [
      clip
      for name in sorted(tf.io.gfile.glob(pattern + '.tfrecord'))
      for clip in reading.read_shard(name)
      if clip.data_path == 'tone.mp4'
    ]
    # The first second of the record, as the model computes it here.
    row = next(row for row in rows if row['path'] == 'tone.mp4')
    clip = clips[0]
    clip.frames, clip.waveform = clip.frames[:10], clip.waveform[:48000]
    clip.timestamps = clip.timestamps[:10]
    located, faults = maps.Locator(self.model, self.form).locate([clip])
    self.assertEmpty(faults)
    self.assertAllClose(
      np.reshape(row['map'], located[0].map.shape), located[0].map, atol=1e-4
    )

  def test_evaluate(self):
    media = os.path.join(self.dir, 'sample')
    rendering.write_sample_media(
      media,
      num_workers=1,
      num_train=0,
      num_validation=6,
      distractor_share=1.0,
      duration=1.2,
    )
    records = os.path.join(self.dir, 'boxed')
    ingest.ingest(
      records,
      f'{media}/validation.csv',
      name='validation',
      boxes=f'{media}/validation_boxes.csv',
      num_workers=0,
      show_progress=False,
    )
    output = os.path.join(self.dir, 'found.json')
    arguments = (
      '--gin_file=gin/eval/localization.gin',
      f"--gin_param=EVAL_RECORDS='{records}/validation-*'",
      f'--output={output}',
    )
    report = os.path.join(self.dir, 'report')
    done = mains.run(
      'evaluate',
      f'--checkpoint={self.run_dir}',
      f'--report={report}',
      *arguments,
    )
    self.assertEqual(done.returncode, 0, done.stderr)
    with open(f'{report}/report.html', encoding='utf-8') as file:
      self.assertIn('Where it sounds', file.read())
    self.assertIn('6 clips (100% of the records)', done.stdout)
    with open(output, encoding='utf-8') as file:
      metrics = json.load(file)['localization']
    self.assertEqual(metrics['interactive']['num_pairs'], 3)
    self.assertGreater(metrics['pointing_saturation'], 0.3)
    plain, _, _ = self._make_run('LOCAL_WEIGHT=0.0', 'SEED=1', 'TRAIN_STEPS=1')
    done = mains.run('evaluate', f'--checkpoint={plain}', *arguments)
    self.assertEqual(done.returncode, 1)
    self.assertIn('LOCAL_WEIGHT = 1.0', done.stderr)

  def test_errors(self):
    plain, _, _ = self._make_run('LOCAL_WEIGHT=0.0', 'SEED=1')
    mute = os.path.join(self.media, 'mute.mp4')
    for flags, message in (
      ([], 'either `media`'),
      ([f'--media={self.media}', '--records=x'], 'either `media`'),
      ([f'--media={mute}'], 'No clip has frames and sound'),
      ([f'--media={mute}x'], '`media` must be'),
      ([f'--media={mute}', '--frame_rate=0.5'], 'frame_rate=0.5'),
      ([f'--media={mute}', f'--checkpoint={plain}'], 'LOCAL_WEIGHT = 1.0'),
    ):
      with self.subTest(flags=flags):
        done = self._localize(*flags)
        self.assertEqual(done.returncode, 1)
        self.assertIn(message, done.stderr)
        self.assertNotIn('Traceback', done.stderr)


if __name__ == '__main__':
  tf.test.main()
