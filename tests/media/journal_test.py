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

  def test_full_disk_is_told_once_and_the_file_is_closed(self):
    journal = journal_lib.Journal(self.path, 'print')
    journal._file.close()
    # Every write to it fails, as on a full disk.
    journal._file = open('/dev/full', 'w', encoding='utf-8')  # noqa: SIM115
    with self.assertRaisesRegex(OSError, 'No space left on device'):
      journal.add_task({'records': 1, 'skips': []})
    journal.close()
    self.assertTrue(journal._file.closed)


if __name__ == '__main__':
  tf.test.main()
