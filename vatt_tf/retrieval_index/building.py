"""Builds an index from tables of embeddings."""

from collections.abc import Sequence
import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from vatt_tf.core import file_utils
from vatt_tf.embedding import table
from vatt_tf.retrieval_index import index_files, nearest

# From this many vectors of a kind on, ScaNN is worth its memory.
EXACT_BELOW = 50_000
AUTO = 'auto'
METHODS = (AUTO, nearest.EXACT, nearest.SCANN)

# The embedding of a modality that lies in a space.
_SOURCES = {
  (index_files.VIDEO_AUDIO, index_files.VIDEO): table.VIDEO_AUDIO,
  (index_files.VIDEO_AUDIO, index_files.AUDIO): table.VIDEO_AUDIO,
  (index_files.VIDEO_TEXT, index_files.VIDEO): table.VIDEO_TEXT,
  (index_files.VIDEO_TEXT, index_files.AUDIO): table.AUDIO_TEXT,
}
# In the metadata of embeddings: the folder that paths are relative to.
_MEDIA_ROOT = 'media_root'
# Also in the metadata, for embedded media: how they were decoded.
_DECODING = {
  'frame_rate': float,
  'shorter_side': int,
  'jpeg_quality': int,
  'audio_rate': int,
}
# Tolerance of the length of a unit vector.
_LENGTH_TOLERANCE = 1e-3


def choose_method(method: str, num_vectors: int) -> str:
  """Returns `exact` or `scann`.

  Args:
    method: One of `METHODS`.
    num_vectors: Number of vectors that are searched together.

  Raises:
    ValueError: The method is unknown.
  """
  if method not in METHODS:
    raise ValueError(
      f'`method` must be one of {", ".join(METHODS)}. '
      f'Received: method={method!r}'
    )
  if method != AUTO:
    return method
  return nearest.EXACT if num_vectors < EXACT_BELOW else nearest.SCANN


def build(
  embeddings: str | Sequence[str], output: str, method: str = AUTO
) -> str:
  """Writes an index; it appears whole, or an existing one remains.

  Captions are shown with the results, but are not searched themselves.

  Args:
    embeddings: Folder that `python -m vatt_tf.embed` wrote (`embedding.table`),
      or several.
    output: Folder of the index. An existing index is replaced.
    method: One of `METHODS`: `auto` searches exactly among fewer than
      `EXACT_BELOW` vectors of a kind, and with ScaNN among more.

  Returns:
    Lines on the content of the index, and how it will be searched.

  Raises:
    ValueError: There is nothing to index, the embeddings have several models or
      media roots or are not unit vectors, `output` is a folder of other files,
      or ScaNN is needed and not installed.
  """
  file_utils.check_local('output', output)
  if os.path.exists(output) and not os.path.isfile(
    os.path.join(output, index_files.DESCRIPTION)
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
  return index_files.describe(output)


def _write(embeddings, folder, method):
  """Writes the files of an index to an empty folder."""
  metadata = [
    table.read_metadata(path) for path in table.find_files(embeddings)
  ]
  spaces = {values[table.SPACE] for values in metadata}
  media_root, decoding = _media(metadata)
  shelves, kept, versions = [], [], set()
  for (space, modality), source in _SOURCES.items():
    if source not in spaces:
      continue
    rows = table.read(embeddings, modality, source)
    if not len(rows):
      continue
    _check_unit(rows)
    versions |= set(rows.model_version)
    order, *keys = _keys(rows)
    own = os.path.join(folder, index_files.shelf_name(space, modality))
    os.makedirs(own)
    vectors = rows.embedding[order]
    vectors_path = os.path.join(own, index_files.VECTORS)
    np.save(vectors_path, vectors)
    chosen = choose_method(method, len(vectors))
    if chosen == nearest.SCANN:
      nearest.Approximate.build(vectors).save(
        os.path.join(own, index_files.SCANN), vectors_path
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
      f'embeddings={embeddings!r}, with the spaces {", ".join(sorted(spaces))}'
    )
  if len(versions) > 1:
    raise ValueError(
      '`embeddings` must be of one model: vectors of two cannot be compared. '
      f'Received: those of {", ".join(sorted(versions))}. Embed all media with '
      'one SavedModel, into a new folder.'
    )
  numbers, moments = _moments(kept)
  for shelf, rows in zip(shelves, numbers):
    name = index_files.shelf_name(shelf['space'], shelf['modality'])
    np.save(os.path.join(folder, name, index_files.ROWS), rows)
  parquet.write_table(moments, os.path.join(folder, index_files.MOMENTS))
  description = {
    'format': index_files.FORMAT,
    'model_version': versions.pop(),
    'media_root': media_root,
    'decoding': decoding,
    'num_moments': moments.num_rows,
    'shelves': shelves,
  }
  file_utils.write_text(
    os.path.join(folder, index_files.DESCRIPTION),
    json.dumps(description, indent=2) + '\n',
  )


def _media(metadata):
  """Returns the folder of the media, and how they were decoded.

  Args:
    metadata: Metadata of each file of the embeddings.

  Returns:
    The folder that paths are relative to, and a dictionary as `_DECODING`.

  Raises:
    ValueError: The files differ in these.
  """
  roots = {values.get(_MEDIA_ROOT, '') for values in metadata}
  if len(roots) > 1:
    raise ValueError(
      '`embeddings` must have one media root, which all paths are relative to. '
      f'Received: {", ".join(sorted(map(repr, roots)))}. Build an index of '
      'each, or embed all media into a new folder, with a manifest of paths '
      'below one `media_root` (--media_root).'
    )
  decodings = {
    tuple(
      (name, kind(values[name]))
      for name, kind in _DECODING.items()
      if name in values
    )
    for values in metadata
  }
  if len(decodings) > 1:
    ways = sorted(str(dict(items) or 'records') for items in decodings)
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
  """Returns the sorted unique strings, and the place of each of (N,)."""
  encoded = pa.array(strings, pa.string()).dictionary_encode()
  names = encoded.dictionary.to_numpy(zero_copy_only=False).astype(object)
  order = np.argsort(names)
  places = np.empty([len(names)], np.int64)
  places[order] = np.arange(len(names))
  return names[order], places[encoded.indices.to_numpy()]


def _keys(rows):
  """Returns the keys of the moments of rows, and the order that sorts them.

  Returns:
    (N,) order by path, start, end and the rows' own; in this order the paths,
    starts and ends in µs, the number of equal rows before each, and texts.
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
  """Returns the moments of all shelves.

  Args:
    shelves: List of paths, starts, ends, repeats and texts, as `_keys`.

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
  # A caption may come with the picture, with the sound, or with both.
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
