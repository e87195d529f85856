"""Tests of `vatt_tf.command_line`."""

import subprocess
import sys

from absl.testing import absltest

from tests import shared_data
from vatt_tf import command_line

# Signals of another process, at any moment of a wait.
_SIGNALS = """
import os, random, signal, threading, time
from vatt_tf import command_line
stopping = command_line.StopSignal()
for number in [signal.SIGTERM, signal.SIGINT] * 500:
  ready, go = os.pipe()
  delay = 1e-4 * random.random()
  child = os.fork()
  if not child:
    os.read(ready, 1)
    end = time.perf_counter() + delay
    while time.perf_counter() < end:
      pass
    os.kill(os.getppid(), number)
    os._exit(0)
  os.write(go, b'.')
  stopping.wait()
  os.waitpid(child, 0)
  os.close(ready)
  os.close(go)
threading.Thread(target=stopping.set).start()
stopping.wait()
print('Stopped.')
"""


class CommandLineTest(absltest.TestCase):
  def test_count(self):
    self.assertEqual(command_line.count(1, 'clip'), '1 clip')
    self.assertEqual(command_line.count(0, 'clip'), '0 clips')

  def test_no_signal_is_lost(self):
    done = subprocess.run(
      [sys.executable, '-c', _SIGNALS],
      cwd=shared_data.REPOSITORY,
      capture_output=True,
      text=True,
      check=False,
      timeout=100,
    )
    self.assertEqual(done.stdout, 'Stopped.\n', done.stderr)


if __name__ == '__main__':
  absltest.main()
