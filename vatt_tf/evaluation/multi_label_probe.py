"""Linear classifiers of frozen features, for clips of several classes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.core import command_line
from vatt_tf.evaluation import classification, metrics, probe_classifiers
from vatt_tf.evaluation import features as features_lib


@gin.register
class MultiLabelProbeEvaluation:
  """Mean average precision of a linear SVM for each class (PASCAL VOC 2007).

  Calling it with a `models.vatt.VATT` and a data set (for evaluation, with
  labels of several classes and ids) returns metrics: `features`, from the name
  of a feature to `mAP`, `C`, `converged` and `average_precision` of each class
  (None for a class without a test clip); `num_train`, `num_test`,
  `num_classes`, `label_names` and `chance_mAP`, the mean share of positives.

  The features are standardised by the training clips. C is the value that does
  best on a fifth of them, and the SVMs are then trained on all.

  Args:
    train_dataset: `make_dataset` or `make_image_dataset` for the clips to learn
      from, in evaluation form.
    features: Names of features, see `features.extract`.
    c_values: Values of C to choose from; a single value is used as it is.
    label_names: See `classification.read_label_names`. None means numbers.
    max_iter: Largest number of iterations of the solver.
    seed: Seed of the validation split and the solver.
  """

  name = 'multi_label_probe'
  title = 'Linear classifiers of frozen features'

  def __init__(
    self,
    train_dataset: Callable[..., tf.data.Dataset],
    features: Sequence[str] = ('video_feature',),
    c_values: Sequence[float] = probe_classifiers.C_VALUES,
    label_names: Sequence[str] | str | None = None,
    max_iter: int = 5000,
    seed: int = 0,
  ):
    self._train_dataset = train_dataset
    self._features = list(features)
    self._c_values = sorted(c_values)
    self._label_names = label_names
    self._max_iter = max_iter
    self._seed = seed

  def __call__(self, model, dataset):
    """Evaluates; see the class."""
    batch_size = next(iter(dataset.element_spec.values())).shape[0]
    test = features_lib.extract(model, dataset, self._features)
    train = features_lib.extract(
      model, self._train_dataset(global_batch_size=batch_size), self._features
    )
    for part in (train, test):
      if part.labels is None or part.labels.ndim != 2:
        raise ValueError(
          'This probe needs labels of several classes: `make_dataset.label = '
          '@LabelConfig()` with `is_multi_label` True. For one class per clip '
          'use ProbeEvaluation.'
        )
    num_classes = test.labels.shape[1]
    label_names = [str(i) for i in range(num_classes)]
    if self._label_names is not None:
      label_names = classification.read_label_names(
        self._label_names, num_classes
      )
    truth = test.labels > 0.5
    results = {}
    for name in self._features:
      values, test_values = _standardised(
        _clips(train, name), _clips(test, name)
      )
      c = self._choose(values, train.labels)
      scores, converged = self._scores(values, train.labels, c, test_values)
      precisions = _average_precisions(scores, truth)
      results[name] = {
        'mAP': float(np.nanmean(precisions)),
        'C': c,
        'converged': converged,
        'average_precision': [
          None if np.isnan(x) else float(x) for x in precisions
        ],
      }
    return {
      'features': results,
      'num_train': len(train.ids),
      'num_test': len(test.ids),
      'num_classes': num_classes,
      'label_names': label_names,
      'chance_mAP': float(truth.mean()),
    }

  def _choose(self, values, labels):
    """The best C on a fifth of the training clips."""
    if len(self._c_values) == 1:
      return self._c_values[0]
    order = np.random.default_rng(self._seed).permutation(len(values))
    num_held_out = max(1, len(order) // 5)
    held_out, chosen = order[:num_held_out], order[num_held_out:]
    if not len(chosen):
      raise ValueError(
        'C is chosen on a fifth of the training clips. Received: '
        f'{len(order)} clips. Give more, or one value of `c_values`.'
      )
    truth = labels[held_out] > 0.5
    x, held_out_x = _standardised(values[chosen], values[held_out])
    precisions = [
      np.nanmean(
        _average_precisions(
          self._scores(x, labels[chosen], c, held_out_x)[0], truth
        )
      )
      for c in self._c_values
    ]
    if np.isnan(precisions).all():
      raise ValueError(
        'No held-out training clip has a class. Give more training clips, or '
        'one value of `c_values`.'
      )
    return self._c_values[int(np.nanargmax(precisions))]

  def _scores(self, values, labels, c, test_values):
    """(N, num_classes) scores of test clips, and whether all SVMs converged."""
    scores = np.zeros([len(test_values), labels.shape[1]])
    all_converged = True
    for i, is_true in enumerate(labels.T > 0.5):
      if is_true.all() or not is_true.any():
        continue  # nothing to separate: all test clips score the same
      machine, converged = probe_classifiers.fit_linear_svm(
        values, is_true, c, self._max_iter, self._seed
      )
      all_converged &= converged
      scores[:, i] = machine.decision_function(test_values)
    return scores, all_converged

  def scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalar metrics by name, such as `video_feature/mAP`."""
    return {
      f'{feature}/mAP': row['mAP']
      for feature, row in metrics['features'].items()
    }

  def format_table(self, metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as text for people, without a newline at the end."""
    width = max(len('feature'), *(len(name) for name in metrics['features']))
    lines = [f'{"feature".ljust(width)}  mAP (chance)   C']
    for feature, row in metrics['features'].items():
      lines.append(
        f'{feature.ljust(width)}  {row["mAP"]:.3f} '
        f'({metrics["chance_mAP"]:.3f})  {row["C"]:g}'
      )
      if not row['converged']:
        lines.append(
          f'{feature}: the solver did not converge; raise '
          '`MultiLabelProbeEvaluation.max_iter`.'
        )
    lines.append(
      f'{command_line.count(metrics["num_train"], "clip")} to learn from, '
      f'{metrics["num_test"]} to test on, '
      f'{command_line.count(metrics["num_classes"], "class")}.'
    )
    return '\n'.join(lines)


def _clips(part, name):
  """(N, D) features of all videos, the means of their clips."""
  return probe_classifiers.mean_over_clips(
    part.values[name], part.videos, len(part.ids)
  )


def _standardised(values, other_values):
  """Both sets of features, standardised by the first."""
  from sklearn import preprocessing  # slow, and only used here

  scaler = preprocessing.StandardScaler().fit(values)
  return scaler.transform(values), scaler.transform(other_values)


def _average_precisions(scores, truth):
  return metrics.multi_label_metrics(scores, truth)['average_precision']
