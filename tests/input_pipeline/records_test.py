"""Tests of `vatt_tf.input_pipeline.records`."""

import os
import pathlib

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.input_pipeline import records

_DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'records.md'


def _clip(**changes):
  clip = records.fake_clip(
    7, num_frames=4, height=16, width=24, sample_rate=800.0, num_captions=2
  )
  for name, value in changes.items():
    setattr(clip, name, value)
  return clip


def _bytes(*values):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(*values):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values):
  return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _dmvr(clip, packs_frames, is_example=False):
  """The clip as DMVR's scripts write it, or as a plain `Example`."""
  texts = [caption.text.encode() for caption in clip.captions]
  context = {
    'caption/string': _bytes(*texts),
    'label/index': _ints(*clip.label_indices),
    'label/text': _bytes(*(name.encode() for name in clip.label_names)),
  }
  if is_example:
    context['image/encoded'] = _bytes(*clip.frames)
    context['waveform/floats'] = _floats(clip.waveform)
    return tf.train.Example(
      features=tf.train.Features(feature=context)
    ).SerializeToString()
  example = tf.train.SequenceExample()
  for key, feature in context.items():
    example.context.feature[key].CopyFrom(feature)
  frames = example.feature_lists.feature_list['image/encoded'].feature
  if packs_frames:
    frames.append(_bytes(*clip.frames))
  else:
    frames.extend(_bytes(frame) for frame in clip.frames)
  example.feature_lists.feature_list['waveform/floats'].feature.append(
    _floats(clip.waveform)
  )
  return example.SerializeToString()


class RecordsTest(tf.test.TestCase, parameterized.TestCase):
  def test_round_trip(self):
    clip = _clip(data_path='a/é.mp4', start=2_000_000, end=2_400_000)
    read = records.read_clip(records.serialize_clip(clip))
    for field in clip.__dataclass_fields__:
      if field == 'waveform':
        np.testing.assert_array_equal(read.waveform, clip.waveform)
      else:
        self.assertEqual(
          getattr(read, field), getattr(clip, field), msg=field
        )
    self.assertAllClose(clip.duration, 0.4)

  def test_keys_and_layout_are_those_of_the_spec(self):
    clip = _clip()
    example = records.make_sequence_example(clip)
    written = set(example.context.feature) | set(
      example.feature_lists.feature_list
    )
    keys = {field.key for field in records.FEATURE_SPEC}
    self.assertEqual(written, keys - {'WAVEFORM/feature/bytes'})
    for field in records.FEATURE_SPEC:
      if field.placement == records.CONTEXT:
        self.assertNotIn(field.key, example.feature_lists.feature_list)
    lists = example.feature_lists.feature_list
    self.assertLen(lists['image/encoded'].feature, 4)
    self.assertLen(lists['WAVEFORM/feature/floats'].feature, 1)

  @parameterized.named_parameters(
    ('names', False, False),
    ('names_and_packed_frames', True, False),
    ('plain_example', True, True),
  )
  def test_dmvr_layouts_parse_to_the_same_tensors(self, packs, is_example):
    clip = _clip()
    serialized = _dmvr(clip, packs, is_example)
    parse = tf.function(records.parse_record)
    expected = parse(tf.constant(records.serialize_clip(clip)))
    parsed = parse(tf.constant(serialized))
    for name in (
      'image_encoded',
      'waveform',
      'caption_text',
      'label_index',
      'label_name',
    ):
      self.assertAllEqual(parsed[name], expected[name], msg=name)
      self.assertNotEmpty(parsed[name], msg=name)
    read = records.read_clip(serialized)
    self.assertEqual(read.frames, list(clip.frames))
    np.testing.assert_array_equal(read.waveform, clip.waveform)

  def test_parsed_in_a_data_set(self):
    clip = _clip()
    dataset = tf.data.Dataset.from_tensors(records.serialize_clip(clip))
    parsed = next(iter(dataset.map(records.parse_record)))
    self.assertAllEqual(parsed['image_timestamp'], clip.timestamps)
    self.assertAllEqual(
      parsed['caption_end'], [caption.end for caption in clip.captions]
    )
    self.assertAllEqual(parsed['example_id'], [clip.example_id])
    self.assertAllEqual(parsed['waveform_encoded'], [])

  def test_modalities_may_be_absent(self):
    parsed = records.parse_record(
      tf.constant(records.serialize_clip(records.Clip(example_id='x')))
    )
    for name, value in parsed.items():
      self.assertLen(value, int(name == 'example_id'), msg=name)

  def test_key_twice_is_read_once(self):
    example = records.make_sequence_example(_clip())
    example.context.feature['label/index'].CopyFrom(_ints(3))
    parsed = records.parse_record(tf.constant(example.SerializeToString()))
    self.assertAllEqual(parsed['label_index'], [7])

  def test_times_of_the_media_file_become_times_of_the_clip(self):
    clip = _clip(data_path='a.mp4', start=5_000_000, end=5_400_000)
    moved = _clip(
      data_path='a.mp4',
      start=5_000_000,
      end=5_400_000,
      timestamps=[time + 5_000_000 for time in clip.timestamps],
      captions=[
        records.Caption(c.text, c.start + 5_000_000, c.end + 5_000_000)
        for c in clip.captions
      ],
    )
    for one in (clip, moved):
      serialized = records.serialize_clip(one)
      parsed = records.parse_record(tf.constant(serialized))
      self.assertAllEqual(parsed['image_timestamp'], clip.timestamps)
      self.assertAllEqual(parsed['caption_start'], [0, 200_000])
      self.assertEqual(records.read_clip(serialized).captions, clip.captions)

  def test_channels_are_averaged(self):
    clip = _clip(waveform=np.float32([0.0, 1.0, 0.5, 0.5]))
    example = records.make_sequence_example(clip)
    channels = example.context.feature['WAVEFORM/feature/num_channels']
    channels.int64_list.value[:] = [2]
    read = records.read_clip(example.SerializeToString())
    self.assertAllClose(read.waveform, [0.5, 0.5])

  @parameterized.named_parameters(
    ('nan', np.float32([0.0, np.nan]), 'not finite'),
    ('infinite', np.float32([0.0, -np.inf]), 'not finite'),
    ('int32_bits', np.arange(50, dtype=np.int32).view(np.float32), 'denormal'),
  )
  def test_refuses_waveforms(self, waveform, message):
    with self.assertRaisesRegex(ValueError, f'fake-000007.*{message}'):
      records.serialize_clip(_clip(waveform=waveform))

  def test_takes_silence(self):
    self.assertEqual(records.waveform_fault(np.zeros([9], np.float32)), '')

  @parameterized.named_parameters(
    ('rate', {'frame_rate': 0.0}, '`frame_rate`.*frame_rate=0.0'),
    ('times', {'timestamps': [0]}, '1 timestamps for 4 frames'),
    ('stereo', {'waveform': np.zeros([5, 2], np.float32)}, r'\(5, 2\)'),
    ('sample_rate', {'sample_rate': 0.0}, '`sample_rate`'),
    ('labels', {'label_names': ['a', 'b']}, '2 names for 1 indices'),
  )
  def test_refuses_clips(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      records.serialize_clip(_clip(**changes))

  def test_unknown_name_lists_the_valid_ones(self):
    with self.assertRaisesRegex(ValueError, 'image_encoded.*Received: frames'):
      records.parse_record(tf.constant(b''), ['frames'])

  def test_docs_table_is_that_of_the_spec(self):
    rows = [
      tuple(cell.strip() for cell in line.strip('|\n').split('|'))
      for line in _DOCS.read_text(encoding='utf-8').splitlines()
      if line.startswith('| `')
    ]
    expected = [
      (
        f'`{field.key}`',
        field.placement,
        f'{field.dtype}, {field.count}',
        field.meaning,
        ', '.join(f'`{alias}`' for alias in field.aliases),
      )
      for field in records.FEATURE_SPEC
    ]
    self.assertEqual(rows, expected)


class ShardTest(tf.test.TestCase):
  def _write(self, name='a.tfrecord', count=3):
    path = os.path.join(self.get_temp_dir(), name)
    with records.ShardWriter(path) as writer:
      for _ in range(count):
        writer.write(_clip())
    return path

  def test_writes_and_counts(self):
    path = self._write()
    self.assertEqual(records.count_records(path), 3)
    self.assertLen(list(records.read_shard(path)), 3)

  def test_failed_write_leaves_the_previous_file(self):
    path = self._write('kept.tfrecord')
    with open(path, 'rb') as file:
      before = file.read()
    with self.assertRaisesRegex(KeyError, 'stop'):
      with records.ShardWriter(path) as writer:
        writer.write(_clip())
        raise KeyError('stop')
    with open(path, 'rb') as file:
      self.assertEqual(file.read(), before)
    folder = os.path.dirname(path)
    self.assertEqual([n for n in os.listdir(folder) if 'part' in n], [])

  def test_unfinished_shard_is_not_matched(self):
    folder = os.path.join(self.get_temp_dir(), 'open')
    path = records.shard_path(folder, 'train', 0, 2)
    self.assertEndsWith(path, '/open/train-00000-of-00002.tfrecord')
    writer = records.ShardWriter(path)
    writer.write(_clip())
    pattern = os.path.join(folder, '*')
    with self.assertRaisesRegex(ValueError, 'No file matches'):
      records.match_shards(pattern)
    writer.close()
    self.assertEqual(records.match_shards(pattern), [path])

  def test_truncated_shard_is_named(self):
    path = self._write('cut.tfrecord')
    with open(path, 'rb+') as file:
      file.truncate(os.path.getsize(path) - 5)
    with self.assertRaisesRegex(
      ValueError, r'cut\.tfrecord is truncated.*record 2.*vatt_tf\.ingest'
    ):
      records.count_records(path)
    with self.assertRaisesRegex(ValueError, r'cut\.tfrecord is truncated'):
      list(records.read_shard(path))

  def test_no_match_names_pattern_macro_and_command(self):
    with self.assertRaisesRegex(
      ValueError, r"'/none/\*'.*EVAL_RECORDS.*python -m vatt_tf\.ingest"
    ):
      records.match_shards('/none/*', 'EVAL_RECORDS')

  def test_shard_index_is_checked(self):
    with self.assertRaisesRegex(ValueError, 'index=2, num_shards=2'):
      records.shard_path('a', 'b', 2, 2)


if __name__ == '__main__':
  tf.test.main()
