"""Folders with checkpoints of which files are gone, damaged or renamed."""

import functools
import os
import re
import shutil
import tempfile
import time

from hypothesis import strategies as st
import numpy as np
import tensorflow as tf

from tests import odd_names
from tests.fuzz import mutations
from vatt_tf.checkpoints import folders, manager

_MAX_SECONDS = 20
_STEPS = (2, 9, 10)
_OTHER_STEPS = (0, 9, 11, 100)
_FILE = re.compile(r'ckpt-(\d+)\.(index|data-00000-of-00001)')
_PARTS = ('index', 'data-00000-of-00001')

_NAMES = (
  *odd_names.NAMES,
  'run',
  '~',
  '~root',
  'ckpt-7',
  'ckpt-7.index',
  'a:b',
  '-x',
)
_files = st.tuples(st.sampled_from(_STEPS), st.sampled_from(_PARTS))
_damages = st.one_of(*mutations.IN_PLACE, *mutations.MOVING)
_STATES = (
  '',
  'model_checkpoint_path: "ckpt-2"\n',
  'model_checkpoint_path: "ckpt-999"\n',
  'model_checkpoint_path: "/gone/ckpt-9"\n',
  'model_checkpoint_path: "ckpt-',
  'all_model_checkpoint_paths: "ckpt-2"\n',
  '\0' * 40,
  'x',
)
_operations = st.lists(
  st.one_of(
    st.tuples(st.just('remove'), _files),
    st.tuples(st.just('damage'), _files, _damages),
    st.tuples(st.just('copy'), _files, st.sampled_from(_OTHER_STEPS)),
    st.tuples(
      st.just('copy all'),
      st.sampled_from(_STEPS),
      st.sampled_from(_OTHER_STEPS),
    ),
    st.tuples(
      st.just('rename'),
      _files,
      st.sampled_from(
        ('{}.tmp', '{} (1)', '.{}', '{}_temp', '{}.part', 'x{}', '{}~')
      ),
    ),
    st.tuples(st.just('state'), st.sampled_from(_STATES)),
    st.tuples(st.just('damage state'), _damages),
    st.tuples(st.just('remove state')),
    st.tuples(
      st.just('add'),
      st.sampled_from(
        (
          'config.gin',
          'ckpt-12_temp/part-0',
          'checkpoint.tmp1f',
          'best/x',
          'ckpt-a.index',
          'ckpt-.index',
          'ckpt-11.meta',
        )
      ),
    ),
    st.tuples(st.just('link'), _files),
  ),
  max_size=5,
)

STRATEGY = st.tuples(st.sampled_from(_NAMES), _operations)


def _checkpoint(value):
  model = tf.Module()
  model.value = tf.Variable(tf.fill([40], float(value)))
  model.step = tf.Variable(value, dtype=tf.int64)
  return tf.train.Checkpoint(model=model)


@functools.cache
def _files_of_run():
  """The files of a run with several checkpoints, by their names."""
  with tempfile.TemporaryDirectory() as folder:
    for step in _STEPS:
      folders.save(_checkpoint(step), folder, step, max_to_keep=9)
    files = {}
    for name in os.listdir(folder):
      with open(os.path.join(folder, name), 'rb') as file:
        files[name] = file.read()
    return files


def check(value: tuple) -> None:
  """Looks for a checkpoint; raises `AssertionError` if it is the wrong one."""
  name, operations = value
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as parent:
    folder = os.path.join(parent, name)
    os.mkdir(folder)
    for each, data in _files_of_run().items():
      with open(os.path.join(folder, each), 'wb') as file:
        file.write(data)
    for operation in operations:
      _apply(folder, operation)
    _check_folder(folder)
  seconds = time.monotonic() - start
  assert seconds < _MAX_SECONDS, f'It took {seconds:.1f} s.'


def _path(folder, file):
  step, part = file
  return os.path.join(folder, f'ckpt-{step}.{part}')


def _apply(folder, operation):
  kind, *values = operation
  state = os.path.join(folder, 'checkpoint')
  match kind:
    case 'remove':
      _remove(_path(folder, values[0]))
    case 'damage':
      _damage(_path(folder, values[0]), values[1])
    case 'copy' | 'copy all':
      parts = [values[0][1]] if kind == 'copy' else _PARTS
      step = values[0][0] if kind == 'copy' else values[0]
      for part in parts:
        source = _path(folder, (step, part))
        target = _path(folder, (values[1], part))
        if os.path.exists(source) and source != target:
          _remove(target)
          shutil.copyfile(source, target)
    case 'rename':
      path = _path(folder, values[0])
      if os.path.lexists(path):
        name = values[1].format(os.path.basename(path))
        os.rename(path, os.path.join(folder, name))
    case 'state':
      with open(state, 'w', encoding='utf-8') as file:
        file.write(values[0])
    case 'damage state':
      _damage(state, values[0])
    case 'remove state':
      _remove(state)
    case 'add':
      path = os.path.join(folder, values[0])
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(path, 'w', encoding='utf-8') as file:
        file.write('x')
    case 'link':
      # As tools that move large files elsewhere leave them.
      path = _path(folder, values[0])
      if os.path.exists(path) and not os.path.islink(path):
        target = f'{folder}.{os.path.basename(path)}'
        os.rename(path, target)
        os.symlink(target, path)


def _remove(path):
  if os.path.lexists(path):
    os.remove(path)


def _damage(path, operation):
  if os.path.exists(path):
    with open(path, 'rb') as file:
      data = file.read()
    other = _files_of_run()['ckpt-9.index']
    data = mutations.apply(data, other, operation)
    with open(path, 'wb') as file:
      file.write(data)


def _whole(folder):
  """From the step in its name, what each untouched checkpoint holds."""
  originals = _files_of_run()
  found = {}
  for name in os.listdir(folder):
    match = _FILE.fullmatch(name)
    if match:
      with open(os.path.join(folder, name), 'rb') as file:
        data = file.read()
      part = match[2]
      steps = {
        step for step in _STEPS if originals[f'ckpt-{step}.{part}'] == data
      }
      found.setdefault(int(match[1]), {})[part] = steps
  whole = {}
  for step, parts in found.items():
    # Indices of checkpoints of one form differ in their checksums.
    common = set.intersection(*(parts.get(part, set()) for part in _PARTS))
    if common:
      whole[step] = common
  return whole, found


def _check_folder(folder):
  whole, parts = _whole(folder)
  others = {
    prefix
    for prefix in folders.find(folder)
    if not re.fullmatch(r'ckpt-\d+', os.path.basename(prefix))
  }
  try:
    prefix = manager.latest(folder)
  except ValueError as e:
    message = str(e)
    assert folder in message, message
    assert len(message.splitlines()) == 1, message
    assert others or not whole, f'{whole} are whole, but: {message}'
    return
  if prefix is None:
    has_state = os.path.exists(os.path.join(folder, 'checkpoint'))
    assert not parts and not has_state, f'{parts} are there'
    return
  assert os.path.dirname(prefix) == folder, prefix
  step = folders.step_of(prefix)
  restored = _checkpoint(-1)
  manager.restore(restored, prefix, expect_optimizer=False)
  values = set(restored.model.value.numpy().tolist())
  number = int(restored.model.step)
  assert values == {float(number)}, values
  assert number in _STEPS, number
  if prefix not in others and not others:
    # The file `checkpoint` may name another that was written last.
    last, listed = _state(folder)
    is_listed = {f'ckpt-{each}' for each in parts} <= listed
    if step in whole:
      assert number in whole[step], f'{prefix} holds step {number}'
    newest = max(whole, default=-1)
    assert step >= newest or is_listed and f'ckpt-{step}' == last, (
      f'{prefix} is taken, and {newest} is whole'
    )
  # What TensorFlow's tools find afterwards is the same.
  folders.repair_state(folder, prefix)
  assert manager.latest(folder) == prefix
  next_step = step + 1 if step is not None else 1
  np.testing.assert_equal(
    os.path.basename(
      folders.save(_checkpoint(next_step), folder, next_step, max_to_keep=9)
    ),
    f'ckpt-{next_step}',
  )
  if not others:
    found = manager.latest(folder)
    assert folders.step_of(found) == next_step, found
  assert np.isfinite(next_step)


def _state(folder):
  """What the file `checkpoint` names last, and all that it lists."""
  try:
    with open(os.path.join(folder, 'checkpoint'), 'rb') as file:
      text = file.read().decode('utf-8', errors='replace')
  except FileNotFoundError:
    return None, set()
  names = {
    key: re.findall(
      rf'^{key}_checkpoint_paths?: "(?:.*/)?(.*)"', text, re.MULTILINE
    )
    for key in ('model', 'all_model')
  }
  last = names['model'][0] if names['model'] else None
  return last, {*names['model'], *names['all_model']}
