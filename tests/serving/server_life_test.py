"""How a server listens and ends, and what it does meanwhile."""

import os
import threading
from unittest import mock

from absl.testing import parameterized
import tensorflow as tf

from tests.serving import served_models
from vatt_tf.serving import models, server


class ServerLifeTest(parameterized.TestCase, tf.test.TestCase):

  def setUp(self):
    super().setUp()
    self.base_path = os.path.join(self.get_temp_dir(), self._testMethodName)
    served_models.write_plain(self.base_path, 1)

  @parameterized.named_parameters(
    ('raises', OSError('broken'), r"by itself: OSError\('broken'\)"),
    ('returns', None, 'by itself: .*REST is no longer served'),
  )
  def test_a_server_whose_rest_ends_is_not_left_alone(self, error, message):
    ended = threading.Event()

    async def end(self):
      del self
      if error is not None:
        raise error

    config = models.model_config('plain', self.base_path)
    with mock.patch.object(server._RestServer, 'main_loop', end):
      served = server.Server(config, server.Options(), on_end=ended.set)
      served.start()
      try:
        self.assertTrue(ended.wait(30))
      finally:
        with self.assertRaisesRegex(RuntimeError, message):
          served.stop()


if __name__ == '__main__':
  tf.test.main()
