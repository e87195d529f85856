"""Tests of `vatt_tf.core.progress_bar`."""

import io
import sys
from unittest import mock

from absl.testing import absltest

from vatt_tf.core import progress_bar


class _Terminal(io.StringIO):
  def isatty(self):
    return True


class ProgressBarTest(absltest.TestCase):
  def _show(self, stream, seconds):
    with mock.patch.object(sys, 'stderr', stream):
      with mock.patch.object(progress_bar, '_SECONDS', seconds):
        with progress_bar.make(total=3, desc='work') as bar:
          for _ in range(3):
            bar.update()
    return stream.getvalue()

  def test_a_terminal_has_it_redrawn(self):
    text = self._show(_Terminal(), 10.0)
    self.assertIn('\r', text)
    self.assertEqual(text.count('\n'), 1)
    self.assertIn('3/3', text)

  def test_a_log_file_has_lines(self):
    text = self._show(io.StringIO(), 0.0)
    self.assertNotIn('\r', text)
    lines = text.splitlines()
    self.assertGreaterEqual(len(lines), 3)
    self.assertTrue(all(line.startswith('work') for line in lines), text)
    self.assertIn('3/3', lines[-1])

  def test_what_is_short_leaves_no_line(self):
    self.assertEqual(self._show(io.StringIO(), 10.0), '')


if __name__ == '__main__':
  absltest.main()
