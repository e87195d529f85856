"""The base of Transformer towers: the encoder and the layers after it.

In the modality-specific model each tower has its own encoder; in the
modality-agnostic model all towers share one (`share_encoder`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import randomness, tensor_utils
from vatt_tf.layers import activations, transformer_encoder
from vatt_tf.models import sizes, tower, transformer_costs


def prepend(token: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
  """Puts a vector (D,) in front of the tokens (B, N, D): (B, 1 + N, D)."""
  batch, _, width = tensor_utils.shape_list(x)
  token = tf.broadcast_to(tf.cast(token, x.dtype), [batch, 1, width])
  return tf.concat([token, x], 1)


def add_agg(layer: tf_keras.layers.Layer, width: int) -> tf.Variable:
  """Creates the AGG vector of a layer, (width,)."""
  return layer.add_weight(
    name='agg', shape=[width], initializer='glorot_normal'
  )


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class GeluDense(tf_keras.layers.Dense):
  """A linear map followed by exact GeLU.

  Args:
    units: Width of the output.
    **kwargs: Arguments of `tf_keras.layers.Dense`, except `activation`.

  Call arguments:
    inputs: (..., D).

  Returns:
    (..., units) in the compute dtype.

  Example:
    >>> GeluDense(4)(tf.zeros([2, 8])).shape
    TensorShape([2, 4])
  """

  def call(self, inputs: tf.Tensor) -> tf.Tensor:
    """Maps `inputs`; see the class."""
    return activations.gelu(super().call(inputs))


class TransformerTower(tower.Tower):
  """Base class of Transformer towers: the encoder and the layers after it.

  A subclass sets `embedding`, calls `_add_encoder`, and implements the number
  of patches of an input and their costs.

  Args:
    input_name: Key of the input in the feature dictionary.
    size: Size of the tower's own encoder, or None.
    encoder: Encoder that other towers share, or None.
    d_post_projection: Width of a Dense + GeLU after the encoder, or None.
    position_interpolation: How position tables are read at other lengths.
    dropout_rate: Dropout rate, in [0, 1).
    use_remat: Whether each layer is computed again in the backward pass.
    token_layer: Number of encoder layers whose output the tokens are. None
      means all, with the layers after them.
    **kwargs: Arguments of `tf_keras.layers.Layer`.
  """

  _is_pre_projection_first = False  # if true, its input needs no gradient

  def __init__(
    self,
    input_name: str,
    size: sizes.Size | None,
    encoder: transformer_encoder.TransformerEncoder | None,
    d_post_projection: int | None,
    position_interpolation: str,
    dropout_rate: float,
    use_remat: bool,
    token_layer: int | None = None,
    **kwargs: Any,
  ):
    super().__init__(input_name, **kwargs)
    if (size is None) == (encoder is None):
      raise ValueError(
        f'Give either the `size` of the {self.modality} encoder, or a shared '
        '`encoder`. A model file such as gin/models/specific.gin has the size. '
        f'Received: size={size}, encoder={encoder}'
      )
    self.size = size
    self.d_post_projection = d_post_projection
    self.position_interpolation = position_interpolation
    self.dropout_rate = dropout_rate
    self.use_remat = use_remat
    self.token_layer = token_layer
    num_layers = (size or encoder).num_layers
    if token_layer is not None and not 1 <= token_layer < num_layers:
      raise ValueError(
        f'`token_layer` must be in [1, {num_layers - 1}], or None for the last '
        f'layer. Received: token_layer={token_layer}'
      )
    self._d_model = (size or encoder).d_model
    if encoder is not None:
      self.encoder = encoder

  def _add_encoder(self, **arguments):
    """Creates the encoder, unless it is shared, and the layers after it."""
    if self.size is not None:
      self.encoder = transformer_encoder.TransformerEncoder(
        **self.size._asdict(),
        dropout_rate=self.dropout_rate,
        use_remat=self.use_remat,
        dtype=self.dtype_policy,
        name=f'{self.modality}_encoder',
        **arguments,
      )
    self.post_projection = None
    if self.d_post_projection:
      self.post_projection = GeluDense(
        self.d_post_projection,
        dtype=self.dtype_policy,
        name=f'{self.modality}_post_projection',
      )

  @property
  def width(self) -> int:
    """Width of the feature."""
    return self.d_post_projection or self._d_model

  @property
  def shared_layers(self) -> tuple[tf_keras.layers.Layer, ...]:
    """The encoder, if it is shared; see the base class."""
    return (self.encoder,) if self.size is None else ()

  @property
  def token_width(self) -> int:
    """Width of the tokens; inner ones are as wide as the encoder."""
    return self.width if self.token_layer is None else self._d_model

  @property
  def has_agg(self) -> bool:
    """Whether the first token is AGG, whose output is the feature."""
    return True

  def _build_parts(self, input_shape):
    tokens = tf.TensorShape([None, None, self._d_model])
    # A shared encoder is built first, so that a seed gives the same initial
    # values as in earlier versions.
    for layer in self.shared_layers:
      tower.build_scoped(layer, tokens)
    tower.build_scoped(self.embedding, tf.TensorShape(input_shape))
    tower.build_scoped(self.encoder, tokens)
    tower.build_scoped(self.post_projection, tokens)
    self.built = True

  def _encode(self, tokens, mask, training, rng, need_tokens):
    """The `TowerOutput` of embedded tokens (B, N, d)."""
    inner_layer = self.token_layer if need_tokens else None
    needs_all = need_tokens and inner_layer is None
    x = self.encoder(
      tokens,
      mask=mask,
      num_outputs=1 if self.has_agg and not needs_all else None,
      inner_layer=inner_layer,
      training=training,
      rng=randomness.fold_in(rng, 'encoder'),
    )
    if inner_layer is not None:
      x, inner = x
    if self.post_projection is not None:
      x = self.post_projection(x)
    x = tf.cast(x, tf.float32)
    feature = x[:, 0] if self.has_agg else None  # (B, width)
    if not need_tokens:
      return tower.TowerOutput(feature, None)
    tokens = x if inner_layer is None else tf.cast(inner, tf.float32)
    return tower.TowerOutput(feature, tokens[:, 1:] if self.has_agg else tokens)

  def _num_patches(self, input_shape, training=False):
    """The number of patches (words) that become tokens."""
    raise NotImplementedError

  def _patch_flops(self, input_shape):
    """The FLOPs of the projection of one patch."""
    raise NotImplementedError

  def _pre_projection_flops(self, num_patches):
    """The FLOPs of the Dense + GeLU before the encoder."""
    raise NotImplementedError

  def _embedding_bytes(self, input_shape, width):
    """The bytes that the embedding keeps per row, at `width` per number."""
    raise NotImplementedError

  def num_tokens(self, input_shape: tower.Shape, training: bool = False) -> int:
    """Returns the length of the sequence, with AGG; see the base class."""
    return self._num_patches(input_shape, training) + self.has_agg

  def flops(
    self, input_shape: tower.Shape, training: bool = False
  ) -> dict[str, int]:
    """Returns the FLOPs of each of `transformer_costs.PARTS`.

    DropToken chooses patches before they are projected, and the last layer
    computes only the AGG token's output; see the base class.
    """
    num_patches = self._num_patches(input_shape, training)
    num_tokens = self.num_tokens(input_shape, training)
    # Without a pooled feature, all outputs are needed.
    num_outputs = 1 if self.has_agg else num_tokens
    return {
      'patches': num_patches * self._patch_flops(input_shape),
      'pre_projection': self._pre_projection_flops(num_patches),
      **transformer_costs.encoder_flops(self.encoder, num_tokens, num_outputs),
      'post_projection': self._post_projection_flops(num_outputs),
    }

  def token_flops(self, input_shape: tower.Shape) -> int:
    """Returns the FLOPs of the outputs besides AGG's; see the base class."""
    if self.token_layer is not None or not self.has_agg:
      return 0
    count = self.num_tokens(input_shape, training=True)
    total, agg = (
      sum(transformer_costs.encoder_flops(self.encoder, count, each).values())
      + self._post_projection_flops(each)
      for each in (count, 1)
    )
    return total - agg

  def step_flops(self, input_shape: tower.Shape) -> dict[str, int]:
    """Returns `transformer_costs.step_flops`; see the base class."""
    return transformer_costs.step_flops(
      self.flops(input_shape, training=True),
      self.encoder,
      self._is_pre_projection_first,
    )

  def paper_flops(
    self, input_shape: tower.Shape, training: bool = False
  ) -> int:
    """Counts by the rule in `transformer_costs`; see the base class."""
    num_tokens = self.num_tokens(input_shape, training)
    parts = transformer_costs.encoder_flops(
      self.encoder, num_tokens, num_tokens
    )
    del parts['query_key']
    return (
      self._num_patches(input_shape) * self._patch_flops(input_shape)
      + self._pre_projection_flops(self._num_patches(input_shape, training))
      + sum(parts.values())
      + self._post_projection_flops(1)
    )

  def _post_projection_flops(self, num_outputs):
    return transformer_costs.product(
      num_outputs, self._d_model, self.d_post_projection or 0
    )

  def activation_bytes(
    self, input_shape: tower.Shape, num_rows: int
  ) -> tower.ActivationBytes:
    """Estimates memory as `transformer_costs` explains; see the base class."""
    width = tf.as_dtype(self.compute_dtype).size
    num_tokens = self.num_tokens(input_shape, training=True)
    row = self._embedding_bytes(input_shape, width)
    if self.encoder.dropout_rate:
      row += self._num_patches(input_shape, training=True) * self._d_model
    positions = 0
    if self.embedding.position_embedding is not None:
      # The norm of the position embeddings is computed once for all rows.
      positions = self._num_patches(input_shape) * self._d_model
    encoder = (self.encoder, num_tokens, num_rows, width)
    return tower.ActivationBytes(
      num_rows * row
      + transformer_costs.FLOAT_BYTES * positions
      + transformer_costs.kept_bytes(*encoder),
      transformer_costs.workspace_bytes(*encoder),
    )

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower, with a shared encoder's config."""
    encoder = None
    if self.size is None:
      encoder = tower.serialize(self.encoder)
    return {
      **super().get_config(),
      'size': self.size,
      'encoder': encoder,
      'd_post_projection': self.d_post_projection,
      'position_interpolation': self.position_interpolation,
      'dropout_rate': self.dropout_rate,
      'use_remat': self.use_remat,
    }

  @classmethod
  def from_config(cls, config: dict[str, Any]) -> 'TransformerTower':
    """Makes a tower; its `encoder` may be a layer or the config of one."""
    config = dict(config)
    if isinstance(config['encoder'], dict):
      config['encoder'] = tower.deserialize(config['encoder'])
    if config['size'] is not None:
      config['size'] = sizes.Size(*config['size'])
    return cls(**config)


@gin.register
def share_encoder(
  towers: Mapping[str, Callable[..., tower.Tower]],
  size: sizes.Size,
  d_post_projection: int | None = 1024,
  dropout_rate: float = 0.1,
  use_remat: bool = False,
) -> dict[str, tower.Tower]:
  """Makes the towers of the modality-agnostic model (paper, section 3.2).

  All towers share one encoder. Each has its own embedding and its own Dense +
  GeLU before and after the encoder.

  Args:
    towers: Constructors of `PatchTower` and `TextTower` by modality (in gin
      without brackets: `@video/PatchTower`).
    size: Size of the encoder.
    d_post_projection: Width of a Dense + GeLU after the encoder. None means
      that there is none.
    dropout_rate: Dropout rate of the encoder, in [0, 1).
    use_remat: See `TransformerEncoder`.

  Returns:
    Towers by modality.

  Example:
    >>> towers = share_encoder(
    ...   {'text': TextTower}, sizes.Size(1, 8, 16, 2, d_kv=4))
    >>> towers['text'].encoder.name
    'encoder'
  """
  encoder = transformer_encoder.TransformerEncoder(
    **size._asdict(),
    dropout_rate=dropout_rate,
    use_remat=use_remat,
    name='encoder',
  )
  return {
    modality: make(encoder=encoder, d_post_projection=d_post_projection)
    for modality, make in towers.items()
  }
