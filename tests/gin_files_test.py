"""Every gin file parses, and gives what a run needs."""

from absl.testing import parameterized
import gin
import tensorflow as tf

from tests import shared_data
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import gin_utils

_FILES = sorted(path.name for path in (gin_utils.PACKAGE / 'gin').glob('*.gin'))


class GinFilesTest(tf.test.TestCase, parameterized.TestCase):
  def tearDown(self):
    gin.clear_config()
    super().tearDown()

  def test_top_files_are_found(self):
    self.assertIn('pretrain_ma_medium.gin', _FILES)
    self.assertIn('finetune_kinetics400.gin', _FILES)

  @parameterized.parameters(*_FILES)
  def test_top_file(self, name):
    gin_utils.parse([f'gin/{name}'])
    tasks = {'pretrain': 'PretrainTask', 'detect': 'DetectTask'}
    task = tasks.get(name.split('_')[0], 'FinetuneTask')
    gin.get_configurable(task)()
    gin.get_configurable('make_optimizer')()
    self.assertGreaterEqual(gin.query_parameter('%BATCH_SIZE'), 4)

  @parameterized.parameters(True, False)
  def test_sample_records_are_read_at_the_papers_sizes(self, is_training):
    gin_utils.parse(['gin/pretrain_ma_medium.gin'])
    root = shared_data.REPOSITORY
    params = [
      f"{macro}='{root / gin.query_parameter(f'%{macro}')}'"
      for macro in ('TRAIN_RECORDS', 'EVAL_RECORDS', 'VOCABULARY')
    ]
    gin_utils.parse(['gin/pretrain_ma_medium.gin'], params)
    with gin.config_scope('train' if is_training else 'eval'):
      dataset = gin.get_configurable('make_dataset')(global_batch_size=4)
    spec = dataset.element_spec
    self.assertEqual(spec['video'].shape, [4, 32, 224, 224, 3])
    self.assertEqual(spec['audio'].shape, [4, 153600, 1])
    self.assertEqual(spec['text'].shape, [4, 5, 16])

  def test_a_classifier_with_an_image_network(self):
    gin_utils.parse(
      ['gin/finetune_imagenet.gin', 'gin/models/mmv.gin'],
      ['NUM_FRAMES=1', 'video/S3DTower.is_deflated=True'],
    )
    with tf.Graph().as_default():
      model = gin_utils.get_task().build_model()
    self.assertEqual(type(model.tower).__name__, 'S3DTower')
    self.assertTrue(model.tower.is_deflated)
    self.assertEqual(gin.query_parameter('%FRAME_SIZE'), 224)

  @parameterized.parameters(
    ('pretrain_ma_medium', 2048, 10_000), ('pretrain_mmv_s3d', 4096, 5_000)
  )
  def test_the_papers_run(self, name, batch_size, warmup_steps):
    gin_utils.parse(
      [
        f'gin/{name}.gin',
        'gin/runs/paper.gin',
        'gin/data/howto100m_audioset.gin',
      ]
    )
    run = gin.get_bindings('train')
    self.assertEqual(run['global_batch_size'], batch_size)
    schedule = gin.get_configurable('WarmupCosine')()
    self.assertEqual(schedule.total_steps, 500_000)
    self.assertEqual(schedule.warmup_steps, warmup_steps)
    with gin.config_scope('train'):
      with self.assertRaisesRegex(ValueError, 'HOWTO100M_RECORDS'):
        gin.get_configurable('make_dataset')(global_batch_size=4)


if __name__ == '__main__':
  tf.test.main()
