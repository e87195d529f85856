"""VATT: towers for video, audio and text, and their common spaces."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities as modality_table
from vatt_tf.core import randomness
from vatt_tf.layers import projection_head
from vatt_tf.models import similarity_scale, tower

_DEFAULT_PAIRS = (modality_table.VIDEO_AUDIO, modality_table.VIDEO_TEXT)


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class VATT(tf_keras.Model):
  """Video-Audio-Text Transformer (paper, section 3).

  The model is modality-agnostic if the towers share an encoder, and
  modality-specific if each has its own. Towers that no pair needs are left out.

  Args:
    towers: Towers by modality.
    head: Function that makes the head from `pairs`, such as `ProjectionHead`,
      or a head. None means that there is no head, and the outputs are the
      features of all towers.
    pairs: Pairs of modalities that the head compares, of
      `core.modalities.PAIRS`.
    similarity: Learned scalars of the loss, or None.
    **kwargs: Arguments of `tf_keras.Model`.

  Call arguments:
    features: Dictionary with the input of each modality of the model, `video`
      (B, T, H, W, 3), `audio` (B, S, 1) or `spectrogram` (B, F, M), `text`
      (B, C, L), and optionally the masks `video_mask` (B,), `audio_mask` (B,),
      `text_mask` (B, C); see `feature_names`. Other entries do not matter.
    training: Whether DropToken and dropout apply.
    rng: `randomness.Rng`, or None to draw from TensorFlow's global state.

  Returns:
    Dictionary of float32 tensors: the outputs of `feature_names` that the model
    has, and with `similarity` the scalars of `SimilarityScale`.

  Raises:
    ValueError: A pair needs a tower that is not given; an input is missing or
      does not fit.

  Example:
    >>> size = sizes.Size(1, 8, 16, 2, d_kv=4)
    >>> audio = patch_tower.PatchTower('audio', input_size=1280, size=size)
    >>> model = VATT({'audio': audio}, head=None)
    >>> model({'audio': tf.zeros([2, 1280, 1])})['audio_feature'].shape
    TensorShape([2, 8])
  """

  def __init__(
    self,
    towers: Mapping[str, tower.Tower],
    head: Callable[..., tf_keras.layers.Layer]
    | None = projection_head.ProjectionHead,
    pairs: Sequence[str] = _DEFAULT_PAIRS,
    similarity: similarity_scale.SimilarityScale | None = None,
    **kwargs: Any,
  ):
    kwargs.setdefault('name', 'vatt')
    # The towers cast inputs, after DropToken has chosen the patches.
    super().__init__(autocast=False, **kwargs)
    self.pairs = tuple(pairs)
    needed = set(towers)
    if head is not None:
      needed = modality_table.of_pairs(pairs)
    missing_towers = [modality for modality in needed if modality not in towers]
    if missing_towers:
      raise ValueError(
        f'`towers` must have one for {" and ".join(missing_towers)}, which '
        f'`pairs` compare. Received: towers for {sorted(towers)}, '
        f'pairs={self.pairs}'
      )
    self.modalities = tuple(
      modality for modality in modality_table.MODALITIES if modality in needed
    )
    for modality in self.modalities:
      # The model owns the layers that towers share: `vatt/encoder`.
      for layer in towers[modality].shared_layers:
        setattr(self, layer.name, layer)
    for modality in self.modalities:
      setattr(self, f'{modality}_tower', towers[modality])
    if head is not None and not isinstance(head, tf_keras.layers.Layer):
      head = head(pairs=self.pairs, name='head')
    self.head = head
    self.similarity_scale = similarity

  @property
  def towers(self) -> dict[str, tower.Tower]:
    """Towers by modality."""
    return {
      modality: getattr(self, f'{modality}_tower')
      for modality in self.modalities
    }

  @property
  def shared_layers(self) -> tuple[tf_keras.layers.Layer, ...]:
    """Layers that several towers share, such as the agnostic encoder."""
    layers = {}
    for modality_tower in self.towers.values():
      layers.update(
        {layer.name: layer for layer in modality_tower.shared_layers}
      )
    return tuple(layers.values())

  def build(self, input_shape: Any = None) -> None:
    """Creates all weights, which do not depend on the shape of an input."""
    del input_shape
    if self.built:
      return
    with tf.name_scope(f'{self.name}/'):  # never nested in a caller's scope
      for modality_tower in self.towers.values():
        modality_tower.build()
      features = {
        modality_table.MODALITIES[modality].feature: tf.TensorShape(
          [None, modality_tower.width]
        )
        for modality, modality_tower in self.towers.items()
      }
      tower.build_scoped(self.head, features)
      tower.build_scoped(self.similarity_scale, None)
    self.built = True

  def call(
    self,
    features: Mapping[str, tf.Tensor],
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> dict[str, tf.Tensor]:
    """Computes features and embeddings; see the class."""
    pooled = self.encode(features, training, rng)
    return self.project(pooled, features, training)

  def encode(
    self,
    features: Mapping[str, tf.Tensor],
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> dict[str, tf.Tensor]:
    """Runs the towers of all modalities.

    Args:
      features: See the call.
      training: See the call.
      rng: See the call.

    Returns:
      Dictionary of float32 tensors: the feature (B, d) of each modality, such
      as `video_feature`; for text (B, C, d). No row depends on another.

    Raises:
      ValueError: An input is missing or does not fit; the message names it.
    """
    pooled = {}
    for modality, modality_tower in self.towers.items():
      name = modality_tower.input_name
      if name not in features:
        raise ValueError(
          f'`features` must have the key {name!r}: the model has the '
          f'modalities {self.modalities}. To embed only one of them, call '
          f'`embed({modality!r}, …)`. Received: keys {sorted(features)}'
        )
      x = features[name]
      pooled.update(self._run_tower(modality, x, training, rng))
    return pooled

  def _run_tower(self, modality, x, training, rng):
    """The pooled feature of one modality, under its key."""
    output = self.towers[modality](
      x, training=training, rng=randomness.fold_in(rng, modality)
    )
    return {modality_table.MODALITIES[modality].feature: output.feature}

  def project(
    self,
    pooled: Mapping[str, tf.Tensor],
    masks: Mapping[str, tf.Tensor],
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Runs the head on the features of the whole batch.

    Args:
      pooled: Features of `encode`, or some of them.
      masks: Masks such as `video_mask`; a modality without one has all its
        rows. Other entries do not matter.
      training: Whether dropout and DropToken apply.

    Returns:
      Dictionary of outputs, see the call.
    """
    masks = {
      row.mask: masks[row.mask]
      for row in modality_table.MODALITIES.values()
      if row.mask in masks
    }
    outputs = self._add_embeddings(pooled, masks, training)
    if self.similarity_scale is not None:
      outputs.update(self.similarity_scale.values())
    return outputs

  def _add_embeddings(self, pooled, masks, training):
    """The pooled features, and the embeddings of the head."""
    if self.head is None:
      return dict(pooled)
    return {**pooled, **self.head(pooled, masks=masks, training=training)}

  def embed(
    self,
    modality: str,
    x: tf.Tensor,
    mask: tf.Tensor | None = None,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> dict[str, tf.Tensor]:
    """Computes the features and embeddings of one modality.

    Args:
      modality: Modality, such as `video`.
      x: Input of its tower, see `tower.Tower`; text (B, C, L) or (B, L).
      mask: (B,) or (B, C) bool: the rows that exist, over which batch norms
        compute their statistics in training. None means all.
      training: Whether dropout and DropToken apply.
      rng: `randomness.Rng` or None.

    Returns:
      Dictionary of float32 tensors, such as `video_feature` (B, d), and
      `video_va` and `video_vt` (B, D) if the head has them.

    Raises:
      ValueError: The model has no such tower, or `x` does not fit it.
    """
    if modality not in self.modalities:
      raise ValueError(
        f'The model has no {modality} tower, only {self.modalities}. Build it '
        f'with a pair that compares {modality}.'
      )
    pooled = self._run_tower(modality, x, training, rng)
    mask_name = modality_table.MODALITIES[modality].mask
    masks = {} if mask is None else {mask_name: mask}
    return self._add_embeddings(pooled, masks, training)

  def _trackable_children(self, save_type='checkpoint', **kwargs):
    """The parts by their names in checkpoints, which have no tower level."""
    children = super()._trackable_children(save_type, **kwargs)
    if save_type == 'checkpoint':
      for modality, modality_tower in self.towers.items():
        del children[f'{modality}_tower']
        children.update(modality_tower._trackable_children(save_type, **kwargs))
    return children

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the model."""
    serialize = tower.serialize
    parts = {'head': self.head, 'similarity': self.similarity_scale}
    return {
      'name': self.name,
      'towers': {name: serialize(x) for name, x in self.towers.items()},
      'pairs': self.pairs,
      **{
        name: None if part is None else serialize(part)
        for name, part in parts.items()
      },
    }

  @classmethod
  def from_config(
    cls, config: Mapping[str, Any], custom_objects: Any = None
  ) -> 'VATT':
    """Makes a model from the configuration of `get_config`."""
    deserialize = tower.deserialize
    shared, towers = {}, {}
    for modality, tower_config in config['towers'].items():
      encoder = tower_config['config'].get('encoder')
      if encoder is not None:
        # Each tower that shares an encoder has the encoder's config.
        name = encoder['config']['name']
        if name not in shared:
          shared[name] = deserialize(encoder, custom_objects)
        arguments = {**tower_config['config'], 'encoder': shared[name]}
        tower_config = {**tower_config, 'config': arguments}
      towers[modality] = deserialize(tower_config, custom_objects)
    parts = {
      name: config[name] and deserialize(config[name], custom_objects)
      for name in ('head', 'similarity')
    }
    return cls(**{**config, **parts, 'towers': towers})
