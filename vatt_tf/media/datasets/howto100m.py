"""The lists of HowTo100M."""

from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads HowTo100M_v1.csv, and finds caption.json or raw captions."""
  path = files.need('HowTo100M_v1.csv')
  segments = [
    media.segment(row['video_id'])
    for _, row in list_files.csv_rows(path, ['video_id'])
  ]
  captions = files.find('caption.json', 'raw_caption.json', 'raw_caption')
  return official_lists.OfficialLists(
    segments, [], media.missing, path, captions=captions, clip_seconds=10.0
  )


DATASET = official_lists.Dataset('HowTo100M', _read, ('train',))
