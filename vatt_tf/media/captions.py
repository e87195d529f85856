"""Captions with times, from .srt, .vtt, json and csv files.

Every reader gives `Cue`s in the order of their start. Times are µs on the clock
of the media file. Text is cleaned for a model: mark-up (`<i>`, `<v Anna>`,
`{\\an8}`), HTML entities and line breaks are resolved, and it has the form of
`plain_text.clean`; cues that hold nothing else are dropped. Rolling captions,
in which a cue repeats lines of the one before, are told apart so that each line
comes once.

A cue or entry that cannot be used costs itself alone: it is left out, with a
note. So is the text that belongs to no cue.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
import html
import json
import math
import os
import re
from typing import NamedTuple
import unicodedata

from vatt_tf.core import plain_text
from vatt_tf.media import errors, text_files

EXTENSIONS = ('.srt', '.vtt', '.json')

ENCODING_OPTION = '--caption_encoding'

# The end of a cue that lasts until the end of the file.
OPEN_END = 1 << 62

# Notes on one caption file; one more counts the rest.
MAX_NOTES = 10

_SECOND = 1_000_000
# Of rolling captions, cues follow each other within this time.
_ROLL_GAP = _SECOND // 10
# No media file lasts longer than this.
_MAX_SECONDS = 1e9

# The columns that a caption csv may name its parts by.
_CSV_COLUMNS = {
  'video': ('video_id', 'video_path', 'audio_path'),
  'start': ('start',),
  'end': ('end',),
  'text': ('text', 'caption', 'sentence', 'word'),
}

# What a list of captions is called in the files of speech recognisers.
_JSON_LISTS = ('segments', 'chunks', 'transcription')

_TAG = re.compile(r'</?[a-zA-Z][^<>]*>|</>|<\d[\d:.]*>')
_BRACES = re.compile(r'\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}')
_CLOCK = re.compile(r'(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,6}))?')
_LANGUAGE = re.compile(r'[a-zA-Z]{2,3}(?:[-_][a-zA-Z0-9]+)*')

# Timing lines as they are and as editors and translators have spoilt them. A
# shift of all times can make some negative.
_LOOSE_CLOCK = (
  r'-?\s*(?:\d{1,5}\s*:\s*)?-?\d{1,2}\s*:\s*-?\d{1,2}'
  r'(?:\s*[.,:;]\s*-?\d{1,9})?'
)
_TIMING = re.compile(
  rf'(?:\d+\s+)?(?P<start>{_LOOSE_CLOCK})'
  r'(?P<arrow>\s*-->\s*|\s*(?:[-–—−=]\s*)*>+\s*|\s*[→⟶➔➜]\s*|[^\w]{1,8})'
  rf'(?P<end>{_LOOSE_CLOCK})(?P<rest>\s.*)?'
)
# What was meant as one.
_BAD_TIMING = re.compile(
  rf'(?:\d+\s+)?{_LOOSE_CLOCK}\s*-->.*|.*-->\s*\d+:\d+:\d+[.,]\d+(?:\s.*)?'
)
_CLOCK_PARTS = re.compile(
  r'(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2})(?:[.,:;](\d{1,9}))?'
)
# Of WebVTT (`align:start`) and of SubRip (`X1:100`).
_SETTING = re.compile(r'[A-Za-z][\w-]*[:=]\S*')
_COMMENT = re.compile(r'(?:NOTE|STYLE|REGION)(?:\s.*)?')


# Start, end and lines of a cue.
RawCue = tuple[int, int, list[str]]


class Cue(NamedTuple):
  """One caption: its text, and its first and last moment in µs.

  Attributes:
    start: µs.
    end: µs, or `OPEN_END`.
    text: As `clean` gives it.
  """

  start: int
  end: int
  text: str


class Notes:
  """What was left out of a caption file; of a long list the rest is counted.

  Args:
    file: The base name of the file.
  """

  def __init__(self, file: str):
    self._file = file
    self._reasons = []
    self._num_more = 0

  def add(self, reason: str) -> None:
    """Notes one thing."""
    if len(self._reasons) < MAX_NOTES:
      self._reasons.append(reason)
    else:
      self._num_more += 1

  def as_list(self) -> list[errors.Note]:
    """All of them, for the skip report."""
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
  """µs of `01:02:03,456`, `02:03.456` and the like; None if it is neither."""
  match = _CLOCK.fullmatch(text)
  return None if match is None else _microseconds(match)


def _microseconds(match: re.Match) -> int:
  hours, minutes, seconds, fraction = match.groups()
  whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
  return whole * _SECOND + int((fraction or '0').ljust(6, '0')[:6])


def _loose_clock(text: str) -> tuple[int, re.Match]:
  """µs of a clock with spaces or signs in it, and its parts."""
  match = _CLOCK_PARTS.fullmatch(re.sub(r'[\s-]', '', text))
  return _microseconds(match) * (-1 if '-' in text else 1), match


def _parse_timing(line: str) -> tuple[int, int, str] | None:
  """Start, end (µs) and text of a timing line; None if it is none."""
  if not re.search(r'\d', line):
    return None
  line = plain_text.clean_name(html.unescape(line))
  match = _TIMING.fullmatch(line)
  if match is None:
    return None
  start, start_parts = _loose_clock(match['start'])
  end, end_parts = _loose_clock(match['end'])
  if '-->' not in match['arrow']:
    # In another form it must be clearer that this is no text.
    has_arrow = re.search('[>→⟶➔➜]', match['arrow'])
    for hours, _, seconds, fraction in (
      start_parts.groups(),
      end_parts.groups(),
    ):
      is_clear = len(seconds) == 2 and len(fraction or '') > 1
      if not (is_clear and (hours or has_arrow)):
        return None
  rest = (match['rest'] or '').strip()
  is_setting = any(_SETTING.fullmatch(one) for one in rest.split())
  if is_setting or not re.search(r'\w', rest):
    rest = ''
  return start, end, rest


def _use_times(
  start: int, end: int, where: str, notes: Notes
) -> tuple[int, int] | None:
  """The times of a cue in the file; None, with a note, if they are not."""
  if end < start:
    reason = 'it ends before it starts'
  elif start < 0 and end <= 0:
    reason = 'it ends before the file starts'
  else:
    if start < 0:
      notes.add(f'{where}: it starts before the file does, so starts at 0')
    return max(start, 0), end
  notes.add(
    f'{where}: {reason}, so is left out. Received: start={start / _SECOND:g}, '
    f'end={end / _SECOND:g}'
  )
  return None


def _is_number(line: str) -> bool:
  return plain_text.clean_name(line).isdecimal()


class _CueLines:
  """Gathers the lines of SubRip and WebVTT files to cues.

  A cue goes on until the next timing line, less the number or the name above
  that line: blank lines inside a cue are a common fault.
  """

  def __init__(self, is_vtt: bool, notes: Notes):
    self._is_vtt = is_vtt
    self._notes = notes
    self._has_numbers = None
    # Those of the current cue; at first, and after a comment, of none.
    self._lines = []
    self._first_line = 1
    self._is_cue = False
    self.cues = []
    self.num_timings = 0
    self.num_stray = 0

  def add_text(self, number: int, line: str) -> None:
    """Takes a line that is no timing line."""
    if line.strip() and not any(one.strip() for one in self._lines):
      self._first_line = number
    self._lines.append(line)

  def add_timing(
    self, number: int, line: str, timing: tuple[int, int, str] | None
  ) -> None:
    """Takes a timing line; None for one that cannot be read."""
    self.num_timings += 1
    self._drop_name()
    self.end_cue()
    where = f'line {number}'
    times = None
    if timing is None:
      self._notes.add(
        f'{where}: expected a start, `-->` and an end, such as `00:00:01,000 '
        f'--> 00:00:04,000`; the cue is left out. Received: '
        f'{line.strip()[:80]!r}'
      )
    else:
      times = _use_times(*timing[:2], where, self._notes)
    # The lines of a cue that is left out go with it.
    self._lines = [timing[2]] if timing and timing[2] else []
    self._is_cue = True
    if times is not None:
      self.cues.append((*times, self._lines))

  def end_cue(self) -> None:
    """Ends a cue: what follows up to the next timing line is of none."""
    text = ' '.join(line.strip() for line in self._lines if line.strip())
    if text and not self._is_cue:
      self.num_stray += 1
      self._notes.add(
        f'line {self._first_line}: text that belongs to no cue is left out: '
        f'{text[:80]!r}'
      )
    self._lines = []
    self._is_cue = False

  def _drop_name(self) -> None:
    """Drops the number or name of the next cue from the lines of this one."""
    lines = self._lines
    last = len(lines) - 1
    while last >= 0 and not lines[last].strip():
      last -= 1
    is_number = last >= 0 and _is_number(lines[last])
    is_above = last >= 0 and last == len(lines) - 1
    # Alone: nothing stands right above it.
    is_alone = last > 0 and not lines[last - 1].strip()
    is_alone |= last == 0 and not self._is_cue
    if is_number and is_above:
      is_name = is_alone or self._has_numbers
    elif is_number:
      is_name = is_alone and self._has_numbers is not False
    else:
      is_name = is_above and is_alone and self._is_vtt
    if self._has_numbers is None:
      self._has_numbers = bool(is_name and is_number)
    if is_name:
      del lines[last:]


def _is_misspelt(lines: Sequence[str], i: int) -> bool:
  """Whether a SubRip line with `-->` was meant as a timing line."""
  if _BAD_TIMING.fullmatch(plain_text.clean_name(lines[i])):
    return True
  # Below a number that stands alone is the place of one.
  is_alone = i < 2 or not lines[i - 2].strip()
  return i > 0 and is_alone and _is_number(lines[i - 1])


def _raw_cues(text: str, is_vtt: bool, name: str, notes: Notes) -> list[RawCue]:
  """The cues of SubRip and WebVTT, which differ in what is around them."""
  lines = text.split('\n')
  cue_lines = _CueLines(is_vtt, notes)
  is_header = is_comment = False
  for i, line in enumerate(lines):
    is_blank = not line.strip()
    timing = _parse_timing(line)
    if is_vtt and (i == 0 or not lines[i - 1].strip()):
      is_header = plain_text.clean_name(line).startswith('WEBVTT')
      is_comment = bool(_COMMENT.fullmatch(line.strip()))
      if is_comment:
        cue_lines.end_cue()
    # Some leave out the blank line after the header.
    is_header &= not is_blank and timing is None
    is_comment &= not is_blank
    if is_header or is_comment:
      continue
    if timing is not None:
      cue_lines.add_timing(i + 1, line, timing)
    elif '-->' in line and (is_vtt or _is_misspelt(lines, i)):
      # In WebVTT, no text may hold an arrow.
      cue_lines.add_timing(i + 1, line, None)
    else:
      cue_lines.add_text(i + 1, line)
  cue_lines.end_cue()
  if not cue_lines.num_timings and cue_lines.num_stray:
    raise errors.MediaError(
      f'{name} holds no caption: expected lines such as `00:00:01,000 --> '
      '00:00:04,000`, each followed by its text.'
    )
  return cue_lines.cues


def unroll(raw: Iterable[RawCue]) -> list[Cue]:
  """Joins the lines of each cue, and drops those that the one before shows.

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
  """How many lines are the last ones that were shown; one may have grown."""
  for count in range(min(len(shown), len(lines)), 0, -1):
    old, new = shown[-count:], lines[:count]
    has_grown = new[-1].startswith(old[-1] + ' ')
    if old[:-1] == new[:-1] and (old[-1] == new[-1] or has_grown):
      return count
  return 0


def close_ends(raw: Iterable[tuple]) -> list[tuple]:
  """Gives cues without an end that of the next one's start.

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


# Json and tables.


def _seconds(value) -> float | None:
  """Seconds of a number or of a text; None for what is no time."""
  if isinstance(value, str):
    time = parse_clock(value.strip())
    if time is not None:
      return time / _SECOND
  try:
    seconds = math.nan if isinstance(value, bool) else float(value)
  except (TypeError, ValueError, OverflowError):
    return None
  return seconds if abs(seconds) <= _MAX_SECONDS else None


def _is_none(value) -> bool:
  """Whether it is what json and pandas write where there is no value."""
  if isinstance(value, str):
    return not value.strip() or plain_text.is_missing(value.strip())
  return value is None or isinstance(value, float) and math.isnan(value)


def make_cues(
  entries: Iterable[tuple], where: Iterable[str], notes: Notes
) -> list[Cue]:
  """Cues from seconds and texts, cleaned and in order of time.

  Args:
    entries: Start, end and text of each: seconds as numbers or text, the end
      None for that of the next start or of the file; a text that is None or
      NaN is no caption.
    where: What each of them is called in notes.
    notes: Takes what is left out.

  Returns:
    The cues that can be used.
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
    first = _seconds(start)
    is_open = _is_none(end)
    last = 0.0 if is_open else _seconds(end)
    if first is None or last is None:
      notes.add(
        f'{place}: `start` and `end` must be seconds, so it is left out. '
        f'Received: start={start!r}, end={end!r}'[:300]
      )
      continue
    end = OPEN_END if is_open else round(last * _SECOND)
    times = _use_times(round(first * _SECOND), end, place, notes)
    if times and clean(str(text)):
      cues.append((*times, str(text).split('\n')))
  cues = close_ends(cues)
  if any(len(lines) > 1 for *_, lines in cues):
    return unroll(cues)
  return [Cue(start, end, clean(text)) for start, end, (text,) in cues]


def _entry(value) -> tuple | None:
  """Start, end and text of one caption in json; None if it is none."""
  if not isinstance(value, dict) or 'text' not in value:
    return None
  text, times = value['text'], value.get('timestamp')
  if isinstance(times, list) and len(times) == 2:
    return *times, text
  times = value.get('offsets')
  if isinstance(times, dict):
    start, end = (_seconds(times.get(name)) for name in ('from', 'to'))
    if start is not None:
      return start / 1000, None if end is None else end / 1000, text
  if 'start' not in value:
    return None
  start, end = value['start'], value.get('end')
  if 'end' not in value and 'duration' in value:
    parts = _seconds(start), _seconds(value['duration'])
    end = value['duration'] if None in parts else sum(parts)
  return start, end, text


def _json_cues(value, name: str, where: str, notes: Notes) -> list[Cue]:
  """Cues of one video, in the forms that `read_captions` lists.

  Args:
    value: What json holds.
    name: What it is called in errors.
    where: What goes before the number of an entry in notes.
    notes: Takes the entries that are left out.
  """
  if isinstance(value, dict):
    lists = [one for one in _JSON_LISTS if isinstance(value.get(one), list)]
    columns = [value.get(one) for one in ('start', 'end', 'text')]
    if lists:
      value = value[lists[0]]
    elif isinstance(columns[0], list) and isinstance(columns[2], list):
      if columns[1] is None:
        columns[1] = [None] * len(columns[0])
      lengths = [len(one) if isinstance(one, list) else 1 for one in columns]
      if len(set(lengths)) > 1 or not isinstance(columns[1], list):
        raise errors.MediaError(
          f'{name}: `start`, `end` and `text` must have one length. Received: '
          f'{lengths[0]} starts, {lengths[1]} ends, {lengths[2]} texts'
        )
      value = [
        dict(zip(('start', 'end', 'text'), one)) for one in zip(*columns)
      ]
    elif _entry(value):
      value = [value]
  entries = [_entry(one) for one in value] if isinstance(value, list) else None
  if entries is None or entries and not any(entries):
    raise errors.MediaError(
      f'{name} holds no captions: expected {{"start": [...], "end": [...], '
      '"text": [...]}, or a list of {"start": ..., "end": ..., "text": ...}. '
      'If it is about something else, --captions=none reads no such file.'
    )
  good, places = [], []
  for i, (one, entry) in enumerate(zip(value, entries)):
    place = f'{where}entry {i}'
    if entry:
      good.append(entry)
      places.append(place)
    else:
      notes.add(
        f'{place}: expected `start`, `end` and `text`, so it is left out. '
        f'Received: {str(one)[:80]}'
      )
  return make_cues(good, places, notes)


def _load_json(text: str, name: str):
  try:
    return json.loads(text)
  except json.JSONDecodeError as e:
    reason, cause = f'{name}, line {e.lineno}, is not json: {e.msg}.', e
  except (ValueError, RecursionError) as e:
    # Of numbers with thousands of digits, and of thousands of brackets.
    reason, cause = f'{name} cannot be read as json: {e}.', e
  raise errors.MediaError(
    f'{reason} If it holds no captions, --captions=none reads no such file.'
  ) from cause


def read_captions(
  path: str, encoding: str = '', notes: Notes | None = None
) -> list[Cue]:
  """Reads the captions of one media file.

  Args:
    path: A .srt, a .vtt, or a .json file: `{"start": [...], "end": [...],
      "text": [...]}` in seconds, a list of such objects with single values, or
      `{"segments": [...]}` and the like as speech recognisers write it.
    encoding: Of the text; '' for UTF-8. A byte order mark goes first.
    notes: Takes what is left out, or None.

  Returns:
    Cues in order of time. None if the file is empty, as recognisers write it
    where nobody speaks.

  Raises:
    errors.MediaError: It cannot be read, is in another encoding or another
      form. The message names the file and the place.
  """
  name = os.path.basename(path)
  notes = Notes(name) if notes is None else notes
  text = text_files.read_text(path, encoding, ENCODING_OPTION)
  if not plain_text.clean(text):
    return []
  extension = os.path.splitext(path)[1].lower()
  if extension == '.json':
    return _json_cues(_load_json(text, name), name, '', notes)
  beginning = plain_text.clean(text[:99])
  is_vtt = extension == '.vtt' or beginning.startswith('WEBVTT')
  return unroll(_raw_cues(text, is_vtt, name, notes))


def read_for_clips(
  path: str, encoding: str = ''
) -> tuple[list[Cue] | None, list[errors.Note]]:
  """Reads the captions of a media file that does not depend on them.

  Args:
    path: See `read_captions`.
    encoding: Of the text.

  Returns:
    The cues, and notes on what was left out. A file that cannot be used gives
    None and a note.
  """
  notes = Notes(os.path.basename(path))
  try:
    cues = read_captions(path, encoding, notes)
  except errors.MediaError as e:
    cues, notes = None, Notes(os.path.basename(path))
    notes.add(f'no captions are taken from it: {e}')
  return cues, notes.as_list()


def find_beside(
  names: Iterable[str], media_name: str, language: str = ''
) -> str:
  """Picks the caption file that belongs to a media file of the same folder.

  `clip.mp4` takes `clip.srt`, `clip.vtt` or `clip.json`, or one with a language
  such as `clip.en.vtt`. With `language` that one goes first; otherwise the one
  without a language, then the first by name.

  Args:
    names: File names of the folder.
    media_name: Name of the media file.
    language: Such as `en` (which takes `en-US` too), or ''.

  Returns:
    One of the names, or ''.
  """
  stem = os.path.splitext(media_name)[0]
  found = []
  for name in names:
    base, extension = os.path.splitext(name)
    if extension.lower() not in EXTENSIONS or not base.startswith(stem):
      continue
    tag = base[len(stem) :]
    if tag and not (tag[0] == '.' and _LANGUAGE.fullmatch(tag[1:])):
      continue
    tag = tag[1:].lower().replace('_', '-')
    is_wanted = bool(language) and tag.split('-')[0] == language.lower()
    is_wanted = is_wanted or (bool(language) and tag == language.lower())
    rank = 0 if is_wanted else 1 if not tag else 2
    found.append(
      (rank, EXTENSIONS.index(extension.lower()), name.lower(), name)
    )
  # `info.json` and the like match the form of a language: never a json of rank
  # 2 unless it is asked for.
  found = [one for one in found if one[0] < 2 or one[1] < 2]
  return min(found)[-1] if found else ''


def _iterate_json_object(
  path: str, encoding: str
) -> Iterator[tuple[str, object]]:
  """The items of a json object, one at a time: the file may be of many GB."""
  name = os.path.basename(path)
  decoder = json.JSONDecoder()
  encoding = encoding or 'utf-8'
  block = 1 << 22
  position = 0
  try:
    with open(path, 'rb') as file:
      encoding = text_files.marked_encoding(file.read(4)) or encoding
    with open(path, encoding=encoding) as file:
      buffer, at_end = '', False

      def fill():
        nonlocal buffer, at_end
        more = file.read(block)
        at_end = not more
        buffer += more
        return not at_end

      def next_character(position):
        while True:
          while position < len(buffer) and buffer[position].isspace():
            position += 1
          if position < len(buffer) or not fill():
            return position, buffer[position : position + 1]

      def value_at(position):
        while True:
          try:
            value, end = decoder.raw_decode(buffer, position)
            # A number at the end of the buffer may go on.
            if end < len(buffer) or not fill():
              return value, end
          except json.JSONDecodeError as e:
            # What is cut off at the end of the buffer is not wrong yet.
            if not fill():
              raise e

      position, character = next_character(0)
      if character != '{':
        raise errors.MediaError(
          f'{name} must hold one object, {{video_id: {{"start": [...], "end": '
          '[...], "text": [...]}}}}.'
        )
      position, character = next_character(position + 1)
      while character != '}':
        if character != '"':
          raise errors.MediaError(
            f'{name} is cut off or is not json: expected a video id in quotes. '
            f'Received: {buffer[position : position + 40]!r}'
          )
        key, position = value_at(position)
        position, character = next_character(position)
        if character != ':':
          raise errors.MediaError(f'{name}: expected `:` after {key!r}.')
        position, _ = next_character(position + 1)
        value, position = value_at(position)
        yield key, value
        position, character = next_character(position)
        if character == ',':
          position, character = next_character(position + 1)
        elif character != '}':
          raise errors.MediaError(
            f'{name} is cut off or is not json after the captions of {key!r}.'
          )
        if position > block:
          buffer, position = buffer[position:], 0
  except json.JSONDecodeError as e:
    raise errors.MediaError(
      f'{name} is cut off or is not json: {e.msg}, near '
      f'{e.doc[e.pos : e.pos + 40]!r}.'
    ) from e
  except UnicodeDecodeError as e:
    raise errors.MediaError(
      f'{name} is not {encoding.upper()} text: byte '
      f'0x{e.object[e.start]:02x}. Give the encoding it was saved in, such as '
      f'{ENCODING_OPTION}=cp1252.'
    ) from e
  except (ValueError, RecursionError) as e:
    if isinstance(e, errors.MediaError):
      raise
    # Of numbers with thousands of digits, and of thousands of brackets.
    raise errors.MediaError(f'{name} cannot be read as json: {e}.') from e
  except OSError as e:
    raise errors.MediaError(f'{path} cannot be read: {e.strerror}.') from e


def _csv_table(
  path: str, wanted: Set[str], encoding: str, notes: Notes
) -> dict[str, list[Cue]]:
  name = os.path.basename(path)
  text = text_files.read_text(path, encoding, ENCODING_OPTION)
  known = [one for names in _CSV_COLUMNS.values() for one in names]
  table = text_files.CsvTable(text, name, known)
  columns = {}
  for part, spellings in _CSV_COLUMNS.items():
    columns[part] = next((one for one in spellings if one in table.header), '')
  missing = [part for part in ('video', 'text') if not columns[part]]
  if missing or bool(columns['start']) != bool(columns['end']):
    raise errors.MediaError(
      f'{name} must have a column for the video '
      f'({", ".join(_CSV_COLUMNS["video"])}) and one for the text '
      f'({", ".join(_CSV_COLUMNS["text"])}); `start` and `end` come together '
      f'or not at all. Received: {", ".join(table.header) or "no header"}'
    )
  rows = {}
  for line, cells in table.rows:
    place = f'line {line}'
    try:
      row = table.row(line, cells)
    except errors.MediaError as e:
      notes.add(f'{e}, so it is left out')
      continue
    key = video_key(row[columns['video']].strip())
    if key not in wanted:
      continue
    entries = rows.setdefault(key, [])
    text = row[columns['text']].strip()
    if plain_text.is_missing(text):
      notes.add(f'{place}: {text!r} stands for no text, so is no caption')
    elif columns['start']:
      entries.append(
        ((row[columns['start']], row[columns['end']], text), place)
      )
    else:
      # No times: it speaks of the whole file.
      entries.append(((0, None, text), place))
  return {
    key: make_cues(*zip(*entries), notes) if entries else []
    for key, entries in rows.items()
  }


def video_key(path: str) -> str:
  """What caption tables call a video: its file name without the extension.

  Any extension is taken off in the same way on both sides, so that a table may
  hold ids, file names or paths; accents have one form, which file systems may
  have changed.
  """
  name = unicodedata.normalize('NFC', os.path.basename(path))
  stem, extension = os.path.splitext(name)
  return stem if re.fullmatch(r'\.[A-Za-z0-9]{2,5}', extension) else name


def read_table(
  path: str,
  wanted: Set[str],
  encoding: str = '',
  notes: Notes | None = None,
) -> dict[str, list[Cue]]:
  """Reads a file with the captions of many videos.

  Args:
    path: A json file as HowTo100M's, `{video_id: {"start": [...], "end": [...],
      "text": [...]}}`, which is read item by item and may be of any size; or a
      csv file with columns `video_id`, `start`, `end`, `text` (or `video_path`,
      and `caption`, `sentence` or `word`; without times a caption belongs to
      the whole file).
    wanted: The `video_key`s to keep.
    encoding: Of the text; '' for UTF-8.
    notes: Takes the entries that are left out, or None.

  Returns:
    From video key to its cues, of the wanted videos that the file has.

  Raises:
    errors.MediaError: It cannot be read, or is in another form.
  """
  notes = Notes(os.path.basename(path)) if notes is None else notes
  if os.path.splitext(path)[1].lower() == '.csv':
    return _csv_table(path, wanted, encoding, notes)
  table = {}
  for key, value in _iterate_json_object(path, encoding):
    if video_key(key) in wanted:
      try:
        cues = _json_cues(value, repr(key), f'{key!r}, ', notes)
      except errors.MediaError as e:
        notes.add(f'no captions are taken from it: {e}')
        cues = []
      # `a` and `a.mp4` are one video.
      table[video_key(key)] = sorted(table.get(video_key(key), []) + cues)
  return table


def in_span(
  cues: Iterable[Cue], start: int, end: int, margin: int = 0
) -> list[Cue]:
  """The cues that are shown at some time of [start - margin, end + margin).

  One that lasts until the end of the file ends with the span.
  """
  first, last = start - margin, end + margin
  return [
    cue._replace(end=max(cue.start, end)) if cue.end >= OPEN_END else cue
    for cue in cues
    if cue.start < last and (cue.end > first or cue.start >= first)
  ]
