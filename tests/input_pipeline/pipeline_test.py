"""Tests of `vatt_tf.input_pipeline.pipeline`."""

import gzip
import pathlib
from unittest import mock
import zlib

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests import fake_clips
from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import (
  audio_config,
  class_balance,
  clip_cache,
  crop_windows,
  fake_batches,
  frame_ops,
  order,
  pipeline,
  text,
  video_config,
)
from vatt_tf.input_pipeline import bad_records as bad_records_lib
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline.records import schema, writing

_WORDS = ['clip', 'says', *(f'word{i}' for i in range(8))]
_VIDEO = video_config.VideoConfig(num_frames=3, frame_size=8)
_AUDIO = audio_config.AudioConfig(num_samples=240, sample_rate=800)
_LABEL = plan_lib.LabelConfig(num_classes=10)


def _clip(number, **arguments):
  arguments = {
    'num_frames': 6,
    'height': 12,
    'width': 16,
    'sample_rate': 800.0,
    'num_captions': 2,
    **arguments,
  }
  return fake_clips.fake_clip(number, **arguments)


class _Case(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self._folder = pathlib.Path(self.get_temp_dir()) / self._testMethodName
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / 'words.txt'
    path.write_text('\n'.join(_WORDS), encoding='utf-8')
    self._text = text.TextConfig(
      num_captions=3, max_words=4, vocabulary=str(path)
    )

  def _write(self, clips, num_shards=1, name='train'):
    """Writes clips (or bytes) to shards in turn; returns their pattern."""
    for shard in range(num_shards):
      path = writing.shard_path(str(self._folder), name, shard, num_shards)
      with writing.ShardWriter(path) as writer:
        for clip in clips[shard::num_shards]:
          writer.write(clip)
    return str(self._folder / f'{name}-*')

  def _make(self, sources, batch_size=2, is_training=True, **arguments):
    if not {'video', 'audio', 'text'} & set(arguments):
      arguments['audio'] = _AUDIO
    arguments.setdefault('with_example_id', True)
    return pipeline.make_dataset(sources, batch_size, is_training, **arguments)

  def _ids(self, dataset, num_batches=None):
    if num_batches is not None:
      dataset = dataset.take(num_batches)
    return [i.decode() for b in dataset for i in b['example_id'].numpy()]


def _numbers(ids):
  return [int(i.rsplit('-', 1)[1]) for i in ids]


class ContentTest(_Case):
  @parameterized.parameters(gzip.compress, zlib.compress)
  def test_compressed_shards_give_the_same_batches(self, compress):
    pattern = self._write([_clip(i) for i in range(6)], 2)
    balance = class_balance.ClassBalance()
    options = {'audio': _AUDIO, 'label': _LABEL, 'balance': balance}
    expected = self._ids(self._make(pattern, **options), 6)
    self.assertLen(set(expected), 6)
    for path in self._folder.glob('train-*'):
      path.write_bytes(compress(path.read_bytes()))
    self.assertEqual(self._ids(self._make(pattern, **options), 6), expected)

  def test_evaluation_batch(self):
    clips = [_clip(i) for i in range(5)]
    dataset = self._make(
      self._write(clips, 2),
      4,
      is_training=False,
      video=_VIDEO,
      audio=_AUDIO,
      text=self._text,
      label=_LABEL,
    )
    spec = plan_lib.row_spec(_VIDEO, _AUDIO, self._text, _LABEL)
    for key, value in spec.items():
      self.assertEqual(
        dataset.element_spec[key], tf.TensorSpec([4, *value.shape], value.dtype)
      )
    first, last = dataset
    # Shards one after the other, records in order.
    self.assertEqual(
      _numbers(i.decode() for i in first['example_id'].numpy()), [0, 2, 4, 1]
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
    window = crop_windows.central_window(12, 16, _VIDEO).numpy()
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
      _clip(0),
      _clip(1, num_frames=0, num_samples=480),
      _clip(2, num_samples=0),
      _clip(3, num_captions=0),
      schema.Clip(example_id='fake-4'),
    ]
    (batch,) = self._make(
      self._write(clips),
      5,
      is_training=False,
      video=_VIDEO,
      audio=_AUDIO,
      text=self._text,
      label=_LABEL,
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
      self._write([_clip(0, width=28), _clip(1, width=28)]),
      4,
      is_training=False,
      video=config,
      audio=audio_config.AudioConfig(num_samples=160, sample_rate=800),
      text=self._text,
    )
    batches = list(dataset)
    ids = [i.decode() for b in batches for i in b['example_id'].numpy()]
    self.assertEqual(_numbers(ids), [0] * 6 + [1] * 6)
    rows = tf.concat([b['video'] for b in batches], axis=0)[:6]
    sound = tf.concat([b['audio'] for b in batches], axis=0)[:6, :, 0]
    self.assertEqual(len({r.numpy().tobytes() for r in rows}), 6)
    waveform = _clip(0, width=28).waveform
    self.assertAllClose(sound[0], waveform[:160], atol=1e-6)
    self.assertAllClose(sound[5], waveform[-160:], atol=1e-6)
    # The captions are those nearest to each clip.
    texts = tf.concat([b['text'] for b in batches], axis=0)[:6, 0]
    self.assertNotAllEqual(texts[0], texts[3])

  def test_spectrogram_and_multi_label(self):
    clip = _clip(1)
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
    clip = _clip(0, num_frames=6)
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
      video=_VIDEO,
      audio=_AUDIO,
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
    clip = _clip(0)
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
    clips = [_clip(i, num_samples=240) for i in range(4)]
    dataset = self._make(
      self._write(clips), 4, audio=config, label=label, num_epochs=1
    )
    (batch,) = dataset
    order = _numbers(i.decode() for i in batch['example_id'].numpy())
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
      self._make('x', audio=config, label=_LABEL)


class PositionTest(_Case):
  def test_training_goes_on_where_it_was(self):
    pattern = self._write([_clip(i) for i in range(11)], 3)

    def make(start_step):
      return self._make(
        pattern,
        4,
        video=_VIDEO,
        audio=audio_config.AudioConfig(
          num_samples=240, sample_rate=800, noise_std=0.1
        ),
        text=self._text,
        seed=5,
        shuffle_buffer_size=4,
        start_step=start_step,
      )

    whole = list(make(0).take(12))
    for start in (7,):
      for expected, batch in zip(whole[start:], make(start)):
        for key in expected:
          self.assertAllEqual(batch[key], expected[key], msg=key)
    # Every epoch holds every record once, in an order of its own.
    ids = _numbers(i.decode() for b in whole for i in b['example_id'].numpy())
    epochs = [ids[i : i + 11] for i in (0, 11, 22, 33)]
    for epoch in epochs:
      self.assertEqual(sorted(epoch), list(range(11)))
    self.assertLen({tuple(epoch) for epoch in epochs}, 4)

  def test_seeds(self):
    pattern = self._write([_clip(i) for i in range(12)], 2)
    orders = [
      tuple(self._ids(self._make(pattern, 4, seed=seed), 3))
      for seed in (1, 2, 1)
    ]
    self.assertEqual(orders[0], orders[2])
    self.assertNotEqual(orders[0], orders[1])

  def test_mixture(self):
    sources = [
      plan_lib.Source(
        self._write([_clip(i) for i in range(5)], 1, 'a'), weight=3.0
      ),
      plan_lib.Source(
        self._write([_clip(i) for i in range(100, 107)], 2, 'b'),
        modalities=['video'],
      ),
    ]
    whole = self._make(sources, 4, seed=3).take(60)
    batches = list(whole)
    ids = _numbers(i.decode() for b in batches for i in b['example_id'].numpy())
    self.assertBetween(np.mean(np.array(ids) < 100), 0.65, 0.85)
    # A source keeps its epochs: no record comes again before all others came.
    first = [i for i in ids if i < 100]
    self.assertEqual(sorted(first[5:10]), [0, 1, 2, 3, 4])
    # The sound of the second source is not read.
    masks = np.concatenate([b['audio_mask'] for b in batches])
    self.assertAllEqual(masks, np.array(ids) < 100)
    rest = self._make(sources, 4, seed=3, start_step=37).take(23)
    for expected, batch in zip(batches[37:], rest):
      for key in expected:
        self.assertAllEqual(batch[key], expected[key], msg=key)

  def test_counted_draws_are_the_draws(self):
    seed = order.seed_of(1, 'x')
    weights = [1.0, 2.0, 5.0]
    draws = tf.concat(
      [order.draw_sources(c, weights, seed) for c in range(3)], axis=0
    ).numpy()
    for position in (0, 10, 16384, 40000):
      self.assertAllEqual(
        order.count_draws(position, weights, seed),
        np.bincount(draws[:position], minlength=3),
      )
    share = np.bincount(draws) / draws.size
    self.assertAllClose(share, np.array(weights) / 8.0, atol=0.02)

  @parameterized.parameters((4, True), (1, False))
  def test_input_pipelines(self, num_shards, gets_files):
    pattern = self._write([_clip(i) for i in range(10)], num_shards)

    def make(number, is_training):
      context = tf.distribute.InputContext(
        num_input_pipelines=2,
        input_pipeline_id=number,
        num_replicas_in_sync=4,
      )
      return self._make(
        pattern,
        8,
        is_training,
        input_context=context,
        num_epochs=1 if is_training else None,
      )

    seen = []
    for number in range(2):
      batches = list(make(number, False))
      # Rows of one replica: 8 / 4. All pipelines give equally many batches.
      self.assertEqual(batches[0]['valid'].shape, [2])
      self.assertLen(batches, 3)
      valid = np.concatenate([b['valid'] for b in batches])
      ids = np.concatenate([b['example_id'] for b in batches])
      seen.append({i.decode() for i in ids[valid]})
      self.assertLen(seen[-1], valid.sum())
      trained = self._ids(make(number, True))
      self.assertLessEqual(set(trained), seen[-1])
    self.assertEmpty(seen[0] & seen[1])
    self.assertLen(seen[0] | seen[1], 10)
    if gets_files:  # Shard s holds the records s, s + 4, …
      self.assertEqual({n % 2 for n in _numbers(seen[0])}, {0})

  def test_a_row_is_the_same_in_any_pipeline(self):
    pattern = self._write([_clip(i) for i in range(4)], 2)
    config = audio_config.AudioConfig(
      num_samples=240, sample_rate=800, noise_std=0.2
    )
    arguments = {'audio': config, 'num_epochs': 1, 'seed': 9}
    rows = {}
    for batch in self._make(pattern, 1, **arguments):
      rows[batch['example_id'][0].numpy()] = batch['audio'][0]
    for number in range(2):
      context = tf.distribute.InputContext(2, number, 2)
      batches = self._make(pattern, 2, input_context=context, **arguments)
      for batch in batches:
        name = batch['example_id'][0].numpy()
        self.assertAllEqual(batch['audio'][0], rows.pop(name))
    self.assertEmpty(rows)


class CacheTest(_Case):
  def _clips(self):
    """Clips of which one has no sound, one no frames, and two are bad."""
    clips = [_clip(i, height=18, width=22) for i in range(7)]
    clips[1] = _clip(1, num_frames=0, num_samples=500)
    clips[2] = _clip(2, height=20, width=18, num_samples=0)
    clips[4] = _clip(4, num_captions=5)
    clips[5] = _clip(5, num_captions=0, sample_rate=600.0)
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
        label=_LABEL,
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
    clips = [_clip(i, num_frames=0, num_samples=400) for i in range(9)]
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
        label=_LABEL,
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
        video=_VIDEO,
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
    clip = _clip(0, num_frames=0, num_samples=10000)
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
    pattern = self._write([_clip(0)])
    with self.assertRaisesRegex(ValueError, 'memory of this machine'):
      self._make(pattern, video=_VIDEO, cache_gib=cache_gib)

  def test_evaluation(self):
    with self.assertRaisesRegex(ValueError, 'cache_gib.*evaluation.*=0.1'):
      self._make('x', is_training=False, cache_gib=0.1)


def _read_shard(path, count):
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


class BadInputTest(_Case):
  def _clips_with_bad_ones(self):
    clips = [_clip(i) for i in range(8)]
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
      audio=_AUDIO,
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
    clip = _clip(0)
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
      video=_VIDEO,
      audio=_AUDIO,
      bad_records=bad_records,
    )
    self.assertAllEqual(batch['video_mask'], [False])
    self.assertAllEqual(batch['audio_mask'], [False])
    (reason,) = bad_records.reasons.values()
    self.assertRegex(reason, 'Source.sample_rate.*Source.frame_rate')

  def test_unknown_label_is_named(self):
    bad_records = bad_records_lib.BadRecords(1.0)
    (batch,) = self._make(
      self._write([_clip(7), _clip(1)]),
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
    pattern = self._write([_clip(i) for i in range(3)])
    (path,) = tf.io.gfile.glob(pattern)
    content = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(content[:-9])
    with self.assertRaisesRegex(
      ValueError, 'train-00000-of-00001.tfrecord is truncated'
    ):
      self._make(pattern)
    pathlib.Path(path).write_bytes(b'')
    with self.assertRaisesRegex(ValueError, 'hold no record.*TRAIN_RECORDS'):
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
    pattern = self._write([_clip(i) for i in range(3)])
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
    pattern = self._write([_clip(0)])
    (path,) = tf.io.gfile.glob(pattern)
    shard = _read_shard(path, 1)
    self.assertLen(list(shard), 1)
    tf.io.gfile.remove(path)
    with self.assertRaises(tf.errors.NotFoundError):
      list(shard)

  def test_a_shard_that_goes_as_it_is_opened(self):
    def opened(*args, **kwargs):
      del args, kwargs
      return tf.data.Dataset.from_tensors(b'')

    with mock.patch.object(tf.data, 'FixedLengthRecordDataset', opened):
      shard = _read_shard('/nowhere/train.tfrecord', 1000)
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
    pattern = self._write([_clip(0, num_frames=0, num_samples=10)])
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


class FakeTest(_Case):
  def test_fake_batch_has_the_form_of_a_real_one(self):
    label = plan_lib.LabelConfig(num_classes=4, is_multi_label=True)
    config = text.TextConfig(num_captions=2, max_words=3, vocabulary_size=9)
    parts = (_VIDEO, _AUDIO, config, label)
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


class GinTest(_Case):
  def setUp(self):
    super().setUp()
    gin.clear_config()
    self.addCleanup(gin.clear_config)

  def test_configured_by_gin(self):
    pattern = self._write([_clip(i) for i in range(4)], 2)
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
