"""Noise-contrastive estimation between video and sound (paper, section 3.4)."""

from typing import NamedTuple

import tensorflow as tf

from vatt_tf.losses import contrastive


class NCEResult(NamedTuple):
  """This replica's shares; summed over replicas they are the global values.

  `distribution.all_reduce_sum(result)` is that sum.

  Attributes:
    loss: scalar, float32.
    num_pairs: scalar, float32: clips with both video and sound.
    video_to_audio_accuracy: scalar, float32: share of the pairs' videos whose
      own sound is nearer than every other one of the global batch; a tie is a
      miss.
    audio_to_video_accuracy: scalar, float32: the same from sound to video.
  """

  loss: tf.Tensor
  num_pairs: tf.Tensor
  video_to_audio_accuracy: tf.Tensor
  audio_to_video_accuracy: tf.Tensor


def nce_loss(
  video,
  audio,
  video_mask=None,
  audio_mask=None,
  temperature=0.07,
  denominator='joint',
  chunk_size=None,
):
  """NCE between the videos and the sounds of the global batch.

  With s(i, j) the cosine of video i and sound j over the temperature, the loss
  is the mean over the clips i that have both of:

  - `joint`: log(sum_j e^s(i, j) + sum_j e^s(j, i)) - s(i, i). The positive
    stands twice in the sum, so the loss is at least log 2. This is the
    released implementation's.
  - `joint_once`: the same with j != i in the second sum: the paper's
    equation 4.
  - `per_direction`: log(sum_j e^s(i, j)) - s(i, i) and
    log(sum_j e^s(j, i)) - s(i, i), added.

  Sums run over what exists: an embedding whose mask is false is neither a
  positive nor a negative, and gets a zero gradient, whatever it holds; the
  clip's other embedding still serves as a negative. With no pair at all the
  loss is exactly 0 and so are the gradients.

  In a replica context the arguments are this replica's rows and the results
  its shares: the sum over replicas is the global loss, and the sum of the
  replicas' gradients is its gradient. All replicas hold equally many rows.
  Similarities and sums are float32 for half-precision embeddings.

  Args:
    video: (B, D) float embeddings, not normalised.
    audio: (B, D) float embeddings of the same clips.
    video_mask: (B,) bool, the clip has video. None: all.
    audio_mask: (B,) bool, the clip has sound. None: all.
    temperature: positive float, or a positive scalar tensor, which gets its
      gradient.
    denominator: `joint`, `joint_once` or `per_direction`.
    chunk_size: None holds all similarities at once. An integer holds those of
      so many rows at a time, and their gradient right after them: memory
      then grows with B, not with its square, at the same result.

  Returns:
    `NCEResult`.

  Raises:
    ValueError: an unknown denominator, or an argument out of its range or of
      a shape that does not fit.

  Example:
    >>> video = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> nce_loss(video, video, temperature=0.1).loss.numpy().round(4)
    0.6932
  """
  audio = tf.convert_to_tensor(audio)
  if audio_mask is not None:
    audio_mask = tf.convert_to_tensor(audio_mask)[..., tf.newaxis]  # (B, 1)
  return NCEResult(
    *contrastive.shares(
      video,
      audio[..., tf.newaxis, :],
      video_mask,
      audio_mask,
      temperature,
      denominator,
      chunk_size,
      names=('video', 'audio'),
    )
  )
