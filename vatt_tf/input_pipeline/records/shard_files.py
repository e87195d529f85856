"""Finds the shards of a data set and their compression; counts records."""

from collections.abc import Sequence
from concurrent import futures
import dataclasses
import json
import os
import re
import struct
from typing import Any
import zlib

import tensorflow as tf

from vatt_tf.core import file_utils
from vatt_tf.input_pipeline.records import schema


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
    with tf.io.gfile.GFile(
      os.path.join(folder, schema.DATASET_INFO), 'rb'
    ) as file:
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


def open_shard(path: str, **options: Any) -> tf.data.TFRecordDataset:
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
