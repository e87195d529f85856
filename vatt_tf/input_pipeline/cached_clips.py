"""Clips in memory: the decoded parts of a record that are not random.

The functions of `clip` draw a row from a cached clip.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import time

from absl import logging
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.core import tensor_utils
from vatt_tf.input_pipeline import (
  bad_records,
  boxes,
  clip_cache,
  frame_ops,
  video_config,
)
from vatt_tf.input_pipeline import clip as clip_lib
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import text as text_lib
from vatt_tf.input_pipeline import video as video_lib
from vatt_tf.input_pipeline.records import schema

# Keys of the frames and captions that `decode_clip` returns.
FRAMES = 'frames'
FRAME_SIZE = 'frame_size'
CAPTION_IDS = 'caption_ids'
CAPTION_MASK = 'caption_mask'


@dataclasses.dataclass(frozen=True)
class CachedClip:
  """The cached parts of a record: decoded frames, and captions as token ids.

  Attributes:
    features: Features of `decode_clip`, with `source`, `shard`, `index` and
      `epoch`.
  """

  features: dict[str, tf.Tensor]

  def video(
    self,
    indices: tf.Tensor,
    config: video_config.VideoConfig,
    seeds: tuple[tf.Tensor | None, tf.Tensor | None],
    crop: int,
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Takes the frames of a clip from memory; see `clip.Clip`.

    Args:
      indices: See `clip.Clip`.
      config: See `clip.Clip`.
      seeds: See `clip.Clip`.
      crop: Unused, because training has one window.
    """
    del crop
    scales = [
      self.features[f'{FRAMES}_{scale}']
      for scale in range(frame_ops.NUM_SCALES)
    ]
    frames = frame_ops.take_frames(
      scales, self.features[FRAME_SIZE], indices, config, seeds[0]
    )
    return video_lib.finish_frames(frames, config, seeds[1]), True, 0

  def frame_size(self) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns height and width of the stored frames, () int32."""
    return tuple(tf.unstack(self.features[FRAME_SIZE]))

  def num_captions(self) -> tf.Tensor:
    """Returns the number of captions, () int32."""
    return tf.shape(self.features[CAPTION_IDS])[0]

  def captions(
    self, chosen: tf.Tensor, plan: plan_lib.Plan
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns token ids and masks; see `clip.Clip`."""
    num_padding = plan.text.num_captions - tf.size(chosen)
    ids = tf.gather(self.features[CAPTION_IDS], chosen)
    ids = tf.pad(ids, [[0, num_padding], [0, 0]])  # (C, L)
    mask = tf.gather(self.features[CAPTION_MASK], chosen)
    return (
      tf.ensure_shape(ids, plan.text.shape),
      tf.ensure_shape(
        tf.pad(mask, [[0, num_padding]]), [plan.text.num_captions]
      ),
    )

  def report(self, faults: list[tf.Tensor], plan: plan_lib.Plan) -> tf.Tensor:
    """Returns empty strings, because a record with a fault is not cached."""
    del faults, plan
    return tf.fill([bad_records.REPORT_SIZE], '')


def clip_spec(plan: plan_lib.Plan) -> dict[str, tf.TensorSpec]:
  """Returns the shapes and types of a clip of `decode_clip`."""
  number = tf.TensorSpec([], tf.int64)
  numbers = tf.TensorSpec([None], tf.int64)
  spec = {
    'record': tf.TensorSpec([], tf.string),
    'example_id': tf.TensorSpec([None], tf.string),
  }
  if plan.video is not None:
    spec['image_timestamp'] = numbers
    spec['video_end'] = number
    spec[FRAME_SIZE] = tf.TensorSpec([2], tf.int32)
    frames = tf.TensorSpec([None, None, None, 3], tf.uint8)
    for scale in range(frame_ops.NUM_SCALES):
      spec[f'{FRAMES}_{scale}'] = frames
    if plan.video.max_boxes:
      for name in boxes.FIELDS:
        dtype = schema.TF_DTYPES[schema.FIELDS[name].dtype]
        spec[name] = tf.TensorSpec([None], dtype)
  if plan.audio is not None:
    spec['waveform'] = tf.TensorSpec([None], tf.float32)
    spec['waveform_rate'] = tf.TensorSpec([], tf.int32)
  if plan.text is not None:
    spec['caption_start'] = spec['caption_end'] = numbers
    length = plan.text.max_words
    spec[CAPTION_IDS] = tf.TensorSpec([None, length], tf.int32)
    spec[CAPTION_MASK] = tf.TensorSpec([None], tf.bool)
  if plan.label is not None:
    spec[names.LABEL] = plan_lib.row_spec(label=plan.label)[names.LABEL]
  return spec


def _decode_frames(frames, config):
  """The frames of a record at all scales, their size, and their validity."""

  def decode(frames):
    decoded, size = frame_ops.decode_whole(frames, config)
    return *decoded, size, True

  def nothing(is_valid):
    empty = tf.zeros([0, 0, 0, 3], tf.uint8)
    return *[empty] * frame_ops.NUM_SCALES, tf.zeros([2], tf.int32), is_valid

  def decode_all():
    return tensor_utils.guarded(decode, (frames,), lambda: nothing(False))

  return tf.cond(tf.size(frames) > 0, decode_all, lambda: nothing(True))


def decode_clip(
  element: dict[str, tf.Tensor], plan: plan_lib.Plan
) -> dict[str, tf.Tensor]:
  """Reads and decodes the parts of a record that are not random.

  Args:
    element: Element of `read_epoch`.
    plan: Plan of a training pipeline.

  Returns:
    The tensors of `clip_spec`. `record` is empty. If the record has a fault,
    `record` is the record itself, which is then loaded without the cache, and
    the decoded tensors are empty.
  """
  features = clip_lib.prepare(element, plan)
  is_valid = tf.reduce_all(tf.equal(features['faults'], 0))
  if plan.video is not None:
    *decoded, features[FRAME_SIZE], is_decoded = _decode_frames(
      features['image_encoded'], plan.video
    )
    for scale, frames in enumerate(decoded):
      features[f'{FRAMES}_{scale}'] = frames
    is_valid &= is_decoded
  if plan.text is not None:

    def encode(caption):
      ids, mask = text_lib.encode_captions(
        caption[None], plan.tokenizer, plan.text
      )
      return ids[0], mask[0]

    features[CAPTION_IDS], features[CAPTION_MASK] = tf.map_fn(
      encode,
      features['caption_text'],
      fn_output_signature=(
        tf.TensorSpec([plan.text.max_words], tf.int32),
        tf.TensorSpec([], tf.bool),
      ),
    )

  def decoded_clip():
    return {
      key: tf.constant('') if key == 'record' else features[key]
      for key in clip_spec(plan)
    }

  def undecoded_clip():
    return _undecoded(element, plan)

  return tf.cond(is_valid, decoded_clip, undecoded_clip)


def _undecoded(element, plan):
  """A clip of `decode_clip` that holds only its record."""
  clip = {key: _zeros_of(spec) for key, spec in clip_spec(plan).items()}
  return {**clip, 'record': element['record']}


def _zeros_of(spec):
  """A tensor of zeros for a specification, with dynamic axes of length 0."""
  shape = [size or 0 for size in spec.shape]
  if spec.dtype == tf.string:
    return tf.fill(shape, '')
  return tf.zeros(shape, spec.dtype)


@tensor_utils.as_graph
def _sample_cached(features, plan):
  return clip_lib.sample_clip(CachedClip(features), plan)


@tensor_utils.as_graph
def _load_cached(element, *, plan, cache):
  """The row of a record, from the cache if it is there.

  An element without `record` was not read, because all records are cached.
  """
  entry = cache.find(plan_lib.number_of(element, plan))

  def cached():
    return cache.take(entry)

  def not_cached():
    return _undecoded(element, plan)

  if 'record' in element:
    clip = tf.cond(cache.is_found(entry), cached, not_cached)
  else:
    clip = cached()
  element = {**element, 'record': clip.pop('record')}
  features = {**element, **clip}

  def decoded():
    return _sample_cached(features, plan)

  def read():
    dataset = clip_lib.load_records(tf.data.Dataset.from_tensors(element), plan)
    return dataset.get_single_element()

  return tf.cond(tf.equal(element['record'], ''), decoded, read)


def load_cached(
  dataset: tf.data.Dataset, plan: plan_lib.Plan, cache: clip_cache.ClipCache
) -> tf.data.Dataset:
  """Loads records like `clip.load_records`, with clips from the cache."""
  return dataset.map(
    functools.partial(_load_cached, plan=plan, cache=cache),
    num_parallel_calls=plan.num_parallel_calls,
    deterministic=True,
  )


def fill_cache(
  cache: clip_cache.ClipCache,
  readers: Sequence[tuple[Callable[..., tf.data.Dataset], Sequence[int]]],
  plan: plan_lib.Plan,
  num_records: int,
) -> bool:
  """Decodes the clips of this pipeline into the cache, while there is room.

  Args:
    cache: Cache of the clips.
    readers: `read_shard` and the numbers of the shards for each source.
    plan: Plan of the pipeline.
    num_records: Number of records that this pipeline reads.

  Returns:
    Whether all clips are in the cache.
  """
  start = time.monotonic()
  datasets = []
  for read_shard, shards in readers:
    shards = tf.data.Dataset.from_tensor_slices(tf.constant(shards, tf.int64))
    epoch = tf.constant(0, tf.int64)
    datasets.append(shards.flat_map(functools.partial(read_shard, epoch=epoch)))
  dataset = functools.reduce(tf.data.Dataset.concatenate, datasets)

  @tensor_utils.as_graph
  def decode(element):
    return plan_lib.number_of(element, plan), decode_clip(element, plan)

  dataset = dataset.map(
    decode, num_parallel_calls=plan.num_parallel_calls, deterministic=True
  )
  count = 0
  for number, clip in dataset:
    if not cache.add(number, clip):
      logging.warning(
        'The decoded clips take about %.3g GiB, more than `cache_gib`=%.3g: '
        'the first %d of %d are in memory, the others are read and decoded '
        'each time.',
        cache.gib * num_records / max(count, 1),
        cache.limit_gib,
        count,
        num_records,
      )
      return False
    count += 1
  logging.info(
    'All %d decoded clips are in memory: %.3g GiB, after %.1f s.',
    count,
    cache.gib,
    time.monotonic() - start,
  )
  return True
