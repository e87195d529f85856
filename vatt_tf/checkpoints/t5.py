"""Imports and exports T5's encoder (v1.0 and v1.1) as Hugging Face's files.

The encoder becomes the text tower of the modality-specific model. Its table is
as wide as the encoder, without a map between them, and an AGG vector, which T5
does not have, comes first. An exported tower keeps that vector as an additional
row of the table.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

import numpy as np
import tf_keras

from vatt_tf.checkpoints import (
  gin_sizes,
  plans,
  reports,
  weight_files,
  weight_sources,
)
from vatt_tf.input_pipeline import text, tokenizers
from vatt_tf.layers import transformer_encoder
from vatt_tf.models import sizes, text_tower, vatt

_FORMS = ('t5_v1_0', 't5_v1_1')
_FEED_FORWARDS = {'t5_v1_0': 'relu', 't5_v1_1': 'gated-gelu'}
_QUERY = 'encoder.block.0.layer.0.SelfAttention.q.weight'
_TABLE = 'shared.weight'
_TIED_TABLE = 'encoder.embed_tokens.weight'
# Key in the config.json of an export: the row of the table that is AGG.
_AGG_ID = 'agg_token_id'
# The name of the SentencePiece model beside a converted checkpoint.
TOKENIZER = 'spiece.model'
# T5's table has 100 rows for masked spans, and is padded to a multiple of 128
# rows. More extra rows than this mean another vocabulary.
_MAX_EXTRA_ROWS = 256


@dataclasses.dataclass(frozen=True)
class T5:
  """Kind and sizes of a T5 checkpoint.

  Attributes:
    kind: `t5_v1_0` (ReLU) or `t5_v1_1` (gated GeLU).
    num_layers: Number of layers.
    d_model: Width D of the tokens.
    d_ff: Inner width of the feed-forward.
    num_heads: Number of attention heads.
    d_kv: Width of a head.
    vocabulary_size: Rows of the table, without AGG.
    num_relative_buckets: Buckets of the relative position bias.
    max_relative_distance: Distance that the last bucket begins with.
    epsilon: Added to the variance.
    agg_id: Row of the table that is the AGG vector, or None.
  """

  kind: str
  num_layers: int
  d_model: int
  d_ff: int
  num_heads: int
  d_kv: int
  vocabulary_size: int
  num_relative_buckets: int
  max_relative_distance: int
  epsilon: float
  agg_id: int | None

  def __str__(self):
    return (
      f'T5 {"v1.1" if self.kind == "t5_v1_1" else "v1.0"}, its encoder: '
      f'num_layers = {self.num_layers}, d_model = {self.d_model}, d_ff = '
      f'{self.d_ff}, num_heads = {self.num_heads}, d_kv = {self.d_kv}, '
      f'vocabulary_size = {self.vocabulary_size}'
    )


def _strip_prefix(shapes):
  """Maps names without the prefix before `encoder.block` to full names."""
  queries = [name for name in shapes if name.endswith(_QUERY)]
  if len(queries) != 1:
    raise ValueError(
      f'This is no T5 encoder: expected one array named {_QUERY}. Received '
      f'{len(shapes)} arrays: {", ".join(list(shapes)[:4])}, …'
    )
  prefix = queries[0].removesuffix(_QUERY)
  return {
    name.removeprefix(prefix): name
    for name in shapes
    if name.startswith(prefix)
  }


def _sources(shapes):
  """Maps T5's names to the names in a file; `shared.weight` is the table."""
  names = _strip_prefix(shapes)
  if _TABLE not in names and _TIED_TABLE in names:
    names[_TABLE] = names.pop(_TIED_TABLE)
  return names


def detect(
  shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None = None
) -> T5:
  """Detects the kind and sizes of a T5 checkpoint.

  Args:
    shapes: Shapes of its arrays by name.
    config: Content of its `config.json`. Without it, values that do not follow
      from the shapes are set as in all published T5.

  Returns:
    `T5`.

  Raises:
    ValueError: The checkpoint is not a T5, only a part of one, or has another
      form.
  """
  config = config or {}
  names = _sources(shapes)
  block = 'encoder.block.0.layer.'
  bias = f'{block}0.SelfAttention.relative_attention_bias.weight'
  is_gated = f'{block}1.DenseReluDense.wi_0.weight' in names
  wi = f'{block}1.DenseReluDense.{"wi_0" if is_gated else "wi"}.weight'
  for name in (_TABLE, bias, wi):
    if len(shapes.get(names.get(name), ())) != 2:
      raise ValueError(
        f'This is only a part of a T5 encoder: {name}, a matrix, is missing. '
        'Download all its files again.'
      )
  kind = _FORMS[is_gated]
  feed_forward = config.get('feed_forward_proj', _FEED_FORWARDS[kind])
  if feed_forward != _FEED_FORWARDS[kind]:
    raise ValueError(
      "`feed_forward_proj` must be 'relu' (v1.0) or 'gated-gelu' (v1.1), as "
      f'the weights are. Received: feed_forward_proj={feed_forward!r}, with '
      f'weights of the form {_FEED_FORWARDS[kind]!r}'
    )
  rows, d_model = shapes[names[_TABLE]]
  num_buckets, num_heads = shapes[names[bias]]
  width = shapes[names[_QUERY]][0]
  if width % num_heads:
    raise ValueError(
      f'The width of attention must be a multiple of the {num_heads} heads. '
      f'Received: {_QUERY} of {shapes[names[_QUERY]]}'
    )
  agg_id = config.get(_AGG_ID)
  if agg_id not in (None, rows - 1):
    raise ValueError(
      f'`{_AGG_ID}` must be the last of the {rows} rows of the table. '
      f'Received: {_AGG_ID}={agg_id}'
    )
  return T5(
    kind=kind,
    num_layers=1
    + max(
      int(match[1])
      for name in names
      if (match := re.match(r'encoder\.block\.(\d+)\.', name))
    ),
    d_model=d_model,
    d_ff=shapes[names[wi]][0],
    num_heads=num_heads,
    d_kv=width // num_heads,
    vocabulary_size=rows if agg_id is None else rows - 1,
    num_relative_buckets=num_buckets,
    max_relative_distance=config.get('relative_attention_max_distance', 128),
    epsilon=config.get('layer_norm_epsilon', 1e-6),
    agg_id=agg_id,
  )


def gin_config(found: T5) -> tuple[list[str], list[str]]:
  """Returns the gin files and bindings of a model with a T5 as text tower.

  Args:
    found: `T5`, from `detect`.

  Returns:
    (files, bindings), two lists of strings for `gin_utils.parse`.
  """
  numbers = {
    **{
      f'text/Size.{name}': getattr(found, name)
      for name in ('num_layers', 'd_model', 'd_ff', 'num_heads', 'd_kv')
    },
    'TextTower.form': found.kind,
    'TextTower.d_embedding': None,
    'TextTower.num_relative_buckets': found.num_relative_buckets,
    'TextTower.max_relative_distance': found.max_relative_distance,
    'VOCABULARY_SIZE': found.vocabulary_size,
  }
  return ['gin/pretrain_ms_mbs.gin'], [
    'TextTower.size = @text/Size()',
    *gin_sizes.bindings(numbers),
  ]


def tokenizer_bindings(path: str) -> list[str]:
  """Returns gin bindings that tokenize captions to T5's ids.

  Args:
    path: Path of T5's SentencePiece model.

  Returns:
    List of strings.
  """
  return gin_sizes.bindings(
    {
      'VOCABULARY': path,
      'TextConfig.kind': text.SENTENCEPIECE,
      'TextConfig.use_eos': True,
    }
  )


def check_tokenizer(path: str, found: T5) -> None:
  """Raises unless a SentencePiece model belongs to a T5.

  Args:
    path: Path of its `spiece.model`.
    found: `T5`, from `detect`.

  Raises:
    ValueError: The file is not a SentencePiece model, or has another
      vocabulary.
  """
  size = tokenizers.SentencepieceTokenizer(path).vocabulary_size
  if not 0 <= found.vocabulary_size - size <= _MAX_EXTRA_ROWS:
    raise ValueError(
      f'`tokenizer` must belong to the checkpoint, whose table has '
      f'{found.vocabulary_size} rows: at most as many pieces, and at most '
      f'{_MAX_EXTRA_ROWS} fewer. Received: {path} with {size} pieces'
    )


def build_encoder(found: T5) -> tf_keras.Model:
  """Builds T5's encoder alone, without AGG.

  Args:
    found: `T5`, from `detect`.

  Returns:
    A built `vatt.VATT`, whose text tower returns the states of the tokens and
    no feature.
  """
  tower = text_tower.TextTower(
    size=sizes.Size(
      found.num_layers, found.d_model, found.d_ff, found.num_heads, found.d_kv
    ),
    vocabulary_size=found.vocabulary_size,
    d_embedding=None,
    form=found.kind,
    num_relative_buckets=found.num_relative_buckets,
    max_relative_distance=found.max_relative_distance,
    epsilon=found.epsilon,
    has_agg=found.agg_id is not None,
    dropout_rate=0.0,
  )
  model = vatt.VATT({'text': tower}, head=None)
  model.build()
  return model


def _form(encoder):
  """The form of T5 that an encoder has, or None."""
  config = encoder.get_config()
  for form in (*_FORMS, 'release'):
    arguments = transformer_encoder.t5_arguments(form)
    # Sizes may differ from the published ones, and the initializer matters only
    # at the start of training.
    for name in (
      'num_relative_buckets',
      'max_relative_distance',
      'initializer',
    ):
      del arguments[name]
    if all(config[name] == value for name, value in arguments.items()):
      return form
  return None


def _get_tower(model):
  """The text tower of a model; a ValueError unless T5 can fill it."""
  tower = model.towers.get('text')
  if tower is None:
    raise ValueError(
      'T5 is a text tower, and the model has none, only '
      f'{model.modalities}. Use a gin file whose model compares text.'
    )
  if not isinstance(tower, text_tower.TextTower) or tower.shared_layers:
    raise ValueError(
      'T5 is the text tower of a modality-specific model, and this model is '
      'modality-agnostic: its shared encoder has no relative positions. Use a '
      'gin file such as gin/pretrain_ms_mbs.gin.'
    )
  return tower


def _names(model):
  """Maps targets of the text tower to T5's names and `is_transposed`.

  The AGG vector, which T5 does not have, is not among them.
  """
  names = {}
  is_gated = _get_tower(model).encoder.is_gated
  inner = {'wi': 'wi_0', 'wi_linear': 'wi_1'} if is_gated else {}
  for target in plans.target_variables(model):
    part, _, name = target.partition('/')[2].partition('/')
    if part == 'text_embedding' and name.startswith('table/'):
      names[target] = (_TABLE, False)
    if part != 'text_encoder':
      continue
    layer, _, name = name.partition('/')
    block = f'encoder.block.{layer.removeprefix("layer_")}.layer.'
    sublayer = name.split('/')[0]
    if layer == 'norm':
      t5_name = 'encoder.final_layer_norm'
    elif layer == 'position_bias':
      t5_name = 'encoder.block.0.layer.0.SelfAttention.relative_attention_bias'
    elif sublayer == 'attention':
      t5_name = f'{block}0.SelfAttention.{name.split("/")[1]}'
    elif sublayer == 'feed_forward':
      dense = name.split('/')[1]
      t5_name = f'{block}1.DenseReluDense.{inner.get(dense, dense)}'
    else:
      t5_name = f'{block}{int(sublayer == "feed_forward_norm")}.layer_norm'
    names[target] = (f'{t5_name}.weight', name.endswith('/kernel'))
  return names


def plan(
  shapes: Mapping[str, tuple[int, ...]],
  model: tf_keras.Model,
  config: Mapping[str, Any] | None = None,
  allow_partial: bool = False,
) -> plans.Plan:
  """Plans how a T5 checkpoint fills the text tower of a model.

  Args:
    shapes: Shapes of its arrays by name.
    model: A built `vatt.VATT`, modality-specific.
    config: Content of its `config.json`; see `detect`.
    allow_partial: Whether to continue where shapes differ.

  Returns:
    `plans.Plan`.

  Raises:
    ValueError: The checkpoint is not a T5, the model has no such tower, or the
      sizes differ.
  """
  t5 = detect(shapes, config)
  _check_sizes(t5, _get_tower(model), allow_partial)
  sources = _sources(shapes)
  mapping = plans.Plan([])
  if not config:
    mapping.notes.append(
      'There is no config.json beside the weights: the norms have the epsilon '
      f'{t5.epsilon}, and relative distances count up to '
      f'{t5.max_relative_distance}, as in all published T5.'
    )
  names = _names(model)
  for target in plans.target_variables(model):
    part = target.partition('/')[2]
    if target in names:
      name, is_transposed = names[target]
      if name not in sources:
        mapping.missing[target] = f'the checkpoint has no {name}'
        continue
      note, change = '', None
      if is_transposed:
        note, change = 'transposed', np.transpose
      if name == _TABLE and t5.agg_id is not None:
        note, change = 'without the row of AGG', lambda table: table[:-1]
      mapping.assignments.append(
        plans.copy(target, sources[name], note, change)
      )
    elif part == 'text_embedding/agg':
      if t5.agg_id is None:
        mapping.new[target] = 'T5 has no AGG vector'
      else:
        mapping.assignments.append(
          plans.copy(
            target, sources[_TABLE], 'the last row', lambda table: table[-1]
          )
        )
    elif part.startswith('text_'):
      mapping.missing[target] = 'T5 has no such part'
    else:
      mapping.new[target] = 'not of the text tower'
  for name in shapes:
    if re.search(r'(^|\.)decoder\.', name):
      mapping.ignored[name] = 'the decoder, which the text tower does not have'
    elif name.endswith('lm_head.weight'):
      mapping.ignored[name] = 'output layer of the decoder'
    elif name.endswith(_TIED_TABLE) and name != sources[_TABLE]:
      mapping.ignored[name] = f'tied: the same as {sources[_TABLE]}'
  return mapping


def _check_sizes(t5, tower, allow_partial):
  """Raises ValueError, naming the first size that differs."""
  encoder, embedding = tower.encoder, tower.embedding
  # With `allow_partial`, compare only values that change what arrays that fit
  # compute.
  checkpoint_sizes = {
    'text/Size.num_heads': t5.num_heads,
    'text/Size.d_kv': t5.d_kv,
    'TextTower.form': t5.kind,
    'TextTower.d_embedding': None,
    'TextTower.max_relative_distance': t5.max_relative_distance,
    'epsilon': t5.epsilon,
  }
  if not allow_partial:
    checkpoint_sizes = {
      'text/Size.num_layers': t5.num_layers,
      'text/Size.d_model': t5.d_model,
      'text/Size.d_ff': t5.d_ff,
      **checkpoint_sizes,
      'TextTower.vocabulary_size': t5.vocabulary_size,
      'TextTower.num_relative_buckets': t5.num_relative_buckets,
    }
  form = _form(encoder)
  model_sizes = {
    'text/Size.num_layers': encoder.num_layers,
    'text/Size.d_model': encoder.d_model,
    'text/Size.d_ff': encoder.d_ff,
    'text/Size.num_heads': encoder.num_heads,
    'text/Size.d_kv': encoder.d_kv,
    'TextTower.form': form,
    'TextTower.d_embedding': embedding.d_embedding or None,
    'TextTower.vocabulary_size': embedding.vocabulary_size,
    'TextTower.num_relative_buckets': encoder.num_relative_buckets,
    'TextTower.max_relative_distance': encoder.max_relative_distance,
    'epsilon': encoder.epsilon,
  }
  if form != t5.kind:
    # The encoder has the values of its own form.
    for name in ('TextTower.max_relative_distance', 'epsilon'):
      checkpoint_sizes.pop(name)
  gin_sizes.check(
    checkpoint_sizes, model_sizes, gin_sizes.advise(gin_config(t5)[1])
  )


def load(
  model: tf_keras.Model,
  source: weight_sources.Source,
  allow_partial: bool = False,
) -> reports.Report:
  """Fills the text tower of a model from a T5 checkpoint.

  Args:
    model: A built `vatt.VATT`; call this in its strategy's scope.
    source: The opened checkpoint.
    allow_partial: Whether to import only the parts that fit.

  Returns:
    `reports.Report`.

  Raises:
    ValueError: The checkpoint cannot be read, or does not fit; see `plan`.
  """
  mapping = plan(source.shapes, model, source.config, allow_partial)
  return reports.apply(mapping, model, source, allow_partial)


def export(model: tf_keras.Model, directory: str) -> None:
  """Writes a text tower as `transformers.T5EncoderModel` loads it.

  The AGG vector becomes the last row of the table: with its id (`agg_token_id`
  of config.json) in front of the ids and 1 in front of the attention mask, the
  states equal the states of the tower, with its feature first. A map between
  the table and the encoder is applied to the rows of the table.

  Args:
    model: A built `vatt.VATT`, modality-specific.
    directory: Folder to write `model.safetensors` and `config.json` to.

  Raises:
    ValueError: The model has no text tower that is a T5 encoder.
  """
  tower = _get_tower(model)
  encoder, embedding = tower.encoder, tower.embedding
  form = _form(encoder)
  if form not in _FORMS:
    raise ValueError(
      'Only text encoders of the forms t5_v1_0 and t5_v1_1 can be exported '
      'exactly: T5 has only RMS norms, and ReLU or gated GeLU. Received: an '
      f'encoder of the form {form or "(none of T5)"}. Train with '
      "TextTower.form = 't5_v1_0' or 't5_v1_1'."
    )
  if tower.post_projection is not None:
    raise ValueError(
      'T5 has nothing after its last norm, and this text tower has a Dense + '
      'GeLU there (`d_post_projection`): it cannot be exported exactly.'
    )
  variables = plans.target_variables(model)
  arrays = {}
  for target, (name, is_transposed) in _names(model).items():
    value = variables[target].numpy()
    arrays[name] = value.T if is_transposed else value
  table = arrays[_TABLE]
  if embedding.has_agg:
    table = np.concatenate([table, embedding.agg.numpy()[None]])
  if embedding.pre_projection is not None:
    table = embedding.pre_projection(table).numpy()
  arrays[_TABLE] = table
  config = {
    'architectures': ['T5EncoderModel'],
    'model_type': 't5',
    'd_model': encoder.d_model,
    'd_kv': encoder.d_kv,
    'd_ff': encoder.d_ff,
    'num_layers': encoder.num_layers,
    'num_heads': encoder.num_heads,
    'feed_forward_proj': _FEED_FORWARDS[form],
    'relative_attention_num_buckets': encoder.num_relative_buckets,
    'relative_attention_max_distance': encoder.max_relative_distance,
    'layer_norm_epsilon': encoder.epsilon,
    'dropout_rate': encoder.dropout_rate,
    'vocab_size': len(table),
    'pad_token_id': 0,
    'eos_token_id': 1,
    'is_encoder_decoder': False,
    'use_cache': False,
    'dtype': 'float32',
  }
  if embedding.has_agg:
    config[_AGG_ID] = len(table) - 1
  weight_files.write_model(directory, arrays, config)
