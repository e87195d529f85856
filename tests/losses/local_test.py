"""The loss between the places of a video and the sound."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import logical_devices
from vatt_tf.core import collectives, strategies
from vatt_tf.losses import contrastive, local

_GRID = (3, 2, 2)


def setUpModule():
  logical_devices.make()


def _inputs(num_clips=8, width=5):
  """Places, sounds and masks; clips without video, sound and time steps."""
  random = np.random.RandomState(0)
  sound = random.randn(num_clips, width)
  places = random.randn(num_clips, *_GRID, width)
  places[:, 1, 0, 1] += sound
  places_mask = random.rand(num_clips, *_GRID) < 0.6
  places_mask[0] = True
  places_mask[2, 1] = False
  places_mask[:, 0, 0, 0] = True
  video_mask = np.arange(num_clips) != 1
  sound_mask = ~np.isin(np.arange(num_clips), [3, 6])
  return places, sound, places_mask, video_mask, sound_mask


def _similarities(places, sound, places_mask, pool, temperature):
  """The similarities (B, B) of clips and sounds over τ, in loops."""
  num_clips = len(places)
  found = np.zeros([num_clips, num_clips])
  for i in range(num_clips):
    for j in range(num_clips):
      steps = []
      for t in range(_GRID[0]):
        values = [
          place @ sound[j] / np.linalg.norm(place) / np.linalg.norm(sound[j])
          for place, exists in zip(
            places[i, t].reshape(-1, places.shape[-1]),
            places_mask[i, t].ravel(),
          )
          if exists
        ]
        values = np.array(values) / temperature
        if len(values) and pool == 'max':
          steps.append(values.max())
        elif len(values):
          steps.append(np.log(np.sum(np.exp(values))))
      found[i, j] = np.mean(steps)
  return found


def _expected(inputs, denominator, pool, temperature):
  """Loss and accuracies by their definitions, in loops."""
  places, sound, places_mask, video_mask, sound_mask = inputs
  s = _similarities(places, sound, places_mask, pool, temperature)
  videos, sounds = np.flatnonzero(video_mask), np.flatnonzero(sound_mask)
  pairs = np.intersect1d(videos, sounds)
  losses = []
  for i in pairs:
    forward = np.exp(s[i, sounds])
    backward = np.exp(s[videos, i])
    own = np.exp(s[i, i])
    if denominator == 'joint':
      losses.append(np.log(forward.sum() + backward.sum()) - np.log(own))
    elif denominator == 'joint_once':
      losses.append(np.log(forward.sum() + backward.sum() - own) - np.log(own))
    else:
      losses.append(
        np.log(forward.sum()) + np.log(backward.sum()) - 2 * np.log(own)
      )
  hits = [
    [s[i, i] > max(s[i, j] for j in sounds if j != i) for i in pairs],
    [s[i, i] > max(s[j, i] for j in videos if j != i) for i in pairs],
  ]
  return np.mean(losses), len(pairs), *np.mean(hits, axis=1)


def _loss_and_gradients(inputs, dtype=tf.float64, **options):
  places, sound, *masks = inputs
  embeddings = [tf.cast(places, dtype), tf.cast(sound, dtype)]
  with tf.GradientTape() as tape:
    tape.watch(embeddings)
    result = local.local_contrastive_loss(*embeddings, *masks, **options)
  return result, tape.gradient(result.loss, embeddings)


class LocalLossTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.product(
    denominator=contrastive.DENOMINATORS,
    pool=local.POOLS,
    temperature=(0.07, 0.5),
  )
  def test_equals_loops(self, **options):
    inputs = _inputs()
    result, _ = _loss_and_gradients(inputs, **options)
    self.assertAllClose(
      tuple(result), _expected(inputs, **options), rtol=1e-12, atol=0
    )

  @parameterized.product(denominator=contrastive.DENOMINATORS, pool=local.POOLS)
  def test_gradients_equal_differences(self, denominator, pool):
    inputs = _inputs()
    options = {
      'denominator': denominator,
      'pool': pool,
      'temperature': 0.3,
    }
    _, gradients = _loss_and_gradients(inputs, **options)
    random = np.random.RandomState(1)
    for which in (0, 1):
      direction = random.randn(*inputs[which].shape)
      values = []
      for step in (1e-6, -1e-6):
        moved = list(inputs)
        moved[which] = moved[which] + step * direction
        values.append(_expected(moved, **options)[0])
      self.assertAllClose(
        np.sum(gradients[which] * direction),
        (values[0] - values[1]) / 2e-6,
        rtol=1e-6,
      )

  def test_one_place_is_the_loss_of_clips(self):
    random = np.random.RandomState(0)
    video, sound = random.randn(2, 6, 8)
    found = local.local_contrastive_loss(video[:, None, None, None], sound)
    expected = contrastive.contrastive_loss(video, sound)
    self.assertAllClose(tuple(found), tuple(expected), rtol=1e-12)

  def test_what_is_masked_may_hold_anything(self):
    inputs = _inputs()
    expected, expected_gradients = _loss_and_gradients(inputs)
    places, sound, places_mask, video_mask, sound_mask = inputs
    places[~places_mask] = np.nan
    places[~video_mask] = np.inf
    sound[~sound_mask] = np.nan
    found, gradients = _loss_and_gradients(inputs)
    self.assertAllEqual(tuple(found), tuple(expected))
    for each, other in zip(gradients, expected_gradients):
      self.assertAllEqual(each, other)
    self.assertFalse(np.any(gradients[0].numpy()[~places_mask]))

  def test_no_pair_gives_zeros(self):
    places, sound, places_mask, _, _ = _inputs()
    nothing = np.zeros(len(sound), bool)
    result, gradients = _loss_and_gradients(
      (places, sound, places_mask, nothing, nothing)
    )
    self.assertAllEqual(tuple(result), [0.0] * 4)
    for gradient in gradients:
      self.assertAllEqual(gradient, tf.zeros_like(gradient))

  @parameterized.product(pool=local.POOLS, chunk_size=(1, 3, 8, 100))
  def test_chunks_change_nothing(self, pool, chunk_size):
    inputs = _inputs()
    whole, gradients = _loss_and_gradients(inputs, pool=pool)
    chunked, chunked_gradients = tf.function(
      lambda: _loss_and_gradients(inputs, pool=pool, chunk_size=chunk_size),
      autograph=False,
    )()
    self.assertAllClose(tuple(chunked), tuple(whole), rtol=1e-12)
    for found, expected in zip(chunked_gradients, gradients):
      self.assertAllClose(found, expected, rtol=1e-10, atol=1e-14)

  @parameterized.product(pool=local.POOLS, chunk_size=(None, 3))
  def test_two_replicas_equal_one(self, pool, chunk_size):
    inputs = _inputs()
    strategy = strategies.make_strategy('mirrored', 2)
    split = [
      strategy.experimental_distribute_values_from_function(
        lambda context, x=x: tf.constant(
          np.split(x, 2)[context.replica_id_in_sync_group]
        )
      )
      for x in inputs
    ]

    def of_replica(*inputs):
      result, gradients = _loss_and_gradients(
        inputs, pool=pool, chunk_size=chunk_size
      )
      return (
        collectives.all_reduce_sum([*result]),
        collectives.cross_replica_concat(gradients),
      )

    @tf.function(autograph=False)
    def step(*inputs):
      return strategy.run(of_replica, args=inputs)

    found, gradients = tf.nest.map_structure(
      lambda x: strategy.experimental_local_results(x)[1], step(*split)
    )
    expected, expected_gradients = _loss_and_gradients(inputs, pool=pool)
    self.assertAllClose(found, tuple(expected), rtol=1e-12)
    for each, other in zip(gradients, expected_gradients):
      self.assertAllClose(each, other, rtol=1e-10, atol=1e-14)

  def test_temperature_gets_its_gradient(self):
    inputs = _inputs()
    temperature = tf.constant(0.3, tf.float64)
    with tf.GradientTape() as tape:
      tape.watch(temperature)
      loss = local.local_contrastive_loss(
        *inputs, temperature=temperature, pool='log_sum_exp'
      ).loss
    options = {'denominator': 'joint', 'pool': 'log_sum_exp'}
    values = [
      _expected(inputs, temperature=t, **options)[0]
      for t in (0.3 + 1e-6, 0.3 - 1e-6)
    ]
    self.assertAllClose(
      tape.gradient(loss, temperature), (values[0] - values[1]) / 2e-6
    )

  def test_half_precision_is_summed_in_float32(self):
    places, sound, *masks = _inputs()
    places, sound = tf.cast(places, 'bfloat16'), tf.cast(sound, 'bfloat16')
    found, gradients = _loss_and_gradients((places, sound, *masks), 'bfloat16')
    expected = local.local_contrastive_loss(
      tf.cast(places, 'float32'), tf.cast(sound, 'float32'), *masks
    )
    self.assertAllEqual(tuple(found), tuple(expected))
    self.assertEqual(gradients[0].dtype, tf.bfloat16)

  @parameterized.parameters(
    ({'pool': 'mean'}, "pool='mean'"),
    ({'denominator': 'sum'}, "denominator='sum'"),
    ({'chunk_size': 0}, 'chunk_size=0'),
    ({'places': np.ones([8, 4, 5])}, r'places.shape=\(8, 4, 5\)'),
    ({'sound': np.ones([8, 6])}, r'sound.shape=\(8, 6\)'),
  )
  def test_errors(self, changed, message):
    arguments = dict(zip(('places', 'sound'), _inputs()), **changed)
    with self.assertRaisesRegex(ValueError, message):
      local.local_contrastive_loss(**arguments)


if __name__ == '__main__':
  tf.test.main()
