"""Errors that clients receive, with the codes of gRPC."""

import grpc
import tensorflow as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# Lines of TensorFlow's messages that only name a place in a graph.
_PLACES = ('Graph execution error', 'Detected at node', '<stack traces', '[[')


class StatusError(Exception):
  """A fault of a request.

  Attributes:
    code: Code of gRPC.
    message: Text for the client.

  Args:
    code: See the attribute.
    message: See the attribute.
  """

  def __init__(self, code: grpc.StatusCode, message: str):
    super().__init__(message)
    self.code = code
    self.message = message


def invalid(message: str) -> StatusError:
  """Returns the error of a malformed request."""
  return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_exception(error: Exception) -> StatusError:
  """Returns the error for a client of what an operation or a program raised.

  Returns:
    The error itself if it is a `StatusError`; otherwise one with the code of a
    TensorFlow error and the useful lines of its message, or INTERNAL.
  """
  if isinstance(error, StatusError):
    return error
  if isinstance(error, tf.errors.OpError):
    lines = [line.strip() for line in error.message.splitlines()]
    lines = [line for line in lines if line and not line.startswith(_PLACES)]
    message = lines[0] if lines else error.message
    return StatusError(_CODES[error.error_code], message)
  return StatusError(
    grpc.StatusCode.INTERNAL, f'{type(error).__name__}: {error}'
  )
