"""The signature `detect` of an exported detector."""

import os

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.export import saved_model, signatures
from vatt_tf.input_pipeline import video_config
from vatt_tf.models import detection, patch_tower, sizes


def _served(num_frames=1):
  tf_keras.utils.set_random_seed(0)
  tower = patch_tower.PatchTower(
    'video',
    input_size=(num_frames, 32),
    patch_size=(1, 8, 8),
    size=sizes.Size(1, 8, 16, 2, d_kv=4),
    drop_token_rate=0.0,
  )
  model = detection.Detector(tower, 3, num_convs=1, width=8, num_groups=2)
  model.build()
  # Sure of something at each place.
  model.logits.bias.assign([2.0, -2.0, -2.0])
  video = video_config.VideoConfig(
    num_frames=num_frames, frame_size=32, scale=1.0
  )
  return model, signatures.ServedModel(model, video)


class DetectSignatureTest(tf.test.TestCase):
  def test_boxes_are_shares_of_the_image(self):
    model, served = _served()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, [1, 32, 64, 3], np.uint8)
    found = served.functions['detect'](image=tf.constant(image))
    # The model sees the middle half of the columns.
    middle = image[:, np.newaxis, :, 16:48].astype(np.float32)
    expected = model.detect(middle * (2 / 255) - 1)
    count = int(expected['num_detections'][0])
    self.assertGreater(count, 0)
    self.assertAllEqual(found['num_detections'], [count])
    self.assertAllClose(found['scores'], expected['scores'])
    boxes = expected['boxes'][0, :count].numpy()
    boxes[:, [0, 2]] = 0.25 + 0.5 * boxes[:, [0, 2]]
    self.assertAllClose(found['boxes'][0, :count], boxes, atol=1e-5)
    self.assertAllEqual(found['boxes'][0, count:], np.zeros([100 - count, 4]))
    self.assertAllEqual(found['classes'][0, count:], -np.ones([100 - count]))

  def test_several_frames_are_one_image(self):
    _, served = _served(2)
    image = np.full([2, 40, 40, 3], 90, np.uint8)
    found = served.functions['detect'](image=tf.constant(image))
    self.assertAllEqual(found['boxes'].shape, [2, 100, 4])

  def test_export_and_card(self):
    _, served = _served()
    output = os.path.join(self.get_temp_dir(), 'model')
    path = saved_model.write(
      served, output, 'ckpt-3', '', label_names=['a', 'b', 'c']
    )
    loaded = tf.saved_model.load(path)
    image = np.full([1, 48, 40, 3], 90, np.uint8)
    found = loaded.signatures['detect'](image=tf.constant(image))
    again = served.functions['detect'](image=tf.constant(image))
    self.assertAllClose(found, again)
    with open(os.path.join(path, 'assets.extra', saved_model.CARD)) as file:
      card = file.read()
    self.assertIn('## `detect` (also `serving_default`)', card)
    self.assertIn('| `num_detections` | (any) int32 |', card)

  def test_names_what_is_wrong(self):
    _, served = _served()
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError, 'at least two rows and columns'
    ):
      served.functions['detect'](image=tf.zeros([1, 1, 4, 3], tf.uint8))


if __name__ == '__main__':
  tf.test.main()
