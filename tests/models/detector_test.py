"""The detector: shapes, weights, boxes, and what it selects."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.models import detection, patch_tower, sizes


def _detector(num_classes=3, **arguments):
  tower = patch_tower.PatchTower(
    'video',
    input_size=(1, 32),
    patch_size=(1, 8, 8),
    size=sizes.Size(1, 8, 16, 2, d_kv=4),
    drop_token_rate=0.0,
  )
  arguments = {'num_convs': 1, 'width': 8, 'num_groups': 2, **arguments}
  model = detection.Detector(tower, num_classes, **arguments)
  model.build()
  return model


class DetectorTest(tf.test.TestCase, parameterized.TestCase):
  def test_outputs(self):
    model = _detector()
    outputs = model({names.VIDEO: tf.zeros([2, 1, 32, 48, 3])})
    self.assertEqual(outputs[detection.LOGITS].shape, [2, 4, 6, 3])
    self.assertEqual(outputs[detection.DISTANCES].shape, [2, 4, 6, 4])
    self.assertEqual(outputs[detection.CENTRE_LOGITS].shape, [2, 4, 6])
    # It begins with few objects, of the size of about a place.
    self.assertLess(np.max(tf.sigmoid(outputs[detection.LOGITS])), 0.02)
    self.assertAllClose(
      outputs[detection.DISTANCES].numpy().mean((0, 1, 2)),
      [1 / 6, 1 / 4, 1 / 6, 1 / 4],
      rtol=0.2,
    )

  def test_names_of_weights(self):
    model = _detector()
    weights = {weight.name for weight in model.trainable_weights}
    for name in (
      'vatt/video_embedding/agg:0',
      'detector/norm/gamma:0',
      'detector/class_conv_0/kernel:0',
      'detector/box_norm_0/gamma:0',
      'detector/logits/bias:0',
      'detector/distances/kernel:0',
      'detector/centre/kernel:0',
    ):
      self.assertIn(name, weights)

  def test_config(self):
    model = _detector()
    again = detection.Detector.from_config(model.get_config())
    again.build()
    again.set_weights(model.get_weights())
    x = {names.VIDEO: tf.random.normal([1, 1, 32, 32, 3], seed=0)}
    self.assertAllClose(again(x), model(x))

  def test_boxes_of_places(self):
    distances = np.zeros([1, 2, 4, 4], np.float32)
    distances[0, 1, 2] = [0.1, 0.2, 0.3, 0.4]
    boxes = detection.boxes_of(tf.constant(distances))
    # The centre of the place is (0.625, 0.75).
    self.assertAllClose(boxes[0, 1, 2], [0.525, 0.55, 0.925, 1.15])
    self.assertAllClose(boxes[0, 0, 0], [0.125, 0.25, 0.125, 0.25])

  def test_selects_the_best(self):
    model = _detector()
    logits = np.full([2, 4, 4, 3], -9.0, np.float32)
    distances = np.full([2, 4, 4, 4], 0.2, np.float32)
    logits[0, 1, 1, 2] = 5.0
    logits[0, 1, 2, 2] = 4.0  # overlaps it
    logits[0, 2, 2, 0] = 3.0
    centre = np.full([2, 4, 4], 9.0, np.float32)
    centre[0, 2, 2] = -1.0
    found = model.select(
      {
        detection.LOGITS: tf.constant(logits),
        detection.DISTANCES: tf.constant(distances),
        detection.CENTRE_LOGITS: tf.constant(centre),
      },
      max_detections=4,
      max_overlap=0.2,
    )
    self.assertAllEqual(found[detection.NUM_DETECTIONS], [2, 0])
    self.assertAllEqual(
      found[detection.CLASSES], [[2, 0, -1, -1], [-1, -1, -1, -1]]
    )

    def sigmoid(x):
      return 1 / (1 + np.exp(-x))

    self.assertAllClose(
      found[detection.SCORES][0],
      [
        np.sqrt(sigmoid(5.0) * sigmoid(9.0)),
        np.sqrt(sigmoid(3.0) * sigmoid(-1.0)),
        0,
        0,
      ],
    )
    self.assertAllClose(
      found[detection.BOXES][0, 0], [0.175, 0.175, 0.575, 0.575]
    )

  def test_bad_arguments(self):
    with self.assertRaisesRegex(ValueError, 'num_classes=0'):
      _detector(0)
    with self.assertRaisesRegex(ValueError, 'width=8, num_groups=3'):
      _detector(num_groups=3)
    audio = patch_tower.PatchTower(
      'audio', input_size=1280, size=sizes.Size(1, 8, 16, 2, d_kv=4)
    )
    with self.assertRaisesRegex(ValueError, 'a tower of audio'):
      detection.Detector(audio, 3)
    dropping = patch_tower.PatchTower(
      'video', size=sizes.Size(1, 8, 16, 2, d_kv=4)
    )
    with self.assertRaisesRegex(ValueError, 'drop_token_rate=0.5'):
      detection.Detector(dropping, 3)
    with self.assertRaisesRegex(ValueError, "key 'video'"):
      _detector()({})


if __name__ == '__main__':
  tf.test.main()
