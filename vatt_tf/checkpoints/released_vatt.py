"""Imports the checkpoints that the authors of VATT released.

Pre-trained checkpoints are modality-agnostic (`ut_fac`) or modality-specific
(`tx_fac`), with the heads of the fine-and-coarse common space. Fine-tuned ones
have one tower of either, and a linear map to classes. All are TensorFlow object
checkpoints, whose kind and sizes follow from the names and shapes of their
variables.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

import numpy as np
import tf_keras

from vatt_tf.checkpoints import (
  gin_sizes,
  plans,
  released_names,
  reports,
  weight_sources,
)
from vatt_tf.models import single_tower, transformer_tower

# Width of an attention head in all released models, which does not follow from
# the shapes of the variables.
D_KV = 64

_HEAD_SIZES = ('num_heads', 'd_kv')

# (num_layers, d_model, d_ff) of Small, Base, Medium and Large. For models of
# other sizes, the gin files state the heads.
_RELEASED_SIZES = (
  (6, 512, 2048),
  (12, 768, 3072),
  (12, 1024, 4096),
  (24, 1024, 4096),
)

# Macros of the gin files for the parts of a size, so that inputs are as large
# as the tables, unless the user sets the macros.
_MACROS = {
  'video/PatchTower.input_size': (('NUM_FRAMES',), ('FRAME_SIZE',)),
  'audio/PatchTower.input_size': (('NUM_AUDIO_SAMPLES',),),
  'TextTower.max_words': (('MAX_WORDS',),),
  'TextTower.vocabulary_size': (('VOCABULARY_SIZE',),),
}

# Bindings that audio recipes add to gin/runs/finetune.gin, which is for video.
_AUDIO_CLASSIFIER = (
  "MODALITY = 'audio'",
  'VIDEO_INPUT = None',
  'AUDIO_INPUT = @AudioConfig()',
  'NUM_TEST_CROPS = 1',
  'train/LabelConfig.is_multi_label = True',
)

_CLASSIFIER_MACROS = {
  'video/PatchTower.input_size': (
    ('TABLE_FRAMES', 'NUM_FRAMES'),
    ('TABLE_FRAME_SIZE', 'FRAME_SIZE'),
  ),
  'audio/PatchTower.input_size': (
    ('TABLE_AUDIO_SAMPLES', 'NUM_AUDIO_SAMPLES'),
  ),
}


@dataclasses.dataclass(frozen=True)
class Released:
  """Kind and sizes of a released checkpoint.

  Attributes:
    kind: `ut_fac`, `tx_fac`, or `classifier`.
    modalities: Modalities whose towers it has.
    is_agnostic: Whether the modalities share an encoder.
    sizes: Values by gin parameter, such as `ProjectionHead.d_va`. The key
      `num_heads * d_kv` holds the product of both.
  """

  kind: str
  modalities: tuple[str, ...]
  is_agnostic: bool
  sizes: dict

  @property
  def family(self) -> str:
    """`agnostic` or `specific`."""
    return 'agnostic' if self.is_agnostic else 'specific'

  def __str__(self):
    title = f'pre-trained, modality-{self.family}'
    if self.kind == 'classifier':
      title = f'fine-tuned on {self.modalities[0]}, modality-{self.family}'
    sizes = ', '.join(
      f'{name} = {"unknown" if size is None else size}'
      for name, size in self.sizes.items()
    )
    return f'Released VATT, {title}: {sizes}'


def _sizes(shapes, kind, modalities):
  """The sizes that follow from the shapes of variables.

  Args:
    shapes: Shapes by short name.
    kind: See `Released.kind`.
    modalities: Modalities of the towers.

  Returns:
    Values by gin parameter; None where a variable is missing, or the size does
    not follow from it.
  """
  sizes = {}

  def axis(name, i):
    shape = shapes.get(name, ())
    return shape[i] if len(shape) > i else None

  def encoder(scope, root, attention):
    numbers = [
      int(match[1])
      for name in shapes
      if (match := re.match(rf'{re.escape(root)}layers/(\d+)/', name))
    ]
    sizes[f'{scope}.num_layers'] = max(numbers) + 1 if numbers else None
    layer = f'{root}layers/0/'
    kernel = f'{layer}feed_forward/mlp/wi/kernel'
    sizes[f'{scope}.d_model'] = axis(kernel, 0)
    sizes[f'{scope}.d_ff'] = axis(kernel, 1)
    width = axis(f'{layer}{attention}/q/kernel', 1)
    # T5's bias has a column for each head.
    bias = f'{layer}{attention}/relative_attention_bias/embeddings'
    num_heads = axis(bias, 1)
    if num_heads is None and width is not None and width % D_KV == 0:
      num_heads = width // D_KV
    sizes[f'{scope}.num_heads'] = num_heads
    sizes[f'{scope}.d_kv'] = width // num_heads if width and num_heads else None

  is_specific = kind == 'tx_fac'
  for modality in modalities:
    roots = released_names.tower_roots(kind, modality)
    scope = f'{modality}/Size' if is_specific else 'Size'
    if is_specific or modality == modalities[0]:
      attention = 'mha'
      if kind == 'tx_fac' and modality == 'text':
        attention = 'self_attention/attention'
      encoder(scope, roots['encoder'], attention)
      if attention != 'mha':
        sizes['TextTower.num_relative_buckets'] = axis(
          f'{roots["encoder"]}layers/0/{attention}/relative_attention_bias/'
          'embeddings',
          0,
        )
    tokenizer = roots['tokenizer'] + 'kernel'
    positions, table = roots.get('position_embedding'), {}
    if positions is not None:
      table = {
        name: axis(f'{positions}{name}_position_embeddings/embeddings', 0)
        for name in ('temporal', 'vertical', 'horizontal')
      }
    if modality == 'text':
      rows = roots['tokenizer'] + 'embeddings'
      sizes['TextTower.vocabulary_size'] = axis(rows, 0)
      sizes['TextTower.d_embedding'] = axis(rows, 1)
      if kind == 'ut_fac':
        sizes['TextTower.max_words'] = table['temporal']
      continue
    patch = shapes.get(tokenizer, ())[:-2]
    rows = (table['temporal'],)
    if modality == 'video':
      rows = (table['temporal'], table['vertical'], table['horizontal'])
    input_size = None
    if len(patch) == len(rows) and None not in rows:
      input_size = tuple(size * number for size, number in zip(patch, rows))
    sizes[f'{modality}/PatchTower.patch_size'] = tuple(patch) or None
    sizes[f'{modality}/PatchTower.input_size'] = input_size
  if released_names.is_agnostic(shapes, kind, modalities[0]):
    sizes['share_encoder.d_post_projection'] = axis(
      released_names.tower_roots(kind, modalities[0])['post_projection']
      + 'kernel',
      1,
    )
  if kind == 'classifier':
    sizes['Classifier.num_classes'] = axis(f'{released_names.CLASSES}kernel', 1)
  elif len(modalities) > 1:
    sizes['ProjectionHead.d_va'] = axis(
      f'{released_names.HEAD}{released_names.HEADS["audio_to_va"]}/bias', 0
    )
    sizes['ProjectionHead.d_vt'] = axis(
      f'{released_names.HEAD}{released_names.HEADS["text_to_vt"]}/bias', 0
    )
  return sizes


def detect(
  shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None = None
) -> Released:
  """Detects the kind and sizes of a released checkpoint.

  Args:
    shapes: Shapes of all its variables by name.
    config: Content of `config.json`, which the release does not have.

  Returns:
    `Released`.

  Raises:
    ValueError: The checkpoint is not a released one, or only a part of one.
  """
  del config
  if not released_names.is_released(shapes):
    raise ValueError(
      'This is not a checkpoint of the released VATT: expected variables such '
      'as …/unified_transformer/…, …/vid_backbone/… or …/voxel_to_patch/…. '
      f'Received {len(shapes)} variables: {", ".join(list(shapes)[:4])}, …'
    )
  short, _ = released_names.short_names(shapes)
  kind = released_names.kind_of(short)
  modalities = tuple(released_names.MODALITIES)
  if kind == 'classifier':
    is_video = 'voxel_to_patch/kernel' in short
    modalities = ('video',) if is_video else ('audio',)
  sizes = _sizes(
    {name: shapes[full] for name, full in short.items()}, kind, modalities
  )
  missing_sizes = [
    name
    for name, size in sizes.items()
    if size is None and not name.endswith(('.num_heads', '.d_kv'))
  ]
  if missing_sizes:
    raise ValueError(
      'This is only a part of a released checkpoint: it lacks the variables '
      f'with the sizes {", ".join(missing_sizes)}. Copy the whole file again.'
    )
  is_agnostic = released_names.is_agnostic(short, kind, modalities[0])
  return Released(kind, modalities, is_agnostic, sizes)


def gin_config(
  released: Released, given: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
  """Returns the gin files and bindings that build the model of a checkpoint.

  Args:
    released: `Released`, from `detect`.
    given: Gin parameters that the user binds, such as `Size.num_heads`, which
      need not follow from the checkpoint: names, or a dictionary with their
      values. Heads that are given override the assumption of 64 wide heads.

  Returns:
    (files, bindings), two lists of strings for `gin_utils.parse`.

  Raises:
    ValueError: The number of heads is neither given nor known from the
      checkpoint.
  """
  values = given if isinstance(given, dict) else {}
  sizes = {
    name: size
    for name, size in _bind_heads(released.sizes, values).items()
    if size is not None or name not in given
  }
  unknown = [name for name, size in sizes.items() if size is None]
  if unknown:
    raise ValueError(
      f'The checkpoint does not tell {", ".join(unknown)}: the width of its '
      f'attention is not a multiple of {D_KV}, as in all released models. Bind '
      f'them, such as --gin_param={unknown[0]}=4, or in a `gin_file`.'
    )
  macros = _CLASSIFIER_MACROS if released.kind == 'classifier' else _MACROS
  for name, parts in macros.items():
    size = sizes.pop(name, None)
    if size is not None:
      if name == 'video/PatchTower.input_size':
        frames, *frame_size = size
        is_square = len(set(frame_size)) == 1
        size = (frames, frame_size[0] if is_square else tuple(frame_size))
      else:
        size = (size[0] if isinstance(size, tuple) else size,)
      for macro_names, value in zip(parts, size):
        sizes.update(dict.fromkeys(macro_names, value))
  bindings = []
  if released.kind == 'classifier':
    (modality,) = released.modalities
    files = ['gin/runs/finetune.gin']
    # Sounds were fine-tuned on AudioSet, whose clips have several classes.
    is_multi_label = modality == 'audio'
    sizes['IS_MULTI_LABEL'] = is_multi_label
    sizes['BEST_METRIC'] = 'mAP' if is_multi_label else 'top_1'
    # Macros that no file defines: the classes, and the user's own records.
    num_classes = sizes.pop('Classifier.num_classes')
    for macro, value in (
      ('NUM_CLASSES', num_classes),
      ('TRAIN_RECORDS', ''),
      ('EVAL_RECORDS', ''),
    ):
      sizes[f'{macro}/macro.value'] = value
    tower = f'@{modality}/PatchTower'
    if released.is_agnostic:
      bindings = [
        'TOWERS/macro.value = @share_encoder()',
        f'share_encoder.towers = {{{modality!r}: {tower}}}',
      ]
    else:
      bindings = [f'TOWERS/macro.value = {{{modality!r}: {tower}()}}']
    if modality == 'audio':
      bindings += _AUDIO_CLASSIFIER
  else:
    files = [
      f'gin/pretrain_{"ma_medium" if released.is_agnostic else "ms_mbs"}.gin'
    ]
    # The release's table holds word2vec vectors that were never trained.
    sizes['TextTower.is_table_frozen'] = True
  if released.is_agnostic:
    bindings.append('share_encoder.size = @Size()')
  else:
    bindings += [
      f'{modality}/PatchTower.size = @{_scope(modality, sizes)}()'
      if modality != 'text'
      else 'TextTower.size = @text/Size()'
      for modality in released.modalities
    ]
  return files, [
    *bindings,
    *(f'{name} = {size!r}' for name, size in sizes.items()),
  ]


def _scope(modality, sizes):
  """The name of the `Size` that a modality's encoder has."""
  own_scope = f'{modality}/Size'
  return own_scope if f'{own_scope}.d_kv' in sizes else 'Size'


def _is_released_size(sizes, scope):
  """Whether an encoder has a released size, whose heads are known."""
  numbers = ('num_layers', 'd_model', 'd_ff')
  size = tuple(sizes.get(f'{scope}.{name}') for name in numbers)
  return size in _RELEASED_SIZES


def _bind_heads(sizes, user_values):
  """The sizes with the heads that the user states, not the assumed ones.

  Args:
    sizes: Values by gin parameter.
    user_values: Values by gin parameter that the user binds.

  Returns:
    The sizes, with other heads.

  Raises:
    ValueError: The number of heads does not divide the width of the attention.
  """
  sizes = dict(sizes)
  for scope in [n.removesuffix('.d_kv') for n in sizes if n.endswith('.d_kv')]:
    names = [f'{scope}.{name}' for name in _HEAD_SIZES]
    stated = [user_values.get(name) for name in names]
    if None in (sizes[names[0]], sizes[names[1]]) or stated == [None, None]:
      continue
    width = sizes[names[0]] * sizes[names[1]]
    for name, value, other_name in zip(names, stated, reversed(names)):
      if value is None:
        continue
      if not isinstance(value, int) or value < 1 or width % value:
        raise ValueError(
          f'`{name}` must divide {width}, the width of the attention in the '
          f'checkpoint. Received: {name}={value!r}'
        )
      sizes.update({name: value, other_name: width // value})
  return sizes


def _check_sizes(shapes, kind, model, names):
  """Raises ValueError if the sizes of checkpoint and model differ."""
  # The shapes of the model's variables in the release's form.
  model_shapes = {}
  for target, variable in plans.target_variables(model).items():
    if names[target] is None:
      continue
    shape = tuple(variable.shape)
    if target.endswith('_embedding/tokenizer/kernel'):
      modality = target.split('/')[1].removesuffix('_embedding')
      patch = model.towers[modality].patch_size
      num_values = int(np.prod(patch))
      shape = (*patch, shape[0] // num_values, shape[1])
    model_shapes[names[target]] = shape
  checkpoint_sizes, model_sizes = (
    _sizes(s, kind, model.modalities) for s in (shapes, model_shapes)
  )
  for modality, tower in model.towers.items():
    encoder = tower.encoder
    scope = _scope(modality, model_sizes)
    model_sizes[f'{scope}.num_heads'] = encoder.num_heads
    model_sizes[f'{scope}.d_kv'] = encoder.d_kv
    has_known_heads = kind == 'tx_fac' and scope == 'text/Size'
    if not has_known_heads and not _is_released_size(checkpoint_sizes, scope):
      # The heads do not follow from the shapes: compare only their product.
      product = f'{scope}.num_heads * {scope}.d_kv'
      heads = [
        checkpoint_sizes.pop(f'{scope}.{name}', None) for name in _HEAD_SIZES
      ]
      if None not in heads:
        checkpoint_sizes[product] = heads[0] * heads[1]
        model_sizes[product] = encoder.num_heads * encoder.d_kv
  # A size that only one of the two has does not differ.
  common = {
    name: size
    for name, size in checkpoint_sizes.items()
    if None not in (size, model_sizes[name])
  }
  gin_sizes.check(common, model_sizes, _advise)


def _advise(name):
  """The advice for a size that differs."""
  advice = _ADVICE.get(name.split('.')[-1], '')
  return f'Use the gin file of this model. {advice}'


_ADVICE = {
  'input_size': (
    'Larger inputs need no larger table, which is interpolated: bind '
    '`input_size` of the tower to the size in the checkpoint, and set the size '
    'of the inputs only for the data.'
  ),
  'vocabulary_size': (
    'The word table belongs to one vocabulary: use the one of the checkpoint.'
  ),
}


def _flatten_kernel(value):
  """Reshapes (patch..., channels, d) to (values of a patch, d)."""
  return np.reshape(value, [-1, value.shape[-1]])


def _check_towers(model):
  """Raises ValueError unless all towers are Transformers, as released."""
  for modality, tower in model.towers.items():
    if not isinstance(tower, transformer_tower.TransformerTower):
      raise ValueError(
        'The release has only Transformer towers, and the model has a '
        f'{type(tower).__name__} for {modality}. Use a gin file such as '
        'gin/pretrain_ma_medium.gin.'
      )


def plan(
  shapes: Mapping[str, tuple[int, ...]],
  model: tf_keras.Model,
  allow_partial: bool = False,
  allow_new_classes: bool = False,
) -> plans.Plan:
  """Plans how a released checkpoint fills a model.

  Args:
    shapes: Shapes of all its variables by name.
    model: A built `vatt.VATT` or `classification.Classifier`.
    allow_partial: Whether to continue where sizes differ.
    allow_new_classes: Whether a `Classifier` may have another number of classes
      than the checkpoint, so that its map to classes keeps its initial values.

  Returns:
    `plans.Plan`.

  Raises:
    ValueError: The checkpoint is not a released one, it is modality-agnostic
      and the model is not or the reverse, or the sizes differ.
  """
  released = detect(shapes)
  kind = released.kind
  _check_towers(model)
  if released.is_agnostic != bool(model.shared_layers):
    raise ValueError(
      f'The checkpoint is of a modality-{released.family} model, and the model '
      'that the gin files describe is not. Use a gin file such as '
      f'gin/pretrain_m{released.family[0]}_….gin.'
    )
  if kind == 'classifier' and model.modalities != released.modalities:
    (modality,) = released.modalities
    raise ValueError(
      f'The checkpoint classifies {modality}, and the model has '
      f'{", ".join(model.modalities)}. Use a gin file with '
      f"MODALITY = '{modality}', or no gin file."
    )
  short, ignored = released_names.short_names(shapes)
  names = released_names.short_names_of(model, kind)
  mapping = plans.Plan([], ignored=ignored)
  why_new_classes = None
  classes = released.sizes.get('Classifier.num_classes')
  if kind != 'classifier':
    why_new_classes = 'a pre-trained checkpoint has no classes'
  elif allow_new_classes and classes != getattr(model, 'num_classes', None):
    why_new_classes = f'the checkpoint has {classes} classes'
    for name in [
      name for name in short if name.startswith(released_names.CLASSES)
    ]:
      mapping.ignored[short.pop(name)] = f'of the {classes} classes'
  if not allow_partial:
    _check_sizes(
      {name: shapes[full] for name, full in short.items()}, kind, model, names
    )
  for target, name in names.items():
    if name in short:
      note, change = '', None
      if target.endswith('/tokenizer/kernel'):
        note, change = 'kernel of the patches as a matrix', _flatten_kernel
      mapping.assignments.append(
        plans.copy(target, short.pop(name), note, change)
      )
    elif why_new_classes and target.startswith('classifier/logits/'):
      mapping.new[target] = why_new_classes
    elif single_tower.is_output(target, model):
      mapping.new[target] = f'the release has no {model.name}'
    elif '/similarity_scale/' in target:
      mapping.new[target] = 'the release learns no temperature'
    else:
      mapping.missing[target] = f'the checkpoint has no {name or "such part"}'
  for name, full in short.items():
    why = _why_unused(name, kind, model)
    if why is not None:
      mapping.ignored[full] = why
  return mapping


def _why_unused(name, kind, model):
  """The reason why a model does not use a variable; None if it should."""
  if name.startswith(released_names.HEAD):
    head = model.head
    if head is None:
      return 'the model has no heads'
    absent = [
      layer
      for layer, released_layer in released_names.HEADS.items()
      if name.startswith(f'{released_names.HEAD}{released_layer}/')
      and not hasattr(head, layer)
    ]
    return f'the model has no head {absent[0]}' if absent else None
  if kind == 'classifier':
    return None
  for modality in released_names.MODALITIES:
    roots = [
      root
      for part, root in released_names.tower_roots(kind, modality).items()
      if part != 'encoder' or kind == 'tx_fac'
    ]
    if modality not in model.modalities and name.startswith(tuple(roots)):
      return f'the model has no {modality} tower'
  return None


def load(
  model: tf_keras.Model,
  source: weight_sources.Source,
  allow_partial: bool = False,
  allow_new_classes: bool = False,
) -> reports.Report:
  """Fills a model from a released checkpoint.

  Args:
    model: A built `vatt.VATT` or `classification.Classifier`; call this in its
      strategy's scope.
    source: The opened checkpoint.
    allow_partial: Whether to import only the parts that fit.
    allow_new_classes: See `plan`.

  Returns:
    `reports.Report`.

  Raises:
    ValueError: The checkpoint cannot be read, or does not fit; see `plan`.
  """
  mapping = plan(source.shapes, model, allow_partial, allow_new_classes)
  return reports.apply(mapping, model, source, allow_partial)
