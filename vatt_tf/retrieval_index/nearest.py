"""The vectors nearest to a query, by the dot product: exact, or with ScaNN.

Both return the same scores in the same order: candidates are compared in
float64, to six decimals, and of equal ones the first row comes first. ScaNN may
miss some.
"""

import os
import types

import numpy as np

EXACT = 'exact'
SCANN = 'scann'

# Scores closer than this are equal.
TIE = 1e-6
_DECIMALS = 6

_MAX_SIMILARITIES = 2**25  # held at a time: 128 MiB
# Maximum number of equal candidates; of more the first rows are taken.
_MAX_TIES = 1000

# ScaNN looks at codes of all vectors, a few bits for each block of dimensions,
# learned such that errors along a vector count more than those across; then it
# compares the best by these codes exactly. There are no leaves of which only
# some are searched: vectors without clusters would be missed, and codes alone
# are fast enough. docs/search.md has the measurements.
_DIMENSIONS_PER_BLOCK = 2
_ANISOTROPIC_THRESHOLD = 0.2
_NUM_REORDERED = 500
_ASSETS = 'scann_assets.pbtxt'
_DATASET = 'dataset.npy'


def rank(
  query: np.ndarray, vectors: np.ndarray, rows: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Orders candidates.

  Args:
    query: (D,) float: vector of the query.
    vectors: (N, D) float32: all vectors.
    rows: (C,) int: rows of the candidates, each once.
    count: Maximum number of results.

  Returns:
    (K,) float64 scores, rounded to six decimals, descending, and (K,) int64
    rows; of equal scores the lower row comes first.
  """
  rows = np.sort(np.asarray(rows, np.int64))
  # Row by row: a matrix product may differ between equal rows.
  products = vectors[rows].astype(np.float64) * np.asarray(query, np.float64)
  scores = np.round(products.sum(axis=1), _DECIMALS)
  order = np.argsort(-scores, kind='stable')[:count]
  return scores[order], rows[order]


def exact(
  queries: np.ndarray, vectors: np.ndarray, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Compares queries with every vector.

  Args:
    queries: (Q, D) float: vectors of the queries.
    vectors: (N, D) float32: all vectors, which may be mapped from a file.
    count: Maximum number of results.

  Returns:
    Scores and rows for each query, as `rank` returns them.
  """
  queries = np.asarray(queries, np.float32)
  count = min(count, len(vectors))
  if not count:
    return [(np.zeros([0]), np.zeros([0], np.int64)) for _ in queries]
  size = max(1, _MAX_SIMILARITIES // len(vectors))
  results = []
  for start in range(0, len(queries), size):
    chunk = queries[start : start + size]
    for query, scores in zip(chunk, chunk @ vectors.T):  # (N,)
      results.append(rank(query, vectors, _candidates(scores, count), count))
  return results


def _candidates(scores, count):
  """Returns the rows that may be among the first `count`, ties included."""
  least = np.partition(scores, -count)[-count]
  rows = np.flatnonzero(scores >= least - TIE)
  if len(rows) <= count + _MAX_TIES:
    return rows
  is_ahead = scores[rows] > least + TIE  # fewer than `count`
  tied = rows[~is_ahead]
  return np.concatenate([rows[is_ahead], tied[: count + _MAX_TIES]])


def import_scann() -> types.ModuleType:
  """Returns ScaNN's module.

  Raises:
    ValueError: ScaNN is not installed.
  """
  try:
    from scann.scann_ops.py import scann_ops_pybind
  except ImportError as e:
    raise ValueError(
      'ScaNN is needed and cannot be imported. Install it: `pip install '
      "'vatt_tf[search]'`, or search exactly: --method=exact, which takes "
      f'time in proportion to the vectors. Received: {e}'
    ) from e
  return scann_ops_pybind


class Approximate:
  """A ScaNN index of one set of vectors.

  Args:
    searcher: ScaNN's searcher.
    vectors: (N, D) float32: vectors that it was built from.
  """

  def __init__(self, searcher: object, vectors: np.ndarray):
    self._searcher = searcher
    self._vectors = vectors

  @classmethod
  def build(cls, vectors: np.ndarray) -> 'Approximate':
    """Builds an index, whose codes are learned from the vectors.

    Args:
      vectors: (N, D) float32: unit rows.

    Raises:
      ValueError: ScaNN is not installed.
    """
    scann = import_scann()
    builder = (
      scann.builder(vectors, 10, 'dot_product')
      .score_ah(
        _DIMENSIONS_PER_BLOCK,
        anisotropic_quantization_threshold=_ANISOTROPIC_THRESHOLD,
      )
      .reorder(_NUM_REORDERED)
    )
    return cls(builder.build(), vectors)

  def save(self, folder: str, vectors_path: str) -> None:
    """Writes the index to a new folder.

    Args:
      folder: Path of the folder.
      vectors_path: Path of the .npy file with the vectors, which are not
        written twice: its place relative to the folder must not change.
    """
    os.makedirs(folder)
    self._searcher.serialize(folder)
    # ScaNN writes absolute paths: a folder may be moved.
    path = os.path.join(folder, _ASSETS)
    with open(path, encoding='utf-8') as file:
      text = file.read()
    own = os.path.join(folder, _DATASET)
    shared = os.path.relpath(vectors_path, folder)
    text = text.replace(f'"{own}"', f'"{shared}"')
    text = text.replace(f'"{os.path.join(folder, "")}', '"')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
    os.remove(own)

  @classmethod
  def load(cls, folder: str, vectors: np.ndarray) -> 'Approximate':
    """Reads an index that `save` wrote.

    Args:
      folder: Path of the folder.
      vectors: (N, D) float32: vectors that it was built from.

    Raises:
      ValueError: ScaNN is not installed.
    """
    scann = import_scann()
    with open(os.path.join(folder, _ASSETS), encoding='utf-8') as file:
      text = file.read()
    start = 'asset_path: "'
    text = text.replace(start, f'{start}{os.path.join(folder, "")}')
    # Not `load_searcher`: it reads pickles, and an index may be a stranger's.
    return cls(
      scann.ScannSearcher(scann.scann_pybind.ScannNumpy(folder, text)), vectors
    )

  def search(
    self, queries: np.ndarray, count: int
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """Does the same as `exact`, but may miss some of the nearest.

    Args:
      queries: (Q, D) float: vectors of the queries.
      count: Maximum number of results.

    Returns:
      Scores and rows for each query, as `rank` returns them.
    """
    queries = np.asarray(queries, np.float32)
    count = min(count, len(self._vectors))
    wanted = max(count, _NUM_REORDERED)
    rows, scores = self._searcher.search_batched(
      queries, final_num_neighbors=count, pre_reorder_num_neighbors=wanted
    )
    return [
      rank(query, self._vectors, own_rows[np.isfinite(own_scores)], count)
      for query, own_rows, own_scores in zip(queries, rows, scores)
    ]
