"""Content of requests: protos and JSON to arrays and back, and its checks.

Cheap checks are made here, before a request is merged with others: of names,
types, shapes, and of the values of exported models' inputs.
"""

import base64
from collections.abc import Iterable, Mapping
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


def describe(spec: tf.TensorSpec) -> str:
  """Returns type and shape of a spec in words."""
  sizes = ['any' if size is None else str(size) for size in spec.shape]
  return f'{spec.dtype.name} of shape ({", ".join(sizes)})'


def check_names(
  names: Iterable[str], specs: Mapping[str, tf.TensorSpec]
) -> None:
  """Checks that a request has all inputs of a signature, and no others.

  Args:
    names: Names of the inputs of the request.
    specs: Specs of the signature's inputs by name.

  Raises:
    errors.StatusError: INVALID_ARGUMENT: the names differ.
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


def from_protos(
  protos: Mapping[str, tensor_pb2.TensorProto],
  specs: Mapping[str, tf.TensorSpec],
  max_bytes: int,
) -> dict[str, np.ndarray]:
  """Returns the inputs of a `PredictRequest`.

  Args:
    protos: Tensors by name.
    specs: Specs of the signature's inputs by name.
    max_bytes: Maximum size of an array.

  Returns:
    Arrays by name; strings are bytes in an array of objects.

  Raises:
    errors.StatusError: INVALID_ARGUMENT: the tensors do not fit the specs.
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
  # A proto may hold one value for all: few bytes that become many.
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


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
  """Returns an output as a proto, in the field that TensorFlow Serving uses.

  float32 is in `float_val`.
  """
  if array.dtype != np.float32:
    return tf.make_tensor_proto(array)
  proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT)
  proto.float_val.extend(array.ravel().tolist())
  for size in array.shape:
    proto.tensor_shape.dim.add().size = size
  return proto


# JSON.


def from_json(
  body: Mapping[str, object], specs: Mapping[str, tf.TensorSpec]
) -> tuple[dict[str, np.ndarray], bool]:
  """Returns the inputs of a REST request.

  Args:
    body: JSON object with `instances` (a list of rows, each a dictionary of
      inputs, or the value itself if there is one input) or `inputs` (a
      dictionary of columns, or the value itself).
    specs: Specs of the signature's inputs by name.

  Returns:
    Arrays by name, and whether the request is in row format.

  Raises:
    errors.StatusError: INVALID_ARGUMENT: the values do not fit the specs.
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
  """Returns rows as columns."""
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
  """Returns nested lists as an array; raises `ValueError`."""
  array = np.array(value)  # describes ragged lists in its error
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
  """Returns nested lists of strings and {'b64': …} as an array of bytes."""
  shape, level = [], [value]
  while level and isinstance(level[0], list):
    sizes = {len(each) if isinstance(each, list) else None for each in level}
    if len(sizes) != 1:
      raise ValueError('its lists must have the same length')
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
  """Returns the bytes of base64, as `absl::Base64Unescape` decodes it.

  White space of ASCII may be anywhere, as in the lines that `base64` writes.
  The end is padded with = (or .) to a multiple of 4, or not at all. Leftover
  bits at the end are ignored. The letters - and _ of the alphabet for file
  names are refused.

  Raises:
    ValueError: The text has another form.
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


def to_json(
  outputs: Mapping[str, np.ndarray], is_row_format: bool
) -> dict[str, object]:
  """Returns outputs as the body of a REST answer.

  Args:
    outputs: Arrays (rows, ...) of numbers by name.
    is_row_format: Whether the request was in row format.

  Returns:
    JSON object with `predictions`, a list of rows, or `outputs`; a single
    output comes without its name.
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


def check(
  inputs: Mapping[str, np.ndarray], specs: Mapping[str, tf.TensorSpec]
) -> int:
  """Checks shapes and values, and returns the number of rows.

  Args:
    inputs: Arrays by name, of the types of the signature.
    specs: Specs of the signature's inputs by name.

  Raises:
    errors.StatusError: INVALID_ARGUMENT: a shape or value is wrong.
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
      f'The inputs must have the same number of rows. Received: {counts}'
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
      f'`sample_rate` must be samples per second, in [{low}, {high}]. '
      f'Received: {rates[row]} in row {row}'
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


# Checks of the inputs that exported models have.
_CHECKS = {
  'frames': _check_frames,
  'waveform': _check_waveform,
  'sample_rate': _check_sample_rate,
  'text': _check_text,
}
