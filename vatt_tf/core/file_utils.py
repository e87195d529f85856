"""Paths and files, local or remote: a path is a path and never a pattern.

Several of TensorFlow's readers treat their path as a pattern: `[lr=1e-3]` in
the name of a folder then stands for one of these letters. `literal_path`
returns another path to the same file without such letters.
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

# Time to wait for a file system before a warning.
PATIENCE_SECONDS = 15

# Characters with a meaning in TensorFlow's patterns.
_MAGIC = re.compile(r'[*?\[\\]')
# Names of operations and threads that TensorFlow adds to an error's message.
_OPERATION = re.compile(r'^\{\{.*?\}\} | \[Op:\w+\].*$')
# `/path; Not a directory`, its form of errors of the local file system.
_LOCAL = re.compile(r'.*; ([A-Z][\w, ]+)')


def is_remote(path: str) -> bool:
  """Returns whether a path names a remote file system, such as `gs://…`."""
  return '://' in path


def expand(path: str | None) -> str | None:
  """Returns a path with a `~` at its start replaced by the home directory.

  Shells expand `~` only at the start of a word, not in `--output=~/runs`.

  Args:
    path: A path, a list of paths, or None.

  Returns:
    The expanded path or paths, or None.
  """
  if isinstance(path, list | tuple):
    return [expand(item) for item in path]
  if isinstance(path, str) and path.startswith('~'):
    return os.path.expanduser(path)
  return path


def reason(error: Exception) -> str:
  """Returns the reason of a file error in a few words.

  Args:
    error: An `OSError`, or an error of TensorFlow.
  """
  if isinstance(error, OSError) and error.strerror:
    return error.strerror[0].lower() + error.strerror[1:]
  text = first_line(error)
  if isinstance(error, tf.errors.OpError) and (local := _LOCAL.fullmatch(text)):
    text = local.group(1)
    return text[0].lower() + text[1:]
  return text


def first_line(error: Exception) -> str:
  """Returns the first line of an error's message, without names of ops."""
  lines = str(getattr(error, 'message', None) or error).strip().splitlines()
  text = _OPERATION.sub('', lines[0]) if lines else ''
  return text or type(error).__name__


@contextlib.contextmanager
def _patience(path):
  """Logs a warning if a file system does not answer.

  TensorFlow retries a bucket for many minutes without a message.
  """

  def warn():
    logging.warning(
      'Waiting for %s, which has not answered for %d s. Check that this '
      'machine can reach it and has credentials. '
      'GCS_RETRY_CONFIG_MAX_RETRIES=2 and '
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
  """Returns the sorted names in a folder; none if the folder does not exist.

  Unlike `tf.io.gfile.isdir`, it does not treat a folder that cannot be reached
  as one that does not exist.

  Raises:
    OSError: The path is not a folder, or cannot be read or reached.
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
  """Returns whether a file or folder exists.

  Raises:
    OSError: Its file system does not answer.
  """
  if not is_remote(path):
    return os.path.exists(path)
  try:
    with _patience(path):
      return tf.io.gfile.exists(path)
  except tf.errors.OpError as e:
    raise OSError(f'{path} cannot be reached: {reason(e)}.') from e


def check_local(name: str, path: str) -> None:
  """Raises ValueError for a remote path where a local folder is needed.

  Python's functions would create a local folder named `gs:`.

  Args:
    name: Name of the argument.
    path: Value of the argument.
  """
  if is_remote(path):
    raise ValueError(
      f'`{name}` must be a folder of this machine. Received: {name}={path!r}. '
      'Write to a local folder, and copy it.'
    )


def check_writable(folder: str, advice: str = '') -> None:
  """Creates a folder and writes to it, so that an error comes before the work.

  Args:
    folder: Path of the folder.
    advice: Sentence that tells what to do if it cannot be written.

  Raises:
    OSError: The folder cannot be created or written to.
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
  """Writes a text file completely, or leaves it unchanged.

  Args:
    path: Path of the file, whose missing folders are created.
    text: Content of the file, written as UTF-8 with unchanged line ends.

  Raises:
    OSError: The file cannot be written.
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
  """Removes a file if possible."""
  with contextlib.suppress(OSError, tf.errors.OpError):
    tf.io.gfile.remove(path)


def has_magic(path: str) -> bool:
  """Returns whether TensorFlow could treat a path as a pattern."""
  return _MAGIC.search(path) is not None


def escape(path: str) -> str:
  """Returns the pattern that matches only a path, for `tf.io.gfile.glob`."""
  return _MAGIC.sub(r'\\\g<0>', path)


def split_pattern(pattern: str) -> tuple[str, str]:
  """Splits a local pattern into the part that exists literally, and the rest.

  Args:
    pattern: A path, of which only the part that does not exist is a pattern.

  Returns:
    The longest first part that exists; and the part after it, `''` if the whole
    path exists.
  """
  folder, remainder = pattern, ''
  while folder and not os.path.exists(folder):
    folder, _, name = folder.rpartition('/')
    remainder = f'{name}/{remainder}' if remainder else name
    if not folder and pattern.startswith('/'):
      folder = '/'
  return folder, remainder


@functools.cache
def _links() -> str:
  """A folder for symbolic links, which is deleted with the process."""
  folder = tempfile.mkdtemp(prefix='vatt_tf_')
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return folder


def literal_path(path: str) -> str:
  """Returns a path of a file, folder or checkpoint that is not a pattern.

  In `tf.train.load_checkpoint`, `Checkpoint.restore` and `tf.saved_model.load`,
  TensorFlow first searches a checkpoint's index with the path as a pattern, and
  then opens the path itself. No way of writing `[` passes both. Local files are
  therefore read through symbolic links, which exist as long as the process,
  because arrays and assets may be read later.

  Args:
    path: Path of a folder, or prefix of a checkpoint, such as `…/ckpt-1000`.

  Returns:
    The path itself if it is plain; otherwise a path to the same content.

  Raises:
    ValueError: A remote path could be a pattern.
  """
  path = os.fspath(path)
  if not has_magic(path):
    return path
  if is_remote(path):
    raise ValueError(
      'TensorFlow treats the name of a remote folder as a pattern, and cannot '
      'find one with *, ?, [ or a backslash. Rename or copy the folder. '
      f'Received: {path}'
    )
  folder = tempfile.mkdtemp(dir=_links())
  if has_magic(folder):
    raise ValueError(
      'The folder for temporary files must have no *, ?, [ or backslash in its '
      'name. Set TMPDIR to another folder. '
      f'Received: TMPDIR={tempfile.gettempdir()}'
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
  """Returns how to make the sample data, if a missing file belongs to them.

  Args:
    path: Path of the missing file.

  Returns:
    A sentence after a space, or ''.
  """
  if not path.strip().startswith('data/sample/'):
    return ''
  return (
    ' The gin files use the sample data by default; make them here with '
    '`python -m vatt_tf.make_sample_records`.'
  )
