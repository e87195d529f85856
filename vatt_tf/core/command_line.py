"""What the commands say and take, and how they end when something is wrong."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import enum
import re
import signal
import socket
import sys
import threading
from typing import Any

from absl import app, flags, logging
import tensorflow as tf

from vatt_tf.core import devices, file_utils

# The flags that are defined here are those of the mains.
flags.disclaim_key_flags()

# What gin appends to the message of an error inside a function that it calls.
_CALLS = re.compile(r"\n\s+In call to configurable '(\w+)'[^\n]*")


class Use(enum.Enum):
  """What a command does with the devices.

  `TRAINS` takes all memory of a GPU, as TensorFlow does. `INFERS` takes what it
  needs. `READS` computes nothing, and leaves GPUs alone.
  """

  TRAINS = 'trains'
  INFERS = 'infers'
  READS = 'reads'


def run(
  main: Callable[[list[str]], Any],
  use: str = Use.READS,
  required: Sequence[str] = (),
  parse: Callable[[list[str]], Any] | None = None,
) -> None:
  """Runs the main of a command: `if __name__ == '__main__'`.

  Before it, a wrong or missing flag ends the process with a line that says so,
  and a command that computes says in its first line on what.

  Args:
    main: Function of what is left of the command line, a list of strings.
    use: `Use`, of the devices. What computes has the flag --require_gpu.
    required: Names of flags that must be given.
    parse: Parses the command line, as for `absl.app.run`. None: the flags of
      absl.
  """

  if use != Use.READS:
    flags.DEFINE_bool(
      'require_gpu',
      False,
      'End with an error, rather than run on the CPU, where no GPU is seen.',
      module_name=sys.argv[0],  # a flag of the main
    )

  def announced(arguments):
    _quieten_tensorflow()
    with exit_on_error():
      _prepare_devices(use)
    return main(arguments)

  app.run(announced, flags_parser=parse or _flags_parser(required))


def _flags_parser(required):
  def parse(argv):
    try:
      rest = flags.FLAGS(argv)
    except flags.Error as e:
      _print_error(str(e), '--help lists the flags.')
      sys.exit(1)
    missing = [name for name in required if flags.FLAGS[name].value is None]
    if missing:
      # absl adds to the help of a flag that may come several times.
      listed = '\n'.join(
        f'  --{name}: {flags.FLAGS[name].help.partition(";")[0]}'
        for name in missing
      )
      _print_error(f'Give\n{listed}', '--help lists all flags.')
      sys.exit(1)
    return rest

  return parse


def _quieten_tensorflow():
  """Its Python log says what concerns programmers, unless --verbosity=1."""
  if not logging.vlog_is_on(1):
    tf.get_logger().setLevel('ERROR')


def _prepare_devices(use):
  if use == Use.READS:
    devices.hide_gpus()
    return
  warning = devices.check(flags.FLAGS.require_gpu)
  print(
    f'TensorFlow {tf.__version__} {devices.describe()}',
    file=sys.stderr,
    flush=True,
  )
  if warning:
    logging.warning('%s', warning)
  if use == Use.INFERS:
    devices.grow_memory()


class Terminated(KeyboardInterrupt):
  """SIGTERM: what Ctrl-C would do, for whoever cleans up."""


@contextlib.contextmanager
def exit_on_error(*others: type[Exception], advice: str = '') -> Iterator[None]:
  """Ends the process with the message of an error, and an exit code.

  The code is the error's `exit_code`, or 1 where it has none. The errors are
  those that a user can mend: `ValueError`, `OSError`, those of TensorFlow,
  `others`, and a `TypeError` of what gin configures. With --verbosity=1 they
  are raised as they are, so that Python says where they come from.

  Ctrl-C and SIGTERM end it with a line and the exit codes 130 and 143, as
  shells count them, once everything on the way has cleaned up.

  Args:
    advice: What to say to whoever stopped the command.
    *others: More types of exceptions.
  """
  try:
    with _terminated():
      yield
  except (ValueError, OSError, tf.errors.OpError, *others) as e:
    if logging.vlog_is_on(1):
      raise
    is_of_files = isinstance(e, tf.errors.OpError)
    _print_error(file_utils.first_line(e) if is_of_files else str(e))
    sys.exit(getattr(e, 'exit_code', 1))
  except TypeError as e:
    # An argument that gin gives, such as None where a number is needed.
    calls = _CALLS.findall(str(e))
    if not calls or logging.vlog_is_on(1):
      raise
    _print_error(
      f'A value is of the wrong kind for `{calls[0]}`: {e}\nLook at what the '
      'gin files and --gin_param bind to its parameters.'
    )
    sys.exit(1)
  except KeyboardInterrupt as e:
    is_term = isinstance(e, Terminated)
    by = ' by SIGTERM' if is_term else ''
    logging.error('%s', f'Interrupted{by}. {advice}'.rstrip())
    sys.exit(143 if is_term else 130)


def _print_error(message, hint='--verbosity=1 shows where it comes from.'):
  print(f'Error: {_CALLS.sub("", message)}\n({hint})', file=sys.stderr)


@contextlib.contextmanager
def _terminated():
  """Raises `Terminated` in the main thread at SIGTERM, unless it is handled."""
  is_main = threading.current_thread() is threading.main_thread()
  if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
    yield
    return

  def terminate(*_):
    raise Terminated()

  signal.signal(signal.SIGTERM, terminate)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _PathParser(flags.ArgumentParser):
  """Takes a path, in which `~` is the home directory."""

  syntactic_help = 'a path'

  def parse(self, argument):
    return file_utils.expand(argument)


def define_path(name: str, default: str | None, text: str) -> flags.FlagHolder:
  """Defines a flag that takes a path or pattern.

  Args:
    name: Of the flag.
    default: Value without the flag.
    text: Its help.

  Returns:
    The holder of the flag.
  """
  return flags.DEFINE(
    _PathParser(),
    name,
    default,
    text,
    serializer=flags.ArgumentSerializer(),
  )


def count(number: int, noun: str) -> str:
  """A number of things: `1 clip`, `2 clips`, `3 classes`, `4 queries`."""
  if number == 1:
    return f'1 {noun}'
  if noun.endswith('s'):
    return f'{number} {noun}es'
  if noun.endswith('ry'):
    return f'{number} {noun[:-1]}ies'
  return f'{number} {noun}s'


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

  def set(self) -> None:
    """Ends the wait, as a signal does; for any thread."""
    self._sender.send(b'\0')

  def wait(self) -> None:
    """Returns once there was a signal, or `set` was called."""
    self._receiver.recv(1)
