"""The client, over gRPC and REST, at a server with a tiny VATT."""

import base64
import subprocess
import sys

from absl.testing import parameterized
from google.protobuf import (
  descriptor_pb2,
  descriptor_pool,
  json_format,
  message_factory,
)
import grpc
import numpy as np
import tensorflow as tf
import tf_keras

from tests import shared_data
from tests.serving import served_models
from vatt_tf import client


class ClientTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    tf_keras.utils.set_random_seed(0)
    cls.vatt = served_models.Vatt()
    base_path = f'{tf.compat.v1.test.get_temp_dir()}/client_test'
    cls.vatt.write(base_path)
    cls.server = served_models.start(cls, base_path)

  def _client(self, kind, **arguments):
    if kind == 'grpc':
      made = client.GrpcClient(f'localhost:{self.server.port}', **arguments)
    else:
      url = f'http://localhost:{self.server.rest_port}'
      made = client.RestClient(url, **arguments)
    self.addCleanup(made.close)
    return made

  def _check(self, name, found, rows):
    expected = self.vatt.expected[name]
    self.assertEqual(set(found), set(expected))
    for key, value in expected.items():
      self.assertEqual(found[key].dtype, np.float32)
      self.assertAllClose(found[key], value[:rows], atol=1e-5)

  @parameterized.parameters('grpc', 'rest')
  def test_embeds(self, kind):
    inputs = self.vatt.inputs
    asked = self._client(kind, version=1)
    raw = inputs['embed_video']['frames'][:2]
    self._check('embed_video', asked.embed_video(raw), 2)
    jpeg = inputs['embed_video_jpeg']['frames'][:3]
    for frames in (jpeg, jpeg.tolist()):
      self._check('embed_video', asked.embed_video(frames), 3)
    sounds = inputs['embed_audio']['waveform'][:4]
    for rates in (16000, [16000] * 4):
      found = asked.embed_audio(sounds.astype(np.float64), rates)
      self._check('embed_audio', found, 4)
    texts = [text.decode() for text in inputs['embed_text']['text']]
    self._check('embed_text', asked.embed_text(texts), 8)
    self._check('embed_text', asked.predict('embed_text', text=texts), 8)
    as_array = np.array(texts)
    self._check('embed_text', asked.predict('embed_text', text=as_array), 8)

  @parameterized.parameters('grpc', 'rest')
  def test_metadata_and_status(self, kind):
    asked = self._client(kind)
    self.assertEqual(asked.status(), {1: 'AVAILABLE'})
    found = asked.metadata()
    self.assertContainsSubset(['embed_audio', 'embed_text'], found)
    text = found['embed_text']
    outputs = text['outputs'] if kind == 'rest' else text.outputs
    self.assertEqual(set(outputs), {'feature', 'video_text_embedding'})

  @parameterized.parameters('grpc', 'rest')
  def test_errors(self, kind):
    asked = self._client(kind)
    with self.assertRaisesRegex(
      client.ServerError, 'INVALID_ARGUMENT: `text` must hold a word'
    ) as caught:
      asked.embed_text(['a star', ''])
    self.assertEqual(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
    with self.assertRaisesRegex(client.ServerError, 'NOT_FOUND: .*bert'):
      self._client(kind, model_name='bert').embed_text(['a'])
    with self.assertRaisesRegex(
      ValueError, r'the same length. Received: \[1, 2\]'
    ):
      asked.embed_video([[b'a'], [b'a', b'b']])
    self._check(
      'embed_text',
      asked.embed_text([self.vatt.inputs['embed_text']['text'][0].decode()]),
      1,
    )

  def test_one_output(self):
    base_path = f'{self.get_temp_dir()}/plain'
    served_models.write_plain(base_path, 1)
    plain = served_models.start(self, base_path, 'plain')
    for asked in (
      client.GrpcClient(f'localhost:{plain.port}', 'plain'),
      client.RestClient(f'http://localhost:{plain.rest_port}', 'plain'),
    ):
      with asked:
        found = asked.predict('serving_default', x=np.ones([2, 1], np.float32))
        self.assertAllEqual(found['sum'], [[2], [2]])
        with self.assertRaises(client.ServerError) as caught:
          asked._timeout = 0.2
          asked.predict('sleep', x=[1.0])
        self.assertEqual(
          caught.exception.code, grpc.StatusCode.DEADLINE_EXCEEDED
        )

  def test_outputs_of_other_types(self):
    base_path = f'{self.get_temp_dir()}/types'
    served_models.write_plain(base_path, 1)
    plain = served_models.start(self, base_path, 'plain')
    x = np.array([2, 2**40, -(2**62)])
    for asked, double in (
      (client.GrpcClient(f'localhost:{plain.port}', 'plain'), np.float64),
      (
        client.RestClient(f'http://localhost:{plain.rest_port}', 'plain'),
        np.float32,
      ),
    ):
      with asked:
        found = asked.predict('types', x=x)
        self.assertEqual(
          {key: value.dtype for key, value in found.items()},
          {'int64': np.int64, 'float64': double, 'bool': np.bool_},
        )
        self.assertAllEqual(found['int64'], x + 1)
        self.assertAllEqual(found['float64'], (x + 0.25).astype(double))
        self.assertAllEqual(found['bool'], [False, True, False])
        # One value is sent in another field than several.
        found = asked.predict('types', x=x[1:2])
        self.assertAllEqual(found['int64'], x[1:2] + 1)
    with client.GrpcClient(f'localhost:{plain.port}', 'plain') as asked:
      found = asked.predict('text', x=[b'a', b'\xff\0'])['text']
      self.assertEqual(found.tolist(), [b'a', b'\xff\0'])
    self.assertAllEqual(client._from_json('y', [[1.5], [2.0]]), [[1.5], [2.0]])
    with self.assertRaisesRegex(ValueError, '`y` must hold numbers.*GrpcCl'):
      client._from_json('y', ['a'])

  def test_protoset(self):
    """What asks knows the messages by the file alone, as `grpcurl` does."""
    path = f'{self.create_tempdir().full_path}/vatt.protoset'
    client.write_protoset(path)
    pool = descriptor_pool.DescriptorPool()
    with open(path, 'rb') as file:
      found = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    for each in found.file:
      pool.Add(each)
    channel = served_models.channel(self, self.server.port)

    def ask(service, name, values):
      method = pool.FindMethodByName(f'{service}.{name}')
      request, response = (
        message_factory.GetMessageClass(kind)
        for kind in (method.input_type, method.output_type)
      )
      call = channel.unary_unary(
        f'/{service}/{name}', request.SerializeToString, response.FromString
      )
      answer = call(json_format.ParseDict(values, request(), pool))
      return json_format.MessageToDict(answer, descriptor_pool=pool)

    spec = {'name': 'vatt', 'signatureName': 'embed_text'}
    texts = self.vatt.inputs['embed_text']['text'][:1]
    values = {
      'dtype': 'DT_STRING',
      'tensorShape': {'dim': [{'size': 1}]},
      'stringVal': [base64.b64encode(text).decode() for text in texts],
    }
    answer = ask(
      'tensorflow.serving.PredictionService',
      'Predict',
      {'modelSpec': spec, 'inputs': {'text': values}},
    )
    self.assertEqual(
      set(answer['outputs']), set(self.vatt.expected['embed_text'])
    )
    answer = ask(
      'tensorflow.serving.ModelService', 'GetModelStatus', {'modelSpec': spec}
    )
    self.assertEqual(answer['model_version_status'][0]['state'], 'AVAILABLE')
    answer = ask('grpc.health.v1.Health', 'Check', {})
    self.assertEqual(answer, {'status': 'SERVING'})

  def test_no_server(self):
    for asked in (
      client.GrpcClient('localhost:1', timeout=5),
      client.RestClient('http://localhost:1'),
    ):
      with asked, self.assertRaises(client.ServerError) as caught:
        asked.status()
      self.assertEqual(caught.exception.code, grpc.StatusCode.UNAVAILABLE)

  def test_imports_no_tensorflow(self):
    done = subprocess.run(
      [
        sys.executable,
        '-c',
        'import sys; from vatt_tf import client; client.RestClient(); '
        'print([n for n in sys.modules if n.startswith("tensorflow")])',
      ],
      cwd=shared_data.REPOSITORY,
      capture_output=True,
      text=True,
      check=True,
    )
    self.assertEqual(done.stdout, '[]\n')


if __name__ == '__main__':
  tf.test.main()
