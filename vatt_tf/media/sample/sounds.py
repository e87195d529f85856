"""Sounds of the sample media."""

import numpy as np

from vatt_tf.media.sample import plan, words


def _strikes(phase, per_period, decay):
  """Returns a loudness that jumps to 1 at each strike and dies away."""
  since = (phase * per_period) % 1
  return np.exp(-since / per_period / decay)


def _rhythm(motion, phase):
  """Returns the loudness of a motion at each phase, in [0, 1]."""
  if motion == 'sideways':  # a strike at each of the two turning points
    return _strikes(phase - 0.25, 2, 0.12)
  if motion == 'vertical':  # two quick strikes at the lowest point
    first = _strikes(phase - 0.25, 1, 0.07)
    return np.maximum(first, _strikes(phase - 0.42, 1, 0.07))
  if motion == 'diagonal':  # a trill
    return _strikes(phase - 0.25, 8, 0.05)
  if motion == 'orbit':  # an even hum
    return np.full_like(phase, 0.7)
  if motion == 'pulse':  # swells with the size
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase)
  return ((2 * phase) % 1 < 0.5).astype(phase.dtype)


def render_audio(clip: plan.Clip, options: plan.Options) -> np.ndarray:
  """Returns the sound of a clip, (S,) float32 in [-1, 1]."""
  rng = plan.make_generator(options, clip.split, 3, clip.index)
  period, start = plan.draw_pace(clip, options)
  rate = options.audio_rate
  count = round(options.duration * rate)
  time = np.arange(count) / rate
  step = list(words.COLOURS).index(clip.colour)
  pitch = words.LOWEST_PITCH * 2 ** (step * 5 / 12) * rng.uniform(0.99, 1.01)
  sound = np.zeros(count)
  for multiple, amplitude in words.TIMBRES[clip.shape]:
    if multiple * pitch < 0.45 * rate:
      turn = 2 * np.pi * (multiple * pitch * time + rng.uniform())
      sound += amplitude * np.sin(turn)
  if clip.shape in words.NOISY:
    sound += 0.5 * rng.standard_normal(count)
  sound /= np.sqrt(np.mean(sound**2))
  loudness = _rhythm(clip.motion, start + time / period)
  # A step in the loudness takes 5 ms, so that it does not click.
  width = round(0.005 * rate)
  padded = np.concatenate([np.full(width - 1, loudness[0]), loudness])
  sums = np.cumsum(np.concatenate([[0.0], padded]))
  loudness = (sums[width:] - sums[:-width]) / width
  sound = 0.3 * rng.uniform(0.7, 1.0) * loudness * sound
  sound += 0.002 * rng.standard_normal(count)
  return np.clip(sound, -1, 1).astype(np.float32)
