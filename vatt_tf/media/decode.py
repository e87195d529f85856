"""Decoding of media files with PyAV: frames, sound and captions of time spans.

This module does not import TensorFlow, so that a process which only decodes
starts in a fraction of a second.

Time. All times are µs on the clock of the file, which is what a player shows:
the time stamps of its container, less the first of them where the container
starts more than half a second from zero (transport streams, cut recordings).

Frames. A span is sampled at `start + i / frame_rate`, and each sample is the
frame on display at that moment, where a frame that begins up to half a frame
later counts already (of two equally near ones it is the earlier). So a constant
rate gives the nearest frames, and a variable rate never shows a frame far ahead
of its time. Frames are scaled by the container's sample aspect ratio and turned
by its rotation.

Sound. Channels are averaged, then resampled. The first sample is the sound at
the start of the span to within a sample, whatever the encoder's delay: samples
lie where the time stamps say, and gaps are silent.
"""

import bisect
from collections.abc import Iterator, Sequence
import dataclasses
import math
import os

import av
import av.audio.frame
import av.audio.resampler
import av.container
import av.error
import av.stream
import av.video.frame
import av.video.reformatter
import cv2
import numpy as np

from vatt_tf.media import captions, errors

SECOND = 1_000_000

# How much earlier than asked a file may end: times in manifests are rounded.
END_TOLERANCE = SECOND // 4

# Of the frames and of the sound of a clip, each: a record is one protocol
# buffer, which can hold 2 GB.
MAX_CLIP_BYTES = 900 << 20

# Demuxers for what is no recording: pictures and text.
_NOT_MEDIA_FORMATS = ('tty', 'image2', 'ansi', 'bin', 'xbin', 'adf', 'idf')

# Decoders of captions that are pictures.
_PICTURE_CAPTIONS = ('dvdsub', 'pgssub', 'dvbsub', 'xsub')

# Languages whose three-letter codes do not begin with their two-letter code.
_LANGUAGE_CODES = {
  'cs': ('cze', 'ces'),
  'de': ('ger', 'deu'),
  'es': ('spa',),
  'is': ('ice', 'isl'),
  'ja': ('jpn',),
  'nl': ('dut', 'nld'),
  'pl': ('pol',),
  'pt': ('por',),
  'sv': ('swe',),
  'tr': ('tur',),
  'zh': ('chi', 'zho'),
}

# Larger values are not rounding of a decoder but another scale.
_MAX_PEAK = 8.0

# Of the frames, or of the time, of a span.
_MAX_DAMAGED_SHARE = 0.1
_MIN_COVERED_SHARE = 0.5

# µs before a span from where a decoder is tried: a seek may land late.
_VIDEO_PREROLLS = (SECOND // 4, 10 * SECOND)
# Sound decoders carry state from one packet to the next.
_AUDIO_PREROLLS = (SECOND // 2, 10 * SECOND)
# A caption that is shown when a span starts may have come up this much earlier.
_CAPTION_PREROLL = 60 * SECOND

# Seconds of source on both sides of a span, so that the resampler's ends fall
# outside it.
_RESAMPLE_MARGIN = 0.05
# Time stamps may be this far (seconds) from the count of samples before they
# are taken for a gap: containers round them, to 1 ms and more.
_AUDIO_JITTER = 0.05

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


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is taken from a file, and in which form.

  Attributes:
    frame_rate: Frames a second.
    shorter_side: Pixels of the frame's shorter side. Smaller videos keep their
      size unless `enlarge`.
    enlarge: Whether to scale smaller videos up.
    jpeg_quality: 1 to 100.
    audio_rate: Samples a second.
    use_video: Whether to read frames.
    use_audio: Whether to read sound.
    video_stream: Which of the file's video streams, from 0; None for the first
      one marked as default, or else the first.
    audio_stream: Which of its audio streams, likewise.
    caption_stream: Which of its text caption streams, likewise.
    caption_language: Preferred language of a caption stream, such as `en`.
    num_threads: Threads of the video decoder; 0 leaves it to FFmpeg.
  """

  frame_rate: float = 10.0
  shorter_side: int = 256
  enlarge: bool = False
  jpeg_quality: int = 90
  audio_rate: int = 48000
  use_video: bool = True
  use_audio: bool = True
  video_stream: int | None = None
  audio_stream: int | None = None
  caption_stream: int | None = None
  caption_language: str = ''
  num_threads: int = 1


@dataclasses.dataclass(frozen=True)
class Span:
  """A part of a file.

  Attributes:
    start: µs.
    end: µs, or None for the end of the file.
    is_exact: Whether a file that ends before `end` is an error; otherwise the
      span ends with the file.
  """

  start: int = 0
  end: int | None = None
  is_exact: bool = True


@dataclasses.dataclass
class DecodedClip:
  """What a span of a file holds.

  Attributes:
    start: µs in the file.
    end: µs in the file.
    frames: JPEG images; none if there is no video.
    height: Of the frames.
    width: Of the frames.
    audio: (S,) float32 in [-1, 1], the first sample at `start`, or None.
    cues: Captions in order of time, in µs on the clock of the file.
  """

  start: int
  end: int
  frames: list[bytes] = dataclasses.field(default_factory=list)
  height: int = 0
  width: int = 0
  audio: np.ndarray | None = None
  cues: list[captions.Cue] = dataclasses.field(default_factory=list)


def seconds(time: int) -> str:
  """µs as a person reads them: `3.5 s`."""
  return f'{time / SECOND:.3f}'.rstrip('0').rstrip('.') + ' s'


def _pick_stream(streams: Sequence, chosen: int | None, kind: str):
  """The chosen stream, else the first default one, else the first; or None."""
  if chosen is not None:
    if chosen >= len(streams):
      raise errors.MediaError(
        f'it has {len(streams)} {kind} streams, so none is number {chosen} '
        '(they count from 0)'
      )
    return streams[chosen]
  default = av.stream.Disposition.default
  marked = [one for one in streams if one.disposition & default]
  return (marked or list(streams) or [None])[0]


def _is_language(code: str | None, wanted: str) -> bool:
  """Whether a stream's language, such as `eng`, is `en`, `eng` or `en-US`."""
  code, wanted = (code or '').lower(), wanted.lower().split('-')[0]
  codes = _LANGUAGE_CODES.get(wanted, ())
  return bool(code) and (code.startswith(wanted) or code in codes)


class MediaFile:
  """An open media file.

  Args:
    path: Path of the file.
    settings: Which streams to take.

  Attributes:
    video: The chosen video stream, or None.
    audio: The chosen audio stream, or None.
    text: The chosen caption stream, or None.
    origin: µs of the container's clock that are time 0.

  Raises:
    errors.MediaError: The file is missing, empty, of no known format, or has
      none of the streams asked for.
  """

  def __init__(self, path: str, settings: Settings):
    self._path = os.fspath(path)
    self._settings = settings
    self._container = None
    self._is_at_start = False
    if not os.path.isfile(self._path):
      what = 'is a folder' if os.path.isdir(self._path) else 'is not there'
      raise errors.MediaError(f'the file {what}')
    if not os.path.getsize(self._path):
      raise errors.MediaError('the file is empty (0 bytes)')
    self._open()
    self.origin = 0
    start = self._container.start_time
    if start is not None and abs(start) >= SECOND // 2:
      self.origin = start

  def _open(self) -> None:
    self.close()
    try:
      self._container = av.open(self._path, metadata_errors='replace')
    except av.error.FFmpegError as e:
      raise errors.MediaError(
        'FFmpeg cannot open it: its format is unknown or its header is damaged '
        f'({e.strerror})'
      ) from e
    self._is_at_start = True
    settings = self._settings
    name = self._container.format.name
    streams = self._container.streams
    # The cover picture of a song is a video stream of one frame.
    cover = av.stream.Disposition.attached_pic
    videos = [one for one in streams.video if not one.disposition & cover]
    audios = list(streams.audio)
    is_other = name.endswith('_pipe') or name in _NOT_MEDIA_FORMATS
    if is_other or not (videos or audios):
      raise errors.MediaError(f'it holds no video and no audio (format {name})')
    self.video = self.audio = None
    if settings.use_video:
      self.video = _pick_stream(videos, settings.video_stream, 'video')
    if settings.use_audio:
      self.audio = _pick_stream(audios, settings.audio_stream, 'audio')
    if self.video is None and self.audio is None:
      has, lacks = ('audio', 'video') if audios else ('video', 'audio')
      raise errors.MediaError(f'it has {has} but no {lacks}')
    for stream in (self.video, self.audio):
      if stream is not None and stream.codec_context is None:
        raise errors.MediaError(f'FFmpeg has no decoder for its {stream.type}')
    texts = [
      one
      for one in streams.subtitles
      if one.codec_context is not None
      and one.codec_context.name not in _PICTURE_CAPTIONS
    ]
    language = settings.caption_language
    if language and settings.caption_stream is None:
      matching = [one for one in texts if _is_language(one.language, language)]
      texts = matching or texts
    self.text = _pick_stream(texts, settings.caption_stream, 'caption')
    if self.video is not None:
      context = self.video.codec_context
      context.thread_count = settings.num_threads
      context.thread_type = 'NONE' if settings.num_threads == 1 else 'AUTO'

  def close(self) -> None:
    """Closes the file; may be called again."""
    if self._container is not None:
      self._container.close()
      self._container = None

  def __enter__(self) -> 'MediaFile':
    return self

  def __exit__(self, error_type, error, traceback) -> None:
    self.close()

  @property
  def main_kind(self) -> str:
    """`video`, or `audio` where there is no video: what says how long it is."""
    return 'audio' if self.video is None else 'video'

  def time(self, stamp: int, stream) -> int:
    """µs on the clock of the file of a time stamp of a stream."""
    return round(stamp * stream.time_base * SECOND) - self.origin

  def stated_end(self) -> int | None:
    """µs at which the main stream ends by the container's word, if it has one.

    Returns:
      The time, or None. Containers may be wrong.
    """
    stream = self.video or self.audio
    if stream.duration:
      return self.time((stream.start_time or 0) + stream.duration, stream)
    if self._container.duration:
      # Matroska states when the last frame ends, the others how long it is.
      is_absolute = 'matroska' in self._container.format.name
      return self._container.duration - (self.origin if is_absolute else 0)
    return None

  def find_end(self) -> int:
    """µs at which the main stream ends: as stated, or from its last packet.

    Raises:
      errors.MediaError: It has no packet with a time.
    """
    end = self.stated_end()
    if end is not None and end > 0:
      return end
    ends = []
    for packet in self.packets(0, self.main_kind):
      stamp = packet.pts if packet.pts is not None else packet.dts
      if stamp is not None:
        stamp += packet.duration or 0
        ends.append(self.time(stamp, packet.stream))
    if not ends:
      raise errors.MediaError('its length is unknown: no packet has a time')
    return max(ends)

  def packets(self, start: int, *kinds: str) -> Iterator[av.Packet]:
    """Packets from the last point at or before `start` that can be decoded.

    The seek may land late when an index is wrong; the caller has to check the
    first time. Reading ends where the file cannot be read any further.

    Args:
      start: µs; 0 or less for the beginning.
      *kinds: Of `video`, `audio` and `text`; the first one is sought in.
    """
    if start > 0:
      stream = getattr(self, kinds[0])
      stamp = int((start + self.origin) / SECOND / stream.time_base)
      try:
        self._container.seek(stamp, backward=True, stream=stream)
      except av.error.FFmpegError:
        start = 0
    # Not a seek to 0: that skips what tells how much of the first sound packet
    # is the encoder's delay.
    if start <= 0 and not self._is_at_start:
      self._open()
    self._is_at_start = False
    streams = [getattr(self, kind) for kind in kinds]
    try:
      yield from self._container.demux(*streams)
    except av.error.FFmpegError:
      return


def _first_decodable(start: int, prerolls: Sequence[int]) -> Iterator[int]:
  """Times from which to try to decode `start`; at last the beginning."""
  for preroll in prerolls:
    if start - preroll > 0:
      yield start - preroll
  yield 0


def _decode_packet(packet) -> list | None:
  """The frames that a packet completes; None if it cannot be decoded."""
  try:
    return packet.decode()
  except av.error.EOFError:
    return []
  except av.error.FFmpegError:
    return None


# Video.


def target_size(
  frame: av.video.frame.VideoFrame, aspect: float, settings: Settings
) -> tuple[int, int]:
  """Width and height to scale a frame to, before it is turned.

  Args:
    frame: A decoded frame.
    aspect: Width of its pixels over their height.
    settings: Says the shorter side.
  """
  width, height = float(frame.width), float(frame.height)
  # Square pixels, by shrinking the longer side of theirs.
  if aspect > 1.0:
    height /= aspect
  else:
    width *= aspect
  scale = settings.shorter_side / min(width, height)
  if not settings.enlarge:
    scale = min(scale, 1.0)
  return max(1, round(width * scale)), max(1, round(height * scale))


class _FrameEncoder:
  """Makes JPEG images, all of one size, of the frames of one stream."""

  def __init__(self, settings: Settings, aspect: float):
    self._settings = settings
    self._aspect = aspect
    self._size = None
    self._reformatter = av.video.reformatter.VideoReformatter()
    self.height = self.width = 0

  def __call__(self, frame: av.video.frame.VideoFrame) -> bytes:
    turns = round(frame.rotation / 90) % 4
    if self._size is None:
      self._size = target_size(frame, self._aspect, self._settings)
      self.width, self.height = self._size[:: -1 if turns % 2 else 1]
    width, height = self._size
    image = self._reformatter.reformat(
      frame, width, height, 'bgr24', interpolation='BILINEAR'
    ).to_ndarray()
    if turns:
      image = np.ascontiguousarray(np.rot90(image, turns))
    quality = [cv2.IMWRITE_JPEG_QUALITY, self._settings.jpeg_quality]
    return cv2.imencode('.jpg', image, quality)[1].tobytes()


@dataclasses.dataclass
class _Reading:
  """What became of one stream while spans of it were read.

  Attributes:
    end: µs at which it ended, or None if it was not read to its end.
    first: µs of its first decoded frame or sample, None if there is none.
    times: µs of all its frames or packets, ascending.
    damaged: µs of those that cannot be decoded.
  """

  end: int | None = None
  first: int | None = None
  times: list[int] = dataclasses.field(default_factory=list)
  damaged: list[int] = dataclasses.field(default_factory=list)

  def check_damage(self, start: int, end: int, what: str) -> None:
    """Raises `MediaError` if too much of [start, end) is damaged."""
    times = sorted(self.times)
    total = bisect.bisect_left(times, end) - bisect.bisect_left(times, start)
    bad = sum(start <= time < end for time in self.damaged)
    total += bad
    if bad and bad > _MAX_DAMAGED_SHARE * total:
      raise errors.MediaError(
        f'its {what} is damaged: {bad} of {total} packets between '
        f'{seconds(start)} and {seconds(end)} cannot be decoded'
      )


def num_samples(start: int, end: int, rate: float) -> int:
  """How many samples of a rate begin in the time from `start` to `end`."""
  return max(1, math.ceil((end - start) * rate / SECOND - 1e-6))


def _read_frames(
  media: MediaFile,
  spans: Sequence[tuple[int, int]],
  settings: Settings,
) -> tuple[list[list[bytes]], _FrameEncoder, _Reading]:
  """Reads the frames of several spans in one pass.

  Args:
    media: A file with video.
    spans: Start and end of each, µs.
    settings: Rate and size.

  Returns:
    Of each span its JPEG images (past the end of the video the last one is
    repeated), what encoded them, and how the reading went.
  """
  due = sorted(
    (start + round(i * SECOND / settings.frame_rate), number)
    for number, (start, end) in enumerate(spans)
    for i in range(num_samples(start, end, settings.frame_rate))
  )
  for start in _first_decodable(due[0][0], _VIDEO_PREROLLS):
    found = _sample_frames(media, start, due, len(spans), settings)
    if found is not None:
      return found
  return [[] for _ in spans], None, _Reading()


def _pixel_aspect(stream) -> float:
  """Width of a pixel over its height; 1.0 where unknown or nearly square."""
  aspect = float(stream.sample_aspect_ratio or 1) or 1.0
  return 1.0 if 0.98 < aspect < 1.02 else aspect


def _frame_interval(stream) -> int:
  """µs between frames, as far as the container knows."""
  rate = stream.average_rate or stream.guessed_rate or 25
  return round(SECOND / min(max(rate, 1), 1000))


def _sample_frames(
  media: MediaFile,
  first: int,
  due: Sequence[tuple[int, int]],
  num_spans: int,
  settings: Settings,
):
  """`_read_frames` from one place on; None if that is too late in the file."""
  packets = media.packets(first, 'video')
  frames = [[] for _ in range(num_spans)]
  sizes = [0] * num_spans
  reading = _Reading()
  encode = None
  held = held_image = None
  held_time = held_duration = 0
  k = 0

  def hand_out(until: int | None) -> None:
    """Gives the held frame to the samples before a time (None: to all)."""
    nonlocal k, held_image
    while k < len(due) and (until is None or due[k][0] < until):
      if held_image is None:
        held_image = encode(held)
      span = due[k][1]
      frames[span].append(held_image)
      sizes[span] += len(held_image)
      if sizes[span] > MAX_CLIP_BYTES:
        raise errors.MediaError(
          f'its frames take more than {MAX_CLIP_BYTES >> 20} MB, too much for '
          'one record: cut it with --clip_seconds'
        )
      k += 1

  for packet in packets:
    stream = packet.stream
    decoded = _decode_packet(packet)
    interval = _frame_interval(stream)
    if decoded is None:
      stamp = packet.pts if packet.pts is not None else packet.dts
      reading.damaged.append(
        held_time + interval if stamp is None else media.time(stamp, stream)
      )
      continue
    # How early a frame may stand in for a moment before it.
    ahead = min(interval, round(SECOND / settings.frame_rate)) // 2 - 1000
    for frame in decoded:
      if frame.pts is None:
        time = 0 if held is None else held_time + interval
      else:
        time = media.time(frame.pts, stream)
      if held is not None and time <= held_time:
        continue
      if frame.is_corrupt and held is not None:
        reading.damaged.append(time)
        continue
      if held is None:
        if first > 0 and time > due[0][0] + max(ahead, 0):
          packets.close()
          return None
        reading.first = time
        encode = _FrameEncoder(settings, _pixel_aspect(stream))
      else:
        hand_out(time - max(ahead, 0))
      reading.times.append(time)
      held, held_image, held_time = frame, None, time
      held_duration = round((frame.duration or 0) * stream.time_base * SECOND)
      held_duration = held_duration or interval
    if k == len(due):
      packets.close()
      return frames, encode, reading
  if held is None:
    if first > 0:
      return None
    if reading.damaged:
      raise errors.MediaError(
        f'its video cannot be decoded (none of {len(reading.damaged)} packets)'
      )
    raise errors.MediaError('its video stream holds no frame')
  reading.end = held_time + held_duration
  hand_out(None)
  return frames, encode, reading


# Sound.


def to_mono(frame: av.audio.frame.AudioFrame) -> np.ndarray:
  """Averages the channels of a frame of any sample format.

  Surround sound is weighted as for stereo playback, without the low-frequency
  channel.

  Args:
    frame: A decoded frame.

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
      mono = samples.sum(axis=0, dtype=np.float32) / np.float32(2.0)
    else:
      weights = [
        _CHANNEL_WEIGHTS.get(one.name, 1.0) for one in frame.layout.channels
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
    samples: (n,) float32.
    rate: Of the samples.
    new_rate: Wanted.

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
  return np.concatenate([part.to_ndarray()[0] for part in parts])


def sound_fault(samples: np.ndarray) -> str:
  """Says what makes decoded samples unfit for training, or ''.

  Args:
    samples: (n,) float32.
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


class _SoundTrack:
  """Samples of a part of a stream, laid where their time stamps say.

  Args:
    start: µs.
    end: µs.
    rate: Of the stream.
    new_rate: Wanted of `cut`.
  """

  def __init__(self, start: int, end: int, rate: int, new_rate: int):
    # A margin of whole samples at both rates, so that nothing is shifted.
    common = math.gcd(rate, new_rate)
    periods = math.ceil(_RESAMPLE_MARGIN * common)
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
    return round(time * self._rate / SECOND)

  @property
  def end(self) -> int:
    """µs after the last sample that was put."""
    return round(self._next * SECOND / self._rate)

  @property
  def is_full(self) -> bool:
    """Whether no later sample can be needed."""
    filled_to = self._first + self._samples.size
    return self._next is not None and self._next >= filled_to

  def put(self, samples: np.ndarray, time: int | None) -> None:
    """Adds the samples of a frame that starts at `time` µs (None: follows)."""
    index = self._next or 0 if time is None else self._index(time)
    if self._next is not None:
      if abs(index - self._next) <= _AUDIO_JITTER * self._rate:
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

  def cut(self, start: int, end: int) -> np.ndarray | None:
    """The sound of a span at the new rate.

    Args:
      start: µs.
      end: µs.

    Returns:
      (S,) float32 in [-1, 1], or None where less than half of it has sound.

    Raises:
      errors.MediaError: The samples are unfit for training.
    """
    first, last = self._index(start), self._index(end)
    covered = sum(
      max(0, min(last, stop) - max(first, begin))
      for begin, stop in self._filled
    )
    if not covered or covered < _MIN_COVERED_SHARE * (last - first):
      return None
    offset = first - self._first
    fault = sound_fault(self._samples[offset : offset + last - first])
    if fault:
      raise errors.MediaError(
        f'its audio cannot be used: between {seconds(start)} and '
        f'{seconds(end)} {fault}'
      )
    source = self._samples[
      offset - self._margin : last - self._first + self._margin
    ]
    source = np.nan_to_num(source, nan=0.0, posinf=0.0, neginf=0.0)
    size = max(1, round((end - start) * self._new_rate / SECOND))
    result = np.zeros([size], np.float32)
    new = resample(source, self._rate, self._new_rate)[self._new_margin :]
    result[: new.size] = new[:size]
    return np.clip(result, -1.0, 1.0, out=result)


def _read_sound(
  media: MediaFile, start: int, end: int, settings: Settings
) -> tuple[_SoundTrack | None, _Reading]:
  """Reads the sound from `start` to `end`, µs; None if there is none."""
  if (end - start) * settings.audio_rate * 4 > MAX_CLIP_BYTES * SECOND:
    raise errors.MediaError(
      f'its sound takes more than {MAX_CLIP_BYTES >> 20} MB, too much for one '
      'record: cut it with --clip_seconds'
    )
  for first in _first_decodable(start, _AUDIO_PREROLLS):
    found = _lay_sound(media, first, start, end, settings)
    if found is not None:
      return found
  return None, _Reading()


def sound_delay(media: MediaFile) -> int:
  """µs by which the time stamps of a file's decoded sound come late.

  Nothing comes out of a Vorbis decoder for the first packet, and the samples of
  the second belong where the first one stands; FFmpeg stamps them with the time
  of the second. Other codecs have no such delay.

  Args:
    media: A file with sound.
  """
  if media.audio.codec_context.name != 'vorbis':
    return 0
  first = None
  packets = media.packets(0, 'audio')
  for packet in packets:
    if packet.pts is not None:
      first = packet.pts if first is None else first
      frames = _decode_packet(packet)
      if frames and frames[0].pts is not None:
        packets.close()
        late = (
          frames[0].pts * frames[0].time_base - first * media.audio.time_base
        )
        return round(max(late, 0) * SECOND)
  return 0


def _lay_sound(
  media: MediaFile, first: int, start: int, end: int, settings: Settings
):
  """`_read_sound` from one place on; None if that is too late in the file."""
  delay = sound_delay(media)
  packets = media.packets(first, 'audio')
  reading = _Reading()
  track, rate = None, 0
  # A seek in a file of several streams may land far before.
  needed_from = first - SECOND
  for packet in packets:
    stream = packet.stream
    stamp = packet.pts if packet.pts is not None else packet.dts
    time = None if stamp is None else media.time(stamp, stream)
    if track is None and time is not None and time < needed_from:
      continue
    decoded = _decode_packet(packet)
    if decoded is None:
      reading.damaged.append(time or 0)
      continue
    if time is not None and decoded:
      reading.times.append(time)
    for frame in decoded:
      frame_time = None
      if frame.pts is not None:
        frame_time = round(frame.pts * frame.time_base * SECOND)
        frame_time -= media.origin + delay
      if track is None:
        if first > 0 and (frame_time is None or frame_time > start):
          packets.close()
          return None
        reading.first = frame_time or 0
        rate = frame.sample_rate
        track = _SoundTrack(start, end, rate, settings.audio_rate)
      if frame.sample_rate != rate:
        raise errors.MediaError(
          f'the sample rate of its audio changes from {rate} to '
          f'{frame.sample_rate}'
        )
      track.put(to_mono(frame), frame_time)
    if track is not None and track.is_full:
      packets.close()
      return track, reading
  if track is None:
    if first > 0:
      return None
    if reading.damaged:
      raise errors.MediaError(
        f'its audio cannot be decoded (none of {len(reading.damaged)} packets)'
      )
    reading.end = 0
    return None, reading
  reading.end = track.end
  return track, reading


# Captions inside the file.


def read_captions(media: MediaFile, start: int, end: int) -> list[captions.Cue]:
  """Captions of the file's text stream that are shown in [start, end), µs.

  Args:
    media: A file.
    start: µs.
    end: µs.

  Returns:
    Cues in order of time; none if the file has no text stream.
  """
  if media.text is None:
    return []
  first = max(0, start - _CAPTION_PREROLL)
  cues = []
  # The main stream is read along, since captions are too sparse to tell that
  # the end of the span has passed.
  for packet in media.packets(first, media.main_kind, 'text'):
    stream = packet.stream
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None:
      continue
    time = media.time(stamp, stream)
    if stream.type != 'subtitle':
      if packet.dts is not None and media.time(packet.dts, stream) > end:
        break
      continue
    for one in _decode_packet(packet) or []:
      text = _subtitle_text(one)
      duration = round((packet.duration or 0) * stream.time_base * SECOND)
      if text:
        cues.append(captions.Cue(time, time + duration, text))
  return captions.in_span(sorted(cues), start, end)


def _subtitle_text(subtitle) -> str:
  """The text of a decoded caption: a set of rectangles, or one of them."""
  parts = subtitle if hasattr(subtitle, 'rects') else [subtitle]
  texts = []
  for part in parts:
    raw = getattr(part, 'dialogue', b'') or getattr(part, 'text', b'')
    texts.append(captions.clean(raw.decode('utf-8', errors='replace')))
  return ' '.join(text for text in texts if text)


# All of it.


def find_end(path: str, audio_path: str, settings: Settings) -> int:
  """µs at which a file ends.

  Args:
    path: File with the video, or ''.
    audio_path: File with the sound, where it is another one, or ''.
    settings: Which streams count.

  Raises:
    errors.MediaError: It cannot be read.
  """
  settings = _media_settings(path, audio_path, settings)
  with MediaFile(path or audio_path, settings) as media:
    return media.find_end()


def _media_settings(path: str, audio_path: str, settings: Settings) -> Settings:
  """The settings for the main file: less what another file is asked for."""
  if not path:
    return dataclasses.replace(settings, use_video=False)
  if audio_path and settings.use_video:
    return dataclasses.replace(settings, use_audio=False)
  return settings


def _known_spans(
  media: MediaFile, spans: Sequence[Span]
) -> list[tuple[int, int] | errors.MediaError]:
  """Start and end of each span, or why it cannot be read."""
  end_of_file = None
  if any(not span.is_exact or span.end is None for span in spans):
    end_of_file = media.find_end()
  stated = media.stated_end() if end_of_file is None else end_of_file
  known = []
  for span in spans:
    end = end_of_file if span.end is None else span.end
    # The container is believed only when it says clearly more than rounding.
    if stated is not None and span.start >= stated + SECOND:
      known.append(_beyond(span.start, stated, media))
    elif end <= span.start:
      known.append(_beyond(span.start, end, media))
    else:
      known.append((span.start, end))
  return known


def _beyond(start: int, end: int, media: MediaFile) -> errors.MediaError:
  return errors.MediaError(
    f'the clip starts at {seconds(start)}, but its {media.main_kind} ends at '
    f'{seconds(end)}'
  )


def decode_spans(
  path: str,
  audio_path: str,
  spans: Sequence[Span],
  settings: Settings,
  use_caption_stream: bool = False,
  caption_margin: int = 0,
) -> list[DecodedClip | errors.MediaError]:
  """Decodes several spans of a file, in one pass over each stream.

  Memory grows with the length from the first start to the last end.

  Args:
    path: File with the video, or with video and sound; '' for sound alone.
    audio_path: File with the sound where it is another one: then the sound of
      `path` is not used. Or ''.
    spans: Parts of the file.
    settings: What is taken, and in which form.
    use_caption_stream: Whether to read captions from the file.
    caption_margin: µs around a span whose captions count as its own.

  Returns:
    Of each span its clip, or why it cannot be had. A clip has frames if half
    of it or more has video, and sound likewise; silence fills gaps.
  """
  cue_margin = caption_margin if use_caption_stream else None
  try:
    has_sound_file = bool(path and audio_path and settings.use_audio)
    media_settings = _media_settings(path, audio_path, settings)
    with MediaFile(path or audio_path, media_settings) as media:
      if not has_sound_file:
        return _decode(media, media, spans, settings, cue_margin)
      try:
        sound_settings = dataclasses.replace(settings, use_video=False)
        sound = MediaFile(audio_path, sound_settings)
      except errors.MediaError as e:
        raise errors.MediaError(f'audio file {audio_path}: {e}') from e
      with sound:
        return _decode(media, sound, spans, settings, cue_margin)
  except errors.MediaError as e:
    return [e] * len(spans)


def _decode(
  media: MediaFile,
  sound: MediaFile,
  spans: Sequence[Span],
  settings: Settings,
  cue_margin: int | None,
) -> list[DecodedClip | errors.MediaError]:
  """`decode_spans` of open files."""
  results = _known_spans(media, spans)
  wanted = [
    i for i, one in enumerate(results) if not isinstance(one, Exception)
  ]
  if not wanted:
    return results
  known = [results[i] for i in wanted]
  first = min(start for start, _ in known)
  last = max(end for _, end in known)
  frames, encoder, video = [[] for _ in known], None, _Reading()
  if media.video is not None:
    frames, encoder, video = _read_frames(media, known, settings)
  track, audio = None, _Reading()
  if sound.audio is not None:
    track, audio = _read_sound(sound, first, last, settings)
  main = video if media.video is not None else audio
  cues = []
  if cue_margin is not None:
    cues = read_captions(media, first - cue_margin, last + cue_margin)
  for number, i in enumerate(wanted):
    start, end = known[number]
    try:
      end = _check_end(media, spans[i], start, end, main)
      own = captions.in_span(cues, start, end, cue_margin or 0)
      clip = DecodedClip(start, end, cues=own)
      if _share_before(video.first, start, end) <= 1 - _MIN_COVERED_SHARE:
        video.check_damage(start, end, 'video')
        clip.frames = frames[number][
          : num_samples(start, end, settings.frame_rate)
        ]
        if clip.frames:
          clip.height, clip.width = encoder.height, encoder.width
      if track is not None:
        audio.check_damage(start, end, 'audio')
        clip.audio = track.cut(start, end)
      if not clip.frames and clip.audio is None:
        raise errors.MediaError(
          f'it has no video and no audio between {seconds(start)} and '
          f'{seconds(end)}'
        )
      results[i] = clip
    except errors.MediaError as e:
      results[i] = e
  return results


def _share_before(first: int | None, start: int, end: int) -> float:
  """Share of a span that lies before the first frame."""
  if first is None:
    return 1.0
  return min(max((first - start) / (end - start), 0.0), 1.0)


def _check_end(
  media: MediaFile, span: Span, start: int, end: int, main: _Reading
) -> int:
  """Where a span ends, once the file was read; raises `MediaError`."""
  if main.end is None:
    return end
  if start >= main.end:
    raise _beyond(start, main.end, media)
  if span.is_exact and span.end is not None:
    if main.end < end - END_TOLERANCE:
      raise errors.MediaError(
        f'the clip ({seconds(start)} to {seconds(end)}) is longer than its '
        f'{media.main_kind}, which ends at {seconds(main.end)}'
      )
    return end
  return min(end, main.end)
