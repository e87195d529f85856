"""Tests of the wheel: what it holds, and its commands in an empty folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

from absl.testing import absltest

from tests.project import sources
from vatt_tf.input_pipeline.records import shard_files


class WheelTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(absltest.TEST_TMPDIR.value) / 'wheel'
    shutil.rmtree(folder, ignore_errors=True)
    # Of a copy, so that nothing of the build stays in the project.
    for path in sources.files():
      copy = folder / 'project' / path
      copy.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(sources.ROOT / path, copy)
    os.symlink('../gin', folder / 'project' / 'vatt_tf' / 'gin')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    options = ['-q', '--no-deps', '--no-build-isolation']
    subprocess.run(
      [*pip, 'wheel', *options, '-w', str(folder), '.'],
      cwd=folder / 'project',
      check=True,
    )
    (cls._wheel,) = folder.glob('*.whl')
    cls._installed = folder / 'installed'
    with zipfile.ZipFile(cls._wheel) as file:
      file.extractall(cls._installed)

  def _run(self, folder, *arguments):
    return subprocess.run(
      [sys.executable, *arguments],
      cwd=folder,
      # Before the checkout, which is installed in place.
      env={**os.environ, 'PYTHONPATH': str(self._installed)},
      capture_output=True,
      text=True,
    )

  def test_it_holds_every_gin_file(self):
    with zipfile.ZipFile(self._wheel) as file:
      held = set(file.namelist())
    wanted = {f'vatt_tf/{p}' for p in sources.files() if p.startswith('gin/')}
    self.assertNotEmpty(wanted)
    self.assertLessEqual(wanted, held)
    self.assertFalse({name for name in held if name.startswith('tests/')})

  def test_it_is_what_runs(self):
    done = self._run(
      self.create_tempdir().full_path,
      '-c',
      'import vatt_tf; print(vatt_tf.__file__)',
    )
    self.assertStartsWith(done.stdout, str(self._installed))

  def test_gin_files_of_the_package_and_of_the_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    command = ['-m', 'vatt_tf.summarize', '--gin_file=gin/pretrain_sample.gin']
    done = self._run(folder, *command)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('648,896', done.stdout)
    own = folder / 'gin' / 'pretrain_sample.gin'
    own.parent.mkdir()
    text = (sources.ROOT / 'gin' / own.name).read_text(encoding='utf-8')
    own.write_text(text + '\nSize.num_layers = 1\n', encoding='utf-8')
    done = self._run(folder, *command)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertNotIn('648,896', done.stdout)

  def test_sample_records_that_are_not_there(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    train = [
      '-m',
      'vatt_tf.train',
      '--gin_file=gin/pretrain_sample.gin',
      '--gin_file=gin/data/sample.gin',
      '--gin_param=TRAIN_STEPS=2',
      '--gin_param=WARMUP_STEPS=1',
      '--gin_param=BATCH_SIZE=4',
      '--gin_param=Size.num_layers=1',
    ]
    done = self._run(folder, *train)
    self.assertEqual(done.returncode, 1)
    command = ['-m', 'vatt_tf.make_sample_records']
    self.assertIn(
      f'make them here with `python {" ".join(command)}`', done.stderr
    )
    done = self._run(folder, *command)
    self.assertEqual(done.returncode, 0, done.stderr)
    committed = sources.ROOT / 'data' / 'sample'
    for name in ('labels.txt', 'vocabulary.txt'):
      made = folder / 'data' / 'sample' / name
      self.assertEqual(made.read_bytes(), (committed / name).read_bytes())
    for path in committed.glob('*.tfrecord'):
      made = str(folder / 'data' / 'sample' / path.name)
      self.assertEqual(
        shard_files.count_all_records([made]),
        shard_files.count_all_records([str(path)]),
      )
    done = self._run(folder, *train)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('Done: step 2', done.stdout)


if __name__ == '__main__':
  absltest.main()
