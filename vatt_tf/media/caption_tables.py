"""Captions of many videos in one json or csv file."""

from collections.abc import Iterator, Set
import json
import os
import re
import unicodedata

from vatt_tf.core import plain_text
from vatt_tf.media import (
  caption_cues,
  caption_entries,
  caption_files,
  errors,
  text_files,
)

# The columns that a caption csv may name its parts by.
_CSV_COLUMNS = {
  'video': ('video_id', 'video_path', 'audio_path'),
  'start': ('start',),
  'end': ('end',),
  'text': ('text', 'caption', 'sentence', 'word'),
}


def _iterate_json_object(
  path: str, encoding: str
) -> Iterator[tuple[str, object]]:
  """Yields the items of a json object one by one, as it may have many GB."""
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
            # A number at the end of the buffer may continue.
            if end < len(buffer) or not fill():
              return value, end
          except json.JSONDecodeError as e:
            # A value that the end of the buffer cuts off is not wrong yet.
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
      f'{caption_files.ENCODING_OPTION}=cp1252.'
    ) from e
  except (ValueError, RecursionError) as e:
    if isinstance(e, errors.MediaError):
      raise
    # Raised for numbers with thousands of digits, and thousands of brackets.
    raise errors.MediaError(f'{name} cannot be read as json: {e}.') from e
  except OSError as e:
    raise errors.MediaError(f'{path} cannot be read: {e.strerror}.') from e


def _csv_table(
  path: str, wanted: Set[str], encoding: str, notes: caption_cues.Notes
) -> dict[str, list[caption_cues.Cue]]:
  name = os.path.basename(path)
  text = text_files.read_text(path, encoding, caption_files.ENCODING_OPTION)
  known = [name for names in _CSV_COLUMNS.values() for name in names]
  table = text_files.CsvTable(text, name, known)
  columns = {}
  for part, spellings in _CSV_COLUMNS.items():
    columns[part] = next(
      (name for name in spellings if name in table.header), ''
    )
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
      notes.add(f'{place}: {text!r} stands for no text, so it is not a caption')
    elif columns['start']:
      entries.append(
        ((row[columns['start']], row[columns['end']], text), place)
      )
    else:
      # Without times it describes the whole file.
      entries.append(((0, None, text), place))
  return {
    key: caption_entries.make_cues(*zip(*entries), notes) if entries else []
    for key, entries in rows.items()
  }


def video_key(path: str) -> str:
  """Returns the key of a video in tables: its file name without extension.

  Any extension is removed in the same way on both sides, so that a table may
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
  notes: caption_cues.Notes | None = None,
) -> dict[str, list[caption_cues.Cue]]:
  """Reads a file with the captions of many videos.

  Args:
    path: Path of a json file such as HowTo100M's, `{video_id: {"start": [...],
      "end": [...], "text": [...]}}`, read item by item and of any size; or of a
      csv file with columns `video_id`, `start`, `end`, `text` (or `video_path`,
      and `caption`, `sentence` or `word`; without times a caption belongs to
      the whole file).
    wanted: The `video_key`s to keep.
    encoding: Encoding of the text; '' for UTF-8.
    notes: Takes a note for each entry that is left out; None keeps none.

  Returns:
    Cues of the wanted videos that the file has, by video key.

  Raises:
    errors.MediaError: The file cannot be read, or has another form.
  """
  notes = caption_cues.Notes(os.path.basename(path)) if notes is None else notes
  if os.path.splitext(path)[1].lower() == '.csv':
    return _csv_table(path, wanted, encoding, notes)
  table = {}
  for key, value in _iterate_json_object(path, encoding):
    if video_key(key) in wanted:
      try:
        cues = caption_entries.read_json(value, repr(key), f'{key!r}, ', notes)
      except errors.MediaError as e:
        notes.add(f'no captions are taken from it: {e}')
        cues = []
      # `a` and `a.mp4` are one video.
      table[video_key(key)] = sorted(table.get(video_key(key), []) + cues)
  return table
