"""Tests of `vatt_tf.input_pipeline.records`."""

import bz2
import gzip
import io
import json
import lzma
import os
import pathlib
import tarfile
import zlib

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import fake_clips, odd_names
from vatt_tf.input_pipeline.records import reading, schema, shard_files, writing

_DOCS = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'records.md'


def _clip(**changes):
  clip = fake_clips.fake_clip(
    7, num_frames=4, height=16, width=24, sample_rate=800.0, num_captions=2
  )
  box = schema.Region(0.25, 0.5, 0.75, 1.0, 'é', is_sounding=True)
  other = schema.Region(0.0, 0.125, 0.5, 0.25)
  clip.regions = [[box], [], [other, box], [box]]
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
    read = reading.read_clip(writing.serialize_clip(clip))
    for field in clip.__dataclass_fields__:
      if field == 'waveform':
        np.testing.assert_array_equal(read.waveform, clip.waveform)
      else:
        self.assertEqual(getattr(read, field), getattr(clip, field), msg=field)
    self.assertAllClose(clip.duration, 0.4)

  def test_keys_and_layout_are_those_of_the_spec(self):
    clip = _clip()
    example = writing.make_sequence_example(clip)
    written = set(example.context.feature) | set(
      example.feature_lists.feature_list
    )
    keys = {field.key for field in schema.FEATURE_SPEC}
    self.assertEqual(written, keys - {'WAVEFORM/feature/bytes'})
    for field in schema.FEATURE_SPEC:
      if field.placement == schema.CONTEXT:
        self.assertNotIn(field.key, example.feature_lists.feature_list)
    lists = example.feature_lists.feature_list
    self.assertLen(lists['image/encoded'].feature, 4)
    self.assertLen(lists['WAVEFORM/feature/floats'].feature, 1)
    self.assertLen(lists['region/bbox/xmin'].feature, 4)
    self.assertAllEqual(
      [
        feature.int64_list.value
        for feature in lists['region/is_sounding'].feature
      ],
      [[1], [], [-1, 1], [1]],
    )

  @parameterized.named_parameters(
    ('names', False, False),
    ('names_and_packed_frames', True, False),
    ('plain_example', True, True),
  )
  def test_dmvr_layouts_parse_to_the_same_tensors(self, packs, is_example):
    clip = _clip()
    serialized = _dmvr(clip, packs, is_example)
    parse = tf.function(reading.parse_record, autograph=False)
    expected = parse(tf.constant(writing.serialize_clip(clip)))
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
    read = reading.read_clip(serialized)
    self.assertEqual(read.frames, list(clip.frames))
    np.testing.assert_array_equal(read.waveform, clip.waveform)

  def test_parsed_in_a_data_set(self):
    clip = _clip()
    dataset = tf.data.Dataset.from_tensors(writing.serialize_clip(clip))
    parsed = next(iter(dataset.map(reading.parse_record)))
    self.assertAllEqual(parsed['image_timestamp'], clip.timestamps)
    self.assertAllEqual(
      parsed['caption_end'], [caption.end for caption in clip.captions]
    )
    self.assertAllEqual(parsed['example_id'], [clip.example_id])
    self.assertAllEqual(parsed['waveform_encoded'], [])

  def test_modalities_may_be_absent(self):
    parsed = reading.parse_record(
      tf.constant(writing.serialize_clip(schema.Clip(example_id='x')))
    )
    for name, value in parsed.items():
      self.assertLen(value, int(name == 'example_id'), msg=name)

  def test_key_twice_is_read_once(self):
    example = writing.make_sequence_example(_clip())
    example.context.feature['label/index'].CopyFrom(_ints(3))
    parsed = reading.parse_record(tf.constant(example.SerializeToString()))
    self.assertAllEqual(parsed['label_index'], [7])

  def test_times_of_the_media_file_become_times_of_the_clip(self):
    clip = _clip(data_path='a.mp4', start=5_000_000, end=5_400_000)
    moved = _clip(
      data_path='a.mp4',
      start=5_000_000,
      end=5_400_000,
      timestamps=[time + 5_000_000 for time in clip.timestamps],
      captions=[
        schema.Caption(c.text, c.start + 5_000_000, c.end + 5_000_000)
        for c in clip.captions
      ],
    )
    for one in (clip, moved):
      serialized = writing.serialize_clip(one)
      parsed = reading.parse_record(tf.constant(serialized))
      self.assertAllEqual(parsed['image_timestamp'], clip.timestamps)
      self.assertAllEqual(parsed['caption_start'], [0, 200_000])
      self.assertEqual(reading.read_clip(serialized).captions, clip.captions)

  def test_channels_are_averaged(self):
    clip = _clip(waveform=np.float32([0.0, 1.0, 0.5, 0.5]))
    example = writing.make_sequence_example(clip)
    channels = example.context.feature['WAVEFORM/feature/num_channels']
    channels.int64_list.value[:] = [2]
    read = reading.read_clip(example.SerializeToString())
    self.assertAllClose(read.waveform, [0.5, 0.5])

  @parameterized.named_parameters(
    ('nan', np.float32([0.0, np.nan]), 'not finite'),
    ('infinite', np.float32([0.0, -np.inf]), 'not finite'),
    ('int32_bits', np.arange(50, dtype=np.int32).view(np.float32), 'denormal'),
  )
  def test_refuses_waveforms(self, waveform, message):
    with self.assertRaisesRegex(ValueError, f'fake-000007.*{message}'):
      writing.serialize_clip(_clip(waveform=waveform))

  def test_takes_silence(self):
    self.assertEqual(schema.waveform_fault(np.zeros([9], np.float32)), '')

  @parameterized.named_parameters(
    ('rate', {'frame_rate': 0.0}, '`frame_rate`.*frame_rate=0.0'),
    ('times', {'timestamps': [0]}, '1 timestamps for 4 frames'),
    ('stereo', {'waveform': np.zeros([5, 2], np.float32)}, r'\(5, 2\)'),
    ('sample_rate', {'sample_rate': 0.0}, '`sample_rate`'),
    ('labels', {'label_names': ['a', 'b']}, '2 names for 1 indices'),
  )
  def test_refuses_clips(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      writing.serialize_clip(_clip(**changes))

  def test_unknown_name_lists_the_valid_ones(self):
    with self.assertRaisesRegex(ValueError, 'image_encoded.*Received: frames'):
      reading.parse_record(tf.constant(b''), ['frames'])

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
      for field in schema.FEATURE_SPEC
    ]
    self.assertEqual(rows, expected)


class ShardTest(tf.test.TestCase):
  def _write(self, name='a.tfrecord', count=3):
    path = os.path.join(self.get_temp_dir(), name)
    with writing.ShardWriter(path) as writer:
      for _ in range(count):
        writer.write(_clip())
    return path

  def test_writes_and_counts(self):
    path = self._write()
    self.assertEqual(shard_files.count_records(path), 3)
    self.assertLen(list(reading.read_shard(path)), 3)

  def test_failed_write_leaves_the_previous_file(self):
    path = self._write('kept.tfrecord')
    with open(path, 'rb') as file:
      before = file.read()
    with self.assertRaisesRegex(KeyError, 'stop'):
      with writing.ShardWriter(path) as writer:
        writer.write(_clip())
        raise KeyError('stop')
    with open(path, 'rb') as file:
      self.assertEqual(file.read(), before)
    folder = os.path.dirname(path)
    self.assertEqual([n for n in os.listdir(folder) if 'part' in n], [])

  def test_unfinished_shard_is_not_matched(self):
    folder = os.path.join(self.get_temp_dir(), 'open')
    path = writing.shard_path(folder, 'train', 0, 2)
    self.assertEndsWith(path, '/open/train-00000-of-00002.tfrecord')
    writer = writing.ShardWriter(path)
    writer.write(_clip())
    pattern = os.path.join(folder, '*')
    with self.assertRaisesRegex(ValueError, 'No file matches'):
      shard_files.match_shards(pattern)
    writer.close()
    self.assertEqual(shard_files.match_shards(pattern), [path])

  def test_truncated_shard_is_named(self):
    path = self._write('cut.tfrecord')
    with open(path, 'rb+') as file:
      file.truncate(os.path.getsize(path) - 5)
    with self.assertRaisesRegex(
      ValueError, r'cut\.tfrecord is truncated.*record 2.*vatt_tf\.ingest'
    ):
      shard_files.count_records(path)
    with self.assertRaisesRegex(ValueError, r'cut\.tfrecord is truncated'):
      list(reading.read_shard(path))

  def test_record_that_is_none_is_named(self):
    path = self._write('odd.tfrecord')
    num_good = shard_files.count_records(path)
    with tf.io.TFRecordWriter(f'{path}.part') as writer:
      for record in shard_files.open_shard(path).as_numpy_iterator():
        writer.write(record)
      writer.write(b'\x07 no record')
    os.rename(f'{path}.part', path)
    clips = reading.read_shard(path)
    for _ in range(num_good):
      next(clips)
    with self.assertRaisesRegex(
      ValueError,
      rf'Record {num_good} of the shard .*odd\.tfrecord is damaged: its 11 '
      'bytes are not a tf.train.SequenceExample',
    ):
      next(clips)

  def test_more_channels_than_samples_are_no_sound(self):
    for channels in (10**6, 2**63 - 1):
      example = writing.make_sequence_example(_clip())
      number = example.context.feature['WAVEFORM/feature/num_channels']
      number.int64_list.value[:] = [channels]
      clip = reading.read_clip(example.SerializeToString())
      self.assertIsNone(clip.waveform)
      self.assertLen(clip.frames, 4)

  def test_key_in_both_places_is_read_as_in_the_graph(self):
    example = writing.make_sequence_example(_clip())
    step = example.feature_lists.feature_list['segment/label/string']
    step.feature.add().bytes_list.value.append(b'of the list')
    record = example.SerializeToString()
    self.assertEqual(
      reading.read_values(record)['caption_text'], [b'of the list']
    )
    parsed = reading.parse_record(tf.constant(record), ['caption_text'])
    self.assertAllEqual(parsed['caption_text'], [b'of the list'])

  def test_no_match_names_pattern_macro_and_command(self):
    with self.assertRaisesRegex(
      ValueError, r"'/none/\*'.*EVAL_RECORDS.*python -m vatt_tf\.ingest"
    ):
      shard_files.match_shards('/none/*', 'EVAL_RECORDS')

  def test_shard_index_is_checked(self):
    with self.assertRaisesRegex(ValueError, 'index=2, num_shards=2'):
      writing.shard_path('a', 'b', 2, 2)


class MatchTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = pathlib.Path(self.create_tempdir().full_path)

  def _touch(self, *names):
    for name in names:
      path = self.dir / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(b'')

  def _match(self, pattern):
    paths = shard_files.match_shards(pattern)
    return [str(pathlib.Path(path).relative_to(self.dir)) for path in paths]

  @parameterized.parameters(*odd_names.NAMES)
  def test_folder_is_no_pattern(self, name):
    files = [f'{name}/train-0.tfrecord', f'{name}/train-1.tfrecord']
    # Of these the name is a pattern, or a part.
    self._touch(*files, 'data v/train-0.tfrecord', 'axb/train-0.tfrecord')
    self._touch('b/train-0.tfrecord', 'whatx/train-0.tfrecord')
    folder = self.dir / name
    self.assertEqual(self._match(f'{folder}/train-*.tfrecord'), files)
    self.assertEqual(self._match(f'{folder}/train-[1].tfrecord'), files[1:])
    self.assertEqual(self._match(f'{folder}/train-0.tfrecord'), files[:1])
    self.assertEqual(self._match([f'{folder}/train-*']), files)
    both = f'{folder}/train-0*,{folder}/train-1*'
    self.assertEqual(self._match(both), files)
    self._touch('other/x-0')
    self.assertEqual(
      self._match(f'{self.dir}/other/x-*, {folder}/train-1*'),
      sorted([files[1], 'other/x-0']),
    )

  @parameterized.parameters(*odd_names.NAMES)
  def test_file_is_no_pattern(self, name):
    self._touch(name, 'data v', 'b', 'axb', 'whatx', 'x', 'with')
    self.assertEqual(self._match(str(self.dir / name)), [name])

  def test_pattern_stays_a_pattern(self):
    self._touch('run1/a-0', 'run2/a-0', 'run3/a-0', 'a-0/not', 'run1/b')
    self.assertEqual(
      self._match(f'{self.dir}/run[12]/a-?'), ['run1/a-0', 'run2/a-0']
    )
    self.assertEqual(
      self._match(f'{self.dir}/*/a-*,{self.dir}/run1/b'),
      ['run1/a-0', 'run1/b', 'run2/a-0', 'run3/a-0'],
    )
    with self.assertRaisesRegex(ValueError, 'No file matches.*run9'):
      self._match(f'{self.dir}/run1/b,{self.dir}/run9/*')

  def test_folder_with_brackets_behind_a_pattern(self):
    self._touch('a/[v2]/x-0', 'b/[v2]/x-0', 'a/v/x-0')
    self.assertEqual(
      self._match(f'{self.dir}/*/[v2]/x-*'), ['a/[v2]/x-0', 'b/[v2]/x-0']
    )

  def test_relative_and_home(self):
    self._touch('x [1]/a-0')
    os.environ['HOME'], home = str(self.dir), os.environ.get('HOME', '')
    before = os.getcwd()
    os.chdir(self.dir)
    try:
      self.assertEqual(shard_files.match_shards('x [1]/a-*'), ['x [1]/a-0'])
      self.assertEqual(shard_files.match_shards('*/a-*'), ['x [1]/a-0'])
      self.assertEqual(self._match('~/x [1]/a-*'), ['x [1]/a-0'])
      self.assertEqual(self._match('~/x [1]/a-0,~/x [1]/a-*'), ['x [1]/a-0'])
    finally:
      os.chdir(before)
      os.environ['HOME'] = home

  @parameterized.parameters(None, 3, True, b'x', ({'a': 1},), ([3],), ([None],))
  def test_what_is_no_pattern(self, pattern):
    with self.assertRaisesRegex(ValueError, 'X_RECORDS must be a pattern'):
      shard_files.match_shards(pattern, 'X_RECORDS')

  def test_file_system_that_is_not_there(self):
    for path in ('nothing://bucket/a-*', 'nothing://bucket/a'):
      with self.assertRaisesRegex(OSError, 'nothing://bucket.*implemented'):
        shard_files.match_shards(path)


def _tar(content):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as archive:
    entry = tarfile.TarInfo('a.tfrecord')
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
  return file.getvalue()


class CompressedShardTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = pathlib.Path(self.create_tempdir().full_path)
    path = self.dir / 'a.tfrecord'
    with writing.ShardWriter(str(path)) as writer:
      for number in range(3):
        writer.write(_clip(example_id=str(number)))
    self.content = path.read_bytes()

  def _write(self, content, name='b.tfrecord'):
    path = self.dir / name
    path.write_bytes(content)
    return str(path)

  @parameterized.named_parameters(
    ('gzip', gzip.compress),
    ('gzip_without_time', lambda x: gzip.compress(x, mtime=0)),
    (
      'gzip_of_two_members',
      lambda x: gzip.compress(x[:99]) + gzip.compress(x[99:]),
    ),
    ('zlib', zlib.compress),
    ('zlib_fast', lambda x: zlib.compress(x, 1)),
    ('none', bytes),
  )
  def test_is_read_whatever_its_name(self, compress):
    for name in ('b.tfrecord', 'b.tfrecord.gz', 'b'):
      path = self._write(compress(self.content), name)
      self.assertEqual(shard_files.count_records(path), 3)
      self.assertEqual(
        [clip.example_id for clip in reading.read_shard(path)], ['0', '1', '2']
      )

  @parameterized.parameters('GZIP', 'ZLIB')
  def test_as_tensorflow_writes_it(self, compression):
    path = str(self.dir / 'c')
    options = tf.io.TFRecordOptions(compression)
    with tf.io.TFRecordWriter(path, options) as writer:
      for _ in range(2):
        writer.write(writing.serialize_clip(_clip()))
    self.assertEqual(shard_files.find_compression(path), compression)
    self.assertEqual(shard_files.count_records(path), 2)
    with tf.io.TFRecordWriter(path, options):
      pass
    self.assertEqual(shard_files.count_records(path), 0)

  @parameterized.parameters(0x088B1F, 0x9C78, 0x0178, 0x5E78, 0x685A42)
  def test_length_that_looks_like_a_compression(self, length):
    path = str(self.dir / 'c')
    with tf.io.TFRecordWriter(path) as writer:
      writer.write(bytes(length))
    self.assertEqual(shard_files.find_compression(path), '')
    self.assertEqual(shard_files.count_records(path), 1)

  @parameterized.named_parameters(
    ('zstd', b'\x28\xb5\x2f\xfd' + bytes(99), 'zstd.*unzstd'),
    ('bzip2', bz2.compress(b'x'), 'bzip2.*bunzip2'),
    ('xz', lzma.compress(b'x'), 'xz.*unxz'),
    ('zip', b'PK\x03\x04' + bytes(99), 'zip archive.*unzip'),
    ('tar', _tar(b'x'), 'tar archive. Unpack it .`tar'),
    ('tar_gz', gzip.compress(_tar(b'x')), 'tar archive, compressed with gzip'),
    ('parquet', b'PAR1' + bytes(99), 'Parquet'),
    ('web_page', b'\n<!DOCTYPE html><title>404', 'a web page'),
    ('lfs', b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
  )
  def test_other_files_are_named(self, content, message):
    path = self._write(content)
    for read in (
      shard_files.count_records,
      lambda p: list(reading.read_shard(p)),
    ):
      with self.assertRaisesRegex(ValueError, f'b.tfrecord.*{message}') as e:
        read(path)
      self.assertNotIn('Remove', str(e.exception))

  @parameterized.parameters('half', 'damaged', 'of_text')
  def test_damaged(self, damage):
    content = gzip.compress(self.content)
    if damage == 'half':
      content = content[: len(content) // 2]
    elif damage == 'damaged':
      middle = len(content) // 2
      content = content[:middle] + bytes(40) + content[middle + 40 :]
    else:
      content = gzip.compress(b'text' * 99)
    with self.assertRaisesRegex(ValueError, 'gzip.* Copy or download'):
      shard_files.count_records(self._write(content))

  def test_only_what_ingest_wrote_is_to_be_removed(self):
    path = self._write(self.content[:-9], 'my [1]-00001-of-00002.tfrecord')
    with self.assertRaisesRegex(ValueError, 'truncated.* Copy or download'):
      shard_files.count_records(path)
    info = {'splits': {'x': {'shards': 'my [1]-?????-of-00002.tfrecord'}}}
    (self.dir / 'dataset_info.json').write_text(json.dumps(info))
    with self.assertRaisesRegex(ValueError, 'truncated.* Remove it, and rerun'):
      shard_files.count_records(path)
    other = self._write(self.content[:-9], 'my [1]-00001-of-00003.tfrecord')
    with self.assertRaisesRegex(ValueError, 'truncated.* Copy or download'):
      shard_files.count_records(other)


if __name__ == '__main__':
  tf.test.main()
