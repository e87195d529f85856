"""Measures of maps on cases made by hand."""

import numpy as np
import tensorflow as tf

from vatt_tf.evaluation import localization_metrics as measures
from vatt_tf.models import vatt


def _boxes(*boxes):
  """One clip of one frame with these boxes."""
  return np.array(boxes, np.float64)[np.newaxis, np.newaxis]


def _mask(*mask):
  return np.array(mask)[np.newaxis, np.newaxis]


def _map(values):
  return np.array(values, np.float64)[np.newaxis, np.newaxis]


class PointingTest(tf.test.TestCase):
  def test_a_frame_has_the_map_of_its_time_step(self):
    maps = np.arange(3).reshape([1, 3, 1, 1])
    found = measures.of_frames(maps, 6)
    self.assertAllEqual(found.ravel(), [0, 0, 1, 1, 2, 2])
    self.assertAllEqual(measures.of_frames(maps, 3), maps)

  def test_a_step_points_at_one_place(self):
    # Two steps of two frames, three places: the first step's frames have no
    # place in common, the second's have place 2.
    inside = np.zeros([1, 4, 3], bool)
    inside[0, 0, 0] = inside[0, 1, 1] = True
    inside[0, 2, [1, 2]] = inside[0, 3, 2] = True
    seen = np.ones([1, 4], bool)
    found = measures.reachable(inside, seen, 2)
    self.assertAllEqual(found, [[True, False, True, True]])
    self.assertAllEqual(measures.reachable(inside, seen, 4), seen)
    seen[0, 0] = False
    found = measures.reachable(inside, seen, 2)
    self.assertAllEqual(found, [[False, True, True, True]])

  def test_the_best_place_is_a_centre(self):
    maps = _map([[0.0, 0.9], [0.1, 0.2]])  # the best is at (0.75, 0.25)
    for box, expected in (
      ((0.5, 0.0, 1.0, 0.5), True),
      ((0.7, 0.2, 0.8, 0.3), True),
      ((0.76, 0.0, 1.0, 0.5), False),
      ((0.0, 0.5, 1.0, 1.0), False),
    ):
      found = measures.pointing_hits(maps, _boxes(box), _mask(True))
      self.assertAllEqual(found, [[expected]])

  def test_any_box_counts_and_masked_ones_do_not(self):
    maps = _map([[0.0, 0.9], [0.1, 0.2]])
    boxes = _boxes((0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5))
    for mask, expected in (((True, True), True), ((True, False), False)):
      found = measures.pointing_hits(maps, boxes, _mask(*mask))
      self.assertAllEqual(found, [[expected]])

  def test_ties_are_misses_unless_all_are_inside(self):
    maps = _map([[0.5, 0.5], [0.0, 0.0]])
    upper, left = (0, 0, 1, 0.5), (0, 0, 0.5, 1)
    for box, expected in ((upper, True), (left, False)):
      found = measures.pointing_hits(maps, _boxes(box), _mask(True))
      self.assertAllEqual(found, [[expected]])
    everywhere = measures.pointing_hits(
      np.zeros_like(maps), _boxes(upper), _mask(True)
    )
    self.assertAllEqual(everywhere, [[False]])

  def test_cover_has_the_pixels_of_a_box(self):
    found = measures.cover(_boxes((0.25, 0.5, 0.75, 1.0)), _mask(True), 4)
    self.assertAllEqual(
      found[0, 0],
      [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]],
    )

  def test_agreement_of_annotators(self):
    boxes = _boxes((0, 0, 1, 0.5), (0.5, 0, 1, 1))
    found = measures.cover(boxes, _mask(True, True), 2, agreement=2)
    self.assertAllEqual(found[0, 0], [[0.5, 1.0], [0.0, 0.5]])
    found = measures.cover(boxes, _mask(True, False), 2, agreement=2)
    self.assertAllEqual(found[0, 0], [[0.5, 0.5], [0.0, 0.0]])


class IoUTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.truth = np.zeros([1, 4, 4], bool)
    self.truth[0, :2, :2] = True  # 4 of 16 pixels

  def test_adaptive_iou_takes_as_many_pixels_as_the_truth(self):
    maps = np.zeros([1, 4, 4])
    maps[0, :2, 1:3] = 1.0  # 4 pixels, 2 of them right
    self.assertAllClose(measures.adaptive_iou(maps, self.truth), [2 / 6])
    self.assertAllClose(
      measures.adaptive_iou(self.truth.astype(float), self.truth), [1.0]
    )

  def test_equal_pixels_outside_come_first(self):
    maps = np.zeros([1, 4, 4])
    self.assertAllEqual(measures.adaptive_iou(maps, self.truth), [0.0])
    self.assertAllEqual(measures.half_frame_iou(maps, self.truth), [0.0])

  def test_half_frame_iou_takes_half_of_the_pixels(self):
    maps = np.zeros([1, 4, 4])
    maps[0, :2] = 1.0  # the upper half: 4 right, 4 wrong
    self.assertAllClose(measures.half_frame_iou(maps, self.truth), [0.5])

  def test_half_frame_iou_of_shares(self):
    maps = np.zeros([1, 2, 2])
    maps[0, 0] = 1.0
    shares = np.array([[[1.0, 0.5], [0.5, 0.0]]])
    # 1.5 of 2 are covered, and no predicted pixel is outside.
    self.assertAllClose(measures.half_frame_iou(maps, shares), [0.75])

  def test_auc_is_the_area_under_the_shares(self):
    self.assertAllClose(measures.auc(np.ones([3])), 1.0)
    self.assertAllClose(measures.auc(np.zeros([3])), 0.025)
    # A share of 1 up to 0.5, and 0 from 0.55.
    self.assertAllClose(measures.auc(np.full([3], 0.5)), 0.525)


class ScoresTest(tf.test.TestCase):
  def test_auroc_counts_ties_as_wrong(self):
    self.assertAllClose(measures.auroc([1.0, 2.0], [0.0, 1.5]), 0.75)
    self.assertAllClose(measures.auroc([1.0], [1.0]), 0.0)

  def test_wilson_interval(self):
    # Newcombe (1998), table I.
    for right, count, expected in (
      (81, 263, (0.2553, 0.3662)),
      (15, 148, (0.0624, 0.1605)),
      (0, 20, (0.0, 0.1611)),
      (1, 29, (0.0061, 0.1718)),
    ):
      found = measures.wilson_interval(right, count)
      self.assertAllClose(found, expected, atol=1e-4)

  def test_score_is_the_mean_of_the_best_places(self):
    maps = np.array([[[0.1, 0.4]], [[0.6, 0.2]]])[np.newaxis]
    self.assertAllClose(vatt.score_of(tf.constant(maps)), [0.5])

  def test_shifted_share(self):
    random = np.random.default_rng(0)
    maps = random.random([2, 3, 4, 5])
    moved = np.roll(maps, 1, -1)
    self.assertAllEqual(measures.shifted_share(maps, moved), [1.0, 1.0])
    self.assertAllEqual(measures.shifted_share(maps, maps), [0.0, 0.0])
    moved[0, 0] = 0.5  # no best place
    self.assertAllClose(measures.shifted_share(maps, moved), [2 / 3, 1.0])


if __name__ == '__main__':
  tf.test.main()
