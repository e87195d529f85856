"""Makes this an input machine: `python -m vatt_tf.serve_input --port=5050`.

It reads records and prepares batches for runs that name its address:

    python -m vatt_tf.train --gin_file=gin/pretrain_ma_medium.gin \\
        --gin_param="DATA_SERVICE='grpc://HOST:5050'"

Trainers must reach the port and the one after it. Records must lie under the
same paths here as on the trainer. See docs/input_pipeline.md.
"""

from collections.abc import Sequence
import socket

from absl import app, flags
import tensorflow as tf

from vatt_tf.core import command_line

# The import of tokenizers registers their ops.
from vatt_tf.input_pipeline import encoded_audio, service, tokenizers  # noqa: F401

_PORT = flags.DEFINE_integer(
  'port', 5050, 'Port to listen at; the worker listens at the one after it.'
)
_HOST = flags.DEFINE_string(
  'host',
  None,
  'Name or address of this machine by which trainers reach it. '
  'By default its host name.',
)


def start(
  host: str, port: int
) -> tuple[
  tf.data.experimental.service.DispatchServer,
  tf.data.experimental.service.WorkerServer,
]:
  """Starts the dispatcher and the worker of an input machine.

  Args:
    host: Name by which trainers reach this machine.
    port: Port of the dispatcher; that of the worker is the next.

  Returns:
    Dispatcher and worker, which run until they are garbage-collected.

  Raises:
    ValueError: A port cannot be used.
  """
  if not 0 < port < 65535:
    raise ValueError(f'`port` must be in [1, 65534]. Received: port={port}')
  lib = tf.data.experimental.service
  for number in (port, port + 1):
    with socket.socket() as probe:
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try:
        probe.bind(('', number))
      except OSError as e:
        raise ValueError(
          f'Port {number} cannot be used ({e}). Give another --port; it and '
          f'the one after it must be free. Received: port={port}'
        ) from e
  encoded_audio.register()
  dispatcher = lib.DispatchServer(lib.DispatcherConfig(port=port))
  worker = lib.WorkerServer(
    lib.WorkerConfig(
      dispatcher_address=f'localhost:{port}',
      worker_address=f'{host}:{port + 1}',
      port=port + 1,
    )
  )
  return dispatcher, worker


def main(argv: Sequence[str]) -> None:
  """Parses the flags and serves until it is stopped."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  stopped = command_line.StopSignal()
  host = _HOST.value or socket.gethostname()
  with command_line.exit_on_error():
    servers = start(host, _PORT.value)
  print(
    f'Makes batches for runs with DATA_SERVICE='
    f"'{service.PROTOCOL}://{host}:{_PORT.value}'; Ctrl-C or SIGTERM ends it.",
    flush=True,
  )
  stopped.wait()
  print('Stopped.')
  del servers


if __name__ == '__main__':
  command_line.run(main)
