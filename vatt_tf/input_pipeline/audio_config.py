"""What the pipeline makes of the sound of a record."""

import dataclasses
import math

import gin

from vatt_tf.core import feature_names

WAVEFORM = 'waveform'

SPECTROGRAM = 'spectrogram'


@gin.register
@dataclasses.dataclass(frozen=True)
class AudioConfig:
  """What the pipeline makes of the sound of a record.

  The paper: 153,600 samples at 48 kHz, the 3.2 seconds of 32 frames at 10
  frames a second. The spectrogram has 80 mel bins from 80 to 7,600 Hz, windows
  of 42.67 ms every 21.34 ms.

  Attributes:
    num_samples: Length of the waveform.
    sample_rate: Samples a second.
    form: `waveform` for the key `audio`, `spectrogram` for `spectrogram`.
    noise_std: Standard deviation of the Gaussian noise added in training.
    max_gain_db: Largest change of the volume in training, in decibels up or
      down.
    max_shift: In training the clip is turned by up to this share of its length
      to either side; what leaves at one end comes in at the other.
    mixup_alpha: In training each clip's sound is mixed with that of another
      clip of the batch, with weights drawn from Beta(alpha, alpha), and its
      label likewise; 0 for none.
    num_mel_bins: Of the spectrogram.
    min_frequency: Lower edge of the lowest bin, Hz.
    max_frequency: Upper edge of the highest bin, Hz.
    window_seconds: Length of a window of the spectrogram.
    hop_seconds: From the start of a window to that of the next.
    standardize: Whether a clip's waveform, or spectrogram, is brought to mean 0
      and standard deviation 1. Otherwise the waveform stays as it is, and the
      spectrogram's least value becomes 0 and its largest 1.
    num_time_masks: Stretches of time of the spectrogram that training replaces
      by its mean (SpecAugment).
    max_time_mask: Frames of the longest.
    num_frequency_masks: Bands of the spectrogram, likewise.
    max_frequency_mask: Bins of the broadest.
    num_clips: Clips taken of a record in evaluation, spread evenly, where there
      is no video; otherwise the `VideoConfig` says it.
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
    if self.form not in (WAVEFORM, SPECTROGRAM):
      raise ValueError(
        f'`form` must be {WAVEFORM!r} or {SPECTROGRAM!r}. Received: '
        f'form={self.form!r}'
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
    if self.form == SPECTROGRAM:
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
          '`window_seconds` must be at least two samples and `hop_seconds` '
          f'one. Received: window_seconds={self.window_seconds}, '
          f'hop_seconds={self.hop_seconds}'
        )

  def _check_masks(self):
    """Raises unless masks fit, and are of a spectrogram."""
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
      if count and self.form != SPECTROGRAM:
        raise ValueError(
          f'`num_{axis}_masks` must be 0 for waveforms: masks are of a '
          f'spectrogram. {received}, form={self.form!r}'
        )

  @property
  def window_length(self) -> int:
    """Samples of a window of the spectrogram."""
    return round(self.window_seconds * self.sample_rate)

  @property
  def hop_length(self) -> int:
    """Samples from a window of the spectrogram to the next."""
    return round(self.hop_seconds * self.sample_rate)

  @property
  def input_name(self) -> str:
    """Key of the feature dictionary that the sound has."""
    if self.form == SPECTROGRAM:
      return feature_names.SPECTROGRAM
    return feature_names.AUDIO

  @property
  def shape(self) -> tuple[int, int]:
    """(S, 1) of a waveform, (F, M) of a spectrogram."""
    if self.form == WAVEFORM:
      return self.num_samples, 1
    return math.ceil(self.num_samples / self.hop_length), self.num_mel_bins

  @property
  def seconds(self) -> float:
    """What the slice lasts."""
    return self.num_samples / self.sample_rate
