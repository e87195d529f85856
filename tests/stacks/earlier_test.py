"""What earlier versions wrote is read: configurations, tables and indexes.

`earlier/configs` holds the `config.gin` of runs whose model a builder function
made, and what it built: the number of parameters, and a hash of the names and
shapes of all weights.
"""

import hashlib
import json
import pathlib
import shutil

from absl.testing import parameterized
import gin
import numpy as np
import tensorflow as tf

from tests.stacks import stack_run
from vatt_tf import (
  configurables,  # noqa: F401
  export_saved_model,
)
from vatt_tf.core import gin_utils
from vatt_tf.embedding import table
from vatt_tf.retrieval_index import index

_FOLDER = stack_run.FOLDER / 'earlier'
_BUILT = json.loads((_FOLDER / 'configs/weights.json').read_text())


class ConfigTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(gin.clear_config)

  @parameterized.parameters(*_BUILT)
  def test_builds_the_same_model(self, name):
    gin_utils.parse([str(_FOLDER / f'configs/{name}.gin')])
    # In a graph that never runs, variables have shapes and no values.
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
    weights = sorted(f'{w.name} {list(w.shape)}' for w in model.weights)
    self.assertEqual(
      {
        'parameters': model.count_params(),
        'weights': hashlib.sha256('\n'.join(weights).encode()).hexdigest(),
      },
      _BUILT[name],
    )

  def test_the_options_of_the_towers(self):
    gin_utils.parse([str(_FOLDER / 'configs/pretrain_ma_medium.gin')])
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
    for tower in model.towers.values():
      self.assertEqual(tower.position_interpolation, 'release')
      self.assertTrue(tower.encoder.use_remat)
    self.assertEqual(model.audio_tower.input_name, 'spectrogram')

  def test_a_later_file_changes_it(self):
    gin_utils.parse(
      [str(_FOLDER / 'configs/finetune_kinetics400.gin')],
      ['NUM_CLASSES=7', 'PatchTower.drop_token_rate=0.25'],
    )
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
    self.assertEqual(model.num_classes, 7)
    self.assertEqual(model.tower.drop_token_rate, 0.25)

  @parameterized.parameters('tensorflow-2.17', 'tensorflow-2.20')
  def test_a_run_is_exported(self, stack):
    folder = stack_run.FOLDER / stack
    temporary = pathlib.Path(self.create_tempdir().full_path)
    shutil.copytree(folder / 'run', temporary / 'run')
    # By the config.gin beside the checkpoint, which binds the builder.
    path = export_saved_model.export(
      str(temporary / 'run'), str(temporary / 'saved_model')
    )
    expected = np.load(folder / 'answers.npz')
    answers = stack_run.ask(pathlib.Path(path))
    self.assertEqual(set(answers), set(expected))
    for name, value in answers.items():
      self.assertAllClose(value, expected[name], atol=1e-5, rtol=0, msg=name)


class SearchTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters('video', 'audio')
  def test_tables_and_index(self, modality):
    rows = table.read(
      str(_FOLDER / 'embeddings'), modality, f'{modality}_text_embedding'
    )
    searched = index.Index(str(_FOLDER / 'index'))
    self.assertLen(rows.path, 16)
    for path, start, vector in zip(rows.path, rows.clip_start, rows.embedding):
      (hit,) = searched.search(vector, 'video_text', [modality], 1)
      self.assertAllClose(hit.score, 1.0, atol=1e-6)
      self.assertEqual((hit.moment.path, hit.moment.start), (path, start))


if __name__ == '__main__':
  tf.test.main()
