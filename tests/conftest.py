"""Settings of every test process, made before TensorFlow starts."""

import gc
import importlib
import os
import shutil
import sys
import tempfile

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
os.environ.setdefault('MPLBACKEND', 'Agg')
# Two processes share two cores; more threads would wait for each other.
os.environ.setdefault('TF_NUM_INTRAOP_THREADS', '1')

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


def pytest_collection_modifyitems(items):
  """Drops `test_session`, which `tf.test.TestCase` has and is no test."""
  items[:] = [item for item in items if item.name != 'test_session']


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
  """Frees the graphs of a test.

  TensorFlow keeps the gradient of every traced `tf.custom_gradient` in a table,
  and so the graph around it: after hundreds of tests that is gigabytes, and
  most of the time goes to walking them. What a test leaves behind in spite of
  that is kept out of later walks.
  """
  is_last_of_file = nextitem is None or nextitem.path != item.path
  ops = sys.modules.get('tensorflow.python.framework.ops')
  gradients = ops.gradient_registry._registry if ops else {}
  traced = [name for name in gradients if name.startswith('CustomGradient-')]
  for name in traced:
    del gradients[name]
  if traced or is_last_of_file:
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
  """Removes the temporary folder of the run."""
  if _OWN_TEMPORARY:
    shutil.rmtree(os.environ['TEST_TMPDIR'], ignore_errors=True)
