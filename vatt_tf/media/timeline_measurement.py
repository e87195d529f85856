"""Finds the clock of a file from its packets.

All packets of a file are read once, without decoding. Packets of one stream
whose time stamps follow each other are a run. Runs of sound and picture that
belong together form a part, so that both are always shifted by the same time:
sound never comes to lie over the picture of another part. Packets without a
place are dropped and named.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import math

from vatt_tf.media import clock, errors, timeline, timeline_parts, timeline_runs

# In all streams at once, a gap of less is a gap: a still picture, silence.
MAX_GAP = 600 * clock.SECOND
MAX_GAP_OF_LIVE_STREAMS = 10 * clock.SECOND
_LATE_STREAMS = 'streams that begin inside the file are left out'


def measure(
  packets: Iterable[timeline.Packet],
  time: Callable[[int, object], int],
  has_restarts: bool = True,
  is_in_order: bool = True,
  max_gap: int = MAX_GAP,
  has_late_streams: Callable[[], bool] = lambda: False,
) -> timeline.Timeline:
  """Reads all packets of a file and finds its clock.

  Args:
    packets: All packets from the beginning of the file.
    time: Returns the µs of a time stamp of a stream.
    has_restarts: Whether the clock may start again; else all time stamps are
      taken as they are.
    is_in_order: Whether packets come as they lie in the file, where streams are
      interleaved. Otherwise parts are told by their number alone.
    max_gap: Gap in µs: a longer one in all streams at once is a jump of the
      clock. `MAX_GAP`, or `MAX_GAP_OF_LIVE_STREAMS`.
    has_late_streams: Returns, after the last packet, whether there are streams
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
    if kind in timeline.OTHER.values():
      continue
    if kind not in streams:
      streams[kind] = timeline_runs.StreamRuns(
        kind, has_restarts, is_in_order, max_gap
      )
      stream = packet.stream
      times[kind] = lambda stamp, stream=stream: time(stamp, stream)
    if kind == timeline.TEXT:
      text_places.append(place)
      streams[kind].count += 1
    else:
      streams[kind].add(packet, place, times[kind], streams.values())
  # A stream that begins where the one that is read has ended takes its place.
  is_late = has_late_streams() or any(
    first_places.get(other, -1) > last_places.get(kind, math.inf)
    for kind, other in timeline.OTHER.items()
  )
  sources = [
    stream for kind, stream in streams.items() if kind != timeline.TEXT
  ]
  num_packets = {kind: stream.count for kind, stream in streams.items()}
  for stream in sources:
    stream.close()
  runs = [run for stream in sources for run in stream.runs]
  if not has_restarts or not is_in_order:
    parts, dropped = timeline_parts.pair(sources), []
  else:
    parts, dropped = timeline_parts.align(sources)
  if len(parts) <= 1 and not dropped and not any(run.inserts for run in runs):
    ends = {}
    for run in runs:
      ends[run.kind] = max(run.end, ends.get(run.kind, run.end))
    notes = (errors.Note(_LATE_STREAMS),) if is_late else ()
    return timeline.Timeline(ends, num_packets, num_bytes, notes=notes)
  line = _shifted(sources, parts, dropped, num_packets, text_places, is_late)
  return dataclasses.replace(line, num_bytes=num_bytes)


def _shifted(
  streams: Sequence[timeline_runs.StreamRuns],
  parts: list[timeline_parts.Part],
  dropped: Sequence[tuple[timeline_runs.Run, int]],
  num_packets: dict[str, int],
  text_places: Sequence[int],
  has_late_streams: bool,
) -> timeline.Timeline:
  """Returns the timeline of a file with several clocks."""
  notes = [
    errors.Note(
      f'{run.count} packets of its {run.kind} are left out: their time stamps '
      'jump, while those of its other stream continue, so that they cannot be '
      'placed',
      start=time,
    )
    for run, time in dropped
  ]
  if parts[0].start > timeline_runs.LATE_START:
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
    of_stream = []
    for run in stream.runs:
      offset = offsets.get(run, timeline.DROPPED)
      of_stream.append(timeline.Shift(run.first, offset))
      for first, after in run.inserts:
        of_stream += [
          timeline.Shift(first, timeline.UNKNOWN),
          timeline.Shift(after, offset),
        ]
    shifts[stream.kind] = tuple(of_stream)
    placed = [run.end + offsets[run] for run in stream.runs if run in offsets]
    if placed:
      ends[stream.kind] = max(placed)
  if text_places:
    shifts[timeline.TEXT] = tuple(
      timeline.Shift(ordinal, _offset_at(place, parts))
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
    if timeline.VIDEO not in {run.kind for run in part.runs}
  ]
  return timeline.Timeline(
    ends,
    num_packets,
    shifts=shifts,
    keys=tuple(sorted(keys)),
    unseen=tuple(unseen) if timeline.VIDEO in ends else (),
    notes=tuple(notes),
  )


def _without_unread_sound(
  parts: Sequence[timeline_parts.Part],
) -> list[timeline_parts.Part]:
  """Returns the first parts, up to one that lacks a stream of the first part.

  Such a part has the stream under another number: silence would stand over its
  picture.
  """
  kinds = {run.kind for run in parts[0].runs}
  kept = [parts[0]]
  for part in parts[1:]:
    if kinds - {run.kind for run in part.runs}:
      break
    kept.append(part)
  return kept


def _offset_at(place: int, parts: Sequence[timeline_parts.Part]) -> int:
  """Returns the offset of the part that a place in the file belongs to."""
  offset = 0
  for part in parts:
    if min(run.place for run in part.runs) <= place:
      offset = part.offset
  return offset
