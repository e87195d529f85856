"""An open index: searches its vectors, and returns moments."""

from collections.abc import Sequence
import os
from typing import NamedTuple

import numpy as np
from pyarrow import parquet

from vatt_tf.retrieval_index import index_files, nearest


class Moment(NamedTuple):
  """A part of a file.

  Attributes:
    id: Number that is the same in every index with this part of this file.
    path: Path of the file.
    start: Start in seconds.
    end: End in seconds.
    caption: Caption, or ''.
  """

  id: int
  path: str
  start: float
  end: float
  caption: str


class Hit(NamedTuple):
  """A result of a search.

  Attributes:
    score: Cosine with the query.
    modality: Modality of the moment that is as similar: `video` or `audio`.
    moment: Moment with this vector.
  """

  score: float
  modality: str
  moment: Moment


class _Shelf:
  """The vectors of one modality in one space."""

  def __init__(self, folder, method):
    self.vectors = np.load(
      os.path.join(folder, index_files.VECTORS), mmap_mode='r'
    )
    self.rows = np.load(os.path.join(folder, index_files.ROWS))
    self._approximate = None
    if method == nearest.SCANN:
      self._approximate = nearest.Approximate.load(
        os.path.join(folder, index_files.SCANN), self.vectors
      )

  def search(self, queries, count):
    """Returns the scores and the numbers of moments for each query."""
    if self._approximate is None:
      results = nearest.exact(queries, self.vectors, count)
    else:
      results = self._approximate.search(queries, count)
    return [(scores, self.rows[places]) for scores, places in results]

  def vector(self, row):
    """Returns the vector of a moment, or None."""
    place = int(np.searchsorted(self.rows, row))
    if place == len(self.rows) or self.rows[place] != row:
      return None
    return np.array(self.vectors[place])


class Index:
  """An index, opened for searching.

  Attributes:
    model_version: Name of the model that computed the vectors.
    media_root: Folder that paths are relative to, or ''.
    decoding: Fields of `media.decode_settings.Settings` with which the media
      were decoded; empty for embedded records.
    num_moments: Number of moments.
    shelves: Dictionaries of `space`, `modality`, `method`, `num_vectors` and
      `num_dimensions`.

  Args:
    path: Folder of the index.

  Raises:
    ValueError: There is no index, it has another format, or ScaNN is needed and
      not installed.
  """

  def __init__(self, path: str):
    description = index_files.read_description(path)
    self.model_version = description['model_version']
    self.media_root = description['media_root']
    self.decoding = description['decoding']
    self.num_moments = description['num_moments']
    self.shelves = description['shelves']
    self._moments = parquet.read_table(os.path.join(path, index_files.MOMENTS))
    ids = self._moments['id'].to_numpy()
    self._order_of_ids = np.argsort(ids)
    self._sorted_ids = ids[self._order_of_ids]
    self._shelves = {
      (each['space'], each['modality']): _Shelf(
        os.path.join(
          path, index_files.shelf_name(each['space'], each['modality'])
        ),
        each['method'],
      )
      for each in self.shelves
    }

  def modalities(self, space: str | None = None) -> tuple[str, ...]:
    """Returns the modalities with vectors in a space, or in any."""
    return tuple(
      modality
      for modality in index_files.MODALITIES
      if any(
        (each, modality) in self._shelves
        for each in index_files.SPACES
        if space in (None, each)
      )
    )

  def find(self, moment_id: int) -> int | None:
    """Returns the number of the moment of an id, or None."""
    place = int(np.searchsorted(self._sorted_ids, moment_id))
    if place == len(self._sorted_ids) or self._sorted_ids[place] != moment_id:
      return None
    return int(self._order_of_ids[place])

  def moment(self, row: int) -> Moment:
    """Returns the moment of a number."""
    (values,) = self._moments.slice(row, 1).to_pylist()
    return Moment(**values)

  def captions(self, count: int) -> list[str]:
    """Returns different captions from all over the index."""
    captions = self._moments['caption']
    step = max(1, self.num_moments // (8 * count))
    chosen = captions.take(np.arange(0, self.num_moments, step)).to_pylist()
    return list(dict.fromkeys(filter(None, chosen)))[:count]

  def vector(self, row: int, space: str, modality: str) -> np.ndarray | None:
    """Returns the vector of a moment.

    Args:
      row: Number of the moment.
      space: One of `index_files.SPACES`.
      modality: One of `index_files.MODALITIES`.

    Returns:
      (D,) float32, or None if the moment has no such vector.
    """
    shelf = self._shelves.get((space, modality))
    return None if shelf is None else shelf.vector(row)

  def search(
    self,
    vector: np.ndarray,
    space: str,
    modalities: Sequence[str],
    count: int,
    without: int | None = None,
  ) -> list[Hit]:
    """Returns the moments that are most similar to a vector.

    Args:
      vector: (D,) float: vector of length 1.
      space: One of `index_files.SPACES`.
      modalities: Modalities among `index_files.MODALITIES` that may match. A
        moment whose picture and sound match comes once, as the more similar.
      count: Maximum number of moments.
      without: Number of a moment that is left out, or None.

    Returns:
      Moments by descending similarity; of equal ones the first by path and
      time, and video before audio.
    """
    best = {}
    for modality in modalities:
      shelf = self._shelves.get((space, modality))
      if shelf is None:
        continue
      ((scores, rows),) = shelf.search([vector], count + (without is not None))
      for score, row in zip(scores.tolist(), rows.tolist()):
        if row != without and (row not in best or score > best[row][0]):
          best[row] = (score, modality)
    order = sorted(best, key=lambda row: (-best[row][0], row))[:count]
    return [Hit(*best[row], self.moment(row)) for row in order]
