"""The recipes of fine-tuning on sound, on one device and on two."""

from absl.testing import parameterized
import tensorflow as tf

from tests import logical_devices
from tests.training import recipes
from vatt_tf import configurables  # noqa: F401


def setUpModule():
  logical_devices.make()


_SMALL = ('AUDIO_RATE=4000', 'NUM_AUDIO_SAMPLES=1600')
_WAVEFORM = ('audio/PatchTower.patch_size=(64,)', 'TABLE_AUDIO_SAMPLES=1280')
_SPECTROGRAM = (
  'AudioConfig.max_frequency=2000.0',
  'AudioConfig.min_frequency=100.0',
  'NUM_MEL_BINS=16',
  'audio/PatchTower.patch_size=(4, 4)',
  'TABLE_SPECTROGRAM_FRAMES=16',
  'AudioConfig.max_time_mask=4',
  'AudioConfig.max_frequency_mask=4',
)


class AudioRecipesTest(recipes.RecordsCase, parameterized.TestCase):
  @parameterized.parameters(
    ('finetune_audioset', 'audio/', _WAVEFORM, 4),
    ('finetune_esc50', 'audio/', _WAVEFORM, 4),
    ('scratch_esc_waveform', 'audio/', _WAVEFORM, 1),
    ('scratch_esc_spectrogram', 'audio/', _SPECTROGRAM, 1),
  )
  def test_one_and_two_devices(self, recipe, scope, params, num_views):
    _, metrics, text = recipes.check_devices(
      self,
      recipe,
      self.folder,
      *_SMALL,
      *params,
      *recipes.sizes(scope),
    )
    self.assertEqual(metrics['num_clips'], 5)
    self.assertEqual(metrics['num_views'], num_views)
    is_multi_label = recipe == 'finetune_audioset'
    self.assertEqual('mAP' in metrics, is_multi_label)
    self.assertIn('mAP' if is_multi_label else 'top_1', text)


if __name__ == '__main__':
  tf.test.main()
