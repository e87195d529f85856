"""An open media file: its streams, its clock, its packets."""

import bisect
import collections
from collections.abc import Iterator, Sequence
import os

import av
import av.error
import av.frame
import av.logging
import av.packet
import av.stream

from vatt_tf.media import (
  clock,
  containers,
  decode_settings,
  errors,
  file_length,
  opening,
  packet_reader,
  stream_choice,
  timeline,
  timeline_measurement,
)

# Formats of which FFmpeg estimates the length.
_ESTIMATED_FORMATS = ('mpeg', 'mpegts', 'asf')
# Formats whose clock never starts again inside a file. In others a stream may
# be joined to another one.
_FORMATS_WITHOUT_RESTARTS = (
  'aac', 'ac3', 'aiff', 'amr', 'au', 'avi', 'caf', 'dts', 'eac3', 'gif', 'mp3',
  'w64', 'wav',
)  # fmt: skip
# AVFMT_TS_DISCONT of FFmpeg's formats.
_HAS_JUMPS = 0x0200

# Maximum share of a file behind its last packet: indices, tags.
_MAX_UNREAD_SHARE = 0.1

# Timelines of files, so that each is measured once by a process.
_MAX_TIMELINES = 256
_timelines = collections.OrderedDict()


class MediaFile:
  """An open media file.

  Attributes:
    video: Chosen video stream, or None.
    audio: Chosen audio stream, or None.
    text: Chosen caption stream, or None.
    origin: Time of the container's clock, in µs, that is time 0.
    may_restart: Whether the clock of such a file may start again or jump inside
      it.

  Args:
    path: Path of the file.
    settings: Settings that choose the streams.

  Raises:
    errors.MediaError: The file is missing, empty, of an unknown format, or
      lacks the streams.
  """

  def __init__(self, path: str, settings: decode_settings.Settings):
    self._path = os.fspath(path)
    self._settings = settings
    self._container = None
    self._joined = None
    self._is_at_start = False
    self._sound_delay = None
    self._length = None
    self._open()
    self.origin = 0
    start = self._container.start_time
    if start is not None and abs(start) >= clock.SECOND // 2:
      self.origin = start

  def _open(self) -> None:
    self.close()
    self._container, self._joined = opening.open_container(self._path)
    self._is_at_start = True
    streams = stream_choice.choose(self._container, self._settings)
    self.video, self.audio, self.text, self._has_all = streams
    self._kinds = {
      getattr(self, kind).index: kind
      for kind in ('video', 'audio', 'text')
      if getattr(self, kind) is not None
    }
    self._has_changed = False
    # Now: while it is read, FFmpeg learns of more frames.
    self.may_restart = self._may_restart()
    if self.video is not None:
      context = self.video.codec_context
      num_threads = self._settings.num_threads
      context.thread_count = num_threads
      context.thread_type = 'NONE' if num_threads == 1 else 'AUTO'

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

  def time(self, stamp: int, source: av.stream.Stream | av.frame.Frame) -> int:
    """Returns the time on the clock of the file, in µs, of a time stamp.

    Args:
      stamp: Time stamp in ticks of `source`.
      source: Stream or frame with the time base.
    """
    base = source.time_base
    # Integers: fractions are slow, and there are thousands of packets.
    numerator = 2 * stamp * base.numerator * clock.SECOND + base.denominator
    return numerator // (2 * base.denominator) - self.origin

  @property
  def main_kind(self) -> str:
    """`video`, or `audio` where there is no video."""
    return 'audio' if self.video is None else 'video'

  def has(self, kind: str) -> bool:
    """Returns whether a stream of a kind exists and has a place in time."""
    if getattr(self, kind) is None:
      return False
    return (
      not self.may_restart
      or not self.read_timeline().shifts
      or kind in self.read_timeline().ends
    )

  def stated_end(self) -> int | None:
    """Returns the end of the file in µs that the container states, or None.

    It may be wrong.
    """
    ends = {kind: self._stated_end(kind) for kind in ('video', 'audio')}
    last = file_length.last_end(**ends)
    return self._stated_end_of_all() if last is None else last[0]

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

  def length(self) -> file_length.Length:
    """Returns the length of the file by its packets.

    Where the container agrees with them, its statement is taken.

    Raises:
      errors.MediaError: The file has no packet with a time.
    """
    if self._length is None:
      self._length = self._measure_length()
    return self._length

  def _measure_length(self) -> file_length.Length:
    line = self.read_timeline()
    is_estimate = self._container.format.name in _ESTIMATED_FORMATS
    ends, claims = {}, []
    for kind in ('video', 'audio'):
      measured = line.ends.get(kind)
      if measured is None and kind == 'video' and line.num_packets.get(kind):
        # A raw stream, without a container that would give times.
        measured = line.num_packets[kind] * packet_reader.frame_interval(
          self.video
        )
      stated = None if line.shifts else self._stated_end(kind)
      ends[kind], claim = file_length.choose_end(measured, stated, is_estimate)
      claims.append(claim)
    last = file_length.last_end(**ends)
    if last is None:
      raise errors.MediaError(
        'its length is unknown: it has no packet with a time'
      )
    end, kind = last
    stated = self._stated_end_of_all()
    if stated and not line.shifts and not any(map(self._stated_end, ends)):
      end, claim = file_length.choose_end(
        max(time for time in ends.values() if time is not None),
        stated,
        is_estimate,
      )
      # That may be the end of an unread stream.
      if self._has_all and not self.has_captions:
        claims.append(claim)
    file_length.check_plausible(end, os.path.getsize(self._path))
    claimed = max(
      (claim for claim in claims if claim is not None), default=None
    )
    extent = containers.extent(self._path)
    is_unread = self._is_unread(line, extent)
    is_cut_off = claimed is not None and (extent.is_cut_off or is_unread)
    notes = line.notes
    if claimed is not None and not is_cut_off:
      fault = (
        f'its header says that it lasts until {clock.format_seconds(claimed)}, '
        f'but it ends at {clock.format_seconds(end)}'
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
    return file_length.Length(end, kind, claimed, is_cut_off, notes)

  def _reads_all_parts(self, line: timeline.Timeline) -> bool:
    """Returns whether FFmpeg continues into a recording that follows."""
    return bool(line.shifts) or self._container.format.name == 'avi'

  def _is_unread(
    self, line: timeline.Timeline, extent: containers.Extent
  ) -> bool:
    """Returns whether a lot follows the last readable packet."""
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
        stream is not None and not stream.frames
        for stream in (self.video, self.audio)
      )
    return name not in _FORMATS_WITHOUT_RESTARTS

  def read_timeline(self) -> timeline.Timeline:
    """Returns the times of the packets, which a process measures only once.

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
      _timelines[key] = timeline_measurement.measure(
        self._all_packets(),
        self.time,
        has_restarts=self.may_restart,
        # FFmpeg gives fragments' packets in the order of their times, which is
        # not that of the file where those start again.
        is_in_order=not name.startswith('mov'),
        max_gap=(
          timeline_measurement.MAX_GAP_OF_LIVE_STREAMS
          if is_live
          else timeline_measurement.MAX_GAP
        ),
        has_late_streams=self._has_late_streams,
      )
      if len(_timelines) > _MAX_TIMELINES:
        _timelines.popitem(last=False)
    return _timelines[key]

  def _all_packets(self) -> Iterator[timeline.Packet]:
    """Yields the times of all packets of picture, sound and chosen captions."""
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
    """Returns the kind of a packet, as `packets` takes it; '' if not chosen."""
    return self._kinds.get(packet.stream.index, '')

  def _has_late_streams(self) -> bool:
    """Returns whether streams have come up after the beginning."""
    return self._has_changed or (
      self._count_streams() > len(self._container.streams)
    )

  def _count_streams(self) -> int:
    """Returns the number of streams by now: some come up while it is read."""
    # The only place where PyAV lists those that it does not know.
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
    """Yields the packets of streams from here on, as far as is readable."""
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
    """Yields packets from the last decodable point at or before `start`.

    The seek may land late when an index is wrong; the caller has to check the
    first time. Reading ends where the file cannot be read any further. Time
    stamps are on the one clock of the file, wherever that starts again.

    Args:
      start: Time in µs; 0 or less for the beginning.
      *kinds: Kinds among `video`, `audio` and `text`; the first is sought in.
    """
    if self.may_restart and self.read_timeline().shifts:
      yield from self._shifted_packets(start, kinds)
      return
    if start > 0:
      stream = getattr(self, kinds[0])
      stamp = int((start + self.origin) / clock.SECOND / stream.time_base)
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
    """Yields the same as `packets` for a file with several clocks.

    A seek cannot tell them apart: the file is read from its beginning, and what
    comes before the last key frame is skipped without being decoded.
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
    """Returns the time in µs by which stamps of the decoded sound are late.

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
      frames = packet_reader.decode_packet(packet) or []
      if first is None and packet.pts is not None:
        first = packet.pts * packet.time_base
      if frames and frames[0].pts is not None:
        packets.close()
        late = frames[0].pts * frames[0].time_base - first
        return round(max(late, 0) * clock.SECOND)
    return 0
