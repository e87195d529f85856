"""The lists of Moments in Time."""

import csv
import io
import os

from vatt_tf.media import text_files
from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads trainingSet.csv or validationSet.csv, and moments_categories.txt."""
  classes_path = files.need('moments_categories.txt')
  names = {}
  for line, text in list_files.lines(classes_path):
    name, _, index = text.rpartition(',')
    if not name or not index.strip().isdigit():
      raise list_files.unexpected(classes_path, line, '`category,index`', text)
    names[name.strip()] = int(index)
  names = sorted(names, key=names.get)
  path = files.need(
    'trainingSet.csv' if split == 'train' else 'validationSet.csv'
  )
  segments = []
  reader = csv.reader(io.StringIO(text_files.read_text(path), newline=''))
  for row in reader:
    if not row:
      continue
    if len(row) < 2 or row[1] not in names:
      expected = f'`file,category` with one of {os.path.basename(classes_path)}'
      raise list_files.unexpected(
        path, reader.line_num, expected, ','.join(row)
      )
    stem = os.path.splitext(row[0])[0]
    if '/' not in stem:
      stem = f'{row[1]}/{stem}'
    segments.append(media.segment(stem, labels=(row[1],)))
  return official_lists.OfficialLists(segments, names, media.missing, path)


DATASET = official_lists.Dataset(
  'Moments in Time', _read, ('train', 'validation'), num_classes=339
)
