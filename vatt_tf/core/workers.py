"""The workers of a run, and the errors that name a lost one."""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import re
from typing import Any

import tensorflow as tf

_WORKER = re.compile(r'/job:(chief|worker)/(?:replica:\d+/)?task:(\d+)')


class WorkerLostError(RuntimeError):
  """Another worker crashed, was stopped or can no longer be reached.

  Attributes:
    exit_code: Exit code of a command that fails with it: "try again".
  """

  exit_code = 75  # EX_TEMPFAIL of sysexits.h


def num_workers(strategy: tf.distribute.Strategy) -> int:
  """Returns the number of processes that run the program together."""
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return 1
  return len(addresses(strategy.cluster_resolver.cluster_spec().as_dict()))


def worker_index(strategy: tf.distribute.Strategy) -> int:
  """Returns the number of this process among the workers; 0 is the chief."""
  if num_workers(strategy) == 1:
    return 0
  resolver = strategy.cluster_resolver
  if resolver.task_type == 'chief':
    return resolver.task_id
  num_chiefs = len(resolver.cluster_spec().as_dict().get('chief', []))
  return num_chiefs + resolver.task_id


def addresses(cluster: Mapping[str, Any]) -> list[str]:
  """Returns the addresses of a cluster's workers, in their order."""
  return [*cluster.get('chief', []), *cluster.get('worker', [])]


@contextlib.contextmanager
def lost_workers_named() -> Iterator[None]:
  """Raises `WorkerLostError` for TensorFlow's errors about other workers.

  A worker that dies closes its connections, which ends the current exchange
  immediately; one that no longer answers is given up after 30 seconds.

  Raises:
    WorkerLostError: A worker is lost; the message names it, and tells how to
      resume.
  """
  try:
    yield
  except (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
  ) as e:
    if not os.environ.get('TF_CONFIG') or not (
      'ollective' in e.message or 'GRPC' in e.message
    ):
      raise
    raise WorkerLostError(
      f'{_describe_lost_worker(e.message)} is gone: it failed, was stopped or '
      'can no longer be reached (see its own output). This worker stops too, '
      f'with exit code {WorkerLostError.exit_code}. The last checkpoint is '
      'kept: rerun the same commands on all workers to resume from it.'
    ) from e


def _describe_lost_worker(message):
  """The worker in the message of an error, such as `Worker 1 (host2:2222)`."""
  cluster, this_task = parse_tf_config()
  for job, index in _WORKER.findall(message):
    index = int(index)
    if (job, index) != this_task and index < len(cluster.get(job, [])):
      return f'{job.capitalize()} {index} ({cluster[job][index]})'
  return 'Another worker'


def parse_tf_config() -> tuple[dict[str, Any], tuple[str, int]]:
  """Reads the environment variable TF_CONFIG.

  Returns:
    The cluster, {job: addresses}, and this task, (job, index).

  Raises:
    ValueError: TF_CONFIG does not describe workers and this task.
  """
  example = json.dumps(
    {
      'cluster': {'worker': ['host1:2222', 'host2:2222']},
      'task': {'type': 'worker', 'index': 0},
    }
  )
  expected = (
    'The strategy `multi_worker_mirrored` needs the environment variable '
    'TF_CONFIG, which names all workers and the number of this process, such '
    f"as '{example}'. "
  )
  text = os.environ.get('TF_CONFIG', '')
  if not text.strip():
    raise ValueError(
      f'{expected}It is not set. For one machine use `mirrored`.'
    )
  received = f'{expected}Received: TF_CONFIG={text!r}'
  try:
    config = json.loads(text)
    cluster, task = config['cluster'], config['task']
    names = addresses(cluster)
    task_type, index = task['type'], int(task['index'])
    job_addresses = cluster.get(task_type, [])
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise ValueError(received) from e
  if not names or not 0 <= index < len(job_addresses):
    raise ValueError(received)
  return cluster, (task_type, index)
