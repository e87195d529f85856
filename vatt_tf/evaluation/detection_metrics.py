"""Measures of detections against boxes: average precision, and clusters.

Boxes are left, upper, right and lower edges as shares of the frame.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import io

import numpy as np
from pycocotools import coco, cocoeval
from scipy import optimize

# IoUs at which a detection is right: a loose one, and those of COCO.
LOOSE = 0.3
IOUS = (LOOSE, *np.linspace(0.5, 0.95, 10).round(2).tolist())
HUNGARIAN = 'hungarian'
COMMONEST = 'commonest'
MATCHINGS = (HUNGARIAN, COMMONEST)

# Side of the pixels that COCO's tools count in; below 32² or above 96² pixels
# they have more ranges of areas, which are not used.
_SIZE = 1000.0


@dataclasses.dataclass(frozen=True)
class Objects:
  """Objects of an image, or detections with scores.

  Attributes:
    boxes: (n, 4) float.
    classes: (n,) integers.
    scores: (n,) float, or None.
  """

  boxes: np.ndarray
  classes: np.ndarray
  scores: np.ndarray | None = None


def ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns the IoU (n, m) of boxes (n, 4) with boxes (m, 4)."""
  first, second = first[:, np.newaxis], second[np.newaxis]
  low = np.maximum(first[..., :2], second[..., :2])
  high = np.minimum(first[..., 2:], second[..., 2:])
  both = np.prod(np.maximum(high - low, 0), -1)
  areas = [np.prod(x[..., 2:] - x[..., :2], -1) for x in (first, second)]
  union = areas[0] + areas[1] - both
  return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def average_precisions(
  truth: Sequence[Objects], found: Sequence[Objects], num_classes: int
) -> np.ndarray:
  """Returns the average precision of each class at each IoU.

  It is that of COCO (101 recalls, at most 100 detections per image), computed
  by pycocotools.

  Args:
    truth: True objects of each image.
    found: Detections in each image, of the same classes.
    num_classes: Number of classes.

  Returns:
    (len(IOUS), num_classes) float64; NaN for a class without objects.
  """
  categories = [{'id': i + 1} for i in range(num_classes)]
  images = [{'id': i + 1} for i in range(len(truth))]

  def annotations(objects):
    for image, of_image in zip(images, objects, strict=True):
      for i, (box, label) in enumerate(zip(of_image.boxes, of_image.classes)):
        xmin, ymin, xmax, ymax = (_SIZE * float(x) for x in box)
        row = {
          'image_id': image['id'],
          'category_id': int(label) + 1,
          'bbox': [xmin, ymin, xmax - xmin, ymax - ymin],
          'area': (xmax - xmin) * (ymax - ymin),
          'iscrowd': 0,
        }
        if of_image.scores is not None:
          row['score'] = float(of_image.scores[i])
        yield row

  def data_set(objects):
    result = coco.COCO()
    result.dataset = {
      'images': images,
      'categories': categories,
      'annotations': [
        {'id': i + 1, **row} for i, row in enumerate(annotations(objects))
      ],
    }
    result.createIndex()
    return result

  with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
    evaluation = cocoeval.COCOeval(data_set(truth), data_set(found), 'bbox')
    evaluation.params.iouThrs = np.array(IOUS)
    evaluation.params.areaRng = evaluation.params.areaRng[:1]
    evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
    evaluation.evaluate()
    evaluation.accumulate()
  # IoUs, recalls, classes, areas, limits of detections.
  precision = evaluation.eval['precision'][:, :, :, 0, -1]
  means = precision.mean(1)
  return np.where(means < 0, np.nan, means)


def count_clusters(
  truth: Sequence[Objects],
  found: Sequence[Objects],
  num_clusters: int,
  num_classes: int,
) -> np.ndarray:
  """Counts which clusters the objects of each class are found as.

  An object is found by the detection with the highest score that overlaps it
  with an IoU of at least 0.3.

  Args:
    truth: True objects of each image.
    found: Detections in each image, with clusters as classes.
    num_clusters: Number of clusters.
    num_classes: Number of classes.

  Returns:
    (num_clusters, num_classes) integers.
  """
  counts = np.zeros([num_clusters, num_classes], np.int64)
  for objects, detections in zip(truth, found, strict=True):
    if not len(detections.boxes):
      continue
    overlap = ious(objects.boxes, detections.boxes)  # (n, m)
    scores = np.where(overlap >= LOOSE, detections.scores, -1.0)
    for label, row in zip(objects.classes, scores):
      if row.max() >= 0:
        counts[detections.classes[row.argmax()], label] += 1
  return counts


def match_clusters(
  counts: np.ndarray, matching: str = HUNGARIAN
) -> tuple[np.ndarray, float]:
  """Matches clusters to classes.

  Args:
    counts: (num_clusters, num_classes), as of `count_clusters`.
    matching: `hungarian` gives each class one cluster at most, such that most
      objects agree; `commonest` gives each cluster the class that most of its
      objects have.

  Returns:
    (num_clusters,) integers: the class of each cluster, -1 for none; and the
    agreement: the share of the found objects whose cluster is matched to their
    class (0 if none is found).
  """
  counts = np.asarray(counts)
  classes = np.full([len(counts)], -1)
  if matching == HUNGARIAN:
    rows, columns = optimize.linear_sum_assignment(counts, maximize=True)
    classes[rows] = columns
  else:
    classes = np.where(counts.any(1), counts.argmax(1), -1)
  is_matched = classes >= 0
  agreeing = counts[np.flatnonzero(is_matched), classes[is_matched]].sum()
  return classes, float(agreeing / max(counts.sum(), 1))
