"""The devices that a command computes on: their description and checks.

A run on the CPU of a machine with a GPU is slow and easy to miss, so each
command prints in its first line where it runs, and why not on the GPU.
"""

import ctypes
import importlib.metadata
import os
import pathlib
import re
import shutil

import tensorflow as tf

from vatt_tf.core import strategies

DRIVER_FOLDER = '/proc/driver/nvidia'

# The oldest driver that runs TensorFlow's CUDA 12.
_MIN_DRIVER = 525
# One of the packages that `tensorflow[and-cuda]` adds.
_CUDA_PACKAGE = 'nvidia-cudnn-cu12'
_INSTALL = (
  '`make venv DEVICE=gpu` in a checkout, or `pip install "vatt_tf[gpu]"`'
)


def describe() -> str:
  """Returns the devices that TensorFlow computes on, as text.

  Returns:
    Text such as `on 2 GPUs: NVIDIA H200, compute 9.0, 139 GiB`, or
    `on the CPU, 2 cores`.
  """
  gpus = tf.config.list_physical_devices('GPU')
  if not gpus:
    cores = strategies.num_cores()
    return f'on the CPU, {cores} core{"s" if cores > 1 else ""}'
  kinds = []
  for index, gpu in enumerate(gpus):
    details = tf.config.experimental.get_device_details(gpu)
    kind = [details.get('device_name', gpu.name)]
    if 'compute_capability' in details:
      major, minor = details['compute_capability']
      kind.append(f'compute {major}.{minor}')
    memory = _memory_of_gpu(index)
    if memory:
      kind.append(f'{memory >> 30} GiB')
    kinds.append(', '.join(kind))
  number = f'{len(gpus)} GPU{"s" if len(gpus) > 1 else ""}'
  return f'on {number}: {"; ".join(dict.fromkeys(kinds))}'


def _memory_of_gpu(index, library='libcuda.so.1'):
  """The bytes of a GPU's memory, or None if the driver does not tell."""
  try:
    cuda = ctypes.CDLL(library)
  except OSError:
    return None
  device, size = ctypes.c_int(), ctypes.c_size_t()
  failed = (
    cuda.cuInit(0)
    or cuda.cuDeviceGet(ctypes.byref(device), index)
    or cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
  )
  return None if failed else size.value


def explain_missing_gpu(driver_folder: str = DRIVER_FOLDER) -> str:
  """Returns why TensorFlow sees no GPU though the machine seems to have one.

  Args:
    driver_folder: Folder that NVIDIA's driver creates.

  Returns:
    A reason and what to do, or '' if TensorFlow sees a GPU or there is no
    driver.
  """
  folder = pathlib.Path(driver_folder)
  has_driver = folder.is_dir() or shutil.which('nvidia-smi')
  if not has_driver or tf.config.list_physical_devices('GPU'):
    return ''
  return (
    "This machine has NVIDIA's driver, but TensorFlow sees no GPU: "
    f'{_reason(folder)} See docs/gpu.md.'
  )


def _reason(folder):
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None and not re.match(r'\s*(\d|GPU-|MIG-)', visible):
    return (
      f'the environment variable CUDA_VISIBLE_DEVICES={visible!r} hides it. '
      'Run `unset CUDA_VISIBLE_DEVICES`.'
    )
  if not tf.test.is_built_with_cuda():
    return f'this TensorFlow was built without CUDA. Install {_INSTALL}.'
  driver = _driver_version(folder)
  if driver and int(driver.partition('.')[0]) < _MIN_DRIVER:
    return (
      f'its driver {driver} is too old for CUDA 12. Install a driver of '
      f'version {_MIN_DRIVER} or newer.'
    )
  try:
    importlib.metadata.version(_CUDA_PACKAGE)
  except importlib.metadata.PackageNotFoundError:
    return f"NVIDIA's libraries are not installed. Run {_INSTALL}."
  return (
    'the driver does not answer, or a library does not load. Run `nvidia-smi` '
    'to check the driver, and the command with --verbosity=1 to see what '
    'TensorFlow could not load.'
  )


def _driver_version(folder):
  """The version, such as `535.129.03`, or '' if it is unknown."""
  path = folder / 'version'
  if not path.is_file():
    return ''
  text = path.read_text(encoding='utf-8', errors='replace')
  match = re.search(r'Kernel Module.*?\s(\d+\.\d+[\d.]*)\s', text)
  return match.group(1) if match else ''


def check(required: bool, driver_folder: str = DRIVER_FOLDER) -> str:
  """Checks that TensorFlow sees a GPU.

  Args:
    required: Whether a GPU is required.
    driver_folder: Folder that NVIDIA's driver creates.

  Returns:
    A warning, or ''.

  Raises:
    ValueError: A GPU is required, and TensorFlow sees none.
  """
  explanation = explain_missing_gpu(driver_folder)
  if required and not tf.config.list_physical_devices('GPU'):
    raise ValueError(
      '--require_gpu: '
      + (explanation or "there is no GPU, or NVIDIA's driver is not installed.")
    )
  return explanation


def grow_memory() -> None:
  """Makes TensorFlow take memory of GPUs as needed, not all at the start."""
  for gpu in tf.config.list_physical_devices('GPU'):
    tf.config.experimental.set_memory_growth(gpu, True)


def hide_gpus() -> None:
  """Hides the GPUs from a process that computes nothing."""
  tf.config.set_visible_devices([], 'GPU')
