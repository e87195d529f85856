"""Boxes in the rows of training and evaluation."""

import dataclasses

from absl.testing import parameterized
import cv2
import numpy as np
import tensorflow as tf

from tests.input_pipeline import pipeline_case
from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import boxes, video_config
from vatt_tf.input_pipeline.records import schema

_CONFIG = video_config.VideoConfig(
  num_frames=3, frame_rate=10.0, frame_size=8, scale=1.0, max_boxes=2
)


class BoxesTest(pipeline_case.Case):
  def _row(self, regions, config=_CONFIG):
    clip = pipeline_case.clip(0, num_frames=3)  # 16 x 12 pixels
    clip.regions = regions
    pattern = self._write([clip])
    dataset = self._make(pattern, 1, is_training=False, video=config)
    return next(iter(dataset))

  def test_boxes_of_the_window(self):
    # The middle 12 of 16 columns are seen: shares 1/8 to 7/8 of the frame.
    inside = schema.Region(0.25, 0.0, 0.5, 1.0, 'a', True)
    partly = schema.Region(0.5, 0.25, 1.0, 0.5, 'b', False)
    outside = schema.Region(0.0, 0.0, 0.1, 1.0, 'c')
    row = self._row([[inside, partly, outside], [], [outside, inside]])
    edges, mask, sounds = (
      row[name][0].numpy()
      for name in (
        names.VIDEO_BOXES,
        names.VIDEO_BOX_MASK,
        names.VIDEO_BOX_IS_SOUNDING,
      )
    )
    self.assertAllEqual(mask, [[1, 1], [0, 0], [0, 1]])
    self.assertAllClose(
      edges[0], [[1 / 6, 0, 1 / 2, 1], [1 / 2, 1 / 4, 7 / 6, 1 / 2]]
    )
    self.assertAllClose(edges[2, 1], [1 / 6, 0, 1 / 2, 1])
    self.assertAllEqual(sounds[0], [1, 0])
    self.assertEqual(sounds[2, 1], 1)

  def test_crops_have_their_own_edges(self):
    box = schema.Region(0.25, 0.0, 0.5, 1.0)
    config = dataclasses.replace(_CONFIG, num_crops=3)
    clip = pipeline_case.clip(0, num_frames=3)
    clip.regions = [[box]] * 3
    dataset = self._make(
      self._write([clip]), 3, is_training=False, video=config
    )
    edges = next(iter(dataset))[names.VIDEO_BOXES][:, 0, 0, 0]
    self.assertAllClose(edges, [1 / 3, 1 / 6, 0])

  def test_records_without_boxes(self):
    for regions in ([], [[], [], []]):
      row = self._row(regions)
      self.assertFalse(np.any(row[names.VIDEO_BOX_MASK]))
      self.assertTrue(np.all(row[names.VIDEO_MASK]))

  @parameterized.parameters((0.0,), (0.1,))
  def test_training_follows_the_window_and_the_flip(self, cache_gib):
    # A bright rectangle on black: the edges of its pixels are the box.
    frame = np.zeros([48, 64, 3], np.uint8)
    frame[12:36, 8:24] = 255
    clip = pipeline_case.clip(0, num_frames=3, height=48, width=64)
    clip.frames = [cv2.imencode('.jpg', frame)[1].tobytes()] * 3
    clip.regions = [[schema.Region(8 / 64, 12 / 48, 24 / 64, 36 / 48, 'a')]] * 3
    config = dataclasses.replace(
      _CONFIG, frame_size=64, scale=0.8, scale_jitter=0.2, color_rate=0.0
    )
    dataset = self._make(
      self._write([clip] * 8), 8, video=config, cache_gib=cache_gib, seed=3
    )
    batch = next(iter(dataset))
    found = batch[names.VIDEO_BOXES].numpy()[:, 0, 0]
    exists = batch[names.VIDEO_BOX_MASK].numpy()[:, 0, 0]
    self.assertGreater(exists.sum(), 4)
    is_bright = batch[names.VIDEO].numpy()[:, 0, ..., 0] > 0
    for edges, bright in zip(np.clip(found, 0, 1)[exists], is_bright[exists]):
      rows, columns = (np.flatnonzero(bright.any(axis)) for axis in (1, 0))
      seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
      self.assertAllClose(64 * edges, seen, atol=2)
    self.assertFalse(is_bright[~exists].any())
    # The same place in the frame is at both sides of the windows.
    self.assertLess(found[exists, 0].min(), 0.3)
    self.assertGreater(found[exists, 2].max(), 0.7)

  def test_classes(self):
    regions = [
      [schema.Region(0.3, 0.3, 0.5, 0.5, label) for label in labels]
      for labels in (['b', 'unknown'], ['a'], [])
    ]
    path = self._folder / 'labels.txt'
    path.write_text('a\nb\n')
    for labels in (['a', 'b'], str(path)):
      config = dataclasses.replace(_CONFIG, box_labels=labels)
      row = self._row(regions, config)
      classes = row[names.VIDEO_BOX_CLASS][0].numpy()
      self.assertAllEqual(classes[0], [1, -1])
      self.assertEqual(classes[1, 0], 0)
    row = self._row(regions)
    self.assertAllEqual(row[names.VIDEO_BOX_CLASS][0], np.zeros([3, 2]))

  def test_bad_labels(self):
    with self.assertRaisesRegex(ValueError, 'no file /none'):
      boxes.read_labels('/none')
    with self.assertRaisesRegex(ValueError, 'each class once'):
      boxes.read_labels(['a', 'a'])


if __name__ == '__main__':
  tf.test.main()
