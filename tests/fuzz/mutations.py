"""Changes of bytes that hypothesis draws, and can take back one by one."""

from hypothesis import strategies as st

# What damaged fields hold.
_NUMBERS = (
  bytes(4),
  b'\xff' * 4,
  b'\x7f' + b'\xff' * 3,
  b'\xff' * 3 + b'\x7f',
  b'\x80' + bytes(3),
  b'\0\0\0\1',
  b'\1\0\0\0',
)

_place = st.floats(0, 1)
_share = st.floats(0, 0.3)

IN_PLACE = (
  st.tuples(st.just('flip'), st.lists(_place, min_size=1, max_size=20)),
  st.tuples(st.just('zero'), _place, _share),
  st.tuples(st.just('number'), _place, st.sampled_from(_NUMBERS)),
  st.tuples(st.just('head'), st.integers(0, 600), st.sampled_from(_NUMBERS)),
  st.tuples(st.just('cut'), _place),
)
MOVING = (
  st.tuples(st.just('delete'), _place, _share),
  st.tuples(st.just('repeat'), _place, _share),
  st.tuples(st.just('swap'), _place, _place, _share),
  st.tuples(st.just('insert'), _place, _place, _share),
  st.tuples(st.just('join')),
  st.tuples(st.just('splice'), _place, _place),
)


def apply(data: bytes, other: bytes, operation: tuple) -> bytes:
  """Changes a file.

  Args:
    data: The file.
    other: Another file, of which parts are taken.
    operation: One of `IN_PLACE` and `MOVING`.
  """
  name, *values = operation
  size = len(data)

  def at(share, length=None):
    return int(share * (size if length is None else length))

  match name:
    case 'flip':
      changed = bytearray(data)
      for place in values[0]:
        if size:
          changed[min(at(place), size - 1)] ^= 1 << int(place * 1e6) % 8
      return bytes(changed)
    case 'zero':
      start, length = at(values[0]), at(values[1])
      end = min(start + length, size)
      return data[:start] + bytes(end - start) + data[end:]
    case 'number':
      start = at(values[0])
      return (data[:start] + values[1] + data[start + 4 :])[:size]
    case 'head':
      start = min(values[0], size)
      return (data[:start] + values[1] + data[start + 4 :])[:size]
    case 'cut':
      return data[: at(values[0])]
    case 'delete':
      start = at(values[0])
      return data[:start] + data[start + at(values[1]) :]
    case 'repeat':
      start = at(values[0])
      part = data[start : start + at(values[1])]
      return data[:start] + part + data[start:]
    case 'swap':
      first, second = sorted(map(at, values[:2]))
      length = min(at(values[2]), second - first)
      return (
        data[:first]
        + data[second : second + length]
        + data[first + length : second]
        + data[first : first + length]
        + data[second + length :]
      )
    case 'insert':
      start, begin = at(values[0]), at(values[1], len(other))
      part = other[begin : begin + at(values[2], len(other))]
      return data[:start] + part + data[start:]
    case 'join':
      return data + other
    case 'splice':
      return data[: at(values[0])] + other[at(values[1], len(other)) :]
  raise ValueError(f'Unknown operation: {name}')
