"""The serve command as a process: ports, TLS, drain, and how it ends."""

import os
import re
import signal
import socket
import ssl
import threading
import time
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
import numpy as np
import tensorflow as tf

from tests import mains, warm_processes
from tests.serving import certificates, served_models
from vatt_tf import client

# The command, but REST fails as soon as it is served.
_FAILS = """
from absl import app
from vatt_tf import serve
from vatt_tf.serving import server

async def fail(self):
  raise OSError('broken')

server._RestServer.main_loop = fail
app.run(serve.main)
"""


class ServeMainTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.base_path = os.path.join(self.get_temp_dir(), self._testMethodName)

  def _start(self, *arguments):
    """Starts the command; waits for the ports that it prints."""
    self.process = warm_processes.Process(
      'vatt_tf.serve', '--port=0', '--rest_api_port=0', *arguments
    )
    self.addCleanup(self._end)
    self.lines = []
    for line in self.process.stdout:
      self.lines.append(line)
      if line.startswith('Metrics:'):
        break
    else:
      self.fail(self.process.stderr.read())
    [self.port] = re.findall(r'gRPC: 127.0.0.1:(\d+)', self.lines[0])
    [self.url] = re.findall(
      r'REST: (https?://127.0.0.1:\d+)/v1/models/plain', self.lines[1]
    )

  def _end(self):
    self.process.kill()
    self.process.communicate()

  def test_drains_on_sigterm(self):
    served_models.write_plain(self.base_path, 1)
    self._start('--model_name=plain', f'--model_base_path={self.base_path}')
    stub = served_models.stub(self, self.port)
    health = health_pb2_grpc.HealthStub(served_models.channel(self, self.port))
    watched = health.Watch(health_pb2.HealthCheckRequest())
    serving = health_pb2.HealthCheckResponse
    self.assertEqual(next(watched).status, serving.SERVING)
    slow = served_models.make_request(
      'sleep', {'x': np.array([3.0])}, name='plain'
    )
    call = stub.Predict.future(slow)
    answers = []
    rest = threading.Thread(
      target=lambda: answers.append(
        client.RestClient(self.url, 'plain').predict('sleep', x=[3.0])
      )
    )
    rest.start()
    time.sleep(0.7)
    self.process.send_signal(signal.SIGTERM)
    self.assertEqual(next(watched).status, serving.NOT_SERVING)
    time.sleep(1.0)
    with self.assertRaises(client.ServerError) as caught:
      client.RestClient(self.url, 'plain').predict('sleep', x=[0.0])
    self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
    with self.assertRaises(grpc.RpcError) as caught:
      served_models.stub(self, self.port).Predict(slow, timeout=10)
    self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
    self.assertFalse(call.done())
    self.assertAllEqual(served_models.outputs(call.result())['value'], [4])
    rest.join()
    self.assertAllEqual(answers[0]['value'], [4])
    self.assertEmpty(list(watched))  # it has ended, and without an error
    out, err = self.process.communicate(timeout=30)
    self.assertEqual(self.process.returncode, 0, err)
    self.assertEqual(out, 'Stopped.\n')
    self.assertIn('plain version 1: available', err)
    self.assertNotIn('Traceback', err)

  def test_tls_and_no_batching(self):
    served_models.write_plain(self.base_path, 1)
    certificate, key = certificates.make(self.get_temp_dir())
    config = os.path.join(self.get_temp_dir(), 'batching.config')
    with open(config, 'w') as file:
      file.write('num_batch_threads { value: 1 }')
    self._start(
      '--model_name=plain',
      f'--model_base_path={self.base_path}',
      f'--ssl_cert={certificate}',
      f'--ssl_key={key}',
      '--noenable_batching',
      f'--batching_parameters_file={config}',
      '--file_system_poll_wait_seconds=0',
    )
    self.assertStartsWith(self.url, 'https:')
    arguments = {'model_name': 'plain', 'ca_certificate': certificate}
    for one in (
      client.GrpcClient(f'localhost:{self.port}', **arguments),
      client.RestClient(self.url, **arguments),
    ):
      with one:
        found = one.predict('serving_default', x=np.array([[1, 2]], np.float32))
        self.assertAllEqual(found['sum'], [[2, 3]])
        self.assertEqual(one.status(), {1: 'AVAILABLE'})
    context = ssl.create_default_context(cafile=certificate)
    with socket.create_connection(('localhost', int(self.port))) as raw:
      context.set_alpn_protocols(['h2'])
      with context.wrap_socket(raw, server_hostname='localhost') as secure:
        self.assertIn(secure.version(), ('TLSv1.2', 'TLSv1.3'))
    # Neither without TLS, nor with certificates of somebody else.
    for wrong in (
      client.GrpcClient(f'localhost:{self.port}', 'plain', timeout=5),
      client.RestClient(self.url.replace('https', 'http'), 'plain'),
      client.RestClient(self.url, 'plain'),
    ):
      with self.assertRaises(client.ServerError) as caught:
        wrong.status()
      self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)
      wrong.close()
    page = f'{self.url}/monitoring/prometheus/metrics'
    with urllib.request.urlopen(page, context=context) as metrics:
      self.assertIn(b':tensorflow:serving:request_count_total', metrics.read())
    self.process.send_signal(signal.SIGINT)
    self.assertEqual(self.process.wait(timeout=30), 0)

  def test_what_cannot_be_served(self):
    result = mains.run('serve')
    self.assertEqual(result.returncode, 1)
    self.assertIn('Give --model_base_path', result.stderr)
    result = mains.run('serve', '--model_config_file=missing.config')
    self.assertEqual(result.returncode, 1)
    self.assertIn('Error: Cannot read missing.config: ', result.stderr)
    self.assertNotIn('Traceback', result.stderr)
    for flag in ('port', 'rest_api_port'):
      result = mains.run('serve', f'--{flag}=85010')
      self.assertEqual(result.returncode, 1)
      self.assertIn('in the range [0, 65535]', result.stderr)

  def test_ends_when_it_no_longer_serves(self):
    served_models.write_plain(self.base_path, 1)
    result = warm_processes.run(
      '-c',
      _FAILS,
      '--port=0',
      '--rest_api_port=0',
      '--model_name=plain',
      f'--model_base_path={self.base_path}',
      timeout=120,
    )
    self.assertEqual(result.returncode, 1, result.stderr)
    self.assertIn('Metrics: ', result.stdout)
    self.assertNotIn('Stopped.', result.stdout)
    self.assertIn("ended by itself: OSError('broken')", result.stderr)


if __name__ == '__main__':
  tf.test.main()
