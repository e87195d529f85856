"""NCE between the places of a video and the sound: where does it sound?

The similarity of a clip and a sound is that of the best place of the clip, so
that the loss of the batch, which names no place, makes the places that show
what sounds similar to the sound. The place is chosen as in EZ-VSL (Mo and
Morgado 2022), per time step as in DenseAV (Hamilton et al. 2024).
"""

import functools

import tensorflow as tf

from vatt_tf.core import collectives, tensor_utils
from vatt_tf.losses import contrastive, pairs

POOLS = ('max', 'log_sum_exp')


def local_contrastive_loss(
  places: tf.Tensor,
  sound: tf.Tensor,
  places_mask: tf.Tensor | None = None,
  video_mask: tf.Tensor | None = None,
  sound_mask: tf.Tensor | None = None,
  temperature: float | tf.Tensor = 0.07,
  denominator: str = 'joint',
  pool: str = 'max',
  chunk_size: int | None = None,
) -> pairs.LossTerms:
  """Computes NCE with the similarities of clips and sounds by their places.

  With c(n, j) the cosine of place n of clip i and sound j, and τ the
  temperature, the similarity of clip i and sound j, divided by τ, is the mean
  over the time steps of:

  - `max`: max_n c(n, j) / τ over the places of the time step;
  - `log_sum_exp`: log sum_n e^(c(n, j) / τ), which gives all places a gradient.

  Time steps without any place (of DropToken) are left out. With these
  similarities the loss is that of `contrastive.contrastive_loss`, with the same
  masks, negatives and denominators.

  In a replica context, the arguments are this replica's rows and the results
  its shares. Sounds and similarities are gathered from all replicas, the places
  are not.

  Args:
    places: (B, t, h, w, D) float: embeddings of places, not normalised.
    sound: (B, D) float: embeddings of the sounds, not normalised.
    places_mask: (B, t, h, w) bool: whether the place exists. None means all.
    video_mask: (B,) bool: whether the clip has video. None means all.
    sound_mask: (B,) bool: whether the clip has sound. None means all.
    temperature: Positive float, or a positive scalar tensor, which gets its
      gradient.
    denominator: Form of the loss, one of `contrastive.DENOMINATORS`.
    pool: One of `POOLS`.
    chunk_size: Number of sounds whose similarities to all local places are in
      memory at a time. None means all.

  Returns:
    `pairs.LossTerms`; the video is the anchor.

  Raises:
    ValueError: An argument is unknown or out of its range, or a shape does not
      fit.

  Example:
    >>> places = tf.reshape(tf.eye(2), [2, 1, 1, 1, 2])
    >>> local_contrastive_loss(
    ...   places, tf.eye(2), temperature=0.1).loss.numpy().round(4)
    0.6932
  """
  contrastive.check_denominator(denominator)
  if pool not in POOLS:
    raise ValueError(
      f'`pool` must be one of {", ".join(POOLS)}. Received: pool={pool!r}'
    )
  if chunk_size is not None and not chunk_size >= 1:
    raise ValueError(
      '`chunk_size` must be a positive integer, or None for no chunks. '
      f'Received: chunk_size={chunk_size}'
    )
  places, sound = tf.convert_to_tensor(places), tf.convert_to_tensor(sound)
  if (
    places.shape.rank != 5
    or sound.shape.rank != 2
    or not places.shape[:1].is_compatible_with(sound.shape[:1])
    or not places.shape[4:].is_compatible_with(sound.shape[1:])
  ):
    raise ValueError(
      '`places` must be (B, t, h, w, D) and `sound` (B, D). Received: '
      f'places.shape={places.shape}, sound.shape={sound.shape}'
    )
  num_rows, steps, height, width, depth = tensor_utils.shape_list(places)
  masks = []
  for mask, shape in (
    (places_mask, [num_rows, steps, height, width]),
    (video_mask, [num_rows]),
    (sound_mask, [num_rows]),
  ):
    masks.append(
      tf.ones(shape, tf.bool) if mask is None else tf.cast(mask, tf.bool)
    )
  places_mask, video_mask, sound_mask = masks
  places_mask &= tf.reshape(video_mask, [-1, 1, 1, 1])
  places = tf.reshape(
    pairs.unit(places, places_mask), [num_rows, steps, height * width, depth]
  )
  places_mask = tf.reshape(places_mask, [num_rows, steps, height * width])

  row = collectives.first_row(num_rows) + tf.range(num_rows)
  sound = pairs.unit(sound, sound_mask)
  local = pairs.Rows(
    row, None, sound[:, tf.newaxis], video_mask, sound_mask[:, tf.newaxis]
  )
  everyone = pairs.Rows(
    tf.range(num_rows * collectives.num_replicas()),
    None,
    *collectives.cross_replica_concat(local[2:]),
  )
  (temperature,) = pairs.as_scalars({'temperature': temperature}, sound.dtype)
  # The places' cosines divided by τ are pooled, since τ matters inside the sum.
  similarities = _pooled_similarities(
    places / temperature,
    places_mask,
    everyone.candidates[:, 0],
    pool,
    chunk_size,
  )  # (R, B)
  own = pairs.own_mask(local, everyone)  # (R, B)
  of_all = collectives.cross_replica_concat(similarities)  # (B, B)
  of_own_sounds = tf.gather(of_all, row, axis=1)  # (B, R)
  forward = pairs.Similarities(
    similarities[:, :, tf.newaxis],
    video_mask[:, tf.newaxis, tf.newaxis]
    & everyone.candidates_mask[tf.newaxis],
    own[:, :, tf.newaxis],
  )
  backward = pairs.Similarities(
    tf.transpose(of_own_sounds)[:, tf.newaxis],
    sound_mask[:, tf.newaxis, tf.newaxis]
    & everyone.anchor_mask[tf.newaxis, tf.newaxis],
    own[:, tf.newaxis],
  )
  positives = tf.linalg.diag_part(tf.gather(similarities, row, axis=1))
  positives = pairs.pool(
    positives[:, tf.newaxis], pairs.valid_candidates(local)
  )  # (R, 1)
  totals = contrastive.sums_of_similarities(
    denominator, local, positives, forward, backward, pairs.TIE / temperature
  )
  return pairs.mean_terms(totals, local, everyone, pairs.valid_pairs)


def _pooled_similarities(places, mask, sounds, pool, chunk_size):
  """The similarities (R, B) of local clips to sounds.

  Args:
    places: (R, T, P, D): unit embeddings, divided by the temperature.
    mask: (R, T, P) bool.
    sounds: (B, D): unit embeddings of all replicas' sounds.
    pool: See `local_contrastive_loss`.
    chunk_size: See `local_contrastive_loss`.
  """
  of_sounds = functools.partial(_of_sounds, mask, pool)
  num_sounds, depth = tensor_utils.shape_list(sounds)
  if chunk_size is None or chunk_size >= num_sounds:
    return of_sounds(places, sounds)
  # The backward pass computes a chunk again, instead of keeping its cosines.
  of_chunk = tf.recompute_grad(of_sounds)
  num_chunks = -(-num_sounds // chunk_size)
  padding = num_chunks * chunk_size - num_sounds
  chunks = tf.reshape(
    tf.pad(sounds, [[0, padding], [0, 0]]), [num_chunks, chunk_size, depth]
  )
  columns = tf.map_fn(
    lambda chunk: tf.transpose(of_chunk(places, chunk)),
    chunks,
    parallel_iterations=1,
  )  # (chunks, chunk, R)
  num_rows = tensor_utils.shape_list(places)[0]
  return tf.transpose(
    tf.reshape(columns, [num_chunks * chunk_size, num_rows])[:num_sounds]
  )


def _of_sounds(mask, pool, places, sounds):
  """The similarities (R, C) of local clips to C sounds."""
  values = tf.einsum('rtpd,cd->rctp', places, sounds)
  values = pairs.pool(values, mask[:, tf.newaxis])
  if pool == 'max':
    values = tf.reduce_max(values, -1)  # (R, C, T)
  else:
    values = tf.reduce_logsumexp(values, -1)
  exists = tf.reduce_any(mask, -1)  # (R, T)
  values = tf.where(exists[:, tf.newaxis], values, tf.zeros([], values.dtype))
  count = tf.reduce_sum(tf.cast(exists, values.dtype), -1)  # (R,)
  return tf.reduce_sum(values, -1) / tf.maximum(count, 1)[:, tf.newaxis]
