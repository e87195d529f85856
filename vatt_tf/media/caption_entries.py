"""Cues from entries with a start, an end and a text, such as those of json."""

from collections.abc import Iterable
import json
import math

from vatt_tf.core import plain_text
from vatt_tf.media import caption_cues, clock, errors

# No media file lasts longer than this.
_MAX_SECONDS = 1e9

# Keys of the list of captions in files of speech recognisers.
_JSON_LISTS = ('segments', 'chunks', 'transcription')


def _parse_seconds(value: object) -> float | None:
  """Returns the seconds of a number or a text; None if it is not a time."""
  if isinstance(value, str):
    time = caption_cues.parse_clock(value.strip())
    if time is not None:
      return time / clock.SECOND
  try:
    seconds = math.nan if isinstance(value, bool) else float(value)
  except (TypeError, ValueError, OverflowError):
    return None
  return seconds if abs(seconds) <= _MAX_SECONDS else None


def _is_none(value) -> bool:
  """Returns whether json or pandas write this for a missing value."""
  if isinstance(value, str):
    return not value.strip() or plain_text.is_missing(value.strip())
  return value is None or isinstance(value, float) and math.isnan(value)


def make_cues(
  entries: Iterable[tuple], where: Iterable[str], notes: caption_cues.Notes
) -> list[caption_cues.Cue]:
  """Returns cues from seconds and texts, cleaned and in order of time.

  Args:
    entries: Start, end and text of each: seconds as numbers or text, the end
      None for that of the next start or of the file; a text that is None or NaN
      is no caption.
    where: Name of each entry in notes.
    notes: Takes a note for each entry that is left out.

  Returns:
    The usable cues.
  """
  cues = []
  for (start, end, text), place in zip(entries, where):
    if text is None or isinstance(text, float) and not math.isfinite(text):
      continue
    if isinstance(text, (bool, list, dict)):
      notes.add(
        f'{place}: `text` must be a text, so it is left out. Received: '
        f'text={text!r}'[:300]
      )
      continue
    first = _parse_seconds(start)
    is_open = _is_none(end)
    last = 0.0 if is_open else _parse_seconds(end)
    if first is None or last is None:
      notes.add(
        f'{place}: `start` and `end` must be seconds, so it is left out. '
        f'Received: start={start!r}, end={end!r}'[:300]
      )
      continue
    end = caption_cues.OPEN_END if is_open else round(last * clock.SECOND)
    times = caption_cues.use_times(
      round(first * clock.SECOND), end, place, notes
    )
    if times and caption_cues.clean(str(text)):
      cues.append((*times, str(text).split('\n')))
  cues = caption_cues.close_ends(cues)
  if any(len(lines) > 1 for *_, lines in cues):
    return caption_cues.unroll(cues)
  return [
    caption_cues.Cue(start, end, caption_cues.clean(text))
    for start, end, (text,) in cues
  ]


def _entry(value) -> tuple | None:
  """Returns start, end and text of a caption in json; None if it is none."""
  if not isinstance(value, dict) or 'text' not in value:
    return None
  text, times = value['text'], value.get('timestamp')
  if isinstance(times, list) and len(times) == 2:
    return *times, text
  times = value.get('offsets')
  if isinstance(times, dict):
    start, end = (_parse_seconds(times.get(name)) for name in ('from', 'to'))
    if start is not None:
      return start / 1000, None if end is None else end / 1000, text
  if 'start' not in value:
    return None
  start, end = value['start'], value.get('end')
  if 'end' not in value and 'duration' in value:
    parts = _parse_seconds(start), _parse_seconds(value['duration'])
    end = value['duration'] if None in parts else sum(parts)
  return start, end, text


def read_json(
  value: object, name: str, where: str, notes: caption_cues.Notes
) -> list[caption_cues.Cue]:
  """Returns the cues of one video from what a json file holds.

  Args:
    value: Content in one of the forms of `caption_files.read_captions`.
    name: Name of the content in errors.
    where: Text before the number of an entry in notes.
    notes: Takes a note for each entry that is left out.

  Raises:
    errors.MediaError: The content has another form.
  """
  if isinstance(value, dict):
    lists = [key for key in _JSON_LISTS if isinstance(value.get(key), list)]
    columns = [value.get(key) for key in ('start', 'end', 'text')]
    if lists:
      value = value[lists[0]]
    elif isinstance(columns[0], list) and isinstance(columns[2], list):
      if columns[1] is None:
        columns[1] = [None] * len(columns[0])
      lengths = [
        len(column) if isinstance(column, list) else 1 for column in columns
      ]
      if len(set(lengths)) > 1 or not isinstance(columns[1], list):
        raise errors.MediaError(
          f'{name}: `start`, `end` and `text` must have the same length. '
          f'Received: {lengths[0]} starts, {lengths[1]} ends and '
          f'{lengths[2]} texts'
        )
      value = [
        dict(zip(('start', 'end', 'text'), row)) for row in zip(*columns)
      ]
    elif _entry(value):
      value = [value]
  entries = list(map(_entry, value)) if isinstance(value, list) else None
  if entries is None or entries and not any(entries):
    raise errors.MediaError(
      f'{name} holds no captions: expected {{"start": [...], "end": [...], '
      '"text": [...]}, or a list of {"start": ..., "end": ..., "text": ...}. '
      'If it is about something else, --captions=none reads no such file.'
    )
  good, places = [], []
  for i, (item, entry) in enumerate(zip(value, entries)):
    place = f'{where}entry {i}'
    if entry:
      good.append(entry)
      places.append(place)
    else:
      notes.add(
        f'{place}: expected `start`, `end` and `text`, so it is left out. '
        f'Received: {str(item)[:80]}'
      )
  return make_cues(good, places, notes)


def parse_json(text: str, name: str) -> object:
  """Returns the content of a json file.

  Args:
    text: Text of the file.
    name: Base name of the file, for errors.

  Raises:
    errors.MediaError: The text is not json.
  """
  try:
    return json.loads(text)
  except json.JSONDecodeError as e:
    reason, cause = f'{name}, line {e.lineno}, is not json: {e.msg}.', e
  except (ValueError, RecursionError) as e:
    # Raised for numbers with thousands of digits, and thousands of brackets.
    reason, cause = f'{name} cannot be read as json: {e}.', e
  raise errors.MediaError(
    f'{reason} If it holds no captions, --captions=none reads no such file.'
  ) from cause
