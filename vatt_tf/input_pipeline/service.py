"""Input machines: other processes that read records and make batches.

Each runs `python -m vatt_tf.serve_input`: a dispatcher and a worker of the
tf.data service. The batches of a run come from the machines in turn, so that a
run gets the same batches as without them, for any number of machines. The
machines read the records, and need them under the same paths.
"""

from collections.abc import Sequence
import socket
import time

import tensorflow as tf

PROTOCOL = 'grpc'
COMMAND = 'python -m vatt_tf.serve_input'

# Time to wait for an input machine to start, and between two tries.
WAIT_SECONDS = 60.0
_RETRY_SECONDS = 0.5

_VALID_PORTS = range(1, 65536)


def parse_addresses(text: str) -> list[tuple[str, int]]:
  """Reads addresses, such as 'grpc://a:5050,grpc://b:5050'.

  Args:
    text: Addresses, separated by commas.

  Returns:
    (host, port) of each.

  Raises:
    ValueError: An address is not of this form, or is repeated.
  """
  parsed = []
  for address in text.split(','):
    protocol, mark, location = address.strip().partition('://')
    host, colon, port = location.rpartition(':')
    is_number = port.isascii() and port.isdigit()
    if (
      not (mark and colon and host and is_number)
      or protocol != PROTOCOL
      or int(port) not in _VALID_PORTS
      or (host, int(port)) in parsed
    ):
      raise ValueError(
        '`data_service` must hold addresses such as grpc://host:5050, '
        'separated by commas, each once, as '
        f'`{COMMAND} --port=5050` prints them. Received: data_service={text!r}'
      )
    parsed.append((host, int(port)))
  return parsed


def wait_until_reached(host: str, port: int) -> None:
  """Waits until an input machine takes connections.

  Raises:
    ValueError: The machine takes none within `WAIT_SECONDS`.
  """
  end = time.monotonic() + WAIT_SECONDS
  while True:
    try:
      socket.create_connection((host, port), timeout=WAIT_SECONDS).close()
      return
    except OSError as e:
      if time.monotonic() >= end:
        raise ValueError(
          f'The input machine {PROTOCOL}://{host}:{port} of `data_service` '
          f'cannot be reached after {WAIT_SECONDS:g} s ({e}). Start it there '
          f'with `{COMMAND} --port={port}`, open the port {port} and the one '
          'after it, or make the batches in this process with '
          "`data_service` ''."
        ) from e
    time.sleep(_RETRY_SECONDS)


def distribute(
  datasets: Sequence[tf.data.Dataset], addresses: Sequence[tuple[str, int]]
) -> tf.data.Dataset:
  """Runs data sets on input machines, and takes their elements in turn.

  Args:
    datasets: A data set for each machine, without Python functions.
    addresses: (host, port) of each machine.

  Returns:
    A data set of the first element of each, then the second of each, and so on.
    It ends where the shortest of them ends.

  Raises:
    ValueError: A machine cannot be reached.
  """
  served = []
  for dataset, (host, port) in zip(datasets, addresses, strict=True):
    wait_until_reached(host, port)
    served.append(
      dataset.apply(
        tf.data.experimental.service.distribute(
          processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
          service=f'{PROTOCOL}://{host}:{port}',
          compression=None,
        )
      )
    )
  if len(served) == 1:
    return served[0]
  turns = tf.data.Dataset.range(len(served)).repeat()
  return tf.data.Dataset.choose_from_datasets(
    served, turns, stop_on_empty_dataset=True
  )
