"""The lists of Kinetics-400, -600 and -700."""

from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads train.csv, val.csv (validate.csv) or test.csv.

  The classes are those of train.csv.
  """
  path = files.need(
    *{
      'train': ['train.csv'],
      'validation': ['validate.csv', 'val.csv', 'validation.csv'],
      'test': ['test.csv'],
    }[split]
  )
  # The test list of Kinetics-400 was first published without classes.
  columns = ['youtube_id', 'time_start', 'time_end']
  segments = []
  for line, row in list_files.csv_rows(path, columns):
    video = row['youtube_id']
    start = list_files.parse_seconds(row['time_start'], path, line)
    end = list_files.parse_seconds(row['time_end'], path, line)
    label = ' '.join((row.get('label') or '').split())
    segments.append(
      media.segment(
        video,
        (start, end),
        (media_folder.clip_name(video, start, end),),
        labels=(label,) if label else (),
      )
    )
  names = {label for segment in segments for label in segment.labels}
  train_path = files.find('train.csv')
  if train_path and train_path != path:
    names |= {
      ' '.join(row['label'].split())
      for _, row in list_files.csv_rows(train_path, ['label'])
    }
  return official_lists.OfficialLists(
    segments, sorted(names), media.missing, path
  )


# By the number of classes.
DATASETS = {
  size: official_lists.Dataset(
    f'Kinetics-{size}',
    _read,
    ('train', 'validation', 'test'),
    num_classes=size,
    can_be_cut=True,
  )
  for size in (400, 600, 700)
}
