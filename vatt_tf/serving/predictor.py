"""What the gRPC and the REST services share: a request becomes an answer."""

import asyncio
import dataclasses

import grpc
import numpy as np

from vatt_tf.serving import batching, errors, models, offload, requests


@dataclasses.dataclass(frozen=True)
class _Key:
  """Requests of equal keys can be merged."""

  version: models.Version
  signature: str
  rows: tuple  # names and shapes of a row of each input


@dataclasses.dataclass(frozen=True)
class Prediction:
  """An answer.

  Args:
    version: int, which version of the model gave it.
    signature: string.
    outputs: dictionary of arrays (rows, ...).
  """

  version: int
  signature: str
  outputs: dict[str, np.ndarray]


class Predictor:
  """Validates requests and hands them to the batcher.

  Args:
    served: `models.Models`.
    parameters: `batching.Parameters`.
    figures: `metrics.Metrics`.
  """

  def __init__(self, served, parameters, figures):
    self._models = served
    self._figures = figures
    self._batcher = batching.Batcher(
      _compute, parameters, on_batch=self._observe
    )
    figures.watch_queue(lambda: self._batcher.num_waiting)

  def _observe(self, key, num_rows):
    self._figures.observe_batch(key.version.model_name, key.signature, num_rows)

  def close(self):
    """Computes what waits, and takes nothing more."""
    self._batcher.close()

  async def predict(self, name, number, signature, parse, num_bytes, labels):
    """Answers a request.

    Args:
      name: of the model.
      number: of its version, or None for the newest.
      signature: name; empty for the default.
      parse: function of the signature's `specs` (see `models.Version`) that
        returns a dictionary of arrays.
      num_bytes: of the request: a large one is parsed in a thread.
      labels: `metrics.Labels`, which gets what is known.

    Returns:
      `Prediction`.

    Raises:
      errors.StatusError: whatever is wrong with the request.
    """
    signature = signature or models.DEFAULT_SIGNATURE
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
