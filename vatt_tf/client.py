"""Clients of a server of exported models, ours or `tensorflow_model_server`.

    from vatt_tf import client
    with client.GrpcClient('localhost:8500') as vatt:
      embeddings = vatt.embed_text(['a dog barks at the door'])
      embeddings['video_text_embedding']  # (1, 256) float32, of unit length

`RestClient('http://localhost:8501')` has the same methods. Importing this
needs numpy and grpc alone, as does a `RestClient`. A `GrpcClient` imports
TensorFlow when it is created, since TensorFlow contains the messages.
"""

import base64
from collections.abc import Sequence
import http.client
import json
import ssl
import urllib.error
import urllib.request

import grpc
import numpy as np

_CODES = {
  400: grpc.StatusCode.INVALID_ARGUMENT,
  404: grpc.StatusCode.NOT_FOUND,
  413: grpc.StatusCode.RESOURCE_EXHAUSTED,
  429: grpc.StatusCode.RESOURCE_EXHAUSTED,
  500: grpc.StatusCode.INTERNAL,
  501: grpc.StatusCode.UNIMPLEMENTED,
  503: grpc.StatusCode.UNAVAILABLE,
  504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

# Types whose names in messages are not those of numpy.
_TYPES = {'float32': 'DT_FLOAT', 'float64': 'DT_DOUBLE'}


class ServerError(Exception):
  """A server answered with an error, or not at all.

  Attributes:
    code: Code of gRPC; for REST the one that the HTTP code stands for.

  Args:
    code: See the attribute.
    message: Text of the error.
  """

  def __init__(self, code: grpc.StatusCode, message: str):
    super().__init__(f'{code.name}: {message}')
    self.code = code


class _Client:
  """Requests of both clients; subclasses send them."""

  def embed_video(
    self, frames: np.ndarray | Sequence[Sequence[bytes]]
  ) -> dict[str, np.ndarray]:
    """Embeds clips.

    Args:
      frames: (B, T, H, W, 3) uint8: RGB frames of any size; or B lists of T
        JPEG images.

    Returns:
      (B, D) float32 arrays: `video_audio_embedding`, `video_text_embedding`
      (those that the model has) and `feature`.

    Raises:
      ServerError: The request failed.
    """
    if isinstance(frames, np.ndarray) and frames.dtype == np.uint8:
      return self.predict('embed_video', frames=frames)
    return self.predict('embed_video_jpeg', frames=frames)

  def embed_image(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Embeds images with the image network of the video tower.

    Args:
      images: (B, H, W, 3) uint8: RGB images of any size.

    Returns:
      (B, D) float32 arrays as of `embed_video`.

    Raises:
      ServerError: The request failed.
    """
    return self.predict('embed_image', image=np.asarray(images, np.uint8))

  def embed_audio(
    self, waveform: np.ndarray, sample_rate: int | Sequence[int]
  ) -> dict[str, np.ndarray]:
    """Embeds sounds.

    Args:
      waveform: (B, S) float: mono samples in [-1, 1].
      sample_rate: Samples per second, of all sounds or of each.

    Returns:
      (B, D) float32 arrays: `video_audio_embedding`, `audio_text_embedding`
      (those that the model has) and `feature`.

    Raises:
      ServerError: The request failed.
    """
    waveform = np.asarray(waveform, np.float32)
    rates = np.broadcast_to(np.asarray(sample_rate, np.int32), len(waveform))
    return self.predict('embed_audio', waveform=waveform, sample_rate=rates)

  def localize_audio(
    self,
    frames: np.ndarray | Sequence[Sequence[bytes]],
    waveform: np.ndarray,
    sample_rate: int | Sequence[int],
  ) -> dict[str, np.ndarray]:
    """Finds where in the frames of clips a sound is.

    The model must be trained with the local term (see docs/localization.md).

    Args:
      frames: As of `embed_video`.
      waveform: As of `embed_audio`.
      sample_rate: As of `embed_audio`.

    Returns:
      `map` (B, t, h, w) float32, cosines in [-1, 1] for each place of the
      model's grid; and `score` (B,), the mean over the steps of the highest.

    Raises:
      ServerError: The request failed.
    """
    waveform = np.asarray(waveform, np.float32)
    rates = np.broadcast_to(np.asarray(sample_rate, np.int32), len(waveform))
    sound = {'waveform': waveform, 'sample_rate': rates}
    if isinstance(frames, np.ndarray) and frames.dtype == np.uint8:
      return self.predict('localize_audio', frames=frames, **sound)
    return self.predict('localize_audio_jpeg', frames=frames, **sound)

  def detect(self, images: np.ndarray) -> dict[str, np.ndarray]:
    """Finds the objects in images.

    The model must be a detector (see docs/detection.md).

    Args:
      images: (B, H, W, 3) uint8: RGB images of any size.

    Returns:
      `boxes` (B, K, 4) float32, the left, upper, right and lower edges as
      shares of the image; `scores` (B, K) float32; `classes` (B, K) integers;
      and `num_detections` (B,). The best detections come first; behind the last
      one scores are 0 and classes -1.

    Raises:
      ServerError: The request failed.
    """
    return self.predict('detect', image=np.asarray(images, np.uint8))

  def embed_text(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Embeds texts.

    Args:
      texts: Texts, B of them.

    Returns:
      (B, D) float32 arrays: `video_text_embedding` and `feature`.

    Raises:
      ServerError: The request failed.
    """
    return self.predict('embed_text', text=[text.encode() for text in texts])

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()


def _array(value):
  """Returns an array; bytes are objects, which keeps trailing zeros."""
  if isinstance(value, np.ndarray) and value.dtype.kind not in 'SU':
    return value
  first = value
  while isinstance(first, (list, tuple, np.ndarray)) and len(first):
    first = first[0]
  if isinstance(first, str):
    texts = np.array(value, object)
    return np.vectorize(str.encode, otypes=[object])(texts)
  if not isinstance(first, bytes):
    return np.array(value)
  array = np.array(value, object)
  if not isinstance(array.flat[0], bytes):
    raise ValueError(
      'The lists of bytes must have the same length. Received: '
      f'{[len(each) for each in value]}'
    )
  return array


class GrpcClient(_Client):
  """Sends requests over gRPC, which is fast for arrays.

  Args:
    target: Address as `host:port`.
    model_name: Name of the model.
    version: Number of the version, or None for the newest.
    timeout: Seconds that an answer may take.
    ca_certificate: Path of a PEM file for a server with TLS: the certificate
      that signed the server's. None means no TLS.
  """

  def __init__(
    self,
    target: str = 'localhost:8500',
    model_name: str = 'vatt',
    version: int | None = None,
    timeout: float = 60.0,
    ca_certificate: str | None = None,
  ):
    # Importing the messages imports all of TensorFlow.
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2, types_pb2
    from tensorflow_serving.apis import (
      get_model_metadata_pb2,
      get_model_status_pb2,
      model_pb2,
      model_service_pb2_grpc,
      predict_pb2,
      prediction_service_pb2_grpc,
    )

    self._make_ndarray = tf.make_ndarray
    self._tensor = tensor_pb2.TensorProto
    self._types = types_pb2
    self._predict = predict_pb2
    self._metadata = get_model_metadata_pb2
    self._status = get_model_status_pb2
    self._timeout = timeout
    self._spec = model_pb2.ModelSpec(name=model_name)
    if version is not None:
      self._spec.version.value = version
    options = [
      ('grpc.max_receive_message_length', -1),
      ('grpc.max_send_message_length', -1),
    ]
    if ca_certificate is None:
      self._channel = grpc.insecure_channel(target, options)
    else:
      with open(ca_certificate, 'rb') as file:
        credentials = grpc.ssl_channel_credentials(file.read())
      self._channel = grpc.secure_channel(target, credentials, options)
    self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(
      self._channel
    )
    self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

  def close(self) -> None:
    """Closes the connection."""
    self._channel.close()

  def predict(
    self, signature: str, **inputs: np.ndarray | Sequence
  ) -> dict[str, np.ndarray]:
    """Computes any signature.

    Args:
      signature: Name of the signature, such as `classify_video`.
      **inputs: Arrays, or nested lists; strings are sent as UTF-8.

    Returns:
      Arrays by name, of the types of the outputs.

    Raises:
      ServerError: The request failed.
    """
    request = self._predict.PredictRequest(model_spec=self._spec)
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
      request.inputs[name].CopyFrom(self._to_proto(_array(value)))
    response = self._call(self._predictions.Predict, request)
    return {
      key: self._make_ndarray(each) for key, each in response.outputs.items()
    }

  def metadata(self) -> dict[str, object]:
    """Returns the inputs and outputs of the signatures.

    Returns:
      `SignatureDef` of each signature by name.

    Raises:
      ServerError: The request failed.
    """
    response = self._call(
      self._predictions.GetModelMetadata,
      self._metadata.GetModelMetadataRequest(
        model_spec=self._spec, metadata_field=['signature_def']
      ),
    )
    signatures = self._metadata.SignatureDefMap()
    response.metadata['signature_def'].Unpack(signatures)
    return dict(signatures.signature_def)

  def status(self) -> dict[int, str]:
    """Returns the states of the versions, such as `{3: 'AVAILABLE'}`.

    Raises:
      ServerError: The request failed.
    """
    response = self._call(
      self._models.GetModelStatus,
      self._status.GetModelStatusRequest(model_spec=self._spec),
    )
    name = self._status.ModelVersionStatus.State.Name
    return {
      each.version: name(each.state) for each in response.model_version_status
    }

  def _call(self, method, request):
    try:
      return method(request, timeout=self._timeout)
    except grpc.RpcError as e:
      raise ServerError(e.code(), e.details()) from e

  def _to_proto(self, array):
    proto = self._tensor()
    for size in array.shape:
      proto.tensor_shape.dim.add().size = size
    if array.dtype == object:
      proto.dtype = self._types.DT_STRING
      proto.string_val.extend(array.ravel().tolist())
    else:
      name = array.dtype.name
      name = _TYPES.get(name, f'DT_{name.upper()}')
      proto.dtype = self._types.DataType.Value(name)
      proto.tensor_content = array.tobytes()
    return proto


class RestClient(_Client):
  """Sends requests over REST.

  Args:
    url: URL of the server.
    model_name: Name of the model.
    version: Number of the version, or None for the newest.
    timeout: Seconds that an answer may take.
    ca_certificate: Path of a PEM file for a server with TLS: the certificate
      that signed the server's. None means those of the system.
  """

  def __init__(
    self,
    url: str = 'http://localhost:8501',
    model_name: str = 'vatt',
    version: int | None = None,
    timeout: float = 60.0,
    ca_certificate: str | None = None,
  ):
    self._url = f'{url.rstrip("/")}/v1/models/{model_name}'
    if version is not None:
      self._url += f'/versions/{version}'
    self._timeout = timeout
    self._context = ssl.create_default_context(cafile=ca_certificate)

  def close(self) -> None:
    """Does nothing: each request has a connection of its own."""

  def predict(
    self, signature: str, **inputs: np.ndarray | Sequence
  ) -> dict[str, np.ndarray]:
    """Computes any signature.

    Args:
      signature: Name of the signature, such as `classify_video`.
      **inputs: Arrays, or nested lists; strings are sent as UTF-8.

    Returns:
      Arrays by name. JSON has no types, so that integers are int64, and other
      numbers float32.

    Raises:
      ServerError: The request failed.
      ValueError: An output does not hold numbers.
    """
    body = {
      'signature_name': signature,
      'inputs': {
        name: _to_json(_array(value).tolist()) for name, value in inputs.items()
      },
    }
    outputs = self._ask(':predict', json.dumps(body).encode())['outputs']
    if not isinstance(outputs, dict):
      outputs = {self._only_output(signature): outputs}
    return {key: _from_json(key, each) for key, each in outputs.items()}

  def metadata(self) -> dict[str, dict]:
    """Returns the inputs and outputs of the signatures.

    Returns:
      Dictionary with the fields of `SignatureDef`, for each signature by name.

    Raises:
      ServerError: The request failed.
    """
    answer = self._ask('/metadata')['metadata']['signature_def']
    return answer['signature_def']

  def status(self) -> dict[int, str]:
    """Returns the states of the versions, such as `{3: 'AVAILABLE'}`.

    Raises:
      ServerError: The request failed.
    """
    versions = self._ask('')['model_version_status']
    return {int(each['version']): each['state'] for each in versions}

  def _only_output(self, signature):
    """Returns the name of a single output, which REST leaves out."""
    [name] = self.metadata()[signature]['outputs']
    return name

  def _ask(self, suffix, data=None):
    request = urllib.request.Request(
      self._url + suffix, data, {'Content-Type': 'application/json'}
    )
    context = self._context if self._url.startswith('https:') else None
    try:
      with urllib.request.urlopen(
        request, timeout=self._timeout, context=context
      ) as response:
        return json.load(response)
    except urllib.error.HTTPError as e:
      code = _CODES.get(e.code, grpc.StatusCode.UNKNOWN)
      raise ServerError(code, _error(e.read())) from e
    except TimeoutError as e:
      raise ServerError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        f'No answer from {self._url} within {self._timeout} s',
      ) from e
    except (OSError, http.client.HTTPException) as e:
      raise ServerError(
        grpc.StatusCode.UNAVAILABLE, f'No answer from {self._url}: {e}'
      ) from e


def _from_json(name, value):
  """Returns nested lists of numbers as an array."""
  array = np.array(value)
  if array.dtype.kind not in 'biuf':
    raise ValueError(
      f'The output `{name}` must hold numbers. Received: {array.dtype}. A '
      '`GrpcClient` supports all types.'
    )
  return array.astype(np.float32) if array.dtype.kind == 'f' else array


def _to_json(value):
  """Returns nested lists with bytes as base64."""
  if isinstance(value, list):
    return [_to_json(item) for item in value] if _has_bytes(value) else value
  return {'b64': base64.b64encode(value).decode()}


def _has_bytes(value):
  while isinstance(value, list) and value:
    value = value[0]
  return isinstance(value, bytes)


def _error(body):
  """Returns the message of an error's body."""
  try:
    return json.loads(body)['error']
  except (ValueError, KeyError, TypeError):
    return body.decode(errors='replace')


def write_protoset(path: str) -> None:
  """Writes the message definitions that `grpcurl -protoset` needs.

  The file is a serialized `FileDescriptorSet` of the served methods of
  `PredictionService` and `ModelService`, and of `grpc.health.v1.Health`.
  """
  from google.protobuf import descriptor_pb2
  from grpc_health.v1 import health_pb2
  from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
  )

  files = descriptor_pb2.FileDescriptorSet()

  def add(descriptor):
    if descriptor.name not in {file.name for file in files.file}:
      for dependency in descriptor.dependencies:
        add(dependency)
      # After its dependencies, as in any such file.
      descriptor.CopyToProto(files.file.add())

  add(health_pb2.DESCRIPTOR)
  # Current protobuf cannot import the modules of the services.
  for service, methods in {
    'PredictionService': {
      'Predict': predict_pb2,
      'GetModelMetadata': get_model_metadata_pb2,
    },
    'ModelService': {'GetModelStatus': get_model_status_pb2},
  }.items():
    definition = descriptor_pb2.FileDescriptorProto(
      name=f'{service}.proto', package='tensorflow.serving', syntax='proto3'
    )
    definition.service.add(name=service)
    for method, module in methods.items():
      add(module.DESCRIPTOR)
      definition.dependency.append(module.DESCRIPTOR.name)
      definition.service[0].method.add(
        name=method,
        input_type=f'.tensorflow.serving.{method}Request',
        output_type=f'.tensorflow.serving.{method}Response',
      )
    files.file.append(definition)
  with open(path, 'wb') as file:
    file.write(files.SerializeToString())
