"""The gRPC services of TensorFlow Serving: PredictionService, ModelService."""

import asyncio
from collections.abc import Awaitable, Callable
import contextlib

from absl import logging
from google.protobuf import message
import grpc
from tensorflow_serving.apis import (
  get_model_metadata_pb2,
  get_model_status_pb2,
  model_service_pb2_grpc,
  predict_pb2,
  prediction_service_pb2_grpc,
)

from vatt_tf.serving import errors, offload, requests
from vatt_tf.serving import metrics as metrics_lib
from vatt_tf.serving import models as models_lib
from vatt_tf.serving import predictor as predictor_lib

_SERVICES = '/tensorflow.serving.'
_SIGNATURES = 'signature_def'


def _number(model_spec):
  """Returns the version that a request asks for, or None for the newest."""
  if model_spec.version_label:
    raise errors.invalid(
      'The request must name a version by its number: there are no labels. '
      f'Received: version_label={model_spec.version_label!r}'
    )
  if model_spec.HasField('version'):
    return model_spec.version.value
  return None


def metadata(
  models: models_lib.Models, name: str, number: int | None
) -> tuple[
  get_model_metadata_pb2.GetModelMetadataResponse,
  get_model_metadata_pb2.SignatureDefMap,
]:
  """Returns the signatures of a model, packed in a response and on their own.

  Args:
    models: Models of the server.
    name: Name of the model.
    number: Number of its version, or None for the newest.

  Raises:
    errors.StatusError: NOT_FOUND: there is no such version.
  """
  response = get_model_metadata_pb2.GetModelMetadataResponse()
  signatures = get_model_metadata_pb2.SignatureDefMap()
  with models.use(name, number) as version:
    response.model_spec.name = name
    response.model_spec.version.value = version.number
    for key, value in version.signature_defs.items():
      signatures.signature_def[key].CopyFrom(value)
  response.metadata[_SIGNATURES].Pack(signatures)
  return response, signatures


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
  """Predict and GetModelMetadata.

  Args:
    predictor: Predictor of the server.
    models: Models of the server.
    max_bytes: Maximum size of an input.
  """

  def __init__(
    self,
    predictor: predictor_lib.Predictor,
    models: models_lib.Models,
    max_bytes: int,
  ):
    self._predictor = predictor
    self._models = models
    self._max_bytes = max_bytes

  async def Predict(  # noqa: N802
    self,
    request: predict_pb2.PredictRequest,
    num_bytes: int,
    labels: metrics_lib.Labels,
  ) -> predict_pb2.PredictResponse:
    """Answers a `PredictRequest`.

    Args:
      request: The request.
      num_bytes: Bytes of the request.
      labels: Labels of the request, which are set as far as they are known.
    """
    spec = request.model_spec

    def parse(specs):
      return requests.from_protos(request.inputs, specs, self._max_bytes)

    prediction = await self._predictor.predict(
      spec.name,
      _number(spec),
      spec.signature_name,
      parse,
      num_bytes,
      labels,
    )
    outputs = prediction.outputs
    wanted = request.output_filter or sorted(outputs)
    unknown = sorted(set(wanted) - set(outputs))
    if unknown:
      raise errors.invalid(
        '`output_filter` must name outputs of the signature: '
        f'{", ".join(sorted(outputs))}. Received: {", ".join(unknown)}'
      )
    num_bytes = sum(outputs[key].nbytes for key in wanted)
    return await offload.call(
      num_bytes, _make_response, spec.name, prediction, wanted
    )

  async def GetModelMetadata(  # noqa: N802
    self,
    request: get_model_metadata_pb2.GetModelMetadataRequest,
    num_bytes: int,
    labels: metrics_lib.Labels,
  ) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answers a `GetModelMetadataRequest`.

    Args:
      request: The request.
      num_bytes: Bytes of the request.
      labels: Labels of the request, which are set as far as they are known.
    """
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


def _make_response(name, prediction, wanted):
  response = predict_pb2.PredictResponse()
  response.model_spec.name = name
  response.model_spec.version.value = prediction.version
  response.model_spec.signature_name = prediction.signature
  for key in wanted:
    response.outputs[key].CopyFrom(requests.to_proto(prediction.outputs[key]))
  return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
  """GetModelStatus.

  Args:
    models: Models of the server.
  """

  def __init__(self, models: models_lib.Models):
    self._models = models

  async def GetModelStatus(  # noqa: N802
    self,
    request: get_model_status_pb2.GetModelStatusRequest,
    num_bytes: int,
    labels: metrics_lib.Labels,
  ) -> get_model_status_pb2.GetModelStatusResponse:
    """Answers a `GetModelStatusRequest`.

    Args:
      request: The request.
      num_bytes: Bytes of the request.
      labels: Labels of the request, which are set as far as they are known.
    """
    del num_bytes
    spec = request.model_spec
    response = self._models.status(spec.name, _number(spec))
    labels.model_name = spec.name
    return response


class Interceptor(grpc.aio.ServerInterceptor):
  """Wraps the methods above: parses, counts, and answers errors.

  Methods that a service does not have are UNIMPLEMENTED, and a request that
  does not parse is INVALID_ARGUMENT.

  Args:
    metrics: Metrics of the server.
  """

  def __init__(self, metrics: metrics_lib.Metrics):
    self._metrics = metrics
    self._num_running = 0
    self._is_refusing = False

  @contextlib.contextmanager
  def _running(self):
    self._num_running += 1
    try:
      yield
    finally:
      self._num_running -= 1

  def refuse(self) -> None:
    """Answers UNAVAILABLE to every later request."""
    self._is_refusing = True

  async def wait_until_idle(self) -> None:
    """Waits until no request runs."""
    while self._num_running:
      await asyncio.sleep(0.02)

  async def intercept_service(
    self,
    continuation: Callable[
      [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]
    ],
    handler_call_details: grpc.HandlerCallDetails,
  ) -> grpc.RpcMethodHandler:
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
      with self._running(), self._metrics.request(method, 'GRPC') as labels:
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
        except Exception as e:  # noqa: BLE001, the server continues
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
      f'that are not such a message: {e}'
    ) from e
