"""Evaluates checkpoints: one, all of a run, or those of a run that goes on.

An evaluation is an object such as `retrieval.RetrievalEvaluation`. It has
- `name`, a word for files, and `title`, for people,
- a call, from a model and a data set to metrics, a dictionary that can be
  written as json,
- `scalars(metrics)`, the figures by flat names, a dictionary of floats,
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
    timeout: Seconds without a new checkpoint after which it is an error.
    last_step: The step with whose checkpoint it ends; None: it ends with the
      timeout alone.
    interval: Seconds between the lines that say what is waited for.
  """

  timeout: float = 3600.0
  last_step: int | None = None
  interval: float = 30.0


class Result(NamedTuple):
  """What was found of one checkpoint.

  Attributes:
    path: The checkpoint's prefix, or None: the weights are random.
    step: Or None where the name of the checkpoint does not say it.
    is_average: The averages of the weights were used.
    findings: List of evaluations, each with its metrics.
    model: The model, with the checkpoint's weights until the next result.
    dataset: The data set.
  """

  path: str | None
  step: int | None
  is_average: bool
  findings: list[tuple[Any, dict]]
  model: Any
  dataset: Any

  def tables(self) -> list[str]:
    """A title and a table for each evaluation: a list of pairs of strings."""
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
    """What is written as json: a dictionary, with the metrics by name."""
    found = {
      'checkpoint': self.path,
      'step': self.step,
      'ema': self.is_average,
      'random_weights': self.path is None,
    }
    found.update(_by_name(self.findings))
    return found

  def scalars(self) -> dict[str, float]:
    """The figures of all evaluations by flat names: a dictionary of floats."""
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
  """The metrics by the names of their evaluations, the second of one name
  being `NAME_2`."""
  found = {}
  for evaluation, metrics in findings:
    name, number = evaluation.name, 1
    while name in found:
      number += 1
      name = f'{evaluation.name}_{number}'
    found[name] = metrics
  return found


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
    task: The task that the model was trained for, which builds it.
    dataset: `make_dataset` in the scope of held-out data.
    evaluation: What to evaluate, or a list of it; None: `RetrievalEvaluation`.
    batch_size: Rows of a batch.
    output: Path of a json file to write, or None. It is written anew after each
      checkpoint.
    use_ema: Evaluate the averages of the weights, where the checkpoint has some
      (`make_optimizer.ema_decay`); False for the weights of the last step.
    which: `newest`, or `all` checkpoints of a run, in the order of their steps.
    follow: `Follow`, to evaluate also those that the run is still to write; or
      None.
    event_dir: Where TensorBoard events go, or None.
    allow_random_weights: Bool. Evaluate a model without a checkpoint.
    on_result: Called with each `Result` as it comes, or None.

  Returns:
    (metrics, path) of the last checkpoint: what the evaluation gave (of several
    evaluations a dictionary by their names), and the checkpoint's prefix.

  Raises:
    ValueError: No checkpoint, a checkpoint of another model, or no records.
    TimeoutError: A run that is followed writes no more checkpoints.
  """
  if evaluation is None:
    evaluation = retrieval.RetrievalEvaluation()
  several = isinstance(evaluation, list | tuple)
  evaluations = list(evaluation) if several else [evaluation]
  if not evaluations:
    raise ValueError('`evaluation` must be one, or a list of some.')
  if (checkpoint is None) != allow_random_weights:
    raise ValueError(
      'Give a checkpoint, whose weights are evaluated; or none, and '
      '`allow_random_weights` to evaluate a model that has not learned '
      f'anything. Received: checkpoint={checkpoint!r}, '
      f'allow_random_weights={allow_random_weights}'
    )
  paths = _paths(checkpoint, which, follow)
  if follow is None:
    paths = list(paths)  # what is missing is found before the work
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
    findings = [(one, one(built, examples)) for one in evaluations]
    step = None if path is None else folders.step_of(path)
    result = Result(path, step, is_average, findings, built, examples)
    results.append(result.as_dict())
    if writer is not None:
      with writer.as_default(step or 0):
        for name, value in result.scalars().items():
          tf.summary.scalar(name, value)
      writer.flush()
    if output is not None:
      found = results[0]
      if which == ALL or follow is not None:
        found = {'checkpoints': results}
      file_utils.write_text(output, json.dumps(found, indent=2) + '\n')
    if on_result is not None:
      on_result(result)
  if not results:
    raise ValueError(
      f'No checkpoint of {checkpoint} was left to evaluate: all were deleted '
      'before their turn. Keep more of them (`train.keep_checkpoints`).'
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
  found = checkpoints_of(checkpoint)
  if not found:
    raise ValueError(
      f'There are no whole checkpoints ckpt-N in {checkpoint}. Name the '
      'directory of a run.'
    )
  return found


def checkpoints_of(directory: str) -> list[str]:
  """All whole checkpoints of a run.

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
  """The checkpoints of a run, those that are there and those that come."""
  done, step = set(), None

  def find():
    try:
      found = checkpoints_of(directory)
    except OSError as e:  # of a network, which may come back in time
      logging.warning('%s', e)
      found = []
    return [path for path in found if path not in done]

  while follow.last_step is None or step is None or step < follow.last_step:
    what = f'a checkpoint in {directory}'
    if step is not None:
      what += f' after that of step {step}'
      if follow.last_step is not None:
        what += f' (the last is {follow.last_step})'
    path = wait_for(find, what, follow.timeout, follow.interval)[0]
    done.add(path)
    yield path
    step = folders.step_of(path)


def wait_for(
  find: Callable[[], Any], what: str, timeout: float, interval: float = 30.0
) -> Any:
  """Waits, and says so.

  Args:
    find: Callable without arguments; it is asked again and again until what it
      returns is true.
    what: What is waited for.
    timeout: Seconds to wait at most.
    interval: Seconds between the lines printed; the first comes at once.

  Returns:
    What `find` returned.

  Raises:
    TimeoutError: It took too long.
  """
  start, due = time.monotonic(), 0.0
  while not (found := find()):
    waited = time.monotonic() - start
    if waited >= timeout:
      raise TimeoutError(
        f'There was no {what.removeprefix("a ")} within {timeout:.0f} s. If '
        'the run still goes on, wait longer (--timeout).'
      )
    if waited >= due:
      print(
        f'Waiting for {what}: {waited:.0f} s of {timeout:.0f} s at most.',
        flush=True,
      )
      due = waited + interval
    time.sleep(_POLL_SECONDS)
  return found
