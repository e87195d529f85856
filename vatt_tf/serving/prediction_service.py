"""The gRPC services of TensorFlow Serving: PredictionService, ModelService."""

import asyncio
import contextlib

from absl import logging
from google.protobuf import message
import grpc
from tensorflow_serving.apis import (
  get_model_metadata_pb2,
  model_service_pb2_grpc,
  predict_pb2,
  prediction_service_pb2_grpc,
)

from vatt_tf.serving import errors, offload, requests

_SERVICES = '/tensorflow.serving.'
_SIGNATURES = 'signature_def'


def _number(model_spec):
  """The version that a request asks for, or None for the newest."""
  if model_spec.version_label:
    raise errors.invalid(
      'The request must name a version by its number: there are no labels. '
      f'Received: version_label={model_spec.version_label!r}'
    )
  if model_spec.HasField('version'):
    return model_spec.version.value
  return None


def metadata(served, name, number):
  """The signatures of a model.

  Args:
    served: `models.Models`.
    name: of the model.
    number: of its version, or None for the newest.

  Returns:
    `(GetModelMetadataResponse, SignatureDefMap)`, the latter without the
    former's packing.

  Raises:
    errors.StatusError: NOT_FOUND.
  """
  response = get_model_metadata_pb2.GetModelMetadataResponse()
  signatures = get_model_metadata_pb2.SignatureDefMap()
  with served.use(name, number) as version:
    response.model_spec.name = name
    response.model_spec.version.value = version.number
    for key, value in version.signature_defs.items():
      signatures.signature_def[key].CopyFrom(value)
  response.metadata[_SIGNATURES].Pack(signatures)
  return response, signatures


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
  """Predict and GetModelMetadata.

  Args:
    predictor: `predictor.Predictor`.
    served: `models.Models`.
    max_bytes: an input may take up so many.
  """

  def __init__(self, predictor, served, max_bytes):
    self._predictor = predictor
    self._models = served
    self._max_bytes = max_bytes

  async def Predict(self, request, num_bytes, labels):  # noqa: N802
    """Answers a `PredictRequest`."""
    spec = request.model_spec

    def parse(specs):
      return requests.from_protos(request.inputs, specs, self._max_bytes)

    found = await self._predictor.predict(
      spec.name,
      _number(spec),
      spec.signature_name,
      parse,
      num_bytes,
      labels,
    )
    wanted = request.output_filter or sorted(found.outputs)
    unknown = sorted(set(wanted) - set(found.outputs))
    if unknown:
      raise errors.invalid(
        '`output_filter` must name outputs of the signature: '
        f'{", ".join(sorted(found.outputs))}. Received: {", ".join(unknown)}'
      )
    num_bytes = sum(found.outputs[key].nbytes for key in wanted)
    return await offload.call(
      num_bytes, _make_response, spec.name, found, wanted
    )

  async def GetModelMetadata(self, request, num_bytes, labels):  # noqa: N802
    """Answers a `GetModelMetadataRequest`."""
    del num_bytes
    if list(request.metadata_field) != [_SIGNATURES]:
      raise errors.invalid(
        f"`metadata_field` must be ['{_SIGNATURES}']. Received: "
        f'{list(request.metadata_field)}'
      )
    spec = request.model_spec
    response, _ = metadata(self._models, spec.name, _number(spec))
    labels.model_name = spec.name
    return response


def _make_response(name, found, wanted):
  response = predict_pb2.PredictResponse()
  response.model_spec.name = name
  response.model_spec.version.value = found.version
  response.model_spec.signature_name = found.signature
  for key in wanted:
    response.outputs[key].CopyFrom(requests.to_proto(found.outputs[key]))
  return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
  """GetModelStatus.

  Args:
    served: `models.Models`.
  """

  def __init__(self, served):
    self._models = served

  async def GetModelStatus(self, request, num_bytes, labels):  # noqa: N802
    """Answers a `GetModelStatusRequest`."""
    del num_bytes
    spec = request.model_spec
    response = self._models.status(spec.name, _number(spec))
    labels.model_name = spec.name
    return response


class Interceptor(grpc.aio.ServerInterceptor):
  """Stands around the methods above: parses, counts, and answers errors.

  Methods that a service does not have are UNIMPLEMENTED, and a request that
  does not parse is INVALID_ARGUMENT.

  Args:
    figures: `metrics.Metrics`.
  """

  def __init__(self, figures):
    self._figures = figures
    self._num_running = 0
    self._is_refusing = False

  @contextlib.contextmanager
  def _running(self):
    self._num_running += 1
    try:
      yield
    finally:
      self._num_running -= 1

  def refuse(self):
    """Answers UNAVAILABLE to whatever comes from now on."""
    self._is_refusing = True

  async def wait_until_idle(self):
    """Waits until no request runs."""
    while self._num_running:
      await asyncio.sleep(0.02)

  async def intercept_service(self, continuation, handler_call_details):
    """Returns the handler of a method."""
    handler = await continuation(handler_call_details)
    path = handler_call_details.method
    if handler is None or not path.startswith(_SERVICES):
      return handler
    method = path.rsplit('/', 1)[1]
    answer = handler.unary_unary

    async def handle(data, context):
      if self._is_refusing:
        await context.abort(
          grpc.StatusCode.UNAVAILABLE, 'The server shuts down.'
        )
      with self._running(), self._figures.request(method, 'GRPC') as labels:
        try:
          if not asyncio.iscoroutinefunction(answer):
            raise errors.StatusError(
              grpc.StatusCode.UNIMPLEMENTED,
              f'{method} is not served. Use Predict, GetModelMetadata or '
              'GetModelStatus.',
            )
          request = await offload.call(
            len(data), _parse, handler.request_deserializer, data, path
          )
          response = await answer(request, len(data), labels)
        except Exception as e:  # noqa: BLE001, the server goes on
          error = errors.from_exception(e)
          labels.status = error.code.name
          if error.code == grpc.StatusCode.INTERNAL:
            logging.exception('%s failed', path)
        else:
          labels.status = 'OK'
          return response
      await context.abort(error.code, error.message)

    return grpc.unary_unary_rpc_method_handler(
      handle, response_serializer=handler.response_serializer
    )


def _parse(deserialize, data, path):
  try:
    return deserialize(data)
  except message.DecodeError as e:
    raise errors.invalid(
      f'The request must be the message of {path}. Received: {len(data)} bytes '
      f'that are not: {e}'
    ) from e
