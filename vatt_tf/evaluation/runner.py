"""Evaluates a checkpoint on held-out records."""

import json

import gin

from vatt_tf import file_utils
from vatt_tf.checkpoints import manager
from vatt_tf.evaluation import retrieval


@gin.configurable
def evaluate(
  checkpoint,
  model=gin.REQUIRED,
  dataset=gin.REQUIRED,
  batch_size=32,
  output=None,
  use_ema=True,
):
  """Retrieval of a checkpoint on held-out clips.

  Args:
    checkpoint: a run's `model_dir` (its newest checkpoint), or a checkpoint's
      prefix.
    model: callable without arguments that returns the model.
    dataset: `make_dataset` in the scope of held-out data.
    batch_size: int.
    output: path of a json file to write, or None.
    use_ema: evaluate the averages of the weights, where the checkpoint has
      some (`make_optimizer.ema_decay`); False for the weights of the last step.

  Returns:
    (metrics, path): metrics as `retrieval.evaluate_retrieval` gives them, and
    the prefix of the checkpoint that they belong to.

  Raises:
    ValueError: no checkpoint, a checkpoint of another model, or no records.
  """
  path = manager.resolve(checkpoint)
  examples = dataset(global_batch_size=batch_size)
  built = model()
  is_average = manager.restore_model(built, path, use_ema)
  metrics = retrieval.evaluate_retrieval(built, examples)
  if output is not None:
    found = {'checkpoint': path, 'ema': is_average, 'retrieval': metrics}
    file_utils.write_text(output, json.dumps(found, indent=2) + '\n')
  return metrics, path
