"""What the commands say, and how they end when something is wrong."""

import contextlib
import re
import signal
import socket
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


class StopSignal:
  """SIGINT or SIGTERM, to wait for; or what another thread says.

  Made in the main thread. A handler that sets a `threading.Event` would run in
  the middle of the main thread's `wait`, where it may wait for a lock that this
  very thread holds; what is sent to a socket is there whenever it is read.
  """

  def __init__(self):
    self._receiver, self._sender = socket.socketpair()
    self._sender.setblocking(False)
    signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
    # Explicitly: a shell's background jobs ignore Ctrl-C by default.
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda *_: None)

  def set(self):
    """Ends the wait, as a signal does; for any thread."""
    self._sender.send(b'\0')

  def wait(self):
    """Returns once there was a signal, or `set` was called."""
    self._receiver.recv(1)
