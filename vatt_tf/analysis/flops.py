"""FLOPs of a VATT, counted from the configuration of its layers.

A FLOP is a multiplication or an addition: a product of (n, k) and (k, m) is
2 * n * k * m of them. Counted are the matrix products and nothing else: norms,
softmaxes, activations and biases are below 2 % of the whole at the paper's
sizes, and so are the similarities of the loss. The map that interpolates
position tables, for inputs larger than the tables, is not counted either: it
is made once for a batch.

`tower_flops` counts what this package computes: DropToken picks patches before
they are projected, and the last layer computes the AGG token's output alone.

`paper_flops` counts in the way that all figures of the paper share. It is the
forward pass, 2 FLOPs a multiply-add, of

- every patch's projection, those that DropToken drops as well;
- the maps of attention and feed-forward, for all tokens kept and the AGG token
  in every layer, the last one too;
- the product of attention probabilities and values, but *not* the product of
  queries and keys;
- of all towers, for pre-training: of video, of audio, and of text for *one*
  caption of a clip; of the video tower alone for fine-tuning; a sum over the
  views for inference with several; heads are not counted.

All figures in the paper are 0.7 to 1.4 % above this count.
"""

import math

# Products that a tower computes, in order.
PARTS = (
  'patches',
  'pre_projection',
  'attention_maps',
  'query_key',
  'attention_value',
  'feed_forward',
  'post_projection',
)


def product(*sizes):
  """FLOPs of a product of two matrices, (n, k) and (k, m).

  Args:
    *sizes: n, k and m, and further ints to multiply with.

  Returns:
    int.
  """
  return 2 * math.prod(sizes)


def encoder_of(model, modality):
  """The `TransformerEncoder` of a modality, shared or its own."""
  return model.encoder or getattr(model, f'{modality}_encoder')


def num_patches(model, modality, shape, training=False):
  """Counts the patches (words) of an input.

  Args:
    model: `models.vatt.VATT`.
    modality: `video`, `audio` or `text`.
    shape: of one row of the input without its batch axis: video (T, H, W, 3),
      audio (S, 1) or spectrogram (F, M), text (L,).
    training: bool, whether DropToken is on.

  Returns:
    int, the patches that become tokens; the AGG token is not among them.

  Raises:
    ValueError: `shape` does not fit the patch size.
  """
  if modality == 'text':
    return shape[-1]
  embedding = getattr(model, f'{modality}_embedding')
  count = math.prod(embedding.tokenizer.grid(_patch_axes(model, shape)))
  if training and embedding.drop_token_rate:
    return embedding.drop_token.num_kept(count)
  return count


def num_tokens(model, modality, shape, training=False):
  """Counts the tokens of an encoder: the patches and the AGG token.

  Args:
    model: as in `num_patches`, like the others.
    modality: likewise.
    shape: likewise.
    training: likewise.

  Returns:
    int.
  """
  has_agg = getattr(
    getattr(model, f'{modality}_embedding'), 'has_agg', True
  )
  return num_patches(model, modality, shape, training) + has_agg


def tower_flops(model, modality, shape, training=False):
  """FLOPs of a tower's forward pass on one row, as this package computes it.

  Args:
    model: `models.vatt.VATT`, built; its variables need no values, so that it
      may be built in a `tf.Graph` that never runs.
    modality: `video`, `audio` or `text`.
    shape: of one row without the batch axis, as in `num_patches`.
    training: bool, whether DropToken is on.

  Returns:
    Dictionary from each of `PARTS` to an int.

  Raises:
    ValueError: `shape` does not fit the patch size.
  """
  embedding = getattr(model, f'{modality}_embedding')
  patches = num_patches(model, modality, shape, training)
  tokens = num_tokens(model, modality, shape, training)
  # Where nothing is pooled, all outputs are wanted.
  num_outputs = 1 if tokens > patches else tokens
  return {
    'patches': patches * _patch_flops(model, modality, shape),
    'pre_projection': _pre_projection_flops(embedding, patches),
    **_encoder_flops(encoder_of(model, modality), tokens, num_outputs),
    'post_projection': _post_projection_flops(model, modality, num_outputs),
  }


def paper_flops(model, modality, shape, training=False):
  """FLOPs of a tower's forward pass on one row, counted as in the paper.

  The rule is in the docstring of this module.

  Args:
    model: as in `tower_flops`, like the others.
    modality: likewise.
    shape: likewise.
    training: likewise.

  Returns:
    int.

  Raises:
    ValueError: `shape` does not fit the patch size.
  """
  embedding = getattr(model, f'{modality}_embedding')
  tokens = num_tokens(model, modality, shape, training)
  parts = _encoder_flops(encoder_of(model, modality), tokens, tokens)
  del parts['query_key']
  return (
    num_patches(model, modality, shape) * _patch_flops(model, modality, shape)
    + _pre_projection_flops(
      embedding, num_patches(model, modality, shape, training)
    )
    + sum(parts.values())
    + _post_projection_flops(model, modality, 1)
  )


def step_flops(model, modality, shape):
  """FLOPs of a tower in a training step: forward and backward of one row.

  Every product of the forward pass has two in the backward pass, each as large
  as itself: for the gradient of either factor. So a step is three times the
  forward pass (with DropToken), but

  - the input needs no gradient: the projection of patches counts twice, and so
    does the pre-projection of words of a frozen table;
  - attention probabilities are computed again and not kept
    (`layers.multi_head_attention`): query times key counts four times;
  - with `use_remat` the encoder's forward pass is computed once more, save for
    the feed-forward's last product where there is no dropout: then nothing
    needs it.

  Args:
    model: as in `tower_flops`, like the others.
    modality: likewise.
    shape: likewise.

  Returns:
    Dictionary from each of `PARTS` to an int.

  Raises:
    ValueError: `shape` does not fit the patch size.
  """
  encoder = encoder_of(model, modality)
  embedding = getattr(model, f'{modality}_embedding')
  forward = tower_flops(model, modality, shape, training=True)
  factors = dict.fromkeys(PARTS, 3)
  factors['patches'] = 2
  if modality == 'text' and embedding.is_frozen and embedding.num_positions:
    factors['pre_projection'] = 2
  factors['query_key'] = 4
  if encoder.use_remat:
    for part in (
      'attention_maps', 'query_key', 'attention_value', 'feed_forward'
    ):
      factors[part] += 1
  step = {part: factors[part] * forward[part] for part in PARTS}
  if encoder.use_remat and not encoder.dropout_rate:
    step['feed_forward'] -= forward['feed_forward'] // _num_kernels(encoder)
  return step


def head_flops(head, modality):
  """FLOPs of the forward pass of a `ProjectionHead` on one feature.

  Args:
    head: `layers.projection_head.ProjectionHead`, built.
    modality: `video`, `audio` or `text`.

  Returns:
    int. A training step that uses all outputs computes three times as much.
  """
  names = [f'{modality}_to_{space}' for space in ('va', 'vt', 'shared')]
  if head.form == 'fine_and_coarse':
    if modality == 'video':
      names += ['video_to_hidden', 'hidden_to_va']
    if (modality == 'video' and head.use_video_text) or (
      modality == 'audio' and (head.use_video_text or head.use_audio_text)
    ):
      names.append('va_to_vt')
  maps = [getattr(head, name) for name in names if hasattr(head, name)]
  return sum(product(*dense.kernel.shape) for dense in maps)


def _patch_axes(model, shape):
  """The shape of one row as the tokenizer takes it, with a batch axis."""
  is_spectrogram = model.use_spectrogram and len(shape) == 2
  return [None, *shape, 1] if is_spectrogram else [None, *shape]


def _patch_flops(model, modality, shape):
  """FLOPs of the projection of one patch; a look-up of a word has none."""
  if modality == 'text':
    return 0
  tokenizer = getattr(model, f'{modality}_embedding').tokenizer
  channels = _patch_axes(model, shape)[-1]
  return product(*tokenizer.patch_size, channels, tokenizer.d_model)


def _pre_projection_flops(embedding, patches):
  """FLOPs of the Dense + GeLU before the encoder, of all patches."""
  if embedding.pre_projection is None:
    return 0
  width = getattr(embedding, 'd_embedding', embedding.d_model)
  # Without positions the AGG token of a text stands in front before the map.
  is_text = hasattr(embedding, 'num_positions')
  if is_text and embedding.has_agg and not embedding.num_positions:
    patches += 1
  return product(patches, width, embedding.d_model)


def _encoder_flops(encoder, tokens, num_outputs):
  """FLOPs of an encoder on one row; the last layer has `num_outputs`."""
  inner = encoder.num_heads * encoder.d_kv
  total = dict.fromkeys(
    ('attention_maps', 'query_key', 'attention_value', 'feed_forward'), 0
  )
  for count, asking in ((encoder.num_layers - 1, tokens), (1, num_outputs)):
    # Keys and values of all tokens; queries and outputs of those that ask.
    maps = product(2 * tokens + 2 * asking, encoder.d_model, inner)
    attention = product(asking, tokens, inner)
    total['attention_maps'] += count * maps
    total['query_key'] += count * attention
    total['attention_value'] += count * attention
    total['feed_forward'] += count * product(
      asking, encoder.d_model, encoder.d_ff, _num_kernels(encoder)
    )
  return total


def _num_kernels(encoder):
  """Kernels of the feed-forward."""
  return 3 if encoder.is_gated else 2


def _post_projection_flops(model, modality, rows):
  """FLOPs of the Dense + GeLU behind the encoder."""
  projection = getattr(model, f'{modality}_post_projection')
  if projection is None:
    return 0
  d_model = encoder_of(model, modality).d_model
  return product(rows, d_model, projection.units)
