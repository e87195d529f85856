"""The REST API of TensorFlow Serving, and the endpoint of Prometheus."""

import asyncio
import gzip
import io
import json
import zlib

from absl import logging
from google.protobuf import json_format
import grpc
import prometheus_client
from starlette import applications, exceptions, responses, routing
from starlette import requests as http_requests

from vatt_tf.serving import (
  errors,
  offload,
  prediction_service,
  requests,
)
from vatt_tf.serving import metrics as metrics_lib
from vatt_tf.serving import models as models_lib
from vatt_tf.serving import predictor as predictor_lib

_BYTES_PER_NUMBER = 20  # of JSON
_HTTP = {
  grpc.StatusCode.INVALID_ARGUMENT: 400,
  grpc.StatusCode.FAILED_PRECONDITION: 400,
  grpc.StatusCode.OUT_OF_RANGE: 400,
  grpc.StatusCode.NOT_FOUND: 404,
  grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
  grpc.StatusCode.UNIMPLEMENTED: 501,
  grpc.StatusCode.UNAVAILABLE: 503,
  grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_MODEL = '/v1/models/{name}'
_VERSION = _MODEL + '/versions/{number:int}'
_METHODS = ['GET', 'POST', 'PUT', 'DELETE', 'PATCH']


class _HttpError(errors.StatusError):
  """An error for which HTTP has a status of its own.

  Args:
    status: Status of HTTP.
    code: Code of gRPC.
    message: Text for the client.
  """

  def __init__(self, status, code, message):
    super().__init__(code, message)
    self.status = status


def _too_large(received, max_bytes):
  return _HttpError(
    413,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    f'The body must have at most {max_bytes:,} bytes. Received: {received}',
  )


def _answer(content, status=200):
  text = json.dumps(content)
  return responses.Response(text, status, media_type='application/json')


def _message_to_dict(message):
  # Fields without a value too: protobuf 5.26 renamed this argument.
  return json_format.MessageToDict(
    message, True, preserving_proto_field_name=True
  )


class Rest:
  """The endpoints.

  Attributes:
    app: ASGI application.

  Args:
    predictor: Predictor of the server.
    models: Models of the server.
    metrics: Metrics of the server.
    max_bytes: Maximum size of the body of a request.
  """

  def __init__(
    self,
    predictor: predictor_lib.Predictor,
    models: models_lib.Models,
    metrics: metrics_lib.Metrics,
    max_bytes: int,
  ):
    self._predictor = predictor
    self._models = models
    self._metrics = metrics
    self._max_bytes = max_bytes
    routes = []
    for model in (_VERSION, _MODEL):
      for suffix, method, function in (
        (':predict', 'POST', self._predict),
        ('/metadata', 'GET', self._metadata),
        ('', 'GET', self._status),
      ):
        routes.append(self._route(model + suffix, function, [method]))
    routes.append(self._route('/v1/{path:path}', self._malformed, _METHODS))
    routes.append(routing.Route(metrics_lib.PATH, self._show_metrics))
    self.app = applications.Starlette(
      routes=routes,
      exception_handlers={exceptions.HTTPException: _no_route},
    )

  def _route(self, path, function, methods):
    """Returns a route that is counted, and whose errors are JSON."""
    label = {
      self._predict: 'Predict',
      self._metadata: 'GetModelMetadata',
      self._status: 'GetModelStatus',
    }.get(function, '')

    async def endpoint(request):
      with self._metrics.request(label, 'REST') as labels:
        try:
          response = await function(request, labels)
        except http_requests.ClientDisconnect:
          return responses.Response(status_code=499)
        except Exception as e:  # noqa: BLE001, the server continues
          error = errors.from_exception(e)
          labels.status = error.code.name
          if error.code == grpc.StatusCode.INTERNAL:
            logging.exception('%s failed', request.url.path)
          status = _HTTP.get(error.code, 500)
          if isinstance(error, _HttpError):
            status = error.status
          return _answer({'error': error.message}, status)
        labels.status = 'OK'
        return response

    return routing.Route(path, endpoint, methods=methods)

  async def _predict(self, request, labels):
    name, number = _model(request)
    is_compressed = _is_compressed(request)
    data = await self._read(request)
    if is_compressed:
      # The size of the content of a small body is unknown.
      data = await asyncio.to_thread(_decompress, data, self._max_bytes)
    body = await offload.call(len(data), _parse, data)
    is_row_format = False

    def parse(specs):
      nonlocal is_row_format
      inputs, is_row_format = requests.from_json(body, specs)
      return inputs

    prediction = await _unless_gone(
      request,
      self._predictor.predict(
        name,
        number,
        body.get('signature_name', ''),
        parse,
        len(data),
        labels,
      ),
    )
    num_values = sum(value.size for value in prediction.outputs.values())
    return await offload.call(
      num_values * _BYTES_PER_NUMBER,
      lambda: _answer(requests.to_json(prediction.outputs, is_row_format)),
    )

  async def _read(self, request):
    """Returns the body.

    Bytes over the limit are read too, but not kept: clients read the answer
    only when they have sent everything.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
      size += len(chunk)
      if size <= self._max_bytes:
        chunks.append(chunk)
      else:
        chunks.clear()
    if size > self._max_bytes:
      raise _too_large(f'{size:,}', self._max_bytes)
    return b''.join(chunks)

  async def _metadata(self, request, labels):
    name, number = _model(request)
    response, signatures = prediction_service.metadata(
      self._models, name, number
    )
    labels.model_name = name
    spec = {
      'name': name,
      'signature_name': '',
      'version': str(response.model_spec.version.value),
    }
    content = {'signature_def': _message_to_dict(signatures)}
    return _answer({'model_spec': spec, 'metadata': content})

  async def _status(self, request, labels):
    name, number = _model(request)
    response = self._models.status(name, number)
    labels.model_name = name
    content = _message_to_dict(response)
    for status in content['model_version_status']:
      status.setdefault('status', {'error_code': 'OK', 'error_message': ''})
    return _answer(content)

  async def _malformed(self, request, labels):
    del labels
    raise _malformed(request)

  async def _show_metrics(self, request):
    del request
    return responses.Response(
      self._metrics.text(), media_type=prometheus_client.CONTENT_TYPE_LATEST
    )


async def _no_route(request, error):
  """Returns the answer for an unknown path or method."""
  message = f'{error.detail}: {request.method} {request.url.path}'
  response = _answer({'error': message}, error.status_code)
  response.headers.update(error.headers or {})
  return response


def _malformed(request):
  return errors.invalid(
    f'Malformed request: {request.method} {request.url.path}. Expected: POST '
    '/v1/models/NAME[/versions/N]:predict, or GET /v1/models/NAME'
    '[/versions/N][/metadata]'
  )


def _model(request):
  """Returns name and version of the path."""
  if ':' in request.path_params['name']:  # another method's path
    raise _malformed(request)
  return request.path_params['name'], request.path_params.get('number')


def _is_compressed(request):
  """Returns whether a body is compressed with gzip; 415 if otherwise."""
  encodings = [
    encoding.strip().lower()
    for header in request.headers.getlist('content-encoding')
    for encoding in header.split(',')
  ]
  encodings = [each for each in encodings if each not in ('', 'identity')]
  if encodings and encodings not in (['gzip'], ['x-gzip']):
    raise _HttpError(
      415,
      grpc.StatusCode.INVALID_ARGUMENT,
      'The Content-Encoding must be gzip, or none. Received: '
      f'{", ".join(encodings)}',
    )
  return bool(encodings)


def _decompress(data, max_bytes):
  """Returns the content of a body of gzip, of one or several members.

  Args:
    data: Bytes of the body.
    max_bytes: Maximum size of the content. No more is decompressed.

  Raises:
    errors.StatusError: The body is damaged or cut off, or holds more.
  """
  try:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
      content = file.read(max_bytes + 1)
  except (OSError, EOFError, zlib.error) as e:
    raise errors.invalid(
      f'The body must be gzip, as its Content-Encoding says: {e}. Received: '
      f'{len(data)} bytes'
    ) from e
  if len(content) > max_bytes:
    raise _too_large('more, compressed with gzip', max_bytes)
  return content


async def _unless_gone(request, coroutine):
  """Returns the result of a coroutine, or cancels it if the client leaves.

  Args:
    request: Request whose body has been read.
    coroutine: Coroutine that answers it.

  Raises:
    starlette.requests.ClientDisconnect: The client is gone.
  """
  answer = asyncio.ensure_future(coroutine)
  gone = asyncio.ensure_future(_wait_until_gone(request))
  try:
    await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
      raise http_requests.ClientDisconnect
    return answer.result()
  finally:
    answer.cancel()
    gone.cancel()


async def _wait_until_gone(request):
  while (await request.receive())['type'] != 'http.disconnect':
    pass


def _parse(data):
  """Returns the JSON object of a body."""
  try:
    body = json.loads(data)
  except (ValueError, RecursionError) as e:
    raise errors.invalid(
      "JSON Parse error: the body must be a JSON object with 'instances' or "
      f"'inputs'. Received: {len(data)} bytes: {e}"
    ) from e
  if not isinstance(body, dict):
    raise errors.invalid(
      "The body must be a JSON object with 'instances' or 'inputs'. Received: "
      f'a {type(body).__name__}'
    )
  if not isinstance(body.get('signature_name', ''), str):
    raise errors.invalid("'signature_name' must be a string")
  return body
