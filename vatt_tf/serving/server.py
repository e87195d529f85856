"""A server: models, the gRPC and the REST service, from start to drain."""

import asyncio
from collections.abc import Callable
import concurrent.futures
import contextlib
import dataclasses
import socket
import threading

from absl import logging
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
  model_service_pb2_grpc,
  prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2
import uvicorn

from vatt_tf.serving import (
  batching,
  metrics,
  models,
  prediction_service,
  predictor,
  rest,
)

_SERVICES = (
  '',  # the server as a whole
  'tensorflow.serving.PredictionService',
  'tensorflow.serving.ModelService',
)
# Requests sent before the end was announced may still be in transit.
_LATE_SECONDS = 0.5
# Time for the last bytes of answers, once all requests are answered.
_LAST_SECONDS = 0.5
_Status = health_pb2.HealthCheckResponse


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of a server.

  Attributes:
    host: Address to listen at.
    port: Port of gRPC, at most 65535; 0 is any free one.
    rest_port: Port of REST and metrics, at most 65535; 0 is any free one.
    parameters: Parameters of the batching.
    poll_seconds: Seconds between looks for new versions.
    ssl_cert: Path of a PEM file with the certificate (and those it is signed
      by); None means no TLS.
    ssl_key: Path of a PEM file with its private key, or None.
    max_message_bytes: Maximum size of a request.
    drain_seconds: Seconds that running requests have to finish when the server
      stops.

  Raises:
    ValueError: There is a certificate without a key, or the reverse.
  """

  host: str = '127.0.0.1'
  port: int = 0
  rest_port: int = 0
  parameters: batching.Parameters = batching.Parameters()
  poll_seconds: float = 1.0
  ssl_cert: str | None = None
  ssl_key: str | None = None
  max_message_bytes: int = 64 * 2**20
  drain_seconds: float = 60.0

  def __post_init__(self):
    if (self.ssl_cert is None) != (self.ssl_key is None):
      raise ValueError(
        '`ssl_cert` and `ssl_key` must be given together. Received: '
        f'ssl_cert={self.ssl_cert}, ssl_key={self.ssl_key}'
      )


class _RestServer(uvicorn.Server):
  """uvicorn, without its signal handlers."""

  @contextlib.contextmanager
  def capture_signals(self):
    yield


class _Health(health.aio.HealthServicer):
  """Health service that ends its watches when the server ends.

  They would never end by themselves, and cancelling them is logged as an error.
  """

  def __init__(self):
    super().__init__()
    self._watches = set()
    self._is_ending = False

  async def Watch(self, request, context):  # noqa: N802
    """Sends the status whenever it changes."""
    watch = asyncio.ensure_future(super().Watch(request, context))
    self._watches.add(watch)
    watch.add_done_callback(self._watches.discard)
    try:
      await watch
    except asyncio.CancelledError:
      if not self._is_ending:
        raise

  def end_watches(self):
    """Ends all watches."""
    self._is_ending = True
    for watch in self._watches:
      watch.cancel()


class Server:
  """Serves models until it is stopped.

  Attributes:
    port: Port of gRPC, once it has started.
    rest_port: Port of REST, once it has started.

  Args:
    config: Models to serve.
    options: Options of the server.
    on_end: Function that is called from a thread of its own when the server no
      longer serves, also if it fails.
  """

  def __init__(
    self,
    config: model_server_config_pb2.ModelServerConfig,
    options: Options,
    on_end: Callable[[], None] = lambda: None,
  ):
    self._options = options
    self._on_end = on_end
    self._error = None
    self._models = models.Models(config, options.poll_seconds)
    self._metrics = metrics.Metrics()
    self._predictor = None
    self._started = concurrent.futures.Future()
    self._thread = threading.Thread(target=self._run, name='serving')
    self._loop = None
    self._stopping = None
    self.port = None
    self.rest_port = None

  def start(self) -> None:
    """Loads the models and starts to listen.

    Raises:
      ValueError: A model cannot be served.
      OSError: A port is taken, or the certificate cannot be used.
    """
    self._models.start()
    self._predictor = predictor.Predictor(
      self._models, self._options.parameters, self._metrics
    )
    self._thread.start()
    try:
      self._started.result()
    except BaseException:
      self._models.close()
      self._predictor.close()
      raise

  def stop(self) -> None:
    """Refuses further requests, answers the others, and ends.

    Raises:
      RuntimeError: The server had ended by itself.
    """
    with contextlib.suppress(RuntimeError):  # the loop has ended
      self._loop.call_soon_threadsafe(self._stopping.set)
    self._thread.join()
    self._models.close()
    self._predictor.close()
    if self._error is not None:
      raise RuntimeError(
        f'The server ended by itself: {self._error!r}'
      ) from self._error

  def _run(self):
    try:
      asyncio.run(self._serve())
    except BaseException as e:  # noqa: BLE001, the waiting thread raises it
      if self._started.done():
        self._error = e
      else:
        self._started.set_exception(e)
    finally:
      self._on_end()

  async def _serve(self):
    self._loop = asyncio.get_running_loop()
    self._stopping = asyncio.Event()
    options = self._options
    rest_server, rest_socket = self._make_rest()
    with rest_socket:
      interceptor = prediction_service.Interceptor(self._metrics)
      grpc_server, health_servicer = self._make_grpc(interceptor)
      await grpc_server.start()
      serving = asyncio.create_task(rest_server.serve([rest_socket]))
      for name in _SERVICES:
        await health_servicer.set(name, _Status.SERVING)
      self._started.set_result(None)
      stopping = asyncio.create_task(self._stopping.wait())
      await asyncio.wait(
        [stopping, serving], return_when=asyncio.FIRST_COMPLETED
      )
      stopping.cancel()
      has_failed = serving.done()  # it was not told to end
      if has_failed:
        logging.error('REST is no longer served: the server ends.')
      logging.info('Draining.')
      await health_servicer.enter_graceful_shutdown()
      await asyncio.sleep(_LATE_SECONDS)
      interceptor.refuse()
      rest_server.should_exit = True
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(
          interceptor.wait_until_idle(), options.drain_seconds
        )
      health_servicer.end_watches()
      await grpc_server.stop(_LAST_SECONDS)
      await serving
      if has_failed:
        raise RuntimeError('REST is no longer served')

  def _make_grpc(self, interceptor):
    options = self._options
    server = grpc.aio.server(
      interceptors=[interceptor],
      options=[
        ('grpc.max_receive_message_length', options.max_message_bytes),
        ('grpc.max_send_message_length', -1),
        ('grpc.so_reuseport', 0),  # a port that is taken is an error
      ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
      prediction_service.PredictionService(
        self._predictor, self._models, options.max_message_bytes
      ),
      server,
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
      prediction_service.ModelService(self._models), server
    )
    health_servicer = _Health()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    address = join_address(options.host, options.port)
    try:
      if options.ssl_cert is None:
        self.port = server.add_insecure_port(address)
      else:
        pair = (_read(options.ssl_key), _read(options.ssl_cert))
        self.port = server.add_secure_port(
          address, grpc.ssl_server_credentials([pair])
        )
    except RuntimeError as e:
      raise OSError(f'Cannot listen at {address}: {e}') from e
    return server, health_servicer

  def _make_rest(self):
    options = self._options
    app = rest.Rest(
      self._predictor, self._models, self._metrics, options.max_message_bytes
    ).app
    config = uvicorn.Config(
      app,
      lifespan='off',
      log_config=None,
      access_log=False,
      server_header=False,
      timeout_graceful_shutdown=options.drain_seconds,
      ssl_certfile=options.ssl_cert,
      ssl_keyfile=options.ssl_key,
    )
    config.load()
    listening = _listen(options.host, options.rest_port, config.backlog)
    self.rest_port = listening.getsockname()[1]
    return _RestServer(config), listening


def join_address(host: str, port: int) -> str:
  """Returns `host:port`, with an IPv6 address in brackets."""
  return f'[{host}]:{port}' if ':' in host else f'{host}:{port}'


def _listen(host, port, backlog):
  """Returns a listening socket at a name or an IPv4 or IPv6 address."""
  try:
    family, _, _, _, where = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM
    )[0]
    return socket.create_server(where[:2], family=family, backlog=backlog)
  except OSError as e:
    raise OSError(f'Cannot listen at {join_address(host, port)}: {e}') from e


def _read(path):
  with open(path, 'rb') as file:
    return file.read()
