"""FLOPs against the traced graph, and against the figures of the paper."""

from absl.testing import parameterized
import tensorflow as tf

from tests import vatt_models
from tests.analysis import graph_costs
from vatt_tf.models import sizes

_CLIP = {'video': (32, 224, 224, 3), 'audio': (153600, 1), 'text': (16,)}

_SPECIFIC = {
  'video_size': sizes.Size(2, 8, 32, 2, d_kv=4),
  'audio_size': sizes.Size(1, 16, 24, 3, d_kv=4),
  'text_size': sizes.Size(2, 12, 20, 2, d_kv=4),
}
_AGNOSTIC = {'size': sizes.Size(2, 8, 32, 2, d_kv=4)}


def _weightless(**arguments):
  """A model whose variables have shapes and no values."""
  with tf.Graph().as_default():
    return vatt_models.build_vatt(**arguments)


def _video_model(size):
  return _weightless(
    video_size=size, text_size=sizes.SMALL, pairs=('video_text',)
  )


class PaperTest(parameterized.TestCase, tf.test.TestCase):
  """The figures are the paper's; the rule is in `transformer_costs`."""

  def assert_is_paper(self, count, figure):
    self.assertAllClose(count / figure, 1, rtol=0, atol=0.015)

  @parameterized.parameters(
    (0.75, 188.1e9), (0.5, 375.4e9), (0.25, 574.2e9), (0.0, 784.8e9)
  )
  def test_pre_training(self, drop_token_rate, figure):
    model = _weightless(
      video_size=sizes.MEDIUM,
      audio_size=sizes.BASE,
      text_size=sizes.SMALL,
      drop_token_rate=drop_token_rate,
    )
    count = sum(
      model.towers[modality].paper_flops(shape, training=True)
      for modality, shape in _CLIP.items()
    )
    self.assert_is_paper(count, figure)

  @parameterized.parameters((32, 548.1e9), (64, 1222.1e9))
  def test_frames(self, num_frames, figure):
    tower = _video_model(sizes.MEDIUM).video_tower
    count = tower.paper_flops((num_frames, 224, 224, 3))
    self.assert_is_paper(count, figure)

  @parameterized.parameters(
    (0.75, 279.8e9), (0.5, 572.5e9), (0.25, 898.9e9), (0.0, 1252.3e9)
  )
  def test_drop_token_at_a_high_resolution(self, drop_token_rate, figure):
    model = _weightless(
      video_size=sizes.MEDIUM,
      text_size=sizes.SMALL,
      pairs=('video_text',),
      drop_token_rate=drop_token_rate,
    )
    count = model.video_tower.paper_flops((32, 320, 320, 3), training=True)
    self.assert_is_paper(count, figure)

  @parameterized.parameters(
    (sizes.BASE, 9.09e12), (sizes.MEDIUM, 15.02e12), (sizes.LARGE, 29.80e12)
  )
  def test_twelve_views(self, size, figure):
    count = _video_model(size).video_tower.paper_flops((32, 320, 320, 3))
    self.assert_is_paper(12 * count, figure)

  def test_what_the_rule_counts(self):
    model = _weightless(**_SPECIFIC, vocabulary_size=50)
    tokens, kept = 1569, 785
    count = model.video_tower.paper_flops(_CLIP['video'], training=True)
    self.assertEqual(
      count,
      2 * (tokens - 1) * 3072 * 8
      + 2 * 2 * kept * (4 * 8 * 8 + 2 * 8 * 32 + kept * 8),
    )


class GraphTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.named_parameters(
    ('agnostic', _AGNOSTIC),
    ('specific', _SPECIFIC),
    ('t5', {**_SPECIFIC, 'text_form': 't5_v1_1', 'd_embedding': None}),
    ('shared', {**_AGNOSTIC, 'common_space': 'shared', 'd_embedding': 5}),
    ('disjoint', {**_SPECIFIC, 'common_space': 'disjoint'}),
    ('one_term', {**_AGNOSTIC, 'pairs': ('video_text',)}),
    ('spectrogram', {**_SPECIFIC, 'audio_form': 'spectrogram'}),
    ('remat', {**_AGNOSTIC, 'use_remat': True}),
    (
      'remat_without_dropout',
      {**_SPECIFIC, 'use_remat': True, 'dropout_rate': 0.0},
    ),
  )
  def test_matrix_products(self, arguments):
    model = vatt_models.build_vatt(
      **arguments,
      vocabulary_size=50,
      video_patch_size=(2, 4, 4),
      num_frames=4,
      frame_size=12,
      num_audio_samples=1280,
      num_spectrogram_frames=40,
      max_words=6,
      d_va=10,
      d_vt=6,
      d_post_projection=14,
    )
    is_spectrogram = arguments.get('audio_form') == 'spectrogram'
    audio = 'spectrogram' if is_spectrogram else 'audio'
    shapes = {
      'video': (4, 12, 12, 3),
      'audio': (40, 80) if is_spectrogram else (1280, 1),
      'text': (6,),
    }
    batch, captions = 3, 2
    specs = {
      'video': tf.TensorSpec([batch, *shapes['video']]),
      audio: tf.TensorSpec([batch, *shapes['audio']]),
      'text': tf.TensorSpec([batch, captions, 6], tf.int32),
    }
    rows = {'video': batch, 'audio': batch, 'text': batch * captions}

    def total(count):
      return sum(
        rows[modality] * count(modality) for modality in model.modalities
      )

    for training in (False, True):
      operations, _ = graph_costs.trace(model, specs, training)
      self.assertEqual(
        graph_costs.flops(operations),
        total(
          lambda modality, training=training: (
            sum(
              model.towers[modality].flops(shapes[modality], training).values()
            )
            + model.head.flops(modality)
          )
        ),
      )
    operations, _ = graph_costs.trace(
      model, specs, training=True, with_gradients=True
    )
    self.assertEqual(
      graph_costs.flops(operations),
      total(
        lambda modality: (
          sum(model.towers[modality].step_flops(shapes[modality]).values())
          + 3 * model.head.flops(modality)
        )
      ),
    )

  def test_frozen_words(self):
    model = vatt_models.build_vatt(
      **_AGNOSTIC, vocabulary_size=50, is_table_frozen=True
    )
    step = model.text_tower.step_flops((16,))
    forward = model.text_tower.flops((16,), training=True)
    self.assertEqual(step['pre_projection'], 2 * forward['pre_projection'])


class TokensTest(tf.test.TestCase):
  def test_tokens(self):
    model = _weightless(**_AGNOSTIC, vocabulary_size=50)
    for modality, whole, kept in (
      ('video', 1569, 785),
      ('audio', 1201, 601),
      ('text', 17, 17),
    ):
      tower, shape = model.towers[modality], _CLIP[modality]
      self.assertEqual(tower.num_tokens(shape), whole)
      self.assertEqual(tower.num_tokens(shape, training=True), kept)

  def test_bad_shape(self):
    model = _weightless(**_AGNOSTIC, vocabulary_size=50)
    with self.assertRaisesRegex(ValueError, 'multiple of the patch size'):
      model.video_tower.flops((32, 225, 224, 3))


if __name__ == '__main__':
  tf.test.main()
