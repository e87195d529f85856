"""Asks a server of exported models: ours, or a stock `tensorflow_model_server`.

    from vatt_tf import client
    with client.GrpcClient('localhost:8500') as vatt:
      found = vatt.embed_text(['a dog barks at the door'])
      found['video_text_embedding']  # (1, 256) float32, of unit length

`RestClient('http://localhost:8501')` has the same methods. Importing this
takes numpy and grpc alone, and a `RestClient` needs no more. A `GrpcClient`
imports TensorFlow when it is made, since the messages come with that.
"""

import base64
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

# Types that have another name in messages than in numpy.
_TYPES = {'float32': 'DT_FLOAT', 'float64': 'DT_DOUBLE'}


class ServerError(Exception):
  """What a server answered instead of a result, or that it did not answer.

  Args:
    code: `grpc.StatusCode`; of REST the one that the HTTP code stands for.
    message: string.

  Attributes:
    code: as given.
  """

  def __init__(self, code, message):
    super().__init__(f'{code.name}: {message}')
    self.code = code


class _Client:
  """What is asked; subclasses say how."""

  def embed_video(self, frames):
    """Embeds clips.

    Args:
      frames: (B, T, H, W, 3) uint8 array of RGB frames of any size; or B lists
        of JPEG images (bytes), T each.

    Returns:
      Dictionary of (B, D) float32 arrays: `video_audio_embedding`,
      `video_text_embedding` (those that the model has) and `feature`.

    Raises:
      ServerError: it was not answered.
    """
    if isinstance(frames, np.ndarray) and frames.dtype == np.uint8:
      return self.predict('embed_video', frames=frames)
    return self.predict('embed_video_jpeg', frames=frames)

  def embed_audio(self, waveform, sample_rate):
    """Embeds sounds.

    Args:
      waveform: (B, S) float array, mono, in [-1, 1].
      sample_rate: int, samples a second, or (B,) of them.

    Returns:
      Dictionary of (B, D) float32 arrays: `video_audio_embedding`,
      `audio_text_embedding` (those that the model has) and `feature`.

    Raises:
      ServerError: it was not answered.
    """
    waveform = np.asarray(waveform, np.float32)
    rates = np.broadcast_to(np.asarray(sample_rate, np.int32), len(waveform))
    return self.predict('embed_audio', waveform=waveform, sample_rate=rates)

  def embed_text(self, texts):
    """Embeds texts.

    Args:
      texts: B strings.

    Returns:
      Dictionary of (B, D) float32 arrays: `video_text_embedding` and `feature`.

    Raises:
      ServerError: it was not answered.
    """
    return self.predict('embed_text', text=[text.encode() for text in texts])

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()


def _array(value):
  """An array; of bytes one of objects, which keeps trailing zeros."""
  if isinstance(value, np.ndarray) and value.dtype.kind != 'S':
    return value
  first = value
  while isinstance(first, (list, tuple, np.ndarray)) and len(first):
    first = first[0]
  if not isinstance(first, bytes):
    return np.array(value)
  array = np.array(value, object)
  if not isinstance(array.flat[0], bytes):
    raise ValueError(
      'The lists of bytes must have one length. Received: '
      f'{[len(each) for each in value]}'
    )
  return array


class GrpcClient(_Client):
  """Asks over gRPC, for which arrays cost little.

  Args:
    target: `host:port`.
    model_name: string.
    version: int, or None for the newest.
    timeout: seconds that an answer may take.
    ca_certificate: path of a PEM file, for a server with TLS: the certificate
      that signed the server's; or None, no TLS.
  """

  def __init__(
    self,
    target='localhost:8500',
    model_name='vatt',
    version=None,
    timeout=60.0,
    ca_certificate=None,
  ):
    # All of TensorFlow comes with its messages.
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

  def close(self):
    """Closes the connection."""
    self._channel.close()

  def predict(self, signature, **inputs):
    """Computes any signature.

    Args:
      signature: its name, such as `classify_video`.
      **inputs: arrays, or nested lists; strings are bytes.

    Returns:
      Dictionary of arrays, of the types of the outputs.

    Raises:
      ServerError: it was not answered.
    """
    request = self._predict.PredictRequest(model_spec=self._spec)
    request.model_spec.signature_name = signature
    for name, value in inputs.items():
      request.inputs[name].CopyFrom(self._to_proto(_array(value)))
    response = self._call(self._predictions.Predict, request)
    return {
      key: self._make_ndarray(each) for key, each in response.outputs.items()
    }

  def metadata(self):
    """The inputs and outputs of the signatures, by their names.

    Returns:
      Dictionary of `SignatureDef`.

    Raises:
      ServerError: it was not answered.
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

  def status(self):
    """The states of the versions, such as `{3: 'AVAILABLE'}`.

    Raises:
      ServerError: it was not answered.
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
  """Asks over REST.

  Args:
    url: of the server.
    model_name: string.
    version: int, or None for the newest.
    timeout: seconds that an answer may take.
    ca_certificate: path of a PEM file, for a server with TLS: the certificate
      that signed the server's; or None, those of the system.
  """

  def __init__(
    self,
    url='http://localhost:8501',
    model_name='vatt',
    version=None,
    timeout=60.0,
    ca_certificate=None,
  ):
    self._url = f'{url.rstrip("/")}/v1/models/{model_name}'
    if version is not None:
      self._url += f'/versions/{version}'
    self._timeout = timeout
    self._context = ssl.create_default_context(cafile=ca_certificate)

  def close(self):
    """Does nothing: each request has a connection of its own."""

  def predict(self, signature, **inputs):
    """Computes any signature.

    Args:
      signature: its name, such as `classify_video`.
      **inputs: arrays, or nested lists; strings are bytes.

    Returns:
      Dictionary of arrays: JSON knows no types, so that integers are int64, and
      other numbers float32.

    Raises:
      ServerError: it was not answered.
      ValueError: an output holds no numbers.
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

  def metadata(self):
    """The inputs and outputs of the signatures, by their names.

    Returns:
      Dictionary of dictionaries, as `SignatureDef` has them.

    Raises:
      ServerError: it was not answered.
    """
    found = self._ask('/metadata')['metadata']['signature_def']
    return found['signature_def']

  def status(self):
    """The states of the versions, such as `{3: 'AVAILABLE'}`.

    Raises:
      ServerError: it was not answered.
    """
    found = self._ask('')['model_version_status']
    return {int(each['version']): each['state'] for each in found}

  def _only_output(self, signature):
    """The name of the one output, which REST leaves out."""
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
  """Nested lists of numbers as an array."""
  array = np.array(value)
  if array.dtype.kind not in 'biuf':
    raise ValueError(
      f'The output `{name}` must hold numbers. Received: {array.dtype}. A '
      '`GrpcClient` knows all types.'
    )
  return array.astype(np.float32) if array.dtype.kind == 'f' else array


def _to_json(value):
  """Nested lists with bytes as base64."""
  if isinstance(value, list):
    return [_to_json(item) for item in value] if _has_bytes(value) else value
  return {'b64': base64.b64encode(value).decode()}


def _has_bytes(value):
  while isinstance(value, list) and value:
    value = value[0]
  return isinstance(value, bytes)


def _error(body):
  """The message of an error's body."""
  try:
    return json.loads(body)['error']
  except (ValueError, KeyError, TypeError):
    return body.decode(errors='replace')


def write_protoset(path):
  """Writes what `grpcurl -protoset` needs to ask a server over gRPC.

  Args:
    path: of the file, a serialized `FileDescriptorSet` of the methods that are
      served of `PredictionService` and `ModelService`, and of
      `grpc.health.v1.Health`.
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
      # After what it needs: the order of such files.
      descriptor.CopyToProto(files.file.add())

  add(health_pb2.DESCRIPTOR)
  # The modules of the services cannot be imported with a protobuf of today.
  for service, methods in {
    'PredictionService': {
      'Predict': predict_pb2,
      'GetModelMetadata': get_model_metadata_pb2,
    },
    'ModelService': {'GetModelStatus': get_model_status_pb2},
  }.items():
    served = descriptor_pb2.FileDescriptorProto(
      name=f'{service}.proto', package='tensorflow.serving', syntax='proto3'
    )
    served.service.add(name=service)
    for method, module in methods.items():
      add(module.DESCRIPTOR)
      served.dependency.append(module.DESCRIPTOR.name)
      served.service[0].method.add(
        name=method,
        input_type=f'.tensorflow.serving.{method}Request',
        output_type=f'.tensorflow.serving.{method}Response',
      )
    files.file.append(served)
  with open(path, 'wb') as file:
    file.write(files.SerializeToString())
