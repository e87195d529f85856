"""The journal of an unfinished ingest."""

import os

import tensorflow as tf

from vatt_tf.media import journal as journal_lib


class JournalTest(tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.path = os.path.join(self.create_tempdir().full_path, 'a.jsonl')

  def test_what_was_noted_is_read_again(self):
    journal = journal_lib.Journal(self.path, 'print')
    journal.add_end(('a.mp4', ''), 7)
    journal.add_task({'records': 1, 'skips': []})
    journal.close()
    with open(self.path, 'a', encoding='utf-8') as file:
      file.write('{"records": 1, "sk')
    journal = journal_lib.Journal(self.path, 'print')
    self.assertEqual(journal.ends, {('a.mp4', ''): 7})
    self.assertEqual(journal.tasks, [{'records': 1, 'skips': []}])
    journal.close()

  def test_lines_that_are_hard_to_read_again(self):
    """Characters that Python ends lines at, and a write that was cut short."""
    names = ['a\x85b.mp4', 'a\u2028b.mp4', 'a\u2029b.mp4', 'c\r\nd.mp4']
    journal = journal_lib.Journal(self.path, 'print')
    for name in names:
      journal.add_end((name, ''), 7)
      journal.add_task({'records': 1, 'skips': [[name, '', '', 'why']]})
    tasks = list(journal.tasks)
    journal.close()
    with open(self.path, 'rb') as file:
      content = file.read()
    line = '{"file": ["ü'.encode()
    with open(self.path, 'ab') as file:
      file.write(line[:-1])
    journal = journal_lib.Journal(self.path, 'print')
    self.assertEqual(journal.ends, {(name, ''): 7 for name in names})
    self.assertEqual(journal.tasks, tasks)
    with open(self.path, 'rb') as file:
      self.assertEqual(file.read(), content)
    journal.forget_tasks_from(1)
    journal.add_task(tasks[3])
    journal.close()
    journal = journal_lib.Journal(self.path, 'print')
    self.assertLen(journal.ends, 4)
    self.assertEqual(journal.tasks, [tasks[0], tasks[3]])
    journal.close()

  def test_two_processes_do_not_write_one_file(self):
    journal = journal_lib.Journal(self.path, 'print')
    with self.assertRaisesRegex(ValueError, 'Another ingest is writing'):
      journal_lib.Journal(self.path, 'print')
    journal.close()
    journal_lib.Journal(self.path, 'print').close()

  def test_full_disk_is_told_once_and_the_file_is_closed(self):
    journal = journal_lib.Journal(self.path, 'print')
    journal._file.close()
    # Every write to it fails, as on a full disk.
    journal._file = open('/dev/full', 'wb')  # noqa: SIM115
    with self.assertRaisesRegex(OSError, 'No space left on device'):
      journal.add_task({'records': 1, 'skips': []})
    journal.close()
    self.assertTrue(journal._file.closed)


if __name__ == '__main__':
  tf.test.main()
