"""Turns a record into the rows of its clips.

One time offset is drawn for video and sound; only the sampled frames are
decoded; captions are chosen and tokenized. Every random choice of a clip
follows from (seed, epoch, record): a record gets the same draws at every
position of a batch and in every input pipeline.
"""

import dataclasses
import functools
from typing import Protocol

import numpy as np
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.core import modalities, tensor_utils
from vatt_tf.input_pipeline import audio as audio_lib
from vatt_tf.input_pipeline import bad_records as bad_records_lib
from vatt_tf.input_pipeline import boxes as boxes_lib
from vatt_tf.input_pipeline import (
  encoded_audio,
  frame_ops,
  order,
  video_config,
)
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import text as text_lib
from vatt_tf.input_pipeline import video as video_lib
from vatt_tf.input_pipeline.records import reading, schema

# Key of a row's seed, which the functions of the whole batch remove.
SEED = '_seed'


class Clip(Protocol):
  """Source of the rows of `sample_clip`: a record, or its cached clip.

  Attributes:
    features: Tensors that both have: times of frames and captions, the
      waveform, the label, and the place of the record.
  """

  features: dict[str, tf.Tensor]

  def video(
    self,
    indices: tf.Tensor,
    config: video_config.VideoConfig,
    seeds: tuple[tf.Tensor | None, tf.Tensor | None],
    crop: int,
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the frames at some indices, resized and augmented.

    Args:
      indices: (T,) int32: indices of the record's frames, of which it has at
        least one.
      config: Configuration of the frames.
      seeds: Seed of the window, and seed of flip and colours; None in
        evaluation.
      crop: Number of the window in evaluation.

    Returns:
      Video (T, H, W, 3) float32, mask () bool, fault () int32.
    """

  def frame_size(self) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns height and width of the stored frames, () int32."""

  def num_captions(self) -> tf.Tensor:
    """Returns the number of captions, () int32."""

  def captions(
    self, chosen: tf.Tensor, plan: plan_lib.Plan
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns ids (C, L) int32 and mask (C,) bool of the chosen captions."""

  def report(self, faults: list[tf.Tensor], plan: plan_lib.Plan) -> tf.Tensor:
    """Returns the faults of the record: (6,) string, empty without a fault."""


@dataclasses.dataclass(frozen=True)
class RawClip:
  """A record before decoding: its frames are JPEG and its captions strings.

  Attributes:
    features: Features of `prepare`.
  """

  features: dict[str, tf.Tensor]

  def video(
    self,
    indices: tf.Tensor,
    config: video_config.VideoConfig,
    seeds: tuple[tf.Tensor | None, tf.Tensor | None],
    crop: int,
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes the frames; see `Clip`.

    Args:
      indices: See `Clip`.
      config: See `Clip`.
      seeds: See `Clip`.
      crop: See `Clip`.
    """

    def decode(frames, indices):
      return video_lib.load_frames(frames, indices, config, seeds[0], crop)

    def nothing():
      return tf.zeros([0, 0, 0, 3], tf.uint8)

    frames = tensor_utils.guarded(
      decode, (self.features['image_encoded'], indices), nothing
    )

    def corrupt():
      return tf.zeros(config.shape), False, bad_records_lib.FRAME_CORRUPT

    def finish():
      return video_lib.finish_frames(frames, config, seeds[1]), True, 0

    return tf.cond(tf.size(frames) > 0, finish, corrupt)

  def frame_size(self) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns height and width of the stored frames, () int32."""
    return frame_ops.frame_shape(self.features['image_encoded'])

  def num_captions(self) -> tf.Tensor:
    """Returns the number of captions, () int32."""
    return tf.shape(self.features['caption_text'])[0]

  def captions(
    self, chosen: tf.Tensor, plan: plan_lib.Plan
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Tokenizes captions; see `Clip`."""
    texts = tf.gather(self.features['caption_text'], chosen)
    return text_lib.encode_captions(texts, plan.tokenizer, plan.text)

  def report(self, faults: list[tf.Tensor], plan: plan_lib.Plan) -> tf.Tensor:
    """Returns the faults of the record, and those found in its frames."""
    faults = tf.concat([self.features['faults'], *faults], axis=0)
    return bad_records_lib.make_report(self.features, faults, plan)


def parse(
  element: dict[str, tf.Tensor], plan: plan_lib.Plan
) -> dict[str, tf.Tensor]:
  """Parses the record of an element.

  Args:
    element: Element of `read_epoch`.
    plan: Plan of the pipeline.

  Returns:
    The element without `record`, with the required fields of
    `schema.FEATURE_SPEC`, and `fault` () int32.
  """

  def parse_record(record):
    fields = reading.parse_record(record, plan.fields)
    return {**fields, 'fault': tf.constant(0)}

  def nothing():
    spec = {field.name: field.dtype for field in schema.FEATURE_SPEC}
    fields = {
      name: tf.zeros([0], schema.TF_DTYPES[spec[name]]) for name in plan.fields
    }
    return {**fields, 'fault': tf.constant(bad_records_lib.NOT_PARSED)}

  fields = tensor_utils.guarded(parse_record, (element['record'],), nothing)
  place = {key: element[key] for key in element if key != 'record'}
  return {**place, **fields}


def prepare_audio(
  features: dict[str, tf.Tensor], plan: plan_lib.Plan
) -> dict[str, tf.Tensor]:
  """Finds the waveform of a record, its sample rate and its faults.

  Args:
    features: Features of `parse`.
    plan: Plan of the pipeline.

  Returns:
    The features with `waveform` (S,) float32 mono (empty if it is missing or
    unusable), `waveform_rate` () int32, `audio_fault` () int32 and
    `audio_reason` () string.
  """

  def decode():
    return encoded_audio.decode_in_graph(features['waveform_encoded'][0])

  def as_stored():
    channels = plan_lib.first(features['waveform_channels'], 1)
    waveform = audio_lib.mix_channels(features['waveform'], channels)
    rate = plan_lib.first(features['waveform_rate'], 0.0)
    source_rate = plan_lib.of_source(features, plan.sources, 'sample_rate')
    return waveform, tf.where(rate > 0, rate, source_rate), tf.constant('')

  is_encoded = tf.equal(tf.size(features['waveform']), 0)
  is_encoded &= tf.size(features['waveform_encoded']) > 0
  waveform, rate, reason = tf.cond(is_encoded, decode, as_stored)
  fault = audio_lib.find_fault(waveform)
  no_rate = (rate <= 0) & (tf.size(waveform) > 0)
  fault = tf.where(no_rate, bad_records_lib.NO_SAMPLE_RATE, fault)
  fault = tf.where(reason != '', bad_records_lib.SOUND_CORRUPT, fault)
  is_used = tf.equal(fault, 0) & plan_lib.is_read(
    features, plan.sources, modalities.AUDIO
  )
  length = tf.where(is_used, tf.size(waveform), 0)
  return {
    **features,
    'waveform': waveform[:length],
    'waveform_rate': tf.maximum(tf.cast(tf.round(rate), tf.int32), 1),
    'audio_fault': fault,
    'audio_reason': reason,
  }


def prepare_frames(
  features: dict[str, tf.Tensor], plan: plan_lib.Plan
) -> dict[str, tf.Tensor]:
  """Finds the times of a record's frames and their faults.

  Args:
    features: Features of `parse`.
    plan: Plan of the pipeline.

  Returns:
    The features with `image_encoded` (n,) string (empty if frames are missing
    or unusable), `image_timestamp` (n,) int64, `video_end` () int64 µs and
    `video_fault` () int32.
  """
  frames, times = features['image_encoded'], features['image_timestamp']
  count = tf.size(frames)
  rate = plan_lib.first(features['image_frame_rate'], 0.0)
  source_rate = plan_lib.of_source(features, plan.sources, 'frame_rate')
  rate = tf.where(rate > 0, rate, source_rate)
  is_timed = tf.equal(tf.size(times), count) & (count > 0)
  period = 1e6 / tf.cast(tf.where(rate > 0, rate, 1.0), tf.float64)

  def stored():
    return times

  def regular():
    steps = tf.range(count, dtype=tf.int32)
    return tf.cast(tf.round(tf.cast(steps, tf.float64) * period), tf.int64)

  times = tf.cond(is_timed, stored, regular)
  fault = tf.where(is_timed | (rate > 0), 0, bad_records_lib.NO_FRAME_RATE)
  falls = tf.reduce_any(times[1:] < times[:-1])
  fault = tf.where(falls, bad_records_lib.TIMES_FALL, fault)
  fault = tf.where(count > 0, fault, 0)
  is_used = tf.equal(fault, 0) & plan_lib.is_read(
    features, plan.sources, modalities.VIDEO
  )
  length = tf.where(is_used, count, 0)
  # The last frame lasts for the period of the rate, or as long as the others.
  last, first = plan_lib.first(times[::-1], 0), plan_lib.first(times, 0)
  steps = tf.cast(tf.maximum(count - 1, 1), tf.int64)
  last_duration = tf.where(
    rate > 0, tf.cast(period, tf.int64), (last - first) // steps
  )
  return {
    **features,
    'image_encoded': frames[:length],
    'image_timestamp': times[:length],
    'video_end': tf.where(length > 0, last + last_duration, 0),
    'video_fault': fault,
  }


def clip_offsets(
  features: dict[str, tf.Tensor], plan: plan_lib.Plan, seed: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
  """Chooses when the clips of a record start, for all modalities at once.

  In training the clip starts anywhere; in evaluation the clips are spread
  evenly from the start of the record to its end, and a single clip is in the
  middle. The start is then moved back to the start of a stored frame, so that
  sound and frame start together. A record that is shorter than the clip starts
  at 0.

  Args:
    features: Features of `prepare_frames` and `prepare_audio`.
    plan: Plan of the pipeline.
    seed: (2,) int64, or None in evaluation.

  Returns:
    Offsets (num_clips,) int64 µs, and the duration of the record, () int64 µs.
  """
  duration = tf.zeros([], tf.int64)
  if plan.video is not None:
    duration = tf.maximum(duration, features['video_end'])
  if plan.audio is not None:
    rate = tf.cast(features['waveform_rate'], tf.float64)
    seconds = tf.cast(tf.size(features['waveform']), tf.float64) / rate
    duration = tf.maximum(duration, tf.cast(seconds * 1e6, tf.int64))
  if plan.text is not None:
    ends = tf.concat([[0], features['caption_end']], axis=0)
    duration = tf.where(duration > 0, duration, tf.reduce_max(ends))
  room = tf.maximum(duration - round(plan.span * schema.MICROSECONDS), 0)
  if seed is not None:
    shares = tf.random.stateless_uniform([1], seed, dtype=tf.float64)
  else:
    count = plan.num_clips
    shares = np.linspace(0.0, 1.0, count) if count > 1 else [0.5]
    shares = tf.constant(shares, tf.float64)
  offsets = tf.cast(shares * tf.cast(room, tf.float64), tf.int64)
  if plan.video is not None:
    times = features['image_timestamp']
    places = tf.searchsorted(times, offsets, side='right') - 1
    padded = tf.concat([times, [0]], axis=0)  # A record may have no frame.
    starts = tf.gather(padded, tf.maximum(places, 0))
    offsets = tf.where(places >= 0, starts, offsets)
  return offsets, duration


def load_video(
  clip: Clip,
  offset: tf.Tensor,
  duration: tf.Tensor,
  plan: plan_lib.Plan,
  seed: tf.Tensor | None,
  crop: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Decodes and finishes the frames of a clip.

  Args:
    clip: A record, or its cached clip.
    offset: () int64: start of the clip, µs.
    duration: () int64: length of the record, µs.
    plan: Plan of the pipeline.
    seed: (2,) int64, or None in evaluation.
    crop: Number of the window in evaluation.

  Returns:
    Video (T, H, W, 3) float32, mask () bool, and fault () int32.
  """
  config = plan.video
  times = clip.features['image_timestamp']

  def missing():
    return tf.zeros(config.shape), tf.constant(False), tf.constant(0)

  def load():
    indices = video_lib.sample_indices(times, offset, duration, config)
    finish_seed = None if seed is None else order.fold_in(seed, 1)
    return clip.video(indices, config, (seed, finish_seed), crop)

  return tf.cond(tf.size(times) > 0, load, missing)


def load_boxes(
  clip: Clip,
  offset: tf.Tensor,
  duration: tf.Tensor,
  plan: plan_lib.Plan,
  seed: tf.Tensor | None,
  crop: int,
) -> dict[str, tf.Tensor]:
  """Returns the boxes in the frames that `load_video` takes.

  Args:
    clip: See `load_video`.
    offset: See `load_video`.
    duration: See `load_video`.
    plan: See `load_video`; its video has `max_boxes`.
    seed: See `load_video`.
    crop: See `load_video`.

  Returns:
    The tensors of `boxes.row_spec`; without boxes, or without frames, no box
    exists.
  """
  config = plan.video
  times = clip.features['image_timestamp']
  counts = clip.features['region_count']

  def missing():
    return {
      name: tf.zeros(spec.shape, spec.dtype)
      for name, spec in boxes_lib.row_spec(config).items()
    }

  def load():
    indices = video_lib.sample_indices(times, offset, duration, config)
    seeds = None if seed is None else (seed, order.fold_in(seed, 1))
    return boxes_lib.boxes_of_frames(
      clip.features, indices, clip.frame_size(), config, seeds, crop
    )

  has_boxes = (tf.size(times) > 0) & (tf.size(counts) == tf.size(times))
  return tf.cond(has_boxes, load, missing)


def load_audio(
  features: dict[str, tf.Tensor],
  offset: tf.Tensor,
  duration: tf.Tensor,
  plan: plan_lib.Plan,
  seed: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Cuts and finishes the sound of a clip.

  Args:
    features: Features of `prepare`, or a decoded clip.
    offset: () int64: start of the clip, µs.
    duration: () int64: length of the record, µs.
    plan: Plan of the pipeline.
    seed: (2,) int64, or None in evaluation.

  Returns:
    (S, 1) or (F, M) float32, and mask () bool.
  """
  config = plan.audio
  is_looped = plan.video is None or plan.video.short_clip == video_config.LOOP

  def missing():
    return tf.zeros(config.shape), tf.constant(False)

  def load():
    waveform = audio_lib.slice_waveform(
      features['waveform'],
      features['waveform_rate'],
      offset,
      duration,
      config,
      is_looped,
    )
    return audio_lib.finish_waveform(waveform, config, seed), True

  return tf.cond(tf.size(features['waveform']) > 0, load, missing)


def load_text(
  clip: Clip,
  offset: tf.Tensor,
  duration: tf.Tensor,
  plan: plan_lib.Plan,
  seed: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Chooses and tokenizes the captions of a clip.

  Args:
    clip: A record, or its cached clip.
    offset: () int64: start of the clip, µs.
    duration: () int64: length of the record, µs.
    plan: Plan of the pipeline.
    seed: (2,) int64, or None in evaluation.

  Returns:
    Ids (C, L) int32, mask (C,) bool.
  """
  span = round(plan.span * schema.MICROSECONDS)
  center = offset + tf.minimum(tf.constant(span, tf.int64), duration) // 2
  chosen = text_lib.nearest_captions(
    clip.features['caption_start'],
    clip.features['caption_end'],
    clip.num_captions(),
    center,
    plan.text.num_captions,
    seed,
  )
  return clip.captions(chosen, plan)


def load_label(
  features: dict[str, tf.Tensor], config: plan_lib.LabelConfig
) -> tuple[tf.Tensor, tf.Tensor]:
  """Converts the classes of a record to the form of a row.

  Args:
    features: Features of `parse`.
    config: See `LabelConfig`.

  Returns:
    () int32, -1 without a class, or (num_classes,) float32; and fault () int32.
  """
  labels = features['label_index']
  is_known = (labels >= 0) & (labels < config.num_classes)
  fault = tf.where(tf.reduce_all(is_known), 0, bad_records_lib.LABEL_UNKNOWN)
  labels = tf.boolean_mask(labels, is_known)
  if not config.is_multi_label:
    return tf.cast(plan_lib.first(labels, -1), tf.int32), fault
  hot = tf.one_hot(labels, config.num_classes)  # (n, num_classes)
  return tf.reduce_max(tf.pad(hot, [[0, 1], [0, 0]]), axis=0), fault


@tensor_utils.as_graph
def prepare(
  element: dict[str, tf.Tensor], plan: plan_lib.Plan
) -> dict[str, tf.Tensor]:
  """Reads the parts of a record that are not random.

  Args:
    element: Element of `read_epoch`.
    plan: Plan of the pipeline.

  Returns:
    The features of `parse`, `prepare_frames` and `prepare_audio`, `label` in
    the form of a row, and `faults` (n,) int32.
  """
  features = parse(element, plan)
  faults = [features['fault']]
  if plan.video is not None:
    features = prepare_frames(features, plan)
    faults.append(features['video_fault'])
  if plan.audio is not None:
    features = prepare_audio(features, plan)
    faults.append(features['audio_fault'])
  if plan.text is not None:
    texts = features['caption_text']
    is_read = plan_lib.is_read(features, plan.sources, modalities.TEXT)
    features['caption_text'] = texts[: tf.where(is_read, tf.size(texts), 0)]
  if plan.label is not None:
    features[names.LABEL], fault = load_label(features, plan.label)
    faults.append(fault)
  return {**features, 'faults': tf.stack(faults)}


@tensor_utils.as_graph
def sample(
  features: dict[str, tf.Tensor], plan: plan_lib.Plan
) -> dict[str, tf.Tensor]:
  """Returns the row, or the rows, of a record of `prepare`."""
  return sample_clip(RawClip(features), plan)


def sample_clip(clip: Clip, plan: plan_lib.Plan) -> dict[str, tf.Tensor]:
  """Returns the row, or the rows, of a clip.

  Args:
    clip: A record, or its cached clip.
    plan: Plan of the pipeline.

  Returns:
    The tensors of `row_spec`; in evaluation with more than one clip or crop,
    with an axis of `num_clips * num_crops` in front (crops change fastest).
  """
  features = clip.features
  seed = None
  seeds = [None] * 4
  if plan.is_training:
    # The name of the source, not its number, seeds the draws, so that an added
    # source does not change them.
    seed = tf.stack(
      [
        order.seed_of(plan.seed, plan_lib.name_of(source))
        for source in plan.sources
      ]
    )
    seed = tf.gather(seed, features['source'])  # (2,)
    keys = ['epoch', 'shard', 'index'] + ['copy'] * ('copy' in features)
    for key in keys:
      seed = order.fold_in(seed, features[key])
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
  faults = []
  offsets, duration = clip_offsets(features, plan, seeds[0])
  num_crops = plan.num_views // offsets.shape[0]
  views = []
  for offset in tf.unstack(offsets):
    row = {}
    if plan.audio is not None:
      row[plan.audio.input_name], row[names.AUDIO_MASK] = load_audio(
        features, offset, duration, plan, seeds[2]
      )
    if plan.text is not None:
      row[names.TEXT], row[names.TEXT_MASK] = load_text(
        clip, offset, duration, plan, seeds[3]
      )
    if plan.label is not None:
      row[names.LABEL] = features[names.LABEL]
    for crop in range(num_crops):
      view = dict(row)
      if plan.video is not None:
        view[names.VIDEO], view[names.VIDEO_MASK], fault = load_video(
          clip, offset, duration, plan, seeds[1], crop
        )
        faults.append(fault[None])
        if plan.video.max_boxes:
          view.update(load_boxes(clip, offset, duration, plan, seeds[1], crop))
      views.append(view)
  report = clip.report(faults, plan)
  for view in views:
    view[bad_records_lib.REPORT] = report
    if plan.with_example_id:
      view[names.EXAMPLE_ID] = plan_lib.first(features['example_id'], '')
    if not plan.is_training:
      view[names.VALID] = tf.constant(True)
    elif plan.audio is not None and plan.audio.mixup_alpha:
      view[SEED] = seed
  if len(views) == 1:
    return views[0]
  return {key: tf.stack([v[key] for v in views]) for key in views[0]}


def load_records(
  dataset: tf.data.Dataset, plan: plan_lib.Plan
) -> tf.data.Dataset:
  """Turns the elements of `read_epoch` into the rows of `sample`.

  This takes two steps, because TensorFlow does not optimize the arithmetic of a
  function that calls Python, as `prepare` does. A clip must be the same, to the
  last bit, on input machines and from the cache.
  """
  for step in (prepare, sample):
    dataset = dataset.map(
      functools.partial(step, plan=plan),
      num_parallel_calls=plan.num_parallel_calls,
      deterministic=True,
    )
  return dataset
