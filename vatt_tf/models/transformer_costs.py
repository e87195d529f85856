"""The costs of a Transformer tower, from the configuration of its layers.

FLOPs: A FLOP is a multiplication or an addition, so a product of (n, k) and
(k, m) takes 2 * n * k * m. Only matrix products are counted: norms, softmaxes,
activations and biases are below 2 % of the total at the paper's sizes, and so
are the similarities of the loss. The map that interpolates position tables for
larger inputs is not counted either, because it is computed once per batch.

All FLOPs in the paper are counted in one way. They are for the forward pass, 2
FLOPs per multiply-add, of

- the projection of every patch, also of those that DropToken drops;
- the maps of attention and feed-forward, for all kept tokens and the AGG token
  in every layer, including the last;
- the product of attention probabilities and values, but *not* the product of
  queries and keys;
- all towers for pre-training: video, audio, and text for *one* caption per
  clip; the video tower alone for fine-tuning; the sum over the views for
  inference with several views. Heads are not counted.

All values in the paper are 0.7 to 1.4 % above this count.

Memory: A training step peaks when the backward pass begins. The kept
activations of the forward pass are within 3 % of those that the backward pass
uses in the traced graph (the tests compare them); the docstring of each layer
tells what it computes again instead of keeping. The workspace of the layer
whose backward pass needs most, for the attention probabilities with their
gradient or for the feed-forward's activation, is an estimate.
"""

import math

from vatt_tf.layers import transformer_encoder

FLOAT_BYTES = 4  # bytes of a float32

# Parts of a tower whose products are counted, in order.
PARTS = (
  'patches',
  'pre_projection',
  'attention_maps',
  'query_key',
  'attention_value',
  'feed_forward',
  'post_projection',
)
_RECOMPUTED = ('attention_maps', 'query_key', 'attention_value', 'feed_forward')


def product(*sizes: int) -> int:
  """Returns the FLOPs of a product of two matrices, (n, k) and (k, m).

  Args:
    *sizes: Sizes n, k and m, and other factors.

  Returns:
    Number of FLOPs.
  """
  return 2 * math.prod(sizes)


def encoder_flops(
  encoder: transformer_encoder.TransformerEncoder,
  num_tokens: int,
  num_outputs: int,
) -> dict[str, int]:
  """Returns the FLOPs of an encoder's forward pass on one row.

  Args:
    encoder: Encoder of the tower.
    num_tokens: Length of the sequence.
    num_outputs: Number of tokens for which the last layer computes an output.

  Returns:
    FLOPs of `attention_maps`, `query_key`, `attention_value` and
    `feed_forward`.
  """
  inner = encoder.num_heads * encoder.d_kv
  total = dict.fromkeys(_RECOMPUTED, 0)
  for num_layers, num_queries in (
    (encoder.num_layers - 1, num_tokens),
    (1, num_outputs),
  ):
    # All tokens have keys and values; only queries have outputs.
    maps = product(2 * num_tokens + 2 * num_queries, encoder.d_model, inner)
    attention = product(num_queries, num_tokens, inner)
    total['attention_maps'] += num_layers * maps
    total['query_key'] += num_layers * attention
    total['attention_value'] += num_layers * attention
    total['feed_forward'] += num_layers * product(
      num_queries, encoder.d_model, encoder.d_ff, _num_kernels(encoder)
    )
  return total


def step_flops(
  forward: dict[str, int],
  encoder: transformer_encoder.TransformerEncoder,
  is_pre_projection_first: bool,
) -> dict[str, int]:
  """Returns the FLOPs of a training step, forward and backward of one row.

  For each product of the forward pass, the backward pass has two of the same
  size, for the gradient of either factor. A step is therefore three times the
  forward pass (with DropToken), except that

  - the input needs no gradient, so the projection of patches counts twice, as
    does the pre-projection of words of a frozen table;
  - attention probabilities are computed again and not kept
    (`layers.multi_head_attention`), so query times key counts four times;
  - with `use_remat` the encoder's forward pass is computed once more, except
    for the feed-forward's last product, which is not needed without dropout.

  Args:
    forward: FLOPs of the forward pass with DropToken, of each of `PARTS`.
    encoder: Encoder of the tower.
    is_pre_projection_first: Whether the input of the pre-projection needs no
      gradient.

  Returns:
    FLOPs of each of `PARTS`.
  """
  factors = dict.fromkeys(PARTS, 3)
  factors['patches'] = 2
  if is_pre_projection_first:
    factors['pre_projection'] = 2
  factors['query_key'] = 4
  if encoder.use_remat:
    for part in _RECOMPUTED:
      factors[part] += 1
  step = {part: factors[part] * forward[part] for part in PARTS}
  if encoder.use_remat and not encoder.dropout_rate:
    step['feed_forward'] -= forward['feed_forward'] // _num_kernels(encoder)
  return step


def kept_bytes(
  encoder: transformer_encoder.TransformerEncoder,
  num_tokens: int,
  num_rows: int,
  width: int,
) -> int:
  """Returns the bytes that an encoder keeps for the backward pass.

  Args:
    encoder: Encoder of the tower.
    num_tokens: Length of the sequence.
    num_rows: Rows of the batch.
    width: Bytes of a number in the compute dtype.

  Returns:
    Number of bytes.
  """
  if encoder.use_remat:
    return num_rows * encoder.num_layers * num_tokens * encoder.d_model * width
  inner = encoder.num_heads * encoder.d_kv
  # The last layer computes only the AGG output, which is negligible beside its
  # keys and values.
  last = num_tokens * (
    (encoder.d_model + 2 * inner) * width
    + _norm_bytes(encoder.attention_norm, encoder.d_model, width)
  )
  layers = (encoder.num_layers - 1) * _layer_bytes(encoder, num_tokens, width)
  return num_rows * (layers + last) + _kernels_bytes(encoder, width)


def workspace_bytes(
  encoder: transformer_encoder.TransformerEncoder,
  num_tokens: int,
  num_rows: int,
  width: int,
) -> int:
  """Returns the additional bytes that the backward pass of one layer needs.

  Args:
    encoder: Encoder of the tower.
    num_tokens: Length of the sequence.
    num_rows: Rows of the batch.
    width: Bytes of a number in the compute dtype.

  Returns:
    Number of bytes.
  """
  has_dropout = bool(encoder.dropout_rate)
  # Probabilities and the gradient of the logits in float32, the gradient of
  # the probabilities, and the dropout mask.
  attention = (
    encoder.num_heads * num_tokens**2 * (2 * FLOAT_BYTES + width + has_dropout)
  )
  # Activation and slope in float32, the input of the second map and its
  # gradient, and the dropout mask.
  feed_forward = (
    encoder.d_ff * num_tokens * (2 * FLOAT_BYTES + 2 * width + has_dropout)
  )
  recomputed = 0
  if encoder.use_remat:
    recomputed = _layer_bytes(encoder, num_tokens, width)
  return num_rows * (max(attention, feed_forward) + recomputed)


def _num_kernels(encoder):
  """The number of kernels of the feed-forward."""
  return 3 if encoder.is_gated else 2


def _layer_bytes(encoder, num_tokens, width):
  """The bytes that an encoder layer keeps of one row."""
  inner = encoder.num_heads * encoder.d_kv
  size = 2 * encoder.d_model * width + sum(
    _norm_bytes(norm, encoder.d_model, width)
    for norm in (encoder.attention_norm, encoder.feed_forward_norm)
  )
  # Queries, keys, values, scaled queries, the context and its transposed.
  size += (5 + encoder.use_attention_scale) * inner * width
  # The feed-forward's pre-activation; if gated, also the other factor, the
  # activation and the product.
  size += (4 if encoder.is_gated else 1) * encoder.d_ff * width
  if encoder.dropout_rate:
    size += 2 * encoder.d_model + encoder.is_gated * encoder.d_ff
  return num_tokens * size


def _norm_bytes(norm, d_model, width):
  """The bytes that a norm keeps of one token, without its input: the output
  and the statistics; RMS norms also keep the value without its scale, and all
  of it in float32."""
  if norm == 'rms':
    return 2 * d_model * FLOAT_BYTES + FLOAT_BYTES
  return d_model * width + 2 * FLOAT_BYTES


def _kernels_bytes(encoder, width):
  """The bytes of kept kernels: the joined kernel of q, k and v, and with half
  precision the casts of all others."""
  inner = encoder.num_heads * encoder.d_kv
  numbers = 3 * encoder.d_model * inner
  if width < FLOAT_BYTES:
    numbers += encoder.d_model * (inner + _num_kernels(encoder) * encoder.d_ff)
  return encoder.num_layers * numbers * width
