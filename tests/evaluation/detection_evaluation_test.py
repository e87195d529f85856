"""Average precision, the matching of clusters, and the evaluation."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.evaluation import detection
from vatt_tf.evaluation import detection_metrics as measures
from vatt_tf.models import detection as model_lib
from vatt_tf.models import patch_tower, sizes


def _iou(a, b):
  low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
  both = np.prod(np.maximum(high - low, 0))
  return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def _average_precision(truth, found, label, threshold):
  """COCO's average precision of a class by its definition, with loops."""
  rows = sorted(
    (
      (score, image, box)
      for image, objects in enumerate(found)
      for box, its, score in zip(objects.boxes, objects.classes, objects.scores)
      if its == label
    ),
    key=lambda row: -row[0],
  )
  taken, right = set(), []
  for _, image, box in rows:
    candidates = [
      (_iou(box, other), (image, i))
      for i, (other, its) in enumerate(
        zip(truth[image].boxes, truth[image].classes)
      )
      if its == label and (image, i) not in taken
    ]
    overlap, key = max(candidates, default=(0, None))
    right.append(overlap >= threshold)
    if right[-1]:
      taken.add(key)
  total = sum((objects.classes == label).sum() for objects in truth)
  hits = np.cumsum(right)
  precision = hits / np.arange(1, len(right) + 1)
  recall = hits / total
  values = []
  for level in np.linspace(0, 1, 101):
    values.append(max(precision[recall >= level - 1e-12], default=0.0))
  return np.mean(values)


def _boxes(rng, count):
  corner = rng.uniform(0, 0.6, [count, 2])
  return np.concatenate([corner, corner + rng.uniform(0.1, 0.4, [count, 2])], 1)


def _images(num_images=30, num_classes=3):
  rng = np.random.default_rng(0)
  truth, found = [], []
  for _ in range(num_images):
    count = rng.integers(0, 4)
    boxes = _boxes(rng, count)
    classes = rng.integers(num_classes, size=count)
    truth.append(measures.Objects(boxes, classes))
    near = boxes + rng.normal(0, 0.03, boxes.shape)
    other = np.where(rng.random(count) < 0.8, classes, 0)
    false = rng.integers(0, 3)
    found.append(
      measures.Objects(
        np.concatenate([near, _boxes(rng, false)]),
        np.concatenate([other, rng.integers(num_classes, size=false)]),
        rng.random(count + false),
      )
    )
  return truth, found


class MetricsTest(parameterized.TestCase):
  def test_average_precision_is_that_of_the_definition(self):
    truth, found = _images()
    values = measures.average_precisions(truth, found, 4)
    self.assertEqual(values.shape, (11, 4))
    for i, threshold in enumerate(measures.IOUS):
      for label in range(3):
        self.assertAlmostEqual(
          values[i, label],
          _average_precision(truth, found, label, threshold),
          places=6,
        )
    self.assertTrue(np.isnan(values[:, 3]).all())
    self.assertGreater(values[0, 0], values[10, 0])

  def test_nothing_found(self):
    truth, _ = _images()
    nothing = measures.Objects(
      np.zeros([0, 4]), np.zeros([0], int), np.zeros(0)
    )
    values = measures.average_precisions(truth, [nothing] * len(truth), 3)
    np.testing.assert_array_equal(values, 0)
    counts = measures.count_clusters(truth, [nothing] * len(truth), 5, 3)
    classes, agreement = measures.match_clusters(counts)
    self.assertEqual(agreement, 0)
    self.assertLen(classes, 5)

  def test_clusters_are_counted_by_the_best_detection(self):
    truth = [
      measures.Objects(
        np.array([[0, 0, 0.5, 0.5], [0.6, 0.6, 1, 1]]), np.array([1, 0])
      )
    ]
    found = [
      measures.Objects(
        np.array(
          [
            [0, 0, 0.5, 0.5],  # right, but with a lower score than the next
            [0, 0, 0.5, 0.45],
            [0.6, 0.1, 0.9, 0.3],  # nothing is there
          ]
        ),
        np.array([3, 2, 0]),
        np.array([0.5, 0.6, 0.9]),
      )
    ]
    counts = measures.count_clusters(truth, found, 4, 2)
    np.testing.assert_array_equal(np.argwhere(counts), [[2, 1]])

  def test_matching(self):
    counts = np.array([[9, 8, 0], [8, 1, 0], [0, 0, 0], [0, 1, 3]])
    classes, agreement = measures.match_clusters(counts, 'hungarian')
    # Cluster 0 would take class 0, which serves cluster 1 better.
    np.testing.assert_array_equal(classes, [1, 0, -1, 2])
    self.assertAlmostEqual(agreement, (8 + 8 + 3) / 30)
    classes, agreement = measures.match_clusters(counts, 'commonest')
    np.testing.assert_array_equal(classes, [0, 0, -1, 2])
    self.assertAlmostEqual(agreement, (9 + 8 + 3) / 30)


class _Fixed(model_lib.Detector):
  """A detector that answers with boxes hidden in the corner of its images."""

  def detect(self, video, max_detections=100, min_score=0.05, max_overlap=0.6):
    del max_detections, min_score, max_overlap
    row = video[:, 0, 0]  # (B, W, 3)
    boxes = tf.reshape(row[:, :4, 0], [-1, 1, 4])
    return {
      model_lib.BOXES: tf.concat([boxes, tf.zeros_like(boxes)], 1),
      model_lib.SCORES: tf.stack([row[:, 4, 0], 0 * row[:, 4, 0]], 1),
      model_lib.CLASSES: tf.stack(
        [
          tf.cast(row[:, 5, 0], tf.int32),
          -tf.ones(tf.shape(row)[:1], tf.int32),
        ],
        1,
      ),
    }


def _tower():
  return patch_tower.PatchTower(
    'video',
    input_size=(1, 16),
    patch_size=(1, 8, 8),
    size=sizes.Size(1, 8, 16, 2, d_kv=4),
    drop_token_rate=0.0,
  )


class EvaluationTest(tf.test.TestCase, parameterized.TestCase):
  def _dataset(self, clusters):
    """Images with one object each; a detector of `clusters` sees it."""
    rng = np.random.default_rng(0)
    count = 24
    classes = rng.integers(3, size=count)
    boxes = _boxes(rng, count)
    video = np.zeros([count, 1, 16, 16, 3], np.float32)
    video[:, 0, 0, :4, 0] = boxes
    video[:, 0, 0, 4, 0] = rng.uniform(0.5, 1, count)
    video[:, 0, 0, 5, 0] = np.asarray(clusters)[classes]
    rows = {
      names.VIDEO: video,
      names.VIDEO_MASK: np.ones([count], bool),
      names.VIDEO_BOXES: boxes[:, np.newaxis, np.newaxis].astype(np.float32),
      names.VIDEO_BOX_MASK: np.ones([count, 1, 1], bool),
      names.VIDEO_BOX_CLASS: classes[:, np.newaxis, np.newaxis].astype(
        np.int32
      ),
    }
    self._commonest = np.bincount(classes).max() / count
    return tf.data.Dataset.from_tensor_slices(rows).batch(8)

  def _model(self, num_classes):
    model = _Fixed(_tower(), num_classes, num_convs=0)
    model.build()
    return model

  def test_matched_clusters(self):
    dataset = self._dataset([4, 0, 3])
    evaluation = detection.DetectionEvaluation(['a', 'b', 'c'], 'hungarian')
    metrics = evaluation(self._model(5), dataset)
    for name in ('mAP_30', 'mAP_50', 'mAP', 'agreement', 'recall_30'):
      self.assertAlmostEqual(metrics[name], 1.0)
    self.assertEqual(metrics['clusters'][4], 'a')
    self.assertEqual(metrics['clusters'][0], 'b')
    self.assertEqual(metrics['clusters'][3], 'c')
    self.assertAlmostEqual(metrics['chance_agreement'], self._commonest)
    self.assertLess(metrics['baseline_mAP_30'], 0.34)
    self.assertIn('24 images, 24 objects', evaluation.format_table(metrics))
    self.assertIn('mAP_30', evaluation.scalars(metrics))

  def test_two_classes_in_one_cluster(self):
    dataset = self._dataset([1, 1, 0])
    evaluation = detection.DetectionEvaluation(['a', 'b', 'c'], 'hungarian')
    metrics = evaluation(self._model(2), dataset)
    self.assertLess(metrics['agreement'], 0.9)
    self.assertIn(0.0, metrics['class_average_precision'])

  def test_true_classes(self):
    evaluation = detection.DetectionEvaluation(['a', 'b', 'c'])
    metrics = evaluation(self._model(3), self._dataset([0, 1, 2]))
    self.assertAlmostEqual(metrics['mAP'], 1.0)
    self.assertNotIn('agreement', metrics)
    wrong = evaluation(self._model(3), self._dataset([1, 2, 0]))
    self.assertAlmostEqual(wrong['mAP_30'], 0.0)

  def test_bad_input(self):
    dataset = self._dataset([0, 1, 2])
    with self.assertRaisesRegex(ValueError, "matching='other'"):
      detection.DetectionEvaluation(['a'], 'other')
    with self.assertRaisesRegex(ValueError, '3 classes and the boxes 2'):
      detection.DetectionEvaluation(['a', 'b'])(self._model(3), dataset)
    evaluation = detection.DetectionEvaluation(['a', 'b', 'c'])
    with self.assertRaisesRegex(ValueError, 'needs a `Detector`'):
      evaluation(tf_keras.Sequential(), dataset)
    without = dataset.map(
      lambda rows: {
        **rows,
        names.VIDEO_BOX_MASK: tf.zeros_like(rows[names.VIDEO_BOX_MASK]),
      }
    )
    with self.assertRaisesRegex(ValueError, 'No image has a box'):
      evaluation(self._model(3), without)
    bare = dataset.map(lambda rows: {names.VIDEO: rows[names.VIDEO]})
    with self.assertRaisesRegex(ValueError, 'must have boxes'):
      evaluation(self._model(3), bare)


if __name__ == '__main__':
  tf.test.main()
