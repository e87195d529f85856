"""Boxes from maps."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.localization import map_boxes


class MapBoxesTest(parameterized.TestCase):
  def test_box_of_one_region(self):
    values = np.full([8, 8], -0.2)
    values[2:5, 4:8] = 0.9
    box = map_boxes.box_of_map(values, 0.5)
    np.testing.assert_allclose(box, [4 / 8, 2 / 8, 1, 5 / 8], atol=1 / 64)

  def test_largest_region_not_the_highest(self):
    values = np.zeros([8, 8])
    values[0, 0] = 1.0
    values[4:7, 4:7] = 0.8
    box = map_boxes.box_of_map(values, 0.5)
    np.testing.assert_allclose(box, [4 / 8, 4 / 8, 7 / 8, 7 / 8], atol=2 / 64)

  def test_higher_threshold_smaller_box(self):
    y, x = np.mgrid[:6, :6]
    values = -np.hypot(x - 3, y - 2)

    def area(threshold):
      left, top, right, bottom = map_boxes.box_of_map(values, threshold)
      return (right - left) * (bottom - top)

    areas = [area(threshold) for threshold in (0.3, 0.5, 0.7, 0.9, 0.999)]
    self.assertEqual(areas, sorted(areas, reverse=True))
    self.assertGreater(areas[-1], 0)

  def test_equal_map_has_no_box(self):
    self.assertIsNone(map_boxes.box_of_map(np.full([4, 4], 0.3)))


if __name__ == '__main__':
  tf.test.main()
