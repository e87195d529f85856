"""Detection of objects in images: mean average precision, beside a baseline.

A detector that learned clusters instead of classes has them matched to the
classes first, as an image classifier without labels has (Afouras et al. 2022,
section 4).
"""

from collections.abc import Mapping
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import command_line
from vatt_tf.core import feature_names as names
from vatt_tf.evaluation import detection_metrics as measures
from vatt_tf.evaluation import localization_metrics, outputs
from vatt_tf.input_pipeline import boxes as boxes_lib
from vatt_tf.models import detection

_BOX_ENTRIES = (names.VIDEO_BOXES, names.VIDEO_BOX_MASK, names.VIDEO_BOX_CLASS)
_DETECTIONS = (detection.BOXES, detection.SCORES, detection.CLASSES)


@gin.register
class DetectionEvaluation:
  """Measures the detections of a model in the middle frames of clips.

  Calling it with a `models.detection.Detector` and a data set (with boxes)
  returns metrics:

  - `mAP_30`, `mAP_50`, `mAP`: the mean over the classes of the average
    precision at an IoU of 0.3, of 0.5, and the mean of those from 0.5 to 0.95
    (COCO's), each with `baseline_`, of one box of the mean size in the centre
    of each image, with the commonest class.
  - `class_average_precision`: at 0.3, a value per class.
  - with `matching`, `agreement`: the share of the found objects whose cluster
    is matched to their class, with its `agreement_interval` (95 %, Wilson) and
    `chance_agreement`, the share of the commonest class; `clusters`, the class
    that each cluster stands for; and `counts` of clusters and classes.
  - `recall_30`: share of the objects that a detection of any class overlaps
    with an IoU of at least 0.3.
  - `num_images`, `num_objects`.

  Args:
    box_labels: Classes of the true boxes, see `VideoConfig.box_labels`.
    matching: None if the detector has the classes of the true boxes; otherwise
      how its clusters are matched to them, one of
      `detection_metrics.MATCHINGS`.
    min_score: Lowest score of a detection.
  """

  name = 'detection'
  title = 'Detection of objects in images'

  def __init__(
    self,
    box_labels: Any,
    matching: str | None = None,
    min_score: float = 0.01,
  ):
    if matching is not None and matching not in measures.MATCHINGS:
      raise ValueError(
        f'`matching` must be None or one of {", ".join(measures.MATCHINGS)}. '
        f'Received: matching={matching!r}'
      )
    self._box_labels = box_labels
    self._matching = matching
    self._min_score = min_score

  def __call__(
    self, model: tf_keras.Model, dataset: tf.data.Dataset
  ) -> dict[str, Any]:
    """Evaluates; see the class."""
    if not isinstance(model, detection.Detector):
      raise ValueError(
        'Detection needs a `Detector`: train one first, with '
        f'gin/detect_sample.gin for example. Received: {type(model).__name__}'
      )
    labels = boxes_lib.read_labels(self._box_labels)
    if self._matching is None and model.num_classes != len(labels):
      raise ValueError(
        f'The detector has {model.num_classes} classes and the boxes '
        f'{len(labels)}. Set `matching` to match clusters to classes. '
        f'Received: box_labels={labels}'
      )

    def run(features, training):
      del training
      return model.detect(
        features[model.tower.input_name], min_score=self._min_score
      )

    rows = outputs.collect(run, dataset, _DETECTIONS, _BOX_ENTRIES)
    missing = [name for name in _BOX_ENTRIES if name not in rows]
    if missing:
      raise ValueError(
        'The data set must have boxes: set `VideoConfig.max_boxes`. Received: '
        f'no {", ".join(missing)}'
      )
    truth, found = _truth(rows), _found(rows)
    num_objects = sum(len(objects.boxes) for objects in truth)
    if not num_objects:
      raise ValueError(
        'No image has a box of one of the classes. Ingest the records with '
        f'--boxes; see docs/localization.md. Received: box_labels={labels}'
      )
    return _measure(truth, found, labels, model.num_classes, self._matching)

  def scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalar metrics by name."""
    return {
      name: value for name, value in metrics.items() if isinstance(value, float)
    }

  def format_table(self, metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as text, without a newline at the end."""
    return format_table(metrics)


def _truth(rows):
  """The true objects of each image, of the middle frame."""
  middle = rows[names.VIDEO_BOXES].shape[1] // 2
  edges, mask, classes = (rows[name][:, middle] for name in _BOX_ENTRIES)
  edges = np.clip(edges, 0, 1)
  mask = mask & (classes >= 0) & (edges[..., 2:] > edges[..., :2]).all(-1)
  return [
    measures.Objects(edges[i][mask[i]], classes[i][mask[i]])
    for i in range(len(edges))
  ]


def _found(rows):
  """The detections in each image."""
  result = []
  for edges, scores, classes in zip(*(rows[name] for name in _DETECTIONS)):
    exists = classes >= 0
    result.append(
      measures.Objects(
        edges[exists], classes[exists].astype(np.int64), scores[exists]
      )
    )
  return result


def _baseline(truth):
  """The same box of the commonest class in the centre of each image."""
  edges = np.concatenate([objects.boxes for objects in truth])
  classes = np.concatenate([objects.classes for objects in truth])
  half = (edges[:, 2:] - edges[:, :2]).mean(0) / 2
  box = np.concatenate([0.5 - half, 0.5 + half])
  commonest = np.bincount(classes).argmax()
  one = measures.Objects(box[np.newaxis], np.array([commonest]), np.ones([1]))
  return [one] * len(truth)


def _measure(truth, found, labels, num_clusters, matching):
  """The metrics of the evaluation; see the class."""
  num_classes = len(labels)
  counts = measures.count_clusters(truth, found, num_clusters, num_classes)
  num_objects = sum(len(objects.boxes) for objects in truth)
  of_class = np.bincount(
    np.concatenate([objects.classes for objects in truth]),
    minlength=num_classes,
  )
  metrics = {}
  if matching is not None:
    classes, agreement = measures.match_clusters(counts, matching)
    found = [_renamed(detections, classes) for detections in found]
    num_found = int(counts.sum())
    metrics = {
      'agreement': agreement,
      'agreement_interval': localization_metrics.wilson_interval(
        round(agreement * num_found), max(num_found, 1)
      ),
      'chance_agreement': float(of_class.max() / num_objects),
      'clusters': [labels[i] if i >= 0 else None for i in classes],
      'counts': counts.tolist(),
    }
  for prefix, detections in (('', found), ('baseline_', _baseline(truth))):
    precisions = measures.average_precisions(truth, detections, num_classes)
    with_objects = precisions[:, of_class > 0]
    metrics |= {
      f'{prefix}mAP_30': float(with_objects[0].mean()),
      f'{prefix}mAP_50': float(with_objects[1].mean()),
      f'{prefix}mAP': float(with_objects[1:].mean()),
    }
    if not prefix:
      metrics['class_average_precision'] = [
        None if np.isnan(x) else float(x) for x in precisions[0]
      ]
  return {
    **metrics,
    'recall_30': float(counts.sum() / num_objects),
    'label_names': labels,
    'num_images': len(truth),
    'num_objects': num_objects,
  }


def _renamed(detections, classes):
  """Detections of clusters as those of classes; those of no class go."""
  of_class = classes[detections.classes]
  exists = of_class >= 0
  return measures.Objects(
    detections.boxes[exists], of_class[exists], detections.scores[exists]
  )


def format_table(metrics: Mapping[str, Any]) -> str:
  """Returns a table of the metrics of detection for people.

  Args:
    metrics: Metrics that `DetectionEvaluation` returned.

  Returns:
    Text of several lines, without a newline at the end.
  """
  lines = [f'{"":<24}{"measured":>12}{"central box":>12}']
  for title, name in (
    ('mAP at IoU 0.3', 'mAP_30'),
    ('mAP at IoU 0.5', 'mAP_50'),
    ('mAP at IoU 0.5 to 0.95', 'mAP'),
  ):
    lines.append(
      f'{title:<24}{metrics[name]:>12.3f}{metrics[f"baseline_{name}"]:>12.3f}'
    )
  if 'agreement' in metrics:
    low, high = metrics['agreement_interval']
    pairs = ', '.join(
      f'{i} {label or "none"}' for i, label in enumerate(metrics['clusters'])
    )
    lines += [
      f'Classes of the found objects that agree after matching: '
      f'{metrics["agreement"]:.3f} (95 %: {low:.3f} to {high:.3f}; the '
      f'commonest class: {metrics["chance_agreement"]:.3f}).',
      f'Clusters and classes: {pairs}.',
    ]
  lines.append(
    f'{command_line.count(metrics["num_images"], "image")}, '
    f'{command_line.count(metrics["num_objects"], "object")}, of which '
    f'{metrics["recall_30"]:.3f} are found (IoU 0.3, any class).'
  )
  return '\n'.join(lines)
