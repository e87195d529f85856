"""Keeps what takes long out of the event loop, which all requests share."""

import asyncio

# Less than that is read faster than a thread is woken.
LARGE_BYTES = 64 * 2**10


async def call(num_bytes, function, *arguments):
  """Calls a function: in a thread, if it has much to read or write.

  Args:
    num_bytes: so many, about.
    function: of `arguments`.
    *arguments: its arguments.

  Returns:
    What it returns.
  """
  if num_bytes < LARGE_BYTES:
    return function(*arguments)
  return await asyncio.to_thread(function, *arguments)
