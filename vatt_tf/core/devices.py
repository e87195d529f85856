"""The devices that a command computes on: what it says of them, and asks.

A run on the CPU of a machine with a GPU is as slow as it is easy to miss, so
each command says in its first line where it runs, and why not on the GPU.
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

# The first driver on which TensorFlow's CUDA 12 runs.
_MIN_DRIVER = 525
# One of the packages that `tensorflow[and-cuda]` adds.
_CUDA_PACKAGE = 'nvidia-cudnn-cu12'
_INSTALL = (
  '`make venv DEVICE=gpu` in a checkout, or `pip install "vatt_tf[gpu]"`'
)


def describe() -> str:
  """What TensorFlow computes on.

  Returns:
    Such as `on 2 GPUs: NVIDIA H200, compute 9.0, 139 GiB`, or
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
  """Bytes of a GPU's memory, or None where the driver does not say."""
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
  """Says why TensorFlow sees no GPU where the machine seems to have one.

  Args:
    driver_folder: Where NVIDIA's driver shows itself.

  Returns:
    A reason and what to do, or '' where a GPU is seen or there is no driver.
  """
  folder = pathlib.Path(driver_folder)
  has_driver = folder.is_dir() or shutil.which('nvidia-smi')
  if not has_driver or tf.config.list_physical_devices('GPU'):
    return ''
  return (
    "This machine has NVIDIA's driver, but TensorFlow sees no GPU: "
    f'{_reason(folder)} docs/gpu.md says more.'
  )


def _reason(folder):
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None and not re.match(r'\s*(\d|GPU-|MIG-)', visible):
    return (
      f'the environment variable CUDA_VISIBLE_DEVICES={visible!r} hides it. '
      'Type `unset CUDA_VISIBLE_DEVICES`.'
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
    return f"NVIDIA's libraries are not installed. Type {_INSTALL}."
  return (
    'the driver does not answer, or a library does not load. `nvidia-smi` says '
    'whether the driver works, and the command with --verbosity=1 what '
    'TensorFlow could not load.'
  )


def _driver_version(folder):
  """Such as `535.129.03`, or '' where it is not known."""
  path = folder / 'version'
  if not path.is_file():
    return ''
  text = path.read_text(encoding='utf-8', errors='replace')
  found = re.search(r'Kernel Module.*?\s(\d+\.\d+[\d.]*)\s', text)
  return found.group(1) if found else ''


def check(required: bool, driver_folder: str = DRIVER_FOLDER) -> str:
  """Checks that there is a GPU where one is wanted.

  Args:
    required: Whether there must be one.
    driver_folder: Where NVIDIA's driver shows itself.

  Returns:
    A warning, or ''.

  Raises:
    ValueError: One is required and TensorFlow sees none.
  """
  missing = explain_missing_gpu(driver_folder)
  if required and not tf.config.list_physical_devices('GPU'):
    raise ValueError(
      '--require_gpu: '
      + (missing or "there is no GPU, or NVIDIA's driver is not installed.")
    )
  return missing


def grow_memory() -> None:
  """Has TensorFlow take memory of GPUs as it needs it, not all at the start."""
  for gpu in tf.config.list_physical_devices('GPU'):
    tf.config.experimental.set_memory_growth(gpu, True)


def hide_gpus() -> None:
  """Keeps this process away from the GPUs, for what computes nothing."""
  tf.config.set_visible_devices([], 'GPU')
