"""The embed command: exit codes and messages, and that it can be killed."""

import dataclasses
import os
import signal
import sys
import time
from unittest import mock

from absl import flags
import numpy as np
import tensorflow as tf

from tests import mains, sample_media, warm_processes
from tests.embedding import tiny_model
from vatt_tf import embedding
from vatt_tf.embedding import run_options, table


class EmbedMainTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.saved, _ = tiny_model.exported()
    cls.embed = cls.enterClassContext(mains.imported('embed'))

  def setUp(self):
    super().setUp()
    self.media = self.create_tempdir().full_path
    self.out = os.path.join(self.create_tempdir().full_path, 'out')

  def run_main(self, **values):
    """Exit code, and what is printed on both outputs."""
    values = {
      'saved_model': self.saved,
      'output': self.out,
      'num_workers': 0,
      **values,
    }
    return mains.run_here(self.embed, **values)

  def test_folder_with_a_failure(self):
    sample_media.write(os.path.join(self.media, 'a.mp4'), 1.0)
    with open(os.path.join(self.media, 'b.mp4'), 'wb'):
      pass
    code, _, error = self.run_main(media=self.media)
    self.assertEqual(code, 1)
    self.assertIn('1 of 2 clips failed', error)
    self.assertIn('b.mp4: the file is empty', error)
    code, text, _ = self.run_main(media=self.media, max_failed_share=0.5)
    self.assertEqual(code, 0)
    self.assertIn('2 clips in ', text)
    self.assertIn('1 with video, 0 with sound, 0 captions; 1 row in ', text)
    self.assertIn('1 clip failed, in part or whole', text)
    # The model takes 0.8 s, as the gin file in it says.
    found = table.read(self.out, space=table.VIDEO_TEXT)
    self.assertEqual(found.metadata['clip_seconds'], '0.8')
    code, _, error = self.run_main(media=self.media, clip_seconds=0.5)
    self.assertEqual(code, 1)
    self.assertIn('`clip_seconds` was 0.8, and is 0.5', error)

  def test_flags_are_the_options(self):
    self.assertEqual(
      {*self.embed.ARGUMENTS, 'runner', 'pipeline_options'},
      {
        flag.name
        for flag in flags.FLAGS.flags_by_module_dict()['vatt_tf.embed']
      },
    )
    fields = {
      field.name: field for field in dataclasses.fields(run_options.Options)
    }
    self.assertEqual(set(fields), set(self.embed.ARGUMENTS))
    for name, field in fields.items():
      if field.default is not dataclasses.MISSING:
        default = flags.FLAGS[name].default
        default = tuple(default) if isinstance(default, list) else default
        self.assertEqual(default, field.default, name)

  def test_beam(self):
    sample_media.write(os.path.join(self.media, 'a.mp4'), 1.0)
    values = {'media': self.media, 'pipeline_options': '--direct_num_workers=1'}
    code, _, error = self.run_main(**values)
    self.assertEqual(code, 1)
    self.assertIn('`pipeline_options` needs a `runner`', error)
    code, text, _ = self.run_main(**values, runner='DirectRunner')
    self.assertEqual(code, 0)
    self.assertIn('1 clip in ', text)
    self.assertLen(table.read(self.out, space=table.VIDEO_TEXT), 1)
    # Where Beam is not installed; the package knows the module from above.
    with (
      mock.patch.dict(sys.modules, {'apache_beam': None}),
      mock.patch.object(embedding, 'beam'),
    ):
      del sys.modules['vatt_tf.embedding.beam'], embedding.beam
      code, _, error = self.run_main(
        **values, runner='DirectRunner', output=f'{self.out}-2'
      )
    self.assertEqual(code, 1)
    self.assertIn("pip install 'vatt_tf[beam]'", error)

  def test_interrupted(self):
    for runner, advice in (
      ('', 'Rerun the same command to resume'),
      ('DirectRunner', 'A pipeline cannot resume'),
    ):
      with (
        mock.patch.object(self.embed, '_embed', side_effect=KeyboardInterrupt),
        self.assertLogs('absl', 'ERROR') as logs,
      ):
        code, _, _ = self.run_main(media=self.media, runner=runner)
      self.assertEqual(code, 130)
      self.assertLen(logs.output, 1)
      self.assertIn(advice, logs.output[0])

  def test_killed_it_goes_on(self):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, [40, 48, 64, 3], np.uint8))
    sample_media.write(
      os.path.join(self.media, 'a.mp4'), 20.0, images=images,
      sound=sample_media.tone(20.0),
    )  # fmt: skip
    # Windows that overlap: 97 clips.
    values = {
      'media': self.media,
      'stride_seconds': 0.2,
      'clips_per_file': 10,
      'batch_size': 4,
    }
    command = [
      'vatt_tf.embed',
      f'--saved_model={self.saved}',
      f'--output={self.out}',
      '--num_workers=1',
      *(f'--{name}={value}' for name, value in values.items()),
    ]
    killed = []
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGTERM):
      process = warm_processes.Process(*command, start_new_session=True)
      journal = os.path.join(self.out, 'progress.jsonl')
      size = os.path.getsize(journal) if os.path.exists(journal) else 0
      while process.poll() is None:
        if os.path.exists(journal) and os.path.getsize(journal) > size + 250:
          break
        time.sleep(0.01)
      process.send_signal(number)
      _, error = process.communicate(timeout=60)
      killed.append((process.returncode, error))
    self.assertEqual(killed[0][0], -signal.SIGKILL, killed[0][1])
    for (code, error), expected in zip(killed[1:], (130, 143)):
      self.assertEqual(code, expected, error)
      self.assertIn('Rerun the same command to resume', error)
      self.assertNotIn('Traceback', error)
    code, text, _ = self.run_main(**values)
    self.assertEqual(code, 0)
    self.assertRegex(text, r'97 clips in .*; \d+ of the clips are from')
    whole = f'{self.out}-whole'
    self.run_main(**values, output=whole)
    for space in table.SPACES:
      one, other = (table.read(path, space=space) for path in (self.out, whole))
      self.assertAllEqual(one.clip_start, other.clip_start)
      self.assertAllEqual(one.modality, other.modality)
      self.assertAllClose(one.embedding, other.embedding, atol=1e-6)


if __name__ == '__main__':
  tf.test.main()
