"""The lists of AudioSet."""

import csv
import io
import os

from vatt_tf.media import text_files
from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads the csv of a split, with `#` lines, and class_labels_indices.csv."""
  names = {}
  classes_path = files.need('class_labels_indices.csv')
  columns = ['index', 'mid', 'display_name']
  for line, row in list_files.csv_rows(classes_path, columns):
    if row['index'] != str(len(names)):
      raise list_files.unexpected(
        classes_path, line, f'index {len(names)}', row['index']
      )
    names[row['mid']] = row['display_name']
  path = files.need(
    {
      'balanced_train': 'balanced_train_segments.csv',
      'unbalanced_train': 'unbalanced_train_segments.csv',
      'evaluation': 'eval_segments.csv',
    }[split]
  )
  segments = []
  text = io.StringIO(text_files.read_text(path), newline='')
  reader = csv.reader(text, skipinitialspace=True)
  for row in reader:
    if not row or row[0].startswith('#'):
      continue
    line = reader.line_num
    labels = row[3].split(',') if len(row) == 4 else []
    unknown = [label for label in labels if label not in names]
    if not labels or unknown:
      expected = (
        'YTID, start_seconds, end_seconds, "classes of '
        f'{os.path.basename(classes_path)}"'
      )
      raise list_files.unexpected(path, line, expected, ', '.join(row))
    start, end = (
      list_files.parse_seconds(cell, path, line) for cell in row[1:3]
    )
    milliseconds = f'{row[0]}_{round(start * 1000)}_{round(end * 1000)}'
    segments.append(
      media.segment(
        row[0],
        (start, end),
        (
          milliseconds,
          media_folder.clip_name(row[0], start, end),
          f'Y{row[0]}',
        ),
        labels=tuple(names[label] for label in labels),
      )
    )
  return official_lists.OfficialLists(
    segments, list(names.values()), media.missing, path
  )


DATASET = official_lists.Dataset(
  'AudioSet',
  _read,
  ('balanced_train', 'unbalanced_train', 'evaluation'),
  num_classes=527,
  can_be_cut=True,
)
