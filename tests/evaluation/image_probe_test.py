"""Probes of images, by their gin files, on sets made here."""

import os
import tempfile
from unittest import mock

from absl.testing import absltest
import gin
import numpy as np
from sklearn import preprocessing
from sklearn import svm as sklearn_svm
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import tiny_images
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.checkpoints import folders
from vatt_tf.core import gin_utils
from vatt_tf.evaluation import metrics, multi_label_probe, runner

_SMALL = (
  'NUM_FRAMES=2',
  'FRAME_SIZE=16',
  'Size.num_layers=1',
  'Size.d_model=16',
  'Size.d_ff=16',
  'Size.num_heads=2',
  'Size.d_kv=8',
  'TRAIN_RECORDS=None',
  'EVAL_RECORDS=None',
  'VOCABULARY=None',
)


class ImageProbeTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = tempfile.mkdtemp(dir=absltest.get_default_test_tmpdir())
    for builder in (
      tiny_images.TinyJpegImages,
      tiny_images.TinyMultiLabelImages,
    ):
      tfds.builder(builder.name, data_dir=cls.folder).download_and_prepare()
    cls.run_dir = os.path.join(cls.folder, 'run')
    gin_utils.parse(['gin/pretrain_sample.gin'], _SMALL)
    gin_utils.write_config(cls.run_dir)
    model = gin_utils.get_task().build_model()
    folders.save(tf.train.Checkpoint(model=model), cls.run_dir, 1, 1)
    gin.clear_config()

  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def _evaluate(self, name, image_set, *params):
    gin_utils.parse(
      [os.path.join(self.run_dir, 'config.gin'), f'gin/eval/{name}.gin'],
      [
        f"IMAGE_SET='{image_set}'",
        f"DATA_DIR='{self.folder}'",
        'NUM_CLASSES=4',
        'evaluate.batch_size=4',
        *params,
      ],
    )
    tables = []
    metrics, _ = runner.evaluate(
      self.run_dir, on_result=lambda result: tables.extend(result.tables())
    )
    return metrics, tables[0][1]

  def test_one_class_per_image(self):
    metrics, table = self._evaluate(
      'image_probe', 'tiny_jpeg_images', 'PROBES=[@knn]'
    )
    self.assertEqual(metrics['num_videos'], 12)
    self.assertEqual(metrics['splits']['test']['num_train'], 7)
    self.assertRegex(table, r'video_feature +knn +\d\.\d{3}')

  def test_several_classes_per_image(self):
    metrics, table = self._evaluate(
      'voc2007_probe',
      'tiny_multi_label_images',
      "TRAIN_SPLIT='train'",
      "EVAL_SPLIT='validation'",
      'MultiLabelProbeEvaluation.c_values=(1.0,)',
    )
    self.assertEqual((metrics['num_train'], metrics['num_test']), (7, 5))
    row = metrics['features']['video_feature']
    self.assertEqual(row['C'], 1.0)
    self.assertLen(row['average_precision'], 4)
    self.assertIsNone(row['average_precision'][3])  # below 8 there is none
    self.assertBetween(row['mAP'], 0.0, 1.0)
    self.assertIn('7 clips to learn from, 5 to test on, 4 classes.', table)


def _clips(seed):
  """Features that tell classes apart, and the classes."""
  random = np.random.default_rng(seed)
  labels = random.integers(0, 2, [40, 3]).astype(np.float32)
  noise = random.normal(size=[40, 3])
  return (labels + 0.3 * noise).astype(np.float32), labels


class MultiLabelProbeTest(tf.test.TestCase):
  def test_scores_are_those_of_scikit_learn(self):
    probe = multi_label_probe.MultiLabelProbeEvaluation(None, ['x'])
    (values, labels), (test_values, test_labels) = _clips(0), _clips(1)
    scores, converged = probe._scores(values, labels, 0.1, test_values)
    self.assertTrue(converged)
    for i in range(3):
      machine = sklearn_svm.LinearSVC(
        C=0.1, dual='auto', max_iter=5000, random_state=0
      ).fit(values, labels[:, i])
      expected = machine.decision_function(test_values)
      self.assertAllClose(scores[:, i], expected, rtol=1e-4, atol=1e-4)
    found = metrics.multi_label_metrics(scores, test_labels > 0.5)
    self.assertGreater(np.mean(found['average_precision']), 0.9)

  def test_features_are_standardised_by_those_learned_from(self):
    values, other = _clips(0)[0], _clips(1)[0]
    scaler = preprocessing.StandardScaler().fit(values)
    found = multi_label_probe._standardised(values, other)
    self.assertAllClose(found[0], scaler.transform(values))
    self.assertAllClose(found[1], scaler.transform(other))

  def test_the_best_c_is_chosen(self):
    probe = multi_label_probe.MultiLabelProbeEvaluation(
      None, ['x'], c_values=(10.0, 0.1, 1.0)
    )
    values, labels = _clips(0)
    numbers_of_clips = []

    def scores(values, labels, c, test_values):
      del labels
      numbers_of_clips.append(len(values))
      sign = 1 if c == 1.0 else -1  # right only for 1
      return sign * test_values, True

    with mock.patch.object(probe, '_scores', scores):
      self.assertEqual(probe._choose(values, labels), 1.0)
    self.assertEqual(numbers_of_clips, [32] * 3)

  def test_a_solver_that_does_not_converge_is_reported(self):
    probe = multi_label_probe.MultiLabelProbeEvaluation(None, ['x'], max_iter=1)
    values, labels = _clips(0)
    _, converged = probe._scores(values, labels, 1e4, values)
    self.assertFalse(converged)
    row = {'mAP': 0.5, 'C': 1e4, 'converged': converged}
    table = probe.format_table(
      {
        'features': {'x': row},
        'chance_mAP': 0.5,
        'num_train': 40,
        'num_test': 40,
        'num_classes': 3,
      }
    )
    self.assertIn('x: the solver did not converge; raise', table)


if __name__ == '__main__':
  tf.test.main()
