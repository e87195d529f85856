"""A few inputs of each target of the fuzzer, and what it does at a fault."""

import os
import time
from unittest import mock

from absl.testing import parameterized
import tensorflow as tf

from tests.fuzz import captions_target, mutations, run
from vatt_tf.media import caption_cues


class SmokeTest(parameterized.TestCase, tf.test.TestCase):
  @classmethod
  def tearDownClass(cls):
    run.close()
    super().tearDownClass()

  @parameterized.parameters(
    ('media', 1),
    ('captions', 20),
    ('manifests', 20),
    ('records', 10),
    ('checkpoints', 5),
    ('requests', 5),
  )
  def test_few_inputs(self, target, num_inputs):
    self.assertIn(target, run.TARGETS)
    self.assertEqual(run.fuzz(target, seed=7, examples=num_inputs), num_inputs)

  def test_every_target_is_run(self):
    folder = os.path.dirname(run.__file__)
    names = [
      name.removesuffix('_target.py')
      for name in os.listdir(folder)
      if name.endswith('_target.py')
    ]
    self.assertCountEqual(names, run.TARGETS)

  def test_finds_a_fault_and_shows_a_small_input(self):
    unroll = caption_cues.unroll

    def forgetful(raw):
      return [cue for cue in unroll(raw) if 'café' not in cue.text]

    with (
      mock.patch.object(caption_cues, 'unroll', forgetful),
      self.assertRaises(AssertionError) as raised,
    ):
      run.fuzz('captions', seed=0, examples=300)
    note = '\n'.join(raised.exception.__notes__)
    self.assertIn('Input of captions:', note)
    self.assertIn('caf', note)
    self.assertLess(len(note), 300)

  def test_inputs_follow_from_the_seed(self):
    drawn = []
    for seed in (1, 1, 2):
      values = []
      with mock.patch.object(captions_target, 'check', values.append):
        run.fuzz('captions', seed, 10)
      drawn.append(repr(values))
    self.assertEqual(drawn[0], drawn[1])
    self.assertNotEqual(drawn[0], drawn[2])

  def test_ends_in_time(self):
    start = time.monotonic()
    with mock.patch.object(
      captions_target, 'check', lambda value: time.sleep(0.05)
    ):
      count = run.fuzz('captions', 0, 1000, end=start + 1)
    # On a busy machine the first input may come late.
    self.assertLess(time.monotonic() - start, 20)
    self.assertLess(count, 25)

  def test_operations(self):
    data, other = b'abcdefgh', b'12345678'
    for operation, expected in (
      (('zero', 0.25, 0.25), b'ab\0\0efgh'),
      (('number', 0.5, b'wxyz'), b'abcdwxyz'),
      (('head', 6, b'wxyz'), b'abcdefwx'),
      (('cut', 0.5), b'abcd'),
      (('delete', 0.5, 0.25), b'abcdgh'),
      (('repeat', 0.5, 0.25), b'abcdefefgh'),
      (('swap', 0.0, 0.5, 0.25), b'efcdabgh'),
      (('insert', 0.5, 0.5, 0.25), b'abcd56efgh'),
      (('join',), b'abcdefgh12345678'),
      (('splice', 0.5, 0.5), b'abcd5678'),
    ):
      self.assertEqual(mutations.apply(data, other, operation), expected)
    flipped = mutations.apply(data, other, ('flip', [0.5]))
    self.assertLen(flipped, 8)
    self.assertNotEqual(flipped, data)


if __name__ == '__main__':
  tf.test.main()
