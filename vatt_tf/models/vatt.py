"""VATT: towers for video, audio and text, and their common spaces."""

import tensorflow as tf
import tf_keras

from vatt_tf import feature_names, randomness, tensor_utils
from vatt_tf.layers import projection_head, transformer_encoder
from vatt_tf.models import similarity_scale, towers


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class VATT(tf_keras.Model):
  """Video-Audio-Text Transformer (paper, section 3).

  Modality-agnostic with `encoder`: one encoder, shared by all modalities, with
  a Dense + GeLU of each modality behind it (`d_post_projection`).
  Modality-specific without: each modality's own encoder. `models.build` has
  the paper's sizes.

  A modality whose arguments are None is not part of the model. The head says
  which are needed.

  Args:
    head: dictionary of arguments of `ProjectionHead`, or None: no head, the
      outputs are features only.
    encoder: dictionary of arguments of the shared `TransformerEncoder`, or
      None.
    video: dictionary `embedding` (arguments of `PatchEmbedding`) and, in the
      modality-specific model, `encoder` (of `TransformerEncoder`); or None.
    audio: likewise.
    text: likewise, `embedding` being arguments of `WordEmbedding`.
    audio_form: `waveform` or `spectrogram`, which of the inputs `audio` and
      `spectrogram` the audio tower takes.
    d_post_projection: int or None.
    similarity: dictionary of arguments of `SimilarityScale`, or None: the
      loss has a fixed temperature.
    **kwargs: of `tf_keras.Model`.

  Call arguments:
    features: dictionary with the input of each modality of the model, `video`
      (B, T, H, W, 3), `audio` (B, S, 1) or `spectrogram` (B, F, M), `text`
      (B, C, L), and optionally the masks `video_mask` (B,), `audio_mask` (B,),
      `text_mask` (B, C); see `feature_names`. Other entries do not matter.
    training: bool. In training DropToken and dropout are on.
    rng: `randomness.Rng`, or None to draw from TensorFlow's global state.

  Returns:
    Dictionary of float32 tensors, those of `feature_names`' outputs that the
    model has, and with `similarity` the scalars of `SimilarityScale`.

  Raises:
    ValueError: an input is missing or does not fit, naming it.

  Example:
    >>> size = dict(num_layers=1, d_model=8, d_ff=16, num_heads=2, d_kv=4)
    >>> model = VATT(
    ...   encoder=size,
    ...   audio={'embedding': dict(
    ...     d_model=8, patch_size=(128,), table_shape=(10,))})
    >>> model({'audio': tf.zeros([2, 1280, 1])})['audio_feature'].shape
    TensorShape([2, 8])
  """

  def __init__(
    self,
    head=None,
    encoder=None,
    video=None,
    audio=None,
    text=None,
    audio_form='waveform',
    d_post_projection=None,
    similarity=None,
    **kwargs,
  ):
    kwargs.setdefault('name', 'vatt')
    # Inputs are cast by the towers, after DropToken has picked the patches.
    super().__init__(autocast=False, **kwargs)
    if audio_form not in ('waveform', 'spectrogram'):
      raise ValueError(
        "`audio_form` must be one of ['spectrogram', 'waveform']. "
        f'Received: audio_form={audio_form!r}'
      )
    self._arguments = {
      'head': head,
      'encoder': encoder,
      'video': video,
      'audio': audio,
      'text': text,
      'audio_form': audio_form,
      'd_post_projection': d_post_projection,
      'similarity': similarity,
    }
    self.audio_form = audio_form
    dtype = self.dtype_policy
    self.encoder = None
    if encoder is not None:
      self.encoder = transformer_encoder.TransformerEncoder(
        **encoder, dtype=dtype, name='encoder'
      )
    for modality, arguments, make_embedding in (
      ('video', video, towers.PatchEmbedding),
      ('audio', audio, towers.PatchEmbedding),
      ('text', text, towers.WordEmbedding),
    ):
      parts = {'embedding': None, 'encoder': None, 'post_projection': None}
      if arguments is not None:
        parts['embedding'] = make_embedding(
          **arguments['embedding'], dtype=dtype, name=f'{modality}_embedding'
        )
        if self.encoder is None:
          if 'encoder' not in arguments:
            raise ValueError(
              f'`{modality}` must have the key `encoder` where there is no '
              f'shared one. Received: {modality}={arguments}'
            )
          parts['encoder'] = transformer_encoder.TransformerEncoder(
            **arguments['encoder'], dtype=dtype, name=f'{modality}_encoder'
          )
        if d_post_projection:
          parts['post_projection'] = towers.GeluDense(
            d_post_projection, dtype=dtype, name=f'{modality}_post_projection'
          )
      for part, layer in parts.items():
        setattr(self, f'{modality}_{part}', layer)
    self.head = None
    if head is not None:
      self.head = projection_head.ProjectionHead(**head, name='head')
    self.similarity_scale = None
    if similarity is not None:
      self.similarity_scale = similarity_scale.SimilarityScale(
        **similarity, name='similarity_scale'
      )

  @property
  def modalities(self):
    """Names of the modalities that the model has, a tuple."""
    return tuple(
      modality
      for modality in ('video', 'audio', 'text')
      if self._arguments[modality] is not None
    )

  @property
  def use_spectrogram(self):
    """Whether the audio tower takes spectrograms, not waveforms."""
    return self.audio_form == 'spectrogram'

  def build(self, input_shape=None):
    """Makes all weights; none depends on the shape of an input."""
    del input_shape
    if self.built:
      return
    with tf.name_scope(f'{self.name}/'):  # not nested, whoever calls this
      if self.encoder is not None:
        towers.build_scoped(self.encoder, [None, None, self.encoder.d_model])
      channels = {'video': [None] * 4 + [3], 'audio': [None, None, 1]}
      if self.use_spectrogram:
        channels['audio'] = [None, None, None, 1]
      widths = {}
      for modality in self.modalities:
        embedding = getattr(self, f'{modality}_embedding')
        towers.build_scoped(
          embedding, tf.TensorShape(channels.get(modality, [None, None]))
        )
        width = embedding.d_model
        towers.build_scoped(
          getattr(self, f'{modality}_encoder'),
          tf.TensorShape([None, None, width]),
        )
        projection = getattr(self, f'{modality}_post_projection')
        towers.build_scoped(projection, tf.TensorShape([None, None, width]))
        widths[modality] = width if projection is None else projection.units
      if self.head is not None:
        towers.build_scoped(
          self.head,
          {
            f'{modality}_feature': tf.TensorShape([None, width])
            for modality, width in widths.items()
          },
        )
      towers.build_scoped(self.similarity_scale, None)
    self.built = True

  def call(self, features, training=False, rng=None):
    """Computes features and embeddings; see the class."""
    pooled = self.encode(features, training, rng)
    return self.project(pooled, features, training)

  def encode(self, features, training=False, rng=None):
    """Runs the towers of all modalities; no row depends on another.

    Args:
      features: dictionary, as in the call.
      training: bool.
      rng: `randomness.Rng` or None.

    Returns:
      Dictionary of float32 tensors: `video_feature` (B, d) and its like of
      each modality.

    Raises:
      ValueError: an input is missing or does not fit, naming it.
    """
    pooled = {}
    for modality in self.modalities:
      encode = getattr(self, f'encode_{modality}')
      pooled[f'{modality}_feature'], _ = encode(
        self._input(features, modality), training, rng, need_tokens=False
      )
    return pooled

  def project(self, pooled, masks, training=False):
    """Runs the heads on what `encode` returned for the whole batch.

    Args:
      pooled: dictionary that `encode` returned.
      masks: dictionary with `video_mask` and its like; a modality without one
        has all its rows. Other entries do not matter.
      training: bool.

    Returns:
      Dictionary of outputs, as the call's.
    """
    outputs = {}
    for modality in self.modalities:
      outputs.update(
        self._project(
          modality,
          pooled[f'{modality}_feature'],
          masks.get(f'{modality}_mask'),
          training,
        )
      )
    if self.similarity_scale is not None:
      outputs.update(self.similarity_scale.values())
    return outputs

  def input_name(self, modality):
    """The name that a modality's input has in `features`, a string."""
    if modality == 'audio' and self.use_spectrogram:
      return feature_names.SPECTROGRAM
    return modality

  def _input(self, features, modality):
    """The input of a modality, from the dictionary."""
    name = self.input_name(modality)
    if name not in features:
      raise ValueError(
        f'`features` must have the key {name!r}: the model has the modalities '
        f'{self.modalities}. To embed one of them alone call '
        f'`embed_{modality}`. Received: keys {sorted(features)}'
      )
    return features[name]

  def embed_video(self, video, mask=None, training=False, rng=None):
    """Computes the features and embeddings of videos.

    Args:
      video: (B, T, H, W, 3) float, in [-1, 1].
      mask: (B,) bool, the clips that have video; they make up the statistics
        of the batch norms in training. None: all.
      training: bool.
      rng: `randomness.Rng` or None.

    Returns:
      Dictionary of float32 tensors: `video_feature` (B, d), and those of
      `video_va`, `video_vt` that the head has.

    Raises:
      ValueError: the model has no video tower, or `video` does not fit it.
    """
    feature, _ = self.encode_video(video, training, rng, need_tokens=False)
    return self._project('video', feature, mask, training)

  def embed_audio(self, audio, mask=None, training=False, rng=None):
    """Computes the features and embeddings of sounds.

    Args:
      audio: (B, S, 1) float in [-1, 1], or the spectrogram (B, F, M) in
        [0, 1] where the model takes these.
      mask: (B,) bool, the clips that have sound, or None: all.
      training: bool.
      rng: `randomness.Rng` or None.

    Returns:
      Dictionary of float32 tensors: `audio_feature` (B, d), and those of
      `audio_va`, `audio_vt` that the head has.

    Raises:
      ValueError: the model has no audio tower, or `audio` does not fit it.
    """
    feature, _ = self.encode_audio(audio, training, rng, need_tokens=False)
    return self._project('audio', feature, mask, training)

  def embed_text(self, text, mask=None, training=False, rng=None):
    """Computes the features and embeddings of texts.

    Args:
      text: (B, C, L) or (B, L) int32 token ids, 0 is padding.
      mask: (B, C) or (B,) bool, the texts that exist, or None: all.
      training: bool.
      rng: `randomness.Rng` or None.

    Returns:
      Dictionary of float32 tensors: `text_feature` (B, C, d) or (B, d), and
      likewise `text_vt` if the head has it.

    Raises:
      ValueError: the model has no text tower, or `text` does not fit it.
    """
    feature, _ = self.encode_text(text, training, rng, need_tokens=False)
    return self._project('text', feature, mask, training)

  def encode_video(self, video, training=False, rng=None, need_tokens=True):
    """Runs the video tower.

    Args:
      video: (B, T, H, W, 3) float, in [-1, 1].
      training: bool.
      rng: `randomness.Rng` or None.
      need_tokens: bool. False saves most of the last layer's work.

    Returns:
      feature: (B, d) float32, the output of the AGG token.
      tokens: (B, N, d) float32, the outputs of the patches (in training, of
        those that DropToken kept, in random order); None unless
        `need_tokens`.

    Raises:
      ValueError: the model has no video tower, or `video` does not fit it.
    """
    return self._encode_patches('video', video, training, rng, need_tokens)

  def encode_audio(self, audio, training=False, rng=None, need_tokens=True):
    """Runs the audio tower: as `encode_video`, for sounds (B, S, 1) or
    spectrograms (B, F, M)."""
    if self.use_spectrogram:
      audio = tf.expand_dims(audio, -1)  # (B, F, M, 1)
    return self._encode_patches('audio', audio, training, rng, need_tokens)

  def encode_text(self, text, training=False, rng=None, need_tokens=True):
    """Runs the text tower.

    Args:
      text: (B, C, L) or (B, L) int32 token ids, 0 is padding.
      training: bool.
      rng: `randomness.Rng` or None.
      need_tokens: bool. False saves most of the last layer's work.

    Returns:
      feature: (B, C, d) or (B, d) float32, the output of the AGG token; None
        where the tower has none.
      tokens: (B, C, L, d) or (B, L, d) float32, the outputs of the words; None
        unless `need_tokens`.

    Raises:
      ValueError: the model has no text tower, or `text` does not fit it.
    """
    self._check_modality('text')
    text = tf.convert_to_tensor(text)
    if text.shape.rank not in (2, 3):
      raise ValueError(
        '`text` must be token ids (B, C, L) or (B, L). '
        f'Received: text.shape={text.shape}'
      )
    rng = randomness.fold_in(rng, 'text')
    leading = tensor_utils.shape_list(text)[:-1]
    if len(leading) == 2:
      rng = randomness.rows(rng, leading[1])
      text = tf.reshape(text, [-1, text.shape[-1]])  # (B * C, L)
      if isinstance(leading[0], int):
        text = tf.ensure_shape(text, [leading[0] * leading[1], None])
    tokens, mask = self.text_embedding(
      text, training=training, rng=randomness.fold_in(rng, 'embedding')
    )
    feature, tokens = self._encode(
      'text',
      tokens,
      mask,
      training,
      rng,
      need_tokens,
      has_agg=self.text_embedding.has_agg,
    )
    if len(leading) == 2:
      if feature is not None:
        feature = tf.reshape(feature, [*leading, feature.shape[-1]])
      if tokens is not None:
        tokens = tf.reshape(tokens, [*leading, *tokens.shape[1:]])
    return feature, tokens

  def _check_modality(self, modality):
    if modality not in self.modalities:
      raise ValueError(
        f'The model has no {modality} tower, only {self.modalities}. Build it '
        f'with a term that uses {modality}.'
      )

  def _encode_patches(self, modality, x, training, rng, need_tokens):
    self._check_modality(modality)
    rng = randomness.fold_in(rng, modality)
    tokens = getattr(self, f'{modality}_embedding')(
      x, training=training, rng=randomness.fold_in(rng, 'embedding')
    )
    return self._encode(modality, tokens, None, training, rng, need_tokens)

  def _encode(
    self, modality, tokens, mask, training, rng, need_tokens, has_agg=True
  ):
    """Encoder and post-projection: float32 feature and tokens, or None."""
    encoder = self.encoder or getattr(self, f'{modality}_encoder')
    x = encoder(
      tokens,
      mask=mask,
      num_outputs=1 if has_agg and not need_tokens else None,
      training=training,
      rng=randomness.fold_in(rng, 'encoder'),
    )
    projection = getattr(self, f'{modality}_post_projection')
    if projection is not None:
      x = projection(x)
    x = tf.cast(x, tf.float32)
    feature = x[:, 0] if has_agg else None  # (B, d)
    if not need_tokens:
      return feature, None
    return feature, x[:, 1:] if has_agg else x  # (B, N, d)

  def _project(self, modality, feature, mask, training):
    """Adds the embeddings to a feature, in a dictionary."""
    outputs = {f'{modality}_feature': feature}
    if self.head is not None:
      masks = {} if mask is None else {f'{modality}_mask': mask}
      outputs.update(self.head(outputs, masks=masks, training=training))
    return outputs

  def get_config(self):
    """The arguments of the model."""
    return {'name': self.name, **self._arguments}

  @classmethod
  def from_config(cls, config, custom_objects=None):
    """Makes a model from what `get_config` returned."""
    del custom_objects
    return cls(**config)
