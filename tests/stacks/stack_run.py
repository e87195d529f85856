"""A tiny run and its exported model, written on one stack to be read on others.

    python tests/stacks/stack_run.py

writes tests/stacks/tensorflow-X.Y, for the TensorFlow that it runs on: a
checkpoint at step 2, the exported model of that step, what it answers, and the
loss of step 3.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  registers the ops of the tokenizer

if __name__ == '__main__':
  # Run by its path, the file finds the folder `tests` in the root.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tests import mains, shared_data

FOLDER = pathlib.Path(__file__).resolve().parent
_STEPS = 2
_ARGUMENTS = (
  '--gin_file=gin/pretrain_sample.gin',
  '--gin_file=gin/data/sample.gin',
  '--gin_param=BATCH_SIZE=4',
  '--gin_param=STEPS_PER_LOOP=1',
  '--gin_param=LOG_INTERVAL=1',
  f'--gin_param=CHECKPOINT_INTERVAL={_STEPS}',
  '--gin_param=WARMUP_STEPS=1',
  '--gin_param=VOCABULARY_SIZE=97',
  '--gin_param=Size.num_layers=1',
  '--gin_param=Size.d_model=16',
  '--gin_param=Size.d_ff=32',
  '--gin_param=Size.num_heads=2',
  '--gin_param=Size.d_kv=8',
  '--gin_param=share_encoder.d_post_projection=16',
  '--gin_param=ProjectionHead.d_va=16',
  '--gin_param=ProjectionHead.d_vt=16',
)


def train(model_dir: pathlib.Path, steps: int) -> dict[int, float]:
  """Trains until a step, from the checkpoint that is there.

  Args:
    model_dir: Of the run.
    steps: The last step.

  Returns:
    Step: its loss.
  """
  done = mains.run(
    'train',
    *_ARGUMENTS,
    f'--gin_param=TRAIN_STEPS={steps}',
    f'--model_dir={model_dir}',
  )
  if done.returncode:
    raise RuntimeError(done.stdout + done.stderr)
  found = re.findall(r'^step (\d+)/\d+  loss (\S+)', done.stdout, re.MULTILINE)
  return {int(step): float(loss) for step, loss in found}


def questions() -> dict[str, dict[str, tf.Tensor]]:
  """What the exported model is asked: signature, argument, value."""
  random = np.random.RandomState(0)
  frames = random.randint(0, 256, [1, 8, 48, 48, 3]).astype(np.uint8)
  sound = random.uniform(-0.5, 0.5, [1, 25600]).astype(np.float32)
  return {
    'embed_video': {'frames': tf.constant(frames)},
    'embed_audio': {
      'waveform': tf.constant(sound),
      'sample_rate': tf.constant([16000]),
    },
    'embed_text': {'text': tf.constant(['a red circle moves in a loop'])},
  }


def ask(saved_model: pathlib.Path) -> dict[str, np.ndarray]:
  """What an exported model answers.

  Args:
    saved_model: Folder of a version.

  Returns:
    `signature/output`: its value.
  """
  loaded = tf.saved_model.load(str(saved_model))
  return {
    f'{name}/{key}': value.numpy()
    for name, arguments in questions().items()
    for key, value in loaded.signatures[name](**arguments).items()
  }


def write(folder: pathlib.Path) -> None:
  """Writes the run, the model and its answers.

  Args:
    folder: For them; what it holds is removed.
  """
  shutil.rmtree(folder, ignore_errors=True)
  run = folder / 'run'
  train(run, _STEPS)
  for path in run.iterdir():  # events and what else is for people
    if not path.name.startswith(('ckpt-', 'checkpoint', 'config.gin')):
      shutil.rmtree(path) if path.is_dir() else path.unlink()
  subprocess.run(
    [
      sys.executable,
      '-m',
      'vatt_tf.export_saved_model',
      f'--checkpoint={run}',
      f'--output={folder / "saved_model"}',
    ],
    cwd=shared_data.REPOSITORY,
    check=True,
  )
  for path in (folder / 'saved_model').glob('*.config'):
    path.unlink()
  shutil.rmtree(folder / 'saved_model/1/assets.extra')  # for servers
  np.savez_compressed(folder / 'answers.npz', **ask(folder / 'saved_model/1'))
  with tempfile.TemporaryDirectory() as copy:
    copied = shutil.copytree(run, pathlib.Path(copy) / 'run')
    losses = train(copied, _STEPS + 1)
  (folder / 'loss.json').write_text(
    json.dumps({'step': _STEPS + 1, 'loss': losses[_STEPS + 1]}) + '\n'
  )


if __name__ == '__main__':
  write(FOLDER / f'tensorflow-{".".join(tf.__version__.split(".")[:2])}')
