"""Parts of a file that share one clock: runs of sound and picture."""

from collections.abc import Sequence
import math

from vatt_tf.media import clock, errors, timeline_runs

# How far streams of a part may lie from each other in the file after a gap; how
# near they are where a part begins; and where nothing has happened.
_INTERLEAVING = 5 * clock.SECOND
_BESIDE = clock.SECOND
# Packets of the part before that a demuxer gives after the first of a new one.
_MAX_HELD_PACKETS = 2


class Part:
  """Runs that share one clock.

  Attributes:
    runs: Runs of the part, of which `run` is the first.
    offset: Time in µs to add to its time stamps.

  Args:
    run: First run.
  """

  def __init__(self, run: timeline_runs.Run):
    self.runs = [run]
    self.offset = 0

  @property
  def start(self) -> int:
    """The earliest time of display in µs."""
    return min(run.start for run in self.runs)

  @property
  def end(self) -> int:
    """The latest end in µs."""
    return max(run.end for run in self.runs)

  def others(self, kind: str) -> list[timeline_runs.Run]:
    """Returns the runs of other streams."""
    return [run for run in self.runs if run.kind != kind]

  def distance(self, run: timeline_runs.Run) -> float:
    """Returns the µs from the start of a run to the nearest other stream."""
    return min(
      (other.distance(run) for other in self.others(run.kind)),
      default=math.inf,
    )


def align(
  streams: Sequence[timeline_runs.StreamRuns],
) -> tuple[list[Part], list[tuple[timeline_runs.Run, int]]]:
  """Puts runs together that belong together.

  Args:
    streams: Runs of the streams of picture and sound.

  Returns:
    The parts in the order of the file, and the runs without a part, each with
    the time at which it begins, as far as the other streams tell.
  """
  parts, dropped = [], []
  last = {}  # From the kind of a stream to its last run, and its part.
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
      parts.append(Part(run))
    else:
      parts[number].runs.append(run)
    last[run.kind] = run, number
  return parts, dropped


def pair(streams: Sequence[timeline_runs.StreamRuns]) -> list[Part]:
  """Puts the first runs of all streams together, the second ones and so on.

  Raises:
    errors.MediaError: Some streams have more runs than others.
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
    parts.append(Part(first))
    parts[-1].runs += others
  return parts


def _part_of_first(
  run: timeline_runs.Run,
  parts: Sequence[Part],
  every: Sequence[timeline_runs.Run],
) -> int:
  """Returns the number of the part of a stream's first run.

  Args:
    run: First run of a stream.
    parts: All parts so far.
    every: All runs of the file.

  Returns:
    Number of a part; the number of parts stands for a new one.
  """
  if not parts:
    return 0
  number = len(parts) - 1
  others = parts[number].others(run.kind)
  if any(other.num_left_at(run) > _MAX_HELD_PACKETS for other in others):
    return number
  # The others are over. Either they are far ahead, or one of them starts again
  # where this stream does: it is to that recording that it belongs.
  is_behind = all(
    run.start < run.beside(other.kind)[1] - timeline_runs.NEAR
    for other in others
  )
  is_joined = any(
    other.start < run.beside(other.kind)[1] - timeline_runs.BACK
    and other.beside(run.kind)[1] <= run.start + timeline_runs.NEAR
    and run.distance(other) <= timeline_runs.NEAR
    for other in every
    if other.kind in run.others
  )
  return number + 1 if is_behind or is_joined else number


def _part_of_next(
  run: timeline_runs.Run,
  before: timeline_runs.Run,
  number: int,
  parts: Sequence[Part],
) -> int | None:
  """Returns the number of the part of a run that does not follow the last one.

  Args:
    run: Run of a stream.
    before: Run before it of the same stream.
    number: Number of the part of `before`.
    parts: All parts so far.

  Returns:
    Number of a part; the number of parts stands for a new one; None if the run
    cannot be placed.
  """
  part = parts[number]
  is_forward = run.start >= before.end - timeline_runs.BACK
  # A stream may have long gaps, which the others fill.
  if is_forward and part.distance(run) <= _INTERLEAVING:
    return number
  for later in range(number + 1, len(parts)):
    if any(other.begins_with(run) for other in parts[later].others(run.kind)):
      return later
  if not any(other.continues(before, run) for other in part.others(run.kind)):
    return len(parts)
  # This stream alone jumps, and the others continue as before: by a little, or
  # back to where they are.
  is_small = not is_forward and before.end - run.start <= clock.SECOND
  if is_small or part.distance(run) <= _BESIDE:
    return number
  return None
