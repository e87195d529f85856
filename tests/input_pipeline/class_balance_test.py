"""Tests of class-balanced sampling."""

import collections
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.input_pipeline import audio_config, class_balance, pipeline
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline.records import schema, writing

_AUDIO = audio_config.AudioConfig(
  num_samples=40, sample_rate=100, noise_std=0.1
)
_LABEL = plan_lib.LabelConfig(num_classes=3)
# 12 records of class 0, 3 of class 1, 1 of class 2, 2 without a class.
_LABELS = [[0]] * 12 + [[1]] * 3 + [[2]] + [[]] * 2
_NUM_SHARDS = 3


def _clip(number, labels):
  return schema.Clip(
    example_id=str(number),
    waveform=np.sin(np.arange(60, dtype=np.float32) * (number + 1)),
    sample_rate=100.0,
    label_indices=list(labels),
  )


class LabelsTest(tf.test.TestCase):
  def test_damaged_records_have_no_labels(self):
    good = writing.serialize_clip(_clip(1, [2]))
    # The last begins with a length of more bytes than the record has.
    odd = [b'', b'\x07 no record', b'\x0a' + b'\xff' * 40]
    path = os.path.join(self.create_tempdir().full_path, 'a.tfrecord')
    with tf.io.TFRecordWriter(path) as writer:
      for record in (good, *odd, good):
        writer.write(record)
    self.assertEqual(class_balance.read_labels(path), [[2], [], [], [], [2]])


class WeightsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(0.5, 2.0, 100.0)
  def test_weights(self, max_repeats):
    labels = [[0], [0, 1], [1, 1], [0], [], [7], [2]]
    found = class_balance.record_weights(
      labels, 3, class_balance.ClassBalance(max_repeats)
    )
    counts = {0: 3, 1: 2, 2: 1}
    raw = [
      sum(1 / counts[c] for c in set(one) if c in counts) for one in labels
    ]
    expected = [min(w * 7 / sum(raw), max_repeats) for w in raw]
    self.assertAllClose(found, expected)

  def test_every_epoch_has_one_length(self):
    weights = np.array([0.0, 0.3, 2.5, 1.0, 0.0, 0.2, 4.1])
    length = class_balance.epoch_length(weights)
    self.assertEqual(length, 8)
    shares = weights / weights.sum() * length
    total = np.zeros(7)
    for epoch in range(400):
      counts = class_balance.count_repeats(weights, length, [epoch, 1]).numpy()
      self.assertEqual(counts.sum(), length)
      self.assertAllLessEqual(np.abs(counts - shares), 1.0)
      total += counts
    self.assertAllClose(total / 400, shares, atol=0.08)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, '`max_repeats`.*0'):
      class_balance.ClassBalance(0)
    with self.assertRaisesRegex(ValueError, r'none of the 2 .* \[0, 3\)'):
      class_balance.record_weights([[], [3]], 3, class_balance.ClassBalance())


class ReadingTest(tf.test.TestCase):
  def test_every_layout(self):
    path = os.path.join(self.get_temp_dir(), 'mixed.tfrecord')
    large = tf.train.Example()  # its frames stand beside the labels
    feature = large.features.feature
    feature['image/encoded'].bytes_list.value.append(b'x' * 50000)
    feature['clip/label/index'].int64_list.value.extend([4, 9])
    in_list = tf.train.SequenceExample()
    in_list.context.feature['example/id'].bytes_list.value.append(b'a')
    step = in_list.feature_lists.feature_list['clip/label/index'].feature.add()
    step.int64_list.value.append(7)
    written = [
      writing.serialize_clip(_clip(0, [2])),
      large.SerializeToString(),
      in_list.SerializeToString(),
      writing.serialize_clip(_clip(1, [])),
      writing.serialize_clip(_clip(2, [1, 0])),
    ]
    with tf.io.TFRecordWriter(path) as writer:
      for record in written:
        writer.write(record)
    self.assertEqual(
      [sorted(one) for one in class_balance.read_labels(path)],
      [[2], [4, 9], [7], [], [0, 1]],
    )


class SamplingTest(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.create_tempdir().full_path
    for shard in range(_NUM_SHARDS):
      path = writing.shard_path(folder, 'train', shard, _NUM_SHARDS)
      with writing.ShardWriter(path) as writer:
        for number in range(shard, len(_LABELS), _NUM_SHARDS):
          writer.write(_clip(number, _LABELS[number]))
    self.pattern = os.path.join(folder, 'train-*')

  def _make(self, batch_size=1, max_repeats=100.0, **arguments):
    return pipeline.make_dataset(
      self.pattern,
      batch_size,
      True,
      audio=_AUDIO,
      label=_LABEL,
      with_example_id=True,
      balance=class_balance.ClassBalance(max_repeats),
      **arguments,
    )

  def test_classes_come_equally_often(self):
    # The weights are 18 / 3 for a class: 0.5, 2 and 6 for its records.
    rows = list(self._make(num_epochs=2).as_numpy_iterator())
    self.assertLen(rows, 36)
    for epoch in (rows[:18], rows[18:]):
      labels = collections.Counter(int(row['label'][0]) for row in epoch)
      self.assertEqual(labels, {0: 6, 1: 6, 2: 6})
      ids = collections.Counter(row['example_id'][0] for row in epoch)
      self.assertEqual(ids[b'15'], 6)
      self.assertTrue(all(ids[b'%d' % i] == 2 for i in (12, 13, 14)))
      # One record's copies are other draws of the augmentation.
      sounds = {row['audio'].tobytes() for row in epoch if row['label'][0] == 2}
      self.assertLen(sounds, 6)

  def test_cut_weights_make_the_epoch_shorter(self):
    rows = list(self._make(num_epochs=1, max_repeats=2.5).as_numpy_iterator())
    self.assertLen(rows, round(6 + 6 + 2.5))

  @parameterized.parameters(1, 13, 40)
  def test_goes_on_at_any_step(self, step):
    def take(dataset, count):
      return [
        (row['example_id'].tolist(), row['audio'].tobytes())
        for row in dataset.take(count).as_numpy_iterator()
      ]

    whole = take(self._make(seed=3, batch_size=2), step + 4)
    self.assertEqual(
      take(self._make(seed=3, batch_size=2, start_step=step), 4), whole[step:]
    )

  @parameterized.parameters(2, 4)
  def test_pipelines_have_records_of_their_own(self, num_pipelines):
    seen = []
    for index in range(num_pipelines):
      context = tf.distribute.InputContext(num_pipelines, index, num_pipelines)
      dataset = self._make(num_pipelines, input_context=context, num_epochs=20)
      seen.append({row['example_id'][0] for row in dataset.as_numpy_iterator()})
    self.assertEqual(sum(map(len, seen)), len(set.union(*seen)))
    self.assertLen(set.union(*seen), 16)

  def test_errors(self):
    for arguments in ({'is_training': False, 'label': _LABEL}, {}):
      with self.assertRaisesRegex(ValueError, '`balance` needs'):
        pipeline.make_dataset(
          self.pattern,
          1,
          **{'is_training': True, **arguments},
          audio=_AUDIO,
          balance=class_balance.ClassBalance(),
        )


if __name__ == '__main__':
  tf.test.main()
