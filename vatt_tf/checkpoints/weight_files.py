"""Files of named arrays: Hugging Face's safetensors and npz of Google's ViT.

Arrays are read one at a time, so that a large file needs no more memory than
its largest array.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import zipfile

import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from vatt_tf.core import file_utils

_WEIGHTS = 'model.safetensors'
_INDEX = 'model.safetensors.index.json'
_CONFIG = 'config.json'


class ContentError(ValueError):
  """A whole file holds an array that is no weight."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
  """A file of named arrays.

  Attributes:
    shapes: Shape of each array by name.
    read: Function from a name to the array, in float32 for any type in the
      file.
    config: Content of `config.json` beside the file; empty without one.
  """

  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str], np.ndarray]
  config: dict


def open_weights(path: str) -> WeightFile:
  """Opens a file of weights.

  Args:
    path: A `.safetensors` or `.npz` file; or a folder as on Hugging Face, with
      `model.safetensors`, or with `model.safetensors.index.json` and the parts
      that it names.

  Raises:
    ValueError: The file does not exist, is of another kind, or is incomplete.
  """
  path = os.fspath(path)
  if os.path.isdir(path):
    names = [n for n in (_WEIGHTS, _INDEX) if os.path.exists(f'{path}/{n}')]
    if not names:
      raise ValueError(
        f'The folder {path} must hold `{_WEIGHTS}`, or `{_INDEX}` and its '
        'parts; give the path of a file with another name. To convert a '
        '`pytorch_model.bin`, load it with a current transformers and call '
        '`save_pretrained`. Received: '
        f'{", ".join(sorted(os.listdir(path))[:8]) or "an empty folder"}'
      )
    path = os.path.join(path, names[0])
  folder = os.path.dirname(path)
  if not os.path.isfile(path):
    raise ValueError(f'There is no file {path}.')
  if path.endswith('.npz'):
    return _open_npz(path)
  config_path = os.path.join(folder, _CONFIG)
  config = _read_json(config_path) if os.path.exists(config_path) else {}
  if path.endswith('.safetensors.index.json'):
    parts = _read_json(path).get('weight_map')
    if not parts:
      raise ValueError(f'The index {path} must have a `weight_map`.')
    holders = {}
    for part in sorted(set(parts.values())):
      file = _open_safetensors(os.path.join(folder, part))
      holders.update(dict.fromkeys(file.keys(), file))
    lost = sorted(set(parts) - set(holders))
    if lost:
      raise ValueError(
        f'The parts that {path} names must hold {lost[0]!r}. Download them '
        'again.'
      )
  elif path.endswith('.safetensors'):
    file = _open_safetensors(path)
    holders = dict.fromkeys(file.keys(), file)
  else:
    raise ValueError(
      'The file must be a `.safetensors`, a `.safetensors.index.json` or a '
      f'`.npz` file. Received: {path}'
    )
  return WeightFile(
    {
      name: tuple(file.get_slice(name).get_shape())
      for name, file in holders.items()
    },
    lambda name: _as_float32(holders[name].get_tensor(name), name, path),
    config,
  )


def write_model(directory: str, arrays: dict, config: dict) -> None:
  """Writes `model.safetensors` and `config.json`, as Hugging Face names them.

  Args:
    directory: Folder to write to, which is created if it does not exist.
    arrays: Arrays in float32 by name.
    config: Content of `config.json`.
  """
  os.makedirs(directory, exist_ok=True)
  path = os.path.join(directory, _WEIGHTS)
  temporary_path = os.path.join(directory, f'.{_WEIGHTS}.{os.getpid()}.part')
  # The order matters: safetensors writes the memory of an array unchanged.
  safetensors_numpy.save_file(
    {name: np.asarray(value, order='C') for name, value in arrays.items()},
    temporary_path,
    metadata={'format': 'pt'},  # transformers refuses a file without it
  )
  os.replace(temporary_path, path)
  file_utils.write_text(
    os.path.join(directory, _CONFIG), json.dumps(config, indent=2) + '\n'
  )


def _read_json(path):
  with open(path, encoding='utf-8') as file:
    try:
      return json.load(file)
    except ValueError as e:
      raise ValueError(
        f'The file {path} cannot be read as JSON: {e}. Download it again.'
      ) from e


def _as_float32(value, name, path):
  # bfloat16 is not a type of NumPy, so its kind is not 'f'.
  if value.dtype.kind != 'f' and value.dtype.name != 'bfloat16':
    raise ContentError(
      f'{name!r} of {path} must hold floating point numbers. Received: '
      f'{value.dtype}'
    )
  return np.asarray(value, np.float32)


def _open_safetensors(path):
  """Opens a file, or raises an error that tells what is wrong with it."""
  if not os.path.exists(path):
    raise ValueError(f'There is no file {path}. Download all parts.')
  with open(path, 'rb') as file:
    start = file.read(8)
    if start == b'version ':
      raise ValueError(
        f'{path} is a pointer of Git LFS, not the weights themselves. Fetch '
        'them with `git lfs pull`, or download the file from its own link.'
      )
  try:
    return safetensors.safe_open(path, framework='numpy')
  except safetensors.SafetensorError as e:
    raise ValueError(
      f'{path} is no complete safetensors file ({os.path.getsize(path)} '
      f'bytes): {e}. Download it again.'
    ) from e


def _open_npz(path):
  """Reads only the shapes of an npz file."""

  def read(name):
    with np.load(path) as file:
      return _as_float32(file[name], name, path)

  shapes = {}
  try:
    with zipfile.ZipFile(path) as archive:
      for entry in archive.namelist():
        with archive.open(entry) as file:
          version = np.lib.format.read_magic(file)
          read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
          )
          if not entry.endswith('.npy'):
            continue
          shape, _, dtype = read_header(file)
          if dtype.hasobject:
            raise ContentError(
              f'{entry.removesuffix(".npy")!r} of {path} holds Python objects, '
              'whose reading would run code. Write it as an array of numbers.'
            )
          shapes[entry.removesuffix('.npy')] = shape
  except ContentError:
    raise
  except (zipfile.BadZipFile, EOFError, ValueError) as e:
    raise ValueError(
      f'{path} is no complete npz file ({os.path.getsize(path)} bytes): {e}. '
      'Download it again.'
    ) from e
  return WeightFile(shapes, read, {})
