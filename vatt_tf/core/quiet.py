"""Keeps what libraries print of themselves out of what a command says.

Imported before everything else, and needs nothing but Python: TensorFlow reads
its setting when it is loaded.
"""

import os
import sys
import warnings

# Of TensorFlow's own log, for this process and those that it starts: nothing
# but what ends the process.
_TENSORFLOW_LOG = ('TF_CPP_MIN_LOG_LEVEL', '3')
_PYTHON_WARNINGS = ('PYTHONWARNINGS', 'ignore')


def is_wanted(arguments: list[str], package: str) -> bool:
  """Whether Python was asked to run a command of a package, and no more of it.

  Args:
    arguments: Of Python, the program first: `sys.orig_argv`.
    package: Name of the package.

  Returns:
    Whether they hold `-m PACKAGE…` and no `--verbosity` of 1 or more.
  """
  if '-m' not in arguments[:-1]:
    return False
  place = arguments.index('-m') + 1
  if arguments[place].partition('.')[0] != package:
    return False
  own = arguments[place + 1 :]
  for flag, following in zip(own, [*own[1:], '']):
    name, equals, value = flag.lstrip('-').partition('=')
    if flag.startswith('-') and name in ('verbosity', 'v'):
      value = value if equals else following
      return not (value.isdecimal() and int(value) > 0)
  return True


def begin(package: str) -> None:
  """Quietens the libraries, if a command of the package is what runs.

  Settings of the environment stay as they are.

  Args:
    package: Name of the package.
  """
  # Python says so while it looks for the module of `-m`; a library that is
  # imported must not touch what its process prints.
  if sys.argv[:1] != ['-m'] or not is_wanted(sys.orig_argv, package):
    return
  os.environ.setdefault(*_TENSORFLOW_LOG)
  if not sys.warnoptions:
    warnings.simplefilter('ignore')
    os.environ.setdefault(*_PYTHON_WARNINGS)
