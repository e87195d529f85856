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
  """A pattern of shards is None, so there are no records."""


def match_shards(
  pattern: str | Sequence[str], macro: str = 'TRAIN_RECORDS'
) -> list[str]:
  """Returns the sorted paths of the files that a pattern matches.

  A name that exists literally is used as it is: the name of a folder
  `data [v2]` is not a pattern, and a comma in the name of a file or folder does
  not separate patterns.

  Args:
    pattern: A glob pattern, several separated by commas, or a list of patterns.
    macro: Gin macro that holds the pattern, for the error message.

  Raises:
    ValueError: A pattern matches no file, or is not a string; `NoRecordsError`
      if it is None.
    OSError: The file system of the files does not answer.
  """
  is_string = isinstance(pattern, str | os.PathLike)
  patterns = [pattern] if is_string else pattern
  if not isinstance(patterns, list | tuple) or not all(
    isinstance(path, str | os.PathLike) for path in patterns
  ):
    error = NoRecordsError if pattern is None else ValueError
    raise error(
      f'The gin macro {macro} must be a pattern of shards in quotes, or a list '
      f'of patterns, such as --gin_param="{macro}=\'/data/train-*.tfrecord\'". '
      f'Received: {macro}={pattern!r}'
    )
  patterns = [file_utils.expand(os.fspath(path)) for path in patterns]
  if is_string:
    patterns = _split(patterns[0])
  paths = set()
  for record_glob in patterns:
    matches = _match(record_glob)
    if not matches:
      raise ValueError(
        f'No file matches the record pattern {record_glob.strip()!r}. Set the '
        f'gin macro {macro} to shards that exist (--gin_param="{macro}=\'/data/'
        'train-*.tfrecord\'"), or make them with `python -m vatt_tf.ingest`.'
        f'{file_utils.advise_on_sample(record_glob)}'
      )
    paths.update(matches)
  return sorted(paths)


def _split(text):
  """Splits a text at the commas that separate patterns, not those in names."""
  if ',' not in text or _match(text):
    return [text]
  patterns, parts = [], text.split(',')
  while parts:
    for number in range(1, len(parts) + 1):
      if _match(','.join(parts[:number])):
        break
    else:
      number = 1  # The part matches nothing, which is an error later.
    patterns.append(file_utils.expand(','.join(parts[:number])))
    parts = parts[number:]
  return patterns


def _match(pattern):
  """The files that a pattern matches; a name may have spaces around it."""
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
  # A bucket need not tell whether it exists.
  number = next(
    (i for i, part in enumerate(parts) if file_utils.has_magic(part)),
    len(parts),
  )
  folders = ['/'.join(parts[:number])]
  for i, part in enumerate(parts[number:], number):
    matches = []
    for folder in folders:
      start = f'{folder}/' if i else ''
      if file_utils.exists(start + part):
        matches.append(start + part)
      elif file_utils.has_magic(part):
        try:
          names = tf.io.gfile.glob(file_utils.escape(start) + part)
          # `glob` adds `./` to relative paths.
          matches += [start + os.path.basename(name) for name in names]
        except tf.errors.OpError as e:
          raise OSError(
            f'{folder} cannot be read: {file_utils.reason(e)}.'
          ) from e
    folders = matches
  if is_remote:
    return (
      folders
      if number < len(parts)
      else list(filter(file_utils.exists, folders))
    )
  return [path for path in folders if os.path.isfile(path)]


@dataclasses.dataclass(frozen=True)
class _Format:
  """A kind of file that is not a shard.

  Attributes:
    name: Name of the kind, for messages.
    start: Characteristic bytes, in lower case.
    place: Position of these bytes.
    unpack: Command that extracts the content, or ''.
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
  """The first bytes after decompression; None if that is impossible."""
  decompressor = zlib.decompressobj(wbits)
  try:
    inflated = decompressor.decompress(head, 1024)
  except zlib.error:
    return None
  return inflated if inflated or decompressor.eof else None


def find_compression(path: str) -> str:
  """Detects the compression of a shard from its bytes.

  Args:
    path: Path of the shard.

  Returns:
    '', `GZIP` or `ZLIB`, as for `tf.data.TFRecordDataset`.

  Raises:
    ValueError: The file is of another kind.
    OSError: The file cannot be read.
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
  for content, suffix in (
    (head, ''),
    (inflated or b'', ', compressed with gzip'),
  ):
    for form in _OTHER_FORMATS:
      start = content[form.place : form.place + 100].lower()
      if start.lstrip(b'\xef\xbb\xbf \r\n').startswith(form.start):
        unpack = form.unpack or ('gunzip' if suffix else '')
        advice = f'Unpack it (`{unpack}`) and give' if unpack else 'Give'
        raise ValueError(
          f'The shard {path} is not a TFRecord file: it is '
          f'{form.name}{suffix}. {advice} the shards themselves.'
        )
  if head.startswith(_GZIP_START):
    raise ValueError(
      f'The file {path}, compressed with gzip, holds no TFRecord file, or only '
      f'a part of one. {advise(path)}'
    )
  return ''


def find_compressions(paths: Sequence[str]) -> list[str]:
  """Detects the compression of many shards, several at a time."""
  with futures.ThreadPoolExecutor(max_workers=16) as pool:
    return list(pool.map(find_compression, paths))


def advise(path: str) -> str:
  """Returns a sentence that tells what to do about a damaged shard.

  It suggests to remove only a shard that ingest wrote and can write again.

  Args:
    path: Path of the shard.
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
    is_own = False  # Another program wrote the shard.
  if is_own:
    return (
      'Remove it, and rerun `python -m vatt_tf.ingest` to write it again; '
      'finished shards are kept.'
    )
  return (
    'Copy or download it again, or write it again with the program that wrote '
    'it, such as `python -m vatt_tf.ingest`.'
  )


def open_shard(path: str, **options: Any) -> tf.data.TFRecordDataset:
  """Returns the records of a shard, compressed or not.

  Args:
    path: Path of the shard.
    **options: Options of `tf.data.TFRecordDataset`.

  Raises:
    ValueError: The file is of another kind.
  """
  return tf.data.TFRecordDataset(path, find_compression(path), **options)


def count_records(path: str) -> int:
  """Counts the records of a shard by the lengths in front of them.

  Only the 8 bytes of each length are read; a compressed shard is read
  completely.

  Raises:
    ValueError: The file ends in the middle of a record, or is not a shard.
    OSError: The file cannot be read.
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
    # A record has 8 bytes of length, 4 of its checksum, the data, and 4 of the
    # checksum of the data.
    end = position + 16
    if len(header) == 8:
      end += struct.unpack('<Q', header)[0]
    if len(header) < 8 or end > size:
      raise ValueError(
        f'The shard {path} is truncated or is not a TFRecord file: record '
        f'{count} starts at byte {position} and should end at byte {end}, '
        f'but the file has {size} bytes. {advise(path)}'
      )
    position, count = end, count + 1
  return count


def count_all_records(paths: Sequence[str]) -> list[int]:
  """Counts the records of many shards, several at a time."""
  with futures.ThreadPoolExecutor(max_workers=16) as pool:
    return list(pool.map(count_records, paths))
