"""The lists of ESC-50 and ESC-10."""

import functools
import os

from vatt_tf.media import manifest
from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles,
  media: media_folder.MediaFolder,
  split: str,
  is_10: bool,
) -> official_lists.OfficialLists:
  """Reads esc50.csv: the folds of a cross-validation, and ESC-10."""
  path = files.need('esc50.csv')
  columns = ['filename', 'fold', 'target', 'category', 'esc10']
  rows = [
    row
    for _, row in list_files.csv_rows(path, columns)
    if not is_10 or row['esc10'].strip().lower() == 'true'
  ]
  folds = {row['fold'] for row in rows}
  segments = [
    media.segment(
      os.path.splitext(row['filename'])[0],
      labels=(row['category'],),
      # The records of one fold are no more than a part of each list.
      splits=() if split else manifest.fold_splits([row['fold']], folds),
    )
    for row in rows
    if split in ('', f'fold{row["fold"]}')
  ]
  order = {row['category']: int(row['target']) for row in rows}
  names = sorted(order, key=order.get)
  return official_lists.OfficialLists(segments, names, media.missing, path)


def _dataset(num_classes: int, is_10: bool) -> official_lists.Dataset:
  return official_lists.Dataset(
    f'ESC-{num_classes}',
    functools.partial(_read, is_10=is_10),
    ('fold1', 'fold2', 'fold3', 'fold4', 'fold5'),
    num_classes,
    has_lists=True,
    extension='.wav',
  )


ESC50 = _dataset(50, is_10=False)
ESC10 = _dataset(10, is_10=True)
