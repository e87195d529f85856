"""A process that serves a SavedModel with nothing but TensorFlow."""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

# Loads a model as a stock server does: with nothing of vatt_tf, and answers
# what stands in a file of arrays. Prints the operations that it holds.
_STOCK = """
import json, os, sys
import numpy as np
import tensorflow as tf
import tensorflow_text
path, requests, answers = sys.argv[1:]
loaded = tf.saved_model.load(path)
found = {}
for key, value in np.load(requests).items():
  name, argument = key.split('/')
  found.setdefault(name, {})[argument] = tf.constant(value)
results = {}
for name, arguments in found.items():
  for key, value in loaded.signatures[name](**arguments).items():
    results[f'{name}/{key}'] = value.numpy()
np.savez(answers, **results)
assert not [name for name in sys.modules if name.startswith('vatt_tf')]
from tensorflow.core.protobuf import saved_model_pb2
saved = saved_model_pb2.SavedModel()
with open(os.path.join(path, 'saved_model.pb'), 'rb') as file:
  saved.ParseFromString(file.read())
graph = saved.meta_graphs[0].graph_def
nodes = [*graph.node]
for function in graph.library.function:
  nodes += function.node_def
functions = {each.signature.name for each in graph.library.function}
from tensorflow.python.framework import op_def_registry
ops = {node.op for node in nodes} - functions
print(json.dumps({op: op_def_registry.get(op) is not None for op in ops}))
"""


def ask(path, requests):
  """Asks a process that knows nothing of vatt_tf.

  Args:
    path: Path of the SavedModel.
    requests: Arrays by `SIGNATURE/INPUT`.

  Returns:
    Arrays by `SIGNATURE/OUTPUT`; and for each operation of the graph whether
    plain TensorFlow has it.

  Raises:
    AssertionError: The process failed.
  """
  with tempfile.TemporaryDirectory() as folder:
    files = [os.path.join(folder, f'{name}.npz') for name in ('in', 'out')]
    np.savez(files[0], **requests)
    done = subprocess.run(
      [sys.executable, '-c', _STOCK, os.path.abspath(path), *files],
      capture_output=True,
      text=True,
      check=False,
      cwd=folder,
      env={**os.environ, 'PYTHONPATH': ''},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(np.load(files[1])), json.loads(done.stdout)
