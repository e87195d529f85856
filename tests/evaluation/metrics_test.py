"""Tests of the measures of classification, against scikit-learn."""

import math
import warnings

from absl.testing import parameterized
import numpy as np
import scipy.stats
import sklearn.metrics
import tensorflow as tf

from vatt_tf.evaluation import metrics


def _cases():
  """Scores and labels (N,): random ones, and those that break things."""
  rng = np.random.default_rng(0)
  labels = rng.random(200) < 0.3
  yield 'random', rng.normal(size=200), labels
  yield 'ties', rng.integers(0, 4, 200).astype(float), labels
  yield 'constant', np.zeros(200), labels
  yield 'perfect', labels + 0.0, labels
  yield 'inverted', -1.0 * labels, labels
  yield 'one_positive', rng.normal(size=200), np.arange(200) == 7
  yield 'one_negative', rng.normal(size=200), np.arange(200) != 7
  yield 'two_examples', np.array([1.0, 1.0]), np.array([True, False])
  yield 'tiny_differences', 1 + 1e-12 * rng.integers(0, 9, 200), labels
  yield 'huge', 1e300 * rng.normal(size=200), labels
  yield 'sorted_with_ties_at_ends', np.repeat([3.0, 1.0], 100), labels


class MetricsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.named_parameters(*_cases())
  def test_average_precision_and_auc(self, scores, labels):
    self.assertAllClose(
      metrics.average_precision(scores, labels),
      sklearn.metrics.average_precision_score(labels, scores),
      rtol=1e-9,
      atol=1e-9,
    )
    auc = metrics.roc_auc(scores, labels)
    self.assertAllClose(
      auc, sklearn.metrics.roc_auc_score(labels, scores), rtol=1e-9, atol=1e-9
    )
    if 0 < auc < 1:
      self.assertAllClose(
        metrics.d_prime(auc, labels.sum(), (~labels).sum()),
        math.sqrt(2) * scipy.stats.norm.ppf(auc),
        rtol=1e-9,
        atol=1e-9,
      )
    order = np.random.default_rng(1).permutation(len(scores))
    for function in (metrics.average_precision, metrics.roc_auc):
      self.assertAllClose(
        function(scores[order], labels[order]),
        function(scores, labels),
        rtol=1e-12,
        atol=1e-12,
      )

  def test_constant_scores_are_chance(self):
    labels = np.arange(10) < 3
    self.assertAllClose(metrics.average_precision(np.ones(10), labels), 0.3)
    self.assertEqual(metrics.roc_auc(np.ones(10), labels), 0.5)
    self.assertAllClose(metrics.d_prime(0.5, 3, 7), 0.0)

  def test_undefined(self):
    scores = np.array([0.1, 0.2])
    self.assertTrue(math.isnan(metrics.average_precision(scores, [0, 0])))
    self.assertTrue(math.isnan(metrics.roc_auc(scores, [0, 0])))
    self.assertTrue(math.isnan(metrics.roc_auc(scores, [1, 1])))
    self.assertEqual(metrics.average_precision(scores, [1, 1]), 1.0)
    self.assertEqual(metrics.average_precision([0.3], [1]), 1.0)

  def test_d_prime_stays_finite(self):
    # Four pairs: the least step of the AUC is 1 / 4, half of it 1 / 8.
    expected = math.sqrt(2) * scipy.stats.norm.ppf(1 - 1 / 8)
    self.assertAllClose(metrics.d_prime(1.0, 2, 2), expected)
    self.assertAllClose(metrics.d_prime(0.0, 2, 2), -expected)

  def test_multi_label(self):
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 9, [60, 6]) / 8
    labels = rng.random([60, 6]) < 0.2
    labels[:, 2] = False
    labels[:, 4] = True
    found = metrics.multi_label_metrics(scores, labels)
    self.assertAllEqual(found['num_positives'], labels.sum(0))
    self.assertAllEqual(np.isnan(found['average_precision']), np.eye(6)[2])
    for key in ('auc', 'd_prime'):
      self.assertAllEqual(
        np.isnan(found[key]), [False, False, True, False, True, False]
      )
    used = [0, 1, 3, 5]
    self.assertAllClose(
      found['average_precision'][used].mean(),
      sklearn.metrics.average_precision_score(labels[:, used], scores[:, used]),
      rtol=1e-9,
    )
    self.assertAllClose(
      found['auc'][used].mean(),
      sklearn.metrics.roc_auc_score(labels[:, used], scores[:, used]),
      rtol=1e-9,
    )

  @parameterized.parameters(1, 2, 5)
  def test_top_k(self, k):
    rng = np.random.default_rng(k)
    scores, labels = rng.normal(size=[100, 7]), rng.integers(0, 7, 100)
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      expected = sklearn.metrics.top_k_accuracy_score(
        labels, scores, k=k, labels=range(7)
      )
    self.assertAllClose(metrics.top_k_accuracy(scores, labels, k), expected)
    order = rng.permutation(100)
    self.assertEqual(
      metrics.top_k_accuracy(scores[order], labels[order], k),
      metrics.top_k_accuracy(scores, labels, k),
    )

  def test_top_k_with_ties_is_the_worst(self):
    scores = np.array([[1.0, 1.0, 0.0], [2.0, 0.0, 2.0]])
    self.assertEqual(metrics.top_k_accuracy(scores, [0, 0], 1), 0.0)
    self.assertEqual(metrics.top_k_accuracy(scores, [0, 2], 2), 1.0)
    self.assertEqual(metrics.top_k_accuracy(np.zeros([4, 9]), [0] * 4, 8), 0.0)

  def test_confusion_matrix(self):
    labels, predictions = [0, 0, 1, 3], [0, 1, 1, 0]
    self.assertAllEqual(
      metrics.confusion_matrix(labels, predictions, 4),
      sklearn.metrics.confusion_matrix(labels, predictions, labels=range(4)),
    )

  @parameterized.parameters(
    (lambda: metrics.top_k_accuracy([[0.0]], [1], 1), 'row 0: 1'),
    (lambda: metrics.top_k_accuracy([[0.0]], [0, 0], 1), 'for each of 1'),
    (lambda: metrics.top_k_accuracy([[math.nan]], [0], 1), 'finite'),
    (lambda: metrics.roc_auc([math.inf, 0.0], [1, 0]), '1 of 2 are not'),
    (lambda: metrics.average_precision([], []), 'have a row'),
    (lambda: metrics.average_precision([1.0], [1, 0]), 'one shape'),
    (lambda: metrics.multi_label_metrics([[1.0]], [1]), r'\(N, C\)'),
    (lambda: metrics.confusion_matrix([0], [-1], 2), '`predictions`'),
  )
  def test_bad_input(self, function, message):
    with self.assertRaisesRegex(ValueError, message):
      function()


if __name__ == '__main__':
  tf.test.main()
