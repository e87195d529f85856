"""The web page of an index, and the requests that it makes.

    GET  /                                  the page
    GET  /api/index                         what can be searched, and how
    GET  /api/search?text=&modality=&top=   words
    GET  /api/search?like=ID&by=            picture or sound of a result
    POST /api/search?by=                    a file: the body, with its name in
                                            the header X-File-Name
    GET  /media/ID                          the file of a result, or parts of it

A file is named by the id of a moment of the index, never by its path: only
files that were indexed can be had. What is sent is written to a temporary file,
decoded in a process of its own, and removed.
"""

import asyncio
import contextlib
import importlib.resources
import ipaddress
import mimetypes
import os
import re
import socket
import tempfile
import urllib.parse

from starlette import (
  applications,
  concurrency,
  datastructures,
  exceptions,
  middleware,
  requests,
  responses,
  routing,
)

from vatt_tf.media import worker
from vatt_tf.retrieval_index import query

MAX_UPLOAD_BYTES = 256 << 20
MAX_TEXT_LENGTH = 1000
# Files that are taken at once; each is on disk until it is answered.
_MAX_UPLOADS = 8
# For sending one of them.
_UPLOAD_SECONDS = 600
# For each step of decoding one.
_DECODE_SECONDS = 60

# The files of the page, by the path that they are served at.
_PAGE = {
  '/': ('index.html', 'text/html'),
  '/search.css': ('search.css', 'text/css'),
  '/search.js': ('search.js', 'text/javascript'),
}
# Nothing comes from elsewhere, and nothing that is sent can run.
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
    "data:; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action "
    "'self'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
}
# Those that Python may not know.
_TYPES = {
  '.flac': 'audio/flac',
  '.m4a': 'audio/mp4',
  '.mkv': 'video/x-matroska',
  '.oga': 'audio/ogg',
  '.ogg': 'audio/ogg',
  '.opus': 'audio/ogg',
  '.webm': 'video/webm',
}
_OTHER_TYPE = 'application/octet-stream'
_NUM_EXAMPLES = 6
_DEFAULT_COUNT = 24
_MAX_COUNT = 200
# A header that pages of other sites cannot send without being asked first, and
# nobody here says yes.
_FILE_NAME = 'x-file-name'


class _Server:
  """What the requests share."""

  def __init__(self, searcher, media_root, max_upload_bytes):
    self._searcher = searcher
    self._media_root = media_root or searcher.index.media_root
    self._max_upload_bytes = max_upload_bytes
    self._turns = asyncio.Semaphore(2)
    self._uploads = asyncio.Semaphore(_MAX_UPLOADS)
    # Files wait for each other, so that words never wait for all of them.
    self._decoding = asyncio.Lock()
    self._pool = worker.Pool(1, _DECODE_SECONDS)

  @contextlib.asynccontextmanager
  async def lifespan(self, app):
    """Keeps a process for decoding while the server runs."""
    del app
    with self._pool:
      yield

  def _perform(self, task):
    """Decodes in the process; a file that kills it takes nothing with it."""
    ((_, results),) = self._pool.map([task])
    return results

  async def _run(self, function, *arguments, **keywords):
    """Calls a function in a thread, not more than a few at a time."""
    async with self._turns:
      return await concurrency.run_in_threadpool(
        function, *arguments, **keywords
      )

  # Files of the index.

  def _path(self, moment):
    return os.path.join(self._media_root, moment.path)

  def _row(self, text):
    """The number of the moment of an id; 404 where there is none."""
    row = None
    if len(text) == 16 and set(text) <= set('0123456789abcdef'):
      row = self._searcher.index.find(int(text, 16))
    if row is None:
      raise exceptions.HTTPException(
        404,
        f'There is no moment {text[:80]!r} in this index: the link is of '
        'another one, or of one that was made again from other files.',
      )
    return row

  async def media(self, request):
    """GET /media/ID."""
    moment = self._searcher.index.moment(self._row(request.path_params['id']))
    path = self._path(moment)
    if not os.path.isfile(path):
      raise exceptions.HTTPException(404, f'The file is not there: {path}')
    return responses.FileResponse(path, media_type=media_type(path))

  # Searching.

  async def index(self, request):
    """GET /api/index."""
    del request
    found = self._searcher.index
    return responses.JSONResponse(
      {
        'num_moments': found.num_moments,
        'model': found.model_version,
        'kinds': self._searcher.kinds,
        'modalities': found.modalities(),
        'examples': await self._run(found.captions, _NUM_EXAMPLES),
        'max_upload_bytes': self._max_upload_bytes,
      }
    )

  async def search(self, request):
    """GET /api/search."""
    values = request.query_params
    target, count = _target_and_count(values)
    if 'like' in values:
      row = self._row(values['like'])
      kinds = await self._run(self._searcher.kinds_of, row)
      by = values.get('by') or kinds[0]
      answer = await self._run(self._searcher.like, row, by, target, count)
      return await self._answer(answer, like=self._result(row))
    text = values.get('text', '')
    if len(text) > MAX_TEXT_LENGTH:
      raise exceptions.HTTPException(
        400, f'The words are longer than {MAX_TEXT_LENGTH} characters.'
      )
    answer = await self._run(self._searcher.by_text, text, target, count)
    return await self._answer(answer)

  async def search_with_file(self, request):
    """POST /api/search."""
    values = request.query_params
    target, count = _target_and_count(values)
    by = values.get('by') or None
    if by is not None and by not in (query.VIDEO, query.AUDIO):
      raise exceptions.HTTPException(
        400, f'`by` must be video or audio. Received: by={by[:80]!r}'
      )
    name = request.headers.get(_FILE_NAME)
    if name is None:
      raise exceptions.HTTPException(
        400, 'The header X-File-Name must hold the name of the file.'
      )
    name = os.path.basename(urllib.parse.unquote(name)) or 'file'
    if self._uploads.locked():
      raise exceptions.HTTPException(
        503,
        f'{_MAX_UPLOADS} files are being searched with, the most that are '
        'taken at once. Try again in a moment.',
      )
    try:
      async with self._uploads:
        answer = await self._by_file(request, by, target, count, name)
    except requests.ClientDisconnect:  # nobody waits for an answer
      return responses.Response(status_code=499)
    return await self._answer(answer)

  async def _by_file(self, request, by, target, count, name):
    """Searches with the body of a request."""
    with tempfile.TemporaryDirectory(prefix='vatt_tf_search_') as folder:
      path = os.path.join(folder, 'file')
      try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
          await self._receive(request, path)
      except TimeoutError as e:
        raise exceptions.HTTPException(
          408, f'The file took longer than {_UPLOAD_SECONDS} s to arrive.'
        ) from e
      async with self._decoding:
        return await self._run(
          self._searcher.by_file,
          path,
          by,
          target,
          count,
          perform=self._perform,
          name=name,
        )

  async def _receive(self, request, path):
    """Writes the body to a file, up to the limit."""
    limit = self._max_upload_bytes
    error = exceptions.HTTPException(
      413, f'The file is larger than {limit >> 20} MB, the most that is taken.'
    )
    if int(request.headers.get('content-length') or 0) > limit:
      raise error
    size = 0
    with open(path, 'wb') as file:
      async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
          raise error
        file.write(chunk)
    if not size:
      raise exceptions.HTTPException(400, 'The file is empty (0 bytes).')

  async def _answer(self, answer, **more):
    found = query.as_dict(answer)
    await self._run(self._complete, found['results'])
    return responses.JSONResponse({**found, **more})

  def _complete(self, results):
    """Adds to results what the page needs to show them."""
    for result in results:
      row = self._searcher.index.find(int(result['id'], 16))
      result |= self._result(row)

  def _result(self, row):
    moment = self._searcher.index.moment(row)
    path = self._path(moment)
    return {
      'id': query.format_id(moment.id),
      'path': moment.path,
      'start': moment.start,
      'end': moment.end,
      'caption': moment.caption,
      'kinds': self._searcher.kinds_of(row),
      'type': media_type(path),
      'problem': '' if os.path.isfile(path) else f'The file is not at {path}.',
    }


def media_type(path):
  """The type of a media file by its name; never one that a browser runs."""
  extension = os.path.splitext(path)[1].lower()
  found = _TYPES.get(extension) or mimetypes.guess_type(path)[0] or ''
  return found if found.startswith(('audio/', 'video/')) else _OTHER_TYPE


def _target_and_count(values):
  try:
    count = int(values.get('top') or _DEFAULT_COUNT)
  except ValueError:
    count = 0
  if not 1 <= count <= _MAX_COUNT:
    raise exceptions.HTTPException(
      400,
      f'`top` must be a number in [1, {_MAX_COUNT}]. '
      f'Received: top={values["top"][:80]!r}',
    )
  return values.get('modality') or query.ANY, count


def _allowed_hosts(host, names):
  """Names by which the server may be called, a set; None: any.

  A server on this machine alone answers to its own names only: otherwise a page
  of another site could have its name lead here, and read the media.
  """
  for name in names:
    if not re.fullmatch(r'[\w.-]+', name) and not _is_address(name):
      raise ValueError(
        '`allowed_host` must be a name or an address such as '
        f'media.example.org, without port and path. Received: {name!r}'
      )
  try:
    is_local = ipaddress.ip_address(host).is_loopback
  except ValueError:
    is_local = host == 'localhost'
  if not is_local and not names:
    return None
  return {
    name.lower() for name in ('localhost', '127.0.0.1', '::1', host, *names)
  }


def _is_address(text):
  try:
    ipaddress.ip_address(text)
  except ValueError:
    return False
  return True


class _Hosts:
  """Refuses requests that call the server by a name that it does not have."""

  def __init__(self, app, allowed):
    self._app = app
    self._allowed = allowed

  async def __call__(self, scope, receive, send):
    app = self._app
    if scope['type'] == 'http' and self._allowed is not None:
      name = _host_of(scope)[:255]  # no name is longer
      if name not in self._allowed:
        app = _as_error(
          f'This server does not answer to the name {name!r}. Start it with '
          f'--allowed_host={name} if that is one of its names.',
          400,
        )
    await app(scope, receive, send)


def _host_of(scope):
  """The name in the header Host of a request, without its port."""
  host = datastructures.Headers(scope=scope).get('host', '').strip().lower()
  return re.sub(r':\d*$', '', host).removeprefix('[').removesuffix(']')


def listen(host, port):
  """A socket that listens; it may be used in a `with` statement.

  Args:
    host: name or address.
    port: int; 0 for any free one.

  Raises:
    ValueError: it cannot.
  """
  try:
    family, _, _, _, where = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM
    )[0]
    return socket.create_server(where[:2], family=family)
  except (OSError, OverflowError) as e:
    raise ValueError(
      f'`host` and `port` must be an address of this machine and a free port: '
      f'{e}. Received: host={host!r}, port={port}'
    ) from e


def address(listener):
  """Where a browser finds what listens at a socket."""
  host, port = listener.getsockname()[:2]
  host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host)
  return f'http://{f"[{host}]" if ":" in host else host}:{port}/'


def _page(path):
  name, kind = _PAGE[path]
  folder = importlib.resources.files(__package__) / 'page'
  content = (folder / name).read_bytes()

  async def answer(request):
    del request
    return responses.Response(
      content, media_type=kind, headers={'Cache-Control': 'no-cache'}
    )

  return answer


def _as_error(message, status):
  return responses.JSONResponse({'error': message}, status)


async def _http_error(request, error):
  del request
  return _as_error(error.detail, error.status_code)


async def _query_error(request, error):
  del request
  return _as_error(str(error), 400)


async def _other_error(request, error):
  del request, error  # which Starlette raises again, for the server's log
  return _as_error(
    'The server failed at this request. Its log says why; it goes on.', 500
  )


class _Headers:
  """Adds `_HEADERS` to every response, also to those of failures."""

  def __init__(self, app):
    self._app = app

  async def __call__(self, scope, receive, send):
    async def send_more(message):
      if message['type'] == 'http.response.start':
        message['headers'] = [
          *message['headers'],
          *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items()),
        ]
      await send(message)

    # What is under way when the server ends is no failure.
    with contextlib.suppress(asyncio.CancelledError):
      await self._app(scope, receive, send_more)


def make_app(
  searcher,
  host='127.0.0.1',
  media_root='',
  max_upload_bytes=MAX_UPLOAD_BYTES,
  allowed_hosts=(),
):
  """The application, for a server such as uvicorn.

  Args:
    searcher: `query.Searcher`.
    host: name or address that the server listens at.
    media_root: folder that the paths of the index are relative to; by default
      the one that the media were embedded from.
    max_upload_bytes: int, of a file that is searched with.
    allowed_hosts: names that the server answers to besides those of this
      machine, such as that of a proxy. Without any, a server that other
      machines reach answers to all names.

  Returns:
    The ASGI application.

  Raises:
    ValueError: what is allowed is no name.
  """
  server = _Server(searcher, media_root, max_upload_bytes)
  app = applications.Starlette(
    routes=[
      *(routing.Route(path, _page(path)) for path in _PAGE),
      routing.Route('/api/index', server.index),
      routing.Route('/api/search', server.search, methods=['GET']),
      routing.Route('/api/search', server.search_with_file, methods=['POST']),
      routing.Route('/media/{id}', server.media),
    ],
    middleware=[
      middleware.Middleware(
        _Hosts, allowed=_allowed_hosts(host, allowed_hosts)
      ),
    ],
    exception_handlers={
      exceptions.HTTPException: _http_error,
      query.QueryError: _query_error,
      Exception: _other_error,
    },
    lifespan=server.lifespan,
  )
  # Around it, since Starlette answers failures outside its middleware.
  return _Headers(app)
