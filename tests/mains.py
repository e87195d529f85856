"""Commands, run as a user would type them."""

import contextlib
import io
import subprocess
import sys

from absl import flags
from absl.testing import flagsaver

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


def run_here(module, **values):
  """Runs the main of a module in this process, which has TensorFlow already.

  Args:
    module: of the package, such as `vatt_tf.ingest`.
    **values: of its flags.

  Returns:
    The exit code, and what was printed on each of both outputs.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['test'])
  output, error, code = io.StringIO(), io.StringIO(), 0
  with (
    flagsaver.flagsaver(**values),
    contextlib.redirect_stdout(output),
    contextlib.redirect_stderr(error),
  ):
    try:
      module.main([module.__name__])
    except SystemExit as e:
      code = e.code
  return code, output.getvalue(), error.getvalue()
