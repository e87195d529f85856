"""Random values and gradients for tests of layers."""

import numpy as np
import tensorflow as tf


def random(*shape, seed=0):
  return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def gradients(function, *inputs):
  """Gradients of a random projection of a function's output."""
  inputs = [tf.constant(x) for x in inputs]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    y = function(*inputs)
    loss = tf.reduce_sum(y * random(*y.shape, seed=9))
  return y, tape.gradient(loss, inputs)
