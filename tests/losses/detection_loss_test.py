"""The loss of the detector, against loops and the formulas of the papers."""

import math

from absl.testing import parameterized
import numpy as np
from official.vision.losses import focal_loss
from official.vision.ops import box_ops
import tensorflow as tf
import tf_keras

from tests import logical_devices
from vatt_tf.core import collectives, strategies
from vatt_tf.losses import detection
from vatt_tf.models import detection as model_lib


def setUpModule():
  logical_devices.make()


def _targets(boxes, classes, height, width, radius):
  """Object of each place, and its centre-ness, by loops; -1 for none."""
  chosen = np.full([height, width], -1)
  centreness = np.zeros([height, width])
  for i in range(height):
    for j in range(width):
      x, y = (j + 0.5) / width, (i + 0.5) / height
      best = math.inf
      for k, (left, top, right, bottom) in enumerate(boxes):
        middle = (left + right) / 2, (top + bottom) / 2
        offset = max(abs(x - middle[0]) * width, abs(y - middle[1]) * height)
        is_inside = left < x < right and top < y < bottom and offset < radius
        area = (right - left) * (bottom - top)
        if (is_inside or offset <= 0.5) and area < best:
          best = area
          chosen[i, j] = k
          west, north, east, south = (
            max(0, d) for d in (x - left, y - top, right - x, bottom - y)
          )
          ratio = min(west, east) * min(north, south)
          ratio /= max(west, east) * max(north, south)
          centreness[i, j] = math.sqrt(ratio)
  return chosen, centreness


def _giou(a, b):
  low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
  both = np.prod(np.maximum(high - low, 0))
  union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both
  hull = np.prod(np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2]))
  return both / union - (hull - union) / hull


_BOXES = np.array(
  [
    [[0.1, 0.1, 0.9, 0.7], [0.4, 0.3, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]],
    [[0.71, 0.05, 0.74, 0.09], [0.0, 0.5, 0.5, 1.0], [0.2, 0.2, 0.4, 0.9]],
  ],
  np.float32,
)
_MASK = np.array([[True, True, False], [True, True, False]])
_CLASSES = np.array([[2, 0, 1], [1, -1, 0]], np.int32)


class DetectionLossTest(tf.test.TestCase, parameterized.TestCase):
  def _assign(self, height=7, width=5, radius=1.5):
    return detection.assign_targets(
      _BOXES, _MASK, _CLASSES, model_lib.centres(height, width), 3, radius
    )

  @parameterized.parameters((7, 5, 1.5), (4, 4, 0.8), (9, 9, 100.0))
  def test_targets(self, height, width, radius):
    targets = self._assign(height, width, radius)
    for row in range(2):
      present = _BOXES[row][_MASK[row]]
      chosen, centreness = _targets(present, _CLASSES, height, width, radius)
      is_object = chosen >= 0
      self.assertAllEqual(targets.is_object[row], is_object)
      self.assertAllClose(targets.centreness[row], centreness, atol=1e-5)
      labels = np.where(is_object, _CLASSES[row][chosen], -1)
      self.assertAllEqual(targets.classes[row], tf.one_hot(labels, 3))
      self.assertAllClose(
        targets.boxes[row].numpy()[is_object], present[chosen[is_object]]
      )
      self.assertAllEqual(
        targets.counts[row], ~(is_object & (labels < 0)) * 1.0
      )
    # A box between the places' centres has a place nevertheless.
    self.assertTrue(np.any(targets.classes[1, ..., 1]))

  def _outputs(self, targets, seed=0):
    rng = np.random.default_rng(seed)
    shape = targets.is_object.shape
    distances = rng.uniform(0.05, 0.5, [*shape, 4])
    return (
      rng.standard_normal([*shape, 3]).astype(np.float32),
      model_lib.boxes_of(tf.constant(distances, tf.float32)),
      rng.standard_normal(shape).astype(np.float32),
    )

  def test_terms(self):
    targets = self._assign()
    logits, boxes, centre_logits = self._outputs(targets)
    terms = detection.detection_loss(
      logits, boxes, centre_logits, targets, np.array([True, True])
    )
    is_object = targets.is_object.numpy()
    count = is_object.sum()
    one_hot = targets.classes.numpy()
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    p_true = np.where(one_hot == 1, p, 1 - p)
    alpha = np.where(one_hot == 1, 0.25, 0.75)
    focal = (alpha * (1 - p_true) ** 2 * -np.log(p_true)).sum(-1)
    focal = (focal * targets.counts.numpy()).sum() / count
    self.assertAllClose(terms.class_loss, focal, rtol=1e-5)
    overlap = np.zeros(is_object.shape)
    for place in np.argwhere(is_object):
      place = tuple(place)
      overlap[place] = _giou(boxes.numpy()[place], targets.boxes.numpy()[place])
    weight = np.where(
      is_object, np.maximum(targets.centreness.numpy(), 1e-3), 0
    )
    self.assertAllClose(
      terms.box_loss, (weight * (1 - overlap)).sum() / weight.sum(), rtol=1e-4
    )
    c = 1 / (1 + np.exp(-centre_logits.astype(np.float64)))
    truth = targets.centreness.numpy()
    entropy = -(truth * np.log(c) + (1 - truth) * np.log(1 - c))
    self.assertAllClose(
      terms.centre_loss, (entropy * is_object).sum() / count, rtol=1e-5
    )
    self.assertAllClose(terms.mean_iou, overlap.sum() / count, rtol=1e-4)

  def test_as_in_the_model_garden(self):
    targets = self._assign()
    logits, boxes, _ = self._outputs(targets)
    reference = focal_loss.FocalLoss(
      0.25, 2.0, reduction=tf_keras.losses.Reduction.NONE
    )
    self.assertAllClose(
      detection.focal_loss(targets.classes, logits, 0.25, 2.0),
      reference.call(targets.classes, logits),
      rtol=1e-4,
    )
    expected = box_ops.bbox_generalized_overlap(
      tf.reshape(boxes, [-1, 1, 4]), tf.reshape(targets.boxes, [-1, 1, 4])
    )
    self.assertAllClose(
      detection.generalized_iou(boxes, targets.boxes),
      tf.reshape(expected, targets.is_object.shape),
      atol=1e-5,
    )

  def test_rows_that_do_not_count(self):
    targets = self._assign()
    outputs = self._outputs(targets)
    first = detection.Targets(*(x[:1] for x in targets))
    alone = detection.detection_loss(
      *(x[:1] for x in outputs), first, np.array([True])
    )
    masked = detection.detection_loss(
      *outputs, targets, np.array([True, False])
    )
    self.assertAllClose(alone, masked, rtol=1e-6)

  def test_without_objects(self):
    targets = detection.assign_targets(
      _BOXES, np.zeros([2, 3], bool), _CLASSES, model_lib.centres(4, 4), 3
    )
    logits, boxes, centre_logits = map(tf.constant, self._outputs(targets))
    with tf.GradientTape() as tape:
      tape.watch([logits, boxes, centre_logits])
      terms = detection.detection_loss(
        logits, boxes, centre_logits, targets, np.array([True, True])
      )
      total = sum(terms[:3])
    gradients = tape.gradient(total, [logits, boxes, centre_logits])
    self.assertTrue(all(np.isfinite(x).all() for x in gradients))
    self.assertAllEqual(terms[1:], [0, 0, 0])
    self.assertGreater(terms.class_loss, 0)

  def test_two_replicas(self):
    targets = self._assign()
    outputs = self._outputs(targets)
    mask = np.array([True, True])
    whole = detection.detection_loss(*outputs, targets, mask)

    inputs = [*outputs, *targets, mask]
    strategy = strategies.make_strategy('mirrored', 2)
    split = [
      strategy.experimental_distribute_values_from_function(
        lambda context, x=x: tf.constant(
          np.split(np.asarray(x), 2)[context.replica_id_in_sync_group]
        )
      )
      for x in inputs
    ]

    def of_replica(logits, boxes, centre_logits, *rest):
      *parts, row_mask = rest
      terms = detection.detection_loss(
        logits, boxes, centre_logits, detection.Targets(*parts), row_mask
      )
      return collectives.all_reduce_sum(list(terms))

    @tf.function(autograph=False)
    def step(*inputs):
      return strategy.run(of_replica, args=inputs)

    found = [strategy.experimental_local_results(x)[0] for x in step(*split)]
    self.assertAllClose(found, list(whole), rtol=1e-5)


if __name__ == '__main__':
  tf.test.main()
