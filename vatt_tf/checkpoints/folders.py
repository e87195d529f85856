"""Checkpoints in a folder: which there are, which are whole, the newest one.

What a folder holds is told by its files. TensorFlow's file `checkpoint` only
mentions them: after a power cut it is empty or behind, and a copy may lack it.
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
# `ckpt-N_temp` holds parts until they are whole.
_LEFTOVER = re.compile(r'.*ckpt-\d+_temp(_.*)?|checkpoint\.tmp[0-9a-f]+')
_DOWNLOAD_AGAIN = 'Download or copy it again, and compare its size.'


def step_of(prefix: str) -> int | None:
  """The step in the name of a checkpoint `…-N`, or None."""
  match = _STEP.search(prefix)
  return int(match.group(1)) if match else None


def strip_file(path: str) -> str:
  """The prefix of the checkpoint that a file is a part of."""
  return _DATA.sub('', path).removesuffix(INDEX)


def is_data(path: str) -> bool:
  """Whether a file holds arrays of a checkpoint."""
  return _DATA.search(path) is not None


def find(folder: str) -> list[str]:
  """All checkpoints in a folder, whole or not.

  Args:
    folder: A path; the folder need not exist.

  Returns:
    Their prefixes, in the order of their steps; those without one come first.

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
  """The files of a checkpoint, its index first."""
  folder, prefix_name = os.path.split(prefix)
  names = [
    name
    for name in file_utils.list_folder(folder)
    if (match := _FILE.fullmatch(name)) and match.group(1) == prefix_name
  ]
  ordered = sorted(names, key=lambda name: (not name.endswith(INDEX), name))
  return [os.path.join(folder, name) for name in ordered]


def open_reader(prefix: str) -> Any:
  """Opens a checkpoint all of whose files have their full lengths.

  Args:
    prefix: Of the checkpoint.

  Returns:
    What `tf.train.load_checkpoint` returns.

  Raises:
    ValueError: A part of it is missing or damaged.
  """
  index = prefix + INDEX
  files = files_of(prefix)
  if index not in files:
    raise ValueError(
      f'There is no {index}, without which the data beside it are of no use. '
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
      f'The data of {index} are not beside it: expected {prefix}.data-00000-of-'
      f'00001 or its like, all parts of it. Received: {data}. Copy all files '
      'of the checkpoint into one folder.'
    )
  expected = sum(
    math.prod(shape) * types[name].size
    for name, shape in shapes.items()
    if types[name] != tf.string
  )
  size = sum(tf.io.gfile.stat(path).length for path in data)
  if size < expected:
    raise ValueError(
      f'The data of {index} are {size:,} bytes, and its arrays take '
      f'{expected:,}: they are only a part. {_DOWNLOAD_AGAIN}'
    )
  return reader


def find_fault(prefix: str, read: bool = True) -> str | None:
  """What is wrong with a checkpoint, or None: it is whole.

  Args:
    prefix: Of the checkpoint.
    read: Whether to read all of it, which compares its checksums: a power cut
      may leave blocks of zeros in files of the right length. Remote files are
      written whole or not at all, and not read.
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
  """The newest whole checkpoint of a folder.

  That is the one of the last step; or, where the file `checkpoint` lists all
  that are there, the one that it names as written last. What is passed over is
  warned of, and so is a file `checkpoint` that is missing, damaged or behind.

  Args:
    folder: A path; the folder need not exist.

  Returns:
    Its prefix; None where the folder has nothing of a checkpoint.

  Raises:
    ValueError: There are parts of checkpoints and none is whole; only the file
      `checkpoint` is there; or several have no number that tells the newest.
    OSError: The folder cannot be read.
  """
  prefixes = find(folder)
  if not prefixes:
    if _STATE in file_utils.list_folder(folder):
      raise ValueError(
        f'The folder {folder} has a file `{_STATE}`'
        f'{_mentioned(folder)}, and no checkpoint. Copy the files ckpt-N.index '
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
        logging.warning('%s is not whole and is passed over: %s', name, text)
      _warn_of_state(folder, prefix, bool(faults))
      return prefix
    faults.append((prefix, fault))
  raise ValueError(
    f'No checkpoint in {folder} is whole. '
    + ' '.join(f'{name}: {text}' for name, text in faults)
    + ' Copy their files to it again, or delete them to start without them.'
  )


def _named(folder, prefixes):
  """The one of several unnumbered checkpoints that the state file names."""
  last, _ = _read_state(folder)
  why = f'The file `{_STATE}` must name one of the checkpoints in {folder}'
  for prefix in prefixes:
    if os.path.basename(prefix) == last:
      fault = find_fault(prefix)
      if fault is None:
        return prefix
      why = f'{prefix}, which the file `{_STATE}` names, is not whole: {fault}'
  raise ValueError(
    f'{why.rstrip(".")}. The names of the checkpoints do not tell which is the '
    'newest. Name one of them itself. Received: '
    f'{", ".join(prefix + INDEX for prefix in prefixes)}'
  )


def _read_state(folder):
  """What the file `checkpoint` says.

  Args:
    folder: That it lies in.

  Returns:
    The name of the checkpoint that was written last, or None; and the names of
    all that it lists, a set. Names are without the folders that they had when
    it was written.
  """
  try:
    with tf.io.gfile.GFile(os.path.join(folder, _STATE), 'rb') as file:
      text = file.read().decode('utf-8', errors='replace')
  except (OSError, tf.errors.OpError):
    return None, set()
  # As they are written, to the letter: half of a line must not pass for one.
  last, listed = (
    [
      os.path.basename(path)
      for path in re.findall(rf'^{key}: "(.*)"$', text, re.MULTILINE)
    ]
    for key in ('model_checkpoint_path', 'all_model_checkpoint_paths')
  )
  return last[0] if last else None, set(listed)


def _mentioned(folder):
  """What the file `checkpoint` names, for a message."""
  last, _ = _read_state(folder)
  return '' if last is None else f', which names {last}'


def _warn_of_state(folder, prefix, has_passed_over):
  """Says that the file `checkpoint` is missing, damaged or behind."""
  name = os.path.basename(prefix)
  if not _OWN.fullmatch(name):
    return  # of another program, which need not write one
  if _STATE not in file_utils.list_folder(folder):
    what = 'is missing'
  else:
    last, _ = _read_state(folder)
    if last is None:
      what = 'is damaged'
    elif last != name and not has_passed_over:
      what = f'names {last}'
    else:
      return
  logging.warning(
    'The file `%s` in %s %s. The newest whole checkpoint there is taken: %s',
    _STATE,
    folder,
    what,
    name,
  )


def write_state(folder: str, names: Iterable[str]) -> None:
  """Writes the file `checkpoint`, by which TensorFlow's own tools find them.

  Args:
    folder: Where the checkpoints lie.
    names: Of the checkpoints, from the oldest to the newest; if there are none,
      the file goes.
  """
  path, names = os.path.join(folder, _STATE), list(names)
  if names:
    lines = [f'model_checkpoint_path: "{names[-1]}"\n']
    lines += [f'all_model_checkpoint_paths: "{name}"\n' for name in names]
    file_utils.write_text(path, ''.join(lines))
  elif tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)


def repair_state(folder: str, newest: str | None) -> None:
  """Makes the file `checkpoint` name what is there.

  Args:
    folder: Of the checkpoints.
    newest: Prefix of the newest whole one, if it lies in the folder; what is
      newer is not mentioned.
  """
  names = [os.path.basename(prefix) for prefix in _find_own(folder)]
  if newest is not None and os.path.dirname(newest) == folder.rstrip('/'):
    names = [name for name in names if step_of(name) <= step_of(newest)]
  write_state(folder, names)


def _find_own(folder):
  """The prefixes of those that training wrote: `ckpt-N`."""
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
  """Writes a checkpoint of the training, and deletes the oldest.

  The checkpoints of a later step are those of a run that was taken back; they
  go before the others.

  Args:
    checkpoint: What to write.
    folder: Where to.
    step: Its number.
    max_to_keep: How many stay, with this one.
    options: How TensorFlow is to write it.

  Returns:
    The prefix.
  """
  name = f'ckpt-{step}'
  checkpoint.save_counter.assign_add(1)
  prefix = checkpoint.write(os.path.join(folder, name), options)
  others = [other for other in _find_own(folder) if step_of(other) != step]
  others.sort(key=lambda other: (step_of(other) < step, step_of(other)))
  num_removed = max(len(others) - max_to_keep + 1, 0)
  kept = [*others[num_removed:], name]
  write_state(folder, map(os.path.basename, kept))
  for other in others[:num_removed]:
    remove(other)
  return prefix


def remove(prefix: str) -> None:
  """Deletes a checkpoint; what is gone already does not matter."""
  for path in files_of(prefix):
    try:
      tf.io.gfile.remove(path)
    except tf.errors.NotFoundError:
      logging.warning('%s was deleted by another process.', path)


def remove_leftovers(folder: str, log: bool = True) -> None:
  """Removes the files of unfinished checkpoints from a folder.

  A checkpoint is written to `ckpt-N_temp` and then renamed, so that such a
  name is never part of a complete checkpoint.

  Args:
    folder: Where a run writes its checkpoints; it need not exist.
    log: Whether to warn of each.
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
