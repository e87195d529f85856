"""Turns requests into answers, for both the gRPC and the REST service."""

import asyncio
from collections.abc import Callable
import dataclasses

import grpc
import numpy as np

from vatt_tf.serving import batching, errors, offload, requests
from vatt_tf.serving import metrics as metrics_lib
from vatt_tf.serving import models as models_lib


@dataclasses.dataclass(frozen=True)
class _Key:
  """Requests of equal keys can be merged."""

  version: models_lib.Version
  signature: str
  rows: tuple  # names and shapes of a row of each input


@dataclasses.dataclass(frozen=True)
class Prediction:
  """An answer.

  Attributes:
    version: Number of the version of the model that computed it.
    signature: Name of the signature.
    outputs: Arrays (rows, ...) by name.
  """

  version: int
  signature: str
  outputs: dict[str, np.ndarray]


class Predictor:
  """Validates requests and hands them to the batcher.

  Args:
    models: Models of the server.
    parameters: Parameters of the batching.
    metrics: Metrics of the server.
  """

  def __init__(
    self,
    models: models_lib.Models,
    parameters: batching.Parameters,
    metrics: metrics_lib.Metrics,
  ):
    self._models = models
    self._metrics = metrics
    self._batcher = batching.Batcher(
      _compute, parameters, on_batch=self._observe
    )
    metrics.watch_queue(lambda: self._batcher.num_waiting)

  def _observe(self, key, num_rows):
    self._metrics.observe_batch(key.version.model_name, key.signature, num_rows)

  def close(self) -> None:
    """Computes the waiting requests, and refuses others."""
    self._batcher.close()

  async def predict(
    self,
    name: str,
    number: int | None,
    signature: str,
    parse: Callable[[models_lib.Specs], batching.Arrays],
    num_bytes: int,
    labels: metrics_lib.Labels,
  ) -> Prediction:
    """Answers a request.

    Args:
      name: Name of the model.
      number: Number of its version, or None for the newest.
      signature: Name of the signature; '' for the default.
      parse: Function of the specs of the inputs that returns their arrays.
      num_bytes: Bytes of the request: a large one is parsed in a thread.
      labels: Labels of the request, which are set as far as they are known.

    Raises:
      errors.StatusError: The request has a fault.
    """
    signature = signature or models_lib.DEFAULT_SIGNATURE
    with self._models.use(name, number) as version:
      labels.model_name = name
      if signature not in version.specs:
        raise errors.StatusError(
          grpc.StatusCode.FAILED_PRECONDITION,
          f'Serving signature key "{signature}" not found. Signatures: '
          f'{", ".join(sorted(version.specs))}',
        )
      labels.signature_name = signature
      specs = version.specs[signature]
      inputs, num_rows = await offload.call(num_bytes, _read, parse, specs)
      shapes = tuple((name, inputs[name].shape[1:]) for name in sorted(inputs))
      key = _Key(version, signature, shapes)
      future = self._batcher.submit(key, inputs, num_rows)
      outputs = await asyncio.wrap_future(future)
      return Prediction(version.number, signature, outputs)


def _read(parse, specs):
  inputs = parse(specs)
  return inputs, requests.check(inputs, specs)


def _compute(key, inputs):
  return key.version.compute(key.signature, inputs)
