"""The outer loop: builds a run, resumes it, trains, evaluates and saves."""

from collections.abc import Callable
import contextlib
import os
import types
from typing import Any

from absl import logging
import gin
import orbit
from orbit import controller as orbit_controller
import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import folders
from vatt_tf.checkpoints import manager as checkpoints
from vatt_tf.core import (
  collectives,
  command_line,
  file_utils,
  gin_utils,
  strategies,
  workers,
)
from vatt_tf.input_pipeline.records import shard_files
from vatt_tf.layers import cross_replica_batch_norm
from vatt_tf.training import gradient_caching, progress
from vatt_tf.training import trainer as trainer_lib

# orbit also prints every line of its log, in between our progress lines.
orbit_controller._log = logging.info  # pylint: disable=protected-access

_PRECISIONS = ('float32', 'mixed_bfloat16', 'mixed_float16')


class Evaluator(orbit.AbstractEvaluator):
  """An evaluation of held-out clips, as an orbit evaluator.

  Args:
    evaluation: An evaluation, such as `RetrievalEvaluation` or
      `ClassificationEvaluation`; `evaluation.runner` describes its interface.
    model: Model to evaluate.
    dataset: Data set of feature dictionaries, which ends after one pass.
    weight_average: Average of the weights to evaluate with, or None for the
      weights themselves.
  """

  def __init__(
    self,
    evaluation: Any,
    model: tf_keras.Model,
    dataset: tf.data.Dataset,
    weight_average: Any = None,
  ):
    self._evaluation = evaluation
    self._model = model
    self._dataset = dataset
    self._weight_average = weight_average
    # TensorFlow wraps dictionaries that are attributes of a module, and JSON
    # cannot write the wrapped ones. A namespace hides the dictionary.
    self._last = types.SimpleNamespace(metrics={})

  @property
  def metrics(self) -> dict[str, Any]:
    """Metrics of the last evaluation."""
    return self._last.metrics

  def evaluate(self, num_steps: int) -> dict[str, float]:
    """Evaluates the whole data set and returns flat metrics.

    Args:
      num_steps: Ignored, because the whole data set is used.

    Returns:
      Scalar metrics by name, such as `text_to_video/R@5`.
    """
    del num_steps
    average = self._weight_average
    with contextlib.nullcontext() if average is None else average.as_weights():
      self._last.metrics = self._evaluation(self._model, self._dataset)
    return self._evaluation.scalars(self.metrics)

  def describe(self, step: int) -> str:
    """Returns the last metrics as text, with the step that they belong to."""
    table = self._evaluation.format_table(self.metrics)
    return f'{self._evaluation.title} at step {step}:\n{table}'


def _one_batch_forever(dataset):
  """A data set that repeats the first batch of a data set."""
  return dataset.take(1).cache().repeat()


def _set_precision(precision):
  if precision not in _PRECISIONS:
    raise ValueError(
      f'`precision` must be one of {", ".join(_PRECISIONS)}. '
      f'Received: precision={precision}'
    )
  tf_keras.mixed_precision.set_global_policy(precision)


def _warn_of_small_batch(model, global_batch_size):
  has_batch_norm = any(
    isinstance(layer, cross_replica_batch_norm.CrossReplicaBatchNormalization)
    for layer in model.submodules
  )
  if has_batch_norm and global_batch_size < 4:
    logging.warning(
      'A global batch of %d is too small for batch normalisation: two clips '
      'normalise to opposite points, and about 1 %% of the gradient passes. '
      'Use 4 (70 %%) or more, such as BATCH_SIZE=4.',
      global_batch_size,
    )


def _check_examples(metrics, step):
  """Raises ValueError if a task counts its examples, and there were none."""
  if metrics.get('examples') == 0:
    raise ValueError(
      f'Up to step {step}, no clip of the last steps had both a class and the '
      'modality that the model classifies (MODALITY). Look at '
      'the records with `python -m vatt_tf.inspect_records`: they need '
      '`clip/label/index`, and frames or sound.'
    )


def _check_counts(**counts):
  """Raises ValueError unless all arguments are positive integers."""
  for name, value in counts.items():
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise ValueError(
        f'`{name}` must be a whole number of at least 1. '
        f'Received: {name}={value!r}'
      )


@gin.configurable
def train(
  model_dir: str,
  task: Any = gin.REQUIRED,
  train_dataset: Callable[..., tf.data.Dataset] = gin.REQUIRED,
  global_batch_size: int = gin.REQUIRED,
  train_steps: int = gin.REQUIRED,
  optimizer: Callable[[], tf_keras.optimizers.Optimizer] = gin.REQUIRED,
  eval_dataset: Callable[..., tf.data.Dataset] | None = None,
  evaluation: Any = None,
  best_metric: str | None = None,
  eval_batch_size: int | None = None,
  eval_interval: int | None = None,
  strategy: str = 'one_device',
  num_devices: int | None = None,
  tpu_name: str | None = None,
  seed: int = 0,
  precision: str = 'float32',
  deterministic: bool = False,
  jit_compile: bool = False,
  steps_per_loop: int = 1,
  log_interval: int = 1,
  checkpoint_interval: int = 1000,
  keep_checkpoints: int = 3,
  init_checkpoint: str | None = None,
  micro_batch_size: int | None = None,
  overfit_one_batch: bool = False,
) -> dict[str, Any]:
  """Trains a model, or resumes an earlier run of `model_dir`.

  Args:
    model_dir: Directory of checkpoints, TensorBoard events and gin files.
    task: Task to optimise, a `PretrainTask` or `FinetuneTask`.
    train_dataset: `make_dataset` in the scope that configures training data.
    global_batch_size: Rows per step, over all replicas.
    train_steps: Step to train up to.
    optimizer: `make_optimizer`: a function without arguments that returns an
      optimizer of `optimizers`. It is called in the strategy's scope.
    eval_dataset: `make_dataset` in the scope of held-out data. None means no
      evaluation, as does a pattern of records that is None.
    evaluation: Evaluation to run on `eval_dataset`, see `Evaluator`.
    best_metric: Scalar metric of the evaluation, higher being better, that
      chooses the checkpoint in `model_dir/best`. None means no such checkpoint.
    eval_batch_size: Rows per batch in evaluation. None means
      `global_batch_size`.
    eval_interval: Steps between evaluations. None means only at the end.
    strategy: Name of a strategy of `strategies.make_strategy`.
    num_devices: Number of devices for `mirrored`.
    tpu_name: Name or gRPC address for `tpu`, or None.
    seed: Seed of the weights, the data order and dropout.
    precision: `float32`, `mixed_bfloat16` or `mixed_float16` (with a loss
      scale; steps whose gradients are not finite are skipped).
    deterministic: Whether TensorFlow must give bit-equal results in repeated
      runs, which takes more time.
    jit_compile: Whether to compile the step with XLA (one replica, or TPU).
    steps_per_loop: Steps that run as one graph.
    log_interval: Steps between progress lines.
    checkpoint_interval: Steps between checkpoints.
    keep_checkpoints: Number of the newest checkpoints to keep.
    init_checkpoint: A `model_dir` or checkpoint prefix whose model weights, or
      their averages if it has them, initialize a new run. A classifier may
      start from the tower of a pre-trained model.
    micro_batch_size: Rows of a replica that the towers take at a time, which
      gives the same gradients in less memory (see `gradient_caching`). None
      means all.
    overfit_one_batch: Whether to train only on the first batch, with the same
      draws of dropout and DropToken in each step. The loss then depends on the
      weights alone and must fall, which checks a new model or data set in
      minutes.

  Returns:
    The last evaluation's metrics, as `evaluation` returns them; empty without
    `eval_dataset`, or if the run was stopped before an evaluation.

  Raises:
    ValueError: An argument is invalid, there are no records, or a checkpoint
      belongs to another model.
    NonFiniteError: A loss or gradient is not finite.
  """
  if eval_dataset is not None and evaluation is None:
    raise ValueError(
      '`eval_dataset` needs an `evaluation`, such as '
      '`train.evaluation = @RetrievalEvaluation()`. Received: '
      'evaluation=None. For no evaluation use train.eval_dataset=None.'
    )
  counts = {
    'global_batch_size': global_batch_size,
    'train_steps': train_steps,
    'steps_per_loop': steps_per_loop,
    'log_interval': log_interval,
    'checkpoint_interval': checkpoint_interval,
    'keep_checkpoints': keep_checkpoints,
  }
  optional = {
    'eval_batch_size': eval_batch_size,
    'eval_interval': eval_interval,
    'micro_batch_size': micro_batch_size,
    'num_devices': num_devices,
  }
  counts.update({name: n for name, n in optional.items() if n is not None})
  _check_counts(**counts)
  # This comes first, because some strategies must be made before TensorFlow
  # runs anything.
  distribution_strategy = strategies.make_strategy(
    strategy, num_devices=num_devices, tpu_name=tpu_name
  )
  _set_precision(precision)
  tf_keras.utils.set_random_seed(seed)
  if deterministic:
    tf.config.experimental.enable_op_determinism()
  rows = strategies.check_batch_divisible(
    global_batch_size, distribution_strategy
  )
  if micro_batch_size is not None:
    gradient_caching.num_micro_batches(rows, micro_batch_size)
  worker = workers.worker_index(distribution_strategy)
  is_chief = not worker

  worker_dir = '' if is_chief else f'worker_{worker}'
  write_dir = model_dir if is_chief else os.path.join(model_dir, worker_dir)
  file_utils.check_writable(write_dir, 'Give another --model_dir.')
  held_out, eval_notes = None, []
  if eval_dataset is not None:
    try:
      held_out = eval_dataset(
        global_batch_size=eval_batch_size or global_batch_size
      )
    except shard_files.NoRecordsError:
      eval_notes = ['No evaluation: EVAL_RECORDS is None.']
  # Resume order: variables exist → the newest checkpoint fills all of them →
  # its step is where the data continues. Random numbers follow from the step.
  restore_path = checkpoints.latest(model_dir)
  step_of_checkpoint = _agreed_step(restore_path, distribution_strategy)

  def dataset_fn(context):
    dataset = train_dataset(
      global_batch_size=global_batch_size,
      seed=seed,
      start_step=0 if overfit_one_batch else step_of_checkpoint,
      input_context=context,
    )
    return _one_batch_forever(dataset) if overfit_one_batch else dataset

  dataset = strategies.distribute(distribution_strategy, dataset_fn)
  with distribution_strategy.scope():
    model = task.build_model()
    _warn_of_small_batch(model, global_batch_size)
    optimizer = optimizer()
    # Slots must exist before the restore, so that a missing one is an error.
    notes = [*eval_notes, *optimizer.prepare(model)]
    applied = optimizer
    if precision == 'mixed_float16':
      applied = tf_keras.mixed_precision.LossScaleOptimizer(optimizer)
  best_dir = checkpoints.best_directory(model_dir)
  for directory in (write_dir, os.path.join(best_dir, worker_dir)):
    folders.remove_leftovers(directory)
  parts = {'model': model, 'optimizer': applied}
  if optimizer.ema is not None:
    parts['ema'] = optimizer.ema.checkpoint
  checkpoint = tf.train.Checkpoint(**parts)
  manager = checkpoints.Manager(
    checkpoint,
    write_dir,
    max_to_keep=keep_checkpoints,
    step_counter=optimizer.iterations,
    checkpoint_interval=checkpoint_interval,
    restore_path=restore_path,
  )
  if init_checkpoint is not None and restore_path is None:
    path = checkpoints.resolve(init_checkpoint)
    with distribution_strategy.scope():
      lines = checkpoints.initialize(model, path)
    notes += [f'Starting from the weights of {path}.', *lines]
    if optimizer.ema is not None:
      optimizer.ema.reset()
  if is_chief:
    gin_utils.write_config(model_dir)

  trainer = trainer_lib.Trainer(
    task,
    model,
    applied,
    dataset,
    distribution_strategy,
    seed,
    jit_compile=jit_compile,
    repeat_draws=overfit_one_batch,
    deterministic=deterministic,
    micro_batch_size=micro_batch_size,
  )
  evaluator, eval_actions = None, []
  if held_out is not None:
    evaluator = Evaluator(
      evaluation, model, held_out, weight_average=optimizer.ema
    )
    if best_metric is not None:
      best = checkpoints.BestCheckpoint(
        checkpoint, model_dir, best_metric, optimizer.iterations, worker_dir
      )
      eval_actions.append(best)
  line = progress.Progress(
    train_steps,
    global_batch_size,
    log_interval,
    progress_metrics=task.progress_metrics,
  )
  state = {'operative_config_written': False}

  def after_loop(metrics):
    step = int(optimizer.iterations.numpy())
    schedule = optimizer._decayed_lr(tf.float32)  # pylint: disable=protected-access
    metrics['learning_rate'] = float(schedule)
    _check_examples(metrics, step)
    waited = metrics[trainer_lib.INPUT_WAIT]
    rate = line.update(step, metrics, waited) if is_chief else None
    if rate is not None:
      metrics['examples_per_second'] = rate
    if is_chief and not state['operative_config_written']:
      gin_utils.write_operative_config(model_dir)
      state['operative_config_written'] = True

  controller = orbit.Controller(
    global_step=optimizer.iterations,
    trainer=trainer,
    evaluator=evaluator,
    strategy=distribution_strategy,
    train_actions=[after_loop],
    eval_actions=eval_actions,
    steps_per_loop=steps_per_loop,
    checkpoint_manager=manager,
    summary_dir=os.path.join(model_dir, 'train') if is_chief else None,
    eval_summary_dir=os.path.join(model_dir, 'eval') if is_chief else None,
  )
  if int(optimizer.iterations.numpy()) != step_of_checkpoint:
    raise ValueError(
      f'{restore_path} holds the weights of step '
      f'{int(optimizer.iterations.numpy())}, so the data would continue at '
      'another step than the model. Rename its files to their original name.'
    )
  return _run(
    controller,
    line,
    notes,
    train_steps=train_steps,
    eval_interval=eval_interval,
    evaluator=evaluator,
    model_dir=model_dir,
    global_batch_size=global_batch_size,
  )


def _agreed_step(path, strategy):
  """The step of a checkpoint, the same on all workers; 0 without one."""
  step = 0 if path is None else folders.step_of(path)
  if step is None:
    raise ValueError(
      'A run resumes from a checkpoint that is named ckpt-N after its step N. '
      f'Received: {path}. To use only its weights, give it as INIT_CHECKPOINT, '
      'with another --model_dir.'
    )
  steps = collectives.gather_from_workers(strategy, step)
  if len(set(steps)) > 1:
    raise ValueError(
      '--model_dir must be a folder that all workers share. Received: newest '
      f'checkpoints of the steps {", ".join(map(str, steps))}.'
    )
  return step


def _run(
  controller,
  line,
  notes,
  *,
  train_steps,
  eval_interval,
  evaluator,
  model_dir,
  global_batch_size,
):
  """Trains up to `train_steps`, or until a signal asks to stop."""
  stream = line.stream
  step = int(controller.global_step.numpy())
  parameters = sum(
    variable.shape.num_elements()
    for variable in controller.checkpoint_manager.checkpoint.model.variables
  )
  num_replicas = controller.strategy.num_replicas_in_sync
  verb = 'Resuming' if step else 'Starting'
  print(
    f'{verb} at step {step} of {train_steps}: {parameters:,} parameters, '
    f'global batch {global_batch_size} on '
    f'{command_line.count(num_replicas, "replica")}, '
    f'checkpoints in {model_dir}',
    *notes,
    sep='\n',
    file=stream,
    flush=True,
  )
  line.start(step)
  last_evaluated = None

  def evaluate():
    controller.evaluate()
    print(evaluator.describe(step), file=stream, flush=True)

  with progress.StopRequest() as stop:
    stopped_by = None
    while step < train_steps and stopped_by is None:
      until = min(step + controller.steps_per_loop, train_steps)
      if evaluator and eval_interval:
        until = min(until, (step // eval_interval + 1) * eval_interval)
      controller.train(until, checkpoint_at_completion=False)
      step = int(controller.global_step.numpy())
      if evaluator and eval_interval and step % eval_interval == 0:
        evaluate()
        last_evaluated = step
        line.start(step)
      stopped_by = stop.agreed(controller.strategy)
    controller.save_checkpoint()
  if stopped_by is not None:
    print(
      f'Stopped by {stopped_by} at step {step}; the checkpoint is saved. '
      'Rerun the same command to resume.',
      file=stream,
      flush=True,
    )
  else:
    if evaluator and last_evaluated != step:
      evaluate()
    print(f'Done: step {step}, {model_dir}', file=stream, flush=True)
  return evaluator.metrics if evaluator else {}
