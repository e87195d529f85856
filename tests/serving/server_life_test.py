"""How a server listens and ends, and what large requests keep it from."""

from concurrent import futures
import json
import os
import socket
import threading
from unittest import mock
import urllib.request

from absl.testing import parameterized
from grpc_health.v1 import health_pb2, health_pb2_grpc
import numpy as np
import tensorflow as tf

from tests.serving import served_models
from vatt_tf import client
from vatt_tf.serving import (
  batching,
  models,
  offload,
  prediction_service,
  requests,
  rest,
  server,
)

_REQUESTS = ':tensorflow:serving:request_count_total'
_BATCHES = ':tensorflow:serving:batching_session:processed_batch_size_count'


class ServerLifeTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.base_path = os.path.join(self.get_temp_dir(), self._testMethodName)
    served_models.write_plain(self.base_path, 1)

  def _start(self, **options):
    return served_models.start(self, self.base_path, 'plain', **options)

  # Addresses.

  def test_ipv6(self):
    try:
      socket.create_server(('::1', 0), family=socket.AF_INET6).close()
    except OSError as e:
      self.skipTest(f'This machine has no IPv6: {e}')
    served = self._start(host='::1')
    for asked in (
      client.GrpcClient(f'[::1]:{served.port}', 'plain'),
      client.RestClient(f'http://[::1]:{served.rest_port}', 'plain'),
    ):
      with asked:
        self.assertEqual(asked.status(), {1: 'AVAILABLE'})
    with socket.create_server(('::1', 0), family=socket.AF_INET6) as taken:
      port = taken.getsockname()[1]
      for name in ('port', 'rest_port'):
        with self.assertRaisesRegex(
          OSError, rf'Cannot listen at \[::1\]:{port}'
        ):
          self._start(host='::1', **{name: port})

  def test_a_name_and_an_address_that_is_not_ours(self):
    served = self._start(host='localhost')
    with client.RestClient(
      f'http://localhost:{served.rest_port}', 'plain'
    ) as asked:
      self.assertEqual(asked.status(), {1: 'AVAILABLE'})
    with self.assertRaisesRegex(OSError, 'Cannot listen at 192.0.2.1:'):
      self._start(host='192.0.2.1')

  # The end.

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

  # Large requests.

  @parameterized.named_parameters(
    ('grpc_message', 'grpc', prediction_service, '_parse'),
    ('grpc_inputs', 'grpc', requests, 'from_protos'),
    ('grpc_values', 'grpc', requests, 'check'),
    ('grpc_answer', 'grpc', requests, 'to_proto'),
    ('rest_body', 'rest', rest, '_parse'),
    ('rest_inputs', 'rest', requests, 'from_json'),
    ('rest_values', 'rest', requests, 'check'),
    ('rest_answer', 'rest', requests, 'to_json'),
  )
  def test_others_are_answered_while_a_large_request_is(
    self, kind, module, name
  ):
    served = self._start()
    started, go = threading.Event(), threading.Event()
    function = getattr(module, name)

    def wait(*arguments):
      started.set()
      self.assertTrue(go.wait(60))
      return function(*arguments)

    x = np.ones([2, offload.LARGE_BYTES // 4], np.float32)
    if kind == 'grpc':
      large = client.GrpcClient(f'localhost:{served.port}', 'plain')
    else:
      url = f'http://localhost:{served.rest_port}'
      large = client.RestClient(url, 'plain')
    health = health_pb2_grpc.HealthStub(
      served_models.channel(self, served.port)
    )
    small = client.RestClient(
      f'http://localhost:{served.rest_port}', 'plain', timeout=20
    )
    with (
      large,
      futures.ThreadPoolExecutor(1) as pool,
      mock.patch.object(module, name, wait),
    ):
      answer = pool.submit(large.predict, 'serving_default', x=x)
      try:
        self.assertTrue(started.wait(60))
        found = health.Check(health_pb2.HealthCheckRequest(), timeout=20)
        self.assertEqual(found.status, health_pb2.HealthCheckResponse.SERVING)
        self.assertEqual(small.status(), {1: 'AVAILABLE'})
        self.assertFalse(answer.done())
      finally:
        go.set()
      self.assertAllEqual(answer.result(60)['sum'], x + 1)

  # Clients that go.

  def test_what_rest_clients_no_longer_wait_for_is_not_computed(self):
    served = self._start(parameters=batching.Parameters(num_batch_threads=1))
    figures = served._metrics.registry
    labels = {'model_name': 'plain', 'signature_name': 'serving_default'}

    def num_requests(status):
      return figures.get_sample_value(
        _REQUESTS,
        {**labels, 'method': 'Predict', 'api': 'REST', 'status': status},
      )

    asked = client.RestClient(f'http://localhost:{served.rest_port}', 'plain')
    body = json.dumps({'instances': [[1.0]]}).encode()
    with futures.ThreadPoolExecutor(1) as pool:
      slow = pool.submit(asked.predict, 'sleep', x=[3.0])
      entry = served._models._models['plain'].entries[1]
      served_models.wait_until(lambda: entry.num_users == 1)
      with socket.create_connection(('127.0.0.1', served.rest_port)) as gone:
        gone.sendall(
          b'POST /v1/models/plain:predict HTTP/1.1\r\nHost: localhost\r\n'
          b'Content-Length: %d\r\n\r\n%s' % (len(body), body)
        )
        served_models.wait_until(lambda: entry.num_users == 2)
      served_models.wait_until(lambda: num_requests('CANCELLED') == 1)
      self.assertFalse(slow.done())
      self.assertAllEqual(slow.result(60)['value'], [4])
    self.assertIsNone(figures.get_sample_value(_BATCHES, labels))
    # Its connection is not that of others.
    url = f'http://localhost:{served.rest_port}/v1/models/plain:predict'
    with urllib.request.urlopen(url, body, timeout=60) as response:
      self.assertEqual(json.load(response), {'predictions': [[2.0]]})
    self.assertEqual(num_requests('OK'), 1)
    self.assertEqual(figures.get_sample_value(_BATCHES, labels), 1)


if __name__ == '__main__':
  tf.test.main()
