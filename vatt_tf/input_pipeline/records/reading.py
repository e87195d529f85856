"""Reads records, with TensorFlow ops or with plain Python.

The readers accept every layout that is common in shards of video data sets:

*   a feature in the context or in a feature list,
*   one frame per step, or (as older DMVR scripts wrote them) all frames packed
    in one `Feature`,
*   the DMVR spellings listed as aliases in `schema.FEATURE_SPEC`,
*   a plain `tf.train.Example`: on the wire its features are the context of a
    `SequenceExample`.
"""

from collections.abc import Iterator, Sequence
import functools
import itertools

from google.protobuf import message
import numpy as np
import tensorflow as tf

from vatt_tf.input_pipeline.records import schema, shard_files, writing


class RecordError(ValueError):
  """The bytes of a record are not a `SequenceExample`."""


def parse_example(serialized: bytes) -> tf.train.SequenceExample:
  """Returns the protocol buffer of a record.

  Raises:
    RecordError: The bytes are not a `SequenceExample`.
  """
  try:
    return tf.train.SequenceExample.FromString(serialized)
  except message.DecodeError as e:
    raise RecordError(
      f'its {len(serialized)} bytes are not a tf.train.SequenceExample'
    ) from e


def _all_values(example: tf.train.SequenceExample, key: str, dtype: str):
  """Every value of a key, in any layout.

  Where both the feature lists and the context have values, the lists take
  precedence, as in `parse_record`.
  """
  values = []
  if key in example.feature_lists.feature_list:
    features = example.feature_lists.feature_list[key].feature
    values = _values_of(features, dtype)
  if not len(values) and key in example.context.feature:
    values = _values_of([example.context.feature[key]], dtype)
  if dtype == schema.FLOAT:
    return np.concatenate(values) if values else np.zeros([0], np.float32)
  return values


def _values_of(features, dtype: str) -> list:
  """The values of features; for floats, the arrays that are not empty."""
  if dtype == schema.FLOAT:
    parts = [writing.floats(feature.float_list) for feature in features]
    return [part for part in parts if part.size]
  values = []
  for feature in features:
    source = feature.int64_list if dtype == schema.INT64 else feature.bytes_list
    values.extend(source.value)
  return values


def read_values(serialized: bytes) -> dict[str, list | np.ndarray]:
  """Returns every field of a record by name, as lists (waveform: an array).

  It accepts the layouts and spellings of the module docstring.

  Raises:
    RecordError: The bytes are not a record.
  """
  example = parse_example(serialized)
  values = {}
  for field in schema.FEATURE_SPEC:
    for key in (field.key, *field.aliases):
      values[field.name] = _all_values(example, key, field.dtype)
      if len(values[field.name]):
        break
  return values


def read_clip(serialized: bytes) -> schema.Clip:
  """Reads a record back into a `Clip`, in plain Python.

  Args:
    serialized: A record in any of the layouts of the module docstring.

  Returns:
    The clip. Times count from its start (see `parse_record`).

  Raises:
    RecordError: The bytes are not a record.
  """
  values = read_values(serialized)

  def first(name, default):
    return values[name][0] if len(values[name]) else default

  def text(value):
    return value.decode('utf-8', errors='replace')

  start = first('clip_start', 0)
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
  channels = int(first('waveform_channels', 1))
  if channels > waveform.size:
    waveform = waveform[:0]
  elif channels > 1:
    waveform = waveform[: waveform.size // channels * channels]
    waveform = waveform.reshape([-1, channels]).mean(axis=1)
  return schema.Clip(
    example_id=text(first('example_id', b'')),
    dataset_name=text(first('dataset_name', b'')),
    frames=values['image_encoded'],
    timestamps=times,
    frame_rate=float(first('image_frame_rate', 0.0)),
    height=int(first('image_height', 0)),
    width=int(first('image_width', 0)),
    waveform=waveform if waveform.size else None,
    sample_rate=float(first('waveform_rate', 0.0)),
    captions=[
      schema.Caption(text(caption), caption_start, caption_end)
      for caption, caption_start, caption_end in zip(
        values['caption_text'], starts, ends
      )
    ],
    label_indices=[int(index) for index in values['label_index']],
    label_names=[text(name) for name in values['label_name']],
    data_path=text(first('data_path', b'')),
    start=int(start),
    end=int(first('clip_end', 0)),
    regions=_regions(values),
  )


def _regions(values) -> list[list[schema.Region]]:
  """The boxes of each frame, from the values of all frames."""
  boxes = zip(*(values[f'region_{edge}'] for edge in schema.EDGES))
  labels = itertools.chain(values['region_label'], itertools.repeat(b''))
  is_sounding = itertools.chain(
    values['region_is_sounding'], itertools.repeat(-1)
  )
  regions = (
    schema.Region(
      *map(float, edges),
      label.decode('utf-8', errors='replace'),
      None if sounds < 0 else bool(sounds),
    )
    for edges, label, sounds in zip(boxes, labels, is_sounding)
  )
  return [
    list(itertools.islice(regions, int(count)))
    for count in values['region_count']
  ]


def read_shard(path: str) -> Iterator[schema.Clip]:
  """Yields the clips of a shard.

  Raises:
    ValueError: The shard is truncated or corrupt, or holds something else.
  """
  try:
    for number, record in enumerate(
      shard_files.open_shard(path).as_numpy_iterator()
    ):
      try:
        clip = read_clip(record)
      except RecordError as e:
        raise ValueError(
          f'Record {number} of the shard {path} is damaged: {e}. '
          f'{shard_files.advise(path)}'
        ) from e
      yield clip
  except (tf.errors.DataLossError, tf.errors.OutOfRangeError) as e:
    raise ValueError(
      f'The shard {path} is truncated or corrupt ({e.message}). '
      f'{shard_files.advise(path)}'
    ) from e


def _first_nonempty(values: Sequence[tf.Tensor]) -> tf.Tensor:
  """The first of several vectors that has an element; empty if none has."""
  *candidates, first = values
  for value in reversed(candidates):
    # A concatenation would be simpler, but would copy the sound.
    first = tf.cond(
      tf.size(value) > 0,
      functools.partial(tf.identity, value),
      functools.partial(tf.identity, first),
    )
  return first


def parse_record(
  serialized: tf.Tensor, names: Sequence[str] | None = None
) -> dict[str, tf.Tensor]:
  """Parses a record with TensorFlow ops, for use in `tf.data`.

  Args:
    serialized: () string, a record in any of the layouts of the module
      docstring.
    names: Names of the fields to parse (`Field.name`); by default all.

  Returns:
    A dictionary from the names of `FEATURE_SPEC` to vectors of the values in
    the record, empty for fields that it lacks. Frames are (n,) string; the
    waveform is (S,) float32 as stored (channels interleaved).
    `image_timestamp`, `caption_start` and `caption_end` count in µs from the
    start of the clip: where the first frame is at or after a positive
    `clip/start/timestamp`, the times of the record count from the start of the
    media file, and that timestamp is subtracted from all three.

  Raises:
    ValueError: A name is unknown.
  """
  requested = list(schema.FIELDS) if names is None else list(names)
  for name in requested:
    if name not in schema.FIELDS:
      raise ValueError(
        f'`names` must be among {", ".join(schema.FIELDS)}. Received: {name}'
      )
  parsed = list(dict.fromkeys(requested))
  timed = ('image_timestamp', 'caption_start', 'caption_end')
  if any(name in parsed for name in timed):
    parsed += [n for n in ('image_timestamp', 'clip_start') if n not in parsed]
  keys = {}
  for name in parsed:
    field = schema.FIELDS[name]
    for key in (field.key, *field.aliases):
      keys[key] = tf.io.RaggedFeature(schema.TF_DTYPES[field.dtype])
  # In every layout, a field of one value is a context feature.
  listed = {
    key: feature
    for key, feature in keys.items()
    if not any(
      f.key == key and f.count == schema.ONE for f in schema.FEATURE_SPEC
    )
  }
  context, lists = tf.io.parse_single_sequence_example(
    serialized, context_features=keys, sequence_features=listed or None
  )
  features = {}
  for name in parsed:
    field = schema.FIELDS[name]
    values = []
    for key in (field.key, *field.aliases):
      if key in lists:
        values.append(lists[key].flat_values)
      values.append(context[key])
    features[name] = _first_nonempty(values)  # (n,)
  if any(name in requested for name in timed):
    origin = _time_origin(features['image_timestamp'], features['clip_start'])
    for name in timed:
      if name in features:
        features[name] -= origin
  return {name: features[name] for name in requested}


def _time_origin(timestamps: tf.Tensor, clip_start: tf.Tensor) -> tf.Tensor:
  """The time to subtract from the times of a record, () int64, µs."""
  zero = tf.zeros([1], tf.int64)
  start = tf.concat([clip_start, zero], axis=0)[0]
  first = tf.concat([timestamps, zero], axis=0)[0]
  return tf.where((start > 0) & (first >= start), start, 0)
