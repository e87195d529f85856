"""Tests of `vatt_tf.embedding.table`."""

import os

from absl.testing import parameterized
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from tests.embedding import written_table
from vatt_tf.embedding import table


def _row(space, modality, number=0, dimension=4, version='1-abc', text=None):
  vector = np.zeros([dimension], np.float32)
  vector[number % dimension] = 1.0
  return {
    table.PATH: f'ä/{number}.mp4',
    table.CLIP_START: 3.2 * number,
    table.CLIP_END: 3.2 * (number + 1),
    table.MODALITY: modality,
    table.EMBEDDING: vector,
    table.SPACE: space,
    table.MODEL_VERSION: version,
    table.TEXT: text,
  }


class TableTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.path = self.create_tempdir().full_path
    self.rows = [
      _row(table.VIDEO_AUDIO, 'video', 0, 6),
      _row(table.VIDEO_AUDIO, 'audio', 1, 6),
      _row(table.VIDEO_TEXT, 'video', 2, text='a star\na ring'),
      _row(table.VIDEO_TEXT, 'text', 2, text='a star'),
      _row(table.AUDIO_TEXT, 'audio', 3),
    ]

  def test_round_trip(self):
    written_table.write(self.path, self.rows, {'clip_seconds': 3.2})
    found = table.read(self.path, space=table.VIDEO_TEXT)
    self.assertLen(found, 2)
    self.assertEqual(list(found.path), ['ä/2.mp4'] * 2)
    self.assertAllEqual(found.clip_start, [6.4, 6.4])
    self.assertEqual(found.embedding.dtype, np.float32)
    self.assertAllEqual(found.embedding, [[0, 0, 1, 0]] * 2)
    self.assertEqual(list(found.modality), ['video', 'text'])
    self.assertEqual(list(found.text), ['a star\na ring', 'a star'])
    self.assertEqual(set(found.model_version), {'1-abc'})
    self.assertEqual(
      found.metadata,
      {
        'space': 'video_text_embedding',
        'dimension': '4',
        'comparable_with': 'video_text_embedding,audio_text_embedding',
        'clip_seconds': '3.2',
      },
    )
    other = table.read(self.path, space=table.VIDEO_AUDIO, modality='audio')
    self.assertEqual(other.embedding.shape, (1, 6))
    self.assertIsNone(other.text[0])
    # Those that may be compared, whatever the modality.
    both = table.read(self.path, space=(table.VIDEO_TEXT, table.AUDIO_TEXT))
    self.assertEqual(list(both.modality), ['audio', 'video', 'text'])
    self.assertEqual(both.embedding.shape, (3, 4))
    # A modality that has no rows there.
    none = table.read(self.path, 'text', table.VIDEO_AUDIO)
    self.assertEqual(none.embedding.shape, (0, 6))

  def test_of_a_space_and_of_a_file(self):
    written_table.write(self.path, self.rows)
    folder = os.path.join(self.path, table.AUDIO_TEXT)
    self.assertLen(table.read(folder), 1)
    self.assertLen(table.read(os.path.join(folder, 'part-00000.parquet')), 1)

  def test_several_files_and_tables(self):
    schema = table.make_schema(table.VIDEO_TEXT, 4)
    for number in (1, 0):
      path = table.part_path(self.path, table.VIDEO_TEXT, number)
      rows = [_row(table.VIDEO_TEXT, 'video', i) for i in (2 * number, 9)]
      table.write_file(path, rows, schema)
    empty = table.part_path(self.path, table.VIDEO_TEXT, 2)
    table.write_file(empty, [], schema)
    found = table.read(self.path)
    self.assertAllClose(found.clip_start, [0.0, 28.8, 6.4, 28.8])
    # A file that is named twice is read once.
    self.assertLen(table.read([self.path, empty]), 4)
    other = self.create_tempdir().full_path
    written_table.write(other, [_row(table.VIDEO_TEXT, 'video')])
    self.assertLen(table.read([self.path, other]), 5)

  def test_as_others_read_it(self):
    written_table.write(self.path, self.rows)
    folder = os.path.join(self.path, table.VIDEO_TEXT)
    found = parquet.read_table(folder)
    self.assertEqual(found.column_names, list(table.COLUMNS))
    self.assertEqual(
      found.schema.field('embedding').type, pa.list_(pa.float32(), 4)
    )
    frame = pd.read_parquet(folder)
    self.assertAllEqual(np.stack(frame['embedding']), [[0, 0, 1, 0]] * 2)

  @parameterized.parameters(
    ({'space': 'x'}, '`space` must be among video_audio_embedding, '),
    ({'modality': 'x'}, '`modality` must be among video, audio, text'),
    ({}, '`space` must be given, since .* has several'),
    ({'path': '/nowhere'}, '`path` must be a table of embeddings'),
  )
  def test_wrong_arguments(self, arguments, message):
    written_table.write(self.path, self.rows)
    with self.assertRaisesRegex(ValueError, message):
      table.read(**{'path': self.path, **arguments})

  def test_refuses(self):
    schema = table.make_schema(table.VIDEO_TEXT, 4)
    for number, version in enumerate(('1-abc', '2-def')):
      table.write_file(
        table.part_path(self.path, table.VIDEO_TEXT, number),
        [_row(table.VIDEO_TEXT, 'video', version=version)],
        schema,
      )
    with self.assertRaisesRegex(ValueError, 'several models.*1-abc, 2-def'):
      table.read(self.path)
    with self.assertRaisesRegex(ValueError, '`space` must be one that'):
      table.read(self.path, space=table.VIDEO_AUDIO)
    other = os.path.join(self.path, 'other.parquet')
    parquet.write_table(pa.table({'a': [1]}), other)
    with self.assertRaisesRegex(
      ValueError, 'not a file of embeddings.*columns a'
    ):
      table.read(other)
    with open(other, 'wb') as file:
      file.write(b'PAR1 cut')
    with self.assertRaisesRegex(ValueError, 'not a whole Parquet file'):
      table.read(other)
    with self.assertRaisesRegex(ValueError, '`space` must be one of'):
      table.make_schema('feature', 4)

  def test_a_failed_write_leaves_what_was_there(self):
    schema = table.make_schema(table.VIDEO_TEXT, 4)
    path = table.part_path(self.path, table.VIDEO_TEXT, 0)
    table.write_file(path, [_row(table.VIDEO_TEXT, 'video')], schema)
    with self.assertRaises(ValueError):
      table.write_file(path, [_row(table.VIDEO_TEXT, 'video', 0, 5)], schema)
    self.assertLen(table.read(self.path), 1)
    self.assertLen(os.listdir(os.path.dirname(path)), 1)


if __name__ == '__main__':
  tf.test.main()
