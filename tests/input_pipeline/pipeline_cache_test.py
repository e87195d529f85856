"""Tests of clips that are kept in memory."""

from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.input_pipeline import pipeline_case
from vatt_tf.input_pipeline import (
  audio_config,
  class_balance,
  clip_cache,
  order,
  video_config,
)
from vatt_tf.input_pipeline import bad_records as bad_records_lib
from vatt_tf.input_pipeline import plan as plan_lib


class CacheTest(pipeline_case.Case):
  def _clips(self):
    """Clips of which one has no sound, one no frames, and two are bad."""
    clips = [pipeline_case.clip(i, height=18, width=22) for i in range(7)]
    clips[1] = pipeline_case.clip(1, num_frames=0, num_samples=500)
    clips[2] = pipeline_case.clip(2, height=20, width=18, num_samples=0)
    clips[4] = pipeline_case.clip(4, num_captions=5)
    clips[5] = pipeline_case.clip(5, num_captions=0, sample_rate=600.0)
    frames = list(clips[3].frames)
    frames[1] = frames[1][: len(frames[1]) // 2]
    clips[3].frames = frames
    return [*clips, b'no record at all']

  def _expect_equal(self, found, expected):
    for batch, wanted in zip(found, expected, strict=True):
      self.assertEqual(batch.keys(), wanted.keys())
      for key in wanted:
        self.assertAllEqual(batch[key], wanted[key], msg=key)

  def _keep(self):
    """Records the caches that are made."""
    made = []
    make = clip_cache.ClipCache

    def make_and_keep(*arguments):
      made.append(make(*arguments))
      return made[-1]

    self.enter_context(
      mock.patch.object(clip_cache, 'ClipCache', make_and_keep)
    )
    return made

  @parameterized.named_parameters(
    ('waveform', {'frame_size': 8, 'scale_jitter': 0.4}, {'noise_std': 0.1}),
    (
      'spectrogram',
      {'frame_size': 3, 'area_range': (0.05, 1.0), 'short_clip': 'hold'},
      {
        'form': audio_config.SPECTROGRAM,
        'min_frequency': 0.0,
        'max_frequency': 400.0,
      },
    ),
  )
  def test_batches_do_not_depend_on_it(self, of_video, of_audio):
    clips = self._clips()
    sources = [
      plan_lib.Source(self._write(clips[:5], 2, 'a')),
      plan_lib.Source(self._write(clips[5:], 1, 'b'), weight=0.5),
    ]

    def make(**arguments):
      bad_records = bad_records_lib.BadRecords(1.0)
      dataset = self._make(
        sources,
        4,
        video=video_config.VideoConfig(num_frames=3, **of_video),
        audio=audio_config.AudioConfig(
          num_samples=240, sample_rate=800, **of_audio
        ),
        text=self._text,
        label=pipeline_case.LABEL,
        seed=3,
        shuffle_buffer_size=2,
        bad_records=bad_records,
        **arguments,
      )
      return dataset, bad_records

    dataset, bad_records = make()
    whole = list(dataset.take(12))
    self.assertLen(bad_records, 2)
    caches = self._keep()
    clip_gib = 6 * 18 * 22 * 3 / 2**30
    # The second begins in the middle of an epoch of both sources.
    for cache_gib, start, least, most in (
      (2.9 * clip_gib, 0, 2, 4),
      (0.1, 3, 8, 8),
    ):
      dataset, found_bad = make(cache_gib=cache_gib, start_step=start)
      self._expect_equal(dataset.take(12 - start), whole[start:])
      self.assertEqual(found_bad.reasons, bad_records.reasons)
      self.assertBetween(len(caches[-1]), least, most)
      self.assertBetween(caches[-1].gib, clip_gib, cache_gib)
    for key in ('video_mask', 'audio_mask'):
      masks = np.concatenate([b[key] for b in whole])
      self.assertBetween(masks.mean(), 0.4, 0.9)

  def test_mixup(self):
    pattern = self._write(self._clips())
    config = audio_config.AudioConfig(
      num_samples=240, sample_rate=800, mixup_alpha=0.4, max_gain_db=6.0
    )

    def make(cache_gib):
      return self._make(
        pattern,
        4,
        audio=config,
        label=plan_lib.LabelConfig(num_classes=10, is_multi_label=True),
        max_bad_record_share=1.0,
        cache_gib=cache_gib,
        num_epochs=2,
      )

    whole = list(make(0.0))
    self.assertLen(whole, 4)
    self._expect_equal(make(0.1), whole)

  @parameterized.parameters(1, 3)
  def test_input_pipelines(self, num_shards):
    clips = [
      pipeline_case.clip(i, num_frames=0, num_samples=400) for i in range(9)
    ]
    pattern = self._write(clips, num_shards)
    caches = self._keep()
    for number in range(2):
      context = tf.distribute.InputContext(2, number, 2)
      whole, kept = (
        self._make(
          pattern, 4, input_context=context, cache_gib=cache_gib, seed=2
        )
        for cache_gib in (0.0, 0.1)
      )
      self._expect_equal(kept.take(7), list(whole.take(7)))
    # Each pipeline keeps its own records.
    self.assertEqual(sum(len(cache) for cache in caches), 9)
    self.assertBetween(len(caches[0]), 3, 6)

  def test_balance(self):
    pattern = self._write(self._clips()[:7], 2)

    def make(cache_gib):
      return self._make(
        pattern,
        4,
        audio=audio_config.AudioConfig(
          num_samples=240, sample_rate=800, noise_std=0.1
        ),
        label=pipeline_case.LABEL,
        balance=class_balance.ClassBalance(),
        cache_gib=cache_gib,
      )

    self._expect_equal(make(0.1).take(6), list(make(0.0).take(6)))

  def test_records_are_read_once(self):
    pattern = self._write(self._clips(), 2)

    def make(cache_gib):
      return self._make(
        pattern,
        4,
        video=pipeline_case.VIDEO,
        text=self._text,
        cache_gib=cache_gib,
        max_bad_record_share=1.0,
      ).take(6)

    whole = list(make(0.0))
    # Whatever a command in this process has set absl's log to.
    with self.assertLogs('absl', level='INFO') as logs:
      kept = make(0.1)
    self.assertRegex('\n'.join(logs.output), 'All 8 decoded clips')
    for path in tf.io.gfile.glob(pattern):
      tf.io.gfile.remove(path)
    self._expect_equal(kept, whole)
    # A second run over the data set starts again, with the same clips.
    self._expect_equal(kept, whole)

  def test_too_large(self):
    clip = pipeline_case.clip(0, num_frames=0, num_samples=10000)
    pattern = self._write([clip] * 4)
    caches = self._keep()
    with self.assertLogs(level='WARNING') as logs:
      self._make(pattern, cache_gib=100000 / 2**30)
    self.assertRegex(
      logs.output[0],
      r'about 0.000149 GiB, more than `cache_gib`=9.31e-05: the first 2 of 4 '
      'are in memory',
    )
    self.assertBetween(caches[0].num_bytes, 80000, 81000)

  @parameterized.parameters(-1.0, 1e6)
  def test_limits(self, cache_gib):
    pattern = self._write([pipeline_case.clip(0)])
    with self.assertRaisesRegex(ValueError, 'memory of this machine'):
      self._make(pattern, video=pipeline_case.VIDEO, cache_gib=cache_gib)

  def test_evaluation(self):
    with self.assertRaisesRegex(ValueError, 'cache_gib.*evaluation.*=0.1'):
      self._make('x', is_training=False, cache_gib=0.1)


def read_shard(path, count):
  """The records of one shard, all of them for one pipeline."""
  zero = tf.constant(0, tf.int64)
  return order.read_shard(
    zero,
    zero,
    paths=[path],
    counts=[count],
    source=0,
    num_pipelines=1,
    pipeline=0,
  )


if __name__ == '__main__':
  tf.test.main()
