"""The convolutional audio tower of MMV: a ResNet-50 on spectrograms."""

from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.models import convolutional_tower, resnet_blocks


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class ResNetTower(convolutional_tower.ConvolutionalTower):
  """A ResNet-50 v2 on a log-mel spectrogram, which it sees as an image.

  The feature is the mean over time and frequency, 2,048 `width_factor` wide
  (Alayrac et al. 2020, MMV). MMV's spectrograms have the form `log_mel` (see
  `AudioConfig`).

  Args:
    input_name: `spectrogram`.
    width_factor: Factor of all numbers of channels, a multiple of 1 / 8; MMV's
      is 1.
    use_remat: See `ConvolutionalTower`.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    See `tower.Tower`.

  Returns:
    `tower.TowerOutput`; the tokens are the places of the last map.

  Raises:
    ValueError: An argument is out of its range, or the input does not fit.

  Example:
    >>> ResNetTower()(tf.zeros([1, 64, 32])).feature.shape
    TensorShape([1, 2048])
  """

  def __init__(
    self,
    input_name: str = names.SPECTROGRAM,
    width_factor: float = 1,
    use_remat: bool = False,
    **kwargs: Any,
  ):
    super().__init__(input_name, use_remat=use_remat, **kwargs)
    convolutional_tower.check_input_name(input_name, names.SPECTROGRAM)
    self.width_factor = width_factor
    self._width = resnet_blocks.scaled(resnet_blocks.UNITS[-1][1], width_factor)
    self._add_parts(resnet_blocks.parts(width_factor, shift_share=0.0))

  @property
  def width(self) -> int:
    """Width of the feature."""
    return self._width

  def _input_map(self, x):
    if x.shape.rank != 3 or None in x.shape[1:]:
      raise ValueError(
        'A spectrogram must be (B, F, M), and all but B static. '
        f'Received: shape={x.shape}'
      )
    x = tf.cast(x, self.compute_dtype)
    return x[:, tf.newaxis, :, :, tf.newaxis]  # (B, 1, F, M, 1)

  def _input_map_shape(self, input_shape):
    frames, bins = input_shape or (None, None)
    return [None, 1, frames, bins, 1]

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    config = {**super().get_config(), 'width_factor': self.width_factor}
    del config['is_deflated']
    return config

  def token_grid(self, input_shape: Any) -> tuple[int, int]:
    """Returns the places of the last map: (frames, bins)."""
    return super().token_grid(input_shape)[1:]
