"""Records: what one clip is on disk, how it is written and how it is read.

One clip is one `tf.train.SequenceExample` with the keys of MediaSequence.
`FEATURE_SPEC` below is the only list of these keys: the writer, both readers
(`parse_record` with TensorFlow ops, `read_clip` with plain Python), the fake
records and the table in docs/records.md all follow it.

The readers take every layout that the field's shards have:

*   a feature in the context or in a feature list,
*   frames one a step, or (as older DMVR scripts wrote them) all of them packed
    in one `Feature`,
*   the DMVR spellings listed as aliases in `FEATURE_SPEC`,
*   a plain `tf.train.Example`: on the wire its features are the context of a
    `SequenceExample`.

Writing needs no TensorFlow op and no session: it can run in any thread or
process.
"""

from collections.abc import Iterator, Sequence
from concurrent import futures
import dataclasses
import functools
import os
import struct
from typing import NamedTuple

import numpy as np
import tensorflow as tf

CONTEXT = 'context'
FEATURE_LIST = 'feature list'

BYTES = 'bytes'
INT64 = 'int64'
FLOAT = 'float'

# How many values a field holds, and how they are laid out when written.
ONE = 'one value'
MANY = 'a list'
ONE_A_STEP = 'one a step'
ONE_STEP = 'one step holding all'

TF_DTYPES = {BYTES: tf.string, INT64: tf.int64, FLOAT: tf.float32}

MICROSECONDS = 1_000_000

# The float32 bit patterns (sign removed) from which a number is normal, and
# from which it is infinite or not a number.
_SMALLEST_NORMAL_BITS = 0x00800000
_INFINITY_BITS = 0x7F800000


class Field(NamedTuple):
  """One feature of a record.

  Attributes:
    name: Its name in the dictionary that `parse_record` returns.
    key: The MediaSequence key it is written under.
    placement: `CONTEXT` or `FEATURE_LIST`; where it is written.
    dtype: `BYTES`, `INT64` or `FLOAT`.
    count: `ONE`, `MANY`, `ONE_A_STEP` or `ONE_STEP`.
    meaning: One line for the record table.
    aliases: Other keys it is read from.
  """

  name: str
  key: str
  placement: str
  dtype: str
  count: str
  meaning: str
  aliases: tuple[str, ...] = ()


FEATURE_SPEC = (
  Field(
    'image_encoded',
    'image/encoded',
    FEATURE_LIST,
    BYTES,
    ONE_A_STEP,
    'JPEG frames',
  ),
  Field(
    'image_timestamp',
    'image/timestamp',
    FEATURE_LIST,
    INT64,
    ONE_A_STEP,
    'time of each frame, µs',
  ),
  Field(
    'image_frame_rate',
    'image/frame_rate',
    CONTEXT,
    FLOAT,
    ONE,
    'frames a second',
  ),
  Field('image_height', 'image/height', CONTEXT, INT64, ONE, 'pixels'),
  Field('image_width', 'image/width', CONTEXT, INT64, ONE, 'pixels'),
  Field('image_format', 'image/format', CONTEXT, BYTES, ONE, '`JPEG`'),
  Field(
    'waveform',
    'WAVEFORM/feature/floats',
    FEATURE_LIST,
    FLOAT,
    ONE_STEP,
    'samples, mono, in [-1, 1]; the first is at time 0',
    aliases=('waveform/floats',),
  ),
  Field(
    'waveform_encoded',
    'WAVEFORM/feature/bytes',
    FEATURE_LIST,
    BYTES,
    ONE_STEP,
    'an encoded sound file (WAV, FLAC, MP3 or Ogg Vorbis), read when there '
    'are no samples',
    aliases=('audio/encoded',),
  ),
  Field(
    'waveform_rate',
    'WAVEFORM/feature/sample_rate',
    CONTEXT,
    FLOAT,
    ONE,
    'samples a second',
  ),
  Field(
    'waveform_channels',
    'WAVEFORM/feature/num_channels',
    CONTEXT,
    INT64,
    ONE,
    'written as 1; when more, the samples are interleaved and are averaged '
    'on reading',
  ),
  Field(
    'caption_text',
    'segment/label/string',
    CONTEXT,
    BYTES,
    MANY,
    'captions or recognised speech, UTF-8',
    aliases=('caption/string',),
  ),
  Field(
    'caption_start',
    'segment/start/timestamp',
    CONTEXT,
    INT64,
    MANY,
    'start of each caption, µs',
  ),
  Field(
    'caption_end',
    'segment/end/timestamp',
    CONTEXT,
    INT64,
    MANY,
    'end of each caption, µs',
  ),
  Field(
    'label_index',
    'clip/label/index',
    CONTEXT,
    INT64,
    MANY,
    'classes of the clip, lines of `labels.txt`',
    aliases=('label/index',),
  ),
  Field(
    'label_name',
    'clip/label/string',
    CONTEXT,
    BYTES,
    MANY,
    'names of these classes',
    aliases=('clip/label/text', 'label/text'),
  ),
  Field(
    'data_path',
    'clip/data_path',
    CONTEXT,
    BYTES,
    ONE,
    'the media file the clip was cut from',
  ),
  Field(
    'clip_start',
    'clip/start/timestamp',
    CONTEXT,
    INT64,
    ONE,
    'start of the clip in that file, µs',
  ),
  Field(
    'clip_end',
    'clip/end/timestamp',
    CONTEXT,
    INT64,
    ONE,
    'end of the clip in that file, µs',
  ),
  Field('example_id', 'example/id', CONTEXT, BYTES, ONE, 'name of the clip'),
  Field(
    'dataset_name',
    'example/dataset_name',
    CONTEXT,
    BYTES,
    ONE,
    'name of the data set',
  ),
)

_FIELDS = {field.name: field for field in FEATURE_SPEC}


@dataclasses.dataclass(frozen=True)
class Caption:
  """A text that belongs to a span of a clip.

  Attributes:
    text: The caption.
    start: First moment it speaks of, µs from the start of the clip.
    end: Last moment it speaks of, µs from the start of the clip.
  """

  text: str
  start: int = 0
  end: int = 0


@dataclasses.dataclass
class Clip:
  """One clip, as it stands in a record. Every part may be absent.

  All times are µs. Those of frames and captions count from the start of the
  clip, which is also the time of the first sample of the waveform; `start` and
  `end` count from the start of the file that the clip was cut from.

  Attributes:
    example_id: Name of the clip, unique in its data set.
    dataset_name: Name of the data set.
    frames: JPEG images.
    timestamps: Time of each frame. Empty: frame i is at i / frame_rate.
    frame_rate: Frames a second; 0 when there are no frames.
    height: Of the frames, pixels.
    width: Of the frames, pixels.
    waveform: (S,) float32 mono samples in [-1, 1], or None.
    sample_rate: Samples a second; 0 when there is no waveform.
    captions: The texts.
    label_indices: Classes.
    label_names: Names of these classes.
    data_path: Path of the media file.
    start: Where the clip starts in the media file.
    end: Where the clip ends in the media file.
  """

  example_id: str = ''
  dataset_name: str = ''
  frames: Sequence[bytes] = ()
  timestamps: Sequence[int] = ()
  frame_rate: float = 0.0
  height: int = 0
  width: int = 0
  waveform: np.ndarray | None = None
  sample_rate: float = 0.0
  captions: Sequence[Caption] = ()
  label_indices: Sequence[int] = ()
  label_names: Sequence[str] = ()
  data_path: str = ''
  start: int = 0
  end: int = 0

  @property
  def duration(self) -> float:
    """Seconds that the frames or the waveform cover, the longer of the two."""
    seconds = 0.0
    if self.frames and self.frame_rate:
      times = self.timestamps or frame_times(len(self.frames), self.frame_rate)
      seconds = times[-1] / MICROSECONDS + 1.0 / self.frame_rate
    if self.waveform is not None and self.sample_rate:
      seconds = max(seconds, self.waveform.size / self.sample_rate)
    return seconds


def frame_times(num_frames: int, frame_rate: float) -> list[int]:
  """Times in µs of frames that follow each other at `frame_rate`."""
  return [round(i * MICROSECONDS / frame_rate) for i in range(num_frames)]


# Writing.


def waveform_fault(waveform: np.ndarray) -> str:
  """Says what is wrong with the numbers of a waveform, or ''.

  Integers whose bits were read as float32 (a common fault of record writers)
  come out as denormal numbers when positive and as NaN when negative.

  Args:
    waveform: Float samples of any shape.
  """
  samples = np.ascontiguousarray(waveform, dtype=np.float32)
  if not samples.size:
    return ''
  largest = int((samples.view(np.int32) & 0x7FFFFFFF).max())
  if largest >= _INFINITY_BITS:
    return 'the waveform holds values that are not finite'
  if 0 < largest < _SMALLEST_NORMAL_BITS:
    return (
      'all values of the waveform are denormal (integer samples read as '
      'float32)'
    )
  return ''


def check_clip(clip: Clip) -> None:
  """Raises `ValueError` where a clip is not fit to be written."""
  name = clip.example_id or clip.data_path or 'clip'
  if clip.frames:
    if not clip.frame_rate > 0:
      raise ValueError(
        f'`frame_rate` of {name} must be above 0 when there are frames. '
        f'Received: frame_rate={clip.frame_rate}'
      )
    if clip.timestamps and len(clip.timestamps) != len(clip.frames):
      raise ValueError(
        f'`timestamps` of {name} must be one a frame. Received: '
        f'{len(clip.timestamps)} timestamps for {len(clip.frames)} frames'
      )
  if clip.waveform is not None:
    if np.ndim(clip.waveform) != 1:
      raise ValueError(
        f'`waveform` of {name} must have one axis (mono samples). Received: '
        f'shape={np.shape(clip.waveform)}'
      )
    if not clip.sample_rate > 0:
      raise ValueError(
        f'`sample_rate` of {name} must be above 0 when there is a waveform. '
        f'Received: sample_rate={clip.sample_rate}'
      )
    fault = waveform_fault(clip.waveform)
    if fault:
      raise ValueError(f'`waveform` of {name} cannot be written: {fault}.')
  if clip.label_names and len(clip.label_names) != len(clip.label_indices):
    raise ValueError(
      f'`label_names` of {name} must be one a label. Received: '
      f'{len(clip.label_names)} names for {len(clip.label_indices)} indices'
    )


def _clip_values(clip: Clip) -> dict[str, list | np.ndarray]:
  """The values of each field; an empty list leaves the field out."""
  has_frames = bool(clip.frames)
  has_waveform = clip.waveform is not None and np.size(clip.waveform) > 0
  times = list(clip.timestamps)
  if has_frames and not times:
    times = frame_times(len(clip.frames), clip.frame_rate)
  return {
    'image_encoded': list(clip.frames),
    'image_timestamp': times if has_frames else [],
    'image_frame_rate': [clip.frame_rate] if has_frames else [],
    'image_height': [clip.height] if has_frames and clip.height else [],
    'image_width': [clip.width] if has_frames and clip.width else [],
    'image_format': [b'JPEG'] if has_frames else [],
    'waveform': clip.waveform if has_waveform else [],
    'waveform_encoded': [],
    'waveform_rate': [clip.sample_rate] if has_waveform else [],
    'waveform_channels': [1] if has_waveform else [],
    'caption_text': [caption.text for caption in clip.captions],
    'caption_start': [caption.start for caption in clip.captions],
    'caption_end': [caption.end for caption in clip.captions],
    'label_index': list(clip.label_indices),
    'label_name': list(clip.label_names),
    'data_path': [clip.data_path] if clip.data_path else [],
    'clip_start': [clip.start] if clip.data_path else [],
    'clip_end': [clip.end] if clip.data_path else [],
    'example_id': [clip.example_id] if clip.example_id else [],
    'dataset_name': [clip.dataset_name] if clip.dataset_name else [],
  }


def _float_list(values: Sequence[float] | np.ndarray):
  """A `FloatList`, made from the bytes of the array, not number by number."""
  array = np.ascontiguousarray(values, dtype='<f4')
  length, header = array.nbytes, bytearray(b'\n')  # Field 1, length-delimited.
  while length > 127:
    header.append(length & 127 | 128)
    length >>= 7
  header.append(length)
  return tf.train.FloatList.FromString(bytes(header) + array.tobytes())


def _floats(float_list: tf.train.FloatList) -> np.ndarray:
  """The values of a `FloatList` as (n,) float32, read from its bytes."""
  count = len(float_list.value)
  packed = float_list.SerializeToString()
  values = packed[len(packed) - 4 * count :]
  return np.frombuffer(values, dtype='<f4').astype(np.float32)


def _feature(dtype: str, values) -> tf.train.Feature:
  if dtype == FLOAT:
    return tf.train.Feature(float_list=_float_list(values))
  if dtype == INT64:
    return tf.train.Feature(
      int64_list=tf.train.Int64List(value=[int(value) for value in values])
    )
  return tf.train.Feature(
    bytes_list=tf.train.BytesList(
      value=[
        value.encode('utf-8') if isinstance(value, str) else bytes(value)
        for value in values
      ]
    )
  )


def make_sequence_example(clip: Clip) -> tf.train.SequenceExample:
  """Lays a clip out as `FEATURE_SPEC` says.

  Args:
    clip: The clip.

  Returns:
    The protocol buffer.

  Raises:
    ValueError: The clip is not fit to be written (`check_clip`).
  """
  check_clip(clip)
  values = _clip_values(clip)
  example = tf.train.SequenceExample()
  for field in FEATURE_SPEC:
    of_field = values[field.name]
    if not len(of_field):
      continue
    if field.placement == CONTEXT:
      example.context.feature[field.key].CopyFrom(
        _feature(field.dtype, of_field)
      )
    elif field.count == ONE_STEP:
      example.feature_lists.feature_list[field.key].feature.add().CopyFrom(
        _feature(field.dtype, of_field)
      )
    else:
      steps = example.feature_lists.feature_list[field.key].feature
      steps.extend(_feature(field.dtype, [value]) for value in of_field)
  return example


def serialize_clip(clip: Clip) -> bytes:
  """The bytes of `make_sequence_example`: what a shard holds."""
  return make_sequence_example(clip).SerializeToString()


def shard_path(folder: str, name: str, index: int, num_shards: int) -> str:
  """`folder/name-00003-of-00016.tfrecord`.

  Raises:
    ValueError: `index` is not in [0, num_shards).
  """
  if not 0 <= index < num_shards:
    raise ValueError(
      '`index` must be in [0, num_shards). Received: '
      f'index={index}, num_shards={num_shards}'
    )
  return os.path.join(
    folder, f'{name}-{index:05d}-of-{num_shards:05d}.tfrecord'
  )


class ShardWriter:
  """Writes one shard so that it is either whole or not there.

  The records go to a hidden file beside the shard, which takes the shard's name
  when the writer is closed. An exception inside `with` removes the hidden file
  and leaves a shard of that name, if there was one, as it was.

  Example:

  >>> with records.ShardWriter(path) as writer:
  ...   writer.write(clip)

  Args:
    path: Path of the shard.
  """

  def __init__(self, path: str):
    folder, name = os.path.split(os.fspath(path))
    self.path = os.fspath(path)
    self.num_records = 0
    self._temporary_path = os.path.join(folder, f'.{name}.{os.getpid()}.part')
    if folder:
      tf.io.gfile.makedirs(folder)
    self._writer = tf.io.TFRecordWriter(self._temporary_path)

  def write(self, record: bytes | Clip) -> None:
    """Adds a clip, or a record that is serialised already."""
    if isinstance(record, Clip):
      record = serialize_clip(record)
    self._writer.write(record)
    self.num_records += 1

  def close(self) -> None:
    """Gives the shard its name."""
    self._writer.close()
    tf.io.gfile.rename(self._temporary_path, self.path, overwrite=True)

  def abort(self) -> None:
    """Drops what was written."""
    self._writer.close()
    tf.io.gfile.remove(self._temporary_path)

  def __enter__(self) -> 'ShardWriter':
    return self

  def __exit__(self, error_type, error, traceback) -> None:
    if error_type is None:
      self.close()
    else:
      self.abort()


# Shards.


def match_shards(
  pattern: str | Sequence[str], macro: str = 'TRAIN_RECORDS'
) -> list[str]:
  """The sorted paths of the files that a pattern matches.

  Args:
    pattern: A glob pattern, several of them separated by commas, or a list.
    macro: The gin macro that holds it, for the error message.

  Raises:
    ValueError: A pattern matches no file.
  """
  patterns = pattern.split(',') if isinstance(pattern, str) else list(pattern)
  paths = set()
  for one in patterns:
    one = os.fspath(one).strip()
    found = tf.io.gfile.glob(one) if one else []
    # Shards that are being written have hidden names.
    found = [p for p in found if not os.path.basename(p).startswith('.')]
    if not found:
      raise ValueError(
        f'No file matches the record pattern {one!r}. Set the gin macro '
        f"{macro} to shards that exist (--gin_param=\"{macro}='/data/"
        "train-*.tfrecord'\"), or make them with `python -m vatt_tf.ingest`."
      )
    paths.update(found)
  return sorted(paths)


def count_records(path: str) -> int:
  """Counts the records of a shard by walking from length to length.

  Only the 8 bytes that announce each record are read.

  Raises:
    ValueError: The file ends in the middle of a record.
  """
  with tf.io.gfile.GFile(path, 'rb') as file:
    size = file.size()
    if '://' in path:
      return _walk(path, file, size)
  with open(path, 'rb') as file:
    return _walk(path, file, size)


def _walk(path: str, file, size: int) -> int:
  position, count = 0, 0
  while position < size:
    file.seek(position)
    header = file.read(8)
    # A record: 8 bytes length, 4 of its checksum, the bytes, 4 of theirs.
    after = position + 16
    if len(header) == 8:
      after += struct.unpack('<Q', header)[0]
    if len(header) < 8 or after > size:
      raise ValueError(
        f'The shard {path} is truncated or is no TFRecord file: record '
        f'{count} starts at byte {position} and should end at byte {after}, '
        f'but the file has {size} bytes. Remove it and make it again with '
        '`python -m vatt_tf.ingest`, which goes on where it stopped.'
      )
    position, count = after, count + 1
  return count


def count_all_records(paths: Sequence[str]) -> list[int]:
  """`count_records` of many shards, several at a time."""
  with futures.ThreadPoolExecutor(max_workers=16) as pool:
    return list(pool.map(count_records, paths))


# Reading with plain Python.


def _all_values(example: tf.train.SequenceExample, key: str, dtype: str):
  """Every value of a key, wherever and however it is laid out."""
  features = []
  if key in example.context.feature:
    features.append(example.context.feature[key])
  if key in example.feature_lists.feature_list:
    features.extend(example.feature_lists.feature_list[key].feature)
  if dtype == FLOAT:
    parts = [_floats(feature.float_list) for feature in features]
    return np.concatenate(parts) if parts else np.zeros([0], np.float32)
  values = []
  for feature in features:
    source = feature.int64_list if dtype == INT64 else feature.bytes_list
    values.extend(source.value)
  return values


def read_values(serialized: bytes) -> dict[str, list | np.ndarray]:
  """Every field of a record by name, as lists (waveform: an array).

  Takes the layouts and spellings of the module docstring.
  """
  example = tf.train.SequenceExample.FromString(serialized)
  values = {}
  for field in FEATURE_SPEC:
    for key in (field.key, *field.aliases):
      values[field.name] = _all_values(example, key, field.dtype)
      if len(values[field.name]):
        break
  return values


def read_clip(serialized: bytes) -> Clip:
  """Reads a record back into a `Clip`, in plain Python.

  Args:
    serialized: A record in any of the layouts of the module docstring.

  Returns:
    The clip. Times count from its start (see `parse_record`).
  """
  values = read_values(serialized)

  def one(name, default):
    return values[name][0] if len(values[name]) else default

  def text(value):
    return value.decode('utf-8', errors='replace')

  start = one('clip_start', 0)
  times = [int(time) for time in values['image_timestamp']]
  starts = [int(time) for time in values['caption_start']]
  ends = [int(time) for time in values['caption_end']]
  if start and times and times[0] >= start:
    times = [time - start for time in times]
    starts = [time - start for time in starts]
    ends = [time - start for time in ends]
  num_captions = len(values['caption_text'])
  starts = starts if len(starts) == num_captions else [0] * num_captions
  ends = ends if len(ends) == num_captions else [0] * num_captions
  waveform = values['waveform']
  channels = int(one('waveform_channels', 1))
  if channels > 1:
    waveform = waveform[: waveform.size // channels * channels]
    waveform = waveform.reshape([-1, channels]).mean(axis=1)
  return Clip(
    example_id=text(one('example_id', b'')),
    dataset_name=text(one('dataset_name', b'')),
    frames=values['image_encoded'],
    timestamps=times,
    frame_rate=float(one('image_frame_rate', 0.0)),
    height=int(one('image_height', 0)),
    width=int(one('image_width', 0)),
    waveform=waveform if waveform.size else None,
    sample_rate=float(one('waveform_rate', 0.0)),
    captions=[
      Caption(text(caption), caption_start, caption_end)
      for caption, caption_start, caption_end in zip(
        values['caption_text'], starts, ends
      )
    ],
    label_indices=[int(index) for index in values['label_index']],
    label_names=[text(name) for name in values['label_name']],
    data_path=text(one('data_path', b'')),
    start=int(start),
    end=int(one('clip_end', 0)),
  )


def read_shard(path: str) -> Iterator[Clip]:
  """The clips of a shard, one after the other.

  Raises:
    ValueError: The shard is truncated or corrupt.
  """
  try:
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
      yield read_clip(record)
  except tf.errors.DataLossError as e:
    raise ValueError(
      f'The shard {path} is truncated or corrupt ({e.message}). Remove it and '
      'make it again with `python -m vatt_tf.ingest`.'
    ) from e


# Reading with TensorFlow ops.


def _first_nonempty(values: Sequence[tf.Tensor]) -> tf.Tensor:
  """The first of several vectors that has an element; empty if none has."""
  *others, result = values
  for value in reversed(others):
    # Not a concatenation, which would copy it: a sound is large.
    result = tf.cond(
      tf.size(value) > 0,
      functools.partial(tf.identity, value),
      functools.partial(tf.identity, result),
    )
  return result


def parse_record(
  serialized: tf.Tensor, names: Sequence[str] | None = None
) -> dict[str, tf.Tensor]:
  """Parses a record with TensorFlow ops, for use in `tf.data`.

  Args:
    serialized: () string, a record in any of the layouts of the module
      docstring.
    names: The fields wanted (`Field.name`); by default all of them.

  Returns:
    A dictionary from the names of `FEATURE_SPEC` to vectors: the values that
    the record holds, none of them where it does not have the field. Frames are
    (n,) string, the waveform is (S,) float32 as stored (channels interleaved).
    `image_timestamp`, `caption_start` and `caption_end` count in µs from the
    start of the clip: where the first frame is at or after a positive
    `clip/start/timestamp` the record counts from the start of the media file,
    and that time is subtracted from all three.

  Raises:
    ValueError: A name is unknown.
  """
  wanted = list(_FIELDS) if names is None else list(names)
  for name in wanted:
    if name not in _FIELDS:
      raise ValueError(
        f'`names` must be among {", ".join(_FIELDS)}. Received: {name}'
      )
  needed = list(dict.fromkeys(wanted))
  timed = ('image_timestamp', 'caption_start', 'caption_end')
  if any(name in needed for name in timed):
    needed += [n for n in ('image_timestamp', 'clip_start') if n not in needed]
  keys = {}
  for name in needed:
    field = _FIELDS[name]
    for key in (field.key, *field.aliases):
      keys[key] = tf.io.RaggedFeature(TF_DTYPES[field.dtype])
  # A field of one value is a context feature in every layout.
  listed = {
    key: feature
    for key, feature in keys.items()
    if not any(f.key == key and f.count == ONE for f in FEATURE_SPEC)
  }
  context, lists = tf.io.parse_single_sequence_example(
    serialized, context_features=keys, sequence_features=listed or None
  )
  features = {}
  for name in needed:
    field = _FIELDS[name]
    values = []
    for key in (field.key, *field.aliases):
      if key in lists:
        values.append(lists[key].flat_values)
      values.append(context[key])
    features[name] = _first_nonempty(values)  # (n,)
  if any(name in wanted for name in timed):
    origin = _time_origin(features['image_timestamp'], features['clip_start'])
    for name in timed:
      if name in features:
        features[name] -= origin
  return {name: features[name] for name in wanted}


def _time_origin(timestamps: tf.Tensor, clip_start: tf.Tensor) -> tf.Tensor:
  """() int64, µs: what to subtract from the times of a record."""
  zero = tf.zeros([1], tf.int64)
  start = tf.concat([clip_start, zero], axis=0)[0]
  first = tf.concat([timestamps, zero], axis=0)[0]
  return tf.where((start > 0) & (first >= start), start, 0)


# Fake records, for tests and benchmarks.


def fake_clip(
  seed: int = 0,
  num_frames: int = 30,
  frame_rate: float = 10.0,
  height: int = 256,
  width: int = 320,
  sample_rate: float = 48000.0,
  num_samples: int | None = None,
  num_captions: int = 2,
  num_classes: int = 10,
) -> Clip:
  """A clip of moving colours with a tone: the form of a real one, no content.

  Args:
    seed: Clips of different seeds differ.
    num_frames: 0 for a clip without video.
    frame_rate: Frames a second.
    height: Of the frames.
    width: Of the frames.
    sample_rate: Samples a second.
    num_samples: Length of the waveform, by default as long as the frames; 0
      for a clip without sound.
    num_captions: Spread evenly over the clip.
    num_classes: The label is `seed` modulo this; 0 for a clip without label.
  """
  generator = np.random.default_rng(seed)
  seconds = num_frames / frame_rate
  if num_samples is None:
    num_samples = round(seconds * sample_rate)
  # Textured: smooth images would make JPEG decoding look cheaper than it is.
  grain = generator.normal(0.0, 12.0, [height, 2 * width, 3])
  rows = np.linspace(0.0, 3.0, height)[:, None, None]
  columns = np.linspace(0.0, 6.0, 2 * width)[None, :, None]
  phase = generator.uniform(0.0, 6.0, [3])
  scene = 128.0 + 80.0 * np.sin(3.0 * rows + 4.0 * columns + phase) + grain
  scene = np.clip(scene, 0, 255).astype(np.uint8)
  frames = []
  for i in range(num_frames):
    left = (i * 4) % width
    image = np.ascontiguousarray(scene[:, left : left + width])
    frames.append(tf.io.encode_jpeg(image, quality=90).numpy())
  times = np.arange(num_samples) / sample_rate
  tone = 0.5 * np.sin(2 * np.pi * generator.uniform(100, 1000) * times)
  step = int(max(seconds, num_samples / sample_rate) * MICROSECONDS)
  step //= max(num_captions, 1)
  label = seed % num_classes if num_classes else 0
  return Clip(
    example_id=f'fake-{seed:06d}',
    dataset_name='fake',
    frames=frames,
    timestamps=frame_times(num_frames, frame_rate),
    frame_rate=frame_rate if num_frames else 0.0,
    height=height,
    width=width,
    waveform=tone.astype(np.float32) if num_samples else None,
    sample_rate=sample_rate if num_samples else 0.0,
    captions=[
      Caption(f'clip {seed} says word{i}', i * step, (i + 1) * step)
      for i in range(num_captions)
    ],
    label_indices=[label] if num_classes else [],
    label_names=[f'class {label}'] if num_classes else [],
    data_path=f'fake/{seed:06d}.mp4',
    start=0,
    end=int(seconds * MICROSECONDS),
  )
