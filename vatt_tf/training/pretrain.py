"""Pre-training: the contrastive terms between video, audio and text.

Paper section 3.3: NCE between video and audio, MIL-NCE between video and text,
summed with weights.
"""

import gin

from vatt_tf import feature_names as names
from vatt_tf.losses import mil_nce, nce


@gin.register
class PretrainTask:
  """What pre-training optimises.

  Args:
    model: callable without arguments that returns the model.
    video_audio_weight: float, weight of the video-audio term; 0 drops it.
    video_text_weight: float, weight of the video-text term (the paper's λ).
    audio_text_weight: float, weight of the audio-text term, compared in the
      video-text space.
    temperature: float, τ of the paper's equations 4 and 5.
    denominator: `joint`, `joint_once` or `per_direction` (see `losses.nce`).
    chunk_size: int or None; rows of the similarity matrix made at a time.

  Raises:
    ValueError: when a weight is negative or all are 0.
  """

  def __init__(
    self,
    model,
    video_audio_weight=1.0,
    video_text_weight=1.0,
    audio_text_weight=0.0,
    temperature=0.07,
    denominator='joint',
    chunk_size=None,
  ):
    weights = {
      'video_audio': video_audio_weight,
      'video_text': video_text_weight,
      'audio_text': audio_text_weight,
    }
    if min(weights.values()) < 0 or max(weights.values()) == 0:
      raise ValueError(
        'The term weights must be at least 0, and one of them above. '
        f'Received: {weights}'
      )
    self._model = model
    self._weights = weights
    self._options = {
      'temperature': temperature,
      'denominator': denominator,
      'chunk_size': chunk_size,
    }

  def build_model(self):
    """Makes the model; called inside the strategy's scope."""
    return self._model()

  def loss(self, features, outputs):
    """Computes the loss and the metrics of the training step.

    Args:
      features: dictionary of inputs and masks, this replica's rows.
      outputs: dictionary that the model returned for them.

    Returns:
      (loss, metrics): this replica's share of the loss, a scalar float32, and
      a dictionary of shares; both sum over the replicas to the global value.
    """
    video_mask = features[names.VIDEO_MASK]
    total, metrics = 0.0, {}
    if self._weights['video_audio']:
      result = nce.nce_loss(
        outputs[names.VIDEO_VA],
        outputs[names.AUDIO_VA],
        video_mask,
        features[names.AUDIO_MASK],
        **self._options,
      )
      total += self._weights['video_audio'] * result.loss
      metrics.update(
        {
          'video_audio_loss': result.loss,
          'accuracy/video_to_audio': result.video_to_audio_accuracy,
          'accuracy/audio_to_video': result.audio_to_video_accuracy,
          'pairs/video_audio': result.num_pairs,
        }
      )
    for modality, query, query_mask in (
      ('video', names.VIDEO_VT, video_mask),
      ('audio', names.AUDIO_VT, features.get(names.AUDIO_MASK)),
    ):
      weight = self._weights[f'{modality}_text']
      if not weight:
        continue
      result = mil_nce.mil_nce_loss(
        outputs[query],
        outputs[names.TEXT_VT],
        query_mask,
        features[names.TEXT_MASK],
        **self._options,
      )
      total += weight * result.loss
      metrics.update(
        {
          f'{modality}_text_loss': result.loss,
          f'accuracy/{modality}_to_text': result.video_to_text_accuracy,
          f'accuracy/text_to_{modality}': result.text_to_video_accuracy,
          f'pairs/{modality}_text': result.num_pairs,
        }
      )
    return total, metrics

  def variable_group(self, name):
    """The modality whose own a variable is, for the gradient norms.

    Args:
      name: a variable's name.

    Returns:
      `video`, `audio`, `text` or `shared`.
    """
    found = [part for part in ('video', 'audio', 'text') if part in name]
    return found[0] if len(found) == 1 else 'shared'
