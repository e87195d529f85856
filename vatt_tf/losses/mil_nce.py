"""Multiple-instance NCE between video and text (paper, section 3.4).

MIL-NCE is that of Miech et al. 2020: the captions near a clip in time are its
positives together, so that one that fits is enough.
"""

from typing import NamedTuple

import tensorflow as tf

from vatt_tf.losses import contrastive


class MILNCEResult(NamedTuple):
  """This replica's shares; summed over replicas they are the global values.

  `distribution.all_reduce_sum(result)` is that sum.

  Attributes:
    loss: scalar, float32.
    num_pairs: scalar, float32: clips with video and at least one caption.
    video_to_text_accuracy: scalar, float32: share of the pairs' videos with a
      caption of their own nearer than every other one of the global batch; a
      tie is a miss.
    text_to_video_accuracy: scalar, float32: share of the pairs' captions whose
      own video is nearer than every other one.
  """

  loss: tf.Tensor
  num_pairs: tf.Tensor
  video_to_text_accuracy: tf.Tensor
  text_to_video_accuracy: tf.Tensor


def mil_nce_loss(
  video,
  text,
  video_mask=None,
  text_mask=None,
  temperature=0.07,
  denominator='joint',
  chunk_size=None,
):
  """MIL-NCE between the videos and the captions of the global batch.

  With s(i, j, c) the cosine of video i and caption c of clip j over the
  temperature, and P(i) = sum_c e^s(i, i, c) over the clip's own captions, the
  loss is the mean over the clips i with video and a caption of:

  - `joint`: log(sum_jc e^s(i, j, c) + sum_jc e^s(j, i, c)) - log P(i). The
    positives stand twice in the sum, so the loss is at least log 2. This is
    the released implementation's, and that of MIL-NCE.
  - `joint_once`: the same with j != i in the second sum: the paper's
    equation 5.
  - `per_direction`: log(sum_jc e^s(i, j, c)) - log P(i) and
    log(sum_jc e^s(j, i, c)) - log P(i), added.

  Sums run over what exists, caption by caption: an embedding whose mask is
  false is neither a positive nor a negative, and gets a zero gradient,
  whatever it holds; the clip's other embeddings still serve as negatives (a
  clip with no caption keeps its video in the pool). With no pair at all the
  loss is exactly 0 and so are the gradients.

  In a replica context the arguments are this replica's rows and the results
  its shares: the sum over replicas is the global loss, and the sum of the
  replicas' gradients is its gradient. All replicas hold equally many rows.
  Similarities and sums are float32 for half-precision embeddings.

  Args:
    video: (B, D) float embeddings, not normalised. (For a term between sound
      and text, the sounds'.)
    text: (B, C, D) float embeddings of the clips' captions.
    video_mask: (B,) bool, the clip has video. None: all.
    text_mask: (B, C) bool, the caption exists. None: all.
    temperature: positive float, or a positive scalar tensor, which gets its
      gradient.
    denominator: `joint`, `joint_once` or `per_direction`.
    chunk_size: None holds all similarities at once. An integer holds those of
      so many rows at a time, and their gradient right after them: memory
      then grows with B, not with its square, at the same result.

  Returns:
    `MILNCEResult`.

  Raises:
    ValueError: an unknown denominator, or an argument out of its range or of
      a shape that does not fit.

  Example:
    >>> video = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> text = tf.stack([video, -video], axis=1)
    >>> mask = tf.constant([[True, False], [True, False]])
    >>> mil_nce_loss(
    ...     video, text, text_mask=mask, temperature=0.1).loss.numpy().round(4)
    0.6932
  """
  return MILNCEResult(
    *contrastive.shares(
      video,
      text,
      video_mask,
      text_mask,
      temperature,
      denominator,
      chunk_size,
      names=('video', 'text'),
    )
  )
