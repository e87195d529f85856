"""Settings of every test process, made before TensorFlow starts."""

import importlib
import os
import sys

# Two test processes share the cores: keep the logs short and the thread pools
# small.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_collection_finish():
  """Splits the CPU for the tests with several replicas: all test files are
  imported now, and TensorFlow has not started yet."""
  if 'tensorflow' in sys.modules:
    logical_devices = importlib.import_module('tests.logical_devices')
    logical_devices.make()
