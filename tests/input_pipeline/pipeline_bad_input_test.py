"""Tests of records and arguments that do not fit."""

import pathlib
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.input_pipeline import pipeline_cache_test, pipeline_case
from vatt_tf.input_pipeline import bad_records as bad_records_lib
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import (
  video_config,
)
from vatt_tf.input_pipeline.records import schema, writing


class BadInputTest(pipeline_case.Case):
  def _clips_with_bad_ones(self):
    clips = [pipeline_case.clip(i) for i in range(8)]
    frames = list(clips[2].frames)
    frames[3] = frames[3][: len(frames[3]) // 2]
    clips[2].frames = frames
    bad = [writing.make_sequence_example(clip) for clip in clips]
    key = 'WAVEFORM/feature/floats'
    bits = np.arange(480, dtype=np.int32).view(np.float32)
    for number, values in ((4, bits), (5, np.full([480], np.nan))):
      part = bad[number].feature_lists.feature_list[key].feature[0]
      part.CopyFrom(writing._feature(schema.FLOAT, values))
    return [*(e.SerializeToString() for e in bad), b'no record at all']

  def test_bad_records_keep_their_place_and_are_named(self):
    bad_records = bad_records_lib.BadRecords(max_share=0.5)
    pattern = self._write(self._clips_with_bad_ones())
    config = video_config.VideoConfig(num_frames=6, frame_size=8)
    dataset = self._make(
      pattern,
      9,
      is_training=False,
      video=config,
      audio=pipeline_case.AUDIO,
      text=self._text,
      bad_records=bad_records,
    )
    with self.assertLogs(level='WARNING') as logs:
      (batch,) = dataset
      list(dataset)
    self.assertAllEqual(batch['valid'], [True] * 9)
    self.assertAllEqual(
      batch['video_mask'], [number not in (2, 8) for number in range(9)]
    )
    self.assertAllEqual(
      batch['audio_mask'], [number not in (4, 5, 8) for number in range(9)]
    )
    self.assertAllEqual(batch['text_mask'][2], [True, True, False])
    self.assertAllEqual(batch['video'][2], tf.zeros_like(batch['video'][2]))
    reasons = {
      index: reason for (_, index), reason in bad_records.reasons.items()
    }
    self.assertEqual(sorted(reasons), [2, 4, 5, 8])
    self.assertRegex(reasons[2], 'frame 3 of 6 is cut short')
    self.assertRegex(reasons[4], 'denormal')
    self.assertRegex(reasons[5], 'not finite')
    self.assertRegex(reasons[8], 'cannot be parsed')
    # Once each, though the data was read twice.
    self.assertLen(logs.output, 4)
    for name, reason in (('fake-000002', 'cut short'), ('fake-000004', 'deno')):
      line = [line for line in logs.output if name in line]
      self.assertLen(line, 1)
      self.assertRegex(line[0], rf'of 9: .*train-00000-of-00001.*{reason}')

  def test_too_many_bad_records_stop_the_run(self):
    pattern = self._write(self._clips_with_bad_ones())
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError,
      r'[234] of 9 records are bad.*`max_bad_record_share`=0.1 .*python -m '
      r'vatt_tf\.ingest',
    ):
      list(self._make(pattern, 3, is_training=False, max_bad_record_share=0.1))
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError, " of 9 .*'fake-00000[24]'"
    ):
      list(self._make(pattern, 3, is_training=False, max_bad_record_share=0.0))

  def test_rates_that_are_not_known(self):
    example = tf.train.SequenceExample()
    clip = pipeline_case.clip(0)
    lists = example.feature_lists.feature_list
    lists['image/encoded'].feature.add().bytes_list.value.extend(clip.frames)
    lists['waveform/floats'].feature.add().float_list.value.extend(
      clip.waveform
    )
    bad_records = bad_records_lib.BadRecords(1.0)
    (batch,) = self._make(
      self._write([example.SerializeToString()]),
      1,
      is_training=False,
      video=pipeline_case.VIDEO,
      audio=pipeline_case.AUDIO,
      bad_records=bad_records,
    )
    self.assertAllEqual(batch['video_mask'], [False])
    self.assertAllEqual(batch['audio_mask'], [False])
    (reason,) = bad_records.reasons.values()
    self.assertRegex(reason, 'Source.sample_rate.*Source.frame_rate')

  def test_unknown_label_is_named(self):
    bad_records = bad_records_lib.BadRecords(1.0)
    (batch,) = self._make(
      self._write([pipeline_case.clip(7), pipeline_case.clip(1)]),
      2,
      is_training=False,
      label=plan_lib.LabelConfig(num_classes=5),
      bad_records=bad_records,
    )
    self.assertAllEqual(batch['label'], [-1, 1])
    self.assertRegex(list(bad_records.reasons.values())[0], 'label')

  def test_no_file(self):
    with self.assertRaisesRegex(
      ValueError, r"'/none/x-\*'.*TRAIN_RECORDS.*python -m vatt_tf\.ingest"
    ):
      self._make('/none/x-*')
    with self.assertRaisesRegex(ValueError, 'EVAL_RECORDS'):
      self._make('/none/x-*', is_training=False)
    with self.assertRaisesRegex(ValueError, 'HOWTO_RECORDS'):
      self._make(plan_lib.Source('/none/x-*', macro='HOWTO_RECORDS'))

  def test_truncated_empty_and_corrupt_shards(self):
    pattern = self._write([pipeline_case.clip(i) for i in range(3)])
    (path,) = tf.io.gfile.glob(pattern)
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content[:-9])
    with self.assertRaisesRegex(
      ValueError, 'train-00000-of-00001.tfrecord is truncated'
    ):
      self._make(pattern)
    pathlib.Path(path).write_bytes(b'')
    with self.assertRaisesRegex(ValueError, 'are empty.*TRAIN_RECORDS'):
      self._make(pattern)
    middle = len(content) // 2
    changed = bytes([content[middle] ^ 255])
    pathlib.Path(path).write_bytes(
      content[:middle] + changed + content[middle + 1 :]
    )
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError,
      'train-00000-of-00001.tfrecord cannot be read beyond its record 1.*'
      'corrupt',
    ):
      list(self._make(pattern, 1, is_training=False))

  def test_a_shard_that_goes(self):
    pattern = self._write([pipeline_case.clip(i) for i in range(3)])
    batches = iter(self._make(pattern, 1))
    next(batches)
    (path,) = tf.io.gfile.glob(pattern)
    tf.io.gfile.remove(path)
    # The second, where it goes in the moment in which it is opened.
    with self.assertRaisesRegex(
      (tf.errors.NotFoundError, tf.errors.InvalidArgumentError),
      'train-00000-of-00001.tfrecord',
    ):
      for _ in range(100):
        next(batches)

  def test_a_shard_that_goes_before_its_turn(self):
    # Interleaving names shards ahead of the time at which it reads them.
    pattern = self._write([pipeline_case.clip(0)])
    (path,) = tf.io.gfile.glob(pattern)
    shard = pipeline_cache_test.read_shard(path, 1)
    self.assertLen(list(shard), 1)
    tf.io.gfile.remove(path)
    with self.assertRaises(tf.errors.NotFoundError):
      list(shard)

  def test_a_shard_that_goes_as_it_is_opened(self):
    def opened(*args, **kwargs):
      del args, kwargs
      return tf.data.Dataset.from_tensors(b'')

    with mock.patch.object(tf.data, 'FixedLengthRecordDataset', opened):
      shard = pipeline_cache_test.read_shard('/nowhere/train.tfrecord', 1000)
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError, 'train.tfrecord cannot be read beyond'
    ):
      list(shard)

  @parameterized.parameters(
    ({'batch_size': 0}, 'global_batch_size=0'),
    ({'start_step': -1}, 'start_step=-1'),
    ({'start_step': 3, 'is_training': False}, 'start_step=3'),
    ({'audio': None}, 'At least one of `video`'),
    ({'max_bad_record_share': 2.0}, 'max_bad_record_share=2.0'),
  )
  def test_arguments(self, arguments, message):
    pattern = self._write([pipeline_case.clip(0, num_frames=0, num_samples=10)])
    with self.assertRaisesRegex(ValueError, message):
      self._make(pattern, **arguments)

  def test_sources(self):
    with self.assertRaisesRegex(ValueError, 'at least one `Source`'):
      self._make([])
    with self.assertRaisesRegex(ValueError, 'weight=0'):
      plan_lib.Source('x', weight=0)
    with self.assertRaisesRegex(ValueError, 'frame_rate=-1'):
      plan_lib.Source('x', frame_rate=-1)
    with self.assertRaisesRegex(ValueError, r"video, audio, text.*\['smell'\]"):
      plan_lib.Source('x', modalities=['smell'])
    with self.assertRaisesRegex(ValueError, 'num_epochs=2'):
      self._make(['x', 'y'], num_epochs=2)


if __name__ == '__main__':
  tf.test.main()
