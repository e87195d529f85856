"""Paths and files, local or remote: a path is a path and never a pattern.

Several of TensorFlow's readers take the path that they are given for a pattern:
`[lr=1e-3]` in the name of a folder then stands for one of these letters.
`literal_path` gives such a path another name, which means the same to all.
"""

import atexit
import contextlib
import functools
import os
import re
import shutil
import tempfile
import threading

from absl import logging
import tensorflow as tf

# After which it is said what is waited for.
PATIENCE_SECONDS = 15

# What TensorFlow's patterns are made of.
_MAGIC = re.compile(r'[*?\[\\]')
# What it puts around the message of an error, of its operations and threads.
_OPERATION = re.compile(r'^\{\{.*?\}\} | \[Op:\w+\].*$')
# `/path; Not a directory`, as it tells of the local file system.
_LOCAL = re.compile(r'.*; ([A-Z][\w, ]+)')


def is_remote(path: str) -> bool:
  """Whether a path names a file system of TensorFlow's: `gs://…`."""
  return '://' in path


def expand(path: str | None) -> str | None:
  """A path as it was meant: a `~` in front is the home directory.

  Shells expand it at the start of a word alone, not in `--output=~/runs`.

  Args:
    path: A string, a list of strings, or None.

  Returns:
    The same, expanded.
  """
  if isinstance(path, list | tuple):
    return [expand(each) for each in path]
  if isinstance(path, str) and path.startswith('~'):
    return os.path.expanduser(path)
  return path


def reason(error: Exception) -> str:
  """Why a file or folder could not be used, in a few words.

  Args:
    error: An `OSError`, or one of TensorFlow's.
  """
  if isinstance(error, OSError) and error.strerror:
    return error.strerror[0].lower() + error.strerror[1:]
  text = first_line(error)
  if isinstance(error, tf.errors.OpError) and (local := _LOCAL.fullmatch(text)):
    text = local.group(1)
    return text[0].lower() + text[1:]
  return text


def first_line(error: Exception) -> str:
  """The first line of an error's message, without TensorFlow's own names."""
  lines = str(getattr(error, 'message', None) or error).strip().splitlines()
  text = _OPERATION.sub('', lines[0]) if lines else ''
  return text or type(error).__name__


@contextlib.contextmanager
def _patience(path):
  """Says what is waited for, when a file system does not answer.

  TensorFlow asks a bucket again and again, for many minutes.
  """

  def warn():
    logging.warning(
      'Waiting for %s, which has not answered for %d s. Can this machine reach '
      'it, and has it credentials? GCS_RETRY_CONFIG_MAX_RETRIES=2 and '
      'GCS_REQUEST_CONNECTION_TIMEOUT_SECS=10 make TensorFlow give up sooner.',
      path,
      PATIENCE_SECONDS,
    )

  timer = threading.Timer(PATIENCE_SECONDS, warn)
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def list_folder(folder: str) -> list[str]:
  """The names in a folder, sorted; none where there is no such folder.

  Unlike `tf.io.gfile.isdir` it does not take a folder that cannot be reached
  for one that is not there.

  Args:
    folder: A path.

  Raises:
    OSError: It is no folder, or cannot be read or reached.
  """
  try:
    if not is_remote(folder):
      return sorted(os.listdir(folder or '.'))
    with _patience(folder):
      if not tf.io.gfile.exists(folder):
        return []
      return sorted(name.rstrip('/') for name in tf.io.gfile.listdir(folder))
  except FileNotFoundError:
    return []
  except (OSError, tf.errors.OpError) as e:
    raise OSError(f'The folder {folder} cannot be read: {reason(e)}.') from e


def exists(path: str) -> bool:
  """Whether there is a file or folder.

  Args:
    path: A path.

  Raises:
    OSError: It cannot be told, since what holds it does not answer.
  """
  if not is_remote(path):
    return os.path.exists(path)
  try:
    with _patience(path):
      return tf.io.gfile.exists(path)
  except tf.errors.OpError as e:
    raise OSError(f'{path} cannot be reached: {reason(e)}.') from e


def check_local(name: str, path: str) -> None:
  """Raises ValueError for a remote path where a folder here is needed.

  Python's own functions would make a folder named `gs:` of it.

  Args:
    name: Of the argument.
    path: Its value.
  """
  if is_remote(path):
    raise ValueError(
      f'`{name}` must be a folder of this machine. Received: {name}={path!r}. '
      'Write to one, and copy it.'
    )


def check_writable(folder: str, advice: str = '') -> None:
  """Makes a folder and writes to it, so that what is in the way is found first.

  Args:
    folder: A path.
    advice: What to do where it cannot be written, a sentence.

  Raises:
    OSError: It cannot be made or written to.
  """
  folder = folder or '.'
  probe = os.path.join(folder, f'.{os.getpid()}.part')
  try:
    with _patience(folder):
      tf.io.gfile.makedirs(folder)
      with tf.io.gfile.GFile(probe, 'w') as file:
        file.write('x')
      tf.io.gfile.remove(probe)
  except (OSError, tf.errors.OpError) as e:
    raise OSError(
      f'The folder {folder} cannot be written: {reason(e)}. {advice}'.rstrip()
    ) from e


def write_text(path: str, text: str) -> None:
  """Writes a text file: it is either whole, or as it was before.

  Args:
    path: Where to; folders that are not there are made.
    text: What it is to hold, written as UTF-8 with its line ends as they are.

  Raises:
    OSError: It cannot be written.
  """
  folder, name = os.path.split(path)
  temporary_path = os.path.join(folder, f'.{name}.{os.getpid()}.part')
  try:
    if folder:
      tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(temporary_path, 'w') as file:
      file.write(text)
    tf.io.gfile.rename(temporary_path, path, overwrite=True)
  except (OSError, tf.errors.OpError) as e:
    _remove(temporary_path)
    raise OSError(f'{path} cannot be written: {reason(e)}.') from e
  except BaseException:  # Ctrl-C
    _remove(temporary_path)
    raise


def _remove(path):
  """Removes what can be removed."""
  with contextlib.suppress(OSError, tf.errors.OpError):
    tf.io.gfile.remove(path)


def has_magic(path: str) -> bool:
  """Whether TensorFlow could take a path for a pattern."""
  return _MAGIC.search(path) is not None


def escape(path: str) -> str:
  """The pattern that matches a path alone, for `tf.io.gfile.glob`."""
  return _MAGIC.sub(r'\\\g<0>', path)


def split_pattern(pattern: str) -> tuple[str, str]:
  """A local pattern as the folder that is there by its very name, and the rest.

  Args:
    pattern: A path, of which only what does not exist is a pattern.

  Returns:
    The longest part in front that exists, and what comes after it; `''` where
    all of it exists.
  """
  folder, rest = pattern, ''
  while folder and not os.path.exists(folder):
    folder, _, name = folder.rpartition('/')
    rest = f'{name}/{rest}' if rest else name
    if not folder and pattern.startswith('/'):
      folder = '/'
  return folder, rest


@functools.cache
def _links() -> str:
  """A folder for symbolic links, which goes with the process."""
  folder = tempfile.mkdtemp(prefix='vatt_tf_')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return folder


def literal_path(path: str) -> str:
  """A name of a file, folder or checkpoint that is no pattern.

  TensorFlow looks for a checkpoint's index by matching its path, in
  `tf.train.load_checkpoint`, `Checkpoint.restore` and `tf.saved_model.load`,
  and then opens it by the path itself: no way of writing `[` passes both. What
  lies on this machine is read through symbolic links, which stay for as long
  as the process, since arrays and assets may be read later.

  Args:
    path: Of a folder, or the prefix of a checkpoint, such as `…/ckpt-1000`.

  Returns:
    The path itself where it is plain; else one of the same content.

  Raises:
    ValueError: A remote path has such a letter.
  """
  path = os.fspath(path)
  if not has_magic(path):
    return path
  if is_remote(path):
    raise ValueError(
      'TensorFlow takes the name of a remote folder for a pattern, and finds '
      'nothing in one with *, ?, [ or a backslash. Rename or copy it. '
      f'Received: {path}'
    )
  folder = tempfile.mkdtemp(dir=_links())
  if has_magic(folder):
    raise ValueError(
      'The folder for temporary files must have no *, ?, [ or backslash in its '
      f'name. Set TMPDIR to another. Received: TMPDIR={tempfile.gettempdir()}'
    )
  path = os.path.abspath(path)
  if os.path.isdir(path):
    link = os.path.join(folder, 'folder')
    os.symlink(path, link)
    return link
  parent, prefix = os.path.split(path)
  for name in list_folder(parent):
    if name.startswith(f'{prefix}.'):
      os.symlink(
        os.path.join(parent, name),
        os.path.join(folder, f'files{name.removeprefix(prefix)}'),
      )
  return os.path.join(folder, 'files')


def advise_on_sample(path: str) -> str:
  """Says how the sample data are made, where it is they that are missing.

  Args:
    path: That is not there.

  Returns:
    A sentence after a space, or ''.
  """
  if not path.strip().startswith('data/sample/'):
    return ''
  return (
    ' These are the sample data, which the gin files name until they are told '
    'otherwise: `python -m vatt_tf.make_sample_records` makes them here.'
  )
