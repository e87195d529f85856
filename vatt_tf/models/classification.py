"""A classifier: one tower and a linear map to classes."""

from collections.abc import Mapping
from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities, randomness
from vatt_tf.models import single_tower
from vatt_tf.models import tower as tower_lib

LOGITS = 'logits'  # (B, num_classes), float32
PROBABILITIES = 'probabilities'  # (B, num_classes), float32


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class Classifier(single_tower.SingleTowerModel):
  """Classifies clips of one modality: fine-tuned VATT (paper, section 4.2).

  Dropout and a linear map turn the pooled feature of one tower into the logits
  of the classes. The tower's weights have the same names as in the pre-trained
  model, so that the classifier can start from its checkpoint. An image is
  classified as a video of equal frames.

  Args:
    tower: Tower of the modality.
    num_classes: Number of classes.
    is_multi_label: Whether several classes may be true (AudioSet), with
      separate probabilities. Otherwise one is true, and the probabilities add
      up to 1.
    classifier_dropout_rate: Dropout rate of the feature, in [0, 1).
    **kwargs: Arguments of `tf_keras.Model`.

  Call arguments:
    features: Dictionary with the tower's input, see `tower.Tower`.
    training: Whether dropout and DropToken apply.
    rng: `randomness.Rng` or None.

  Returns:
    Dictionary of float32 tensors: `logits` (B, num_classes), and the feature
    (B, d), such as `video_feature`, in training after dropout.

  Raises:
    ValueError: An argument is out of its range, or the input is missing or does
      not fit.

  Example:
    >>> size = sizes.Size(1, 8, 16, 2, d_kv=4)
    >>> audio = patch_tower.PatchTower('audio', input_size=1280, size=size)
    >>> model = Classifier(audio, num_classes=3)
    >>> model({'audio': tf.zeros([2, 1280, 1])})['logits'].shape
    TensorShape([2, 3])
  """

  def __init__(
    self,
    tower: tower_lib.Tower,
    num_classes: int,
    is_multi_label: bool = False,
    classifier_dropout_rate: float = 0.5,
    **kwargs: Any,
  ):
    kwargs.setdefault('name', 'classifier')
    super().__init__(tower, **kwargs)
    if num_classes < 1:
      raise ValueError(
        f'`num_classes` must be positive. Received: num_classes={num_classes}'
      )
    if not 0 <= classifier_dropout_rate < 1:
      raise ValueError(
        '`classifier_dropout_rate` must be in [0, 1). Received: '
        f'classifier_dropout_rate={classifier_dropout_rate}'
      )
    self.num_classes = num_classes
    self.classifier_dropout_rate = classifier_dropout_rate
    self.is_multi_label = is_multi_label
    self.logits = tf_keras.layers.Dense(
      num_classes, dtype='float32', name='logits'
    )

  def _build_outputs(self) -> None:
    """Creates the weights of the logits."""
    tower_lib.build_scoped(
      self.logits, tf.TensorShape([None, self.tower.width])
    )

  @property
  def encoded_dtypes(self) -> dict[str, tf.DType]:
    """Dtypes of what `encode` returns, by name."""
    return {modalities.MODALITIES[self.modality].feature: tf.float32}

  def encode(
    self,
    features: Mapping[str, tf.Tensor],
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> dict[str, tf.Tensor]:
    """Runs tower and dropout; no row depends on another.

    Args:
      features: See the call.
      training: See the call.
      rng: See the call.

    Returns:
      Dictionary with the feature (B, d), such as `video_feature`, float32.

    Raises:
      ValueError: The input is missing or does not fit.
    """
    feature = self.tower(
      self._input(features),
      training=training,
      rng=randomness.fold_in(rng, self.modality),
    ).feature
    rate = self.classifier_dropout_rate if training else 0.0
    rng = randomness.fold_in(rng, 'classifier')
    feature = randomness.dropout(feature, rate, rng)
    return {modalities.MODALITIES[self.modality].feature: feature}

  def project(
    self,
    pooled: Mapping[str, tf.Tensor],
    masks: Any = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Maps the features of `encode` to classes.

    Args:
      pooled: Features of `encode`.
      masks: Unused; `vatt.VATT` has it.
      training: Unused; `vatt.VATT` has it.

    Returns:
      Dictionary of outputs, see the call.
    """
    del masks, training
    (feature,) = pooled.values()
    return {**pooled, LOGITS: self.logits(feature)}

  def classify(
    self, features: Mapping[str, tf.Tensor], num_windows: int = 1
  ) -> dict[str, tf.Tensor]:
    """Classifies clips by several windows of each.

    Args:
      features: See the call; rows are windows, and the windows of a clip are
        consecutive.
      num_windows: Number of windows per clip.

    Returns:
      Dictionary of float32 tensors (B / num_windows, num_classes): `logits`,
      the means over the windows, and `probabilities`.

    Raises:
      ValueError: The call raises it.
    """
    logits = self(features)[LOGITS]
    logits = tf.reshape(logits, [-1, num_windows, self.num_classes])
    logits = tf.reduce_mean(logits, 1)  # (B / num_windows, num_classes)
    return {LOGITS: logits, PROBABILITIES: self.probabilities(logits)}

  def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
    """Returns the probabilities of the classes for logits (B, num_classes)."""
    activation = tf.sigmoid if self.is_multi_label else tf.nn.softmax
    return activation(logits)

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the model."""
    return {
      'name': self.name,
      'tower': tower_lib.serialize(self.tower),
      'num_classes': self.num_classes,
      'is_multi_label': self.is_multi_label,
      'classifier_dropout_rate': self.classifier_dropout_rate,
    }

  @classmethod
  def from_config(
    cls, config: Mapping[str, Any], custom_objects: Any = None
  ) -> 'Classifier':
    """Makes a model from the configuration of `get_config`."""
    tower = tower_lib.deserialize(config['tower'], custom_objects)
    return cls(**{**config, 'tower': tower})


@gin.register
def select_tower(
  towers: Mapping[str, tower_lib.Tower], modality: str
) -> tower_lib.Tower:
  """Returns the tower of one modality of a model file.

  Args:
    towers: Towers by modality.
    modality: Modality, such as `video`.

  Returns:
    The tower.

  Raises:
    ValueError: There is no tower of the modality.
  """
  if modality not in towers:
    raise ValueError(
      f'`modality` must be one of {sorted(towers)}. '
      f'Received: modality={modality!r}'
    )
  return towers[modality]
