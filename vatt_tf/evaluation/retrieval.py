"""Retrieval between video, sound and text: R@1/5/10, median and mean rank.

Similarity is the cosine. A query's rank is 1 + the number of items of the pool
that do not belong to it and are at least as similar as the best one that does:
a tie counts against the query, so that a constant embedding comes last instead
of first. Every metric is reported with its pool size and its chance level.

What is retrieved:

- A clip is one row. Rows with one id are clips of one video; they are combined
  into one item (`COMBINATIONS`), so the pool holds videos.
- Every caption is an item. A video with several captions yields several text
  queries; where text is retrieved, a video ranks as its best caption does.
  Equal captions of one video count once.
- A row without a modality yields no item for its pool, and is counted. A query
  whose video has no item in the pool is left out, and counted. Items that match
  no query stay in the pool.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any, NamedTuple

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import command_line, modalities
from vatt_tf.core import feature_names as names
from vatt_tf.evaluation import outputs

# How the clips of a video become one vector: the normalised mean of the
# embeddings; the normalised mean of the normalised embeddings; or a vector
# whose similarities are the means over the clips' similarities.
COMBINATIONS = ('mean_embedding', 'mean_normalized', 'mean_similarity')
RECALL_RANKS = (1, 5, 10)
_RANK_FIGURES = ('median_rank', 'mean_rank')  # of `format_table`
# Cosines closer than this are a tie: float32 products of equal rows differ by
# as much.
TIE = 1e-6

_MAX_SIMILARITIES = 2**25  # held at a time: 128 MiB


def _directions():
  """Query modality and embedding, pool modality and embedding by direction."""
  directions = {}
  for name in (
    modalities.VIDEO_TEXT,
    modalities.VIDEO_AUDIO,
    modalities.AUDIO_TEXT,
  ):
    pair = modalities.PAIRS[name]
    first = (pair.first, pair.first_embedding)
    second = (pair.second, pair.second_embedding)
    directions[f'{pair.second}_to_{pair.first}'] = (*second, *first)
    directions[f'{pair.first}_to_{pair.second}'] = (*first, *second)
  return directions


_DIRECTIONS = _directions()
_MASKS = {name: row.mask for name, row in modalities.MODALITIES.items()}
_EMBEDDINGS = (
  names.VIDEO_VA,
  names.AUDIO_VA,
  names.VIDEO_VT,
  names.TEXT_VT,
  names.AUDIO_VT,
)


def rank_of_matches(
  similarity: np.ndarray, is_match: np.ndarray, tie: float = TIE
) -> np.ndarray:
  """Returns the rank of each query's best match, where ties rank worst.

  Args:
    similarity: (Q, P) float: similarity of query and item of the pool.
    is_match: (Q, P) bool: whether the item belongs to the query; true for at
      least one item in each row.
    tie: Similarities closer than this are equal.

  Returns:
    (Q,) int64 array, from 1: one more than the number of items that do not
    belong to the query and are at least as similar as the best one that does.

  Raises:
    ValueError: A similarity is not finite, a query has no match, or the shapes
      differ.
  """
  similarity = np.asarray(similarity)
  is_match = np.asarray(is_match, bool)
  if similarity.ndim != 2 or similarity.shape != is_match.shape:
    raise ValueError(
      '`similarity` and `is_match` must have one shape, (Q, P). Received: '
      f'similarity.shape={similarity.shape}, is_match.shape={is_match.shape}'
    )
  if not np.isfinite(similarity).all():
    raise ValueError(
      '`similarity` must be finite. Received: '
      f'{np.sum(~np.isfinite(similarity))} of {similarity.size} are not. '
      'Look for NaN in the embeddings.'
    )
  if not is_match.any(1).all():
    raise ValueError(
      '`is_match` must have a match in each row: leave out queries without '
      f'one. Received: none in row {np.argmin(is_match.any(1))}'
    )
  best = np.max(similarity, axis=1, where=is_match, initial=-np.inf)
  ahead = (similarity >= best[:, np.newaxis] - tie) & ~is_match
  return 1 + np.sum(ahead, axis=1)


def embedding_ranks(
  queries: np.ndarray,
  pool: np.ndarray,
  query_ids: np.ndarray,
  pool_ids: np.ndarray,
  max_similarities: int = _MAX_SIMILARITIES,
) -> np.ndarray:
  """Returns `rank_of_matches` from embeddings, for pools of any size.

  Args:
    queries: (Q, D) float: embeddings of the queries.
    pool: (P, D) float: embeddings of the items. The similarity is the dot
      product.
    query_ids: (Q,) ids of the queries, numbers or strings.
    pool_ids: (P,) ids of the items; an item with a query's id is its match.
    max_similarities: Number of similarities to hold at a time.

  Returns:
    (Q,) int64 array of ranks from 1.

  Raises:
    ValueError: `rank_of_matches` raises it.
  """
  chunk_size = max(1, max_similarities // max(1, len(pool)))
  ranks = [np.zeros([0], np.int64)]
  for start in range(0, len(queries), chunk_size):
    chunk = slice(start, start + chunk_size)
    ranks.append(
      rank_of_matches(
        queries[chunk] @ pool.T,
        query_ids[chunk, np.newaxis] == pool_ids[np.newaxis],
      )
    )
  return np.concatenate(ranks)


def summarize_ranks(
  ranks: np.ndarray, num_matches: np.ndarray, pool_size: int
) -> dict[str, float]:
  """Returns recalls and mean ranks, each with its chance level.

  Args:
    ranks: (Q,) integer: ranks from 1, at least one.
    num_matches: (Q,) integer: number of items that belong to each query.
    pool_size: Number of items in the pool.

  Returns:
    A dict of `R@1`, `R@5`, `R@10` (shares, 0 to 1), `median_rank`,
    `mean_rank`, the same with `chance_` in front, `num_queries` and
    `pool_size`. Chance is a random order of the pool.
  """
  ranks = np.asarray(ranks)
  metrics = {'num_queries': len(ranks), 'pool_size': int(pool_size)}
  matches, counts = np.unique(num_matches, return_counts=True)
  weights = counts / counts.sum()

  def chance(rank):
    shares = [_chance_recall(rank, int(m), pool_size) for m in matches]
    return float(np.dot(weights, shares))

  for rank in RECALL_RANKS:
    metrics[f'R@{rank}'] = float(np.mean(ranks <= rank))
    metrics[f'chance_R@{rank}'] = chance(rank)
  metrics['median_rank'] = float(np.median(ranks))
  metrics['chance_median_rank'] = _chance_median(chance, pool_size)
  metrics['mean_rank'] = float(np.mean(ranks))
  metrics['chance_mean_rank'] = float(
    np.dot(weights, (pool_size + 1) / (matches + 1))
  )
  return metrics


def _chance_recall(rank, num_matches, pool_size):
  """Probability that one of the matches is among the first `rank` of a random
  order: 1 - C(P - m, rank) / C(P, rank)."""
  if rank > pool_size - num_matches:
    return 1.0
  counts = np.arange(pool_size - rank + 1, pool_size + 1, dtype=np.float64)
  if num_matches < rank:  # the same product with the roles exchanged
    counts = np.arange(
      pool_size - num_matches + 1, pool_size + 1, dtype=np.float64
    )
    return 1 - math.exp(np.sum(np.log1p(-rank / counts)))
  return 1 - math.exp(np.sum(np.log1p(-num_matches / counts)))


def _chance_median(chance, pool_size):
  """The median of the rank whose distribution function is `chance`."""

  def least(share):
    """The least rank that holds at least `share` of the queries."""
    low, high = 1, pool_size
    while low < high:
      middle = (low + high) // 2
      if chance(middle) >= share:
        high = middle
      else:
        low = middle + 1
    return low

  # Where a rank holds half exactly, the median lies between it and the next.
  return (least(0.5 - 1e-9) + least(0.5 + 1e-9)) / 2


class _Items(NamedTuple):
  """The items of one modality."""

  embeddings: np.ndarray  # (P, D), such that dot products are similarities
  ids: np.ndarray  # (P,) int64
  num_left_out: int  # rows without the modality


def retrieval_metrics(
  embeddings: Mapping[str, np.ndarray], combination: str = 'mean_embedding'
) -> dict[str, Any]:
  """Measures retrieval in every direction that the embeddings allow.

  Args:
    embeddings: Arrays of N rows, as `embed_dataset` returns them: any of
      `video_va`, `audio_va`, `video_vt`, `audio_vt` (N, D) and `text_vt` (N, C,
      D), not normalised; optionally `video_mask`, `audio_mask` (N,) and
      `text_mask` (N, C), bool, for what exists (by default, all); optionally
      `example_id` (N,), where rows with one id are clips of one video (without
      an id, a row is a video); optionally `text` (N, C, L), token ids, which
      tell equal captions of one video.
    combination: How the clips of a video are combined, one of `COMBINATIONS`.

  Returns:
    A dict from direction (`text_to_video`, `video_to_text`, `audio_to_video`,
    `video_to_audio`, `text_to_audio`, `audio_to_text`) to a dict of the metrics
    of `summarize_ranks`, and
    - `num_queries_left_out`: queries with no match in the pool,
    - `num_rows_left_out`: rows that lack the pool's modality,
    - `min_clips_per_video`, `max_clips_per_video`,
    - `min_captions_per_video`, `max_captions_per_video`, with text,
    - `combination`.
    A direction with no query that has a match is absent.

  Raises:
    ValueError: The combination is unknown, an embedding is not finite, or the
      shapes of the arrays do not fit.
  """
  if combination not in COMBINATIONS:
    raise ValueError(
      f'`combination` must be one of {", ".join(COMBINATIONS)}. '
      f'Received: combination={combination!r}'
    )
  embeddings = {key: np.asarray(value) for key, value in embeddings.items()}
  num_rows = _check_rows(embeddings)
  ids = _video_ids(embeddings, num_rows)
  metrics = {}
  for direction, fields in _DIRECTIONS.items():
    query_modality, query_key, pool_modality, pool_key = fields
    if query_key not in embeddings or pool_key not in embeddings:
      continue
    queries = _items(embeddings, query_modality, query_key, ids, combination)
    pool = _items(embeddings, pool_modality, pool_key, ids, combination)
    if queries.embeddings.shape[-1] != pool.embeddings.shape[-1]:
      raise ValueError(
        f'`{query_key}` and `{pool_key}` must have one width. Received: '
        f'{query_key}.shape={embeddings[query_key].shape}, '
        f'{pool_key}.shape={embeddings[pool_key].shape}'
      )
    direction_metrics = _direction_metrics(queries, pool)
    if direction_metrics is None:
      continue
    clips = np.bincount(ids)
    direction_metrics['min_clips_per_video'] = int(clips.min())
    direction_metrics['max_clips_per_video'] = int(clips.max())
    for modality, items in ((query_modality, queries), (pool_modality, pool)):
      if modality == names.TEXT:
        captions = np.unique(items.ids, return_counts=True)[1]
        direction_metrics['min_captions_per_video'] = int(captions.min())
        direction_metrics['max_captions_per_video'] = int(captions.max())
    direction_metrics['combination'] = combination
    metrics[direction] = direction_metrics
  return metrics


def _direction_metrics(queries, pool):
  """Metrics of one direction, or None without a query that has a match."""
  has_match = np.isin(queries.ids, pool.ids)
  if not has_match.any():
    return None
  query_ids = queries.ids[has_match]
  ranks = embedding_ranks(
    queries.embeddings[has_match], pool.embeddings, query_ids, pool.ids
  )
  num_matches = np.bincount(pool.ids, minlength=query_ids.max() + 1)[query_ids]
  metrics = summarize_ranks(ranks, num_matches, len(pool.ids))
  metrics['num_queries_left_out'] = int(np.sum(~has_match))
  metrics['num_rows_left_out'] = pool.num_left_out
  return metrics


def _check_rows(embeddings):
  """The common number of rows of all arrays."""
  shapes = {key: value.shape for key, value in embeddings.items()}
  if not shapes or len({shape[:1] for shape in shapes.values()}) != 1:
    raise ValueError(
      '`embeddings` must hold arrays with the same number of rows. '
      f'Received shapes: {shapes}'
    )
  return next(iter(shapes.values()))[0]


def _video_ids(embeddings, num_rows):
  """The number of each row's video (N,); rows with one id are one video, and a
  row without an id is a video."""
  if names.EXAMPLE_ID not in embeddings:
    return np.arange(num_rows)
  values = embeddings[names.EXAMPLE_ID]
  ids = np.unique(values, return_inverse=True)[1].astype(np.int64)
  unnamed = np.array([value in ('', b'') for value in values.tolist()], bool)
  ids[unnamed] = num_rows + np.arange(np.sum(unnamed))
  return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def _items(embeddings, modality, key, ids, combination):
  """The items of one modality."""
  values = embeddings[key]
  mask = embeddings.get(_MASKS[modality])
  mask = np.ones(values.shape[:-1], bool) if mask is None else mask.astype(bool)
  rank = 3 if modality == names.TEXT else 2
  if values.ndim != rank or values.shape[:-1] != mask.shape:
    raise ValueError(
      f'`{key}` must be of rank {rank}, and its mask shaped like it without '
      f'the last axis. Received: {key}.shape={values.shape}, '
      f'{_MASKS[modality]}.shape={mask.shape}'
    )
  num_left_out = int(np.sum(~mask.reshape([len(mask), -1]).any(1)))
  values = values.astype(np.float32)
  is_finite = np.isfinite(values).all(-1) | ~mask
  if not is_finite.all():
    row = int(np.argwhere(~is_finite)[0, 0])
    name = embeddings.get(names.EXAMPLE_ID, np.arange(len(mask)))[row]
    raise ValueError(
      f'`{key}` must be finite. Received: {np.sum(~is_finite)} of '
      f'{np.sum(mask)} embeddings are not, the first in row {row} ({name!r}). '
      'Look at the checkpoint that computed them.'
    )
  if modality == names.TEXT:
    rows = np.broadcast_to(ids[:, np.newaxis], mask.shape)[mask]
    values = unit(values[mask])
    if names.TEXT in embeddings:
      tokens = embeddings[names.TEXT][mask]
      keys = np.concatenate([rows[:, np.newaxis], tokens], axis=1)
      first = np.sort(np.unique(keys, axis=0, return_index=True)[1])
      rows, values = rows[first], values[first]
    return _Items(values, rows, num_left_out)
  values, ids = combine(values[mask], ids[mask], combination)
  return _Items(values, ids, num_left_out)


def unit(x: np.ndarray) -> np.ndarray:
  """Returns the rows with length 1; a row of zeros stays zero."""
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def combine(
  values: np.ndarray, ids: Sequence[str], combination: str
) -> tuple[np.ndarray, np.ndarray]:
  """Combines the clips of each video.

  Args:
    values: (N, D) float: embeddings of the clips, not normalised.
    ids: (N,) int64: the video of each clip.
    combination: How the clips are combined, one of `COMBINATIONS`.

  Returns:
    (V, D) float32, such that dot products with unit vectors are similarities,
    and (V,), the ids in ascending order.
  """
  if combination != 'mean_embedding':
    values = unit(values)
  ids, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
  total = np.zeros([len(ids), values.shape[-1]])
  np.add.at(total, inverse, values)
  mean = total / counts[:, np.newaxis]
  if combination != 'mean_similarity':
    mean = unit(mean)
  return mean.astype(np.float32), ids


def embed_dataset(
  model: tf_keras.Model, dataset: tf.data.Dataset
) -> dict[str, np.ndarray]:
  """Embeds every row of a data set.

  Args:
    model: Callable `model(features, training=False)` that returns a dict with
      any of the embeddings of `feature_names`.
    dataset: Batches as dicts, as the input pipeline yields them. Rows whose
      `valid` is false are padding and dropped.

  Returns:
    A dict of NumPy arrays over all rows: the model's embeddings, not
    normalised, float32, the masks, and `example_id` and `text` where the data
    set has them.

  Raises:
    ValueError: The data set is empty.
  """
  entry_names = (*_MASKS.values(), names.EXAMPLE_ID, names.TEXT)
  return outputs.collect(model, dataset, _EMBEDDINGS, entry_names)


def evaluate_retrieval(
  model: tf_keras.Model,
  dataset: tf.data.Dataset,
  combination: str = 'mean_embedding',
) -> dict[str, Any]:
  """Measures retrieval over a data set, in every direction the model allows.

  Args:
    model: See `embed_dataset`.
    dataset: See `embed_dataset`.
    combination: How the clips of a video are combined, one of `COMBINATIONS`.

  Returns:
    See `retrieval_metrics`; each direction also has `num_rows`, and
    `num_rows_dropped`, the rows of the data set that were not embedded.
    `format_table` prints the metrics.

  Raises:
    ValueError: The data set is empty, an embedding is not finite, or
      `combination` is unknown.
  """
  counted = outputs.CountedRows(dataset)
  embeddings = embed_dataset(model, counted)
  metrics = retrieval_metrics(embeddings, combination)
  num_embedded = len(next(iter(embeddings.values())))
  for direction_metrics in metrics.values():
    direction_metrics['num_rows'] = counted.num_rows
    direction_metrics['num_rows_dropped'] = counted.num_rows - num_embedded
  return metrics


@gin.register
class RetrievalEvaluation:
  """Retrieval, in the form that training and `vatt_tf.evaluate` call.

  Args:
    combination: How the clips of a video are combined, one of `COMBINATIONS`.
  """

  name = 'retrieval'
  title = 'Retrieval on held-out clips'

  def __init__(self, combination: str = 'mean_embedding'):
    self._combination = combination

  def __call__(self, model, dataset):
    """Returns the metrics of `evaluate_retrieval`."""
    return evaluate_retrieval(model, dataset, self._combination)

  def scalars(self, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scalar metrics by name, such as `text_to_video/R@10`."""
    return {
      f'{direction}/{name}': value
      for direction, direction_metrics in metrics.items()
      for name, value in direction_metrics.items()
      if isinstance(value, float)
    }

  def format_table(self, metrics: Mapping[str, Any]) -> str:
    """Returns the metrics as a table for people, see `format_table`."""
    return format_table(metrics)


def format_table(metrics: Mapping[str, Any]) -> str:
  """Returns a table of retrieval metrics for people.

  Args:
    metrics: Metrics that `retrieval_metrics` returned.

  Returns:
    Text of several lines, without a newline at the end: a row for each
    direction, chance in brackets, then what was combined and left out.
  """
  if not metrics:
    return 'Retrieval: no pair of modalities to compare.'
  recalls = [f'R@{rank}' for rank in RECALL_RANKS]
  rows = [
    ['query -> pool', 'queries', 'pool']
    + [f'{figure} (chance)' for figure in recalls]
    + [f'{figure.replace("_", " ")} (chance)' for figure in _RANK_FIGURES]
  ]
  for direction, direction_metrics in metrics.items():
    rows.append(
      [
        direction.replace('_to_', ' -> '),
        str(direction_metrics['num_queries']),
        str(direction_metrics['pool_size']),
      ]
      + [
        f'{direction_metrics[f]:.3f} ({direction_metrics["chance_" + f]:.3f})'
        for f in recalls
      ]
      + [
        f'{direction_metrics[f]:.1f} ({direction_metrics["chance_" + f]:.1f})'
        for f in _RANK_FIGURES
      ]
    )
  widths = [max(len(cell) for cell in column) for column in zip(*rows)]
  lines = [
    '  '.join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    )
    for row in rows
  ]
  return '\n'.join(lines + _notes(metrics))


def _notes(metrics):
  """Lines that tell what the metrics of a table were computed from."""
  first = next(iter(metrics.values()))
  clips = _range(first, 'clips_per_video')
  note = f'Ties rank worst. Clips per video: {clips}'
  if first['max_clips_per_video'] > 1:
    note += f', combined by {first["combination"]}'
  captions = [
    _range(direction_metrics, 'captions_per_video')
    for direction_metrics in metrics.values()
    if 'max_captions_per_video' in direction_metrics
  ]
  if captions:
    note += f'. Captions per video: {captions[0]}, each a separate query'
  lines = [note + '.']
  if 'num_rows' in first:
    dropped = first['num_rows_dropped']
    lines[0] += (
      f' {command_line.count(first["num_rows"], "clip")}, {dropped} dropped '
      f'({dropped / first["num_rows"]:.1%}).'
    )
  for direction, direction_metrics in metrics.items():
    rows, queries = (
      direction_metrics['num_rows_left_out'],
      direction_metrics['num_queries_left_out'],
    )
    if rows or queries:
      query, pool = direction.split('_to_')
      lines.append(
        f'Left out of {query} -> {pool}: '
        f'{command_line.count(rows, "row")} without {pool}, '
        f'{command_line.count(queries, "query")} without a match.'
      )
  return lines


def _range(metrics, name):
  low, high = metrics[f'min_{name}'], metrics[f'max_{name}']
  return str(low) if low == high else f'{low} to {high}'
