"""Tokens of the towers at their places, and the maps of a model."""

from absl.testing import parameterized
import numpy as np
from scipy import ndimage
import tensorflow as tf
import tf_keras

from tests import tower_table
from vatt_tf.core import randomness
from vatt_tf.models import (
  patch_tower,
  s3d_tower,
  sizes,
  token_maps,
  tsm_resnet_tower,
  vatt,
)

_SIZE = sizes.Size(3, 8, 16, 2, 4)


def _tower(**options):
  tf_keras.utils.set_random_seed(1)
  tower = patch_tower.PatchTower(
    'video', (2, 8, 8), (4, 32), size=_SIZE, dropout_rate=0.0, **options
  )
  tower.build()
  return tower


def _video(batch=2):
  random = np.random.default_rng(0)
  return tf.constant(random.uniform(-1, 1, [batch, 4, 32, 32, 3]), tf.float32)


class TokensTest(parameterized.TestCase, tf.test.TestCase):
  def test_tokens_of_an_inner_layer(self):
    tower, video = _tower(), _video()
    x, _ = tower.embed_tokens(video)
    for layer in (1, 2):
      x = tower.encoder.layers[layer - 1](x)
      inner = _tower(token_layer=layer)
      output = inner(video, need_tokens=True)
      self.assertAllClose(output.tokens, x[:, 1:], atol=1e-5)
      self.assertAllClose(output.feature, tower(video).feature, atol=1e-5)
      self.assertEqual(inner.token_width, 8)
      again = patch_tower.PatchTower.from_config(inner.get_config())
      self.assertEqual(again.token_layer, layer)
    for layer in (0, 3):
      with self.assertRaisesRegex(ValueError, f'token_layer={layer}'):
        _tower(token_layer=layer)

  def test_places_are_those_that_drop_token_keeps(self):
    tower = _tower(drop_token_rate=0.5)
    video, rng = _video(), randomness.make(3, 0)
    output = tower(video, training=True, rng=rng, need_tokens=True)
    self.assertEqual(output.tokens.shape, [2, 16, 8])
    places = tower.token_places(video, True, rng).numpy()
    # A call without DropToken, on the kept patches alone, has the same tokens.
    embedding = tower.embedding
    kept = embedding(video, keep=tf.constant(places))
    expected = tower.encoder(kept)[:, 1:]
    self.assertAllClose(output.tokens, expected, atol=1e-5)
    self.assertEqual([len(set(row)) for row in places.tolist()], [16, 16])
    self.assertIsNone(tower.token_places(video, False, rng))

  def test_tokens_of_a_part(self):
    video = _video()
    with tower_table.first_parts():
      whole, inner = (
        s3d_tower.S3DTower(token_layer=layer)
        for layer in (None, 'maxpool_2a_3x3')
      )
      for tower in (whole, inner):
        tower.build()
      expected = inner.endpoints(video)['maxpool_2a_3x3']
      tokens = inner(video, need_tokens=True).tokens
      grid = inner.token_grid((4, 32, 32, 3))
      self.assertEqual(grid, tuple(expected.shape[1:4]))
      self.assertAllEqual(tf.reshape(tokens, expected.shape), expected)
      self.assertEqual(inner.token_width, expected.shape[-1])
      self.assertEqual(whole.token_width, whole.width)
      with self.assertRaisesRegex(ValueError, "token_layer='conv'"):
        s3d_tower.S3DTower(token_layer='conv')

  @parameterized.parameters(*tower_table.MODELS)
  def test_maps_are_cosines_of_tokens(self, name):
    model = tower_table.build(name)
    batch = tower_table.features(name)
    tower = model.towers['video']
    tokens = tower(batch['video'], need_tokens=True).tokens.numpy()
    places = tokens @ model.video_token_head.kernel.numpy()
    audio = model.towers['audio'].input_name
    sound = model.embed('audio', batch[audio])['audio_va'].numpy()
    places /= np.linalg.norm(places, axis=-1, keepdims=True)
    sound /= np.linalg.norm(sound, axis=-1, keepdims=True)
    grid = tower.token_grid(tuple(batch['video'].shape[1:]))
    places = places.reshape([4, *grid, -1])
    offset = tower.token_offset(tuple(batch['video'].shape[1:]))
    self.assertEqual(offset == (0.0, 0.0), name.startswith('vatt'))
    # Half a place on: each value is between two places.
    for axis, share in zip((2, 3), offset):
      before = np.take(
        places, np.maximum(np.arange(places.shape[axis]) - 1, 0), axis
      )
      places = (1 - share) * places + share * before
    places /= np.linalg.norm(places, axis=-1, keepdims=True)
    expected = np.einsum('bthwd,bd->bthw', places, sound)
    smooth = model.similarity_map(batch['video'], sound)
    model.map_smoothing = 0.0
    found = model.similarity_map(batch['video'], sound)
    self.assertAllClose(found, expected, atol=1e-5)
    low = expected.min((2, 3), keepdims=True)
    expected = low + ndimage.gaussian_filter(
      expected - low, (0, 0, 0.7, 0.7), mode='constant', truncate=8
    )
    self.assertAllClose(smooth, expected, atol=1e-3)

  def test_places_in_the_space_of_text(self):
    model = tower_table.build('vatt')
    video = tower_table.features('vatt')['video']
    found = model.embed_places_in_text(video).numpy()
    # As the head maps sounds, with the length of the whole clip.
    places = model.embed_places(video).numpy()
    clip = model.embed('video', video)['video_va'].numpy()
    places /= np.linalg.norm(places, axis=-1, keepdims=True)
    places *= np.linalg.norm(clip, axis=-1)[:, None, None, None, None]
    head = model.head
    expected = np.maximum(places, 0) @ head.va_to_vt.kernel.numpy()
    norm = head.vt_norm
    gamma, beta, mean, variance = (np.asarray(x) for x in norm.weights)
    expected = (expected - mean) / np.sqrt(variance + norm.epsilon)
    self.assertAllClose(found, gamma * expected + beta, atol=1e-4)

  @parameterized.parameters(
    (s3d_tower.S3DTower, 'maxpool_3a_3x3', {}),
    (s3d_tower.S3DTower, 'maxpool_2a_3x3', {'first_layer': 'plain'}),
    (tsm_resnet_tower.TSMResNetTower, 'stem', {'width_factor': 0.25}),
    (tsm_resnet_tower.TSMResNetTower, 'unit_1_block_1', {'width_factor': 0.25}),
  )
  def test_offset_is_where_gradients_lie(self, tower_class, layer, options):
    tf_keras.utils.set_random_seed(2)
    tower = tower_class(token_layer=layer, **options)
    tower.build()
    size = 64
    shape = (2, size, size, 3)
    grid = tower.token_grid(shape)
    weight = np.zeros([size, size])
    middle = grid[1] // 2
    last = [part.name for part in tower.parts].index(f'video_{layer}')
    for _ in range(4):
      video = tf.Variable(tf.random.uniform([1, *shape], -1, 1))
      with tf.GradientTape() as tape:
        x = tower._input_map(video)
        for part in tower.parts[: last + 1]:  # the others take long
          x = part(x)
        place = x[0, 0, middle, middle]
        total = tf.reduce_sum(place * tf.random.normal(place.shape))
      gradient = np.square(tape.gradient(total, video)).sum((0, 1, 4))
      # A gate adds a little everywhere.
      weight += np.maximum(gradient - np.median(gradient), 0)
    stride = size / grid[1]
    for axis, expected in zip((1, 0), tower.token_offset(shape)):
      along = weight.sum(axis)
      centre = (along @ np.arange(size)) / along.sum()
      place = middle * stride + (stride - 1) / 2
      self.assertNear((centre - place) / stride, expected, 0.17)

  def test_aligned_maps(self):
    maps = np.arange(5.0)[None, None, None, :, None]
    for offset, expected in (
      (0.5, [0, 0.5, 1.5, 2.5, 3.5]),
      (1.25, [0, 0, 0.75, 1.75, 2.75]),
      (-0.5, [0.5, 1.5, 2.5, 3.5, 4]),
      (0.0, [0, 1, 2, 3, 4]),
    ):
      found = token_maps.align(tf.constant(maps), (0.0, offset))
      self.assertAllClose(np.ravel(found), expected)

  @parameterized.parameters(
    (0, 1), (1, 1), (1, 2), (1, None), ((0, 1, 1), None)
  )
  def test_tokens_see_their_neighbours(self, radius, layer):
    tower = _tower(token_layer=layer, token_radius=radius)
    self.assertEqual(tower.token_width, 8)
    video = tf.random.uniform([1, 4, 64, 64, 3], -1, 1, seed=0)

    def tokens(video):
      found = tower(video, need_tokens=True).tokens
      return tf.reshape(found, [2, 8, 8, 8]).numpy()

    before = tokens(video)
    changed = video.numpy()
    changed[:, :2, 24:32, 40:48] *= -1  # the patch (0, 3, 5)
    difference = np.abs(tokens(changed) - before).max(-1) > 1e-6
    reach = 3 if layer is None else layer
    time = reach * np.ravel(radius)[0]
    reach *= np.ravel(radius)[-1]
    t, y, x = np.mgrid[:2, :8, :8]
    near = (t <= time) & (abs(y - 3) <= reach) & (abs(x - 5) <= reach)
    self.assertAllEqual(difference, near)
    # A place in space is only told by what is there: patches that move by a
    # place move their tokens, but for those that see an edge.
    moved = tokens(tf.roll(video, 8, 3))
    inner = slice(reach + 1, 8 - reach)
    self.assertAllClose(
      moved[:, :, inner],
      np.roll(before, 1, 2)[:, :, inner],
      atol=1e-5,
    )
    self.assertAllClose(
      tower(video).feature, tower(video, need_tokens=True).feature, atol=1e-5
    )

  def test_flops_of_tokens(self):
    shape = (4, 32, 32, 3)  # 32 patches of 384 values
    layer = {  # of n tokens, of which m have outputs; 2 heads of 4
      (n, m): 2 * (2 * 8 * 8 * n + 2 * 8 * 8 * m + 2 * 8 * n * m + 256 * m)
      for n, m in ((33, 33), (33, 1), (32, 32))
    }
    for options, expected in (
      ({}, layer[33, 33] - layer[33, 1]),
      ({'token_layer': 1}, 0),
      ({'token_layer': 2, 'token_radius': 1}, 2 * layer[32, 32]),
      ({'token_radius': 1}, 3 * layer[32, 32]),
    ):
      if 'token_radius' in options:
        expected += 2 * 32 * 384 * 8
      tower = _tower(drop_token_rate=0.0, **options)
      self.assertEqual(tower.token_flops(shape), expected, options)

  def test_neighbours_with_drop_token(self):
    tower = _tower(token_layer=2, token_radius=1, drop_token_rate=0.5)
    video, rng = _video(), randomness.make(3, 0)
    found = tower(video, training=True, rng=rng, need_tokens=True).tokens
    places = tower.token_places(video, True, rng).numpy()
    grid = tower.token_grid((4, 32, 32, 3))
    x = tower.embedding.embed_places(video).numpy()
    for row in range(2):
      kept = np.stack(np.unravel_index(places[row], grid), 1)
      near = (abs(kept[:, None] - kept[None]) <= 1).all(-1)
      expected = tf.constant(x[row, places[row]][None])
      for layer in tower.encoder.layers[:2]:
        expected = layer(expected, mask=tf.constant(near[None]))
      self.assertAllClose(found[row], expected[0], atol=1e-5)
    for radius in (-1, (0, 1)):
      with self.assertRaisesRegex(ValueError, 'must be 3 numbers'):
        _tower(token_radius=radius)

  def test_dropped_places_are_masked_zeros(self):
    tower = _tower(drop_token_rate=0.5)
    audio = patch_tower.PatchTower('audio', input_size=1280, size=_SIZE)
    model = vatt.VATT(
      {'video': tower, 'audio': audio},
      pairs=('video_audio',),
      use_token_head=True,
    )
    model.build()
    batch = {'video': _video(), 'audio': tf.zeros([2, 1280, 1])}
    outputs = model(batch, training=True, rng=randomness.make(3, 0))
    mask = outputs['video_token_mask'].numpy()
    places = outputs['video_token_va'].numpy()
    self.assertEqual(mask.shape, (2, 2, 4, 4))
    self.assertAllEqual(mask.sum((1, 2, 3)), [16, 16])
    self.assertFalse(places[~mask].any())
    self.assertTrue(places[mask].any(-1).all())
    self.assertNotIn('video_tokens', outputs)
    self.assertNotIn('video_token_va', model(batch))

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, 'compares video and audio'):
      vatt.VATT(
        tower_table.MODELS['vatt'].towers(),
        pairs=('video_text',),
        use_token_head=True,
      )
    model = vatt.VATT(tower_table.MODELS['vatt'].towers())
    model.build()
    with self.assertRaisesRegex(ValueError, 'LOCAL_WEIGHT = 1.0'):
      model.similarity_map(_video(), tf.zeros([2, 512]))


if __name__ == '__main__':
  tf.test.main()
