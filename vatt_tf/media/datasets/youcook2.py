"""The lists of YouCook2."""

import os

from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads youcookii_annotations_trainval.json, or MIL-NCE's validation csv."""
  json_name = 'youcookii_annotations_trainval.json'
  csv_name = 'validation_youcook.csv'
  is_validation = split == 'validation'
  path = files.need(json_name, *([csv_name] if is_validation else []))
  segments = []

  def add(video, start, end, text):
    # Some files state the end before the start.
    times = min(start, end), max(start, end)
    captions = (list_files.clean_caption(text),)
    segments.append(media.segment(video, times, captions=captions))

  if os.path.basename(path) == csv_name:
    for line, row in list_files.csv_rows(
      path, ['video_id', 'start', 'end', 'text']
    ):
      start, end = (
        list_files.parse_seconds(row[key], path, line)
        for key in ('start', 'end')
      )
      add(row['video_id'], start, end, row['text'])
  else:
    subset = {'train': 'training', 'validation': 'validation'}[split]
    with list_files.check_layout(path, 'database'):
      database = dict(list_files.read_json(path)['database'])
    for video, entry in database.items():
      with list_files.check_layout(path, video):
        if entry['subset'] == subset:
          for part in entry['annotations']:
            add(video, *part['segment'], part['sentence'])
  return official_lists.OfficialLists(segments, [], media.missing, path)


DATASET = official_lists.Dataset('YouCook2', _read, ('train', 'validation'))
