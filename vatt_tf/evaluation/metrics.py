"""Measures of classification: top-k, average precision, ROC AUC, d-prime.

All of them are computed in float64 from plain arrays. Equal scores carry no
order: for top-k the true class ranks last among them, and the curves behind
average precision and AUC take them in one step. A constant score therefore
gives a top-k of 0, an average precision of the share of positives, an AUC of
0.5 and a d-prime of 0. The order of the examples does not matter.
"""

from collections.abc import Sequence
import math
import statistics

import numpy as np


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
  """Returns the share of examples whose class is among the `k` best.

  Args:
    scores: (N, C) float array, N at least 1.
    labels: (N,) integer array in [0, C).
    k: Number of classes among which the label must be.

  Returns:
    A float. A class with the same score as the true class ranks ahead of it.

  Raises:
    ValueError: The shapes do not fit, a score is not finite, or a label is
      out of range.
  """
  scores = _check_scores(scores, 2)
  labels = check_labels(labels, scores.shape)
  # (N, 1)
  true_scores = np.take_along_axis(scores, labels[:, np.newaxis], axis=1)
  ranks = np.sum(scores >= true_scores, axis=1)  # from 1: counts the true class
  return float(np.mean(ranks <= k))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
  """Returns the area under the steps of precision over recall.

  AP = Σ (R_n - R_(n-1)) P_n over the distinct scores from the highest, where
  P_n and R_n are the precision and recall of the examples that score at least
  as high.

  Args:
    scores: (N,) float array.
    labels: (N,) bool array.

  Returns:
    A float, or NaN without positives.

  Raises:
    ValueError: The shapes differ, or a score is not finite.
  """
  scores, labels = _check_binary(scores, labels)
  num_positives = np.sum(labels)
  if not num_positives:
    return math.nan
  true, total = _cumulative(scores, labels)
  recall_steps = np.diff(true, prepend=0) / num_positives
  return float(np.sum(recall_steps * true / total))


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
  """Returns the probability that a positive scores higher than a negative.

  Args:
    scores: (N,) float array.
    labels: (N,) bool array.

  Returns:
    A float, equal scores counting one half; NaN without positives or without
    negatives.

  Raises:
    ValueError: The shapes differ, or a score is not finite.
  """
  scores, labels = _check_binary(scores, labels)
  num_positives = int(np.sum(labels))
  num_negatives = len(labels) - num_positives
  if not num_positives or not num_negatives:
    return math.nan
  true, total = _cumulative(scores, labels)
  false = total - true
  # Trapezoids: the positives of a step beat the negatives of later steps, and
  # half of the negatives of their own step.
  gained = np.diff(true, prepend=0)
  beaten = num_negatives - false + np.diff(false, prepend=0) / 2
  return float(np.sum(gained * beaten) / num_positives / num_negatives)


def d_prime(auc: float, num_positives: int, num_negatives: int) -> float:
  """Returns √2 · Φ⁻¹(AUC), the distance of two normals with that AUC.

  Args:
    auc: Area under the ROC curve, in [0, 1].
    num_positives: Number P of positives that `auc` was measured on.
    num_negatives: Number N of negatives that `auc` was measured on.

  Returns:
    A float. An AUC of 0 or 1, whose distance would be infinite, is moved by
    half of the smallest step that P and N allow, 1 / (2 · P · N).
  """
  least = 0.5 / (num_positives * num_negatives)
  auc = min(max(auc, least), 1 - least)
  return math.sqrt(2) * statistics.NormalDist().inv_cdf(auc)


def multi_label_metrics(
  scores: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns average precision, AUC and d-prime of each class.

  Args:
    scores: (N, C) float array.
    labels: (N, C) bool array.

  Returns:
    A dict of (C,) arrays: `average_precision`, NaN for classes without
    positives; `auc` and `d_prime`, NaN for classes without positives or
    without negatives; `num_positives`, int64.

  Raises:
    ValueError: The shapes differ, or a score is not finite.
  """
  scores = _check_scores(scores, 2)
  labels = np.asarray(labels)
  if labels.shape != scores.shape:
    raise ValueError(
      '`labels` must be shaped like `scores`, (N, C). Received: '
      f'labels.shape={labels.shape}, scores.shape={scores.shape}'
    )
  labels = labels.astype(bool)
  num_positives = labels.sum(axis=0)
  columns = list(zip(scores.T, labels.T, strict=True))
  aucs = [roc_auc(*column) for column in columns]
  return {
    'average_precision': np.array([average_precision(*c) for c in columns]),
    'auc': np.array(aucs),
    'd_prime': np.array(
      [
        math.nan if math.isnan(auc) else d_prime(auc, p, len(labels) - p)
        for auc, p in zip(aucs, num_positives.tolist())
      ]
    ),
    'num_positives': num_positives,
  }


def confusion_matrix(
  labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> np.ndarray:
  """Counts how often each class was predicted for each true class.

  Args:
    labels: (N,) integer: true classes.
    predictions: (N,) integer: predicted classes.
    num_classes: Number of classes.

  Returns:
    (num_classes, num_classes) int64 array; a row for each true class.

  Raises:
    ValueError: A number is out of range.
  """
  shape = (len(labels), num_classes)
  labels = check_labels(labels, shape)
  predictions = check_labels(predictions, shape, 'predictions')
  counts = np.bincount(
    labels * num_classes + predictions, minlength=num_classes**2
  )
  return counts.reshape([num_classes, num_classes])


def check_labels(
  labels: np.ndarray, shape: Sequence[int], name: str = 'labels'
) -> np.ndarray:
  """Returns class numbers as int64, after a check of their shape and range.

  Args:
    labels: (N,) integer array.
    shape: Number of rows N and of classes C.
    name: Name of the argument, for messages.

  Returns:
    (N,) int64 array.

  Raises:
    ValueError: There are not N labels, or one is not in [0, C).
  """
  labels = np.asarray(labels, np.int64)
  if labels.shape != tuple(shape[:1]):
    raise ValueError(
      f'`{name}` must have one number for each of {shape[0]} rows. '
      f'Received: {name}.shape={labels.shape}'
    )
  is_invalid = (labels < 0) | (labels >= shape[1])
  if is_invalid.any():
    row = int(np.argmax(is_invalid))
    raise ValueError(
      f'`{name}` must be in [0, {shape[1]}). Received: {np.sum(is_invalid)} of '
      f'{len(labels)} are not, the first in row {row}: {labels[row]}'
    )
  return labels


def _check_scores(scores, rank):
  scores = np.asarray(scores, np.float64)
  if scores.ndim != rank or not len(scores):
    raise ValueError(
      f'`scores` must be of rank {rank} and have a row. '
      f'Received: scores.shape={scores.shape}'
    )
  if not np.isfinite(scores).all():
    raise ValueError(
      f'`scores` must be finite. Received: {np.sum(~np.isfinite(scores))} of '
      f'{scores.size} are not. Look for NaN in the weights or inputs.'
    )
  return scores


def _check_binary(scores, labels):
  scores = _check_scores(scores, 1)
  labels = np.asarray(labels)
  if labels.shape != scores.shape:
    raise ValueError(
      '`labels` and `scores` must have one shape. Received: '
      f'labels.shape={labels.shape}, scores.shape={scores.shape}'
    )
  return scores, labels.astype(bool)


def _cumulative(scores, labels):
  """Counts the positives, and all examples, that score at least each distinct
  score, from the highest: two (n,) float64 arrays."""
  order = np.argsort(-scores, kind='stable')
  scores, labels = scores[order], labels[order]
  ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
  true = np.cumsum(labels, dtype=np.float64)[ends]
  return true, ends + 1.0
