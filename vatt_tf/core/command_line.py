"""Messages, flags and exit codes that all commands share."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import enum
import re
import signal
import socket
import sys
import textwrap
import threading
from typing import Any

from absl import app, flags, logging
import tensorflow as tf

from vatt_tf.core import devices, file_utils

# Flags defined here count as flags of the main modules.
flags.disclaim_key_flags()

# Text that gin appends to the message of an error in a function that it calls.
_CALLS = re.compile(r"\n\s+In call to configurable '(\w+)'[^\n]*")


# How TensorFlow and Keras wrap the message of an error in a graph or a layer.
_IN_GRAPH = 'in user code:'
_ERROR_NAME = re.compile(r'\n    (?:\w+\.)*\w+Error: ')
_IN_LAYER = re.compile(
  r'Exception encountered when calling (?:layer )?.*?\n\n(.*?)'
  r'\n\nCall arguments received by .*',
  re.DOTALL,
)


class Use(enum.Enum):
  """How a command uses the devices.

  `TRAINS` takes all memory of a GPU, as TensorFlow does by default. `INFERS`
  takes memory as needed. `READS` computes nothing, and does not use GPUs.
  """

  TRAINS = 'trains'
  INFERS = 'infers'
  READS = 'reads'


def run(
  main: Callable[[list[str]], Any],
  use: Use = Use.READS,
  required: Sequence[str] = (),
  parse: Callable[[list[str]], Any] | None = None,
) -> None:
  """Runs the main function of a command, in `if __name__ == '__main__'`.

  A wrong or missing flag ends the process with a message. A command that
  computes prints its devices in its first line.

  Args:
    main: Function of the remaining command line, a list of strings.
    use: Use of the devices. Commands that compute have the flag --require_gpu.
    required: Names of the required flags.
    parse: Function that parses the command line, as for `absl.app.run`. None
      means to parse the flags of absl.
  """

  if use != Use.READS:
    flags.DEFINE_bool(
      'require_gpu',
      False,
      'End with an error, instead of running on the CPU, if no GPU is visible.',
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
      arguments = flags.FLAGS(argv)
    except flags.Error as e:
      _print_error(str(e), '--help lists the flags.')
      sys.exit(1)
    missing_flags = [
      name for name in required if flags.FLAGS[name].value is None
    ]
    if missing_flags:
      # absl extends the help of a flag that may be repeated, after `;`.
      listed = '\n'.join(
        f'  --{name}: {flags.FLAGS[name].help.partition(";")[0]}'
        for name in missing_flags
      )
      _print_error(f'Give\n{listed}', '--help lists all flags.')
      sys.exit(1)
    return arguments

  return parse


def _quieten_tensorflow():
  """Hides the messages of its Python log for programmers, by default."""
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
  """SIGTERM was received; it is handled like Ctrl-C."""


@contextlib.contextmanager
def exit_on_error(*others: type[Exception], advice: str = '') -> Iterator[None]:
  """Ends the process with the message of an error, and an exit code.

  The code is the error's `exit_code`, or 1 without one. This applies to errors
  that a user can fix: `ValueError`, `OSError`, TensorFlow's errors, `others`,
  and a `TypeError` in a function that gin calls. With --verbosity=1 they are
  raised, so that Python prints a traceback.

  Ctrl-C and SIGTERM end the process with a line and the exit codes 130 and 143,
  as shells count them, after all cleanup.

  Args:
    advice: Advice to print after Ctrl-C or SIGTERM.
    *others: Other types of exceptions.
  """
  try:
    with _terminated():
      yield
  except (ValueError, OSError, tf.errors.OpError, *others) as e:
    if logging.vlog_is_on(1):
      raise
    is_from_tensorflow = isinstance(e, tf.errors.OpError)
    _print_error(file_utils.first_line(e) if is_from_tensorflow else str(e))
    sys.exit(getattr(e, 'exit_code', 1))
  except TypeError as e:
    # An argument that gin gives, such as None where a number is needed.
    calls = _CALLS.findall(str(e))
    if not calls or logging.vlog_is_on(1):
      raise
    _print_error(
      f'A value has the wrong type for `{calls[0]}`: {e}\nCheck the values '
      'that the gin files and --gin_param bind to its parameters.'
    )
    sys.exit(1)
  except KeyboardInterrupt as e:
    is_term = isinstance(e, Terminated)
    by = ' by SIGTERM' if is_term else ''
    logging.error('%s', f'Interrupted{by}. {advice}'.rstrip())
    sys.exit(143 if is_term else 130)


def _print_error(message, hint='--verbosity=1 shows where it comes from.'):
  message = _own_words(_CALLS.sub('', message))
  print(f'Error: {message}\n({hint})', file=sys.stderr)


def _own_words(message):
  """A message without what TensorFlow and Keras wrap around it."""
  if message.startswith(_IN_GRAPH):
    # A trace of the function, then the error, all indented.
    _, _, message = _ERROR_NAME.sub('\0', message).rpartition('\0')
    message = textwrap.dedent(f'    {message}').strip()
  match = _IN_LAYER.match(message)
  return _own_words(match[1].strip()) if match else message


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
  """A parser of paths, in which `~` is the home directory."""

  syntactic_help = 'a path'

  def parse(self, argument):
    return file_utils.expand(argument)


def define_path(name: str, default: str | None, text: str) -> flags.FlagHolder:
  """Defines a flag that takes a path or pattern.

  Args:
    name: Name of the flag.
    default: Value without the flag.
    text: Help text of the flag.

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
  """Returns a number with its noun: `1 clip`, `3 classes`, `4 queries`."""
  if number == 1:
    return f'1 {noun}'
  if noun.endswith('s'):
    return f'{number} {noun}es'
  if noun.endswith('ry'):
    return f'{number} {noun[:-1]}ies'
  return f'{number} {noun}s'


class StopSignal:
  """Waits for SIGINT or SIGTERM, or for another thread to call `set`.

  Create it in the main thread. It uses a socket, because a signal handler that
  sets a `threading.Event` would run in the middle of the main thread's `wait`,
  and could wait for a lock that this same thread holds.
  """

  def __init__(self):
    self._receiver, self._sender = socket.socketpair()
    self._sender.setblocking(False)
    signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
    # Handlers are needed, because a shell's background jobs ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda *_: None)

  def set(self) -> None:
    """Ends the wait, as a signal does, from any thread."""
    self._sender.send(b'\0')

  def wait(self) -> None:
    """Returns after a signal or a call of `set`."""
    self._receiver.recv(1)
