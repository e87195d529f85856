"""Classifiers of frozen features: a linear head, an SVM, nearest neighbours.

`ProbeEvaluation` says how well they tell classes apart, over several splits.

What they learn from and are tested on are videos, of several clips each. All
clips of a training video are examples with its label; of a test video the
scores of the clips are averaged (the nearest neighbours are those of the mean).
"""

import re
from typing import NamedTuple
import warnings

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import command_line
from vatt_tf.evaluation import (
  classification,
  metrics,
  outputs,
  retrieval,
)
from vatt_tf.evaluation import features as features_lib
from vatt_tf.evaluation import (
  splits as splits_lib,
)

# Values of C that the SVM chooses from, the most regularised first.
C_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

_MAX_COSINES = 2**24  # held at a time: 128 MiB


class Videos(NamedTuple):
  """Features of the clips of N videos.

  Attributes:
    values: (V, D) float32 array, a row for each clip.
    videos: (V,) int64 array, in [0, N): the video of each clip.
    labels: (N,) int64 array.
    groups: (N,) array: videos with one value are never parted, as clips of one
      recording.
  """

  values: np.ndarray
  videos: np.ndarray
  labels: np.ndarray
  groups: np.ndarray

  def take(self, chosen):
    """Some of the videos.

    Args:
      chosen: (n,) int64 array, their numbers.

    Returns:
      `Videos`, numbered in the order of `chosen`.
    """
    numbers = np.full([len(self.labels)], -1)
    numbers[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(numbers[self.videos] >= 0)
    return Videos(
      self.values[rows],
      numbers[self.videos[rows]],
      self.labels[chosen],
      self.groups[chosen],
    )


def mean_over_clips(scores, videos, num_videos):
  """The mean of the rows of each video.

  Args:
    scores: (V, C) array.
    videos: (V,) int64 array.
    num_videos: int.

  Returns:
    (num_videos, C) float64 array; zeros for a video without clips.
  """
  total = np.zeros([num_videos, scores.shape[1]])
  np.add.at(total, videos, scores)
  counts = np.bincount(videos, minlength=num_videos)[:, np.newaxis]
  return total / np.maximum(counts, 1)


def validation_split(labels, groups, share=0.2, seed=0):
  """Parts videos for the choice of a hyper-parameter, group by group.

  Of the groups of each class (that of a group's first video) a share is drawn
  for validation, at least one of two or more.

  Args:
    labels: (N,) int64 array.
    groups: (N,) array.
    share: float.
    seed: int.

  Returns:
    Two int64 arrays, the numbers of the videos to train on and to validate on.

  Raises:
    ValueError: there is no class of two groups.
  """
  _, first, group = np.unique(groups, return_index=True, return_inverse=True)
  class_of_group = labels[first]
  rng = np.random.default_rng(seed)
  held_out = np.zeros([len(first)], bool)
  for label in np.unique(class_of_group):
    members = rng.permutation(np.flatnonzero(class_of_group == label))
    if len(members) > 1:
      held_out[members[: max(1, round(share * len(members)))]] = True
  if not held_out.any():
    raise ValueError(
      'A validation split needs a class with two videos (groups, with a '
      f'`group_pattern`). Received: {len(labels)} training videos in '
      f'{len(first)} groups of {len(np.unique(class_of_group))} classes. Give '
      'more, or fix C: `svm.c_values = (1.0,)`.'
    )
  is_held_out = held_out[group]
  return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


@gin.register
def lrc(
  train,
  test,
  num_classes,
  d_hidden=128,
  dropout_rate=0.9,
  l2=0.1,
  num_epochs=1000,
  batch_size=64,
  learning_rate=5e-4,
  seed=0,
):
  """The linear head of the paper's release, on the features as they are.

  A Dense without activation, dropout, a Dense to the classes whose weights have
  an L2 penalty; cross-entropy, Adam. The probabilities of a test video's clips
  are averaged.

  Args:
    train: `Videos`.
    test: `Videos`.
    num_classes: int.
    d_hidden: int, width of the first Dense.
    dropout_rate: float in [0, 1), share of its outputs that are dropped.
    l2: float, weight of the sum of the squared weights of the second Dense.
    num_epochs: int.
    batch_size: int; the last batch of an epoch may be smaller.
    learning_rate: float.
    seed: int, of the weights, the order and dropout.

  Returns:
    (N_test, num_classes) float64 probabilities, and a dictionary of what else
    is to be said: `loss`, the mean loss of the last epoch.

  Raises:
    ValueError: the loss is not finite.
  """
  values = tf.constant(train.values)
  labels = tf.constant(train.labels[train.videos])
  num_rows, d_feature = values.shape
  seeds = iter(range(seed * 1000, seed * 1000 + 1000))

  def glorot(*shape):
    initializer = tf_keras.initializers.GlorotUniform(next(seeds))
    return tf.Variable(initializer(shape))

  hidden, hidden_bias = glorot(d_feature, d_hidden), tf.zeros([d_hidden])
  kernel, bias = glorot(d_hidden, num_classes), tf.zeros([num_classes])
  hidden_bias, bias = tf.Variable(hidden_bias), tf.Variable(bias)
  variables = [hidden, hidden_bias, kernel, bias]
  # Its step is one fused op for each weight, which here is most of the work.
  optimizer = tf_keras.optimizers.legacy.Adam(learning_rate)
  optimizer._create_all_weights(variables)  # pylint: disable=protected-access

  def step(rows, dropout_seed):
    x, y = tf.gather(values, rows), tf.gather(labels, rows)
    with tf.GradientTape() as tape:
      x = tf.matmul(x, hidden) + hidden_bias
      keep = tf.random.stateless_uniform(tf.shape(x), dropout_seed)
      x = tf.where(keep >= dropout_rate, x / (1 - dropout_rate), 0.0)
      logits = tf.matmul(x, kernel) + bias
      loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
      )
      loss += l2 * tf.reduce_sum(tf.square(kernel))
    gradients = tape.gradient(loss, variables)
    optimizer.apply_gradients(zip(gradients, variables))
    return loss

  @tf.function
  def fit():
    mean_loss = 0.0
    for epoch in tf.range(num_epochs):
      epoch_seed = tf.stack([seed, epoch])
      order = tf.random.experimental.stateless_shuffle(
        tf.range(num_rows), epoch_seed
      )
      total = 0.0
      for start in tf.range(0, num_rows, batch_size):
        rows = order[start : start + batch_size]
        dropout_seed = tf.random.experimental.stateless_fold_in(
          epoch_seed, start
        )
        loss = step(rows, dropout_seed)
        total += loss * tf.cast(tf.size(rows), tf.float32)
      mean_loss = total / num_rows
    return mean_loss

  loss = float(fit())
  if not np.isfinite(loss):
    raise ValueError(
      f'The loss of the linear head is {loss}: the features are too large '
      'for `lrc.learning_rate`, or not finite. '
      f'Received: learning_rate={learning_rate}, features up to '
      f'{np.max(np.abs(train.values)):.3g}'
    )
  logits = (test.values @ hidden + hidden_bias) @ kernel + bias
  probabilities = tf.nn.softmax(logits).numpy()
  scores = mean_over_clips(probabilities, test.videos, len(test.labels))
  return scores, {'loss': loss}


@gin.register
def svm(train, test, num_classes, c_values=C_VALUES, max_iter=5000, seed=0):
  """A linear SVM (scikit-learn's LinearSVC) on standardised features.

  Mean and deviation are those of the training clips. C is the value that is
  best on a fifth of the training videos (`validation_split`; of equally good
  ones the smallest); then all of them are learned from. The distances from the
  planes of a test video's clips are averaged.

  Args:
    train: `Videos`.
    test: `Videos`.
    num_classes: int.
    c_values: the values of C to choose from; one value is not chosen.
    max_iter: int.
    seed: int, of the validation split and the solver.

  Returns:
    (N_test, num_classes) float64 scores, and a dictionary of what else is to be
    said: `C`, `validation_accuracy` of each C (None for a single one), and
    `converged`.

  Raises:
    ValueError: the training videos do not allow a validation split.
  """
  accuracies = None
  best = c_values[0]
  if len(c_values) > 1:
    chosen, held_out = validation_split(train.labels, train.groups, seed=seed)
    part, rest = train.take(chosen), train.take(held_out)
    accuracies = [
      metrics.top_k_accuracy(
        _svm_scores(part, rest, num_classes, c, max_iter, seed)[0],
        rest.labels,
        1,
      )
      for c in sorted(c_values)
    ]
    best = sorted(c_values)[int(np.argmax(accuracies))]
    accuracies = {str(c): a for c, a in zip(sorted(c_values), accuracies)}
  scores, converged = _svm_scores(
    train, test, num_classes, best, max_iter, seed
  )
  return scores, {
    'C': best,
    'validation_accuracy': accuracies,
    'converged': converged,
  }


def _svm_scores(train, test, num_classes, c, max_iter, seed):
  """Scores of the test videos, and whether the solver converged."""
  # It takes seconds to import, which no other evaluation should wait for.
  from sklearn import exceptions, preprocessing
  from sklearn import svm as sklearn_svm

  labels = train.labels[train.videos]
  scaler = preprocessing.StandardScaler().fit(train.values)
  machine = sklearn_svm.LinearSVC(
    C=c, dual='auto', max_iter=max_iter, random_state=seed
  )
  classes = np.unique(labels)
  if len(classes) < 2:  # nothing to part: the one class is always right
    scores = np.zeros([len(test.labels), num_classes])
    scores[:, classes] = 1.0
    return scores, True
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always', exceptions.ConvergenceWarning)
    machine.fit(scaler.transform(train.values), labels)
  converged = not any(
    issubclass(one.category, exceptions.ConvergenceWarning) for one in caught
  )
  found = machine.decision_function(scaler.transform(test.values))
  if found.ndim == 1:  # of two classes
    found = np.stack([-found, found], axis=1)
  # A class that was never seen comes last.
  rows = np.full([len(found), num_classes], found.min(initial=0.0) - 1)
  rows[:, classes] = found
  return mean_over_clips(rows, test.videos, len(test.labels)), converged


@gin.register
def knn(train, test, num_classes, k=20, temperature=0.07):
  """The nearest training videos vote, by cosine.

  A video is the mean of its clips. Its k nearest training videos vote for their
  classes with exp(cosine / temperature); those that are as near as the k-th
  vote too, so that the order of the videos does not matter.

  Args:
    train: `Videos`.
    test: `Videos`.
    num_classes: int.
    k: int; no more than there are training videos.
    temperature: float.

  Returns:
    (N_test, num_classes) float64 scores, and a dictionary of what else is to be
    said: `k`.
  """
  k = min(k, len(train.labels))

  def vectors(videos):
    mean = mean_over_clips(videos.values, videos.videos, len(videos.labels))
    return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)

  queries, pool = vectors(test), vectors(train)
  classes = np.eye(num_classes)[train.labels]  # (N_train, num_classes)
  scores = np.zeros([len(queries), num_classes])
  chunk_size = max(1, _MAX_COSINES // len(pool))
  for start in range(0, len(queries), chunk_size):
    chunk = slice(start, start + chunk_size)
    cosines = queries[chunk] @ pool.T  # (chunk_size, N_train)
    kth = np.partition(cosines, -k, axis=1)[:, -k, np.newaxis]
    votes = np.exp((cosines - 1) / temperature)
    votes[cosines < kth - retrieval.TIE] = 0
    scores[chunk] = votes @ classes
  has_clips = np.bincount(test.videos, minlength=len(test.labels)) > 0
  # Rounded, so that equal votes are equal whatever the order of their sum.
  return np.round(scores, 12) * has_clips[:, np.newaxis], {'k': k}


@gin.register
class ProbeEvaluation:
  """How well classifiers of frozen features do, over one or several splits.

  Calling it with a `models.vatt.VATT` and a data set (of evaluation, with
  single labels and ids) returns metrics: `features`, from the name of a feature
  to the name of a probe to `top_1` and `top_5`, the means over the splits,
  `top_1_spread` and `top_5_spread`, their standard deviations (None for one
  split), and `splits`, what each gave; `splits`, the sizes of each split;
  `num_videos`, `num_classes`, `label_names`, `chance_top_1`, `chance_top_5`,
  `min_clips_per_video` and `max_clips_per_video`.

  A test video without the input, or of a class that no training video has,
  counts as wrong; a training video without the input is left out.

  Args:
    probes: list of functions such as `lrc`, `svm` and `knn`.
    features: list of names, see `features.extract`.
    train_dataset: `make_dataset` for the videos to learn from, in evaluation
      form; None: they are in the data set too, and `splits` says which.
    splits: callable from the list of all ids to a list of `splits.Split`, such
      as `ListedSplits`; None: one split, which learns from `train_dataset` and
      is tested on the data set.
    label_names: see `classification.read_label_names`; None: as many classes as
      the labels have.
    group_pattern: regular expression with one group, found in ids: videos with
      equal finds are of one recording, and never parted where a probe chooses a
      hyper-parameter. None: every video is of its own.
    max_missing_share: float, the share of the videos without the input above
      which it is an error.
  """

  name = 'probe'
  title = 'Probes of frozen features'

  def __init__(
    self,
    probes,
    features=('video_feature',),
    train_dataset=None,
    splits=None,
    label_names=None,
    group_pattern=None,
    max_missing_share=0.05,
  ):
    if train_dataset is None and splits is None:
      raise ValueError(
        'Give `train_dataset`, the videos to learn from, or `splits` of one '
        'set of videos, such as `ProbeEvaluation.splits = @ListedSplits()`.'
      )
    if not probes:
      raise ValueError('`probes` must hold a probe, such as @lrc.')
    self._probes = list(probes)
    self._features = list(features)
    self._train_dataset = train_dataset
    self._splits = splits
    self._label_names = label_names
    self._group_pattern = group_pattern
    self._max_missing_share = max_missing_share

  def __call__(self, model, dataset):
    """Evaluates; see the class."""
    found = features_lib.extract(model, dataset, self._features)
    _check_single_labels(found.labels)
    found, splits = self._split(model, dataset, found)
    num_classes = int(found.labels.max(initial=0)) + 1
    if self._label_names is not None:
      label_names = classification.read_label_names(self._label_names, None)
      num_classes = len(label_names)
    else:
      label_names = [str(i) for i in range(num_classes)]
    classification.check_labels(found.labels, found.ids, num_classes)
    groups = _groups(found.ids, self._group_pattern)
    clips = np.bincount(found.videos)
    result = {
      'features': {},
      'splits': {
        split.name: self._sizes(split, found, label_names) for split in splits
      },
      'num_videos': len(found.ids),
      'num_classes': num_classes,
      'label_names': label_names,
      'min_clips_per_video': int(clips.min()),
      'max_clips_per_video': int(clips.max()),
    }
    for k in classification.TOP:
      result[f'chance_top_{k}'] = min(1.0, k / num_classes)
    for name in self._features:
      videos = self._videos(found, name, groups)
      result['features'][name] = {
        probe.__name__: _over_splits(probe, videos, splits, num_classes)
        for probe in self._probes
      }
    return result

  def _split(self, model, dataset, found):
    """All features, and the splits of their videos."""
    num_test = len(found.ids)
    if self._train_dataset is not None:
      batch_size = next(iter(dataset.element_spec.values())).shape[0]
      train = features_lib.extract(
        model, self._train_dataset(global_batch_size=batch_size), self._features
      )
      _check_single_labels(train.labels)
      both = sorted(set(train.ids) & set(found.ids))
      if both:
        raise ValueError(
          'A video must not be in the training records and in the test records '
          f'of a probe. Received: {outputs.enumerate_names(both)}'
        )
      found = features_lib.concatenate(found, train)
    if self._splits is not None:
      return found, self._splits(found.ids)
    numbers = np.arange(len(found.ids))
    split = splits_lib.Split('test', numbers[num_test:], numbers[:num_test], 0)
    return found, [split]

  def _videos(self, found, name, groups):
    """The clips that have a feature, as `Videos`."""
    modality = features_lib.MODALITY_OF[name]
    used = found.has_input[modality]
    is_missing = np.bincount(found.videos[used], minlength=len(found.ids)) == 0
    classification.check_missing(
      is_missing, found.ids, modality, self._max_missing_share
    )
    return Videos(
      found.values[name][used], found.videos[used], found.labels, groups
    )

  def _sizes(self, split, found, label_names):
    """What is said of a split, whatever the probe."""
    unseen = np.setdiff1d(found.labels[split.test], found.labels[split.train])
    listed = len(split.test) + split.num_without_record
    return {
      'num_train': len(split.train),
      'num_test': len(split.test),
      'num_dropped': split.num_without_record,
      'share_dropped': split.num_without_record / listed,
      'num_in_no_list': len(found.ids) - len(split.train) - len(split.test),
      'classes_not_learned': [label_names[i] for i in unseen],
    }

  def scalars(self, metrics):
    """The figures by name, such as `video_feature/svm/top_1`: floats."""
    return {
      f'{feature}/{probe}/{figure}': float(result[figure])
      for feature, probes in metrics['features'].items()
      for probe, result in probes.items()
      for figure in ('top_1', 'top_5', 'top_1_spread', 'top_5_spread')
      if result[figure] is not None
    }

  def format_table(self, metrics):
    """The metrics as text for people, without a newline at the end."""
    return format_table(metrics)


def _check_single_labels(labels):
  if labels is None or labels.ndim != 1:
    received = 'no labels' if labels is None else 'labels of several classes'
    raise ValueError(
      'Probes need one label a video: `make_dataset.label = @LabelConfig()` '
      f'with `is_multi_label` False. Received: {received}'
    )


def _groups(ids, pattern):
  """(N,) array of strings: the recording of each video."""
  if pattern is None:
    return np.asarray(ids)
  matches = [re.search(pattern, name) for name in ids]
  if re.compile(pattern).groups != 1 or not all(matches):
    unmatched = [name for name, match in zip(ids, matches) if not match]
    raise ValueError(
      '`group_pattern` must have one group, and be found in every id. '
      f'Received: group_pattern={pattern!r}, not found in '
      f'{outputs.enumerate_names(unmatched) or "none"}'
    )
  return np.asarray([match.group(1) for match in matches])


def _over_splits(probe, videos, splits, num_classes):
  """What a probe gives on each split, and over them."""
  results = {}
  has_clips = np.bincount(videos.videos, minlength=len(videos.labels)) > 0
  for split in splits:
    train = split.train[has_clips[split.train]]
    if not len(train) or not len(split.test):
      raise ValueError(
        f'Split {split.name!r} must have videos to learn from and to test on. '
        f'Received: {len(train)} and {len(split.test)}'
      )
    scores, said = probe(
      videos.take(train), videos.take(split.test), num_classes
    )
    labels = videos.labels[split.test]
    results[split.name] = {
      **{
        f'top_{k}': metrics.top_k_accuracy(scores, labels, k)
        for k in classification.TOP
      },
      **said,
    }
  over = {'splits': results}
  for k in classification.TOP:
    values = [result[f'top_{k}'] for result in results.values()]
    over[f'top_{k}'] = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    over[f'top_{k}_spread'] = spread
  return over


def format_table(results):
  """A table of the metrics of probes for people.

  Args:
    results: what `ProbeEvaluation` returned.

  Returns:
    Text of several lines, without a newline at the end: a row for each feature
    and probe, chance in brackets, then the splits and what was left out.
  """
  figures = [f'top_{k}' for k in classification.TOP]
  rows = [['feature', 'probe', *(f'{figure} (chance)' for figure in figures)]]
  names = list(results['splits'])
  if len(names) > 1:
    rows[0] += [f'top_1 of {name}' for name in names]
  for feature, probes in results['features'].items():
    for probe, result in probes.items():
      row = [feature, probe]
      for figure in figures:
        spread = result[f'{figure}_spread']
        text = '' if spread is None else f' ± {spread:.3f}'
        chance = results[f'chance_{figure}']
        row.append(f'{result[figure]:.3f}{text} ({chance:.3f})')
      if len(names) > 1:
        row += [f'{result["splits"][name]["top_1"]:.3f}' for name in names]
      rows.append(row)
  widths = [max(len(cell) for cell in column) for column in zip(*rows)]
  lines = [
    '  '.join(
      cell.ljust(width) if i < 2 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    )
    for row in rows
  ]
  return '\n'.join(lines + _notes(results))


def _notes(results):
  """Lines that say what the figures of a table were computed from."""
  count = command_line.count
  low, high = results['min_clips_per_video'], results['max_clips_per_video']
  clips = str(low) if low == high else f'{low} to {high}'
  lines = [
    f'{count(results["num_videos"], "video")} of {clips} '
    f'clip{"" if clips == "1" else "s"}, '
    f'{count(results["num_classes"], "class")}.'
  ]
  if len(results['splits']) > 1:
    lines[0] += ' Mean and standard deviation over the splits.'
  for name, sizes in results['splits'].items():
    text = (
      f'Split {name}: {count(sizes["num_train"], "video")} to learn from, '
      f'{sizes["num_test"]} to test on; {sizes["num_dropped"]} of the test '
      f'dropped ({sizes["share_dropped"]:.1%})'
    )
    if sizes['num_in_no_list']:
      text += f', {sizes["num_in_no_list"]} in neither list'
    lines.append(text + '.')
    if sizes['classes_not_learned']:
      lines.append(
        f'Split {name}: no training video of '
        f'{outputs.enumerate_names(sizes["classes_not_learned"])}; the test '
        'videos of these classes count as wrong.'
      )
  for feature, probes in results['features'].items():
    for probe, result in probes.items():
      chosen = [
        f'{one["C"]:g}' for one in result['splits'].values() if 'C' in one
      ]
      if chosen:
        lines.append(f'{feature}, {probe}: C = {", ".join(chosen)}.')
      if not all(
        one.get('converged', True) for one in result['splits'].values()
      ):
        lines.append(
          f'{feature}, {probe}: the solver did not converge; raise '
          '`svm.max_iter`.'
        )
  return lines
