"""Processes that decode media files, and the pool that feeds them.

A worker is a process of its own that imports neither TensorFlow nor the
caller's main module: it starts in less than a second, and a decoder that
crashes on a damaged file takes nothing with it but that file. Parent and worker
speak through the worker's standard input and output: pickles, each after its
length.

As a module it is the worker: `python -m vatt_tf.media.worker`.
"""

from collections.abc import Iterable, Iterator
import contextlib
import dataclasses
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
import traceback
from typing import BinaryIO

import av.logging
import cv2

from vatt_tf.media import (
  caption_cues,
  caption_files,
  decode,
  decode_settings,
  decoded_clip,
  errors,
  pictures,
)

_LENGTH = struct.Struct('<Q')

# Exit status of a Python program that ends with an exception.
_PYTHON_ERROR = 1


@dataclasses.dataclass(frozen=True)
class Task:
  """Work on one file.

  Attributes:
    path: Path of the file with the video, or with video and sound; '' for sound
      alone.
    audio_path: Path of the file with the sound if that is another one; or ''.
    spans: Parts of it to decode; None means only to find where it ends.
    settings: Streams that are taken, and the form of their content.
    caption_path: Path of the file with its captions, or ''.
    caption_encoding: Encoding of the captions; '' for UTF-8.
    caption_margin: Time around a span, in µs, whose captions count as its own.
    use_caption_stream: Whether to take captions from the media file if there is
      no usable caption file.
    is_picture: Whether the file is a picture: a clip of one frame.
  """

  path: str
  audio_path: str
  spans: tuple[decoded_clip.Span, ...] | None
  settings: decode_settings.Settings
  caption_path: str = ''
  caption_encoding: str = ''
  caption_margin: int = 0
  use_caption_stream: bool = False
  is_picture: bool = False

  @property
  def num_results(self) -> int:
    """Length of the list that `perform` returns."""
    return 1 if self.spans is None else len(self.spans)


def perform(task: Task) -> list:
  """Does a task.

  Returns:
    A `decoded_clip.DecodedClip` or `errors.MediaError` for each span; without
    spans, the end of the file in µs or an error.
  """
  try:
    if task.is_picture:
      return pictures.decode_spans(task.path, task.spans, task.settings)
    if task.spans is None:
      return [decode.find_end(task.path, task.audio_path, task.settings)]
    cues, notes = None, []
    if task.caption_path:
      cues, notes = caption_files.read_for_clips(
        task.caption_path, task.caption_encoding
      )
    results = decode.decode_spans(
      task.path,
      task.audio_path,
      task.spans,
      task.settings,
      task.use_caption_stream and cues is None,
      task.caption_margin,
    )
    for result in results:
      if isinstance(result, decoded_clip.DecodedClip):
        if cues is not None:
          result.cues = caption_cues.in_span(
            cues, result.start, result.end, task.caption_margin
          )
          result.notes += _late_cues(cues, result, task)
        result.notes = [*result.notes, *notes]
        notes = []
    return results
  except errors.MediaError as e:
    return [e] * task.num_results
  except MemoryError:
    return [errors.MediaError('memory ran out')] * task.num_results
  except Exception as e:  # noqa: BLE001, of any class, by damaged files
    if task.num_results > 1:
      # It may be the fault of one clip.
      return [
        perform(dataclasses.replace(task, spans=(span,)))[0]
        for span in task.spans
      ]
    return [errors.MediaError(_describe_failure(e))]


def _late_cues(
  cues: Iterable[caption_cues.Cue], clip: decoded_clip.DecodedClip, task: Task
) -> list[errors.Note]:
  """Returns a note on captions after the end of the media file."""
  end = clip.end + task.caption_margin
  count = sum(cue.start >= end for cue in cues)
  if not (clip.is_last and count):
    return []
  name = os.path.basename(task.caption_path)
  reason = 'captions that begin after the end of the media file are left out'
  return [errors.Note(f'{count} {reason}', name, clip.end)]


def _describe_failure(error: Exception) -> str:
  """Returns a line that describes an error that no reader foresaw."""
  place = traceback.extract_tb(error.__traceback__)[-1]
  message = ' '.join(str(error).split())
  return (
    f'its decoding failed with {type(error).__name__}: {message} '
    f'({os.path.basename(place.filename)}, line {place.lineno}): it is '
    'damaged, or of an unknown kind'
  )


def _send(stream: BinaryIO, value) -> None:
  data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
  stream.write(_LENGTH.pack(len(data)))
  stream.write(data)
  stream.flush()


def _receive(stream: BinaryIO):
  """Returns the next value; raises `EOFError` at the end."""
  header = stream.read(_LENGTH.size)
  if len(header) < _LENGTH.size:
    raise EOFError
  (length,) = _LENGTH.unpack(header)
  data = stream.read(length)
  if len(data) < length:
    raise EOFError
  return pickle.loads(data)


class _Process:
  """A worker process."""

  def __init__(self):
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    paths = [root, os.environ.get('PYTHONPATH', '')]
    environment = dict(
      os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths))
    )
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'vatt_tf.media.worker'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env=environment,
    )

  def call(self, task: Task) -> list:
    """Returns the results of a task; raises `EOFError` if the process ends."""
    try:
      _send(self._process.stdin, task)
    except BrokenPipeError as e:
      raise EOFError from e
    return _receive(self._process.stdout)

  def kill(self) -> None:
    """Ends the process; a thread that waits for it gets an `EOFError`."""
    self._process.kill()

  def close(self) -> int:
    """Ends the process and its pipes; returns its exit status."""
    self.kill()
    self._process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    return self._process.wait()

  def exit_status(self) -> int:
    """Waits for a process that has closed its output."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      self._process.wait(timeout=5)
    return self.close()


def _describe_exit(status: int) -> str:
  if status >= 0:
    return f'exit status {status}'
  try:
    return f'signal {signal.Signals(-status).name}'
  except ValueError:
    return f'signal {-status}'


@contextlib.contextmanager
def _limit(max_seconds: float | None, process: _Process) -> Iterator[None]:
  """Kills a process that takes longer than this."""
  if max_seconds is None:
    yield
    return
  timer = threading.Timer(max_seconds, process.kill)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


class Pool:
  """Workers that do tasks in parallel and return the results in order.

  Use it in a `with` statement, which ends the processes.

  Args:
    num_workers: Number of processes; 0 does the tasks in the calling thread.
    max_seconds: Limit for a task, after which its process is killed and the
      file fails; None means no limit. Without processes there is none.
  """

  def __init__(self, num_workers: int, max_seconds: float | None = None):
    self._num_workers = num_workers
    self._max_seconds = max_seconds
    self._tasks = queue.Queue()
    self._done = {}
    self._changed = threading.Condition()
    self._threads = []
    self._processes = []
    self._is_closed = False

  def __enter__(self) -> 'Pool':
    # Processes start at once, threads follow: the caller continues while they
    # import.
    self._processes = [_Process() for _ in range(self._num_workers)]
    for number in range(self._num_workers):
      thread = threading.Thread(
        target=self._work, args=[number], name=f'worker {number}', daemon=True
      )
      thread.start()
      self._threads.append(thread)
    return self

  def __exit__(self, error_type, error, trace) -> None:
    self._is_closed = True
    for process in self._processes:
      process.kill()
    for _ in self._threads:
      self._tasks.put(None)
    for thread in self._threads:
      thread.join()
    for process in self._processes:
      process.close()

  def _work(self, number: int) -> None:
    """Feeds one process; starts another one when it dies."""
    while True:
      item = self._tasks.get()
      if item is None or self._is_closed:
        return
      key, task = item
      try:
        with _limit(self._max_seconds, self._processes[number]):
          result = self._processes[number].call(task)
      except EOFError:
        if self._is_closed:  # somebody may wait for it in another thread
          result = RuntimeError('The decoding processes were ended.')
        else:
          result = self._bury(number, task)
          self._processes[number] = _Process()
      with self._changed:
        self._done[key] = result
        self._changed.notify_all()

  def _bury(self, number: int, task: Task) -> list | RuntimeError:
    """Returns the result of the task that a process died on."""
    status = self._processes[number].exit_status()
    if status == _PYTHON_ERROR:
      return RuntimeError(
        f'A decoding process failed on {task.path or task.audio_path}, not '
        'because of the file: its traceback is above.'
      )
    error = errors.MediaError(
      f'the decoding process died on this file ({_describe_exit(status)}): it '
      'is damaged, or memory or time ran out'
    )
    return [error] * task.num_results

  def map(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list]]:
    """Does tasks, a few ahead of what the caller has taken.

    Yields:
      Each task with its results (see `perform`), in the order of the tasks.

    Raises:
      RuntimeError: A worker failed by its own fault.
    """
    if not self._num_workers:
      for task in tasks:
        yield task, perform(task)
      return
    waiting = iter(tasks)
    under_way = {}
    first = last = 0
    while True:
      while len(under_way) < 2 * self._num_workers + 2:
        task = next(waiting, None)
        if task is None:
          break
        under_way[last] = task
        self._tasks.put((last, task))
        last += 1
      if not under_way:
        return
      with self._changed:
        while first not in self._done:
          self._changed.wait()
        result = self._done.pop(first)
      if isinstance(result, RuntimeError):
        raise result
      yield under_way.pop(first), result
      first += 1


def main() -> None:
  """Runs a worker on standard input and output."""
  # They may go to the whole group: the parent ends its workers itself.
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
  # Output of libraries must not come between the results.
  write = os.fdopen(os.dup(1), 'wb')
  os.dup2(2, 1)
  cv2.setNumThreads(1)
  av.logging.set_level(None)
  # Until the parent closes its end, or goes away.
  with contextlib.suppress(EOFError, BrokenPipeError):
    while True:
      _send(write, perform(_receive(sys.stdin.buffer)))
  # Without the clean-up of modules, which can take a while.
  os._exit(0)


if __name__ == '__main__':
  main()
