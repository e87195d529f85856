"""Host names, headers and sockets of the server of the page."""

import asyncio
from collections.abc import Callable, Sequence
import contextlib
import ipaddress
import re
import socket

from starlette import datastructures, responses

# The page loads nothing from elsewhere, and no media file can run as a script.
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' "
    "data:; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action "
    "'self'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
}


def allowed_hosts(host: str, names: Sequence[str]) -> set[str] | None:
  """Returns the names by which clients may call the server; None means any.

  A server that only this machine reaches answers to its own names only:
  otherwise a page of another site could resolve its name to this machine, and
  read the media.

  Raises:
    ValueError: A name is not one of a host.
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


class HostCheck:
  """Refuses requests that call the server by a foreign name.

  Args:
    app: ASGI application behind it.
    allowed: Names that `allowed_hosts` returns.
  """

  def __init__(self, app: Callable, allowed: set[str] | None):
    self._app = app
    self._allowed = allowed

  async def __call__(self, scope, receive, send):
    app = self._app
    if scope['type'] == 'http' and self._allowed is not None:
      name = _host_of(scope)[:255]  # no name is longer
      if name not in self._allowed:
        app = error_response(
          f'This server does not answer to the name {name!r}. Start it with '
          f'--allowed_host={name} if that is one of its names.',
          400,
        )
    await app(scope, receive, send)


def _host_of(scope):
  """Returns the name in the header Host of a request, without its port."""
  host = datastructures.Headers(scope=scope).get('host', '').strip().lower()
  return re.sub(r':\d*$', '', host).removeprefix('[').removesuffix(']')


def listen(host: str, port: int) -> socket.socket:
  """Returns a listening socket, which may be used in a `with` statement.

  Args:
    host: Name or address.
    port: Number of the port; 0 for any free one.

  Raises:
    ValueError: The address or the port cannot be used.
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


def address(listener: socket.socket) -> str:
  """Returns the address of a listening socket for a browser."""
  host, port = listener.getsockname()[:2]
  host = {'0.0.0.0': '127.0.0.1', '::': '::1'}.get(host, host)
  return f'http://{f"[{host}]" if ":" in host else host}:{port}/'


def error_response(message: str, status: int) -> responses.JSONResponse:
  """Returns a response with an error message."""
  return responses.JSONResponse({'error': message}, status)


class SecurityHeaders:
  """Adds security headers to every response, also to those of failures.

  Args:
    app: ASGI application behind it.
  """

  def __init__(self, app: Callable):
    self._app = app

  async def __call__(self, scope, receive, send):
    async def send_more(message):
      if message['type'] == 'http.response.start':
        message['headers'] = [
          *message['headers'],
          *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items()),
        ]
      await send(message)

    # A request that is running when the server ends is not a failure.
    with contextlib.suppress(asyncio.CancelledError):
      await self._app(scope, receive, send_more)
