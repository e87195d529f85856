"""The contrastive sums that NCE and MIL-NCE share.

NCE is the case of one candidate a clip (see `losses.pairs`).
"""

import functools

import tensorflow as tf

from vatt_tf.losses import pairs

DENOMINATORS = ('joint', 'joint_once', 'per_direction')


def shares(
  anchor,
  candidates,
  anchor_mask,
  candidates_mask,
  temperature,
  denominator,
  chunk_size,
  names,
):
  """This replica's share of a contrastive loss over the global batch.

  Args:
    anchor: (B, D) float, this replica's rows, not normalised.
    candidates: (B, C, D) float.
    anchor_mask: (B,) bool, or None for all true.
    candidates_mask: (B, C) bool, or None for all true.
    temperature: positive float, or a positive scalar tensor, which gets its
      gradient.
    denominator: one of `DENOMINATORS`.
    chunk_size: None, or how many rows' similarities are held at a time.
    names: what error messages call the anchor and the candidates.

  Returns:
    `pairs.Shares`, float32 (float64 for float64 embeddings); the loss is the
    mean over the valid pairs.

  Raises:
    ValueError: an argument is not what is said here.
  """
  if not tf.is_tensor(temperature) and not temperature > 0:
    raise ValueError(
      f'`temperature` must be positive. Received: temperature={temperature}'
    )
  if denominator not in DENOMINATORS:
    raise ValueError(
      f'`denominator` must be one of {", ".join(DENOMINATORS)}. '
      f'Received: denominator={denominator!r}'
    )
  return pairs.shares(
    anchor,
    candidates,
    anchor_mask,
    candidates_mask,
    sums=functools.partial(_sums, denominator),
    scalars={'temperature': temperature},
    counted=pairs.valid_pairs,
    chunk_size=chunk_size,
    names=names,
  )


def _sums(denominator, local, everyone, temperature):
  """Sums over the local rows: (3,), the loss, forward and backward hits."""
  # Dividing the rows is dividing their similarities, which are far more.
  local = local._replace(anchor=local.anchor / temperature)
  positives = pairs.own_similarities(local)  # (R, C)
  forward = pairs.forward_similarities(local, everyone)  # (R, B, C)
  backward = pairs.backward_similarities(
    local._replace(candidates=local.candidates / temperature), everyone
  )  # (R, C, B)
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
    both = tf.stack([forward_sum, backward_sum], -1)
    losses = tf.reduce_logsumexp(both, -1) - numerator
  # All is finite where a pair is missing, so the selection is exact.
  losses = tf.where(
    pairs.valid_pairs(local), losses, tf.zeros([], losses.dtype)
  )
  hits = pairs.num_hits(
    local, positives, forward, backward, pairs.TIE / temperature
  )
  return tf.stack([tf.reduce_sum(losses), *hits])
