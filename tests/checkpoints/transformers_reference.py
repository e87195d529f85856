"""What Hugging Face's own classes compute, where they are installed.

transformers and torch are no requirement of the tests. They may be installed
beside everything else, or in an environment of their own, whose Python the
environment variable VATT_TF_TRANSFORMERS_PYTHON names.
"""

import os
import subprocess
import sys
import unittest

import numpy as np

_NOT_INSTALLED = 77
_SCRIPT = f"""
import sys
try:
  import torch
  import transformers
except ImportError as e:
  print(e)
  sys.exit({_NOT_INSTALLED})
import numpy as np

kind, directory, path = sys.argv[1:]
options = {{'add_pooling_layer': False}} if kind == 'ViTModel' else {{}}
model, loading = getattr(transformers, kind).from_pretrained(
  directory, output_loading_info=True, **options
)
model.eval()
lost = {{key: value for key, value in loading.items() if value}}
inputs = {{key: torch.from_numpy(x) for key, x in np.load(path).items()}}
with torch.no_grad():
  states = model(**inputs).last_hidden_state
np.savez(path, states=states.numpy(), lost=str(lost))
print(transformers.__version__, torch.__version__, states.shape)
"""


def last_hidden_state(kind, directory, **inputs):
  """Runs a model that was written for Hugging Face.

  Args:
    kind: `T5EncoderModel` or `ViTModel`.
    directory: with `model.safetensors` and `config.json`.
    **inputs: arrays, as the model takes them.

  Returns:
    (array, string): the last hidden state, and what the class said of weights
    that are missing or too many, `{}` where nothing was.

  Raises:
    unittest.SkipTest: transformers or torch is not installed.
  """
  python = os.environ.get('VATT_TF_TRANSFORMERS_PYTHON', sys.executable)
  path = os.path.join(directory, 'io.npz')
  np.savez(path, **inputs)
  done = subprocess.run(
    [python, '-c', _SCRIPT, kind, directory, path],
    capture_output=True,
    text=True,
    env={**os.environ, 'HF_HUB_OFFLINE': '1'},
  )
  if done.returncode == _NOT_INSTALLED:
    raise unittest.SkipTest(
      f'transformers with torch is not installed ({done.stdout.strip()}). '
      'Set VATT_TF_TRANSFORMERS_PYTHON to a Python that has them.'
    )
  if done.returncode:
    raise RuntimeError(done.stdout + done.stderr)
  found = np.load(path)
  return found['states'], str(found['lost'])
