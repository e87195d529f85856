"""Sets of tensorflow-datasets that tests prepare, of a few small images."""

import pathlib

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

NUM_IMAGES = {'train': 7, 'validation': 5}


def image(split, number):
  """A smooth image: (20, 30, 3) uint8."""
  random = np.random.RandomState(number + 100 * (split == 'train'))
  small = random.randint(0, 256, [1, 4, 6, 3]).astype(np.float32)
  return tf.cast(tf.image.resize(small, [20, 30])[0], tf.uint8).numpy()


class TinyJpegImages(tfds.core.GeneratorBasedBuilder):
  """Images of four classes."""

  VERSION = tfds.core.Version('1.0.0')
  pkg_dir_path = pathlib.Path(__file__).parent
  ENCODING = 'jpeg'

  def _info(self):
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(encoding_format=self.ENCODING),
          'label': tfds.features.ClassLabel(num_classes=4),
        }
      )
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples(split) for split in NUM_IMAGES}

  def _generate_examples(self, split):
    for number in range(NUM_IMAGES[split]):
      yield number, {'image': image(split, number), 'label': number % 4}


class TinyPngImages(TinyJpegImages):
  """The same as PNG."""

  pkg_dir_path = TinyJpegImages.pkg_dir_path
  ENCODING = 'png'


class TinyMultiLabelImages(TinyJpegImages):
  """Each image has the classes of the bits of its number."""

  pkg_dir_path = TinyJpegImages.pkg_dir_path

  def _info(self):
    classes = tfds.features.ClassLabel(num_classes=4)
    return self.dataset_info_from_configs(
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(encoding_format=self.ENCODING),
          'labels': tfds.features.Sequence(classes),
        }
      )
    )

  def _generate_examples(self, split):
    for number in range(NUM_IMAGES[split]):
      labels = [i for i in range(4) if number >> i & 1]
      yield number, {'image': image(split, number), 'labels': labels}


class TinyUnpreparedImages(TinyJpegImages):
  """Never made."""

  pkg_dir_path = TinyJpegImages.pkg_dir_path
