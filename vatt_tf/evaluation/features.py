"""Frozen features of all clips of a data set, for probes and pictures.

The clips of a video, the windows that the input pipeline takes of one record
and the records that have one id, are rows of one video.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import modalities as modality_table
from vatt_tf.evaluation import outputs

# Which tower gives what; captions are no clips.
MODALITY_OF = {
  key: modality
  for modality, row in modality_table.MODALITIES.items()
  if modality != modality_table.TEXT
  for key in (row.feature, *modality_table.embeddings_of(modality).values())
}


class Features(NamedTuple):
  """Features of the clips of N videos.

  Attributes:
    values: Dictionary from the name of a feature to (V, D) float32, a row for
      each clip. Clips without the modality have rows too, of no meaning.
    videos: (V,) int64 array, in [0, N): the video of each clip.
    has_input: Dictionary from modality to (V,) bool: the clip has it.
    ids: List of N strings, in the order of the data set.
    labels: (N,) int64, (N, num_classes) float32, or None without labels.
  """

  values: dict[str, np.ndarray]
  videos: np.ndarray
  has_input: dict[str, np.ndarray]
  ids: list[str]
  labels: np.ndarray | None


def extract(
  model: tf_keras.Model, dataset: tf.data.Dataset, feature_names: Sequence[str]
) -> Features:
  """Runs the towers that the features need over a data set.

  Args:
    model: A `models.vatt.VATT`, or a `models.classification.Classifier`, whose
      tower is taken.
    dataset: Iterable of dictionaries of batches, as the input pipeline gives
      them in evaluation, with `example_id`; `label` is optional.
    feature_names: Names, keys of `MODALITY_OF`: pooled features of the towers
      (`video_feature`) and embeddings (`video_vt`), not normalised.

  Returns:
    `Features`.

  Raises:
    ValueError: An unknown feature, or one that the model has not; a record
      without an id, records of one id with different labels; the data set is
      empty, or a feature is not finite.
  """
  unknown = [name for name in feature_names if name not in MODALITY_OF]
  if unknown or not feature_names:
    raise ValueError(
      f'`features` must be among {", ".join(MODALITY_OF)}. '
      f'Received: features={list(feature_names)}'
    )
  modalities = sorted({MODALITY_OF[name] for name in feature_names})
  if not set(modalities) <= set(model.modalities):
    raise ValueError(
      f'The model has the modalities {", ".join(model.modalities)} alone. '
      f'Received: features={list(feature_names)}'
    )

  def run(features, training):
    del training  # of frozen features
    found = {}
    for modality in modalities:
      key = model.towers[modality].input_name
      if key not in features:
        raise ValueError(
          f'`dataset` must have the input {key!r} of the {modality} tower, '
          f'such as `make_dataset.{modality}`. Received: {sorted(features)}'
        )
      found.update(model.embed(modality, features[key]))
    return found

  kept = [f'{modality}_mask' for modality in modalities]
  kept += [names.LABEL, names.EXAMPLE_ID]
  rows = outputs.collect(run, dataset, feature_names, kept)
  absent = [name for name in feature_names if name not in rows]
  if absent:
    raise ValueError(
      f'The model does not give {", ".join(absent)}: its loss has no term for '
      'that. Choose other `features`, such as video_feature.'
    )
  num_rows = len(rows[feature_names[0]])
  ids, videos = _videos(rows, num_rows)
  has_input = {
    modality: rows.get(f'{modality}_mask', np.ones([num_rows], bool))
    for modality in modalities
  }
  values = {name: rows[name] for name in feature_names}
  for name, value in values.items():
    _check_finite(name, value, has_input[MODALITY_OF[name]], videos, ids)
  return Features(values, videos, has_input, ids, _labels(rows, videos, ids))


def concatenate(first: Features, second: Features) -> Features:
  """Features of two data sets as one; a video that both have is one video.

  Args:
    first: `Features`.
    second: `Features` of the same names.

  Returns:
    `Features`.

  Raises:
    ValueError: A video has different labels in the two.
  """
  numbers = {name: i for i, name in enumerate(first.ids)}
  ids = list(first.ids)
  moved = []
  for name in second.ids:
    if name not in numbers:
      numbers[name] = len(ids)
      ids.append(name)
    moved.append(numbers[name])
  moved = np.asarray(moved, np.int64)
  labels = np.concatenate(
    [first.labels, second.labels[moved >= len(first.ids)]]
  )
  differs = np.flatnonzero(
    (labels[moved] != second.labels).reshape([len(moved), -1]).any(axis=1)
  )
  if differs.size:
    raise ValueError(_two_labels([second.ids[i] for i in differs]))

  def joined(one, other):
    return {key: np.concatenate([one[key], other[key]]) for key in one}

  return Features(
    joined(first.values, second.values),
    np.concatenate([first.videos, moved[second.videos]]),
    joined(first.has_input, second.has_input),
    ids,
    labels,
  )


def _videos(rows, num_rows):
  """The names of the videos, and the number of each row's: (V,) int64."""
  values = rows.get(names.EXAMPLE_ID)
  if values is None:
    values = np.full([num_rows], b'')
  row_ids = [outputs.as_text(value) for value in values.tolist()]
  unnamed = [i for i, value in enumerate(row_ids) if not value]
  if unnamed:
    raise ValueError(
      'Every record must have an `example/id`, which says which clips are of '
      f'one video. Received: {len(unnamed)} of {num_rows} rows have none, the '
      f'first is row {unnamed[0]}. `vatt_tf.ingest` writes them.'
    )
  ids = list(dict.fromkeys(row_ids))
  numbers = {name: i for i, name in enumerate(ids)}
  return ids, np.asarray([numbers[name] for name in row_ids], np.int64)


def _labels(rows, videos, ids):
  """The label of each video, or None."""
  if names.LABEL not in rows:
    return None
  values = rows[names.LABEL]
  if values.ndim == 1:
    values = values.astype(np.int64)
  first = np.unique(videos, return_index=True)[1]
  labels = values[first]
  differs = (labels[videos] != values).reshape([len(videos), -1]).any(axis=1)
  if differs.any():
    found = dict.fromkeys(ids[i] for i in videos[differs])
    raise ValueError(_two_labels(found))
  return labels


def _two_labels(found):
  return (
    'Records of one `example/id` must have one label. Received: several for '
    f'{outputs.enumerate_names(found)}. Give each clip its own id, or mend '
    'the labels.'
  )


def _check_finite(name, value, has_input, videos, ids):
  is_wrong = ~np.isfinite(value).all(axis=1) & has_input
  if is_wrong.any():
    found = dict.fromkeys(ids[i] for i in videos[is_wrong])
    raise ValueError(
      f'`{name}` must be finite. Received: {np.sum(is_wrong)} of {len(value)} '
      f'are not, those of {outputs.enumerate_names(found)}. Look at the '
      'checkpoint that made them.'
    )
