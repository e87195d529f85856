"""The Transformer tower on patches of video and sound (paper, section 3.1)."""

from collections.abc import Sequence
import math
from typing import Any

import gin
import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import (
  drop_token,
  patch_tokenizer,
  position_embedding,
  transformer_encoder,
)
from vatt_tf.models import sizes, tower, transformer_costs, transformer_tower


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class PatchEmbedding(tf_keras.layers.Layer):
  """Turns a video, a waveform or a spectrogram into tokens, AGG first.

  The steps are: the projection of the patches, of which DropToken keeps a share
  in training; in the modality-agnostic model, a Dense + GeLU of the modality;
  positions; dropout; and the AGG token in front (paper, sections 3.1 and 3.2).

  Args:
    d_model: Width D of the tokens.
    patch_size: Tuple of ints, see `PatchTokenizer`.
    table_shape: Tuple of ints, see `PositionEmbedding`.
    use_padding: See `PatchTokenizer`.
    input_rms: See `PatchTokenizer`.
    use_pre_projection: Whether there is a Dense + GeLU.
    position_form: `separable` or `full`, see `PositionEmbedding`.
    use_position_norm: Whether a LayerNorm follows the positions.
    epsilon: Number added to the variance of the position norm.
    position_interpolation: `exact` or `release`, see `PositionEmbedding`.
    drop_token_rate: Share of the tokens dropped in training, in [0, 1).
    dropout_rate: Dropout rate of the sum of tokens and positions, in [0, 1).
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    x: (B, S_1, ..., S_n, C), all but B static.
    keep: (B, K) int32: the patches that become tokens (see `sample`). None
      means all.
    training: Whether dropout applies.
    rng: `randomness.Rng` or None.

  Returns:
    (B, 1 + K, d_model) in the compute dtype; the AGG token is the first.

  Example:
    >>> layer = PatchEmbedding(8, (128,), (10,))
    >>> layer(tf.zeros([1, 1280, 1])).shape
    TensorShape([1, 11, 8])
  """

  def __init__(
    self,
    d_model: int,
    patch_size: tuple[int, ...],
    table_shape: Sequence[int],
    use_padding: bool = False,
    input_rms: float | None = None,
    use_pre_projection: bool = False,
    position_form: str = 'separable',
    use_position_norm: bool = True,
    epsilon: float = 1e-6,
    position_interpolation: str = 'exact',
    drop_token_rate: float = 0.0,
    dropout_rate: float = 0.0,
    **kwargs: Any,
  ):
    super().__init__(autocast=False, **kwargs)
    self.d_model = d_model
    self.patch_size = tuple(patch_size)
    self.table_shape = tuple(table_shape)
    self.use_padding = use_padding
    self.input_rms = input_rms
    self.use_pre_projection = use_pre_projection
    self.position_form = position_form
    self.use_position_norm = use_position_norm
    self.epsilon = epsilon
    self.position_interpolation = position_interpolation
    self.drop_token_rate = drop_token_rate
    self.dropout_rate = dropout_rate

    dtype = self.dtype_policy
    self.drop_token = drop_token.DropToken(
      drop_token_rate, dtype=dtype, name='drop_token'
    )
    self.tokenizer = patch_tokenizer.PatchTokenizer(
      d_model,
      patch_size,
      use_padding,
      input_rms,
      dtype=dtype,
      name='tokenizer',
    )
    self.pre_projection = None
    if use_pre_projection:
      self.pre_projection = transformer_tower.GeluDense(
        d_model, dtype=dtype, name='pre_projection'
      )
    self.position_embedding = position_embedding.PositionEmbedding(
      table_shape,
      position_form,
      use_position_norm,
      epsilon,
      position_interpolation,
      dtype=dtype,
      name='position_embedding',
    )

  def build(self, input_shape: tf.TensorShape) -> None:
    """Creates `agg`, (d_model,), and the weights of the sub-layers."""
    tokens = tf.TensorShape([None, None, self.d_model])
    tower.build_scoped(self.tokenizer, input_shape)
    tower.build_scoped(self.pre_projection, tokens)
    tower.build_scoped(self.position_embedding, tokens)
    self.agg = transformer_tower.add_agg(self, self.d_model)
    super().build(input_shape)

  def sample(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor | None:
    """Draws the patches that DropToken keeps.

    Args:
      x: See the call.
      training: Whether DropToken applies.
      rng: See the call.

    Returns:
      (B, K) int32, see `DropToken.sample`; None if all patches are kept.
    """
    return self.drop_token.sample(
      tensor_utils.shape_list(x)[0],
      math.prod(self.tokenizer.grid(x.shape)),
      training,
      randomness.fold_in(rng, 'drop_token'),
    )

  def call(
    self,
    x: tf.Tensor,
    keep: tf.Tensor | None = None,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor:
    """Turns `x` into tokens; see the class."""
    grid = self.tokenizer.grid(x.shape)
    tokens = self._project(x, keep)
    tokens = self.position_embedding(tokens, grid=grid, keep=keep)
    return transformer_tower.prepend(
      self.agg, self._drop_out(tokens, training, rng)
    )

  def embed_places(
    self,
    x: tf.Tensor,
    keep: tf.Tensor | None = None,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tf.Tensor:
    """Turns `x` into tokens that do not tell where in the frame they are.

    Args:
      x: See the call.
      keep: See the call.
      training: See the call.
      rng: See the call.

    Returns:
      (B, K, d_model) in the compute dtype: the patches with the mean of the
      positions of their time step, without AGG.
    """
    grid = self.tokenizer.grid(x.shape)
    tokens = self._project(x, keep)
    positions = self.position_embedding.positions(grid)
    positions = tf.reshape(positions, [grid[0], -1, self.d_model])
    positions = tf.reduce_mean(positions, 1)  # (steps, d_model)
    steps = np.arange(math.prod(grid)) // math.prod(grid[1:])
    steps = tf.constant(steps, tf.int32)
    if keep is not None:
      steps = tf.gather(steps, keep)  # (B, K)
    tokens += tf.cast(tf.gather(positions, steps), tokens.dtype)
    return self._drop_out(tokens, training, rng)

  def _project(self, x, keep):
    """The patches (B, K, d_model), without positions."""
    x = self.tokenizer(x, keep=keep)
    return x if self.pre_projection is None else self.pre_projection(x)

  def _drop_out(self, x, training, rng):
    rate = self.dropout_rate if training else 0.0
    return randomness.dropout(x, rate, randomness.fold_in(rng, 'dropout'))

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'd_model': self.d_model,
      'patch_size': self.patch_size,
      'table_shape': self.table_shape,
      'use_padding': self.use_padding,
      'input_rms': self.input_rms,
      'use_pre_projection': self.use_pre_projection,
      'position_form': self.position_form,
      'use_position_norm': self.use_position_norm,
      'epsilon': self.epsilon,
      'position_interpolation': self.position_interpolation,
      'drop_token_rate': self.drop_token_rate,
      'dropout_rate': self.dropout_rate,
    }


def _flat(size):
  """A flat tuple of (frames, (height, width)), or of a number."""
  if isinstance(size, (tuple, list)):
    return tuple(number for part in size for number in _flat(part))
  return (size,)


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class PatchTower(transformer_tower.TransformerTower):
  """A Transformer on patches of a video, a waveform or a spectrogram.

  It consists of patches, DropToken, positions and AGG (`PatchEmbedding`), an
  encoder, and with `d_post_projection` a Dense + GeLU (paper, section 3.1).

  `input_size` determines the size of the position tables. The tower also takes
  inputs of other sizes: for larger ones the tables are interpolated. Keep
  `input_size` when you use a checkpoint at another resolution.

  Args:
    input_name: `video`, `audio` (a waveform) or `spectrogram`.
    patch_size: Frames x height x width of a video patch, samples of a waveform
      patch, or frames x bins of a spectrogram patch. None means 4 x 16 x 16,
      128, or 16 x 5.
    input_size: Size of the input in the same form, such as (32, 224) or (32,
      (224, 320)). An incomplete patch counts as one. None means (32, 224),
      153600, or (150, 80).
    size: Size of the tower's own encoder, or None.
    encoder: Encoder that other towers share, or None. With it, a Dense + GeLU
      of the modality comes before the positions.
    form: `release`, or `vit` for the form of an image model: one position table
      for all patches, no norm of positions, norms with an epsilon of 1e-12.
    epsilon: Number added to the variance of the encoder's norms. None means the
      value of the form.
    d_post_projection: Width of a Dense + GeLU after the encoder. None means
      that there is none.
    position_interpolation: `exact` or `release`: how inputs larger than the
      position tables read them (see `PositionEmbedding`).
    drop_token_rate: Share of the tokens dropped in training, in [0, 1).
    dropout_rate: Dropout rate, in [0, 1).
    use_remat: Whether to save memory in training at the cost of time (see
      `TransformerEncoder`).
    token_layer: Number of encoder layers whose output the tokens are. None
      means all, with the layers after them.
    token_radius: Number of places that the tokens see around them in each layer
      along each axis, or a number for all axes. None means that they see all
      places. With a radius they have no place in space themselves, and are
      computed apart from the feature, as a convolutional map is: what a token
      holds is then near it. Layers after the encoder do not apply.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    See `tower.Tower`.

  Returns:
    `tower.TowerOutput`.

  Raises:
    ValueError: An argument is out of its range, or the input does not fit.

  Example:
    >>> audio = PatchTower(
    ...   'audio', input_size=1280, size=sizes.Size(1, 8, 16, 2, d_kv=4))
    >>> audio(tf.zeros([2, 1280, 1])).feature.shape
    TensorShape([2, 8])
  """

  _PATCH_SIZES = {
    names.VIDEO: (4, 16, 16),
    names.AUDIO: (128,),
    names.SPECTROGRAM: (16, 5),
  }
  _INPUT_SIZES = {
    names.VIDEO: (32, 224),
    names.AUDIO: (153600,),
    names.SPECTROGRAM: (150, 80),
  }
  # Linear maps are initialised for inputs of unit variance, and sound is far
  # from it: speech and music have a root mean square of about 0.1, and
  # spectrograms that are normalised to [0, 1] have about 0.5.
  _INPUT_RMS = {names.AUDIO: 0.1, names.SPECTROGRAM: 0.5}
  # Arguments of the embedding and of the encoder.
  _FORMS = {
    'release': ({}, {}),
    'vit': (
      {'position_form': 'full', 'use_position_norm': False},
      {'epsilon': 1e-12},
    ),
  }

  def __init__(
    self,
    input_name: str,
    patch_size: int | Sequence[int] | None = None,
    input_size: int | Sequence | None = None,
    size: sizes.Size | None = None,
    encoder: transformer_encoder.TransformerEncoder | None = None,
    form: str = 'release',
    epsilon: float | None = None,
    d_post_projection: int | None = None,
    position_interpolation: str = 'exact',
    drop_token_rate: float = 0.5,
    dropout_rate: float = 0.1,
    use_remat: bool = False,
    token_layer: int | None = None,
    token_radius: int | Sequence[int] | None = None,
    **kwargs: Any,
  ):
    super().__init__(
      input_name,
      size,
      encoder,
      d_post_projection,
      position_interpolation,
      dropout_rate,
      use_remat,
      token_layer,
      **kwargs,
    )
    for name, value, valid in (
      ('input_name', input_name, self._PATCH_SIZES),
      ('form', form, self._FORMS),
    ):
      if value not in valid:
        raise ValueError(
          f'`{name}` must be one of {sorted(valid)}. Received: {name}={value!r}'
        )
    if encoder is not None and form != 'release':
      raise ValueError(
        "`form` must be 'release' in the modality-agnostic model, whose "
        f'encoder serves all modalities. Received: form={form!r}'
      )
    self.patch_size = _flat(patch_size or self._PATCH_SIZES[input_name])
    self.input_size = _flat(input_size or self._INPUT_SIZES[input_name])
    self.form = form
    self.epsilon = epsilon
    self.drop_token_rate = drop_token_rate
    rank = len(self._PATCH_SIZES[input_name])
    if len(self.input_size) == rank - 1:
      self.input_size += self.input_size[-1:]  # a square
    if not len(self.input_size) == len(self.patch_size) == rank:
      raise ValueError(
        f'`input_size` and `patch_size` must have {rank} numbers for '
        f'{input_name}. Received: input_size={input_size}, '
        f'patch_size={patch_size}'
      )
    if token_radius is not None:
      token_radius = _flat(token_radius)
      if len(token_radius) == 1:
        token_radius *= rank
      if len(token_radius) != rank or min(token_radius) < 0:
        raise ValueError(
          f'`token_radius` must be {rank} numbers of at least 0, one, or None. '
          f'Received: token_radius={token_radius}'
        )
    self.token_radius = token_radius
    embedding_options, encoder_options = self._FORMS[form]
    if epsilon is not None:
      encoder_options = {**encoder_options, 'epsilon': epsilon}
    self.embedding = PatchEmbedding(
      self._d_model,
      self.patch_size,
      tuple(
        max(1, -(-length // patch))
        for length, patch in zip(self.input_size, self.patch_size)
      ),
      use_padding=input_name == names.SPECTROGRAM,
      input_rms=self._INPUT_RMS.get(input_name),
      use_pre_projection=encoder is not None,
      position_interpolation=position_interpolation,
      drop_token_rate=drop_token_rate,
      dropout_rate=dropout_rate,
      dtype=self.dtype_policy,
      name=f'{self.modality}_embedding',
      **embedding_options,
    )
    self._add_encoder(**encoder_options)

  @property
  def _num_channels(self):
    return 3 if self.input_name == names.VIDEO else 1

  def build(self, input_shape: Any = None) -> None:
    """Creates all weights; see the base class."""
    del input_shape
    axes = [None] * (1 + len(self.patch_size))
    self._build_parts([*axes, self._num_channels])

  def call(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
    need_tokens: bool = False,
  ) -> tower.TowerOutput:
    """Encodes `x`; see the base class."""
    tokens, mask = self.embed_tokens(x, training, rng)
    if not need_tokens or self.token_radius is None:
      return self._encode(tokens, mask, training, rng, need_tokens)
    output = self._encode(tokens, mask, training, rng, False)
    return output._replace(tokens=self._local_tokens(x, training, rng))

  def _local_tokens(self, x, training, rng):
    """The tokens of an encoder whose tokens see only their neighbours."""
    x = self._with_channels(x)
    rng = randomness.fold_in(rng, 'embedding')
    keep = self.embedding.sample(x, training, rng)
    tokens = self.embedding.embed_places(
      x, keep, training, randomness.fold_in(rng, 'local')
    )
    grid = self.embedding.tokenizer.grid(x.shape)
    places = np.stack(np.unravel_index(np.arange(math.prod(grid)), grid), 1)
    places = tf.constant(places, tf.int32)[tf.newaxis]  # (1, N, axes)
    if keep is not None:
      places = tf.gather(places[0], keep)  # (B, K, axes)
    distance = tf.abs(places[:, :, tf.newaxis] - places[:, tf.newaxis])
    tokens = self.encoder.inner_outputs(
      tokens,
      self.token_layer,
      tf.reduce_all(distance <= self.token_radius, -1),
      training,
      randomness.fold_in(rng, 'local_encoder'),
    )
    return tf.cast(tokens, tf.float32)

  def token_flops(self, input_shape: tower.Shape) -> int:
    """Returns the FLOPs of tokens that see their neighbours."""
    if self.token_radius is None:
      return super().token_flops(input_shape)
    count = self._num_patches(input_shape, training=True)
    layers = self.encoder.num_layers
    encoder = transformer_costs.encoder_flops(self.encoder, count, count)
    return (
      count * self._patch_flops(input_shape)
      + self._pre_projection_flops(count)
      + sum(encoder.values()) * (self.token_layer or layers) // layers
    )

  @property
  def token_width(self) -> int:
    """Width of the tokens; see the base class."""
    return super().token_width if self.token_radius is None else self._d_model

  def _with_channels(self, x):
    if self.input_name == names.SPECTROGRAM:
      return tf.expand_dims(x, -1)  # (B, F, M, 1)
    return x

  def token_places(
    self, x: tf.Tensor, training: bool, rng: randomness.Rng | None
  ) -> tf.Tensor | None:
    """Returns the patches that DropToken keeps; see the base class."""
    rng = randomness.fold_in(rng, 'embedding')
    return self.embedding.sample(self._with_channels(x), training, rng)

  def embed_tokens(
    self,
    x: tf.Tensor,
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> tuple[tf.Tensor, None]:
    """Returns the input tokens of the encoder.

    Args:
      x: See the call.
      training: See the call.
      rng: See the call.

    Returns:
      (B, 1 + K, d_model) in the compute dtype, AGG first; and None, because all
      tokens exist.
    """
    x = self._with_channels(x)
    rng = randomness.fold_in(rng, 'embedding')
    keep = self.embedding.sample(x, training, rng)
    return self.embedding(x, keep=keep, training=training, rng=rng), None

  def token_grid(self, input_shape: tower.Shape) -> tower.Shape:
    """Returns the patches by axis: (t, h, w), (n,) or (frames, bins)."""
    channels = [1] if self.input_name == names.SPECTROGRAM else []
    return self.embedding.tokenizer.grid([None, *input_shape, *channels])

  def _num_patches(self, input_shape, training=False):
    count = math.prod(self.token_grid(input_shape))
    if training and self.drop_token_rate:
      return self.embedding.drop_token.num_kept(count)
    return count

  def _num_values(self):
    """The number of values per patch."""
    return math.prod(self.patch_size) * self._num_channels

  def _patch_flops(self, input_shape):
    return transformer_costs.product(self._num_values(), self._d_model)

  def _pre_projection_flops(self, num_patches):
    if self.embedding.pre_projection is None:
      return 0
    return transformer_costs.product(num_patches, self._d_model, self._d_model)

  def _embedding_bytes(self, input_shape, width):
    numbers = self._num_values()
    if self.embedding.pre_projection is not None:
      numbers += 2 * self._d_model  # the map's input, and its output for GeLU
    return width * numbers * self._num_patches(input_shape, training=True)

  def deflate(self) -> 'PatchTower | None':
    """Returns the image network, which shares the encoder; see the base class.

    Patches have one frame, whose kernel is the sum over time, and the positions
    one slot in time, the mean of all.
    """
    if self.input_name != names.VIDEO:
      return None
    image_tower = type(self).from_config(
      {
        **self.get_config(),
        'encoder': None if self.size else self.encoder,
        'patch_size': (1, *self.patch_size[1:]),
        'input_size': (1, *self.input_size[1:]),
      }
    )
    image_tower.encoder = self.encoder
    if self.post_projection is not None:
      image_tower.post_projection = self.post_projection
    patches = tf.TensorShape([None] * 4 + [self._num_channels])
    with tf.name_scope('vatt/'):
      tower.build_scoped(image_tower.embedding, patches)
    image_tower.built = True
    slots = self.embedding.position_embedding.table_shape[0]
    for source, target in zip(
      self.embedding.weights, image_tower.embedding.weights, strict=True
    ):
      value = source.numpy()
      if value.shape != tuple(target.shape):
        is_kernel = target.name.endswith('/tokenizer/kernel:0')
        frames = self.patch_size[0] if is_kernel else slots
        parts = np.reshape(value, [frames, *target.shape])
        combine = np.sum if is_kernel else np.mean
        value = combine(parts, 0, dtype=np.float64)
      target.assign(value)
    return image_tower

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    return {
      **super().get_config(),
      'input_name': self.input_name,
      'patch_size': self.patch_size,
      'input_size': self.input_size,
      'form': self.form,
      'epsilon': self.epsilon,
      'drop_token_rate': self.drop_token_rate,
      'token_layer': self.token_layer,
      'token_radius': self.token_radius,
    }
