"""The search command: build, query and serve, as a user types them."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request

import tensorflow as tf

from tests import mains, shared_data
from tests.embedding import tiny_model
from tests.retrieval_index import searchable
from vatt_tf import search


class SearchMainTest(tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.files = searchable.get()
    cls.model = [
      f'--index={cls.files.index}',
      f'--saved_model={cls.files.saved_model}',
    ]

  def _run(self, *arguments):
    result = mains.run('search', *arguments)
    self.assertEqual(result.returncode, 0, result.stderr)
    return result.stdout

  def test_build_and_query(self):
    output = os.path.join(self.create_tempdir().full_path, 'built')
    said = self._run(
      'build', f'--embeddings={self.files.embeddings}', f'--output={output}'
    )
    self.assertIn('8 moments', said)
    self.assertIn('video in the video_text space: 6 vectors of 6, exact', said)
    path = os.path.join(self.files.media, 'shapes/blue ring.mp4')
    said = self._run(
      'query',
      f'--index={output}',
      f'--saved_model={self.files.saved_model}',
      '--video',
      path,
      '--start=0.8',
      '--modality=video',
      '--top=2',
    )
    lines = said.splitlines()
    self.assertRegex(lines[0], r'blue ring.mp4, 0.8-1.6 s.*video_audio space')
    self.assertRegex(lines[1], r'^ +score +path +seconds +by +caption$')
    self.assertRegex(
      lines[2],
      r'^1 +1.000 +shapes/blue ring.mp4 +0.8-1.6 +video +a blue ring turns$',
    )
    self.assertLen(lines, 4)

  def test_json(self):
    found = json.loads(
      self._run('query', *self.model, '--text', 'a red star', '--json')
    )
    expected = self.files.open().by_text('a red star').hits
    self.assertEqual(
      [(one['path'], one['start'], one['score']) for one in found['results']],
      [(hit.moment.path, hit.moment.start, hit.score) for hit in expected],
    )

  def test_another_model(self):
    other, _ = tiny_model.exported()
    with self.assertRaisesRegex(ValueError, 'two models cannot be compared'):
      search.open_searcher(self.files.index, other)

  def test_build_and_show(self):
    output = os.path.join(self.create_tempdir().full_path, 'shown')
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      answer = search.build_and_show(
        self.files.embeddings, output, self.files.saved_model, 'a red star', 3
      )
    self.assertLen(answer.hits, 3)
    self.assertIn('8 moments', said.getvalue())
    self.assertIn("Nearest to 'a red star'", said.getvalue())

  def test_wrong_command_lines(self):
    # In a process that has imported other mains, their flags are there too.
    for message, arguments in {
      '--audio: not allowed with argument --text': [
        'query', *self.model, '--text=a', '--audio=b'
      ],
      '--embeddings, --output': ['build'],
    }.items():  # fmt: skip
      result = mains.run('search', *arguments)
      self.assertEqual(result.returncode, 2)
      self.assertIn(message, result.stderr)

  def test_serve(self):
    with subprocess.Popen(
      [
        sys.executable, '-m', 'vatt_tf.search', 'serve', *self.model, '--port=0'
      ],
      cwd=shared_data.REPOSITORY,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    ) as process:  # fmt: skip
      self.addCleanup(process.kill)
      for line in process.stdout:
        if line.startswith('Search at '):
          break
      address = line.split()[2]
      with urllib.request.urlopen(f'{address}api/index') as response:
        self.assertEqual(json.load(response)['num_moments'], 8)
      process.send_signal(signal.SIGINT)
      _, errors = process.communicate(timeout=60)
      self.assertNotIn('Traceback', errors)


if __name__ == '__main__':
  tf.test.main()
