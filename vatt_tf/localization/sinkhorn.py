"""Balanced labels by optimal transport (Sinkhorn-Knopp), as in SeLaVi.

Clustering by the most probable label alone could give all clips one label. Here
the labels are those of the plan that agrees best with the probabilities among
all plans in which each clip has the same weight and each label a given one
(Asano et al. 2020, "Labelling unlabelled videos from scratch with multi-modal
self-supervision", section 3.1).
"""

import numpy as np

UNIFORM = 'uniform'
GAUSSIAN = 'gaussian'
MARGINALS = (UNIFORM, GAUSSIAN)


def marginal(
  kind: str,
  sizes: np.ndarray,
  deviation: float = 0.1,
  rng: np.random.Generator | None = None,
) -> np.ndarray:
  """Returns the weights of the labels.

  Args:
    kind: `uniform`, or `gaussian` for sizes around the mean with a relative
      deviation, the larger ones for the labels that are larger now.
    sizes: (K,) integers: number of clips that each label has now.
    deviation: Relative deviation of the sizes of `gaussian`.
    rng: Generator of `gaussian`.

  Returns:
    (K,) float64, above 0 with the sum 1.

  Raises:
    ValueError: The kind is unknown.
  """
  if kind not in MARGINALS:
    raise ValueError(
      f'`marginals` must be one of {", ".join(MARGINALS)}. '
      f'Received: marginals={kind!r}'
    )
  count = len(sizes)
  if kind == UNIFORM:
    return np.full([count], 1 / count)
  mean = np.sum(sizes) / count
  drawn = (1 + deviation * rng.standard_normal(count)) * mean
  drawn = np.sort(np.maximum(drawn, 1.0))
  weights = np.empty([count])
  weights[np.argsort(sizes, kind='stable')] = drawn
  return weights / weights.sum()


def balanced_labels(
  log_probabilities: np.ndarray,
  weights: np.ndarray,
  sharpness: float = 20.0,
  tolerance: float = 0.1,
  max_rounds: int = 2000,
) -> np.ndarray:
  """Returns the label of each clip such that the labels have given weights.

  Args:
    log_probabilities: (N, K) float: log-probabilities of the labels; those of
      several modalities are summed.
    weights: (K,) float: share of each label, see `marginal`.
    sharpness: Exponent λ of the probabilities is half of it: the larger, the
      nearer the plan is to the best one, and the slower it is found.
    tolerance: Sum of the relative changes of the clips' factors below which
      the rounds end.
    max_rounds: Most rounds.

  Returns:
    (N,) integers in [0, K).
  """
  scaled = 0.5 * sharpness * np.asarray(log_probabilities, np.float64)
  # A factor per clip, which the plan takes out again, keeps numbers in range.
  plan = np.exp(scaled - scaled.max(1, keepdims=True))
  plan = np.maximum(plan, 1e-300)
  num_clips = len(plan)
  rows = np.full([num_clips], 1 / num_clips)
  for _ in range(max_rounds):
    columns = weights / (rows @ plan)  # (K,)
    previous, rows = rows, (1 / num_clips) / (plan @ columns)
    if np.abs(previous / rows - 1).sum() <= tolerance:
      break
  return np.argmax(rows[:, np.newaxis] * plan * columns, 1)
