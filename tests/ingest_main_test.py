"""The ingest command: exit codes and messages."""

import glob
import os
import signal
import time

from absl import flags
from absl.testing import parameterized
import tensorflow as tf

from tests import mains, sample_media, warm_processes
from vatt_tf import ingest


class IngestMainTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.media = self.create_tempdir().full_path
    self.out = os.path.join(self.create_tempdir().full_path, 'out')

  def run_main(self, **values):
    """Exit code, and what is printed on both outputs."""
    values = {'output_dir': self.out, 'num_workers': 0, **values}
    return mains.run_here(ingest, **values)

  def test_folder_with_a_failure(self):
    sample_media.write(os.path.join(self.media, 'a.mp4'), 1.0)
    with open(os.path.join(self.media, 'b.mp4'), 'wb'):
      pass
    values = {'media_root': self.media, 'name': 'validation'}
    code, _, error = self.run_main(**values)
    self.assertEqual(code, 1)
    self.assertIn('1 of 2 clips failed', error)
    self.assertIn('b.mp4: the file is empty', error)
    code, text, _ = self.run_main(**values, max_failed_share=0.5)
    self.assertEqual(code, 0)
    self.assertIn('1 clip (0.0 minutes) in 1 shard ', text)
    self.assertIn('1 clip failed and 0 files of another kind', text)
    self.assertTrue(
      os.path.exists(f'{self.out}/validation-00000-of-00001.tfrecord')
    )

  def test_bad_manifest(self):
    path = os.path.join(self.media, 'm.csv')
    with open(path, 'w') as file:
      file.write('video,caption\na.mp4,x\n')
    code, _, error = self.run_main(manifest=path)
    self.assertEqual(code, 1)
    self.assertIn('Valid columns: video_path, audio_path, start', error)

  def test_data_set(self):
    lists = self.create_tempdir('lists').full_path
    with open(os.path.join(lists, 'esc50.csv'), 'w') as file:
      file.write('filename,fold,target,category,esc10,src_file,take\n')
      file.write('1-a-A-1.wav,1,1,rooster,True,a,A\n')
      file.write('2-b-A-0.wav,2,0,dog,True,b,A\n')
    for name in ('1-a-A-1.wav', '2-b-A-0.wav'):
      sample_media.write(
        os.path.join(self.media, name),
        0,
        sound=sample_media.tone(0.5),
        sound_codec='pcm_s16le',
      )
    values = {'dataset': 'esc50', 'media_root': self.media}
    code, text, _ = self.run_main(annotations=lists, **values)
    self.assertEqual(code, 0)
    self.assertIn('2 clips (0.0 minutes) in 2 shards ', text)
    self.assertIn('/splits: test_1 1, test_2 1, train_1 1, train_2 1.', text)
    self.assertLen(glob.glob(f'{self.out}/all-*.tfrecord'), 2)
    for more, message in (
      ({'dataset': None, 'split': 'x', 'is_cut': True}, '--split, --is_cut ne'),
      ({'manifest': 'm.csv'}, '--manifest and --dataset exclude each other'),
      ({'split': 'train_1'}, 'or fold5 or left out'),
      ({}, 'esc50.csv in it. Received: annotations='),
    ):
      code, _, error = self.run_main(**{**values, **more})
      self.assertEqual(code, 1)
      self.assertIn(message, error)

  def test_every_argument_of_the_library_has_a_flag(self):
    names = {*ingest.ARGUMENTS, *ingest.DATASET_ARGUMENTS}
    names |= {'manifest', 'dataset'}
    self.assertEqual(
      names,
      {
        flag.name
        for flag in flags.FLAGS.flags_by_module_dict()['vatt_tf.ingest']
      },
    )

  @parameterized.parameters((signal.SIGINT, 130), (signal.SIGTERM, 143))
  def test_interrupted(self, number, code):
    sample_media.write(os.path.join(self.media, 'a.mp4'), 2.0)
    manifest = os.path.join(self.media, 'm.csv')
    with open(manifest, 'w') as file:
      file.write('video_path,start,end\n')
      file.writelines(f'a.mp4,{i / 1000},{i / 1000 + 1}\n' for i in range(600))
    process = warm_processes.Process(
      'vatt_tf.ingest',
      f'--manifest={manifest}',
      f'--output_dir={self.out}',
      '--num_workers=1',
      '--num_shards=2',
      start_new_session=True,
    )
    journal = os.path.join(self.out, 'train.progress.jsonl')
    while process.poll() is None:
      if os.path.exists(journal) and os.path.getsize(journal) > 2000:
        break
      time.sleep(0.01)
    # As the terminal does: to the whole group.
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=30)
    self.assertEqual(process.returncode, code, error)
    self.assertIn('Rerun the same command to resume', error)
    self.assertNotIn('Traceback', error)
    code, text, _ = self.run_main(manifest=manifest, num_shards=2)
    self.assertEqual(code, 0)
    self.assertIn('600 clips', text)
    self.assertRegex(text, r'; [1-9]\d* of them are from an earlier')
    self.assertLen(glob.glob(f'{self.out}/train-*.tfrecord'), 2)


if __name__ == '__main__':
  tf.test.main()
