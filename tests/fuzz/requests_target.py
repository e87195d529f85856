"""Requests to the model server and to the search page, of any form."""

import base64
import contextlib
import functools
import gzip
import http.client
import json
import os
import tempfile
import time
import urllib.parse
import zlib

import grpc
from hypothesis import strategies as st
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
import tf_keras

from tests import tiny_vatt
from tests.fuzz import mutations
from tests.retrieval_index import searchable
from tests.serving import served_models
from vatt_tf.export import saved_model
from vatt_tf.serving import batching, models, server

_MAX_SECONDS = 30
_MAX_BYTES = 1 << 20
_PREDICT = '/tensorflow.serving.PredictionService/Predict'
_UPLOAD_LIMIT = 1 << 20

_operations = st.lists(
  st.one_of(*mutations.IN_PLACE, *mutations.MOVING), max_size=2
)

# Bodies of REST.
_B64 = base64.b64encode(b'a dog').decode()
_leaves = st.one_of(
  st.sampled_from(
    (
      None,
      True,
      0,
      1,
      -1,
      2**31,
      2**63,
      10**400,
      0.5,
      1e39,
      float('nan'),
      float('inf'),
      '',
      'a dog',
      'é',
      '\ud800',
      '\0',
      {},
      [],
      {'b64': _B64},
      {'b64': _B64.rstrip('=')},
      {'b64': '=='},
      {'b64': 'é'},
      {'b64': 1},
      {'b64': None, 'x': 1},
      {'b64': base64.b64encode(b'\xff\xd8\xff\xe0 no picture').decode()},
      {'b64': base64.b64encode(b'\xff\xfe').decode()},
    )
  ),
  st.text(max_size=6),
  st.floats(),
)
_values = st.recursive(
  _leaves,
  lambda inner: st.one_of(
    st.lists(inner, max_size=3),
    st.dictionaries(
      st.sampled_from(
        ('text', 'x', 'frames', 'waveform', 'sample_rate', 'b64')
      ),
      inner,
      max_size=3,
    ),
  ),
  max_leaves=8,
)
_SIGNATURES = (
  'serving_default',
  'embed_text',
  'embed_video_jpeg',
  'embed_audio',
  'types',
  'text',
  '',
  'none',
)
_bodies = st.one_of(
  st.fixed_dictionaries(
    {},
    optional={
      'signature_name': st.one_of(st.sampled_from(_SIGNATURES), _leaves),
      'instances': _values,
      'inputs': _values,
      'other': _leaves,
    },
  ),
  st.fixed_dictionaries(
    {
      'signature_name': st.sampled_from(_SIGNATURES),
      'instances': st.lists(_values, min_size=1, max_size=3),
    }
  ),
  # Nearly right.
  st.fixed_dictionaries(
    {
      'signature_name': st.just('embed_audio'),
      'inputs': st.fixed_dictionaries(
        {
          'waveform': st.sampled_from(
            ([[0.0] * 54400], [[]], [[0.5]], [[1e30] * 54400], [0.0])
          ),
          'sample_rate': st.one_of(
            st.lists(st.sampled_from((16000, 0, -1, 2**31 - 1)), max_size=2),
            _leaves,
          ),
        }
      ),
    }
  ),
  _values,
)
_HEADERS = (
  ('Content-Type', 'application/json'),
  ('Content-Type', 'text/plain; charset=utf-16'),
  ('Content-Encoding', 'gzip'),
  ('Content-Encoding', 'x-gzip'),
  ('Content-Encoding', 'identity, gzip'),
  ('Content-Encoding', 'br'),
  ('Content-Encoding', ''),
  ('Accept', 'text/html'),
  ('Accept-Encoding', 'gzip'),
  ('Expect', '100-continue'),
  ('X-Odd', '\xff\x80'),
  ('Transfer-Encoding', 'identity'),
  ('Origin', 'null'),
  ('Cookie', 'a' * 4000),
)
_PATHS = (
  '/v1/models/vatt:predict',
  '/v1/models/vatt:predict',
  '/v1/models/plain:predict',
  '/v1/models/plain:predict',
  '/v1/models/plain/versions/3:predict',
  '/v1/models/plain/versions/99999999999999999999:predict',
  '/v1/models/plain/versions/-1:predict',
  '/v1/models/plain/versions/x:predict',
  '/v1/models/plain/metadata',
  '/v1/models/plain',
  '/v1/models/none:predict',
  '/v1/models/plain:classify',
  '/v1/models/%00:predict',
  '/v1/models/%ff%fe:predict',
  '/v1/models//:predict',
  '/v1/models/plain:predict/',
  '/v1/models/plain:predict?a=b%',
  '/v1/models/plain:predict:predict',
  '/v1/',
  '/v1',
  '/',
  '//',
  '/%2e%2e/v1/models/plain',
  '/v1/models/../models/plain',
  '*',
  'http://x/v1/models/plain',
)
_METHODS = ('POST', 'POST', 'POST', 'GET', 'HEAD', 'PUT', 'OPTIONS', 'ODD')
_rest = st.tuples(
  st.just('rest'),
  st.sampled_from(_METHODS),
  st.sampled_from(_PATHS),
  st.lists(st.sampled_from(_HEADERS), max_size=2),
  _bodies,
  st.sampled_from(('', '', 'gzip', 'gzip', 'zlib')),
  _operations,
)
_deep = st.tuples(
  st.just('deep'),
  st.sampled_from(('instances', 'inputs', 'text')),
  st.sampled_from(('[', '{"a":', '{"b64":')),
  st.one_of(st.integers(1, 2000), st.sampled_from((50_000, 300_000))),
)

# Messages of gRPC.
_tensors = st.fixed_dictionaries(
  {
    'dtype': st.one_of(
      st.sampled_from((1, 7, 9, 3, 0, 23)), st.integers(0, 130)
    ),
    'shape': st.one_of(
      st.none(),
      st.lists(
        st.sampled_from((0, 1, 2, 3, -1, 2**31, 2**62, 2**63 - 1)), max_size=4
      ),
    ),
    'content': st.sampled_from((b'', b'', b'\0' * 4, b'\0' * 8, b'\xff' * 24)),
    'strings': st.lists(
      st.sampled_from((b'', b'a dog', b'\xff', b'\0')), max_size=3
    ),
    'floats': st.lists(st.floats(width=32), max_size=3),
    'integers': st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
  }
)
_grpc = st.tuples(
  st.just('grpc'),
  st.sampled_from(
    (
      _PREDICT,
      _PREDICT,
      _PREDICT,
      '/tensorflow.serving.PredictionService/Classify',
      '/tensorflow.serving.PredictionService/GetModelMetadata',
      '/tensorflow.serving.ModelService/GetModelStatus',
    )
  ),
  st.sampled_from(('vatt', 'plain', 'plain', '', 'none', '\0')),
  st.sampled_from(_SIGNATURES),
  st.one_of(
    st.just(None), st.sampled_from((0, 3, -1, 2**63 - 1)), st.just('label')
  ),
  st.dictionaries(
    st.sampled_from(('x', 'text', 'waveform', 'sample_rate', 'frames', '')),
    _tensors,
    max_size=2,
  ),
  st.lists(st.sampled_from(('sum', 'value', '', 'none')), max_size=2),
  _operations,
)

# The search page.
_QUERY = {
  'text': st.one_of(
    st.sampled_from(('a red star', '', ' ', '\0', 'é' * 999, 'a' * 1001, '好')),
    st.text(max_size=6),
  ),
  'like': st.sampled_from(('', '0' * 16, 'f' * 16, 'x', 'GOOD', '٣' * 16)),
  'modality': st.sampled_from(('', 'any', 'video', 'audio', 'text', 'x', '\n')),
  'by': st.sampled_from(('', 'video', 'audio', 'text', 'x')),
  'top': st.sampled_from(
    ('', '1', '200', '0', '-1', '201', '1.5', '9' * 400, '٣', ' 2', '1_0', 'x')
  ),
}
_search_paths = st.one_of(
  st.just('/api/search'),
  st.just('/api/search'),
  st.sampled_from(
    (
      '/media/GOOD',
      '/media/GOOD/',
      '/media/%2e%2e%2fmedia.csv',
      '/media/..',
      '/media/%00',
      '/media/',
      '/media/0000000000000000',
      '/api/index',
      '/api/none',
      '/api/search/',
      '//api/search',
      '/search.js',
      '/page/index.html',
      '/%ff',
      '*',
    )
  ),
)
_SEARCH_HEADERS = (
  ('Host', 'localhost'),
  ('Host', 'evil.example'),
  ('Host', ''),
  ('Host', 'localhost:99999'),
  ('Host', '[::1]:80'),
  ('Host', '[::1'),
  ('Host', '127.0.0.1.evil.example'),
  ('Host', '\xff'),
  ('Host', 'localhost,evil'),
  ('Range', 'bytes=0-9'),
  ('Range', 'bytes=-1'),
  ('Range', 'bytes=9-1'),
  ('Range', 'bytes=99999999-'),
  ('Range', 'bytes=a-b'),
  ('Range', 'bytes=0-1,3-4,0-0'),
  ('Range', 'lines=1-2'),
  ('Range', f'bytes={"9" * 5000}-'),
  ('If-Range', 'x'),
  ('X-File-Name', ''),
  ('X-File-Name', 'a.mp4'),
  ('X-File-Name', '%00%ff../../x'),
  ('X-File-Name', 'a%0ab'),
  ('X-File-Name', '\xff'),
  ('Content-Type', 'multipart/form-data; boundary=x'),
  ('Content-Encoding', 'gzip'),
)
_search = st.tuples(
  st.just('search'),
  st.sampled_from(('GET', 'GET', 'POST', 'POST', 'HEAD', 'DELETE')),
  _search_paths,
  st.fixed_dictionaries({}, optional=_QUERY),
  st.lists(st.sampled_from(_SEARCH_HEADERS), max_size=3),
  st.sampled_from(
    ('', 'shapes/red star.mp4', 'bell.wav', 'media.csv', searchable.UNPLAYABLE)
  ),
  _operations,
)

STRATEGY = st.one_of(_rest, _rest, _deep, _grpc, _search)

_resources = contextlib.ExitStack()


def close() -> None:
  """Stops the servers."""
  _resources.close()
  for one in (_models, _page, _good_answer, _good_results):
    one.cache_clear()


@functools.cache
def _models() -> server.Server:
  """A server of two small models."""
  folder = _resources.enter_context(tempfile.TemporaryDirectory())
  paths = {name: os.path.join(folder, name) for name in ('vatt', 'plain')}
  tf_keras.utils.set_random_seed(0)
  saved_model.write(tiny_vatt.served(), paths['vatt'], 'runs/x/ckpt-7', '')
  served_models.write_plain(paths['plain'], 3)
  config = models.model_config('vatt', paths['vatt'])
  config.MergeFrom(models.model_config('plain', paths['plain']))
  started = server.Server(
    config,
    server.Options(
      max_message_bytes=_MAX_BYTES, parameters=batching.Parameters()
    ),
  )
  started.start()
  _resources.callback(started.stop)
  return started


@functools.cache
def _page() -> str:
  """The address of a search page."""
  return _resources.enter_context(
    searchable.serve(searchable.get().searcher, max_upload_bytes=_UPLOAD_LIMIT)
  )


def check(value: tuple) -> None:
  """Sends a request; raises `AssertionError` where something is wrong."""
  kind, *rest = value
  # What takes long once is no fault of a request.
  _good_results() if kind == 'search' else _good_answer()
  start = time.monotonic()
  match kind:
    case 'rest':
      method, path, headers, body, compression, operations = rest
      data = json.dumps(body).encode()
      if compression:
        data = (
          gzip.compress(data) if compression == 'gzip' else zlib.compress(data)
        )
        if compression == 'gzip' and not operations:
          headers = [*headers, ('Content-Encoding', 'gzip')]
      _check_rest(method, path, headers, _damage(data, operations))
    case 'deep':
      key, bracket, depth = rest
      closing = {'[': ']'}.get(bracket, '}')
      deep = bracket * depth + '1' + closing * depth
      if key == 'text':
        key, deep = 'inputs', f'{{"text": {deep}}}'
      body = f'{{"signature_name": "embed_text", "{key}": {deep}}}'
      _check_rest('POST', _PATHS[0], [], body.encode())
    case 'grpc':
      _check_grpc(*rest)
    case 'search':
      _check_search(*rest)
  seconds = time.monotonic() - start
  assert seconds < _MAX_SECONDS, f'It took {seconds:.1f} s.'


def _damage(data, operations):
  for operation in operations:
    data = mutations.apply(data, data[::-1], operation)
  return data


def _ask(port, method, path, headers=(), data=None):
  """Status, headers and content of an answer."""
  connection = http.client.HTTPConnection(
    'localhost', port, timeout=_MAX_SECONDS
  )
  with contextlib.closing(connection):
    has_host = any(name == 'Host' for name, _ in headers)
    connection.putrequest(
      method, path, skip_host=has_host, skip_accept_encoding=True
    )
    for name, value in headers:
      connection.putheader(name, value.encode('latin-1'))
    if data is not None:
      connection.putheader('Content-Length', str(len(data)))
    connection.endheaders(data)
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def _check_answer(status, content, method='GET'):
  """An answer is good, or says in JSON what is wrong."""
  assert status < 500 or status == 501, (status, content[:1000])
  if status >= 400 and method != 'HEAD':
    error = json.loads(content)['error']
    assert isinstance(error, str) and error, content
    assert len(error) < 2000, error


def _check_rest(method, path, headers, data):
  port = _models().rest_port
  headers = [one for one in headers if one[0] != 'Transfer-Encoding']
  status, _, content = _ask(port, method, path, headers, data)
  _check_answer(status, content, method)
  if status == 200 and ':predict' in path and method == 'POST':
    answer = json.loads(content)
    assert set(answer) & {'predictions', 'outputs'}, answer
  assert _ask_for_text() == _good_answer()


def _ask_for_text():
  body = {'signature_name': 'embed_text', 'instances': ['a red star']}
  status, _, content = _ask(
    _models().rest_port, 'POST', _PATHS[0], (), json.dumps(body).encode()
  )
  assert status == 200, content
  (row,) = json.loads(content)['predictions']
  return {key: np.round(each, 4).tolist() for key, each in row.items()}


@functools.cache
def _good_answer():
  return _ask_for_text()


def _check_grpc(
  method, name, signature, version, inputs, output_filter, operations
):
  request = predict_pb2.PredictRequest()
  request.model_spec.name = name
  request.model_spec.signature_name = signature
  if version == 'label':
    request.model_spec.version_label = version
  elif version is not None:
    request.model_spec.version.value = version
  for key, tensor in inputs.items():
    proto = request.inputs[key]
    proto.dtype = tensor['dtype']
    if tensor['shape'] is None:
      proto.tensor_shape.unknown_rank = True
    for size in tensor['shape'] or ():
      proto.tensor_shape.dim.add().size = size
    proto.tensor_content = tensor['content']
    proto.string_val.extend(tensor['strings'])
    proto.float_val.extend(tensor['floats'])
    proto.int_val.extend(tensor['integers'])
  request.output_filter.extend(output_filter)
  data = _damage(request.SerializeToString(), operations)
  with grpc.insecure_channel(f'localhost:{_models().port}') as channel:
    try:
      answer = channel.unary_unary(method)(data, timeout=_MAX_SECONDS)
    except grpc.RpcError as e:
      assert e.code() not in (
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
      ), e
      assert e.details(), e
    else:
      if method == _PREDICT:
        response = predict_pb2.PredictResponse.FromString(answer)
        assert response.outputs
    good = served_models.make_request(
      'serving_default', {'x': np.float32([[1, 2]])}, name='plain'
    )
    answer = channel.unary_unary(_PREDICT)(good.SerializeToString(), timeout=30)
    found = predict_pb2.PredictResponse.FromString(answer).outputs['sum']
    np.testing.assert_array_equal(tf.make_ndarray(found), [[4, 5]])


def _check_search(method, path, query, headers, file, operations):
  port = urllib.parse.urlsplit(_page()).port
  (moment,) = {one['id'] for one in _good_results()[:1]}
  path = path.replace('GOOD', moment)
  if query:
    query = {key: each.replace('GOOD', moment) for key, each in query.items()}
    path += '?' + urllib.parse.urlencode(query, errors='surrogatepass')
  data = None
  if method == 'POST':
    data = b''
    if file:
      with open(os.path.join(searchable.get().media, file), 'rb') as opened:
        data = _damage(opened.read(), operations)[: _UPLOAD_LIMIT + 9]
    if not any(name == 'X-File-Name' for name, _ in headers):
      headers = [*headers, ('X-File-Name', 'file')]
  # Of the Host, one is sent.
  hosts = [one for one in headers if one[0] == 'Host']
  headers = [one for one in headers if one[0] != 'Host'] + hosts[:1]
  status, found_headers, content = _ask(port, method, path, headers, data)
  # Wrong ranges of a file are answered without a word.
  if not (path.startswith('/media/') and status in (400, 416)):
    _check_answer(status, content, method)
  assert found_headers['content-security-policy'].startswith('default-src')
  if status == 200 and path.startswith('/api/') and method != 'HEAD':
    json.loads(content)
  if any('evil' in host for _, host in hosts[:1]):
    assert status == 400, status
  assert _ask_for_results() == _good_results()


def _ask_for_results():
  port = urllib.parse.urlsplit(_page()).port
  status, _, content = _ask(port, 'GET', '/api/search?text=a+red+star&top=3')
  assert status == 200, content
  results = json.loads(content)['results']
  assert len(results) == 3
  return results


@functools.cache
def _good_results():
  return _ask_for_results()
