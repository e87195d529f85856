"""Configuration of how the pipeline turns the sound of a record into input."""

import dataclasses
import math

import gin

from vatt_tf.core import feature_names

WAVEFORM = 'waveform'

SPECTROGRAM = 'spectrogram'

LOG_MEL = 'log_mel'

_FORMS = (WAVEFORM, SPECTROGRAM, LOG_MEL)


@gin.register
@dataclasses.dataclass(frozen=True)
class AudioConfig:
  """How the pipeline turns the sound of a record into a model's input.

  The paper uses 153,600 samples at 48 kHz, which last as long as 32 frames at
  10 frames per second: 3.2 seconds. The spectrogram has 80 mel bins from 80 to
  7,600 Hz, and windows of 42.67 ms every 21.34 ms.

  Attributes:
    num_samples: Length of the waveform.
    sample_rate: Samples per second.
    form: `waveform` for the key `audio`; `spectrogram` for VATT's spectrogram,
      log(1 + 10^4 mel) scaled to [0, 1]; `log_mel` for MMV's, log(mel + 10^-6).
      Both have the key `spectrogram`.
    noise_std: Standard deviation of the Gaussian noise added in training.
    max_gain_db: Largest change of the volume in training, in decibels up or
      down.
    max_shift: Largest circular shift of the clip in training to either side, as
      a share of its length.
    mixup_alpha: In training, the sound and the label of each clip are mixed
      with those of another clip of the batch, with weights drawn from
      Beta(alpha, alpha). 0 means no mixing.
    num_mel_bins: Number of mel bins of the spectrogram.
    min_frequency: Lower edge of the lowest bin, Hz.
    max_frequency: Upper edge of the highest bin, Hz.
    window_seconds: Length of a window of the spectrogram.
    hop_seconds: Time between the starts of two windows.
    standardize: Whether a clip's waveform, or spectrogram, is brought to mean 0
      and standard deviation 1. Otherwise the waveform is not changed, and the
      spectrogram is as `form` says.
    num_time_masks: Number of time spans of the spectrogram that training
      replaces by its mean (SpecAugment).
    max_time_mask: Largest number of frames of a time span.
    num_frequency_masks: Number of frequency bands of the spectrogram that
      training replaces likewise.
    max_frequency_mask: Largest number of bins of a frequency band.
    num_clips: Number of evenly spread clips per record in evaluation without
      video; with video, `VideoConfig.num_clips` counts.
  """

  num_samples: int = 153600
  sample_rate: int = 48000
  form: str = WAVEFORM
  noise_std: float = 0.0
  max_gain_db: float = 0.0
  max_shift: float = 0.0
  mixup_alpha: float = 0.0
  num_mel_bins: int = 80
  min_frequency: float = 80.0
  max_frequency: float = 7600.0
  window_seconds: float = 2048 / 48000
  hop_seconds: float = 1024 / 48000
  standardize: bool = False
  num_time_masks: int = 0
  max_time_mask: int = 0
  num_frequency_masks: int = 0
  max_frequency_mask: int = 0
  num_clips: int = 1

  def __post_init__(self):
    for name in ('num_samples', 'sample_rate', 'num_mel_bins', 'num_clips'):
      value = getattr(self, name)
      if value < 1 or value != int(value):
        raise ValueError(
          f'`{name}` must be an integer of at least 1. Received: {name}={value}'
        )
    if self.form not in _FORMS:
      raise ValueError(
        f'`form` must be one of {list(_FORMS)}. Received: form={self.form!r}'
      )
    for name in ('noise_std', 'max_gain_db', 'mixup_alpha'):
      if getattr(self, name) < 0:
        raise ValueError(
          f'`{name}` must be at least 0. Received: {name}={getattr(self, name)}'
        )
    if not 0 <= self.max_shift <= 1:
      raise ValueError(
        f'`max_shift` must be in [0, 1]. Received: max_shift={self.max_shift}'
      )
    self._check_masks()
    if self.form != WAVEFORM:
      if not 0 <= self.min_frequency < self.max_frequency:
        raise ValueError(
          '`min_frequency` must be at least 0 and below `max_frequency`. '
          f'Received: min_frequency={self.min_frequency}, '
          f'max_frequency={self.max_frequency}'
        )
      if self.max_frequency > self.sample_rate / 2:
        raise ValueError(
          '`max_frequency` must be at most half of `sample_rate`. Received: '
          f'max_frequency={self.max_frequency}, '
          f'sample_rate={self.sample_rate}'
        )
      if not (self.window_length >= 2 and self.hop_length >= 1):
        raise ValueError(
          '`window_seconds` must be at least two samples and `hop_seconds` at '
          f'least one. Received: window_seconds={self.window_seconds}, '
          f'hop_seconds={self.hop_seconds}'
        )

  def _check_masks(self):
    """Raises unless the masks fit, and the input is a spectrogram."""
    for axis, size in (
      ('time', math.ceil(self.num_samples / max(self.hop_length, 1))),
      ('frequency', self.num_mel_bins),
    ):
      count = getattr(self, f'num_{axis}_masks')
      width = getattr(self, f'max_{axis}_mask')
      received = f'Received: num_{axis}_masks={count}, max_{axis}_mask={width}'
      if count < 0 or (count and not 0 <= width <= size):
        raise ValueError(
          f'`num_{axis}_masks` must be at least 0, and `max_{axis}_mask` in '
          f'[0, {size}], the size of the spectrogram. {received}'
        )
      if count and self.form == WAVEFORM:
        raise ValueError(
          f'`num_{axis}_masks` must be 0 for waveforms, because only '
          f'spectrograms are masked. {received}, form={self.form!r}'
        )

  @property
  def window_length(self) -> int:
    """Number of samples per window of the spectrogram."""
    return round(self.window_seconds * self.sample_rate)

  @property
  def hop_length(self) -> int:
    """Number of samples between the starts of two windows."""
    return round(self.hop_seconds * self.sample_rate)

  @property
  def input_name(self) -> str:
    """Key of the sound in the feature dictionary."""
    if self.form == WAVEFORM:
      return feature_names.AUDIO
    return feature_names.SPECTROGRAM

  @property
  def shape(self) -> tuple[int, int]:
    """(S, 1) of a waveform, (F, M) of a spectrogram."""
    if self.form == WAVEFORM:
      return self.num_samples, 1
    return math.ceil(self.num_samples / self.hop_length), self.num_mel_bins

  @property
  def seconds(self) -> float:
    """Length of the slice in seconds."""
    return self.num_samples / self.sample_rate
