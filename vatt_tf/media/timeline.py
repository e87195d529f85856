"""One clock for a file whose time stamps start again, jump or wrap.

Joined recordings (`cat a.ts b.ts`), live streams that were interrupted and
33-bit counters that wrap give files in which a time stamp may stand for several
moments. Players move what follows a jump to the end of what came before; here
all packets of a file are read once, without decoding, and give a `Timeline`: by
how much the packets of each stream are to be shifted, and where each ends.

Packets of one stream whose time stamps follow each other are a run. Runs of
sound and picture that belong together form a part, so that both are always
shifted by the same time: sound never comes to lie over the picture of another
part. What a shift cannot be found for is dropped and named.
"""

import bisect
import collections
from collections.abc import Callable, Iterable, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import av
import av.packet

from vatt_tf.media import clock, errors

VIDEO, AUDIO, TEXT = 'video', 'audio', 'text'

# Streams of these types that are not read.
OTHER = {VIDEO: 'other video', AUDIO: 'other audio'}

# Marks of `Shift.offset` beside an offset in µs.
UNKNOWN = 'unknown'  # the stamp is wrong: the packet follows the one before
DROPPED = 'dropped'  # it cannot be placed

# Decoding times that go back by less are rounding.
_BACK = clock.SECOND // 10
# Without decoding times, those of display: the order of frames may differ.
_BACK_OF_DISPLAY = clock.SECOND
# In all streams at once, a gap of less is a gap: a still picture, silence.
MAX_GAP = 600 * clock.SECOND
MAX_GAP_OF_LIVE_STREAMS = 10 * clock.SECOND
# A clock that begins later than this does not begin at 0.
_LATE_START = 10 * clock.SECOND
# How far streams of a part may lie from each other in the file after a gap; how
# near they are where a part begins; and where nothing has happened.
_INTERLEAVING = 5 * clock.SECOND
_NEAR = 3 * clock.SECOND // 2
_BESIDE = clock.SECOND
# What is left of a stream where the other one ends.
_LAG = clock.SECOND // 2
_LATE_STREAMS = 'streams that begin inside the file are left out'
# Packets of the part before that a demuxer gives after the first of a new one.
_MAX_HELD_PACKETS = 2
# Packets with wrong time stamps, before those go on as if nothing had been,
# where no other stream tells how much time has passed.
_MAX_GLITCH_PACKETS = 3
# More jumps than that are no recording.
_MAX_RUNS = 1000


class Packet(NamedTuple):
  """What there is to know of a packet.

  Attributes:
    kind: Of its stream: `VIDEO`, `AUDIO`, `TEXT`, or one of `OTHER`.
    pts: Time of display, in ticks of the stream, or None.
    dts: Time of decoding, likewise.
    duration: Likewise; 0 if unknown.
    size: Bytes.
    pos: Where in the file, if that is known.
    is_keyframe: Whether decoding can begin with it.
    stream: Its stream.
  """

  kind: str
  pts: int | None
  dts: int | None
  duration: int
  size: int
  pos: int | None
  is_keyframe: bool
  stream: Any


@dataclasses.dataclass(frozen=True)
class Shift:
  """From one packet of a stream on, what is added to time stamps.

  Attributes:
    ordinal: Number of the packet among those of its stream, from 0.
    offset: µs, `UNKNOWN` or `DROPPED`.
  """

  ordinal: int
  offset: int | str


@dataclasses.dataclass(frozen=True)
class Timeline:
  """What the packets of a file say of its time.

  Attributes:
    ends: From the kind of a stream to the µs at which its last packet ends, on
      the clock without jumps; not there where no packet has a time.
    num_packets: From the kind of a stream to its number of packets.
    num_bytes: Up to the last packet in the file, as far as known.
    shifts: From the kind of a stream to its shifts, in order; empty where no
      time stamp has to be changed.
    keys: Time and ordinal of each key frame, in order; empty without shifts.
    unseen: Start and end (µs) of parts that have no picture, where others have.
    notes: What cannot be placed.
  """

  ends: dict[str, int]
  num_packets: dict[str, int]
  num_bytes: int = 0
  shifts: dict[str, tuple[Shift, ...]] = dataclasses.field(default_factory=dict)
  keys: tuple[tuple[int, int], ...] = ()
  unseen: tuple[tuple[int, int], ...] = ()
  notes: tuple[errors.Note, ...] = ()


class Shifts:
  """Applies the shifts of one stream to its packets, from the first one on.

  Attributes:
    ordinal: Number of the packet that `apply` has seen last.
  """

  def __init__(self, shifts: Sequence[Shift]):
    self.ordinal = -1
    self._waiting = collections.deque(shifts)
    self._offset = self._ticks = 0

  def apply(self, packet: av.packet.Packet) -> bool:
    """Changes the time stamps of the next packet.

    Returns:
      False if the packet is to be dropped.
    """
    self.ordinal += 1
    while self._waiting and self._waiting[0].ordinal <= self.ordinal:
      self._offset = self._waiting.popleft().offset
      self._ticks = 0
      if isinstance(self._offset, int):
        self._ticks = round(
          self._offset / packet.stream.time_base / clock.SECOND
        )
    if self._offset == UNKNOWN:
      packet.pts = packet.dts = None
    elif self._ticks:
      if packet.pts is not None:
        packet.pts += self._ticks
      if packet.dts is not None:
        packet.dts += self._ticks
    return self._offset != DROPPED


@dataclasses.dataclass(eq=False)
class _Run:
  """Packets of one stream that follow each other in time.

  Attributes:
    kind: Of the stream.
    first: Ordinal of the first packet.
    place: Which packet of the file it is, among those that were read.
    start: µs, the earliest time of display.
    end: µs, the latest time of display with its duration.
    others: Where the other streams were when it began: from the kind to the
      run, µs in it, and the ordinal of the next packet.
    follows_gap: Whether it may as well be a part of the run before, after which
      a moment is missing.
    count: Packets.
    last: Ordinal of the last packet.
    whole: The run that has absorbed it, or itself.
    inserts: First ordinals of packets with wrong time stamps in it, and of
      those after them.
  """

  kind: str
  first: int
  place: int
  start: int
  end: int
  others: dict[str, tuple['_Run', int, int]]
  follows_gap: bool = False
  count: int = 0
  last: int = 0
  inserts: list[tuple[int, int]] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    self.whole = self

  def beside(self, kind: str) -> tuple['_Run | None', int]:
    """The run of another stream when this one began, and µs in it."""
    run, time, _ = self.others.get(kind, (None, 0, 0))
    while run is not None and run.whole is not run:
      run = run.whole
    return run, time

  def num_left_at(self, run: '_Run') -> int:
    """Packets that this run has left when another stream's `run` begins."""
    if run.beside(self.kind)[0] is not self:
      return 0
    return self.last + 1 - run.others[self.kind][2]

  def left_at(self, run: '_Run') -> float:
    """The same in µs, of which a wrong time stamp changes little."""
    return self.num_left_at(run) * (self.end - self.start) / self.count

  def goes_on(self, before: '_Run', run: '_Run') -> bool:
    """Whether this run has more left than belongs to another stream's `before`
    when that stream's next `run` begins."""
    _, time = run.beside(self.kind)
    return self.left_at(run) > max(0, before.end - time) + _LAG

  def distance(self, run: '_Run') -> float:
    """µs between the start of another stream's `run` and where this one is."""
    current, time = run.beside(self.kind)
    return abs(run.start - time) if current is self else math.inf

  def begins_with(self, run: '_Run') -> bool:
    """Whether another stream's `run` belongs to where this one has begun."""
    # One may be read ahead of the other, but not when it is over.
    is_near = abs(run.start - self.start) <= _NEAR
    is_under_way = is_near and self.left_at(run) > _LAG
    return is_under_way or self.distance(run) <= _NEAR

  def absorb(self, later: '_Run') -> None:
    """Takes the packets of the run after it."""
    self.end = max(self.end, later.end)
    self.last = later.last
    self.count += later.count
    self.inserts += later.inserts
    later.whole = self


class _Stream:
  """Collects the runs of one stream."""

  def __init__(
    self, kind: str, has_restarts: bool, is_in_order: bool, max_gap: int
  ):
    self.kind = kind
    self.runs = []
    self.count = 0
    self.keys = []  # (time of display, ordinal)
    self._has_restarts = has_restarts
    self._is_in_order = is_in_order
    self._max_gap = max_gap
    self._last_dts = None
    self._untimed = 0  # µs of the last packets, which have no times

  def add(
    self,
    packet: Packet,
    place: int,
    time: Callable[[int], int],
    streams: Iterable['_Stream'],
  ) -> None:
    """Takes the next packet."""
    ordinal = self.count
    self.count += 1
    pts, dts = packet.pts, packet.dts
    if pts is None and dts is None:
      # It follows the one before.
      self._untimed += time(packet.duration) - time(0)
      return
    self._untimed = 0
    start = time(pts if pts is not None else dts)
    end = start
    if packet.duration:
      end += time(packet.duration) - time(0)
    decoded = None if dts is None else time(dts)
    is_break, is_gap = self._break(start, decoded)
    if is_break:
      others = {
        one.kind: (one.runs[-1], one.runs[-1].end, one.count)
        for one in streams
        if one is not self and one.runs
      }
      self._open(_Run(self.kind, ordinal, place, start, end, others, is_gap))
    run = self.runs[-1]
    run.count += 1
    run.last = ordinal
    run.start = min(run.start, start)
    run.end = max(run.end, end)
    self._last_dts = decoded
    if packet.is_keyframe and self.kind == VIDEO:
      self.keys.append((start, ordinal))

  def _break(self, start: int, decoded: int | None) -> tuple[bool, bool]:
    """Whether a new run begins, and whether that may be after a gap."""
    if not self.runs:
      return True, False
    if not self._has_restarts:
      return False, False
    last = self.runs[-1]
    if decoded is not None and self._last_dts is not None:
      is_back = decoded < self._last_dts - _BACK
    else:
      is_back = start < last.end - _BACK_OF_DISPLAY
    if is_back:
      return True, False
    ahead = start - last.end
    return ahead > clock.SECOND, ahead <= self._max_gap

  def _open(self, run: _Run) -> None:
    if len(self.runs) > 1:
      before, last = self.runs[-2:]
      if self._is_glitch(before, last, run):
        before.inserts.append((last.first, run.first))
        last.end = before.end
        before.absorb(self.runs.pop())
        run.whole = before
        return
      # Before it goes back, a gap may have been a jump.
      is_jump = run.start < last.end and last.start > before.end + _LATE_START
      if last.follows_gap and not is_jump:
        before.absorb(self.runs.pop())
    self.runs.append(run)
    if len(self.runs) > _MAX_RUNS:
      raise errors.MediaError(
        f'the time stamps of its {self.kind} jump more than {_MAX_RUNS} times: '
        'they cannot be followed'
      )

  def _is_glitch(self, before: _Run, last: _Run, run: _Run) -> bool:
    """Whether the time stamps of `last` are wrong, between two right ones."""
    if not self._is_in_order or run.start < before.end - _BACK:
      return False
    if not run.others:
      is_short = last.count <= _MAX_GLITCH_PACKETS
      return is_short and run.start <= before.end + clock.SECOND
    for kind in run.others:
      other, time = run.beside(kind)
      # A stream that jumps as well tells of another part.
      if other is last.beside(kind)[0]:
        is_right = abs(run.start - time) <= clock.SECOND
        return is_right and abs(last.end - time) > 2 * clock.SECOND
    return False

  def close(self) -> None:
    """Takes the end of the file."""
    if self.runs:
      self.runs[-1].end += self._untimed
    if len(self.runs) > 1 and self.runs[-1].follows_gap:
      self.runs[-2].absorb(self.runs.pop())

  def run_of(self, ordinal: int) -> _Run:
    """The run that a packet is in."""
    number = bisect.bisect_right(self.runs, ordinal, key=lambda run: run.first)
    return self.runs[number - 1]


class _Part:
  """Runs that share one clock."""

  def __init__(self, run: _Run):
    self.runs = [run]
    self.offset = 0

  @property
  def start(self) -> int:
    return min(run.start for run in self.runs)

  @property
  def end(self) -> int:
    return max(run.end for run in self.runs)

  def others(self, kind: str) -> list[_Run]:
    return [run for run in self.runs if run.kind != kind]

  def distance(self, run: _Run) -> float:
    """µs between the start of a run and where another stream is here."""
    return min(
      (one.distance(run) for one in self.others(run.kind)), default=math.inf
    )


def _align(
  streams: Sequence[_Stream],
) -> tuple[list[_Part], list[tuple[_Run, int]]]:
  """Puts runs together that belong together.

  Args:
    streams: Those of picture and sound.

  Returns:
    The parts in the order of the file, and the runs without a part, each with
    the time at which it begins, as far as the other streams tell.
  """
  parts, dropped = [], []
  last = {}  # From the kind to its last run, and the number of its part.
  every = sorted(
    (run for stream in streams for run in stream.runs),
    key=lambda run: run.place,
  )
  for run in every:
    if run.kind not in last:
      number = _part_of_first(run, parts, every)
    else:
      number = _part_of_next(run, *last[run.kind], parts)
    if number is None:
      dropped.append((run, max(time for _, time, _ in run.others.values())))
      continue
    if number == len(parts):
      parts.append(_Part(run))
    else:
      parts[number].runs.append(run)
    last[run.kind] = run, number
  return parts, dropped


def _pair(streams: Sequence[_Stream]) -> list[_Part]:
  """Puts the first runs of all streams together, the second ones and so on.

  Raises:
    errors.MediaError: Some have more than others.
  """
  streams = [stream for stream in streams if stream.runs]
  counts = {stream.kind: len(stream.runs) for stream in streams}
  if len(set(counts.values())) > 1:
    raise errors.MediaError(
      'the time stamps of its streams start again at different places: '
      + ', '.join(f'{kind} has {count} parts' for kind, count in counts.items())
    )
  parts = []
  for first, *others in zip(*(stream.runs for stream in streams)):
    parts.append(_Part(first))
    parts[-1].runs += others
  return parts


def _part_of_first(
  run: _Run, parts: Sequence[_Part], every: Sequence[_Run]
) -> int:
  """The part of a stream's first run; the number of parts stands for a new one.

  Args:
    run: The run.
    parts: All parts so far.
    every: All runs of the file.
  """
  if not parts:
    return 0
  number = len(parts) - 1
  others = parts[number].others(run.kind)
  if any(one.num_left_at(run) > _MAX_HELD_PACKETS for one in others):
    return number
  # The others are over. Either they are far ahead, or one of them starts again
  # where this stream does: it is to that recording that it belongs.
  is_behind = all(run.start < run.beside(one.kind)[1] - _NEAR for one in others)
  is_joined = any(
    one.start < run.beside(one.kind)[1] - _BACK
    and one.beside(run.kind)[1] <= run.start + _NEAR
    and run.distance(one) <= _NEAR
    for one in every
    if one.kind in run.others
  )
  return number + 1 if is_behind or is_joined else number


def _part_of_next(
  run: _Run, before: _Run, number: int, parts: Sequence[_Part]
) -> int | None:
  """The part of a run that does not follow the run before it.

  Args:
    run: The run.
    before: The one before it of the same stream.
    number: The part of that one.
    parts: All parts so far.

  Returns:
    A number; that of the parts for a new one; None if it cannot be placed.
  """
  part = parts[number]
  is_forward = run.start >= before.end - _BACK
  # A stream may have long gaps, which the others fill.
  if is_forward and part.distance(run) <= _INTERLEAVING:
    return number
  for later in range(number + 1, len(parts)):
    if any(one.begins_with(run) for one in parts[later].others(run.kind)):
      return later
  if not any(one.goes_on(before, run) for one in part.others(run.kind)):
    return len(parts)
  # This stream alone jumps, and the others go on as before: by a little, or
  # back to where they are.
  is_small = not is_forward and before.end - run.start <= clock.SECOND
  if is_small or part.distance(run) <= _BESIDE:
    return number
  return None


def measure(
  packets: Iterable[Packet],
  time: Callable[[int, object], int],
  has_restarts: bool = True,
  is_in_order: bool = True,
  max_gap: int = MAX_GAP,
  has_late_streams: Callable[[], bool] = lambda: False,
) -> Timeline:
  """Reads all packets of a file and finds its clock.

  Args:
    packets: From the beginning of the file.
    time: Gives the µs of a time stamp of a stream.
    has_restarts: Whether the clock may start again; else all time stamps are
      taken as they are.
    is_in_order: Whether packets come as they lie in the file, where streams are
      interleaved. Otherwise parts are told by their number alone.
    max_gap: µs. A longer gap in all streams at once is a jump of the clock:
      `MAX_GAP`, or `MAX_GAP_OF_LIVE_STREAMS`.
    has_late_streams: Says, after the last packet, whether there are streams
      that were not known at the beginning, and whose packets are not among
      these.

  Raises:
    errors.MediaError: The time stamps cannot be followed.
  """
  streams, times, text_places = {}, {}, []
  first_places, last_places = {}, {}
  num_bytes = 0
  for place, packet in enumerate(packets):
    kind = packet.kind
    num_bytes = max(num_bytes, (packet.pos or 0) + packet.size)
    first_places.setdefault(kind, place)
    last_places[kind] = place
    if kind in OTHER.values():
      continue
    if kind not in streams:
      streams[kind] = _Stream(kind, has_restarts, is_in_order, max_gap)
      stream = packet.stream
      times[kind] = lambda stamp, stream=stream: time(stamp, stream)
    if kind == TEXT:
      text_places.append(place)
      streams[kind].count += 1
    else:
      streams[kind].add(packet, place, times[kind], streams.values())
  # A stream that begins where the one that is read has ended takes its place.
  is_late = has_late_streams() or any(
    first_places.get(other, -1) > last_places.get(kind, math.inf)
    for kind, other in OTHER.items()
  )
  sources = [one for kind, one in streams.items() if kind != TEXT]
  num_packets = {kind: one.count for kind, one in streams.items()}
  for one in sources:
    one.close()
  runs = [run for one in sources for run in one.runs]
  if not has_restarts or not is_in_order:
    parts, dropped = _pair(sources), []
  else:
    parts, dropped = _align(sources)
  if len(parts) <= 1 and not dropped and not any(run.inserts for run in runs):
    ends = {}
    for run in runs:
      ends[run.kind] = max(run.end, ends.get(run.kind, run.end))
    notes = (errors.Note(_LATE_STREAMS),) if is_late else ()
    return Timeline(ends, num_packets, num_bytes, notes=notes)
  line = _shifted(sources, parts, dropped, num_packets, text_places, is_late)
  return dataclasses.replace(line, num_bytes=num_bytes)


def _shifted(
  streams: Sequence[_Stream],
  parts: list[_Part],
  dropped: Sequence[tuple[_Run, int]],
  num_packets: dict[str, int],
  text_places: Sequence[int],
  has_late_streams: bool,
) -> Timeline:
  """The timeline of a file whose clock is not one."""
  notes = [
    errors.Note(
      f'{run.count} packets of its {run.kind} are left out: their time stamps '
      'jump, while those of its other stream go on, so that they cannot be '
      'placed',
      start=time,
    )
    for run, time in dropped
  ]
  if parts[0].start > _LATE_START:
    parts[0].offset = -parts[0].start
  for before, part in zip(parts, parts[1:]):
    part.offset = before.end + before.offset - part.start
  if has_late_streams:
    kept = _without_unread_sound(parts)
    last = kept[-1]
    notes.append(
      errors.Note(_LATE_STREAMS)
      if len(kept) == len(parts)
      else errors.Note(
        'another recording with other streams is joined to it in the same '
        'file, and is left out',
        start=last.end + last.offset,
      )
    )
    parts = kept
  offsets = {run: part.offset for part in parts for run in part.runs}
  ends, shifts = {}, {}
  for stream in streams:
    found = []
    for run in stream.runs:
      offset = offsets.get(run, DROPPED)
      found.append(Shift(run.first, offset))
      for first, after in run.inserts:
        found += [Shift(first, UNKNOWN), Shift(after, offset)]
    shifts[stream.kind] = tuple(found)
    placed = [run.end + offsets[run] for run in stream.runs if run in offsets]
    if placed:
      ends[stream.kind] = max(placed)
  if text_places:
    shifts[TEXT] = tuple(
      Shift(ordinal, _offset_at(place, parts))
      for ordinal, place in enumerate(text_places)
    )
  keys = [
    (time + offsets[stream.run_of(ordinal)], ordinal)
    for stream in streams
    for time, ordinal in stream.keys
    if stream.run_of(ordinal) in offsets
  ]
  unseen = [
    (part.start + part.offset, part.end + part.offset)
    for part in parts
    if VIDEO not in {run.kind for run in part.runs}
  ]
  return Timeline(
    ends,
    num_packets,
    shifts=shifts,
    keys=tuple(sorted(keys)),
    unseen=tuple(unseen) if VIDEO in ends else (),
    notes=tuple(notes),
  )


def _without_unread_sound(parts: Sequence[_Part]) -> list[_Part]:
  """The first parts, up to one that lacks a stream which is there under
  another number: silence would stand over its picture."""
  kinds = {run.kind for run in parts[0].runs}
  kept = [parts[0]]
  for part in parts[1:]:
    if kinds - {run.kind for run in part.runs}:
      break
    kept.append(part)
  return kept


def _offset_at(place: int, parts: Sequence[_Part]) -> int:
  """The offset of the part that a place in the file belongs to."""
  offset = 0
  for part in parts:
    if min(run.place for run in part.runs) <= place:
      offset = part.offset
  return offset
