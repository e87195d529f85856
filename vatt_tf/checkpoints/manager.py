"""Saves and restores the checkpoints of a run, the last N and the best."""

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
from vatt_tf.models import single_tower

_HEAD = 'logits'  # the map to classes, which fine-tuning initializes


def restore(
  checkpoint: tf.train.Checkpoint, path: str, expect_optimizer: bool = True
) -> None:
  """Restores every variable, or raises an error that names what does not fit.

  Args:
    checkpoint: `tf.train.Checkpoint` of objects whose variables exist.
    path: Prefix of the checkpoint, `…/ckpt-N`.
    expect_optimizer: Whether all of the checkpoint must be restored, not only
      the model.

  Raises:
    ValueError: The file cannot be read; or a variable is missing or has another
      shape, because the checkpoint belongs to another model.
  """
  try:
    status = checkpoint.restore(file_utils.literal_path(path))
    status.assert_existing_objects_matched()
    if expect_optimizer:
      status.assert_consumed()
    else:
      status.expect_partial()
  except (AssertionError, ValueError, KeyError) as error:
    names = folders.open_reader(path).get_variable_to_shape_map()
    has_optimizer = any(name.startswith('optimizer/') for name in names)
    if hasattr(checkpoint, 'optimizer') and not has_optimizer:
      raise ValueError(
        f'The checkpoint {path} has weights alone, so no run can resume from '
        'it: give it as INIT_CHECKPOINT, with another --model_dir.'
      ) from error
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
      'If the file is damaged, delete the files of this checkpoint, and the '
      'previous one is used.'
    ) from error
  if hasattr(checkpoint, 'model'):
    reports.mark_tables_filled(checkpoint.model)


def restore_model(
  model: tf_keras.Model, path: str, use_ema: bool = True
) -> bool:
  """Restores a model from a checkpoint, for evaluation, export and the like.

  Args:
    model: A built `tf_keras.Model`. Call this in its strategy's scope.
    path: Prefix of a training checkpoint, `…/ckpt-N`, or of a checkpoint of the
      released VATT.
    use_ema: Whether to use the averages of the weights where the checkpoint has
      them, not the weights of the last step.

  Returns:
    Whether averages were used.

  Raises:
    ValueError: `restore` or `released_vatt.load` raises it; or the model is a
      classifier or detector and the checkpoint has no classes.
  """
  source = weight_sources.open_source(path)
  if released_names.is_released(source.shapes):
    report = released_vatt.load(model, source)
    if _new_parts(report).get(_HEAD):
      raise ValueError(
        f'{path} is a pre-trained checkpoint and has no classes. Fine-tune a '
        'classifier first, with this file as INIT_CHECKPOINT.'
      )
    return False
  restore(tf.train.Checkpoint(model=model), path, expect_optimizer=False)
  return use_ema and ema.restore_average(model, path)


def initialize(
  model: tf_keras.Model, path: str, use_ema: bool = True
) -> list[str]:
  """Initializes a model from a checkpoint, which may be of another model.

  This works like `restore_model`, but a classifier or detector may also start
  from a pre-trained model, or from one of other classes. The checkpoint must
  have the whole tower; only what follows it then keeps its initial values.

  Args:
    model: A built `vatt.VATT`, `classification.Classifier` or
      `detection.Detector`. Call this in its strategy's scope.
    path: See `restore_model`.
    use_ema: See `restore_model`.

  Returns:
    Lines for the user: the parts of the model that keep their initial values,
    with the number of their weights and the reason.

  Raises:
    ValueError: `restore_model` raises it, or a part of the tower is missing or
      has another shape; the message names the first.
  """
  has_one_tower = isinstance(model, single_tower.SingleTowerModel)
  source = weight_sources.open_source(path)
  if released_names.is_released(source.shapes):
    report = released_vatt.load(model, source, allow_new_classes=True)
  elif has_one_tower:
    report = own_vatt.load(model, source, use_ema)
  else:
    restore_model(model, path, use_ema)
    return []
  new = _new_parts(report)
  lines = [
    f'{part}: new, {count:,} weights ({why})'
    for part, (count, why) in new.items()
  ]
  if has_one_tower and _HEAD not in new:
    lines.append(
      f'{_HEAD}: from the checkpoint, whose number of classes is the same'
    )
  return lines


def _new_parts(report):
  """The number of weights, and the reason, of parts with initial values."""
  counts, reasons = collections.Counter(), {}
  for row in report.rows:
    if row.status == 'new':
      part = row.target.split('/')[1]
      counts[part] += math.prod(row.shape)
      reasons[part] = row.how
  return {part: (count, reasons[part]) for part, count in counts.items()}


def latest(model_dir: str) -> str | None:
  """Returns the checkpoint that a run resumes from.

  Args:
    model_dir: A run's directory, which need not exist.

  Returns:
    The prefix of its newest complete checkpoint `…/ckpt-N`, or else of the one
    in `model_dir/best`; None without either.

  Raises:
    ValueError: There are checkpoints, but no complete one.
    OSError: The directory cannot be read or reached.
  """
  path = folders.newest(model_dir)
  if path is None:
    path = folders.newest(best_directory(model_dir))
    if path is not None:
      logging.warning(
        'The only checkpoint in %s is the best one: %s', model_dir, path
      )
  return path


def best_directory(model_dir: str) -> str:
  """Returns the folder of the checkpoint of a run's best evaluation."""
  return os.path.join(model_dir, 'best')


def resolve(path: str) -> str:
  """Returns the checkpoint that a path refers to.

  Args:
    path: A `model_dir` (for its newest complete checkpoint), a folder with one
      checkpoint of the released VATT, or a checkpoint's prefix `…/ckpt-N` or
      one of its files.

  Returns:
    The prefix.

  Raises:
    ValueError: There is no complete checkpoint at the path.
    OSError: The path cannot be read or reached.
  """
  path = file_utils.expand(path)
  if tf.io.gfile.isdir(path):
    prefix = folders.newest(path)
    if prefix is None:
      raise ValueError(
        f'There is no checkpoint in {path}. Train first with `python -m '
        'vatt_tf.train --gin_file=… --model_dir=…`, or give the directory of a '
        'run that has one.'
      )
    return prefix
  prefix = folders.strip_file(path)
  if file_utils.exists(prefix + folders.INDEX):
    return prefix
  raise ValueError(
    f'There is no checkpoint at {path}: it is neither a directory nor a prefix '
    'such as runs/NAME/ckpt-1000 (the name without .index).'
  )


class Manager(tf.train.CheckpointManager):
  """A checkpoint manager that saves and restores completely or not at all.

  It extends TensorFlow's manager, which orbit requires. TensorFlow's own would
  treat the names of directories as patterns when it deletes, and would not know
  a checkpoint that the file `checkpoint` does not name; `folders` does both
  here.

  Args:
    checkpoint: Checkpoint to save and restore.
    directory: Folder that this process writes to.
    max_to_keep: Number of the newest checkpoints to keep.
    step_counter: Variable that counts the steps.
    checkpoint_interval: Number of steps; a checkpoint is due when the steps
      pass a multiple of it. None means that every call saves.
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
    # TensorFlow reads the file `checkpoint` now, and fails if it is damaged.
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
    """Prefix of the checkpoint that was saved or restored last, or None."""
    return self._saved_path

  @property
  def checkpoints(self) -> list[str]:
    """Prefixes of all checkpoints, from the oldest to the newest."""
    return folders.find(self.directory)

  def save(
    self,
    checkpoint_number: int | tf.Tensor | None = None,
    check_interval: bool = True,
    options: Any = None,
  ) -> str | None:
    """Saves a checkpoint, and leaves no partial files if that fails.

    Args:
      checkpoint_number: The N of `ckpt-N`.
      check_interval: Whether to save only when a checkpoint is due.
      options: `tf.train.CheckpointOptions` or None.

    Returns:
      The checkpoint's prefix; None if none was due or the step is already
      saved.

    Raises:
      OSError: The checkpoint cannot be written, for example because the disk is
        full. The previous checkpoint is kept.
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
      previous = (
        f'{last} is kept' if last else 'There is no previous checkpoint'
      )
      raise OSError(
        f'A checkpoint cannot be written to {self.directory}: '
        f'{file_utils.reason(error)}. {previous}. Free some space (a '
        'checkpoint is written before the oldest is deleted), or keep fewer '
        'checkpoints (`train.keep_checkpoints`); then rerun the same command '
        'to resume.'
      ) from error
    self._saved_step, self._saved_path = step, path
    return path

  def restore_or_initialize(self) -> str | None:
    """Restores the checkpoint to resume from, if there is one.

    Returns:
      The checkpoint's prefix, or None without one.

    Raises:
      ValueError: The checkpoint belongs to another model.
    """
    if self._restore_path is not None:
      restore(self.checkpoint, self._restore_path)
      self._saved_step = int(self._counter.numpy())
    return self._restore_path


class BestCheckpoint:
  """An orbit action that keeps the checkpoint of the best evaluation.

  Args:
    checkpoint: Checkpoint to save.
    model_dir: The run's directory; the best goes to `model_dir/best`.
    metric: Name of the metric, higher is better.
    global_step: Variable that counts the steps.
    worker_dir: Name of the directory that this process writes to beside the
      chief's checkpoint; empty for the chief, which also writes the score.
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
        'Write the score, a number, to it; or delete it, and the next '
        'evaluation counts as the best.'
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
      ValueError: The metric is not among them.
    """
    if self._metric not in metrics:
      raise ValueError(
        f'`best_metric` must be one of {", ".join(sorted(metrics))}. '
        f'Received: best_metric={self._metric}'
      )
    if self._is_better.test(metrics):
      self._manager.save(checkpoint_number=self._global_step)
      self._is_better.commit(metrics)
