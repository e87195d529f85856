"""What the commands say, and how they end when something is wrong."""

import contextlib
import re
import sys

from absl import logging

# What gin appends to the message of an error inside a function that it calls.
_CALLS = re.compile(r'\n\s+In call to configurable [^\n]*')


@contextlib.contextmanager
def exit_on_error(*others):
  """Ends the process with the message of an error, and an exit code.

  The code is the error's `exit_code`, or 1 where it has none. The errors are
  those that a user can mend: `ValueError`, `OSError` and `others`. With
  --verbosity=1 they are raised as they are, so that Python says where they come
  from.

  Args:
    *others: more types of exceptions.
  """
  try:
    yield
  except (ValueError, OSError, *others) as e:
    if logging.vlog_is_on(1):
      raise
    message = _CALLS.sub('', str(e))
    print(
      f'Error: {message}\n(--verbosity=1 shows where it comes from.)',
      file=sys.stderr,
    )
    sys.exit(getattr(e, 'exit_code', 1))


def count(number, noun):
  """A number of things: `1 clip`, `2 clips`."""
  return f'{number} {noun}{"" if number == 1 else "s"}'
