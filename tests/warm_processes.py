"""Commands in processes that need not import TensorFlow, which takes seconds.

One process imports it for all commands of a test process, and forks for each.
A command has an environment, a folder, outputs and signals of its own, as if a
shell had started it. What an import prints or needs is tested with processes
that import for themselves (`tests/core/quiet_test.py`, `tests/wheel_test.py`).
"""

import atexit
import concurrent.futures
import multiprocessing
from multiprocessing import reduction
import os
import runpy
import signal
import subprocess
import sys

from tests import shared_data

_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['tensorflow', 'tf_keras'])


def _run(module, arguments, variables, interrupt, has_session, outputs):
  """Runs a command in the forked process."""
  if has_session:
    os.setsid()
  for number, output in zip((1, 2), outputs):
    os.dup2(output.detach(), number)
  os.environ.clear()
  os.environ.update(variables)
  os.chdir(shared_data.REPOSITORY)
  signal.signal(signal.SIGINT, interrupt)
  sys.path.insert(0, str(shared_data.REPOSITORY))
  is_program = module == '-c'
  flag = [] if is_program else ['-m']
  sys.orig_argv = [sys.executable, *flag, module, *arguments]
  sys.argv = [module, *arguments[is_program:]]
  try:
    if is_program:
      exec(arguments[0], {'__name__': '__main__'})
    else:
      runpy.run_module(module, run_name='__main__', alter_sys=True)
  finally:
    atexit._run_exitfuncs()  # which processes of multiprocessing leave out


class Process:
  """`python -m MODULE` in the repository's root, like `subprocess.Popen`.

  Args:
    module: Name of the module, such as `vatt_tf.train`; or `-c`, and the first
      argument is a program.
    *arguments: Arguments of the command.
    stderr: `subprocess.PIPE`, or `subprocess.STDOUT` for one text of both
      outputs.
    start_new_session: Whether it leads a group of processes of its own, for
      signals to all of them.
    ignores_interrupt: Whether it ignores SIGINT, as what a shell starts in the
      background does.
    **variables: Additional environment variables.
  """

  def __init__(
    self,
    module,
    *arguments,
    stderr=subprocess.PIPE,
    start_new_session=False,
    ignores_interrupt=False,
    **variables,
  ):
    self.args = [module, *arguments]
    read, write = os.pipe()
    self.stdout, self.stderr = os.fdopen(read), None
    ends = [write, write]
    if stderr == subprocess.PIPE:
      read, ends[1] = os.pipe()
      self.stderr = os.fdopen(read)
    interrupt = signal.default_int_handler
    if ignores_interrupt:
      interrupt = signal.SIG_IGN
    self._process = _CONTEXT.Process(
      target=_run,
      args=(
        module,
        arguments,
        {**os.environ, **variables},
        interrupt,
        start_new_session,
        [reduction.DupFd(end) for end in ends],
      ),
    )
    self._process.start()
    for end in set(ends):
      os.close(end)

  @property
  def pid(self):
    return self._process.pid

  @property
  def returncode(self):
    return self._process.exitcode

  def poll(self):
    return self._process.exitcode

  def wait(self, timeout=None):
    self._process.join(timeout)
    if self.returncode is None:
      raise subprocess.TimeoutExpired(self.args, timeout)
    return self.returncode

  def send_signal(self, number):
    if self.poll() is None:
      os.kill(self.pid, number)

  def terminate(self):
    self.send_signal(signal.SIGTERM)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout=None):
    """Reads both outputs to their ends, and waits; kills it at the timeout."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
      texts = [
        pool.submit(file.read) if file else None
        for file in (self.stdout, self.stderr)
      ]
      try:
        self.wait(timeout)
      except subprocess.TimeoutExpired:
        self.kill()
        raise
    return tuple(text and text.result() for text in texts)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.wait()
    for file in (self.stdout, self.stderr):
      if file is not None:
        file.close()


def run(module, *arguments, timeout=None, **options):
  """Runs `Process` to its end.

  Args:
    module: See `Process`.
    *arguments: See `Process`.
    timeout: Seconds after which it is killed, or None.
    **options: See `Process`.

  Returns:
    `subprocess.CompletedProcess`, with both outputs as text.
  """
  with Process(module, *arguments, **options) as process:
    outputs = process.communicate(timeout)
  return subprocess.CompletedProcess(process.args, process.returncode, *outputs)
