"""The lists of HMDB51."""

import glob
import os

from vatt_tf.media.datasets import list_files, media_folder, official_lists


def _read(
  files: list_files.ListFiles, media: media_folder.MediaFolder, split: str
) -> official_lists.OfficialLists:
  """Reads CLASS_test_split1.txt and so on: 1 is training, 2 test, 0 neither."""
  form = '*_test_split{}.txt'
  first = files.need(form.format(1))
  folder = glob.escape(os.path.dirname(first))
  segments, names = [], set()
  for number in (1, 2, 3):
    for path in sorted(glob.glob(os.path.join(folder, form.format(number)))):
      label = os.path.basename(path).rsplit('_test_split', 1)[0]
      names.add(label)
      for line, text in list_files.lines(path):
        name, _, kind = text.rpartition(' ')
        if not name or kind not in ('0', '1', '2'):
          raise list_files.unexpected(
            path, line, '`video.avi` and 0, 1 or 2', text
          )
        stem = os.path.splitext(name.strip())[0]
        part = {'0': '', '1': 'train', '2': 'test'}[kind]
        # The same name may be in several classes.
        segments.append(
          media.segment(
            f'{label}/{stem}',
            labels=(label,),
            splits=(f'{part}_{number}',) if part else (),
          )
        )
  return official_lists.OfficialLists(
    segments, sorted(names), media.missing, first
  )


DATASET = official_lists.Dataset(
  'HMDB51', _read, num_classes=51, has_lists=True, extension='.avi'
)
