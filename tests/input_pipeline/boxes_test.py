"""Boxes in the rows of evaluation."""

import dataclasses

import numpy as np
import tensorflow as tf

from tests.input_pipeline import pipeline_case
from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import video_config
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
    boxes, mask, sounds = (
      row[name][0].numpy()
      for name in (
        names.VIDEO_BOXES,
        names.VIDEO_BOX_MASK,
        names.VIDEO_BOX_IS_SOUNDING,
      )
    )
    self.assertAllEqual(mask, [[1, 1], [0, 0], [0, 1]])
    self.assertAllClose(
      boxes[0], [[1 / 6, 0, 1 / 2, 1], [1 / 2, 1 / 4, 7 / 6, 1 / 2]]
    )
    self.assertAllClose(boxes[2, 1], [1 / 6, 0, 1 / 2, 1])
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
    boxes = next(iter(dataset))[names.VIDEO_BOXES][:, 0, 0, 0]
    self.assertAllClose(boxes, [1 / 3, 1 / 6, 0])

  def test_records_without_boxes(self):
    for regions in ([], [[], [], []]):
      row = self._row(regions)
      self.assertFalse(np.any(row[names.VIDEO_BOX_MASK]))
      self.assertTrue(np.all(row[names.VIDEO_MASK]))

  def test_training_has_none(self):
    pattern = self._write([pipeline_case.clip(0)])
    with self.assertRaisesRegex(ValueError, 'max_boxes=2'):
      self._make(pattern, 1, is_training=True, video=_CONFIG)


if __name__ == '__main__':
  tf.test.main()
