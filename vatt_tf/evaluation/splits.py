"""Splits of the videos into those a probe learns from and is tested on.

A data set with several splits is one set of records with lists of ids beside
it, as `vatt_tf.ingest` writes them: `splits/train_1.txt` and
`splits/test_1.txt`, one id per line, and so on for each split or fold.
"""

from collections.abc import Sequence
import os
import re
from typing import NamedTuple

from absl import logging
import gin
import numpy as np
import tensorflow as tf

from vatt_tf.evaluation import outputs

_LIST = re.compile(r'(train|test)_(.+)\.txt')


class Split(NamedTuple):
  """A split of videos.

  Attributes:
    name: Name of the split.
    train: (n,) int64: numbers of the training videos.
    test: (m,) int64: numbers of the test videos.
    num_without_record: Number of ids of the test list that have no record.
  """

  name: str
  train: np.ndarray
  test: np.ndarray
  num_without_record: int


@gin.register
class ListedSplits:
  """Splits that are given as lists of ids.

  Calling it with the ids of all videos returns a list of `Split`. A video that
  no list of a split names is not part of the split.

  Args:
    folder: Folder of `train_NAME.txt` and `test_NAME.txt`, one id per line.
    names: Names of the splits to use. None means all in the folder.
    max_unknown_share: Largest share of a list's ids that may have no record.
  """

  def __init__(
    self,
    folder: str,
    names: Sequence[str] | None = None,
    max_unknown_share: float = 0.05,
  ):
    self._folder = folder
    self._names = None if names is None else [str(name) for name in names]
    self._max_unknown_share = max_unknown_share

  def __call__(self, ids):
    """Makes the splits.

    Args:
      ids: Ids of the N videos.

    Returns:
      List of `Split`.

    Raises:
      ValueError: A list is missing or empty, both lists of a split name an id,
        or too many ids have no record.
    """
    names = self._listed_names()
    if self._names is not None:
      absent = [name for name in self._names if name not in names]
      if absent or not self._names:
        raise ValueError(
          f'`names` must be splits that {self._folder} has: '
          f'{", ".join(names)}. Received: names={self._names}'
        )
      names = self._names
    numbers = {name: i for i, name in enumerate(ids)}
    splits = []
    for name in names:
      train, _ = self._read('train', name, numbers)
      test, num_unknown = self._read('test', name, numbers)
      shared = sorted(set(train) & set(test))
      if shared:
        raise ValueError(
          f'The lists train_{name}.txt and test_{name}.txt in {self._folder} '
          'must have no id in common. Received: '
          f'{outputs.enumerate_names([ids[i] for i in shared])}'
        )
      arrays = [np.asarray(part, np.int64) for part in (train, test)]
      splits.append(Split(name, *arrays, num_unknown))
    return splits

  def _listed_names(self):
    """The names for which the folder has both lists."""
    parts = {}
    if tf.io.gfile.isdir(self._folder):
      for file in tf.io.gfile.listdir(self._folder):
        match = _LIST.fullmatch(file)
        if match:
          parts.setdefault(match.group(2), set()).add(match.group(1))
    names = sorted(name for name, kinds in parts.items() if len(kinds) == 2)
    if not names:
      raise ValueError(
        f'There are no lists train_1.txt and test_1.txt in {self._folder}. '
        '`vatt_tf.ingest` writes them to `splits` beside the records, from the '
        'column `splits` or `fold` of its manifest. '
        f'Received: folder={self._folder!r}'
      )
    return names

  def _read(self, part, name, numbers):
    """The numbers of a list's videos, and of its ids without a record."""
    path = os.path.join(self._folder, f'{part}_{name}.txt')
    with tf.io.gfile.GFile(path) as file:
      listed = [line.strip() for line in file.read().splitlines()]
    listed = list(dict.fromkeys(line for line in listed if line))
    if not listed:
      raise ValueError(f'The list {path} is empty.')
    unknown = [name for name in listed if name not in numbers]
    if unknown:
      text = (
        f'{len(unknown)} of {len(listed)} ids of {path} have no record: '
        f'{outputs.enumerate_names(unknown)}'
      )
      if len(unknown) > self._max_unknown_share * len(listed):
        hint = (
          'the list belongs to another data set, or the records have other '
          f'ids, such as {next(iter(numbers), None)!r}'
          if len(unknown) == len(listed)
          else 'make the missing records, or allow a larger share'
        )
        raise ValueError(
          f'{text}. More than `max_unknown_share`={self._max_unknown_share} '
          f'allows: {hint}.'
        )
      logging.warning('%s.', text)
    return [numbers[name] for name in listed if name in numbers], len(unknown)
