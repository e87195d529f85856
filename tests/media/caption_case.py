"""What the tests of caption files share."""

import os

from absl.testing import parameterized
import tensorflow as tf


class CaptionCase(parameterized.TestCase, tf.test.TestCase):
  """Writes files, each to a folder of its own."""

  def write(self, name, data):
    path = os.path.join(self.create_tempdir().full_path, name)
    with open(path, 'wb') as file:
      file.write(data if isinstance(data, bytes) else data.encode('utf-8'))
    return path
