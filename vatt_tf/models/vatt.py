"""VATT: towers for video, audio and text, and their common spaces."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import modalities as modality_table
from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import projection_head
from vatt_tf.models import similarity_scale, token_maps, tower

_DEFAULT_PAIRS = (modality_table.VIDEO_AUDIO, modality_table.VIDEO_TEXT)


def compare_places(places: tf.Tensor, sound: tf.Tensor) -> tf.Tensor:
  """Returns the cosines of the places of a video and a sound.

  Args:
    places: (B, t, h, w, D) float: embeddings of places, not normalised.
    sound: (B, D) float: embeddings of sounds, not normalised.

  Returns:
    (B, t, h, w) float32 in [-1, 1].
  """
  return tf.einsum(
    'bthwd,bd->bthw',
    tf.math.l2_normalize(places, -1),
    tf.math.l2_normalize(sound, -1),
  )


def smooth_maps(maps: tf.Tensor, deviation: float) -> tf.Tensor:
  """Smooths maps, so that the highest place is amid other high places.

  Args:
    maps: (B, t, h, w) float32.
    deviation: Standard deviation of the Gaussian, in places; 0 for none.

  Returns:
    Like `maps`.
  """
  if not deviation:
    return maps
  # Outside the frame there is nothing, which is as the lowest place.
  lowest = tf.reduce_min(maps, [2, 3], keepdims=True)
  down, across = (_gaussian(size, deviation) for size in maps.shape[2:])
  return lowest + tf.einsum('ij,btjk,lk->btil', down, maps - lowest, across)


def score_of(maps: tf.Tensor) -> tf.Tensor:
  """Returns how similar clips and sounds are, (B,): see `losses.local`.

  Args:
    maps: (B, t, h, w): cosines, not smoothed.
  """
  return tf.reduce_mean(tf.reduce_max(maps, [2, 3]), 1)


def _gaussian(size, deviation):
  """The matrix that smooths a vector of some size, with zeros around it."""
  distance = np.arange(size)[:, np.newaxis] - np.arange(size)
  steps = np.arange(-size, size + 1)
  weight, total = (
    np.exp(-0.5 * np.square(x / deviation)) for x in (distance, steps)
  )
  return tf.constant(weight / total.sum(), tf.float32)


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
    use_token_head: Whether a linear map, without a bias, takes the tokens of
      the video tower to the video-audio space, for a local term of the loss
      (`losses.local`) and for `similarity_map`.
    map_smoothing: Standard deviation, in places, of the Gaussian that smooths
      the maps of places and sounds, so that their highest place is in the
      middle of a group of high places. 0 means none. The loss is not smoothed.
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
    has, and with `similarity` the scalars of `SimilarityScale`. With
    `use_token_head`, training also gives `video_token_va` and
    `video_token_mask`.

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
    use_token_head: bool = False,
    map_smoothing: float = 0.7,
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
    if map_smoothing < 0:
      raise ValueError(
        '`map_smoothing` must be at least 0. '
        f'Received: map_smoothing={map_smoothing}'
      )
    self.map_smoothing = map_smoothing
    self.video_token_head = None
    if use_token_head:
      if head is None or modality_table.VIDEO_AUDIO not in self.pairs:
        raise ValueError(
          '`use_token_head` needs a head that compares video and audio. '
          f'Received: head={head}, pairs={self.pairs}'
        )
      self.video_token_head = tf_keras.layers.Dense(
        self.head.d_va,
        use_bias=False,
        dtype=self.head.dtype_policy,
        name='video_token_head',
      )

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
      if self.video_token_head is not None:
        width = self.video_tower.token_width
        tower.build_scoped(self.video_token_head, [None, width])
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
      as `video_feature`; for text (B, C, d). With `use_token_head`, training
      also gives `video_tokens`, (B, t, h, w, d) with zeros where DropToken
      drops them, and `video_token_mask`. No row depends on another.

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
      needs_tokens = (
        training
        and modality == modality_table.VIDEO
        and self.video_token_head is not None
      )
      pooled.update(self._run_tower(modality, x, training, rng, needs_tokens))
    return pooled

  @property
  def encoded_dtypes(self) -> dict[str, tf.DType]:
    """Dtypes of what `encode` returns in training, by name."""
    dtypes = {
      modality_table.MODALITIES[modality].feature: tf.float32
      for modality in self.modalities
    }
    if self.video_token_head is not None:
      dtypes[names.VIDEO_TOKENS] = tf.float32
      dtypes[names.VIDEO_TOKEN_MASK] = tf.bool
    return dtypes

  def _run_tower(self, modality, x, training, rng, need_tokens=False):
    """The pooled feature of one modality, under its key, and its tokens."""
    modality_tower = self.towers[modality]
    rng = randomness.fold_in(rng, modality)
    feature = modality_table.MODALITIES[modality].feature
    if not need_tokens:
      return {feature: modality_tower(x, training=training, rng=rng).feature}
    pooled, tokens, mask = token_maps.encode(modality_tower, x, training, rng)
    return {
      feature: pooled,
      names.VIDEO_TOKENS: tokens,
      names.VIDEO_TOKEN_MASK: mask,
    }

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
    outputs = dict(pooled)
    if self.head is not None:
      outputs.update(self.head(pooled, masks=masks, training=training))
    if names.VIDEO_TOKENS in outputs:
      outputs[names.VIDEO_TOKEN_VA] = self._map_tokens(
        outputs.pop(names.VIDEO_TOKENS)
      )
    return outputs

  def _map_tokens(self, tokens):
    """Tokens (..., d) in the video-audio space, (..., D_va) float32."""
    return tf.cast(self.video_token_head(tokens), tf.float32)

  def similarity_map(self, video: tf.Tensor, audio_va: tf.Tensor) -> tf.Tensor:
    """Compares each place of a video with a sound: where does it sound?

    Args:
      video: (B, T, H, W, 3) float32 in [-1, 1].
      audio_va: (B, D_va) float: embeddings of the sounds, not normalised.

    Returns:
      (B, t, h, w) float32, cosines in [-1, 1]: a value for each place of the
      video tower's `token_grid`.

    Raises:
      ValueError: The model has no `use_token_head`.
    """
    maps = compare_places(self.embed_places(video), audio_va)
    return smooth_maps(maps, self.map_smoothing)

  def check_token_head(self) -> None:
    """Raises ValueError unless the model can compare places with sounds."""
    if self.video_token_head is None:
      raise ValueError(
        'The model was not trained to say where a video sounds: train it with '
        'the local term, LOCAL_WEIGHT = 1.0.'
      )

  def embed_places(self, video: tf.Tensor) -> tf.Tensor:
    """Computes the embedding of each place of a video.

    Args:
      video: (B, T, H, W, 3) float32 in [-1, 1].

    Returns:
      (B, t, h, w, D_va) float32, not normalised.

    Raises:
      ValueError: The model has no `use_token_head`.
    """
    return self._place_embeddings(video)[0]

  def embed_places_in_text(self, video: tf.Tensor) -> tf.Tensor | None:
    """Computes the embedding of each place in the video-text space.

    The head maps places there as it maps sounds. It was not trained for places,
    whose length says nothing, so that they get the length of the whole clip.

    Args:
      video: See `embed_places`.

    Returns:
      (B, t, h, w, D_vt) float32, not normalised; None if the head has no map
      from the video-audio space to the video-text space.

    Raises:
      ValueError: See `embed_places`.
    """
    places, feature = self._place_embeddings(video)
    va = self._add_embeddings(feature, {}, False)[names.VIDEO_VA]
    length = tf.norm(va, axis=-1)[:, None, None, None, None]
    places = length * tf.math.l2_normalize(places, -1)
    shape = tensor_utils.shape_list(places)
    mapped = self.head.map_to_text(tf.reshape(places, [-1, shape[-1]]))
    if mapped is None:
      return None
    return tf.reshape(mapped, [*shape[:-1], mapped.shape[-1]])

  def _place_embeddings(self, video):
    """Embeddings of places in the video-audio space, and the feature."""
    self.check_token_head()
    pooled = self._run_tower(
      modality_table.VIDEO, video, False, None, need_tokens=True
    )
    places = self._map_tokens(pooled.pop(names.VIDEO_TOKENS))
    del pooled[names.VIDEO_TOKEN_MASK]
    offset = self.video_tower.token_offset(tuple(video.shape[1:]))
    if any(offset):
      # Unit vectors, so that each has the same weight between two.
      places = token_maps.align(tf.math.l2_normalize(places, -1), offset)
    return places, pooled

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
      'use_token_head': self.video_token_head is not None,
      'map_smoothing': self.map_smoothing,
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
