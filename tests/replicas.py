"""One training step of a small VATT on a fixed global batch, under a strategy.

The same function runs on one device, on two logical ones and in worker
processes, and must give the same numbers. As a program it is a worker:

    TF_CONFIG=… python -m tests.replicas OUTPUT.npz
"""

import contextlib
import json
import os
import socket
import sys
import zlib

import numpy as np
import tensorflow as tf

from tests import vatt_models
from vatt_tf.core import collectives, randomness, strategies
from vatt_tf.core import feature_names as names
from vatt_tf.losses import contrastive
from vatt_tf.models import sizes

GLOBAL_BATCH = 16
_STEPS = 2


def free_ports(count):
  """Ports of this machine that nothing uses, a list of ints."""
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for each in sockets:
      each.bind(('localhost', 0))
    return [each.getsockname()[1] for each in sockets]


def tf_configs(num_workers):
  """Values of TF_CONFIG for workers on this machine, a list of strings."""
  workers = [f'localhost:{port}' for port in free_ports(num_workers)]
  return [
    json.dumps(
      {
        'cluster': {'worker': workers},
        'task': {'type': 'worker', 'index': index},
      }
    )
    for index in range(num_workers)
  ]


def global_batch():
  """Features of `GLOBAL_BATCH` clips, NumPy arrays; some lack a modality.

  The two halves hold different numbers of sounds and of captions.
  """
  random = np.random.RandomState(0)
  b = GLOBAL_BATCH
  text_mask = random.rand(b, 3) < 0.6
  text_mask[1], text_mask[5, 0] = False, True
  return {
    names.VIDEO: random.uniform(-1, 1, [b, 8, 32, 32, 3]).astype(np.float32),
    names.AUDIO: random.uniform(-1, 1, [b, 1280, 1]).astype(np.float32),
    names.TEXT: random.randint(1, 50, [b, 3, 6]).astype(np.int32),
    names.VIDEO_MASK: ~np.isin(np.arange(b), [6, 9, 14]),
    names.AUDIO_MASK: ~np.isin(np.arange(b), [0, 2, 7, 12]),
    names.TEXT_MASK: text_mask,
  }


def _build_model(kind):
  size = sizes.Size(num_layers=1, d_model=16, d_ff=32, num_heads=2, d_kv=8)
  of_encoders = {'size': size}
  if kind == 'specific':
    of_encoders = {f'{name}_size': size for name in ('video', 'audio', 'text')}
  model = vatt_models.build_vatt(
    **of_encoders,
    num_frames=8,
    frame_size=32,
    num_audio_samples=1280,
    max_words=6,
    vocabulary_size=50,
    d_embedding=12,
    d_post_projection=16,
    d_va=16,
    d_vt=8,
    drop_token_rate=0.5,
    dropout_rate=0.1,
  )
  for index, variable in enumerate(model.trainable_variables):
    # The same on every worker, and away from symmetric points.
    random = np.random.RandomState(zlib.crc32(variable.name.encode()) + index)
    noise = 0.1 * random.randn(*variable.shape)
    variable.assign(variable * 0 + noise + (len(variable.shape) < 2))
  return model


def run(strategy, kind='agnostic', denominator='joint', chunk_size=None):
  """Runs training steps and reports what they computed.

  Args:
    strategy: a `tf.distribute.Strategy`.
    kind: `agnostic` or `specific`, the model.
    denominator: see `losses`.
    chunk_size: see `losses`.

  Returns:
    A dict of NumPy arrays of the last step: the losses, accuracies, the
    gradients of all weights, and the batch-norm statistics, as this process's
    first replica has them. Keys that begin with `spread/` hold how far the
    last replica of this process is from its first.
  """
  num_replicas = strategy.num_replicas_in_sync
  rows = strategies.check_batch_divisible(GLOBAL_BATCH, strategy)
  features = {}
  for key, array in global_batch().items():
    parts = np.split(array, num_replicas)
    features[key] = strategy.experimental_distribute_values_from_function(
      lambda context, parts=parts: tf.constant(
        parts[context.replica_id_in_sync_group]
      )
    )
  with strategy.scope():
    model = _build_model(kind)

  def replica_step(features, step):
    rng = randomness.make(7, step, collectives.first_row(rows))
    with tf.GradientTape() as tape:
      outputs = model(features, training=True, rng=rng)
      options = {'denominator': denominator, 'chunk_size': chunk_size}
      sound = contrastive.contrastive_loss(
        outputs[names.VIDEO_VA],
        outputs[names.AUDIO_VA],
        features[names.VIDEO_MASK],
        features[names.AUDIO_MASK],
        **options,
      )
      text = contrastive.contrastive_loss(
        outputs[names.VIDEO_VT],
        outputs[names.TEXT_VT],
        features[names.VIDEO_MASK],
        features[names.TEXT_MASK],
        **options,
      )
      loss = sound.loss + text.loss
    gradients = tape.gradient(loss, model.trainable_variables)
    return collectives.all_reduce_sum(
      {
        'nce': sound._asdict(),
        'mil_nce': text._asdict(),
        'gradient': {
          f'{index:03d} {variable.name}': tf.convert_to_tensor(gradient)
          for index, (variable, gradient) in enumerate(
            zip(model.trainable_variables, gradients)
          )
        },
      }
    )

  @tf.function(autograph=False)
  def step_fn(features, step):
    return strategy.run(replica_step, args=(features, step))

  for step in range(_STEPS):
    results = step_fn(features, tf.constant(step))
  results['statistics'] = {
    f'{index:03d} {variable.name}': variable
    for index, variable in enumerate(model.non_trainable_variables)
    if 'moving' in variable.name
  }
  found = {}
  for group, values in results.items():
    for name, value in values.items():
      local = [x.numpy() for x in strategy.experimental_local_results(value)]
      found[f'{group}/{name}'] = local[0]
      found[f'spread/{group}/{name}'] = np.max(np.abs(local[-1] - local[0]))
  return found


def differences(found, expected, tolerance=1e-5):
  """Where two results of `run` differ.

  Args:
    found: what `run` returned, its replicas compared with each other too.
    expected: what `run` returned for one device.
    tolerance: float, relative to the size of each array.

  Returns:
    A list of strings that name the arrays.
  """
  lines = []
  if found.keys() != expected.keys():
    lines.append(f'different names: {found.keys() ^ expected.keys()}')
  for name in found.keys() & expected.keys():
    if name.startswith('spread/'):
      error, limit = found[name], 0
    elif name.endswith('/k/bias:0'):
      # Softmax does not change with it: the gradient is 0 but for rounding.
      error, limit = np.max(np.abs([found[name], expected[name]])), 1e-6
    else:
      error = np.max(np.abs(found[name] - expected[name]))
      limit = tolerance * np.max(np.abs(expected[name]))
    if not error <= limit:
      lines.append(f'{name}: off by {error}, allowed {limit}')
  return lines


def main(argv):
  """Runs as one worker and writes what it found."""
  strategy = strategies.make_strategy('multi_worker_mirrored')
  found = run(strategy)
  path = argv[1]
  np.savez(f'{path}.tmp.npz', **found)
  os.replace(f'{path}.tmp.npz', path)


if __name__ == '__main__':
  main(sys.argv)
