"""Settings of every test process, made before TensorFlow starts."""

import gc
import importlib
import os
import shutil
import sys
import tempfile

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
os.environ.setdefault('MPLBACKEND', 'Agg')

# absl and TensorFlow put the temporary folders of tests here: one for each run,
# so that runs side by side do not meet. Worker processes inherit it.
_OWN_TEMPORARY = 'TEST_TMPDIR' not in os.environ
if _OWN_TEMPORARY:
  os.environ['TEST_TMPDIR'] = tempfile.mkdtemp(prefix='vatt_tf_tests_')


def pytest_configure():
  """Lets tests read absl flags, such as the one of their temporary folder."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()


def pytest_collection_finish():
  """Splits the CPU for the tests with several replicas: all test files are
  imported now, and TensorFlow has not started yet."""
  if 'tensorflow' in sys.modules:
    importlib.import_module('tests.logical_devices').make()


def pytest_runtest_teardown(item, nextitem):
  """Keeps what test files leave behind, such as TensorFlow's graphs, out of
  later garbage collections, which otherwise make up most of the time."""
  if nextitem is None or nextitem.path != item.path:
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
  """Removes the temporary folder of the run."""
  if _OWN_TEMPORARY:
    shutil.rmtree(os.environ['TEST_TMPDIR'], ignore_errors=True)
