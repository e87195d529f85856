"""Balanced labels, and clusters that two modalities agree on."""

from absl.testing import parameterized
import numpy as np
from sklearn import metrics
import tensorflow as tf

from vatt_tf.localization import clusters, sinkhorn


def _plan(log_probabilities, weights, sharpness, rounds):
  """The transport plan by the textbook's loop, row by row."""
  plan = np.exp(0.5 * sharpness * log_probabilities)
  for _ in range(rounds):
    for k in range(plan.shape[1]):
      plan[:, k] *= weights[k] / plan[:, k].sum()
    for n in range(plan.shape[0]):
      plan[n] *= 1 / (len(plan) * plan[n].sum())
  return plan


class SinkhornTest(parameterized.TestCase):
  @parameterized.parameters((2.0,), (10.0,))
  def test_labels_are_those_of_the_plan(self, sharpness):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal([40, 5])
    weights = rng.dirichlet(np.full(5, 5.0))
    labels = sinkhorn.balanced_labels(
      scores, weights, sharpness, tolerance=1e-9
    )
    plan = _plan(scores, weights, sharpness, 2000)
    np.testing.assert_array_equal(labels, plan.argmax(1))
    np.testing.assert_allclose(plan.sum(0), weights, atol=1e-6)

  def test_labels_are_balanced(self):
    # All clips would have label 0 by its probability alone.
    rng = np.random.default_rng(0)
    scores = rng.standard_normal([600, 3]) + [5.0, 0.0, 0.0]
    counts = np.bincount(
      sinkhorn.balanced_labels(scores, np.full(3, 1 / 3), 40.0, 1e-6)
    )
    self.assertGreater(np.bincount(scores.argmax(1))[0], 590)
    np.testing.assert_allclose(counts, 200, atol=12)

  def test_wild_scores(self):
    scores = np.array([[0.0, -1e4], [-1e4, 0.0], [0.0, -1e5]])
    labels = sinkhorn.balanced_labels(scores, np.array([2 / 3, 1 / 3]))
    np.testing.assert_array_equal(labels, [0, 1, 0])

  def test_marginals(self):
    sizes = np.array([10, 60, 30])
    rng = np.random.default_rng(0)
    uniform = sinkhorn.marginal('uniform', sizes)
    np.testing.assert_allclose(uniform, 1 / 3)
    gaussian = sinkhorn.marginal('gaussian', sizes, 0.3, rng)
    self.assertAlmostEqual(gaussian.sum(), 1)
    np.testing.assert_array_equal(np.argsort(gaussian), np.argsort(sizes))
    drawn = [
      3 * sinkhorn.marginal('gaussian', sizes, 0.3, rng) for _ in range(500)
    ]
    self.assertAlmostEqual(np.std(drawn), 0.3 * np.sqrt(2 / 3), delta=0.03)
    with self.assertRaisesRegex(ValueError, "marginals='other'"):
      sinkhorn.marginal('other', sizes)


class ClustersTest(parameterized.TestCase):
  def _clips(self, num_clips=300):
    """Clips of five classes, and features that only one modality has."""
    rng = np.random.default_rng(0)
    truth = rng.integers(5, size=num_clips)
    features = []
    for _ in range(2):
      own = rng.integers(5, size=num_clips)
      centres = 3 * rng.standard_normal([2, 5, 12])
      features.append(
        centres[0][truth] + centres[1][own] + rng.standard_normal([300, 12])
      )
    return truth, features

  @parameterized.parameters(('uniform',), ('gaussian',))
  def test_finds_what_both_modalities_have(self, marginals):
    truth, (pictures, sounds) = self._clips()
    options = clusters.Options(
      num_clusters=5, num_heads=6, marginals=marginals, num_rounds=10
    )
    found = clusters.find(pictures, sounds, options)
    self.assertEqual(found.labels.shape, (6, 300))
    scores = [
      metrics.adjusted_rand_score(truth, labels) for labels in found.labels
    ]
    self.assertGreater(scores[found.best], 0.7)
    sizes = np.bincount(found.labels[found.best])
    self.assertLess(np.abs(sizes - 60).max(), 30)
    again = clusters.find(pictures, sounds, options)
    np.testing.assert_array_equal(again.labels, found.labels)

  def test_bad_options(self):
    for name, value in (
      ('num_clusters', 1),
      ('num_heads', 0),
      ('marginals', 'other'),
    ):
      with self.assertRaisesRegex(ValueError, f'{name}={value!r}'):
        clusters.Options(**{name: value})
    with self.assertRaisesRegex(ValueError, '3 clips, num_clusters=32'):
      clusters.find(np.zeros([3, 2]), np.zeros([3, 2]), clusters.Options())


if __name__ == '__main__':
  tf.test.main()
