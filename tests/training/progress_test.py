"""Tests of the progress line and of stopping by signal."""

import io
import os
import signal
from unittest import mock

import tensorflow as tf

from vatt_tf.training import progress


class ProgressTest(tf.test.TestCase):
  def test_line_holds_what_people_ask_for(self):
    stream = io.StringIO()
    line = progress.Progress(
      100, 8, 10, progress_metrics=('video_audio_loss',), stream=stream
    )
    line.start(0)
    self.assertIsNone(line.update(5, {'loss': 1.0}))
    rate = line.update(10, {'loss': 1.25, 'video_audio_loss': 0.5})
    self.assertGreater(rate, 0)
    text = stream.getvalue()
    for part in ('step 10/100', 'loss 1.2500', 'video_audio_loss 0.5'):
      self.assertIn(part, text)
    self.assertIn('examples/s', text)
    self.assertIn('ETA', text)

  def test_last_step_is_always_shown(self):
    stream = io.StringIO()
    line = progress.Progress(7, 8, 10, stream=stream)
    line.start(0)
    line.update(7, {'loss': 1.0})
    self.assertIn('step 7/7', stream.getvalue())

  def test_slower_side_is_named(self):
    stream = io.StringIO()
    line = progress.Progress(100, 8, 10, stream=stream)
    line.start(0)
    clock = [0.0]
    with mock.patch.object(progress.time, 'monotonic', lambda: clock[0]):
      line.start(0)
      with mock.patch.object(progress, 'logging') as log:
        for step, seconds, waited in ((10, 10.0, 9.0), (20, 20.0, 0.5)):
          clock[0] = seconds
          line.update(step, {'loss': 1.0}, waited)
      log.warning.assert_not_called()
      self.assertNotIn('waiting', stream.getvalue())
      with mock.patch.object(progress, 'logging') as log:
        for step, seconds in ((25, 25.0), (30, 30.0), (40, 40.0)):
          clock[0] = seconds
          line.update(step, {'loss': 1.0}, waited=2.0)
    log.warning.assert_called_once()
    template, *values = log.warning.call_args.args
    message = template % tuple(values)
    self.assertIn('input is too slow', message)
    self.assertIn('40 % of the last 10 steps', message)
    self.assertIn('yields 8.0 examples per second', message)
    self.assertIn('could take 13.3', message)
    self.assertIn('40% of it waiting for data', stream.getvalue())


class StopRequestTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    # In the background of a script it is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    self.addCleanup(signal.signal, signal.SIGINT, before)

  def test_first_signal_is_a_request_and_the_second_is_not(self):
    before = signal.getsignal(signal.SIGINT)
    with progress.StopRequest() as stop:
      self.assertIsNone(stop.reason)
      os.kill(os.getpid(), signal.SIGINT)
      self.assertEqual(stop.reason, 'SIGINT')
      with self.assertRaises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    self.assertIs(signal.getsignal(signal.SIGINT), before)

  def test_sigterm_asks_too(self):
    with progress.StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGTERM)
      self.assertEqual(stop.reason, 'SIGTERM')


if __name__ == '__main__':
  tf.test.main()
