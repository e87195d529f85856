"""The inputs of a model's encoder, and the activations of its nodes."""

from collections.abc import Mapping

import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities


def mean_tokens(
  model: tf_keras.Model, features: Mapping[str, tf.Tensor], modality: str
) -> tf.Tensor:
  """Returns a modality's tokens before the encoder, averaged over a clip.

  Args:
    model: `models.vatt.VATT` with the modality.
    features: Inputs of the model.
    modality: `video`, `audio` or `text`, for which the first caption is used.

  Returns:
    (B, d_model) float32.
  """
  tokens, mask = _tokens(model, features, modality)
  return _mean_of_tokens(tokens[:, tf.newaxis], mask)[:, 0]


def node_activations(
  model: tf_keras.Model, features: Mapping[str, tf.Tensor], modality: str
) -> tf.Tensor:
  """Returns the activations of the shared encoder, averaged over a clip.

  A node is one of the `d_model` outputs of a layer's feed-forward, before it is
  added to the tokens (paper, figure 4).

  Args:
    model: A modality-agnostic `models.vatt.VATT`.
    features: Inputs of the model.
    modality: `video`, `audio` or `text`, for which the first caption is used.

  Returns:
    (B, num_layers, d_model) float32.
  """
  tokens, mask = _tokens(model, features, modality)
  encoder = model.towers[modality].encoder
  outputs = encoder.feed_forward_outputs(tokens, mask)
  return _mean_of_tokens(outputs, mask)


def has_input(features: Mapping[str, tf.Tensor], modality: str) -> bool:
  """Returns whether each clip has a modality, or a first caption: (B,) bool."""
  mask = features[modalities.MODALITIES[modality].mask]
  return mask[:, 0] if modality == modalities.TEXT else mask


def _tokens(model, features, modality):
  """The tokens (B, N, d), AGG first, and their mask (B, N) or None."""
  tower = model.towers[modality]
  value = features[tower.input_name]
  if modality == modalities.TEXT:
    value = value[:, 0]
  return tower.embed_tokens(value)


def _mean_of_tokens(x, mask):
  """The mean (B, K, D) of tokens (B, K, N, D) under a mask (B, N)."""
  x = tf.cast(x, tf.float32)
  if mask is None:
    return tf.reduce_mean(x, axis=2)
  weights = tf.cast(mask, tf.float32)[:, tf.newaxis, :, tf.newaxis]
  return tf.reduce_sum(x * weights, axis=2) / tf.reduce_sum(weights, axis=2)
