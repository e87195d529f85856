"""Projections of pooled features into the common spaces."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names, modalities
from vatt_tf.layers import cross_replica_batch_norm

_FORMS = ('disjoint', 'fine_and_coarse', 'shared')


def check_form(form: str, forms: Sequence[str], pairs: Sequence[str]) -> None:
  """Checks the form of a head and what it compares.

  Args:
    form: Form of the head.
    forms: Forms that the head has.
    pairs: Pairs of modalities that are compared.

  Raises:
    ValueError: The form or a pair is unknown, or `disjoint`, which has no space
      of sound and text, shall compare them.
  """
  if form not in forms:
    raise ValueError(
      f'`form` must be one of {list(forms)}. Received: form={form!r}'
    )
  modalities.check_pairs(pairs)
  if form == 'disjoint' and modalities.AUDIO_TEXT in pairs:
    raise ValueError(
      'The form `disjoint` has no space for sound and text: choose another '
      f'`form`, or no audio-text term. Received: pairs={pairs}'
    )


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class ProjectionHead(tf_keras.layers.Layer):
  """Maps pooled features to embeddings to compare (paper, section 3.3).

  `fine_and_coarse`: video and audio share a fine space of width `d_va`, which
  another map projects to the coarse space of width `d_vt`, which text shares.

      video -> Dense -> BN -> ReLU -> Dense -> BN = video_va
      video_va -> ReLU -> Dense -> BN = video_vt
      audio -> Dense = audio_va           text -> Dense = text_vt

  The second map also projects sound to the space of text (`audio_vt`), though
  it is trained for that only if `pairs` has `audio_text`. For sound, its batch
  norm uses the moving statistics, also in training, so that sound is projected
  as in inference and does not change the statistics of video.

  `shared`: each modality has ReLU -> Dense -> BN into one space of width
  `d_va`. `disjoint`: the same form, but the video-audio and the video-text
  space are separate, and video has a map into each.

  Everything is in float32 by default. The statistics of batch norm are computed
  over the clips (captions) whose masks are true, over all replicas.

  Args:
    form: `fine_and_coarse`, `shared` or `disjoint`.
    d_va: Width of the video-audio space.
    d_vt: Width of the video-text space; `shared` does not use it.
    pairs: Pairs of modalities that are compared, of `core.modalities.PAIRS`.
      Maps that no comparison uses are not created. `disjoint` does not allow
      `audio_text`.
    momentum: Momentum of the batch norms.
    epsilon: Number added to the variance of the batch norms.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    features: Dictionary with any of `video_feature` (B, D), `audio_feature` (B,
      D), `text_feature` (B, C, D).
    masks: Dictionary with any of `video_mask` (B,), `audio_mask` (B,),
      `text_mask` (B, C), bool; those missing are all true.
    training: Whether dropout and DropToken apply.

  Returns:
    Dictionary with those of `video_va`, `audio_va` (B, d_va), `video_vt`,
    `audio_vt` (B, d_vt), `text_vt` (B, C, d_vt) that apply; not normalised.

  Raises:
    ValueError: An argument is not valid.

  Example:
    >>> head = ProjectionHead(d_va=6, d_vt=4)
    >>> out = head({'video_feature': tf.zeros([2, 8]),
    ...             'audio_feature': tf.zeros([2, 8]),
    ...             'text_feature': tf.zeros([2, 3, 8])})
    >>> sorted(out)
    ['audio_va', 'audio_vt', 'text_vt', 'video_va', 'video_vt']
  """

  def __init__(
    self,
    form: str = 'fine_and_coarse',
    d_va: int = 512,
    d_vt: int = 256,
    pairs: Sequence[str] = (modalities.VIDEO_AUDIO, modalities.VIDEO_TEXT),
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    **kwargs: Any,
  ):
    kwargs.setdefault('dtype', 'float32')
    super().__init__(**kwargs)
    check_form(form, _FORMS, pairs)
    self.form = form
    self.d_va = d_va
    self.d_vt = d_vt
    self.pairs = tuple(pairs)
    self.use_video_audio = modalities.VIDEO_AUDIO in pairs
    self.use_video_text = modalities.VIDEO_TEXT in pairs
    self.use_audio_text = modalities.AUDIO_TEXT in pairs
    self.momentum = momentum
    self.epsilon = epsilon

  def build(self, input_shape: Mapping[str, tf.TensorShape]) -> None:
    """Creates the maps of the modalities that are in use.

    Args:
      input_shape: Shapes of the features by name.
    """
    used = modalities.of_pairs(self.pairs)
    use_video, use_audio, use_text = (
      modality in used
      for modality in (modalities.VIDEO, modalities.AUDIO, modalities.TEXT)
    )
    d_video, d_audio, d_text = (
      int(input_shape[name][-1]) if is_used else None
      for name, is_used in (
        (feature_names.VIDEO_FEATURE, use_video),
        (feature_names.AUDIO_FEATURE, use_audio),
        (feature_names.TEXT_FEATURE, use_text),
      )
    )
    if self.form == 'fine_and_coarse':
      if use_video:
        self._dense('video_to_hidden', d_video, self.d_va)
        self._norm('hidden_norm', self.d_va)
        self._dense('hidden_to_va', self.d_va, self.d_va)
        self._norm('va_norm', self.d_va)
      if use_audio:
        self._dense('audio_to_va', d_audio, self.d_va, use_bias=True)
      if use_text:
        self._dense('va_to_vt', self.d_va, self.d_vt)
        self._norm('vt_norm', self.d_vt)
        self._dense('text_to_vt', d_text, self.d_vt, use_bias=True)
    elif self.form == 'shared':
      for name, width in (
        ('video', d_video),
        ('audio', d_audio),
        ('text', d_text),
      ):
        if width:
          self._dense(f'{name}_to_shared', width, self.d_va)
          self._norm(f'{name}_norm', self.d_va)
    else:
      if self.use_video_audio:
        self._dense('video_to_va', d_video, self.d_va)
        self._norm('video_va_norm', self.d_va)
        self._dense('audio_to_va', d_audio, self.d_va)
        self._norm('audio_va_norm', self.d_va)
      if self.use_video_text:
        self._dense('video_to_vt', d_video, self.d_vt)
        self._norm('video_vt_norm', self.d_vt)
        self._dense('text_to_vt', d_text, self.d_vt)
        self._norm('text_vt_norm', self.d_vt)
    super().build(input_shape)

  def _add(self, layer, width):
    with tf.name_scope(layer.name):
      layer.build(tf.TensorShape([None, width]))
    setattr(self, layer.name, layer)

  def _dense(self, name, d_in, d_out, use_bias=False):
    self._add(
      tf_keras.layers.Dense(
        d_out, use_bias=use_bias, dtype=self.dtype_policy, name=name
      ),
      d_in,
    )

  def _norm(self, name, width):
    self._add(
      cross_replica_batch_norm.CrossReplicaBatchNormalization(
        self.momentum, self.epsilon, dtype=self.dtype_policy, name=name
      ),
      width,
    )

  def call(
    self,
    features: Mapping[str, tf.Tensor],
    masks: Mapping[str, tf.Tensor] | None = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Projects all features; see the class."""
    masks = masks or {}
    outputs = {}
    for feature_name, mask_name, project in (
      (
        feature_names.VIDEO_FEATURE,
        feature_names.VIDEO_MASK,
        self.project_video,
      ),
      (
        feature_names.AUDIO_FEATURE,
        feature_names.AUDIO_MASK,
        self.project_audio,
      ),
      (feature_names.TEXT_FEATURE, feature_names.TEXT_MASK, self.project_text),
    ):
      if feature_name in features:
        outputs.update(
          project(features[feature_name], masks.get(mask_name), training)
        )
    return outputs

  def project_video(
    self,
    feature: tf.Tensor,
    mask: tf.Tensor | None = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Projects video features (B, D): `video_va` and `video_vt`, as used."""
    outputs = {}
    if self.form == 'fine_and_coarse':
      hidden = self.video_to_hidden(feature)
      hidden = self.hidden_norm(hidden, training=training, mask=mask)
      va = self.hidden_to_va(tf.nn.relu(hidden))
      va = self.va_norm(va, training=training, mask=mask)  # (B, d_va)
      if self.use_video_audio:
        outputs[feature_names.VIDEO_VA] = va
      if self.use_video_text:
        vt = self.va_to_vt(tf.nn.relu(va))
        outputs[feature_names.VIDEO_VT] = self.vt_norm(
          vt, training=training, mask=mask
        )  # (B, d_vt)
    elif self.form == 'shared':
      z = self.video_to_shared(tf.nn.relu(feature))
      z = self.video_norm(z, training=training, mask=mask)
      if self.use_video_audio:
        outputs[feature_names.VIDEO_VA] = z
      if self.use_video_text:
        outputs[feature_names.VIDEO_VT] = z
    else:
      feature = tf.nn.relu(feature)
      if self.use_video_audio:
        outputs[feature_names.VIDEO_VA] = self.video_va_norm(
          self.video_to_va(feature), training=training, mask=mask
        )
      if self.use_video_text:
        outputs[feature_names.VIDEO_VT] = self.video_vt_norm(
          self.video_to_vt(feature), training=training, mask=mask
        )
    return outputs

  def map_to_text(self, va: tf.Tensor) -> tf.Tensor | None:
    """Maps embeddings of the video-audio space to the video-text space.

    Args:
      va: (B, d_va): embeddings of videos or sounds, not normalised.

    Returns:
      (B, d_vt), as in evaluation; None if the form of the head has no such map.
    """
    if not (self.use_video_text or self.use_audio_text):
      return None
    if self.form == 'fine_and_coarse':
      return self.vt_norm(self.va_to_vt(tf.nn.relu(va)), training=False)
    return va if self.form == 'shared' else None

  def project_audio(
    self,
    feature: tf.Tensor,
    mask: tf.Tensor | None = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Projects audio features (B, D): `audio_va` and `audio_vt`, as used."""
    has_text = self.use_video_text or self.use_audio_text
    if self.form == 'fine_and_coarse':
      va = self.audio_to_va(feature)  # (B, d_va)
      outputs = {feature_names.AUDIO_VA: va}
      if has_text:
        outputs[feature_names.AUDIO_VT] = self.map_to_text(va)
    elif self.form == 'shared':
      z = self.audio_to_shared(tf.nn.relu(feature))
      z = self.audio_norm(z, training=training, mask=mask)
      outputs = {feature_names.AUDIO_VA: z}
      if has_text:
        outputs[feature_names.AUDIO_VT] = z
    else:
      z = self.audio_to_va(tf.nn.relu(feature))
      outputs = {
        feature_names.AUDIO_VA: self.audio_va_norm(
          z, training=training, mask=mask
        )
      }
    return outputs

  def project_text(
    self,
    feature: tf.Tensor,
    mask: tf.Tensor | None = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Projects text features (B, C, D) or (B, D): `text_vt`."""
    if self.form == 'fine_and_coarse':
      z = self.text_to_vt(feature)
    elif self.form == 'shared':
      z = self.text_to_shared(tf.nn.relu(feature))
      z = self.text_norm(z, training=training, mask=mask)
    else:
      z = self.text_to_vt(tf.nn.relu(feature))
      z = self.text_vt_norm(z, training=training, mask=mask)
    return {feature_names.TEXT_VT: z}

  def flops(self, modality: str) -> dict[str, int]:
    """Returns the FLOPs of the forward pass on one feature.

    Args:
      modality: `video`, `audio` or `text`.

    Returns:
      Int; a multiplication and an addition are two. A training step that uses
      all outputs computes three times as much.
    """
    maps = [f'{modality}_to_{space}' for space in ('va', 'vt', 'shared')]
    if self.form == 'fine_and_coarse':
      has_text = self.use_video_text or self.use_audio_text
      if modality == modalities.VIDEO:
        maps += ['video_to_hidden', 'hidden_to_va']
        has_text = self.use_video_text
      if modality != modalities.TEXT and has_text:
        maps.append('va_to_vt')
    return sum(
      2 * math.prod(getattr(self, name).kernel.shape)
      for name in maps
      if hasattr(self, name)
    )

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'form': self.form,
      'd_va': self.d_va,
      'd_vt': self.d_vt,
      'pairs': self.pairs,
      'momentum': self.momentum,
      'epsilon': self.epsilon,
    }
