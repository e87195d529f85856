"""Clips in memory: all of a record that is not random, decoded once.

The functions of `clip` draw a row from it, by the number of the record.
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
  clip_cache,
  frame_ops,
  video_config,
)
from vatt_tf.input_pipeline import clip as clip_lib
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import text as text_lib
from vatt_tf.input_pipeline import video as video_lib

# Keys of what `decode_clip` makes of frames and captions.
FRAMES = 'frames'
FRAME_SIZE = 'frame_size'
CAPTION_IDS = 'caption_ids'
CAPTION_MASK = 'caption_mask'


@dataclasses.dataclass(frozen=True)
class CachedClip:
  """What is kept of a record: decoded frames, and captions as token ids.

  Attributes:
    features: Of `decode_clip`, with `source`, `shard`, `index` and `epoch`.
  """

  features: dict[str, tf.Tensor]

  def video(
    self,
    indices: tf.Tensor,
    config: video_config.VideoConfig,
    seeds: tuple[tf.Tensor | None, tf.Tensor | None],
    crop: int,
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cuts the frames out of those in memory; see `clip.Clip`.

    Args:
      indices: As of `clip.Clip`.
      config: As of `clip.Clip`.
      seeds: As of `clip.Clip`.
      crop: Unused: training has one window.
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

  def num_captions(self) -> tf.Tensor:
    """The number of captions, () int32."""
    return tf.shape(self.features[CAPTION_IDS])[0]

  def captions(
    self, chosen: tf.Tensor, plan: plan_lib.Plan
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes token ids and masks; see `clip.Clip`."""
    missing = plan.text.num_captions - tf.size(chosen)
    ids = tf.gather(self.features[CAPTION_IDS], chosen)
    ids = tf.pad(ids, [[0, missing], [0, 0]])  # (C, L)
    mask = tf.gather(self.features[CAPTION_MASK], chosen)
    return (
      tf.ensure_shape(ids, plan.text.shape),
      tf.ensure_shape(tf.pad(mask, [[0, missing]]), [plan.text.num_captions]),
    )

  def report(self, faults: list[tf.Tensor], plan: plan_lib.Plan) -> tf.Tensor:
    """Empty: a record that something is wrong with is not kept decoded."""
    del faults, plan
    return tf.fill([bad_records.REPORT_SIZE], '')


def clip_spec(plan: plan_lib.Plan) -> dict[str, tf.TensorSpec]:
  """Shapes and types of a clip of `decode_clip`."""
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
  """All frames of a record at all scales, their size, and whether all went."""

  def decode(frames):
    decoded, size = frame_ops.decode_whole(frames, config)
    return *decoded, size, True

  def nothing(is_right):
    empty = tf.zeros([0, 0, 0, 3], tf.uint8)
    return *[empty] * frame_ops.NUM_SCALES, tf.zeros([2], tf.int32), is_right

  def some():
    return tensor_utils.guarded(decode, (frames,), lambda: nothing(False))

  return tf.cond(tf.size(frames) > 0, some, lambda: nothing(True))


def decode_clip(
  element: dict[str, tf.Tensor], plan: plan_lib.Plan
) -> dict[str, tf.Tensor]:
  """Reads and decodes all of a record that is not random.

  Args:
    element: Of `read_epoch`.
    plan: Of the pipeline; of training.

  Returns:
    The tensors of `clip_spec`. `record` is empty; but when something is wrong
    with the record it is the record, to be loaded as others are, and what is
    decoded is empty.
  """
  features = clip_lib.prepare(element, plan)
  is_right = tf.reduce_all(tf.equal(features['faults'], 0))
  if plan.video is not None:
    *decoded, features[FRAME_SIZE], is_decoded = _decode_frames(
      features['image_encoded'], plan.video
    )
    for scale, frames in enumerate(decoded):
      features[f'{FRAMES}_{scale}'] = frames
    is_right &= is_decoded
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

  def right():
    return {
      key: tf.constant('') if key == 'record' else features[key]
      for key in clip_spec(plan)
    }

  def wrong():
    return _undecoded(element, plan)

  return tf.cond(is_right, right, wrong)


def _undecoded(element, plan):
  """A clip of `decode_clip` that holds nothing but its record."""
  clip = {key: _zeros_of(spec) for key, spec in clip_spec(plan).items()}
  return {**clip, 'record': element['record']}


def _zeros_of(spec):
  """A tensor of a specification, its dynamic axes of length 0."""
  shape = [size or 0 for size in spec.shape]
  if spec.dtype == tf.string:
    return tf.fill(shape, '')
  return tf.zeros(shape, spec.dtype)


@tensor_utils.as_graph
def _sample_cached(features, plan):
  return clip_lib.sample_clip(CachedClip(features), plan)


@tensor_utils.as_graph
def _load_cached(element, *, plan, cache):
  """The row of a record that may be in the cache; it is if it was not read."""
  found = cache.find(plan_lib.number_of(element, plan))

  def cached():
    return cache.take(found)

  def not_cached():
    return _undecoded(element, plan)

  if 'record' in element:
    clip = tf.cond(cache.is_found(found), cached, not_cached)
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
  """`load_records`, where the clips of all records or some are in memory."""
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
    cache: Of the clips.
    readers: For each source `read_shard` and the numbers of its shards.
    plan: Of the pipeline.
    num_records: That this pipeline reads.

  Returns:
    Whether all of them are there.
  """
  start = time.monotonic()
  read_all = []
  for read_shard, shards in readers:
    shards = tf.data.Dataset.from_tensor_slices(tf.constant(shards, tf.int64))
    epoch = tf.constant(0, tf.int64)
    read_all.append(shards.flat_map(functools.partial(read_shard, epoch=epoch)))
  dataset = functools.reduce(tf.data.Dataset.concatenate, read_all)

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
