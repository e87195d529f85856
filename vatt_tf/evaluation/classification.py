"""Classification of held-out clips: top-1/5, or mAP, AUC and d-prime.

A clip may be several rows, its views: windows in time, and crops of each. The
logits of a clip are the means over its views (fine-tuning averages logits, the
linear head of frozen features averages probabilities).
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import command_line
from vatt_tf.core import feature_names as names
from vatt_tf.evaluation import metrics as metrics_lib
from vatt_tf.evaluation import outputs

LOGITS = 'logits'  # (B, num_classes), the output of a classifier
TOP = (1, 5)


class Clips(NamedTuple):
  """Outputs of a classifier for the clips of a data set.

  Attributes:
    logits: (N, num_classes) float64: means over the views.
    labels: (N,) integers, or (N, num_classes) zeros and ones.
    ids: Names of the N clips.
    is_missing: (N,) bool: whether the clip has no input, because its record
      lacks the modality or cannot be decoded.
  """

  logits: np.ndarray
  labels: np.ndarray
  ids: list[str]
  is_missing: np.ndarray


def classify_dataset(
  model: tf_keras.Model, dataset: tf.data.Dataset, num_views: int = 1
) -> Clips:
  """Classifies every clip of a data set.

  Args:
    model: A `models.classification.Classifier`.
    dataset: Batches as dictionaries, as the input pipeline yields them, with
      `label`. The rows of a clip are consecutive, and may continue in the next
      batch. Rows whose `valid` is false are padding.
    num_views: Rows per clip: `num_clips * num_crops` of the pipeline.

  Returns:
    `Clips`.

  Raises:
    ValueError: The data set is empty or has no labels, its rows do not form
      clips of `num_views` rows, or a clip has no label.
  """
  mask_name = f'{model.modality}_mask'
  entry_names = (names.LABEL, names.EXAMPLE_ID, mask_name)
  rows = outputs.collect(model, dataset, (LOGITS,), entry_names)
  if names.LABEL not in rows:
    raise ValueError(
      '`dataset` must have labels: set `make_dataset.label = @LabelConfig()`. '
      f'Received: the entries {sorted(rows)}'
    )
  logits = rows[LOGITS].astype(np.float64)
  num_rows, num_classes = logits.shape
  row_names = outputs.row_names(rows, num_rows)
  check_views(rows, num_rows, num_views)
  labels = rows[names.LABEL][::num_views]
  ids = row_names[::num_views]
  if not model.is_multi_label:
    if labels.ndim != 1:
      raise ValueError(
        '`LabelConfig.is_multi_label` must be False, as it is for the model. '
        f'Received: labels of shape {labels.shape}'
      )
    check_labels(labels, ids, num_classes)
  elif labels.shape != (len(ids), num_classes):
    raise ValueError(
      '`LabelConfig` must have `is_multi_label` = True and the '
      f'{num_classes} classes of the model. Received: labels of shape '
      f'{labels.shape}'
    )
  mask = rows.get(mask_name)
  mask = np.ones([num_rows], bool) if mask is None else mask
  return Clips(
    logits.reshape([-1, num_views, num_classes]).mean(axis=1),
    labels,
    ids,
    ~mask.reshape([-1, num_views]).any(axis=1),
  )


def check_views(
  rows: Mapping[str, np.ndarray], num_rows: int, num_views: int
) -> None:
  """Raises unless the rows are clips of `num_views` rows each.

  Args:
    rows: Dictionary that `outputs.collect` returned.
    num_rows: Number of rows.
    num_views: Views per clip.

  Raises:
    ValueError: The number of rows or the ids show that they are not.
  """
  ids = rows.get(names.EXAMPLE_ID)
  is_mixed = False
  if num_views >= 1 and num_rows % num_views == 0 and ids is not None:
    ids = ids.reshape([-1, num_views])
    is_mixed = bool((ids != ids[:, :1]).any())
  if num_views < 1 or num_rows % num_views or is_mixed:
    text = ', which would mix clips with different ids' if is_mixed else ''
    raise ValueError(
      '`num_views` must be the number of rows that the input pipeline yields '
      'per clip, `VideoConfig.num_clips` times `num_crops`. Received: '
      f'num_views={num_views} for {num_rows} rows{text}'
    )


def check_labels(
  labels: np.ndarray, ids: Sequence[str], num_classes: int
) -> None:
  """Raises unless every clip has a label in [0, num_classes).

  Args:
    labels: (N,) integer array.
    ids: Names of the N clips.
    num_classes: Number of classes.

  Raises:
    ValueError: A label is out of range; the message names the clips.
  """
  invalid = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if invalid.size:
    raise ValueError(
      f'Every clip must have a label in [0, {num_classes}). Received: '
      f'{len(invalid)} of {len(labels)} have none: '
      f'{outputs.enumerate_names([ids[i] for i in invalid])}. Labels outside '
      'the range are named in the log above; make the records again with the '
      'labels.txt of these classes, or set the number of classes.'
    )


def check_missing(
  is_missing: np.ndarray, ids: Sequence[str], modality: str, max_share: float
) -> None:
  """Raises when too many clips lack the modality to classify.

  Args:
    is_missing: (N,) bool array.
    ids: Names of the N clips.
    modality: The modality that is missing.
    max_share: Largest share of such clips that is allowed.

  Raises:
    ValueError: More clips lack the modality; the message names them.
  """
  rows = np.flatnonzero(is_missing)
  if len(rows) > max_share * len(ids):
    raise ValueError(
      f'{len(rows)} of {len(ids)} clips have no readable {modality}, more than '
      f'`max_missing_share`={max_share} allows: '
      f'{outputs.enumerate_names([ids[i] for i in rows])}. Look at them '
      'with `python -m vatt_tf.inspect_records`.'
    )


def single_label_metrics(
  scores: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
  """Returns top-1 and top-5, each with its chance level, and the confusions.

  Args:
    scores: (N, C) float array.
    labels: (N,) integer array.

  Returns:
    A dictionary: `top_1`, `top_5`, `chance_top_1`, `chance_top_5` (a random
    order of the classes), `class_accuracy` (C values, None for a class without
    clips), and `confusion`, the cells of the confusion matrix that are not 0:
    lists of true class, predicted class, and number of clips.

  Raises:
    ValueError: As `metrics.top_k_accuracy`.
  """
  scores = np.asarray(scores)
  num_classes = scores.shape[-1]
  metrics = {}
  for k in TOP:
    metrics[f'top_{k}'] = metrics_lib.top_k_accuracy(scores, labels, k)
    metrics[f'chance_top_{k}'] = min(1.0, k / num_classes)
  matrix = metrics_lib.confusion_matrix(labels, scores.argmax(1), num_classes)
  counts = matrix.sum(axis=1)
  metrics['class_accuracy'] = [
    float(matrix[i, i] / counts[i]) if counts[i] else None
    for i in range(num_classes)
  ]
  metrics['confusion'] = [
    [int(i), int(j), int(matrix[i, j])] for i, j in np.argwhere(matrix)
  ]
  return metrics


def multi_label_metrics(
  scores: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
  """Returns mAP, AUC and d-prime: means over the classes, and per class.

  A class without positives is left out of all three means, and a class without
  negatives out of AUC and d-prime; both are listed.

  Args:
    scores: (N, C) float array.
    labels: (N, C) array of zeros and ones.

  Returns:
    A dictionary: `mAP`, `AUC`, `d_prime`, the same with `chance_` in front
    (None where no class is left), `class_average_precision`, `class_AUC` and
    `class_d_prime` (C values, None where undefined), and the classes
    `without_positives` and `without_negatives`.

  Raises:
    ValueError: As `metrics.multi_label_metrics`.
  """
  class_metrics = metrics_lib.multi_label_metrics(scores, labels)
  positives = class_metrics['num_positives']
  num_clips = len(labels)
  defined = np.isfinite(class_metrics['average_precision'])
  share = positives / num_clips  # the average precision of a random order
  metrics = {
    'mAP': _mean(class_metrics['average_precision']),
    'chance_mAP': _mean(np.where(defined, share, math.nan)),
    'AUC': _mean(class_metrics['auc']),
    'chance_AUC': 0.5,
    'd_prime': _mean(class_metrics['d_prime']),
    'chance_d_prime': 0.0,
    'without_positives': np.flatnonzero(positives == 0).tolist(),
    'without_negatives': np.flatnonzero(positives == num_clips).tolist(),
  }
  for name, key in (
    ('class_average_precision', 'average_precision'),
    ('class_AUC', 'auc'),
    ('class_d_prime', 'd_prime'),
  ):
    metrics[name] = [
      None if math.isnan(x) else x for x in class_metrics[key].tolist()
    ]
  return metrics


def _mean(values):
  """The mean of the values that are not NaN, or None."""
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else None


def read_label_names(
  label_names: Sequence[str] | str | None, num_classes: int
) -> list[str] | None:
  """Returns the names of the classes.

  Args:
    label_names: Path of a `labels.txt` (line i names class i), a list of names,
      or None to name the classes by their numbers.
    num_classes: Number of classes. None means one for each name.

  Returns:
    A list of strings.

  Raises:
    ValueError: The file does not exist, is empty, or does not have
      `num_classes` lines.
  """
  if label_names is None:
    return [str(i) for i in range(num_classes)]
  lines = label_names
  if isinstance(label_names, str):
    if not tf.io.gfile.exists(label_names):
      raise ValueError(
        f'There is no file {label_names} with the names of the classes; '
        '`vatt_tf.ingest` writes labels.txt beside the records. '
        f'Received: label_names={label_names!r}'
      )
    with tf.io.gfile.GFile(label_names) as file:
      lines = file.read().splitlines()
  if not len(lines) or (num_classes or len(lines)) != len(lines):
    raise ValueError(
      f'`label_names` must name the {num_classes or ""} classes. Received: '
      f'{len(lines)} names in label_names={label_names!r}'
    )
  return list(lines)


@gin.register
class ClassificationEvaluation:
  """Classification of held-out clips by a fine-tuned model.

  Calling it with a `models.classification.Classifier` and a data set returns
  metrics: those of `single_label_metrics` or `multi_label_metrics`, and
  `num_clips`, `num_views`, `num_classes`, `label_names`, `num_dropped` and
  `share_dropped` (clips of the data set that no metric includes), and
  `num_missing` (clips without the input, which are classified as zeros).

  Args:
    num_views: Rows per clip, see `classify_dataset`.
    label_names: See `read_label_names`.
    max_missing_share: Largest share of clips without the input that is allowed.
  """

  name = 'classification'
  title = 'Classification of held-out clips'

  def __init__(
    self,
    num_views: int = 1,
    label_names: Sequence[str] | str | None = None,
    max_missing_share: float = 0.05,
  ):
    self._num_views = num_views
    self._label_names = label_names
    self._max_missing_share = max_missing_share

  def __call__(self, model, dataset):
    """Evaluates; see the class."""
    if not hasattr(model, 'num_classes'):
      raise ValueError(
        'Classification needs a fine-tuned model, a `Classifier`. Evaluate a '
        'pre-trained model with probes (gin/eval/linear_probe.gin) or by the '
        f'names of the classes (gin/eval/zero_shot.gin). Received: {model!r}'
      )
    label_names = read_label_names(self._label_names, model.num_classes)
    counted = outputs.CountedRows(dataset)
    clips = classify_dataset(model, counted, self._num_views)
    check_missing(
      clips.is_missing, clips.ids, model.modality, self._max_missing_share
    )
    function = (
      multi_label_metrics if model.is_multi_label else single_label_metrics
    )
    num_clips = counted.num_rows / self._num_views
    num_dropped = num_clips - len(clips.logits)
    return {
      **function(clips.logits, clips.labels),
      'num_clips': len(clips.logits),
      'num_views': self._num_views,
      'num_classes': model.num_classes,
      'num_dropped': round(num_dropped),
      'share_dropped': num_dropped / num_clips,
      'num_missing': int(np.sum(clips.is_missing)),
      'modality': model.modality,
      'label_names': label_names,
    }

  def scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalar metrics by name, such as `top_1` or `mAP`."""
    return {
      name: value
      for name, value in metrics.items()
      if isinstance(value, float) and name != 'share_dropped'
    }

  def format_table(self, metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as text for people, without a newline at the end."""
    return format_table(metrics)


def format_table(metrics: Mapping[str, Any]) -> str:
  """Returns a table of the metrics of classification for people.

  Args:
    metrics: Metrics that `ClassificationEvaluation` returned.

  Returns:
    Text of several lines, without a newline at the end.
  """
  count = command_line.count
  lines = format_figures(metrics)
  lines.append(
    f'{count(metrics["num_clips"], "clip")}, '
    f'{count(metrics["num_views"], "view")} per clip (logits averaged), '
    f'{count(metrics["num_classes"], "class")}; '
    f'{count(metrics["num_dropped"], "clip")} dropped '
    f'({metrics["share_dropped"]:.1%}).'
  )
  if metrics['num_missing']:
    lines.append(
      f'{count(metrics["num_missing"], "clip")} without '
      f'{metrics["modality"]}, counted as the model classifies zeros.'
    )
  return '\n'.join(lines + notes_on_classes(metrics))


def format_figures(metrics: Mapping[str, Any]) -> list[str]:
  """Returns a table row for each metric, with its chance level.

  Args:
    metrics: Metrics with those that `single_label_metrics` or
      `multi_label_metrics` returned.

  Returns:
    List of lines.
  """
  metric_names = [f'top_{k}' for k in TOP]
  if 'mAP' in metrics:
    metric_names = ['mAP', 'AUC', 'd_prime']
  lines = [f'{"metric":<10}{"measured":>10}{"chance":>10}']
  for name in metric_names:
    values = (metrics[name], metrics[f'chance_{name}'])
    cells = ['none' if v is None else f'{v:.3f}' for v in values]
    lines.append(f'{name:<10}{cells[0]:>10}{cells[1]:>10}')
  return lines


def notes_on_classes(metrics: Mapping[str, Any]) -> list[str]:
  """Returns lines that name the classes that are left out of a mean.

  Args:
    metrics: Metrics that `multi_label_metrics` returned, and `label_names`.

  Returns:
    List of lines.
  """
  lines = []
  for key, means in (
    ('without_positives', 'all means'),
    ('without_negatives', 'AUC and d-prime'),
  ):
    classes = metrics.get(key)
    if classes:
      named = [metrics['label_names'][i] for i in classes]
      lines.append(
        f'Left out of {means}, {key.replace("_", " ")}: '
        f'{outputs.enumerate_names(named)}.'
      )
  return lines
