"""Checkpoints of a run: restored whole or refused, kept last N and best."""

import collections
import math
import os
from typing import Any

from absl import logging
import orbit
import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import (
  ema,
  folders,
  own_vatt,
  released_names,
  released_vatt,
  reports,
  weight_sources,
)
from vatt_tf.core import file_utils
from vatt_tf.models import classification

_HEAD = 'logits'  # of a classifier: the part that a fine-tuning begins anew


def restore(
  checkpoint: tf.train.Checkpoint, path: str, expect_optimizer: bool = True
) -> None:
  """Restores every variable, or says what does not fit.

  Args:
    checkpoint: `tf.train.Checkpoint` over objects whose variables exist.
    path: The checkpoint's prefix, `…/ckpt-N`.
    expect_optimizer: False to take the model alone from a training checkpoint.

  Raises:
    ValueError: When the file cannot be read, or a variable is missing or has
      another shape: the checkpoint is another model's.
  """
  try:
    status = checkpoint.restore(file_utils.literal_path(path))
    status.assert_existing_objects_matched()
    if expect_optimizer:
      status.assert_consumed()
    else:
      status.expect_partial()
  except (AssertionError, ValueError, KeyError) as error:
    raise ValueError(
      f'The checkpoint {path} was written by another model or optimizer than '
      'the gin files describe. First difference: '
      f'{file_utils.reason(error)}. Train with the gin file that wrote it '
      '(config.gin beside it), or give a new --model_dir.'
    ) from error
  except (tf.errors.OpError, OSError, IndexError) as error:
    # The C++ reader's out-of-range status arrives as an IndexError.
    raise ValueError(
      f'The checkpoint {path} cannot be read: {file_utils.reason(error)}. '
      'If the file is damaged, delete the files of this checkpoint: the one '
      'before is used then.'
    ) from error
  if hasattr(checkpoint, 'model'):
    reports.mark_tables_filled(checkpoint.model)


def restore_model(
  model: tf_keras.Model, path: str, use_ema: bool = True
) -> list[str]:
  """Restores a model from a checkpoint, for whatever uses one.

  Args:
    model: A built `tf_keras.Model`; call this in its strategy's scope.
    path: The prefix of a training checkpoint, `…/ckpt-N`, or of one of the
      released VATT.
    use_ema: Take the averages of the weights, where the checkpoint has some;
      False for the weights of the last step.

  Returns:
    Whether averages were taken.

  Raises:
    ValueError: As `restore`, or as `released_vatt.load`; or a classifier is
      asked of a checkpoint without classes.
  """
  source = weight_sources.open_source(path)
  if released_names.is_released(source.shapes):
    report = released_vatt.load(model, source)
    if _new_parts(report).get(_HEAD):
      raise ValueError(
        f'{path} is pre-trained, and has no classes: a classifier of it would '
        'guess. Fine-tune one first, from this file as INIT_CHECKPOINT.'
      )
    return False
  restore(tf.train.Checkpoint(model=model), path, expect_optimizer=False)
  return use_ema and ema.restore_average(model, path)


def initialize(
  model: tf_keras.Model, path: str, use_ema: bool = True
) -> list[str]:
  """Starts a model from a checkpoint, which may be another model's.

  As `restore_model`, but a classifier also starts from what was pre-trained,
  or from a classifier of other classes. All of its tower must be there; then
  its map to classes alone keeps its initial values.

  Args:
    model: A built `vatt.VATT` or `classification.Classifier`; call this in its
      strategy's scope.
    path: As of `restore_model`.
    use_ema: As of `restore_model`.

  Returns:
    List of strings, lines for the user: the parts of the model that keep their
    initial values, with the number of their weights and why.

  Raises:
    ValueError: As `restore_model`, or a part of the tower is not there or has
      another shape, naming the first.
  """
  is_classifier = isinstance(model, classification.Classifier)
  source = weight_sources.open_source(path)
  if released_names.is_released(source.shapes):
    report = released_vatt.load(model, source, allow_new_classes=True)
  elif is_classifier:
    report = own_vatt.load(model, source, use_ema)
  else:
    restore_model(model, path, use_ema)
    return []
  new = _new_parts(report)
  lines = [
    f'{part}: new, {count:,} weights ({why})'
    for part, (count, why) in new.items()
  ]
  if is_classifier and _HEAD not in new:
    lines.append(
      f'{_HEAD}: from the checkpoint, whose number of classes is the same'
    )
  return lines


def _new_parts(report):
  """Parts that keep their initial values: name to number of weights and why."""
  counts, reasons = collections.Counter(), {}
  for row in report.rows:
    if row.status == 'new':
      part = row.target.split('/')[1]
      counts[part] += math.prod(row.shape)
      reasons[part] = row.how
  return {part: (count, reasons[part]) for part, count in counts.items()}


def latest(model_dir: str) -> str | None:
  """The checkpoint that a run goes on from.

  Args:
    model_dir: A run's directory; it need not exist.

  Returns:
    The prefix of its newest whole checkpoint `…/ckpt-N`, or else of the one in
    `model_dir/best`; None where there is neither.

  Raises:
    ValueError: There are checkpoints, and none that is whole.
    OSError: The directory cannot be read or reached.
  """
  path = folders.newest(model_dir)
  if path is None:
    path = folders.newest(best_directory(model_dir))
    if path is not None:
      logging.warning(
        'There is no checkpoint in %s but the best one: %s', model_dir, path
      )
  return path


def best_directory(model_dir: str) -> str:
  """Where the checkpoint of a run's best evaluation lies."""
  return os.path.join(model_dir, 'best')


def resolve(path: str) -> str:
  """The checkpoint that a user means.

  Args:
    path: A `model_dir` (its newest whole checkpoint is taken), a folder that
      holds one checkpoint of the released VATT, or a checkpoint's prefix
      `…/ckpt-N` or one of its files.

  Returns:
    The prefix.

  Raises:
    ValueError: When there is no whole checkpoint there.
    OSError: What holds it cannot be read or reached.
  """
  path = file_utils.expand(path)
  if tf.io.gfile.isdir(path):
    prefix = folders.newest(path)
    if prefix is None:
      raise ValueError(
        f'There is no checkpoint in {path}. Train first with `python -m '
        'vatt_tf.train --gin_file=… --model_dir=…`, or name the directory of a '
        'run that has one.'
      )
    return prefix
  prefix = folders.strip_file(path)
  if file_utils.exists(prefix + folders.INDEX):
    return prefix
  raise ValueError(
    f'There is no checkpoint at {path}: neither a directory nor a prefix '
    'such as runs/NAME/ckpt-1000 (the name without .index).'
  )


class Manager(tf.train.CheckpointManager):
  """A checkpoint manager that writes and restores whole or not at all.

  It is one of TensorFlow's since orbit wants one. That would take the names of
  directories for patterns when it deletes, and know of no checkpoint that the
  file `checkpoint` does not name; `folders` does both here.

  Args:
    checkpoint: `tf.train.Checkpoint`.
    directory: Where this process writes.
    max_to_keep: How many of the newest stay.
    step_counter: The `tf.Variable` that counts the steps.
    checkpoint_interval: A checkpoint is due when the steps pass a multiple of
      it; None: whenever it is asked for.
    restore_path: Prefix of the checkpoint to restore, or None.

  Raises:
    ValueError: `max_to_keep` is less than 1.
  """

  def __init__(
    self,
    checkpoint: tf.train.Checkpoint,
    directory: str,
    max_to_keep: int,
    step_counter: tf.Variable,
    checkpoint_interval: int | None = None,
    restore_path: str | None = None,
  ):
    if max_to_keep < 1:
      raise ValueError(
        '`keep_checkpoints` must be at least 1. '
        f'Received: keep_checkpoints={max_to_keep}'
      )
    # TensorFlow reads the file `checkpoint` now, and stops at a damaged one.
    folders.repair_state(directory, newest=restore_path)
    super().__init__(
      checkpoint,
      directory,
      max_to_keep,
      step_counter=step_counter,
      checkpoint_interval=checkpoint_interval,
    )
    self._counter = step_counter
    self._num_kept = max_to_keep
    self._restore_path = restore_path
    self._saved_path = restore_path
    self._saved_step = None

  @property
  def latest_checkpoint(self) -> str | None:
    """The prefix of what was saved or restored last, or None."""
    return self._saved_path

  @property
  def checkpoints(self) -> list[str]:
    """The prefixes of all that are there, from the oldest to the newest."""
    return folders.find(self.directory)

  def save(
    self,
    checkpoint_number: int | tf.Tensor | None = None,
    check_interval: bool = True,
    options: Any = None,
  ) -> str | None:
    """Saves a checkpoint; one that cannot be written leaves nothing behind.

    Args:
      checkpoint_number: Int or scalar, the N of `ckpt-N`.
      check_interval: Whether to save only where one is due.
      options: `tf.train.CheckpointOptions` or None.

    Returns:
      The checkpoint's prefix, or None where none was due or the step is saved
      already.

    Raises:
      OSError: The disk is full, say. The checkpoint before stays.
    """
    step = int(self._counter.numpy())
    if step == self._saved_step:
      return None
    interval = self.checkpoint_interval
    if check_interval and interval is not None:
      if step // interval == (self._saved_step or 0) // interval:
        return None
    if checkpoint_number is None:
      checkpoint_number = step
    try:
      path = folders.save(
        self.checkpoint,
        self.directory,
        int(tf.convert_to_tensor(checkpoint_number)),
        self._num_kept,
        options,
      )
    except (tf.errors.OpError, OSError) as error:
      folders.remove_leftovers(self.directory, log=False)
      last = self.latest_checkpoint
      stays = f'{last} stays' if last else 'There is none from before'
      raise OSError(
        f'A checkpoint cannot be written to {self.directory}: '
        f'{file_utils.reason(error)}. {stays}. Make room there (a '
        'checkpoint is written before the oldest is deleted), or keep fewer '
        'of them (`train.keep_checkpoints`); then the same command goes on.'
      ) from error
    self._saved_step, self._saved_path = step, path
    return path

  def restore_or_initialize(self) -> str | None:
    """Restores the checkpoint to go on from, if there is one.

    Returns:
      The checkpoint's prefix, or None where there was none.

    Raises:
      ValueError: When the checkpoint is another model's.
    """
    if self._restore_path is not None:
      restore(self.checkpoint, self._restore_path)
      self._saved_step = int(self._counter.numpy())
    return self._restore_path


class BestCheckpoint:
  """An orbit action that keeps the checkpoint of the best evaluation.

  Args:
    checkpoint: `tf.train.Checkpoint`.
    model_dir: The run's directory; the best goes to `model_dir/best`.
    metric: Name of the metric, higher is better.
    global_step: `tf.Variable`.
    worker_dir: Name of the directory that this process writes to beside the
      chief's checkpoint; '': this is the chief, which writes the score too.
  """

  def __init__(
    self,
    checkpoint: tf.train.Checkpoint,
    model_dir: str,
    metric: str,
    global_step: tf.Variable,
    worker_dir: str = '',
  ):
    directory = best_directory(model_dir)
    self._metric = metric
    self._global_step = global_step
    score_path = os.path.join(directory, 'best_metric.json')
    try:
      self._is_better = orbit.actions.NewBestMetric(
        metric, filename=score_path, write_metric=not worker_dir
      )
    except ValueError as e:
      raise ValueError(
        f'{score_path}, the score of the best checkpoint, is damaged: {e}. '
        'Write the score to it, a number, or delete it: the next evaluation is '
        'the best then.'
      ) from e
    self._manager = Manager(
      checkpoint,
      os.path.join(directory, worker_dir),
      max_to_keep=1,
      step_counter=global_step,
    )

  def __call__(self, metrics):
    """Saves the checkpoint when the metric is the best so far.

    Args:
      metrics: Dictionary of floats.

    Raises:
      ValueError: When the metric is not among them.
    """
    if self._metric not in metrics:
      raise ValueError(
        f'`best_metric` must be one of {", ".join(sorted(metrics))}. '
        f'Received: best_metric={self._metric}'
      )
    if self._is_better.test(metrics):
      self._manager.save(checkpoint_number=self._global_step)
      self._is_better.commit(metrics)
