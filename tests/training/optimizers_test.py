"""Tests of decay, multipliers, freezing and averages, against NumPy."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf
import tf_keras

from tests import logical_devices
from vatt_tf.checkpoints import ema
from vatt_tf.core import collectives, strategies
from vatt_tf.layers import cross_replica_batch_norm
from vatt_tf.training import schedules

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.99, 1e-7


def setUpModule():
  logical_devices.make()


def _build(layer):
  with tf.name_scope(layer.name):
    layer.build([None, 3])


class _Block(tf_keras.layers.Layer):
  """Batch normalisation, dense, tanh."""

  def build(self, input_shape):
    del input_shape
    self.dense = tf_keras.layers.Dense(3, name='dense')
    self.norm = cross_replica_batch_norm.CrossReplicaBatchNormalization(
      name='norm'
    )
    _build(self.dense)
    _build(self.norm)
    self.built = True

  def call(self, x, training=False):
    return tf.tanh(self.dense(self.norm(x, training=training)))


class _Model(tf_keras.Model):
  """Two blocks, one after the other."""

  def __init__(self):
    super().__init__(name='model')
    self.lower, self.upper = _Block(name='lower'), _Block(name='upper')

  def build(self, input_shape):
    del input_shape
    _build(self.lower)
    _build(self.upper)
    self.built = True

  def call(self, x, training=False):
    return self.upper(self.lower(x, training=training), training=training)


def _model():
  model = _Model()
  _build(model)
  for index, weight in enumerate(model.trainable_variables):
    random = np.random.RandomState(index)
    weight.assign(1.0 + 0.5 * random.randn(*weight.shape))
  return model


def _gradients(model, step):
  random = np.random.RandomState(100 + step)
  return [
    random.randn(*weight.shape).astype(np.float32)
    for weight in model.trainable_variables
  ]


def _apply(optimizer, gradients, model):
  optimizer.apply_gradients(
    zip(map(tf.constant, gradients), model.trainable_variables, strict=True),
    experimental_aggregate_gradients=False,
  )


def _values(weights):
  return {ema.weight_name(w.name): w.numpy() for w in weights}


def _numpy_adamw(value, gradients, rate, decay):
  """The values after each gradient: Adam, and decay of the value before."""
  m, v = np.zeros_like(value), np.zeros_like(value)
  values = []
  for t, gradient in enumerate(gradients, start=1):
    m = _BETA_1 * m + (1 - _BETA_1) * gradient
    v = _BETA_2 * v + (1 - _BETA_2) * gradient**2
    scale = np.sqrt(1 - _BETA_2**t) / (1 - _BETA_1**t)
    value = value - rate * decay * value
    value = value - rate * scale * m / (np.sqrt(v) + _EPSILON)
    values.append(value)
  return values


def _optimizer(**kwargs):
  return schedules.make_optimizer(
    0.01, beta_1=_BETA_1, beta_2=_BETA_2, epsilon=_EPSILON, **kwargs
  )


class UpdateTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.named_parameters(
    ('plain', {}, {}),
    ('decay', {'weight_decay': 0.3}, {'decayed': 'kernel'}),
    (
      'decay excluded',
      {'weight_decay': 0.3, 'decay_exclude': ['^model/lower/', 'beta$']},
      {'decayed': 'upper/dense|upper/norm/gamma'},
    ),
    (
      'multipliers',
      {
        'weight_decay': 0.3,
        'learning_rate_multipliers': [('lower.*kernel', 0.1), ('lower', 3)],
      },
      {'decayed': 'kernel', 'multipliers': {'kernel': 0.1, 'other': 3}},
    ),
  )
  def test_equals_numpy(self, arguments, expected):
    model = _model()
    optimizer = _optimizer(**arguments)
    optimizer.prepare(model)
    before = _values(model.trainable_variables)
    steps = [_gradients(model, step) for step in range(4)]
    for gradients in steps:
      _apply(optimizer, gradients, model)
    for index, (name, found) in enumerate(
      _values(model.trainable_variables).items()
    ):
      rate = 0.01
      if 'multipliers' in expected and 'lower' in name:
        key = 'kernel' if 'kernel' in name else 'other'
        rate *= expected['multipliers'][key]
      parts = expected.get('decayed', 'nothing').split('|')
      decay = 0.3 * any(part in name for part in parts)
      values = _numpy_adamw(
        before[name], [gradients[index] for gradients in steps], rate, decay
      )
      self.assertAllClose(found, values[-1], rtol=2e-5, atol=2e-6, msg=name)

  def test_plain_update_is_the_fused_adam_of_tf_keras(self):
    model, reference = _model(), _model()
    optimizer = _optimizer()
    self.assertEmpty(optimizer.prepare(model))
    adam = tf_keras.optimizers.legacy.Adam(0.01, _BETA_1, _BETA_2, _EPSILON)
    for step in range(3):
      _apply(optimizer, _gradients(model, step), model)
      _apply(adam, _gradients(model, step), reference)
    for found, expected in zip(
      model.trainable_variables, reference.trainable_variables, strict=True
    ):
      self.assertAllEqual(found, expected)

  def test_sgd_equals_numpy(self):
    model = _model()
    optimizer = schedules.make_optimizer(
      0.01,
      kind='sgd',
      momentum=0.9,
      weight_decay=0.3,
      decay_exclude=['norm', 'bias'],
      learning_rate_multipliers=[('^model/lower/', 0.1)],
    )
    optimizer.prepare(model)
    before = _values(model.trainable_variables)
    steps = [_gradients(model, step) for step in range(4)]
    for gradients in steps:
      _apply(optimizer, gradients, model)
    for index, (name, found) in enumerate(
      _values(model.trainable_variables).items()
    ):
      rate = 0.001 if 'lower' in name else 0.01
      decay = 0.3 * ('kernel' in name)
      value, velocity = before[name], 0.0
      for gradients in steps:
        velocity = 0.9 * velocity - rate * gradients[index]
        value = value - rate * decay * value + velocity
      self.assertAllClose(found, value, rtol=2e-5, atol=2e-6, msg=name)

  def test_sgd_with_frozen_weights_and_average(self):
    model = _model()
    optimizer = schedules.make_optimizer(
      0.01, kind='sgd', frozen=['^model/lower/'], ema_decay=0.5
    )
    optimizer.prepare(model)
    _apply(optimizer, [1.0 + 0 * w for w in model.trainable_variables], model)
    self.assertLen(optimizer.weights, 1 + len(model.trainable_variables))
    self.assertLen(optimizer.ema.values, 4 + 2)

  def test_unknown_kind(self):
    with self.assertRaisesRegex(ValueError, "'adam' or 'sgd'.*kind='lion'"):
      schedules.make_optimizer(0.1, kind='lion')

  def test_clip_pattern(self):
    optimizer = _optimizer(clip_norm=2.0, clip_pattern='^model/lower/')
    notes = optimizer.prepare(_model())
    self.assertStartsWith(
      notes[0], 'Gradient norm at most 2 (^model/lower/): 4 of 8 weights'
    )
    self.assertTrue(optimizer.is_clipped('model/lower/dense/kernel:0'))
    self.assertFalse(optimizer.is_clipped('model/upper/dense/kernel:0'))
    with self.assertRaisesRegex(ValueError, "`clip_pattern`.*'lowr'"):
      _optimizer(clip_norm=2.0, clip_pattern='lowr').prepare(_model())

  def test_default_exclusions(self):
    optimizer = _optimizer(weight_decay=0.1)
    for name, is_decayed in (
      ('vatt/encoder/layer_0/attention/q/kernel:0', True),
      ('vatt/text_embedding/table/embeddings:0', True),
      ('vatt/encoder/layer_0/attention/q/bias:0', False),
      ('vatt/encoder/layer_0/attention/q/bias/replica_1:0', False),
      ('vatt/encoder/norm/gamma:0', False),
      ('vatt/head/va_norm/beta:0', False),
      ('vatt/text_encoder/norm/scale:0', False),
      ('vatt/video_embedding/agg:0', False),
      ('vatt/video_embedding/position_embedding/temporal:0', False),
      ('vatt/text_encoder/position_bias/embeddings:0', False),
    ):
      self.assertEqual(optimizer._do_use_weight_decay(name), is_decayed, name)


class FreezingTest(tf.test.TestCase):
  def test_frozen_weights_stay_and_have_no_moments(self):
    model = _model()
    optimizer = _optimizer(
      frozen=['^model/lower/', 'upper/dense/kernel'],
      weight_decay=0.1,
      ema_decay=0.9,
    )
    notes = optimizer.prepare(model)
    self.assertStartsWith(
      notes[0], 'Frozen: 5 of 8 trainable weights, 27 of 36 parameters'
    )
    before = _values(model.variables)
    x = np.random.RandomState(0).randn(6, 3).astype(np.float32)
    with tf.GradientTape() as tape:
      loss = tf.reduce_sum(model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    _apply(optimizer, gradients, model)
    moved = {
      name
      for name, value in _values(model.variables).items()
      if np.any(value != before[name])
    }
    self.assertEqual(
      moved,
      {
        'model/upper/dense/bias',
        'model/upper/norm/gamma',
        'model/upper/norm/beta',
        'model/upper/norm/moving_mean',
        'model/upper/norm/moving_variance',
      },
    )
    self.assertLen(optimizer.weights, 1 + 2 * 3)
    self.assertLen(optimizer.ema.values, 3 + 2)

  def test_without_prepare(self):
    model = _model()
    with self.assertRaisesRegex(ValueError, 'prepare'):
      _apply(_optimizer(frozen=['lower']), _gradients(model, 0), model)


class EmaTest(tf.test.TestCase):
  def test_equals_numpy(self):
    model = _model()
    optimizer = _optimizer(ema_decay=0.25)
    optimizer.prepare(model)
    weights = model.trainable_variables + [
      model.upper.norm.moving_mean,
      model.lower.norm.moving_variance,
    ]
    average = {name: 1.0 * value for name, value in _values(weights).items()}
    for step in range(1, 5):
      model.upper.norm.moving_mean.assign_add([1.0, 2.0, step])
      _apply(optimizer, _gradients(model, step), model)
      decay = min(0.25, (1 + step) / (10 + step))
      for name, value in _values(weights).items():
        average[name] = decay * average[name] + (1 - decay) * value
    last = _values(weights)
    with optimizer.ema.as_weights():
      for name, value in _values(weights).items():
        self.assertAllClose(value, average[name], msg=name)
        if 'variance' not in name:
          self.assertNotAllClose(value, last[name])
    for name, value in _values(weights).items():
      self.assertAllEqual(value, last[name])

  def test_weights_come_back_after_an_error(self):
    model = _model()
    optimizer = _optimizer(ema_decay=0.5)
    optimizer.prepare(model)
    _apply(optimizer, _gradients(model, 0), model)
    before = _values(model.variables)
    with self.assertRaises(ZeroDivisionError):
      with optimizer.ema.as_weights():
        _ = 1 / 0
    self.assertAllClose(before, _values(model.variables), rtol=0, atol=0)

  def test_reset_takes_the_present_weights(self):
    model = _model()
    optimizer = _optimizer(ema_decay=0.5)
    optimizer.prepare(model)
    for weight in model.variables:
      weight.assign(weight + 1)
    optimizer.ema.reset()
    expected = _values(model.variables)
    with optimizer.ema.as_weights():
      found = _values(model.variables)
    self.assertAllClose(expected, found, rtol=0, atol=0)


class ReplicasTest(tf.test.TestCase):
  def test_two_replicas_equal_one(self):
    results = []
    for strategy in (
      strategies.make_strategy('cpu'),
      strategies.make_strategy('mirrored', 2),
    ):
      with strategy.scope():
        model = _model()
        optimizer = _optimizer(
          weight_decay=0.3,
          decay_exclude=['bias$', 'norm'],
          learning_rate_multipliers=[('upper/dense/kernel$', 0.1)],
          frozen=['lower/dense'],
          ema_decay=0.5,
        )
        optimizer.prepare(model)
      rows = strategies.check_batch_divisible(8, strategy)
      x = np.random.RandomState(0).randn(8, 3).astype(np.float32)

      def replica_step(x, model=model, optimizer=optimizer):
        with tf.GradientTape() as tape:
          y = model(x, training=True)
          loss = tf.reduce_sum(tf.square(y - 3.0 * x)) / 8
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
          zip(
            collectives.all_reduce_sum(gradients),
            model.trainable_variables,
            strict=True,
          ),
          experimental_aggregate_gradients=False,
        )

      @tf.function(autograph=False)
      def step(x, strategy=strategy, replica_step=replica_step):
        strategy.run(replica_step, args=(x,))

      shares = strategy.experimental_distribute_values_from_function(
        lambda context, rows=rows, x=x: tf.constant(
          x[context.replica_id_in_sync_group * rows :][:rows]
        )
      )
      for _ in range(3):
        step(shares)
      found = []
      for weight in (*model.variables, *optimizer.ema.values):
        copies = [
          copy.numpy() for copy in strategy.experimental_local_results(weight)
        ]
        self.assertAllEqual(copies[0], copies[-1])
        found.append(copies[0])
      with optimizer.ema.as_weights():
        found += [*_values(model.variables).values()]
      results.append(found)
    for one, two in zip(*results, strict=True):
      self.assertAllClose(one, two, rtol=1e-5, atol=1e-5)


class BadArgumentsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    ({'weight_decay': -1.0}, '`weight_decay`'),
    ({'ema_decay': 1.0}, '`ema_decay`'),
    ({'ema_decay': 0.0}, '`ema_decay`'),
    (
      {'learning_rate_multipliers': [('lower', 0.0)]},
      'Use `frozen` for weights',
    ),
    (
      {'learning_rate_multipliers': [('lower', 0.5), ('lowest', 0.5)]},
      "`learning_rate_multipliers`.*'lowest'.*model/lower/dense/kernel",
    ),
    ({'decay_exclude': ['lowest']}, "`decay_exclude`.*'lowest'"),
    ({'frozen': ['kernel:0']}, "`frozen`.*'kernel:0'.*model/lower/dense/"),
    ({'frozen': ['moving_mean']}, 'no trainable weight'),
    ({'frozen': ['(']}, 'regular expressions'),
    ({'frozen': ['']}, 'leave weights to train'),
  )
  def test_bad_argument(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      _optimizer(**arguments).prepare(_model())


if __name__ == '__main__':
  tf.test.main()
