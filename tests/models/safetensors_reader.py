"""Reads safetensors files into NumPy arrays."""

import json

import numpy as np

_DTYPES = {'F32': np.float32, 'F16': np.float16, 'I64': np.int64}


def read(path):
  """Returns a dictionary from tensor name to array."""
  with open(path, 'rb') as f:
    header = json.loads(f.read(int.from_bytes(f.read(8), 'little')))
    data = f.read()
  header.pop('__metadata__', None)
  return {
    name: np.frombuffer(
      data[entry['data_offsets'][0] : entry['data_offsets'][1]],
      _DTYPES[entry['dtype']],
    ).reshape(entry['shape'])
    for name, entry in header.items()
  }
