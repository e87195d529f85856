"""What one stack wrote, read on this one: checkpoints and exported models."""

import json
import pathlib
import shutil

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.stacks import stack_run

_STACKS = ('tensorflow-2.17', 'tensorflow-2.20')


class StacksTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters(*_STACKS)
  def test_exported_model(self, stack):
    folder = stack_run.FOLDER / stack
    expected = np.load(folder / 'answers.npz')
    answers = stack_run.ask(folder / 'saved_model/1')
    self.assertEqual(set(answers), set(expected))
    for name, value in answers.items():
      self.assertAllClose(value, expected[name], atol=1e-5, rtol=0, msg=name)

  @parameterized.parameters(*_STACKS)
  def test_checkpoint(self, stack):
    folder = stack_run.FOLDER / stack
    expected = json.loads((folder / 'loss.json').read_text())
    run = pathlib.Path(self.create_tempdir().full_path) / 'run'
    shutil.copytree(folder / 'run', run)
    losses = stack_run.train(run, expected['step'])
    # It went on: no step before it was done again.
    self.assertEqual(set(losses), {expected['step']})
    self.assertAlmostEqual(
      losses[expected['step']], expected['loss'], delta=1e-3
    )

  def test_both_stacks_compute_the_same(self):
    answers = [
      np.load(stack_run.FOLDER / stack / 'answers.npz') for stack in _STACKS
    ]
    for name in answers[0]:
      self.assertAllClose(answers[0][name], answers[1][name], atol=1e-4)


if __name__ == '__main__':
  tf.test.main()
