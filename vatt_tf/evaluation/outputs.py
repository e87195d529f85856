"""Collects the outputs of a model for all rows of a data set on the host."""

from collections.abc import Iterator, Mapping, Sequence
import re
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names


def collect(
  model: tf_keras.Model,
  dataset: tf.data.Dataset,
  output_names: Sequence[str],
  kept: Sequence[str],
) -> dict[str, np.ndarray]:
  """Runs a model over a data set and keeps the named outputs of every row.

  Args:
    model: Callable `model(features, training=False)` that returns a dictionary
      of tensors, a row for each row of the batch.
    dataset: Batches as dictionaries, as the input pipeline yields them. Rows
      whose `valid` is false are padding and dropped.
    output_names: Names of the outputs to keep, where the model has them.
    kept: Names of the batch entries to keep, where the batches have them.

  Returns:
    A dictionary of NumPy arrays over all rows: outputs in float32, entries as
    they are.

  Raises:
    ValueError: The data set is empty, or too many of its records are bad.
  """

  @tf.function(reduce_retracing=True, autograph=False)
  def run(features):
    outputs = model(features, training=False)
    return {
      key: tf.cast(outputs[key], tf.float32)
      for key in output_names
      if key in outputs
    }

  batches = []
  for features in readable(dataset):
    batch = run(
      {
        key: value
        for key, value in features.items()
        if value.dtype != tf.string and key != names.VALID
      }
    )
    batch.update({key: features[key] for key in kept if key in features})
    batch = {key: np.asarray(value) for key, value in batch.items()}
    if names.VALID in features:
      valid = np.asarray(features[names.VALID])
      batch = {key: value[valid] for key, value in batch.items()}
    batches.append(batch)
  if not batches:
    raise ValueError(
      '`dataset` must give at least one batch. Received an empty one: check '
      'its records and its batch size.'
    )
  return {
    key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
  }


def readable(
  dataset: tf.data.Dataset,
) -> Iterator[dict[str, tf.Tensor]]:
  """Yields the batches of a data set, with the Python errors of the pipeline.

  Raises:
    ValueError: The pipeline has raised it.
  """
  try:
    yield from dataset
  except tf.errors.InvalidArgumentError as error:
    # TensorFlow wraps a Python error of the pipeline in the trace of its graph.
    match = re.search('ValueError: (.+)', error.message)
    if not match:
      raise
    raise ValueError(match.group(1)) from error


class CountedRows:
  """A data set that counts its rows as they pass, without padding.

  Attributes:
    num_rows: Rows of the last pass.

  Args:
    dataset: Batches as dictionaries.
  """

  def __init__(self, dataset: tf.data.Dataset):
    self._dataset = dataset
    self.num_rows = 0

  def __iter__(self):
    self.num_rows = 0
    for features in self._dataset:
      if names.VALID in features:
        self.num_rows += int(np.sum(features[names.VALID]))
      else:
        self.num_rows += len(next(iter(features.values())))
      yield features


def row_names(rows: Mapping[str, Any], num_rows: int) -> list[str]:
  """Returns a name of each row for messages: its example id, or its number.

  Args:
    rows: Dictionary that `collect` returned.
    num_rows: Number of rows.

  Returns:
    A list of strings.
  """
  ids = rows.get(names.EXAMPLE_ID)
  if ids is None:
    return [f'row {i}' for i in range(num_rows)]
  return [as_text(value) or f'row {i}' for i, value in enumerate(ids.tolist())]


def as_text(value: bytes | str) -> str:
  """Returns a string from a string or from UTF-8 bytes."""
  return value.decode('utf-8', 'replace') if isinstance(value, bytes) else value


def enumerate_names(values: Sequence[str], limit: int = 5) -> str:
  """Returns the first few names for a message: `a, b, … (7 in all)`."""
  values = list(values)
  text = ', '.join(str(value) for value in values[:limit])
  return text if len(values) <= limit else f'{text}, … ({len(values)} in all)'
