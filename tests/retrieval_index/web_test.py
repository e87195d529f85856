"""Tests of the web page's requests, by real ones."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import tempfile
import threading
import time
from unittest import mock
import urllib.parse
import urllib.request

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.retrieval_index import searchable
from vatt_tf.retrieval_index import query, web, web_security

_LIMIT = 1 << 20


def _decoders():
  """The ids of the processes that decode what is sent."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(OSError):  # it may have ended meanwhile
      stat = (path / 'stat').read_text(errors='replace')
      command = (path / 'cmdline').read_text(errors='replace')
      parent = int(stat.rsplit(')', 1)[1].split()[1])
      if parent == os.getpid() and 'vatt_tf.media.worker' in command:
        found.append(int(path.name))
  return found


def _wait(condition):
  """Waits for something that happens in the server."""
  end = time.monotonic() + 30
  while not condition():
    if time.monotonic() > end:
      raise TimeoutError('It did not happen in 30 s.')
    time.sleep(0.01)


def _files():
  """What was sent and is not yet answered."""
  return list(pathlib.Path(tempfile.gettempdir()).glob('vatt_tf_search_*'))


class WebTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.files = searchable.get()
    cls.searcher = cls.files.searcher
    # What other processes leave in the folder of all is not seen here.
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.enterClassContext(mock.patch.object(tempfile, 'tempdir', folder))
    cls.address = cls.enterClassContext(
      searchable.serve(cls.searcher, max_upload_bytes=_LIMIT)
    )

  def _ask(self, path, method='GET', body=None, **headers):
    """Asks for a path as it is: a client would tidy it up."""
    host = urllib.parse.urlsplit(self.address).netloc
    connection = http.client.HTTPConnection(host, timeout=60)
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    connection.request(method, path, body, names)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content

  def _json(self, path, status=200, **arguments):
    response, content = self._ask(path, **arguments)
    self.assertEqual(response.status, status, content)
    return json.loads(content)

  def _read(self, name):
    with open(os.path.join(self.files.media, name), 'rb') as file:
      return file.read()

  def _send(self, data, name='file', path='/api/search', status=200):
    return self._json(path, status, method='POST', body=data, X_File_Name=name)

  def _begin_to_send(self):
    """A connection that has sent a part of a file."""
    host = urllib.parse.urlsplit(self.address).netloc
    connection = http.client.HTTPConnection(host, timeout=60)
    self.addCleanup(connection.close)
    connection.putrequest('POST', '/api/search')
    connection.putheader('X-File-Name', 'file')
    connection.putheader('Content-Length', '1000')
    connection.endheaders(b'a' * 10)
    return connection

  def _check_headers(self, response):
    policy = response.getheader('Content-Security-Policy')
    self.assertIn("default-src 'none'", policy)
    self.assertNotIn('unsafe', policy)
    self.assertEqual(response.getheader('X-Content-Type-Options'), 'nosniff')

  def _ids(self):
    found = self._json('/api/search?text=star&top=100')['results']
    return {(one['path'], one['start']): one['id'] for one in found}

  # The page.

  def test_page(self):
    for path in ('/', '/search.css', '/search.js'):
      response, content = self._ask(path)
      self.assertEqual(response.status, 200)
      self.assertNotEmpty(content)
      # Nothing comes from another host, and nothing in the page runs.
      self.assertEmpty(re.findall(rb'https?://|//[a-z]+\.', content))
      self.assertNotRegex(content.decode(), r'innerHTML|document\.write|eval')
      self._check_headers(response)

  def test_index(self):
    found = self._json('/api/index')
    self.assertEqual(found['num_moments'], searchable.NUM_MOMENTS)
    self.assertEqual(found['kinds'], ['text', 'video', 'audio'])
    self.assertEqual(found['modalities'], ['video', 'audio'])
    self.assertEqual(found['model'], self.searcher.index.model_version)
    self.assertIn(searchable.CAPTION, found['examples'])
    self.assertLen(set(found['examples']), len(found['examples']))

  # Searching.

  def test_words(self):
    found = self._json('/api/search?text=a+red+star&modality=video&top=4')
    expected = query.as_dict(self.searcher.by_text('a red star', 'video', 4))
    self.assertEqual(found['space'], 'video_text')
    self.assertLen(found['results'], 4)
    for one, other in zip(found['results'], expected['results']):
      self.assertEqual({key: one[key] for key in other}, other)
      self.assertEqual(one['problem'], '')
    types = {one['path']: one['type'] for one in found['results']}
    self.assertEqual(types['shapes/red star.mp4'], 'video/mp4')
    captions = {one['path']: one['caption'] for one in found['results']}
    self.assertEqual(captions['shapes/red star.mp4'], searchable.CAPTION)

  def test_like(self):
    ids = self._ids()
    same = ids['shapes/red star.mp4', 0.8]
    found = self._json(f'/api/search?like={same}&by=video&modality=video&top=2')
    self.assertEqual(found['kind'], 'video')
    self.assertEqual(
      [one['path'] for one in found['results']], ['shapes/red star.mp4'] * 2
    )
    self.assertNotIn(same, [one['id'] for one in found['results']])
    self.assertEqual(found['like']['kinds'], ['video', 'audio'])
    bell = ids['bell.wav', 0.0]
    self.assertEqual(self._json(f'/api/search?like={bell}')['kind'], 'audio')

  @parameterized.parameters(
    ('text=%20', 400, 'must hold a word'),
    ('', 400, 'must hold a word'),
    (f'text={"a" * 1001}', 400, '1000 characters'),
    ('text=a&modality=smell', 400, '`modality` must be one of any'),
    ('text=a&top=0', 400, '`top` must be a number in'),
    ('text=a&top=many', 400, "top='many'"),
    ('text=a&top=201', 400, 'in \\[1, 200\\]'),
    (f'text=a&top={"9" * 2000}', 400, "top='9{80}'$"),
    (f'text=a&modality={"x" * 2000}', 400, "modality='x{80}'$"),
    (f'like={"0" * 16}', 404, 'another one'),
    (f'like={"f" * 16}', 404, 'another one'),
    ('like=..%2Findex.json', 404, 'no moment'),
    ('like=-000000000000001', 404, 'no moment'),
  )
  def test_wrong_questions(self, values, status, message):
    found = self._json(f'/api/search?{values}', status)
    self.assertRegex(found['error'], message)

  def test_failures(self):
    """What is not the fault of the question is logged, once, and not told."""
    fault = ValueError('a secret')
    with (
      mock.patch.object(self.searcher, 'by_text', side_effect=fault),
      self.assertLogs('uvicorn.error', 'ERROR') as said,
    ):
      response, content = self._ask('/api/search?text=star')
      _wait(lambda: said.records)
    self.assertEqual(response.status, 500)
    self.assertIn('its log has the reason', json.loads(content)['error'])
    self.assertNotIn(b'secret', content)
    self._check_headers(response)
    self.assertLen(said.records, 1)
    self.assertIs(said.records[0].exc_info[1], fault)
    self._json('/api/search?text=star')
    for path, status, host in (
      ('/nothing', 404, 'localhost'),
      ('/api/search', 400, 'localhost'),
      ('/', 400, 'evil.example'),
    ):
      response, _ = self._ask(path, Host=host)
      self.assertEqual(response.status, status)
      self._check_headers(response)

  # Media.

  def test_media(self):
    name = 'shapes/red star.mp4'
    path = f'/media/{self._ids()[name, 0.8]}'
    whole = self._read(name)
    response, content = self._ask(path)
    self.assertEqual((response.status, content), (200, whole))
    self.assertEqual(response.getheader('Content-Type'), 'video/mp4')
    self.assertEqual(response.getheader('Accept-Ranges'), 'bytes')
    for asked, expected in {
      'bytes=0-99': whole[:100],
      'bytes=100-': whole[100:],
      'bytes=-50': whole[-50:],
    }.items():
      response, content = self._ask(path, Range=asked)
      self.assertEqual((response.status, content), (206, expected))
    response, content = self._ask(path, method='HEAD')
    self.assertEqual((response.status, content), (200, b''))
    self.assertEqual(response.getheader('Content-Length'), str(len(whole)))
    response, _ = self._ask(path, Range=f'bytes={len(whole)}-')
    self.assertEqual(response.status, 416)

  @parameterized.parameters(
    '/media/../../../../etc/passwd',
    '/media/%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    '/media//etc/passwd',
    '/media/%2fetc%2fpasswd',
    '/media/..',
    '/media/media.csv',
    '/media/shapes%2fred%20star.mp4',
    '/media/0',
    '/media/-1',
    '/media/000000000000000g',
    '/media/%00',
    '/../query.py',
    '/search.js/../../query.py',
    '/search.js%2f..%2f..%2fquery.py',
    '/page/search.js',
  )
  def test_no_other_file_can_be_had(self, path):
    response, content = self._ask(path)
    self.assertEqual(response.status, 404, path)
    for secret in (b'root:', b'video_path', b'import '):
      self.assertNotIn(secret, content)

  def test_type_is_never_one_that_runs(self):
    for name, expected in {
      'a.mp4': 'video/mp4',
      'a.WAV': 'audio/',
      'a.flac': 'audio/flac',
      'a.html': 'application/octet-stream',
      'a.svg': 'application/octet-stream',
      'a': 'application/octet-stream',
    }.items():
      self.assertStartsWith(web.media_type(name), expected)

  def test_file_that_is_gone(self):
    path = os.path.join(self.files.media, 'shapes/blue ring.mp4')
    moment = self._ids()['shapes/blue ring.mp4', 0.0]
    os.rename(path, f'{path}.gone')
    self.addCleanup(os.rename, f'{path}.gone', path)
    found = self._json(f'/media/{moment}', 404)
    self.assertIn(path, found['error'])
    results = self._json('/api/search?text=ring&modality=video')['results']
    problems = {one['path']: one['problem'] for one in results}
    self.assertIn(path, problems['shapes/blue ring.mp4'])
    self.assertEqual(problems['shapes/red star.mp4'], '')

  # Maps.

  def test_map_of_words_and_of_sounds(self):
    moment = self._ids()['shapes/red star.mp4', 0.8]
    row = self.searcher.index.find(int(moment, 16))
    path = os.path.join(self.files.media, 'shapes/red star.mp4')
    asked = {
      'video_text': self._json('/api/search?text=a+red+star'),
      'video_audio': self._json(
        f'/api/search?like={self._ids()["bell.wav", 0.0]}&by=audio'
      ),
    }
    maps = []
    for space, answer in asked.items():
      self.assertEqual(answer['space'], space)
      found = self._json(f'/api/map/{moment}?query={answer["query_name"]}')
      self.assertEqual((found['start'], found['end']), (0.8, 1.6))
      # The model sees the middle of the frame.
      self.assertAllClose(
        found['window'], [0.172, 0.0625, 0.828, 0.9375], atol=0.01
      )
      vector = (
        self.searcher.by_text('a red star').vector
        if space == 'video_text'
        else self.searcher.index.vector(
          self.searcher.index.find(int(self._ids()['bell.wav', 0.0], 16)),
          space,
          'audio',
        )
      )
      expected = self.searcher.locate(row, vector, space, path)
      self.assertAllClose(found['map'], expected.map, atol=1e-3)
      maps.append(found['map'])
    self.assertGreater(np.abs(np.subtract(*maps)).max(), 1e-3)
    self.assertEqual(
      self._json('/api/index')['map_spaces'], ['video_audio', 'video_text']
    )

  def test_maps_that_there_are_not(self):
    ids = self._ids()
    star, bell = ids['shapes/red star.mp4', 0.8], ids['bell.wav', 0.0]
    name = self._json('/api/search?text=ring')['query_name']
    for path, status, message in (
      (f'/api/map/{star}', 404, 'search again'),
      (f'/api/map/{star}?query=00', 404, 'search again'),
      (f'/api/map/{"0" * 16}?query={name}', 404, 'no moment'),
      (f'/api/map/{bell}?query={name}', 400, 'It cannot be searched with'),
    ):
      self.assertIn(message, self._json(path, status)['error'])
    with mock.patch.object(web, '_NUM_QUERIES', 2):
      for _ in range(2):
        self._json('/api/search?text=star')
    self._json(f'/api/map/{star}?query={name}', 404)

  # Files that are sent.

  def test_files(self):
    name = 'shapes/red star.mp4'
    found = self._send(self._read(name), 'dir/my%20star.mp4')
    self.assertEqual(found['kind'], 'video')
    self.assertEqual(found['query'], 'my star.mp4, 0.8-1.6 s')
    self.assertEqual(found['results'][0]['path'], name)
    self.assertEqual(found['results'][0]['start'], 0.8)
    self.assertGreater(found['results'][0]['score'], 0.999)
    path = '/api/search?by=audio&modality=audio&top=1'
    found = self._send(self._read(name), 'x', path)
    self.assertEqual((found['kind'], len(found['results'])), ('audio', 1))
    found = self._send(self._read('bell.wav'))
    self.assertEqual(found['kind'], 'audio')
    self.assertEmpty(_files())

  def test_corrupt_files(self):
    whole = self._read('shapes/red star.mp4')
    for data, message in {
      whole[:3000]: 'cannot open it',
      b'no media, but words' * 100: 'cannot be searched with',
      b'\x00' * 5000: 'cannot be searched with',
      b'': r'empty \(0 bytes\)',
    }.items():
      self.assertRegex(self._send(data, status=400)['error'], message)
      self._json('/api/search?text=a+star')
    self.assertRegex(
      self._send(
        self._read('bell.wav'), path='/api/search?by=video', status=400
      )['error'],
      'audio but no video',
    )
    self._send(whole)

  def test_file_that_kills_its_decoder(self):
    (decoder,) = _decoders()
    os.kill(decoder, signal.SIGKILL)
    whole = self._read('bell.wav')
    self.assertRegex(self._send(whole, status=400)['error'], 'process died')
    self._send(whole)

  def test_file_that_hangs_its_decoder(self):
    before = {*_decoders()}
    with mock.patch.object(web, '_DECODE_SECONDS', 5.0):
      other = self.enterContext(searchable.serve(self.searcher))
    whole = self._read('bell.wav')
    with mock.patch.object(self, 'address', other):
      self._json('/api/index')  # it has started
      (stopped,) = {*_decoders()} - before
      os.kill(stopped, signal.SIGSTOP)
      self.assertRegex(self._send(whole, status=400)['error'], 'time ran out')
      self._send(whole)

  def test_large_files(self):
    data = b'a' * (_LIMIT + 1)
    with self.assertRaisesRegex((AssertionError, OSError), '413|reset|pipe'):
      self._send(data)
    self.assertRegex(
      self._json(
        '/api/search', 413, method='POST', X_File_Name='x',
        Content_Length=str(_LIMIT + 1),
      )['error'],
      'larger than 1 MB',
    )  # fmt: skip
    parts = iter([data[:1000]] * 2000)
    # Without a length; the server may hang up while more is sent.
    with contextlib.suppress(OSError):
      self._send(parts, status=413)
    self._send(self._read('bell.wav'))

  def test_more_files_than_are_taken(self):
    begun = [self._begin_to_send() for _ in range(web._MAX_UPLOADS)]
    _wait(lambda: len(_files()) == web._MAX_UPLOADS)
    whole = self._read('bell.wav')
    self.assertIn('Try again', self._send(whole, status=503)['error'])
    self._json('/api/search?text=star')  # words do not wait for them
    # Those that break off leave their places, and nothing in the log.
    with self.assertNoLogs('uvicorn.error', 'ERROR'):
      for connection in begun:
        connection.close()
      _wait(lambda: not _files())
      self._send(whole)

  def test_file_that_does_not_arrive(self):
    with mock.patch.object(web, '_UPLOAD_SECONDS', 0.2):
      response = self._begin_to_send().getresponse()
      content = response.read()
    self.assertEqual(response.status, 408)
    self.assertIn('longer than 0.2 s', json.loads(content)['error'])
    self.assertEmpty(_files())

  def test_no_other_site_can_send(self):
    found = self._json('/api/search', 400, method='POST', body=b'a')
    self.assertIn('X-File-Name', found['error'])
    response, _ = self._ask('/', Host='evil.example')
    self.assertEqual(response.status, 400)
    response, _ = self._ask('/', Host='localhost:80')
    self.assertEqual(response.status, 200)
    response, _ = self._ask('/api/search', method='OPTIONS')
    self.assertIsNone(response.getheader('Access-Control-Allow-Origin'))

  @parameterized.parameters('/vatt/', '/a/b c/'.replace(' ', '%20'), '/')
  def test_below_a_path(self, path):
    base = self.enterContext(searchable.below_path(self.address, path))

    def get(address):
      with urllib.request.urlopen(address) as response:
        return response.read().decode()

    page = get(base)
    addresses = re.findall(r'(?:href|src)="([^"#:]+)"', page)
    self.assertContainsSubset(['search.css', 'search.js', './'], addresses)
    script = get(urllib.parse.urljoin(base, 'search.js'))
    addresses += re.findall(r"""fetchJson\(['`]([^'`?]+)""", script)
    self.assertContainsSubset(['api/index', 'api/search'], addresses)
    # None is absolute, in what the script puts together neither.
    self.assertEmpty(re.findall(r"""['"`]/[\w?$]""", page + script))
    for address in addresses:
      if address == 'api/search':
        address += '?text=a+star'
      get(urllib.parse.urljoin(base, address))
    results = json.loads(get(f'{base}api/search?text=bell&modality=audio'))
    moment = next(r for r in results['results'] if not r['problem'])
    with urllib.request.urlopen(f'{base}media/{moment["id"]}') as response:
      self.assertEqual(response.status, 200)

  @parameterized.named_parameters(
    ('own', '127.0.0.1', (), ('localhost', '127.0.0.1', '[::1]', '[::1]:80')),
    ('capitals', 'localhost', ('Media.Example.org',), ('media.example.ORG:8',)),
    ('several', '127.0.0.1', ('a.org', '10.0.0.7'), ('a.org', '10.0.0.7:80')),
    ('address', '127.0.0.1', ('2001:db8::1',), ('[2001:db8::1]:443',)),
    ('every', '0.0.0.0', (), ('a.org', 'evil.example')),
    ('some', '0.0.0.0', ('a.org',), ('a.org', 'localhost')),
  )
  def test_names_that_are_answered_to(self, host, allowed, names):
    address = self.enterContext(
      searchable.serve(self.searcher, host=host, allowed_hosts=allowed)
    )
    where = urllib.parse.urlsplit(address).netloc

    def ask(name):
      with contextlib.closing(http.client.HTTPConnection(where)) as connection:
        connection.request('GET', '/api/index', headers={'Host': name})
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    for name in names:
      self.assertEqual(ask(name)[0], 200, name)
    if host != '0.0.0.0' or allowed:
      for name in ('evil.example', 'evil.example:80', 'a.org.evil.example'):
        status, found = ask(name)
        self.assertEqual(status, 400)
        expected = name.removesuffix(':80')
        self.assertIn(f'--allowed_host={expected}', found['error'])

  @parameterized.parameters('http://a.org', 'a.org:80', 'a.org/vatt', '', 'a b')
  def test_what_is_no_name(self, name):
    with self.assertRaisesRegex(ValueError, '`allowed_host` must be a name'):
      web.make_app(self.searcher, allowed_hosts=[name])

  def test_many_at_once(self):
    whole = self._read('bell.wav')
    barrier = threading.Barrier(6)

    def ask(number):
      barrier.wait()
      if number % 2:
        return self._send(whole)['kind']
      return self._json('/api/search?text=a+star')['kind']

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
      found = list(threads.map(ask, range(6)))
    self.assertEqual(found, ['text', 'audio'] * 3)

  def test_address_that_is_taken(self):
    port = urllib.parse.urlsplit(self.address).port
    for host, number in (('127.0.0.1', port), ('256.0.0.1', 0), ('', 99999)):
      with self.assertRaisesRegex(ValueError, '`host` and `port`'):
        web_security.listen(host, number)


if __name__ == '__main__':
  tf.test.main()
