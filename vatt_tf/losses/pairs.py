"""All pairs of the global batch, for the losses between two modalities.

An anchor is the embedding of one clip (video); its candidates are the C
embeddings of the same clip in the other modality (C = 1 for sound, C captions
for text).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from vatt_tf.core import collectives, tensor_utils

# Cosines closer than this are a tie, because float32 products of equal rows
# differ by as much.
TIE = 1e-6
# The similarity of pairs outside the pool: its exponential is 0, and
# differences of two such values are finite. It is used only in float32 or
# float64.
_ABSENT = -1e30


class LossTerms(NamedTuple):
  """This replica's shares, whose sums over replicas are the global values.

  `collectives.all_reduce_sum(terms)` is that sum. All are scalars, float32 (or
  float64 for float64 embeddings).

  Attributes:
    loss: Mean loss over the global batch.
    num_pairs: Number of clips with an anchor and at least one candidate.
    forward_accuracy: Share of the valid anchors whose clip has a candidate that
      is nearer than all candidates of other clips; a tie is a miss.
    backward_accuracy: Share of the valid candidates whose clip's anchor is
      nearer than all other anchors.
  """

  loss: tf.Tensor
  num_pairs: tf.Tensor
  forward_accuracy: tf.Tensor
  backward_accuracy: tf.Tensor


class Rows(NamedTuple):
  """Unit embeddings and masks of R rows of the batch."""

  row: tf.Tensor  # (R,) int32, number in the global batch
  anchor: tf.Tensor  # (R, D)
  candidates: tf.Tensor  # (R, C, D)
  anchor_mask: tf.Tensor  # (R,) bool
  candidates_mask: tf.Tensor  # (R, C) bool


class Similarities(NamedTuple):
  """Similarities of R local rows to B clips of C candidates, with masks."""

  values: tf.Tensor  # (R, B, C) forward, (R, C, B) backward
  mask: tf.Tensor  # bool, like values: both embeddings exist
  own: tf.Tensor  # bool, broadcasts to values: both belong to one clip


def loss_terms(
  anchor: tf.Tensor,
  candidates: tf.Tensor,
  anchor_mask: tf.Tensor | None,
  candidates_mask: tf.Tensor | None,
  sums: Callable[..., tf.Tensor],
  scalars: Mapping[str, tf.Tensor | float],
  counted: Callable[[Rows], tf.Tensor],
  chunk_size: int | None,
) -> LossTerms:
  """Computes this replica's share of a loss over the pairs of the global batch.

  Args:
    anchor: (B, D) float: anchors of this replica's rows, not normalised.
    candidates: (B, D) or (B, C, D) float: candidates of the same rows.
    anchor_mask: (B,) bool: whether the anchor exists. None means all.
    candidates_mask: (B,) or (B, C) bool: whether the candidate exists. None
      means all.
    sums: Function (local, everyone, *scalars) of two `Rows`s that returns the
      loss, the forward and the backward hits (see `num_hits`), each summed over
      the local rows, as one tensor (3,). Rows without embeddings must not
      change it.
    scalars: Floats or scalar tensors by name, which `sums` takes. They get
      gradients; nothing else that `sums` uses does.
    counted: Function from `Rows` to (R,) bool, true for the rows over which the
      loss is the mean.
    chunk_size: Number of rows whose similarities are in memory at a time, or
      None.

  Returns:
    `LossTerms`, float32 (float64 for float64 embeddings).

  Raises:
    ValueError: An argument is out of its range, or a shape does not fit.
  """
  anchor, candidates, anchor_mask, candidates_mask = _checked(
    anchor, candidates, anchor_mask, candidates_mask
  )
  if chunk_size is not None and not chunk_size >= 1:
    raise ValueError(
      '`chunk_size` must be a positive integer, or None for no chunks. '
      f'Received: chunk_size={chunk_size}'
    )
  num_rows = tensor_utils.shape_list(anchor)[0]
  first_row = collectives.first_row(num_rows)
  local = Rows(
    first_row + tf.range(num_rows),
    unit(anchor, anchor_mask),
    unit(candidates, candidates_mask),
    anchor_mask,
    candidates_mask,
  )
  everyone = Rows(
    tf.range(num_rows * collectives.num_replicas()),
    *collectives.cross_replica_concat(local[1:]),
  )
  scalars = as_scalars(scalars, local.anchor.dtype)
  if chunk_size is None:
    totals = sums(local, everyone, *scalars)
  else:
    totals = _chunked_sums(sums, local, everyone, scalars, chunk_size)
  return mean_terms(totals, local, everyone, counted)


def mean_terms(
  totals: tf.Tensor,
  local: Rows,
  everyone: Rows,
  counted: Callable[[Rows], tf.Tensor],
) -> LossTerms:
  """Divides sums over the local rows by the numbers in the global batch.

  Args:
    totals: (3,): the loss, the forward and the backward hits.
    local: The R local rows, of which only the masks matter.
    everyone: The B rows of the global batch, likewise.
    counted: See `loss_terms`.

  Returns:
    `LossTerms`.
  """
  loss, forward, backward = tf.unstack(totals)
  num_global_pairs = count(valid_pairs(everyone), loss.dtype)
  num_global_candidates = count(valid_candidates(everyone), loss.dtype)
  return LossTerms(
    loss / tf.maximum(count(counted(everyone), loss.dtype), 1),
    count(valid_pairs(local), loss.dtype),
    forward / tf.maximum(num_global_pairs, 1),
    backward / tf.maximum(num_global_candidates, 1),
  )


def _checked(anchor, candidates, anchor_mask, candidates_mask):
  """The inputs as tensors, whose shapes fit together."""
  anchor = tf.convert_to_tensor(anchor)
  candidates = tf.convert_to_tensor(candidates)
  anchor_mask = _mask(anchor_mask, anchor)
  candidates_mask = _mask(candidates_mask, candidates)
  if (
    anchor.shape.rank != 2
    or candidates.shape.rank not in (2, 3)
    or not anchor.shape[:1].is_compatible_with(candidates.shape[:1])
    or not anchor.shape[1:].is_compatible_with(candidates.shape[-1:])
  ):
    raise ValueError(
      '`anchor` and `candidates` must have the same rows and width. '
      f'Received: anchor.shape={anchor.shape}, '
      f'candidates.shape={candidates.shape}'
    )
  for name, mask, x in (
    ('anchor', anchor_mask, anchor),
    ('candidates', candidates_mask, candidates),
  ):
    if not mask.shape.is_compatible_with(x.shape[:-1]):
      raise ValueError(
        f'`{name}_mask` must be shaped like `{name}` without its last axis, '
        f'{x.shape[:-1]}. Received: {name}_mask.shape={mask.shape}'
      )
  if candidates.shape.rank == 2:  # one candidate per clip
    candidates = candidates[:, tf.newaxis]  # (B, 1, D)
    candidates_mask = candidates_mask[:, tf.newaxis]  # (B, 1)
  return anchor, candidates, anchor_mask, candidates_mask


def _mask(mask, x):
  if mask is None:
    return tf.ones(tensor_utils.shape_list(x)[:-1], tf.bool)
  return tf.cast(mask, tf.bool)


def unit(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  """Normalises embeddings, at least in float32.

  Args:
    x: (..., D) float.
    mask: (...) bool.

  Returns:
    Unit rows of `x`; zeros, with zero gradient, where `mask` is false.
  """
  x = tf.cast(x, tensor_utils.accumulation_dtype(x.dtype))
  x = tf.where(mask[..., tf.newaxis], x, tf.zeros([], x.dtype))
  return tf.math.l2_normalize(x, axis=-1)


def as_scalars(
  scalars: Mapping[str, tf.Tensor | float], dtype: tf.DType
) -> list[tf.Tensor]:
  """Returns the scalars as tensors of `dtype`.

  Raises:
    ValueError: One is not a scalar; the message has its name.
  """
  tensors = []
  for name, value in scalars.items():
    if not tf.is_tensor(value):
      value = tf.convert_to_tensor(value, dtype)
    if value.shape.rank != 0:
      raise ValueError(
        f'`{name}` must be a number or a scalar tensor. '
        f'Received: {name}.shape={value.shape}'
      )
    tensors.append(tf.cast(value, dtype))
  return tensors


def own_similarities(local: Rows) -> tf.Tensor:
  """Returns the cosines (R, C) of local anchors and their own candidates.

  Where one of the two does not exist, the value is as in `pool`.
  """
  values = tf.einsum('rd,rcd->rc', local.anchor, local.candidates)
  return pool(values, valid_candidates(local))


def forward_similarities(local: Rows, everyone: Rows) -> Similarities:
  """Returns the cosines of the R local anchors and all candidates.

  Args:
    local: The R local rows.
    everyone: The B rows of the global batch.

  Returns:
    `Similarities` (R, B, C).
  """
  return Similarities(
    tf.einsum('rd,bcd->rbc', local.anchor, everyone.candidates),
    local.anchor_mask[:, tf.newaxis, tf.newaxis]
    & everyone.candidates_mask[tf.newaxis],
    own_mask(local, everyone)[:, :, tf.newaxis],
  )


def backward_similarities(local: Rows, everyone: Rows) -> Similarities:
  """Returns the cosines of the R local rows' candidates and all anchors.

  Args:
    local: The R local rows.
    everyone: The B rows of the global batch.

  Returns:
    `Similarities` (R, C, B).
  """
  return Similarities(
    tf.einsum('rcd,bd->rcb', local.candidates, everyone.anchor),
    local.candidates_mask[:, :, tf.newaxis]
    & everyone.anchor_mask[tf.newaxis, tf.newaxis],
    own_mask(local, everyone)[:, tf.newaxis],
  )


def num_hits(
  local: Rows,
  positives: tf.Tensor,
  forward: Similarities,
  backward: Similarities,
  margin: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Counts the local rows whose own clip is the nearest, without gradient.

  Args:
    local: The R local rows.
    positives: (R, C) float: `own_similarities` times any positive number.
    forward: `Similarities` (R, B, C) times the same number.
    backward: `Similarities` (R, C, B) times the same number.
    margin: `TIE` times the same number.

  Returns:
    (forward, backward): scalar numbers of the valid anchors whose clip has a
    candidate that is nearer than all others, and of the valid candidates whose
    clip's anchor is nearer than all others.
  """
  positives = tf.stop_gradient(positives)
  best_negative = _best_negative(forward, [1, 2])  # (R,)
  forward_hits = tf.reduce_max(positives, -1) > best_negative + margin
  best_negative = _best_negative(backward, [2])  # (R, C)
  backward_hits = positives > best_negative + margin
  return (
    count(forward_hits & valid_pairs(local), margin.dtype),
    count(backward_hits & valid_candidates(local), margin.dtype),
  )


def pool(similarities: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  """Returns similarities, with a value of exponential 0 outside `mask`."""
  return tf.where(mask, similarities, tf.cast(_ABSENT, similarities.dtype))


def valid_candidates(side: Rows) -> tf.Tensor:
  """Returns whether candidate and anchor of a clip exist: (R, C) bool."""
  return side.candidates_mask & side.anchor_mask[:, tf.newaxis]


def valid_pairs(side: Rows) -> tf.Tensor:
  """Returns whether anchor and a candidate of a clip exist: (R,) bool."""
  return tf.reduce_any(valid_candidates(side), -1)


def count(mask: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """Returns the number of true elements, a scalar of `dtype`."""
  return tf.reduce_sum(tf.cast(mask, dtype))


def own_mask(local: Rows, everyone: Rows) -> tf.Tensor:
  """Returns a mask of each local row's own clip: (R, B) bool."""
  return local.row[:, tf.newaxis] == everyone.row[tf.newaxis]


def _best_negative(similarities, axes):
  """The largest similarity of a row to other clips."""
  values = tf.stop_gradient(similarities.values)
  return tf.reduce_max(
    pool(values, similarities.mask & ~similarities.own), axes
  )


def _chunked_sums(sums, local, everyone, scalars, chunk_size):
  """Computes `sums` and their gradient, one chunk of local rows at a time.

  The gradient of a chunk is computed right after its sums, because the backward
  pass would have to compute the similarities again. Besides embeddings and
  their gradients, chunk_size * B * C similarities are in memory.
  """
  num_rows = tensor_utils.shape_list(local.anchor)[0]
  num_chunks = -(-num_rows // chunk_size)
  # Padding rows have no embeddings, so they do not change the sums.
  chunks = Rows(
    *(_in_chunks(x, num_rows, num_chunks, chunk_size) for x in local)
  )

  @tf.custom_gradient
  def all_sums(anchor, candidates, *shared):

    def add(i, total, own_gradients, shared_gradients):
      own = (anchor[i], candidates[i])
      with tf.GradientTape() as tape:
        tape.watch([own, shared])
        chunk_sums = sums(
          Rows(
            chunks.row[i],
            *own,
            chunks.anchor_mask[i],
            chunks.candidates_mask[i],
          ),
          everyone._replace(anchor=shared[0], candidates=shared[1]),
          *shared[2:],
        )
        loss = chunk_sums[0]  # the hits have no gradient
      d_own, d_shared = tape.gradient(
        loss,
        [own, shared],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
      )
      return (
        i + 1,
        total + chunk_sums,
        tuple(
          array.write(i, gradient)
          for array, gradient in zip(own_gradients, d_own)
        ),
        tuple(old + new for old, new in zip(shared_gradients, d_shared)),
      )

    _, total, own_gradients, shared_gradients = tf.while_loop(
      lambda i, *_: i < num_chunks,
      add,
      (
        0,
        tf.zeros([3], anchor.dtype),
        tuple(
          tf.TensorArray(x.dtype, num_chunks, element_shape=x.shape[1:])
          for x in (anchor, candidates)
        ),
        tuple(tf.zeros_like(x) for x in shared),
      ),
      parallel_iterations=1,
    )
    gradients = [array.stack() for array in own_gradients]
    gradients += shared_gradients

    def gradient(upstream):
      return [upstream[0] * x for x in gradients]

    return total, gradient

  return all_sums(
    chunks.anchor,
    chunks.candidates,
    everyone.anchor,
    everyone.candidates,
    *scalars,
  )


def _in_chunks(x, num_rows, num_chunks, chunk_size):
  """Pads (R, ...) with zeros or False to (num_chunks, chunk_size, ...)."""
  shape = tensor_utils.shape_list(x)
  padding = num_chunks * chunk_size - num_rows
  padding = tf.zeros([padding, *shape[1:]], x.dtype)
  return tf.reshape(
    tf.concat([x, padding], 0), [num_chunks, chunk_size, *shape[1:]]
  )
