"""Classifiers of frozen features: a linear head, an SVM, nearest neighbours."""

from collections.abc import Sequence
from typing import Any, NamedTuple
import warnings

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.evaluation import metrics, retrieval

# Values of C that the SVM chooses from, the most regularised first.
C_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

_MAX_COSINES = 2**24  # held at a time: 128 MiB


class Videos(NamedTuple):
  """Features of the clips of N videos.

  Attributes:
    values: (V, D) float32 array, a row for each clip.
    videos: (V,) int64 array, in [0, N): the video of each clip.
    labels: (N,) int64 array.
    groups: (N,) array: videos with the same value come from one recording, and
      are never split between training and validation.
  """

  values: np.ndarray
  videos: np.ndarray
  labels: np.ndarray
  groups: np.ndarray

  def take(self, chosen: np.ndarray) -> 'Videos':
    """Returns some of the videos.

    Args:
      chosen: (n,) int64: numbers of the videos.

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


def mean_over_clips(
  scores: np.ndarray, videos: np.ndarray, num_videos: int
) -> np.ndarray:
  """Returns the mean of the rows of each video.

  Args:
    scores: (V, C) array.
    videos: (V,) int64 array.
    num_videos: Number of videos.

  Returns:
    (num_videos, C) float64 array; zeros for a video without clips.
  """
  total = np.zeros([num_videos, scores.shape[1]])
  np.add.at(total, videos, scores)
  counts = np.bincount(videos, minlength=num_videos)[:, np.newaxis]
  return total / np.maximum(counts, 1)


def validation_split(
  labels: np.ndarray, groups: np.ndarray, share: float = 0.2, seed: int = 0
) -> np.ndarray:
  """Splits videos by group to choose a hyper-parameter.

  A share of the groups of each class is drawn for validation, at least one
  where a class has two or more. A group has the class of its first video.

  Args:
    labels: (N,) int64 array.
    groups: (N,) array.
    share: Share of the groups that are drawn for validation.
    seed: Seed of every random choice.

  Returns:
    Two int64 arrays, the numbers of the videos to train on and to validate on.

  Raises:
    ValueError: No class has two groups.
  """
  _, first, group = np.unique(groups, return_index=True, return_inverse=True)
  group_classes = labels[first]
  rng = np.random.default_rng(seed)
  is_group_held_out = np.zeros([len(first)], bool)
  for label in np.unique(group_classes):
    members = rng.permutation(np.flatnonzero(group_classes == label))
    if len(members) > 1:
      is_group_held_out[members[: max(1, round(share * len(members)))]] = True
  if not is_group_held_out.any():
    raise ValueError(
      'A validation split needs a class with two videos (groups, with a '
      f'`group_pattern`). Received: {len(labels)} training videos in '
      f'{len(first)} groups of {len(np.unique(group_classes))} classes. Give '
      'more, or fix C: `svm.c_values = (1.0,)`.'
    )
  is_video_held_out = is_group_held_out[group]
  return np.flatnonzero(~is_video_held_out), np.flatnonzero(is_video_held_out)


@gin.register
def lrc(
  train: Videos,
  test: Videos,
  num_classes: int,
  d_hidden: int = 128,
  dropout_rate: float = 0.9,
  l2: float = 0.1,
  num_epochs: int = 1000,
  batch_size: int = 64,
  learning_rate: float
  | tf_keras.optimizers.schedules.LearningRateSchedule = 5e-4,
  seed: int = 0,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Trains the linear head of the paper's release on unscaled features.

  The head is a Dense without activation, dropout, and a Dense to the classes
  whose weights have an L2 penalty; it is trained with cross-entropy and Adam.
  The probabilities of a test video's clips are averaged.

  Args:
    train: Videos to learn from.
    test: Videos to score.
    num_classes: Number of classes.
    d_hidden: Width of the first Dense.
    dropout_rate: Share of its outputs that are dropped, in [0, 1).
    l2: Weight of the sum of the squared weights of the second Dense.
    num_epochs: Number of epochs.
    batch_size: Clips per step; the last batch of an epoch may be smaller.
    learning_rate: Learning rate of Adam.
    seed: Seed of the weights, the order and dropout.

  Returns:
    (N_test, num_classes) float64 probabilities, and a dictionary of details:
    `loss`, the mean loss of the last epoch.

  Raises:
    ValueError: The loss is not finite.
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
  # The step of the legacy Adam is one fused op for each weight, and the step of
  # the optimizer is most of the work here.
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
def svm(
  train: Videos,
  test: Videos,
  num_classes: int,
  c_values: Sequence[float] = C_VALUES,
  max_iter: int = 5000,
  seed: int = 0,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Trains a linear SVM (scikit-learn's LinearSVC) on standardised features.

  The features are standardised by the training clips. C is the value that does
  best on a fifth of the training videos (`validation_split`; the smallest of
  equally good ones); the SVM is then trained on all of them. The distances of a
  test video's clips from the planes are averaged.

  Args:
    train: Videos to learn from.
    test: Videos to score.
    num_classes: Number of classes.
    c_values: Values of C to choose from; a single value is used as it is.
    max_iter: Largest number of iterations of the solver.
    seed: Seed of the validation split and the solver.

  Returns:
    (N_test, num_classes) float64 scores, and a dictionary of details: `C`,
    `validation_accuracy` of each C (None for a single one), and `converged`.

  Raises:
    ValueError: The training videos do not allow a validation split.
  """
  accuracies = None
  best = c_values[0]
  if len(c_values) > 1:
    chosen, held_out = validation_split(train.labels, train.groups, seed=seed)
    part, validation = train.take(chosen), train.take(held_out)
    accuracies = [
      metrics.top_k_accuracy(
        _svm_scores(part, validation, num_classes, c, max_iter, seed)[0],
        validation.labels,
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


def fit_linear_svm(
  values: np.ndarray, labels: np.ndarray, c: float, max_iter: int, seed: int
) -> tuple[Any, bool]:
  """Trains scikit-learn's LinearSVC.

  Args:
    values: (N, D) float: standardised features.
    labels: (N,): classes, of which there are at least two.
    c: Inverse strength of the penalty.
    max_iter: Largest number of iterations of the solver.
    seed: Seed of the solver.

  Returns:
    The LinearSVC, and whether the solver converged.
  """
  # scikit-learn takes seconds to import; other evaluations should not wait.
  from sklearn import exceptions, svm

  machine = svm.LinearSVC(
    C=c, dual='auto', max_iter=max_iter, random_state=seed
  )
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always', exceptions.ConvergenceWarning)
    machine.fit(values, labels)
  converged = not any(
    issubclass(warning.category, exceptions.ConvergenceWarning)
    for warning in caught
  )
  return machine, converged


def _svm_scores(train, test, num_classes, c, max_iter, seed):
  """The scores of the test videos, and whether the solver converged."""
  from sklearn import preprocessing

  labels = train.labels[train.videos]
  classes = np.unique(labels)
  if len(classes) < 2:  # nothing to separate: the only class is always right
    scores = np.zeros([len(test.labels), num_classes])
    scores[:, classes] = 1.0
    return scores, True
  scaler = preprocessing.StandardScaler().fit(train.values)
  machine, converged = fit_linear_svm(
    scaler.transform(train.values), labels, c, max_iter, seed
  )
  distances = machine.decision_function(scaler.transform(test.values))
  if distances.ndim == 1:  # two classes share one plane
    distances = np.stack([-distances, distances], axis=1)
  # Classes without a training video rank last.
  rows = np.full([len(distances), num_classes], distances.min(initial=0.0) - 1)
  rows[:, classes] = distances
  return mean_over_clips(rows, test.videos, len(test.labels)), converged


@gin.register
def knn(
  train: Videos,
  test: Videos,
  num_classes: int,
  k: int = 20,
  temperature: float = 0.07,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Scores videos by a vote of their nearest training videos, by cosine.

  A video is the mean of its clips. Its k nearest training videos vote for their
  classes with exp(cosine / temperature); those that are as near as the k-th
  vote too, so that the order of the videos does not matter.

  Args:
    train: Videos to learn from.
    test: Videos to score.
    num_classes: Number of classes.
    k: Number of neighbours; at most all training videos are used.
    temperature: Divisor of the cosines of the votes.

  Returns:
    (N_test, num_classes) float64 scores, and a dictionary of details: `k`.
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
  # Rounding makes equal votes equal, whatever the order of their sum.
  return np.round(scores, 12) * has_clips[:, np.newaxis], {'k': k}
