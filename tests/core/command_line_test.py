"""Tests of `vatt_tf.core.command_line`."""

import contextlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import time
from unittest import mock

from absl.testing import absltest, parameterized
import tensorflow as tf
import tf_keras

from tests import shared_data, warm_processes
from vatt_tf.core import (
  command_line,
  file_utils,
)

# Signals of another process, at any moment of a wait.
_SIGNALS = """
import os, random, signal, threading, time
from vatt_tf.core import command_line
stopping = command_line.StopSignal()
for number in [signal.SIGTERM, signal.SIGINT] * 200:
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


# A command that is stopped in the middle of its work.
_STOPPED = """
import os, signal, sys
from vatt_tf.core import command_line
try:
  with command_line.exit_on_error(advice='Type it again.'):
    try:
      os.kill(os.getpid(), int(sys.argv[1]))
      signal.pause()
    finally:
      print('Cleaned up.')
finally:
  print('Ended.')
"""


class ExitTest(parameterized.TestCase):
  def _exit(self, error, **options):
    """What is printed of an error, with the exit code."""
    done = mock.Mock()
    with (
      mock.patch.object(command_line, 'print', done, create=True),
      self.assertRaises(SystemExit) as caught,
      command_line.exit_on_error(**options),
    ):
      raise error
    return done.call_args.args[0], caught.exception.code

  def test_errors_of_tensorflow_are_errors_of_files(self):
    for path, message in (
      ('/dev/null/x', '(/dev/null.*not a directory|/dev/null/x; Not a dir)'),
      ('nothing://x/y', "Error: .*scheme 'nothing' not implemented"),
    ):
      try:
        tf.io.gfile.makedirs(path)
      except tf.errors.OpError as e:
        text, code = self._exit(e)
      self.assertRegex(text, message)
      self.assertEqual(code, 1)

  def test_what_keras_wraps_around_a_message_is_left_out(self):
    class Layer(tf_keras.layers.Layer):
      def call(self, x):
        raise ValueError(f'`x` must have 3 axes.\nReceived: shape={x.shape}')

    layer = Layer(name='video')

    @tf.function
    def in_graph(x):
      return layer(x)

    for function in (layer, in_graph):
      with self.subTest(function=function):
        stderr = io.StringIO()
        with (
          contextlib.redirect_stderr(stderr),
          self.assertRaises(SystemExit),
          command_line.exit_on_error(),
        ):
          function(tf.zeros([2]))
        self.assertEqual(
          stderr.getvalue(),
          'Error: `x` must have 3 axes.\nReceived: shape=(2,)\n'
          '(--verbosity=1 shows where it comes from.)\n',
        )

  def test_wrong_kind_of_a_value_that_gin_binds(self):
    call = "\n  In call to configurable 'WarmupCosine' (<class 'x'>)"
    text, code = self._exit(TypeError(f'no int: None{call}'))
    self.assertEqual(code, 1)
    self.assertRegex(text, 'wrong type for `WarmupCosine`: no int: None\nCheck')
    with self.assertRaisesRegex(TypeError, 'a bug'):
      with command_line.exit_on_error():
        raise TypeError('a bug')

  @parameterized.parameters(False, True)
  def test_sigterm(self, ignores_interrupt):
    done = warm_processes.run(
      '-c',
      _STOPPED,
      str(signal.SIGTERM.value),
      ignores_interrupt=ignores_interrupt,
    )
    self.assertEqual(done.returncode, 143, done.stderr)
    self.assertEqual(done.stdout, 'Cleaned up.\nEnded.\n')
    self.assertIn('Interrupted by SIGTERM. Type it again.', done.stderr)
    self.assertNotIn('Traceback', done.stderr)

  def test_ctrl_c(self):
    done = warm_processes.run('-c', _STOPPED, str(signal.SIGINT.value))
    self.assertEqual(done.returncode, 130, done.stderr)
    self.assertIn('Interrupted. Type it again.', done.stderr)

  def test_handlers_are_as_before(self):
    before = signal.getsignal(signal.SIGTERM)
    with command_line.exit_on_error():
      pass
    self.assertIs(signal.getsignal(signal.SIGTERM), before)

  @parameterized.named_parameters(
    (
      'evaluate',
      [
        'evaluate',
        '--follow',
        '--checkpoint={}/run',
        '--gin_file=gin/pretrain_sample.gin',
        '--gin_file=gin/data/sample.gin',
      ],
      'Waiting for',
    ),
    ('quickstart', ['quickstart', '--output_dir={}/new'], 'sample media'),
  )
  def test_command_in_the_background_of_a_script(self, command, started):
    folder = self.create_tempdir().full_path
    name, *arguments = (word.format(folder) for word in command)
    process = warm_processes.Process(
      f'vatt_tf.{name}', *arguments, ignores_interrupt=True
    )
    self.addCleanup(process.kill)
    for line in process.stdout:
      if started in line:
        break
    process.send_signal(signal.SIGINT)  # ignored
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    self.assertEqual(process.returncode, 143, error)
    self.assertNotIn('Traceback', error)


class PathTest(parameterized.TestCase):
  def test_home_is_expanded(self):
    with mock.patch.dict(os.environ, HOME='/nowhere/me'):
      for path, expected in (
        ('~/a b', '/nowhere/me/a b'),
        ('~', '/nowhere/me'),
        ('a/~/b', 'a/~/b'),
        ('./~', './~'),
        ('~nobody-of-this-name/x', '~nobody-of-this-name/x'),
        ('', ''),
        (None, None),
        (['~/a', 'b'], ['/nowhere/me/a', 'b']),
      ):
        self.assertEqual(file_utils.expand(path), expected)

  def test_who_does_not_answer_is_named(self):
    def wait(path):
      del path
      time.sleep(0.3)
      return True

    with (
      mock.patch.object(file_utils, 'PATIENCE_SECONDS', 0.05),
      mock.patch.object(tf.io.gfile, 'exists', wait),
      self.assertLogs(level='WARNING') as logs,
    ):
      self.assertTrue(file_utils.exists('gs://bucket/x'))
    self.assertIn('Waiting for gs://bucket/x', logs.output[0])

  def test_out_of_reach_is_not_absent(self):
    for call in (
      file_utils.exists,
      file_utils.list_folder,
      file_utils.check_writable,
    ):
      with self.assertRaisesRegex(OSError, 'nothing://b/x.*not implemented'):
        call('nothing://b/x')
    with self.assertRaisesRegex(ValueError, '`output` must be a folder of th'):
      file_utils.check_local('output', 'gs://b/x')

  @parameterized.parameters(
    ('{0}/a [1]/*.mp4', '{0}/a [1]', '*.mp4'),
    ('{0}/a [1]/b*/*.mp4', '{0}/a [1]/b*', '*.mp4'),
    ('{0}/a [1]/b?/**/x', '{0}/a [1]', 'b?/**/x'),
    ('{0}/a [1]', '{0}/a [1]', ''),
    ('{0}/no/x*', '{0}', 'no/x*'),
    ('nowhere/x*', '', 'nowhere/x*'),
  )
  def test_what_exists_is_no_pattern(self, pattern, folder, rest):
    root = self.create_tempdir()
    root.mkdir('a [1]/b*')
    self.assertEqual(
      file_utils.split_pattern(pattern.format(root.full_path)),
      (folder.format(root.full_path), rest),
    )

  def test_file_is_whole_or_not_there(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    file_utils.write_text(str(folder / 'a [1]' / 'b'), 'x')
    self.assertEqual((folder / 'a [1]' / 'b').read_text(), 'x')
    with self.assertRaisesRegex(OSError, 'b/c cannot be written: .*not a dir'):
      file_utils.write_text(str(folder / 'a [1]' / 'b' / 'c'), 'x')
    with self.assertRaisesRegex(OSError, 'cannot be written: .*directory'):
      file_utils.write_text(str(folder / 'a [1]'), 'x')
    self.assertLen(list(folder.rglob('*')), 2)
    with self.assertRaisesRegex(OSError, 'b/c cannot be written: .* Give'):
      file_utils.check_writable(str(folder / 'a [1]' / 'b' / 'c'), 'Give x.')


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
