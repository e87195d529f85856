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
  """Computes the sigmoid loss over all pairs of the global batch.

  Each pair of an anchor i (a video) and a candidate c of clip j (a sound, a
  caption) is a separate classification: do they belong to one clip? With y = 1
  if i = j and -1 otherwise, t the inverse temperature and b the bias, the loss
  is the sum over all pairs of

      -log sigmoid(y (t cos(i, j, c) + b)),

  divided by the number of anchors that exist: the mean over the rows of the
  matrix of pairs, as in SigLIP. Every existing caption of a clip is therefore a
  positive of its video, and the captions of other clips are negatives.

  The sum runs over the embeddings that exist: an embedding whose mask is false
  is neither a positive nor a negative, and gets a zero gradient for any value;
  the clip's other embeddings are negatives of the other clips (a clip without a
  caption keeps its row, with negatives only). If no pair of any two clips
  exists, the loss and all gradients are exactly 0.

  In a replica context, the arguments are this replica's rows and the results
  its shares: the sum over replicas is the global loss, and the sum of the
  replicas' gradients is its gradient. All replicas have the same number of
  rows. Similarities and sums are float32 for half-precision embeddings.

  Args:
    anchor: (B, D) float: embeddings, not normalised.
    candidates: (B, D) or (B, C, D) float: embeddings of the same clips.
    anchor_mask: (B,) bool: whether the anchor exists. None means all.
    candidates_mask: (B,) or (B, C) bool: whether the candidate exists. None
      means all.
    inverse_temperature: SigLIP's t, a positive float or a scalar tensor, which
      gets its gradient.
    bias: SigLIP's b, a float or a scalar tensor, which gets its gradient.
    chunk_size: Number of rows whose similarities are in memory at a time;
      gradients are computed right after them. Memory then grows with B, not
      with its square, with the same result. None means all rows at once.

  Returns:
    `pairs.LossTerms`.

  Raises:
    ValueError: An argument is out of its range or has a shape that does not
      fit.

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
  # Scale the embeddings and not their similarities, which are far more.
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
