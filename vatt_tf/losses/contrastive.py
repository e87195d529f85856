"""NCE and MIL-NCE between two modalities (paper, section 3.4).

MIL-NCE (Miech et al. 2020) compares a clip with several candidates, such as the
captions near it in time: together they are its positives, so that one that
matches is enough. NCE is the case of one candidate.
"""

import functools

import tensorflow as tf

from vatt_tf.losses import pairs

DENOMINATORS = ('joint', 'joint_once', 'per_direction')


def contrastive_loss(
  anchor: tf.Tensor,
  candidates: tf.Tensor,
  anchor_mask: tf.Tensor | None = None,
  candidates_mask: tf.Tensor | None = None,
  temperature: float | tf.Tensor = 0.07,
  denominator: str = 'joint',
  chunk_size: int | None = None,
) -> pairs.LossTerms:
  """Computes NCE, or MIL-NCE, between the clips of the global batch.

  Let s(i, j, c) be the cosine of anchor i and candidate c of clip j, divided by
  the temperature, and P(i) = sum_c e^s(i, i, c) over the clip's own candidates.
  The loss is the mean over the clips i with an anchor and a candidate of:

  - `joint`: log(sum_jc e^s(i, j, c) + sum_jc e^s(j, i, c)) - log P(i). The
    positives are twice in the sum, so the loss is at least log 2. The released
    implementation and MIL-NCE use this form.
  - `joint_once`: the same with j != i in the second sum: the paper's
    equations 4 and 5.
  - `per_direction`: log(sum_jc e^s(i, j, c)) - log P(i) and
    log(sum_jc e^s(j, i, c)) - log P(i), added.

  Sums run over the embeddings that exist: an embedding whose mask is false is
  neither a positive nor a negative, and gets a zero gradient for any value; the
  clip's other embeddings still serve as negatives (a clip without a caption
  keeps its video in the pool). Without any pair, the loss and the gradients are
  exactly 0.

  In a replica context, the arguments are this replica's rows and the results
  its shares: the sum over replicas is the global loss, and the sum of the
  replicas' gradients is its gradient. All replicas have the same number of
  rows. Similarities and sums are float32 for half-precision embeddings.

  Args:
    anchor: (B, D) float: embeddings, not normalised, such as of videos.
    candidates: (B, D) float: embeddings of the same clips, such as of sounds;
      or (B, C, D), such as of captions.
    anchor_mask: (B,) bool: whether the anchor exists. None means all.
    candidates_mask: (B,) or (B, C) bool: whether the candidate exists. None
      means all.
    temperature: Positive float, or a positive scalar tensor, which gets its
      gradient.
    denominator: Form of the loss, one of `DENOMINATORS`.
    chunk_size: Number of rows whose similarities are in memory at a time;
      gradients are computed right after them. Memory then grows with B, not
      with its square, with the same result. None means all rows at once.

  Returns:
    `pairs.LossTerms`.

  Raises:
    ValueError: The denominator is unknown, or an argument is out of its range
      or has a shape that does not fit.

  Example:
    >>> video = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> contrastive_loss(video, video, temperature=0.1).loss.numpy().round(4)
    0.6932
    >>> text = tf.stack([video, -video], axis=1)
    >>> mask = tf.constant([[True, False], [True, False]])
    >>> contrastive_loss(
    ...   video, text, candidates_mask=mask, temperature=0.1
    ... ).loss.numpy().round(4)
    0.6932
  """
  if not tf.is_tensor(temperature) and not temperature > 0:
    raise ValueError(
      f'`temperature` must be positive. Received: temperature={temperature}'
    )
  check_denominator(denominator)
  return pairs.loss_terms(
    anchor,
    candidates,
    anchor_mask,
    candidates_mask,
    sums=functools.partial(_sums, denominator),
    scalars={'temperature': temperature},
    counted=pairs.valid_pairs,
    chunk_size=chunk_size,
  )


def check_denominator(denominator: str) -> None:
  """Raises ValueError unless the form of the loss is known."""
  if denominator not in DENOMINATORS:
    raise ValueError(
      f'`denominator` must be one of {", ".join(DENOMINATORS)}. '
      f'Received: denominator={denominator!r}'
    )


def _sums(denominator, local, everyone, temperature):
  """Sums over the local rows: (3,), the loss, forward and backward hits."""
  # Divide the embeddings and not their similarities, which are far more.
  local = local._replace(anchor=local.anchor / temperature)
  positives = pairs.own_similarities(local)  # (R, C)
  forward = pairs.forward_similarities(local, everyone)  # (R, B, C)
  backward = pairs.backward_similarities(
    local._replace(candidates=local.candidates / temperature), everyone
  )  # (R, C, B)
  return sums_of_similarities(
    denominator, local, positives, forward, backward, pairs.TIE / temperature
  )


def sums_of_similarities(
  denominator: str,
  local: pairs.Rows,
  positives: tf.Tensor,
  forward: pairs.Similarities,
  backward: pairs.Similarities,
  margin: tf.Tensor | float,
) -> tf.Tensor:
  """Sums the loss and the hits over the local rows.

  Args:
    denominator: Form of the loss, one of `DENOMINATORS`.
    local: The R local rows, of which only the masks matter.
    positives: (R, C) float: similarities of the rows' own pairs, divided by the
      temperature, as `pairs.pool` masks them.
    forward: `Similarities` (R, B, C) of the local anchors, divided likewise.
    backward: `Similarities` (R, C, B) of the local candidates.
    margin: Difference of divided similarities that is a tie.

  Returns:
    (3,): the loss, the forward and the backward hits.
  """
  numerator = tf.reduce_logsumexp(positives, -1)  # (R,)
  forward_sum = tf.reduce_logsumexp(
    pairs.pool(forward.values, forward.mask), [1, 2]
  )
  in_sum = backward.mask
  if denominator == 'joint_once':
    in_sum &= ~backward.own
  backward_sum = tf.reduce_logsumexp(
    pairs.pool(backward.values, in_sum), [1, 2]
  )
  if denominator == 'per_direction':
    losses = forward_sum + backward_sum - 2 * numerator
  else:
    directions = tf.stack([forward_sum, backward_sum], -1)
    losses = tf.reduce_logsumexp(directions, -1) - numerator
  # Losses are finite even where a pair is missing, so the selection is exact.
  losses = tf.where(
    pairs.valid_pairs(local), losses, tf.zeros([], losses.dtype)
  )
  hits = pairs.num_hits(local, positives, forward, backward, margin)
  return tf.stack([tf.reduce_sum(losses), *hits])
