"""Errors that a client is told of, with the codes of gRPC."""

import grpc
import tensorflow as tf

_CODES = {code.value[0]: code for code in grpc.StatusCode}
# Lines of TensorFlow's messages that say where in a graph, not what.
_PLACES = ('Graph execution error', 'Detected at node', '<stack traces', '[[')


class StatusError(Exception):
  """What was wrong with a request.

  Args:
    code: `grpc.StatusCode`.
    message: string, for the client.
  """

  def __init__(self, code, message):
    super().__init__(message)
    self.code = code
    self.message = message


def invalid(message):
  """A `StatusError` of a malformed request."""
  return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)


def from_exception(error):
  """The `StatusError` of what an operation or a program raised.

  Args:
    error: an exception.

  Returns:
    `StatusError`: itself, or with the code of a TensorFlow error and those
    lines of its message that say what is wrong, or INTERNAL.
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
