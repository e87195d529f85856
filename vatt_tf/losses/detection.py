"""The loss of an anchor-free detector (FCOS): classes, boxes, centre-ness.

Each place of a grid learns the object whose box it is in the middle of (Tian et
al. 2019, sections 3.1 and 3.3). Boxes are left, upper, right and lower edges as
shares of the frame.
"""

from typing import NamedTuple

import tensorflow as tf

from vatt_tf.core import collectives


class Targets(NamedTuple):
  """What the places of a grid should give.

  Attributes:
    classes: (B, h, w, num_classes) float32, one-hot; zeros without an object.
    boxes: (B, h, w, 4) float32: the edges of the object's box.
    centreness: (B, h, w) float32 in [0, 1].
    is_object: (B, h, w) bool: whether the place has an object.
    counts: (B, h, w) float32: 0 for places that teach nothing, as their object
      has no class.
  """

  classes: tf.Tensor
  boxes: tf.Tensor
  centreness: tf.Tensor
  is_object: tf.Tensor
  counts: tf.Tensor


class LossTerms(NamedTuple):
  """This replica's shares of the terms, which sum over the replicas.

  Attributes:
    class_loss: Focal loss of the classes, scalar float32.
    box_loss: 1 - GIoU of the boxes, weighted by centre-ness.
    centre_loss: Cross-entropy of centre-ness.
    mean_iou: Mean GIoU of the boxes, in [-1, 1].
  """

  class_loss: tf.Tensor
  box_loss: tf.Tensor
  centre_loss: tf.Tensor
  mean_iou: tf.Tensor


def assign_targets(
  boxes: tf.Tensor,
  mask: tf.Tensor,
  classes: tf.Tensor,
  places: tf.Tensor,
  num_classes: int,
  radius: float = 1.5,
) -> Targets:
  """Assigns the boxes of images to the places of a grid.

  A place has the object whose box it lies in, if it is also at most `radius`
  places from the box's centre (sections 3.1 and 4 of the paper); of several,
  the one with the smallest area. The place that is nearest to the centre of a
  box always has it, so that no object is too small for the grid.

  Args:
    boxes: (B, K, 4) float32; parts outside [0, 1] are cut off.
    mask: (B, K) bool: which boxes exist.
    classes: (B, K) int32, -1 for an object whose class is not known.
    places: (h, w, 2) float32: centres (x, y) of the places, in [0, 1].
    num_classes: Number of classes.
    radius: See above.

  Returns:
    `Targets`.
  """
  height, width = places.shape[:2]
  boxes = tf.clip_by_value(boxes, 0.0, 1.0)
  sides = boxes[..., 2:] - boxes[..., :2]  # (B, K, 2)
  mask &= tf.reduce_all(sides > 0, -1)
  of_box = boxes[:, tf.newaxis, tf.newaxis]  # (B, 1, 1, K, 4)
  point = places[:, :, tf.newaxis]  # (h, w, 1, 2)
  before = point - of_box[..., :2]  # (B, h, w, K, 2)
  after = of_box[..., 2:] - point
  middle = (of_box[..., :2] + of_box[..., 2:]) / 2
  grid = tf.constant([width, height], tf.float32)
  offset = tf.abs(point - middle) * grid  # in places
  is_inside = tf.reduce_all((before > 0) & (after > 0) & (offset < radius), -1)
  is_nearest = tf.reduce_all(offset <= 0.5, -1)
  is_candidate = (is_inside | is_nearest) & mask[:, tf.newaxis, tf.newaxis]
  area = sides[..., 0] * sides[..., 1]
  area = tf.where(is_candidate, area[:, tf.newaxis, tf.newaxis], 2.0)
  chosen = tf.argmin(area, -1, tf.int32)  # (B, h, w)
  is_object = tf.reduce_any(is_candidate, -1)
  edges = tf.gather(boxes, chosen, batch_dims=1)  # (B, h, w, 4)
  label = tf.gather(classes, chosen, batch_dims=1)
  distances = tf.concat([places - edges[..., :2], edges[..., 2:] - places], -1)
  distances = tf.maximum(distances, 0.0)
  left, top, right, bottom = tf.unstack(distances, axis=-1)
  ratio = tf.math.divide_no_nan(
    tf.minimum(left, right) * tf.minimum(top, bottom),
    tf.maximum(left, right) * tf.maximum(top, bottom),
  )
  is_known = label >= 0
  return Targets(
    tf.one_hot(tf.where(is_object, label, -1), num_classes),
    edges,
    tf.where(is_object, tf.sqrt(ratio), 0.0),
    is_object,
    tf.cast(~is_object | is_known, tf.float32),
  )


def focal_loss(
  labels: tf.Tensor, logits: tf.Tensor, alpha: float, gamma: float
) -> tf.Tensor:
  """Computes the focal loss of binary labels (Lin et al. 2017, section 3).

  Args:
    labels: Labels, float32 of any shape: 0 or 1.
    logits: Like `labels`.
    alpha: Weight of the labels that are 1; the others have 1 - alpha.
    gamma: Exponent of the probability of the other label.

  Returns:
    A tensor like `labels`.
  """
  entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
  # The probability of the label that is not true, by its own logit, since
  # 1 - p would lose it where p is nearly 1.
  wrong = tf.sigmoid((1 - 2 * labels) * logits)
  weight = alpha * labels + (1 - alpha) * (1 - labels)
  return weight * wrong**gamma * entropy


def generalized_iou(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
  """Computes the generalised IoU of pairs of boxes (Rezatofighi et al. 2019).

  Args:
    first: Edges (…, 4), float32.
    second: Edges (…, 4), float32.

  Returns:
    (…,) float32 in [-1, 1].
  """

  def area(low, high):
    return tf.reduce_prod(tf.maximum(high - low, 0.0), -1)

  low, high = zip(*((x[..., :2], x[..., 2:]) for x in (first, second)))
  both = area(tf.maximum(*low), tf.minimum(*high))
  hull = area(tf.minimum(*low), tf.maximum(*high))
  union = area(low[0], high[0]) + area(low[1], high[1]) - both
  iou = tf.math.divide_no_nan(both, union)
  return iou - tf.math.divide_no_nan(hull - union, hull)


def detection_loss(
  logits: tf.Tensor,
  boxes: tf.Tensor,
  centre_logits: tf.Tensor,
  targets: Targets,
  row_mask: tf.Tensor,
  alpha: float = 0.25,
  gamma: float = 2.0,
) -> LossTerms:
  """Computes the terms of the loss.

  The focal loss of all places and the cross-entropy of centre-ness are divided
  by the number of places with an object, the loss of the boxes, weighted by the
  centre-ness of the places, by the sum of these weights, all over the global
  batch.

  Args:
    logits: (B, h, w, num_classes) float32.
    boxes: (B, h, w, 4) float32: predicted edges.
    centre_logits: (B, h, w) float32.
    targets: `Targets` of this replica's rows.
    row_mask: (B,) bool: rows that count.
    alpha: Weight of the places with an object in the focal loss, in (0, 1).
    gamma: Exponent of the focal loss.

  Returns:
    `LossTerms`.
  """
  rows = tf.cast(row_mask, tf.float32)[:, tf.newaxis, tf.newaxis]
  objects = tf.cast(targets.is_object, tf.float32) * rows
  # A place whose centre is on the edge of its box has none.
  weights = objects * tf.maximum(targets.centreness, 1e-3)
  num_objects, sum_weights = collectives.all_reduce_sum(
    [tf.reduce_sum(objects), tf.reduce_sum(weights)]
  )
  num_objects = tf.maximum(num_objects, 1.0)
  sum_weights = tf.maximum(sum_weights, 1e-3)
  focal = focal_loss(targets.classes, logits, alpha, gamma)
  focal = tf.reduce_sum(focal, -1) * targets.counts * rows
  overlap = generalized_iou(boxes, targets.boxes)
  centre = tf.nn.sigmoid_cross_entropy_with_logits(
    targets.centreness, centre_logits
  )
  return LossTerms(
    tf.reduce_sum(focal) / num_objects,
    tf.reduce_sum(weights * (1 - overlap)) / sum_weights,
    tf.reduce_sum(objects * centre) / num_objects,
    tf.reduce_sum(objects * overlap) / num_objects,
  )
