"""Memory of a training step, estimated from the configuration of the layers.

The peak comes as the backward pass begins. Then there are

- the weights, their gradients and Adam's two moments, float32;
- the inputs of the batch;
- what the forward pass kept of every layer for the backward pass. Each of the
  layers says in its docstring what it computes again instead of keeping;
- the workspace of the layer whose backward pass takes most, be it the
  attention probabilities with their gradient or the feed-forward's activation.

The sum of the last two is the peak of the activations. What is kept is within
3 % of what the backward pass takes in the traced graph (the tests compare);
heads and the AGG token's row of the last layer are left out. The workspace is
an estimate: towers are taken to go backward one after the other. The memory of
TensorFlow itself, of the input pipeline, and what an allocator cannot use again
come on top. All is for one device that holds the whole batch.
"""

import math

import tensorflow as tf

from vatt_tf.analysis import flops

_FLOAT = 4  # bytes of a float32
_ADAM = 4  # a weight, its gradient and two moments


def state_bytes(model):
  """Bytes of the weights, their gradients and Adam's moments.

  Args:
    model: a built `tf_keras.Model`; its variables need no values.

  Returns:
    int.
  """
  trained = sum(math.prod(v.shape) for v in model.trainable_variables)
  fixed = sum(math.prod(v.shape) for v in model.non_trainable_variables)
  return _FLOAT * (_ADAM * trained + fixed)


def kept_bytes(model, modality, shape, num_rows):
  """Bytes that a tower keeps from the forward for the backward pass.

  Args:
    model: `models.vatt.VATT`, built.
    modality: `video`, `audio` or `text`.
    shape: of one row without the batch axis, as in `flops.num_patches`.
    num_rows: int, clips, or for text captions, of the batch.

  Returns:
    int.

  Raises:
    ValueError: `shape` does not fit the patch size.
  """
  embedding = getattr(model, f'{modality}_embedding')
  encoder = flops.encoder_of(model, modality)
  width = tf.as_dtype(model.compute_dtype).size
  patches = flops.num_patches(model, modality, shape, training=True)
  tokens = flops.num_tokens(model, modality, shape, training=True)
  d_model = embedding.d_model
  if modality == 'text':
    size = patches * (embedding.d_embedding or 0)
  else:
    size = patches * math.prod(embedding.tokenizer.patch_size)
    size *= 3 if modality == 'video' else 1
  if embedding.pre_projection is not None:
    # A map's input (where it is not the patches) and its output, for GeLU.
    size += patches * d_model * (1 if modality == 'text' else 2)
  size *= width
  if encoder.dropout_rate:
    size += patches * d_model
  positions = 0
  if embedding.position_embedding is not None:
    # What the norm of the position embeddings takes, once for all rows.
    positions = flops.num_patches(model, modality, shape) * d_model * _FLOAT
  if encoder.use_remat:
    layers = encoder.num_layers * tokens * d_model * width
    kernels = 0
  else:
    layers = _layers_bytes(encoder, tokens, width)
    kernels = _kernels_bytes(encoder, width)
  return num_rows * (size + layers) + kernels + positions


def workspace_bytes(model, modality, shape, num_rows):
  """Bytes that the backward pass of one layer of a tower needs meanwhile.

  Args:
    model: as in `kept_bytes`, like the others.
    modality: likewise.
    shape: likewise.
    num_rows: likewise.

  Returns:
    int.

  Raises:
    ValueError: `shape` does not fit the patch size.
  """
  encoder = flops.encoder_of(model, modality)
  width = tf.as_dtype(model.compute_dtype).size
  tokens = flops.num_tokens(model, modality, shape, training=True)
  # Probabilities and the gradient of the logits in float32, the gradient of
  # the probabilities, and the dropout mask.
  attention = encoder.num_heads * tokens**2 * (
    2 * _FLOAT + width + bool(encoder.dropout_rate)
  )
  # Activation and slope in float32, what goes into the second map and its
  # gradient, and the dropout mask.
  feed_forward = encoder.d_ff * tokens * (
    2 * _FLOAT + 2 * width + bool(encoder.dropout_rate)
  )
  again = 0
  if encoder.use_remat:
    again = _layer_bytes(encoder, tokens, width)
  return num_rows * (max(attention, feed_forward) + again)


def _layer_bytes(encoder, tokens, width):
  """What an encoder layer keeps of one row."""
  inner = encoder.num_heads * encoder.d_kv
  size = 2 * encoder.d_model * width + sum(
    _norm_bytes(norm, encoder.d_model, width)
    for norm in (encoder.attention_norm, encoder.feed_forward_norm)
  )
  # Queries, keys, values, scaled queries, the context and its transposed.
  size += (5 + encoder.use_attention_scale) * inner * width
  # The feed-forward's pre-activation; gated, also what it is multiplied with,
  # the activation and the product.
  size += (4 if encoder.is_gated else 1) * encoder.d_ff * width
  if encoder.dropout_rate:
    size += 2 * encoder.d_model + encoder.is_gated * encoder.d_ff
  return tokens * size


def _norm_bytes(norm, d_model, width):
  """What a norm keeps of one token, beside its input: the output, and the
  statistics; RMS norms the value without its scale too, and all of it in
  float32."""
  if norm == 'rms':
    return 2 * d_model * _FLOAT + _FLOAT
  return d_model * width + 2 * _FLOAT


def _layers_bytes(encoder, tokens, width):
  """What all encoder layers keep of one row."""
  inner = encoder.num_heads * encoder.d_kv
  # The last layer's AGG output alone is nothing beside its keys and values.
  last = tokens * (
    (encoder.d_model + 2 * inner) * width
    + _norm_bytes(encoder.attention_norm, encoder.d_model, width)
  )
  return (encoder.num_layers - 1) * _layer_bytes(encoder, tokens, width) + last


def _kernels_bytes(encoder, width):
  """Kernels that are kept: those of q, k and v side by side; and all others
  too where they are cast to half precision."""
  inner = encoder.num_heads * encoder.d_kv
  numbers = 3 * encoder.d_model * inner
  if width < _FLOAT:
    numbers += encoder.d_model * (
      inner + (3 if encoder.is_gated else 2) * encoder.d_ff
    )
  return encoder.num_layers * numbers * width
