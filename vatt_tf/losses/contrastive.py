"""The contrastive sums that NCE and MIL-NCE share.

An anchor is one clip's embedding (video), its candidates are the C embeddings
of the same clip in the other modality (C = 1 for sound, C captions for text).
NCE is the case C = 1.
"""

from typing import NamedTuple

import tensorflow as tf

from vatt_tf import distribution, tensor_utils

DENOMINATORS = ('joint', 'joint_once', 'per_direction')

# The similarity of what is in no pool: its exponential is 0, and differences
# of two such values are finite. Only ever in float32 or float64.
_ABSENT = -1e30
# Cosines closer than this are a tie: float32 products of equal rows differ by
# as much.
_TIE = 1e-6


class Shares(NamedTuple):
  """This replica's shares; summed over replicas they are the global values.

  Attributes:
    loss: scalar, of the mean loss over the valid pairs of the global batch.
    num_pairs: scalar, clips whose anchor and at least one candidate exist.
    forward_accuracy: scalar, of the share of valid anchors with a candidate of
      their own nearer than all others.
    backward_accuracy: scalar, of the share of valid candidates with their own
      anchor nearer than all others.
  """

  loss: tf.Tensor
  num_pairs: tf.Tensor
  forward_accuracy: tf.Tensor
  backward_accuracy: tf.Tensor


class _Side(NamedTuple):
  """Unit embeddings and masks of some rows of the batch, R rows."""

  row: tf.Tensor  # (R,) int32, in the global batch
  anchor: tf.Tensor  # (R, D)
  candidates: tf.Tensor  # (R, C, D)
  anchor_mask: tf.Tensor  # (R,) bool
  candidates_mask: tf.Tensor  # (R, C) bool


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
    temperature: positive float.
    denominator: one of `DENOMINATORS`.
    chunk_size: None, or how many rows' similarities are held at a time.
    names: what error messages call the anchor and the candidates.

  Returns:
    `Shares`, float32 (float64 for float64 embeddings).

  Raises:
    ValueError: an argument is not what is said here.
  """
  anchor, candidates, anchor_mask, candidates_mask = _checked(
    anchor, candidates, anchor_mask, candidates_mask, names
  )
  if not temperature > 0:
    raise ValueError(
      f'`temperature` must be positive. Received: temperature={temperature}'
    )
  if denominator not in DENOMINATORS:
    raise ValueError(
      f'`denominator` must be one of {", ".join(DENOMINATORS)}. '
      f'Received: denominator={denominator!r}'
    )
  if chunk_size is not None and not chunk_size >= 1:
    raise ValueError(
      '`chunk_size` must be a positive integer, or None for no chunks. '
      f'Received: chunk_size={chunk_size}'
    )
  num_rows = tensor_utils.shape_list(anchor)[0]
  first_row = distribution.first_row(num_rows)
  local = _Side(
    first_row + tf.range(num_rows),
    _unit(anchor, anchor_mask),
    _unit(candidates, candidates_mask),
    anchor_mask,
    candidates_mask,
  )
  everyone = _Side(
    tf.range(num_rows * distribution.num_replicas()),
    *distribution.cross_replica_concat(local[1:]),
  )
  if chunk_size is None:
    sums = _sums(local, everyone, temperature, denominator)
  else:
    sums = _chunked_sums(local, everyone, temperature, denominator, chunk_size)
  loss, forward, backward = tf.unstack(sums)
  num_pairs = _count(_valid_pairs(local), loss.dtype)
  num_global_pairs = tf.maximum(_count(_valid_pairs(everyone), loss.dtype), 1)
  num_global_candidates = tf.maximum(
    _count(_valid_candidates(everyone), loss.dtype), 1
  )
  return Shares(
    loss / num_global_pairs,
    num_pairs,
    forward / num_global_pairs,
    backward / num_global_candidates,
  )


def _checked(anchor, candidates, anchor_mask, candidates_mask, names):
  """The inputs as tensors of shapes that belong together."""
  anchor = tf.convert_to_tensor(anchor)
  candidates = tf.convert_to_tensor(candidates)
  anchor_mask = _mask(anchor_mask, anchor)
  candidates_mask = _mask(candidates_mask, candidates)
  if (
    anchor.shape.rank != 2
    or candidates.shape.rank != 3
    or not anchor.shape[:1].is_compatible_with(candidates.shape[:1])
    or not anchor.shape[1:].is_compatible_with(candidates.shape[2:])
  ):
    raise ValueError(
      f'`{names[0]}` and `{names[1]}` must have the same rows and width. '
      f'Received: {names[0]}.shape={anchor.shape}, '
      f'{names[1]}.shape={candidates.shape}'
    )
  for name, mask, x in (
    (names[0], anchor_mask, anchor),
    (names[1], candidates_mask, candidates),
  ):
    if not mask.shape.is_compatible_with(x.shape[:-1]):
      raise ValueError(
        f'`{name}_mask` must be shaped like `{name}` without its last axis, '
        f'{x.shape[:-1]}. Received: {name}_mask.shape={mask.shape}'
      )
  return anchor, candidates, anchor_mask, candidates_mask


def _mask(mask, x):
  if mask is None:
    return tf.ones(tensor_utils.shape_list(x)[:-1], tf.bool)
  return tf.cast(mask, tf.bool)


def _unit(x, mask):
  """Unit rows of `x`; zeros, with zero gradient, where `mask` is false."""
  x = tf.cast(x, tensor_utils.accumulation_dtype(x.dtype))
  x = tf.where(mask[..., tf.newaxis], x, tf.zeros([], x.dtype))
  return tf.math.l2_normalize(x, axis=-1)


def _valid_candidates(side):
  return side.candidates_mask & side.anchor_mask[:, tf.newaxis]  # (R, C)


def _valid_pairs(side):
  return tf.reduce_any(_valid_candidates(side), -1)  # (R,)


def _count(mask, dtype):
  return tf.reduce_sum(tf.cast(mask, dtype))


def _sums(local, everyone, temperature, denominator):
  """Sums over the local rows: (3,), the loss, forward and backward hits."""
  # R local rows, B clips, C candidates; own marks each row's own clip.
  own = local.row[:, tf.newaxis] == everyone.row[tf.newaxis]  # (R, B)
  forward = tf.einsum('rd,bcd->rbc', local.anchor, everyone.candidates)
  forward /= temperature  # (R, B, C)
  forward_own = own[:, :, tf.newaxis]
  forward_mask = (
    local.anchor_mask[:, tf.newaxis, tf.newaxis]
    & everyone.candidates_mask[tf.newaxis]
  )
  backward = tf.einsum('rcd,bd->rcb', local.candidates, everyone.anchor)
  backward /= temperature  # (R, C, B)
  backward_own = own[:, tf.newaxis]
  backward_mask = (
    local.candidates_mask[:, :, tf.newaxis]
    & everyone.anchor_mask[tf.newaxis, tf.newaxis]
  )

  positives = tf.einsum('rd,rcd->rc', local.anchor, local.candidates)
  positives = _pool(positives / temperature, _valid_candidates(local))
  numerator = tf.reduce_logsumexp(positives, -1)  # (R,)
  forward_sum = tf.reduce_logsumexp(_pool(forward, forward_mask), [1, 2])
  in_sum = backward_mask
  if denominator == 'joint_once':
    in_sum &= ~backward_own
  backward_sum = tf.reduce_logsumexp(_pool(backward, in_sum), [1, 2])
  if denominator == 'per_direction':
    losses = forward_sum + backward_sum - 2 * numerator
  else:
    both = tf.stack([forward_sum, backward_sum], -1)
    losses = tf.reduce_logsumexp(both, -1) - numerator
  # All is finite where a pair is missing, so the selection is exact.
  losses = tf.where(_valid_pairs(local), losses, tf.zeros([], losses.dtype))

  margin = _TIE / temperature
  own_forward, other_forward = _best(forward, forward_mask, forward_own, [1, 2])
  hits = own_forward > other_forward + margin
  forward_hits = _count(hits & _valid_pairs(local), losses.dtype)
  own_backward, other_backward = _best(
    backward, backward_mask, backward_own, [2]
  )
  hits = own_backward > other_backward + margin  # (R, C)
  backward_hits = _count(hits & _valid_candidates(local), losses.dtype)
  return tf.stack([tf.reduce_sum(losses), forward_hits, backward_hits])


def _pool(similarities, mask):
  """The similarities in the pool, `_ABSENT` elsewhere."""
  return tf.where(mask, similarities, tf.cast(_ABSENT, similarities.dtype))


def _best(similarities, mask, own, axes):
  """The greatest similarity of the row's own clip and of all others."""
  similarities = tf.stop_gradient(similarities)
  return (
    tf.reduce_max(_pool(similarities, mask & own), axes),
    tf.reduce_max(_pool(similarities, mask & ~own), axes),
  )


def _chunked_sums(local, everyone, temperature, denominator, chunk_size):
  """`_sums`, a chunk of local rows at a time, computed anew for the gradient.

  Besides the embeddings it holds chunk_size * B * C similarities.
  """
  num_rows = tensor_utils.shape_list(local.anchor)[0]
  num_chunks = -(-num_rows // chunk_size)
  # Rows that are added have no embeddings: they change no sum.
  chunks = _Side(
    *(_in_chunks(x, num_rows, num_chunks, chunk_size) for x in local)
  )

  def chunk_sums(i, anchor, candidates, all_anchor, all_candidates):
    rows = _Side(
      chunks.row[i],
      anchor[i],
      candidates[i],
      chunks.anchor_mask[i],
      chunks.candidates_mask[i],
    )
    columns = everyone._replace(anchor=all_anchor, candidates=all_candidates)
    return _sums(rows, columns, temperature, denominator)

  def is_inside(i, *_):
    return i < num_chunks

  @tf.custom_gradient
  def sums(*embeddings):

    def add(i, total):
      return i + 1, total + chunk_sums(i, *embeddings)

    total = tf.zeros([3], local.anchor.dtype)
    _, total = tf.while_loop(is_inside, add, (0, total), parallel_iterations=1)

    def gradient(upstream):

      def add_gradients(i, *gradients):
        with tf.GradientTape() as tape:
          tape.watch(embeddings)
          total = chunk_sums(i, *embeddings)
        return (i + 1,) + tuple(
          old + new
          for old, new in zip(
            gradients,
            tape.gradient(total, embeddings, output_gradients=upstream),
          )
        )

      zeros = tuple(tf.zeros_like(x) for x in embeddings)
      return tf.while_loop(
        is_inside, add_gradients, (0, *zeros), parallel_iterations=1
      )[1:]

    return total, gradient

  return sums(
    chunks.anchor, chunks.candidates, everyone.anchor, everyone.candidates
  )


def _in_chunks(x, num_rows, num_chunks, chunk_size):
  """(R, ...) as (num_chunks, chunk_size, ...), zeros or False at the end."""
  shape = tensor_utils.shape_list(x)
  padding = num_chunks * chunk_size - num_rows
  padding = tf.zeros([padding, *shape[1:]], x.dtype)
  return tf.reshape(
    tf.concat([x, padding], 0), [num_chunks, chunk_size, *shape[1:]]
  )
