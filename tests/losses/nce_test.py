"""Tests of NCE: the released implementation's values, and NumPy loops."""

import math

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from tests import shared_data
from vatt_tf.losses import contrastive

_CASES = ('all_valid', 'text_masked', 'both_masked', 'no_text')
_RELEASE_NAMES = (('joint', 'asymmetric'), ('per_direction', 'symmetric'))
_DENOMINATORS = ('joint', 'joint_once', 'per_direction')


def _loop_loss(video, audio, video_mask, audio_mask, temperature, denominator):
  """The loss from its equation, in float64."""
  video = video / np.linalg.norm(video, axis=-1, keepdims=True)
  audio = audio / np.linalg.norm(audio, axis=-1, keepdims=True)
  num_clips = len(video)
  losses = []
  for i in range(num_clips):
    if not (video_mask[i] and audio_mask[i]):
      continue
    positive = math.exp(video[i] @ audio[i] / temperature)
    forward = backward = backward_once = 0.0
    for j in range(num_clips):
      if audio_mask[j]:
        forward += math.exp(video[i] @ audio[j] / temperature)
      if video_mask[j]:
        term = math.exp(video[j] @ audio[i] / temperature)
        backward += term
        if i != j:
          backward_once += term
    losses.append(
      {
        'joint': -math.log(positive / (forward + backward)),
        'joint_once': -math.log(positive / (forward + backward_once)),
        'per_direction': (
          -math.log(positive / forward) - math.log(positive / backward)
        ),
      }[denominator]
    )
  return sum(losses) / len(losses)


def _inputs(num_clips=6, width=5):
  random = np.random.RandomState(0)
  video = random.randn(num_clips, width)
  audio = video + random.randn(num_clips, width)
  video_mask = np.arange(num_clips) != 2
  audio_mask = np.arange(num_clips) != 4
  return video, audio, video_mask, audio_mask


class NCETest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(
    case=_CASES, names=_RELEASE_NAMES, chunk_size=(None, 1, 4)
  )
  def test_equals_the_released_implementation(self, case, names, chunk_size):
    denominator, release_name = names
    with np.load(shared_data.path('fixtures', 'losses.npz')) as data:
      video = tf.constant(data['in/video_to_audio'])
      audio = tf.constant(data['in/audio_to_video'])
      mask = tf.constant(data[f'{case}/audio_mask'])
      temperature = float(data['temperature'])
      prefix = f'{case}/{release_name}'
      expected_loss = data[f'{prefix}/vidaud_loss']
      # Theirs are gradients of the mean of the two terms.
      expected_gradients = [
        2 * data[f'{prefix}/grad/video_to_audio'],
        2 * data[f'{prefix}/grad/audio_to_video'],
      ]
    with tf.GradientTape() as tape:
      tape.watch([video, audio])
      result = contrastive.contrastive_loss(
        video,
        audio,
        candidates_mask=mask,
        temperature=temperature,
        denominator=denominator,
        chunk_size=chunk_size,
      )
    self.assertAllClose(result.loss, expected_loss, rtol=1e-6, atol=1e-6)
    gradients = tape.gradient(result.loss, [video, audio])
    for gradient, expected in zip(gradients, expected_gradients):
      error = np.max(np.abs(gradient.numpy() - expected))
      self.assertLessEqual(error, 1e-5 * np.max(np.abs(expected)))

  @parameterized.product(denominator=_DENOMINATORS, chunk_size=(None, 4))
  def test_equals_a_loop_and_its_differences(self, denominator, chunk_size):
    *embeddings, video_mask, audio_mask = _inputs()

    def loop(video, audio):
      return _loop_loss(video, audio, video_mask, audio_mask, 0.2, denominator)

    tensors = [tf.constant(x, tf.float32) for x in embeddings]
    with tf.GradientTape() as tape:
      tape.watch(tensors)
      result = contrastive.contrastive_loss(
        *tensors, video_mask, audio_mask, 0.2, denominator, chunk_size
      )
    self.assertAllClose(result.loss, loop(*embeddings), rtol=1e-5)
    self.assertEqual(result.num_pairs, 4)
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

  def test_a_clip_without_sound_keeps_its_video_in_the_pool(self):
    video, audio, video_mask, audio_mask = _inputs()
    video = tf.constant(video, tf.float32)
    audio = tf.constant(audio, tf.float32)
    with tf.GradientTape() as tape:
      tape.watch([video, audio])
      loss = contrastive.contrastive_loss(
        video, audio, video_mask, audio_mask
      ).loss
    gradients = tape.gradient(loss, [video, audio])
    self.assertAllEqual(gradients[0][2], tf.zeros([5]))
    self.assertNotAllClose(gradients[1][2], tf.zeros([5]))
    self.assertNotAllClose(gradients[0][4], tf.zeros([5]))
    self.assertAllEqual(gradients[1][4], tf.zeros([5]))

  @parameterized.parameters(*_DENOMINATORS)
  def test_perfect_embeddings_reach_the_lower_bound(self, denominator):
    x = tf.eye(8)
    loss = contrastive.contrastive_loss(
      x, x, temperature=0.05, denominator=denominator
    ).loss
    bound = math.log(2) if denominator == 'joint' else 0.0
    self.assertAllClose(loss, bound, atol=1e-5)

  def test_accuracies(self):
    # Clip 2 has no sound, clip 3 no video. Sound 1 is nearer to video 0.
    video = tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 9]])
    audio = tf.constant([[2.0, 0, 0], [2, 1, 0], [0, 0, 1], [0, 1, 1]])
    result = contrastive.contrastive_loss(
      video, audio, [True, True, True, False], [True, True, False, True]
    )
    self.assertEqual(result.num_pairs, 2)
    # Video 0 finds sound 0; video 1's own is behind sound 3.
    self.assertAllClose(result.forward_accuracy, 0.5)
    # Sound 0 finds video 0, sound 1 finds video 0 too; sound 3 has no pair.
    self.assertAllClose(result.backward_accuracy, 0.5)

  def test_constant_embeddings_have_no_accuracy(self):
    x = tf.random.stateless_normal([1, 33], [0, 1])
    x = tf.tile(x, [37, 1])
    result = contrastive.contrastive_loss(x, x)
    self.assertEqual(result.forward_accuracy, 0)
    self.assertEqual(result.backward_accuracy, 0)


if __name__ == '__main__':
  tf.test.main()
