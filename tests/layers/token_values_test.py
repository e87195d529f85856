"""Tests of what tokenizers, positions and the head compute."""

import math
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.layers import layer_values
from vatt_tf.core import modalities, randomness
from vatt_tf.layers import (
  drop_token,
  patch_tokenizer,
  position_embedding,
  projection_head,
  released_spline,
  text_embedding,
)


class TokensTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(
    ((2, 4, 4), (2, 4, 8, 12, 3)), ((4,), (2, 12, 1)), ((4, 2), (2, 8, 6, 1))
  )
  def test_patches(self, patch_size, shape):
    tokenizer = patch_tokenizer.PatchTokenizer(5, patch_size)
    x = layer_values.random(*shape)
    grid = tokenizer.grid(x.shape)
    expected = []
    for cell in np.ndindex(*grid):
      index = tuple(slice(c * p, c * p + p) for c, p in zip(cell, patch_size))
      expected.append(x[(slice(None), *index)].reshape(shape[0], -1))
    expected = np.stack(expected, 1)
    self.assertAllEqual(tokenizer.patches(x), expected)
    tokens = tokenizer(x)
    kernel, bias = tokenizer.get_weights()
    self.assertAllClose(tokens, expected @ kernel + bias, atol=1e-5)
    # Only the kept ones, in their order.
    keep = np.array([[1, 0, 2], [2, 1, 0]], np.int32)
    picked = np.take_along_axis(expected, keep[..., None], 1)
    self.assertAllEqual(tokenizer.patches(x, tf.constant(keep)), picked)
    self.assertAllClose(
      tokenizer(x, keep=tf.constant(keep)), picked @ kernel + bias, atol=1e-5
    )

  @parameterized.parameters(0.1, 0.5)
  def test_initial_tokens_have_unit_variance(self, rms):
    tokenizer = patch_tokenizer.PatchTokenizer(64, (128,), input_rms=rms)
    tokens = tokenizer(rms * layer_values.random(8, 128 * 16, 1))
    self.assertNear(np.std(tokens), 1, 0.05)

  def test_bad_input_rms(self):
    with self.assertRaisesRegex(ValueError, '`input_rms` must be positive'):
      patch_tokenizer.PatchTokenizer(5, (4,), input_rms=0.0)

  def test_input_that_is_no_multiple_of_the_patch(self):
    tokenizer = patch_tokenizer.PatchTokenizer(5, (4,))
    with self.assertRaisesRegex(ValueError, 'multiple of the patch size'):
      tokenizer(tf.zeros([1, 10, 1]))

  def test_spectrogram(self):
    """Patches of 16 frames x 5 bins with time and frequency positions."""
    frames, bins = 40, 10  # 2.5 patches: the end is padded with zeros
    x = np.random.RandomState(0).rand(2, frames, bins).astype(np.float32)
    tokenizer = patch_tokenizer.PatchTokenizer(8, (16, 5), use_padding=True)
    positions = position_embedding.PositionEmbedding((3, 2))
    grid = tokenizer.grid([2, frames, bins, 1])
    self.assertEqual(grid, (3, 2))
    tokens = positions(tokenizer(x[..., None]), grid=grid)
    kernel, bias = tokenizer.get_weights()
    weights = {w.name.split('/', 1)[1]: w.numpy() for w in positions.weights}
    padded = np.zeros([2, 48, bins], np.float32)
    padded[:, :frames] = x
    for b in range(2):
      for t in range(3):
        for f in range(2):
          patch = padded[b, 16 * t : 16 * t + 16, 5 * f : 5 * f + 5]
          position = weights['temporal:0'][t] + weights['frequency:0'][f]
          position -= position.mean()
          position /= math.sqrt(np.mean(position**2) + 1e-6)
          position *= weights['norm/gamma:0']
          position += weights['norm/beta:0']
          expected = patch.reshape(-1) @ kernel + bias + position
          self.assertAllClose(tokens[b, 2 * t + f], expected, atol=1e-5)

  @parameterized.parameters(
    (0.5, 9, 4), (0.9, 10, 1), (0.99, 10, 1), (0.25, 1568, 1176), (0.0, 7, 7)
  )
  def test_drop_token_count(self, rate, num_tokens, num_kept):
    layer = drop_token.DropToken(rate)
    self.assertEqual(layer.num_kept(num_tokens), num_kept)
    x = tf.reshape(tf.range(3 * num_tokens, dtype=tf.float32), [3, -1, 1])
    kept = layer(x, training=True, rng=randomness.make(1, 1))
    self.assertEqual(kept.shape, (3, num_kept, 1))
    for row in range(3):
      values = kept[row, :, 0].numpy()
      self.assertLen(set(values), num_kept)
      self.assertAllInRange(
        values, row * num_tokens, (row + 1) * num_tokens - 1
      )

  def test_drop_token_differs_by_example_and_not_by_place(self):
    layer = drop_token.DropToken(0.5)
    keep = layer.sample(4, 20, training=True, rng=randomness.make(1, 1))
    self.assertLen({tuple(sorted(row)) for row in keep.numpy()}, 4)
    later = layer.sample(
      2, 20, training=True, rng=randomness.make(1, 1, first_row=2)
    )
    self.assertAllEqual(keep[2:], later)
    self.assertIsNone(layer.sample(4, 20, training=False))

  def test_drop_token_keeps_all_tokens_equally_often(self):
    keep = drop_token.DropToken(0.5).sample(
      2000, 10, training=True, rng=randomness.make(1, 1)
    )
    counts = np.bincount(keep.numpy().ravel(), minlength=10)
    self.assertAllInRange(counts / 2000, 0.45, 0.55)


class PositionsTest(parameterized.TestCase, tf.test.TestCase):
  def test_sum_of_tables(self):
    layer = position_embedding.PositionEmbedding(
      (2, 3, 4), use_layer_norm=False
    )
    y = layer(tf.zeros([1, 24, 5]), grid=(2, 3, 4))[0]
    temporal, vertical, horizontal = layer.get_weights()
    for n, (i, j, k) in enumerate(np.ndindex(2, 3, 4)):
      self.assertAllClose(
        y[n], temporal[i] + vertical[j] + horizontal[k], atol=1e-6
      )

  def test_kept_positions(self):
    layer = position_embedding.PositionEmbedding((6,))
    every = layer(tf.zeros([2, 6, 5]))
    keep = tf.constant([[3, 0], [5, 4]])
    self.assertAllEqual(
      layer(tf.zeros([2, 2, 5]), grid=(6,), keep=keep),
      tf.gather(every, keep, batch_dims=1),
    )

  def test_initial_deviation(self):
    layer = position_embedding.PositionEmbedding((500,))
    layer.build([None, None, 64])
    # Truncated at two deviations: 0.88 of the nominal one is left.
    table = layer.tables['temporal'].numpy()
    self.assertNear(table.std(), 0.88 * 64**-0.5, 0.005)

  def test_smaller_input_takes_the_first_rows(self):
    layer = position_embedding.PositionEmbedding((6,), use_layer_norm=False)
    y = layer(tf.zeros([1, 4, 5]))
    self.assertAllEqual(y[0], layer.get_weights()[0][:4])

  @parameterized.parameters((5, 9), (14, 20), (2, 3), (1, 4))
  def test_spline(self, rows, wanted):
    """The spline's equations, solved with loops."""
    matrix = position_embedding.interpolation_matrix((rows,), (wanted,))
    table = np.random.RandomState(0).randn(rows)
    system = np.zeros([rows + 2, rows + 2])
    for i in range(rows):
      for j in range(rows):
        system[i, j] = abs(i / rows - j / rows) ** 3
      system[i, rows] = system[rows, i] = i / rows
      system[i, rows + 1] = system[rows + 1, i] = 1
    right = np.concatenate([table, [0, 0]])
    solution = np.linalg.lstsq(system, right, rcond=None)[0]
    for j in range(wanted):
      at = j / wanted
      value = solution[rows] * at + solution[rows + 1]
      for i in range(rows):
        value += solution[i] * abs(at - i / rows) ** 3
      self.assertNear((matrix @ table)[j], value, 1e-6)

  def test_spline_is_exact_for_lines_and_at_the_rows(self):
    matrix = position_embedding.interpolation_matrix((4, 3), (8, 3))
    line = np.array([2 * i / 4 - j / 3 + 1 for i in range(4) for j in range(3)])
    wanted = [2 * i / 8 - j / 3 + 1 for i in range(8) for j in range(3)]
    self.assertAllClose(matrix @ line, wanted, atol=1e-9)
    at_rows = matrix.reshape(8, 3, 12)[::2].reshape(12, 12)
    self.assertAllClose(at_rows, np.eye(12), atol=1e-9)

  def test_long_tables_keep_their_digits(self):
    matrix = position_embedding.interpolation_matrix((1200,), (1800,))
    at = np.arange(1200) / 1200
    wanted = np.arange(1800) / 1800
    inside = wanted < at[-1]
    self.assertAllClose(
      (matrix @ np.sin(9 * at))[inside], np.sin(9 * wanted)[inside], atol=1e-4
    )

  @parameterized.parameters((2, 3), (8, 10), (10, 15))
  def test_released_spline_is_the_spline_but_for_rounding(self, rows, wanted):
    table = np.random.RandomState(0).randn(rows, 5).astype(np.float32)
    expected = position_embedding.interpolation_matrix((rows,), (wanted,))
    got = released_spline.read(tf.constant(table), wanted)
    self.assertAllClose(got, expected @ table, atol=2e-3)

  def test_powers_round_as_in_the_release(self):
    # Of TensorFlow 2.17; the nearest float32 is another one of each of them.
    x = np.float32([0.423654795, 0.0871293023, 0.196582362, 0.468651205])
    x = np.append(x, np.float32([0.318568945, 0.535632789, 0.338158965, 0.5]))
    got = released_spline._power(x, 1.5)
    self.assertAllEqual(
      got[:4], np.float32([0.27575171, 0.0257185437, 0.0871599242, 0.320829749])
    )
    nearest = np.float32(np.float64(x) ** 1.5)
    self.assertAllEqual(got != nearest, [True] * 7 + [False])
    if tf.__version__.startswith('2.17'):
      x = np.random.RandomState(0).rand(1003).astype(np.float32)
      self.assertAllEqual(released_spline._power(x, 1.5), tf.pow(x, 1.5))

  def test_interpolation_as_the_release(self):
    exact, release = (
      position_embedding.PositionEmbedding(
        (10, 3), use_layer_norm=False, interpolation=interpolation
      )
      for interpolation in ('exact', 'release')
    )
    x = tf.zeros([1, 60, 5])
    exact(x, grid=(15, 4))
    release(x, grid=(15, 4))
    release.set_weights(exact.get_weights())
    along_time, along_bins = (
      released_spline.read(tf.constant(table), wanted)
      for table, wanted in zip(exact.get_weights(), (15, 4))
    )
    self.assertAllClose(
      release.positions((15, 4)),
      tf.reshape(along_time[:, None] + along_bins, [60, 5]),
      atol=1e-6,
    )
    self.assertNotAllEqual(release.positions((15, 4)), exact.positions((15, 4)))
    # Nothing is interpolated where the table is large enough.
    for grid in ((10, 3), (8, 2)):
      self.assertAllEqual(release.positions(grid), exact.positions(grid))

  def test_one_row_for_many_positions_as_the_release(self):
    layer = position_embedding.PositionEmbedding(
      (1,), use_layer_norm=False, interpolation='release'
    )
    y = layer(tf.zeros([1, 3, 5]))
    self.assertAllClose(y[0], np.tile(layer.get_weights()[0], [3, 1]))

  def test_bad_interpolation(self):
    with self.assertRaisesRegex(ValueError, '`interpolation` must be one of'):
      position_embedding.PositionEmbedding((4,), interpolation='linear')
    with self.assertRaisesRegex(ValueError, "must be 'exact' for one table"):
      position_embedding.PositionEmbedding(
        (4,), form='full', interpolation='release'
      )

  def test_wrong_grid(self):
    layer = position_embedding.PositionEmbedding((2, 3))
    with self.assertRaisesRegex(ValueError, '`grid` must be 2 integers'):
      layer(tf.zeros([1, 6, 4]))
    with self.assertRaisesRegex(ValueError, 'as many positions'):
      layer(tf.zeros([1, 6, 4]), grid=(2, 4))


class TextEmbeddingTest(tf.test.TestCase):
  def _write(self, text):
    path = os.path.join(self.get_temp_dir(), 'vectors.txt')
    with open(path, 'w') as f:
      f.write(text)
    return path

  def test_word_vectors(self):
    path = self._write('3 2\ncat 1 2\nnew york 3 4\nzebra 5 6\n')
    words = ['<pad>', 'dog', 'new york', 'cat']
    vectors, ids = text_embedding.read_word_vectors(path, words, 2)
    self.assertAllEqual(ids, [2, 3])
    self.assertAllEqual(vectors, [[3, 4], [1, 2]])
    layer = text_embedding.TextEmbedding(4, 2, is_frozen=True)
    layer.build([None, None])
    self.assertEmpty(layer.trainable_weights)
    before = layer.get_weights()[0]
    layer.fill(vectors, ids)
    self.assertAllEqual(layer(tf.constant([3]), training=True), [[1, 2]])
    self.assertAllEqual(layer(tf.constant([0, 1])), before[:2])

  def test_initial_table_has_unit_variance(self):
    layer = text_embedding.TextEmbedding(100, 50)
    self.assertNear(np.std(layer(tf.range(100))), 1, 0.05)

  def test_frozen_but_not_filled(self):
    layer = text_embedding.TextEmbedding(4, 2, is_frozen=True)
    layer(tf.constant([1]))
    with self.assertRaisesRegex(ValueError, 'word-vector file'):
      layer(tf.constant([1]), training=True)
    layer.mark_filled()
    layer(tf.constant([1]), training=True)

  def test_bad_files(self):
    words = ['cat']
    with self.assertRaisesRegex(ValueError, 'line 1: expected a word and 3'):
      text_embedding.read_word_vectors(self._write('cat 1 2 x\n'), words, 3)
    with self.assertRaisesRegex(ValueError, '`d_embedding` = 9'):
      text_embedding.read_word_vectors(self._write('cat 1 2\n'), words, 9)
    with self.assertRaisesRegex(ValueError, 'no word of the vocabulary'):
      text_embedding.read_word_vectors(self._write('dog 1 2\n'), words, 2)

  def test_bad_vectors(self):
    layer = text_embedding.TextEmbedding(4, 2)
    with self.assertRaisesRegex(ValueError, 'Build it'):
      layer.fill(np.zeros([4, 2]))
    layer.build([None])
    with self.assertRaisesRegex(ValueError, r'\(4, 3\)'):
      layer.fill(np.zeros([4, 3]))
    with self.assertRaisesRegex(ValueError, 'ids from 0 to 4'):
      layer.fill(np.zeros([2, 2]), [0, 4])


class ProjectionHeadTest(parameterized.TestCase, tf.test.TestCase):
  def _features(self):
    return {
      'video_feature': layer_values.random(6, 8),
      'audio_feature': layer_values.random(6, 8, seed=1),
      'text_feature': layer_values.random(6, 2, 8, seed=2),
    }

  @parameterized.parameters('fine_and_coarse', 'shared', 'disjoint')
  def test_missing_clips_do_not_enter_the_statistics(self, form):
    mask = np.array([True, True, True, True, False, False])
    text_mask = np.array([[True, False]] * 4 + [[False, False]] * 2)
    masks = {'video_mask': mask, 'audio_mask': mask, 'text_mask': text_mask}
    results, weights = [], None
    for fill in (0.0, 50.0):
      features = self._features()
      for name in ('video_feature', 'audio_feature'):
        features[name][~mask] = fill
      features['text_feature'][~text_mask] = fill
      head = projection_head.ProjectionHead(form, 6, 4)
      head.build({k: v.shape for k, v in features.items()})
      if weights:
        head.set_weights(weights)
      weights = head.get_weights()
      outputs = head(features, masks=masks, training=True)
      results.append(
        (
          {k: v.numpy()[:4] for k, v in outputs.items() if k != 'text_vt'},
          outputs['text_vt'].numpy()[:4, 0],
          head.get_weights(),
        )
      )
    self.assertAllClose(results[0], results[1], atol=1e-5)

  def test_fine_and_coarse_by_hand(self):
    head = projection_head.ProjectionHead(d_va=6, d_vt=4)
    features = self._features()
    outputs = head(features)
    w = {x.name.removeprefix('projection_head/')[:-2]: x for x in head.weights}
    w = {name: x.numpy() for name, x in w.items()}

    def norm(x, name):
      for part, value in (
        ('moving_mean', layer_values.random(x.shape[-1], seed=4)),
        (
          'moving_variance',
          np.abs(layer_values.random(x.shape[-1], seed=5)) + 1,
        ),
      ):
        w[f'{name}/{part}'] = value
      x = (x - w[f'{name}/moving_mean']) / np.sqrt(
        w[f'{name}/moving_variance'] + 1e-5
      )
      return x * w[f'{name}/gamma'] + w[f'{name}/beta']

    def to_vt(va):
      return norm(np.maximum(va, 0) @ w['va_to_vt/kernel'], 'vt_norm')

    x = features['video_feature'] @ w['video_to_hidden/kernel']
    x = np.maximum(norm(x, 'hidden_norm'), 0) @ w['hidden_to_va/kernel']
    video_va = norm(x, 'va_norm')
    audio_va = features['audio_feature'] @ w['audio_to_va/kernel']
    audio_va += w['audio_to_va/bias']
    expected = {
      'video_va': video_va,
      'video_vt': to_vt(video_va),
      'audio_va': audio_va,
      'audio_vt': to_vt(audio_va),
      'text_vt': features['text_feature'] @ w['text_to_vt/kernel']
      + w['text_to_vt/bias'],
    }
    head.set_weights(
      [w[x.name.removeprefix('projection_head/')[:-2]] for x in head.weights]
    )
    outputs = head(features)
    self.assertEqual(set(outputs), set(expected))
    for name, value in expected.items():
      self.assertAllClose(outputs[name], value, atol=1e-5)

  def test_shared_space(self):
    outputs = projection_head.ProjectionHead('shared', 6)(self._features())
    self.assertIs(outputs['video_va'], outputs['video_vt'])
    self.assertIs(outputs['audio_va'], outputs['audio_vt'])
    self.assertEqual(outputs['text_vt'].shape, (6, 2, 6))

  def test_sound_to_text_does_not_move_the_statistics_of_video(self):
    head = projection_head.ProjectionHead(
      d_va=6, d_vt=4, pairs=tuple(modalities.PAIRS)
    )
    features = self._features()
    head(features)
    head.project_audio(features['audio_feature'] + 9, training=True)
    self.assertAllEqual(head.vt_norm.moving_mean, np.zeros(4))

  @parameterized.parameters(
    ('fine_and_coarse', ('video_audio',), {'video_va', 'audio_va'}),
    ('fine_and_coarse', ('video_text',), {'video_vt', 'text_vt'}),
    ('shared', ('video_audio',), {'video_va', 'audio_va'}),
    ('disjoint', ('video_text',), {'video_vt', 'text_vt'}),
  )
  def test_unused_maps_are_not_made(self, form, pairs, expected):
    features = self._features()
    used = {name.split('_')[0] for name in expected}
    features = {f'{m}_feature': features[f'{m}_feature'] for m in used}
    head = projection_head.ProjectionHead(form, 6, 4, pairs)
    with tf.GradientTape() as tape:
      outputs = head(features, training=True)
      loss = tf.add_n([tf.reduce_sum(x**3) for x in outputs.values()])
    self.assertEqual(set(outputs), expected)
    for gradient in tape.gradient(loss, head.trainable_weights):
      self.assertIsNotNone(gradient)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, 'fine_and_coarse'):
      projection_head.ProjectionHead('none')
    with self.assertRaisesRegex(ValueError, r'`pairs`.*pairs=\(\)'):
      projection_head.ProjectionHead(pairs=())
    with self.assertRaisesRegex(ValueError, 'disjoint'):
      projection_head.ProjectionHead('disjoint', pairs=('audio_text',))


if __name__ == '__main__':
  tf.test.main()
