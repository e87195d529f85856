"""Tests of exact and approximate search, against NumPy."""

import os
import sys
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.retrieval_index import nearest


def _unit(x):
  return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def _clustered(rng, num_vectors, size=64, num_clusters=200):
  centres = rng.normal(size=[num_clusters, size])
  noise = 0.7 * rng.normal(size=[num_vectors, size])
  return _unit(centres[rng.integers(0, num_clusters, num_vectors)] + noise)


def _reference(query, vectors, count):
  """Score and row of the best, one by one."""
  scores = []
  for row, vector in enumerate(vectors):
    product = 0.0
    for a, b in zip(query.tolist(), vector.tolist()):
      product += a * b
    scores.append((-round(product, 6), row))
  return [(-score, row) for score, row in sorted(scores)[:count]]


class ExactTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(1, 10, 300, 1000)
  def test_equals_brute_force(self, count):
    rng = np.random.default_rng(0)
    vectors = _unit(rng.normal(size=[300, 16]))
    queries = _unit(rng.normal(size=[5, 16]))
    found = nearest.exact(queries, vectors, count)
    for query, (scores, rows) in zip(queries, found):
      expected = _reference(query, vectors, count)
      self.assertLen(rows, min(count, 300))
      self.assertEqual(rows.tolist(), [row for _, row in expected])
      self.assertAllClose(scores, [s for s, _ in expected], rtol=0, atol=1.1e-6)

  def test_equal_vectors_are_in_the_order_of_their_rows(self):
    rng = np.random.default_rng(1)
    vectors = _unit(rng.normal(size=[2000, 37]))
    same = rng.permutation(2000)[:40]
    vectors[same] = vectors[same[0]]
    # More of them than are asked for.
    ((scores, rows),) = nearest.exact(vectors[same[:1]], vectors, 25)
    self.assertEqual(rows.tolist(), np.sort(same)[:25].tolist())
    self.assertAllEqual(scores, np.ones([25]))

  def test_all_vectors_equal(self):
    vectors = np.tile(_unit(np.ones([1, 8])), [5000, 1])
    vectors[4321] = _unit(np.arange(8.0))
    ((_, rows),) = nearest.exact(vectors[:1], vectors, 10)
    self.assertEqual(rows.tolist(), list(range(10)))
    ((scores, rows),) = nearest.exact(vectors[4321:4322], vectors, 4)
    self.assertEqual(rows.tolist(), [4321, 0, 1, 2])
    self.assertEqual(scores[0], 1.0)

  def test_in_chunks_of_queries(self):
    rng = np.random.default_rng(2)
    vectors, queries = (_unit(rng.normal(size=[n, 8])) for n in (100, 7))
    whole = nearest.exact(queries, vectors, 3)
    with mock.patch.object(nearest, '_MAX_SIMILARITIES', 200):
      parts = nearest.exact(queries, vectors, 3)
    self.assertLen(parts, 7)
    for one, other in zip(whole, parts):
      self.assertAllEqual(one[1], other[1])

  def test_nothing_to_find(self):
    ((scores, rows),) = nearest.exact(
      np.ones([1, 4]), np.zeros([0, 4], np.float32), 10
    )
    self.assertEmpty(scores)
    self.assertEmpty(rows)


class ApproximateTest(tf.test.TestCase):
  def test_recall_and_scores(self):
    rng = np.random.default_rng(0)
    vectors = _clustered(rng, 20_000)
    queries = _clustered(rng, 50)
    expected = nearest.exact(queries, vectors, 10)
    built = nearest.Approximate.build(vectors)
    folder = os.path.join(self.get_temp_dir(), 'written')
    os.makedirs(folder)
    path = os.path.join(folder, 'vectors.npy')
    np.save(path, vectors)
    built.save(os.path.join(folder, 'scann'), path)
    moved = os.path.join(self.get_temp_dir(), 'moved')
    os.rename(folder, moved)
    read = nearest.Approximate.load(os.path.join(moved, 'scann'), vectors)
    found = read.search(queries, 10)
    hits = 0
    for (scores, rows), (_, right), query in zip(found, expected, queries):
      self.assertLen(set(rows.tolist()), 10)
      hits += len(set(rows.tolist()) & set(right.tolist()))
      # What is found has the score, and the order, of exact search.
      again = nearest.rank(query, vectors, rows, 10)
      self.assertAllEqual(scores, again[0])
      self.assertAllEqual(rows, again[1])
    self.assertGreaterEqual(hits / 500, 0.95)
    for one, other in zip(found, built.search(queries, 10)):
      self.assertAllEqual(one[1], other[1])

  def test_asked_for_more_than_there_are(self):
    vectors = _clustered(np.random.default_rng(0), 400)
    built = nearest.Approximate.build(vectors)
    ((scores, rows),) = built.search(vectors[:1], 1000)
    self.assertEqual(rows[0], 0)
    self.assertLessEqual(len(rows), 400)
    self.assertTrue(np.isfinite(scores).all())
    self.assertLen(set(rows.tolist()), len(rows))

  def test_says_how_to_get_it(self):
    names = [name for name in sys.modules if name.split('.')[0] == 'scann']
    missing = {**dict.fromkeys(names), 'scann': None}
    with mock.patch.dict(sys.modules, missing):
      with self.assertRaisesRegex(
        ValueError, r"pip install 'vatt_tf\[search\]'.*--method=exact"
      ):
        nearest.Approximate.build(np.zeros([10, 4], np.float32))


if __name__ == '__main__':
  tf.test.main()
