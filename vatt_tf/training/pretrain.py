"""Pre-training: the loss terms between video, audio and text.

The loss is the weighted sum of NCE between video and audio and MIL-NCE between
video and text (paper section 3.4), or of the sigmoid loss for each pair; and of
NCE between the places of a video and its sound (`losses.local`).
"""

from collections.abc import Callable, Mapping

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import collectives, modalities
from vatt_tf.core import feature_names as names
from vatt_tf.losses import contrastive, local, sigmoid
from vatt_tf.models import similarity_scale

OBJECTIVES = ('nce', 'sigmoid')


@gin.register
class PretrainTask:
  """The task of pre-training, which owns the pairs and the temperature.

  Attributes:
    progress_metrics: Names of the metrics that the progress line shows.

  Args:
    model: `vatt.VATT`, or another function that takes `pairs`, a tuple of
      names, `similarity`, a `SimilarityScale` or None, and with a local term
      `use_token_head`, and returns the model.
    video_audio_weight: Weight of the video-audio term; 0 drops it.
    video_text_weight: Weight of the video-text term (the paper's λ).
    audio_text_weight: Weight of the audio-text term, which compares in the
      video-text space.
    local_weight: Weight of the term between the places of the video and the
      sound; 0 drops it. It needs the video-audio term and the objective `nce`,
      and shares their temperature, denominator and chunks.
    local_pool: How the places of a time step become a similarity, `max` or
      `log_sum_exp` (see `losses.local`).
    objective: `nce` for NCE and MIL-NCE; or `sigmoid` for the sigmoid loss of
      all pairs (see `losses.sigmoid`), which learns temperature and bias.
    temperature: Temperature τ of the paper's equations 4 and 5; with
      `learned_temperature` its initial value. The sigmoid loss does not use it.
    learned_temperature: Whether NCE and MIL-NCE learn a temperature for each
      pair.
    denominator: `joint`, `joint_once` or `per_direction` (see
      `losses.contrastive`). The sigmoid loss does not use it.
    chunk_size: Rows of the similarity matrix to compute at a time.

  Raises:
    ValueError: A weight is negative, all weights are 0, the objective or the
      pool is unknown, or the local term lacks what it needs.
  """

  progress_metrics = (
    'video_audio_loss',
    'video_text_loss',
    'audio_text_loss',
    'local_loss',
  )

  def __init__(
    self,
    model: Callable[..., tf_keras.Model],
    video_audio_weight: float = 1.0,
    video_text_weight: float = 1.0,
    audio_text_weight: float = 0.0,
    local_weight: float = 0.0,
    local_pool: str = 'max',
    objective: str = 'nce',
    temperature: float = 0.07,
    learned_temperature: bool = False,
    denominator: str = 'joint',
    chunk_size: int | None = None,
  ):
    weights = {
      modalities.VIDEO_AUDIO: video_audio_weight,
      modalities.VIDEO_TEXT: video_text_weight,
      modalities.AUDIO_TEXT: audio_text_weight,
    }
    if min(weights.values()) < 0 or max(weights.values()) == 0:
      raise ValueError(
        'The weights of the terms must be at least 0, and one of them above 0. '
        f'Received: {weights}'
      )
    if objective not in OBJECTIVES:
      raise ValueError(
        f'`objective` must be one of {", ".join(OBJECTIVES)}. '
        f'Received: objective={objective!r}'
      )
    if local_weight < 0 or local_pool not in local.POOLS:
      raise ValueError(
        '`local_weight` must be at least 0, and `local_pool` one of '
        f'{", ".join(local.POOLS)}. Received: local_weight={local_weight}, '
        f'local_pool={local_pool!r}'
      )
    if local_weight and not (video_audio_weight and objective == 'nce'):
      raise ValueError(
        'The local term needs the video-audio term and the objective `nce`. '
        f'Received: local_weight={local_weight}, '
        f'video_audio_weight={video_audio_weight}, objective={objective!r}'
      )
    self._model = model
    self._weights = {pair: x for pair, x in weights.items() if x}
    self._local_weight = local_weight
    self._local_pool = local_pool
    self._objective = objective
    self._temperature = temperature
    self._learned_temperature = learned_temperature
    self._denominator = denominator
    self._chunk_size = chunk_size

  def build_model(self) -> tf_keras.Model:
    """Builds the model. The loop calls it in the strategy's scope.

    Returns:
      The model, with the learned temperatures and biases of the pairs whose
      weight is above 0.
    """
    pairs = tuple(self._weights)
    kind = None
    if self._objective == 'sigmoid':
      kind = 'temperature_and_bias'
    elif self._learned_temperature:
      kind = 'temperature'
    similarity = None
    if kind is not None:
      similarity = similarity_scale.SimilarityScale(
        pairs, kind, self._temperature, name='similarity_scale'
      )
    options = {'use_token_head': True} if self._local_weight else {}
    model = self._model(pairs=pairs, similarity=similarity, **options)
    model.build()
    return model

  def loss(
    self, features: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Computes the loss and the metrics of the training step.

    Args:
      features: Inputs and masks of this replica's rows.
      outputs: Outputs of the model for these rows.

    Returns:
      (loss, metrics): this replica's share of the loss, a scalar float32, and
      a dictionary of shares; both sum over the replicas to the global value.
      Among the metrics are the learned scalars of each pair, such as
      `inverse_temperature/video_audio`, which is 1 / τ or SigLIP's t, and
      `bias/video_audio`.
    """
    total, metrics = 0.0, {}
    for name, weight in self._weights.items():
      pair = modalities.PAIRS[name]
      scalars = similarity_scale.scalars_of(name, outputs)
      loss, num_pairs, forward, backward = self._term(
        outputs[pair.first_embedding],
        outputs[pair.second_embedding],
        features[modalities.MODALITIES[pair.first].mask],
        features[modalities.MODALITIES[pair.second].mask],
        scalars,
      )
      total += weight * loss
      metrics.update(
        {
          f'{name}_loss': loss,
          f'accuracy/{pair.first}_to_{pair.second}': forward,
          f'accuracy/{pair.second}_to_{pair.first}': backward,
          f'pairs/{name}': num_pairs,
        }
      )
      # All replicas have the same scalars, so each contributes a part.
      replicas = collectives.num_replicas()
      for scalar_name, scalar in scalars.items():
        metrics[f'{scalar_name}/{name}'] = scalar / replicas
    if self._local_weight:
      loss, of_local = self._local_term(features, outputs)
      total += self._local_weight * loss
      metrics.update(of_local)
    return total, metrics

  def _local_term(self, features, outputs):
    """This replica's share of the local term, and its metrics."""
    scalars = similarity_scale.scalars_of(modalities.VIDEO_AUDIO, outputs)
    terms = local.local_contrastive_loss(
      outputs[names.VIDEO_TOKEN_VA],
      outputs[names.AUDIO_VA],
      outputs[names.VIDEO_TOKEN_MASK],
      features[names.VIDEO_MASK],
      features[names.AUDIO_MASK],
      self._temperature_of(scalars),
      self._denominator,
      self._local_pool,
      self._chunk_size,
    )
    return terms.loss, {
      'local_loss': terms.loss,
      'accuracy/places_to_audio': terms.forward_accuracy,
      'accuracy/audio_to_places': terms.backward_accuracy,
    }

  def _temperature_of(self, scalars):
    """The temperature of a pair, fixed or learned."""
    if scalars:
      return 1.0 / scalars['inverse_temperature']
    return self._temperature

  def _term(self, first, second, first_mask, second_mask, scalars):
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
    return contrastive.contrastive_loss(
      first,
      second,
      first_mask,
      second_mask,
      self._temperature_of(scalars),
      self._denominator,
      self._chunk_size,
    )

  def variable_group(self, name: str) -> str:
    """Returns the group of a variable for the gradient norms.

    Args:
      name: Name of the variable.

    Returns:
      `video`, `audio`, `text` or `shared`.
    """
    matches = [part for part in modalities.MODALITIES if part in name]
    return matches[0] if len(matches) == 1 else 'shared'
