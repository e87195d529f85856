"""Commands, run as a user would type them."""

import contextlib
import importlib
import io

from absl import flags
from absl.testing import flagsaver

from tests import warm_processes


def run(module, *arguments):
  """Runs `python -m vatt_tf.MODULE` in the repository's root.

  Args:
    module: such as `evaluate`.
    *arguments: of the command.

  Returns:
    `subprocess.CompletedProcess`, with both outputs as text.
  """
  return warm_processes.run(f'vatt_tf.{module}', *arguments)


@contextlib.contextmanager
def imported(name):
  """A main of absl in this process, with its flags alone.

  Mains have flags of the same names, which one process cannot define twice.
  Those of other mains are put aside meanwhile.

  Args:
    name: of the module, which nothing else imports, such as `embed`.

  Yields:
    The module.
  """
  others = [
    (module, flag)
    for module, defined in flags.FLAGS.flags_by_module_dict().items()
    if module.startswith('vatt_tf')
    for flag in defined
  ]
  flags.FLAGS.remove_flag_values([flag.name for _, flag in others])
  try:
    module = importlib.import_module(f'vatt_tf.{name}')
    yield module
  finally:
    own = flags.FLAGS.get_flags_for_module(f'vatt_tf.{name}')
    flags.FLAGS.remove_flag_values([flag.name for flag in own])
    for other, flag in others:
      flags.FLAGS[flag.name] = flag
      flags.FLAGS.register_flag_by_module(other, flag)


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
