"""Embeddings and masks that the tests of the losses share."""

import numpy as np


def with_gaps(num_clips, num_captions, width):
  """Video, text and masks: a clip of each kind of gap.

  Clip 0 has all, clip 1 no video, clip 3 no text; of the others some captions
  are missing.
  """
  random = np.random.RandomState(0)
  video = random.randn(num_clips, width)
  text = video[:, np.newaxis] + random.randn(num_clips, num_captions, width)
  video_mask = np.arange(num_clips) != 1
  text_mask = random.rand(num_clips, num_captions) < 0.6
  text_mask[0], text_mask[1], text_mask[3] = True, True, False
  return video, text, video_mask, text_mask
