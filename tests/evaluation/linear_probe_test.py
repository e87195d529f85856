"""Tests of the probes of frozen features."""

import json
import os
import types
from unittest import mock

from absl.testing import parameterized
import numpy as np
from sklearn import neighbors, pipeline, preprocessing
from sklearn import svm as sklearn_svm
import tensorflow as tf
import tf_keras

from vatt_tf.evaluation import features, linear_probe, probe_classifiers, splits


def _videos(num_videos=60, num_clips=3, num_classes=3, noise=0.3, seed=0):
  """Clips around a point for each class."""
  rng = np.random.default_rng(seed)
  labels = np.arange(num_videos) % num_classes
  videos = np.repeat(np.arange(num_videos), num_clips)
  points = np.random.default_rng(99).normal(size=[num_classes, 8])
  values = points[labels[videos]] + noise * rng.normal(size=[len(videos), 8])
  return probe_classifiers.Videos(
    values.astype(np.float32), videos, labels, np.arange(num_videos)
  )


def _accuracy(scores, videos):
  return np.mean(scores.argmax(1) == videos.labels)


_PROBES = {
  'lrc': lambda *arguments: probe_classifiers.lrc(
    *arguments, num_epochs=100, learning_rate=5e-3
  ),
  'svm': probe_classifiers.svm,
  'knn': probe_classifiers.knn,
}


class ProbesTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(*_PROBES)
  def test_learns(self, name):
    train, test = _videos(), _videos(30, seed=1)
    scores, said = _PROBES[name](train, test, 3)
    self.assertEqual(scores.shape, (30, 3))
    self.assertGreaterEqual(_accuracy(scores, test), 0.95)
    json.dumps(said)

  @parameterized.parameters(*_PROBES)
  def test_noise_is_chance(self, name):
    rng = np.random.default_rng(3)
    train, test = _videos(noise=100.0), _videos(300, noise=100.0, seed=1)
    train = train._replace(labels=rng.permutation(train.labels))
    scores, _ = _PROBES[name](train, test, 3)
    self.assertBetween(_accuracy(scores, test), 0.2, 0.47)

  @parameterized.parameters(*_PROBES)
  def test_constant_features_are_at_most_chance(self, name):
    train, test = _videos(), _videos(30, seed=1)
    train.values[:], test.values[:] = 1.0, 1.0
    scores, _ = _PROBES[name](train, test, 3)
    # Whatever the classifier says, it says the same of all videos.
    self.assertAllClose(scores, np.broadcast_to(scores[:1], scores.shape))
    self.assertLessEqual(_accuracy(scores, test), 1 / 3 + 1e-9)

  @parameterized.parameters(*_PROBES)
  def test_repeats(self, name):
    train, test = _videos(noise=2.0), _videos(30, seed=1, noise=2.0)
    first, _ = _PROBES[name](train, test, 3)
    second, _ = _PROBES[name](train, test, 3)
    self.assertAllEqual(first, second)

  @parameterized.parameters(*_PROBES)
  def test_class_without_training_videos(self, name):
    train, test = _videos(), _videos(30, seed=1)
    scores, _ = _PROBES[name](train, test, 4)
    self.assertEqual(scores.shape, (30, 4))
    self.assertTrue(np.all(scores[:, 3] < scores[:, :3].max(1)))

  @parameterized.parameters(*_PROBES)
  def test_video_without_clips_is_wrong(self, name):
    train, test = _videos(), _videos(30, seed=1)
    used = test.videos != 7
    test = test._replace(values=test.values[used], videos=test.videos[used])
    scores, _ = _PROBES[name](train, test, 3)
    self.assertAllEqual(scores[7], [0, 0, 0])
    self.assertGreaterEqual(_accuracy(scores, test), 0.9)

  @parameterized.parameters('svm', 'knn')
  def test_order_of_the_videos_does_not_matter(self, name):
    train, test = _videos(noise=2.0), _videos(30, seed=1, noise=2.0)
    # The validation split of the SVM is drawn, so C must be given.
    options = {'svm': {'c_values': (0.01,)}, 'knn': {}}[name]
    scores, _ = _PROBES[name](train, test, 3, **options)
    order = np.random.default_rng(0).permutation(60)
    shuffled, _ = _PROBES[name](train.take(order), test, 3, **options)
    self.assertAllClose(scores, shuffled, atol=1e-3)
    self.assertAllEqual(scores.argmax(1), shuffled.argmax(1))


class LrcTest(tf.test.TestCase):
  def test_as_a_keras_model(self):
    # Without dropout and in whole batches nothing is random but the weights.
    train, test = _videos(), _videos(30, num_clips=1, seed=1)
    model = tf_keras.Sequential(
      [
        tf_keras.layers.Dense(16),
        tf_keras.layers.Dense(
          3, 'softmax', kernel_regularizer=tf_keras.regularizers.L2(0.1)
        ),
      ]
    )
    model.build([None, 8])
    for i, layer in enumerate(model.layers):
      initializer = tf_keras.initializers.GlorotUniform(i)
      layer.kernel.assign(initializer(layer.kernel.shape))
    model.compile(
      tf_keras.optimizers.Adam(1e-2), 'sparse_categorical_crossentropy'
    )
    history = model.fit(
      train.values,
      train.labels[train.videos],
      batch_size=180,
      epochs=20,
      verbose=0,
    )
    scores, said = probe_classifiers.lrc(
      train,
      test,
      3,
      d_hidden=16,
      dropout_rate=0.0,
      num_epochs=20,
      batch_size=180,
      learning_rate=1e-2,
    )
    self.assertAllClose(scores, model(test.values), atol=1e-4)
    self.assertAllClose(said['loss'], history.history['loss'][-1], atol=1e-4)

  def test_probabilities_are_averaged(self):
    train, test = _videos(), _videos(4, num_clips=2, noise=3.0, seed=1)
    options = {'num_epochs': 5}
    scores, _ = probe_classifiers.lrc(train, test, 3, **options)
    single = test._replace(videos=np.arange(8), labels=np.repeat([0], 8))
    each, _ = probe_classifiers.lrc(train, single, 3, **options)
    self.assertAllClose(scores, (each[0::2] + each[1::2]) / 2, atol=1e-6)

  def test_seeds_differ(self):
    train = _videos(noise=2.0)
    first, _ = probe_classifiers.lrc(train, train, 3, num_epochs=2, seed=0)
    second, _ = probe_classifiers.lrc(train, train, 3, num_epochs=2, seed=1)
    self.assertNotAllClose(first, second, atol=1e-4)

  def test_loss_that_is_not_finite(self):
    train = _videos()
    train.values[0, 0] = 1e38
    with self.assertRaisesRegex(ValueError, 'learning_rate'):
      probe_classifiers.lrc(train, train, 3, num_epochs=2)


class SvmTest(tf.test.TestCase):
  def test_as_scikit_learn(self):
    train, test = _videos(noise=1.5), _videos(30, noise=1.5, seed=1)
    scores, said = probe_classifiers.svm(train, test, 3, c_values=(0.1,))
    self.assertEqual(said['C'], 0.1)
    self.assertIsNone(said['validation_accuracy'])
    reference = pipeline.make_pipeline(
      preprocessing.StandardScaler(), sklearn_svm.LinearSVC(C=0.1, dual=False)
    ).fit(train.values, train.labels[train.videos])
    found = reference.decision_function(test.values).reshape([30, 3, 3])
    self.assertAllClose(scores, found.mean(1), atol=2e-3)

  def test_chooses_c_by_validation(self):
    train = _videos(noise=1.5)
    scores, said = probe_classifiers.svm(
      train, train, 3, c_values=(1.0, 1e-9, 1e-5)
    )
    accuracies = said['validation_accuracy']
    self.assertEqual(list(accuracies), ['1e-09', '1e-05', '1.0'])
    best = max(accuracies.values())
    first = next(c for c, a in accuracies.items() if a == best)
    self.assertEqual(float(first), said['C'])
    self.assertTrue(said['converged'])

  def test_says_that_it_did_not_converge(self):
    train = _videos(noise=5.0)
    _, said = probe_classifiers.svm(
      train, train, 3, c_values=(1e4,), max_iter=1
    )
    self.assertFalse(said['converged'])

  def test_two_classes_and_one(self):
    train = _videos(num_classes=2)
    scores, _ = probe_classifiers.svm(train, train, 2)
    self.assertEqual(_accuracy(scores, train), 1.0)
    alone = train.take(np.flatnonzero(train.labels == 1))
    scores, _ = probe_classifiers.svm(alone, alone, 2, c_values=(1.0,))
    self.assertEqual(_accuracy(scores, alone), 1.0)

  def test_validation_split(self):
    labels = np.repeat([0, 1, 2], [20, 6, 3])
    groups = np.asarray([i // 2 for i in range(26)] + [99] * 3)
    train, held_out = probe_classifiers.validation_split(labels, groups)
    self.assertAllEqual(np.sort(np.concatenate([train, held_out])), range(29))
    self.assertEmpty(set(groups[train]) & set(groups[held_out]))
    # Of 10, 3 and 1 groups a fifth, at least one of two or more.
    self.assertAllEqual(np.bincount(labels[held_out]), [4, 2])
    again = probe_classifiers.validation_split(labels, groups)
    self.assertAllEqual(train, again[0])
    with self.assertRaisesRegex(ValueError, 'c_values'):
      probe_classifiers.validation_split(np.arange(3), np.arange(3))


class KnnTest(tf.test.TestCase):
  def test_one_neighbour_as_scikit_learn(self):
    train = _videos(num_clips=1, noise=2.0)
    test = _videos(30, num_clips=1, noise=2.0, seed=1)
    scores, said = probe_classifiers.knn(train, test, 3, k=1)
    self.assertEqual(said, {'k': 1})
    reference = neighbors.KNeighborsClassifier(1, metric='cosine')
    reference.fit(train.values, train.labels)
    self.assertAllEqual(scores.argmax(1), reference.predict(test.values))

  def test_chunks(self):
    train, test = _videos(noise=2.0), _videos(30, noise=2.0, seed=1)
    whole, _ = probe_classifiers.knn(train, test, 3)
    with mock.patch.object(probe_classifiers, '_MAX_COSINES', 100):
      parts, _ = probe_classifiers.knn(train, test, 3)
    self.assertAllClose(whole, parts, atol=1e-9)

  def test_votes(self):
    train = probe_classifiers.Videos(
      np.asarray([[1, 0], [0, 1], [-1, 0]], np.float32),
      np.arange(3),
      np.asarray([0, 1, 1]),
      np.arange(3),
    )
    test = train.take(np.asarray([0]))
    scores, _ = probe_classifiers.knn(train, test, 2, k=2, temperature=1.0)
    self.assertAllClose(scores, [[1.0, np.exp(-1)]])


class _Model:
  """Features are the inputs."""

  modalities = ('video', 'audio')
  towers = {
    modality: types.SimpleNamespace(input_name=modality)
    for modality in modalities
  }

  def embed(self, modality, x):
    if modality != 'video':
      raise ValueError(f'{modality} was not asked for')
    return {'video_feature': x, 'video_va': 2 * x}


def _dataset(videos, prefix, num_clips=3, labels=None, mask=None):
  num_rows = len(videos.values)
  labels = videos.labels if labels is None else labels
  rows = {
    'video': videos.values,
    'label': np.asarray(labels, np.int32)[videos.videos],
    'example_id': [f'{prefix}{i:03d}' for i in videos.videos],
    'video_mask': np.ones([num_rows], bool) if mask is None else mask,
    'valid': np.ones([num_rows], bool),
  }
  missing = -num_rows % 8
  rows = {
    key: np.concatenate([value, np.asarray(value)[:missing]])
    for key, value in rows.items()
  }
  rows['valid'][num_rows:] = False
  dataset = tf.data.Dataset.from_tensor_slices(rows)
  return lambda global_batch_size: dataset.batch(
    global_batch_size, drop_remainder=True
  )


class ProbeEvaluationTest(tf.test.TestCase, parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.train, self.test = _videos(30), _videos(15, seed=1)
    self.test_dataset = _dataset(self.test, 'test')(8)

  def _evaluation(self, **options):
    options = {
      'probes': [probe_classifiers.svm, probe_classifiers.knn],
      'train_dataset': _dataset(self.train, 'train'),
      **options,
    }
    return linear_probe.ProbeEvaluation(**options)

  def test_two_sets_of_records(self):
    evaluation = self._evaluation(features=['video_feature', 'video_va'])
    found = evaluation(_Model(), self.test_dataset)
    self.assertEqual(found['num_videos'], 45)
    self.assertEqual(found['max_clips_per_video'], 3)
    self.assertEqual(found['chance_top_1'], 1 / 3)
    self.assertEqual(
      found['splits']['test'],
      {
        'num_train': 30,
        'num_test': 15,
        'num_dropped': 0,
        'share_dropped': 0.0,
        'num_in_no_list': 0,
        'classes_not_learned': [],
      },
    )
    scores, said = probe_classifiers.svm(self.train, self.test, 3)
    result = found['features']['video_feature']['svm']
    self.assertEqual(result['top_1'], _accuracy(scores, self.test))
    self.assertEqual(result['splits']['test']['C'], said['C'])
    self.assertIsNone(result['top_1_spread'])
    scalars = evaluation.scalars(found)
    self.assertEqual(scalars['video_feature/svm/top_1'], result['top_1'])
    self.assertIn('video_va/knn/top_5', scalars)
    table = evaluation.format_table(found)
    self.assertIn('45 videos of 3 clips, 3 classes.', table)
    self.assertRegex(table, r'video_feature +svm +\d\.\d{3} \(0\.333\)')
    self.assertIn('0 of the test dropped (0.0%)', table)
    json.dumps(found)

  def _lists(self, **lists):
    folder = self.create_tempdir().full_path
    for name, ids in lists.items():
      with open(os.path.join(folder, f'{name}.txt'), 'w') as file:
        file.write(''.join(f'{one}\n' for one in ids))
    return folder

  def test_folds(self):
    ids = [f'test{i:03d}' for i in range(15)]
    lists = {}
    for fold in range(3):
      lists[f'test_{fold}'] = ids[5 * fold : 5 * fold + 5]
      lists[f'train_{fold}'] = ids[: 5 * fold] + ids[5 * fold + 5 :]
    folder = self._lists(**lists)
    evaluation = self._evaluation(
      probes=[probe_classifiers.knn],
      train_dataset=None,
      splits=splits.ListedSplits(folder),
      label_names=['a', 'b', 'c'],
    )
    found = evaluation(_Model(), self.test_dataset)
    result = found['features']['video_feature']['knn']
    values = []
    for fold in range(3):
      test = np.arange(5 * fold, 5 * fold + 5)
      train = self.test.take(np.setdiff1d(np.arange(15), test))
      scores, _ = probe_classifiers.knn(train, self.test.take(test), 3)
      values.append(_accuracy(scores, self.test.take(test)))
    self.assertEqual(
      [one['top_1'] for one in result['splits'].values()], values
    )
    self.assertAllClose(result['top_1'], np.mean(values))
    self.assertAllClose(result['top_1_spread'], np.std(values, ddof=1))
    table = evaluation.format_table(found)
    self.assertIn('±', table)
    self.assertIn('Split 2: 10 videos to learn from, 5 to test on', table)

  def test_ids_without_a_record(self):
    ids = [f'test{i:03d}' for i in range(15)]
    folder = self._lists(train_1=ids[:9], test_1=[*ids[9:], 'gone'])
    with self.assertRaisesRegex(ValueError, '1 of 7 ids .*test_1.txt.*gone'):
      splits.ListedSplits(folder)(ids)
    found = self._evaluation(
      train_dataset=None,
      splits=splits.ListedSplits(folder, max_unknown_share=0.2),
    )(_Model(), self.test_dataset)
    self.assertEqual(found['splits']['1']['num_dropped'], 1)
    self.assertAllClose(found['splits']['1']['share_dropped'], 1 / 7)

  def test_clips_without_video(self):
    mask = np.ones([45], bool)
    mask[:3] = False
    dataset = _dataset(self.test, 'test', mask=mask)(8)
    with self.assertRaisesRegex(
      ValueError, '1 of 45 .* no readable vid.*test000'
    ):
      self._evaluation(max_missing_share=0.0)(_Model(), dataset)
    found = self._evaluation()(_Model(), dataset)
    self.assertEqual(found['splits']['test']['num_test'], 15)
    svm = found['features']['video_feature']['svm']
    self.assertLessEqual(svm['top_1'], 14 / 15)

  def test_class_that_is_not_learned(self):
    labels = np.asarray([3, *self.test.labels[1:]])
    evaluation = self._evaluation(probes=[probe_classifiers.knn])
    found = evaluation(_Model(), _dataset(self.test, 'test', labels=labels)(8))
    self.assertEqual(found['splits']['test']['classes_not_learned'], ['3'])
    self.assertIn('no training video of 3', evaluation.format_table(found))

  def test_bad_input(self):
    labels = [-1, *self.test.labels[1:]]
    with self.assertRaisesRegex(ValueError, '1 of 45 have none: test000'):
      dataset = _dataset(self.test, 'test', labels=labels)(8)
      self._evaluation()(_Model(), dataset)
    with self.assertRaisesRegex(
      ValueError, 'not be in both the training.*test000'
    ):
      self._evaluation(train_dataset=_dataset(self.test, 'test'))(
        _Model(), self.test_dataset
      )
    with self.assertRaisesRegex(ValueError, '`features`.*video_feature'):
      self._evaluation(features=['text'])(_Model(), self.test_dataset)
    with self.assertRaisesRegex(ValueError, "must have the input 'audio'"):
      self._evaluation(features=['audio_feature'])(_Model(), self.test_dataset)
    model = _Model()
    model.modalities = ('audio',)
    with self.assertRaisesRegex(ValueError, 'only the modalities audio'):
      self._evaluation()(model, self.test_dataset)
    with self.assertRaisesRegex(ValueError, 'does not compute video_vt'):
      self._evaluation(features=['video_vt'])(_Model(), self.test_dataset)
    with self.assertRaisesRegex(ValueError, 'train_dataset'):
      self._evaluation(train_dataset=None)
    with self.assertRaisesRegex(ValueError, '`group_pattern`.*test000'):
      self._evaluation(group_pattern='train(.)')(_Model(), self.test_dataset)
    with self.assertRaisesRegex(ValueError, '`probes`'):
      self._evaluation(probes=[])
    unlabelled = self.test_dataset.map(
      lambda rows: {k: v for k, v in rows.items() if k != 'label'}
    )
    with self.assertRaisesRegex(ValueError, 'no labels'):
      self._evaluation()(_Model(), unlabelled)

  def test_groups(self):
    found = []

    def probe(train, test, num_classes):
      found.append(train.groups)
      return np.eye(num_classes)[test.labels], {}

    self._evaluation(probes=[probe], group_pattern=r'(.)\d$')(
      _Model(), self.test_dataset
    )
    self.assertAllEqual(found[0], [str(i // 10) for i in range(30)])


class FeaturesTest(tf.test.TestCase):
  def test_records_of_one_id_are_clips_of_one_video(self):
    rows = {
      'video': np.eye(4, dtype=np.float32),
      'example_id': ['b', 'a', 'b', 'c'],
      'label': [1, 0, 1, 2],
    }
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(3)
    found = features.extract(_Model(), dataset, ['video_feature'])
    self.assertEqual(found.ids, ['b', 'a', 'c'])
    self.assertAllEqual(found.videos, [0, 1, 0, 2])
    self.assertAllEqual(found.labels, [1, 0, 2])
    self.assertAllEqual(found.values['video_feature'], np.eye(4))
    both = features.concatenate(found, found._replace(ids=['d', 'a', 'e']))
    self.assertEqual(both.ids, ['b', 'a', 'c', 'd', 'e'])
    self.assertAllEqual(both.videos, [0, 1, 0, 2, 3, 1, 3, 4])
    self.assertAllEqual(both.labels, [1, 0, 2, 1, 2])
    other = found._replace(labels=np.asarray([1, 5, 2]))
    with self.assertRaisesRegex(ValueError, 'several for a'):
      features.concatenate(found, other)

  def test_bad_records(self):
    rows = {
      'video': np.eye(3, dtype=np.float32),
      'example_id': ['b', '', 'b'],
      'label': [1, 0, 2],
    }

    def dataset(**changes):
      return tf.data.Dataset.from_tensors({**rows, **changes})

    with self.assertRaisesRegex(ValueError, '1 of 3 rows.*row 1'):
      features.extract(_Model(), dataset(), ['video_feature'])
    with self.assertRaisesRegex(ValueError, 'several for b'):
      features.extract(
        _Model(), dataset(example_id=['b', 'a', 'b']), ['video_feature']
      )
    video = np.asarray([[1.0], [np.nan], [0.0]], np.float32)
    with self.assertRaisesRegex(ValueError, '1 of 3 are not, from a'):
      features.extract(
        _Model(),
        dataset(video=video, example_id=['b', 'a', 'c']),
        ['video_feature'],
      )


class SplitsTest(tf.test.TestCase):
  def _folder(self, **lists):
    folder = self.create_tempdir().full_path
    for name, text in lists.items():
      with open(os.path.join(folder, f'{name}.txt'), 'w') as file:
        file.write(text)
    return folder

  def test_lists(self):
    folder = self._folder(
      train_1='a\nb\n', test_1='c\n\nc\n', train_2='c\n', test_2='a', test_3='a'
    )
    found = splits.ListedSplits(folder)(['c', 'b', 'a', 'd'])
    self.assertEqual([split.name for split in found], ['1', '2'])
    self.assertAllEqual(found[0].train, [2, 1])
    self.assertAllEqual(found[0].test, [0])
    found = splits.ListedSplits(folder, names=[2])(['c', 'b', 'a'])
    self.assertEqual([split.name for split in found], ['2'])

  def test_bad_lists(self):
    folder = self._folder(train_1='a\nb\n', test_1='b\n')
    with self.assertRaisesRegex(ValueError, 'in common.*b'):
      splits.ListedSplits(folder)(['a', 'b'])
    with self.assertRaisesRegex(ValueError, "another data set.*'x'"):
      splits.ListedSplits(folder)(['x', 'y'])
    with self.assertRaisesRegex(ValueError, '`names`.*: 1. Received.*7'):
      splits.ListedSplits(folder, names=['7'])(['a', 'b'])
    with self.assertRaisesRegex(ValueError, 'no lists'):
      splits.ListedSplits(self._folder(train_1='a'))(['a'])
    with self.assertRaisesRegex(ValueError, 'test_1.txt is empty'):
      splits.ListedSplits(self._folder(train_1='a', test_1='\n'))(['a'])


if __name__ == '__main__':
  tf.test.main()
