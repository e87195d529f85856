"""What a run tells people and TensorBoard, and how it is asked to stop."""

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

# The share of the time that the devices may wait for data unmentioned.
_MAX_INPUT_WAIT = 0.1


class Progress:
  """Prints a line of progress for people.

  When the devices wait for data, the line gives the share of the time, and the
  first time a warning says which side is the slower one.

  Args:
    train_steps: The last step.
    global_batch_size: Clips of a batch, over all replicas.
    interval: Steps between lines.
    progress_metrics: Names of metrics on the line besides the loss.
    stream: Where to print.
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
  ) -> None:
    """Prints a line if one is due.

    Args:
      step: Number of the step.
      metrics: Dictionary of floats, of the steps just done.
      waited: Seconds that these steps waited for data.

    Returns:
      Examples a second since the last line, or None when no line was due.
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
    # The first steps wait until the pipeline is full.
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
        'The input is the slower side: the devices waited for data %.0f %% of '
        'the last %d steps. It gives %.1f examples a second, and they could '
        'take %.1f. Give it more cores, input machines or a cache: '
        'docs/input_pipeline.md.',
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

  A second one acts as if nothing had been installed. Use as a context manager.

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
    """Whether all workers stop now, since one of them was asked to.

    Args:
      strategy: `tf.distribute.Strategy`; all workers call this between the same
        two steps.

    Returns:
      What the first worker that was asked received, such as `SIGTERM` or
      `SIGTERM (worker 1)`, or None when none was.
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
      '%s: saving a checkpoint after the steps under way; once more stops at '
      'once.',
      self.reason,
    )
    self._restore()
