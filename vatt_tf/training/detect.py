"""Training of a detector on the boxes of records."""

from collections.abc import Callable, Mapping

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names as names
from vatt_tf.losses import detection as losses
from vatt_tf.models import detection


@gin.register
class DetectTask:
  """The task of a detector: its model, loss and metrics.

  The loss is that of FCOS: focal loss of the classes, GIoU loss of the boxes
  and cross-entropy of centre-ness, with equal weights (`losses.detection`). The
  boxes are those of the middle frame of a clip, which is an image.

  Attributes:
    progress_metrics: Names of the metrics that the progress line shows.

  Args:
    model: Function without arguments that returns a `detection.Detector`.
    radius: See `losses.detection.assign_targets`.
  """

  progress_metrics = ('class_loss', 'box_loss', 'centre_loss')

  def __init__(self, model: Callable[..., tf_keras.Model], radius: float = 1.5):
    if not radius > 0:
      raise ValueError(f'`radius` must be above 0. Received: radius={radius}')
    self._model = model
    self._radius = radius

  def build_model(self) -> tf_keras.Model:
    """Builds the model. The loop calls it inside the strategy's scope.

    Returns:
      The model.
    """
    model = self._model()
    model.build()
    return model

  def loss(
    self, features: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Computes the loss and the metrics of the training step.

    Args:
      features: Inputs, masks and boxes of this replica's rows.
      outputs: Outputs of the model for these rows.

    Returns:
      (loss, metrics): this replica's share of the loss, a scalar float32, and
      a dictionary of shares; both sum over the replicas to the global value.

    Raises:
      ValueError: The rows have no boxes.
    """
    if names.VIDEO_BOXES not in features:
      raise ValueError(
        'A detector learns from boxes: set `VideoConfig.max_boxes`, as '
        f'gin/runs/detect.gin does. Received: features {sorted(features)}'
      )
    logits = outputs[detection.LOGITS]
    _, height, width, num_classes = logits.shape
    boxes, mask, classes = (
      features[name][:, features[name].shape[1] // 2]
      for name in (
        names.VIDEO_BOXES,
        names.VIDEO_BOX_MASK,
        names.VIDEO_BOX_CLASS,
      )
    )
    targets = losses.assign_targets(
      boxes,
      mask,
      classes,
      detection.centres(height, width),
      num_classes,
      self._radius,
    )
    terms = losses.detection_loss(
      logits,
      detection.boxes_of(outputs[detection.DISTANCES]),
      outputs[detection.CENTRE_LOGITS],
      targets,
      features[names.VIDEO_MASK],
    )
    total = terms.class_loss + terms.box_loss + terms.centre_loss
    return total, terms._asdict()

  def variable_group(self, name: str) -> str:
    """Returns the group of a variable for the gradient norms.

    Args:
      name: Name of the variable.

    Returns:
      `head` or `backbone`.
    """
    return 'backbone' if name.startswith('vatt/') else 'head'
