"""Tests of the classification of held-out clips."""

import json
import os

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.evaluation import classification


class _Model:
  """Logits are the inputs."""

  modality = 'audio'

  def __init__(self, num_classes, is_multi_label=False):
    self.num_classes = num_classes
    self.is_multi_label = is_multi_label

  def __call__(self, features, training):
    if training:
      raise ValueError('evaluation is not training')
    return {'logits': features['audio']}


def _batches(batch_size, logits, labels, num_views=1, mask=None, ids=None):
  """Batches of views, the last one filled up with rows that are no clips."""
  num_rows = len(logits)
  rows = {
    'audio': np.asarray(logits, np.float32),
    'label': np.repeat(labels, num_views, axis=0),
    'example_id': np.repeat(
      ids or [f'clip {i}' for i in range(len(labels))], num_views
    ),
    'valid': np.ones([num_rows], bool),
    'audio_mask': (
      np.ones([num_rows], bool) if mask is None else np.repeat(mask, num_views)
    ),
  }
  missing = -num_rows % batch_size
  # What is in the padding must not matter.
  rows = {
    key: np.concatenate([value, np.repeat(value[:1], missing, axis=0)])
    for key, value in rows.items()
  }
  rows['valid'][num_rows:] = False
  return tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)


class ClassificationEvaluationTest(tf.test.TestCase, parameterized.TestCase):
  # Of 5 clips of 3 views: clips that straddle batches, and a partial one.
  @parameterized.parameters(1, 2, 4, 7, 15, 64)
  def test_mean_of_the_views(self, batch_size):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=[15, 4])
    labels = rng.integers(0, 4, 5)
    dataset = _batches(batch_size, logits, labels, num_views=3)
    clips = classification.classify_dataset(_Model(4), dataset, num_views=3)
    expected = np.stack(
      [logits[3 * i : 3 * i + 3].astype(np.float32).mean(0) for i in range(5)]
    )
    self.assertAllClose(clips.logits, expected, atol=1e-7)
    self.assertAllEqual(clips.labels, labels)
    self.assertEqual(clips.ids, [f'clip {i}' for i in range(5)])
    evaluation = classification.ClassificationEvaluation(num_views=3)
    found = evaluation(_Model(4), dataset)
    self.assertEqual(found['top_1'], np.mean(expected.argmax(1) == labels))
    self.assertEqual(found['num_clips'], 5)
    self.assertEqual(found['num_dropped'], 0)
    self.assertEqual(found['share_dropped'], 0.0)
    json.dumps(found)

  def test_single_label(self):
    logits = [[3.0, 1, 2], [0, 5, 1], [2, 1, 3], [0, 0, 0]]
    evaluation = classification.ClassificationEvaluation(
      label_names=['dog', 'rain', 'sea']
    )
    found = evaluation(_Model(3), _batches(3, logits, [0, 1, 0, 1]))
    self.assertEqual(found['top_1'], 0.5)  # the last one is a tie
    self.assertEqual(found['top_5'], 1.0)
    self.assertEqual(found['chance_top_1'], 1 / 3)
    self.assertEqual(found['chance_top_5'], 1.0)
    self.assertEqual(found['class_accuracy'], [0.5, 0.5, None])
    self.assertEqual(
      found['confusion'], [[0, 0, 1], [0, 2, 1], [1, 0, 1], [1, 1, 1]]
    )
    scalars = evaluation.scalars(found)
    self.assertEqual(
      set(scalars), {'top_1', 'top_5', 'chance_top_1', 'chance_top_5'}
    )
    table = evaluation.format_table(found)
    self.assertRegex(table, r'top_1 +0\.500 +0\.333')
    self.assertIn('4 clips, 1 view per clip', table)
    self.assertIn('0 clips dropped (0.0%)', table)

  def test_multi_label(self):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=[20, 4])
    labels = (rng.random([20, 4]) < 0.4).astype(np.float32)
    labels[:, 1] = 0
    labels[:, 3] = 1
    evaluation = classification.ClassificationEvaluation(
      label_names=['dog', 'rain', 'sea', 'sound']
    )
    found = evaluation(_Model(4, True), _batches(8, logits, labels))
    self.assertEqual(found['without_positives'], [1])
    self.assertEqual(found['without_negatives'], [3])
    values = found['class_average_precision']
    self.assertIsNone(values[1])
    self.assertAllClose(found['mAP'], (values[0] + values[2] + 1) / 3)
    self.assertAllClose(found['chance_mAP'], labels.mean(0)[[0, 2, 3]].mean())
    self.assertAllClose(
      found['AUC'], np.mean([found['class_AUC'][i] for i in (0, 2)])
    )
    table = evaluation.format_table(found)
    self.assertIn('Left out of all means, without positives: rain.', table)
    self.assertIn('AUC and d-prime, without negatives: sound.', table)
    self.assertIn('mAP', evaluation.scalars(found))

  def test_constant_scores_are_chance(self):
    labels = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 3]]
    found = classification.ClassificationEvaluation()(
      _Model(4, True), _batches(2, np.zeros([5, 4]), labels)
    )
    for figure in ('mAP', 'AUC', 'd_prime'):
      self.assertAllClose(found[figure], found[f'chance_{figure}'], atol=1e-9)

  def test_no_class_with_positives(self):
    evaluation = classification.ClassificationEvaluation()
    found = evaluation(
      _Model(2, True), _batches(2, np.zeros([3, 2]), np.zeros([3, 2]))
    )
    self.assertIsNone(found['mAP'])
    self.assertNotIn('mAP', evaluation.scalars(found))
    self.assertRegex(evaluation.format_table(found), r'mAP +none +none')
    json.dumps(found)

  def test_label_names_from_a_file(self):
    path = os.path.join(self.get_temp_dir(), 'labels.txt')
    with open(path, 'w', encoding='utf-8') as file:
      file.write('dog\nrain\n')
    self.assertEqual(classification.read_label_names(path, 2), ['dog', 'rain'])
    with self.assertRaisesRegex(ValueError, 'name the 3 classes.*2 names'):
      classification.read_label_names(path, 3)
    with self.assertRaisesRegex(ValueError, 'no file .*nowhere'):
      classification.read_label_names('nowhere/labels.txt', 3)

  def test_clips_without_the_input(self):
    logits, labels = np.eye(4), np.arange(4)
    dataset = _batches(4, logits, labels, mask=[True, True, False, True])
    with self.assertRaisesRegex(ValueError, '1 of 4 clips.*audio.*clip 2'):
      classification.ClassificationEvaluation()(_Model(4), dataset)
    evaluation = classification.ClassificationEvaluation(max_missing_share=0.25)
    found = evaluation(_Model(4), dataset)
    self.assertEqual(found['num_missing'], 1)
    self.assertEqual(found['num_clips'], 4)
    self.assertIn('1 clip without audio', evaluation.format_table(found))

  @parameterized.parameters(
    ({'labels': [0, -1, 5, 1]}, {}, r'\[0, 3\).*2 of 4.*clip 1, clip 2'),
    ({}, {'num_views': 3}, '`num_views`.*num_views=3 for 4 rows'),
    ({}, {'num_views': 2}, 'would mix clips with different ids'),
    ({}, {'num_views': 0}, 'num_views=0'),
    ({'labels': np.zeros([4, 3])}, {}, 'is_multi_label'),
    ({'logits': np.full([4, 3], np.nan)}, {}, 'finite'),
  )
  def test_bad_input(self, changes, options, message):
    arguments = {'logits': np.zeros([4, 3]), 'labels': [0, 1, 2, 0], **changes}
    with self.assertRaisesRegex(ValueError, message):
      classification.ClassificationEvaluation(**options)(
        _Model(3), _batches(4, **arguments)
      )

  def test_multi_label_model_needs_such_labels(self):
    with self.assertRaisesRegex(ValueError, 'is_multi_label` = True and the'):
      classification.ClassificationEvaluation()(
        _Model(3, True), _batches(4, np.zeros([4, 3]), [0, 1, 2, 0])
      )

  def test_model_without_classes(self):
    with self.assertRaisesRegex(ValueError, 'fine-tuned.*linear_probe.gin'):
      classification.ClassificationEvaluation()(object(), None)

  def test_no_labels(self):
    dataset = tf.data.Dataset.from_tensors({'audio': tf.zeros([2, 3])})
    with self.assertRaisesRegex(ValueError, 'LabelConfig'):
      classification.classify_dataset(_Model(3), dataset)


if __name__ == '__main__':
  tf.test.main()
