"""The files of an index: vectors, and the moments that they belong to.

    <index>/
      index.json          its content and model
      moments.parquet     id, path, start, end, caption; a row is a moment
      <space>.<modality>/
        vectors.npy       (N, D) float32, unit rows
        rows.npy          (N,) int64, the moment of each
        scann/            where the search is not exact

A moment is a part of a file. It has up to two vectors in each space, that of
its picture and that of its sound; each kind is searched on its own, so that a
search for sounds finds as many as it was asked for.
"""

import json
import os

from vatt_tf.embedding import table
from vatt_tf.retrieval_index import nearest

VIDEO = table.VIDEO
AUDIO = table.AUDIO
MODALITIES = (VIDEO, AUDIO)

# The spaces that vectors are compared in.
VIDEO_AUDIO = 'video_audio'
VIDEO_TEXT = 'video_text'
SPACES = (VIDEO_AUDIO, VIDEO_TEXT)
FORMAT = 1
DESCRIPTION = 'index.json'
MOMENTS = 'moments.parquet'
VECTORS = 'vectors.npy'
ROWS = 'rows.npy'
SCANN = 'scann'


def describe(path: str) -> str:
  """Returns lines for people on the content of an index."""
  description = read_description(path)
  lines = [
    f'{path}: {description["num_moments"]:,} moments, model '
    f'{description["model_version"]}'
  ]
  for shelf in description['shelves']:
    how = 'exact search' if shelf['method'] == nearest.EXACT else 'ScaNN'
    lines.append(
      f'  {shelf["modality"]} in the {shelf["space"]} space: '
      f'{shelf["num_vectors"]:,} vectors of {shelf["num_dimensions"]}, {how}'
    )
  return '\n'.join(lines)


def shelf_name(space: str, modality: str) -> str:
  """Returns the name of the folder of a modality in a space."""
  return f'{space}.{modality}'


def read_description(path: str) -> dict:
  """Returns the content of `index.json`.

  Raises:
    ValueError: The file is missing, or has another format.
  """
  try:
    with open(os.path.join(path, DESCRIPTION), encoding='utf-8') as file:
      description = json.load(file)
  except FileNotFoundError as e:
    raise ValueError(
      f'`index` must be a folder that `python -m vatt_tf.search build` wrote. '
      f'Received: index={path!r}, which holds no {DESCRIPTION}'
    ) from e
  if description.get('format') != FORMAT:
    raise ValueError(
      f'`index` must have format {FORMAT}: build it again. Received: '
      f'{path!r} of format {description.get("format")}'
    )
  return description
