"""Captions with times, from .srt, .vtt, json and csv files.

Every reader gives `Cue`s in the order of their start. Times are µs on the clock
of the media file. Text is cleaned for a model: mark-up (`<i>`, `<v Anna>`,
`{\\an8}`), HTML entities and line breaks are resolved, white space is single;
cues that hold nothing else are dropped. The rolling captions of video sites, in
which each cue repeats the last line of the one before, are told apart so that
each line comes once.
"""

from collections.abc import Iterable, Iterator, Set
import csv
import html
import io
import json
import math
import os
import re
from typing import NamedTuple

from vatt_tf.media import errors, text_files

EXTENSIONS = ('.srt', '.vtt', '.json')

ENCODING_OPTION = '--caption_encoding'

_SECOND = 1_000_000
_NEVER = 1 << 62

# The columns that a caption csv may name its parts by.
_CSV_COLUMNS = {
  'video': ('video_id', 'video_path', 'audio_path'),
  'start': ('start',),
  'end': ('end',),
  'text': ('text', 'caption', 'sentence', 'word'),
}

_TAG = re.compile(r'</?[a-zA-Z][^<>]*>|</>|<\d[\d:.]*>')
_BRACES = re.compile(r'\{\\[^{}]*\}|\{[a-zA-Z]:[^{}]*\}')
_CLOCK = re.compile(r'(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,6}))?')
_LANGUAGE = re.compile(r'[a-zA-Z]{2,3}(?:[-_][a-zA-Z0-9]+)*')


class Cue(NamedTuple):
  """One caption: its text, and its first and last moment in µs."""

  start: int
  end: int
  text: str


def clean(text: str) -> str:
  """Resolves mark-up, entities and white space of a caption's text."""
  text = _BRACES.sub('', _TAG.sub('', text))
  text = html.unescape(text).replace('\\N', ' ').replace('\\n', ' ')
  text = text.replace('\\h', ' ').replace('\u200b', '').replace('\ufeff', '')
  return ' '.join(text.split())


def parse_clock(text: str) -> int | None:
  """µs of `01:02:03,456`, `02:03.456` and the like; None if it is neither."""
  match = _CLOCK.fullmatch(text)
  if not match:
    return None
  hours, minutes, seconds, fraction = match.groups()
  whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
  return whole * _SECOND + int((fraction or '0').ljust(6, '0'))


def _parse_cues(text: str, path: str) -> list[Cue]:
  """Cues of SubRip and WebVTT, which differ in what they allow around them."""
  lines = text.split('\n')
  is_vtt = text.startswith('WEBVTT')
  raw = []
  i = 0
  while i < len(lines):
    if '-->' not in lines[i]:
      i += 1
      continue
    first, _, rest = lines[i].partition('-->')
    # WebVTT writes settings after the end, such as `align:start`.
    rest = rest.split()
    start = parse_clock(first.strip())
    end = parse_clock(rest[0]) if rest else None
    if start is None or end is None or end < start:
      raise errors.MediaError(
        f'{os.path.basename(path)}, line {i + 1}: expected a start, `-->` and '
        'an end that is not before it, such as `00:00:01,000 --> '
        f'00:00:04,000`. Received: {lines[i].strip()[:80]!r}'
      )
    i += 1
    body = []
    # In WebVTT a line of spaces does not end a cue: rolling captions have them.
    while (
      i < len(lines)
      and (lines[i] if is_vtt else lines[i].strip())
      and '-->' not in lines[i]
    ):
      body.append(lines[i])
      i += 1
    # A cue that follows without an empty line: its number is not our text.
    if i < len(lines) and '-->' in lines[i] and body and body[-1].isdigit():
      body.pop()
    raw.append((start, end, body))
  if not raw:
    raise errors.MediaError(
      f'{os.path.basename(path)} holds no caption: expected lines such as '
      '`00:00:01,000 --> 00:00:04,000`, each followed by its text.'
    )
  return _unroll(raw)


def _unroll(raw: Iterable[tuple[int, int, list[str]]]) -> list[Cue]:
  """Joins the lines of each cue; drops those repeated from the cue before."""
  cues = []
  shown, shown_until = '', -_NEVER
  for start, end, body in sorted(raw, key=lambda cue: cue[:2]):
    lines = [line for line in map(clean, body) if line]
    if lines and lines[0] == shown and start <= shown_until + _SECOND // 10:
      lines = lines[1:]
      if not lines:
        cues[-1] = cues[-1]._replace(end=max(end, cues[-1].end))
        shown_until = max(shown_until, end)
        continue
    if lines:
      cues.append(Cue(start, end, ' '.join(lines)))
      shown, shown_until = lines[-1], end
  return cues


def make_cues(
  starts: Iterable, ends: Iterable, texts: Iterable, where: str
) -> list[Cue]:
  """Cues from seconds and texts, cleaned and in order of time.

  Args:
    starts: Seconds; numbers or strings of numbers.
    ends: Seconds.
    texts: The captions.
    where: What they come from, for the error.

  Raises:
    errors.MediaError: The lists differ in length, or an entry is no number.
  """
  starts, ends, texts = list(starts), list(ends), list(texts)
  if not len(starts) == len(ends) == len(texts):
    raise errors.MediaError(
      f'{where}: `start`, `end` and `text` must have one length. Received: '
      f'{len(starts)} starts, {len(ends)} ends, {len(texts)} texts'
    )
  cues = []
  for i, (start, end, text) in enumerate(zip(starts, ends, texts)):
    try:
      start, end = float(start), float(end)
    except (TypeError, ValueError) as e:
      raise errors.MediaError(
        f'{where}, entry {i}: `start` and `end` must be seconds. Received: '
        f'start={start!r}, end={end!r}'
      ) from e
    if not (math.isfinite(start) and math.isfinite(end) and start <= end):
      raise errors.MediaError(
        f'{where}, entry {i}: `end` must not be before `start`. Received: '
        f'start={start}, end={end}'
      )
    text = clean(str(text))
    if text:
      cues.append(Cue(round(start * _SECOND), round(end * _SECOND), text))
  return sorted(cues)


def _json_cues(value, where: str) -> list[Cue]:
  """Cues of one video, in the forms that `read_captions` lists."""
  if isinstance(value, dict) and isinstance(value.get('segments'), list):
    value = value['segments']
  if isinstance(value, dict) and {'start', 'end', 'text'} <= value.keys():
    columns = [value[name] for name in ('start', 'end', 'text')]
    if all(isinstance(column, list) for column in columns):
      return make_cues(*columns, where)
    if not any(isinstance(column, (list, dict)) for column in columns):
      return make_cues(*([column] for column in columns), where)
  if isinstance(value, list) and all(
    isinstance(one, dict) and {'start', 'end', 'text'} <= one.keys()
    for one in value
  ):
    return make_cues(
      *([one[name] for one in value] for name in ('start', 'end', 'text')),
      where,
    )
  raise errors.MediaError(
    f'{where} holds no captions: expected {{"start": [...], "end": [...], '
    '"text": [...]}, or a list of {"start": ..., "end": ..., "text": ...}.'
  )


def read_captions(path: str, encoding: str = '') -> list[Cue]:
  """Reads the captions of one media file.

  Args:
    path: A .srt, a .vtt, or a .json file: `{"start": [...], "end": [...],
      "text": [...]}` in seconds, a list of such objects with single values, or
      `{"segments": [...]}` as speech recognisers write it.
    encoding: Of the text; '' for UTF-8. A byte order mark goes first.

  Returns:
    Cues in order of time.

  Raises:
    errors.MediaError: It cannot be read, is in another encoding or another
      form. The message names the file and the place.
  """
  text = text_files.read_text(path, encoding, ENCODING_OPTION)
  if os.path.splitext(path)[1].lower() != '.json':
    return _parse_cues(text, path)
  name = os.path.basename(path)
  try:
    value = json.loads(text)
  except json.JSONDecodeError as e:
    raise errors.MediaError(
      f'{name}, line {e.lineno}, is not json: {e.msg}.'
    ) from e
  return _json_cues(value, name)


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
  encoding = encoding or 'utf-8-sig'
  block = 1 << 22
  position = 0
  try:
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
  except OSError as e:
    raise errors.MediaError(f'{path} cannot be read: {e.strerror}.') from e


def _csv_table(
  path: str, wanted: Set[str], encoding: str
) -> dict[str, list[Cue]]:
  name = os.path.basename(path)
  text = text_files.read_text(path, encoding, ENCODING_OPTION)
  reader = csv.DictReader(io.StringIO(text, newline=''))
  header = [column.strip() for column in reader.fieldnames or []]
  reader.fieldnames = header
  columns = {}
  for part, spellings in _CSV_COLUMNS.items():
    columns[part] = next((one for one in spellings if one in header), '')
  missing = [part for part in ('video', 'text') if not columns[part]]
  if missing or bool(columns['start']) != bool(columns['end']):
    raise errors.MediaError(
      f'{name} must have a column for the video '
      f'({", ".join(_CSV_COLUMNS["video"])}) and one for the text '
      f'({", ".join(_CSV_COLUMNS["text"])}); `start` and `end` come together '
      f'or not at all. Received: {", ".join(header) or "no header"}'
    )
  rows = {}
  for row in reader:
    key = video_key((row[columns['video']] or '').strip())
    if key in wanted:
      where = f'{name}, line {reader.line_num}'
      if columns['start']:
        cues = make_cues(
          [row[columns['start']]],
          [row[columns['end']]],
          [row[columns['text']] or ''],
          where,
        )
      else:
        # No times: it speaks of the whole file.
        text = clean(row[columns['text']] or '')
        cues = [Cue(0, _NEVER, text)] if text else []
      rows.setdefault(key, []).extend(cues)
  return {key: sorted(cues) for key, cues in rows.items()}


def video_key(path: str) -> str:
  """What caption tables call a video: its file name without the extension.

  Any extension is taken off in the same way on both sides, so that a table may
  hold ids, file names or paths.
  """
  name = os.path.basename(path)
  stem, extension = os.path.splitext(name)
  return stem if re.fullmatch(r'\.[A-Za-z0-9]{2,5}', extension) else name


def read_table(
  path: str, wanted: Set[str], encoding: str = ''
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

  Returns:
    From video key to its cues, of the wanted videos that the file has.

  Raises:
    errors.MediaError: It cannot be read, or is in another form.
  """
  if os.path.splitext(path)[1].lower() == '.csv':
    return _csv_table(path, wanted, encoding)
  table = {}
  for key, value in _iterate_json_object(path, encoding):
    if video_key(key) in wanted:
      table[video_key(key)] = _json_cues(
        value, f'{os.path.basename(path)}, {key!r}'
      )
  return table


def in_span(
  cues: Iterable[Cue], start: int, end: int, margin: int = 0
) -> list[Cue]:
  """The cues that are shown at some time of [start - margin, end + margin)."""
  start, end = start - margin, end + margin
  return [
    cue
    for cue in cues
    if cue.start < end and (cue.end > start or cue.start >= start)
  ]
