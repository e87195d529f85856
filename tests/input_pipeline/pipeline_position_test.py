"""Tests of the order of records, and of where a run resumes in it."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.input_pipeline import pipeline_case
from vatt_tf.input_pipeline import (
  audio_config,
  order,
)
from vatt_tf.input_pipeline import plan as plan_lib


class PositionTest(pipeline_case.Case):
  def test_training_goes_on_where_it_was(self):
    pattern = self._write([pipeline_case.clip(i) for i in range(11)], 3)

    def make(start_step):
      return self._make(
        pattern,
        4,
        video=pipeline_case.VIDEO,
        audio=audio_config.AudioConfig(
          num_samples=240, sample_rate=800, noise_std=0.1
        ),
        text=self._text,
        seed=5,
        shuffle_buffer_size=4,
        start_step=start_step,
      )

    whole = list(make(0).take(12))
    for start in (7,):
      for expected, batch in zip(whole[start:], make(start)):
        for key in expected:
          self.assertAllEqual(batch[key], expected[key], msg=key)
    # Every epoch holds every record once, in an order of its own.
    ids = pipeline_case.numbers(
      i.decode() for b in whole for i in b['example_id'].numpy()
    )
    epochs = [ids[i : i + 11] for i in (0, 11, 22, 33)]
    for epoch in epochs:
      self.assertEqual(sorted(epoch), list(range(11)))
    self.assertLen({tuple(epoch) for epoch in epochs}, 4)

  def test_seeds(self):
    pattern = self._write([pipeline_case.clip(i) for i in range(12)], 2)
    orders = [
      tuple(self._ids(self._make(pattern, 4, seed=seed), 3))
      for seed in (1, 2, 1)
    ]
    self.assertEqual(orders[0], orders[2])
    self.assertNotEqual(orders[0], orders[1])

  def test_mixture(self):
    sources = [
      plan_lib.Source(
        self._write([pipeline_case.clip(i) for i in range(5)], 1, 'a'),
        weight=3.0,
      ),
      plan_lib.Source(
        self._write([pipeline_case.clip(i) for i in range(100, 107)], 2, 'b'),
        modalities=['video'],
      ),
    ]
    whole = self._make(sources, 4, seed=3).take(60)
    batches = list(whole)
    ids = pipeline_case.numbers(
      i.decode() for b in batches for i in b['example_id'].numpy()
    )
    self.assertBetween(np.mean(np.array(ids) < 100), 0.65, 0.85)
    # A source keeps its epochs: no record comes again before all others came.
    first = [i for i in ids if i < 100]
    self.assertEqual(sorted(first[5:10]), [0, 1, 2, 3, 4])
    # The sound of the second source is not read.
    masks = np.concatenate([b['audio_mask'] for b in batches])
    self.assertAllEqual(masks, np.array(ids) < 100)
    rest = self._make(sources, 4, seed=3, start_step=37).take(23)
    for expected, batch in zip(batches[37:], rest):
      for key in expected:
        self.assertAllEqual(batch[key], expected[key], msg=key)

  def test_counted_draws_are_the_draws(self):
    seed = order.seed_of(1, 'x')
    weights = [1.0, 2.0, 5.0]
    draws = tf.concat(
      [order.draw_sources(c, weights, seed) for c in range(3)], axis=0
    ).numpy()
    for position in (0, 10, 16384, 40000):
      self.assertAllEqual(
        order.count_draws(position, weights, seed),
        np.bincount(draws[:position], minlength=3),
      )
    share = np.bincount(draws) / draws.size
    self.assertAllClose(share, np.array(weights) / 8.0, atol=0.02)

  @parameterized.parameters((4, True), (1, False))
  def test_input_pipelines(self, num_shards, gets_files):
    pattern = self._write(
      [pipeline_case.clip(i) for i in range(10)], num_shards
    )

    def make(number, is_training):
      context = tf.distribute.InputContext(
        num_input_pipelines=2,
        input_pipeline_id=number,
        num_replicas_in_sync=4,
      )
      return self._make(
        pattern,
        8,
        is_training,
        input_context=context,
        num_epochs=1 if is_training else None,
      )

    seen = []
    for number in range(2):
      batches = list(make(number, False))
      # Rows of one replica: 8 / 4. All pipelines give equally many batches.
      self.assertEqual(batches[0]['valid'].shape, [2])
      self.assertLen(batches, 3)
      valid = np.concatenate([b['valid'] for b in batches])
      ids = np.concatenate([b['example_id'] for b in batches])
      seen.append({i.decode() for i in ids[valid]})
      self.assertLen(seen[-1], valid.sum())
      trained = self._ids(make(number, True))
      self.assertLessEqual(set(trained), seen[-1])
    self.assertEmpty(seen[0] & seen[1])
    self.assertLen(seen[0] | seen[1], 10)
    if gets_files:  # Shard s holds the records s, s + 4, …
      self.assertEqual({n % 2 for n in pipeline_case.numbers(seen[0])}, {0})

  def test_a_row_is_the_same_in_any_pipeline(self):
    pattern = self._write([pipeline_case.clip(i) for i in range(4)], 2)
    config = audio_config.AudioConfig(
      num_samples=240, sample_rate=800, noise_std=0.2
    )
    arguments = {'audio': config, 'num_epochs': 1, 'seed': 9}
    rows = {}
    for batch in self._make(pattern, 1, **arguments):
      rows[batch['example_id'][0].numpy()] = batch['audio'][0]
    for number in range(2):
      context = tf.distribute.InputContext(2, number, 2)
      batches = self._make(pattern, 2, input_context=context, **arguments)
      for batch in batches:
        name = batch['example_id'][0].numpy()
        self.assertAllEqual(batch['audio'][0], rows.pop(name))
    self.assertEmpty(rows)


if __name__ == '__main__':
  tf.test.main()
