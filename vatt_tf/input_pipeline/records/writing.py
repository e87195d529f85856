"""Writes clips as records, in shards.

Writing needs no TensorFlow op and no session, so it can run in any thread or
process.
"""

from collections.abc import Sequence
import os

import numpy as np
import tensorflow as tf

from vatt_tf.input_pipeline.records import schema


def _clip_values(clip: schema.Clip) -> dict[str, list | np.ndarray]:
  """The values of each field; an empty list leaves the field out."""
  has_frames = bool(clip.frames)
  has_waveform = clip.waveform is not None and np.size(clip.waveform) > 0
  times = list(clip.timestamps)
  if has_frames and not times:
    times = schema.frame_times(len(clip.frames), clip.frame_rate)
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
    **_region_values(clip.regions),
    'example_id': [clip.example_id] if clip.example_id else [],
    'dataset_name': [clip.dataset_name] if clip.dataset_name else [],
  }


def _region_values(
  regions: Sequence[Sequence[schema.Region]],
) -> dict[str, list]:
  """The values of the fields of boxes, a list for each frame."""

  def of_all(value):
    return [[value(region) for region in of_frame] for of_frame in regions]

  values = {'region_count': [len(of_frame) for of_frame in regions]}
  for edge in schema.EDGES:
    values[f'region_{edge}'] = of_all(lambda x, edge=edge: getattr(x, edge))
  values['region_label'] = of_all(lambda x: x.label)
  values['region_is_sounding'] = of_all(
    lambda x: -1 if x.is_sounding is None else int(x.is_sounding)
  )
  return values


def _float_list(values: Sequence[float] | np.ndarray):
  """A `FloatList` from the bytes of an array, which avoids a loop."""
  array = np.ascontiguousarray(values, dtype='<f4')
  length, header = array.nbytes, bytearray(b'\n')  # Field 1, length-delimited.
  while length > 127:
    header.append(length & 127 | 128)
    length >>= 7
  header.append(length)
  return tf.train.FloatList.FromString(bytes(header) + array.tobytes())


def floats(float_list: tf.train.FloatList) -> np.ndarray:
  """Returns the values of a `FloatList` as (n,) float32, from its bytes."""
  count = len(float_list.value)
  packed = float_list.SerializeToString()
  values = packed[len(packed) - 4 * count :]
  return np.frombuffer(values, dtype='<f4').astype(np.float32)


def _feature(dtype: str, values) -> tf.train.Feature:
  if dtype == schema.FLOAT:
    return tf.train.Feature(float_list=_float_list(values))
  if dtype == schema.INT64:
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


def make_sequence_example(clip: schema.Clip) -> tf.train.SequenceExample:
  """Returns the protocol buffer of a clip, laid out as in `FEATURE_SPEC`.

  Raises:
    ValueError: The clip cannot be written (`check_clip`).
  """
  schema.check_clip(clip)
  values = _clip_values(clip)
  example = tf.train.SequenceExample()
  for field in schema.FEATURE_SPEC:
    field_values = values[field.name]
    if not len(field_values):
      continue
    if field.placement == schema.CONTEXT:
      example.context.feature[field.key].CopyFrom(
        _feature(field.dtype, field_values)
      )
    elif field.count == schema.ONE_STEP:
      example.feature_lists.feature_list[field.key].feature.add().CopyFrom(
        _feature(field.dtype, field_values)
      )
    else:
      if field.count != schema.MANY_PER_STEP:
        field_values = [[value] for value in field_values]
      steps = example.feature_lists.feature_list[field.key].feature
      steps.extend(_feature(field.dtype, of_step) for of_step in field_values)
  return example


def serialize_clip(clip: schema.Clip) -> bytes:
  """Returns the serialised `make_sequence_example` of a clip."""
  # Deterministic: the same bytes in every process, for any order of map keys.
  return make_sequence_example(clip).SerializeToString(deterministic=True)


def shard_path(folder: str, name: str, index: int, num_shards: int) -> str:
  """Returns the path of a shard, `folder/name-00003-of-00016.tfrecord`.

  Args:
    folder: Folder of the records.
    name: Name of the split.
    index: Number of the shard, from 0.
    num_shards: Number of shards of the split.

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
  """Writes one shard, which either is complete or does not exist.

  The records are written to a hidden file beside the shard, which is renamed
  when the writer is closed. An exception inside `with` removes the hidden file,
  and does not change an existing shard of that name.

  Args:
    path: Path of the shard.

  Example:
    >>> with writing.ShardWriter(path) as writer:
    ...   writer.write(clip)
  """

  def __init__(self, path: str):
    folder, name = os.path.split(os.fspath(path))
    self.path = os.fspath(path)
    self.num_records = 0
    self._temporary_path = os.path.join(folder, f'.{name}.{os.getpid()}.part')
    if folder:
      tf.io.gfile.makedirs(folder)
    self._writer = tf.io.TFRecordWriter(self._temporary_path)

  def write(self, record: bytes | schema.Clip) -> None:
    """Writes a clip, or a serialised record."""
    if isinstance(record, schema.Clip):
      record = serialize_clip(record)
    self._writer.write(record)
    self.num_records += 1

  def close(self) -> None:
    """Completes the shard: renames the hidden file."""
    self._writer.close()
    tf.io.gfile.rename(self._temporary_path, self.path, overwrite=True)

  def abort(self) -> None:
    """Removes the hidden file, without a shard."""
    self._writer.close()
    tf.io.gfile.remove(self._temporary_path)

  def __enter__(self) -> 'ShardWriter':
    return self

  def __exit__(self, error_type, error, traceback) -> None:
    if error_type is None:
      self.close()
    else:
      self.abort()
