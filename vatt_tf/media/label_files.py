"""The classes of a folder of records: `labels.txt`."""

from collections.abc import Sequence
import os

from vatt_tf.core import file_utils, plain_text
from vatt_tf.media import errors, ingest_options, manifest, text_files

LABELS_FILE = 'labels.txt'


def read_labels(path: str) -> list[str]:
  """Returns the class names of a `labels.txt`: line i names class i.

  Raises:
    errors.MediaError: The file cannot be read, or has an empty line or a class
      twice.
  """
  names = text_files.read_text(path).split('\n')
  names = [plain_text.clean_name(name) for name in names]
  if names and not names[-1]:
    names.pop()
  if '' in names or len(set(names)) < len(names):
    raise errors.MediaError(
      f'{path} must have one class per line, each once (in one Unicode form, '
      'without invisible marks), and no empty line.'
    )
  return names


def load_labels(
  options: ingest_options.Options,
  output_dir: str,
  segments: Sequence[manifest.Segment],
) -> tuple[str, list[str]]:
  """Returns the path and names of the classes; writes a missing `labels.txt`.

  Args:
    options: Options of the ingest.
    output_dir: Folder of the shards.
    segments: Segments of the manifest or folder.

  Returns:
    Path of `labels.txt` and the classes in its order; '' and none if the
    segments have no labels.

  Raises:
    ValueError: The manifest has classes that the file lacks, or the folder has
      other classes.
  """
  used = {label for segment in segments for label in segment.labels}
  own = os.path.join(output_dir, LABELS_FILE)
  path = options.labels or own
  if options.labels or os.path.exists(own):
    if not used and not options.labels:
      return '', []
    names = read_labels(path)
    unknown = sorted(used - set(names))
    if unknown:
      raise ValueError(
        f'{len(unknown)} labels of {options.manifest} are not in {path}: '
        f'{", ".join(unknown[:5])}{", ..." if len(unknown) > 5 else ""}. It '
        f'has {len(names)}: {", ".join(names[:10])}'
        f'{", ..." if len(names) > 10 else ""}. Correct the manifest; or, to '
        'create the classes again, remove that file (or give another '
        '`output_dir`) and ingest every split again with --overwrite.'
      )
    if options.labels and not os.path.exists(own):
      file_utils.write_text(own, ''.join(f'{name}\n' for name in names))
    elif options.labels and read_labels(own) != names:
      raise ValueError(
        f'{own} has other classes than `labels`={options.labels}. Leave '
        '`labels` out, or give another `output_dir`.'
      )
    return own, names
  if not used:
    return '', []
  names = sorted(used)
  file_utils.write_text(own, ''.join(f'{name}\n' for name in names))
  return own, names
