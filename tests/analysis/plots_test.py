"""Tests of `vatt_tf.analysis.plots`: what is drawn, read back from it."""

from absl.testing import parameterized
from matplotlib.backends import backend_agg
import numpy as np
import tensorflow as tf

from vatt_tf.analysis import plots


def _draw(sheet):
  """Draws a figure: it finds what cannot be drawn."""
  backend_agg.FigureCanvasAgg(sheet).draw()


class PlotsTest(parameterized.TestCase, tf.test.TestCase):
  """What pictures show, and what cannot be shown."""

  @parameterized.parameters(3, 80)
  def test_neighbours_stay_neighbours(self, width):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 25)
    features = rng.normal(size=(100, width)) + 20 * np.eye(4, width)[groups]
    if width == 3:
      features[groups == 3] -= 20
    points = plots.embed_in_plane(features)
    self.assertEqual(points.shape, (100, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    self.assertAllEqual(groups[distances.argmin(1)], groups)
    self.assertAllEqual(plots.embed_in_plane(features), points)

  def test_equal_rows_are_one_point(self):
    points = plots.embed_in_plane(np.ones([7, 5]))
    self.assertAllEqual(points, np.zeros([7, 2]))

  def test_refuses_features(self):
    with self.assertRaisesRegex(ValueError, r'at least 4 rows.*\(3, 5\)'):
      plots.embed_in_plane(np.ones([3, 5]))
    features = np.ones([9, 5])
    features[4, 1] = np.nan
    with self.assertRaisesRegex(ValueError, 'row 4 is not'):
      plots.embed_in_plane(features)

  @parameterized.parameters((3, True), (80, True), (81, False))
  def test_points(self, num_groups, has_legend):
    points = np.random.default_rng(0).normal(size=(200, 2))
    groups = [f'class {i % num_groups:03d} of $5' for i in range(200)]
    sheet = plots.draw_points(points, groups, 'a title', 'class')
    _draw(sheet)
    drawn = sheet.axes[0].collections
    self.assertLen(drawn, num_groups)
    self.assertAllEqual(drawn[1].get_offsets(), points[1::num_groups])
    self.assertLen(sheet.legends, int(has_legend))
    if has_legend:
      styles = {
        (tuple(each.get_facecolor()[0]), each.get_paths()[0].vertices.tobytes())
        for each in drawn
      }
      self.assertLen(styles, num_groups)

  def test_activations(self):
    means = {
      'video': np.zeros([12, 64]),
      'text': np.linspace(-2, 2, 12 * 64).reshape([12, 64]),
    }
    sheet = plots.draw_activations(means)
    _draw(sheet)
    video, text = (axes.images[0] for axes in sheet.axes[:2])
    self.assertAllEqual(text.get_array(), means['text'])
    self.assertEqual(video.get_clim(), text.get_clim())
    low, high = text.get_clim()
    self.assertEqual(low, -high)
    self.assertIn('text', sheet.axes[1].get_ylabel())
    self.assertAllInRange(sheet.axes[0].get_yticks(), 1, 12)

  def test_confusion(self):
    counts = [[3, 1, 0], [0, 0, 0], [0, 2, 2]]
    sheet = plots.draw_confusion(counts, ['cat', 'dog', 'cow'])
    _draw(sheet)
    axes = sheet.axes[0]
    shares = [[0.75, 0.25, 0], [0, 0, 0], [0, 0.5, 0.5]]
    self.assertAllClose(axes.images[0].get_array(), shares)
    cells = {each.get_position(): each.get_text() for each in axes.texts}
    expected = {(0, 0): '3', (1, 0): '1', (1, 2): '2', (2, 2): '2'}
    self.assertEqual(cells, expected)
    self.assertEqual(
      [each.get_text() for each in axes.get_yticklabels()],
      ['cat', 'dog', 'cow'],
    )
    _draw(plots.draw_confusion(np.eye(400, dtype=int), ['x'] * 400))

  def test_maps(self):
    images = np.full([2, 4, 24, 32, 3], 100, np.uint8)
    maps = np.zeros([2, 2, 3, 4])
    maps[0, :, 0, 0] = 1.0
    sheet = plots.draw_maps(images, maps)
    (axes,) = sheet.axes
    shown = axes.images[0].get_array()
    self.assertEqual(shown.shape, (4 * 24, 2 * 32, 3))
    self.assertAllEqual(shown[:24], np.full([24, 64, 3], 100))
    # The highest place is laid over; the second clip has none.
    self.assertGreater(np.abs(shown[24:28, :4].astype(int) - 100).min(), 30)
    self.assertAllEqual(shown[24 + 16 : 48, 16:32], np.full([8, 16, 3], 100))
    self.assertAllEqual(shown[72:], np.full([24, 64, 3], 100))

  def test_detections(self):
    images = np.full([9, 24, 32, 3], 100, np.uint8)
    boxes = [np.array([[0.25, 0.0, 0.75, 0.5]]), *[np.zeros([0, 4])] * 8]
    titles = [['3 $0.50'], *[[]] * 8]
    sheet = plots.draw_detections(images, boxes, titles)
    _draw(sheet)
    self.assertLen(sheet.axes, 9)
    (box,) = sheet.axes[0].patches
    self.assertEqual(box.get_bbox().extents.tolist(), [0.25, 0.0, 0.75, 0.5])
    self.assertEmpty(sheet.axes[8].patches)

  def test_retrieval(self):
    frames = np.full([2, 3, 8, 8, 3], 255, np.uint8)
    scores = np.asarray([[0.9, 0.5, 0.1], [0.4, 0.3, 0.2]])
    is_match = np.asarray([[False, True, False], [False] * 3])
    sheet = plots.draw_retrieval(
      ['a $5 red ball', 'a blue cube'], frames, scores, is_match, [2, 40]
    )
    _draw(sheet)
    pictures = [axes for axes in sheet.axes if axes.images]
    self.assertEqual(
      [axes.get_title() for axes in pictures],
      ['0.900', '0.500', '0.100', '0.400', '0.300', '0.200'],
    )
    is_marked = [axes.spines['left'].get_linewidth() > 1 for axes in pictures]
    self.assertEqual(is_marked, [False, True] + 4 * [False])
    words = [each.get_text() for axes in sheet.axes for each in axes.texts]
    self.assertIn('rank 40', words[1])


if __name__ == '__main__':
  tf.test.main()
