"""A detector of objects in images: a tower and an anchor-free head."""

from collections.abc import Mapping
import math
from typing import Any

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.core import modalities, randomness
from vatt_tf.models import single_tower, token_maps
from vatt_tf.models import tower as tower_lib

# Outputs of the detector for the places of its grid, float32.
LOGITS = 'logits'  # (B, h, w, num_classes)
DISTANCES = 'distances'  # (B, h, w, 4), above 0, as shares of the frame
CENTRE_LOGITS = 'centre_logits'  # (B, h, w)
# Outputs of `Detector.detect`, K detections per image, the best first.
BOXES = 'boxes'  # (B, K, 4) float32: left, upper, right, lower edge, in [0, 1]
SCORES = 'scores'  # (B, K) float32, 0 behind the last detection
CLASSES = 'classes'  # (B, K) int32, -1 behind the last detection
NUM_DETECTIONS = 'num_detections'  # (B,) int32

_MAP = 'video_map'  # (B, h, w, d)
# Share of the places with an object that the class logits begin with, so that
# the many places without one do not dominate the first steps.
_PRIOR = 0.01


@gin.register
@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class Detector(single_tower.SingleTowerModel):
  """Finds objects in images: the head of FCOS on the places of a video tower.

  Each place of the tower's grid has a score for each class, four distances to
  the edges of the box that it lies in, and its centre-ness, how near the middle
  of the box it is (Tian et al. 2019, "FCOS: Fully convolutional one-stage
  object detection", sections 3.1 and 3.3). The grid has one scale. An image is
  a video of one frame, or of equal frames, over which the tokens are averaged.

  Args:
    tower: Video tower with a `token_grid`, without DropToken.
    num_classes: Number of classes.
    num_convs: Convolutions of each branch of the head, 4 in the paper.
    width: Their width, 256 in the paper; a multiple of `num_groups`.
    num_groups: Groups of their group norms.
    **kwargs: Arguments of `tf_keras.Model`.

  Call arguments:
    features: Dictionary with the tower's input, see `tower.Tower`.
    training: Whether dropout applies.
    rng: `randomness.Rng` or None.

  Returns:
    Dictionary of float32 tensors: `logits` (B, h, w, num_classes), `distances`
    (B, h, w, 4) to the left, upper, right and lower edge as shares of the
    frame, and `centre_logits` (B, h, w).

  Raises:
    ValueError: An argument is out of its range, or the input is missing or does
      not fit.

  Example:
    >>> size = sizes.Size(1, 8, 16, 2, d_kv=4)
    >>> tower = patch_tower.PatchTower(
    ...   'video', input_size=(1, 32), patch_size=(1, 8, 8), size=size,
    ...   drop_token_rate=0.0)
    >>> model = Detector(tower, 3, num_convs=1, width=8, num_groups=2)
    >>> model({'video': tf.zeros([2, 1, 32, 32, 3])})['distances'].shape
    TensorShape([2, 4, 4, 4])
  """

  def __init__(
    self,
    tower: tower_lib.Tower,
    num_classes: int,
    num_convs: int = 4,
    width: int = 256,
    num_groups: int = 32,
    **kwargs: Any,
  ):
    kwargs.setdefault('name', 'detector')
    super().__init__(tower, **kwargs)
    if num_classes < 1 or num_convs < 0:
      raise ValueError(
        '`num_classes` must be positive and `num_convs` not negative. '
        f'Received: num_classes={num_classes}, num_convs={num_convs}'
      )
    if width < 1 or num_groups < 1 or width % num_groups:
      raise ValueError(
        '`width` must be a multiple of `num_groups`. '
        f'Received: width={width}, num_groups={num_groups}'
      )
    if tower.modality != modalities.VIDEO:
      raise ValueError(
        f'`tower` must be of video. Received: a tower of {tower.modality}'
      )
    if getattr(tower, 'drop_token_rate', 0.0):
      raise ValueError(
        'A detector needs all tokens: set DROP_TOKEN_RATE = 0.0. '
        f'Received: drop_token_rate={tower.drop_token_rate}'
      )
    self.num_classes = num_classes
    self.num_convs = num_convs
    self.width = width
    self.num_groups = num_groups
    self.norm = tf_keras.layers.LayerNormalization(dtype='float32', name='norm')
    self.class_branch = self._make_branch('class')
    self.box_branch = self._make_branch('box')
    self.logits = self._conv(
      num_classes, 'logits', bias=-math.log((1 - _PRIOR) / _PRIOR)
    )
    self.distances = self._conv(4, 'distances')
    self.centre = self._conv(1, 'centre')

  def _conv(self, filters, name, bias=0.0):
    return tf_keras.layers.Conv2D(
      filters,
      3,
      padding='same',
      kernel_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
      bias_initializer=tf_keras.initializers.Constant(bias),
      dtype='float32',
      name=name,
    )

  def _make_branch(self, name):
    layers = []
    for i in range(self.num_convs):
      layers += [
        tf_keras.layers.Conv2D(
          self.width,
          3,
          padding='same',
          dtype='float32',
          name=f'{name}_conv_{i}',
        ),
        tf_keras.layers.GroupNormalization(
          self.num_groups, dtype='float32', name=f'{name}_norm_{i}'
        ),
      ]
    return layers

  def _build_outputs(self) -> None:
    """Creates the weights of the head."""
    depth = self.tower.token_width
    tower_lib.build_scoped(self.norm, [None, None, None, depth])
    for branch in (self.class_branch, self.box_branch):
      width = depth
      for layer in branch:
        tower_lib.build_scoped(layer, [None, None, None, width])
        width = self.width
    for layer in (self.logits, self.distances, self.centre):
      tower_lib.build_scoped(layer, [None, None, None, width])

  @property
  def encoded_dtypes(self) -> dict[str, tf.DType]:
    """Dtypes of what `encode` returns, by name."""
    return {_MAP: tf.float32}

  def encode(
    self,
    features: Mapping[str, tf.Tensor],
    training: bool = False,
    rng: randomness.Rng | None = None,
  ) -> dict[str, tf.Tensor]:
    """Runs the tower; no row depends on another.

    Args:
      features: See the call.
      training: See the call.
      rng: See the call.

    Returns:
      Dictionary with the map of tokens (B, h, w, d), float32.

    Raises:
      ValueError: The input is missing or does not fit.
    """
    _, tokens, _ = token_maps.encode(
      self.tower,
      self._input(features),
      training,
      randomness.fold_in(rng, self.modality),
    )
    return {_MAP: tf.reduce_mean(tf.cast(tokens, tf.float32), 1)}

  def project(
    self,
    pooled: Mapping[str, tf.Tensor],
    masks: Any = None,
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """Runs the head on the map of `encode`.

    Args:
      pooled: Map of `encode`.
      masks: Unused; `vatt.VATT` has it.
      training: Unused; `vatt.VATT` has it.

    Returns:
      Dictionary of outputs, see the call.
    """
    del masks, training
    tokens = self.norm(pooled[_MAP])
    of_class, of_box = (
      self._run_branch(branch, tokens)
      for branch in (self.class_branch, self.box_branch)
    )
    height, width = tokens.shape[1:3]
    one = tf.constant([1 / width, 1 / height] * 2)  # a place
    return {
      LOGITS: self.logits(of_class),
      # Bounded, since the exponential of a wild value is no distance.
      DISTANCES: one
      * tf.exp(tf.clip_by_value(self.distances(of_box), -8.0, 8.0)),
      CENTRE_LOGITS: self.centre(of_box)[..., 0],
    }

  def _run_branch(self, branch, x):
    for layer in branch:
      x = layer(x)
      if isinstance(layer, tf_keras.layers.GroupNormalization):
        x = tf.nn.relu(x)
    return x

  def detect(
    self,
    video: tf.Tensor,
    max_detections: int = 100,
    min_score: float = 0.05,
    max_overlap: float = 0.6,
  ) -> dict[str, tf.Tensor]:
    """Finds the objects in images.

    Args:
      video: (B, T, H, W, 3) float32 in [-1, 1].
      max_detections: Number of detections K per image.
      min_score: Lowest score of a detection, in [0, 1].
      max_overlap: IoU above which, of two detections of one class, the worse
        one is left out.

    Returns:
      Dictionary with `boxes` (B, K, 4), `scores` (B, K), `classes` (B, K) and
      `num_detections` (B,); see the constants of this module.
    """
    outputs = self({self.tower.input_name: video})
    return self.select(outputs, max_detections, min_score, max_overlap)

  def select(
    self,
    outputs: Mapping[str, tf.Tensor],
    max_detections: int = 100,
    min_score: float = 0.05,
    max_overlap: float = 0.6,
  ) -> dict[str, tf.Tensor]:
    """Selects the detections from the outputs of the call.

    Args:
      outputs: Outputs of the call.
      max_detections: See `detect`.
      min_score: See `detect`.
      max_overlap: See `detect`.

    Returns:
      See `detect`.
    """
    height, width = outputs[LOGITS].shape[1:3]
    edges = boxes_of(outputs[DISTANCES])  # (B, h, w, 4)
    edges = tf.clip_by_value(edges, 0.0, 1.0)
    # The geometric mean keeps scores on the scale of probabilities.
    scores = tf.sqrt(
      tf.sigmoid(outputs[LOGITS])
      * tf.sigmoid(outputs[CENTRE_LOGITS])[..., tf.newaxis]
    )
    places = height * width
    found = tf.image.combined_non_max_suppression(
      tf.reshape(edges, [-1, places, 1, 4]),
      tf.reshape(scores, [-1, places, self.num_classes]),
      max_output_size_per_class=max_detections,
      max_total_size=max_detections,
      iou_threshold=max_overlap,
      score_threshold=min_score,
      clip_boxes=True,
    )
    exists = tf.range(max_detections) < found.valid_detections[:, tf.newaxis]
    return {
      BOXES: found.nmsed_boxes,
      SCORES: found.nmsed_scores,
      CLASSES: tf.where(exists, tf.cast(found.nmsed_classes, tf.int32), -1),
      NUM_DETECTIONS: found.valid_detections,
    }

  def get_config(self) -> dict[str, Any]:
    """Returns the arguments of the model."""
    return {
      'name': self.name,
      'tower': tower_lib.serialize(self.tower),
      'num_classes': self.num_classes,
      'num_convs': self.num_convs,
      'width': self.width,
      'num_groups': self.num_groups,
    }

  @classmethod
  def from_config(
    cls, config: Mapping[str, Any], custom_objects: Any = None
  ) -> 'Detector':
    """Makes a model from the configuration of `get_config`."""
    tower = tower_lib.deserialize(config['tower'], custom_objects)
    return cls(**{**config, 'tower': tower})


def centres(height: int, width: int) -> tf.Tensor:
  """Returns `token_maps.centres` as float32."""
  return tf.constant(token_maps.centres(height, width), tf.float32)


def boxes_of(distances: tf.Tensor) -> tf.Tensor:
  """Returns the edges (…, h, w, 4) of boxes from the distances of places."""
  height, width = distances.shape[-3:-1]
  places = centres(height, width)
  return tf.concat(
    [places - distances[..., :2], places + distances[..., 2:]], -1
  )
