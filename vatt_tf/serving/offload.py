"""Keeps long calls out of the event loop, which all requests share."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar('T')

# Fewer bytes are read faster than a thread is woken.
LARGE_BYTES = 64 * 2**10


async def call(
  num_bytes: int, function: Callable[..., T], *arguments: object
) -> T:
  """Calls a function: in a thread if it has much to read or write.

  Args:
    num_bytes: Approximate number of bytes that it reads or writes.
    function: Function to call.
    *arguments: Arguments of the function.

  Returns:
    The function's result.
  """
  if num_bytes < LARGE_BYTES:
    return function(*arguments)
  return await asyncio.to_thread(function, *arguments)
