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
  """Another worker crashed, was stopped or cannot be reached any more.

  Attributes:
    exit_code: What a command that meets it ends with: "try again".
  """

  exit_code = 75  # EX_TEMPFAIL of sysexits.h


def num_workers(strategy: tf.distribute.Strategy) -> int:
  """Processes that run the program together."""
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return 1
  return len(addresses(strategy.cluster_resolver.cluster_spec().as_dict()))


def worker_index(strategy: tf.distribute.Strategy) -> int:
  """The place of this process among the workers, an int; 0 is the chief.

  Args:
    strategy: A `tf.distribute.Strategy`.
  """
  if num_workers(strategy) == 1:
    return 0
  resolver = strategy.cluster_resolver
  if resolver.task_type == 'chief':
    return resolver.task_id
  num_chiefs = len(resolver.cluster_spec().as_dict().get('chief', []))
  return num_chiefs + resolver.task_id


def addresses(cluster: Mapping[str, Any]) -> list[str]:
  """The addresses of a cluster's workers, in their order."""
  return [*cluster.get('chief', []), *cluster.get('worker', [])]


@contextlib.contextmanager
def lost_workers_named() -> Iterator[None]:
  """Raises `WorkerLostError` for TensorFlow's errors about other workers.

  A worker that dies closes its connections, which ends the exchange under way
  at once; one that no longer answers is given up after half a minute.

  Raises:
    WorkerLostError: It names the worker and says how to go on.
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
      'cannot be reached any more (its own output says more). This worker '
      f'stops too, with exit code {WorkerLostError.exit_code}. The last '
      'checkpoint stays: start all workers again with their same commands, and '
      'the run goes on from there.'
    ) from e


def _describe_lost_worker(message):
  """Such as `Worker 1 (host2:2222)`, from the message of an error."""
  cluster, own = parse_tf_config()
  for job, index in _WORKER.findall(message):
    index = int(index)
    if (job, index) != own and index < len(cluster.get(job, [])):
      return f'{job.capitalize()} {index} ({cluster[job][index]})'
  return 'Another worker'


def parse_tf_config() -> tuple[dict[str, Any], tuple[str, int]]:
  """Reads TF_CONFIG.

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
    'The strategy `multi_worker_mirrored` wants the environment variable '
    'TF_CONFIG to name all workers and which of them this process is, such '
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
    own = cluster.get(task_type, [])
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise ValueError(received) from e
  if not names or not 0 <= index < len(own):
    raise ValueError(received)
  return cluster, (task_type, index)
