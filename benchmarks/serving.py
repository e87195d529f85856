"""Load on a server: throughput, latency, memory, and whether answers are right.

    python -m benchmarks.serving --saved_model=runs/quickstart/saved_model \\
        --signature=embed_text --clients=64 --seconds=60

It starts `vatt_tf.serve` on the newest version of the model, and sends it gRPC
requests from `--clients` clients, each as soon as it has its answer. Every
answer is compared with the output of the SavedModel when it is called directly
with only that request.
"""

import argparse
import asyncio
import collections
import dataclasses
import functools
import json
import os
import re
import sys
import time
import urllib.request

import grpc
import numpy as np
from prometheus_client import parser as prometheus
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
import tensorflow_text  # noqa: F401, registers operations of the model

from benchmarks import checks
from vatt_tf.core import file_utils
from vatt_tf.export import saved_model as model_files

_NUM_REQUESTS = 200
_WARM_UP_SECONDS = 3
_TOLERANCE = 1e-5
_MODEL_NAME = 'vatt'
_PREDICT = '/tensorflow.serving.PredictionService/Predict'
_RSS = 'process_resident_memory_bytes'
# Those of the captions of the sample media, and thus in their vocabulary.
_WORDS = (
  'a the red green blue yellow white circle square triangle star ring cross '
  'moves turns rises falls left right up down slowly fast over'
).split()


# Requests.


def newest_version(saved_model):
  """The folder of the newest version of a model."""
  numbers = model_files.find_versions(saved_model)
  if not numbers:
    raise ValueError(
      '`saved_model` must be a folder that export_saved_model wrote. Received: '
      f'{saved_model}, which has no version'
    )
  return os.path.join(saved_model, str(numbers[-1]))


def _example(path, signature):
  """The warm-up request of a signature."""
  for record in tf.data.TFRecordDataset(
    os.path.join(path, 'assets.extra', 'tf_serving_warmup_requests')
  ).as_numpy_iterator():
    log = prediction_log_pb2.PredictionLog.FromString(record)
    if log.predict_log.request.model_spec.signature_name == signature:
      return log.predict_log.request
  raise ValueError(f'{path} has no signature `{signature}`.')


def _vary(name, value, rng):
  """Another valid input of the shape of an example's."""
  if name == 'waveform':
    times = np.arange(value.shape[1]) / value.shape[1]
    waves = np.sin(2 * np.pi * np.outer(rng.uniform(20, 2000, 3), times))
    return (rng.uniform(0, 0.3, 3) @ waves)[None].astype(np.float32)
  if name == 'text':
    return np.array([' '.join(rng.choice(_WORDS, 8)).encode()], object)
  if name == 'frames':
    shape = value.shape
    if value.dtype == object:
      shape = (*shape, *tf.io.decode_jpeg(value.flat[0]).shape)
    coarse = rng.uniform(0, 255, [shape[1], 3, 3, 3])
    clip = tf.image.resize(coarse, shape[2:4], 'bicubic')
    clip = tf.cast(tf.clip_by_value(clip, 0, 255), tf.uint8)
    if value.dtype == object:
      return np.array([[tf.io.encode_jpeg(f).numpy() for f in clip]], object)
    return clip.numpy()[None]
  return value


def make_requests(path, signature):
  """Requests of one row, and what a SavedModel answers them.

  Args:
    path: folder of the SavedModel.
    signature: its name.

  Returns:
    List of serialized `PredictRequest`, list of dictionaries of arrays.
  """
  example = _example(path, signature)
  function = tf.saved_model.load(path).signatures[signature]
  rng = np.random.default_rng(0)
  requests, answers = [], []
  for _ in range(_NUM_REQUESTS):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = _MODEL_NAME
    request.model_spec.signature_name = signature
    inputs = {}
    for name, proto in example.inputs.items():
      value = _vary(name, tf.make_ndarray(proto), rng)
      request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
      inputs[name] = tf.constant(value)
    requests.append(request.SerializeToString())
    answers.append({k: v.numpy() for k, v in function(**inputs).items()})
  return requests, answers


# The server.


@dataclasses.dataclass
class Server:
  """A server in a process of its own.

  Args:
    process: `subprocess.Popen`.
    port: of gRPC.
    metrics_url: the page of its figures.
  """

  process: object
  port: int
  metrics_url: str

  def figures(self):
    """Its figures: a dictionary from names to the sums over all labels."""
    with urllib.request.urlopen(self.metrics_url) as page:
      text = page.read().decode()
    found = collections.Counter()
    for family in prometheus.text_string_to_metric_families(text):
      for sample in family.samples:
        found[sample.name] += sample.value
    return found

  def stop(self):
    """Asks it to end; returns its exit code."""
    self.process.terminate()
    return self.process.wait()


def start_server(saved_model, batching=True):
  """Starts `vatt_tf.serve`; returns a `Server` once it listens."""
  process = checks.start_module(
    'serve',
    '--port=0',
    '--rest_api_port=0',
    f'--model_name={_MODEL_NAME}',
    f'--model_base_path={saved_model}',
    f'--enable_batching={batching}',
  )
  text = ''
  for line in process.stdout:
    text += line
    found = re.search(r'gRPC: \S+:(\d+)(?s:.*)Metrics: (\S+)', text)
    if found:
      return Server(process, int(found[1]), found[2])
  raise RuntimeError(f'The server did not start:\n{text}')


# The load.


@dataclasses.dataclass
class Load:
  """What clients saw.

  Args:
    latencies: seconds of each answer.
    errors: `(seconds at which it was sent, text)` of what was not answered.
    num_wrong: answers that are not what was expected.
    largest_error: of all numbers in all answers.
    versions: how many answers each version of the model gave.
    seconds: for which it lasted.
  """

  latencies: list = dataclasses.field(default_factory=list)
  errors: list = dataclasses.field(default_factory=list)
  num_wrong: int = 0
  largest_error: float = 0.0
  versions: collections.Counter = dataclasses.field(
    default_factory=collections.Counter
  )
  seconds: float = 0.0

  def add(self, seconds, response, expected):
    """Notes an answer."""
    self.latencies.append(seconds)
    self.versions[response.model_spec.version.value] += 1
    error = max(
      np.abs(np.array(response.outputs[key].float_val) - value.ravel()).max()
      for key, value in expected.items()
    )
    self.largest_error = max(self.largest_error, float(error))
    self.num_wrong += not error <= _TOLERANCE

  def summary(self):
    """Its figures, as JSON has them."""
    latencies = np.array(self.latencies) * 1e3
    return {
      'requests_per_second': len(latencies) / self.seconds,
      'latency_p50_ms': float(np.percentile(latencies, 50)),
      'latency_p99_ms': float(np.percentile(latencies, 99)),
      'answers': len(latencies),
      'errors': len(self.errors),
      'wrong_answers': self.num_wrong,
      'largest_error': self.largest_error,
    }


async def _client(stub, requests, answers, end, rng, load):
  while (start := time.perf_counter()) < end:
    i = rng.integers(len(requests))
    try:
      response = await stub(requests[i], timeout=60)
    except grpc.aio.AioRpcError as e:
      load.errors.append((start, f'{e.code().name}: {e.details()}'))
      await asyncio.sleep(0.05)
    else:
      load.add(time.perf_counter() - start, response, answers[i])


async def _run(port, requests, answers, num_clients, seconds, events):
  load = Load()
  async with grpc.aio.insecure_channel(f'localhost:{port}') as channel:
    stub = channel.unary_unary(
      _PREDICT, response_deserializer=predict_pb2.PredictResponse.FromString
    )
    start = time.perf_counter()
    loop = asyncio.get_running_loop()
    for delay, function in events:
      loop.call_later(delay, function)
    await asyncio.gather(
      *(
        _client(
          stub,
          requests,
          answers,
          start + seconds,
          np.random.default_rng(i),
          load,
        )
        for i in range(num_clients)
      )
    )
    load.seconds = time.perf_counter() - start
  return load


def run_load(port, requests, answers, num_clients, seconds, events=()):
  """Asks a server for a while.

  Args:
    port: of gRPC.
    requests: of `make_requests`.
    answers: of `make_requests`.
    num_clients: Number of requests that run at a time.
    seconds: Duration in seconds.
    events: list of `(seconds, function)`, called after these seconds.

  Returns:
    `Load`.
  """
  return asyncio.run(
    _run(port, requests, answers, num_clients, seconds, events)
  )


def measure(saved_model, signature, num_clients, seconds, batching=True):
  """Starts a server, asks it for a while, and ends it.

  Args:
    saved_model: folder of the model.
    signature: its name.
    num_clients: Number of requests that run at a time.
    seconds: Duration in seconds.
    batching: whether requests are merged.

  Returns:
    Dictionary of figures.
  """
  requests, answers = make_requests(newest_version(saved_model), signature)
  server = start_server(saved_model, batching)
  load = functools.partial(
    run_load, server.port, requests, answers, num_clients
  )
  try:
    load(_WARM_UP_SECONDS)
    before = server.figures()
    found = load(seconds)
    after = server.figures()
  finally:
    code = server.stop()
  name = ':tensorflow:serving:batching_session:processed_batch_size'
  batches, rows = (
    after[f'{name}_{part}'] - before[f'{name}_{part}']
    for part in ('count', 'sum')
  )
  return {
    'signature': signature,
    'clients': num_clients,
    'seconds': seconds,
    'batching': batching,
    **found.summary(),
    'rows_per_batch': rows / batches,
    'server_rss_mb_at_start': before[_RSS] / 1e6,
    'server_rss_mb_at_end': after[_RSS] / 1e6,
    'server_exit_code': code,
    'first_errors': [text for _, text in found.errors[:5]],
  }


def main():
  """Parses the command line, measures and prints."""
  parser = argparse.ArgumentParser(description='Load on a server.')
  parser.add_argument('--saved_model', required=True, help='of a model')
  parser.add_argument('--signature', default='embed_text')
  parser.add_argument('--clients', type=int, default=64)
  parser.add_argument('--seconds', type=float, default=60)
  parser.add_argument(
    '--batching', action=argparse.BooleanOptionalAction, default=True
  )
  parser.add_argument('--output', help='a JSON file to write')
  arguments = parser.parse_args()
  found = measure(
    arguments.saved_model,
    arguments.signature,
    arguments.clients,
    arguments.seconds,
    arguments.batching,
  )
  for name, value in found.items():
    print(f'{name}: {value}')
  if arguments.output:
    file_utils.write_text(arguments.output, json.dumps(found, indent=2) + '\n')
  return int(found['errors'] > 0 or found['wrong_answers'] > 0)


if __name__ == '__main__':
  sys.exit(main())
