"""One test that every layer passes."""

import os
import tempfile

import numpy as np
import tensorflow as tf
import tf_keras


def _floats(outputs):
  return [x for x in tf.nest.flatten(outputs) if x.dtype.is_floating]


def run_layer_test(
  test,
  layer_class,
  arguments,
  inputs,
  call_arguments=None,
  is_random=False,
  expected_shape=None,
  has_gradient=True,
  half_tolerance=0.05,
):
  """Checks a layer in all the ways in which it is used.

  Config round trip; the same outputs from the copy with the same weights;
  symbolic use in a functional model; eager and in a `tf.function`; one
  gradient step, in which every trainable weight takes part; mixed_bfloat16;
  SavedModel and back.

  Args:
    test: a `tf.test.TestCase`.
    layer_class: the class.
    arguments: dictionary of its arguments.
    inputs: a float or integer array, or a dictionary of arrays: the first
      argument of the call, its axis 0 the batch.
    call_arguments: dictionary of further arguments of the call.
    is_random: bool, whether the call takes `training` and `rng` and draws
      random numbers in training.
    expected_shape: tuple or None, shape of the first output.
    has_gradient: bool, False for layers without weights.
    half_tolerance: float, for outputs under mixed_bfloat16.

  Returns:
    The outputs of the layer, of an eager call in inference.
  """
  call_arguments = call_arguments or {}
  inputs = tf.nest.map_structure(tf.constant, inputs)
  name = 'under_test'

  # Eager, and what the layer says of itself.
  tf_keras.utils.set_random_seed(1)
  layer = layer_class(**arguments, name=name)
  outputs = layer(inputs, **call_arguments)
  if expected_shape is not None:
    test.assertEqual(
      tuple(tf.nest.flatten(outputs)[0].shape), tuple(expected_shape)
    )
  names = [weight.name for weight in layer.weights]
  test.assertLen(set(names), len(names))
  for weight_name in names:
    test.assertStartsWith(weight_name, f'{name}/')

  # Config round trip.
  config = layer.get_config()
  for key, value in arguments.items():
    test.assertIn(key, config)
    if isinstance(value, (int, float, str, bool, type(None), dict)):
      test.assertEqual(config[key], value, key)
  copy = layer_class.from_config(config)
  test.assertEqual(copy.get_config(), config)
  copy(inputs, **call_arguments)
  test.assertEqual([weight.name for weight in copy.weights], names)
  copy.set_weights(layer.get_weights())
  test.assertAllClose(copy(inputs, **call_arguments), outputs)

  # Inside a function.
  function = tf.function(lambda x: layer(x, **call_arguments), autograph=False)
  test.assertAllClose(function(inputs), outputs, atol=1e-5, rtol=1e-5)

  # Symbolic.
  symbols = tf.nest.map_structure(
    lambda x: tf_keras.Input(batch_shape=x.shape, dtype=x.dtype), inputs
  )
  symbolic = layer(symbols, **call_arguments)
  model = tf_keras.Model(symbols, symbolic)
  test.assertAllClose(model(inputs), outputs, atol=1e-5, rtol=1e-5)
  tf.nest.map_structure(
    lambda s, o: test.assertEqual(s.shape, o.shape), symbolic, outputs
  )

  # One gradient step.
  if has_gradient:
    training = {'training': True} if is_random else {}
    optimizer = tf_keras.optimizers.SGD(0.1)
    with tf.GradientTape() as tape:
      trained = _floats(copy(inputs, **call_arguments, **training))
      weights = [
        tf.constant(np.random.RandomState(i).randn(*x.shape), x.dtype)
        for i, x in enumerate(trained)
      ]
      loss = tf.add_n([tf.reduce_sum(x * w) for x, w in zip(trained, weights)])
    gradients = tape.gradient(loss, copy.trainable_weights)
    for gradient, weight in zip(gradients, copy.trainable_weights):
      test.assertIsNotNone(gradient, weight.name)
      finite = tf.math.is_finite(tf.convert_to_tensor(gradient))
      test.assertTrue(tf.reduce_all(finite), weight.name)
    optimizer.apply_gradients(zip(gradients, copy.trainable_weights))
    changed = [
      np.any(a != b) for a, b in zip(copy.get_weights(), layer.get_weights())
    ]
    test.assertTrue(any(changed))

  # Half precision: weights in float32, outputs near those of float32.
  half = layer_class.from_config(
    {**config, 'dtype': tf_keras.mixed_precision.Policy('mixed_bfloat16')}
  )
  half(inputs, **call_arguments)
  half.set_weights(layer.get_weights())
  half_outputs = _floats(half(inputs, **call_arguments))
  for weight in half.weights:
    test.assertEqual(weight.dtype.base_dtype, tf.float32, weight.name)
  for a, b in zip(half_outputs, _floats(outputs)):
    test.assertEqual(a.dtype, tf.bfloat16)
    scale = float(tf.reduce_max(tf.abs(b))) or 1.0
    test.assertAllClose(
      tf.cast(a, tf.float32) / scale, b / scale, atol=half_tolerance, rtol=0
    )

  # SavedModel.
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'saved')
    model.save(path, save_format='tf')
    loaded = tf_keras.models.load_model(path)
    test.assertAllClose(loaded(inputs), outputs, atol=1e-5, rtol=1e-5)
  return outputs
