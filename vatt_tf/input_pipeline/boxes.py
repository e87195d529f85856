"""Boxes in the frames of a clip, in the window that is cut out of them."""

from collections.abc import Sequence

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
FIELDS = ('region_count', *_EDGES, 'region_label', 'region_is_sounding')


def row_spec(config: video_config.VideoConfig) -> dict[str, tf.TensorSpec]:
  """Returns the shapes and types of a row's boxes.

  Args:
    config: Configuration of the frames, with `max_boxes`.
  """
  shape = [config.num_frames, config.max_boxes]
  return {
    names.VIDEO_BOXES: tf.TensorSpec([*shape, 4], tf.float32),
    names.VIDEO_BOX_MASK: tf.TensorSpec(shape, tf.bool),
    names.VIDEO_BOX_CLASS: tf.TensorSpec(shape, tf.int32),
    names.VIDEO_BOX_IS_SOUNDING: tf.TensorSpec(shape, tf.int32),
  }


def boxes_of_frames(
  features: dict[str, tf.Tensor],
  indices: tf.Tensor,
  frame_size: tuple[tf.Tensor, tf.Tensor],
  config: video_config.VideoConfig,
  seeds: tuple[tf.Tensor, tf.Tensor] | None,
  crop: int,
) -> dict[str, tf.Tensor]:
  """Returns the boxes in the sampled frames of a record.

  Args:
    features: Those of `FIELDS`, of a record with boxes.
    indices: (T,) int32: the sampled frames.
    frame_size: Height and width of the stored frames, () int32.
    config: Configuration of the frames.
    seeds: Seed of the window, and seed of flip and colours; None in evaluation.
    crop: Number of the window in evaluation.

  Returns:
    The tensors of `row_spec`. Edges are shares of the window, and may lie
    outside [0, 1]; a box that is not in the window does not exist.
  """
  counts = features['region_count']
  ends = tf.cumsum(counts)
  starts = tf.gather(ends - counts, indices)[:, tf.newaxis]  # (T, 1)
  number = tf.range(config.max_boxes, dtype=tf.int64)[tf.newaxis]  # (1, K)
  mask = number < tf.gather(counts, indices)[:, tf.newaxis]  # (T, K)
  places = tf.where(mask, starts + number, 0)
  # A record may have no box at all.
  edges = tf.stack([tf.pad(features[key], [[0, 1]]) for key in _EDGES], -1)
  sounds = tf.pad(features['region_is_sounding'], [[0, 1]])
  classes = tf.pad(_classes(features['region_label'], config), [[0, 1]])
  height, width = frame_size
  if seeds is None:
    window = crop_windows.central_window(height, width, config, crop)
  else:
    window = crop_windows.random_window(height, width, config, seeds[0])
  top, left, *sides = tf.unstack(tf.cast(window, tf.float32))
  size = tf.cast(tf.stack([width, height] * 2), tf.float32)
  boxes = tf.gather(edges, places) * size - tf.stack([left, top] * 2)
  boxes /= tf.stack(sides[::-1] * 2)  # (T, K, 4)
  if seeds is not None:
    flip_seed, _ = video.split_seed(seeds[1])
    xmin, ymin, xmax, ymax = tf.unstack(boxes, axis=-1)
    mirrored = tf.stack([1 - xmax, ymin, 1 - xmin, ymax], -1)
    is_flipped = frame_ops.is_flipped(config.flip_rate, flip_seed)
    boxes = tf.where(is_flipped, mirrored, boxes)
  mask &= tf.reduce_all(boxes[..., :2] < 1, -1)
  mask &= tf.reduce_all(boxes[..., 2:] > 0, -1)
  return {
    names.VIDEO_BOXES: tf.where(mask[..., tf.newaxis], boxes, 0.0),
    names.VIDEO_BOX_MASK: mask,
    names.VIDEO_BOX_CLASS: tf.gather(classes, places),
    names.VIDEO_BOX_IS_SOUNDING: tf.cast(tf.gather(sounds, places), tf.int32),
  }


def _classes(labels, config):
  """The class (n,) int32 of each label (n,), -1 for one that is not known."""
  if config.box_labels is None:
    return tf.zeros_like(labels, tf.int32)
  known = tf.constant(read_labels(config.box_labels))
  is_class = labels[:, tf.newaxis] == known  # (n, classes)
  classes = tf.argmax(tf.cast(is_class, tf.int32), -1, tf.int32)
  return tf.where(tf.reduce_any(is_class, -1), classes, -1)


def read_labels(box_labels: Sequence[str] | str) -> list[str]:
  """Returns the labels of `VideoConfig.box_labels`, in their order.

  Raises:
    ValueError: There is no such file, or no label.
  """
  labels = box_labels
  if isinstance(box_labels, str):
    if not tf.io.gfile.exists(box_labels):
      raise ValueError(
        f'There is no file {box_labels} with the labels of boxes, a line for '
        f'each class. Received: box_labels={box_labels!r}'
      )
    with tf.io.gfile.GFile(box_labels) as file:
      labels = file.read().splitlines()
  if not len(labels) or len(set(labels)) != len(labels):
    raise ValueError(
      '`box_labels` must name each class once. '
      f'Received: box_labels={box_labels!r} with {list(labels)}'
    )
  return list(labels)
