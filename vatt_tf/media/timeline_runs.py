"""Packets of one stream that follow each other in time."""

import bisect
from collections.abc import Callable, Iterable
import dataclasses
import math

from vatt_tf.media import clock, errors, timeline

# Decoding times that go back by less are rounding.
BACK = clock.SECOND // 10
# Without decoding times, those of display: the order of frames may differ.
_BACK_OF_DISPLAY = clock.SECOND
# A clock that begins later than this does not begin at 0.
LATE_START = 10 * clock.SECOND
NEAR = 3 * clock.SECOND // 2
# Maximum rest of a stream where the other one ends.
_LAG = clock.SECOND // 2
# Packets with wrong time stamps in a row, after which those continue as before,
# where no other stream shows how much time has passed.
_MAX_GLITCH_PACKETS = 3
# A file with more jumps is not a recording.
_MAX_RUNS = 1000


@dataclasses.dataclass(eq=False)
class Run:
  """Packets of one stream that follow each other in time.

  Attributes:
    kind: Kind of the stream.
    first: Ordinal of the first packet.
    place: Number of the first packet among all that were read of the file.
    start: Earliest time of display in µs.
    end: Latest time of display with its duration, in µs.
    others: Position of the other streams when it began, by their kind: the run,
      the time in it in µs, and the ordinal of the next packet.
    follows_gap: Whether it may as well be a part of the run before, after which
      a moment is missing.
    count: Number of packets.
    last: Ordinal of the last packet.
    inserts: First ordinals of packets with wrong time stamps in it, and of
      those after them.
  """

  kind: str
  first: int
  place: int
  start: int
  end: int
  others: dict[str, tuple['Run', int, int]]
  follows_gap: bool = False
  count: int = 0
  last: int = 0
  inserts: list[tuple[int, int]] = dataclasses.field(default_factory=list)

  def __post_init__(self):
    self.whole = self

  def beside(self, kind: str) -> tuple['Run | None', int]:
    """Returns the run of another stream when this one began, and µs in it."""
    run, time, _ = self.others.get(kind, (None, 0, 0))
    while run is not None and run.whole is not run:
      run = run.whole
    return run, time

  def num_left_at(self, run: 'Run') -> int:
    """Returns the packets left when another stream's `run` begins."""
    if run.beside(self.kind)[0] is not self:
      return 0
    return self.last + 1 - run.others[self.kind][2]

  def left_at(self, run: 'Run') -> float:
    """Returns the same in µs, of which a wrong time stamp changes little."""
    return self.num_left_at(run) * (self.end - self.start) / self.count

  def continues(self, before: 'Run', run: 'Run') -> bool:
    """Returns whether more is left than belongs to another stream's `before`.

    Args:
      before: Run of the other stream.
      run: Next run of the other stream, whose start is the moment in question.
    """
    _, time = run.beside(self.kind)
    return self.left_at(run) > max(0, before.end - time) + _LAG

  def distance(self, run: 'Run') -> float:
    """Returns the µs from the start of another stream's `run` to this one."""
    current, time = run.beside(self.kind)
    return abs(run.start - time) if current is self else math.inf

  def begins_with(self, run: 'Run') -> bool:
    """Returns whether another stream's `run` belongs to the start of this."""
    # One stream may be read ahead of the other, but not when it is over.
    is_near = abs(run.start - self.start) <= NEAR
    is_under_way = is_near and self.left_at(run) > _LAG
    return is_under_way or self.distance(run) <= NEAR

  def absorb(self, later: 'Run') -> None:
    """Takes the packets of the run after it."""
    self.end = max(self.end, later.end)
    self.last = later.last
    self.count += later.count
    self.inserts += later.inserts
    later.whole = self


class StreamRuns:
  """Collects the runs of one stream.

  Attributes:
    kind: Kind of the stream.
    runs: Runs so far.
    count: Number of packets so far.
    keys: Time of display and ordinal of each key frame.

  Args:
    kind: Kind of the stream.
    has_restarts: Whether the clock may start again.
    is_in_order: Whether packets come as they lie in the file.
    max_gap: Gap in µs that is not yet a jump of the clock.
  """

  def __init__(
    self, kind: str, has_restarts: bool, is_in_order: bool, max_gap: int
  ):
    self.kind = kind
    self.runs = []
    self.count = 0
    self.keys = []
    self._has_restarts = has_restarts
    self._is_in_order = is_in_order
    self._max_gap = max_gap
    self._last_dts = None
    self._untimed = 0  # µs of the last packets, which have no times

  def add(
    self,
    packet: timeline.Packet,
    place: int,
    time: Callable[[int], int],
    streams: Iterable['StreamRuns'],
  ) -> None:
    """Takes the next packet.

    Args:
      packet: The packet.
      place: Its number among all packets that were read of the file.
      time: Returns the µs of a time stamp of the stream.
      streams: All streams of the file.
    """
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
        stream.kind: (stream.runs[-1], stream.runs[-1].end, stream.count)
        for stream in streams
        if stream is not self and stream.runs
      }
      self._open(Run(self.kind, ordinal, place, start, end, others, is_gap))
    run = self.runs[-1]
    run.count += 1
    run.last = ordinal
    run.start = min(run.start, start)
    run.end = max(run.end, end)
    self._last_dts = decoded
    if packet.is_keyframe and self.kind == timeline.VIDEO:
      self.keys.append((start, ordinal))

  def _break(self, start: int, decoded: int | None) -> tuple[bool, bool]:
    """Returns whether a new run begins, and whether that may follow a gap."""
    if not self.runs:
      return True, False
    if not self._has_restarts:
      return False, False
    last = self.runs[-1]
    if decoded is not None and self._last_dts is not None:
      is_back = decoded < self._last_dts - BACK
    else:
      is_back = start < last.end - _BACK_OF_DISPLAY
    if is_back:
      return True, False
    ahead = start - last.end
    return ahead > clock.SECOND, ahead <= self._max_gap

  def _open(self, run: Run) -> None:
    if len(self.runs) > 1:
      before, last = self.runs[-2:]
      if self._is_glitch(before, last, run):
        before.inserts.append((last.first, run.first))
        last.end = before.end
        before.absorb(self.runs.pop())
        run.whole = before
        return
      # Before it goes back, a gap may have been a jump.
      is_jump = run.start < last.end and last.start > before.end + LATE_START
      if last.follows_gap and not is_jump:
        before.absorb(self.runs.pop())
    self.runs.append(run)
    if len(self.runs) > _MAX_RUNS:
      raise errors.MediaError(
        f'the time stamps of its {self.kind} jump more than {_MAX_RUNS} times: '
        'they cannot be followed'
      )

  def _is_glitch(self, before: Run, last: Run, run: Run) -> bool:
    """Returns whether the stamps of `last` are wrong, between right ones."""
    if not self._is_in_order or run.start < before.end - BACK:
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

  def run_of(self, ordinal: int) -> Run:
    """Returns the run that a packet is in."""
    number = bisect.bisect_right(self.runs, ordinal, key=lambda run: run.first)
    return self.runs[number - 1]
