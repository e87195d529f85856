"""Strategies by name, and what replicas say to each other.

The functions for replicas may be called without a strategy, in a one-device
one and in the cross-replica context (where a model is built, say): there is
one replica then, and nothing to exchange. With several replicas, call them in
a `tf.function` that `strategy.run` runs.
"""

import contextlib
import functools
import json
import os
import re

from absl import logging
import tensorflow as tf

_WORKER = re.compile(r'/job:(chief|worker)/(?:replica:\d+/)?task:(\d+)')


class WorkerLostError(RuntimeError):
  """Another worker crashed, was stopped or cannot be reached any more.

  Attributes:
    exit_code: what a command that meets it ends with: "try again".
  """

  exit_code = 75  # EX_TEMPFAIL of sysexits.h


def num_cores():
  """The cores that this process may use, an int."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def num_replicas():
  """The number of replicas that run in step with the caller, an int.

  1 outside a strategy and in the cross-replica context.
  """
  context = tf.distribute.get_replica_context()
  return 1 if context is None else context.num_replicas_in_sync


def first_row(per_replica_batch):
  """The row of the global batch that is this replica's first.

  Args:
    per_replica_batch: int or scalar integer tensor, the rows of each replica.

  Returns:
    A scalar int32 tensor: the replica's number times `per_replica_batch`.
  """
  per_replica_batch = tf.cast(per_replica_batch, tf.int32)
  if num_replicas() == 1:
    return tf.zeros_like(per_replica_batch)
  context = tf.distribute.get_replica_context()
  replica = tf.cast(context.replica_id_in_sync_group, tf.int32)
  return replica * per_replica_batch


def all_reduce_sum(tensors):
  """Sums tensors over the replicas, with gradient.

  Each replica gets the sum; the gradient of each replica's own part is the sum
  of what flows back into all of them, so it is exact when the global loss is
  the sum of the replicas' losses.

  Args:
    tensors: a structure of tensors, all float or all integer, each of one
      shape on all replicas.

  Returns:
    A structure like `tensors`. With one replica, `tensors` itself.
  """
  if num_replicas() == 1:
    return tensors
  context = tf.distribute.get_replica_context()
  return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def cross_replica_concat(tensors):
  """Concatenates the replicas' tensors along axis 0, with gradient.

  Each replica gets the rows of all, in the order of `first_row`. The gradient
  of a replica's rows is the sum of what flows back into them on all replicas,
  so it is exact when the global loss is the sum of the replicas' losses.

  Args:
    tensors: a structure of tensors (B, ...), numeric or bool, of one shape on
      all replicas.

  Returns:
    A structure of tensors (B * replicas, ...). With one replica, `tensors`
    itself.
  """
  if num_replicas() == 1:
    return tensors
  # One by one: TensorFlow's own gradient of a gathered list wants one shape.
  return tf.nest.map_structure(_concat_one, tensors)


def _concat_one(x):
  x = tf.convert_to_tensor(x)
  context = tf.distribute.get_replica_context()
  gathered = context.all_gather(
    tf.cast(x, tf.int32) if x.dtype.is_bool else x, axis=0
  )
  # Gathering forgets the static shape; other shapes on other replicas fail.
  rows = None if x.shape[0] is None else x.shape[0] * num_replicas()
  gathered = tf.ensure_shape(gathered, [rows, *x.shape[1:]])
  return tf.cast(gathered, x.dtype)


def gather_from_workers(strategy, value):
  """Every worker's value, on every worker.

  All workers must call it at the same point of the program.

  Args:
    strategy: a `tf.distribute.Strategy`.
    value: int, this worker's.

  Returns:
    A list of ints, in the order of the workers; `[value]` where there is one.
  """
  num_workers = _num_workers(strategy)
  if num_workers == 1:
    return [value]
  own = tf.one_hot(worker_index(strategy), num_workers)
  # Each of a worker's replicas adds the same.
  share = own * value / (strategy.num_replicas_in_sync // num_workers)
  total = _sum_function(strategy)(share).numpy()
  return [round(float(each)) for each in total]


@functools.cache
def _sum_function(strategy):
  @tf.function
  def run(x):
    sums = strategy.run(tf.identity, args=(x,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

  return run


def _num_workers(strategy):
  """Processes that run the program together."""
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return 1
  return len(_workers(strategy.cluster_resolver.cluster_spec().as_dict()))


def worker_index(strategy):
  """The place of this process among the workers, an int; 0 is the chief.

  Args:
    strategy: a `tf.distribute.Strategy`.
  """
  if _num_workers(strategy) == 1:
    return 0
  resolver = strategy.cluster_resolver
  if resolver.task_type == 'chief':
    return resolver.task_id
  num_chiefs = len(resolver.cluster_spec().as_dict().get('chief', []))
  return num_chiefs + resolver.task_id


def _workers(cluster):
  """The addresses of a cluster's workers, in their order."""
  return [*cluster.get('chief', []), *cluster.get('worker', [])]


@contextlib.contextmanager
def lost_workers_named():
  """Raises `WorkerLostError` for TensorFlow's errors about other workers.

  A worker that dies closes its connections, which ends the exchange under way
  at once; one that no longer answers is given up after half a minute.

  Raises:
    WorkerLostError: it names the worker and says how to go on.
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
  cluster, own = _parse_tf_config()
  for job, index in _WORKER.findall(message):
    index = int(index)
    if (job, index) != own and index < len(cluster.get(job, [])):
      return f'{job.capitalize()} {index} ({cluster[job][index]})'
  return 'Another worker'


def check_batch_divisible(global_batch_size, strategy):
  """Checks that each replica gets equally many rows.

  Args:
    global_batch_size: int, the rows of a batch over all replicas.
    strategy: a `tf.distribute.Strategy`.

  Returns:
    The rows of each replica, an int.

  Raises:
    ValueError: the batch is empty or does not divide.
  """
  replicas = strategy.num_replicas_in_sync
  if global_batch_size < 1 or global_batch_size % replicas:
    below = global_batch_size // replicas * replicas
    advice = f'{below} or {below + replicas}' if below else str(replicas)
    raise ValueError(
      f'`global_batch_size` must be divisible by the {replicas} replicas of '
      f'{type(strategy).__name__}: use {advice}, or another number of '
      f'devices. Received: global_batch_size={global_batch_size}'
    )
  return global_batch_size // replicas


def make_strategy(name, num_devices=None, tpu_name=None):
  """Makes a distribution strategy.

  | name | devices |
  |---|---|
  | `cpu` | the CPU, also on a machine with a GPU |
  | `one_device` | the first GPU, or the CPU where there is none |
  | `mirrored` | the GPUs of this machine, or its logical CPUs |
  | `multi_worker_mirrored` | those of each worker that TF_CONFIG names |
  | `tpu` | the cores of a TPU |

  With `mirrored` and no GPU, `num_devices` logical CPUs are made if TensorFlow
  has not started yet. `multi_worker_mirrored` must be made before TensorFlow
  runs anything.

  Args:
    name: one of the names above.
    num_devices: for `mirrored`, how many devices to use. None: all.
    tpu_name: for `tpu`, the name or the gRPC address of the TPU. None: the one
      that this machine holds, or that the environment names.

  Returns:
    A `tf.distribute.Strategy`.

  Raises:
    ValueError: an unknown name, too few devices, an argument that the strategy
      does not take, or TF_CONFIG missing or unfit.
    RuntimeError: TensorFlow has already started, or there is no TPU.
  """
  if name not in _MAKERS:
    raise ValueError(
      f'The strategy must be one of {", ".join(_MAKERS)}. '
      f'Received: name={name!r}'
    )
  if num_devices is not None and name != 'mirrored':
    raise ValueError(
      '`num_devices` is for the strategy `mirrored` only. '
      f'Received: name={name!r}, num_devices={num_devices}'
    )
  if tpu_name is not None and name != 'tpu':
    raise ValueError(
      '`tpu_name` is for the strategy `tpu` only. '
      f'Received: name={name!r}, tpu_name={tpu_name!r}'
    )
  return _MAKERS[name](num_devices=num_devices, tpu_name=tpu_name)


def _make_cpu(**_):
  return tf.distribute.OneDeviceStrategy('/cpu:0')


def _make_one_device(**_):
  has_gpu = tf.config.list_physical_devices('GPU')
  return tf.distribute.OneDeviceStrategy('/gpu:0' if has_gpu else '/cpu:0')


def _make_mirrored(num_devices, **_):
  if num_devices is not None and num_devices < 1:
    raise ValueError(
      f'`num_devices` must be positive. Received: num_devices={num_devices}'
    )
  kind = 'GPU' if tf.config.list_physical_devices('GPU') else 'CPU'
  if kind == 'CPU' and num_devices is not None:
    _make_logical_cpus(num_devices)
  devices = [device.name for device in tf.config.list_logical_devices(kind)]
  if num_devices is not None and num_devices > len(devices):
    raise ValueError(
      f'`num_devices` is more than the {len(devices)} {kind} devices that '
      f'there are. Received: num_devices={num_devices}'
    )
  return _mirrored(tuple(devices[:num_devices]))


@functools.cache
def _mirrored(devices):
  """The one strategy of these devices: TensorFlow mixes the collective
  operations of two strategies in one process up."""
  return tf.distribute.MirroredStrategy(devices)


def _make_logical_cpus(num_devices):
  """Splits the CPU in `num_devices` logical devices, unless it has as many."""
  cpu = tf.config.list_physical_devices('CPU')[0]
  present = tf.config.get_logical_device_configuration(cpu) or [None]
  if len(present) >= num_devices:
    return
  try:
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices
    )
  except RuntimeError as e:
    raise RuntimeError(
      f'The CPU cannot be split in {num_devices} logical devices any more, '
      'since TensorFlow has started. Make the strategy before anything '
      f'else. Received: num_devices={num_devices}'
    ) from e


def _make_multi_worker_mirrored(**_):
  cluster, (job, index) = _parse_tf_config()
  logging.warning(
    'This is %s %d of the workers %s. Waiting until all of them have started.',
    job,
    index,
    ', '.join(_workers(cluster)),
  )
  try:
    return tf.distribute.MultiWorkerMirroredStrategy()
  except RuntimeError as e:
    raise RuntimeError(
      'The strategy `multi_worker_mirrored` must be made before TensorFlow '
      f'runs anything: make it first. ({e})'
    ) from e


def _parse_tf_config():
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
    workers = _workers(cluster)
    task_type, index = task['type'], int(task['index'])
    own = cluster.get(task_type, [])
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise ValueError(received) from e
  if not workers or not 0 <= index < len(own):
    raise ValueError(received)
  return cluster, (task_type, index)


def _make_tpu(tpu_name, **_):
  try:
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
      tpu=tpu_name or _default_tpu_name()
    )
    tf.config.experimental_connect_to_cluster(resolver)
    tf.tpu.experimental.initialize_tpu_system(resolver)
  except (ValueError, RuntimeError, tf.errors.OpError) as e:
    raise RuntimeError(
      f'No TPU was found with tpu_name={tpu_name!r}. Run on a TPU VM, or '
      'give the name or the gRPC address of a TPU that this machine can '
      f'reach. ({e})'
    ) from e
  return tf.distribute.TPUStrategy(resolver)


def _default_tpu_name():
  """The TPU that the environment names, or else this machine's own."""
  return os.environ.get('TPU_NAME') or 'local'


_MAKERS = {
  'cpu': _make_cpu,
  'one_device': _make_one_device,
  'mirrored': _make_mirrored,
  'multi_worker_mirrored': _make_multi_worker_mirrored,
  'tpu': _make_tpu,
}
