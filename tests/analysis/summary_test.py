"""The summary: its sums, its memory, its table."""

import json

from absl.testing import parameterized
import tensorflow as tf

from vatt_tf.analysis import flops, memory, summary
from vatt_tf.input_pipeline import audio, pipeline, text, video
from vatt_tf.models import build

_FEATURES = pipeline.row_spec(
  video.VideoConfig(num_frames=8, frame_size=32),
  audio.AudioConfig(num_samples=1280),
  text.TextConfig(num_captions=3, max_words=6),
)
_AGNOSTIC = {'size': build.Size(2, 8, 32, 2, d_kv=4)}
_SPECIFIC = {
  f'{modality}_size': build.Size(2, 8, 32, 2, d_kv=4)
  for modality in ('video', 'audio', 'text')
}


def _model(**arguments):
  with tf.Graph().as_default():
    return build.build_model(**arguments, vocabulary_size=50)


class SummaryTest(parameterized.TestCase, tf.test.TestCase):

  @parameterized.parameters(
    _AGNOSTIC,
    _SPECIFIC,
    {**_AGNOSTIC, 'video_audio_weight': 0},
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
    one = flops.tower_flops(model, 'text', (6,))
    self.assertEqual(tower['flops'], 3 * sum(one.values()))
    self.assertEqual(
      tower['paper_flops'], flops.paper_flops(model, 'text', (6,))
    )
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
    self.assertBetween(
      total['step_flops'] / total['training_flops'], 2.0, 4.0
    )
    used = found['memory']
    self.assertEqual(
      used['inputs'], 4 * 4 * (8 * 32 * 32 * 3 + 1280 + 3 * 6)
    )
    self.assertEqual(
      used['kept_activations'],
      memory.kept_bytes(model, 'video', (8, 32, 32, 3), 4)
      + memory.kept_bytes(model, 'audio', (1280, 1), 4)
      + memory.kept_bytes(model, 'text', (6,), 12),
    )
    self.assertEqual(
      used['total'],
      used['weights_gradients_and_moments']
      + used['inputs']
      + used['peak_activations'],
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
    self.assertEqual(
      found['step']['flops'], 8 * (total['step_flops'] + again)
    )
    self.assertIn('8 clips in micro-batches of 2', summary.format_table(found))

  def test_table(self):
    model = _model(**_AGNOSTIC)
    found = summary.summarize(
      model, _FEATURES, batch_size=4, flops_per_second=2e9
    )
    table = summary.format_table(found)
    for part in (
      'modality-agnostic', 'video', 'audio', '3 x 7', 'shared encoder', 'heads',
      f'{model.count_params():,}', 'a step of 4 clips', 'at 2.00 GFLOP/s',
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
