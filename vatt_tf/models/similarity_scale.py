"""Learned temperature and bias of the similarities."""

from collections.abc import Mapping, Sequence
import math
from typing import Any

import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities

KINDS = ('temperature', 'temperature_and_bias')

# CLIP's limit of the inverse temperature.
_MAX_INVERSE_TEMPERATURE = 100.0
# SigLIP's initial values.
_SIGMOID_INVERSE_TEMPERATURE = 10.0
_SIGMOID_BIAS = -10.0


def _output_names(pair):
  """The model's output key of each scalar, by the name of the scalar."""
  return {
    'inverse_temperature': f'{pair}_inverse_temperature',
    'bias': f'{pair}_bias',
  }


def scalars_of(
  pair: str, outputs: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
  """Returns the learned scalars of a pair from the outputs of a model.

  Args:
    pair: Name of a pair.
    outputs: Outputs of the model.

  Returns:
    `inverse_temperature` and `bias`, where the model learns them, as scalar
    float32 tensors.
  """
  return {
    name: outputs[key]
    for name, key in _output_names(pair).items()
    if key in outputs
  }


def _at_most(limit):
  return lambda x: tf.minimum(x, limit)


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class SimilarityScale(tf_keras.layers.Layer):
  """Learned scalars of the similarities, for each pair of modalities.

  - `temperature` (CLIP, Radford et al. 2021, section 2.3): the logarithm of
    the inverse temperature. After each update it is clipped to the logarithm of
    100.
  - `temperature_and_bias` (SigLIP, Zhai et al. 2023, section 3.2): the same,
    with an initial inverse temperature of 10 and without clipping, and a bias
    with an initial value of -10.

  The weights are float32 under any precision policy.

  Args:
    pairs: Names of pairs of `core.modalities.PAIRS`.
    kind: Scalars to learn, one of `KINDS`.
    temperature: Initial value for the kind `temperature`.
    **kwargs: Arguments of `tf_keras.layers.Layer`.

  Raises:
    ValueError: A pair or the kind is unknown, or the temperature is below 0.01.

  Example:
    >>> scale = SimilarityScale(('video_text',), 'temperature_and_bias')
    >>> {name: x.numpy() for name, x in scale.values().items()}
    {'video_text_inverse_temperature': 10.0, 'video_text_bias': -10.0}
  """

  def __init__(
    self,
    pairs: Sequence[str],
    kind: str = 'temperature',
    temperature: float = 0.07,
    **kwargs: Any,
  ):
    kwargs.setdefault('dtype', 'float32')
    super().__init__(**kwargs)
    modalities.check_pairs(pairs)
    if kind not in KINDS:
      raise ValueError(
        f'`kind` must be one of {", ".join(KINDS)}. Received: kind={kind!r}'
      )
    if not temperature * _MAX_INVERSE_TEMPERATURE >= 1:
      raise ValueError(
        f'`temperature` must be at least {1 / _MAX_INVERSE_TEMPERATURE}, where '
        f'a learned one is clipped. Received: temperature={temperature}'
      )
    self.pairs = tuple(pairs)
    self.kind = kind
    self.temperature = temperature

  @property
  def has_bias(self) -> bool:
    """Whether there is a bias for each pair."""
    return self.kind == 'temperature_and_bias'

  def build(self, input_shape: tf.TensorShape | None = None) -> None:
    """Creates the scalars `<pair>/scale` (a logarithm) and `<pair>/bias`."""
    del input_shape
    start, constraint = 1 / self.temperature, None
    if self.has_bias:
      start = _SIGMOID_INVERSE_TEMPERATURE
    else:
      constraint = _at_most(math.log(_MAX_INVERSE_TEMPERATURE))
    for pair in self.pairs:
      scalars = tf_keras.layers.Layer(name=pair, dtype=self.dtype_policy)
      with tf.name_scope(pair):
        scalars.scale = scalars.add_weight(
          name='scale',
          shape=[],
          initializer=tf_keras.initializers.Constant(math.log(start)),
          constraint=constraint,
        )
        if self.has_bias:
          scalars.bias = scalars.add_weight(
            name='bias',
            shape=[],
            initializer=tf_keras.initializers.Constant(_SIGMOID_BIAS),
          )
      scalars.built = True
      setattr(self, pair, scalars)
    self.built = True

  def values(self) -> dict[str, tuple[tf.Tensor, tf.Tensor]]:
    """Returns the current values of the scalars.

    Returns:
      Dictionary of scalar float32 tensors: `<pair>_inverse_temperature`, and
      `<pair>_bias` if the kind has it.
    """
    outputs = {}
    for pair in self.pairs:
      scalars, names = getattr(self, pair), _output_names(pair)
      outputs[names['inverse_temperature']] = tf.exp(scalars.scale)
      if self.has_bias:
        outputs[names['bias']] = tf.convert_to_tensor(scalars.bias)
    return outputs

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the layer."""
    return {
      **super().get_config(),
      'pairs': self.pairs,
      'kind': self.kind,
      'temperature': self.temperature,
    }
