"""One clock for a file whose time stamps start again, jump or wrap.

Joined recordings (`cat a.ts b.ts`), live streams that were interrupted and
33-bit counters that wrap give files in which a time stamp may stand for several
moments. Players move what follows a jump to the end of what came before; a
`Timeline` says by how much the packets of each stream are to be shifted, and
where each ends. `timeline_measurement` finds it from all packets of a file.
"""

import collections
from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import av.packet
import av.stream

from vatt_tf.media import clock, errors

VIDEO, AUDIO, TEXT = 'video', 'audio', 'text'

# Streams of these types that are not read.
OTHER = {VIDEO: 'other video', AUDIO: 'other audio'}

# Marks of `Shift.offset` beside an offset in µs.
UNKNOWN = 'unknown'  # the stamp is wrong: the packet follows the one before
DROPPED = 'dropped'  # it cannot be placed


class Packet(NamedTuple):
  """Time stamps and place of a packet.

  Attributes:
    kind: Kind of its stream: `VIDEO`, `AUDIO`, `TEXT`, or one of `OTHER`.
    pts: Time of display, in ticks of the stream, or None.
    dts: Time of decoding, in ticks of the stream, or None.
    duration: Duration in ticks of the stream; 0 if unknown.
    size: Bytes of the packet.
    pos: Position in the file, or None.
    is_keyframe: Whether decoding can begin with it.
    stream: Stream of the packet.
  """

  kind: str
  pts: int | None
  dts: int | None
  duration: int
  size: int
  pos: int | None
  is_keyframe: bool
  stream: av.stream.Stream


@dataclasses.dataclass(frozen=True)
class Shift:
  """Change of the time stamps of a stream from one packet on.

  Attributes:
    ordinal: Number of the packet among those of its stream, from 0.
    offset: Time in µs to add, `UNKNOWN` or `DROPPED`.
  """

  ordinal: int
  offset: int | str


@dataclasses.dataclass(frozen=True)
class Timeline:
  """Times of the packets of a file.

  Attributes:
    ends: Time in µs at which the last packet of a stream ends, on the clock
      without jumps, by the kind of the stream; of streams with times alone.
    num_packets: Number of packets of a stream, by its kind.
    num_bytes: Bytes up to the last packet in the file, as far as known.
    shifts: Shifts of a stream in order, by its kind; empty where no time stamp
      has to be changed.
    keys: Time and ordinal of each key frame, in order; empty without shifts.
    unseen: Start and end (µs) of parts that have no picture, where others have.
    notes: Notes on packets that cannot be placed.
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

  Args:
    shifts: Shifts of the stream, in order.
  """

  def __init__(self, shifts: Sequence[Shift]):
    self.ordinal = -1
    self._waiting = collections.deque(shifts)
    self._offset = self._ticks = 0

  def apply(self, packet: av.packet.Packet) -> bool:
    """Changes the time stamps of the next packet.

    Returns:
      Whether the packet is kept.
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
