"""The summary: its sums, its memory, its table."""

import json

from absl.testing import parameterized
import tensorflow as tf

from tests import vatt_models
from vatt_tf.analysis import summary
from vatt_tf.input_pipeline import audio_config, text, video_config
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.models import sizes

_FEATURES = plan_lib.row_spec(
  video_config.VideoConfig(num_frames=8, frame_size=32),
  audio_config.AudioConfig(num_samples=1280),
  text.TextConfig(num_captions=3, max_words=6),
)
_AGNOSTIC = {'size': sizes.Size(2, 8, 32, 2, d_kv=4)}
_SPECIFIC = {
  f'{modality}_size': sizes.Size(2, 8, 32, 2, d_kv=4)
  for modality in ('video', 'audio', 'text')
}


def _model(**arguments):
  with tf.Graph().as_default():
    return vatt_models.build_vatt(**arguments, vocabulary_size=50)


class SummaryTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(
    _AGNOSTIC,
    _SPECIFIC,
    {**_AGNOSTIC, 'pairs': ('video_text',)},
  )
  def test_parameters(self, **arguments):
    model = _model(**arguments)
    found = summary.summarize(model, _FEATURES, batch_size=4)
    self.assertEqual(found['total']['parameters'], model.count_params())
    self.assertEqual(
      sum(tower['parameters'] for tower in found['towers'].values())
      + sum(
        found[part]['parameters']
        for part in ('shared_encoder', 'heads', 'other')
      ),
      model.count_params(),
    )
    variables = sum(
      variable.shape.num_elements() for variable in model.variables
    )
    self.assertEqual(found['total']['parameters'], variables)
    self.assertEqual(found['other']['parameters'], 0)

  def test_captions_count(self):
    model = _model(**_SPECIFIC)
    found = summary.summarize(model, _FEATURES, batch_size=4)
    tower = found['towers']['text']
    one = model.text_tower.flops((6,))
    self.assertEqual(tower['flops'], 3 * sum(one.values()))
    self.assertEqual(tower['paper_flops'], model.text_tower.paper_flops((6,)))
    self.assertEqual(tower['tokens'], 7)
    heads = found['heads']['flops']
    # Video: three maps. Audio: two. Text: one, of three captions.
    self.assertEqual(
      heads,
      2 * (8 * 512 + 512 * 512 + 512 * 256)
      + 2 * (8 * 512 + 512 * 256)
      + 3 * 2 * 8 * 256,
    )

  def test_step(self):
    model = _model(**_AGNOSTIC)
    found = summary.summarize(
      model, _FEATURES, batch_size=4, flops_per_second=1e9
    )
    total = found['total']
    self.assertEqual(found['step']['flops'], 4 * total['step_flops'])
    self.assertAllClose(found['step']['seconds'], 4 * total['step_flops'] / 1e9)
    # DropToken is on, and backward costs about twice what forward does.
    self.assertLess(total['training_flops'], total['flops'])
    self.assertBetween(total['step_flops'] / total['training_flops'], 2.0, 4.0)
    used = found['memory']
    self.assertEqual(used['inputs'], 4 * 4 * (8 * 32 * 32 * 3 + 1280 + 3 * 6))
    self.assertEqual(
      used['kept_activations'],
      sum(
        model.towers[modality].activation_bytes(shape, num_rows).kept
        for modality, shape, num_rows in (
          ('video', (8, 32, 32, 3), 4),
          ('audio', (1280, 1), 4),
          ('text', (6,), 12),
        )
      ),
    )
    self.assertEqual(
      used['total'],
      used['weights_gradients_and_moments']
      + used['inputs']
      + used['peak_activations'],
    )

  def test_state(self):
    model = _model(**_AGNOSTIC, d_va=10, d_vt=6)
    found = summary.summarize(model, _FEATURES, batch_size=4)
    fixed = 2 * (10 + 10 + 6)  # moving statistics of the heads' norms
    trained = model.count_params() - fixed
    self.assertEqual(
      found['memory']['weights_gradients_and_moments'],
      4 * (4 * trained + fixed),
    )

  def test_micro_batches(self):
    model = _model(**_AGNOSTIC)
    whole = summary.summarize(model, _FEATURES, batch_size=2)
    found = summary.summarize(
      model, _FEATURES, batch_size=8, micro_batch_size=2
    )
    for key in ('kept_activations', 'workspace'):
      self.assertEqual(found['memory'][key], whole['memory'][key])
    total = found['total']
    again = total['training_flops'] - found['heads']['training_flops']
    self.assertEqual(found['step']['flops'], 8 * (total['step_flops'] + again))
    self.assertIn('8 clips in micro-batches of 2', summary.format_table(found))

  def test_table(self):
    model = _model(**_AGNOSTIC)
    found = summary.summarize(
      model, _FEATURES, batch_size=4, flops_per_second=2e9
    )
    table = summary.format_table(found)
    for part in (
      'modality-agnostic',
      'video',
      'audio',
      '3 x 7',
      'shared encoder',
      'heads',
      f'{model.count_params():,}',
      'a step of 4 clips',
      'at 2.00 GFLOP/s',
    ):
      self.assertIn(part, table)
    self.assertEqual(json.loads(json.dumps(found)), found)

  def test_bad_input(self):
    model = _model(**_AGNOSTIC)
    without = {k: v for k, v in _FEATURES.items() if k != 'audio'}
    with self.assertRaisesRegex(ValueError, "the input 'audio'"):
      summary.summarize(model, without, batch_size=4)
    with self.assertRaisesRegex(ValueError, '`flops_per_second` must be'):
      summary.summarize(model, _FEATURES, batch_size=4, flops_per_second=0.0)


if __name__ == '__main__':
  tf.test.main()
