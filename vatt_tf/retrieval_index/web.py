"""The web page of an index, and the requests that it makes.

    GET  /                                  the page
    GET  /api/index                         what can be searched, and how
    GET  /api/search?text=&modality=&top=   words
    GET  /api/search?like=ID&by=            picture or sound of a result
    POST /api/search?by=                    a file: the body, with its name in
                                            the header X-File-Name
    GET  /api/map/ID?query=                 where in a result the query is
    GET  /media/ID                          the file of a result, or parts of it

A file is named by the id of a moment of the index, never by its path: only
indexed files are served. An uploaded file is written to a temporary file,
decoded in a process of its own, and removed.
"""

import asyncio
import collections
from collections.abc import Sequence
import contextlib
import importlib.resources
import mimetypes
import os
import secrets
import tempfile
import urllib.parse

from starlette import (
  applications,
  concurrency,
  exceptions,
  middleware,
  requests,
  responses,
  routing,
)

from vatt_tf.media import worker
from vatt_tf.retrieval_index import query, web_security

MAX_UPLOAD_BYTES = 256 << 20
MAX_TEXT_LENGTH = 1000
# Uploads at a time; each is on disk until it is answered.
_MAX_UPLOADS = 8
# Limit for sending an upload.
_UPLOAD_SECONDS = 600
# Limit for each step of decoding an upload.
_DECODE_SECONDS = 60

# The files of the page, by the path that they are served at.
_PAGE = {
  '/': ('index.html', 'text/html'),
  '/search.css': ('search.css', 'text/css'),
  '/search.js': ('search.js', 'text/javascript'),
}
# Types that Python may not know.
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
# Queries that are kept, for maps of their results.
_NUM_QUERIES = 256
_NUM_EXAMPLES = 6
_DEFAULT_COUNT = 24
_MAX_COUNT = 200
# A header that pages of other sites cannot send without a preflight request,
# which this server refuses.
_FILE_NAME = 'x-file-name'


class _Server:
  """State that the requests share."""

  def __init__(self, searcher, media_root, max_upload_bytes):
    self._searcher = searcher
    self._media_root = media_root or searcher.index.media_root
    self._max_upload_bytes = max_upload_bytes
    self._turns = asyncio.Semaphore(2)
    self._uploads = asyncio.Semaphore(_MAX_UPLOADS)
    # Files wait for each other, so that words never wait for all of them.
    self._decoding = asyncio.Lock()
    self._pool = worker.Pool(1, _DECODE_SECONDS)
    self._queries = collections.OrderedDict()  # vector and space, by name

  @contextlib.asynccontextmanager
  async def lifespan(self, app):
    """Keeps a process for decoding while the server runs."""
    del app
    with self._pool:
      yield

  def _perform(self, task):
    """Decodes in the process, so that a damaged file kills nothing else."""
    ((_, results),) = self._pool.map([task])
    return results

  async def _run(self, function, *arguments, **keywords):
    """Calls a function in a thread, a few at a time."""
    async with self._turns:
      return await concurrency.run_in_threadpool(
        function, *arguments, **keywords
      )

  def _path(self, moment):
    return os.path.join(self._media_root, moment.path)

  def _row(self, text):
    """Returns the number of the moment of an id; 404 if it is unknown."""
    row = None
    if len(text) == 16 and set(text) <= set('0123456789abcdef'):
      row = self._searcher.index.find(int(text, 16))
    if row is None:
      raise exceptions.HTTPException(
        404,
        f'There is no moment {text[:80]!r} in this index: the link is of '
        'another one, or of one that was built again from other files.',
      )
    return row

  async def media(self, request):
    """GET /media/ID."""
    moment = self._searcher.index.moment(self._row(request.path_params['id']))
    path = self._path(moment)
    if not os.path.isfile(path):
      raise exceptions.HTTPException(404, f'The file does not exist: {path}')
    return responses.FileResponse(path, media_type=media_type(path))

  async def index(self, request):
    """GET /api/index."""
    del request
    index = self._searcher.index
    return responses.JSONResponse(
      {
        'num_moments': index.num_moments,
        'model': index.model_version,
        'kinds': self._searcher.kinds,
        'modalities': index.modalities(),
        'examples': await self._run(index.captions, _NUM_EXAMPLES),
        'map_spaces': self._searcher.map_spaces,
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
    content = query.as_dict(answer)
    await self._run(self._complete, content['results'])
    if answer.space in self._searcher.map_spaces:
      content['query_name'] = self._keep(answer)
    return responses.JSONResponse({**content, **more})

  def _keep(self, answer):
    """Keeps the vector of a query; returns its name."""
    name = secrets.token_hex(8)
    self._queries[name] = answer.vector, answer.space
    while len(self._queries) > _NUM_QUERIES:
      self._queries.popitem(last=False)
    return name

  async def map(self, request):
    """GET /api/map/ID."""
    row = self._row(request.path_params['id'])
    name = request.query_params.get('query', '')
    if name not in self._queries:
      raise exceptions.HTTPException(
        404, 'The server does not know this query any more: search again.'
      )
    vector, space = self._queries[name]
    path = self._path(self._searcher.index.moment(row))
    if not os.path.isfile(path):
      raise exceptions.HTTPException(404, f'The file does not exist: {path}')
    async with self._decoding:
      located = await self._run(
        self._searcher.locate, row, vector, space, path, self._perform
      )
    return responses.JSONResponse(
      {
        'map': located.map.round(4).tolist(),
        'start': located.start,
        'end': located.end,
        'window': located.window,
      }
    )

  def _complete(self, results):
    """Adds the values that the page needs to results."""
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


def media_type(path: str) -> str:
  """Returns the type of a media file; never one that a browser runs."""
  extension = os.path.splitext(path)[1].lower()
  kind = _TYPES.get(extension) or mimetypes.guess_type(path)[0] or ''
  return kind if kind.startswith(('audio/', 'video/')) else _OTHER_TYPE


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


async def _http_error(request, error):
  del request
  return web_security.error_response(error.detail, error.status_code)


async def _query_error(request, error):
  del request
  return web_security.error_response(str(error), 400)


async def _other_error(request, error):
  del request, error  # which Starlette raises again, for the server's log
  return web_security.error_response(
    'The server failed at this request and continues; its log has the reason.',
    500,
  )


def make_app(
  searcher: query.Searcher,
  host: str = '127.0.0.1',
  media_root: str = '',
  max_upload_bytes: int = MAX_UPLOAD_BYTES,
  allowed_hosts: Sequence[str] = (),
) -> web_security.SecurityHeaders:
  """Returns the ASGI application, for a server such as uvicorn.

  Args:
    searcher: Index and model.
    host: Name or address that the server listens at.
    media_root: Folder that the paths of the index are relative to; '' for the
      one that the media were embedded from.
    max_upload_bytes: Maximum size of an uploaded file.
    allowed_hosts: Names that the server answers to besides those of this
      machine, such as that of a proxy. Without any, a server that other
      machines reach answers to all names.

  Raises:
    ValueError: An allowed host is not a name.
  """
  server = _Server(searcher, media_root, max_upload_bytes)
  app = applications.Starlette(
    routes=[
      *(routing.Route(path, _page(path)) for path in _PAGE),
      routing.Route('/api/index', server.index),
      routing.Route('/api/search', server.search, methods=['GET']),
      routing.Route('/api/search', server.search_with_file, methods=['POST']),
      routing.Route('/api/map/{id}', server.map),
      routing.Route('/media/{id}', server.media),
    ],
    middleware=[
      middleware.Middleware(
        web_security.HostCheck,
        allowed=web_security.allowed_hosts(host, allowed_hosts),
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
  return web_security.SecurityHeaders(app)
