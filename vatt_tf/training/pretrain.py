"""Pre-training: the contrastive terms between video, audio and text.

Paper section 3.4: NCE between video and audio, MIL-NCE between video and text,
summed with weights.
"""

import gin
import tensorflow as tf

from vatt_tf import feature_names as names
from vatt_tf.losses import mil_nce
from vatt_tf.losses import nce


@gin.register
class PretrainTask:
  """What pre-training optimises.

  Args:
    model: callable without arguments that returns the model.
    temperature: float, τ of the paper's equations 4 and 5.
    denominator: `joint`, `joint_once` or `per_direction` (see `losses.nce`).
    chunk_size: int or None; rows of the similarity matrix made at a time.
  """

  def __init__(
    self, model, temperature=0.07, denominator='joint', chunk_size=None
  ):
    self._model = model
    self._loss_options = {
      'temperature': temperature,
      'denominator': denominator,
      'chunk_size': chunk_size,
    }

  def build_model(self):
    """Makes the model; called inside the strategy's scope."""
    return self._model()
