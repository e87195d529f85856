"""The files of a folder of records, beside the records themselves.

`dataset_info.json` describes every set of shards of the folder; `splits/` holds
lists of ids; unfinished shards have temporary names.
"""

from collections.abc import Iterator, Sequence
import contextlib
import fcntl
import glob
import json
import os
import re

from vatt_tf.core import file_utils
from vatt_tf.input_pipeline.records import writing
from vatt_tf.media import journal as journal_lib
from vatt_tf.media import manifest, planning, text_files

INFO_FILE = 'dataset_info.json'
SPLITS_FOLDER = 'splits'

FORMAT_VERSION = 1


def write_info(output_dir: str, info: dict) -> None:
  """Writes `dataset_info.json`."""
  text = json.dumps(info, indent=2, ensure_ascii=False) + '\n'
  file_utils.write_text(os.path.join(output_dir, INFO_FILE), text)


def read_info(output_dir: str) -> dict:
  """Returns the content of `dataset_info.json`; without one, no splits.

  Raises:
    ValueError: The file holds something else.
  """
  path = os.path.join(output_dir, INFO_FILE)
  if not os.path.exists(path):
    return {'format_version': FORMAT_VERSION, 'splits': {}}
  text = text_files.read_text(path)
  try:
    info = json.loads(text)
    info['splits'].keys()
  except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as e:
    raise ValueError(
      f'{path} is not what ingest writes. Move it away, or give another '
      '`output_dir`.'
    ) from e
  return info


def find_shards(output_dir: str, name: str) -> list[str]:
  """Returns the paths of all shards of a name, whatever their number."""
  pattern = os.path.join(
    glob.escape(output_dir), f'{glob.escape(name)}-*-of-*.tfrecord'
  )
  form = re.compile(re.escape(name) + r'-\d{5}-of-\d{5}\.tfrecord')
  return [
    path
    for path in sorted(glob.glob(pattern))
    if form.fullmatch(os.path.basename(path))
  ]


def find_temporary_shards(output_dir: str, name: str) -> list[str]:
  """Returns the paths of unfinished shards, which a killed run has left."""
  form = re.compile(
    r'\.' + re.escape(name) + r'-\d{5}-of-\d{5}\.tfrecord\.\d+\.part'
  )
  return [
    os.path.join(output_dir, file)
    for file in sorted(os.listdir(output_dir))
    if form.fullmatch(file)
  ]


def split_path(output_dir: str, split: str) -> str:
  """Returns the path of a list of ids."""
  return os.path.join(output_dir, SPLITS_FOLDER, f'{split}.txt')


def write_splits(
  output_dir: str,
  segments: Sequence[manifest.Segment],
  plan: planning.Plan,
  journal: journal_lib.Journal,
) -> dict[str, int]:
  """Writes the lists of ids.

  Args:
    output_dir: Folder of the shards.
    segments: Segments of the manifest or folder.
    plan: Plan of the work, all of which is done.
    journal: Journal of the work.

  Returns:
    Number of ids in each list, by the name of the list.
  """
  ids = {split: [] for segment in segments for split in segment.splits}
  for work, line in zip(plan.work, journal.tasks):
    for split in work.segment.splits:
      ids[split] += line.get('ids', [])
  for split, names in ids.items():
    file_utils.write_text(
      split_path(output_dir, split),
      ''.join(f'{name}\n' for name in sorted(names)),
    )
  return {split: len(names) for split, names in sorted(ids.items())}


@contextlib.contextmanager
def lock(folder: str) -> Iterator[None]:
  """Locks a folder against other processes that use this lock."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
  finally:
    os.close(descriptor)


def is_complete(output_dir: str, entry: dict, name: str) -> bool:
  """Returns whether all shards and lists of ids exist.

  Args:
    output_dir: Folder of the shards.
    entry: Entry of the shards in `dataset_info.json`.
    name: Beginning of the shards' names.
  """
  count = len(entry['shard_lengths'])
  paths = [
    writing.shard_path(output_dir, name, i, count) for i in range(count)
  ] + _split_paths(output_dir, entry)
  return all(map(os.path.exists, paths))


def _split_paths(output_dir: str, entry: dict) -> list[str]:
  return [
    split_path(output_dir, split) for split in entry.get('split_sizes', ())
  ]


def remove_shards(output_dir: str, name: str) -> None:
  """Removes every file of a split but `labels.txt`."""
  entry = read_info(output_dir)['splits'].get(name, {})
  for path in (
    *find_shards(output_dir, name),
    *_split_paths(output_dir, entry),
    *find_temporary_shards(output_dir, name),
    os.path.join(output_dir, f'{name}.skipped.csv'),
    journal_path(output_dir, name),
  ):
    if os.path.exists(path):
      os.remove(path)
  with lock(output_dir):
    info = read_info(output_dir)
    if info['splits'].pop(name, None) is not None:
      write_info(output_dir, info)


def journal_path(output_dir: str, name: str) -> str:
  """Returns the path of the journal of an ingest."""
  return os.path.join(output_dir, f'{name}.progress.jsonl')
