"""Tests of images of tensorflow-datasets as clips, on a set made here."""

import tempfile

from absl.testing import absltest, parameterized
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import tiny_images
from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import frame_ops, images, video_config
from vatt_tf.input_pipeline import plan as plan_lib

_VIDEO = video_config.VideoConfig(num_frames=3, frame_size=8, scale=1.0)
_LABEL = plan_lib.LabelConfig(num_classes=4)


class ImagesTest(tf.test.TestCase, parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())
    for name in (
      'tiny_jpeg_images',
      'tiny_png_images',
      'tiny_multi_label_images',
    ):
      tfds.builder(name, data_dir=cls.folder).download_and_prepare()

  def test_several_classes(self):
    dataset = self._make(
      False,
      'tiny_multi_label_images',
      label=plan_lib.LabelConfig(num_classes=4, is_multi_label=True),
      label_name='labels',
    )
    rows = np.concatenate([batch['label'] for batch in dataset])[:5]
    expected = [[number >> i & 1 for i in range(4)] for number in range(5)]
    self.assertCountEqual(rows.tolist(), expected)  # in the order of the set
    with self.assertRaisesRegex(ValueError, '`is_multi_label` must be True'):
      self._make(False, 'tiny_multi_label_images', label_name='labels')

  @parameterized.parameters(tf.io.encode_jpeg, tf.io.encode_png)
  def test_an_image_of_one_pixel(self, encode):
    encoded = encode(np.full([1, 1, 3], 200, np.uint8))
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError, r"two rows and columns[^$]*set-7'\n1\n1"
    ):
      images.load_image(encoded, _VIDEO, name='set-7')

  def test_a_sum_of_splits(self):
    dataset = images.make_image_dataset(
      'tiny_jpeg_images',
      'train+validation',
      2,
      False,
      _VIDEO,
      _LABEL,
      data_dir=self.folder,
    )
    self.assertEqual(sum(int(np.sum(batch['valid'])) for batch in dataset), 12)

  def _make(self, is_training, name='tiny_jpeg_images', batch=2, **arguments):
    arguments = {'video': _VIDEO, 'label': _LABEL, **arguments}
    split = 'train' if is_training else 'validation'
    return images.make_image_dataset(
      name, split, batch, is_training, data_dir=self.folder, **arguments
    )

  def _rows(self, dataset, count=None):
    dataset = dataset.unbatch()
    if count is not None:
      dataset = dataset.take(count)
    return list(dataset.as_numpy_iterator())

  @parameterized.parameters('tiny_jpeg_images', 'tiny_png_images')
  def test_evaluation_takes_every_image_once(self, name):
    rows = self._rows(self._make(False, name))
    self.assertLen(rows, 6)
    self.assertEqual([row['valid'] for row in rows], [True] * 5 + [False])
    ids = [row['example_id'].decode() for row in rows[:5]]
    self.assertLen(set(ids), 5)
    self.assertEqual(sorted(row['label'] for row in rows[:5]), [0, 0, 1, 2, 3])
    for row in rows[:5]:
      self.assertEqual(row[names.VIDEO].shape, (3, 8, 8, 3))
      for frame in row[names.VIDEO]:
        self.assertAllEqual(frame, row[names.VIDEO][0])
    self.assertAllEqual(rows[5][names.VIDEO], np.zeros([3, 8, 8, 3]))

  def test_png_images_are_exact(self):
    found = {
      row['video'][0].tobytes()
      for row in self._rows(self._make(False, 'tiny_png_images'))[:5]
    }
    expected = set()
    for number in range(5):
      center = tiny_images.image('validation', number)[:, 5:25].astype(
        np.float32
      )
      resized = tf.image.resize(center, [8, 8])
      expected.add(frame_ops.scale_values(resized[None])[0].numpy().tobytes())
    self.assertEqual(found, expected)

  @parameterized.parameters(1, 5)
  def test_goes_on_at_any_step(self, step):
    config = video_config.VideoConfig(
      num_frames=2, frame_size=8, area_range=(0.08, 1.0)
    )

    def rows(start, count):
      dataset = self._make(
        True, video=config, seed=4, start_step=start, with_example_id=True
      )
      return [
        (row['example_id'], row['label'], row['video'].tobytes())
        for row in self._rows(dataset, count)
      ]

    whole = rows(0, 2 * step + 6)
    self.assertEqual(rows(step, 6), whole[2 * step :])
    first, second = whole[:7], rows(0, 14)[7:]
    self.assertEqual({row[0] for row in first}, {row[0] for row in second})
    self.assertNotEqual([row[0] for row in first], [row[0] for row in second])

  def test_two_pipelines_share_the_images(self):
    found = []
    for number in range(2):
      context = tf.distribute.InputContext(2, number, 2)
      rows = self._rows(self._make(False, input_context=context, batch=4))
      self.assertLen(rows, 4)
      found.append({row['example_id'] for row in rows if row['valid']})
    self.assertEqual(list(map(len, found)), [3, 2])
    self.assertLen(found[0] | found[1], 5)

  def test_labels_of_the_images(self):
    labels = {}
    for row in self._rows(self._make(False, 'tiny_png_images'))[:5]:
      labels[row['video'][0].tobytes()] = row['label']
    for number in range(5):
      center = tiny_images.image('validation', number)[:, 5:25].astype(
        np.float32
      )
      image = frame_ops.scale_values(tf.image.resize(center, [8, 8])[None])[0]
      self.assertEqual(labels[image.numpy().tobytes()], number % 4)

  @parameterized.parameters(
    ({'name': 'tiny_imags'}, 'tiny_imags'),
    ({'name': 'tiny_unprepared_images'}, 'tfds build'),
    ({'label': plan_lib.LabelConfig(5)}, '`num_classes` must be 4, as in'),
    ({'video': video_config.VideoConfig(num_crops=3)}, 'num_crops=3'),
  )
  def test_errors(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      self._make(False, **arguments)

  def test_unknown_split(self):
    with self.assertRaisesRegex(ValueError, "'train', 'validation'"):
      images.make_image_dataset(
        'tiny_jpeg_images',
        'test',
        2,
        False,
        _VIDEO,
        _LABEL,
        data_dir=self.folder,
      )


if __name__ == '__main__':
  tf.test.main()
