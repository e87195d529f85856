"""Readers of the packets of one stream, and the state of their reading."""

import abc
import bisect
import dataclasses

import av.error
import av.packet
import av.video.stream

from vatt_tf.media import clock, errors

# Maximum share of the packets of a span.
_MAX_DAMAGED_SHARE = 0.1


def decode_packet(packet: av.packet.Packet) -> list | None:
  """Returns the frames that a packet completes; None if it is damaged."""
  try:
    return packet.decode()
  except av.error.EOFError:
    return []
  except av.error.FFmpegError:
    return None


def frame_interval(stream: av.video.stream.VideoStream) -> int:
  """Returns the time between frames in µs, as far as the container knows."""
  rate = stream.average_rate or stream.guessed_rate or 25
  return round(clock.SECOND / min(max(rate, 1), 1000))


@dataclasses.dataclass
class Reading:
  """State of a stream while spans of it are read.

  Attributes:
    end: Time at which it ended, in µs, or None if it was not read to its end.
    first: Time of its first decoded frame or sample, in µs, or None.
    times: Times of all its frames or packets in µs, ascending.
    damaged: Times in µs of those that cannot be decoded.
  """

  end: int | None = None
  first: int | None = None
  times: list[int] = dataclasses.field(default_factory=list)
  damaged: list[int] = dataclasses.field(default_factory=list)

  def check_damage(self, start: int, end: int, what: str) -> None:
    """Raises `MediaError` if too much of [start, end) is damaged.

    Args:
      start: Start in µs.
      end: End in µs.
      what: Name of the stream, for the error.
    """
    times = sorted(self.times)
    total = bisect.bisect_left(times, end) - bisect.bisect_left(times, start)
    bad = sum(start <= time < end for time in self.damaged)
    total += bad
    if bad and bad > _MAX_DAMAGED_SHARE * total:
      raise errors.MediaError(
        f'its {what} is damaged: {bad} of {total} packets between '
        f'{clock.format_seconds(start)} and {clock.format_seconds(end)} cannot '
        'be decoded'
      )


class Reader(abc.ABC):
  """Takes the packets of one stream, in a pass over a file.

  Attributes:
    reading: State of the stream.
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
