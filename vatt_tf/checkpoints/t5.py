"""T5's encoder (v1.0 and v1.1) from Hugging Face's files, and back.

It becomes the text tower of the modality-specific model: the table as wide as
the encoder, no map between, and an AGG vector in front that T5 does not have.
An exported tower keeps that vector as one more row of the table.
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
# In config.json of what `export` writes: the row of the table that is AGG.
_AGG_ID = 'agg_token_id'
# The name of the SentencePiece model beside a converted checkpoint.
TOKENIZER = 'spiece.model'
# T5's table has 100 rows for masked spans, and is filled up to a multiple of
# 128 rows; more than this are of another vocabulary.
_MAX_EXTRA_ROWS = 256


@dataclasses.dataclass(frozen=True)
class T5:
  """What a T5 checkpoint is.

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
  """Names without what stands before `encoder.block`, to whole names."""
  found = [name for name in shapes if name.endswith(_QUERY)]
  if len(found) != 1:
    raise ValueError(
      f'This is no T5 encoder: expected one array named {_QUERY}. Received '
      f'{len(shapes)} arrays: {", ".join(list(shapes)[:4])}, …'
    )
  prefix = found[0].removesuffix(_QUERY)
  return {
    name.removeprefix(prefix): name
    for name in shapes
    if name.startswith(prefix)
  }


def _sources(shapes):
  """From T5's names to those of a file; `shared.weight` is the table."""
  names = _strip_prefix(shapes)
  if _TABLE not in names and _TIED_TABLE in names:
    names[_TABLE] = names.pop(_TIED_TABLE)
  return names


def detect(
  shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None = None
) -> T5:
  """Says what a T5 checkpoint is.

  Args:
    shapes: Dictionary from the names of its arrays to their shapes.
    config: Dictionary, its `config.json`. Without it the values that no shape
      tells are those of all published T5.

  Returns:
    `T5`.

  Raises:
    ValueError: It is no T5, a part of one, or one of another form.
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
      int(found[1])
      for name in names
      if (found := re.match(r'encoder\.block\.(\d+)\.', name))
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
  """The gin files and bindings of a model whose text tower is a T5's.

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
  """Gin bindings with which captions become T5's ids.

  Args:
    path: Of T5's SentencePiece model.

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
  """Raises unless a SentencePiece model is that of a T5.

  Args:
    path: Of its `spiece.model`.
    found: `T5`, from `detect`.

  Raises:
    ValueError: It is no SentencePiece model, or one of another vocabulary.
  """
  size = tokenizers.SentencepieceTokenizer(path).vocabulary_size
  if not 0 <= found.vocabulary_size - size <= _MAX_EXTRA_ROWS:
    raise ValueError(
      f'`tokenizer` must be that of the checkpoint, whose table has '
      f'{found.vocabulary_size} rows: at most as many pieces, and up to '
      f'{_MAX_EXTRA_ROWS} fewer. Received: {path} of {size} pieces'
    )


def build_encoder(found: T5) -> tf_keras.Model:
  """Builds T5's encoder alone: no AGG, the outputs are states of the tokens.

  Args:
    found: `T5`, from `detect`.

  Returns:
    A built `vatt.VATT`, whose text tower gives no feature, and states.
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
  """Which of T5's forms an encoder has, or None."""
  config = encoder.get_config()
  for form in (*_FORMS, 'release'):
    wanted = transformer_encoder.t5_arguments(form)
    # Sizes, which need not be as they were published; and what only matters
    # at the start of training.
    for name in (
      'num_relative_buckets',
      'max_relative_distance',
      'initializer',
    ):
      del wanted[name]
    if all(config[name] == value for name, value in wanted.items()):
      return form
  return None


def _get_tower(model):
  """The text tower of a model; ValueError unless it is one of T5's kind."""
  tower = model.towers.get('text')
  if tower is None:
    raise ValueError(
      'T5 is a text tower, and the model has none, only '
      f'{model.modalities}. Use a gin file whose model compares text.'
    )
  if not isinstance(tower, text_tower.TextTower) or tower.shared_layers:
    raise ValueError(
      'T5 is the text tower of a modality-specific model, and this model is '
      'modality-agnostic: its one encoder has no relative positions. Use a '
      'gin file such as gin/pretrain_ms_mbs.gin.'
    )
  return tower


def _names(model):
  """From targets of the text tower to T5's names and `is_transposed`.

  Only what T5 has too: the AGG vector is not there.
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
      theirs = 'encoder.final_layer_norm'
    elif layer == 'position_bias':
      theirs = 'encoder.block.0.layer.0.SelfAttention.relative_attention_bias'
    elif sublayer == 'attention':
      theirs = f'{block}0.SelfAttention.{name.split("/")[1]}'
    elif sublayer == 'feed_forward':
      dense = name.split('/')[1]
      theirs = f'{block}1.DenseReluDense.{inner.get(dense, dense)}'
    else:
      theirs = f'{block}{int(sublayer == "feed_forward_norm")}.layer_norm'
    names[target] = (f'{theirs}.weight', name.endswith('/kernel'))
  return names


def plan(
  shapes: Mapping[str, tuple[int, ...]],
  model: tf_keras.Model,
  config: Mapping[str, Any] | None = None,
  allow_partial: bool = False,
) -> plans.Plan:
  """Plans how a T5 checkpoint fills the text tower of a model.

  Args:
    shapes: Dictionary from the names of its arrays to their shapes.
    model: A built `vatt.VATT`, modality-specific.
    config: Dictionary, its `config.json`; see `detect`.
    allow_partial: Go on where shapes differ.

  Returns:
    `plans.Plan`.

  Raises:
    ValueError: It is no T5, the model has no such tower, or the sizes differ.
  """
  found = detect(shapes, config)
  _check_sizes(found, _get_tower(model), allow_partial)
  sources = _sources(shapes)
  made = plans.Plan([])
  if not config:
    made.notes.append(
      'There is no config.json beside the weights: the norms have the epsilon '
      f'{found.epsilon}, and relative distances count up to '
      f'{found.max_relative_distance}, as in all published T5.'
    )
  names = _names(model)
  for target in plans.target_variables(model):
    part = target.partition('/')[2]
    if target in names:
      name, is_transposed = names[target]
      if name not in sources:
        made.missing[target] = f'the checkpoint has no {name}'
        continue
      how, change = '', None
      if is_transposed:
        how, change = 'transposed', np.transpose
      if name == _TABLE and found.agg_id is not None:
        how, change = 'without the row of AGG', lambda table: table[:-1]
      made.assignments.append(plans.copy(target, sources[name], how, change))
    elif part == 'text_embedding/agg':
      if found.agg_id is None:
        made.new[target] = 'T5 has no AGG vector'
      else:
        made.assignments.append(
          plans.copy(
            target, sources[_TABLE], 'the last row', lambda table: table[-1]
          )
        )
    elif part.startswith('text_'):
      made.missing[target] = 'T5 has no such part'
    else:
      made.new[target] = 'not of the text tower'
  for name in shapes:
    if re.search(r'(^|\.)decoder\.', name):
      made.ignored[name] = 'the decoder, of which the text tower has none'
    elif name.endswith('lm_head.weight'):
      made.ignored[name] = 'output layer of the decoder'
    elif name.endswith(_TIED_TABLE) and name != sources[_TABLE]:
      made.ignored[name] = f'tied: the same as {sources[_TABLE]}'
  return made


def _check_sizes(found, tower, allow_partial):
  """Raises ValueError, naming the first size that differs."""
  encoder, embedding = tower.encoder, tower.embedding
  # With `allow_partial`, only what makes other sense of arrays that fit.
  theirs = {
    'text/Size.num_heads': found.num_heads,
    'text/Size.d_kv': found.d_kv,
    'TextTower.form': found.kind,
    'TextTower.d_embedding': None,
    'TextTower.max_relative_distance': found.max_relative_distance,
    'epsilon': found.epsilon,
  }
  if not allow_partial:
    theirs = {
      'text/Size.num_layers': found.num_layers,
      'text/Size.d_model': found.d_model,
      'text/Size.d_ff': found.d_ff,
      **theirs,
      'TextTower.vocabulary_size': found.vocabulary_size,
      'TextTower.num_relative_buckets': found.num_relative_buckets,
    }
  form = _form(encoder)
  ours = {
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
  if form != found.kind:
    # Its own values are those of the other form.
    for name in ('TextTower.max_relative_distance', 'epsilon'):
      theirs.pop(name)
  gin_sizes.check(theirs, ours, gin_sizes.advise(gin_config(found)[1]))


def load(
  model: tf_keras.Model,
  source: weight_sources.Source,
  allow_partial: bool = False,
) -> reports.Report:
  """Fills the text tower of a model from a T5 checkpoint.

  Args:
    model: A built `vatt.VATT`; call this in its strategy's scope.
    source: `weight_sources.Source`, the opened checkpoint.
    allow_partial: Take what fits.

  Returns:
    `reports.Report`.

  Raises:
    ValueError: The checkpoint cannot be read, or does not fit; see `plan`.
  """
  made = plan(source.shapes, model, source.config, allow_partial)
  return reports.apply(made, model, source, allow_partial)


def export(model: tf_keras.Model, directory: str) -> list[str]:
  """Writes a text tower as `transformers.T5EncoderModel` loads it.

  The AGG vector becomes the last row of the table: with its id (`agg_token_id`
  of config.json) in front of the ids and 1 in front of the attention mask, the
  states are those of the tower, its feature first. A map between the table and
  the encoder is applied to the rows of the table.

  Args:
    model: A built `vatt.VATT`, modality-specific.
    directory: Gets `model.safetensors` and `config.json`.

  Raises:
    ValueError: The model has no text tower that is a T5 encoder.
  """
  tower = _get_tower(model)
  encoder, embedding = tower.encoder, tower.embedding
  form = _form(encoder)
  if form not in _FORMS:
    raise ValueError(
      'Only text encoders of the forms t5_v1_0 and t5_v1_1 can be exported '
      f'exactly: T5 has RMS norms alone, and ReLU or gated GeLU. Received: '
      f'an encoder of the form {form or "of none of T5"}. Train with '
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
