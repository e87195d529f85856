"""The sigmoid loss between two modalities (Zhai et al. 2023, SigLIP)."""

import tensorflow as tf

from vatt_tf.losses import pairs


def sigmoid_loss(
  anchor: tf.Tensor,
  candidates: tf.Tensor,
  anchor_mask: tf.Tensor | None = None,
  candidates_mask: tf.Tensor | None = None,
  inverse_temperature: float | tf.Tensor = 10.0,
  bias: float | tf.Tensor = -10.0,
  chunk_size: int | None = None,
) -> pairs.LossTerms:
  """Sigmoid loss over all pairs of the global batch.

  Each pair of an anchor i (a video) and a candidate c of clip j (a sound, a
  caption) is a question by itself: are they of one clip? With y = 1 where
  i = j and -1 elsewhere, t the inverse temperature and b the bias, the loss is
  the sum over all pairs of

      -log sigmoid(y (t cos(i, j, c) + b)),

  divided by the number of anchors that exist: the mean over the rows of the
  matrix of pairs, as in SigLIP. So every existing caption of a clip is a
  positive of its video, and the captions of other clips are negatives.

  The sum runs over what exists: an embedding whose mask is false is neither a
  positive nor a negative, and gets a zero gradient, whatever it holds; the
  clip's other embeddings are negatives of the other clips (a clip with no
  caption keeps its row, all negatives). Where no pair of any two clips exists
  the loss is exactly 0, and so are all gradients.

  In a replica context the arguments are this replica's rows and the results
  its shares: the sum over replicas is the global loss, and the sum of the
  replicas' gradients is its gradient. All replicas hold equally many rows.
  Similarities and sums are float32 for half-precision embeddings.

  Args:
    anchor: (B, D) float embeddings, not normalised.
    candidates: (B, D) or (B, C, D) float embeddings of the same clips.
    anchor_mask: (B,) bool, the anchor exists. None: all.
    candidates_mask: (B,) or (B, C) bool, the candidate exists. None: all.
    inverse_temperature: Positive float, or a scalar tensor, which gets its
      gradient: SigLIP's t.
    bias: Float or scalar tensor, SigLIP's b.
    chunk_size: None holds all similarities at once. An integer holds those of
      that many rows at a time, and their gradient right after them: memory
      then grows with B, not with its square, at the same result.

  Returns:
    `pairs.LossTerms`.

  Raises:
    ValueError: An argument out of its range or of a shape that does not fit.

  Example:
    >>> video = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> sigmoid_loss(video, video).loss.numpy().round(4)
    0.6932
  """
  if not tf.is_tensor(inverse_temperature) and not inverse_temperature > 0:
    raise ValueError(
      '`inverse_temperature` must be positive. '
      f'Received: inverse_temperature={inverse_temperature}'
    )
  return pairs.loss_terms(
    anchor,
    candidates,
    anchor_mask,
    candidates_mask,
    sums=_sums,
    scalars={'inverse_temperature': inverse_temperature, 'bias': bias},
    counted=lambda side: side.anchor_mask,
    chunk_size=chunk_size,
  )


def _sums(local, everyone, inverse_temperature, bias):
  """Sums over the local rows: (3,), the loss, forward and backward hits."""
  # Scaling the rows is scaling their similarities, which are far more.
  local = local._replace(anchor=inverse_temperature * local.anchor)
  forward = pairs.forward_similarities(local, everyone)  # (R, B, C)
  logits = forward.values + bias
  # softplus(-x) is -log sigmoid(x).
  losses = tf.math.softplus(tf.where(forward.own, -logits, logits))
  losses = tf.where(forward.mask, losses, tf.zeros([], losses.dtype))
  backward = pairs.backward_similarities(
    local._replace(candidates=inverse_temperature * local.candidates), everyone
  )
  hits = pairs.num_hits(
    local,
    pairs.own_similarities(local),
    forward,
    backward,
    pairs.TIE * inverse_temperature,
  )
  return tf.stack([tf.reduce_sum(losses), *hits])
