"""Computes where in the frames of clips their sound is."""

from collections.abc import Sequence
import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras

from vatt_tf.core import feature_names, modalities
from vatt_tf.embedding import model as model_lib
from vatt_tf.embedding import table
from vatt_tf.export import signatures
from vatt_tf.input_pipeline.records import schema
from vatt_tf.models import vatt

# A sound whose samples are all this close to 0 is silence.
SILENCE = 1e-4


def check_model(model: tf_keras.Model) -> None:
  """Raises ValueError unless a model can say where it sounds."""
  if not isinstance(model, vatt.VATT):
    raise ValueError(
      'Only a model of video and sound can say where it sounds. Received: a '
      f'{type(model).__name__}'
    )
  model.check_token_head()


@dataclasses.dataclass(frozen=True)
class Located:
  """Where a clip sounds.

  Attributes:
    clip: The clip.
    map: (t, h, w) float32, cosines in [-1, 1] of places and the sound; None for
      silence.
    score: Mean over the time steps of the highest cosine, not smoothed.
    place: (D,) float32: mean over the time steps of the unit embedding of the
      best place.
    sound: (D,) float32: unit embedding of the sound.
    offset: Start of the map in the clip in µs.
    num_frames: Number of frames that the model has seen.
    window: Left, upper, right and lower edge of the part of the frame that the
      model sees, as shares of the frame.
  """

  clip: schema.Clip
  map: np.ndarray | None
  score: float
  place: np.ndarray
  sound: np.ndarray
  offset: int
  num_frames: int
  window: tuple[float, float, float, float]


class Locator:
  """Computes the maps of clips.

  Args:
    model: Built `models.vatt.VATT` that was trained with the local term.
    form: Form of the model's inputs.

  Raises:
    ValueError: The model was not trained with the local term.
  """

  def __init__(self, model: tf_keras.Model, form: model_lib.Form):
    check_model(model)
    self._form = form
    self._chooser = model_lib.Chooser(form)

    @tf.function(reduce_retracing=True, autograph=False)
    def run(frames, waveforms, rates):
      sounds = signatures.finish_sounds(
        waveforms, rates, form.audio, form.is_looped
      )
      places = model.embed_places(signatures.decode_clips(frames, form.video))
      embeddings = model.embed(modalities.AUDIO, sounds)
      sound = embeddings[feature_names.AUDIO_VA]
      similarities = vatt.compare_places(places, sound)
      return {
        'map': vatt.smooth_maps(similarities, model.map_smoothing),
        'score': vatt.score_of(similarities),
        'place': _best_places(places, similarities),
        'sound': tf.math.l2_normalize(sound, -1),
      }

    self._run = run

  def locate(
    self, clips: Sequence[schema.Clip]
  ) -> tuple[list[Located], list[tuple[schema.Clip, str]]]:
    """Computes the maps of clips.

    Args:
      clips: Clips of any length, size and rate.

    Returns:
      The clips with frames and sound, and the others, each with the reason.
    """
    located, faults, ready = [], [], []
    for clip in clips:
      found = model_lib.find_faults(clip)
      if not clip.frames:
        found.setdefault(table.VIDEO, 'it has no frames')
      if clip.waveform is None:
        found.setdefault(table.AUDIO, 'it has no sound')
      if found:
        faults.append(
          (clip, '; '.join(f'{key}: {fault}' for key, fault in found.items()))
        )
        continue
      frames, samples, offset = self._chooser.choose(clip, True, True)
      ready.append((clip, frames, samples, offset))
    if ready:
      rate = self._form.audio.sample_rate
      outputs = self._run(
        tf.constant([frames for _, frames, _, _ in ready]),
        tf.constant(np.stack([samples for _, _, samples, _ in ready])),
        tf.constant([rate] * len(ready), tf.int32),
      )
      maps = {name: value.numpy() for name, value in outputs.items()}
      for i, (clip, _, samples, offset) in enumerate(ready):
        is_silent = np.max(np.abs(samples)) < SILENCE
        located.append(
          Located(
            clip,
            None if is_silent else maps['map'][i],
            float(maps['score'][i]),
            maps['place'][i],
            maps['sound'][i],
            offset,
            self._form.video.num_frames,
            self._form.window(clip.height, clip.width),
          )
        )
    return located, faults


def _best_places(places, similarities):
  """Mean over the steps of the unit embedding of the best place, (B, D)."""
  *axes, depth = tf.unstack(tf.shape(places))
  flat = tf.reshape(places, tf.stack([axes[0], axes[1], -1, depth]))
  best = tf.argmax(tf.reshape(similarities, tf.shape(flat)[:-1]), -1)
  flat = tf.gather(flat, best, batch_dims=2)  # (B, t, D)
  return tf.reduce_mean(tf.math.l2_normalize(flat, -1), 1)


def step_at(located: Located, time: int, frame_rate: float) -> int | None:
  """Returns the step of a clip's map at a time in µs, or None outside it.

  Args:
    located: A clip that is not silent.
    time: Time of the clip in µs.
    frame_rate: Frames per second that the model takes.
  """
  number = (time - located.offset) * frame_rate / 1e6
  step = int(np.floor(number * len(located.map) / located.num_frames))
  return step if 0 <= step < len(located.map) else None
