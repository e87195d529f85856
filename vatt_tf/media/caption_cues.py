"""Captions with times: clean text, rolling captions, spans, and notes."""

from collections.abc import Iterable, Sequence
import html
import re
from typing import NamedTuple

from vatt_tf.core import plain_text
from vatt_tf.media import clock, errors

# The end of a cue that lasts until the end of the file.
OPEN_END = 1 << 62

# Notes on one caption file; one more counts the rest.
MAX_NOTES = 10

# Cues of rolling captions follow each other within this time.
_ROLL_GAP = clock.SECOND // 10

_TAG = re.compile(r'</?[a-zA-Z][^<>]*>|</>|<\d[\d:.]*>')
_BRACES = re.compile(r'\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}')
_CLOCK = re.compile(r'(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,6}))?')

# Start, end and lines of a cue.
RawCue = tuple[int, int, list[str]]


class Cue(NamedTuple):
  """One caption: its text, and when it is shown.

  Attributes:
    start: Start in µs.
    end: End in µs, or `OPEN_END`.
    text: Text as `clean` returns it.
  """

  start: int
  end: int
  text: str


class Notes:
  """Notes on what was left out of a caption file; the rest is counted.

  Args:
    file: Base name of the file.
  """

  def __init__(self, file: str):
    self._file = file
    self._reasons = []
    self._num_more = 0

  def add(self, reason: str) -> None:
    """Adds a note."""
    if len(self._reasons) < MAX_NOTES:
      self._reasons.append(reason)
    else:
      self._num_more += 1

  def as_list(self) -> list[errors.Note]:
    """Returns the notes, for the skip report."""
    reasons = list(self._reasons)
    if self._num_more:
      reasons.append(f'and {self._num_more} more of the kind in this file')
    return [errors.Note(reason, file=self._file) for reason in reasons]


def clean(text: str) -> str:
  """Resolves mark-up, entities and white space of a caption's text."""
  text = _BRACES.sub('', _TAG.sub('', text))
  text = html.unescape(text)
  for mark in ('\\N', '\\n', '\\h'):
    text = text.replace(mark, ' ')
  return plain_text.clean(text)


def parse_clock(text: str) -> int | None:
  """Returns the µs of `01:02:03,456`, `02:03.456` and the like, or None."""
  match = _CLOCK.fullmatch(text)
  return None if match is None else match_to_time(match)


def match_to_time(match: re.Match) -> int:
  """Returns the µs of groups of hours, minutes, seconds and fraction."""
  hours, minutes, seconds, fraction = match.groups()
  whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
  return whole * clock.SECOND + int((fraction or '0').ljust(6, '0')[:6])


def use_times(
  start: int, end: int, where: str, notes: Notes
) -> tuple[int, int] | None:
  """Returns the times of a cue inside the file.

  Args:
    start: Start in µs; may be negative.
    end: End in µs.
    where: Place of the cue in the file, for notes.
    notes: Takes a note where the times have to change.

  Returns:
    Start and end, or None if the cue cannot be used.
  """
  if end < start:
    reason = 'it ends before it starts'
  elif start < 0 and end <= 0:
    reason = 'it ends before the file starts'
  else:
    if start < 0:
      notes.add(f'{where}: it starts before the file does, so it starts at 0')
    return max(start, 0), end
  notes.add(
    f'{where}: {reason}, so it is left out. Received: '
    f'start={start / clock.SECOND:g}, end={end / clock.SECOND:g}'
  )
  return None


def unroll(raw: Iterable[RawCue]) -> list[Cue]:
  """Joins the lines of each cue, and drops lines that the one before shows.

  Of rolling captions a cue begins with the last lines of the one before, any
  number of them; the last of them may have grown.

  Args:
    raw: Start and end, in µs, and lines of each cue.

  Returns:
    Cues in order of time.
  """
  cues = []
  shown, shown_until = [], -OPEN_END
  for start, end, body in sorted(raw, key=lambda cue: cue[:2]):
    lines = [line for line in map(clean, body) if line]
    if not lines:
      continue
    is_next = start <= shown_until + _ROLL_GAP
    num_shown = _num_repeated(shown, lines) if is_next else 0
    if num_shown:
      # The caption of the last line lasts on, and grows with it.
      grown = lines[num_shown - 1].removeprefix(shown[-1])
      last = cues[-1]
      if grown or num_shown == len(lines):
        cues[-1] = Cue(last.start, max(end, last.end), last.text + grown)
    if num_shown < len(lines):
      cues.append(Cue(start, end, ' '.join(lines[num_shown:])))
    shown = lines
    shown_until = end if num_shown < len(lines) else max(shown_until, end)
  return cues


def _num_repeated(shown: Sequence[str], lines: Sequence[str]) -> int:
  """Returns how many lines were shown last, of which one may have grown."""
  for count in range(min(len(shown), len(lines)), 0, -1):
    old, new = shown[-count:], lines[:count]
    has_grown = new[-1].startswith(old[-1] + ' ')
    if old[:-1] == new[:-1] and (old[-1] == new[-1] or has_grown):
      return count
  return 0


def close_ends(raw: Iterable[tuple]) -> list[tuple]:
  """Ends cues without an end where the next one starts.

  Args:
    raw: Tuples of start and end in µs, the end `OPEN_END` where none is known,
      and anything more.

  Returns:
    The same in order of time; the last ones may keep `OPEN_END`.
  """
  raw = sorted(raw, key=lambda cue: cue[:2])
  next_start = OPEN_END
  closed = []
  for i, (start, end, *rest) in reversed(list(enumerate(raw))):
    if i + 1 < len(raw) and raw[i + 1][0] > start:
      next_start = raw[i + 1][0]
    closed.append((start, next_start if end == OPEN_END else end, *rest))
  return closed[::-1]


def in_span(
  cues: Iterable[Cue], start: int, end: int, margin: int = 0
) -> list[Cue]:
  """Returns the cues that are shown at some time of a span.

  One that lasts until the end of the file ends with the span.

  Args:
    cues: Cues of the file.
    start: Start of the span in µs.
    end: End of the span in µs.
    margin: Time before and after the span, in µs, that belongs to it.
  """
  first, last = start - margin, end + margin
  return [
    cue._replace(end=max(cue.start, end)) if cue.end >= OPEN_END else cue
    for cue in cues
    if cue.start < last and (cue.end > first or cue.start >= first)
  ]
