"""Tests of queries: with words, files and moments."""

import os
import re

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import sample_media
from tests.embedding import tiny_model, written_table
from tests.retrieval_index import searchable
from vatt_tf.embedding import model, table
from vatt_tf.retrieval_index import building, index, query


def _names(answer):
  return [
    (hit.moment.path, round(hit.moment.start, 1), hit.modality)
    for hit in answer.hits
  ]


class QueryTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.files = searchable.get()
    cls.searcher = cls.files.searcher
    cls.embedder = cls.searcher._embedder

  def _path(self, name):
    return os.path.join(self.files.media, name)

  def _brute_force(self, vector, modality, space):
    """Scores of all moments, from the table itself."""
    rows = table.read(self.files.embeddings, modality, space)
    return {
      (path, round(start, 1), modality): float(np.dot(vector, embedding))
      for path, start, embedding in zip(
        rows.path, rows.clip_start, rows.embedding
      )
    }

  def test_words(self):
    text = 'a red star'
    outputs = self.embedder._loaded.signatures['embed_text'](
      text=tf.constant([text])
    )
    vector = outputs['video_text_embedding'][0].numpy()
    videos = self._brute_force(vector, 'video', table.VIDEO_TEXT)
    sounds = self._brute_force(vector, 'audio', table.AUDIO_TEXT)
    for target, expected in (('video', videos), ('audio', sounds)):
      answer = self.searcher.by_text(text, target, 100)
      self.assertEqual((answer.kind, answer.space), ('text', 'video_text'))
      self.assertCountEqual(_names(answer), expected)
      scores = [hit.score for hit in answer.hits]
      self.assertEqual(scores, sorted(scores, reverse=True))
      self.assertAllClose(
        scores, [expected[name] for name in _names(answer)], atol=1e-5
      )
    # Of either, a moment is there once, by what is more similar.
    answer = self.searcher.by_text(text, count=100)
    self.assertLen(answer.hits, searchable.NUM_MOMENTS)
    best = {}
    for name, score in [*videos.items(), *sounds.items()]:
      best[name[:2]] = max(best.get(name[:2], -1), score)
    self.assertAllClose(
      [hit.score for hit in answer.hits],
      sorted(best.values(), reverse=True),
      atol=1e-5,
    )
    self.assertLen(self.searcher.by_text(text, count=3).hits, 3)

  @parameterized.parameters(
    ('shapes/red star.mp4', 'video', 0.8),
    ('shapes/red star.mp4', 'audio', 0.8),
    ('bell.wav', 'audio', 0.0),
  )
  def test_a_file_finds_itself(self, name, kind, start):
    answer = self.searcher.by_file(self._path(name), kind, kind, 1, start)
    self.assertEqual(answer.space, 'video_audio')
    self.assertEqual(_names(answer), [(name, start, kind)])
    self.assertAllClose(answer.hits[0].score, 1.0, atol=1e-4)

  def test_middle_of_a_file(self):
    # 2.4 s, of which the model takes 0.8.
    answer = self.searcher.by_file(self._path('shapes/red star.mp4'), None)
    self.assertEqual(answer.kind, 'video')
    self.assertEndsWith(answer.query, 'red star.mp4, 0.8-1.6 s')
    sound = self.searcher.by_file(self._path('bell.wav'), None, name='bell')
    self.assertEqual(sound.kind, 'audio')
    self.assertEqual(sound.query, 'bell, 0.4-1.2 s')

  def test_like_a_moment(self):
    found = self.searcher.index
    for row in range(found.num_moments):
      for kind in self.searcher.kinds_of(row):
        answer = self.searcher.like(row, kind, count=100)
        self.assertEqual((answer.kind, answer.space), (kind, 'video_audio'))
        self.assertLen(answer.hits, searchable.NUM_MOMENTS - 1)
        self.assertNotIn(found.moment(row), [h.moment for h in answer.hits])
    rows = {found.moment(row).path: row for row in range(found.num_moments)}
    self.assertEqual(self.searcher.kinds_of(rows['bell.wav']), ('audio',))
    silent = rows[searchable.UNPLAYABLE]
    self.assertEqual(self.searcher.kinds_of(silent), ('video',))
    with self.assertRaisesRegex(query.QueryError, 'no video of this.*: bell'):
      self.searcher.like(rows['bell.wav'], 'video')

  def test_without_the_space_of_sound(self):
    """A model or an index of video and text alone."""
    rows = []
    for modality, space in (('video', table.VIDEO_TEXT),):
      read = table.read(self.files.embeddings, modality, space)
      rows += [
        {name: getattr(read, name)[i] for name in table.COLUMNS}
        for i in range(len(read))
      ]
    folder = self.create_tempdir().full_path
    written_table.write(os.path.join(folder, 'embeddings'), rows)
    building.build(os.path.join(folder, 'embeddings'), f'{folder}/index')
    searcher = query.Searcher(index.Index(f'{folder}/index'), self.embedder)
    name = 'shapes/blue ring.mp4'
    answer = searcher.by_file(self._path(name), 'video', start=0.8)
    self.assertEqual(answer.space, 'video_text')
    self.assertEqual(_names(answer)[0], (name, 0.8, 'video'))
    answer = searcher.by_file(self._path('bell.wav'), 'audio')
    self.assertEqual(answer.space, 'video_text')
    with self.assertRaisesRegex(ValueError, '`modality`.*holds: video'):
      searcher.by_text('a star', 'audio')

  def test_another_model(self):
    path = self.create_tempdir().full_path
    self.files.copy_model(path, 1, is_another=True)
    other = model.Embedder(model.find_version(path), tiny_model.FORM)
    self.assertNotEqual(other.name, self.embedder.name)
    with self.assertRaisesRegex(
      ValueError, f'`saved_model`.*{other.name}.*of {self.embedder.name}'
    ):
      query.Searcher(self.searcher.index, other)

  def test_what_cannot_be_searched_with(self):
    folder = self.create_tempdir().full_path
    broken = os.path.join(folder, 'broken.mp4')
    with open(self._path('shapes/red star.mp4'), 'rb') as file:
      data = file.read()
    with open(broken, 'wb') as file:
      file.write(data[:2000])
    silent = sample_media.write(os.path.join(folder, 'silent.mp4'), 1.0)
    for message, arguments in {
      'cannot open it': (broken, 'video'),
      'video but no audio': (silent, 'audio'),
      'audio but no video': (self._path('bell.wav'), 'video'),
      'does not exist': (os.path.join(folder, 'missing.mp4'), 'video'),
      'starts at 9 s': (silent, 'video', 'any', 3, 9.0),
      '`start` must be 0 or more': (silent, 'video', 'any', 3, -1.0),
    }.items():
      with self.assertRaisesRegex(query.QueryError, message):
        self.searcher.by_file(*arguments)
    for message, arguments in {
      '`text` must hold a word': (' \u200b',),
      '`modality` must be one of any, video, audio': ('a star', 'smell'),
      r'`top` must be in \[1, 1000\]': ('a star', 'any', 0),
    }.items():
      with self.assertRaisesRegex(query.QueryError, message):
        self.searcher.by_text(*arguments)

  def test_white_space_and_hidden_marks_change_no_answer(self):
    plain = self.searcher.by_text('a red star', count=100).hits
    text = '\u200ea\u00a0red\u3000st\u00adar\n'
    odd = self.searcher.by_text(text, count=100).hits
    self.assertEqual(odd, plain)

  def test_table(self):
    answer = self.searcher.by_text('a red star', count=100)
    lines = query.format_table(answer).splitlines()
    self.assertLen(lines, 2 + searchable.NUM_MOMENTS)
    self.assertIn("'a red star' in the video_text space", lines[0])
    (line,) = [line for line in lines if re.search(r'star.mp4 +0.8-', line)]
    self.assertEndsWith(line, searchable.CAPTION)
    found = query.as_dict(answer)['results']
    self.assertEqual([each['rank'] for each in found], list(range(1, 9)))
    for each, hit in zip(found, answer.hits):
      self.assertEqual(int(each['id'], 16), hit.moment.id)


if __name__ == '__main__':
  tf.test.main()
