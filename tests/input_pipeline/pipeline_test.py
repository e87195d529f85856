"""Tests of `vatt_tf.input_pipeline.pipeline`."""

import gzip
import zlib

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests.input_pipeline import pipeline_case
from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import (
  audio_config,
  class_balance,
  crop_windows,
  fake_batches,
  frame_ops,
  text,
  video_config,
)
from vatt_tf.input_pipeline import bad_records as bad_records_lib
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline.records import schema, writing


class ContentTest(pipeline_case.Case):
  @parameterized.parameters(gzip.compress, zlib.compress)
  def test_compressed_shards_give_the_same_batches(self, compress):
    pattern = self._write([pipeline_case.clip(i) for i in range(6)], 2)
    balance = class_balance.ClassBalance()
    options = {
      'audio': pipeline_case.AUDIO,
      'label': pipeline_case.LABEL,
      'balance': balance,
    }
    expected = self._ids(self._make(pattern, **options), 6)
    self.assertLen(set(expected), 6)
    for path in self._folder.glob('train-*'):
      path.write_bytes(compress(path.read_bytes()))
    self.assertEqual(self._ids(self._make(pattern, **options), 6), expected)

  def test_evaluation_batch(self):
    clips = [pipeline_case.clip(i) for i in range(5)]
    dataset = self._make(
      self._write(clips, 2),
      4,
      is_training=False,
      video=pipeline_case.VIDEO,
      audio=pipeline_case.AUDIO,
      text=self._text,
      label=pipeline_case.LABEL,
    )
    spec = plan_lib.row_spec(
      pipeline_case.VIDEO, pipeline_case.AUDIO, self._text, pipeline_case.LABEL
    )
    for key, value in spec.items():
      self.assertEqual(
        dataset.element_spec[key], tf.TensorSpec([4, *value.shape], value.dtype)
      )
    first, last = dataset
    # Shards one after the other, records in order.
    self.assertEqual(
      pipeline_case.numbers(i.decode() for i in first['example_id'].numpy()),
      [0, 2, 4, 1],
    )
    self.assertAllEqual(first['valid'], [True] * 4)
    self.assertAllEqual(last['valid'], [True, False, False, False])
    self.assertAllEqual(last['video_mask'], last['valid'])
    self.assertAllEqual(last['video'][1:], tf.zeros([3, 3, 8, 8, 3]))
    self.assertAllEqual(first['label'], [0, 2, 4, 1])
    self.assertAllEqual(first['text_mask'], [[True, True, False]] * 4)
    self.assertAllEqual(first['text'][:, 2], tf.zeros([4, 4], tf.int32))
    # Record 4 is the third: its first three of six frames start at 0.15 s,
    # which moves back to the frame at 0.1 s; the sound starts there as well.
    self.assertAllClose(
      first['audio'][2, :, 0], clips[4].waveform[80:320], atol=1e-6
    )
    frames = tf.stack([tf.io.decode_jpeg(f) for f in clips[4].frames[1:4]])
    window = crop_windows.central_window(12, 16, pipeline_case.VIDEO).numpy()
    self.assertAllEqual(window, [1, 3, 10, 10])
    # The window is decoded alone: chroma at its edge differs a little.
    expected = frame_ops.resize(frames[:, 1:11, 3:13], (8, 8))
    self.assertAllClose(
      first['video'][2], frame_ops.scale_values(expected), atol=0.25
    )
    error = tf.abs(first['video'][2] - frame_ops.scale_values(expected))
    self.assertLess(tf.reduce_mean(error), 0.03)

  def test_masks_follow_what_a_record_holds(self):
    clips = [
      pipeline_case.clip(0),
      pipeline_case.clip(1, num_frames=0, num_samples=480),
      pipeline_case.clip(2, num_samples=0),
      pipeline_case.clip(3, num_captions=0),
      schema.Clip(example_id='fake-4'),
    ]
    (batch,) = self._make(
      self._write(clips),
      5,
      is_training=False,
      video=pipeline_case.VIDEO,
      audio=pipeline_case.AUDIO,
      text=self._text,
      label=pipeline_case.LABEL,
    )
    self.assertAllEqual(batch['video_mask'], [True, False, True, True, False])
    self.assertAllEqual(batch['audio_mask'], [True, True, False, True, False])
    self.assertAllEqual(
      batch['text_mask'][:, 0], [True, True, True, False, False]
    )
    self.assertAllEqual(batch['valid'], [True] * 5)
    self.assertAllEqual(batch['label'], [0, 1, 2, 3, -1])
    for row, key in ((1, 'video'), (2, 'audio'), (3, 'text')):
      self.assertAllEqual(batch[key][row], tf.zeros_like(batch[key][row]))
      self.assertNotAllEqual(batch[key][0], tf.zeros_like(batch[key][0]))

  def test_views(self):
    config = video_config.VideoConfig(
      num_frames=2, frame_size=8, num_clips=2, num_crops=3, scale=1.0
    )
    dataset = self._make(
      self._write(
        [pipeline_case.clip(0, width=28), pipeline_case.clip(1, width=28)]
      ),
      4,
      is_training=False,
      video=config,
      audio=audio_config.AudioConfig(num_samples=160, sample_rate=800),
      text=self._text,
    )
    batches = list(dataset)
    ids = [i.decode() for b in batches for i in b['example_id'].numpy()]
    self.assertEqual(pipeline_case.numbers(ids), [0] * 6 + [1] * 6)
    rows = tf.concat([b['video'] for b in batches], axis=0)[:6]
    sound = tf.concat([b['audio'] for b in batches], axis=0)[:6, :, 0]
    self.assertEqual(len({r.numpy().tobytes() for r in rows}), 6)
    waveform = pipeline_case.clip(0, width=28).waveform
    self.assertAllClose(sound[0], waveform[:160], atol=1e-6)
    self.assertAllClose(sound[5], waveform[-160:], atol=1e-6)
    # The captions are those nearest to each clip.
    texts = tf.concat([b['text'] for b in batches], axis=0)[:6, 0]
    self.assertNotAllEqual(texts[0], texts[3])

  def test_spectrogram_and_multi_label(self):
    clip = pipeline_case.clip(1)
    clip.label_indices, clip.label_names = [1, 7], ['b', 'h']
    config = audio_config.AudioConfig(
      num_samples=4000, sample_rate=16000, form=audio_config.SPECTROGRAM
    )
    label = plan_lib.LabelConfig(num_classes=9, is_multi_label=True)
    (batch,) = self._make(
      self._write([clip]), 1, is_training=False, audio=config, label=label
    )
    self.assertEqual(batch['spectrogram'].shape, [1, *config.shape])
    self.assertNotIn('audio', batch)
    self.assertNotIn('video', batch)
    expected = np.zeros([1, 9])
    expected[0, [1, 7]] = 1.0
    self.assertAllEqual(batch['label'], expected)

  def test_layouts_give_equal_batches(self):
    clip = pipeline_case.clip(0, num_frames=6)
    native = writing.make_sequence_example(clip)
    packed = tf.train.SequenceExample()
    lists = packed.feature_lists.feature_list
    lists['image/encoded'].feature.add().bytes_list.value.extend(clip.frames)
    lists['waveform/floats'].feature.add().float_list.value.extend(
      clip.waveform
    )
    texts = [caption.text.encode() for caption in clip.captions]
    packed.context.feature['caption/string'].bytes_list.value.extend(texts)
    plain = tf.train.Example()
    feature = plain.features.feature
    feature['image/encoded'].bytes_list.value.extend(clip.frames)
    feature['waveform/floats'].float_list.value.extend(clip.waveform)
    feature['caption/string'].bytes_list.value.extend(texts)
    pattern = self._write(
      [e.SerializeToString() for e in (native, packed, plain)]
    )
    source = plan_lib.Source(pattern, frame_rate=10.0, sample_rate=800.0)
    (batch,) = self._make(
      source,
      3,
      is_training=False,
      video=pipeline_case.VIDEO,
      audio=pipeline_case.AUDIO,
      text=self._text,
    )
    for key in ('video', 'audio', 'video_mask', 'audio_mask', 'text_mask'):
      self.assertAllEqual(batch[key][0], batch[key][1], msg=key)
      self.assertAllEqual(batch[key][0], batch[key][2], msg=key)
    self.assertAllEqual(
      np.sort(batch['text'][0], 0), np.sort(batch['text'][1], 0)
    )
    self.assertAllEqual(batch['video_mask'], [True] * 3)

  def test_encoded_sound(self):
    clip = pipeline_case.clip(0)
    example = writing.make_sequence_example(clip)
    del example.feature_lists.feature_list['WAVEFORM/feature/floats']
    sound = tf.audio.encode_wav(clip.waveform[:, None], 800).numpy()
    example.feature_lists.feature_list[
      'audio/encoded'
    ].feature.add().bytes_list.value.append(sound)
    bad = tf.train.SequenceExample.FromString(example.SerializeToString())
    bad.feature_lists.feature_list['audio/encoded'].feature[0].bytes_list.value[
      0
    ] = b'no sound'
    bad_records = bad_records_lib.BadRecords(1.0)
    (batch,) = self._make(
      self._write([example.SerializeToString(), bad.SerializeToString()]),
      2,
      is_training=False,
      bad_records=bad_records,
    )
    self.assertAllEqual(batch['audio_mask'], [True, False])
    # As with samples: the middle of 0.6 seconds.
    self.assertAllClose(
      batch['audio'][0, :, 0], clip.waveform[120:360], atol=1e-4
    )
    self.assertIn("starts with b'no s'", list(bad_records.reasons.values())[0])

  def test_mixup(self):
    config = audio_config.AudioConfig(
      num_samples=240, sample_rate=800, mixup_alpha=5.0
    )
    label = plan_lib.LabelConfig(num_classes=10, is_multi_label=True)
    clips = [pipeline_case.clip(i, num_samples=240) for i in range(4)]
    dataset = self._make(
      self._write(clips), 4, audio=config, label=label, num_epochs=1
    )
    (batch,) = dataset
    order = pipeline_case.numbers(
      i.decode() for i in batch['example_id'].numpy()
    )
    self.assertAllClose(tf.reduce_sum(batch['label'], 1), [1.0] * 4)
    for row, number in enumerate(order):
      other = order[row ^ 1]
      own = float(batch['label'][row, number])
      self.assertBetween(own, 0.5, 1.0)
      self.assertAllClose(
        batch['audio'][row, :, 0],
        own * clips[number].waveform + (1 - own) * clips[other].waveform,
        atol=1e-5,
      )
    self.assertNotIn('_seed', batch)
    with self.assertRaisesRegex(ValueError, 'is_multi_label'):
      self._make('x', audio=config, label=pipeline_case.LABEL)


class FakeTest(pipeline_case.Case):
  def test_fake_batch_has_the_form_of_a_real_one(self):
    label = plan_lib.LabelConfig(num_classes=4, is_multi_label=True)
    config = text.TextConfig(num_captions=2, max_words=3, vocabulary_size=9)
    parts = (pipeline_case.VIDEO, pipeline_case.AUDIO, config, label)
    batch = fake_batches.make_fake_batch(5, *parts)
    self.assertEqual(
      {key: tf.TensorSpec.from_tensor(value) for key, value in batch.items()},
      {
        key: tf.TensorSpec([5, *spec.shape], spec.dtype)
        for key, spec in plan_lib.row_spec(*parts).items()
      },
    )
    self.assertAllInRange(batch['video'], -1.0, 1.0)
    self.assertAllInRange(batch['text'], 1, 8)
    self.assertAllEqual(tf.reduce_sum(batch['label'], 1), [1.0] * 5)
    dataset = fake_batches.fake_dataset(5, *parts)
    again = next(iter(dataset))
    self.assertAllEqual(again['audio'], batch['audio'])


class GinTest(pipeline_case.Case):
  def setUp(self):
    super().setUp()
    gin.clear_config()
    self.addCleanup(gin.clear_config)

  def test_configured_by_gin(self):
    pattern = self._write([pipeline_case.clip(i) for i in range(4)], 2)
    gin.parse_config(f"""
      make_dataset.sources = [@train/Source()]
      train/Source.pattern = '{pattern}'
      make_dataset.is_training = True
      make_dataset.video = @VideoConfig()
      make_dataset.audio = @AudioConfig()
      make_dataset.text = @TextConfig()
      VideoConfig.num_frames = 3
      VideoConfig.frame_size = 8
      VideoConfig.area_range = (0.3, 1.0)
      AudioConfig.num_samples = 240
      AudioConfig.sample_rate = 800
      TextConfig.num_captions = 3
      TextConfig.vocabulary = '{self._text.vocabulary}'
    """)
    make_dataset = gin.get_configurable('make_dataset')
    dataset = make_dataset(global_batch_size=2)
    self.assertEqual(dataset.element_spec['video'].shape, [2, 3, 8, 8, 3])
    self.assertEqual(dataset.element_spec['text'].shape, [2, 3, 16])
    self.assertNotIn(names.EXAMPLE_ID, dataset.element_spec)
    batch = next(iter(dataset))
    self.assertAllInRange(batch['video'], -1.0, 1.0)


if __name__ == '__main__':
  tf.test.main()
