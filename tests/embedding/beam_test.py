"""Tests of `vatt_tf.embedding.beam`, on the runner that comes with Beam."""

import csv
import os
import subprocess
import sys
import tempfile

from absl.testing import parameterized
import tensorflow as tf

from tests import shared_data, tiny_vatt
from tests.embedding import tiny_model
from vatt_tf.embedding import beam, jobs, run, table
from vatt_tf.embedding import model as model_lib
from vatt_tf.media import errors


class BeamTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.base = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.saved, _ = tiny_model.exported()
    cls.media = os.path.join(cls.base, 'media')
    tiny_model.write_media(cls.media)
    with open(os.path.join(cls.media, 'broken, really.mp4'), 'wb') as file:
      file.write(b'no video' * 100)

  def embed(self, embed, name, *arguments, **values):
    output = os.path.join(self.base, name)
    options = tiny_model.options(
      saved_model=self.saved, output=output, **values
    )
    return embed(options, tiny_model.FORM, *arguments)

  @parameterized.parameters('media', 'records')
  def test_equals_the_plain_command(self, kind):
    values = {'media': self.media, 'max_failed_share': 0.2, 'batch_size': 2}
    if kind == 'records':
      values = {'records': str(tiny_vatt.RECORDS / 'train-*')}
    plain = self.embed(run.embed, f'plain-{kind}', **values)
    # Two threads share the model.
    flags = ['--direct_num_workers=2', '--direct_running_mode=multi_threading']
    found = self.embed(
      beam.embed, f'beam-{kind}', 'DirectRunner', flags, **values
    )
    for name in ('num_clips', 'num_failed', 'num_others', 'num_of', 'num_rows'):
      self.assertEqual(getattr(found, name), getattr(plain, name), name)
    self.assertGreater(found.num_clips, 11)
    for space in table.SPACES:
      one, other = (
        table.read(result.output, space=space) for result in (plain, found)
      )
      self.assertEqual(one.metadata, other.metadata)
      one, other = tiny_model.rows(one), tiny_model.rows(other)
      self.assertEqual(one.keys(), other.keys())
      for key, value in one.items():
        self.assertAllClose(value, other[key], atol=1e-5, msg=str(key))
    reports = []
    for result in (plain, found):
      with open(result.skip_report, encoding='utf-8', newline='') as file:
        reports.append(sorted(map(tuple, csv.reader(file))))
    self.assertEqual(*reports)
    self.assertLen(reports[0], 2 if kind == 'media' else 1)
    # A second time it is refused.
    with self.assertRaisesRegex(ValueError, 'embeddings already'):
      self.embed(beam.embed, f'beam-{kind}', 'DirectRunner', **values)

  def test_too_many_failed(self):
    with self.assertRaisesRegex(
      errors.TooManyFailedError, '1 of 13 clips failed(.|\n)*broken, really.mp4'
    ):
      self.embed(
        beam.embed, 'failed', 'DirectRunner', media=self.media,
        max_failed_share=0.01,
      )  # fmt: skip

  def test_another_model_on_the_workers(self):
    options = tiny_model.options(
      saved_model=self.saved, output=self.base, media=self.media
    )
    version = model_lib.find_version(self.saved)
    embedder = model_lib.Embedder(version, tiny_model.FORM)
    embedder.name = '1-another'
    transform = beam.EmbedItems(jobs.prepare(options, embedder))
    with self.assertRaisesRegex(Exception, '`saved_model` must be the same'):
      with beam.beam.Pipeline(runner='DirectRunner') as pipeline:
        _ = pipeline | beam.beam.Create([()]) | transform

  def test_without_beam(self):
    code = (
      'import sys; sys.modules["apache_beam"] = None\n'
      'import vatt_tf.embedding.beam'
    )
    done = subprocess.run(
      [sys.executable, '-c', code],
      cwd=shared_data.REPOSITORY,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertIn("pip install 'vatt_tf[beam]'", done.stderr)


if __name__ == '__main__':
  tf.test.main()
