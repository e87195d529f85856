"""The plan of an ingest: how spans are cut into clips."""

from absl.testing import parameterized
import tensorflow as tf

from vatt_tf.media import (
  planning,
)


class CutTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(
    ({'length': 0}, [(0, 100)]),
    ({'length': 200}, [(0, 100)]),
    ({'length': 50}, [(0, 50), (50, 100)]),
    ({'length': 40}, [(0, 40), (40, 80), (80, 100)]),
    ({'length': 45}, [(0, 45), (45, 100)]),
    ({'length': 45, 'min_length': 5}, [(0, 45), (45, 90), (90, 100)]),
    ({'length': 60, 'overlap': 20}, [(0, 60), (40, 100)]),
    ({'length': 50, 'overlap': 25}, [(0, 50), (25, 75), (50, 100)]),
    (
      {'length': 40, 'overlap': 10, 'min_length': 0},
      [(0, 40), (30, 70), (60, 100)],
    ),
  )  # fmt: skip
  def test_cut(self, arguments, expected):
    self.assertEqual(planning.cut(0, 100, **arguments), expected)
    shifted = planning.cut(7, 107, **arguments)
    self.assertEqual(shifted, [(a + 7, b + 7) for a, b in expected])

  def test_nothing_is_lost(self):
    for length in range(1, 40):
      for overlap in range(length):
        pieces = planning.cut(0, 100, length, overlap)
        self.assertEqual((pieces[0][0], pieces[-1][1]), (0, 100))
        for (_, end), (start, _) in zip(pieces, pieces[1:]):
          self.assertLessEqual(start, end)


if __name__ == '__main__':
  tf.test.main()
