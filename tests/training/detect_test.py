"""The task of the detector learns where bright rectangles are."""

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import randomness
from vatt_tf.models import detection, patch_tower, sizes
from vatt_tf.training import detect


def _model():
  tower = patch_tower.PatchTower(
    'video',
    input_size=(1, 32),
    patch_size=(1, 8, 8),
    size=sizes.Size(1, 16, 32, 2, d_kv=8),
    drop_token_rate=0.0,
    dropout_rate=0.0,
  )
  return detection.Detector(tower, 2, num_convs=1, width=16, num_groups=4)


def _features(num_rows, seed):
  """Images with a red or a blue rectangle; every eighth has none."""
  rng = np.random.default_rng(seed)
  video = -np.ones([num_rows, 1, 32, 32, 3], np.float32)
  corner = rng.integers(0, 16, [num_rows, 2])
  size = rng.integers(8, 16, [num_rows, 2])
  boxes = np.concatenate([corner, corner + size], 1)
  classes = rng.integers(2, size=num_rows)
  for i, (left, top, right, bottom) in enumerate(boxes):
    if i % 8:
      video[i, 0, top:bottom, left:right, 2 * classes[i]] = 1.0
  mask = (np.arange(num_rows) % 8 > 0)[:, np.newaxis, np.newaxis]
  return {
    names.VIDEO: video,
    names.VIDEO_MASK: np.ones([num_rows], bool),
    names.VIDEO_BOXES: (boxes / 32)[:, None, None].astype(np.float32),
    names.VIDEO_BOX_MASK: mask,
    names.VIDEO_BOX_CLASS: classes[:, None, None].astype(np.int32),
  }


class DetectTaskTest(tf.test.TestCase):
  def test_learns(self):
    tf_keras.utils.set_random_seed(0)
    task = detect.DetectTask(_model)
    model = task.build_model()
    optimizer = tf_keras.optimizers.Adam(3e-3)

    @tf.function(autograph=False)
    def step(features):
      with tf.GradientTape() as tape:
        outputs = model(features, training=True, rng=randomness.make(0, 0))
        loss, metrics = task.loss(features, outputs)
      gradients = tape.gradient(loss, model.trainable_weights)
      optimizer.apply_gradients(zip(gradients, model.trainable_weights))
      return metrics

    first = last = None
    for i in range(150):
      last = step(_features(32, i))
      first = first or last
    for name in task.progress_metrics:
      self.assertLess(last[name], 0.9 * first[name])
    self.assertGreater(last['mean_iou'], 0.5)
    held_out = _features(64, 1000)
    found = model.detect(held_out[names.VIDEO], min_score=0.3)
    exists = held_out[names.VIDEO_BOX_MASK][:, 0, 0]
    self.assertLess(
      np.mean(found[detection.NUM_DETECTIONS].numpy()[~exists]), 0.5
    )
    truth = held_out[names.VIDEO_BOXES][exists, 0, 0]
    best = found[detection.BOXES].numpy()[exists, 0]
    self.assertLess(np.abs(best - truth).mean(), 0.08)
    classes = held_out[names.VIDEO_BOX_CLASS][exists, 0, 0]
    agreement = found[detection.CLASSES].numpy()[exists, 0] == classes
    self.assertGreater(agreement.mean(), 0.9)

  def test_groups(self):
    task = detect.DetectTask(_model)
    groups = {
      task.variable_group(weight.name)
      for weight in task.build_model().trainable_weights
    }
    self.assertEqual(groups, {'backbone', 'head'})

  def test_bad_input(self):
    with self.assertRaisesRegex(ValueError, 'radius=0'):
      detect.DetectTask(_model, radius=0)
    with self.assertRaisesRegex(ValueError, 'max_boxes'):
      detect.DetectTask(_model).loss({names.VIDEO: 0}, {})


if __name__ == '__main__':
  tf.test.main()
