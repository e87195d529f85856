"""An open media file: its streams, its clock, its packets."""

import abc
import bisect
from collections.abc import Iterator, Sequence
import dataclasses
import os

import av
import av.error
import av.packet
import av.stream

from vatt_tf.media import errors

SECOND = 1_000_000

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

# Of the packets of a span.
_MAX_DAMAGED_SHARE = 0.1


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


def decode_packet(packet) -> list | None:
  """The frames that a packet completes; None if it cannot be decoded."""
  try:
    return packet.decode()
  except av.error.EOFError:
    return []
  except av.error.FFmpegError:
    return None


def frame_interval(stream) -> int:
  """µs between frames, as far as the container knows."""
  rate = stream.average_rate or stream.guessed_rate or 25
  return round(SECOND / min(max(rate, 1), 1000))


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
    self._sound_delay = None
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

  def time(self, stamp: int, source) -> int:
    """µs on the clock of the file of a time stamp of a stream or a frame."""
    base = source.time_base
    # Integers: fractions are slow, and there are thousands of packets.
    numerator = 2 * stamp * base.numerator * SECOND + base.denominator
    return numerator // (2 * base.denominator) - self.origin

  @property
  def has_captions(self) -> bool:
    """Whether any stream holds captions, as text or as pictures."""
    return bool(self._container.streams.subtitles)

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
    ends, count = [], 0
    for packet in self.packets(0, self.main_kind):
      stamp = packet.pts if packet.pts is not None else packet.dts
      count += bool(packet.size)
      if stamp is not None:
        stamp += packet.duration or 0
        ends.append(self.time(stamp, packet.stream))
    if not ends and self.video is not None:
      # A raw stream, without a container that would give times.
      ends.append(count * frame_interval(self.video))
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

  def sound_delay(self) -> int:
    """µs by which the time stamps of the decoded sound come late.

    Nothing comes out of a Vorbis decoder for the first packet, and the samples
    of the second belong where the first one stands; FFmpeg stamps them with the
    time of the second. Other codecs have no such delay.
    """
    if self._sound_delay is None:
      self._sound_delay = 0
      if self.audio.codec_context.name == 'vorbis':
        self._sound_delay = self._measure_sound_delay()
    return self._sound_delay

  def _measure_sound_delay(self) -> int:
    first = None
    packets = self.packets(0, 'audio')
    for packet in packets:
      frames = decode_packet(packet) or []
      if first is None and packet.pts is not None:
        first = packet.pts * packet.time_base
      if frames and frames[0].pts is not None:
        packets.close()
        late = frames[0].pts * frames[0].time_base - first
        return round(max(late, 0) * SECOND)
    return 0


@dataclasses.dataclass
class Reading:
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


class Reader(abc.ABC):
  """What takes the packets of one stream, in a pass over a file.

  Attributes:
    reading: How it went.
    is_done: Whether no later packet is needed.
    is_late: Whether the pass began too late in the file.
  """

  def __init__(self):
    self.reading = Reading()
    self.is_done = False
    self.is_late = False

  @abc.abstractmethod
  def feed(self, packet: av.packet.Packet) -> None:
    """Takes a packet of the stream."""

  @abc.abstractmethod
  def finish(self) -> None:
    """Takes the end of the file."""
