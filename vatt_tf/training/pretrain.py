"""Pre-training: the terms between video, audio and text.

Paper section 3.3: NCE between video and audio, MIL-NCE between video and text,
summed with weights. Or the sigmoid loss for each pair, in their place.
"""

import gin

from vatt_tf import distribution
from vatt_tf import feature_names as names
from vatt_tf.losses import mil_nce, nce, sigmoid
from vatt_tf.models import similarity_scale

# Of each pair, the embeddings and the masks that its term compares.
_TERMS = {
  'video_audio': (
    names.VIDEO_VA,
    names.AUDIO_VA,
    names.VIDEO_MASK,
    names.AUDIO_MASK,
  ),
  'video_text': (
    names.VIDEO_VT,
    names.TEXT_VT,
    names.VIDEO_MASK,
    names.TEXT_MASK,
  ),
  'audio_text': (
    names.AUDIO_VT,
    names.TEXT_VT,
    names.AUDIO_MASK,
    names.TEXT_MASK,
  ),
}


@gin.register
class PretrainTask:
  """What pre-training optimises.

  Args:
    model: callable without arguments that returns the model. It learns the
      scalars that `objective` and `learned_temperature` want: its
      `learned_similarity` is `similarity_scale.similarity_kind` of the two.
    video_audio_weight: float, weight of the video-audio term; 0 drops it.
    video_text_weight: float, weight of the video-text term (the paper's λ).
    audio_text_weight: float, weight of the audio-text term, compared in the
      video-text space.
    objective: `nce`, NCE and MIL-NCE; or `sigmoid`, for all pairs the sigmoid
      loss (see `losses.sigmoid`), whose temperature and bias are learned.
    temperature: float, τ of the paper's equations 4 and 5; with
      `learned_temperature` where it starts, as the model's own `temperature`
      says too. The sigmoid loss does not use it.
    learned_temperature: bool; NCE and MIL-NCE learn a temperature for each
      pair.
    denominator: `joint`, `joint_once` or `per_direction` (see `losses.nce`).
      The sigmoid loss has none.
    chunk_size: int or None; rows of the similarity matrix made at a time.

  Attributes:
    headline: names of the metrics that the line of progress shows.

  Raises:
    ValueError: when a weight is negative or all are 0, or the objective is
      unknown.
  """

  headline = ('video_audio_loss', 'video_text_loss', 'audio_text_loss')

  def __init__(
    self,
    model,
    video_audio_weight=1.0,
    video_text_weight=1.0,
    audio_text_weight=0.0,
    objective='nce',
    temperature=0.07,
    learned_temperature=False,
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
    self._similarity_kind = similarity_scale.similarity_kind(
      objective, learned_temperature
    )
    self._objective = objective
    self._temperature = temperature
    self._denominator = denominator
    self._chunk_size = chunk_size

  def build_model(self):
    """Makes the model; called inside the strategy's scope.

    Returns:
      The model.

    Raises:
      ValueError: the model learns a temperature, which starts from another
        value than the task's.
    """
    model = self._model()
    if self._similarity_kind == 'temperature':
      scale = model.similarity_scale
      if scale is not None and scale.temperature != self._temperature:
        raise ValueError(
          '`temperature` must be the same for the task and for the model, '
          'which starts to learn from it (TEMPERATURE in the gin files sets '
          f"both). Received: temperature={self._temperature}, and the model's "
          f'temperature={scale.temperature}'
        )
    return model

  def loss(self, features, outputs):
    """Computes the loss and the metrics of the training step.

    Args:
      features: dictionary of inputs and masks, this replica's rows.
      outputs: dictionary that the model returned for them.

    Returns:
      (loss, metrics): this replica's share of the loss, a scalar float32, and
      a dictionary of shares; both sum over the replicas to the global value.
      Learned scalars are among them: `inverse_temperature/video_audio`, which
      is 1 / τ or SigLIP's t, and `bias/video_audio`, and their like.

    Raises:
      ValueError: the model does not learn what the objective wants.
    """
    total, metrics = 0.0, {}
    for pair, (first, second, first_mask, second_mask) in _TERMS.items():
      if not self._weights[pair]:
        continue
      scalars = self._learned(pair, outputs)
      loss, num_pairs, forward, backward = self._term(
        pair,
        outputs[first],
        outputs[second],
        features[first_mask],
        features[second_mask],
        scalars,
      )
      total += self._weights[pair] * loss
      one, other = pair.split('_')
      metrics.update(
        {
          f'{pair}_loss': loss,
          f'accuracy/{one}_to_{other}': forward,
          f'accuracy/{other}_to_{one}': backward,
          f'pairs/{pair}': num_pairs,
        }
      )
      # All replicas have the same scalars, so that each gives a part.
      replicas = distribution.num_replicas()
      for name, scalar in scalars.items():
        metrics[f'{name}/{pair}'] = scalar / replicas
    return total, metrics

  def _learned(self, pair, outputs):
    """The learned scalars of a pair, by the name of their metric."""
    keys = {
      'inverse_temperature': similarity_scale.inverse_temperature_name(pair),
      'bias': similarity_scale.bias_name(pair),
    }
    scalars = {
      name: outputs[key] for name, key in keys.items() if key in outputs
    }
    found = None
    if scalars:
      has_bias = 'bias' in scalars
      found = 'temperature_and_bias' if has_bias else 'temperature'
    if found != self._similarity_kind:
      raise ValueError(
        f'The objective {self._objective!r} needs a model with '
        f'`learned_similarity`={self._similarity_kind!r} for {pair}. Received: '
        f'a model with {found!r}. OBJECTIVE and LEARNED_TEMPERATURE in the gin '
        'files set both; in Python give build_model the `learned_similarity` '
        'that similarity_scale.similarity_kind returns.'
      )
    return scalars

  def _term(self, pair, first, second, first_mask, second_mask, scalars):
    """This replica's loss, number of pairs, and accuracies both ways."""
    if self._objective == 'sigmoid':
      return sigmoid.sigmoid_loss(
        first,
        second,
        first_mask,
        second_mask,
        chunk_size=self._chunk_size,
        **scalars,
      )
    temperature = self._temperature
    if scalars:
      temperature = 1.0 / scalars['inverse_temperature']
    function = nce.nce_loss if pair == 'video_audio' else mil_nce.mil_nce_loss
    return function(
      first,
      second,
      first_mask,
      second_mask,
      temperature,
      self._denominator,
      self._chunk_size,
    )

  def variable_group(self, name):
    """The modality whose own a variable is, for the gradient norms.

    Args:
      name: a variable's name.

    Returns:
      `video`, `audio`, `text` or `shared`.
    """
    found = [part for part in ('video', 'audio', 'text') if part in name]
    return found[0] if len(found) == 1 else 'shared'
