"""Where the tests find fixtures and media that the repository does not hold.

They lie in one folder, by default `shared` beside the repository; the
environment variable VATT_TF_SHARED names another one:

    from tests import shared_data
    listing = shared_data.path('fixtures', 'listings', 'ut_fac_medium.json')

A test that asks for a path that is not there is skipped. With the environment
variable VATT_TF_REQUIRE_SHARED=1 it fails instead, so that a run which must
not skip anything says so.
"""

import os
import pathlib
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def root() -> pathlib.Path:
  """Returns the folder of the shared data, whether it exists or not."""
  folder = os.environ.get('VATT_TF_SHARED')
  if folder:
    return pathlib.Path(folder).resolve()
  return REPOSITORY.parent / 'shared'


def path(*parts: str) -> pathlib.Path:
  """Returns the path of a file or folder of the shared data.

  Args:
    *parts: its path below the folder, e.g. `'fixtures', 'losses.npz'`.

  Raises:
    unittest.SkipTest: if it is not there.
    FileNotFoundError: the same, if VATT_TF_REQUIRE_SHARED is 1.
  """
  found = root().joinpath(*parts)
  if not found.exists():
    message = (
      f'{found} is not there. Set VATT_TF_SHARED to the folder that holds '
      f'{os.path.join(*parts) if parts else "the shared data"}.'
    )
    if os.environ.get('VATT_TF_REQUIRE_SHARED') == '1':
      raise FileNotFoundError(message)
    raise unittest.SkipTest(message)
  return found
