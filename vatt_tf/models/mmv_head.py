"""The projections of MMV into the common spaces, as published."""

from collections.abc import Mapping, Sequence
from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import modalities
from vatt_tf.layers import cross_replica_batch_norm, projection_head

_FORMS = ('fac', 'fac_relu', 'fac_bnrelu', 'shared', 'disjoint')


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class ProjectionMap(tf_keras.layers.Layer):
  """A linear map, or a perceptron with one hidden layer.

  The perceptron is Dense -> BN -> ReLU -> Dense. The last Dense has a bias
  unless a batch norm follows it and there is a hidden layer.

  Args:
    units: Width of the output.
    hidden_units: Width of the hidden layer, or None for a linear map.
    has_norm: Whether a batch norm follows.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (..., D) float.
    training: Whether batch norms use the statistics of the batch.
    mask: Rows that count in the statistics, see
      `CrossReplicaBatchNormalization`.

  Returns:
    (..., units).
  """

  def __init__(
    self,
    units: int,
    hidden_units: int | None = None,
    has_norm: bool = False,
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    self.units = units
    self.hidden_units = hidden_units
    self.has_norm = has_norm
    dtype = self.dtype_policy
    self.hidden = self.hidden_norm = self.output_norm = None
    if hidden_units:
      self.hidden = tf_keras.layers.Dense(
        hidden_units, dtype=dtype, name='hidden'
      )
      self.hidden_norm = cross_replica_batch_norm.mmv_norm('hidden_norm', dtype)
    self.projection = tf_keras.layers.Dense(
      units,
      use_bias=not (hidden_units and has_norm),
      dtype=dtype,
      name='projection',
    )
    if has_norm:
      self.output_norm = cross_replica_batch_norm.mmv_norm('output_norm', dtype)

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates the weights of the sub-layers."""
    width = input_shape[-1]
    for layer, units in (
      (self.hidden, self.hidden_units),
      (self.hidden_norm, self.hidden_units),
      (self.projection, self.units),
      (self.output_norm, self.units),
    ):
      if layer is not None:
        with tf.name_scope(layer.name):
          layer.build(tf.TensorShape([None, width]))
        width = units
    super().build(input_shape)

  def call(
    self, x: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Maps `x`; see the class."""
    if self.hidden is not None:
      x = self.hidden_norm(self.hidden(x), training=training, mask=mask)
      x = tf.nn.relu(x)
    x = self.projection(x)
    if self.output_norm is not None:
      x = self.output_norm(x, training=training, mask=mask)
    return x

  def flops(self) -> int:
    """Returns the FLOPs on one row, a multiply-add counted as two."""
    layers = [self.projection]
    if self.hidden is not None:
      layers.append(self.hidden)
    return sum(2 * layer.kernel.shape.num_elements() for layer in layers)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'units': self.units,
      'hidden_units': self.hidden_units,
      'has_norm': self.has_norm,
    }


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class MMVHead(tf_keras.layers.Layer):
  """Maps pooled features to embeddings to compare (Alayrac et al. 2020).

  `fac`, fine and coarse: video and audio share a fine space, which another map
  projects to the coarse space that text shares. `MLP` is Dense -> BN -> ReLU ->
  Dense without bias -> BN, and all other Dense layers have biases.

      video -> MLP = video_va           audio -> Dense = audio_va
      video_va -> Dense -> BN = video_vt        text -> Dense = text_vt

  `fac_relu` has a ReLU before the second map of video, and `fac_bnrelu` a batch
  norm and a ReLU; the released models have `fac_relu`. The second map also
  projects sound (`audio_vt`), without being trained for it: its batch norms
  then use the moving statistics.

  `disjoint`: separate spaces of video and audio, and of video and text; an MLP
  of video into each, and a Dense of sound and of text. `shared`: an MLP of
  video, and a Dense of sound and of text, into one space. As in MMV, the MLP
  runs once for each pair, and so its moving statistics move twice per step.

  The statistics of batch norms are computed over the clips whose masks are
  true, over all replicas.

  Args:
    form: `fac`, `fac_relu`, `fac_bnrelu`, `shared` or `disjoint`.
    d_va: Width of the video-audio space, and of the hidden layers.
    d_vt: Width of the video-text space; `shared` needs `d_va`.
    pairs: Pairs of modalities that are compared, of `core.modalities.PAIRS`.
      `disjoint` does not allow `audio_text`.
    has_audio_text_maps: Whether to have the Dense layers of sound and of text
      into a space of their own, of the width `d_va`: the outputs `audio_at` and
      `text_at`. MMV's released parameters contain them, but no term of its loss
      uses them.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    features: Dictionary with any of `video_feature` (B, D), `audio_feature` (B,
      D), `text_feature` (B, C, D).
    masks: Dictionary with any of `video_mask` (B,), `audio_mask` (B,),
      `text_mask` (B, C), bool; those missing are all true.
    training: Whether batch norms use the statistics of the batch.

  Returns:
    Dictionary with those of `video_va`, `audio_va` (B, d_va), `video_vt`,
    `audio_vt` (B, d_vt), `text_vt` (B, C, d_vt) that apply; not normalised.

  Raises:
    ValueError: An argument is not valid.

  Example:
    >>> head = MMVHead(d_va=6, d_vt=4)
    >>> out = head({'video_feature': tf.zeros([2, 8]),
    ...             'audio_feature': tf.zeros([2, 8]),
    ...             'text_feature': tf.zeros([2, 3, 8])})
    >>> sorted(out)
    ['audio_va', 'audio_vt', 'text_vt', 'video_va', 'video_vt']
  """

  def __init__(
    self,
    form: str = 'fac_relu',
    d_va: int = 512,
    d_vt: int = 256,
    pairs: Sequence[str] = (modalities.VIDEO_AUDIO, modalities.VIDEO_TEXT),
    has_audio_text_maps: bool = False,
    **kwargs: Any,
  ):
    kwargs.setdefault('dtype', 'float32')
    super().__init__(**kwargs)
    projection_head.check_form(form, _FORMS, pairs)
    if form == 'shared' and d_va != d_vt:
      raise ValueError(
        'The form `shared` has one space: `d_va` and `d_vt` must be equal. '
        f'Received: d_va={d_va}, d_vt={d_vt}'
      )
    self.form = form
    self.d_va = d_va
    self.d_vt = d_vt
    self.pairs = tuple(pairs)
    self.has_audio_text_maps = has_audio_text_maps
    for name, options in self._maps().items():
      layer = ProjectionMap(**options, dtype=self.dtype_policy, name=name)
      setattr(self, name, layer)
    if self._is_fac and self._has_text and form == 'fac_bnrelu':
      self.va_norm = cross_replica_batch_norm.mmv_norm(
        'va_norm', self.dtype_policy
      )

  @property
  def _is_fac(self):
    return self.form.startswith('fac')

  @property
  def _has_text(self):
    return modalities.TEXT in modalities.of_pairs(self.pairs)

  def _maps(self):
    """The arguments of the maps by name, in the order of building.

    A map is named after the modality, or the space, that it maps.
    """
    used = modalities.of_pairs(self.pairs)
    perceptron = {'hidden_units': self.d_va, 'has_norm': True}
    maps = {}
    if self.form == 'disjoint':
      if modalities.VIDEO_AUDIO in self.pairs:
        maps['video_to_va'] = {'units': self.d_va, **perceptron}
        maps['audio_to_va'] = {'units': self.d_va}
      if modalities.VIDEO_TEXT in self.pairs:
        maps['video_to_vt'] = {'units': self.d_vt, **perceptron}
        maps['text_to_vt'] = {'units': self.d_vt}
    else:
      if modalities.VIDEO in used:
        maps['video_to_va'] = {'units': self.d_va, **perceptron}
      if modalities.AUDIO in used:
        maps['audio_to_va'] = {'units': self.d_va}
      if modalities.TEXT in used:
        if self._is_fac:
          maps['va_to_vt'] = {'units': self.d_vt, 'has_norm': True}
        maps['text_to_vt'] = {'units': self.d_vt}
    if self.has_audio_text_maps:
      for modality in (modalities.AUDIO, modalities.TEXT):
        if modality in used:
          maps[f'{modality}_to_at'] = {'units': self.d_va}
    return maps

  def build(self, input_shape: Mapping[str, tf.TensorShape]) -> None:
    """Creates the weights of the maps.

    Args:
      input_shape: Shapes of the features by name.
    """
    for name in self._maps():
      source = name.split('_')[0]
      width = self.d_va
      if source in modalities.MODALITIES:
        width = input_shape[modalities.MODALITIES[source].feature][-1]
      self._build(getattr(self, name), width)
    if hasattr(self, 'va_norm'):
      self._build(self.va_norm, self.d_va)
    super().build(input_shape)

  def _build(self, layer, width):
    with tf.name_scope(layer.name):
      layer.build(tf.TensorShape([None, width]))

  def call(
    self,
    features: Mapping[str, tf.Tensor],
    masks: Mapping[str, tf.Tensor] | None = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Projects all features; see the class."""
    masks = masks or {}
    outputs = {}
    for modality, project in (
      (modalities.VIDEO, self._project_video),
      (modalities.AUDIO, self._project_audio),
      (modalities.TEXT, self._project_text),
    ):
      row = modalities.MODALITIES[modality]
      if row.feature in features:
        mask = masks.get(row.mask)
        outputs.update(project(features[row.feature], training, mask))
    return outputs

  def _project_video(self, feature, training, mask):
    options = {'training': training, 'mask': mask}
    outputs = {}
    va = None
    if self._is_fac or modalities.VIDEO_AUDIO in self.pairs:
      va = self.video_to_va(feature, **options)
    if modalities.VIDEO_AUDIO in self.pairs:
      outputs[names.VIDEO_VA] = va
    if modalities.VIDEO_TEXT in self.pairs:
      if self._is_fac:
        vt = self._to_coarse(va, **options)
      elif self.form == 'shared':
        vt = self.video_to_va(feature, **options)
      else:
        vt = self.video_to_vt(feature, **options)
      outputs[names.VIDEO_VT] = vt
    return outputs

  def _project_audio(self, feature, training, mask):
    del training, mask  # no batch norm
    va = self.audio_to_va(feature)
    outputs = {names.AUDIO_VA: va}
    vt = self.map_to_text(va)
    if vt is not None:
      outputs[names.AUDIO_VT] = vt
    if self.has_audio_text_maps:
      outputs['audio_at'] = self.audio_to_at(feature)
    return outputs

  def map_to_text(self, va: tf.Tensor) -> tf.Tensor | None:
    """Maps embeddings of the video-audio space to the video-text space.

    Args:
      va: (B, d_va): embeddings of videos or sounds, not normalised.

    Returns:
      (B, d_vt), as in evaluation; None if the form of the head has no such map.
    """
    if not self._has_text:
      return None
    if self._is_fac:
      return self._to_coarse(va, training=False)
    return va if self.form == 'shared' else None

  def _project_text(self, feature, training, mask):
    del training, mask
    outputs = {names.TEXT_VT: self.text_to_vt(feature)}
    if self.has_audio_text_maps:
      outputs['text_at'] = self.text_to_at(feature)
    return outputs

  def _to_coarse(self, va, training, mask=None):
    """The embedding in the coarse space from the one in the fine space."""
    if self.form == 'fac_bnrelu':
      va = self.va_norm(va, training=training, mask=mask)
    if self.form != 'fac':
      va = tf.nn.relu(va)
    return self.va_to_vt(va, training=training, mask=mask)

  def flops(self, modality: str) -> int:
    """Returns the FLOPs of the forward pass on one feature.

    Args:
      modality: `video`, `audio` or `text`.

    Returns:
      Number of FLOPs; a multiplication and an addition are two.
    """
    maps = [name for name in self._maps() if name.startswith(modality)]
    total = sum(getattr(self, name).flops() for name in maps)
    if modality != modalities.TEXT and hasattr(self, 'va_to_vt'):
      total += self.va_to_vt.flops()
    return total

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'form': self.form,
      'd_va': self.d_va,
      'd_vt': self.d_vt,
      'pairs': self.pairs,
      'has_audio_text_maps': self.has_audio_text_maps,
    }
