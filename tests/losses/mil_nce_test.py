"""Tests of MIL-NCE: the released implementation's values, and NumPy loops."""

import math

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import shared_data
from tests.losses import loss_inputs
from vatt_tf.losses import contrastive

_CASES = ('all_valid', 'text_masked', 'both_masked', 'no_text')
_RELEASE_NAMES = (('joint', 'asymmetric'), ('per_direction', 'symmetric'))
_DENOMINATORS = ('joint', 'joint_once', 'per_direction')


def _loop_loss(video, text, video_mask, text_mask, temperature, denominator):
  """The loss from its equation, in float64."""
  video = video / np.linalg.norm(video, axis=-1, keepdims=True)
  text = text / np.linalg.norm(text, axis=-1, keepdims=True)
  num_clips, num_captions = text_mask.shape
  losses = []
  for i in range(num_clips):
    if not video_mask[i] or not any(text_mask[i]):
      continue
    positives = forward = backward = backward_once = 0.0
    for j in range(num_clips):
      for c in range(num_captions):
        if text_mask[j, c]:
          term = math.exp(video[i] @ text[j, c] / temperature)
          forward += term
          if i == j:
            positives += term
        if text_mask[i, c] and video_mask[j]:
          term = math.exp(video[j] @ text[i, c] / temperature)
          backward += term
          if i != j:
            backward_once += term
    losses.append(
      {
        'joint': -math.log(positives / (forward + backward)),
        'joint_once': -math.log(positives / (forward + backward_once)),
        'per_direction': (
          -math.log(positives / forward) - math.log(positives / backward)
        ),
      }[denominator]
    )
  return sum(losses) / len(losses)


def _inputs(num_clips=5, num_captions=3, width=4):
  return loss_inputs.with_gaps(num_clips, num_captions, width)


class MILNCETest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(
    case=_CASES, names=_RELEASE_NAMES, chunk_size=(None, 1, 4)
  )
  def test_equals_the_released_implementation(self, case, names, chunk_size):
    denominator, release_name = names
    with np.load(shared_data.path('fixtures', 'losses.npz')) as data:
      num_captions = int(data['num_captions'])
      video = tf.constant(data['in/video_to_text'])
      text = tf.constant(data['in/text_to_video'])  # clip-major
      text = tf.reshape(text, [len(video), num_captions, -1])
      mask = np.repeat(
        data[f'{case}/text_mask'][:, np.newaxis], num_captions, axis=1
      )
      temperature = float(data['temperature'])
      prefix = f'{case}/{release_name}'
      expected_loss = data[f'{prefix}/vidtxt_loss']
      # Theirs are gradients of the mean of the two terms.
      expected_gradients = [
        2 * data[f'{prefix}/grad/video_to_text'],
        2 * data[f'{prefix}/grad/text_to_video'].reshape(text.shape),
      ]
    with tf.GradientTape() as tape:
      tape.watch([video, text])
      result = contrastive.contrastive_loss(
        video,
        text,
        candidates_mask=mask,
        temperature=temperature,
        denominator=denominator,
        chunk_size=chunk_size,
      )
    self.assertAllClose(result.loss, expected_loss, rtol=1e-6, atol=1e-6)
    gradients = tape.gradient(result.loss, [video, text])
    for gradient, expected in zip(gradients, expected_gradients):
      error = np.max(np.abs(gradient.numpy() - expected))
      self.assertLessEqual(error, 1e-5 * np.max(np.abs(expected)))

  @parameterized.product(denominator=_DENOMINATORS, chunk_size=(None, 2))
  def test_equals_a_loop_and_its_differences(self, denominator, chunk_size):
    *embeddings, video_mask, text_mask = _inputs()

    def loop(video, text):
      return _loop_loss(video, text, video_mask, text_mask, 0.2, denominator)

    tensors = [tf.constant(x, tf.float32) for x in embeddings]
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      result = contrastive.contrastive_loss(
        *tensors, video_mask, text_mask, 0.2, denominator, chunk_size
      )
    self.assertAllClose(result.loss, loop(*embeddings), rtol=1e-5)
    self.assertEqual(
      result.num_pairs, np.sum(video_mask & text_mask.any(axis=1))
    )
    gradients = tape.gradient(result.loss, tensors)
    for k, gradient in enumerate(gradients):
      expected = np.zeros_like(embeddings[k])
      for index in np.ndindex(*expected.shape):
        values = []
        for step in (1e-5, -1e-5):
          moved = [x.copy() for x in embeddings]
          moved[k][index] += step
          values.append(loop(*moved))
        expected[index] = (values[0] - values[1]) / 2e-5
      self.assertAllClose(gradient, expected, rtol=1e-4, atol=1e-6)

  @parameterized.parameters(*_DENOMINATORS)
  def test_one_caption_is_nce(self, denominator):
    video, text, video_mask, text_mask = _inputs(num_captions=1)
    first = contrastive.contrastive_loss(
      video, text, video_mask, text_mask, denominator=denominator
    )
    second = contrastive.contrastive_loss(
      video, text[:, 0], video_mask, text_mask[:, 0], denominator=denominator
    )
    self.assertAllEqual(tuple(first), tuple(second))

  def test_two_captions_are_two_positives_not_copies(self):
    # Copies of a caption change the loss, masked places do not.
    video, text, _, _ = _inputs()
    mask = np.tile([True, True, False], [5, 1])
    masked = contrastive.contrastive_loss(video, text, None, mask).loss
    cut = contrastive.contrastive_loss(video, text[:, :2]).loss
    self.assertAllClose(masked, cut)
    text[:, 2] = text[:, 0]
    self.assertNotAllClose(contrastive.contrastive_loss(video, text).loss, cut)

  def test_a_clip_without_text_keeps_its_video_in_the_pool(self):
    video, text, video_mask, text_mask = _inputs()
    video = tf.constant(video, tf.float32)
    text = tf.constant(text, tf.float32)
    with tf.GradientTape() as tape:
      tape.watch([video, text])
      loss = contrastive.contrastive_loss(
        video, text, video_mask, text_mask
      ).loss
    gradients = tape.gradient(loss, [video, text])
    self.assertNotAllClose(gradients[0][3], tf.zeros([4]))
    self.assertAllEqual(gradients[0][1], tf.zeros([4]))
    self.assertAllEqual(tf.reduce_any(gradients[1] != 0, axis=-1), text_mask)

  def test_accuracies_equal_a_loop(self):
    random = np.random.RandomState(1)
    video, text, video_mask, text_mask = _inputs(20, 3, 6)
    text_mask = random.rand(20, 3) < 0.6
    result = contrastive.contrastive_loss(video, text, video_mask, text_mask)
    unit_video = video / np.linalg.norm(video, axis=-1, keepdims=True)
    unit_text = text / np.linalg.norm(text, axis=-1, keepdims=True)
    similarity = np.einsum('id,jcd->ijc', unit_video, unit_text)
    similarity[:, ~text_mask] = -9
    similarity[~video_mask] = -9
    forward, backward = [], []
    for i in range(20):
      if video_mask[i] and text_mask[i].any():
        forward.append(np.argmax(similarity[i].max(axis=-1)) == i)
      for c in range(3):
        if video_mask[i] and text_mask[i, c]:
          backward.append(np.argmax(similarity[:, i, c]) == i)
    self.assertBetween(np.mean(forward), 0.2, 0.9)
    self.assertAllClose(result.forward_accuracy, np.mean(forward))
    self.assertAllClose(result.backward_accuracy, np.mean(backward))


if __name__ == '__main__':
  tf.test.main()
