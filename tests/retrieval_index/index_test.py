"""Tests of the index: what is written, and what is found."""

import json
import os
from unittest import mock

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.embedding import written_table
from vatt_tf.embedding import table
from vatt_tf.retrieval_index import building, index, index_files, nearest


def _unit(*values):
  values = np.array(values, np.float32)
  return values / np.linalg.norm(values)


def _row(path, modality, space, vector, start=0.0, text=None, model='m1'):
  return {
    'path': path,
    'clip_start': start,
    'clip_end': start + 2.0,
    'modality': modality,
    'embedding': vector,
    'space': space,
    'model_version': model,
    'text': text,
  }


# Two files of two moments; of one of them only the sound was embedded. They
# are not in the order of the index.
_ROWS = [
  _row('b.mp4', 'video', table.VIDEO_TEXT, _unit(0, 1, 0), text='a ring\nit'),
  _row('b.mp4', 'audio', table.AUDIO_TEXT, _unit(1, 1, 0), text='a ring\nit'),
  _row('a.mp4', 'video', table.VIDEO_TEXT, _unit(1, 0, 0), 2.0),
  _row('a.mp4', 'video', table.VIDEO_TEXT, _unit(1, 0, 0)),
  _row('a.mp4', 'audio', table.AUDIO_TEXT, _unit(0, 0, 1), 2.0, text='a bell'),
  _row('c.wav', 'audio', table.AUDIO_TEXT, _unit(3, 1, 0)),
  _row('b.mp4', 'video', table.VIDEO_AUDIO, _unit(1, 2)),
  _row('a.mp4', 'audio', table.VIDEO_AUDIO, _unit(1, 3), 2.0),
  _row('b.mp4', 'text', table.VIDEO_TEXT, _unit(0, 1, 0), text='a ring'),
]


class IndexTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.create_tempdir().full_path
    self.embeddings = os.path.join(folder, 'embeddings')
    self.output = os.path.join(folder, 'index')

  def _build(self, rows=_ROWS, **arguments):
    written_table.write(self.embeddings, rows, {'media_root': '/media'})
    return building.build(self.embeddings, self.output, **arguments)

  def test_says_what_it_holds(self):
    text = self._build()
    self.assertIn('4 moments, model m1', text)
    self.assertIn(
      'video in the video_text space: 3 vectors of 3, exact search', text
    )
    self.assertIn(
      'audio in the video_text space: 3 vectors of 3, exact search', text
    )
    found = index.Index(self.output)
    self.assertEqual(found.model_version, 'm1')
    self.assertEqual(found.media_root, '/media')
    self.assertEqual(found.num_moments, 4)
    self.assertEqual(found.modalities(), ('video', 'audio'))
    moments = [found.moment(row) for row in range(4)]
    self.assertEqual(
      [moment[1:] for moment in moments],
      [
        ('a.mp4', 0.0, 2.0, ''),
        ('a.mp4', 2.0, 4.0, 'a bell'),
        ('b.mp4', 0.0, 2.0, 'a ring\nit'),
        ('c.wav', 0.0, 2.0, ''),
      ],
    )
    self.assertLen({moment.id for moment in moments}, 4)

  def test_search(self):
    self._build()
    found = index.Index(self.output)

    def search(*arguments, **keywords):
      return [
        (hit.score, hit.modality, hit.moment.path, hit.moment.start)
        for hit in found.search(*arguments, **keywords)
      ]

    text = index_files.VIDEO_TEXT
    # Equal ones by path and time; b.mp4 by its sound, which is nearer.
    expected = [
      (1.0, 'video', 'a.mp4', 0.0),
      (1.0, 'video', 'a.mp4', 2.0),
      (0.948683, 'audio', 'c.wav', 0.0),
      (0.707107, 'audio', 'b.mp4', 0.0),
    ]
    query = _unit(1, 0, 0)
    self.assertEqual(search(query, text, index_files.MODALITIES, 10), expected)
    self.assertEqual(
      search(query, text, index_files.MODALITIES, 3), expected[:3]
    )
    self.assertEqual(
      search(query, text, ['video'], 10),
      [*expected[:2], (0.0, 'video', 'b.mp4', 0.0)],
    )
    self.assertEqual(
      search(query, text, ['audio'], 2),
      [expected[2], (0.707107, 'audio', 'b.mp4', 0.0)],
    )
    self.assertEqual(
      search(query, text, index_files.MODALITIES, 2, without=1),
      [expected[0], expected[2]],
    )
    self.assertEqual(
      search(_unit(1, 2), index_files.VIDEO_AUDIO, ['video'], 5),
      [(1.0, 'video', 'b.mp4', 0.0)],
    )

  def test_vectors_and_ids(self):
    self._build()
    found = index.Index(self.output)
    self.assertAllClose(
      found.vector(1, index_files.VIDEO_AUDIO, 'audio'), _unit(1, 3)
    )
    self.assertIsNone(found.vector(1, index_files.VIDEO_AUDIO, 'video'))
    self.assertIsNone(found.vector(3, index_files.VIDEO_TEXT, 'video'))
    for row in range(4):
      self.assertEqual(found.find(found.moment(row).id), row)
    self.assertIsNone(found.find(0))
    self.assertIsNone(found.find(2**63 - 1))
    # The same part of the same file has the same id in another index.
    ids = {found.moment(row).path: found.moment(row).id for row in (2, 3)}
    self.embeddings += '2'
    self._build(_ROWS[:1])
    again = index.Index(self.output)
    self.assertEqual(again.num_moments, 1)
    self.assertEqual(again.moment(0).id, ids['b.mp4'])

  def test_equal_rows_are_moments_of_their_own(self):
    rows = [
      _row('', 'video', table.VIDEO_TEXT, _unit(1, i), text=f'text {i}')
      for i in range(3)
    ]
    rows += [_row('', 'audio', table.AUDIO_TEXT, _unit(i, 1)) for i in range(3)]
    self._build(rows)
    found = index.Index(self.output)
    self.assertEqual(
      [found.moment(row).caption for row in range(3)],
      ['text 0', 'text 1', 'text 2'],
    )
    for row in range(3):
      self.assertAllClose(
        found.vector(row, index_files.VIDEO_TEXT, 'audio'), _unit(row, 1)
      )

  def test_scann_above_the_threshold(self):
    rng = np.random.default_rng(0)
    rows = [
      _row(f'{i:04d}.mp4', 'video', table.VIDEO_TEXT, _unit(*x))
      for i, x in enumerate(rng.normal(size=[600, 16]))
    ]
    rows.append(_row('0000.mp4', 'audio', table.AUDIO_TEXT, _unit(*[1] * 16)))
    with mock.patch.object(building, 'EXACT_BELOW', 600):
      text = self._build(rows)
    self.assertIn('600 vectors of 16, ScaNN', text)
    self.assertIn('1 vectors of 16, exact', text)
    moved = f'{self.output}.moved'
    os.rename(self.output, moved)
    found = index.Index(moved)
    hits = found.search(
      rows[17]['embedding'], index_files.VIDEO_TEXT, index_files.MODALITIES, 5
    )
    self.assertEqual(hits[0].moment.path, '0017.mp4')
    self.assertEqual(hits[0].score, 1.0)
    self.assertLen(hits, 5)

  def test_method(self):
    at = building.EXACT_BELOW
    self.assertEqual(building.choose_method('auto', at - 1), 'exact')
    self.assertEqual(building.choose_method('auto', at), 'scann')
    self.assertEqual(building.choose_method('exact', at), 'exact')
    self.assertEqual(building.choose_method('scann', 3), 'scann')
    with self.assertRaisesRegex(ValueError, "`method`.*'fast'"):
      self._build(method='fast')

  def test_never_silently_exact(self):
    with mock.patch.object(nearest, 'import_scann', side_effect=ValueError):
      with self.assertRaises(ValueError):
        self._build(method='scann')
    self.assertEqual(os.listdir(os.path.dirname(self.output)), ['embeddings'])

  def test_what_fails_leaves_what_was_there(self):
    self._build()
    with mock.patch.object(building, '_moments', side_effect=OSError):
      with self.assertRaises(OSError):
        self._build(_ROWS[:1])
    self.assertEqual(index.Index(self.output).num_moments, 4)
    self.assertCountEqual(
      os.listdir(os.path.dirname(self.output)), ['embeddings', 'index']
    )

  def test_refuses(self):
    wrong = {
      'one model.*m1, m2': [_ROWS[0], {**_ROWS[1], 'model_version': 'm2'}],
      'unit vectors.*1 of 1.*b.mp4': [
        {**_ROWS[0], 'embedding': 2 * _ROWS[0]['embedding']}
      ],
      'video or audio.*video_text_emb': [_ROWS[-1]],
    }
    for number, (message, rows) in enumerate(wrong.items()):
      self.embeddings += str(number)
      with self.assertRaisesRegex(ValueError, message):
        self._build(rows)
    self.assertFalse(os.path.exists(self.output))
    with self.assertRaisesRegex(ValueError, 'Parquet'):
      building.build(self.create_tempdir().full_path, self.output)

  @parameterized.parameters(
    ('media_root', '/a', '/b', "one media root.*'/a', '/b'. Build an index"),
    ('frame_rate', 10.0, 25.0, 'one way.* 10.0.* and .* 25.0.*an index of'),
  )
  def test_several_tables(self, name, one, other, message):
    paths = [f'{self.embeddings}{number}' for number in range(3)]
    for path, value in zip(paths, (one, one, other)):
      row = _row(f'{path}.mp4', 'video', table.VIDEO_TEXT, _unit(1, 0))
      written_table.write(path, [row], {'media_root': '/', name: value})
    with self.assertRaisesRegex(ValueError, message):
      building.build(paths, self.output)
    self.assertFalse(os.path.exists(self.output))
    building.build(paths[:2], self.output)
    found = index.Index(self.output)
    self.assertEqual(found.num_moments, 2)
    values = {'media_root': found.media_root, **found.decoding}
    self.assertEqual(values[name], one)

  def test_never_replaces_other_files(self):
    os.makedirs(self.output)
    with open(os.path.join(self.output, 'thesis.txt'), 'w') as file:
      file.write('mine')
    with self.assertRaisesRegex(ValueError, 'holds other files'):
      self._build()
    self.assertEqual(os.listdir(self.output), ['thesis.txt'])

  def test_no_index(self):
    with self.assertRaisesRegex(ValueError, 'search build'):
      index.Index(self.output)
    self._build()
    path = os.path.join(self.output, 'index.json')
    with open(path, encoding='utf-8') as file:
      found = json.load(file)
    with open(path, 'w', encoding='utf-8') as file:
      json.dump({**found, 'format': 9}, file)
    with self.assertRaisesRegex(ValueError, 'format 1: build it again.*9'):
      index.Index(self.output)


if __name__ == '__main__':
  tf.test.main()
