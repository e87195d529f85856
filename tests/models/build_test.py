"""The model files: parameter counts, weight names, the graph at full size.

`python tests/models/build_test.py --update` writes the golden files anew.
"""

import gc
import json
import pathlib
import sys

from absl.testing import parameterized
import gin
import tensorflow as tf

from tests import shared_data
from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import (
  gin_utils,
  randomness,
)
from vatt_tf.losses import contrastive

_GOLDEN = pathlib.Path(__file__).parent / 'golden'
_NAMES = (
  'ma_base',
  'ma_large',
  'ma_medium',
  'ms_bbs',
  'ms_lbs',
  'ms_mbs',
  'sample',
)


def _build(name, *bindings):
  gin_utils.parse([f'gin/pretrain_{name}.gin'], bindings)
  return gin_utils.get_task().build_model()


def _small_weight_names(name):
  """Names and ranks of a model's weights, at a small width."""
  towers = ('video/PatchTower', 'audio/PatchTower', 'TextTower')
  if name.startswith('ma_'):
    towers = ('share_encoder',)
  bindings = [
    'VOCABULARY_SIZE = 8',
    *(f'{tower}.size = @Size()' for tower in towers),
    'Size.num_layers = 2',
    'Size.d_model = 8',
    'Size.d_ff = 8',
    'Size.num_heads = 2',
  ]
  return [
    f'{weight.name} {weight.shape.rank}'
    for weight in _build(name, *bindings).weights
  ]


def _is_of_broadcast(tensor):
  """Whether this is a part of the gradient of a broadcast.

  The axes to sum over are an op's result, though a compiler derives them from
  the static shapes of its inputs, and the sum is reshaped to a static shape.
  """
  operation = tensor.op
  if operation.type == 'Sum':
    is_reshaped = all(
      user.type == 'Reshape' and user.outputs[0].shape.is_fully_defined()
      for user in tensor.consumers()
    )
    return is_reshaped and _is_of_broadcast(operation.inputs[1])
  if operation.type != 'BroadcastGradientArgs':
    return False
  return all(tf.get_static_value(x) is not None for x in operation.inputs)


class BuildTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(gc.collect)
    self.addCleanup(gin.clear_config)

  @parameterized.parameters(
    ('ma_medium', 'ut_fac_medium'),
    ('ms_bbs', 'tx_fac_bbs'),
    ('ms_mbs', 'tx_fac_mbs'),
    ('ms_lbs', 'tx_fac_lbs'),
  )
  def test_parameters_of_the_release(self, name, listing):
    path = shared_data.path('fixtures', 'listings', f'{listing}.json')
    model = _build(name)
    released = json.loads(path.read_text())
    self.assertEqual(model.count_params(), released['parameters'])
    self.assertLen(model.weights, len(released['variables']))

  def test_parameters(self):
    golden = json.loads((_GOLDEN / 'parameters.json').read_text())
    self.assertSameElements(golden, _NAMES)
    for name, count in golden.items():
      self.assertEqual(_build(name).count_params(), count, name)
      gc.collect()

  @parameterized.parameters('ma_medium', 'ms_bbs')
  def test_weight_names(self, name):
    golden = (_GOLDEN / f'weights_{name}.txt').read_text().splitlines()
    self.assertEqual(_small_weight_names(name), golden)

  def test_initial_values(self):
    model = _build('ms_bbs')
    deviations = {
      'text_encoder/layer_0/attention/q/kernel': (512 * 64) ** -0.5,
      'text_encoder/layer_0/attention/k/kernel': 512**-0.5,
      'text_encoder/layer_0/attention/o/kernel': 512**-0.5,
      'text_encoder/layer_0/feed_forward/wo/kernel': 2048**-0.5,
      'video_encoder/layer_0/attention/q/kernel': (2 / 1536) ** 0.5,
      'video_embedding/tokenizer/kernel': (2 / (3072 + 768)) ** 0.5,
    }
    found = {weight.name[5:-2]: weight for weight in model.weights}
    for name, deviation in deviations.items():
      value = float(tf.math.reduce_std(found[name]))
      self.assertNear(value, deviation, 0.02 * deviation, name)

  def test_full_size_step_has_static_shapes_and_no_host_ops(self):
    """What a TPU needs; it is traced, not run.

    All sizes are the paper's but the number of layers: two are like twelve.
    """
    model = _build(
      'ma_medium',
      'share_encoder.size = @Size()',
      'Size.num_layers = 2',
      'Size.d_model = 1024',
      'Size.d_ff = 4096',
      'Size.num_heads = 16',
    )
    batch, captions = 2, 5
    specs = {
      'video': tf.TensorSpec([batch, 32, 224, 224, 3]),
      'audio': tf.TensorSpec([batch, 153600, 1]),
      'text': tf.TensorSpec([batch, captions, 16], tf.int32),
      'video_mask': tf.TensorSpec([batch], tf.bool),
      'audio_mask': tf.TensorSpec([batch], tf.bool),
      'text_mask': tf.TensorSpec([batch, captions], tf.bool),
    }

    @tf.function(autograph=False)
    def step(features, index):
      with tf.GradientTape() as tape:
        outputs = model(features, training=True, rng=randomness.make(1, index))
        loss = contrastive.contrastive_loss(
          outputs['video_va'],
          outputs['audio_va'],
          features['video_mask'],
          features['audio_mask'],
        ).loss
        loss += contrastive.contrastive_loss(
          outputs['video_vt'],
          outputs['text_vt'],
          features['video_mask'],
          features['text_mask'],
        ).loss
      return loss, tape.gradient(loss, model.trainable_variables)

    concrete = step.get_concrete_function(specs, tf.TensorSpec([], tf.int64))
    operations = concrete.graph.get_operations()
    self.assertGreater(len(operations), 1000)
    for operation in operations:
      self.assertNoCommonElements(
        [operation.type],
        ['PyFunc', 'EagerPyFunc', 'Print', 'PrintV2', 'Assert', 'Unique'],
      )
      self.assertNotIn('Lookup', operation.type)
      for tensor in operation.outputs:
        if tensor.dtype == tf.resource:  # the variables
          continue
        self.assertNotEqual(tensor.dtype, tf.string, tensor.name)
        self.assertTrue(
          tensor.shape.is_fully_defined() or _is_of_broadcast(tensor),
          f'{tensor.name} {tensor.shape}',
        )


def _update():
  counts = {}
  for name in _NAMES:
    counts[name] = _build(name).count_params()
    gc.collect()
  (_GOLDEN / 'parameters.json').write_text(json.dumps(counts, indent=2) + '\n')
  for name in ('ma_medium', 'ms_bbs'):
    lines = _small_weight_names(name)
    (_GOLDEN / f'weights_{name}.txt').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
  if '--update' in sys.argv:
    _update()
  else:
    tf.test.main()
