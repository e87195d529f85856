"""An open media file: its streams, its clock, its packets."""

import abc
import bisect
import collections
from collections.abc import Iterator, Sequence
import dataclasses
import functools
import os

import av
import av.error
import av.logging
import av.packet
import av.stream

from vatt_tf.media import containers, errors, timeline

SECOND = 1_000_000

# How much earlier than stated a file may end: times are rounded.
END_TOLERANCE = SECOND // 4

# Demuxers for what is no recording. The first ones would open other files or
# devices, or connections; the others take text and pictures.
_NOT_MEDIA_FORMATS = frozenset(
  """concat dash hls imf rtp rtsp sap sdp webm_dash_manifest
  alsa fbdev kmsgrab lavfi oss v4l2 video4linux2,v4l2 x11grab
  adf alias_pix ansi apng bin brender_pix cdg ffmetadata ico idf image2
  image2pipe jpegxl_anim tty txd xbin""".split()
)

# Of the ISO container: pictures and sequences of pictures (HEIF, AVIF, CR3).
_PICTURE_BRANDS = frozenset(
  """MA1A MA1B MiHA MiHB MiHE avci avcs avif avis crx heic heim heis heix hevc
  hevm hevs hevx j2ki j2is jpeg jpgs mif1 miaf msf1 vvic vvis""".split()
)

# Of which FFmpeg estimates the length.
_ESTIMATED_FORMATS = ('mpeg', 'mpegts', 'asf')
# Where a stream may be joined to another one, and its clock start again.
_FORMATS_WITHOUT_RESTARTS = (
  'aac', 'ac3', 'aiff', 'amr', 'au', 'avi', 'caf', 'dts', 'eac3', 'gif', 'mp3',
  'w64', 'wav',
)  # fmt: skip
# AVFMT_TS_DISCONT of FFmpeg's formats.
_HAS_JUMPS = 0x0200
# A header may say that a file is this much longer than it is, µs and share.
_MAX_ROUNDING = SECOND
_MAX_ROUNDING_SHARE = 0.05

# Of a file, behind its last packet: indices, tags.
_MAX_UNREAD_SHARE = 0.1

# A file that lasts longer than the first has more bytes than the second.
_MAX_EMPTY_LENGTH = 600 * SECOND
_MIN_BYTES_PER_SECOND = 8

# Timelines of files, so that each is measured once by a process.
_MAX_TIMELINES = 256
_timelines = collections.OrderedDict()

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


@dataclasses.dataclass(frozen=True)
class Length:
  """How long a file is.

  Attributes:
    end: µs at which its last stream ends.
    kind: Of that stream: `video`, or `audio` where the sound goes on after the
      picture, or is alone.
    claimed: What its header says, µs, where that is not so; else None.
    is_cut_off: Whether it ends earlier because a part of the file is missing
      or damaged.
    notes: What of the file is left out.
  """

  end: int
  kind: str
  claimed: int | None = None
  is_cut_off: bool = False
  notes: tuple[errors.Note, ...] = ()


def last_end(video: int | None, audio: int | None) -> tuple[int, str] | None:
  """Where a file ends, µs, and what ends there.

  Sound decides only where it goes on for longer than what encoders add to it.

  Args:
    video: µs at which the picture ends, or None.
    audio: µs at which the sound ends, or None.
  """
  if audio is not None and (video is None or audio > video + END_TOLERANCE):
    return audio, timeline.AUDIO
  return None if video is None else (video, timeline.VIDEO)


def _settle(
  measured: int | None, stated: int | None, is_estimate: bool
) -> tuple[int | None, int | None]:
  """The end of a stream, and what its header says, if that is wrong.

  Args:
    measured: µs, from its packets.
    stated: µs, as the container says.
    is_estimate: Whether `stated` is FFmpeg's guess.
  """
  if measured is None or stated is None or stated <= 0:
    return measured, None
  excess = stated - measured
  if excess > max(_MAX_ROUNDING, _MAX_ROUNDING_SHARE * stated):
    return measured, None if is_estimate else stated
  if is_estimate or excess < -END_TOLERANCE:
    return measured, None
  return stated, None


@functools.cache
def _allowed_formats() -> str:
  """FFmpeg's demuxers for recordings, as it takes them."""
  return ','.join(
    name
    for name in sorted(av.formats_available)
    if name not in _NOT_MEDIA_FORMATS and not name.endswith('_pipe')
  )


def _what_is_at(path: str) -> str:
  """What is at a path that holds no file."""
  if os.path.isdir(path):
    is_open = os.access(path, os.R_OK | os.X_OK)
    return 'is a folder' if is_open else 'is a folder that cannot be read'
  if os.path.exists(path):
    return 'is a pipe, a socket or a device'
  if os.path.islink(path):
    return 'is a link to what is not there'
  return 'is not there'


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
    may_restart: Whether the clock of such a file may start again or jump inside
      it.

  Raises:
    errors.MediaError: The file is missing, empty, of no known format, or has
      none of the streams asked for.
  """

  def __init__(self, path: str, settings: Settings):
    self._path = os.fspath(path)
    self._settings = settings
    self._container = None
    self._joined = None
    self._is_at_start = False
    self._sound_delay = None
    self._length = None
    if not os.path.isfile(self._path):
      raise errors.MediaError(f'the file {_what_is_at(self._path)}')
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
      # As a path, never as an address; and nothing beside it is opened.
      headers = containers.flv_headers(self._path)
      if headers:
        self._joined = containers.WithoutHeaders(self._path, headers)
      self._container = av.open(
        self._joined or f'file:{self._path}',
        container_options={
          'protocol_whitelist': 'file',
          'format_whitelist': _allowed_formats(),
        },
        metadata_errors='replace',
      )
    except av.error.ArgumentError as e:
      raise errors.MediaError(
        'it holds no video and no audio: it is a playlist, a picture or text, '
        f'or its header is damaged ({e.strerror})'
      ) from e
    except av.error.FFmpegError as e:
      raise errors.MediaError(
        'FFmpeg cannot open it: its format is unknown or its header is damaged '
        f'({e.strerror})'
      ) from e
    self._is_at_start = True
    settings = self._settings
    name = self._container.format.name
    streams = self._container.streams
    brand = self._container.metadata.get('major_brand', '').strip()
    if name.startswith('mov') and brand in _PICTURE_BRANDS:
      raise errors.MediaError(f'it is a picture (format {brand})')
    # The cover picture of a song is a video stream of one frame.
    cover = av.stream.Disposition.attached_pic
    videos = [one for one in streams.video if not one.disposition & cover]
    audios = list(streams.audio)
    if not (videos or audios):
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
    self._kinds = {
      getattr(self, kind).index: kind
      for kind in ('video', 'audio', 'text')
      if getattr(self, kind) is not None
    }
    self._has_changed = False
    # Now: while it is read, FFmpeg learns of more frames.
    self.may_restart = self._may_restart()
    self._has_all = len(videos) + len(audios) == sum(
      one is not None for one in (self.video, self.audio)
    )
    if self.video is not None:
      context = self.video.codec_context
      context.thread_count = settings.num_threads
      context.thread_type = 'NONE' if settings.num_threads == 1 else 'AUTO'

  def close(self) -> None:
    """Closes the file; may be called again."""
    if self._container is not None:
      self._container.close()
      self._container = None
    if self._joined is not None:
      self._joined.close()
      self._joined = None

  def __enter__(self) -> 'MediaFile':
    return self

  def __exit__(self, error_type, error, traceback) -> None:
    self.close()

  def time(self, stamp: int, source) -> int:
    """µs on the clock of the file of a time stamp of a stream or a frame."""
    base = source.time_base
    # Integers: fractions are slow, and there are thousands of packets.
    numerator = 2 * stamp * base.numerator * SECOND + base.denominator
    return numerator // (2 * base.denominator) - self.origin

  @property
  def main_kind(self) -> str:
    """`video`, or `audio` where there is no video."""
    return 'audio' if self.video is None else 'video'

  def has(self, kind: str) -> bool:
    """Whether there is such a stream, and a part of it can be placed."""
    if getattr(self, kind) is None:
      return False
    return (
      not self.may_restart
      or not self.read_timeline().shifts
      or kind in self.read_timeline().ends
    )

  def stated_end(self) -> int | None:
    """µs at which the file ends by the container's word, which may be wrong."""
    ends = {kind: self._stated_end(kind) for kind in ('video', 'audio')}
    found = last_end(**ends)
    return self._stated_end_of_all() if found is None else found[0]

  def _stated_end(self, kind: str) -> int | None:
    stream = getattr(self, kind)
    if stream is None or not stream.duration:
      return None
    return self.time((stream.start_time or 0) + stream.duration, stream)

  def _stated_end_of_all(self) -> int | None:
    if not self._container.duration:
      return None
    # Matroska states when the last frame ends, the others how long it is.
    is_absolute = 'matroska' in self._container.format.name
    return self._container.duration - (self.origin if is_absolute else 0)

  def length(self) -> Length:
    """How long the file is, by its packets.

    What the container states is taken where it agrees with them.

    Raises:
      errors.MediaError: It has no packet with a time.
    """
    if self._length is None:
      self._length = self._measure_length()
    return self._length

  def _measure_length(self) -> Length:
    line = self.read_timeline()
    is_estimate = self._container.format.name in _ESTIMATED_FORMATS
    ends, claims = {}, []
    for kind in ('video', 'audio'):
      measured = line.ends.get(kind)
      if measured is None and kind == 'video' and line.num_packets.get(kind):
        # A raw stream, without a container that would give times.
        measured = line.num_packets[kind] * frame_interval(self.video)
      stated = None if line.shifts else self._stated_end(kind)
      ends[kind], claim = _settle(measured, stated, is_estimate)
      claims.append(claim)
    found = last_end(**ends)
    if found is None:
      raise errors.MediaError(
        'its length is unknown: it has no packet with a time'
      )
    end, kind = found
    stated = self._stated_end_of_all()
    if stated and not line.shifts and not any(map(self._stated_end, ends)):
      last = max(one for one in ends.values() if one is not None)
      end, claim = _settle(last, stated, is_estimate)
      # That may be the end of what is not read.
      if self._has_all and not self.has_captions:
        claims.append(claim)
    self._check_plausible(end)
    claimed = max((one for one in claims if one is not None), default=None)
    extent = containers.extent(self._path)
    is_unread = self._is_unread(line, extent)
    is_cut_off = claimed is not None and (extent.is_cut_off or is_unread)
    notes = line.notes
    if claimed is not None and not is_cut_off:
      fault = (
        f'its header says that it lasts until {seconds(claimed)}, but it ends '
        f'at {seconds(end)}'
      )
    elif claimed is None and extent.is_cut_off:
      fault = 'its end is missing: it is cut off or damaged'
    elif extent.is_followed and not self._reads_all_parts(line):
      fault = (
        'another recording is joined to it in the same file, and is left out'
      )
    elif self.may_restart and is_unread:
      fault = f'what follows the first {line.num_bytes:,} bytes cannot be read'
    else:
      fault = ''
    if fault:
      notes += (errors.Note(fault, start=end),)
    return Length(end, kind, claimed, is_cut_off, notes)

  def _check_plausible(self, end: int) -> None:
    """Raises `MediaError` for a length that its bytes cannot hold.

    Time stamps may follow from fields of a header, such as the frame rate.
    """
    size = os.path.getsize(self._path)
    if end > max(_MAX_EMPTY_LENGTH, size * SECOND // _MIN_BYTES_PER_SECOND):
      raise errors.MediaError(
        f'it would last until {seconds(end)} with its {size:,} bytes: its '
        'header or its time stamps are damaged'
      )

  def _reads_all_parts(self, line: timeline.Timeline) -> bool:
    """Whether FFmpeg reads on where another recording follows."""
    return bool(line.shifts) or self._container.format.name == 'avi'

  def _is_unread(
    self, line: timeline.Timeline, extent: containers.Extent
  ) -> bool:
    """Whether a lot follows the last packet that can be read."""
    # Some may end in an index, and are read by it; of others only the place of
    # a page or pack of many packets is known.
    name = self._container.format.name
    if name.startswith(('mov', 'avi', 'ogg')) or name == 'mpeg':
      return False
    end = extent.media_end or os.path.getsize(self._path)
    return 0 < line.num_bytes < (1 - _MAX_UNREAD_SHARE) * end

  @property
  def has_captions(self) -> bool:
    """Whether any stream holds captions, as text or as pictures."""
    return bool(self._container.streams.subtitles)

  def _may_restart(self) -> bool:
    name = self._container.format.name
    if name.startswith('mov'):
      # A table of all samples has one clock; fragments bring their own.
      return any(
        one is not None and not one.frames for one in (self.video, self.audio)
      )
    return name not in _FORMATS_WITHOUT_RESTARTS

  def read_timeline(self) -> timeline.Timeline:
    """What the packets say of the time; measured once by a process.

    Raises:
      errors.MediaError: The time stamps cannot be followed.
    """
    status = os.stat(self._path)
    key = (
      os.path.abspath(self._path),
      status.st_size,
      status.st_mtime_ns,
      *self._kinds.items(),
    )
    if key not in _timelines:
      name = self._container.format.name
      is_live = name == 'flv' or self._container.format.flags & _HAS_JUMPS
      self._rewind()
      _timelines[key] = timeline.measure(
        self._all_packets(),
        self.time,
        has_restarts=self.may_restart,
        # FFmpeg gives fragments' packets in the order of their times, which is
        # not that of the file where those start again.
        is_in_order=not name.startswith('mov'),
        max_gap=(
          timeline.MAX_GAP_OF_LIVE_STREAMS if is_live else timeline.MAX_GAP
        ),
        has_late_streams=self._has_late_streams,
      )
      if len(_timelines) > _MAX_TIMELINES:
        _timelines.popitem(last=False)
    return _timelines[key]

  def _all_packets(self) -> Iterator[timeline.Packet]:
    """The times of all packets of picture, sound and the chosen captions."""
    streams = [*self._container.streams.video, *self._container.streams.audio]
    streams += [self.text] if self.text is not None else []
    for packet in self._demux(streams):
      if packet.size:
        yield timeline.Packet(
          self.kind_of(packet) or timeline.OTHER[packet.stream.type],
          packet.pts,
          packet.dts,
          packet.duration or 0,
          packet.size,
          packet.pos,
          packet.is_keyframe,
          packet.stream,
        )

  def kind_of(self, packet: av.packet.Packet) -> str:
    """`video`, `audio` or `text`, as `packets` takes them; '' for no chosen."""
    return self._kinds.get(packet.stream.index, '')

  def _has_late_streams(self) -> bool:
    """Whether there are streams by now that were not there at the beginning."""
    return self._has_changed or (
      self._count_streams() > len(self._container.streams)
    )

  def _count_streams(self) -> int:
    """Streams of the container by now: some come up while it is read."""
    # The one place where PyAV tells of those that it does not know.
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
      return self._container.dumps_format().count('\n  Stream #')
    finally:
      av.logging.set_level(level)

  def _rewind(self) -> None:
    # Not a seek to 0: that skips what tells how much of the first sound packet
    # is the encoder's delay.
    if not self._is_at_start:
      self._open()

  def _demux(self, streams: Sequence) -> Iterator[av.Packet]:
    """Packets of streams from here on, as far as the file can be read."""
    self._is_at_start = False
    types = {stream.index: stream.type for stream in streams}
    try:
      for packet in self._container.demux(streams):
        # In joined transport streams, what was sound may become picture.
        if packet.stream.type == types[packet.stream.index]:
          yield packet
        else:
          self._has_changed = True
    except (av.error.FFmpegError, IndexError):
      # The latter after the last packet, where PyAV meets a stream that it has
      # not seen when it opened the file.
      return

  def packets(self, start: int, *kinds: str) -> Iterator[av.Packet]:
    """Packets from the last point at or before `start` that can be decoded.

    The seek may land late when an index is wrong; the caller has to check the
    first time. Reading ends where the file cannot be read any further. Time
    stamps are on the one clock of the file, wherever that starts again.

    Args:
      start: µs; 0 or less for the beginning.
      *kinds: Of `video`, `audio` and `text`; the first one is sought in.
    """
    if self.may_restart and self.read_timeline().shifts:
      yield from self._shifted_packets(start, kinds)
      return
    if start > 0:
      stream = getattr(self, kinds[0])
      stamp = int((start + self.origin) / SECOND / stream.time_base)
      try:
        self._container.seek(stamp, backward=True, stream=stream)
      except av.error.FFmpegError:
        start = 0
    if start <= 0:
      self._rewind()
    yield from self._demux([getattr(self, kind) for kind in kinds])

  def _shifted_packets(
    self, start: int, kinds: Sequence[str]
  ) -> Iterator[av.Packet]:
    """`packets` of a file with several clocks.

    A seek cannot tell them apart: the file is read from its beginning, and what
    comes before the last key frame is passed over without being decoded.
    """
    line = self.read_timeline()
    before = bisect.bisect_right(line.keys, start, key=lambda key: key[0])
    first_frame = line.keys[before - 1][1] if before else 0
    shifts = {
      kind: timeline.Shifts(line.shifts.get(kind, ())) for kind in kinds
    }
    self._rewind()
    for packet in self._demux([getattr(self, kind) for kind in kinds]):
      kind = self.kind_of(packet)
      if not packet.size and packet.pts is None and packet.dts is None:
        yield packet  # the end of the stream
      elif shifts[kind].apply(packet):
        if kind != 'video' or shifts[kind].ordinal >= first_frame:
          yield packet

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
