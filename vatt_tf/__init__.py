"""VATT in TensorFlow 2: transformers for raw video, audio and text.

Importing this package checks the Python version and imports next to nothing, so
that it stays cheap; import the modules by name.
"""

import sys

from vatt_tf.core import quiet

__version__ = '0.1.0'


def _check_python(version_info):
  """Raises `ImportError` unless `version_info` is a Python of 3.11 to 3.13."""
  if not (3, 11) <= tuple(version_info[:2]) <= (3, 13):
    received = '.'.join(str(part) for part in version_info[:3])
    raise ImportError(
      'vatt_tf needs Python 3.11, 3.12 or 3.13: tensorflow-text has no wheels '
      f'for newer ones, and PyAV none for older ones. Received: Python '
      f'{received}. Install it (Debian 13: `apt-get install python3.13 '
      'python3.13-venv`; Ubuntu 24.04: python3.12; Debian 12: python3.11; '
      'elsewhere: `uv python install 3.13`), then make the environment with '
      '`make venv` and use `.venv/bin/python`.'
    )


_check_python(sys.version_info)
quiet.begin(__name__)
