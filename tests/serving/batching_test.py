"""The batcher: what is merged, when, and what becomes of failures."""

import concurrent.futures
import threading
import time

from absl.testing import parameterized
import grpc
import numpy as np
import tensorflow as tf

from vatt_tf.export import saved_model
from vatt_tf.serving import batching, errors


def _rows(*values):
  return {'x': np.array(values, np.float32)}


class BatcherTest(parameterized.TestCase, tf.test.TestCase):
  def _make(
    self,
    compute=None,
    on_batch=None,
    max_waiting_bytes=batching.MAX_WAITING_BYTES,
    **parameters,
  ):
    parameters = {'num_batch_threads': 1, **parameters}
    self.batches = []

    def add_one(key, inputs):
      self.batches.append((key, inputs['x'].tolist()))
      return {'y': inputs['x'] + 1}

    batcher = batching.Batcher(
      compute or add_one,
      batching.Parameters(**parameters),
      on_batch,
      max_waiting_bytes,
    )
    self.addCleanup(batcher.close)
    return batcher

  def test_a_full_batch_does_not_wait(self):
    batcher = self._make(max_batch_size=4, batch_timeout_micros=60_000_000)
    futures = [batcher.submit('a', _rows(i, i), 2) for i in range(4)]
    for i, future in enumerate(futures):
      self.assertAllEqual(future.result(10)['y'], [i + 1, i + 1])
    self.assertEqual(self.batches, [('a', [0, 0, 1, 1]), ('a', [2, 2, 3, 3])])

  def test_a_request_alone_waits_for_the_timeout(self):
    batcher = self._make(batch_timeout_micros=200_000)
    start = time.monotonic()
    futures = [batcher.submit('a', _rows(i), 1) for i in range(2)]
    self.assertAllEqual(futures[1].result(10)['y'], [2])
    self.assertBetween(time.monotonic() - start, 0.2, 5)
    self.assertEqual(self.batches, [('a', [0, 1])])

  def test_keys_are_not_merged(self):
    batcher = self._make(batch_timeout_micros=50_000)
    futures = [batcher.submit(i % 2, _rows(i), 1) for i in range(6)]
    self.assertEqual(
      [future.result(10)['y'][0] for future in futures], [1, 2, 3, 4, 5, 6]
    )
    self.assertCountEqual(self.batches, [(0, [0, 2, 4]), (1, [1, 3, 5])])

  def test_a_large_request_is_computed_alone(self):
    batcher = self._make(max_batch_size=2, batch_timeout_micros=50_000)
    one, large = (
      batcher.submit('a', _rows(1), 1),
      batcher.submit('a', _rows(*range(5)), 5),
    )
    self.assertAllEqual(large.result(10)['y'], [1, 2, 3, 4, 5])
    self.assertAllEqual(one.result(10)['y'], [2])
    self.assertEqual(self.batches, [('a', [1]), ('a', [0, 1, 2, 3, 4])])

  def test_batches_of_one(self):
    batcher = self._make(max_batch_size=1, batch_timeout_micros=0)
    futures = [batcher.submit('a', _rows(i), 1) for i in range(5)]
    self.assertEqual([f.result(10)['y'][0] for f in futures], [1, 2, 3, 4, 5])
    self.assertLen(self.batches, 5)

  def test_a_bad_request_fails_alone(self):
    computed, sizes = [], []

    def compute(key, inputs):
      del key
      computed.append(inputs['x'].tolist())
      if (inputs['x'] < 0).any():
        raise ValueError('below 0')
      return {'y': inputs['x'] * 2}

    batcher = self._make(
      compute,
      on_batch=lambda key, rows: sizes.append(rows),
      max_batch_size=3,
      batch_timeout_micros=60_000_000,
    )
    futures = [batcher.submit('a', _rows(value), 1) for value in (1, -2, 3)]
    self.assertAllEqual(futures[0].result(10)['y'], [2])
    self.assertAllEqual(futures[2].result(10)['y'], [6])
    with self.assertRaisesRegex(ValueError, 'below 0'):
      futures[1].result(10)
    self.assertEqual(computed, [[1, -2, 3], [1], [-2], [3]])
    self.assertEqual(sizes, [1, 1])

  def test_an_output_without_rows_is_not_split(self):
    batcher = self._make(
      lambda key, inputs: {'y': np.float32(len(inputs['x'])).reshape([1])},
      batch_timeout_micros=100_000,
    )
    futures = [batcher.submit('a', _rows(i), 1) for i in range(2)]
    for future in futures:  # each computed alone, where it has its row
      self.assertAllEqual(future.result(10)['y'], [1])
    with self.assertRaisesRegex(ValueError, '`y` must have 2 rows'):
      batcher.submit('a', _rows(1, 2), 2).result(10)

  def _make_blocked(self, **parameters):
    """A batcher that returns its inputs, but only while an event is set."""
    go = threading.Event()
    self.addCleanup(go.set)

    def compute(key, inputs):
      del key
      go.wait(20)
      return inputs

    return self._make(compute, batch_timeout_micros=0, **parameters), go

  def test_the_queue_has_a_limit(self):
    batcher, go = self._make_blocked(max_batch_size=2, max_enqueued_batches=2)
    futures = [batcher.submit('a', _rows(0, 0), 2)]
    while batcher.num_waiting:
      time.sleep(0.01)
    futures += [batcher.submit('a', _rows(i), 1) for i in range(4)]
    self.assertEqual(batcher.num_waiting, 4)
    with self.assertRaisesRegex(
      errors.StatusError, '4 rows wait, of at most 4'
    ) as caught:
      batcher.submit('a', _rows(9), 1)
    self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
    go.set()
    for future in futures:
      future.result(10)
    self.assertEqual(batcher.num_waiting, 0)

  def test_the_queue_has_a_limit_of_bytes(self):
    batcher, go = self._make_blocked(max_batch_size=1, max_waiting_bytes=100)
    futures = [batcher.submit('a', _rows(0), 1)]
    while batcher.num_waiting:
      time.sleep(0.01)
    # One that is larger than the limit waits if nothing else does.
    large = {'x': np.zeros([1, 30], np.float32)}
    futures.append(batcher.submit('a', large, 1))
    with self.assertRaisesRegex(
      errors.StatusError, '120 bytes wait, and 4 more are over 100'
    ) as caught:
      batcher.submit('a', _rows(9), 1)
    self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
    go.set()
    for future in futures:
      future.result(10)
    # What was computed no longer counts; strings count by their length.
    go.clear()
    futures = [batcher.submit('a', _rows(0), 1)]
    while batcher.num_waiting:
      time.sleep(0.01)
    text = {'x': np.array([b'a' * 90], object)}
    futures.append(batcher.submit('a', text, 1))
    futures.append(batcher.submit('a', _rows(1, 2), 2))
    with self.assertRaisesRegex(errors.StatusError, '98 bytes wait, and 4'):
      batcher.submit('a', _rows(9), 1)
    go.set()
    for future in futures:
      future.result(10)

  def test_what_is_cancelled_is_left_out(self):
    batcher = self._make(batch_timeout_micros=300_000)
    futures = [batcher.submit('a', _rows(i), 1) for i in range(3)]
    self.assertTrue(futures[1].cancel())
    self.assertAllEqual(futures[2].result(10)['y'], [3])
    self.assertEqual(self.batches, [('a', [0, 2])])

  def test_close_computes_what_waits(self):
    batcher = self._make(batch_timeout_micros=60_000_000)
    future = batcher.submit('a', _rows(1), 1)
    batcher.close()
    self.assertAllEqual(future.result(0)['y'], [2])
    with self.assertRaisesRegex(errors.StatusError, 'shuts down') as caught:
      batcher.submit('a', _rows(1), 1)
    self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)

  def test_many_threads_lose_and_cross_nothing(self):
    def compute(key, inputs):
      time.sleep(0.001)
      return {'y': inputs['x'] * key}

    batcher = self._make(
      compute, max_batch_size=8, batch_timeout_micros=500, num_batch_threads=3
    )

    def ask(thread):
      found = []
      for i in range(100):
        key, value = 1 + i % 3, thread * 1000 + i
        answer = batcher.submit(key, _rows(value), 1).result(30)['y']
        found.append((key * value, answer.tolist()))
      return found

    # An answer that does not come is an error of the thread, raised here.
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
      found = sum(pool.map(ask, range(16)), [])
    self.assertLen(found, 1600)
    for expected, answer in found:
      self.assertEqual(answer, [expected])


class ParametersTest(parameterized.TestCase, tf.test.TestCase):
  def test_the_exporter_writes_the_defaults(self):
    self.assertEqual(
      batching.parse_parameters(saved_model._BATCHING), batching.Parameters()
    )

  def test_reads_text(self):
    found = batching.parse_parameters(
      '# of a small machine\nmax_batch_size: { value: 4 }\n'
      'batch_timeout_micros { value: 0 } num_batch_threads {value:1}'
    )
    self.assertEqual(found, batching.Parameters(4, 0, 64, 1))

  @parameterized.parameters(
    ('max_batch_size { value: 0 }', '`max_batch_size` must be at least 1'),
    ('max_batch { value: 1 }', 'of max_batch_size, .* Received: max_batch'),
    ('max_batch_size: 32', 'Received: max_batch_size: 32'),
    ('allowed_batch_sizes: 8', 'Received: allowed_batch_sizes: 8'),
  )
  def test_refuses(self, text, message):
    with self.assertRaisesRegex(ValueError, message):
      batching.parse_parameters(text)


if __name__ == '__main__':
  tf.test.main()
