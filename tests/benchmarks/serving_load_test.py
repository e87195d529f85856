"""The benchmark of serving: it sees what is wrong."""

import os
import time

import tensorflow as tf

from benchmarks import serving
from tests.serving import served_models


class ServingBenchmarkTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.base_path = os.path.join(self.get_temp_dir(), self._testMethodName)
    served_models.write_plain(self.base_path, 3, warmup=[[1.0, 2.0]])
    self.requests, self.answers = serving.make_requests(
      serving.newest_version(self.base_path), 'serving_default'
    )
    self.server = served_models.start(self, self.base_path)

  def _load(self, seconds=0.5, events=()):
    return serving.run_load(
      self.server.port, self.requests, self.answers, 4, seconds, events
    )

  def test_right_answers(self):
    self.assertAllEqual(self.answers[0]['sum'], [[4, 5]])
    load = self._load()
    found = load.summary()
    self.assertGreater(found['answers'], 10)
    self.assertEqual(found['errors'] + found['wrong_answers'], 0)
    self.assertEqual(dict(load.versions), {3: found['answers']})
    self.assertLessEqual(found['latency_p50_ms'], found['latency_p99_ms'])
    self.assertGreater(found['requests_per_second'], 10)

  def test_wrong_answers(self):
    self.answers = [{'sum': each['sum'] + 1e-3} for each in self.answers]
    found = self._load().summary()
    self.assertEqual(found['wrong_answers'], found['answers'])
    self.assertAllClose(found['largest_error'], 1e-3, atol=1e-5)

  def test_errors(self):
    self.requests[::2] = [b'broken'] * len(self.requests[::2])
    called = []

    def note():
      called.append(time.perf_counter())

    load = self._load(events=[(0.2, note)])
    self.assertNotEmpty(load.errors)
    self.assertStartsWith(load.errors[0][1], 'INVALID_ARGUMENT: The request')
    self.assertLess(load.errors[0][0], called[0])
    self.assertEqual(load.num_wrong, 0)

  def test_what_cannot_be_measured(self):
    with self.assertRaisesRegex(ValueError, 'has no version'):
      serving.newest_version(self.get_temp_dir())
    with self.assertRaisesRegex(ValueError, 'has no signature `embed_text`'):
      serving.make_requests(f'{self.base_path}/3', 'embed_text')


if __name__ == '__main__':
  tf.test.main()
