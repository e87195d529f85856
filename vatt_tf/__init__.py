"""VATT in TensorFlow 2: transformers for raw video, audio and text.

Importing this package checks the Python version and imports nothing else, so
that it stays cheap; import the modules by name.
"""

import sys

__version__ = '0.1.0'


def _check_python(version_info):
  """Raises `ImportError` unless `version_info` is a Python 3.11."""
  if tuple(version_info[:2]) != (3, 11):
    received = '.'.join(str(part) for part in version_info[:3])
    raise ImportError(
      'vatt_tf needs Python 3.11: it is the newest version for which '
      f'tensorflow-text 2.17 has wheels. Received: Python {received}. '
      'Install it (Debian and Ubuntu: `apt-get install python3.11 '
      'python3.11-venv`; elsewhere: `uv python install 3.11`), then make the '
      'environment with `make venv` and use `.venv/bin/python`.'
    )


_check_python(sys.version_info)
