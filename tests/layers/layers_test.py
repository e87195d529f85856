"""Every layer through the common test."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.layers import layer_test_utils
from vatt_tf.core import modalities
from vatt_tf.layers import (
  drop_token,
  feed_forward,
  layer_norm,
  multi_head_attention,
  patch_tokenizer,
  position_embedding,
  projection_head,
  relative_position_bias,
  rms_norm,
  text_embedding,
  transformer_encoder,
)
from vatt_tf.models import patch_tower, text_tower, transformer_tower


def _random(*shape):
  return np.random.RandomState(0).randn(*shape).astype(np.float32)


_IDS = np.array([[3, 1, 0, 0], [5, 2, 7, 1]], np.int32)
_ENCODER = {
  'num_layers': 2,
  'd_model': 8,
  'd_ff': 16,
  'num_heads': 2,
  'd_kv': 4,
}


class LayersTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.named_parameters(
    ('layer_norm', layer_norm.LayerNorm, {'epsilon': 1e-5}),
    ('rms_norm', rms_norm.RMSNorm, {'epsilon': 1e-5}),
    (
      'attention',
      multi_head_attention.MultiHeadAttention,
      {'num_heads': 2, 'd_kv': 4, 'dropout_rate': 0.1},
      True,
    ),
    (
      'attention_t5',
      multi_head_attention.MultiHeadAttention,
      {
        'num_heads': 2,
        'd_kv': 4,
        'use_bias': False,
        'use_scale': False,
        'initializer': 't5',
      },
    ),
    ('feed_forward', feed_forward.FeedForward, {'d_ff': 16}),
    (
      'feed_forward_gated',
      feed_forward.FeedForward,
      {
        'd_ff': 16,
        'activation': 'gelu_tanh',
        'is_gated': True,
        'use_bias': False,
        'dropout_rate': 0.1,
        'initializer': 't5',
      },
      True,
    ),
    (
      'feed_forward_relu',
      feed_forward.FeedForward,
      {'d_ff': 16, 'activation': 'relu'},
    ),
    ('encoder', transformer_encoder.TransformerEncoder, _ENCODER),
    (
      'encoder_remat',
      transformer_encoder.TransformerEncoder,
      dict(_ENCODER, dropout_rate=0.1, use_remat=True),
      True,
    ),
    (
      'encoder_release',
      transformer_encoder.TransformerEncoder,
      {**_ENCODER, **transformer_encoder.t5_arguments('release')},
    ),
    (
      'encoder_t5_v1_1_remat',
      transformer_encoder.TransformerEncoder,
      {
        **_ENCODER,
        **transformer_encoder.t5_arguments('t5_v1_1'),
        'use_remat': True,
      },
      True,
    ),
    (
      'gelu_dense',
      transformer_tower.GeluDense,
      {'units': 8, 'use_bias': False},
    ),
  )
  def test_same_shape(self, layer_class, arguments, is_random=False):
    layer_test_utils.run_layer_test(
      self,
      layer_class,
      arguments,
      _random(2, 5, 8),
      is_random=is_random,
      expected_shape=(2, 5, 8),
    )

  def test_relative_position_bias(self):
    layer_test_utils.run_layer_test(
      self,
      relative_position_bias.RelativePositionBias,
      {'num_heads': 2, 'num_buckets': 8, 'max_distance': 16},
      _random(2, 5, 8),
      expected_shape=(1, 2, 5, 5),
    )

  def test_drop_token(self):
    layer_test_utils.run_layer_test(
      self,
      drop_token.DropToken,
      {'drop_token_rate': 0.25},
      _random(2, 5, 8),
      is_random=True,
      expected_shape=(2, 5, 8),
      has_gradient=False,
    )

  @parameterized.parameters(
    ((2, 4, 4), False, (2, 4, 8, 8, 3), 8),
    ((4,), False, (2, 12, 1), 3),
    ((4, 2), True, (2, 10, 4, 1), 6),
  )
  def test_patch_tokenizer(self, patch_size, use_padding, shape, num_tokens):
    layer_test_utils.run_layer_test(
      self,
      patch_tokenizer.PatchTokenizer,
      {'d_model': 8, 'patch_size': patch_size, 'use_padding': use_padding},
      _random(*shape),
      expected_shape=(2, num_tokens, 8),
    )

  @parameterized.parameters(
    ((2, 3, 3), 'separable', True, (2, 3, 3)),
    ((2, 3, 3), 'full', False, (2, 4, 3)),
    ((4, 2), 'separable', True, (6, 2)),
    ((4, 2), 'separable', True, (6, 2), 'release'),
    ((7,), 'separable', True, (5,)),
  )
  def test_position_embedding(
    self, table_shape, form, use_norm, grid, interpolation='exact'
  ):
    layer_test_utils.run_layer_test(
      self,
      position_embedding.PositionEmbedding,
      {
        'table_shape': table_shape,
        'form': form,
        'use_layer_norm': use_norm,
        'interpolation': interpolation,
      },
      _random(2, np.prod(grid), 8),
      call_arguments={'grid': grid},
      expected_shape=(2, np.prod(grid), 8),
    )

  def test_text_embedding(self):
    layer_test_utils.run_layer_test(
      self,
      text_embedding.TextEmbedding,
      {'vocabulary_size': 10, 'd_embedding': 8},
      _IDS,
      expected_shape=(2, 4, 8),
    )

  def test_patch_embedding(self):
    layer_test_utils.run_layer_test(
      self,
      patch_tower.PatchEmbedding,
      {
        'd_model': 8,
        'patch_size': (2, 4, 4),
        'table_shape': (2, 2, 2),
        'use_pre_projection': True,
        'drop_token_rate': 0.5,
        'dropout_rate': 0.1,
      },
      _random(2, 4, 8, 8, 3),
      is_random=True,
      expected_shape=(2, 9, 8),
    )

  @parameterized.parameters(
    {'d_embedding': 6, 'num_positions': 4},
    {'d_embedding': 6, 'num_positions': None},
    {'d_embedding': None, 'num_positions': None},
  )
  def test_word_embedding(self, **arguments):
    _, mask = layer_test_utils.run_layer_test(
      self,
      text_tower.WordEmbedding,
      dict(d_model=8, vocabulary_size=10, dropout_rate=0.1, **arguments),
      _IDS,
      is_random=True,
      expected_shape=(2, 5, 8),
    )
    self.assertAllEqual(mask, [[True, True, True, False, False], [True] * 5])

  @parameterized.product(
    form=('fine_and_coarse', 'shared', 'disjoint'),
    pairs=(('video_audio', 'video_text'), tuple(modalities.PAIRS)),
  )
  def test_projection_head(self, form, pairs):
    if form == 'disjoint' and 'audio_text' in pairs:
      return
    layer_test_utils.run_layer_test(
      self,
      projection_head.ProjectionHead,
      {'form': form, 'd_va': 6, 'd_vt': 4, 'pairs': pairs},
      {
        'video_feature': _random(3, 8),
        'audio_feature': _random(3, 8) + 1,
        'text_feature': _random(3, 2, 8),
      },
      is_random=True,
    )


if __name__ == '__main__':
  tf.test.main()
