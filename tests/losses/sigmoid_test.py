"""Tests of the sigmoid loss: NumPy loops, masks, chunks, replicas, errors."""

import math

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import logical_devices
from tests.losses import loss_inputs
from vatt_tf.core import collectives, strategies
from vatt_tf.losses import contrastive, sigmoid

_T, _B = 3.0, -1.5


def setUpModule():
  logical_devices.make()


def _inputs(num_clips=6, num_captions=3, width=5):
  """Video, text and masks: a clip of each kind of gap."""
  return loss_inputs.with_gaps(num_clips, num_captions, width)


def _loop(video, text, video_mask, text_mask, t=_T, b=_B):
  """The loss and its gradients of the embeddings, t and b, in float64."""
  num_clips, num_captions = text_mask.shape
  num_rows = max(1, np.sum(video_mask))
  loss = 0.0
  gradients = [np.zeros_like(video), np.zeros_like(text), 0.0, 0.0]
  for i in range(num_clips):
    for j in range(num_clips):
      for c in range(num_captions):
        if not (video_mask[i] and text_mask[j, c]):
          continue
        u, v = video[i], text[j, c]
        u_norm, v_norm = np.linalg.norm(u), np.linalg.norm(v)
        cosine = u @ v / (u_norm * v_norm)
        label = 1 if i == j else -1
        probability = 1 / (1 + math.exp(-label * (t * cosine + b)))
        loss -= math.log(probability) / num_rows
        slope = -label * (1 - probability) / num_rows
        gradients[0][i] += (
          slope * t * (v / v_norm - cosine * u / u_norm) / u_norm
        )
        gradients[1][j, c] += (
          slope * t * (u / u_norm - cosine * v / v_norm) / v_norm
        )
        gradients[2] += slope * cosine
        gradients[3] += slope
  return loss, gradients


def _loss_and_gradients(
  video, text, video_mask=None, text_mask=None, t=_T, b=_B, chunk_size=None
):
  inputs = [tf.cast(x, tf.float32) for x in (video, text, t, b)]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    result = sigmoid.sigmoid_loss(
      *inputs[:2], video_mask, text_mask, *inputs[2:], chunk_size
    )
  return result, tape.gradient(result.loss, inputs)


class SigmoidTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(
    masked=('nothing', 'some', 'text', 'video', 'no pair'),
    num_captions=(1, 3),
    chunk_size=(None, 1, 4, 100),
  )
  def test_equals_a_loop(self, masked, num_captions, chunk_size):
    video, text, video_mask, text_mask = _inputs(num_captions=num_captions)
    if masked in ('nothing', 'text'):
      video_mask[:] = True
    if masked in ('nothing', 'video'):
      text_mask[:] = True
    if masked == 'no pair':
      video_mask, text_mask = np.arange(6) < 3, text_mask.copy()
      text_mask[:3] = False
    expected, expected_gradients = _loop(video, text, video_mask, text_mask)
    result, gradients = _loss_and_gradients(
      video, text, video_mask, text_mask, chunk_size=chunk_size
    )
    self.assertGreater(expected, 0.1)
    self.assertAllClose(result.loss, expected, rtol=1e-5)
    for gradient, known in zip(gradients, expected_gradients):
      self.assertAllClose(gradient, known, rtol=1e-5, atol=1e-5)
    self.assertAllEqual(
      result.num_pairs, np.sum(video_mask & text_mask.any(axis=1))
    )

  def test_sounds_are_captions_without_their_axis(self):
    video, text, video_mask, text_mask = _inputs(num_captions=1)
    found, gradients = _loss_and_gradients(
      video, text[:, 0], video_mask, text_mask[:, 0]
    )
    expected, expected_gradients = _loss_and_gradients(
      video, text, video_mask, text_mask
    )
    self.assertAllEqual(tuple(found), tuple(expected))
    self.assertAllEqual(gradients[1], expected_gradients[1][:, 0])

  def test_initial_values_are_those_of_siglip(self):
    # One pair at cosine 1: t + b = 0. Two orthogonal ones: b = -10.
    x = tf.eye(1)
    self.assertAllClose(sigmoid.sigmoid_loss(x, x).loss, math.log(2))
    x = tf.eye(2)
    self.assertAllClose(
      sigmoid.sigmoid_loss(x, x).loss,
      math.log(2) + math.log1p(math.exp(-10)),
      rtol=1e-6,
    )

  def test_large_logits_are_exact(self):
    x = tf.constant([[1.0, 0.0], [1.0, 0.0]])
    # Positives at logit 200 cost nothing, negatives 200 each.
    result, gradients = _loss_and_gradients(x, x[:, tf.newaxis], t=300, b=-100)
    self.assertAllClose(result.loss, 200.0)
    for gradient in gradients:
      self.assertTrue(np.isfinite(gradient).all())

  @parameterized.product(
    chunk_size=(None, 4), has_video=(False, True), has_text=(False, True)
  )
  def test_masked_batch_is_exactly_zero(self, chunk_size, has_video, has_text):
    if has_video and has_text:
      return
    video, text, _, _ = _inputs()
    video_mask = np.full([6], has_video)
    text_mask = np.full([6, 3], has_text)
    result, gradients = _loss_and_gradients(
      np.where(video_mask[:, np.newaxis], video, np.nan),
      np.where(text_mask[..., np.newaxis], text, np.inf),
      video_mask,
      text_mask,
      chunk_size=chunk_size,
    )
    self.assertAllEqual(tuple(result), [0.0] * 4)
    self.assertLen(gradients, 4)
    for gradient in gradients:
      self.assertAllEqual(gradient, tf.zeros_like(gradient))

  @parameterized.parameters(None, 4)
  def test_what_is_masked_may_hold_anything(self, chunk_size):
    video, text, video_mask, text_mask = _inputs()
    expected, expected_gradients = _loss_and_gradients(
      video, text, video_mask, text_mask, chunk_size=chunk_size
    )
    video[~video_mask], text[~text_mask] = np.nan, np.inf
    found, gradients = _loss_and_gradients(
      video, text, video_mask, text_mask, chunk_size=chunk_size
    )
    self.assertAllEqual(tuple(found), tuple(expected))
    for gradient, known in zip(gradients, expected_gradients):
      self.assertAllEqual(gradient, known)
    self.assertAllEqual(tf.reduce_any(gradients[0] != 0, -1), video_mask)
    self.assertAllEqual(tf.reduce_any(gradients[1] != 0, -1), text_mask)

  def test_accuracies_are_those_of_mil_nce(self):
    random = np.random.RandomState(1)
    video, text, video_mask, _ = _inputs(20, 3, 6)
    inputs = (video, text, video_mask, random.rand(20, 3) < 0.6)
    found = sigmoid.sigmoid_loss(*inputs)
    self.assertBetween(found.forward_accuracy.numpy(), 0.2, 0.9)
    self.assertAllClose(
      tuple(found)[1:], tuple(contrastive.contrastive_loss(*inputs))[1:]
    )

  @parameterized.parameters('bfloat16', 'float16')
  def test_half_precision_is_summed_in_float32(self, dtype):
    video, text, video_mask, text_mask = _inputs()
    video, text = tf.cast(video, dtype), tf.cast(text, dtype)
    expected = sigmoid.sigmoid_loss(
      tf.cast(video, tf.float32),
      tf.cast(text, tf.float32),
      video_mask,
      text_mask,
    )
    found = sigmoid.sigmoid_loss(video, text, video_mask, text_mask)
    self.assertAllEqual(tuple(found), tuple(expected))
    self.assertEqual(found.loss.dtype, tf.float32)

  def test_chunks_hold_no_square_of_the_batch(self):
    video, text, _, _ = _inputs(256, 3, 4)
    square = 256**2 * 3
    for chunk_size in (None, 8):

      @tf.function(autograph=False)
      def step(video, text, chunk_size=chunk_size):
        return _loss_and_gradients(video, text, chunk_size=chunk_size)

      graph = step.get_concrete_function(
        tf.constant(video, tf.float32), tf.constant(text, tf.float32)
      ).graph
      graphs = [graph] + [
        f.graph for f in graph._functions.values() if hasattr(f, 'graph')
      ]
      largest = max(
        output.shape.num_elements() or 0
        for each in graphs
        for op in each.get_operations()
        for output in op.outputs
        if output.shape.rank is not None
      )
      if chunk_size is None:
        self.assertGreaterEqual(largest, square)
      else:
        self.assertLessEqual(largest, 2 * square // 32)

  @parameterized.parameters(None, 4)
  def test_runs_compiled(self, chunk_size):
    inputs = [tf.constant(x) for x in _inputs()]

    @tf.function(autograph=False, jit_compile=True)
    def step(*inputs):
      return _loss_and_gradients(*inputs, chunk_size=chunk_size)

    expected, expected_gradients = _loss_and_gradients(*inputs)
    found, gradients = step(*inputs)
    self.assertAllClose(tuple(found), tuple(expected), rtol=1e-5)
    for gradient, known in zip(gradients, expected_gradients):
      self.assertAllClose(gradient, known, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(None, 4)
  def test_batch_of_unknown_size(self, chunk_size):
    inputs = [
      tf.constant(x, tf.bool if x.dtype == bool else tf.float32)
      for x in _inputs()
    ]

    @tf.function(
      autograph=False,
      input_signature=[
        tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in inputs
      ],
    )
    def step(*inputs):
      return _loss_and_gradients(*inputs, chunk_size=chunk_size)

    expected, _ = _loss_and_gradients(*inputs)
    self.assertAllClose(tuple(step(*inputs)[0]), tuple(expected))

  @parameterized.named_parameters(
    ('zero', {'inverse_temperature': 0.0}, '`inverse_temperature` must be pos'),
    ('bias', {'bias': [1.0]}, r'`bias` must be a number.*bias.shape=\(1,\)'),
    ('chunk', {'chunk_size': 0}, '`chunk_size` must be a positive integer'),
    ('anchor mask', {'anchor_mask': [True]}, 'anchor_mask.shape='),
    ('mask', {'candidates_mask': [True] * 6}, 'candidates_mask.shape='),
    ('rows', {'candidates': np.ones([5, 5])}, 'same rows and width'),
    ('width', {'candidates': np.ones([6, 9])}, 'same rows and width'),
    ('rank', {'candidates': np.ones([6])}, 'same rows and width'),
  )
  def test_errors(self, changed, message):
    arguments = dict(zip(('anchor', 'candidates'), _inputs()), **changed)
    with self.assertRaisesRegex(ValueError, message):
      sigmoid.sigmoid_loss(**arguments)

  def test_scalars_must_be_scalars(self):
    with self.assertRaisesRegex(ValueError, r'inverse_temperature.shape=\(2,'):
      sigmoid.sigmoid_loss(
        tf.eye(2), tf.eye(2), inverse_temperature=tf.ones([2])
      )


def _run(num_replicas, loss_fn, arrays, scalars):
  """The loss and gradients of the scalars and of all rows, over replicas."""
  name = 'mirrored' if num_replicas > 1 else 'cpu'
  strategy = strategies.make_strategy(
    name, num_replicas if num_replicas > 1 else None
  )
  arguments = []
  for array in arrays:
    array = array if array.dtype == bool else array.astype(np.float32)
    parts = np.split(array, num_replicas)
    arguments.append(
      strategy.experimental_distribute_values_from_function(
        lambda context, parts=parts: tf.constant(
          parts[context.replica_id_in_sync_group]
        )
      )
    )

  def replica_step(video, text, video_mask, text_mask):
    inputs = [video, text, *(tf.constant(x) for x in scalars)]
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      result = loss_fn(video, text, video_mask, text_mask, inputs[2:])
    video, text, *of_scalars = tape.gradient(result.loss, inputs)
    return (
      collectives.all_reduce_sum([*result, *of_scalars]),
      collectives.cross_replica_concat([video, text]),
    )

  @tf.function(autograph=False)
  def step(*arguments):
    return strategy.run(replica_step, args=arguments)

  return tf.nest.map_structure(
    lambda x: strategy.experimental_local_results(x)[0].numpy(),
    step(*arguments),
  )


def _sigmoid(chunk_size):
  def loss_fn(*inputs):
    *inputs, (t, b) = inputs
    return sigmoid.sigmoid_loss(*inputs, t, b, chunk_size)

  return loss_fn


def _mil_nce(chunk_size):
  def loss_fn(*inputs):
    *inputs, (t,) = inputs
    return contrastive.contrastive_loss(*inputs, 1 / t, chunk_size=chunk_size)

  return loss_fn


class ReplicasTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(chunk_size=(None, 2))
  def test_two_replicas_equal_one_and_the_loop(self, chunk_size):
    inputs = _inputs()
    loss_fn = _sigmoid(chunk_size)
    one, one_gradients = _run(1, loss_fn, inputs, [_T, _B])
    two, two_gradients = _run(2, loss_fn, inputs, [_T, _B])
    self.assertAllClose(two, one, rtol=1e-5)
    self.assertAllClose(two_gradients, one_gradients, rtol=1e-5, atol=1e-6)
    loss, gradients = _loop(*inputs)
    self.assertAllClose(two[0], loss, rtol=1e-5)
    self.assertAllClose(two[-2:], gradients[2:], rtol=1e-5)
    self.assertAllClose(two_gradients, gradients[:2], rtol=1e-5, atol=1e-5)


class LearnedTemperatureTest(tf.test.TestCase, parameterized.TestCase):
  """NCE and MIL-NCE with a tensor for a temperature."""

  @parameterized.product(
    denominator=('joint', 'joint_once', 'per_direction'), chunk_size=(None, 4)
  )
  def test_gradient_equals_differences(self, denominator, chunk_size):
    inputs = _inputs()
    temperature = tf.constant(0.2)

    def loss(temperature, dtype=tf.float64, **options):
      video, text = (tf.cast(x, dtype) for x in inputs[:2])
      return contrastive.contrastive_loss(
        video,
        text,
        *inputs[2:],
        temperature=temperature,
        denominator=denominator,
        **options,
      ).loss

    with tf.GradientTape() as tape:
      tape.watch(temperature)
      found = loss(temperature, tf.float32, chunk_size=chunk_size)
    self.assertAllClose(found, loss(0.2), rtol=1e-5)
    expected = (loss(0.2 + 1e-5) - loss(0.2 - 1e-5)) / 2e-5
    self.assertGreater(abs(expected), 0.1)
    self.assertAllClose(tape.gradient(found, temperature), expected, rtol=1e-5)

  @parameterized.parameters(None, 4)
  def test_masked_batch_gives_it_no_gradient(self, chunk_size):
    video, text, _, _ = _inputs()
    temperature = tf.constant(0.2)
    with tf.GradientTape() as tape:
      tape.watch(temperature)
      loss = contrastive.contrastive_loss(
        video,
        text[:, 0],
        np.zeros([6], bool),
        None,
        temperature,
        chunk_size=chunk_size,
      ).loss
    self.assertAllEqual(loss, 0.0)
    self.assertAllEqual(tape.gradient(loss, temperature), 0.0)

  @parameterized.parameters(None, 2)
  def test_two_replicas_equal_one(self, chunk_size):
    inputs, loss_fn = _inputs(), _mil_nce(chunk_size)
    one, one_gradients = _run(1, loss_fn, inputs, [5.0])
    two, two_gradients = _run(2, loss_fn, inputs, [5.0])
    self.assertAllClose(two, one, rtol=1e-5)
    self.assertAllClose(two_gradients, one_gradients, rtol=1e-5, atol=1e-6)

  def test_must_be_a_scalar(self):
    with self.assertRaisesRegex(ValueError, r'temperature.shape=\(1,\)'):
      contrastive.contrastive_loss(
        tf.eye(2), tf.eye(2), temperature=tf.ones([1])
      )


if __name__ == '__main__':
  tf.test.main()
