"""Checkpoints in a folder: all of them, the complete ones, and the newest.

The files in a folder decide which checkpoints it holds. TensorFlow's file
`checkpoint` only mentions them: after a power cut it may be empty or outdated,
and a copy may lack it.
"""

from collections.abc import Iterable
import math
import os
import re
from typing import Any

from absl import logging
import tensorflow as tf

from vatt_tf.core import file_utils

OBJECT_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
INDEX = '.index'

_STATE = 'checkpoint'
_DATA = re.compile(r'\.data-(\d+)-of-(\d+)$')
_FILE = re.compile(r'(.+)(\.index|\.data-\d+-of-\d+)')
_STEP = re.compile(r'-(\d+)$')
_OWN = re.compile(r'ckpt-\d+')
# `ckpt-N_temp` holds the parts of a checkpoint until it is complete.
_LEFTOVER = re.compile(r'.*ckpt-\d+_temp(_.*)?|checkpoint\.tmp[0-9a-f]+')
_DOWNLOAD_AGAIN = 'Download or copy it again, and compare its size.'


def step_of(prefix: str) -> int | None:
  """Returns the step in the name of a checkpoint `…-N`, or None."""
  match = _STEP.search(prefix)
  return int(match.group(1)) if match else None


def strip_file(path: str) -> str:
  """Returns the prefix of the checkpoint that a file is a part of."""
  return _DATA.sub('', path).removesuffix(INDEX)


def is_data(path: str) -> bool:
  """Returns whether a file holds arrays of a checkpoint."""
  return _DATA.search(path) is not None


def find(folder: str) -> list[str]:
  """Returns all checkpoints in a folder, complete or not.

  Args:
    folder: Path of a folder, which need not exist.

  Returns:
    Their prefixes in the order of their steps; those without a step come first.

  Raises:
    OSError: The folder cannot be read.
  """
  names = {
    match.group(1)
    for name in file_utils.list_folder(folder)
    if (match := _FILE.fullmatch(name))
  }
  ordered = sorted(names, key=lambda name: (step_of(name) or 0, name))
  return [os.path.join(folder, name) for name in ordered]


def files_of(prefix: str) -> list[str]:
  """Returns the files of a checkpoint, with the index first."""
  folder, prefix_name = os.path.split(prefix)
  names = [
    name
    for name in file_utils.list_folder(folder)
    if (match := _FILE.fullmatch(name)) and match.group(1) == prefix_name
  ]
  ordered = sorted(names, key=lambda name: (not name.endswith(INDEX), name))
  return [os.path.join(folder, name) for name in ordered]


def open_reader(prefix: str) -> Any:
  """Opens a checkpoint, after a check that its files have their full length.

  Args:
    prefix: Prefix of the checkpoint.

  Returns:
    The reader that `tf.train.load_checkpoint` returns.

  Raises:
    ValueError: A part of it is missing or damaged.
  """
  index = prefix + INDEX
  files = files_of(prefix)
  if index not in files:
    raise ValueError(
      f'There is no {index}, without which the data files cannot be read. '
      f'{_DOWNLOAD_AGAIN}'
    )
  try:
    reader = tf.train.load_checkpoint(file_utils.literal_path(prefix))
    shapes = reader.get_variable_to_shape_map()
    types = reader.get_variable_to_dtype_map()
  except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as e:
    # TensorFlow's C++ reader raises IndexError beyond the end of a file.
    raise ValueError(
      f'{index} is not the index of a TensorFlow checkpoint, or only a part '
      f'of one ({file_utils.reason(e)}). {_DOWNLOAD_AGAIN}'
    ) from e
  data = [path for path in files if path != index]
  expected = {int(path.rsplit('-', 1)[1]) for path in data}
  if not data or expected != {len(data)}:
    raise ValueError(
      f'The data of {index} are not beside it: expected all parts of '
      f'{prefix}.data-00000-of-00001 or alike. Received: {data}. Copy all '
      'files of the checkpoint into one folder.'
    )
  expected = sum(
    math.prod(shape) * types[name].size
    for name, shape in shapes.items()
    if types[name] != tf.string
  )
  size = sum(tf.io.gfile.stat(path).length for path in data)
  if size < expected:
    raise ValueError(
      f'The data of {index} are incomplete: {size:,} bytes, where its arrays '
      f'take {expected:,}. {_DOWNLOAD_AGAIN}'
    )
  return reader


def find_fault(prefix: str, read: bool = True) -> str | None:
  """Returns what is wrong with a checkpoint, or None if it is complete.

  Args:
    prefix: Prefix of the checkpoint.
    read: Whether to read all of it, which compares its checksums: a power cut
      may leave blocks of zeros in files of the right length. Remote files are
      not read, because they are written completely or not at all.
  """
  try:
    reader = open_reader(prefix)
    if read and not file_utils.is_remote(prefix):
      for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
  except (
    ValueError,
    OSError,
    IndexError,
    RuntimeError,
    tf.errors.OpError,
  ) as e:
    return file_utils.reason(e)
  return None


def newest(folder: str) -> str | None:
  """Returns the newest complete checkpoint of a folder.

  The newest checkpoint is that with the highest step; or, where the file
  `checkpoint` lists all checkpoints in the folder, the one that it names as the
  last. A warning is logged for each checkpoint that is skipped, and for a file
  `checkpoint` that is missing, damaged or outdated.

  Args:
    folder: Path of a folder, which need not exist.

  Returns:
    The prefix; None if the folder has no file of a checkpoint.

  Raises:
    ValueError: There are parts of checkpoints but no complete one; there is
      only the file `checkpoint`; or there are several without a step, so that
      the newest is unknown.
    OSError: The folder cannot be read.
  """
  prefixes = find(folder)
  if not prefixes:
    if _STATE in file_utils.list_folder(folder):
      raise ValueError(
        f'The folder {folder} has a file `{_STATE}`'
        f'{_mentioned(folder)}, but no checkpoint. Copy the files ckpt-N.index '
        f'and ckpt-N.data-… of the run to it, or delete the file `{_STATE}` to '
        'start without them.'
      )
    return None
  stems = {_STEP.sub('', prefix) for prefix in prefixes}
  if len(prefixes) > 1 and (
    len(stems) > 1 or any(step_of(prefix) is None for prefix in prefixes)
  ):
    return _named(folder, prefixes)
  faults = []
  last, listed = _read_state(folder)
  if {os.path.basename(prefix) for prefix in prefixes} <= listed:
    prefixes.sort(key=lambda prefix: os.path.basename(prefix) == last)
  for prefix in reversed(prefixes):
    fault = find_fault(prefix)
    if fault is None:
      for name, text in faults:
        logging.warning('%s is not complete and is skipped: %s', name, text)
      _warn_of_state(folder, prefix, bool(faults))
      return prefix
    faults.append((prefix, fault))
  raise ValueError(
    f'No checkpoint in {folder} is complete. '
    + ' '.join(f'{name}: {text}' for name, text in faults)
    + ' Copy their files to it again, or delete them to start without them.'
  )


def _named(folder, prefixes):
  """The checkpoint, of several without a step, that the state file names."""
  last, _ = _read_state(folder)
  why = f'The file `{_STATE}` must name one of the checkpoints in {folder}'
  for prefix in prefixes:
    if os.path.basename(prefix) == last:
      fault = find_fault(prefix)
      if fault is None:
        return prefix
      why = (
        f'{prefix}, which the file `{_STATE}` names, is not complete: {fault}'
      )
  raise ValueError(
    f'{why.rstrip(".")}. The names of the checkpoints do not show which is the '
    'newest. Give the prefix of one of them. Received: '
    f'{", ".join(prefix + INDEX for prefix in prefixes)}'
  )


def _read_state(folder):
  """Reads the file `checkpoint`.

  Args:
    folder: Folder of the file.

  Returns:
    The name of the checkpoint that was written last, or None; and the set of
    the names of all that the file lists. Names do not contain the folder that
    they had when the file was written.
  """
  try:
    with tf.io.gfile.GFile(os.path.join(folder, _STATE), 'rb') as file:
      text = file.read().decode('utf-8', errors='replace')
  except (OSError, tf.errors.OpError):
    return None, set()
  # Match whole lines only: a truncated line must not pass for a name.
  last, listed = (
    [
      os.path.basename(path)
      for path in re.findall(rf'^{key}: "(.*)"$', text, re.MULTILINE)
    ]
    for key in ('model_checkpoint_path', 'all_model_checkpoint_paths')
  )
  return last[0] if last else None, set(listed)


def _mentioned(folder):
  """The checkpoint that the file `checkpoint` names, for a message."""
  last, _ = _read_state(folder)
  return '' if last is None else f', which names {last}'


def _warn_of_state(folder, prefix, has_skipped):
  """Warns if the file `checkpoint` is missing, damaged or outdated."""
  name = os.path.basename(prefix)
  if not _OWN.fullmatch(name):
    return  # written by another program, which need not write the file
  if _STATE not in file_utils.list_folder(folder):
    fault = 'is missing'
  else:
    last, _ = _read_state(folder)
    if last is None:
      fault = 'is damaged'
    elif last != name and not has_skipped:
      fault = f'names {last}'
    else:
      return
  logging.warning(
    'The file `%s` in %s %s. The newest complete checkpoint is used: %s',
    _STATE,
    folder,
    fault,
    name,
  )


def write_state(folder: str, names: Iterable[str]) -> None:
  """Writes the file `checkpoint`, which TensorFlow's own tools read.

  Args:
    folder: Folder of the checkpoints.
    names: Names of the checkpoints, from the oldest to the newest. Without
      names, the file is deleted.
  """
  path, names = os.path.join(folder, _STATE), list(names)
  if names:
    lines = [f'model_checkpoint_path: "{names[-1]}"\n']
    lines += [f'all_model_checkpoint_paths: "{name}"\n' for name in names]
    file_utils.write_text(path, ''.join(lines))
  elif tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)


def repair_state(folder: str, newest: str | None) -> None:
  """Makes the file `checkpoint` name the checkpoints that exist.

  Args:
    folder: Folder of the checkpoints.
    newest: Prefix of the newest complete checkpoint, if it is in the folder;
      newer ones are not mentioned.
  """
  names = [os.path.basename(prefix) for prefix in _find_own(folder)]
  if newest is not None and os.path.dirname(newest) == folder.rstrip('/'):
    names = [name for name in names if step_of(name) <= step_of(newest)]
  write_state(folder, names)


def _find_own(folder):
  """The prefixes of the checkpoints that training wrote: `ckpt-N`."""
  return [
    prefix
    for prefix in find(folder)
    if _OWN.fullmatch(os.path.basename(prefix))
  ]


def save(
  checkpoint: tf.train.Checkpoint,
  folder: str,
  step: int,
  max_to_keep: int,
  options: tf.train.CheckpointOptions | None = None,
) -> str:
  """Writes a checkpoint of a training run, and deletes the oldest.

  Checkpoints of a later step come from a run that was set back to an earlier
  one; they are deleted before the others.

  Args:
    checkpoint: Checkpoint to write.
    folder: Folder of the checkpoints.
    step: Step of the checkpoint.
    max_to_keep: Number of checkpoints to keep, including this one.
    options: Options of TensorFlow for writing it.

  Returns:
    The prefix.
  """
  name = f'ckpt-{step}'
  checkpoint.save_counter.assign_add(1)
  prefix = checkpoint.write(os.path.join(folder, name), options)
  previous = [path for path in _find_own(folder) if step_of(path) != step]
  previous.sort(key=lambda path: (step_of(path) < step, step_of(path)))
  num_removed = max(len(previous) - max_to_keep + 1, 0)
  remaining = [*previous[num_removed:], name]
  write_state(folder, map(os.path.basename, remaining))
  for path in previous[:num_removed]:
    remove(path)
  return prefix


def remove(prefix: str) -> None:
  """Deletes a checkpoint, whose files may already be gone."""
  for path in files_of(prefix):
    try:
      tf.io.gfile.remove(path)
    except tf.errors.NotFoundError:
      logging.warning('%s was deleted by another process.', path)


def remove_leftovers(folder: str, log: bool = True) -> None:
  """Removes the files of unfinished checkpoints from a folder.

  A checkpoint is written to `ckpt-N_temp` and then renamed, so such a name is
  never part of a complete checkpoint.

  Args:
    folder: Folder of a run's checkpoints, which need not exist.
    log: Whether to log a warning for each.
  """
  for name in file_utils.list_folder(folder):
    if _LEFTOVER.fullmatch(name):
      path = os.path.join(folder, name)
      if log:
        logging.warning('Removing an unfinished checkpoint: %s', path)
      if tf.io.gfile.isdir(path):
        tf.io.gfile.rmtree(path)
      else:
        tf.io.gfile.remove(path)
