"""Boxes in the frames of a clip, in the window that evaluation cuts out."""

import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import (
  crop_windows,
  frame_ops,
  video,
  video_config,
)
from vatt_tf.input_pipeline.records import schema

_EDGES = tuple(f'region_{edge}' for edge in schema.EDGES)
FIELDS = ('region_count', *_EDGES, 'region_is_sounding')


def row_spec(config: video_config.VideoConfig) -> dict[str, tf.TensorSpec]:
  """Returns the shapes and types of a row's boxes.

  Args:
    config: Configuration of the frames, with `max_boxes`.
  """
  shape = [config.num_frames, config.max_boxes]
  return {
    names.VIDEO_BOXES: tf.TensorSpec([*shape, 4], tf.float32),
    names.VIDEO_BOX_MASK: tf.TensorSpec(shape, tf.bool),
    names.VIDEO_BOX_IS_SOUNDING: tf.TensorSpec(shape, tf.int32),
  }


def load_boxes(
  features: dict[str, tf.Tensor],
  offset: tf.Tensor,
  duration: tf.Tensor,
  config: video_config.VideoConfig,
  crop: int,
) -> dict[str, tf.Tensor]:
  """Returns the boxes in the sampled frames of a record.

  Args:
    features: Features of `clip.prepare`, with those of `FIELDS`.
    offset: () int64: start of the clip, µs.
    duration: () int64: length of the record, µs.
    config: Configuration of the frames.
    crop: Number of the window.

  Returns:
    The tensors of `row_spec`. Edges are shares of the window, and may lie
    outside [0, 1]; a box that is not in the window does not exist. Without
    boxes, or without frames, no box exists.
  """
  times = features['image_timestamp']
  counts = features['region_count']

  def missing():
    return {
      name: tf.zeros(spec.shape, spec.dtype)
      for name, spec in row_spec(config).items()
    }

  def load():
    indices = video.sample_indices(times, offset, duration, config)
    ends = tf.cumsum(counts)
    starts = tf.gather(ends - counts, indices)[:, tf.newaxis]  # (T, 1)
    number = tf.range(config.max_boxes, dtype=tf.int64)[tf.newaxis]  # (1, K)
    mask = number < tf.gather(counts, indices)[:, tf.newaxis]  # (T, K)
    places = tf.where(mask, starts + number, 0)
    # A record may have no box at all.
    edges = tf.stack([tf.pad(features[key], [[0, 1]]) for key in _EDGES], -1)
    sounds = tf.pad(features['region_is_sounding'], [[0, 1]])
    height, width = frame_ops.frame_shape(features['image_encoded'])
    window = crop_windows.central_window(height, width, config, crop)
    top, left, *sides = tf.unstack(tf.cast(window, tf.float32))
    size = tf.cast(tf.stack([width, height] * 2), tf.float32)
    boxes = tf.gather(edges, places) * size - tf.stack([left, top] * 2)
    boxes /= tf.stack(sides[::-1] * 2)  # (T, K, 4)
    mask &= tf.reduce_all(boxes[..., :2] < 1, -1)
    mask &= tf.reduce_all(boxes[..., 2:] > 0, -1)
    return {
      names.VIDEO_BOXES: tf.where(mask[..., tf.newaxis], boxes, 0.0),
      names.VIDEO_BOX_MASK: mask,
      names.VIDEO_BOX_IS_SOUNDING: tf.cast(tf.gather(sounds, places), tf.int32),
    }

  has_boxes = (tf.size(times) > 0) & (tf.size(counts) == tf.size(times))
  return tf.cond(has_boxes, load, missing)
