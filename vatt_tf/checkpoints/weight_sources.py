"""Opens files of weights as one mapping from names to arrays."""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import os
from typing import Any
import zipfile

import numpy as np
import tensorflow as tf

from vatt_tf.checkpoints import folders, weight_files
from vatt_tf.core import file_utils

_ATTRIBUTE = '/.ATTRIBUTES/VARIABLE_VALUE'

_WEIGHT_FILES = ('.safetensors', '.safetensors.index.json', '.npz')

DOWNLOAD_AGAIN = 'Download or copy it again, and compare its size.'


class Source:
  """An opened file of arrays, which are read one at a time.

  Attributes:
    path: Path of the file.
    shapes: Shapes of the arrays by name.
    config: Content of `config.json`.

  Args:
    path: Path of the file.
    shapes: Shape of each array by name. Names in TensorFlow's object
      checkpoints do not have `/.ATTRIBUTES/VARIABLE_VALUE`.
    read: Function from the name of an array to its values.
    config: Content of `config.json` beside the file; empty without one.
    files: Paths of all files of the checkpoint.
  """

  def __init__(
    self,
    path: str,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    config: Mapping[str, Any] | None,
    files: Sequence[str],
  ):
    self.path = path
    self.shapes = shapes
    self.config = config
    self._read = read
    self._files = files

  def describe_files(self) -> list[dict[str, Any]]:
    """Returns the name, size and SHA-256 of each file.

    For a TensorFlow checkpoint only the index is hashed, because it holds a
    checksum of each array.
    """
    described = []
    for path in self._files:
      entry = {
        'name': os.path.basename(path),
        'bytes': tf.io.gfile.stat(path).length,
      }
      if not folders.is_data(path):
        digest = hashlib.sha256()
        with tf.io.gfile.GFile(path, 'rb') as file:
          while block := file.read(2**24):
            digest.update(block)
        entry['sha256'] = digest.hexdigest()
      described.append(entry)
    return described

  def read(self, name: str) -> np.ndarray:
    """Reads one array.

    Args:
      name: Name of an array, a key of `shapes`.

    Returns:
      NumPy array.

    Raises:
      ValueError: The file is damaged or incomplete.
    """
    try:
      return self._read(name)
    except weight_files.ContentError:
      raise
    except (
      tf.errors.OpError,
      OSError,
      IndexError,
      EOFError,
      ValueError,
      zipfile.BadZipFile,
    ) as e:
      # TensorFlow's C++ reader raises IndexError beyond the end of a file.
      raise ValueError(
        f'`{name}` cannot be read from {self.path}: the file is damaged or '
        f'only a part of it ({file_utils.reason(e)}). {DOWNLOAD_AGAIN}'
      ) from e


def strip_attribute(name: str) -> str:
  """Returns the key in `Source.shapes` of a name in a TensorFlow checkpoint."""
  return name.removesuffix(_ATTRIBUTE)


def open_source(path: str) -> Source:
  """Opens a checkpoint of any of the formats, without reading its arrays.

  Args:
    path: Prefix of a TensorFlow checkpoint (`…/ckpt-500000`, or the name of one
      of its files), or a folder with one; or a path for
      `weight_files.open_weights`: a `.safetensors` or `.npz` file, or a folder
      as on Hugging Face.

  Returns:
    A `Source`.

  Raises:
    ValueError: The path does not exist, or holds no complete checkpoint.
  """
  path = os.fspath(path)
  prefix = folders.strip_file(path)
  is_folder = tf.io.gfile.isdir(path)
  if is_folder:
    prefix = folders.newest(path) or prefix
  if file_utils.exists(prefix + folders.INDEX):
    return _open_tensorflow(prefix)
  if not is_folder and not path.endswith(_WEIGHT_FILES):
    folder, name = os.path.split(prefix)
    similar_paths = [
      os.path.join(folder, file_name)
      for file_name in file_utils.list_folder(folder)
      if file_name.startswith(name)
    ]
    raise ValueError(
      f'There is no checkpoint at {path}: expected {prefix}{folders.INDEX} '
      'with its data beside it, a .safetensors or a .npz file. '
      f'Received: {", ".join(similar_paths) or "no file of this name"}.'
    )
  opened = weight_files.open_weights(path)
  files = (
    [path]
    if not is_folder
    else [
      os.path.join(path, name)
      for name in file_utils.list_folder(path)
      if name.endswith('.safetensors')
    ]
  )
  return Source(path, opened.shapes, opened.read, opened.config, files)


def _open_tensorflow(path):
  reader = folders.open_reader(path)
  shapes = reader.get_variable_to_shape_map()
  names = {
    strip_attribute(name): name
    for name in shapes
    if name != folders.OBJECT_GRAPH
  }
  return Source(
    path,
    {name: tuple(shapes[full]) for name, full in sorted(names.items())},
    lambda name: reader.get_tensor(names[name]),
    {},
    folders.files_of(path),
  )
