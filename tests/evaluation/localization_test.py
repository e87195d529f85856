"""The evaluation of localisation, with models whose answers are known."""

import types

import numpy as np
import tensorflow as tf

from tests import vatt_models
from vatt_tf.evaluation import localization
from vatt_tf.models import sizes

_SIZE = 24  # pixels, in a grid of 3 x 3 places
_NUM_COLOURS = 6


def _clips(num_pictures=4, num_frames=2):
  """Rows of pictures with two coloured squares, each of which sounds in turn.

  The colour is the value of the first channel; the sound is its number.
  """
  random = np.random.default_rng(0)
  rows = []
  for picture in range(num_pictures):
    cells = random.choice(9, 2, replace=False)
    colours = random.choice(_NUM_COLOURS, 2, replace=False)
    video = np.full([num_frames, _SIZE, _SIZE, 3], -1.0, np.float32)
    boxes = np.zeros([num_frames, 3, 4], np.float32)
    for k, (cell, colour) in enumerate(zip(cells, colours)):
      top, left = 8 * (cell // 3), 8 * (cell % 3)
      video[:, top : top + 8, left : left + 8, 0] = colour / 10
      boxes[:, k] = np.array([left, top, left + 8, top + 8]) / _SIZE
    mask = np.tile([True, True, False], [num_frames, 1])
    for k in (0, 1):
      sounds = np.tile(np.eye(2, dtype=np.int32)[k], [num_frames, 1])
      order = [0, 1, 2] if random.random() < 0.5 else [1, 0, 2]
      rows.append(
        {
          'video': video,
          'audio': np.full([4, 1], colours[k], np.float32),
          'video_mask': True,
          'audio_mask': True,
          'example_id': f'{picture}_{k}',
          'video_boxes': boxes[:, order],
          'video_box_mask': mask,
          'video_box_is_sounding': np.pad(sounds, [[0, 0], [0, 1]])[:, order],
        }
      )
  order = random.permutation(len(rows))
  return [rows[i] for i in order]


def _dataset(rows, batch_size=3):
  """Batches, the last of which is padded with rows of zeros."""
  batches = []
  for start in range(0, len(rows), batch_size):
    batch = rows[start : start + batch_size]
    valid = [True] * len(batch) + [False] * (batch_size - len(batch))
    batch = batch + [
      {k: np.zeros_like(v) for k, v in batch[0].items()}
    ] * valid.count(False)
    stacked = {
      key: tf.constant(np.stack([row[key] for row in batch]))
      for key in batch[0]
    }
    stacked['valid'] = tf.constant(valid)
    batches.append(stacked)
  return batches


class _Model:
  """Knows the colour of each place; hears the colour of the sound.

  Args:
    kind: `listens`; `deaf`, which points at the first colour for any sound; or
      `blind`, whose places are all equal.
  """

  modalities = ('video', 'audio')
  map_smoothing = 0.0
  towers = {'audio': types.SimpleNamespace(input_name='audio')}

  def __init__(self, kind):
    self._kind = kind

  def check_token_head(self):
    pass

  def embed(self, modality, sound):
    colour = tf.cast(tf.round(sound[:, 0, 0]), tf.int32)
    if self._kind == 'deaf':
      colour = tf.zeros_like(colour)
    return {'audio_va': tf.one_hot(colour, _NUM_COLOURS)}

  def embed_places(self, video):
    colours = tf.nn.max_pool3d(video[..., :1], [1, 8, 8], [1, 8, 8], 'VALID')
    if self._kind == 'blind':
      colours = tf.zeros_like(colours)
    number = tf.cast(tf.round(colours[..., 0] * 10), tf.int32)
    code = tf.one_hot(tf.maximum(number, -1), _NUM_COLOURS)
    # The lowest colour is the most similar to colour 0.
    if self._kind == 'deaf':
      code = tf.where(
        number[..., tf.newaxis] >= 0,
        tf.one_hot(0, _NUM_COLOURS)
        * (2.0 - tf.cast(number, tf.float32))[..., None]
        + tf.one_hot(1, _NUM_COLOURS),
        tf.one_hot(1, _NUM_COLOURS) - 9 * tf.one_hot(0, _NUM_COLOURS),
      )
    return code


class LocalizationTest(tf.test.TestCase):
  def _metrics(self, kind, rows=None, **options):
    evaluation = localization.LocalizationEvaluation(_SIZE, **options)
    metrics = evaluation(_Model(kind), _dataset(rows or _clips()))
    self.assertIn('pointing', evaluation.format_table(metrics))
    for value in evaluation.scalars(metrics).values():
      self.assertIsInstance(value, float)
    return metrics

  def test_a_model_that_listens(self):
    metrics = self._metrics('listens')
    self.assertEqual(metrics['num_clips'], 8)
    self.assertEqual(metrics['num_frames'], 16)
    for name in ('pointing', 'pointing_grid_bound', 'roll_share'):
      self.assertEqual(metrics[name], 1.0, name)
    self.assertAllClose(metrics['pointing_chance'], 1 / 9)
    self.assertGreater(metrics['adaptive_iou'], 0.5)
    self.assertGreater(metrics['auroc'], 0.5)
    self.assertLess(metrics['pointing_wrong_sound'], 0.5)
    found = metrics['interactive']
    self.assertEqual(found['num_pairs'], 4)
    self.assertEqual(found['both_right'], 1.0)
    self.assertEqual(found['both_right_frames'], 1.0)
    self.assertEqual(found['at_silent'], 0.0)
    self.assertEqual(found['same_place'], 0.0)
    low, high = found['both_right_interval']
    self.assertBetween(low, 0.3, 0.6)
    self.assertAllClose(high, 1.0)

  def test_a_model_that_does_not_listen(self):
    metrics = self._metrics('deaf')
    found = metrics['interactive']
    self.assertEqual(found['both_right'], 0.0)
    self.assertEqual(found['same_place'], 1.0)
    self.assertAllClose(found['right'] + found['at_silent'], 1.0)
    self.assertAllClose(metrics['pointing'], 0.5)

  def test_a_model_that_points_nowhere(self):
    metrics = self._metrics('blind')
    self.assertEqual(metrics['pointing'], 0.0)
    self.assertEqual(metrics['roll_share'], 0.0)
    self.assertLess(metrics['auroc'], 0.5)
    self.assertEqual(metrics['interactive']['both_right'], 0.0)

  def test_silent_clips_and_single_pictures(self):
    rows = _clips()
    rows[0]['audio_mask'] = False
    metrics = self._metrics('listens', rows)
    self.assertEqual(metrics['num_clips'], 7)
    self.assertEqual(metrics['num_frames'], 14)
    self.assertEqual(metrics['interactive']['num_pairs'], 3)
    first = {row['example_id'].split('_')[0]: row for row in rows[1:]}
    metrics = self._metrics('listens', list(first.values()))
    self.assertIsNone(metrics['interactive'])

  def test_errors(self):
    rows = _clips()
    for row in rows[1:]:
      row['audio_mask'] = False
    with self.assertRaisesRegex(ValueError, 'several pictures with sound'):
      self._metrics('listens', rows)
    rows = _clips()
    for row in rows:
      row['video_box_mask'] = np.zeros_like(row['video_box_mask'])
    with self.assertRaisesRegex(ValueError, '--boxes'):
      self._metrics('listens', rows)
    for row in rows:
      del row['video_boxes']
    with self.assertRaisesRegex(ValueError, 'no video_boxes'):
      self._metrics('listens', rows)
    model = vatt_models.build_vatt(sizes.Size(1, 8, 16, 2, 4))
    with self.assertRaisesRegex(ValueError, 'LOCAL_WEIGHT'):
      localization.LocalizationEvaluation()(model, [])


if __name__ == '__main__':
  tf.test.main()
