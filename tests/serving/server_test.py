"""A server with a tiny VATT: its answers, and what is wrong with requests."""

import base64
from concurrent import futures
import gzip
import json
import urllib.error
import urllib.request
import zlib

from absl.testing import parameterized
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
import numpy as np
from prometheus_client import parser
import tensorflow as tf
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  get_model_status_pb2,
  model_management_pb2,
  model_service_pb2_grpc,
)
import tf_keras

from tests.serving import served_models
from vatt_tf.serving import batching, requests

_NAMES = (
  'embed_video',
  'embed_video_jpeg',
  'embed_audio',
  'embed_text',
  'serving_default',
)
_MAX_BYTES = 48 * 2**20
_PREDICT = '/tensorflow.serving.PredictionService/Predict'


def _jsonable(value):
  if isinstance(value, bytes):
    return {'b64': base64.b64encode(value).decode()}
  if isinstance(value, list):
    return [_jsonable(each) for each in value]
  return value


class ServerTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    tf_keras.utils.set_random_seed(0)
    cls.vatt = served_models.Vatt()
    base_path = f'{tf.compat.v1.test.get_temp_dir()}/server_test'
    path = cls.vatt.write(base_path)
    cls.loaded = tf.saved_model.load(path)
    cls.server = served_models.start(
      cls,
      base_path,
      max_message_bytes=_MAX_BYTES,
      # Long enough for what is sent at a time to come together on a busy core.
      parameters=batching.Parameters(8, 40_000, 64, 2),
    )
    cls.channel = served_models.channel(cls, cls.server.port)
    cls.stub = served_models.stub(cls, cls.server.port)

  def _predict(self, signature, inputs, **spec):
    request = served_models.make_request(signature, inputs, **spec)
    return self.stub.Predict(request, timeout=60)

  def _rest(self, path, body=None, data=None, method=None, headers=()):
    """Status and content of a REST answer."""
    data = json.dumps(body).encode() if body is not None else data
    request = urllib.request.Request(
      f'http://localhost:{self.server.rest_port}{path}',
      data,
      dict(headers),
      method=method,
    )
    try:
      with urllib.request.urlopen(request, timeout=60) as response:
        return response.status, json.load(response)
    except urllib.error.HTTPError as e:
      return e.code, json.loads(e.read())

  def _check_serves(self):
    """A good request is answered right, whatever came before it."""
    found = served_models.outputs(
      self._predict('embed_text', {'text': self._text(3)})
    )
    expected = self.vatt.expected['embed_text']
    for key, value in found.items():
      self.assertAllClose(value, expected[key][:3], atol=1e-5)

  def _text(self, count):
    return self.vatt.inputs['embed_text']['text'][:count]

  def _inputs(self, name, rows=slice(None)):
    return {k: v[rows] for k, v in self.vatt.inputs[name].items()}

  # Answers.

  @parameterized.parameters(*_NAMES)
  def test_grpc_equals_evaluation(self, name):
    signature = '' if name == 'serving_default' else name
    response = self._predict(signature, self._inputs(name))
    self.assertEqual(response.model_spec.name, 'vatt')
    self.assertEqual(response.model_spec.version.value, 1)
    self.assertEqual(response.model_spec.signature_name, name)
    found = served_models.outputs(response)
    self._check_equal(name, found)
    tensors = {
      key: tf.constant(value) for key, value in self._inputs(name).items()
    }
    direct = self.loaded.signatures[name](**tensors)
    self.assertEqual(set(found), set(direct))
    for key, value in direct.items():
      self.assertAllClose(found[key], value, atol=1e-6)

  def _check_equal(self, name, found, rows=slice(None)):
    expected = self.vatt.expected[name]
    self.assertEqual(set(found), set(expected))
    for key, value in expected.items():
      self.assertGreater(np.ptp(value, axis=0).max(), 1e-3)
      self.assertAllClose(found[key], value[rows], atol=1e-5)

  @parameterized.parameters(*_NAMES)
  def test_rest_equals_evaluation(self, name):
    # Raw frames are long in JSON.
    rows = slice(0, 1 if name in ('embed_video', 'serving_default') else 2)
    inputs = {
      key: _jsonable(value.tolist())
      for key, value in self._inputs(name, rows).items()
    }
    body = {'inputs': inputs}
    if name != 'serving_default':
      body['signature_name'] = name
    status, found = self._rest('/v1/models/vatt:predict', body)
    self.assertEqual(status, 200, found)
    self.assertEqual(set(found), {'outputs'})
    self._check_equal(name, found['outputs'], rows)
    body['instances'] = [
      dict(zip(inputs, row)) for row in zip(*body.pop('inputs').values())
    ]
    status, rows_found = self._rest('/v1/models/vatt/versions/1:predict', body)
    self.assertEqual(status, 200, rows_found)
    for i, row in enumerate(rows_found['predictions']):
      for key, value in row.items():
        self.assertEqual(value, found['outputs'][key][i])
    if len(inputs) == 1:  # without the input's name
      [body['instances']] = inputs.values()
      status, bare = self._rest('/v1/models/vatt:predict', body)
      self.assertEqual((status, bare), (200, rows_found))

  def test_output_filter(self):
    request = served_models.make_request('embed_text', {'text': self._text(2)})
    request.output_filter.append('video_text_embedding')
    response = self.stub.Predict(request)
    self.assertEqual(list(response.outputs), ['video_text_embedding'])
    request.output_filter.append('score')
    with self.assertRaisesRegex(grpc.RpcError, 'video_text_embedding.*score'):
      self.stub.Predict(request)

  def test_metadata_and_status(self):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = 'vatt'
    request.metadata_field.append('signature_def')
    response = self.stub.GetModelMetadata(request)
    self.assertEqual(response.model_spec.version.value, 1)
    found = get_model_metadata_pb2.SignatureDefMap()
    response.metadata['signature_def'].Unpack(found)
    self.assertContainsSubset(_NAMES, found.signature_def)
    audio = found.signature_def['embed_audio']
    self.assertEqual(audio.inputs['waveform'].dtype, tf.float32)
    self.assertEqual(audio.method_name, 'tensorflow/serving/predict')
    status, rest = self._rest('/v1/models/vatt/versions/1/metadata')
    self.assertEqual(status, 200)
    self.assertEqual(rest['model_spec']['version'], '1')
    rest = rest['metadata']['signature_def']['signature_def']
    self.assertEqual(
      rest['embed_audio']['inputs']['waveform']['dtype'], 'DT_FLOAT'
    )
    models = model_service_pb2_grpc.ModelServiceStub(self.channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = 'vatt'
    [version] = models.GetModelStatus(request).model_version_status
    self.assertEqual((version.version, version.state), (1, 30))
    for path in ('', '/versions/1'):
      self.assertEqual(
        self._rest(f'/v1/models/vatt{path}'),
        (
          200,
          {
            'model_version_status': [
              {
                'version': '1',
                'state': 'AVAILABLE',
                'status': {'error_code': 'OK', 'error_message': ''},
              }
            ]
          },
        ),
      )

  def test_health(self):
    stub = health_pb2_grpc.HealthStub(self.channel)
    for name in ('', 'tensorflow.serving.PredictionService'):
      found = stub.Check(health_pb2.HealthCheckRequest(service=name))
      self.assertEqual(found.status, health_pb2.HealthCheckResponse.SERVING)

  # What is wrong.

  @parameterized.named_parameters(
    (
      'dtype',
      'embed_text',
      {'text': np.ones([1], np.float32)},
      'INVALID_ARGUMENT',
      r'`text` must be string of shape \(any\).*float32',
    ),
    (
      'rank',
      'embed_audio',
      {
        'waveform': np.ones([9], np.float32),
        'sample_rate': np.array([8000]).astype(np.int32),
      },
      'INVALID_ARGUMENT',
      r'`waveform` must be.*\(any, any\).*shape \(9,\)',
    ),
    (
      'size',
      'embed_video',
      {'frames': np.ones([1, 2, 9, 9, 4], np.uint8)},
      'INVALID_ARGUMENT',
      r'`frames`.*any, 3\).*9, 4\)',
    ),
    (
      'missing',
      'embed_audio',
      {'waveform': np.ones([1, 9], np.float32)},
      'INVALID_ARGUMENT',
      'missing: `sample_rate`, unknown: none',
    ),
    (
      'unknown',
      'embed_text',
      {'text': [b'a'], 'words': [b'a']},
      'INVALID_ARGUMENT',
      'missing: none, unknown: `words`',
    ),
    (
      'signature',
      'embed_smell',
      {'text': [b'a']},
      'FAILED_PRECONDITION',
      '"embed_smell" not found.*embed_audio',
    ),
    (
      'empty_batch',
      'embed_text',
      {'text': np.zeros([0], object)},
      'INVALID_ARGUMENT',
      'at least one row',
    ),
    (
      'no_frame',
      'embed_video',
      {'frames': np.ones([1, 0, 9, 9, 3], np.uint8)},
      'INVALID_ARGUMENT',
      'at least one value in each row',
    ),
    (
      'rows',
      'embed_audio',
      {
        'waveform': np.ones([2, 9], np.float32),
        'sample_rate': np.array([8000]).astype(np.int32),
      },
      'INVALID_ARGUMENT',
      '1 of `sample_rate`, 2 of `waveform`',
    ),
    (
      'nan',
      'embed_audio',
      {
        'waveform': np.array([[0, 0], [0, np.nan]], np.float32),
        'sample_rate': np.array([8000, 8000], np.int32),
      },
      'INVALID_ARGUMENT',
      '`waveform` must be finite.*row 1',
    ),
    (
      'rate',
      'embed_audio',
      {
        'waveform': np.ones([1, 9], np.float32),
        'sample_rate': np.array([2**31 - 1], np.int32),
      },
      'INVALID_ARGUMENT',
      '`sample_rate` must be.*2147483647 in row 0',
    ),
    (
      'no_jpeg',
      'embed_video_jpeg',
      {'frames': [[b'GIF89a']]},
      'INVALID_ARGUMENT',
      r"`frames` must be JPEG.*row 0, as frame 0: b'GIF89a",
    ),
    (
      'corrupt_jpeg',
      'embed_video_jpeg',
      {'frames': [[b'\xff\xd8\xff' * 99]]},
      'INVALID_ARGUMENT',
      'JPEG',
    ),
    (
      'empty_text',
      'embed_text',
      {'text': [b'a star', b' ']},
      'INVALID_ARGUMENT',
      "`text` must hold a word.*b' ' in row 1",
    ),
    (
      'no_word',
      'embed_text',
      {'text': [b'a star', b'?!']},
      'INVALID_ARGUMENT',
      '`text` must hold a word',
    ),
    (
      'no_utf8',
      'embed_text',
      {'text': [b'\xff\xfe']},
      'INVALID_ARGUMENT',
      '`text` must be UTF-8',
    ),
  )
  def test_malformed_grpc(self, signature, inputs, code, message):
    with self.assertRaisesRegex(grpc.RpcError, message) as caught:
      self._predict(signature, inputs)
    self.assertEqual(caught.exception.code().name, code)
    self.assertNotIn('Graph execution', caught.exception.details())
    self._check_serves()

  def test_malformed_model(self):
    text = {'text': self._text(1)}
    for spec, code, message in (
      ({'name': 'bert'}, 'NOT_FOUND', r'Latest\(bert\). Models: vatt'),
      ({'name': ''}, 'INVALID_ARGUMENT', 'must name a model'),
      ({'version': 7}, 'NOT_FOUND', r'Specific\(vatt, 7\). Available: 1'),
    ):
      with self.assertRaisesRegex(grpc.RpcError, message) as caught:
        self._predict('embed_text', text, **spec)
      self.assertEqual(caught.exception.code().name, code)
    request = served_models.make_request('embed_text', text)
    request.model_spec.version_label = 'stable'
    with self.assertRaisesRegex(grpc.RpcError, "no labels.*'stable'"):
      self.stub.Predict(request)

  def test_malformed_protos(self):
    request = served_models.make_request('embed_text', {'text': self._text(1)})
    data = request.SerializeToString()
    call = self.channel.unary_unary(_PREDICT)
    for broken in (data[:-3], b'\xff' * 40):
      with self.assertRaisesRegex(grpc.RpcError, 'must be the message') as e:
        call(broken)
      self.assertEqual(e.exception.code().name, 'INVALID_ARGUMENT')
    waveform = served_models.make_request(
      'embed_audio',
      {
        'waveform': np.ones([1, 9], np.float32),
        'sample_rate': np.array([8000], np.int32),
      },
    )
    dim = waveform.inputs['waveform'].tensor_shape.dim
    for size, message in (
      (8, 'as many values'),
      (2**40, 'at most .* bytes'),  # one value for all of them
      (-1, 'known shape'),
    ):
      dim[1].size = size
      with self.assertRaisesRegex(grpc.RpcError, message) as caught:
        self.stub.Predict(waveform)
      self.assertEqual(caught.exception.code().name, 'INVALID_ARGUMENT')
    request.inputs['text'].tensor_shape.dim[0].size = 2**40
    with self.assertRaisesRegex(grpc.RpcError, 'Received: 1 strings'):
      self.stub.Predict(request)
    request.inputs['text'].dtype = 99
    with self.assertRaisesRegex(grpc.RpcError, '`text` must be string.*99'):
      self.stub.Predict(request)
    self._check_serves()

  def test_other_methods(self):
    request = classification_pb2.ClassificationRequest()
    with self.assertRaisesRegex(grpc.RpcError, 'Use Predict') as caught:
      self.stub.Classify(request)
    self.assertEqual(caught.exception.code().name, 'UNIMPLEMENTED')
    models = model_service_pb2_grpc.ModelServiceStub(self.channel)
    with self.assertRaisesRegex(grpc.RpcError, 'Use Predict') as caught:
      models.HandleReloadConfigRequest(
        model_management_pb2.ReloadConfigRequest()
      )
    self.assertEqual(caught.exception.code().name, 'UNIMPLEMENTED')
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = 'vatt'
    with self.assertRaisesRegex(grpc.RpcError, '`metadata_field` must be'):
      self.stub.GetModelMetadata(request)

  def test_too_large(self):
    size = 100 * 2**20
    with self.assertRaisesRegex(grpc.RpcError, 'larger than max') as caught:
      self._predict('embed_text', {'text': [b'a' * size]})
    self.assertEqual(caught.exception.code().name, 'RESOURCE_EXHAUSTED')
    status, found = self._rest('/v1/models/vatt:predict', data=b'a' * size)
    self.assertEqual(status, 413)
    self.assertIn(
      f'at most {_MAX_BYTES:,} bytes. Received: {size:,}', found['error']
    )
    self._check_serves()

  def _ask(self, data, encoding):
    """A question with a body of a Content-Encoding."""
    return self._rest(
      '/v1/models/vatt:predict',
      data=data,
      headers={'Content-Encoding': encoding},
    )

  def test_compressed_body(self):
    body = {'signature_name': 'embed_text', 'instances': ['a red circle'] * 3}
    plain = self._rest('/v1/models/vatt:predict', body)
    self.assertEqual(plain[0], 200)
    data = json.dumps(body).encode()
    one = gzip.compress(data)
    several = gzip.compress(data[:30]) + gzip.compress(data[30:]) + bytes(9)
    for content, encoding in (
      (one, 'gzip'),
      (one, 'GZip'),
      (one, 'x-gzip'),
      (one, 'identity, gzip'),
      (gzip.compress(data, 0), 'gzip'),
      (several, 'gzip'),
      (data, 'identity'),
      (data, ''),
    ):
      self.assertEqual(self._ask(content, encoding), plain, encoding)

  @parameterized.named_parameters(
    ('cut_off', lambda data: gzip.compress(data)[:-20], 'gzip', 400, 'gzip'),
    ('no_end', lambda data: gzip.compress(data)[:-3], 'gzip', 400, 'gzip'),
    (
      'damaged',
      lambda data: gzip.compress(data)[:20] + bytes(9),
      'gzip',
      400,
      'must be gzip',
    ),
    (
      'checksum',
      lambda data: gzip.compress(data)[:-8] + bytes(8),
      'gzip',
      400,
      'CRC',
    ),
    ('plain', bytes, 'gzip', 400, 'must be gzip.*Not a gzipped'),
    ('rest', lambda data: gzip.compress(data) + b'x', 'gzip', 400, 'Not a gzi'),
    ('empty', lambda data: b'', 'gzip', 400, 'JSON Parse error'),
    ('deflate', zlib.compress, 'deflate', 415, 'must be gzip.*deflate'),
    ('brotli', bytes, 'br', 415, 'must be gzip.*br'),
    (
      'twice',
      lambda data: gzip.compress(gzip.compress(data)),
      'gzip, gzip',
      415,
      'gzip, gzip',
    ),
  )
  def test_body_that_is_not_as_its_encoding(
    self, compress, encoding, status, message
  ):
    data = json.dumps({'signature_name': 'embed_text', 'inputs': ['a']})
    found = self._ask(compress(data.encode()), encoding)
    self.assertRegex(found[1]['error'], message)
    self.assertEqual(found[0], status)
    self._check_serves()

  def test_compressed_body_that_becomes_too_large(self):
    # A thousandth of that is sent.
    for size in (_MAX_BYTES + 1, 1 << 30):
      compressor = zlib.compressobj(wbits=31)
      parts = [compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)]
      data = b''.join([*parts, compressor.compress(b'ab'), compressor.flush()])
      self.assertLess(len(data), 2 << 20)
      status, found = self._ask(data, 'gzip')
      self.assertEqual(status, 413)
      self.assertIn(f'at most {_MAX_BYTES:,} bytes', found['error'])
    self._check_serves()

  @parameterized.parameters(
    'YSByZWQgY2lyY2xl', 'YSBy\nZWQgY2ly\r\nY2xl\n', ' YSByZWQg\tY2lyY2xl',
    'YSByZWQgY2lyY2xlcw==', 'YSByZWQgY2lyY2xlcw', 'YSByZWQgY2lyY2xlcw= =\n',
    'YSByZWQgY2lyY2xlcw..', 'YSByZWQgY2lyY2xlcx',
  )  # fmt: skip
  def test_base64_as_the_stock_server_takes_it(self, value):
    words = 'a red circles' if 'xlc' in value else 'a red circle'
    expected = self._rest(
      '/v1/models/vatt:predict',
      {'signature_name': 'embed_text', 'instances': [words]},
    )
    self.assertEqual(
      self._rest(
        '/v1/models/vatt:predict',
        {'signature_name': 'embed_text', 'instances': [{'b64': value}]},
      ),
      expected,
    )

  @parameterized.parameters(
    'YQ=', 'YQ===', 'YWJj=', 'Y', 'YWJjY', '=', 'YQ==YQ==', 'Y=Q=', 'ab-_',
    'YQ==x', 'YQ\0', 'YQé', '*',
  )  # fmt: skip
  def test_what_is_no_base64(self, value):
    status, found = self._rest(
      '/v1/models/vatt:predict',
      {'signature_name': 'embed_text', 'instances': [{'b64': value}]},
    )
    self.assertEqual(status, 400)
    self.assertIn("'b64' must be base64", found['error'])

  @parameterized.named_parameters(
    ('not_json', b'{"inputs": [', 'JSON Parse error'),
    ('nested', b'[' * 100_000, 'JSON Parse error'),
    ('no_object', b'[1]', 'must be a JSON object.*a list'),
    ('no_key', {'rows': [1]}, "'instances'.*'inputs'.*Received: `rows`"),
    ('both_keys', {'instances': [1], 'inputs': [1]}, "'instances'.*`inputs`"),
    ('signature', {'signature_name': 3, 'inputs': ['a']}, 'must be a string'),
    (
      'no_signature',
      {'signature_name': 'x', 'inputs': ['a']},
      '"x" not found.*embed_text',
    ),
    ('no_rows', {'instances': []}, 'at least one row'),
    ('mixed_rows', {'instances': [{'text': 'a'}, 'a']}, 'Received both'),
    (
      'row_name',
      {'instances': [{'text': 'a'}, {'words': 'a'}]},
      'missing: `text`, unknown: `words`',
    ),
    (
      'unnamed',
      {'signature_name': 'embed_audio', 'instances': [[0.5]]},
      'missing: `sample_rate`, `waveform`',
    ),
    ('base64', {'inputs': [{'b64': '*'}]}, "'b64' must be base64"),
    ('no_base64', {'inputs': [{'b64': 7}]}, "'b64' must be a string"),
    ('number', {'inputs': [7]}, 'must be strings or.*7'),
    ('rank', {'inputs': 'a'}, r'`text` must be.*shape \(\)'),
    (
      'ragged_text',
      {'inputs': [['a'], 'b']},
      'lists must have the same length',
    ),
    (
      'surrogate',
      b'{"signature_name":"embed_text","inputs":["\\ud800"]}',
      '`text` must be string.*surrogates',
    ),
    ('empty', {'inputs': ['']}, '`text` must hold a word'),
    (
      'text_as_sound',
      {
        'signature_name': 'embed_audio',
        'inputs': {'waveform': [['1', '2']], 'sample_rate': [8000]},
      },
      '`waveform` must be float32.*values must be numbers',
    ),
    (
      'ragged',
      {
        'signature_name': 'embed_audio',
        'inputs': {'waveform': [[1, 2], [1]], 'sample_rate': [8000, 8000]},
      },
      '`waveform` must be float32.*inhomogeneous',
    ),
    (
      'infinite',
      {
        'signature_name': 'embed_audio',
        'inputs': {'waveform': [[1e99, 2]], 'sample_rate': [8000]},
      },
      '`waveform` must be finite',
    ),
    (
      'nan',
      b'{"signature_name": "embed_audio", "inputs": {"waveform": [[NaN]],'
      b'"sample_rate": [8000]}}',
      '`waveform` must be finite',
    ),
    (
      'fraction',
      {
        'signature_name': 'embed_audio',
        'inputs': {'waveform': [[1.0]], 'sample_rate': [0.5]},
      },
      '`sample_rate` must be int32.*must be integers',
    ),
    (
      'range',
      {'signature_name': 'embed_video', 'inputs': [[[[[0, 0, 256]]]]]},
      r'`frames` must be uint8.*in \[0, 255\]',
    ),
    (
      'no_jpeg',
      {'signature_name': 'embed_video_jpeg', 'inputs': [[{'b64': 'AAAA'}]]},
      '`frames` must be JPEG',
    ),
  )
  def test_malformed_rest(self, body, message):
    if isinstance(body, dict):
      body = {'signature_name': 'embed_text', **body}
      body = json.dumps(body).encode()
    status, found = self._rest('/v1/models/vatt:predict', data=body)
    self.assertEqual(set(found), {'error'})
    self.assertRegex(found['error'], message)
    self.assertEqual(status, 400)
    self._check_serves()

  def test_malformed_paths(self):
    for method, path, status, message in (
      ('POST', '/v1/models/bert:predict', 404, r'Latest\(bert\)'),
      ('POST', '/v1/models/vatt/versions/7:predict', 404, 'Available: 1'),
      ('GET', '/v1/models/vatt/versions/7', 404, 'Versions: 1'),
      ('GET', '/models/vatt', 404, 'Not Found: GET /models/vatt'),
      ('POST', '/', 404, 'Not Found: POST /'),
      ('GET', '/v1/models/bert/metadata', 404, r'Latest\(bert\)'),
      ('GET', '/v1/models/vatt:predict', 400, 'Malformed request: GET'),
      ('POST', '/v1/models/vatt:classify', 400, 'Malformed request: POST'),
      ('POST', '/v1/models/vatt/versions/x:predict', 400, 'Malformed request'),
      ('DELETE', '/v1/models/vatt', 400, 'Malformed request: DELETE'),
      ('GET', '/v1/models', 400, 'Malformed request'),
    ):
      data = b'{"inputs": ["a"]}' if method == 'POST' else None
      found = self._rest(path, data=data, method=method)
      self.assertEqual(found[0], status, (path, found))
      self.assertRegex(found[1]['error'], message)

  # Many at a time.

  def test_bad_requests_among_good_ones(self):
    """Of 120 requests that come together every 20th is bad."""
    rng = np.random.default_rng(0)
    bad = {
      'embed_video_jpeg': lambda inputs: {
        # Begins as a picture: what is wrong shows when it is decoded.
        'frames': np.array(
          [[frame[:200] for frame in inputs['frames'][0]]], object
        )
      },
      'embed_audio': lambda inputs: {
        **inputs,
        'waveform': inputs['waveform'] * np.nan,
      },
      'embed_text': lambda inputs: {'text': np.array([b'...'], object)},
    }
    before = self._batches()
    calls = []
    for i in range(120):
      name = list(bad)[i % 3]
      row = int(rng.integers(8))
      inputs = self._inputs(name, slice(row, row + 1))
      is_bad = i % 20 < 1
      if is_bad:
        inputs = bad[name](inputs)
      request = served_models.make_request(name, inputs)
      calls.append((name, row, is_bad, self.stub.Predict.future(request)))
    num_bad = 0
    for name, row, is_bad, call in calls:
      if is_bad:
        num_bad += 1
        self.assertEqual(call.code(), grpc.StatusCode.INVALID_ARGUMENT)
      else:
        found = served_models.outputs(call.result())
        self._check_equal(name, found, slice(row, row + 1))
    self.assertEqual(num_bad, 6)
    batches, rows = self._batches() - before
    self.assertGreaterEqual(rows, 114)
    self.assertLess(batches, rows / 2)

  def _metrics(self):
    url = f'http://localhost:{self.server.rest_port}'
    with urllib.request.urlopen(f'{url}/monitoring/prometheus/metrics') as page:
      self.assertStartsWith(page.headers['Content-Type'], 'text/plain')
      text = page.read().decode()
    return [
      sample
      for family in parser.text_string_to_metric_families(text)
      for sample in family.samples
    ]

  def _batches(self):
    """How many batches were computed, and how many rows."""
    name = ':tensorflow:serving:batching_session:processed_batch_size'
    samples = self._metrics()
    return np.array(
      [
        sum(s.value for s in samples if s.name == f'{name}_{suffix}')
        for suffix in ('count', 'sum')
      ]
    )

  def test_metrics(self):
    prefix = ':tensorflow:serving:'

    def read():
      return {
        (s.name.removeprefix(prefix), *sorted(s.labels.items())): s.value
        for s in self._metrics()
      }

    def key(name, status=None, method='Predict', api='GRPC', **labels):
      labels = {
        'model_name': 'vatt',
        'signature_name': 'embed_text',
        'method': method,
        'api': api,
        **labels,
      }
      if status:
        labels['status'] = status
      return (name, *sorted(labels.items()))

    before = read()
    self._check_serves()
    self._rest(
      '/v1/models/vatt:predict',
      {'signature_name': 'embed_text', 'inputs': ['']},
    )
    self._rest('/v1/models/vatt')
    for i in range(3):  # names that clients make up are not kept
      self._rest(f'/v1/models/name_{i}')
    after = read()
    unknown = {'model_name': '', 'signature_name': ''}
    for name, count in (
      (key('request_count_total', 'OK'), 1),
      (key('request_latency_count'), 1),
      (key('request_count_total', 'INVALID_ARGUMENT', api='REST'), 1),
      (
        key(
          'request_count_total',
          'OK',
          'GetModelStatus',
          'REST',
          signature_name='',
        ),
        1,
      ),
      (
        key(
          'request_count_total',
          'NOT_FOUND',
          'GetModelStatus',
          'REST',
          **unknown,
        ),
        3,
      ),
    ):
      self.assertEqual(after[name] - before.get(name, 0), count, name)
    self.assertEqual(after[('batching_session:queued_rows',)], 0)
    self.assertGreater(after[('process_resident_memory_bytes',)], 0)
    seconds = after[key('request_latency_sum')] / 1e6
    self.assertBetween(seconds, 0.001, 60)
    self.assertNotIn('name_1', str(after))

  def test_requests_of_several_rows_and_lengths(self):
    """Sounds of two lengths and rows of any number share no batch wrongly."""
    inputs = self.vatt.inputs['embed_audio']
    calls = []
    for rows, length in [(1, 54400), (3, 20000), (8, 54400), (9, 20000)] * 3:
      chosen = np.arange(rows) % 8
      each = {
        'waveform': inputs['waveform'][chosen, :length],
        'sample_rate': inputs['sample_rate'][chosen],
      }
      request = served_models.make_request('embed_audio', each)
      calls.append((each, self.stub.Predict.future(request)))
    for each, call in calls:
      found = served_models.outputs(call.result())
      direct = self.loaded.signatures['embed_audio'](
        **{key: tf.constant(value) for key, value in each.items()}
      )
      for key, value in direct.items():
        self.assertAllClose(found[key], value, atol=1e-5)

  def test_rest_and_grpc_together(self):
    def ask(i):
      row = i % 8
      text = self._text(8)[row]
      if i % 2:
        body = {'signature_name': 'embed_text', 'instances': [text.decode()]}
        _, found = self._rest('/v1/models/vatt:predict', body)
        found = found['predictions'][0]['video_text_embedding']
      else:
        response = self._predict('embed_text', {'text': [text]})
        found = served_models.outputs(response)['video_text_embedding'][0]
      expected = self.vatt.expected['embed_text']['video_text_embedding'][row]
      return np.abs(np.array(found) - expected).max()

    with futures.ThreadPoolExecutor(12) as pool:
      self.assertLess(max(pool.map(ask, range(60))), 1e-5)

  def test_input_names_are_those_of_the_exporter(self):
    """The values of each input of an exported model are checked."""
    names = {name for each in self.vatt.inputs.values() for name in each}
    self.assertEqual(names, set(requests._CHECKS))


if __name__ == '__main__':
  tf.test.main()
