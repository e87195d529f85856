"""The lists of ImageNet."""

import os
import re

from vatt_tf.media import manifest
from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads folders by wnid; for validation also a flat folder with its csv."""
  names = sorted(
    name for name in os.listdir(files.folder) if re.fullmatch(r'n\d{8}', name)
  )
  path = files.folder
  segments = []
  if names:
    for name in names:
      for picture in sorted(os.listdir(os.path.join(path, name))):
        stem, extension = os.path.splitext(picture)
        if extension.lower() in manifest.PICTURE_EXTENSIONS:
          segments.append(media.segment(f'{name}/{stem}', labels=(name,)))
  else:
    path = files.need('LOC_val_solution.csv')
    for _, row in list_files.csv_rows(path, ['ImageId', 'PredictionString']):
      label = row['PredictionString'].split()[0]
      segments.append(media.segment(row['ImageId'], labels=(label,)))
    names = sorted({segment.labels[0] for segment in segments})
  return official_lists.OfficialLists(segments, names, media.missing, path)


DATASET = official_lists.Dataset(
  'ImageNet',
  _read,
  ('train', 'validation'),
  num_classes=1000,
  extension='.jpeg',
)
