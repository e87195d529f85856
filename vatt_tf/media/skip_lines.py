"""Lines of the skip report: clips without a record, and notes."""

from collections.abc import Iterable
import os
from typing import NamedTuple

from vatt_tf.media import clock, errors, manifest

# Beginning of the reasons of notes.
NOTE = 'note: '


class Skip(NamedTuple):
  """A line of the skip report.

  Attributes:
    file: Path of the file, as in the manifest.
    start: Start in seconds, or ''.
    end: End in seconds, or ''.
    reason: Reason why there is no record.
    is_failure: Whether it counts as failed; a file that is not media does not.
    is_note: Whether there is a record, from which a part of the file is
      missing.
  """

  file: str
  start: str
  end: str
  reason: str
  is_failure: bool = True
  is_note: bool = False


def skip_of(
  segment: manifest.Segment,
  start: int | None,
  end: int | None,
  error: errors.MediaError,
  is_listed: bool,
) -> Skip:
  """Returns the line of the skip report for a clip that failed.

  Args:
    segment: Segment of the clip.
    start: Start of the clip in µs, or None.
    end: End of the clip in µs, or None.
    error: Reason of the failure.
    is_listed: Whether a manifest lists the file, so that it must be media.
  """
  reason = str(error)
  extension = os.path.splitext(segment.path)[1].lower()
  is_failure = is_listed or extension in manifest.MEDIA_EXTENSIONS
  if not is_failure:
    reason = f'not a media file: {reason}'
  return Skip(segment.path, *_seconds(start, end), reason, is_failure)


def skip_of_note(segment: manifest.Segment, note: errors.Note) -> Skip:
  """Returns the line of the skip report for a part that was left out."""
  file = segment.path
  if note.file:
    file = os.path.join(os.path.dirname(file), note.file)
  times = _seconds(note.start, note.end)
  return Skip(file, *times, f'{NOTE}{note.reason}', False, True)


def without_repeated_notes(skips: Iterable[Skip]) -> list[Skip]:
  """Returns lines with each note once: tasks of a file may repeat a note."""
  skips = list(skips)
  notes = dict.fromkeys(skip for skip in skips if skip.is_note)
  return [skip for skip in skips if not skip.is_note] + list(notes)


def _seconds(*times: int | None) -> list[str]:
  return ['' if time is None else f'{time / clock.SECOND:g}' for time in times]
