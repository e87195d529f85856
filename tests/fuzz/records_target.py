"""Shards, damaged, joined and cut, and records with odd fields."""

import dataclasses
import functools
import gzip
import json
import math
import os
import tempfile
import time
import zlib

from hypothesis import strategies as st
import numpy as np
import tensorflow as tf

from tests import fake_clips
from tests.fuzz import mutations
from vatt_tf.input_pipeline import (
  audio_config,
  class_balance,
  pipeline,
  text,
  video_config,
)
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline.records import reading, schema, shard_files, writing
from vatt_tf.media import contact_sheet, inspection

# Of one shard; with a pipeline, TensorFlow traces functions first.
_MAX_SECONDS = 40
_NUM_CLIPS = 5
_VIDEO = video_config.VideoConfig(num_frames=2, frame_size=8)
_AUDIO = audio_config.AudioConfig(num_samples=80, sample_rate=800)
_LABEL = plan_lib.LabelConfig(num_classes=10)
_PACKED = {
  '': lambda data: data,
  'gzip': gzip.compress,
  'zlib': zlib.compress,
}

_numbers = st.lists(
  st.integers(0, _NUM_CLIPS - 1), min_size=1, max_size=_NUM_CLIPS
)
_operations = st.lists(
  st.one_of(*mutations.IN_PLACE, *mutations.MOVING), max_size=3
)
# What is looked at besides the clips: each takes longer.
_readers = st.sampled_from((*[''] * 38, 'pipeline', 'picture'))

_shards = st.tuples(
  st.just('shard'),
  _numbers,
  st.sampled_from(('', '', 'gzip', 'zlib')),
  _operations,
  _readers,
)
# Records whose bytes are changed, in a shard that is whole.
_contents = st.tuples(
  st.just('content'), _numbers, st.integers(0, 4), _operations, _readers
)

_KEYS = sorted(
  {key for field in schema.FEATURE_SPEC for key in (field.key, *field.aliases)}
)
_values = st.one_of(
  st.tuples(
    st.just(schema.BYTES),
    st.lists(
      st.sampled_from(
        (b'', b'a', b'JPEG', b'\xff\xd8\xff', b'\xff', b'\xed\xa0')
      ),
      max_size=4,
    ),
  ),
  st.tuples(
    st.just(schema.INT64),
    st.lists(
      st.sampled_from((0, 1, 2, -1, 10**6, 2**31, 2**62, 2**63 - 1, -(2**63))),
      max_size=4,
    ),
  ),
  st.tuples(
    st.just(schema.FLOAT),
    st.lists(
      st.sampled_from(
        (0.0, 0.5, -1.0, 16000.0, 1e-40, 3e38, math.nan, math.inf, -math.inf)
      ),
      max_size=4,
    ),
  ),
  st.just((None, [])),
)
# Key, place, kind and values; a list of values is put in each of the steps.
_fields = st.lists(
  st.tuples(
    st.sampled_from((*_KEYS, 'other/key')),
    st.sampled_from(('context', 'context', 'step', 'steps', 'no step')),
    _values,
  ),
  min_size=1,
  max_size=5,
)
_odd_records = st.tuples(
  st.just('fields'),
  _numbers,
  st.integers(0, 4),
  st.booleans(),
  _fields,
  _readers,
)

STRATEGY = st.one_of(_shards, _contents, _odd_records)


@functools.cache
def _clips():
  """The good clips, as shards hold them."""
  clips = [
    fake_clips.fake_clip(i, 4, 10.0, 12, 16, 800.0, num_captions=2)
    for i in range(_NUM_CLIPS)
  ]
  return [writing.serialize_clip(clip) for clip in clips]


@functools.cache
def _vocabulary():
  """The path of a vocabulary file, which stays until the process ends."""
  file = tempfile.NamedTemporaryFile(suffix='.txt')  # noqa: SIM115
  file.write(b'clip\nsays\n')
  file.flush()
  return file


def _framed(serialized):
  """Records as a shard holds them, with lengths and checksums."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'shard')
    with tf.io.TFRecordWriter(path) as writer:
      for one in serialized:
        writer.write(one)
    with open(path, 'rb') as file:
      return file.read()


def check(value: tuple) -> None:
  """Reads a shard; raises `AssertionError` where something is wrong."""
  kind, numbers, *rest, reader = value
  start = time.monotonic()
  good = [_clips()[number] for number in numbers]
  match kind:
    case 'shard':
      compression, operations = rest
      data = _PACKED[compression](_framed(good))
      other = _PACKED[compression](_framed(_clips()[:1]))
      for operation in operations:
        data = mutations.apply(data, other, operation)
      num_good = len(good) if not operations else 0
      if not compression:
        num_good = _count_whole(data)
      _check_shard(data, num_good, reader, is_framed=False)
    case 'content':
      place, operations = rest
      odd = _clips()[0]
      for operation in operations:
        odd = mutations.apply(odd, _clips()[1], operation)
      _check_record(good, place, odd, reader)
    case 'fields':
      place, has_others, fields = rest
      _check_record(good, place, _make_record(has_others, fields), reader)
  seconds = time.monotonic() - start
  assert seconds < _MAX_SECONDS, f'It took {seconds:.1f} s.'


def _count_whole(data):
  """How many good records stand at the beginning of a shard."""
  framed = [_framed([clip]) for clip in _clips()]
  count = 0
  while data:
    length = next((len(one) for one in framed if data.startswith(one)), 0)
    if not length:
      break
    data, count = data[length:], count + 1
  return count


def _make_record(has_others, fields):
  example = tf.train.SequenceExample()
  if has_others:
    example.ParseFromString(_clips()[0])
  for key, place, (dtype, values) in fields:
    feature = _make_feature(dtype, values)
    if place == 'context':
      example.context.feature[key].CopyFrom(feature)
    else:
      steps = example.feature_lists.feature_list[key].feature
      del steps[:]
      count = {'step': 1, 'steps': 3, 'no step': 0}[place]
      steps.extend([feature] * count)
  return example.SerializeToString()


def _make_feature(dtype, values):
  feature = tf.train.Feature()
  if dtype == schema.BYTES:
    feature.bytes_list.value.extend(values)
  elif dtype == schema.INT64:
    feature.int64_list.value.extend(values)
  elif dtype == schema.FLOAT:
    with np.errstate(over='ignore'):
      feature.float_list.value.extend(values)
  return feature


def _check_record(good, place, odd, reader):
  place = min(place, len(good))
  _check_parsers(odd)
  data = _framed([*good[:place], odd, *good[place:]])
  _check_shard(data, place, reader, is_framed=True)


def _check_parsers(serialized):
  """Python and TensorFlow read the same of a record, if they can."""
  try:
    values = reading.read_values(serialized)
    parsed = reading.parse_record(tf.constant(serialized))
  except (ValueError, tf.errors.InvalidArgumentError):
    return
  one_value = {f.name for f in schema.FEATURE_SPEC if f.count == schema.ONE}
  # Of one value, TensorFlow reads the context alone; the times are counted from
  # the start of the clip.
  timed = {'image_timestamp', 'caption_start', 'caption_end'}
  for name in set(values) - one_value - timed:
    np.testing.assert_array_equal(
      parsed[name].numpy(), np.asarray(values[name]).ravel(), err_msg=name
    )


def _is_same(clip, serialized):
  """Whether a clip is read as it was written."""
  return writing.serialize_clip(clip) == serialized


def _check_shard(data, num_good, reader, is_framed):
  """What all readers give of a shard.

  Args:
    data: Its bytes.
    num_good: How many good records it begins with.
    reader: What reads it besides: `pipeline`, `picture` or ''.
    is_framed: Whether lengths and checksums of all records are right.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 's.tfrecord')
    with open(path, 'wb') as file:
      file.write(data)
    clips, count = [], None
    try:
      for clip in reading.read_shard(path):
        clips.append(clip)
    except ValueError as e:
      _check_message(e, path)
    if not is_framed:
      originals = _clips()
      for clip in clips:
        number = int(clip.example_id.rsplit('-', 1)[1])
        assert _is_same(clip, originals[number]), clip.example_id
    assert len(clips) >= num_good, f'{len(clips)} of {num_good} good records'
    try:
      count = shard_files.count_records(path)
    except ValueError as e:
      _check_message(e, path)
      assert not is_framed, e
    else:
      labels = class_balance.read_labels(path)
      assert len(labels) == count, f'{len(labels)} of {count}'
      if not is_framed:
        found = [clip.label_indices for clip in clips]
        assert labels[: len(found)] == found, f'{labels} is not {found}'
    _inspect(path, folder, reader == 'picture')
    if reader == 'pipeline' and count:
      _run_pipeline(path, count, num_good)


def _check_message(error, path):
  assert path in str(error), error
  assert len(str(error).splitlines()) == 1, error


def _inspect(path, folder, draw):
  try:
    some = inspection.read_some([path], 10)
  except ValueError as e:
    _check_message(e, path)
    return
  reports = [inspection.report_record(*one) for one in some]
  text_of_all = inspection.describe([path], len(some), reports)
  text_of_all.encode('utf-8')
  json.dumps([dataclasses.asdict(report) for report in reports])
  if draw and reports:
    picture = os.path.join(folder, 'sheet.png')
    contact_sheet.draw_contact_sheet(
      picture, reports, [record for _, record in some]
    )
    assert os.path.getsize(picture)


def _run_pipeline(path, count, num_good):
  """Batches of a shard have a row for each record."""
  dataset = pipeline.make_dataset(
    path,
    2,
    is_training=False,
    video=_VIDEO,
    audio=_AUDIO,
    text=text.TextConfig(
      num_captions=2, max_words=4, vocabulary=_vocabulary().name
    ),
    label=_LABEL,
    max_bad_record_share=1.0,
  )
  num_rows = num_seen = 0
  try:
    for batch in dataset:
      valid = batch['valid'].numpy()
      num_rows += valid.sum()
      num_seen += (batch['video_mask'].numpy() & valid).sum()
      for name, tensor in batch.items():
        if tensor.dtype.is_floating:
          assert np.isfinite(tensor.numpy()).all(), name
  except (tf.errors.OpError, ValueError) as e:
    assert path in str(e), e
    return
  assert num_rows == count, f'{num_rows} rows of {count} records'
  assert num_seen >= num_good, f'{num_seen} with frames of {num_good}'
