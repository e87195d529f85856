"""The benchmark of ingest: it measures, and it sees what would be wrong."""

import os
from unittest import mock

from absl.testing import parameterized
import cv2
import numpy as np
import tensorflow as tf

from benchmarks import ingest


class IngestBenchmarkTest(parameterized.TestCase, tf.test.TestCase):
  def test_measure(self):
    with (
      mock.patch.object(ingest, '_NUM_VIDEOS', 2),
      mock.patch.object(ingest, '_NUM_LOSSLESS', 2),
      mock.patch.object(ingest, '_NUM_COMPARED', 1),
    ):
      found = ingest.measure(num_clips=5)
    self.assertEqual(found['num_records'], 5)
    self.assertGreater(found['clips_per_second'], 0)
    self.assertGreater(found['decode_clips_per_second'], 0)
    self.assertGreater(found['seconds'], found['startup_seconds'])
    content = found['content']
    self.assertEqual(content['num_records'], 5)
    self.assertEqual(content['num_different_records'], 5)
    self.assertEqual(content['frame_sizes'], [(320, 256)])
    self.assertEqual(content['frames'], [30])
    self.assertEqual(content['samples'], [144_000])
    self.assertEqual(content['num_not_finite'], 0)
    self.assertEqual(content['num_denormal'], 0)
    self.assertLess(content['largest_pitch_error_hz'], 0.2)
    self.assertLess(content['largest_sound_error_db'], -25)
    self.assertLess(content['largest_lossless_sound_error_db'], -75)
    self.assertGreater(content['smallest_frame_psnr_db'], 34)

  def test_a_command_that_fails(self):
    folder = self.create_tempdir().full_path
    with self.assertRaisesRegex(RuntimeError, 'none.csv'):
      ingest.run_ingest(
        os.path.join(folder, 'none.csv'), os.path.join(folder, 'out')
      )

  def test_right_sound(self):
    found = ingest.compare_sound(ingest.make_tone(7, 48_000, [0.4])[0], 7)
    self.assertEqual(found['num_samples'], 144_000)
    self.assertEqual((found['num_not_finite'], found['num_denormal']), (0, 0))
    self.assertNear(found['hz'], ingest.pitch(7), 0.2)
    self.assertNear(found['level'], 0.4, 1e-6)
    self.assertLess(found['error_db'], -120)

  def test_wrong_sound(self):
    right = ingest.make_tone(7, 48_000, [0.4])[0]
    # A sample too late.
    found = ingest.compare_sound(np.roll(right, 1), 7)
    self.assertGreater(found['error_db'], -30)
    self.assertNear(ingest.compare_sound(right / 2, 7)['level'], 0.2, 1e-6)
    # Sound of 44.1 kHz that is said to be of 48 kHz.
    found = ingest.compare_sound(ingest.make_tone(7, 44_100, [0.4])[0], 7)
    self.assertEqual(found['num_samples'], 132_300)
    self.assertNear(found['hz'], ingest.pitch(7) * 48 / 44.1, 0.4)
    # Integers whose bits were read as floats.
    integers = np.round(right * 32768).astype(np.int32)
    found = ingest.compare_sound(integers.view(np.float32), 7)
    self.assertGreater(found['num_denormal'], 70_000)
    self.assertGreater(found['num_not_finite'], 70_000)

  def test_pictures(self):
    frames = ingest.make_frames(0)
    self.assertEqual(frames.shape, (75, 288, 360, 3))

    def encode(numbers):
      return [
        cv2.imencode(
          '.jpg',
          cv2.resize(
            frames[i][..., ::-1], (320, 256), interpolation=cv2.INTER_AREA
          ),
        )[1].tobytes()
        for i in numbers
      ]

    right = [0, 2, 5, 7, 10, 12]
    self.assertGreater(ingest.compare_frames(encode(right), frames), 35)
    wrong = [number + 1 for number in right]
    self.assertLess(ingest.compare_frames(encode(wrong), frames), 33)


if __name__ == '__main__':
  tf.test.main()
