"""Metrics of a server, which Prometheus reads.

The names follow TensorFlow Serving's; prometheus_client adds `_total` to those
of counters.
"""

from collections.abc import Callable, Iterator
import contextlib
import time

import prometheus_client

PATH = '/monitoring/prometheus/metrics'

_PREFIX = ':tensorflow:serving:'
_LATENCIES = [1e3 * 2**i for i in range(16)]  # 1 ms to 33 s, in µs
_SIZES = [2**i for i in range(11)]


class Metrics:
  """Counters and histograms, in a registry of their own.

  Attributes:
    registry: Registry of these metrics alone.
  """

  def __init__(self):
    self.registry = prometheus_client.CollectorRegistry()
    prometheus_client.ProcessCollector(registry=self.registry)
    labels = ['model_name', 'signature_name', 'method', 'api']
    self._requests = prometheus_client.Counter(
      f'{_PREFIX}request_count',
      'Requests that were answered, by the status of the answer.',
      [*labels, 'status'],
      registry=self.registry,
    )
    self._latency = prometheus_client.Histogram(
      f'{_PREFIX}request_latency',
      'From a request to its answer, in microseconds.',
      labels,
      buckets=_LATENCIES,
      registry=self.registry,
    )
    self._batch_size = prometheus_client.Histogram(
      f'{_PREFIX}batching_session:processed_batch_size',
      'Rows of the batches that were computed.',
      ['model_name', 'signature_name'],
      buckets=_SIZES,
      registry=self.registry,
    )
    self._queue = prometheus_client.Gauge(
      f'{_PREFIX}batching_session:queued_rows',
      'Rows that wait to be computed.',
      registry=self.registry,
    )

  def watch_queue(self, function: Callable[[], float]) -> None:
    """Sets the function that returns the number of waiting rows."""
    self._queue.set_function(function)

  def observe_batch(
    self, model_name: str, signature: str, num_rows: int
  ) -> None:
    """Counts a computed batch.

    Args:
      model_name: Name of the model.
      signature: Name of the signature.
      num_rows: Rows of the batch.
    """
    self._batch_size.labels(model_name, signature).observe(num_rows)

  @contextlib.contextmanager
  def request(self, method: str, api: str) -> Iterator['Labels']:
    """Counts a request and its time.

    Args:
      method: Name of the method, such as `Predict`.
      api: `GRPC` or `REST`.

    Yields:
      Labels that the caller sets as far as it knows. They must not hold names
      that clients invent, each of which would be kept forever.
    """
    labels = Labels()
    start = time.perf_counter()
    try:
      yield labels
    finally:
      values = (labels.model_name, labels.signature_name, method, api)
      seconds = time.perf_counter() - start
      self._latency.labels(*values).observe(1e6 * seconds)
      self._requests.labels(*values, labels.status).inc()

  def text(self) -> bytes:
    """Returns all metrics in Prometheus' text format."""
    return prometheus_client.generate_latest(self.registry)


class Labels:
  """Labels of a request."""

  model_name = ''
  signature_name = ''
  status = 'CANCELLED'
