"""Commands, run as a user would type them."""

import subprocess
import sys

from tests import shared_data


def run(module, *arguments):
  """Runs `python -m vatt_tf.MODULE` in the repository's root.

  Args:
    module: such as `evaluate`.
    *arguments: of the command.

  Returns:
    `subprocess.CompletedProcess`, with both outputs as text.
  """
  return subprocess.run(
    [sys.executable, '-m', f'vatt_tf.{module}', *arguments],
    cwd=shared_data.REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )
