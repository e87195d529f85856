"""Classes without labels: clusters that picture and sound agree on.

Each of several heads has a linear map for the picture and one for the sound.
In turns, clips get balanced labels (`sinkhorn`) by the product of both maps'
probabilities, and the maps learn these labels, as in SeLaVi (Asano et al.
2020), which Afouras et al. (2022) take for the classes of their detector.
"""

import dataclasses

import numpy as np
from scipy import optimize
from sklearn import cluster
import tensorflow as tf
import tf_keras

from vatt_tf.localization import sinkhorn


@dataclasses.dataclass(frozen=True)
class Options:
  """How clips are clustered.

  Attributes:
    num_clusters: Number of clusters K.
    num_heads: Number of heads; each finds clusters of its own.
    marginals: Sizes of the clusters, one of `sinkhorn.MARGINALS`.
    num_rounds: Number of times that the labels are found anew.
    steps_per_round: Steps of the maps for each.
    learning_rate: Learning rate of Adam.
    weight_decay: Weight of the squared norms of the maps.
    batch_size: Clips per step.
    seed: Seed of every random choice.
  """

  num_clusters: int = 32
  num_heads: int = 10
  marginals: str = sinkhorn.UNIFORM
  num_rounds: int = 20
  steps_per_round: int = 50
  learning_rate: float = 0.01
  weight_decay: float = 1e-3
  batch_size: int = 1024
  seed: int = 0

  def __post_init__(self):
    for name in (
      'num_heads',
      'num_rounds',
      'steps_per_round',
      'batch_size',
    ):
      if getattr(self, name) < 1:
        raise ValueError(
          f'`{name}` must be positive. Received: {name}={getattr(self, name)}'
        )
    if self.num_clusters < 2:
      raise ValueError(
        '`num_clusters` must be at least 2. '
        f'Received: num_clusters={self.num_clusters}'
      )
    if self.marginals not in sinkhorn.MARGINALS:
      raise ValueError(
        f'`marginals` must be one of {", ".join(sinkhorn.MARGINALS)}. '
        f'Received: marginals={self.marginals!r}'
      )


@dataclasses.dataclass(frozen=True)
class Clusters:
  """Clusters of clips.

  Attributes:
    labels: (num_heads, N) integers in [0, num_clusters).
    losses: (num_heads,) float: cross-entropy of the labels, the mean of both
      modalities.
    best: Number of the head whose labels both modalities predict best.
  """

  labels: np.ndarray
  losses: np.ndarray

  @property
  def best(self) -> int:
    """See the class."""
    return int(np.argmin(self.losses))


def find(
  pictures: np.ndarray, sounds: np.ndarray, options: Options
) -> Clusters:
  """Clusters clips by what their picture and sound have in common.

  Args:
    pictures: (N, D) float: feature of the picture of each clip.
    sounds: (N, E) float: feature of the sound of each clip.
    options: See `Options`.

  Returns:
    `Clusters`.

  Raises:
    ValueError: There are fewer clips than clusters.
  """
  num_clips = len(pictures)
  if num_clips < options.num_clusters:
    raise ValueError(
      'There must be as many clips as clusters. Received: '
      f'{num_clips} clips, num_clusters={options.num_clusters}'
    )
  features = [_standardized(x) for x in (pictures, sounds)]
  rng = np.random.default_rng(options.seed)
  labels, losses = [], []
  for head in range(options.num_heads):
    found, loss = _find_by_head(
      features, options, np.random.default_rng([options.seed, head]), rng
    )
    labels.append(found)
    losses.append(loss)
  return Clusters(np.stack(labels), np.array(losses))


def _standardized(x):
  """Features with a mean of 0 and a deviation of 1."""
  x = np.asarray(x, np.float32)
  return (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)


def _first_labels(features, options, rng):
  """Labels of each modality by k-means, with the same numbers where they fit.

  Columns are swapped such that the modalities agree on most clips.
  """
  labels = [
    cluster.KMeans(
      options.num_clusters, n_init=1, random_state=int(rng.integers(2**31))
    ).fit_predict(x)
    for x in features
  ]
  hot = [np.eye(options.num_clusters)[x] for x in labels]
  rows, columns = optimize.linear_sum_assignment(hot[0].T @ hot[1], True)
  order = np.empty([options.num_clusters], int)
  order[columns] = rows
  return [labels[0], order[labels[1]]]


def _find_by_head(features, options, rng, marginal_rng):
  """The labels (N,) of one head, and their loss."""
  count = options.num_clusters
  num_clips = len(features[0])
  kernels = [tf.Variable(tf.zeros([x.shape[1], count])) for x in features]
  biases = [tf.Variable(tf.zeros([count])) for _ in features]
  variables = [*kernels, *biases]
  inputs = [tf.constant(x) for x in features]
  optimizer = tf_keras.optimizers.Adam(options.learning_rate)
  optimizer.build(variables)

  @tf.function(reduce_retracing=True)
  def predict():
    return [
      tf.nn.log_softmax(x @ kernel + bias)
      for x, kernel, bias in zip(inputs, kernels, biases)
    ]

  @tf.function(reduce_retracing=True)
  def step(rows, targets):
    with tf.GradientTape() as tape:
      loss = 0.0
      for x, kernel, bias, target in zip(inputs, kernels, biases, targets):
        logits = tf.gather(x, rows) @ kernel + bias
        loss += tf.reduce_mean(
          tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
        )
        loss += options.weight_decay * tf.nn.l2_loss(kernel)
    optimizer.apply_gradients(
      zip(tape.gradient(loss, variables), variables, strict=True)
    )

  targets = _first_labels(features, options, rng)
  for _ in range(options.num_rounds):
    for _ in range(options.steps_per_round):
      rows = rng.permutation(num_clips)[: options.batch_size]
      step(
        tf.constant(rows),
        [tf.constant(target[rows], tf.int32) for target in targets],
      )
    scores = sum(x.numpy() for x in predict())
    sizes = np.bincount(scores.argmax(1), minlength=count)
    weights = sinkhorn.marginal(options.marginals, sizes, rng=marginal_rng)
    labels = sinkhorn.balanced_labels(scores, weights)
    targets = [labels, labels]
  loss = np.mean(
    [-x.numpy()[np.arange(num_clips), labels].mean() for x in predict()]
  )
  return labels, float(loss)
