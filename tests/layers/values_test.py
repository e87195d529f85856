"""Values and gradients of the layers against NumPy, written from equations."""

import math

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests.layers import layer_values
from vatt_tf.core import randomness
from vatt_tf.layers import (
  activations,
  feed_forward,
  layer_norm,
  multi_head_attention,
  relative_position_bias,
  transformer_encoder,
)


class FunctionsTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters('gelu', 'gelu_tanh')
  def test_gelu(self, name):
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    value, gradient = layer_values.gradients(activations.get(name), x)
    exact = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]
    if name == 'gelu':
      self.assertAllClose(value, exact, atol=1e-6)
    else:
      self.assertAllClose(value, exact, atol=1e-3)
    expected, expected_gradient = layer_values.gradients(
      lambda x: tf.nn.gelu(x, approximate=name == 'gelu_tanh'), x
    )
    self.assertAllClose(value, expected, atol=1e-6)
    self.assertAllClose(gradient, expected_gradient, atol=1e-5)

  @parameterized.product(
    activation=('gelu', 'gelu_tanh', 'relu'), rate=(0.0, 0.25)
  )
  def test_feed_forward(self, activation, rate):
    layer = feed_forward.FeedForward(12, activation, dropout_rate=rate)
    x = layer_values.random(2, 3, 8)
    layer.build(x.shape)
    rng = randomness.make(1, 2)

    def plain(x):
      hidden = tf.tensordot(x, layer.wi.kernel, 1) + layer.wi.bias
      if activation == 'relu':
        hidden = tf.nn.relu(hidden)
      else:
        hidden = tf.nn.gelu(hidden, approximate=activation == 'gelu_tanh')
      hidden = randomness.dropout(hidden, rate, rng)
      return tf.tensordot(hidden, layer.wo.kernel, 1) + layer.wo.bias

    def run(function):
      with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y = function(inputs)
        loss = tf.reduce_sum(y * layer_values.random(2, 3, 8, seed=9))
      return y, tape.gradient(loss, [inputs, *layer.trainable_weights])

    def ours(x):
      return layer(x, training=True, rng=rng)

    self.assertAllClose(run(ours), run(plain), atol=1e-5)
    self.assertAllClose(
      run(tf.function(ours, autograph=False)), run(plain), atol=1e-5
    )

  def test_unknown_activation_lists_the_known(self):
    with self.assertRaisesRegex(ValueError, "'gelu', 'gelu_tanh', 'relu'"):
      activations.get('swish')

  def test_layer_norm(self):
    x, gamma, beta = (
      layer_values.random(2, 3, 8) * 3 + 5,
      layer_values.random(8),
      layer_values.random(8),
    )

    def plain(x, gamma, beta):
      mean, variance = tf.nn.moments(x, -1, keepdims=True)
      return (x - mean) / tf.sqrt(variance + 1e-3) * gamma + beta

    layer = layer_norm.LayerNorm(1e-3)
    layer.build(x.shape)

    def normalize(x, gamma, beta):
      layer.gamma, layer.beta = gamma, beta
      return layer.call(x)

    y, gradients = layer_values.gradients(normalize, x, gamma, beta)
    expected, expected_gradients = layer_values.gradients(plain, x, gamma, beta)
    self.assertAllClose(y, expected, atol=1e-5)
    self.assertAllClose(gradients, expected_gradients, atol=1e-4, rtol=1e-5)


class AttentionTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.product(
    kind=('no mask', 'keys', 'pairs'), has_bias=(False, True), rate=(0.0, 0.25)
  )
  def test_attend(self, kind, has_bias, rate):
    q = layer_values.random(2, 3, 5, 4)
    k = layer_values.random(2, 3, 7, 4, seed=1)
    v = layer_values.random(2, 3, 7, 4, seed=2)
    bias = layer_values.random(1, 3, 5, 7, seed=3)
    has_mask = kind != 'no mask'
    mask = np.array([[True] * 7, [True, False] * 3 + [False]])
    allowed = mask[:, None]
    if kind == 'pairs':
      mask = np.random.RandomState(0).rand(2, 5, 7) < 0.6
      mask[..., 0] = True
      allowed = mask
    rng = randomness.fold_in(randomness.make(1, 2), 'x')

    def plain(q, k, v, bias):
      logits = tf.einsum('bhmd,bhnd->bhmn', q, k)
      if has_bias:
        logits += bias
      if has_mask:
        logits += np.where(allowed, 0, -np.inf)[:, None]
      p = tf.nn.softmax(logits)
      if rate:
        p = randomness.dropout(p, rate, rng)
      return tf.einsum('bhmn,bhnd->bhmd', p, v)

    def ours(q, k, v, bias):
      return multi_head_attention.attend(
        q,
        k,
        v,
        mask if has_mask else None,
        bias if has_bias else None,
        rate,
        rng,
      )

    inputs = (q, k, v, bias)
    expected, expected_gradients = layer_values.gradients(plain, *inputs)
    for function in (ours, tf.function(ours, autograph=False)):
      y, gradients = layer_values.gradients(function, *inputs)
      self.assertAllClose(y, expected, atol=1e-5)
      for a, b in zip(gradients, expected_gradients):
        if b is not None:
          self.assertAllClose(a, b, atol=1e-5)

  def test_dropout_without_a_key(self):
    """The backward pass drops what the forward pass did."""
    v = np.eye(8, dtype=np.float32)[None, None]
    q = np.zeros([1, 1, 8, 4], np.float32)

    def mix(v):
      return multi_head_attention.attend(
        tf.constant(q), tf.constant(q), v, dropout_rate=0.5
      )

    with tf.GradientTape() as tape:
      v = tf.constant(v)
      tape.watch(v)
      kept = mix(v)  # the dropped probabilities themselves
    (gradient,) = tape.gradient(kept, [v], [tf.eye(8)[None, None]])
    self.assertAllClose(gradient, tf.linalg.matrix_transpose(kept))

  def test_layer_with_loops(self):
    layer = multi_head_attention.MultiHeadAttention(2, 3)
    x = layer_values.random(2, 4, 6)
    mask = np.array([[True, True, False, True], [True, False, False, False]])
    y = layer(x, mask=mask).numpy()
    wq, bq, wk, bk, wv, bv, wo, bo = layer.get_weights()
    bo = bo + 0.0
    for b in range(2):
      for i in range(4):
        parts = []
        for h in range(2):
          s = slice(3 * h, 3 * h + 3)
          q = x[b, i] @ wq[:, s] + bq[s]
          keys = [j for j in range(4) if mask[b, j]]
          logits = [
            q @ (x[b, j] @ wk[:, s] + bk[s]) / math.sqrt(3) for j in keys
          ]
          p = np.exp(logits) / np.sum(np.exp(logits))
          parts.append(
            sum(p[n] * (x[b, j] @ wv[:, s] + bv[s]) for n, j in enumerate(keys))
          )
        self.assertAllClose(y[b, i], np.concatenate(parts) @ wo + bo, atol=1e-5)

  def test_relative_bias_is_by_query_then_key(self):
    layer = relative_position_bias.RelativePositionBias(1, 8, 16)
    bias = layer(tf.zeros([1, 3, 4]))[0, 0].numpy()
    table = layer.embeddings.numpy()[:, 0]
    # Keys before the query are in the first half of the buckets.
    self.assertAllClose(
      bias,
      [
        [table[0], table[5], table[6]],
        [table[1], table[0], table[5]],
        [table[2], table[1], table[0]],
      ],
    )


class EncoderTest(parameterized.TestCase, tf.test.TestCase):
  @parameterized.parameters('vit', 't5_v1_1', 'release')
  def test_first_outputs_alone(self, form):
    others = {} if form == 'vit' else transformer_encoder.t5_arguments(form)
    encoder = transformer_encoder.TransformerEncoder(2, 8, 16, 2, 4, **others)
    x = layer_values.random(2, 5, 8)
    mask = np.array([[True] * 5, [True, True, False, False, False]])
    whole = encoder(x, mask=mask)
    self.assertAllClose(
      encoder(x, mask=mask, num_outputs=1), whole[:, :1], atol=1e-5
    )

  @parameterized.parameters(True, False)
  def test_padding_does_not_matter(self, is_t5):
    others = transformer_encoder.t5_arguments('t5_v1_0') if is_t5 else {}
    encoder = transformer_encoder.TransformerEncoder(2, 8, 16, 2, 4, **others)
    x = layer_values.random(1, 5, 8)
    mask = np.array([[True, True, True, False, False]])
    other = x.copy()
    other[:, 3:] = 7
    self.assertAllClose(
      encoder(x, mask=mask)[:, :3], encoder(other, mask=mask)[:, :3], atol=1e-5
    )

  @parameterized.parameters('vit', 't5_v1_1')
  def test_remat_gives_the_same_gradients(self, form):
    others = {} if form == 'vit' else transformer_encoder.t5_arguments(form)
    rng = randomness.make(3, 5)
    x = tf.constant(layer_values.random(2, 5, 8))
    results, weights = [], None
    for use_remat in (False, True):
      encoder = transformer_encoder.TransformerEncoder(
        2, 8, 16, 2, 4, dropout_rate=0.2, use_remat=use_remat, **others
      )
      encoder.build(x.shape)
      if weights:
        encoder.set_weights(weights)
      weights = encoder.get_weights()

      @tf.function(autograph=False)
      def step(encoder=encoder):
        with tf.GradientTape() as tape:
          y = encoder(x, training=True, rng=rng, num_outputs=1)
          loss = tf.reduce_sum(y * layer_values.random(2, 1, 8, seed=4))
        gradients = tape.gradient(loss, encoder.trainable_weights)
        return y, [tf.convert_to_tensor(x) for x in gradients]

      results.append(step())
    self.assertAllClose(results[0], results[1], atol=1e-5)

  def test_each_layer_draws_its_own(self):
    encoder = transformer_encoder.TransformerEncoder(
      1, 8, 16, 2, 4, dropout_rate=0.5
    )
    x = tf.constant(layer_values.random(2, 5, 8))
    rng = randomness.make(3, 5)
    first = encoder(x, training=True, rng=rng)
    self.assertAllEqual(first, encoder(x, training=True, rng=rng))
    # Rows of the global batch draw the same numbers wherever they are.
    second_row = encoder(
      x[1:], training=True, rng=randomness.make(3, 5, first_row=1)
    )
    self.assertAllClose(second_row, first[1:], atol=1e-5)
    other_step = encoder(x, training=True, rng=randomness.make(3, 6))
    self.assertNotAllClose(first, other_step)


if __name__ == '__main__':
  tf.test.main()
