"""Settings of a command's process: quiet libraries, and a quick start.

This module is imported before everything else and needs only Python, because
TensorFlow reads its settings when it is loaded.
"""

import os
import sys
import warnings

# The level of TensorFlow's C++ log, for this process and those that it starts:
# only fatal errors.
_TENSORFLOW_LOG = ('TF_CPP_MIN_LOG_LEVEL', '3')
# The models use tf_keras. TensorFlow otherwise loads Keras 3 too, which takes
# almost a second.
_KERAS = ('TF_USE_LEGACY_KERAS', '1')
_PYTHON_WARNINGS = ('PYTHONWARNINGS', 'ignore')


def is_command(arguments: list[str], package: str) -> bool:
  """Returns whether Python runs a command of a package.

  Args:
    arguments: Arguments of Python, the program first: `sys.orig_argv`.
    package: Name of the package.

  Returns:
    Whether they contain `-m PACKAGE…`.
  """
  if '-m' not in arguments[:-1]:
    return False
  place = arguments.index('-m') + 1
  return arguments[place].partition('.')[0] == package


def is_wanted(arguments: list[str], package: str) -> bool:
  """Returns whether Python runs a command of a package without verbosity.

  Args:
    arguments: Arguments of Python, the program first: `sys.orig_argv`.
    package: Name of the package.

  Returns:
    Whether they contain `-m PACKAGE…` and no `--verbosity` of 1 or more.
  """
  if not is_command(arguments, package):
    return False
  flags = arguments[arguments.index('-m') + 2 :]
  for flag, following in zip(flags, [*flags[1:], '']):
    name, equals, value = flag.lstrip('-').partition('=')
    if flag.startswith('-') and name in ('verbosity', 'v'):
      value = value if equals else following
      return not (value.isdecimal() and int(value) > 0)
  return True


def begin(package: str) -> None:
  """Makes the settings, if Python runs a command of the package.

  Settings of the environment are not changed.

  Args:
    package: Name of the package.
  """
  # `sys.argv` begins with -m while Python looks for the module of a command.
  # Otherwise the package is imported as a library, which must not change the
  # output of its process.
  if sys.argv[:1] != ['-m'] or not is_command(sys.orig_argv, package):
    return
  os.environ.setdefault(*_KERAS)
  if not is_wanted(sys.orig_argv, package):
    return
  os.environ.setdefault(*_TENSORFLOW_LOG)
  if not sys.warnoptions:
    warnings.simplefilter('ignore')
    os.environ.setdefault(*_PYTHON_WARNINGS)
