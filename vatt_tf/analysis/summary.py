"""The summary of a model: the cost of each part, as a dictionary and a table.

The towers and the head give their FLOPs and the memory of their activations
(see `models.tower`). The memory of a training step peaks when the backward pass
begins. It then holds the weights, their gradients and Adam's two moments in
float32, the inputs of the batch, the kept activations of the forward pass, and
the workspace of the layer whose gradient is computed. The memory of TensorFlow
itself, of the input pipeline, and what an allocator cannot reuse are not
included. All numbers are for one device that holds the whole batch.
"""

from collections.abc import Mapping
import math
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities

_FLOAT_BYTES = 4  # bytes of a float32
_GIGA = 1e9
# Space between two columns of the table.
_GAP = '  '


def summarize(
  model: tf_keras.Model,
  features: Mapping[str, tf.Tensor],
  batch_size: int,
  micro_batch_size: int | None = None,
  flops_per_second: float | None = None,
) -> dict[str, Any]:
  """Summarises the costs of a model.

  Args:
    model: Built `models.vatt.VATT` or `models.classification.Classifier`. Its
      variables need no values, so that it may be built in a `tf.Graph` that
      never runs.
    features: Objects with the shapes of the inputs without the batch axis by
      name, such as `input_pipeline.plan.row_spec` returns them: `video`
      (T, H, W, 3), `audio` (S, 1) or `spectrogram` (F, M), `text` (C, L). Other
      entries do not matter.
    batch_size: Clips per training step.
    micro_batch_size: Clips that the towers take at a time with gradient
      caching, which computes their forward pass twice. None means all at once.
    flops_per_second: FLOPs per second of the machine, or None.

  Returns:
    Dictionary of numbers, strings, lists and dictionaries, ready for JSON.
    FLOPs are for one clip with all its captions, except under `step`; memory is
    in bytes.

  Raises:
    ValueError: An input is missing or does not fit, or a number is not
      positive.
  """
  for name, value in (
    ('batch_size', batch_size),
    ('micro_batch_size', micro_batch_size),
    ('flops_per_second', flops_per_second),
  ):
    if value is not None and not value > 0:
      raise ValueError(f'`{name}` must be positive. Received: {name}={value}')
  towers, inputs, activations = {}, 0, []
  for modality, tower in model.towers.items():
    shape = _input_shape(model, features, tower)
    is_text = modality == modalities.TEXT
    # A clip has several captions, which are rows of the text tower.
    num_rows, row = (shape[0], shape[1:]) if is_text else (1, shape)
    towers[modality] = _tower(tower, shape, row, num_rows)
    inputs += _FLOAT_BYTES * batch_size * math.prod(shape)
    num_held_rows = num_rows * (micro_batch_size or batch_size)
    activations.append(tower.activation_bytes(row, num_held_rows))
  is_estimated = None not in activations
  # The backward pass runs through one tower after the other.
  kept_bytes = sum(part.kept for part in activations if part)
  workspace = max((part.workspace for part in activations if part), default=0)
  state = _state_bytes(model)
  shared = sum(layer.count_params() for layer in model.shared_layers)
  heads = _heads(model, towers)
  parameters = model.count_params()
  named = sum(part['parameters'] for part in towers.values())
  parts = [*towers.values(), heads]
  clip = sum(part['step_flops'] for part in parts)
  if micro_batch_size is not None:
    clip += sum(part['training_flops'] for part in towers.values())
  step = {
    'batch_size': batch_size,
    'micro_batch_size': micro_batch_size,
    'flops': batch_size * clip,
  }
  if flops_per_second is not None:
    step['flops_per_second'] = flops_per_second
    step['seconds'] = step['flops'] / flops_per_second
  return {
    'kind': (
      'modality-agnostic' if model.shared_layers else 'modality-specific'
    ),
    'precision': model.dtype_policy.name,
    'towers': towers,
    'shared_encoder': {'parameters': shared},
    'heads': heads,
    'other': {'parameters': parameters - named - shared - heads['parameters']},
    'total': {
      'parameters': parameters,
      **{
        key: sum(part[key] for part in parts)
        for key in ('flops', 'training_flops', 'step_flops')
      },
      **{
        key: sum(part[key] for part in towers.values())
        for key in ('paper_flops', 'paper_training_flops')
      },
    },
    'step': step,
    'memory': {
      'weights_gradients_and_moments': state,
      'inputs': inputs,
      'kept_activations': kept_bytes,
      'workspace': workspace,
      'peak_activations': kept_bytes + workspace,
      # False if a tower does not estimate its activations; they are left out.
      'is_estimated': is_estimated,
      'total': state + inputs + kept_bytes + workspace,
    },
  }


def _state_bytes(model):
  """The bytes of the weights, their gradients and Adam's moments."""
  trained = sum(math.prod(v.shape) for v in model.trainable_variables)
  fixed = sum(math.prod(v.shape) for v in model.non_trainable_variables)
  return _FLOAT_BYTES * (4 * trained + fixed)


def _input_shape(model, features, tower):
  """The shape of a tower's input, a list without the batch axis."""
  name = tower.input_name
  if name not in features:
    raise ValueError(
      f'`features` must have the input {name!r} of the model, whose modalities '
      f'are {model.modalities}. Received: {sorted(features)}'
    )
  return list(features[name].shape)


def _tower(tower, shape, row, num_rows):
  """The costs of one tower."""

  def for_all_rows(parts):
    return {part: num_rows * count for part, count in parts.items()}

  shared = sum(layer.count_params() for layer in tower.shared_layers)
  computed = for_all_rows(tower.flops(row))
  training = for_all_rows(tower.flops(row, training=True))
  step = for_all_rows(tower.step_flops(row))
  return {
    'input': shape,
    'parameters': tower.count_params() - shared,
    'num_rows': num_rows,
    'tokens': tower.num_tokens(row),
    'training_tokens': tower.num_tokens(row, training=True),
    'flops': sum(computed.values()),
    'training_flops': sum(training.values()),
    'step_flops': sum(step.values()),
    'flops_of_parts': computed,
    'training_flops_of_parts': training,
    'step_flops_of_parts': step,
    # The paper counts one caption per clip.
    'paper_flops': tower.paper_flops(row),
    'paper_training_flops': tower.paper_flops(row, training=True),
  }


def _heads(model, towers):
  """The costs of the projections into the common spaces."""
  if model.head is None:
    return {'parameters': 0, 'flops': 0, 'training_flops': 0, 'step_flops': 0}
  forward = sum(
    tower['num_rows'] * model.head.flops(modality)
    for modality, tower in towers.items()
  )
  parameters, training = model.head.count_params(), forward
  token_head = getattr(model, 'video_token_head', None)
  if token_head is not None:
    # In training alone it maps all places, also those that are dropped.
    parameters += token_head.count_params()
    shape = tuple(towers['video']['input'])
    training += model.video_tower.token_flops(shape)
    places = math.prod(model.video_tower.token_grid(shape))
    training += 2 * places * math.prod(token_head.kernel.shape)
  return {
    'parameters': parameters,
    'flops': forward,
    'training_flops': training,
    'step_flops': 3 * training,
  }


def format_table(summary: Mapping[str, Any]) -> str:
  """Returns a summary as a table for people.

  Args:
    summary: Summary that `summarize` returned.

  Returns:
    A string of several lines.
  """
  rows = [
    ['', '', 'inference', '', '', 'training', '', '', ''],
    [
      'part',
      'parameters',
      'tokens',
      'GFLOPs',
      'paper',
      'tokens',
      'forward',
      'paper',
      'step',
    ],
  ]
  for modality, tower in summary['towers'].items():
    times = f'{tower["num_rows"]} x ' if tower['num_rows'] > 1 else ''
    tokens, training_tokens = (
      '' if tower[key] is None else f'{times}{tower[key]:,}'
      for key in ('tokens', 'training_tokens')
    )
    rows.append(
      [
        modality,
        f'{tower["parameters"]:,}',
        tokens,
        _giga(tower['flops']),
        _giga(tower['paper_flops']),
        training_tokens,
        _giga(tower['training_flops']),
        _giga(tower['paper_training_flops']),
        _giga(tower['step_flops']),
      ]
    )
  for name, key in (('shared encoder', 'shared_encoder'), ('other', 'other')):
    if summary[key]['parameters']:
      rows.append([name, f'{summary[key]["parameters"]:,}'] + [''] * 7)
  for name in ('heads', 'total'):
    part = summary[name]
    paper = [
      _giga(part[key]) if key in part else ''
      for key in ('paper_flops', 'paper_training_flops')
    ]
    rows.append(
      [
        name,
        f'{part["parameters"]:,}',
        '',
        _giga(part['flops']),
        paper[0],
        '',
        _giga(part['training_flops']),
        paper[1],
        _giga(part['step_flops']),
      ]
    )
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  lines = [
    _GAP.join(
      cell.rjust(width) if i else cell.ljust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    ).rstrip()
    for row in rows
  ]
  step, used = summary['step'], summary['memory']
  batch = f'a step of {step["batch_size"]:,} clips'
  if step['micro_batch_size'] is not None:
    batch += f' in micro-batches of {step["micro_batch_size"]:,}'
  shapes = ', '.join(
    f'{modality} {" x ".join(str(size) for size in tower["input"])}'
    for modality, tower in summary['towers'].items()
  )
  lines = [
    f'{summary["kind"]}, {summary["precision"]}; a clip is {shapes}.',
    'GFLOPs of a clip; paper: as the paper counts them.',
    '',
    *lines,
    '',
    f'{batch}: {_count(step["flops"])}FLOPs',
  ]
  if 'seconds' in step:
    lines.append(
      f'at {_count(step["flops_per_second"])}FLOP/s: {step["seconds"]:,.3g} s'
    )
  lines += [
    '',
    f'memory of {batch} on one device, estimated',
    *(
      f'  {name:<40}{_memory(used[key]):>12}'
      for name, key in (
        (
          'weights, gradients, moments of Adam',
          'weights_gradients_and_moments',
        ),
        ('inputs', 'inputs'),
        ('activations kept for the backward pass', 'kept_activations'),
        ('workspace of a layer', 'workspace'),
        ('total', 'total'),
      )
    ),
    f'  (peak of the activations: {_memory(used["peak_activations"])})',
  ]
  if not used['is_estimated']:
    lines.append(
      '  (without the activations of a tower that does not estimate them)'
    )
  return '\n'.join(lines)


def _giga(count):
  """The text of FLOPs in units of 10^9."""
  value = count / _GIGA
  return f'{value:,.1f}' if value >= 10 else f'{value:.3f}'


def _count(number):
  """A number with a prefix, such as `5.66 T`."""
  for prefix, unit in (('P', 1e15), ('T', 1e12)):
    if number >= unit:
      return f'{number / unit:,.2f} {prefix}'
  return f'{number / _GIGA:,.2f} G'


def _memory(size):
  """The text of a number of bytes for people."""
  if size >= 2**30:
    return f'{size / 2**30:,.2f} GiB'
  return f'{size / 2**20:,.1f} MiB'
