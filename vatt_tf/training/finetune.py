"""Fine-tuning: a classifier of one modality on labelled clips.

The loss is softmax cross-entropy with label smoothing (paper section 4.2), or
for clips with several classes (AudioSet) the sigmoid cross-entropy of each
class.
"""

from collections.abc import Callable, Mapping

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import collectives, modalities
from vatt_tf.core import feature_names as names
from vatt_tf.models import classification


@gin.register
class FinetuneTask:
  """The task of fine-tuning: its model, loss and metrics.

  A clip counts if it has the modality and a class. The loss is the mean over
  the clips of the global batch that count; without any it is exactly 0.

  Attributes:
    progress_metrics: Names of the metrics that the progress line shows.

  Args:
    model: Function without arguments that returns a
      `classification.Classifier`, whose `is_multi_label` tells whether clips
      have several classes.
    label_smoothing: Share of the label, in [0, 1), that is spread evenly over
      all classes; for clips with several classes, half of it is added to every
      class.

  Raises:
    ValueError: `label_smoothing` is out of range.
  """

  progress_metrics = ('accuracy',)

  def __init__(
    self, model: Callable[..., tf_keras.Model], label_smoothing: float = 0.1
  ):
    if not 0 <= label_smoothing < 1:
      raise ValueError(
        '`label_smoothing` must be in [0, 1). '
        f'Received: label_smoothing={label_smoothing}'
      )
    self._model = model
    self._label_smoothing = label_smoothing
    self._is_multi_label = None

  def build_model(self) -> tf_keras.Model:
    """Builds the model. The loop calls it inside the strategy's scope.

    Returns:
      The model.
    """
    model = self._model()
    model.build()
    self._is_multi_label = model.is_multi_label
    return model

  def loss(
    self, features: Mapping[str, tf.Tensor], outputs: Mapping[str, tf.Tensor]
  ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Computes the loss and the metrics of the training step.

    Args:
      features: Inputs, masks and `label` of this replica's rows. The label is
        (B,) int32, -1 without a class; or (B, num_classes) float32, the weights
        of the classes, all 0 without a class. Where clips have one class, the
        weights are normalised to a sum of 1.
      outputs: Outputs of the model for these rows.

    Returns:
      (loss, metrics): this replica's share of the loss, a scalar float32, and
      a dictionary of shares; both sum over the replicas to the global value.
      `accuracy` is the share of the clips whose predicted class is true (for
      mixed clips, the class with the larger share); `examples` is the number of
      clips.

    Raises:
      ValueError: Labels are missing or have the wrong shape.
    """
    logits = outputs[classification.LOGITS]  # (B, num_classes)
    labels, is_used = self._labels(features, logits.shape[-1])
    for modality in modalities.MODALITIES.values():
      if modality.feature in outputs:
        is_used &= features[modality.mask]
    weights = tf.cast(is_used, tf.float32)  # (B,)
    smoothing = self._label_smoothing
    if self._is_multi_label:
      targets = (1.0 - smoothing) * labels + smoothing / 2
      losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
      losses = tf.reduce_mean(losses, -1)  # (B,)
    else:
      targets = (1.0 - smoothing) * labels + smoothing / logits.shape[-1]
      losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)  # (B,)
    # A row that does not count may hold anything.
    losses = tf.where(is_used, losses, 0.0)
    predictions = tf.argmax(logits, -1)
    is_correct = tf.gather(labels, predictions, batch_dims=1) >= 0.5  # (B,)
    num_used = tf.reduce_sum(weights)
    total = tf.maximum(collectives.all_reduce_sum(num_used), 1.0)
    loss = tf.reduce_sum(losses) / total
    accuracy = tf.reduce_sum(weights * tf.cast(is_correct, tf.float32)) / total
    return loss, {'accuracy': accuracy, 'examples': num_used}

  def _labels(self, features, num_classes):
    """The weights of the classes (B, num_classes), and which rows have any."""
    if names.LABEL not in features:
      raise ValueError(
        'Fine-tuning needs labels: bind `make_dataset.label`, as '
        f'gin/runs/finetune.gin does. Received: features {sorted(features)}'
      )
    labels = features[names.LABEL]
    if labels.dtype.is_integer and not self._is_multi_label:
      return tf.one_hot(labels, num_classes), labels >= 0
    if labels.shape.rank != 2 or labels.shape[-1] != num_classes:
      raise ValueError(
        f'`label` must be (B, {num_classes}), the weights of the classes of '
        'the model. Set `num_classes` of the model and of `LabelConfig` to '
        'the same number (NUM_CLASSES), and `LabelConfig.is_multi_label` if '
        'clips have several classes. '
        f'Received: label.shape={labels.shape}'
      )
    total = tf.reduce_sum(labels, -1, keepdims=True)  # (B, 1)
    if not self._is_multi_label:
      labels = tf.math.divide_no_nan(labels, total)
    return labels, total[:, 0] > 0

  def variable_group(self, name: str) -> str:
    """Returns the group of a variable for the gradient norms.

    Args:
      name: Name of the variable.

    Returns:
      `classifier` or `backbone`.
    """
    return 'backbone' if name.startswith('vatt/') else 'classifier'


@gin.register
def num_views(num_clips: int, num_crops: int) -> int:
  """Returns the number of rows per clip in evaluation.

  Args:
    num_clips: Number of windows in time.
    num_crops: Number of crops of each window.

  Returns:
    Their product.
  """
  return num_clips * num_crops
