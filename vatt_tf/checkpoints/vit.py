"""Imports ViT from Hugging Face's and Google's npz files, and exports it.

An image model becomes the video tower of the modality-specific model. Its
patches become voxels, such that a video of one repeated image has the same
tokens as the image; CLS and its position become AGG.
"""

from collections.abc import Mapping
import math
import re
from typing import Any

import numpy as np
import tf_keras

from vatt_tf.checkpoints import (
  gin_sizes,
  plans,
  reports,
  vit_names,
  weight_files,
  weight_sources,
)
from vatt_tf.models import classification, patch_tower, sizes, vatt


def _pair(value):
  return tuple(value) if isinstance(value, (list, tuple)) else (value, value)


def detect(
  shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None = None
) -> vit_names.ViT:
  """Detects the kind and sizes of a ViT checkpoint.

  Args:
    shapes: Shapes of its arrays by name.
    config: Content of its `config.json`. Hugging Face's files need it, because
      the number of heads does not follow from the shapes.

  Returns:
    `ViT`.

  Raises:
    ValueError: The checkpoint is not a ViT, only a part of one, or has another
      form.
  """
  kind, prefix = vit_names.kind_and_prefix(shapes)
  parts = vit_names.PARTS[kind]
  first = prefix + parts['layer'].format(0)
  needed = {
    'kernel': prefix + parts['tokenizer/kernel'],
    'cls': prefix + parts['cls'],
    'positions': prefix + parts['positions'],
    'query': first + parts['attention/q'] + parts['kernel'],
    'wi': first + parts['feed_forward/wi'] + parts['kernel'],
  }
  ranks = {'kernel': 4, 'cls': 3, 'positions': 3, 'query': 2, 'wi': 2}
  if kind == 'npz':
    ranks['query'] = 3  # the heads are an axis
  for name, source in needed.items():
    if len(shapes.get(source, ())) != ranks[name]:
      raise ValueError(
        f'This is no ViT, or only a part of one: expected {source} of '
        f'{ranks[name]} axes. Received: {shapes.get(source, "no such array")}'
      )
  kernel = shapes[needed['kernel']]
  query = shapes[needed['query']]
  num_positions = shapes[needed['positions']][1] - 1
  if kind == 'npz':
    (*patch_size, num_channels, d_model), config = kernel, {}
    num_heads, d_ff = query[1], shapes[needed['wi']][1]
  else:
    d_model, num_channels, *patch_size = kernel
    num_heads, d_ff = vit_names.heads(config), shapes[needed['wi']][0]
  if num_channels != vit_names.NUM_CHANNELS:
    raise ValueError(
      'A ViT takes patches of pixels with 3 channels; hybrids, which take the '
      f'features of a ResNet, cannot be imported. Received: {needed["kernel"]} '
      f'of {kernel}'
    )
  image_size = config.get('image_size')
  if image_size is None:
    grid = (math.isqrt(num_positions),) * 2
  else:
    grid = tuple(n // p for n, p in zip(_pair(image_size), patch_size))
  if math.prod(grid) != num_positions:
    raise ValueError(
      'There must be a position for CLS and for each patch of an image, which '
      f'has `image_size` (config.json) or is square. Received: {num_positions} '
      f'patches, image_size={image_size}, patches of {tuple(patch_size)}'
    )
  return vit_names.ViT(
    kind=kind,
    prefix=prefix,
    num_layers=1
    + max(
      int(match[1])
      for name in shapes
      if (
        match := re.match(
          re.escape(prefix + parts['layer']).replace(r'\{\}', r'(\d+)'), name
        )
      )
    ),
    d_model=d_model,
    d_ff=d_ff,
    num_heads=num_heads,
    patch_size=tuple(patch_size),
    grid=grid,
    epsilon=config.get('layer_norm_eps'),
  )


def _gin_sizes(vit):
  return {
    'video/Size.num_layers': vit.num_layers,
    'video/Size.d_model': vit.d_model,
    'video/Size.d_ff': vit.d_ff,
    'video/Size.num_heads': vit.num_heads,
    'video/Size.d_kv': vit.d_model // vit.num_heads,
  }


def gin_config(
  found: vit_names.ViT, factorize_positions: bool = False, patch_frames: int = 4
) -> tuple[list[str], list[str]]:
  """Returns the gin files and bindings of a model with a ViT as video tower.

  Args:
    found: `ViT`, from `detect`.
    factorize_positions: Whether to use the position tables of the release.
    patch_frames: Frames per voxel.

  Returns:
    (files, bindings), two lists of strings for `gin_utils.parse`.
  """
  height, width = found.frame_size
  numbers = {
    **_gin_sizes(found),
    'video/PatchTower.patch_size': (patch_frames, *found.patch_size),
    'video/PatchTower.form': 'release' if factorize_positions else 'vit',
    'FRAME_SIZE': height if height == width else (height, width),
  }
  return ['gin/pretrain_ms_mbs.gin'], [
    'video/PatchTower.size = @video/Size()',
    *gin_sizes.bindings(numbers),
  ]


def build_image_model(found: vit_names.ViT) -> tf_keras.Model:
  """Builds a ViT alone: a video tower for videos of one frame.

  Args:
    found: `ViT`, from `detect`.

  Returns:
    A built `vatt.VATT`.
  """
  tower = patch_tower.PatchTower(
    'video',
    patch_size=(1, *found.patch_size),
    input_size=(1, *found.frame_size),
    size=sizes.Size(
      found.num_layers,
      found.d_model,
      found.d_ff,
      found.num_heads,
      found.d_model // found.num_heads,
    ),
    form='vit',
    epsilon=found.epsilon,
    drop_token_rate=0.0,
    dropout_rate=0.0,
  )
  model = vatt.VATT({'video': tower}, head=None)
  model.build()
  return model


def _get_tower(model):
  """The video tower of a model; a ValueError unless it has ViT's form."""
  tower = model.towers.get('video')
  if tower is None:
    raise ValueError(
      'ViT is a video tower, and the model has none, only '
      f'{model.modalities}. Use a gin file whose model compares video.'
    )
  if not isinstance(tower, patch_tower.PatchTower) or tower.shared_layers:
    raise ValueError(
      'ViT is the video tower of a modality-specific model, and this model is '
      'modality-agnostic: it has Dense layers before and after the encoder, '
      'which ViT does not have. Use a gin file such as '
      'gin/pretrain_ms_mbs.gin.'
    )
  config = tower.encoder.get_config()
  for name, value in vit_names.ENCODER.items():
    if config[name] != value:
      raise ValueError(
        f"The video encoder must have ViT's form, with {name}={value!r}. "
        f'Received: {name}={config[name]!r}'
      )
  return tower


def plan(
  shapes: Mapping[str, tuple[int, ...]],
  model: tf_keras.Model,
  config: Mapping[str, Any] | None = None,
  allow_partial: bool = False,
  factorize_positions: bool = False,
) -> plans.Plan:
  """Plans how a ViT checkpoint fills the video tower of a model.

  Args:
    shapes: Shapes of its arrays by name.
    model: A built `vatt.VATT`, modality-specific, or a classifier with one.
    config: Content of its `config.json`; see `detect`.
    allow_partial: Whether to continue where shapes differ.
    factorize_positions: Whether to fit a table for each axis to the table of
      positions by least squares, with a note on the residual. Otherwise the
      model must have one table, without a norm.

  Returns:
    `plans.Plan`.

  Raises:
    ValueError: The checkpoint is not a ViT, the model has no such tower, or the
      sizes differ.
  """
  vit = detect(shapes, config)
  tower = _get_tower(model)
  _check_sizes(vit, tower, allow_partial, factorize_positions)
  mapping = plans.Plan([])
  if vit.kind == 'npz':
    mapping.notes.append(
      'An npz file does not tell which GeLU and epsilon it needs. The model '
      'uses the exact GeLU, not its tanh form, and the epsilon '
      f'{tower.encoder.epsilon}: check that the code that trained it does so '
      'too.'
    )
  special = _embedding_assignments(
    vit, tower, factorize_positions, mapping.notes
  )
  variables = plans.target_variables(model)
  prefix = 'vatt/'
  for target in variables:
    part, _, name = target.removeprefix(prefix).partition('/')
    if part == 'video_embedding':
      assignment = special[name](target)
    elif part == 'video_encoder':
      assignment = _encoder_assignment(target, name, vit, variables[target])
    else:
      mapping.new[target] = 'not of the video tower'
      continue
    missing_sources = [
      name for name in assignment.sources if name not in shapes
    ]
    if missing_sources:
      mapping.missing[target] = f'the checkpoint has no {missing_sources[0]}'
    else:
      mapping.assignments.append(assignment)
  for name in shapes:
    for pattern, why in vit_names.IGNORED:
      if re.search(pattern, name):
        mapping.ignored[name] = why
  return mapping


def _encoder_assignment(target, name, vit, variable):
  source = vit.prefix + vit_names.encoder_name(name, vit.kind)
  if vit.kind == 'safetensors':
    if name.endswith('/kernel'):
      return plans.copy(target, source, 'transposed', np.transpose)
    return plans.copy(target, source)
  if not re.search(r'/attention/[qkvo]/', name):
    return plans.copy(target, source)
  # Heads are a separate axis: the first two axes of `o` and the last two of q,
  # k and v are joined.
  if name.endswith('/o/bias'):
    return plans.copy(target, source)

  def join_heads(value):
    if value.size != variable.shape.num_elements():
      return value  # does not fit, which the report shows
    return np.reshape(value, variable.shape)

  return plans.copy(target, source, 'heads joined', join_heads)


def _embedding_assignments(vit, tower, factorize_positions, notes):
  """Maps names below `video_embedding/` to functions that make assignments."""
  parts = {
    name: vit.prefix + vit_names.PARTS[vit.kind][name]
    for name in ('cls', 'positions', 'tokenizer/kernel', 'tokenizer/bias')
  }
  embedding = tower.embedding
  frames, *patch = embedding.patch_size
  table_shape = embedding.position_embedding.table_shape

  def agg(target):
    return plans.Assignment(
      target,
      (parts['cls'], parts['positions']),
      'CLS and its position',
      lambda read: read(parts['cls'])[0, 0] + read(parts['positions'])[0, 0],
    )

  def kernel(target):
    def inflate(value):
      if vit.kind == 'safetensors':
        value = value.transpose(2, 3, 1, 0)  # (height, width, channels, d)
      value = np.reshape(value, [-1, value.shape[-1]])
      return np.tile(value / np.float32(frames), [frames, 1])

    extent = 'x'.join(map(str, patch))
    how = 'kernel as a matrix'
    if frames > 1:
      how = f'kernel inflated from {extent} to {frames}x{extent}'
    return plans.copy(target, parts['tokenizer/kernel'], how, inflate)

  def full(target):
    slots = table_shape[0]
    how = 'without CLS'
    if slots > 1:
      how += f', repeated for {slots} slots of time'
    return plans.copy(
      target,
      parts['positions'],
      how,
      lambda value: np.tile(value[0, 1:], [slots, 1]),
    )

  def factorized(name):
    def make(value):
      grid = value[0, 1:].reshape(*vit.grid, -1).astype(np.float64)
      tables, residual = _factorize(grid, embedding.position_embedding)
      if name == 'temporal' and residual is not None:
        notes.append(
          f'Positions factorized: relative RMS of the residual {residual:.4f}.'
        )
      return tables[name].astype(np.float32)

    how = 'part of the positions, by least squares'
    return lambda target: plans.copy(target, parts['positions'], how, make)

  makers = {
    'agg': agg,
    'tokenizer/kernel': kernel,
    'tokenizer/bias': lambda target: plans.copy(
      target, parts['tokenizer/bias']
    ),
  }
  if not factorize_positions:
    return {**makers, 'position_embedding/full': full}
  names = {
    'temporal': 'temporal',
    'vertical': 'vertical',
    'horizontal': 'horizontal',
    'norm/gamma': 'gamma',
    'norm/beta': 'beta',
  }
  return makers | {
    f'position_embedding/{weight}': factorized(name)
    for weight, name in names.items()
  }


def _factorize(positions, layer):
  """Fits a table for each axis, so that their sums match a table of positions.

  The sums are fitted by least squares; where a norm follows, its scale and
  shift are then fitted to its output.

  Args:
    positions: (vertical, horizontal, D) float64: table of positions.
    layer: `PositionEmbedding` that the tables are for.

  Returns:
    (tables, residual): a dictionary of `temporal`, `vertical`, `horizontal`,
    and `gamma` and `beta` for a norm; and the root mean square of the residual,
    relative to the root mean square of `positions`, or None if these are all 0.
  """
  mean = positions.mean((0, 1))
  tables = {
    'temporal': np.tile(mean, [layer.table_shape[0], 1]),
    'vertical': positions.mean(1) - mean,
    'horizontal': positions.mean(0) - mean,
  }
  fitted = mean + tables['vertical'][:, None] + tables['horizontal']
  if layer.use_layer_norm:
    unit = fitted - fitted.mean(-1, keepdims=True)
    variance = np.square(unit).mean(-1, keepdims=True)
    unit /= np.sqrt(variance + layer.epsilon)
    center = unit.mean((0, 1))
    spread = np.square(unit - center).mean((0, 1))
    slope = ((unit - center) * (positions - mean)).mean((0, 1))
    slope /= np.maximum(spread, np.finfo(np.float32).tiny)
    tables['gamma'] = slope
    tables['beta'] = mean - slope * center
    fitted = unit * slope + tables['beta']
  size = np.sqrt(np.square(positions).mean())
  if size == 0:
    return tables, None
  return tables, np.sqrt(np.square(positions - fitted).mean()) / size


def _check_sizes(vit, tower, allow_partial, factorize_positions):
  """Raises ValueError, naming the first size that differs."""
  encoder, embedding = tower.encoder, tower.embedding
  positions = embedding.position_embedding
  is_exact = positions.form == 'full' and not positions.use_layer_norm
  if factorize_positions and positions.form != 'separable':
    raise ValueError(
      '`factorize_positions` is for the position tables of the release, and '
      'the model has one table of all positions, which holds them exactly. '
      "Leave it out, or set video/PatchTower.form = 'release'."
    )
  if not factorize_positions and not is_exact:
    raise ValueError(
      'The model has the position tables of the release, which cannot hold '
      "ViT's exactly. Set video/PatchTower.form = 'vit', or give "
      '`--factorize_positions` for the closest approximation.'
    )
  # With `allow_partial`, compare only values that change what arrays that fit
  # compute.
  frames, *patch = embedding.patch_size
  checkpoint_sizes = {
    **_gin_sizes(vit),
    'video/PatchTower.patch_size': (frames, *vit.patch_size),
    'FRAME_SIZE': vit.frame_size,
  }
  if vit.epsilon is not None and not factorize_positions:
    checkpoint_sizes['epsilon'] = vit.epsilon
  if allow_partial:
    for name in ('num_layers', 'd_model', 'd_ff'):
      checkpoint_sizes.pop(f'video/Size.{name}')
  model_sizes = {
    'video/Size.num_layers': encoder.num_layers,
    'video/Size.d_model': encoder.d_model,
    'video/Size.d_ff': encoder.d_ff,
    'video/Size.num_heads': encoder.num_heads,
    'video/Size.d_kv': encoder.d_kv,
    'video/PatchTower.patch_size': embedding.patch_size,
    'FRAME_SIZE': tuple(
      n * p for n, p in zip(positions.table_shape[1:], patch)
    ),
    'epsilon': encoder.epsilon,
  }
  bindings = gin_config(vit, factorize_positions, frames)[1]
  gin_sizes.check(checkpoint_sizes, model_sizes, gin_sizes.advise(bindings))


def load(
  model: tf_keras.Model,
  source: weight_sources.Source,
  allow_partial: bool = False,
  factorize_positions: bool = False,
) -> reports.Report:
  """Fills the video tower of a model from a ViT checkpoint.

  Args:
    model: A built `vatt.VATT` or a classifier. Call this in its strategy's
      scope.
    source: The opened checkpoint.
    allow_partial: Whether to import only the parts that fit.
    factorize_positions: See `plan`.

  Returns:
    `reports.Report`.

  Raises:
    ValueError: The checkpoint cannot be read, or does not fit; see `plan`.
  """
  mapping = plan(
    source.shapes, model, source.config, allow_partial, factorize_positions
  )
  return reports.apply(mapping, model, source, allow_partial)


def export(model: tf_keras.Model, directory: str) -> None:
  """Writes a video tower as `transformers.ViTModel` loads it.

  For an image, the image model computes the same as the tower does for the
  image repeated for the frames of one voxel. Kernels are summed over these
  frames; the positions of the first time slot, after the norm, become its
  table; AGG becomes CLS, whose position is 0.

  Args:
    model: A built `vatt.VATT`, modality-specific.
    directory: Folder to write `model.safetensors` and `config.json` to.

  Raises:
    ValueError: The model has no video tower that is a ViT.
  """
  tower = _get_tower(model)
  encoder, embedding = tower.encoder, tower.embedding
  if tower.post_projection is not None or isinstance(
    model, classification.Classifier
  ):
    raise ValueError(
      'ViT has nothing after its last norm, and this video tower has a Dense '
      'layer there: it cannot be exported exactly.'
    )
  if encoder.num_heads * encoder.d_kv != encoder.d_model:
    raise ValueError(
      'The heads of a ViT together are `d_model` wide: `num_heads` * `d_kv` '
      f'must be {encoder.d_model}. Received: num_heads={encoder.num_heads}, '
      f'd_kv={encoder.d_kv}'
    )
  variables = plans.target_variables(model)
  prefix = 'vatt/video_encoder/'
  parts = vit_names.PARTS['safetensors']
  arrays = {
    vit_names.encoder_name(target.removeprefix(prefix), 'safetensors'): (
      variable.numpy().T
    )
    for target, variable in variables.items()
    if target.startswith(prefix)
  }
  frames, *patch = embedding.patch_size
  kernel = embedding.tokenizer.kernel.numpy().reshape(
    [frames, *patch, vit_names.NUM_CHANNELS, encoder.d_model]
  )
  kernel = kernel.sum(0, dtype=np.float64).astype(np.float32)
  arrays[parts['tokenizer/kernel']] = kernel.transpose(3, 2, 0, 1)
  arrays[parts['tokenizer/bias']] = embedding.tokenizer.bias.numpy()
  arrays[parts['cls']] = embedding.agg.numpy()[None, None]
  grid = embedding.position_embedding.table_shape[1:]
  positions = embedding.position_embedding.positions((1, *grid)).numpy()
  arrays[parts['positions']] = np.pad(positions, [[1, 0], [0, 0]])[None]
  frame_size = [n * p for n, p in zip(grid, patch)]

  def size(pair):
    return pair[0] if pair[0] == pair[1] else list(pair)

  config = {
    'architectures': ['ViTModel'],
    'model_type': 'vit',
    'hidden_size': encoder.d_model,
    'num_hidden_layers': encoder.num_layers,
    'num_attention_heads': encoder.num_heads,
    'intermediate_size': encoder.d_ff,
    'hidden_act': 'gelu',
    'hidden_dropout_prob': encoder.dropout_rate,
    'attention_probs_dropout_prob': encoder.dropout_rate,
    'layer_norm_eps': encoder.epsilon,
    'image_size': size(frame_size),
    'patch_size': size(patch),
    'num_channels': vit_names.NUM_CHANNELS,
    'qkv_bias': True,
    'dtype': 'float32',
  }
  weight_files.write_model(directory, arrays, config)
