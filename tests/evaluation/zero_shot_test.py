"""Tests of zero-shot classification."""

import json
import os
import types

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.evaluation import zero_shot
from vatt_tf.input_pipeline import text

_WORDS = ['dog', 'rain', 'sea', 'waves', 'a', 'video', 'of', 'the', 'sound']


class _Model:
  """Embeds a text as the mean of one-hot vectors of its words, a video as
  itself."""

  def __init__(self, width=20):
    self.table = np.eye(width, dtype=np.float32)

  modalities = ('video', 'audio')
  towers = {
    modality: types.SimpleNamespace(input_name=modality)
    for modality in modalities
  }

  def embed(self, modality, x):
    if modality == 'video':
      return {'video_vt': x}
    ids = x
    mask = tf.cast(ids > 0, tf.float32)[..., tf.newaxis]
    return {'text_vt': tf.reduce_sum(tf.gather(self.table, ids) * mask, axis=1)}


class ZeroShotTest(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    path = os.path.join(self.get_temp_dir(), 'words.txt')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(''.join(f'{word}\n' for word in _WORDS))
    self.text = text.TextConfig(vocabulary=path, max_words=8)

  def _dataset(self, words, labels, mask=None, ids=None):
    """A video of each word, clips of 20 numbers."""
    video = np.eye(20, dtype=np.float32)[[4 + _WORDS.index(w) for w in words]]
    rows = {
      'video': video,
      'label': np.asarray(labels),
      'example_id': ids or [f'clip {i}' for i in range(len(words))],
      'video_mask': np.ones([len(words)], bool) if mask is None else mask,
    }
    return tf.data.Dataset.from_tensor_slices(rows).batch(3)

  def _evaluation(self, label_names=('dog', 'rain', 'sea_waves'), **options):
    return zero_shot.ZeroShotEvaluation(list(label_names), self.text, **options)

  def test_finds_the_class_by_its_name(self):
    evaluation = self._evaluation()
    dataset = self._dataset(['dog', 'waves', 'rain', 'sea'], [0, 2, 0, 2])
    found = evaluation(_Model(), dataset)
    self.assertEqual(found['top_1'], 0.75)
    self.assertEqual(found['chance_top_1'], 1 / 3)
    self.assertEqual(found['num_videos'], 4)
    self.assertEqual(found['equal_classes'], [])
    self.assertEqual(evaluation.scalars(found)['top_1'], 0.75)
    table = evaluation.format_table(found)
    self.assertRegex(table, r'top_1 +0\.750 +0\.333')
    self.assertIn('4 videos of 1 clip (mean_embedding), 3 classes', table)
    self.assertIn('Prompts: a video of {}.', table)
    json.dumps(found)

  def test_prompts(self):
    self.assertEqual(
      zero_shot.make_prompts(['dog', 'sea__waves'], ['{}', 'the {}!']),
      [['dog', 'the dog!'], ['sea waves', 'the sea waves!']],
    )
    values, tokens = zero_shot.embed_prompts(
      _Model(), [['dog', 'the dog'], ['rain', 'the rain']], self.text
    )
    expected = np.zeros([2, 20])
    for row, word in enumerate((4, 5)):
      expected[row, word] = 1 + 0.5**0.5
      expected[row, 11] = 0.5**0.5
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    self.assertAllClose(values, expected, atol=1e-6)
    self.assertEqual(tokens.shape, (2, 2, 8))

  def test_clips_of_one_video(self):
    dataset = self._dataset(['dog', 'rain', 'rain'], [1, 1, 1], ids=['a'] * 3)
    found = self._evaluation()(_Model(), dataset)
    self.assertEqual(found['num_videos'], 1)
    self.assertEqual(found['num_rows'], 3)
    self.assertEqual(found['top_1'], 1.0)

  def test_constant_embeddings_are_no_hit(self):
    model = _Model()
    model.table = np.ones_like(model.table)
    found = self._evaluation()(model, self._dataset(['dog', 'sea'], [0, 2]))
    self.assertEqual(found['top_1'], 0.0)

  def test_classes_of_unknown_words(self):
    evaluation = self._evaluation(['dog', 'harpsichord', 'zither'])
    found = evaluation(_Model(), self._dataset(['dog', 'sea'], [0, 2]))
    self.assertEqual(found['equal_classes'], [1, 2])
    self.assertIn(
      'from others: harpsichord, zither.', evaluation.format_table(found)
    )

  def test_several_labels(self):
    labels = np.asarray([[1, 0, 1], [0, 1, 0], [0, 0, 1]], np.float32)
    evaluation = self._evaluation()
    found = evaluation(_Model(), self._dataset(['dog', 'rain', 'sea'], labels))
    self.assertAllClose(found['class_average_precision'][:2], [1.0, 1.0])
    self.assertIn('mAP', evaluation.format_table(found))

  def test_video_without_input_is_wrong(self):
    dataset = self._dataset(['dog', 'rain'], [0, 1], mask=[True, False])
    with self.assertRaisesRegex(
      ValueError, '1 of 2 .*no readable video.*clip 1'
    ):
      self._evaluation()(_Model(), dataset)
    evaluation = self._evaluation(max_missing_share=0.5)
    found = evaluation(_Model(), dataset)
    self.assertEqual(found['top_1'], 0.5)
    self.assertIn(
      '1 video without video, counted', evaluation.format_table(found)
    )

  def test_bad_input(self):
    with self.assertRaisesRegex(ValueError, '`templates`.*once'):
      self._evaluation(templates=['a video'])
    with self.assertRaisesRegex(ValueError, '`templates` must be a list'):
      self._evaluation(templates='a video of {}')
    with self.assertRaisesRegex(ValueError, '`modality`.*video, audio'):
      self._evaluation(modality='text')
    with self.assertRaisesRegex(ValueError, '1 of 2 have none: clip 1'):
      self._evaluation()(_Model(), self._dataset(['dog', 'sea'], [0, 3]))
    with self.assertRaisesRegex(ValueError, 'labels of 2 classes'):
      self._evaluation()(_Model(), self._dataset(['dog'], np.ones([1, 2])))
    with self.assertRaisesRegex(ValueError, 'no input|must have the input'):
      self._evaluation(modality='audio')(
        _Model(), self._dataset(['dog', 'sea'], [0, 1])
      )
    with self.assertRaisesRegex(ValueError, 'have a token.*!'):
      self._evaluation(['dog', '!'], templates=['{}'])(
        _Model(), self._dataset(['dog', 'sea'], [0, 1])
      )


if __name__ == '__main__':
  tf.test.main()
