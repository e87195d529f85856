"""The estimate of memory against what the traced graph keeps."""

from absl.testing import parameterized
import tensorflow as tf
import tf_keras

from tests import vatt_models
from tests.analysis import graph_costs
from vatt_tf.models import sizes

_AGNOSTIC = {'size': sizes.Size(2, 64, 256, 4, d_kv=16)}
_SPECIFIC = {
  'video_size': sizes.Size(2, 64, 256, 4, d_kv=8),
  'audio_size': sizes.Size(2, 96, 128, 3, d_kv=32),
  'text_size': sizes.Size(2, 64, 96, 4, d_kv=16),
}


class MemoryTest(parameterized.TestCase, tf.test.TestCase):
  def tearDown(self):
    tf_keras.mixed_precision.set_global_policy('float32')
    super().tearDown()

  @parameterized.named_parameters(
    ('agnostic', 'float32', _AGNOSTIC),
    ('specific', 'float32', _SPECIFIC),
    ('half_precision', 'mixed_bfloat16', _AGNOSTIC),
    ('half_precision_specific', 'mixed_bfloat16', _SPECIFIC),
    ('no_dropout', 'float32', {**_AGNOSTIC, 'dropout_rate': 0.0}),
    ('remat', 'float32', {**_AGNOSTIC, 'use_remat': True}),
    ('t5', 'float32', {**_SPECIFIC, 'text_form': 't5_v1_1'}),
  )
  def test_what_is_kept(self, policy, arguments):
    tf_keras.mixed_precision.set_global_policy(policy)
    model = vatt_models.build_vatt(
      **arguments,
      vocabulary_size=50,
      video_patch_size=(2, 4, 4),
      num_frames=8,
      frame_size=32,
      num_audio_samples=3200,
      audio_patch_size=16,
      max_words=40,
      d_va=10,
      d_vt=6,
      d_post_projection=14,
    )
    batch, captions = 6, 2
    specs = {
      'video': tf.TensorSpec([batch, 8, 32, 32, 3]),
      'audio': tf.TensorSpec([batch, 3200, 1]),
      'text': tf.TensorSpec([batch, captions, 40], tf.int32),
    }
    operations, num_forward = graph_costs.trace(
      model, specs, training=True, with_gradients=True
    )
    kept = graph_costs.kept(operations, num_forward)
    estimated = sum(
      model.towers[modality].activation_bytes(shape, num_rows).kept
      for modality, shape, num_rows in (
        ('video', (8, 32, 32, 3), batch),
        ('audio', (3200, 1), batch),
        ('text', (40,), batch * captions),
      )
    )
    found = sum(size for _, size in kept)
    self.assertAllClose(estimated / found, 1, rtol=0, atol=0.03)

  def test_workspace(self):
    model = vatt_models.build_vatt(**_AGNOSTIC, vocabulary_size=50)
    # 601 tokens: probabilities weigh more than the feed-forward.
    self.assertEqual(
      model.audio_tower.activation_bytes((153600, 1), 2).workspace,
      2 * 4 * 601**2 * (4 + 4 + 4 + 1),
    )
    # 17 tokens: the other way round.
    self.assertEqual(
      model.text_tower.activation_bytes((16,), 2).workspace,
      2 * 256 * 17 * (4 + 4 + 4 + 4 + 1),
    )


if __name__ == '__main__':
  tf.test.main()
