"""Progress lines of a run, and requests to stop it."""

from collections.abc import Mapping, Sequence
import datetime
import math
import signal
import sys
import time
from typing import Any, TextIO

from absl import logging
import tensorflow as tf

from vatt_tf.core import collectives

# Share of the time that the devices may wait for data without a note.
_MAX_INPUT_WAIT = 0.1


class Progress:
  """Prints progress lines for people.

  If the devices wait for data, the line tells the share of the time, and the
  first such line comes with a warning that the input is too slow.

  Args:
    train_steps: Last step of the run.
    global_batch_size: Clips per batch, over all replicas.
    interval: Steps between lines.
    progress_metrics: Names of the metrics to print besides the loss.
    stream: Stream to print to; standard output by default.
  """

  def __init__(
    self,
    train_steps: int,
    global_batch_size: int,
    interval: int,
    progress_metrics: Sequence[str] = (),
    stream: TextIO | None = None,
  ):
    self._train_steps = train_steps
    self._batch = global_batch_size
    self._interval = interval
    self._progress_metrics = progress_metrics
    self.stream = stream or sys.stdout
    self._last = None
    self._waited = 0.0
    self._is_first = True
    self._has_warned = False

  def start(self, step: int) -> None:
    """Starts the clock at a step."""
    self._last = (step, time.monotonic())
    self._waited = 0.0

  def update(
    self, step: int, metrics: Mapping[str, Any], waited: float = 0.0
  ) -> float | None:
    """Prints a line if one is due.

    Args:
      step: Number of the step.
      metrics: Metrics of the steps since the last update.
      waited: Seconds that these steps waited for data.

    Returns:
      Examples per second since the last line, or None if no line was due.
    """
    last_step, last_time = self._last
    self._waited += waited
    if step - last_step < self._interval and step < self._train_steps:
      return None
    if step == last_step:
      return None
    now = time.monotonic()
    seconds = max(now - last_time, 1e-9)
    rate = (step - last_step) / seconds
    share = min(self._waited / seconds, 1.0)
    # The first steps always wait, until the pipeline has filled.
    is_waiting = share > _MAX_INPUT_WAIT and not self._is_first
    note = f'  {share:.0%} of it waiting for data' if is_waiting else ''
    remaining = max(self._train_steps - step, 0) / rate
    eta = datetime.timedelta(seconds=math.ceil(remaining))
    shown = ' '.join(
      f'{name} {metrics[name]:.4g}'
      for name in self._progress_metrics
      if name in metrics
    )
    print(
      f'step {step}/{self._train_steps}  loss {metrics["loss"]:.4f}  {shown}  '
      f'{rate * self._batch:.2f} examples/s  {1 / rate:.3g} s/step{note}  '
      f'ETA {eta}',
      file=self.stream,
      flush=True,
    )
    if is_waiting and not self._has_warned:
      self._has_warned = True
      logging.warning(
        'The input is too slow: the devices waited for data %.0f %% of the '
        'last %d steps. The input yields %.1f examples per second, and the '
        'devices could take %.1f. Use more cores, input machines or a cache, '
        'see docs/input_pipeline.md.',
        100 * share,
        step - last_step,
        rate * self._batch,
        rate * self._batch / max(1.0 - share, 1e-3),
      )
    self._is_first = False
    self.start(step)
    return rate * self._batch


class StopRequest:
  """Turns the first Ctrl-C or SIGTERM into a request to stop after this loop.

  A second signal has its usual effect. Use this class as a context manager.

  Attributes:
    reason: Name of the signal that this process received, or None.
  """

  def __init__(self):
    self.reason = None
    self._previous = {}

  def __enter__(self):
    for number in (signal.SIGINT, signal.SIGTERM):
      self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *unused):
    self._restore()

  def agreed(self, strategy: tf.distribute.Strategy) -> str | None:
    """Returns the signal for which all workers stop now, or None.

    Args:
      strategy: Strategy of the workers, which all call this between the same
        two steps.

    Returns:
      The signal of the first worker that received one, such as `SIGTERM` or
      `SIGTERM (worker 1)`; None if no worker did.
    """
    number = 0 if self.reason is None else signal.Signals[self.reason].value
    numbers = collectives.gather_from_workers(strategy, number)
    for worker, number in enumerate(numbers):
      if number:
        name = signal.Signals(number).name
        return name if len(numbers) == 1 else f'{name} (worker {worker})'
    return None

  def _restore(self):
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def _handle(self, number, unused_frame):
    self.reason = signal.Signals(number).name
    logging.warning(
      '%s: saving a checkpoint after the current steps; a second signal stops '
      'immediately.',
      self.reason,
    )
    self._restore()
