"""Small models for the tests of serving, and how they are asked."""

import os
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
  predict_pb2,
  prediction_log_pb2,
  prediction_service_pb2_grpc,
)

from tests import tiny_vatt
from vatt_tf.export import saved_model
from vatt_tf.input_pipeline import pipeline
from vatt_tf.serving import batching, models, server

_OUTPUTS = {
  'embed_video': {
    'feature': 'video_feature',
    'video_audio_embedding': 'video_va',
    'video_text_embedding': 'video_vt',
  },
  'embed_audio': {
    'feature': 'audio_feature',
    'video_audio_embedding': 'audio_va',
    'audio_text_embedding': 'audio_vt',
  },
  'embed_text': {'feature': 'text_feature', 'video_text_embedding': 'text_vt'},
}


class Vatt:
  """A tiny VATT with all signatures, inputs for it, and its evaluation.

  Attributes:
    inputs: dictionary from signatures to dictionaries of arrays of 8 rows: the
      validation clips of the sample records.
    expected: dictionary from signatures to what evaluation gives.
  """

  def __init__(self):
    model = tiny_vatt.make()
    self._served = tiny_vatt.served(model)
    dataset = pipeline.make_dataset(
      str(tiny_vatt.RECORDS / 'validation-*'),
      8,
      is_training=False,
      video=tiny_vatt.VIDEO,
      audio=tiny_vatt.AUDIO,
      text=tiny_vatt.TEXT,
    )
    found = model(next(iter(dataset)))
    self.expected = {
      name: {
        key: _finish(found[source], name, key)
        for key, source in outputs.items()
      }
      for name, outputs in _OUTPUTS.items()
    }
    for name in ('embed_video_jpeg', 'serving_default'):
      self.expected[name] = self.expected['embed_video']
    clips = tiny_vatt.clips()
    raw = tiny_vatt.frames()
    self.inputs = {
      'embed_video': {'frames': raw},
      'serving_default': {'frames': raw},
      'embed_video_jpeg': {
        'frames': np.array([clip.frames for clip in clips], object)
      },
      'embed_audio': {
        'waveform': np.stack([clip.waveform for clip in clips]),
        'sample_rate': np.full([8], 16000, np.int32),
      },
      'embed_text': {
        'text': np.array([c.captions[0].text.encode() for c in clips], object)
      },
    }

  def write(self, base_path):
    """Writes the next version."""
    return saved_model.write(self._served, base_path, 'runs/x/ckpt-7', '')


def _finish(value, name, key):
  value = value[:, 0] if name == 'embed_text' else value
  if key != 'feature':
    value = tf.math.l2_normalize(value, -1)
  return value.numpy()


class _Plain(tf.Module):
  def __init__(self, value):
    super().__init__()
    self.value = tf.Variable(value)

  @tf.function(input_signature=[tf.TensorSpec([None, None], name='x')])
  def add(self, x):
    """Adds a number that is the version's own."""
    return {'sum': x + self.value}

  @tf.function(input_signature=[tf.TensorSpec([None], tf.float64, name='x')])
  def sleep(self, x):
    """Lasts for as many seconds as the first row says."""
    end = tf.timestamp() + x[0]
    tf.while_loop(lambda _: tf.timestamp() < end, lambda i: i + 1, [0])
    value = tf.cast(x, tf.float32) + self.value
    return {'value': value, 'twice': 2.0 * value}

  @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name='x')])
  def types(self, x):
    """Outputs that are not float32."""
    return {
      'int64': x + 1,
      'float64': tf.cast(x, tf.float64) + 0.25,
      'bool': x > 2,
    }

  @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name='x')])
  def text(self, x):
    """The bytes that it was given."""
    return {'text': tf.identity(x)}


def write_plain(base_path, version, value=None, warmup=None):
  """Writes a SavedModel that adds a number to what it is given.

  Args:
    base_path: folder of the model.
    version: int.
    value: the number; by default the version.
    warmup: a value for a warm-up request, or None for no such file.
  """
  module = _Plain(float(version if value is None else value))
  path = os.path.join(base_path, str(version))
  temporary = os.path.join(base_path, f'.{version}.part')
  tf.saved_model.save(
    module,
    temporary,
    signatures={
      'serving_default': module.add,
      'sleep': module.sleep,
      'types': module.types,
      'text': module.text,
    },
  )
  if warmup is not None:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(
      make_request('serving_default', {'x': warmup}, name='plain')
    )
    extra = os.path.join(temporary, 'assets.extra')
    os.makedirs(extra)
    with tf.io.TFRecordWriter(
      os.path.join(extra, 'tf_serving_warmup_requests')
    ) as writer:
      writer.write(log.SerializeToString())
  os.rename(temporary, path)


def start(test, base_path, name='vatt', config=None, **options):
  """Starts a server that ends with the test (or test class).

  Args:
    test: has `addCleanup`, or `addClassCleanup` if it is a class.
    base_path: folder of the model.
    name: of the model.
    config: `ModelServerConfig`, or None for `base_path`.
    **options: of `server.Options`.

  Returns:
    `server.Server`.
  """
  options.setdefault('parameters', batching.Parameters())
  started = server.Server(
    config or models.model_config(name, base_path), server.Options(**options)
  )
  started.start()
  add = test.addClassCleanup if isinstance(test, type) else test.addCleanup
  add(started.stop)
  return started


def stub(test, port):
  """A `PredictionServiceStub`, closed with the test."""
  return prediction_service_pb2_grpc.PredictionServiceStub(channel(test, port))


def channel(test, port):
  """A gRPC channel, closed with the test."""
  opened = grpc.insecure_channel(f'localhost:{port}')
  add = test.addClassCleanup if isinstance(test, type) else test.addCleanup
  add(opened.close)
  return opened


def make_request(signature, inputs, name='vatt', version=None):
  """A `PredictRequest` as TensorFlow makes it."""
  request = predict_pb2.PredictRequest()
  request.model_spec.name = name
  request.model_spec.signature_name = signature
  if version is not None:
    request.model_spec.version.value = version
  for key, value in inputs.items():
    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
  return request


def outputs(response):
  """The arrays of a `PredictResponse`."""
  return {key: tf.make_ndarray(each) for key, each in response.outputs.items()}


def wait_until(condition, seconds=20.0):
  """Waits until a function returns something true; returns that."""
  end = time.monotonic() + seconds
  while True:
    found = condition()
    if found:
      return found
    if time.monotonic() > end:
      raise TimeoutError(f'Not so after {seconds} s.')
    time.sleep(0.02)
