"""The convolutional video tower TSM-ResNet-50 (Lin et al. 2019) of MMV."""

from typing import Any

import gin
import numpy as np
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.layers import temporal_shift
from vatt_tf.models import convolutional_tower, resnet_blocks

_SHIFT_SHARE = 0.125


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class TSMResNetTower(convolutional_tower.ConvolutionalTower):
  """A ResNet-50 v2 on frames, which exchange an eighth of the channels.

  Before the first convolution of each block, an eighth of the channels comes
  from the frame before, and an eighth from the frame after (Lin et al. 2019,
  "TSM"; Alayrac et al. 2020, MMV). It sees pixels in [0, 1], to which it maps
  its input. The feature is the mean over time and space, 2,048 `width_factor`
  wide.

  Args:
    input_name: `video`.
    width_factor: Factor of all numbers of channels, a multiple of 1 / 8; 2 is
      TSM-ResNet-50x2.
    is_deflated: Whether this is the image network, for videos of one frame.
    use_remat: See `ConvolutionalTower`.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Call arguments:
    See `tower.Tower`.

  Returns:
    `tower.TowerOutput`; the tokens are the places of the last map.

  Raises:
    ValueError: An argument is out of its range, or the input does not fit.

  Example:
    >>> TSMResNetTower()(tf.zeros([1, 4, 32, 32, 3])).feature.shape
    TensorShape([1, 2048])
  """

  def __init__(
    self,
    input_name: str = names.VIDEO,
    width_factor: float = 1,
    is_deflated: bool = False,
    use_remat: bool = False,
    **kwargs: Any,
  ):
    super().__init__(input_name, is_deflated, use_remat, **kwargs)
    convolutional_tower.check_input_name(input_name, names.VIDEO)
    self.width_factor = width_factor
    self._width = resnet_blocks.scaled(resnet_blocks.UNITS[-1][1], width_factor)
    share = 0.0 if is_deflated else _SHIFT_SHARE
    self._add_parts(resnet_blocks.parts(width_factor, share))

  @property
  def width(self) -> int:
    """Width of the feature."""
    return self._width

  def _input_map(self, x):
    convolutional_tower.check_video(x, self.is_deflated)
    return convolutional_tower.unit_range(x, self.compute_dtype)

  def _input_map_shape(self, input_shape):
    return [None, *(input_shape or (None, None, None, 3))]

  def _deflate_weight(self, weight, shape):
    value = np.asarray(weight)
    if 'convolution_0/kernel' in weight.name:
      # The image network has no shift, which would also have swapped channels:
      # its inputs are those that the shift would have moved to each place.
      order = temporal_shift.unshifted_order(value.shape[3], _SHIFT_SHARE)
      deflated = np.empty_like(value)
      deflated[:, :, :, order] = value
      value = deflated
    return super()._deflate_weight(value, shape)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the tower."""
    return {**super().get_config(), 'width_factor': self.width_factor}
