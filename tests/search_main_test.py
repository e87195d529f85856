"""The search command: build, query and serve, as a user types them."""

import contextlib
import io
import json
import os
import shutil
import signal
import urllib.request

import tensorflow as tf

from tests import mains, warm_processes
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
    """Runs a command in this process, which has TensorFlow already."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
      parsed = search.parse(['search', *arguments])
      parsed.run(parsed)
    return said.getvalue()

  def _run_main(self, *arguments):
    """Runs it in a process of its own, as a user does."""
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
    said = self._run_main(
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
    expected = self.files.searcher.by_text('a red star').hits
    self.assertEqual(
      [(one['path'], one['start'], one['score']) for one in found['results']],
      [(hit.moment.path, hit.moment.start, hit.score) for hit in expected],
    )

  def _index_of(self, number):
    """A copy of the index, of the same model as version `number`."""
    folder = os.path.join(self.create_tempdir().full_path, 'index')
    shutil.copytree(self.files.index, folder)
    path = os.path.join(folder, 'index.json')
    with open(path, encoding='utf-8') as file:
      found = json.load(file)
    digest = found['model_version'].partition('-')[2]
    found['model_version'] = f'{number}-{digest}'
    with open(path, 'w', encoding='utf-8') as file:
      json.dump(found, file)
    return folder

  def test_version_of_the_index(self):
    # Another model was exported after the one of the index, or before it.
    for number, other in ((9, 10), (10, 9)):
      versions = self.create_tempdir().full_path
      self.files.copy_model(versions, number)
      self.files.copy_model(versions, other, is_another=True)
      searcher = search.open_searcher(self._index_of(number), versions)
      self.assertLen(searcher.by_text('a red star', count=3).hits, 3)
    # A version of the right number, which is another model; and none.
    for number, opened in ((9, 9), (8, 10)):
      with self.assertRaisesRegex(
        ValueError, f'the model {opened}-.*an index of {number}-'
      ):
        search.open_searcher(self._index_of(number), versions)

  def test_another_model(self):
    versions = self.create_tempdir().full_path
    self.files.copy_model(versions, 1, is_another=True)
    with self.assertRaisesRegex(ValueError, 'two models cannot be compared'):
      search.open_searcher(self.files.index, versions)

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
      'usage: python -m vatt_tf.search': [],
      'one of the arguments --text --audio --video': ['query', *self.model],
      '--audio: not allowed with argument --text': [
        'query', *self.model, '--text=a', '--audio=b'
      ],
      '--embeddings, --output': ['build'],
    }.items():  # fmt: skip
      result = mains.run('search', *arguments)
      self.assertEqual(result.returncode, 2)
      self.assertIn(message, result.stderr)

  def test_serve(self):
    # More than what waits between a server and a player that reads nothing.
    media = self.create_tempdir().full_path
    with open(os.path.join(media, 'bell.wav'), 'wb') as file:
      file.truncate(64 << 20)
    with warm_processes.Process(
      'vatt_tf.search',
      'serve',
      *self.model,
      '--port=0',
      f'--media_root={media}',
    ) as process:
      self.addCleanup(process.kill)
      for line in process.stdout:
        if line.startswith('Search at '):
          break
      address = line.split()[2]
      with urllib.request.urlopen(f'{address}api/index') as response:
        self.assertEqual(json.load(response)['num_moments'], 8)
      asked = f'{address}api/search?text=bell&modality=audio&top=100'
      with urllib.request.urlopen(asked) as response:
        results = json.load(response)['results']
      (bell,) = {
        one['id'] for one in results
        if (one['path'], one['start']) == ('bell.wav', 0.0)
      }  # fmt: skip
      # A player holds its connection when the server is to end.
      with urllib.request.urlopen(f'{address}media/{bell}') as player:
        self.assertEqual(player.status, 200)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
      self.assertIn('graceful shutdown exceeded', errors)
      self.assertNotIn('Traceback', errors)


if __name__ == '__main__':
  tf.test.main()
