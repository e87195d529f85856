"""Frozen features of all clips of a data set, for probes and plots.

The windows that the input pipeline takes from one record, and the records that
have one id, are rows of one video.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import modalities as modality_table
from vatt_tf.evaluation import outputs

# The tower that computes each feature. Captions are not clips.
MODALITY_OF = {
  key: modality
  for modality, row in modality_table.MODALITIES.items()
  if modality != modality_table.TEXT
  for key in (row.feature, *modality_table.embeddings_of(modality).values())
}


class Features(NamedTuple):
  """Features of the clips of N videos.

  Attributes:
    values: (V, D) float32 for each feature name: a row for each clip. Rows of
      clips without the modality have no meaning.
    videos: (V,) int64: the video of each clip, in [0, N).
    has_input: (V,) bool for each modality: whether the clip has it.
    ids: Ids of the N videos, in the order of the data set.
    labels: (N,) int64 or (N, num_classes) float32, or None without labels.
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
      tower is used.
    dataset: Batches as dictionaries, as the input pipeline yields them in
      evaluation, with `example_id`; `label` is optional.
    feature_names: Keys of `MODALITY_OF`: pooled features of the towers
      (`video_feature`) and embeddings (`video_vt`), not normalised.

  Returns:
    `Features`.

  Raises:
    ValueError: A feature is unknown, not finite, or not an output of the model;
      a record has no id, or records of one id have different labels; or the
      data set is empty.
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
      f'The model has only the modalities {", ".join(model.modalities)}. '
      f'Received: features={list(feature_names)}'
    )

  def run(features, training):
    del training  # the features are frozen
    embeddings = {}
    for modality in modalities:
      key = model.towers[modality].input_name
      if key not in features:
        raise ValueError(
          f'`dataset` must have the input {key!r} of the {modality} tower, '
          f'such as `make_dataset.{modality}`. Received: {sorted(features)}'
        )
      embeddings.update(model.embed(modality, features[key]))
    return embeddings

  entry_names = [f'{modality}_mask' for modality in modalities]
  entry_names += [names.LABEL, names.EXAMPLE_ID]
  rows = outputs.collect(run, dataset, feature_names, entry_names)
  absent = [name for name in feature_names if name not in rows]
  if absent:
    raise ValueError(
      f'The model does not compute {", ".join(absent)}, because its loss has '
      'no such term. Choose other `features`, such as video_feature. '
      f'Received: features={list(feature_names)}'
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
  """Concatenates the features of two data sets, and merges shared videos.

  Args:
    first: Features of the first data set.
    second: Features of the second data set, with the same names.

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

  def joined(arrays, more_arrays):
    return {
      key: np.concatenate([value, more_arrays[key]])
      for key, value in arrays.items()
    }

  return Features(
    joined(first.values, second.values),
    np.concatenate([first.videos, moved[second.videos]]),
    joined(first.has_input, second.has_input),
    ids,
    labels,
  )


def _videos(rows, num_rows):
  """The names of the videos, and (V,) int64, the number of each row's video."""
  values = rows.get(names.EXAMPLE_ID)
  if values is None:
    values = np.full([num_rows], b'')
  row_ids = [outputs.as_text(value) for value in values.tolist()]
  unnamed = [i for i, value in enumerate(row_ids) if not value]
  if unnamed:
    raise ValueError(
      'Every record must have an `example/id`, which tells the clips of one '
      f'video. Received: {len(unnamed)} of {num_rows} rows have none, the '
      f'first is row {unnamed[0]}. `vatt_tf.ingest` writes the ids.'
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
    video_ids = dict.fromkeys(ids[i] for i in videos[differs])
    raise ValueError(_two_labels(video_ids))
  return labels


def _two_labels(video_ids):
  return (
    'Records of one `example/id` must have one label. Received: several for '
    f'{outputs.enumerate_names(video_ids)}. Give each clip its own id, or '
    'correct the labels.'
  )


def _check_finite(name, value, has_input, videos, ids):
  is_invalid = ~np.isfinite(value).all(axis=1) & has_input
  if is_invalid.any():
    video_ids = dict.fromkeys(ids[i] for i in videos[is_invalid])
    raise ValueError(
      f'`{name}` must be finite. Received: {np.sum(is_invalid)} of '
      f'{len(value)} are not, from {outputs.enumerate_names(video_ids)}. Look '
      'at the '
      'checkpoint that computed them.'
    )
