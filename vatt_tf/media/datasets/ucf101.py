"""The lists of UCF101."""

import os

from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _numbered(
  files: list_files.ListFiles, form: str, count: int
) -> list[tuple[int, str]]:
  """Returns the existing lists of splits 1, 2, ...; the first must exist."""
  files.need(form.format(1))
  paths = [(i, files.find(form.format(i))) for i in range(1, count + 1)]
  return [(i, path) for i, path in paths if path]


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads classInd.txt, trainlist01.txt, testlist01.txt and so on."""
  classes_path = files.need('classInd.txt')
  names = []
  for line, text in list_files.lines(classes_path):
    index, _, name = text.partition(' ')
    if index != str(len(names) + 1) or not name:
      raise list_files.unexpected(
        classes_path, line, f'`{len(names) + 1} ClassName`', text
      )
    names.append(name.strip())
  segments = []
  for part in ('train', 'test'):
    for number, path in _numbered(files, part + 'list{:02d}.txt', 3):
      for line, text in list_files.lines(path):
        label, _, name = text.split()[0].partition('/')
        if label not in names or not name:
          expected = (
            f'`Class/video.avi` with a class of '
            f'{os.path.basename(classes_path)}'
          )
          raise list_files.unexpected(path, line, expected, text)
        segments.append(
          media.segment(
            os.path.splitext(name)[0],
            labels=(label,),
            splits=(f'{part}_{number}',),
          )
        )
  return official_lists.OfficialLists(
    segments, names, media.missing, classes_path
  )


DATASET = official_lists.Dataset(
  'UCF101', _read, num_classes=101, has_lists=True, extension='.avi'
)
