"""Tests of the retrieval metrics, against loops over sorted lists."""

import itertools

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.evaluation import retrieval


def _unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _worst_rank(similarities, matches):
  """The place of the first match in the order that is worst for it."""
  order = sorted(
    range(len(similarities)), key=lambda i: (-similarities[i], matches[i])
  )
  return 1 + [matches[i] for i in order].index(True)


def _embeddings(num_rows=40, num_captions=3, seed=0):
  """Embeddings that are near their partners but far from perfect."""
  random = np.random.RandomState(seed)
  common = random.randn(num_rows, 8)

  def near(*shape):
    return (
      common.reshape([num_rows] + [1] * (len(shape) - 2) + [8])
      + 0.8 * random.randn(*shape)
    ).astype(np.float32)

  return {
    names.VIDEO_VA: near(num_rows, 8),
    names.AUDIO_VA: near(num_rows, 8),
    names.VIDEO_VT: near(num_rows, 8),
    names.TEXT_VT: near(num_rows, num_captions, 8),
    names.AUDIO_VT: near(num_rows, 8),
    names.VIDEO_MASK: random.rand(num_rows) < 0.9,
    names.AUDIO_MASK: random.rand(num_rows) < 0.8,
    names.TEXT_MASK: random.rand(num_rows, num_captions) < 0.7,
  }


class RankTest(parameterized.TestCase):
  def test_ranks_equal_a_sorted_list(self):
    random = np.random.RandomState(0)
    # Few levels: ties are everywhere.
    similarity = random.randint(0, 6, [30, 17]).astype(np.float64)
    is_match = random.rand(30, 17) < 0.2
    is_match[np.arange(30), random.randint(0, 17, 30)] = True
    expected = [_worst_rank(s, m) for s, m in zip(similarity, is_match)]
    np.testing.assert_array_equal(
      retrieval.rank_of_matches(similarity, is_match), expected
    )

  def test_constant_similarity_ranks_last(self):
    ranks = retrieval.rank_of_matches(np.ones([5, 5]), np.eye(5, dtype=bool))
    np.testing.assert_array_equal(ranks, [5] * 5)

  def test_rounding_does_not_break_ties(self):
    similarity = 1 - 1e-7 * np.random.RandomState(0).rand(50, 50)
    ranks = retrieval.rank_of_matches(similarity, np.eye(50, dtype=bool))
    np.testing.assert_array_equal(ranks, [50] * 50)

  @parameterized.parameters(1, 7, 10**6)
  def test_chunks_change_nothing(self, max_similarities):
    random = np.random.RandomState(0)
    queries, pool = random.randn(20, 4), random.randn(9, 4)
    ids, pool_ids = random.randint(0, 5, 20), np.arange(9) % 5
    np.testing.assert_array_equal(
      retrieval.embedding_ranks(queries, pool, ids, pool_ids, max_similarities),
      retrieval.rank_of_matches(
        queries @ pool.T, ids[:, np.newaxis] == pool_ids
      ),
    )

  @parameterized.named_parameters(
    ('nan', [[np.nan, 1.0]], [[True, False]], '`similarity` must be finite'),
    ('no match', [[0.0, 1.0]], [[False, False]], 'a match in each row'),
    ('shapes', [[0.0, 1.0]], [[True]], 'must have one shape'),
  )
  def test_bad_input(self, similarity, is_match, message):
    with self.assertRaisesRegex(ValueError, message):
      retrieval.rank_of_matches(similarity, is_match)


class SummaryTest(parameterized.TestCase):
  def test_recalls_and_ranks(self):
    metrics = retrieval.summarize_ranks([1, 1, 4, 8, 20, 30], [1] * 6, 100)
    self.assertAlmostEqual(metrics['R@1'], 2 / 6)
    self.assertAlmostEqual(metrics['R@5'], 3 / 6)
    self.assertAlmostEqual(metrics['R@10'], 4 / 6)
    self.assertAlmostEqual(metrics['median_rank'], 6)
    self.assertAlmostEqual(metrics['mean_rank'], 64 / 6)
    self.assertAlmostEqual(metrics['chance_R@1'], 0.01)
    self.assertAlmostEqual(metrics['chance_R@5'], 0.05)
    self.assertAlmostEqual(metrics['chance_R@10'], 0.1)
    self.assertAlmostEqual(metrics['chance_median_rank'], 50.5)
    self.assertAlmostEqual(metrics['chance_mean_rank'], 50.5)
    self.assertEqual(metrics['num_queries'], 6)
    self.assertEqual(metrics['pool_size'], 100)

  @parameterized.parameters((6, [1]), (7, [3]), (5, [1, 2, 4]), (12, [11, 2]))
  def test_chance_equals_all_orders(self, pool_size, num_matches):
    ranks = []
    for matches in num_matches:
      places = [
        min(p) + 1 for p in itertools.combinations(range(pool_size), matches)
      ]
      # The same weight for each query, whatever the number of its orders.
      ranks.append(np.bincount(places, minlength=16) / len(places))
    share = np.mean(ranks, 0)
    metrics = retrieval.summarize_ranks([1], num_matches, pool_size)
    for rank in (1, 5, 10):
      self.assertAlmostEqual(
        metrics[f'chance_R@{rank}'], share[: rank + 1].sum()
      )
    self.assertAlmostEqual(
      metrics['chance_mean_rank'], np.dot(share, np.arange(16))
    )
    total = np.cumsum(share)
    low, high = np.argmax(total >= 0.5 - 1e-9), np.argmax(total > 0.5 + 1e-9)
    self.assertAlmostEqual(metrics['chance_median_rank'], (low + high) / 2)

  def test_chance_of_a_large_pool(self):
    metrics = retrieval.summarize_ranks([1], [5], 10**5)
    self.assertAlmostEqual(metrics['chance_R@1'], 5e-5, places=12)
    self.assertAlmostEqual(metrics['chance_R@10'], 5e-4, places=6)


class RetrievalMetricsTest(parameterized.TestCase):
  def test_every_direction_equals_a_loop(self):
    data = _embeddings()
    metrics = retrieval.retrieval_metrics(data)
    video, audio = data[names.VIDEO_MASK], data[names.AUDIO_MASK]
    text = data[names.TEXT_MASK]

    def items(key, mask):
      """(row, unit vector) of all that exists, one by one."""
      found = []
      for index in np.ndindex(*mask.shape):
        if mask[index]:
          found.append((index[0], _unit(data[key][index])))
      return found

    cases = {
      'text_to_video': (
        items(names.TEXT_VT, text),
        items(names.VIDEO_VT, video),
      ),
      'video_to_text': (
        items(names.VIDEO_VT, video),
        items(names.TEXT_VT, text),
      ),
      'audio_to_video': (
        items(names.AUDIO_VA, audio),
        items(names.VIDEO_VA, video),
      ),
      'video_to_audio': (
        items(names.VIDEO_VA, video),
        items(names.AUDIO_VA, audio),
      ),
      'text_to_audio': (
        items(names.TEXT_VT, text),
        items(names.AUDIO_VT, audio),
      ),
      'audio_to_text': (
        items(names.AUDIO_VT, audio),
        items(names.TEXT_VT, text),
      ),
    }
    self.assertCountEqual(metrics, cases)
    for direction, (queries, pool) in cases.items():
      ranks, left_out = [], 0
      for row, query in queries:
        matches = [row == other for other, _ in pool]
        if not any(matches):
          left_out += 1
          continue
        ranks.append(_worst_rank([query @ x for _, x in pool], matches))
      result = metrics[direction]
      with self.subTest(direction):
        for rank in (1, 5, 10):
          self.assertAlmostEqual(
            result[f'R@{rank}'], np.mean(np.array(ranks) <= rank)
          )
        self.assertAlmostEqual(result['median_rank'], np.median(ranks))
        self.assertAlmostEqual(result['mean_rank'], np.mean(ranks))
        self.assertEqual(result['num_queries'], len(ranks))
        self.assertEqual(result['num_queries_left_out'], left_out)
        self.assertEqual(result['pool_size'], len(pool))
        self.assertGreater(result['R@10'], result['chance_R@10'])
    # A clip that lacks every caption lacks text, one caption does not.
    self.assertEqual(
      metrics['text_to_video']['num_rows_left_out'], np.sum(~video)
    )
    self.assertEqual(
      metrics['video_to_text']['num_rows_left_out'], np.sum(~text.any(1))
    )

  def test_order_of_rows_changes_nothing(self):
    data = _embeddings()
    data[names.EXAMPLE_ID] = np.array([f'{i // 2}' for i in range(40)])
    order = np.random.RandomState(1).permutation(40)
    shuffled = {key: value[order] for key, value in data.items()}
    first = retrieval.retrieval_metrics(data)
    second = retrieval.retrieval_metrics(shuffled)
    self.assertEqual(first, second)

  def test_constant_embeddings_find_nothing(self):
    data = _embeddings()
    for key in (names.VIDEO_VA, names.VIDEO_VT):
      data[key] = np.ones_like(data[key]) * np.arange(1, 9)
    metrics = retrieval.retrieval_metrics(data)
    for direction in ('text_to_video', 'audio_to_video'):
      result = metrics[direction]
      self.assertEqual(result['R@10'], 0)
      self.assertEqual(result['median_rank'], result['pool_size'])
    # All videos ask the same question: one answer is right for one of them.
    for direction in ('video_to_text', 'video_to_audio'):
      self.assertLessEqual(metrics[direction]['R@1'], 0.1)

  @parameterized.parameters(*retrieval.COMBINATIONS)
  def test_clips_of_one_video_are_combined(self, combination):
    random = np.random.RandomState(0)
    video = random.randn(12, 8) * random.rand(12, 1) * 5
    audio = random.randn(12, 8)
    ids = np.array([b'a', b'b', b'c', b'd', b'e', b'f'] * 2)
    data = {
      names.VIDEO_VA: video,
      names.AUDIO_VA: audio,
      names.EXAMPLE_ID: ids,
    }
    expected = []
    for query in range(6):
      similarities = []
      for item in range(6):
        a = [audio[query], audio[query + 6]]
        v = [video[item], video[item + 6]]
        if combination == 'mean_similarity':
          pairs = [_unit(x) @ _unit(y) for x in a for y in v]
          similarities.append(np.mean(pairs))
          continue
        if combination == 'mean_normalized':
          a, v = _unit(np.array(a)), _unit(np.array(v))
        similarities.append(_unit(np.mean(a, 0)) @ _unit(np.mean(v, 0)))
      expected.append(_worst_rank(similarities, [i == query for i in range(6)]))
    result = retrieval.retrieval_metrics(data, combination)['audio_to_video']
    self.assertAlmostEqual(result['mean_rank'], np.mean(expected))
    self.assertEqual(result['pool_size'], 6)
    self.assertEqual(result['num_queries'], 6)
    self.assertEqual(result['max_clips_per_video'], 2)
    self.assertEqual(result['combination'], combination)

  def test_rows_without_an_id_are_videos_of_their_own(self):
    data = _embeddings()
    data[names.EXAMPLE_ID] = np.array([b''] * 40, object)
    self.assertEqual(
      retrieval.retrieval_metrics(data),
      retrieval.retrieval_metrics(_embeddings()),
    )

  def test_equal_captions_of_one_video_count_once(self):
    data = _embeddings(num_captions=3)
    data[names.TEXT_MASK][:] = True
    data[names.TEXT_VT][:, 2] = data[names.TEXT_VT][:, 0]
    tokens = np.arange(40 * 3 * 2).reshape([40, 3, 2])
    tokens[:, 2] = tokens[:, 0]
    data[names.TEXT] = tokens
    once = {key: value.copy() for key, value in data.items()}
    once[names.TEXT_MASK][:, 2] = False
    metrics = retrieval.retrieval_metrics(data)
    self.assertEqual(metrics, retrieval.retrieval_metrics(once))
    self.assertEqual(metrics['text_to_video']['max_captions_per_video'], 2)

  def test_what_does_not_exist_may_hold_anything(self):
    data = _embeddings()
    expected = retrieval.retrieval_metrics(data)
    data[names.AUDIO_VA][~data[names.AUDIO_MASK]] = np.nan
    data[names.TEXT_VT][~data[names.TEXT_MASK]] = np.inf
    self.assertEqual(retrieval.retrieval_metrics(data), expected)

  def test_an_embedding_that_is_not_finite_is_named(self):
    data = _embeddings()
    data[names.EXAMPLE_ID] = np.array([f'clip-{i}' for i in range(40)])
    data[names.AUDIO_MASK][7] = True
    data[names.AUDIO_VA][7, 2] = np.nan
    with self.assertRaisesRegex(
      ValueError, '`audio_va` must be finite.*clip-7'
    ):
      retrieval.retrieval_metrics(data)

  def test_bad_arguments(self):
    data = _embeddings()
    with self.assertRaisesRegex(ValueError, 'mean_embedding, mean_normalized'):
      retrieval.retrieval_metrics(data, 'mean')
    with self.assertRaisesRegex(ValueError, 'the same number of rows'):
      retrieval.retrieval_metrics({**data, names.AUDIO_VA: np.ones([3, 8])})
    with self.assertRaisesRegex(ValueError, 'one width'):
      retrieval.retrieval_metrics({**data, names.AUDIO_VA: np.ones([40, 4])})
    with self.assertRaisesRegex(ValueError, 'of rank 3'):
      retrieval.retrieval_metrics({**data, names.TEXT_VT: np.ones([40, 8])})

  def test_modalities_without_a_common_clip_give_no_direction(self):
    data = _embeddings()
    data[names.AUDIO_MASK][:] = False
    metrics = retrieval.retrieval_metrics(data)
    self.assertCountEqual(metrics, ['text_to_video', 'video_to_text'])

  def test_table(self):
    table = retrieval.format_table(retrieval.retrieval_metrics(_embeddings()))
    lines = table.splitlines()
    self.assertIn('R@10 (chance)', lines[0])
    self.assertLen({len(line) for line in lines[:7]}, 1)
    self.assertIn('text -> video', lines[1])
    self.assertIn('Captions per video: 1 to 3', table)
    self.assertIn('rows without video', table)
    self.assertIn('no pair', retrieval.format_table({}))


class EvaluateTest(tf.test.TestCase):
  def test_a_data_set_is_embedded_whole(self):
    data = _embeddings(num_rows=10, num_captions=2)
    tokens = np.arange(40).reshape([10, 2, 2]).astype(np.int32)
    rows = {
      **{key: data[key] for key in retrieval._MASKS.values()},
      'row': np.arange(10),
      names.TEXT: tokens,
      names.EXAMPLE_ID: np.array([f'clip-{i}' for i in range(10)]),
    }

    def model(features, training):
      self.assertFalse(training)
      self.assertNotIn(names.EXAMPLE_ID, features)
      row = features['row']
      return {
        'feature': row,
        names.VIDEO_VT: tf.gather(data[names.VIDEO_VT], row),
        names.TEXT_VT: tf.cast(
          tf.gather(data[names.TEXT_VT], row), tf.bfloat16
        ),
      }

    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(4)
    found = retrieval.embed_dataset(model, dataset)
    self.assertAllEqual(found[names.VIDEO_VT], data[names.VIDEO_VT])
    self.assertDTypeEqual(found[names.TEXT_VT], np.float32)
    self.assertLen(found[names.EXAMPLE_ID], 10)
    metrics = retrieval.evaluate_retrieval(model, dataset)
    self.assertCountEqual(metrics, ['text_to_video', 'video_to_text'])
    self.assertEqual(metrics['text_to_video']['num_rows'], 10)
    self.assertEqual(metrics['text_to_video']['num_rows_dropped'], 0)
    evaluation = retrieval.RetrievalEvaluation()
    self.assertEqual(evaluation(model, dataset), metrics)
    self.assertEqual(
      evaluation.scalars(metrics)['video_to_text/R@10'],
      metrics['video_to_text']['R@10'],
    )
    table = evaluation.format_table(metrics)
    self.assertIn('10 clips, 0 dropped (0.0%).', table)
    with self.assertRaisesRegex(ValueError, '`combination`'):
      retrieval.RetrievalEvaluation('median')(model, dataset)

    padded = dataset.map(
      lambda batch: {**batch, 'valid': batch['row'] % 5 != 0}
    )
    found = retrieval.embed_dataset(model, padded)
    self.assertLen(found[names.VIDEO_VT], 8)

  def test_an_empty_data_set_is_an_error(self):
    dataset = tf.data.Dataset.from_tensor_slices({'row': []}).batch(2)
    with self.assertRaisesRegex(ValueError, 'at least one batch'):
      retrieval.embed_dataset(lambda features, training: {}, dataset)


if __name__ == '__main__':
  tf.test.main()
