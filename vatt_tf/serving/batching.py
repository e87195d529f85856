"""Computes requests that wait at the same time as one batch.

Requests of one key (a model's version, a signature, the shapes of a row) are
merged along their first dimension, and the result is split again. A request
waits until the batch is full, but no longer than the timeout. A merged batch
that fails is computed again one request at a time, so that a request fails for
its own faults only.
"""

import collections
from collections.abc import Callable, Hashable
from concurrent import futures
import dataclasses
import re
import threading
import time

import grpc
import numpy as np

from vatt_tf.serving import errors

# Total size of the arrays that may wait for their batch.
MAX_WAITING_BYTES = 2**30

Arrays = dict[str, np.ndarray]

_FIELD = re.compile(r'(\w+)\s*:?\s*\{\s*value\s*:\s*(\d+)\s*\}')


@dataclasses.dataclass(frozen=True)
class Parameters:
  """Parameters of the merging, with the names of TensorFlow Serving.

  Attributes:
    max_batch_size: Rows of a batch. A larger request is computed alone.
    batch_timeout_micros: Time that a request waits for others, in µs.
    max_enqueued_batches: Number of full batches that may wait; further requests
      are refused.
    num_batch_threads: Number of batches that are computed at a time.

  Raises:
    ValueError: A value is out of its range.
  """

  max_batch_size: int = 32
  batch_timeout_micros: int = 5000
  max_enqueued_batches: int = 64
  num_batch_threads: int = 2

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      least = 0 if name == 'batch_timeout_micros' else 1
      if value < least:
        raise ValueError(
          f'`{name}` must be at least {least}. Received: {name}={value}'
        )


def parse_parameters(text: str) -> Parameters:
  """Reads a batching parameters file.

  Args:
    text: Text such as `max_batch_size { value: 32 }`, one field per line.

  Raises:
    ValueError: A field is unknown, or the text has another form.
  """
  text = re.sub(r'#.*', '', text)
  values = {name: int(value) for name, value in _FIELD.findall(text)}
  rest = _FIELD.sub('', text).strip(' \t\r\n,;')
  known = [field.name for field in dataclasses.fields(Parameters)]
  unknown = sorted(set(values) - set(known))
  if rest or unknown:
    raise ValueError(
      'The batching parameters must be lines such as `max_batch_size { value: '
      f'32 }}`, of {", ".join(known)}. Received: {", ".join(unknown) or rest}'
    )
  return Parameters(**values)


@dataclasses.dataclass(frozen=True)
class _Task:
  """A request that waits."""

  inputs: dict
  num_rows: int
  num_bytes: int
  due: float
  future: futures.Future


class _Group:
  """Requests of one key, in the order in which they came."""

  def __init__(self):
    self.tasks = collections.deque()
    self.num_rows = 0

  def add(self, task):
    self.tasks.append(task)
    self.num_rows += task.num_rows

  def take(self, max_rows):
    """Removes and returns the first requests, of `max_rows` in all, or one."""
    taken, num_rows = [], 0
    while self.tasks:
      if taken and num_rows + self.tasks[0].num_rows > max_rows:
        break
      task = self.tasks.popleft()
      taken.append(task)
      num_rows += task.num_rows
    self.num_rows -= num_rows
    return taken


class Batcher:
  """Merges requests and computes them in a few threads.

  Args:
    compute: Function of a key and a dictionary of arrays (rows, ...), which
      returns a dictionary of arrays (rows, ...).
    parameters: Parameters of the merging.
    on_batch: Function of a key and the number of rows that is called for each
      computed batch, or None.
    max_waiting_bytes: Total size of waiting inputs, above which requests are
      refused.
  """

  def __init__(
    self,
    compute: Callable[[Hashable, Arrays], Arrays],
    parameters: Parameters,
    on_batch: Callable[[Hashable, int], None] | None = None,
    max_waiting_bytes: int = MAX_WAITING_BYTES,
  ):
    self._compute = compute
    self._parameters = parameters
    self._on_batch = on_batch
    self._max_waiting = (
      parameters.max_batch_size * parameters.max_enqueued_batches
    )
    self._max_bytes = max_waiting_bytes
    self._groups = {}
    self._num_waiting = 0
    self._num_bytes = 0
    self._is_closed = False
    self._condition = threading.Condition()
    self._threads = [
      threading.Thread(target=self._work, name=f'batch-{i}', daemon=True)
      for i in range(parameters.num_batch_threads)
    ]
    for thread in self._threads:
      thread.start()

  @property
  def num_waiting(self) -> int:
    """Number of rows that wait."""
    return self._num_waiting

  def submit(
    self, key: Hashable, inputs: Arrays, num_rows: int
  ) -> futures.Future:
    """Adds a request to the queue.

    Args:
      key: Key of the request; requests of equal keys can be merged.
      inputs: Arrays (num_rows, ...) by name.
      num_rows: Number of rows of the request.

    Returns:
      Future of the dictionary of outputs. A request whose future is cancelled
      before its batch begins is left out.

    Raises:
      errors.StatusError: UNAVAILABLE: the queue is full or closed.
    """
    due = time.monotonic() + self._parameters.batch_timeout_micros / 1e6
    num_bytes = sum(map(_count_bytes, inputs.values()))
    task = _Task(inputs, num_rows, num_bytes, due, futures.Future())
    with self._condition:
      if self._is_closed:
        raise errors.StatusError(
          grpc.StatusCode.UNAVAILABLE, 'The server shuts down.'
        )
      waiting = self._num_waiting
      if waiting and waiting + num_rows > self._max_waiting:
        raise errors.StatusError(
          grpc.StatusCode.UNAVAILABLE,
          f'The queue is full: {waiting} rows wait, of at most '
          f'{self._max_waiting}. Try again later.',
        )
      if waiting and self._num_bytes + num_bytes > self._max_bytes:
        raise errors.StatusError(
          grpc.StatusCode.UNAVAILABLE,
          f'The queue is full: {self._num_bytes:,} bytes wait, and '
          f'{num_bytes:,} more are over {self._max_bytes:,}. Try again later.',
        )
      self._groups.setdefault(key, _Group()).add(task)
      self._num_waiting += num_rows
      self._num_bytes += num_bytes
      self._condition.notify()
    return task.future

  def close(self) -> None:
    """Computes the waiting requests, refuses others, and ends the threads."""
    with self._condition:
      self._is_closed = True
      self._condition.notify_all()
    for thread in self._threads:
      thread.join()

  def _work(self):
    while self._work_once():
      pass  # and no reference to the last batch, such as its model, remains

  def _work_once(self):
    """Computes a batch, and returns whether there may be more."""
    key, tasks = self._take()
    if tasks is None:
      return False
    tasks = [t for t in tasks if t.future.set_running_or_notify_cancel()]
    if tasks:
      self._run_batch(key, tasks)
    return True

  def _take(self):
    """Waits for a batch; returns its key and tasks, or None for both."""
    with self._condition:
      while True:
        now = time.monotonic()
        ready = [
          key
          for key, group in self._groups.items()
          if self._is_ready(group, now)
        ]
        if ready:
          key = min(ready, key=lambda key: self._groups[key].tasks[0].due)
          return key, self._pop(key)
        if self._is_closed:
          return None, None
        dues = [group.tasks[0].due for group in self._groups.values()]
        self._condition.wait(min(dues) - now if dues else None)

  def _is_ready(self, group, now):
    is_full = group.num_rows >= self._parameters.max_batch_size
    return is_full or self._is_closed or group.tasks[0].due <= now

  def _pop(self, key):
    group = self._groups[key]
    tasks = group.take(self._parameters.max_batch_size)
    if not group.tasks:
      del self._groups[key]
    self._num_waiting -= sum(task.num_rows for task in tasks)
    self._num_bytes -= sum(task.num_bytes for task in tasks)
    # Another thread waits for the rest.
    self._condition.notify()
    return tasks

  def _run_batch(self, key, tasks):
    """Computes requests together, or each alone if that fails."""
    try:
      results = self._compute_merged(key, tasks)
    except Exception as e:  # noqa: BLE001, the client gets any error
      if len(tasks) == 1:
        tasks[0].future.set_exception(e)
        return
      for task in tasks:
        self._run_batch(key, [task])
      return
    for task, result in zip(tasks, results):
      task.future.set_result(result)

  def _compute_merged(self, key, tasks):
    inputs = tasks[0].inputs
    num_rows = sum(task.num_rows for task in tasks)
    if len(tasks) > 1:
      inputs = {
        name: np.concatenate([task.inputs[name] for task in tasks])
        for name in inputs
      }
    outputs = self._compute(key, inputs)
    if self._on_batch is not None:
      self._on_batch(key, num_rows)
    for name, value in outputs.items():
      if value.shape[:1] != (num_rows,):
        raise ValueError(
          f'The output `{name}` must have {num_rows} rows, like the inputs. '
          f'Received: an array of shape {value.shape}'
        )
    results, first = [], 0
    for task in tasks:
      rows = slice(first, first + task.num_rows)
      results.append({name: value[rows] for name, value in outputs.items()})
      first += task.num_rows
    return results


def _count_bytes(array):
  """Returns the bytes of an array; one of objects holds `bytes`."""
  if array.dtype == object:
    return sum(map(len, array.flat))
  return array.nbytes
