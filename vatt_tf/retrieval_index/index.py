"""The index: a folder of vectors, and of the moments that they belong to.

    <index>/
      index.json          what it holds, and of which model
      moments.parquet     id, path, start, end, caption; a row is a moment
      <space>.<modality>/
        vectors.npy       (N, D) float32, unit rows
        rows.npy          (N,) int64, the moment of each
        scann/            where the search is not exact

A moment is a part of a file. It has up to two vectors in each space, that of
its picture and that of its sound; each kind is searched on its own, so that a
search for sounds finds as many as it was asked for.
"""

import hashlib
import json
import os
import shutil
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from vatt_tf.core import file_utils
from vatt_tf.embedding import table
from vatt_tf.retrieval_index import nearest

# From this many vectors of a kind on, ScaNN is worth its memory.
EXACT_BELOW = 50_000
AUTO = 'auto'
METHODS = (AUTO, nearest.EXACT, nearest.SCANN)

VIDEO = table.VIDEO
AUDIO = table.AUDIO
MODALITIES = (VIDEO, AUDIO)

# The spaces that vectors are compared in.
VIDEO_AUDIO = 'video_audio'
VIDEO_TEXT = 'video_text'
SPACES = (VIDEO_AUDIO, VIDEO_TEXT)

# The embedding of a modality that lies in a space.
_SOURCES = {
  (VIDEO_AUDIO, VIDEO): table.VIDEO_AUDIO,
  (VIDEO_AUDIO, AUDIO): table.VIDEO_AUDIO,
  (VIDEO_TEXT, VIDEO): table.VIDEO_TEXT,
  (VIDEO_TEXT, AUDIO): table.AUDIO_TEXT,
}
_FORMAT = 1
_DESCRIPTION = 'index.json'
_MOMENTS = 'moments.parquet'
_VECTORS = 'vectors.npy'
_ROWS = 'rows.npy'
_SCANN = 'scann'
# In the metadata of embeddings: the folder that paths are relative to.
_MEDIA_ROOT = 'media_root'
# There too, if media were embedded: how they were decoded.
_DECODING = {
  'frame_rate': float,
  'shorter_side': int,
  'jpeg_quality': int,
  'audio_rate': int,
}
# Of a unit vector's length.
_LENGTH_TOLERANCE = 1e-3


class Moment(NamedTuple):
  """A part of a file.

  Attributes:
    id: int, the same in every index that holds this part of this file.
    path: of the file.
    start: seconds.
    end: seconds.
    caption: text, or ''.
  """

  id: int
  path: str
  start: float
  end: float
  caption: str


class Hit(NamedTuple):
  """What a search found.

  Attributes:
    score: cosine with the query.
    modality: whether the `video` or the `audio` of the moment is as similar.
    moment: `Moment`.
  """

  score: float
  modality: str
  moment: Moment


# Building.


def choose_method(method, num_vectors):
  """`exact` or `scann`.

  Args:
    method: one of `METHODS`.
    num_vectors: int, that are searched together.

  Raises:
    ValueError: an unknown method.
  """
  if method not in METHODS:
    raise ValueError(
      f'`method` must be one of {", ".join(METHODS)}. '
      f'Received: method={method!r}'
    )
  if method != AUTO:
    return method
  return nearest.EXACT if num_vectors < EXACT_BELOW else nearest.SCANN


def build(embeddings, output, method=AUTO):
  """Writes an index; it appears whole, or what was there stays.

  Captions are shown with what is found, but are not searched themselves.

  Args:
    embeddings: folder that `python -m vatt_tf.embed` wrote (`embedding.table`),
      or several.
    output: folder of the index. An index that is there is replaced.
    method: one of `METHODS`: `auto` searches exactly among fewer than
      `EXACT_BELOW` vectors of a kind, and with ScaNN among more.

  Returns:
    A text that says what was built, and how it will be searched.

  Raises:
    ValueError: there is nothing to index, the embeddings are of several models,
      several media roots or no unit vectors, `output` is a folder of other
      files, or ScaNN is needed and not installed.
  """
  file_utils.check_local('output', output)
  if os.path.exists(output) and not os.path.isfile(
    os.path.join(output, _DESCRIPTION)
  ):
    if not os.path.isdir(output) or os.listdir(output):
      raise ValueError(
        '`output` must be a new or empty folder, or an index to replace. '
        f'Received: output={output!r}, which holds other files'
      )
    os.rmdir(output)
  choose_method(method, 0)
  parent, name = os.path.split(os.path.abspath(output))
  os.makedirs(parent, exist_ok=True)
  temporary = os.path.join(parent, f'.{name}.{os.getpid()}.part')
  shutil.rmtree(temporary, ignore_errors=True)
  try:
    os.makedirs(temporary)
    _write(embeddings, temporary, method)
    _put_in_place(temporary, output)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  return describe(output)


def _write(embeddings, folder, method):
  """Writes the files of an index to an empty folder."""
  found = [table.read_metadata(path) for path in table.find_files(embeddings)]
  there = {metadata[table.SPACE] for metadata in found}
  media_root, decoding = _media(found)
  shelves, kept, versions = [], [], set()
  for (space, modality), source in _SOURCES.items():
    if source not in there:
      continue
    rows = table.read(embeddings, modality, source)
    if not len(rows):
      continue
    _check_unit(rows)
    versions |= set(rows.model_version)
    order, *keys = _keys(rows)
    own = os.path.join(folder, _shelf_name(space, modality))
    os.makedirs(own)
    vectors = rows.embedding[order]
    vectors_path = os.path.join(own, _VECTORS)
    np.save(vectors_path, vectors)
    chosen = choose_method(method, len(vectors))
    if chosen == nearest.SCANN:
      nearest.Approximate.build(vectors).save(
        os.path.join(own, _SCANN), vectors_path
      )
    kept.append(keys)
    shelves.append(
      {
        'space': space,
        'modality': modality,
        'method': chosen,
        'num_vectors': len(vectors),
        'num_dimensions': vectors.shape[1],
      }
    )
  if not shelves:
    raise ValueError(
      '`embeddings` must hold vectors of video or audio. Received: '
      f'embeddings={embeddings!r}, with the spaces {", ".join(sorted(there))}'
    )
  if len(versions) > 1:
    raise ValueError(
      '`embeddings` must be of one model: vectors of two cannot be compared. '
      f'Received: those of {", ".join(sorted(versions))}. Embed all media with '
      'one SavedModel, into a new folder.'
    )
  numbers, moments = _moments(kept)
  for shelf, rows in zip(shelves, numbers):
    name = _shelf_name(shelf['space'], shelf['modality'])
    np.save(os.path.join(folder, name, _ROWS), rows)
  parquet.write_table(moments, os.path.join(folder, _MOMENTS))
  description = {
    'format': _FORMAT,
    'model_version': versions.pop(),
    'media_root': media_root,
    'decoding': decoding,
    'num_moments': moments.num_rows,
    'shelves': shelves,
  }
  file_utils.write_text(
    os.path.join(folder, _DESCRIPTION), json.dumps(description, indent=2) + '\n'
  )


def _media(found):
  """Where the media of an index lie, and how they were decoded.

  Args:
    found: the metadata of each file of the embeddings.

  Returns:
    The folder that their paths are relative to, and a dict as `_DECODING`.

  Raises:
    ValueError: these are not the same for all.
  """
  roots = {metadata.get(_MEDIA_ROOT, '') for metadata in found}
  if len(roots) > 1:
    raise ValueError(
      '`embeddings` must have one media root, which all paths are relative to. '
      f'Received: {", ".join(sorted(map(repr, roots)))}. Build an index of '
      'each, or embed all media into a new folder, with a manifest of paths '
      'below one `media_root` (--media_root).'
    )
  decodings = {
    tuple(
      (name, kind(metadata[name]))
      for name, kind in _DECODING.items()
      if name in metadata
    )
    for metadata in found
  }
  if len(decodings) > 1:
    ways = sorted(str(dict(one) or 'records') for one in decodings)
    raise ValueError(
      '`embeddings` must be of media that were decoded in one way: a file that '
      f'is searched with is decoded like them. Received: {" and ".join(ways)}. '
      'Build an index of each, or embed all media with the same settings, into '
      'a new folder.'
    )
  return roots.pop(), dict(decodings.pop())


def _put_in_place(temporary, output):
  """Renames a whole index to its name."""
  if not os.path.exists(output):
    os.rename(temporary, output)
    return
  old = f'{temporary}.old'
  os.rename(output, old)
  try:
    os.rename(temporary, output)
  except BaseException:
    os.rename(old, output)
    raise
  shutil.rmtree(old)


def describe(path):
  """What an index holds, in lines for people."""
  found = _read_description(path)
  lines = [
    f'{path}: {found["num_moments"]:,} moments, model {found["model_version"]}'
  ]
  for shelf in found['shelves']:
    how = 'exact search' if shelf['method'] == nearest.EXACT else 'ScaNN'
    lines.append(
      f'  {shelf["modality"]} in the {shelf["space"]} space: '
      f'{shelf["num_vectors"]:,} vectors of {shelf["num_dimensions"]}, {how}'
    )
  return '\n'.join(lines)


def _shelf_name(space, modality):
  return f'{space}.{modality}'


def _check_unit(rows):
  length = np.linalg.norm(rows.embedding, axis=1)
  is_wrong = ~(np.abs(length - 1) < _LENGTH_TOLERANCE)
  if is_wrong.any():
    place = int(np.argmax(is_wrong))
    raise ValueError(
      '`embeddings` must be unit vectors, as `vatt_tf.embed` writes them. '
      f'Received: {int(is_wrong.sum())} of {len(rows)} are not, the first of '
      f'{rows.path[place]!r}, of length {length[place]}'
    )


def _codes(strings):
  """The sorted strings, each once, and the place of each of (N,) in them."""
  encoded = pa.array(strings, pa.string()).dictionary_encode()
  names = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
  order = np.argsort(names)
  places = np.empty([len(names)], np.int64)
  places[order] = np.arange(len(names))
  return names[order], places[encoded.indices.to_numpy()]


def _keys(rows):
  """What tells the moments of rows apart, and the order that sorts them.

  Returns:
    (N,) order by path, start, end and the rows' own; in this order the paths,
    starts and ends in µs, how many equal rows come before each, and texts.
  """
  _, path = _codes(rows.path)
  start, end = (
    np.round(values * 1e6).astype(np.int64)
    for values in (rows.clip_start, rows.clip_end)
  )
  order = np.lexsort([end, start, path])
  keys = np.stack([path, start, end])[:, order]
  # Records may hold several clips that name the same part of a file: of equal
  # rows each is a moment of its own.
  is_new = np.ones([len(order)], bool)
  is_new[1:] = (np.diff(keys, axis=1) != 0).any(0)
  places = np.arange(len(order))
  repeat = places - np.maximum.accumulate(np.where(is_new, places, 0))
  return order, rows.path[order], keys[1], keys[2], repeat, rows.text[order]


def _moments(shelves):
  """The moments of all shelves.

  Args:
    shelves: list of paths, starts, ends, repeats and texts, as `_keys`.

  Returns:
    A list of (N,) int64, the moments of each shelf, ascending, and the table of
    moments.
  """
  paths, start, end, repeat, text = (
    np.concatenate(parts) for parts in zip(*shelves)
  )
  names, path = _codes(paths)
  keys = np.stack([path, start, end, repeat], axis=1)
  unique, first, numbers = np.unique(
    keys, axis=0, return_index=True, return_inverse=True
  )
  numbers = numbers.reshape([-1])
  # A caption may stand with the picture, with the sound, or with both.
  captions = text[first]
  has_text = np.array([bool(each) for each in text], bool)
  captions[numbers[has_text]] = text[has_text]
  paths = names[unique[:, 0]]
  ids = [
    _moment_id(each, *key) for each, key in zip(paths, unique[:, 1:].tolist())
  ]
  moments = pa.table(
    {
      'id': pa.array(ids, pa.int64()),
      'path': pa.array(paths, pa.string()),
      'start': unique[:, 1] / 1e6,
      'end': unique[:, 2] / 1e6,
      'caption': pa.array([each or '' for each in captions], pa.string()),
    }
  )
  ends = np.cumsum([len(shelf[0]) for shelf in shelves])
  return np.split(numbers, ends[:-1]), moments


def _moment_id(path, start, end, repeat):
  text = f'{path}\0{start}\0{end}\0{repeat}'.encode()
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return int.from_bytes(digest, 'big') >> 1  # an int64, not below 0


# Searching.


def _read_description(path):
  try:
    with open(os.path.join(path, _DESCRIPTION), encoding='utf-8') as file:
      found = json.load(file)
  except FileNotFoundError as e:
    raise ValueError(
      f'`index` must be a folder that `python -m vatt_tf.search build` wrote. '
      f'Received: index={path!r}, which holds no {_DESCRIPTION}'
    ) from e
  if found.get('format') != _FORMAT:
    raise ValueError(
      f'`index` must be of format {_FORMAT}: build it anew. Received: '
      f'{path!r} of format {found.get("format")}'
    )
  return found


class _Shelf:
  """The vectors of one modality in one space."""

  def __init__(self, folder, method):
    self.vectors = np.load(os.path.join(folder, _VECTORS), mmap_mode='r')
    self.rows = np.load(os.path.join(folder, _ROWS))
    self._approximate = None
    if method == nearest.SCANN:
      self._approximate = nearest.Approximate.load(
        os.path.join(folder, _SCANN), self.vectors
      )

  def search(self, queries, count):
    """Of each query the scores, and the numbers of the moments."""
    if self._approximate is None:
      found = nearest.exact(queries, self.vectors, count)
    else:
      found = self._approximate.search(queries, count)
    return [(scores, self.rows[places]) for scores, places in found]

  def vector(self, row):
    """The vector of a moment, or None."""
    place = int(np.searchsorted(self.rows, row))
    if place == len(self.rows) or self.rows[place] != row:
      return None
    return np.array(self.vectors[place])


class Index:
  """An index, opened for searching.

  Args:
    path: its folder.

  Attributes:
    model_version: of the model that made the vectors.
    media_root: folder that paths are relative to, or ''.
    decoding: dict of fields of `media.decode.Settings`, with which the media
      were decoded; empty where records were embedded.
    num_moments: int.
    shelves: list of dicts of `space`, `modality`, `method`, `num_vectors` and
      `num_dimensions`.

  Raises:
    ValueError: there is none, it is of another format, or ScaNN is needed and
      not installed.
  """

  def __init__(self, path):
    found = _read_description(path)
    self.model_version = found['model_version']
    self.media_root = found['media_root']
    self.decoding = found['decoding']
    self.num_moments = found['num_moments']
    self.shelves = found['shelves']
    self._moments = parquet.read_table(os.path.join(path, _MOMENTS))
    ids = self._moments['id'].to_numpy()
    self._order_of_ids = np.argsort(ids)
    self._sorted_ids = ids[self._order_of_ids]
    self._shelves = {
      (each['space'], each['modality']): _Shelf(
        os.path.join(path, _shelf_name(each['space'], each['modality'])),
        each['method'],
      )
      for each in self.shelves
    }

  def modalities(self, space=None):
    """The modalities that there are vectors of, in a space or in any."""
    return tuple(
      modality
      for modality in MODALITIES
      if any(
        (each, modality) in self._shelves
        for each in SPACES
        if space in (None, each)
      )
    )

  def find(self, moment_id):
    """The number of the moment of an id, or None."""
    place = int(np.searchsorted(self._sorted_ids, moment_id))
    if place == len(self._sorted_ids) or self._sorted_ids[place] != moment_id:
      return None
    return int(self._order_of_ids[place])

  def moment(self, row):
    """The `Moment` of a number."""
    (found,) = self._moments.slice(row, 1).to_pylist()
    return Moment(**found)

  def captions(self, count):
    """Some captions, no two the same, from all over the index."""
    captions = self._moments['caption']
    step = max(1, self.num_moments // (8 * count))
    some = captions.take(np.arange(0, self.num_moments, step)).to_pylist()
    return list(dict.fromkeys(filter(None, some)))[:count]

  def vector(self, row, space, modality):
    """The (D,) vector of a moment, or None where it has none."""
    shelf = self._shelves.get((space, modality))
    return None if shelf is None else shelf.vector(row)

  def search(self, vector, space, modalities, count, without=None):
    """The moments that are most similar to a vector.

    Args:
      vector: (D,) array of length 1.
      space: one of `SPACES`.
      modalities: of `MODALITIES`, those that may be found. A moment that is
        found by its picture and by its sound is there once, as the more similar
        of them.
      count: int, how many moments to return at most.
      without: number of a moment that is left out, or None.

    Returns:
      List of `Hit`, the most similar first; of equal ones the first by path and
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
