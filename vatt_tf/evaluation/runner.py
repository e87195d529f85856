"""Evaluates one checkpoint, all of a run, or those of a run that is training.

An evaluation is an object such as `retrieval.RetrievalEvaluation`. It has
- `name`, a word for files, and `title`, for people,
- a call, from a model and a data set to metrics, a dictionary that can be
  written as JSON,
- `scalars(metrics)`, the scalar metrics by flat names, a dictionary of floats,
- `format_table(metrics)`, text for people.
"""

from collections.abc import Callable
import json
import time
from typing import Any, NamedTuple

from absl import logging
import gin
import tensorflow as tf

from vatt_tf.checkpoints import folders, manager
from vatt_tf.core import file_utils
from vatt_tf.evaluation import retrieval

NEWEST = 'newest'
ALL = 'all'

_POLL_SECONDS = 1.0


class Follow(NamedTuple):
  """How a run is evaluated while it is training.

  Attributes:
    timeout: Longest time without a new checkpoint, in seconds.
    last_step: Step of the last checkpoint to evaluate. None means to wait until
      the timeout.
    interval: Seconds between the lines that tell what is awaited.
  """

  timeout: float = 3600.0
  last_step: int | None = None
  interval: float = 30.0


class Result(NamedTuple):
  """Metrics of one checkpoint.

  Attributes:
    path: Prefix of the checkpoint. None means that the weights are random.
    step: Step of the checkpoint, or None if its name does not contain it.
    is_average: Whether the averages of the weights were used.
    findings: Evaluations, each with its metrics.
    model: Model, with the checkpoint's weights until the next result.
    dataset: Data set that was evaluated.
  """

  path: str | None
  step: int | None
  is_average: bool
  findings: list[tuple[Any, dict]]
  model: Any
  dataset: Any

  def tables(self) -> list[str]:
    """Returns a pair of title and table for each evaluation."""
    return [
      (self._title(evaluation), evaluation.format_table(metrics))
      for evaluation, metrics in self.findings
    ]

  def _title(self, evaluation):
    if self.path is None:
      return f'RANDOM WEIGHTS: {evaluation.title}'
    step = 'step unknown' if self.step is None else f'step {self.step}'
    weights = ', averaged weights' if self.is_average else ''
    return f'{evaluation.title}, {step}{weights}, {self.path}'

  def as_dict(self) -> dict[str, Any]:
    """Returns the content of the JSON file, with the metrics by name."""
    content = {
      'checkpoint': self.path,
      'step': self.step,
      'ema': self.is_average,
      'random_weights': self.path is None,
    }
    content.update(_by_name(self.findings))
    return content

  def scalars(self) -> dict[str, float]:
    """Returns the scalar metrics of all evaluations by flat names."""
    if len(self.findings) == 1:
      evaluation, metrics = self.findings[0]
      return evaluation.scalars(metrics)
    names = _by_name(self.findings)
    return {
      f'{name}/{key}': value
      for name, (evaluation, metrics) in zip(names, self.findings)
      for key, value in evaluation.scalars(metrics).items()
    }


def _by_name(findings):
  """The metrics by the names of their evaluations; the second evaluation of a
  name is `NAME_2`."""
  metrics_by_name = {}
  for evaluation, metrics in findings:
    name, number = evaluation.name, 1
    while name in metrics_by_name:
      number += 1
      name = f'{evaluation.name}_{number}'
    metrics_by_name[name] = metrics
  return metrics_by_name


@gin.configurable
def evaluate(
  checkpoint: str,
  task: Any = gin.REQUIRED,
  dataset: Callable[..., tf.data.Dataset] = gin.REQUIRED,
  evaluation: Any = None,
  batch_size: int = 32,
  output: str | None = None,
  use_ema: bool = True,
  which: str = NEWEST,
  follow: bool | None = None,
  event_dir: str | None = None,
  allow_random_weights: bool = False,
  on_result: Callable[..., None] | None = None,
) -> Any:
  """Evaluates one or several checkpoints on held-out clips.

  Args:
    checkpoint: A run's `model_dir`, or a checkpoint's prefix; None with
      `allow_random_weights`.
    task: Task that the model was trained for, which builds it.
    dataset: `make_dataset` in the scope of held-out data.
    evaluation: Evaluation, or a list of evaluations. None means
      `RetrievalEvaluation`.
    batch_size: Rows per batch.
    output: Path of a JSON file, which is rewritten after each checkpoint, or
      None.
    use_ema: Whether to evaluate the averages of the weights where the
      checkpoint has them (`make_optimizer.ema_decay`), not the weights of the
      last step.
    which: `newest`, or `all` checkpoints of a run, in the order of their steps.
    follow: `Follow`, to evaluate also the checkpoints that the run has yet to
      write; or None.
    event_dir: Directory of TensorBoard events, or None.
    allow_random_weights: Whether to evaluate a model without a checkpoint.
    on_result: Function that is called with each `Result`, or None.

  Returns:
    (metrics, path) of the last checkpoint: its metrics (with several
    evaluations, a dictionary by their names), and its prefix.

  Raises:
    ValueError: There is no checkpoint or no record, or the checkpoint belongs
      to another model.
    TimeoutError: A run that is followed writes no more checkpoints.
  """
  if evaluation is None:
    evaluation = retrieval.RetrievalEvaluation()
  several = isinstance(evaluation, list | tuple)
  evaluations = list(evaluation) if several else [evaluation]
  if not evaluations:
    raise ValueError(
      '`evaluation` must be an evaluation, or a list of at least one. '
      f'Received: evaluation={evaluation!r}'
    )
  if (checkpoint is None) != allow_random_weights:
    raise ValueError(
      'Give either a checkpoint to evaluate, or `allow_random_weights` to '
      'evaluate a model with random weights. '
      f'Received: checkpoint={checkpoint!r}, '
      f'allow_random_weights={allow_random_weights}'
    )
  paths = _paths(checkpoint, which, follow)
  if follow is None:
    paths = list(paths)  # a missing checkpoint is an error before the work
  examples = dataset(global_batch_size=batch_size)
  built = task.build_model()
  writer = (
    None if event_dir is None else tf.summary.create_file_writer(event_dir)
  )
  results = []
  for path in paths:
    is_average = False
    if path is not None:
      try:
        is_average = manager.restore_model(built, path, use_ema)
      except ValueError:
        if tf.io.gfile.exists(f'{path}.index'):
          raise
        logging.warning('%s was deleted before it was evaluated.', path)
        continue
    findings = [
      (evaluate, evaluate(built, examples)) for evaluate in evaluations
    ]
    step = None if path is None else folders.step_of(path)
    result = Result(path, step, is_average, findings, built, examples)
    results.append(result.as_dict())
    if writer is not None:
      with writer.as_default(step or 0):
        for name, value in result.scalars().items():
          tf.summary.scalar(name, value)
      writer.flush()
    if output is not None:
      content = results[0]
      if which == ALL or follow is not None:
        content = {'checkpoints': results}
      file_utils.write_text(output, json.dumps(content, indent=2) + '\n')
    if on_result is not None:
      on_result(result)
  if not results:
    raise ValueError(
      f'Every checkpoint of {checkpoint} was deleted before it was evaluated. '
      'Keep more of them (`train.keep_checkpoints`).'
    )
  metrics = findings[0][1]
  if several:
    metrics = _by_name(findings)
  return metrics, path


def _paths(checkpoint, which, follow):
  """The prefixes of the checkpoints to evaluate, one after the other."""
  if which not in (NEWEST, ALL):
    raise ValueError(
      f'`which` must be one of {NEWEST}, {ALL}. Received: which={which!r}'
    )
  if checkpoint is None:
    return [None]
  if follow is not None:
    return _followed(checkpoint, follow)
  if which == NEWEST:
    return [manager.resolve(checkpoint)]
  paths = checkpoints_of(checkpoint)
  if not paths:
    raise ValueError(
      f'There are no complete checkpoints ckpt-N in {checkpoint}. Name the '
      'directory of a run.'
    )
  return paths


def checkpoints_of(directory: str) -> list[str]:
  """Returns all complete checkpoints of a run.

  Args:
    directory: A run's `model_dir`; it need not exist.

  Returns:
    List of prefixes `…/ckpt-N` in the order of their steps.

  Raises:
    OSError: The directory cannot be read or reached.
  """
  return [
    path
    for path in folders.find(directory)
    if folders.step_of(path) is not None
    and folders.find_fault(path, read=False) is None
  ]


def _followed(directory, follow):
  """The checkpoints of a run, those that exist and those that it writes."""
  evaluated, step = set(), None

  def find():
    try:
      paths = checkpoints_of(directory)
    except OSError as e:  # a network file system may become reachable again
      logging.warning('%s', e)
      paths = []
    return [path for path in paths if path not in evaluated]

  while follow.last_step is None or step is None or step < follow.last_step:
    awaited = f'a checkpoint in {directory}'
    if step is not None:
      awaited += f' after that of step {step}'
      if follow.last_step is not None:
        awaited += f' (the last is {follow.last_step})'
    path = wait_for(find, awaited, follow.timeout, follow.interval)[0]
    evaluated.add(path)
    yield path
    step = folders.step_of(path)


def wait_for(
  find: Callable[[], Any], what: str, timeout: float, interval: float = 30.0
) -> Any:
  """Waits until a function returns something, and prints that it waits.

  Args:
    find: Function without arguments, called until its value is true.
    what: Description of what is awaited, for messages.
    timeout: Longest time to wait, in seconds.
    interval: Seconds between the lines; the first is printed immediately.

  Returns:
    The value of `find`.

  Raises:
    TimeoutError: The value was not true within `timeout`.
  """
  start, next_line = time.monotonic(), 0.0
  while not (value := find()):
    waited = time.monotonic() - start
    if waited >= timeout:
      raise TimeoutError(
        f'There was no {what.removeprefix("a ")} within {timeout:.0f} s. If '
        'the run is still training, wait longer (--timeout).'
      )
    if waited >= next_line:
      print(
        f'Waiting for {what}: {waited:.0f} s of {timeout:.0f} s at most.',
        flush=True,
      )
      next_line = waited + interval
    time.sleep(_POLL_SECONDS)
  return value
