"""A classifier: one tower of VATT and a linear map to classes."""

import gin
import tensorflow as tf
import tf_keras

from vatt_tf import randomness
from vatt_tf.models import build, towers, vatt

_MODALITIES = ('video', 'audio')
LOGITS = 'logits'  # (B, num_classes), float32
PROBABILITIES = 'probabilities'  # (B, num_classes), float32


@tf_keras.utils.register_keras_serializable(package='vatt_tf')
class Classifier(tf_keras.Model):
  """Classifies videos or sounds: fine-tuned VATT (paper, section 4.2).

  The pooled feature of one tower passes dropout and a linear map to the logits
  of the classes. The tower is a `VATT` of one modality, whose weights have the
  names that they have in the model that was pre-trained.

  Args:
    tower: dictionary of arguments of `vatt.VATT`, of one modality, without
      head.
    num_classes: int.
    is_multi_label: bool. Several classes may be right (AudioSet), and each has
      a probability of its own; False: one is, and they add up to 1.
    classifier_dropout_rate: float in [0, 1), of the feature in training.
    **kwargs: of `tf_keras.Model`.

  Call arguments:
    features: dictionary with the input of the modality, see `vatt.VATT`.
    training: bool.
    rng: `randomness.Rng` or None.

  Returns:
    Dictionary of float32 tensors: `logits` (B, num_classes), and
    `video_feature` or `audio_feature` (B, d), in training after dropout.

  Raises:
    ValueError: the tower is not of one modality; an input is missing or does
      not fit.

  Example:
    >>> size = dict(num_layers=1, d_model=8, d_ff=16, num_heads=2, d_kv=4)
    >>> embedding = dict(d_model=8, patch_size=(128,), table_shape=(10,))
    >>> model = Classifier(
    ...   {'audio': {'embedding': embedding, 'encoder': size}}, num_classes=3)
    >>> model({'audio': tf.zeros([2, 1280, 1])})['logits'].shape
    TensorShape([2, 3])
  """

  def __init__(
    self,
    tower,
    num_classes,
    is_multi_label=False,
    classifier_dropout_rate=0.0,
    **kwargs,
  ):
    kwargs.setdefault('name', 'classifier')
    super().__init__(autocast=False, **kwargs)
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
    self._tower_arguments = dict(tower)
    self.tower = vatt.VATT(**tower)
    if len(self.tower.modalities) != 1 or self.tower.head is not None:
      raise ValueError(
        '`tower` must have one modality and no head. '
        f'Received: modalities {self.tower.modalities}, tower={tower}'
      )
    self.logits = tf_keras.layers.Dense(
      num_classes, dtype='float32', name='logits'
    )

  @property
  def modalities(self):
    """Those of the tower, a tuple of one."""
    return self.tower.modalities

  @property
  def modality(self):
    """The modality that is classified, a string."""
    return self.tower.modalities[0]

  def build(self, input_shape=None):
    """Makes all weights; none depends on the shape of an input."""
    del input_shape
    if self.built:
      return
    self.tower.build()
    width = getattr(self.tower, f'{self.modality}_embedding').d_model
    projection = getattr(self.tower, f'{self.modality}_post_projection')
    if projection is not None:
      width = projection.units
    with tf.name_scope(f'{self.name}/'):
      towers.build_scoped(self.logits, tf.TensorShape([None, width]))
    self.built = True

  def call(self, features, training=False, rng=None):
    """Computes feature and logits; see the class."""
    return self.project(self.encode(features, training, rng))

  def encode(self, features, training=False, rng=None):
    """Runs tower and dropout; no row depends on another.

    Args:
      features: dictionary, as in the call.
      training: bool.
      rng: `randomness.Rng` or None.

    Returns:
      Dictionary with `video_feature` or `audio_feature` (B, d), float32.

    Raises:
      ValueError: the input is missing or does not fit.
    """
    pooled = self.tower.encode(features, training, rng)
    rate = self.classifier_dropout_rate if training else 0.0
    rng = randomness.fold_in(rng, 'classifier')
    return {
      name: randomness.dropout(x, rate, rng) for name, x in pooled.items()
    }

  def project(self, pooled, masks=None, training=False):
    """Maps what `encode` returned to classes.

    Args:
      pooled: dictionary that `encode` returned.
      masks: does not matter, nor does `training`.
      training: bool.

    Returns:
      Dictionary of outputs, as the call's.
    """
    del masks, training
    feature = pooled[f'{self.modality}_feature']
    return {**pooled, LOGITS: self.logits(feature)}

  def classify(self, features, num_windows=1):
    """Classifies clips of which several windows were taken.

    Args:
      features: dictionary, as in the call; rows are windows, those of a clip
        one after the other.
      num_windows: int, windows of a clip.

    Returns:
      Dictionary of float32 tensors (B / num_windows, num_classes): `logits`,
      the means over the windows, and `probabilities`.

    Raises:
      ValueError: as the call.
    """
    logits = self(features)[LOGITS]
    logits = tf.reshape(logits, [-1, num_windows, self.num_classes])
    logits = tf.reduce_mean(logits, 1)  # (B / num_windows, num_classes)
    return {LOGITS: logits, PROBABILITIES: self.probabilities(logits)}

  def probabilities(self, logits):
    """The probabilities of classes, of logits (B, num_classes)."""
    activation = tf.sigmoid if self.is_multi_label else tf.nn.softmax
    return activation(logits)

  def get_config(self):
    """The arguments of the model."""
    return {
      'name': self.name,
      'tower': self._tower_arguments,
      'num_classes': self.num_classes,
      'is_multi_label': self.is_multi_label,
      'classifier_dropout_rate': self.classifier_dropout_rate,
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    """Makes a model from what `get_config` returned."""
    del custom_objects
    return cls(**config)


@gin.register
def build_classifier(
  modality,
  num_classes,
  size=None,
  video_size=None,
  audio_size=None,
  is_agnostic=False,
  d_post_projection=1024,
  patch_size=None,
  num_frames=32,
  frame_size=224,
  audio_form='waveform',
  num_audio_samples=153600,
  num_spectrogram_frames=150,
  num_mel_bins=80,
  is_multi_label=False,
  position_interpolation='exact',
  drop_token_rate=0.5,
  dropout_rate=0.1,
  classifier_dropout_rate=0.5,
):
  """Builds a `Classifier` with all its weights.

  Its tower's weights are named as those of `models.build.build_model`, so that
  it can start from a checkpoint of such a model. An image is classified as a
  video of equal frames.

  The sizes of inputs are those for which the position tables are made: those of
  the model that was pre-trained. Larger inputs read the tables interpolated.

  Args:
    modality: `video` or `audio`.
    num_classes: int.
    size: `models.build.Size` of the encoder; None: that of the modality.
    video_size: `Size` of a video encoder, where `size` is None.
    audio_size: `Size` of an audio encoder, where `size` is None.
    is_agnostic: bool, a tower of the modality-agnostic model, with its Dense +
      GeLU before and behind the encoder.
    d_post_projection: int, width of the feature of such a tower.
    patch_size: tuple of ints; None: 4 x 16 x 16 for video, 128 for waveforms,
      16 x 5 (frames x bins) for spectrograms.
    num_frames: int, video frames for which the position tables are made.
    frame_size: int, or height and width.
    audio_form: `waveform` or `spectrogram`.
    num_audio_samples: int.
    num_spectrogram_frames: int.
    num_mel_bins: int.
    is_multi_label: bool, see `Classifier`.
    position_interpolation: `exact` or `release`: how inputs larger than the
      position tables read them (see `PositionEmbedding`).
    drop_token_rate: float in [0, 1).
    dropout_rate: float in [0, 1).
    classifier_dropout_rate: float in [0, 1), see `Classifier`.

  Returns:
    A built `Classifier`.

  Raises:
    ValueError: there is no such modality, no size or two of them, or an
      argument is out of its range.

  Example:
    >>> build_classifier('audio', 3, Size(1, 8, 16, 2, d_kv=4)).modality
    'audio'
  """
  if modality not in _MODALITIES:
    raise ValueError(
      f'`modality` must be one of {list(_MODALITIES)}. '
      f'Received: modality={modality!r}'
    )
  own = {'video': video_size, 'audio': audio_size}[modality]
  if (size is None) == (own is None):
    raise ValueError(
      f'Give either `size` or `{modality}_size`, of the encoder; a model file '
      'such as gin/models/ms_mbs.gin has it. '
      f'Received: size={size}, {modality}_size={own}'
    )
  size = size or own
  of_patches = {
    'use_pre_projection': is_agnostic,
    'position_interpolation': position_interpolation,
    'drop_token_rate': drop_token_rate,
    'dropout_rate': dropout_rate,
  }
  tower = {'audio_form': audio_form}
  if modality == 'video':
    embedding = build.patch_arguments(
      size,
      tuple(patch_size or (4, 16, 16)),
      (num_frames, *build.pair(frame_size)),
      **of_patches,
    )
  else:
    embedding = build.audio_arguments(
      size,
      audio_form,
      (patch_size or (128,))[0],
      num_audio_samples,
      patch_size or (16, 5),
      num_spectrogram_frames,
      num_mel_bins,
      **of_patches,
    )
  encoder = {**size._asdict(), 'dropout_rate': dropout_rate}
  tower[modality] = {'embedding': embedding}
  if is_agnostic:
    tower.update(encoder=encoder, d_post_projection=d_post_projection)
  else:
    tower[modality]['encoder'] = encoder
  model = Classifier(
    tower, num_classes, is_multi_label, classifier_dropout_rate
  )
  model.build()
  return model
