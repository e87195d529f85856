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
import json
import os
import re
import struct
from typing import NamedTuple
import zlib

from google.protobuf import message
import numpy as np
import tensorflow as tf

from vatt_tf.core import file_utils

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

# What ingest writes of a data set, beside its shards.
DATASET_INFO = 'dataset_info.json'

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
    'an encoded sound file (WAV, FLAC, MP3, Ogg Vorbis, Opus), read when there '
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
  # The same bytes in every process, whatever the order of keys in a map.
  return make_sequence_example(clip).SerializeToString(deterministic=True)


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


class NoRecordsError(ValueError):
  """A pattern of shards is None: there are to be no records."""


def match_shards(
  pattern: str | Sequence[str], macro: str = 'TRAIN_RECORDS'
) -> list[str]:
  """The sorted paths of the files that a pattern matches.

  What is there by its very name is that: a folder `data [v2]` is no pattern,
  and a comma in the name of a file or folder separates nothing.

  Args:
    pattern: A glob pattern, several of them separated by commas, or a list.
    macro: The gin macro that holds it, for the error message.

  Raises:
    ValueError: A pattern matches no file, or is no string; `NoRecordsError`
      where it is None.
    OSError: What holds the files does not answer.
  """
  is_string = isinstance(pattern, str | os.PathLike)
  patterns = [pattern] if is_string else pattern
  if not isinstance(patterns, list | tuple) or not all(
    isinstance(each, str | os.PathLike) for each in patterns
  ):
    error = NoRecordsError if pattern is None else ValueError
    raise error(
      f'The gin macro {macro} must be a pattern of shards in quotes, or a list '
      f'of some, such as --gin_param="{macro}=\'/data/train-*.tfrecord\'". '
      f'Received: {macro}={pattern!r}'
    )
  patterns = [file_utils.expand(os.fspath(each)) for each in patterns]
  if is_string:
    patterns = _split(patterns[0])
  paths = set()
  for each in patterns:
    found = _match(each)
    if not found:
      raise ValueError(
        f'No file matches the record pattern {each.strip()!r}. Set the gin '
        f'macro {macro} to shards that exist (--gin_param="{macro}=\'/data/'
        'train-*.tfrecord\'"), or make them with `python -m vatt_tf.ingest`.'
        f'{file_utils.advise_on_sample(each)}'
      )
    paths.update(found)
  return sorted(paths)


def _split(text):
  """Patterns that are separated by commas, of which names may have some."""
  if ',' not in text or _match(text):
    return [text]
  patterns, parts = [], text.split(',')
  while parts:
    for number in range(1, len(parts) + 1):
      if _match(','.join(parts[:number])):
        break
    else:
      number = 1  # It matches nothing: an error that names it.
    patterns.append(file_utils.expand(','.join(parts[:number])))
    parts = parts[number:]
  return patterns


def _match(pattern):
  """The files that a pattern matches; spaces around it may be a name's."""
  for text in dict.fromkeys((pattern, pattern.strip())):
    paths = _match_path(file_utils.expand(text)) if text else []
    # Shards that are being written have hidden names.
    paths = [p for p in paths if not os.path.basename(p).startswith('.')]
    if paths:
      return paths
  return []


def _match_path(pattern):
  """The files that a path, or a pattern, stands for."""
  parts = pattern.split('/')
  is_remote = file_utils.is_remote(pattern)
  # A bucket need not tell whether it is there.
  number = next(
    (i for i, part in enumerate(parts) if file_utils.has_magic(part)),
    len(parts),
  )
  folders = ['/'.join(parts[:number])]
  for i, part in enumerate(parts[number:], number):
    found = []
    for folder in folders:
      start = f'{folder}/' if i else ''
      if file_utils.exists(start + part):
        found.append(start + part)
      elif file_utils.has_magic(part):
        try:
          names = tf.io.gfile.glob(file_utils.escape(start) + part)
          # It puts `./` in front of relative paths.
          found += [start + os.path.basename(name) for name in names]
        except tf.errors.OpError as e:
          raise OSError(
            f'{folder} cannot be read: {file_utils.reason(e)}.'
          ) from e
    folders = found
  if is_remote:
    return (
      folders
      if number < len(parts)
      else list(filter(file_utils.exists, folders))
    )
  return [path for path in folders if os.path.isfile(path)]


@dataclasses.dataclass(frozen=True)
class _Format:
  """A kind of file that is no shard.

  Attributes:
    name: For people.
    start: Its first bytes, in lower case.
    place: Where they are.
    unpack: The command that gives what it holds, or ''.
  """

  name: str
  start: bytes
  place: int = 0
  unpack: str = ''


GZIP, ZLIB = 'GZIP', 'ZLIB'
_GZIP_START = b'\x1f\x8b\x08'
_TAR = _Format('a tar archive', b'ustar', 257, 'tar -xf')
_OTHER_FORMATS = (
  _Format('compressed with zstd', b'\x28\xb5\x2f\xfd', 0, 'unzstd'),
  _Format('compressed with bzip2', b'bzh', 0, 'bunzip2'),
  _Format('compressed with xz', b'\xfd7zxz\0', 0, 'unxz'),
  _Format('compressed with lz4', b'\x04\x22\x4d\x18', 0, 'unlz4'),
  _Format('compressed with Snappy', b'\xff\x06\0\0snappy'),
  _Format('a zip archive', b'pk\x03\x04', 0, 'unzip'),
  _Format('a 7-Zip archive', b"7z\xbc\xaf'\x1c", 0, '7z x'),
  _TAR,
  _Format('a Parquet file', b'par1'),
  _Format('an HDF5 file', b'\x89hdf'),
  _Format('a pointer of Git LFS (see `git lfs pull`)', b'version https:'),
  _Format('a web page, such as an error of a download', b'<!doctype'),
  _Format('a web page, such as an error of a download', b'<html'),
  _Format('an XML file, such as an error of a download', b'<?xml'),
)


def _is_header(head: bytes) -> bool:
  """Whether bytes are the length of a record, followed by its checksum."""
  if len(head) < 12:
    return False
  checksum = 0xFFFFFFFF
  for byte in head[:8]:  # CRC-32C
    checksum ^= byte
    for _ in range(8):
      checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
  checksum ^= 0xFFFFFFFF
  masked = (checksum >> 15 | checksum << 17) + 0xA282EAD8
  return struct.pack('<I', masked & 0xFFFFFFFF) == head[8:12]


def _inflate(head: bytes, wbits: int) -> bytes | None:
  """The first bytes of what was compressed; None: it is something else."""
  decompressor = zlib.decompressobj(wbits)
  try:
    inflated = decompressor.decompress(head, 1024)
  except zlib.error:
    return None
  return inflated if inflated or decompressor.eof else None


def find_compression(path: str) -> str:
  """How a shard is compressed, as its bytes tell.

  Args:
    path: Of the shard.

  Returns:
    '', `GZIP` or `ZLIB`, as `tf.data.TFRecordDataset` takes it.

  Raises:
    ValueError: It is a file of another kind.
    OSError: It cannot be read.
  """
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      head = file.read(1 << 16)
  except tf.errors.OpError as e:
    raise OSError(
      f'The shard {path} cannot be read: {file_utils.reason(e)}.'
    ) from e
  if _is_header(head):
    return ''
  for compression, wbits in ((ZLIB, 0), (GZIP, 16)):
    inflated = _inflate(head, zlib.MAX_WBITS + wbits)
    if inflated == b'' or inflated and _is_header(inflated):
      return compression
  for content, how in ((head, ''), (inflated or b'', ', compressed with gzip')):
    for form in _OTHER_FORMATS:
      start = content[form.place : form.place + 100].lower()
      if start.lstrip(b'\xef\xbb\xbf \r\n').startswith(form.start):
        unpack = form.unpack or ('gunzip' if how else '')
        advice = f'Unpack it (`{unpack}`) and give' if unpack else 'Give'
        raise ValueError(
          f'The shard {path} is no TFRecord file: it is {form.name}{how}. '
          f'{advice} the shards themselves.'
        )
  if head.startswith(_GZIP_START):
    raise ValueError(
      f'What {path}, compressed with gzip, holds is no TFRecord file, or only '
      f'a part of one. {advise(path)}'
    )
  return ''


def find_compressions(paths: Sequence[str]) -> list[str]:
  """`find_compression` of many shards, several at a time."""
  with futures.ThreadPoolExecutor(max_workers=16) as pool:
    return list(pool.map(find_compression, paths))


def advise(path: str) -> str:
  """What to do about a shard that is damaged, a sentence or two.

  Only what ingest wrote, and can write again, is to be removed.

  Args:
    path: Of the shard.
  """
  folder, name = os.path.split(path)
  try:
    with tf.io.gfile.GFile(os.path.join(folder, DATASET_INFO), 'rb') as file:
      splits = json.loads(file.read())['splits'].values()
    # As ingest names them: `train-?????-of-00016.tfrecord`.
    form = re.sub(r'-\d{5}-of-(?=\d{5}\.tfrecord$)', '-?????-of-', name)
    is_own = any(form == split['shards'] for split in splits)
  except (
    OSError,
    tf.errors.OpError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
  ):
    is_own = False  # It is of another program.
  if is_own:
    return (
      'Remove it and make it again with `python -m vatt_tf.ingest`, which goes '
      'on where it stopped.'
    )
  return (
    'Copy or download it again, or make it again with what wrote it, such as '
    '`python -m vatt_tf.ingest`.'
  )


def open_shard(path: str, **options) -> tf.data.TFRecordDataset:
  """The records of a shard, compressed or not.

  Args:
    path: Of the shard.
    **options: Of `tf.data.TFRecordDataset`.

  Raises:
    ValueError: It is a file of another kind.
  """
  return tf.data.TFRecordDataset(path, find_compression(path), **options)


def count_records(path: str) -> int:
  """Counts the records of a shard by walking from length to length.

  Only the 8 bytes that announce each record are read; what is compressed is
  read as a whole.

  Raises:
    ValueError: The file ends in the middle of a record, or is no shard.
    OSError: It cannot be read.
  """
  compression = find_compression(path)
  if compression:
    return _count_compressed(path, compression)
  with tf.io.gfile.GFile(path, 'rb') as file:
    size = file.size()
    if file_utils.is_remote(path):
      return _walk(path, file, size)
  with open(path, 'rb') as file:
    return _walk(path, file, size)


def _count_compressed(path, compression):
  count = 0
  try:
    for _ in tf.data.TFRecordDataset(path, compression):
      count += 1
  except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as e:
    raise ValueError(
      f'The shard {path}, compressed with {compression.lower()}, is truncated '
      f'or corrupt after {count} records: {file_utils.reason(e)}. '
      f'{advise(path)}'
    ) from e
  return count


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
        f'but the file has {size} bytes. {advise(path)}'
      )
    position, count = after, count + 1
  return count


def count_all_records(paths: Sequence[str]) -> list[int]:
  """`count_records` of many shards, several at a time."""
  with futures.ThreadPoolExecutor(max_workers=16) as pool:
    return list(pool.map(count_records, paths))


# Reading with plain Python.


class RecordError(ValueError):
  """The bytes of a record are no `SequenceExample`."""


def parse_example(serialized: bytes) -> tf.train.SequenceExample:
  """The protocol buffer of a record.

  Raises:
    RecordError: It is none.
  """
  try:
    return tf.train.SequenceExample.FromString(serialized)
  except message.DecodeError as e:
    raise RecordError(
      f'its {len(serialized)} bytes are no tf.train.SequenceExample'
    ) from e


def _all_values(example: tf.train.SequenceExample, key: str, dtype: str):
  """Every value of a key, however it is laid out.

  Where both the feature lists and the context have some, those of the lists
  count, as in `parse_record`.
  """
  values = []
  if key in example.feature_lists.feature_list:
    features = example.feature_lists.feature_list[key].feature
    values = _values_of(features, dtype)
  if not len(values) and key in example.context.feature:
    values = _values_of([example.context.feature[key]], dtype)
  if dtype == FLOAT:
    return np.concatenate(values) if values else np.zeros([0], np.float32)
  return values


def _values_of(features, dtype: str) -> list:
  """The values of features; of floats the arrays that are not empty."""
  if dtype == FLOAT:
    parts = [_floats(feature.float_list) for feature in features]
    return [part for part in parts if part.size]
  values = []
  for feature in features:
    source = feature.int64_list if dtype == INT64 else feature.bytes_list
    values.extend(source.value)
  return values


def read_values(serialized: bytes) -> dict[str, list | np.ndarray]:
  """Every field of a record by name, as lists (waveform: an array).

  Takes the layouts and spellings of the module docstring.

  Raises:
    RecordError: It is no record.
  """
  example = parse_example(serialized)
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

  Raises:
    RecordError: It is no record.
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
  if channels > waveform.size:
    waveform = waveform[:0]
  elif channels > 1:
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
    ValueError: The shard is truncated or corrupt, or holds something else.
  """
  try:
    for number, record in enumerate(open_shard(path).as_numpy_iterator()):
      try:
        clip = read_clip(record)
      except RecordError as e:
        raise ValueError(
          f'Record {number} of the shard {path} is damaged: {e}. {advise(path)}'
        ) from e
      yield clip
  except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as e:
    raise ValueError(
      f'The shard {path} is truncated or corrupt ({e.message}). {advise(path)}'
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
