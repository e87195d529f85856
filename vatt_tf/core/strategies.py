"""Makes distribution strategies by name."""

from collections.abc import Callable, Iterable
import functools
import os
from typing import Any

from absl import logging
import tensorflow as tf

from vatt_tf.core import workers


def num_cores() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def check_batch_divisible(
  global_batch_size: int, strategy: tf.distribute.Strategy
) -> int:
  """Returns the rows per replica, after a check that they are equal.

  Raises:
    ValueError: The batch is empty, or the replicas do not divide it.
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


def distribute(
  strategy: tf.distribute.Strategy,
  dataset_fn: Callable[[tf.distribute.InputContext], tf.data.Dataset],
) -> Iterable[Any]:
  """Returns the batches of all replicas.

  On one CPU these are the batches of the data set. Elsewhere TensorFlow copies
  them to the devices, by iterators that tune themselves in threads. (When such
  an iterator ends, it may wait for its thread, which sleeps for up to a
  minute.)

  Args:
    strategy: Strategy of `make_strategy`.
    dataset_fn: Function from the context of an input pipeline to its data set.
  """
  (device, *others) = strategy.extended.worker_devices
  if others or 'CPU' not in device or strategy.num_replicas_in_sync > 1:
    return strategy.distribute_datasets_from_function(dataset_fn)
  return dataset_fn(tf.distribute.InputContext())


def make_strategy(
  name: str, num_devices: int | None = None, tpu_name: str | None = None
) -> tf.distribute.Strategy:
  """Makes a distribution strategy.

  | name | devices |
  |---|---|
  | `cpu` | the CPU, also on a machine with a GPU |
  | `one_device` | the first GPU, or the CPU without one |
  | `mirrored` | the GPUs of this machine, or its logical CPUs |
  | `multi_worker_mirrored` | the devices of each worker in TF_CONFIG |
  | `tpu` | the cores of a TPU |

  With `mirrored` and no GPU, `num_devices` logical CPUs are made if TensorFlow
  has not started yet. `multi_worker_mirrored` must be made before TensorFlow
  runs anything.

  Args:
    name: Name of the strategy, one of the names above.
    num_devices: Number of devices for `mirrored`. None means all.
    tpu_name: Name or gRPC address of the TPU for `tpu`. None means the TPU of
      this machine, or the one that the environment names.

  Returns:
    A `tf.distribute.Strategy`.

  Raises:
    ValueError: The name is unknown, there are too few devices, the strategy
      does not take an argument, or TF_CONFIG is missing or invalid.
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
      f'`num_devices` must be at most {len(devices)}, the number of {kind} '
      f'devices. Received: num_devices={num_devices}'
    )
  return _mirrored(tuple(devices[:num_devices]))


@functools.cache
def _mirrored(devices):
  """The only strategy of these devices, because TensorFlow confuses the
  collective operations of two strategies in one process."""
  return tf.distribute.MirroredStrategy(devices)


def _make_logical_cpus(num_devices):
  """Splits the CPU into `num_devices` logical devices, if it has fewer."""
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
      f'The CPU can no longer be split into {num_devices} logical devices, '
      'because TensorFlow has started. Make the strategy before anything '
      f'else. Received: num_devices={num_devices}'
    ) from e


def _make_multi_worker_mirrored(**_):
  cluster, (job, index) = workers.parse_tf_config()
  logging.warning(
    'This is %s %d of the workers %s. Waiting until all of them have started.',
    job,
    index,
    ', '.join(workers.addresses(cluster)),
  )
  try:
    return tf.distribute.MultiWorkerMirroredStrategy()
  except RuntimeError as e:
    raise RuntimeError(
      'The strategy `multi_worker_mirrored` must be made before TensorFlow '
      f'runs anything: make it first. ({e})'
    ) from e


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
