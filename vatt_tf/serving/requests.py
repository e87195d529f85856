"""What requests hold: protos and JSON to arrays and back, and what is valid.

Everything that is cheap to see is checked here, before a request is merged with
others: names, types, shapes, and of the inputs of exported models the values.
"""

import base64
import math
import re

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from vatt_tf.core import plain_text
from vatt_tf.export import signatures
from vatt_tf.serving import errors

_JPEG = b'\xff\xd8\xff'
_WHITE_SPACE = re.compile('[ \t\n\v\f\r]+')
_BASE64 = re.compile('([A-Za-z0-9+/]*)([=.]*)')


def describe(spec):
  """Type and shape of a `tf.TensorSpec`, in words."""
  sizes = ['any' if size is None else str(size) for size in spec.shape]
  return f'{spec.dtype.name} of shape ({", ".join(sizes)})'


def check_names(names, specs):
  """Checks that a request has all inputs of a signature, and no others.

  Args:
    names: those that came.
    specs: dictionary from names to `tf.TensorSpec`.

  Raises:
    errors.StatusError: INVALID_ARGUMENT.
  """
  missing = sorted(set(specs) - set(names))
  unknown = sorted(set(names) - set(specs))
  if missing or unknown:
    wanted = ', '.join(f'`{k}` ({describe(v)})' for k, v in specs.items())
    raise errors.invalid(
      f'The inputs must be {wanted}. Received: {_listed(names)}; missing: '
      f'{_listed(missing)}, unknown: {_listed(unknown)}'
    )


def _listed(names):
  return ', '.join(f'`{name}`' for name in sorted(names)) or 'none'


# Protos.


def from_protos(protos, specs, max_bytes):
  """The inputs of a `PredictRequest`.

  Args:
    protos: mapping of names to `TensorProto`.
    specs: dictionary of `tf.TensorSpec`.
    max_bytes: an array may take up so many.

  Returns:
    Dictionary of arrays; strings are bytes in an array of objects.

  Raises:
    errors.StatusError: INVALID_ARGUMENT.
  """
  check_names(protos, specs)
  return {
    name: _from_proto(name, protos[name], spec, max_bytes)
    for name, spec in specs.items()
  }


def _from_proto(name, proto, spec, max_bytes):
  if proto.dtype != spec.dtype.as_datatype_enum:
    try:
      received = tf.as_dtype(proto.dtype).name
    except TypeError:
      received = f'type {proto.dtype}'
    raise errors.invalid(
      f'`{name}` must be {describe(spec)}. Received: {received}'
    )
  sizes = [dim.size for dim in proto.tensor_shape.dim]
  if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
    raise errors.invalid(
      f'`{name}` must have a known shape. Received: {sizes or "unknown rank"}'
    )
  # A proto may give one value for all: few bytes that become many.
  if math.prod(sizes) * spec.dtype.size > max_bytes:
    raise errors.invalid(
      f'`{name}` must take up at most {max_bytes:,} bytes. Received: an array '
      f'of shape {tuple(sizes)}'
    )
  count = len(proto.string_val)
  if spec.dtype == tf.string and count != math.prod(sizes):
    raise errors.invalid(
      f'`{name}` must hold as many values as its shape {tuple(sizes)} says. '
      f'Received: {count} strings'
    )
  try:
    return tf.make_ndarray(proto)
  except (ValueError, TypeError) as e:
    raise errors.invalid(
      f'`{name}` must hold as many values as its shape {tuple(sizes)} says: {e}'
    ) from e


def to_proto(array):
  """An output as a `TensorProto`, in the field that TensorFlow Serving uses.

  Args:
    array: of any type.

  Returns:
    `TensorProto`; float32 is in `float_val`.
  """
  if array.dtype != np.float32:
    return tf.make_tensor_proto(array)
  proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
  proto.float_val.extend(array.ravel().tolist())
  for size in array.shape:
    proto.tensor_shape.dim.add().size = size
  return proto


# JSON.


def from_json(body, specs):
  """The inputs of a REST request.

  Args:
    body: dictionary with `instances` (a list of rows, each a dictionary of
      inputs, or the value itself where there is one input) or `inputs` (a
      dictionary of columns, or the value itself).
    specs: dictionary of `tf.TensorSpec`.

  Returns:
    `(inputs, is_row_format)`, inputs a dictionary of arrays.

  Raises:
    errors.StatusError: INVALID_ARGUMENT.
  """
  is_row_format = 'instances' in body
  if is_row_format == ('inputs' in body):
    raise errors.invalid(
      "The request must have one of the keys 'instances' (row format) and "
      f"'inputs' (columnar format). Received: {_listed(body)}"
    )
  if is_row_format:
    columns = _columns(body['instances'], specs)
  else:
    columns = body['inputs']
    if not _is_named(columns):
      columns = _unnamed(columns, specs)
    check_names(columns, specs)
  inputs = {
    name: _from_json(name, columns[name], spec) for name, spec in specs.items()
  }
  return inputs, is_row_format


def _is_named(value):
  return isinstance(value, dict) and set(value) != {'b64'}


def _unnamed(value, specs):
  if len(specs) != 1:
    check_names([], specs)
  return {next(iter(specs)): value}


def _columns(rows, specs):
  """Rows as columns."""
  if not isinstance(rows, list) or not rows:
    raise errors.invalid(
      "'instances' must be a list of at least one row. Received: "
      f'{_excerpt(rows)}'
    )
  named = [_is_named(row) for row in rows]
  if not any(named):
    return _unnamed(rows, specs)
  if not all(named):
    raise errors.invalid(
      "'instances' must be all dictionaries of inputs, or all values. Received "
      'both'
    )
  for row in rows:
    check_names(row, specs)
  return {name: [row[name] for row in rows] for name in specs}


def _excerpt(value):
  text = repr(value)
  return text if len(text) <= 80 else f'{text[:77]}…'


def _from_json(name, value, spec):
  try:
    if spec.dtype == tf.string:
      return _strings(value)
    return _numbers(value, spec.dtype.as_numpy_dtype)
  except (ValueError, TypeError, OverflowError) as e:
    raise errors.invalid(
      f'`{name}` must be {describe(spec)}: {e}. Received: {_excerpt(value)}'
    ) from e


def _numbers(value, dtype):
  """Nested lists as an array; raises ValueError."""
  array = np.array(value)  # says of ragged lists what they are
  if array.size == 0:
    return array.astype(dtype)
  is_integer = np.issubdtype(dtype, np.integer)
  if array.dtype.kind not in ('iu' if is_integer else 'iuf'):
    kind = 'integers' if is_integer else 'numbers'
    raise ValueError(f'its values must be {kind}')
  if is_integer:
    limits = np.iinfo(dtype)
    if array.min() < limits.min or array.max() > limits.max:
      raise ValueError(f'its values must be in [{limits.min}, {limits.max}]')
  with np.errstate(over='ignore'):  # becomes infinite
    return array.astype(dtype)


def _strings(value):
  """Nested lists of strings and {'b64': …} as an array of bytes."""
  shape, level = [], [value]
  while level and isinstance(level[0], list):
    sizes = {len(each) if isinstance(each, list) else None for each in level}
    if len(sizes) != 1:
      raise ValueError('its lists must have one length')
    shape.append(sizes.pop())
    level = [item for each in level for item in each]
  array = np.empty(len(level), object)
  array[:] = [_to_bytes(item) for item in level]
  return array.reshape(shape)


def _to_bytes(item):
  if isinstance(item, str):
    return item.encode()
  if isinstance(item, dict) and set(item) == {'b64'}:
    if not isinstance(item['b64'], str):
      raise ValueError("'b64' must be a string")
    return _from_base64(item['b64'])
  raise ValueError("its values must be strings or {'b64': …}")


def _from_base64(text):
  """Bytes of base64, as `absl::Base64Unescape` takes it.

  White space of ASCII may stand anywhere, as in the lines that `base64` writes.
  The end is filled up with = (or .) to a multiple of 4, or not at all. Bits
  that are left over at the end may be any. The letters - and _ of names of
  files are not taken.

  Args:
    text: string.

  Returns:
    Bytes.

  Raises:
    ValueError: it is something else.
  """
  match = _BASE64.fullmatch(text)
  if match is None:
    text = _WHITE_SPACE.sub('', text)
    match = _BASE64.fullmatch(text)
  if match is None:
    wrong = re.search(r'[^A-Za-z0-9+/]', text).group()
    raise ValueError(f"'b64' must be base64, which has no {wrong!r} there")
  letters, filling = match.groups()
  missing = -len(letters) % 4
  if missing == 3 or filling and len(filling) != missing:
    raise ValueError(
      f"'b64' must be base64: {len(letters)} letters with {len(filling)} of ="
    )
  return base64.b64decode(letters + missing * '=')


def to_json(outputs, is_row_format):
  """Outputs as the body of a REST answer.

  Args:
    outputs: dictionary of arrays (rows, ...) of numbers.
    is_row_format: whether the request was in row format.

  Returns:
    Dictionary with `predictions`, a list of rows, or `outputs`; where the
    signature has one output, it stands there without its name.
  """
  lists = {name: value.tolist() for name, value in outputs.items()}
  if len(lists) == 1:
    [only] = lists.values()
    return {'predictions' if is_row_format else 'outputs': only}
  if not is_row_format:
    return {'outputs': lists}
  rows = zip(*lists.values())
  return {'predictions': [dict(zip(lists, row)) for row in rows]}


# Values.


def check(inputs, specs):
  """Checks shapes and values.

  Args:
    inputs: dictionary of arrays, of the types of the signature.
    specs: dictionary of `tf.TensorSpec`, of the same names.

  Returns:
    The number of rows.

  Raises:
    errors.StatusError: INVALID_ARGUMENT.
  """
  for name, spec in specs.items():
    array = inputs[name]
    if not spec.shape.is_compatible_with(array.shape):
      raise errors.invalid(
        f'`{name}` must be {describe(spec)}. Received: shape {array.shape}'
      )
    if array.size == 0:
      raise errors.invalid(
        f'`{name}` must hold at least one value in each row, and at least one '
        f'row. Received: shape {array.shape}'
      )
    if name in _CHECKS:
      _CHECKS[name](array)
  num_rows = {name: len(array) for name, array in inputs.items()}
  if len(set(num_rows.values())) != 1:
    counts = ', '.join(f'{n} of `{name}`' for name, n in num_rows.items())
    raise errors.invalid(
      f'The inputs must have one number of rows. Received: {counts}'
    )
  return next(iter(num_rows.values()))


def _check_frames(frames):
  if frames.dtype != object:
    return
  for place, frame in np.ndenumerate(frames):
    if not frame.startswith(_JPEG):
      raise errors.invalid(
        '`frames` must be JPEG images. Received, in row '
        f'{place[0]}, as frame {place[1]}: {_excerpt(frame[:16])}, of '
        f'{len(frame)} bytes'
      )


def _check_waveform(waveform):
  is_finite = np.isfinite(waveform).all(axis=1)
  if not is_finite.all():
    raise errors.invalid(
      '`waveform` must be finite. Received: NaN or infinite values in row '
      f'{np.argmin(is_finite)}'
    )


def _check_sample_rate(rates):
  low, high = signatures.MIN_SAMPLE_RATE, signatures.MAX_SAMPLE_RATE
  is_rate = (rates >= low) & (rates <= high)
  if not is_rate.all():
    row = np.argmin(is_rate)
    raise errors.invalid(
      f'`sample_rate` must be samples a second, in [{low}, {high}]. Received: '
      f'{rates[row]} in row {row}'
    )


def _check_text(texts):
  for row, text in enumerate(texts):
    try:
      is_empty = not plain_text.clean(text.decode())
    except UnicodeDecodeError as e:
      raise errors.invalid(
        f'`text` must be UTF-8. Received, in row {row}: {e}'
      ) from e
    if is_empty:
      raise errors.invalid(
        f'`text` must hold a word in each row. Received: {_excerpt(text)} in '
        f'row {row}'
      )


# Of the inputs that exported models have.
_CHECKS = {
  'frames': _check_frames,
  'waveform': _check_waveform,
  'sample_rate': _check_sample_rate,
  'text': _check_text,
}
