"""Tests of what NCE and MIL-NCE share: masks, precision, chunks, errors."""

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from vatt_tf.losses import contrastive

_DENOMINATORS = ('joint', 'joint_once', 'per_direction')


def _inputs(num_clips, num_captions=3, width=16):
  random = np.random.RandomState(0)
  video = random.randn(num_clips, width).astype(np.float32)
  text = random.randn(num_clips, num_captions, width).astype(np.float32)
  text_mask = random.rand(num_clips, num_captions) < 0.6
  video_mask = random.rand(num_clips) < 0.8
  return video, text, video_mask, text_mask


def _loss_and_gradients(video, text, video_mask, text_mask, **options):
  video, text = tf.convert_to_tensor(video), tf.convert_to_tensor(text)
  with tf.GradientTape() as tape:
    tape.watch([video, text])
    result = contrastive.contrastive_loss(
      video, text, video_mask, text_mask, **options
    )
  return result, tape.gradient(result.loss, [video, text])


def _operations(graph):
  """The operations of a graph and its functions."""
  graphs = [graph] + [
    f.graph for f in graph._functions.values() if hasattr(f, 'graph')
  ]
  return [op for each in graphs for op in each.get_operations()]


def _largest_tensor(graph):
  """The most elements that a tensor of a graph or its functions has."""
  return max(
    output.shape.num_elements() or 0
    for op in _operations(graph)
    for output in op.outputs
    if output.shape.rank is not None
  )


class ContrastiveTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(denominator=_DENOMINATORS, chunk_size=(None, 4))
  def test_masked_batch_is_exactly_zero(self, denominator, chunk_size):
    video, text, _, _ = _inputs(6)
    for has_video in (False, True):
      # Either nothing exists, or half the clips have video, the others text.
      video_mask = np.array([has_video] * 3 + [False] * 3)
      text_mask = np.array([[False] * 3] * 3 + [[has_video] * 3] * 3)
      result, gradients = _loss_and_gradients(
        np.where(video_mask[:, np.newaxis], video, np.nan),
        np.where(text_mask[..., np.newaxis], text, np.inf),
        video_mask,
        text_mask,
        denominator=denominator,
        chunk_size=chunk_size,
      )
      self.assertAllEqual(tuple(result), [0.0] * 4)
      for gradient in gradients:
        self.assertAllEqual(gradient, tf.zeros_like(gradient))

  @parameterized.product(denominator=_DENOMINATORS, chunk_size=(None, 4))
  def test_what_is_masked_may_hold_anything(self, denominator, chunk_size):
    video, text, video_mask, text_mask = _inputs(9)
    options = {'denominator': denominator, 'chunk_size': chunk_size}
    expected, expected_gradients = _loss_and_gradients(
      video, text, video_mask, text_mask, **options
    )
    video[~video_mask], text[~text_mask] = np.nan, np.inf
    found, gradients = _loss_and_gradients(
      video, text, video_mask, text_mask, **options
    )
    self.assertAllEqual(tuple(found), tuple(expected))
    self.assertAllEqual(gradients[0], expected_gradients[0])
    self.assertAllEqual(gradients[1], expected_gradients[1])
    self.assertAllEqual(
      gradients[0].numpy()[~video_mask], np.zeros([np.sum(~video_mask), 16])
    )

  @parameterized.parameters(*_DENOMINATORS)
  def test_one_clip_has_finite_gradients(self, denominator):
    result, gradients = _loss_and_gradients(
      *_inputs(1)[:2], None, None, denominator=denominator
    )
    self.assertTrue(np.isfinite(result.loss))
    for gradient in gradients:
      self.assertAllInRange(gradient, -1e3, 1e3)

  def test_zero_embeddings_have_finite_gradients(self):
    video, text, video_mask, text_mask = _inputs(6)
    video[0] = 0
    _, gradients = _loss_and_gradients(video, text, video_mask, text_mask)
    for gradient in gradients:
      self.assertTrue(np.isfinite(gradient).all())

  @parameterized.parameters('bfloat16', 'float16')
  def test_half_precision_is_summed_in_float32(self, dtype):
    video, text, video_mask, text_mask = _inputs(32)
    video, text = tf.cast(video, dtype), tf.cast(text, dtype)
    expected = contrastive.contrastive_loss(
      tf.cast(video, tf.float32),
      tf.cast(text, tf.float32),
      video_mask,
      text_mask,
    )
    found, gradients = _loss_and_gradients(video, text, video_mask, text_mask)
    self.assertAllEqual(tuple(found), tuple(expected))
    self.assertEqual(found.loss.dtype, tf.float32)
    self.assertEqual(gradients[0].dtype, tf.as_dtype(dtype))

  @parameterized.product(
    denominator=_DENOMINATORS, chunk_size=(1, 5, 16, 23, 100)
  )
  def test_chunks_change_nothing(self, denominator, chunk_size):
    inputs = _inputs(23)
    whole, gradients = _loss_and_gradients(*inputs, denominator=denominator)
    chunked, chunked_gradients = _loss_and_gradients(
      *inputs, denominator=denominator, chunk_size=chunk_size
    )
    self.assertAllClose(tuple(chunked), tuple(whole), rtol=1e-6)
    for found, expected in zip(chunked_gradients, gradients):
      error = np.max(np.abs(found - expected))
      self.assertLessEqual(error, 1e-6 * np.max(np.abs(expected)))

  def test_chunks_hold_no_square_of_the_batch(self):
    num_clips, num_captions, chunk_size = 256, 3, 8
    inputs = [tf.constant(x) for x in _inputs(num_clips, num_captions, 4)]
    square = num_clips**2 * num_captions
    for size, limit in ((None, None), (chunk_size, 2 * square // 32)):

      @tf.function(autograph=False)
      def step(*inputs, size=size):
        return _loss_and_gradients(*inputs, chunk_size=size)

      largest = _largest_tensor(step.get_concrete_function(*inputs).graph)
      if limit is None:
        self.assertGreaterEqual(largest, square)
      else:
        self.assertLessEqual(largest, limit)

  def test_chunks_compute_similarities_once(self):
    inputs = [tf.constant(x) for x in _inputs(8)]
    products = []
    for size in (None, 4):

      @tf.function(autograph=False)
      def step(*inputs, size=size):
        return _loss_and_gradients(*inputs, chunk_size=size)

      graph = step.get_concrete_function(*inputs).graph
      products.append(sum(op.type == 'Einsum' for op in _operations(graph)))
    # Three products, and two for the gradient of each.
    self.assertEqual(products, [9, 9])

  @parameterized.product(
    denominator=_DENOMINATORS, chunk_size=(None, 4), jit_compile=(False, True)
  )
  def test_runs_compiled(self, denominator, chunk_size, jit_compile):
    inputs = [tf.constant(x) for x in _inputs(10)]

    @tf.function(autograph=False, jit_compile=jit_compile)
    def step(*inputs):
      return _loss_and_gradients(
        *inputs, denominator=denominator, chunk_size=chunk_size
      )

    expected, expected_gradients = _loss_and_gradients(
      *inputs, denominator=denominator
    )
    found, gradients = step(*inputs)
    self.assertAllClose(tuple(found), tuple(expected), rtol=1e-5)
    self.assertAllClose(gradients, expected_gradients, rtol=1e-4, atol=1e-6)

  @parameterized.parameters(None, 4)
  def test_batch_of_unknown_size(self, chunk_size):
    video, text, video_mask, text_mask = _inputs(7)

    @tf.function(
      autograph=False,
      input_signature=[
        tf.TensorSpec([None, 16]),
        tf.TensorSpec([None, 3, 16]),
        tf.TensorSpec([None], tf.bool),
        tf.TensorSpec([None, 3], tf.bool),
      ],
    )
    def step(*inputs):
      return _loss_and_gradients(*inputs, chunk_size=chunk_size)

    found, gradients = step(video, text, video_mask, text_mask)
    expected, expected_gradients = _loss_and_gradients(
      video, text, video_mask, text_mask
    )
    self.assertAllClose(tuple(found), tuple(expected))
    self.assertAllClose(gradients, expected_gradients, atol=1e-7)

  @parameterized.named_parameters(
    ('denominator', {'denominator': 'both'}, 'joint, joint_once, per_direct'),
    ('temperature', {'temperature': 0.0}, '`temperature` must be positive'),
    ('chunk', {'chunk_size': 0}, '`chunk_size` must be a positive integer'),
    ('anchor mask', {'anchor_mask': [True]}, 'anchor_mask.shape='),
    ('mask', {'candidates_mask': [True] * 6}, 'candidates_mask.shape='),
    ('rows', {'candidates': np.ones([5, 3, 16], np.float32)}, 'same rows and'),
    ('width', {'candidates': np.ones([6, 3, 9], np.float32)}, 'same rows and'),
    ('one', {'candidates': np.ones([6, 9], np.float32)}, 'same rows and width'),
    ('rank', {'anchor': np.ones([6, 3, 16], np.float32)}, 'same rows and'),
  )
  def test_errors(self, changed, message):
    arguments = dict(zip(('anchor', 'candidates'), _inputs(6)), **changed)
    with self.assertRaisesRegex(ValueError, message):
      contrastive.contrastive_loss(**arguments)


if __name__ == '__main__':
  tf.test.main()
