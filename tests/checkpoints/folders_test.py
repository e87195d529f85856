"""Tests of checkpoints in folders, whatever their names and their damage."""

import os
import pathlib
import shutil
from unittest import mock

from absl.testing import parameterized
import tensorflow as tf

from tests import odd_names
from tests.checkpoints import checkpoint_files
from vatt_tf.checkpoints import ema, folders, manager, weight_sources
from vatt_tf.core import file_utils

_DATA = 'ckpt-4.data-00000-of-00001'


def _checkpoint(value):
  return tf.train.Checkpoint(
    model=tf.train.Checkpoint(value=tf.Variable(tf.fill([1000], value)))
  )


class FoldersTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.dir = pathlib.Path(self.create_tempdir().full_path)

  def _save(self, *steps, folder=None, max_to_keep=9):
    folder = folder or str(self.dir)
    for step in steps:
      folders.save(_checkpoint(float(step)), folder, step, max_to_keep)

  def _newest(self, folder=None):
    """The name of the newest checkpoint, and the lines that warn."""
    with mock.patch.object(folders.logging, 'warning') as warning:
      prefix = folders.newest(folder or str(self.dir))
    lines = [call.args[0] % call.args[1:] for call in warning.call_args_list]
    return prefix and os.path.basename(prefix), '\n'.join(lines)

  def test_nothing_there(self):
    self.assertIsNone(folders.newest(str(self.dir)))
    self.assertIsNone(folders.newest(str(self.dir / 'nothing')))
    (self.dir / 'config.gin').write_text('')
    (self.dir / 'ckpt-2_temp').mkdir()
    self.assertIsNone(folders.newest(str(self.dir)))

  def test_newest_without_a_word(self):
    self._save(2, 9, 10)
    self.assertEqual(self._newest(), ('ckpt-10', ''))

  def test_as_tensorflow_finds_them(self):
    self._save(2, 4, 6, max_to_keep=2)
    state = tf.train.get_checkpoint_state(str(self.dir))
    paths = [str(self.dir / name) for name in ('ckpt-4', 'ckpt-6')]
    self.assertEqual(list(state.all_model_checkpoint_paths), paths)
    self.assertEqual(tf.train.latest_checkpoint(str(self.dir)), paths[1])

  @parameterized.named_parameters(
    ('missing', None, 'is missing'),
    ('empty', b'', 'is damaged'),
    ('zeros', bytes(64), 'is damaged'),
    ('no_text', bytes(range(256)), 'is damaged'),
    ('half', b'model_checkpoint_path: "ckp', 'is damaged'),
    (
      # Its first bytes are gone: a line of the list passes for the last one.
      'without_its_beginning',
      b'model_checkpoint_paths: "ckpt-2"\n'
      b'all_model_checkpoint_paths: "ckpt-4"\n',
      'is damaged',
    ),
    ('behind', b'model_checkpoint_path: "ckpt-2"\n', 'names ckpt-2'),
    ('gone', b'model_checkpoint_path: "ckpt-8"\n', 'names ckpt-8'),
    (
      'of_another_run',
      b'model_checkpoint_path: "/other/run/ckpt-8"\n',
      'names ckpt-8',
    ),
  )
  def test_state_file(self, content, message):
    self._save(2, 4)
    if content is None:
      (self.dir / 'checkpoint').unlink()
    else:
      (self.dir / 'checkpoint').write_bytes(content)
    name, warning = self._newest()
    self.assertEqual(name, 'ckpt-4')
    self.assertIn(message, warning)

  def test_state_file_that_lists_all_knows_the_last(self):
    self._save(10, 9)
    self.assertEqual(self._newest(), ('ckpt-9', ''))
    (self.dir / 'ckpt-9.index').write_bytes(b'')
    self.assertEqual(self._newest()[0], 'ckpt-10')

  def test_moved_run_is_found(self):
    self._save(2, 4)
    path = str(self.dir / 'ckpt-4')
    (self.dir / 'checkpoint').write_text(f'model_checkpoint_path: "{path}"\n')
    moved = str(self.dir) + '_moved'
    os.rename(self.dir, moved)
    self.assertEqual(self._newest(moved), ('ckpt-4', ''))

  def test_state_file_alone_is_no_new_run(self):
    self._save(2)
    for path in self.dir.glob('ckpt-*'):
      path.unlink()
    with self.assertRaisesRegex(ValueError, 'names ckpt-2, but no checkpoint'):
      folders.newest(str(self.dir))

  @parameterized.named_parameters(
    ('data_gone', lambda folder: (folder / _DATA).unlink(), 'not beside it'),
    (
      'data_cut',
      lambda folder: os.truncate(folder / _DATA, 100),
      'are incomplete',
    ),
    (
      'end_of_data_cut',
      lambda folder: os.truncate(
        folder / _DATA, os.path.getsize(folder / _DATA) - 1
      ),
      'ckpt-4 is not complete',
    ),
    (
      'block_of_zeros',
      lambda folder: _overwrite(folder / _DATA, bytes(512)),
      'ckpt-4 is not complete',
    ),
    (
      'index_gone',
      lambda folder: (folder / 'ckpt-4.index').unlink(),
      'no .*ckpt-4.index',
    ),
    (
      'index_empty',
      lambda folder: (folder / 'ckpt-4.index').write_bytes(b''),
      'not the index',
    ),
    (
      'index_of_zeros',
      lambda folder: _overwrite(folder / 'ckpt-4.index', bytes(1 << 16)),
      'not the index',
    ),
    (
      'a_part_gone',
      lambda folder: os.rename(
        folder / _DATA, folder / 'ckpt-4.data-00000-of-00002'
      ),
      'expected all parts of',
    ),
  )
  def test_newest_that_is_not_whole(self, damage, message):
    self._save(2, 4)
    damage(self.dir)
    name, warning = self._newest()
    self.assertEqual(name, 'ckpt-2')
    self.assertRegex(warning, message)
    folders.remove(str(self.dir / 'ckpt-2'))
    with self.assertRaisesRegex(
      ValueError, 'No checkpoint in .* is complete. .*'
    ):
      folders.newest(str(self.dir))

  def test_folder_that_cannot_be_read_is_not_empty(self):
    (self.dir / 'file').write_text('')
    with self.assertRaisesRegex(OSError, 'file.run cannot be read: not a dir'):
      folders.newest(str(self.dir / 'file' / 'run'))
    with self.assertRaisesRegex(OSError, 'run cannot be read: .*implemented'):
      folders.newest('nothing://bucket/run')

  def test_checkpoints_of_other_programs(self):
    checkpoint_files.write(str(self.dir / 'model.ckpt-300'), {'a': [1.0]})
    self.assertEqual(self._newest(), ('model.ckpt-300', ''))
    checkpoint_files.write(str(self.dir / 'model.ckpt-1000'), {'a': [1.0]})
    self.assertEqual(self._newest(), ('model.ckpt-1000', ''))
    checkpoint_files.write(str(self.dir / 'final'), {'a': [1.0]})
    with self.assertRaisesRegex(ValueError, 'must name one of .*final.index'):
      folders.newest(str(self.dir))
    (self.dir / 'checkpoint').write_text('model_checkpoint_path: "final"\n')
    self.assertEqual(self._newest()[0], 'final')
    (self.dir / 'final.data-00000-of-00001').unlink()
    with self.assertRaisesRegex(ValueError, 'final, which .* is not complete'):
      folders.newest(str(self.dir))

  @parameterized.parameters(1, 2, 3)
  def test_keeps_the_newest_of_a_folder_without_state_file(self, max_to_keep):
    self._save(2, 4, 6)
    (self.dir / 'checkpoint').unlink()
    self._save(8, max_to_keep=max_to_keep)
    self.assertEqual(
      [folders.step_of(path) for path in folders.find(str(self.dir))],
      [2, 4, 6, 8][-max_to_keep:],
    )

  def test_of_a_run_that_was_taken_back_later_steps_go_first(self):
    self._save(2, 4, 6)
    self._save(3, max_to_keep=2)
    self.assertEqual(
      [folders.step_of(path) for path in folders.find(str(self.dir))], [2, 3]
    )

  @parameterized.parameters(*odd_names.NAMES)
  def test_names(self, name):
    folder = str(self.dir / name / 'run')
    # What the name would match as a pattern, and is not to be touched.
    others = [self.dir / other / 'run' for other in ('exp l', 'b', 'axb')]
    self._save(2, folder=folder)
    for other in others:
      shutil.copytree(folder, other)
    self._save(4, 6, folder=folder, max_to_keep=2)
    self.assertEqual(self._newest(folder), ('ckpt-6', ''))
    self.assertEqual(
      [folders.step_of(path) for path in folders.find(folder)], [4, 6]
    )
    for other in others:
      self.assertTrue((other / 'ckpt-2.index').exists())
      self.assertTrue((other / 'ckpt-2.data-00000-of-00001').exists())
    value = tf.Variable(tf.zeros([1000]))
    path = manager.resolve(folder)
    model = tf.Module()
    model.value = value
    manager.restore(
      tf.train.Checkpoint(model=model), path, expect_optimizer=False
    )
    self.assertAllEqual(value, tf.fill([1000], 6.0))
    source = weight_sources.open_source(path)
    self.assertAllEqual(source.read('model/value'), tf.fill([1000], 6.0))
    self.assertLen(source.describe_files(), 2)
    self.assertFalse(ema.restore_average(model, path))

  def test_name_of_the_checkpoint_itself(self):
    prefix = str(self.dir / 'model [a].ckpt-7')
    checkpoint_files.write(prefix, {'a': [7.0]})
    self.assertAllEqual(weight_sources.open_source(prefix).read('a'), [7.0])
    self.assertAllEqual(
      weight_sources.open_source(str(self.dir)).read('a'), [7.0]
    )

  def test_name_of_a_remote_folder(self):
    with self.assertRaisesRegex(ValueError, 'Rename or copy the folder'):
      file_utils.literal_path('gs://bucket/exp [1]/ckpt-2')


def _overwrite(path, content):
  """Writes over the middle of a file."""
  size = os.path.getsize(path)
  content = content[:size]
  with open(path, 'r+b') as file:
    file.seek((size - len(content)) // 2)
    file.write(content)


if __name__ == '__main__':
  tf.test.main()
