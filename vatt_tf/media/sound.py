"""Sound of a file as mono samples at a rate, in time with the video.

Channels are averaged, then resampled. The first sample of a span is the sound
at its start to within a sample, whatever the encoder's delay: samples lie at
their time stamps, and gaps are silent.
"""

import math

import av.audio.frame
import av.audio.resampler
import av.packet
import numpy as np

from vatt_tf.media import (
  clock,
  decode_settings,
  errors,
  media_file,
  packet_reader,
)

# Maximum size of the samples of a clip: a record is one protocol buffer, which
# can hold 2 GB.
MAX_CLIP_BYTES = 900 << 20

# Time before a span, in µs, that is decoded and dropped: decoders have state.
PREROLL = clock.SECOND // 2

# Larger values are not rounding of a decoder but another scale.
_MAX_PEAK = 8.0

# Seconds of source on both sides of a span, so that the resampler's ends fall
# outside it; and, at low rates, samples, of which its filter takes 64.
_RESAMPLE_MARGIN = 0.05
_MIN_MARGIN_SAMPLES = 64
# Anything beyond is a damaged header, or not sound.
_MAX_RATE = 1_000_000
# Time stamps may be this far (seconds) from the count of samples before they
# are taken for a gap: containers round them, to 1 ms and more.
_JITTER = 0.05

# Weights of a channel in the mono mix, where it is not 1.
_CHANNEL_WEIGHTS = {
  'FC': math.sqrt(2.0),
  'LFE': 0.0,
  'BL': math.sqrt(0.5),
  'BR': math.sqrt(0.5),
  'SL': math.sqrt(0.5),
  'SR': math.sqrt(0.5),
  'BC': math.sqrt(0.5),
}


def to_mono(frame: av.audio.frame.AudioFrame) -> np.ndarray:
  """Averages the channels of a frame of any sample format.

  Surround sound is weighted as for stereo playback, without the low-frequency
  channel.

  Args:
    frame: Decoded frame.

  Returns:
    (n,) float32; integer formats are scaled to [-1, 1).
  """
  samples = frame.to_ndarray()
  channels = frame.layout.nb_channels
  if not frame.format.is_planar:
    samples = samples.reshape([-1, channels]).T
  if samples.dtype == np.uint8:
    scale, offset = 1 / 128, 128.0
  elif samples.dtype.kind == 'i':
    scale, offset = 1 / -float(np.iinfo(samples.dtype).min), 0.0
  else:
    scale, offset = 1.0, 0.0
  with np.errstate(over='ignore', invalid='ignore'):
    if channels == 1:
      mono = samples[0].astype(np.float32)
    elif channels == 2:
      mono = np.add(*samples, dtype=np.float32)
      mono *= np.float32(0.5)
    else:
      weights = [
        _CHANNEL_WEIGHTS.get(channel.name, 1.0)
        for channel in frame.layout.channels
      ]
      weights = np.array(weights, np.float32)
      total = weights.sum() or 1.0
      mono = (weights / total) @ samples.astype(np.float32)
  if offset:
    mono -= np.float32(offset)
  if scale != 1.0:
    mono *= np.float32(scale)
  return mono  # (n,)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
  """Resamples sound; the first sample stays at its time.

  Args:
    samples: (n,) float32: one channel.
    rate: Samples per second.
    new_rate: Samples per second of the result.

  Returns:
    (m,) float32, m about n * new_rate / rate.
  """
  if rate == new_rate or not samples.size:
    return samples
  resampler = av.audio.resampler.AudioResampler(
    'fltp', 'mono', new_rate, options={'filter_size': '64', 'cutoff': '0.97'}
  )
  frame = av.audio.frame.AudioFrame.from_ndarray(
    np.ascontiguousarray(samples[None]), 'fltp', 'mono'
  )
  frame.sample_rate = rate
  parts = resampler.resample(frame) + resampler.resample(None)
  # Fewer samples than the filter is long may give nothing.
  empty = np.zeros([0], np.float32)
  return np.concatenate([empty, *(part.to_ndarray()[0] for part in parts)])


def sound_fault(samples: np.ndarray) -> str:
  """Returns what makes decoded samples unfit for training, or ''.

  Args:
    samples: (n,) float32: one channel.
  """
  largest = np.abs(samples).max(initial=0.0)
  if not np.isfinite(largest):
    bad = np.flatnonzero(~np.isfinite(samples))
    return f'{bad.size} of {samples.size} samples are not finite'
  if 0.0 < largest < np.finfo(np.float32).tiny:
    return (
      'all samples that are not 0 are denormal numbers: integers read as '
      'float32'
    )
  if largest > _MAX_PEAK:
    return (
      f'samples reach {largest:g}, expected [-1, 1]: integers stored as floats'
    )
  return ''


class SoundTrack:
  """Samples of a part of a stream, laid at their time stamps.

  Args:
    start: Start of the part in µs.
    end: End of the part in µs.
    rate: Samples per second of the stream.
    new_rate: Samples per second that `cut` returns.
  """

  def __init__(self, start: int, end: int, rate: int, new_rate: int):
    # A margin of whole samples at both rates, so that nothing is shifted.
    common = math.gcd(rate, new_rate)
    seconds = max(_RESAMPLE_MARGIN, _MIN_MARGIN_SAMPLES / min(rate, new_rate))
    periods = math.ceil(seconds * common)
    self._margin = periods * rate // common
    self._new_margin = periods * new_rate // common
    self._rate, self._new_rate = rate, new_rate
    self._first = self._index(start) - self._margin
    self._samples = np.zeros(
      [self._index(end) - self._first + 2 * self._margin + 1], np.float32
    )
    self._filled = []  # [first, last), of the stream's samples.
    self._next = None

  def _index(self, time: int) -> int:
    return round(time * self._rate / clock.SECOND)

  @property
  def end(self) -> int:
    """Time after the last sample so far, in µs."""
    return round(self._next * clock.SECOND / self._rate)

  @property
  def is_full(self) -> bool:
    """Whether no later sample can be needed."""
    filled_to = self._first + self._samples.size
    return self._next is not None and self._next >= filled_to

  def put(self, samples: np.ndarray, time: int | None) -> None:
    """Adds the samples of a frame that starts at `time` µs (None: follows)."""
    index = self._next or 0 if time is None else self._index(time)
    if self._next is not None:
      if abs(index - self._next) <= _JITTER * self._rate:
        index = self._next
    self._next = index + samples.size
    start = max(index, self._first)
    stop = min(self._next, self._first + self._samples.size)
    if start >= stop:
      return
    self._samples[start - self._first : stop - self._first] = samples[
      start - index : stop - index
    ]
    if self._filled and self._filled[-1][1] == start:
      self._filled[-1][1] = stop
    else:
      self._filled.append([start, stop])

  def covered(self, start: int, end: int) -> int:
    """Returns the time of a span that has sound, in µs."""
    first, last = self._index(start), self._index(end)
    samples = sum(
      max(0, min(last, stop) - max(first, begin))
      for begin, stop in self._filled
    )
    return round(samples * clock.SECOND / self._rate)

  def cut(self, start: int, end: int, min_covered: float) -> np.ndarray | None:
    """Returns the sound of a span at the new rate.

    Args:
      start: Start of the span in µs.
      end: End of the span in µs.
      min_covered: Minimum time with sound, in µs.

    Returns:
      (S,) float32 in [-1, 1], or None where less of it has sound.

    Raises:
      errors.MediaError: The samples are unfit for training.
    """
    first, last = self._index(start), self._index(end)
    covered = self.covered(start, end)
    if not covered or covered < min_covered:
      return None
    offset = first - self._first
    fault = sound_fault(self._samples[offset : offset + last - first])
    if fault:
      raise errors.MediaError(
        f'its audio cannot be used: between {clock.format_seconds(start)} and '
        f'{clock.format_seconds(end)} {fault}'
      )
    source = self._samples[
      offset - self._margin : last - self._first + self._margin
    ]
    source = np.nan_to_num(source, nan=0.0, posinf=0.0, neginf=0.0)
    size = max(1, round((end - start) * self._new_rate / clock.SECOND))
    result = np.zeros([size], np.float32)
    new = resample(source, self._rate, self._new_rate)[self._new_margin :]
    result[: new.size] = new[:size]
    return np.clip(result, -1.0, 1.0, out=result)


class SoundReader(packet_reader.Reader):
  """Lays out the sound of a part of a file.

  Attributes:
    track: The sound, or None if there is none.

  Args:
    media: Open file with sound.
    start: Start of the part in µs.
    end: End of the part in µs.
    first: Time in µs from where the pass begins.
    settings: Settings with the sample rate.
  """

  def __init__(
    self,
    media: media_file.MediaFile,
    start: int,
    end: int,
    first: int,
    settings: decode_settings.Settings,
  ):
    super().__init__()
    self.track = None
    self._media = media
    self._start, self._end, self._first = start, end, first
    self._new_rate = settings.audio_rate
    self._delay = media.sound_delay()
    self._rate = 0
    self._converter, self._converted_rate = None, 0

  def feed(self, packet: av.packet.Packet) -> None:
    """Takes a packet of the stream."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    time = None if stamp is None else self._media.time(stamp, packet.stream)
    # A seek may land far before.
    if self.track is None and time is not None:
      if self._first > 0 and time < self._start - 2 * PREROLL:
        return
    decoded = packet_reader.decode_packet(packet)
    if decoded is None:
      self.reading.damaged.append(time or 0)
      return
    if time is not None and decoded:
      self.reading.times.append(time)
    for frame in decoded:
      self._put(frame)
    self.is_done = self.track is not None and self.track.is_full

  def _put(self, frame: av.audio.frame.AudioFrame) -> None:
    time = None
    if frame.pts is not None:
      time = self._media.time(frame.pts, frame) - self._delay
    if self.track is None:
      if self._first > 0 and (time is None or time > self._start):
        self.is_late = True
        return
      self.reading.first = time or 0
      self._rate = frame.sample_rate
      if not 1 <= self._rate <= _MAX_RATE:
        raise errors.MediaError(
          f'its audio states {self._rate} samples per second, more than '
          f'{_MAX_RATE}: its header is damaged'
        )
      self.track = SoundTrack(
        self._start, self._end, self._rate, self._new_rate
      )
    if frame.sample_rate != self._rate:
      # Joined recordings may have several.
      self._convert(frame)
    else:
      self._converter = None
      self.track.put(to_mono(frame), time)

  def _convert(self, frame: av.audio.frame.AudioFrame) -> None:
    """Puts a frame of another rate than the first one has."""
    if self._converted_rate != frame.sample_rate or self._converter is None:
      self._converted_rate = frame.sample_rate
      self._converter = av.audio.resampler.AudioResampler(
        'fltp', 'mono', self._rate
      )
    for part in self._converter.resample(frame):
      time = None
      if part.pts is not None:
        time = self._media.time(part.pts, part) - self._delay
      self.track.put(part.to_ndarray()[0], time)

  def finish(self) -> None:
    """Takes the end of the file."""
    if self.track is not None:
      self.reading.end = self.track.end
    elif self.reading.damaged and self._first <= 0:
      raise errors.MediaError(
        'its audio cannot be decoded (none of '
        f'{len(self.reading.damaged)} packets)'
      )
    else:
      self.reading.end = 0
