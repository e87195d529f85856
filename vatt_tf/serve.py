"""Serves exported models: `python -m vatt_tf.serve`.

    python -m vatt_tf.serve --model_base_path=runs/quickstart/saved_model

answers the gRPC API of TensorFlow Serving at port 8500 and its REST API at port
8501, where no `tensorflow_model_server` is installed. The flags have the same
names. Only this server has --host, --ssl_cert, --ssl_key, --max_message_bytes
and --drain_seconds; and --enable_batching is on by default. A new version in
the folder is loaded while the server runs. SIGTERM and Ctrl-C end it, after it
has answered all received requests. See docs/serving.md.
"""

from collections.abc import Sequence
import dataclasses
import sys

from absl import app, flags, logging

from vatt_tf.core import command_line
from vatt_tf.serving import batching, metrics, models, server

_MAX_PORT = 65535

_HOST = flags.DEFINE_string(
  'host',
  '127.0.0.1',
  'Address of IPv4 or IPv6, or name, to listen at; 0.0.0.0 is every network.',
)
_PORT = flags.DEFINE_integer(
  'port',
  8500,
  'Port of gRPC; 0 takes any free one.',
  lower_bound=0,
  upper_bound=_MAX_PORT,
)
_REST_PORT = flags.DEFINE_integer(
  'rest_api_port',
  8501,
  'Port of REST and metrics; 0 takes any free one.',
  lower_bound=0,
  upper_bound=_MAX_PORT,
)
_NAME = flags.DEFINE_string(
  'model_name', 'vatt', 'With --model_base_path: the name of the model.'
)
_BASE_PATH = command_line.define_path(
  'model_base_path', None, 'Folder of a model, with a folder for each version.'
)
_CONFIG = command_line.define_path(
  'model_config_file',
  None,
  'Instead of --model_base_path: the models.config of one or several models.',
)
_POLL = flags.DEFINE_float(
  'file_system_poll_wait_seconds',
  1.0,
  'Seconds between looks for new versions; 0 looks once.',
  lower_bound=0.0,
)
_BATCHING = flags.DEFINE_bool(
  'enable_batching', True, 'Merge waiting requests into batches.'
)
_BATCHING_FILE = command_line.define_path(
  'batching_parameters_file',
  None,
  'The batching.config that export_saved_model writes beside the versions.',
)
_SSL_CERT = command_line.define_path(
  'ssl_cert', None, 'PEM file of a certificate; with --ssl_key, serves TLS.'
)
_SSL_KEY = command_line.define_path(
  'ssl_key', None, "PEM file of the certificate's private key."
)
_MAX_BYTES = flags.DEFINE_integer(
  'max_message_bytes', 64 * 2**20, 'Maximum size of a request.', lower_bound=1
)
_DRAIN = flags.DEFINE_integer(
  'drain_seconds',
  60,
  'Seconds that running requests have to finish when the server stops.',
  lower_bound=0,
)

# The threads that compute batches must not wait long, at each step of Python,
# for the thread that talks to clients.
_SWITCH_SECONDS = 0.0005


def _read_config():
  if (_BASE_PATH.value is None) == (_CONFIG.value is None):
    raise ValueError(
      'Give --model_base_path, the folder that export_saved_model wrote to, or '
      '--model_config_file.'
    )
  if _CONFIG.value is not None:
    return models.read_config(_CONFIG.value)
  return models.model_config(_NAME.value, _BASE_PATH.value)


def _read_parameters():
  parameters = batching.Parameters()
  if _BATCHING_FILE.value is not None:
    with open(_BATCHING_FILE.value, encoding='utf-8') as file:
      parameters = batching.parse_parameters(file.read())
  if _BATCHING.value:
    return parameters
  # Batches of one request, of which as many may wait as before.
  return dataclasses.replace(
    parameters,
    max_batch_size=1,
    batch_timeout_micros=0,
    max_enqueued_batches=(
      parameters.max_batch_size * parameters.max_enqueued_batches
    ),
  )


def main(argv: Sequence[str]) -> None:
  """Parses the flags and serves."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.INFO)
  sys.setswitchinterval(_SWITCH_SECONDS)
  stopping = command_line.StopSignal()
  with command_line.exit_on_error():
    config = _read_config()
    serving = server.Server(
      config,
      server.Options(
        host=_HOST.value,
        port=_PORT.value,
        rest_port=_REST_PORT.value,
        parameters=_read_parameters(),
        poll_seconds=_POLL.value,
        ssl_cert=_SSL_CERT.value,
        ssl_key=_SSL_KEY.value,
        max_message_bytes=_MAX_BYTES.value,
        drain_seconds=_DRAIN.value,
      ),
      on_end=stopping.set,
    )
    serving.start()
  scheme = 'http' if _SSL_CERT.value is None else 'https'
  rest = f'{scheme}://{server.join_address(_HOST.value, serving.rest_port)}'
  print(f'gRPC: {server.join_address(_HOST.value, serving.port)}')
  for model in config.model_config_list.config:
    print(f'REST: {rest}/v1/models/{model.name}')
  print(f'Metrics: {rest}{metrics.PATH}', flush=True)
  stopping.wait()
  serving.stop()  # raises the error that ended it, if any
  print('Stopped.', flush=True)


if __name__ == '__main__':
  command_line.run(main, command_line.Use.INFERS)
