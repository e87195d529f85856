"""Caption files and caption tables, well-formed, odd and damaged."""

import csv
import io
import json
import math
import os
import tempfile
import time
import unicodedata

from hypothesis import strategies as st

from tests.fuzz import mutations
from vatt_tf.media import caption_cues, caption_files, caption_tables, errors

# Of one file; what is read in quadratic time takes longer.
_MAX_SECONDS = 10
_MAX_NOTE_LENGTH = 2000

_LINE_ENDS = ('\n', '\r\n', '\r', '\r\r\n')
_ENCODINGS = ('utf-8', 'utf-8-sig', 'utf-16')

# Files of good cues: every word must be read.
_WORDS = (
  'dog',
  'café',
  'cafe\u0301',
  '12',
  '3:15',
  '00:00:05',
  '-',
  '100%',
  '[music]',
  '♪',
  '>>',
  '&amp;',
  'nan',
  'None',
  'null',
  'NOTE',
  'WEBVTT',
  '{x}',
  'a,b',
  '"so"',
  '好',
  'привет',
  '\u202bשלום\u202c',
)
_line = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=4)
# What stands before each cue: a number, a name, nothing.
_names = st.sampled_from(('number', 'same number', 'name', ''))
_good_file = st.tuples(
  st.just('good'),
  st.sampled_from(('srt', 'vtt', 'json', 'csv')),
  _names,
  st.lists(
    st.tuples(
      # Gap before and length, ms.
      st.integers(0, 5000),
      st.integers(1, 9000),
      st.lists(_line, min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=6,
  ),
)

# Files of pieces that need not fit together.
_PIECES = (
  '',
  '',
  '1',
  '2',
  '٣',
  'intro',
  '00:00:01,000 --> 00:00:02,000',
  '00:00:02.000 --> 00:00:03.000 align:start',
  '00:01.5 --> 00:02',
  '-00:00:01,000 --> 00:00:01,000',
  '00:00:05,000 --> 00:00:04,000',
  '00:00:01,000 --> ',
  ' --> 00:00:01,000',
  '00:00:01:500 -> 00:00:02:500 and text',
  '99999:99:99.999999 --> 99999:99:99,999999',
  '00:00:00,000 --> 00:00:00,000',
  '1:2:3 --&gt; 4:5:6',
  '-->',
  '--> --> -->',
  'a red dog',
  '<i>a</i> dog',
  '<v Anna>hello',
  '<c.yellow',
  '{\\an8}above',
  '{\\',
  '&#0;&#xD800;&#x110000;&nbsp;&lrm;',
  '\u200b\ufeff',
  'nan',
  'WEBVTT',
  'WEBVTT - title',
  'NOTE',
  'NOTE a note',
  'STYLE',
  '::cue { color: red }',
  'REGION',
  '[',
  '{"start": 1}',
  '\u2028',
  '\x85',
  '\x0c',
)
_operations = st.lists(
  st.one_of(*mutations.IN_PLACE, *mutations.MOVING), max_size=3
)
_odd_file = st.tuples(
  st.just('odd'),
  st.sampled_from(('srt', 'vtt')),
  st.lists(
    st.one_of(st.sampled_from(_PIECES), st.text(max_size=8)), max_size=24
  ),
  _operations,
)
# One piece many times, on a line of its own or on one line.
_long_file = st.tuples(
  st.just('long'),
  st.sampled_from(('srt', 'vtt', 'json')),
  st.lists(st.sampled_from((*_PIECES, '-', ' ', '<a', '1', ':')), max_size=3),
  st.sampled_from((*_PIECES, '-', '- ', '<a', '1', '1:', '{\\', '[', '{"a":')),
  st.sampled_from(('\n', '')),
  st.sampled_from((100, 3000, 20_000)),
)

_numbers = st.one_of(
  st.integers(-10, 10),
  st.floats(-10, 1000),
  st.sampled_from(
    (math.nan, math.inf, -math.inf, 1e9, 1e300, 10**400, -0.0, True, None)
  ),
)
_times = st.one_of(
  _numbers,
  st.sampled_from(
    ('', '1.5', '00:00:01', '01:02,5', 'nan', 'inf', '1e400', 'x', '１', [], {})
  ),
)
_texts = st.one_of(
  st.sampled_from(('a dog', 'nan', 'None', 'null', '', ' ', '&', '<i></i>')),
  st.sampled_from(('\u200b', '\ud800')),
  st.text(max_size=6),
  _numbers,
  st.lists(st.integers(0, 1), max_size=2),
)
_entries = st.one_of(
  st.fixed_dictionaries(
    {'start': _times, 'text': _texts},
    optional={'end': _times, 'duration': _times, 'id': st.just(1)},
  ),
  st.fixed_dictionaries(
    {'timestamp': st.lists(_times, max_size=3), 'text': _texts}
  ),
  st.fixed_dictionaries(
    {
      'offsets': st.dictionaries(st.sampled_from(('from', 'to')), _times),
      'text': _texts,
    }
  ),
  st.sampled_from((None, 1, 'a', [], {}, {'text': 'a'}, {'start': 0})),
)
_columns = st.fixed_dictionaries(
  {
    'start': st.lists(_times, max_size=3),
    'text': st.lists(_texts, max_size=3),
  },
  optional={'end': st.one_of(st.none(), st.lists(_times, max_size=3))},
)
_json_values = st.one_of(
  st.lists(_entries, max_size=6),
  _columns,
  st.builds(
    lambda name, entries: {name: entries},
    st.sampled_from(('segments', 'chunks', 'transcription', 'other')),
    st.lists(_entries, max_size=4),
  ),
  _entries,
)
_json_file = st.tuples(st.just('json'), _json_values, _operations)
# Brackets in brackets, up to what Python's json reads.
_deep_file = st.tuples(
  st.just('deep'),
  st.sampled_from(('list', 'start', 'text', 'entry', 'table')),
  st.one_of(st.integers(1, 1200), st.integers(800, 1000)),
)
_keys = st.sampled_from(('a', 'a.mp4', 'b', 'x/b.mkv', 'c', '', '\ud800'))
_json_table = st.tuples(
  st.just('json table'),
  st.lists(st.tuples(_keys, _json_values), max_size=4),
  _operations,
)
_cells = st.one_of(
  st.sampled_from(
    (
      'a',
      'b.mp4',
      '0',
      '1.5',
      '00:00:02',
      'nan',
      'None',
      '',
      '1e400',
      'x,y',
      'a "dog"',
      'two\nlines',
      'hello',
    )
  ),
  st.text(max_size=5),
)
_csv_table = st.tuples(
  st.just('csv table'),
  st.lists(
    st.sampled_from(
      ('video_id', 'video_path', 'start', 'end', 'text', 'caption', '', 'x')
    ),
    min_size=1,
    max_size=5,
  ),
  st.sampled_from(',,,;\t|'),
  st.lists(st.lists(_cells, min_size=1, max_size=5), max_size=5),
  _operations,
)

STRATEGY = st.one_of(
  _good_file,
  _odd_file,
  _long_file,
  _json_file,
  _deep_file,
  _json_table,
  _csv_table,
)


def check(value: tuple) -> None:
  """Reads a file; raises `AssertionError` where something is wrong."""
  kind, *rest = value
  start = time.monotonic()
  match kind:
    case 'good':
      _check_good(*rest)
    case 'odd':
      extension, pieces, operations = rest
      _check_odd(extension, '\n'.join(pieces), operations)
    case 'long':
      extension, before, piece, separator, count = rest
      text = '\n'.join([*before, separator.join([piece] * count)])
      _read_file(f'a.{extension}', _encode(text))
    case 'json':
      _check_json(*rest)
    case 'deep':
      _check_deep(*rest)
    case 'json table':
      items, operations = rest
      text = ', '.join(
        f'{json.dumps(key)}: {json.dumps(item)}' for key, item in items
      )
      _read_table('t.json', _damage(_encode(f'{{{text}}}'), operations))
    case 'csv table':
      header, delimiter, rows, operations = rest
      text = io.StringIO(newline='')
      csv.writer(text, delimiter=delimiter).writerows([header, *rows])
      _read_table('t.csv', _damage(_encode(text.getvalue()), operations))
  seconds = time.monotonic() - start
  assert seconds < _MAX_SECONDS, f'It took {seconds:.1f} s.'


def _encode(text):
  return text.encode('utf-8', errors='surrogatepass')


def _has_halves(text):
  """Whether a text holds halves of characters, which UTF-8 cannot."""
  return any('\ud800' <= character <= '\udfff' for character in text)


def _damage(data, operations):
  for operation in operations:
    data = mutations.apply(data, data[::-1], operation)
  return data


def _read_file(name, data):
  """The cues of a file, checked; None if it cannot be used."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, name)
    with open(path, 'wb') as file:
      file.write(data)
    cues, notes = caption_files.read_for_clips(path)
    assert caption_files.read_for_clips(path) == (cues, notes)
    try:
      # Another depth of calls leaves room for another depth of brackets.
      is_deep = any('recursion' in note.reason for note in notes)
      assert caption_files.read_captions(path) == cues or is_deep
    except errors.MediaError as e:
      assert cues is None and name in str(e), e
  _check_notes(notes, name)
  _check_cues(cues or [])
  return cues, notes


def _check_notes(notes, name):
  assert len(notes) <= caption_cues.MAX_NOTES + 1, len(notes)
  for note in notes:
    assert note.file == name
    assert '\n' not in note.reason, note
    assert len(note.reason) <= _MAX_NOTE_LENGTH, note
    _encode_strictly(note.reason)


def _encode_strictly(text):
  """What goes to files must be Unicode."""
  text.encode('utf-8')


def _check_cues(cues):
  last = -1
  for cue in cues:
    assert isinstance(cue.start, int) and isinstance(cue.end, int), cue
    assert 0 <= last <= cue.start or last == -1 <= cue.start, cues
    assert cue.start <= cue.end <= caption_cues.OPEN_END, cue
    assert cue.text and cue.text == ' '.join(cue.text.split()), cue
    assert unicodedata.is_normalized('NFC', cue.text), cue
    _encode_strictly(cue.text)
    last = cue.start


def _clock(milliseconds, mark):
  seconds, rest = divmod(milliseconds, 1000)
  return (
    f'{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'
    f'{mark}{rest:03d}'
  )


def _check_good(extension, names, cues):
  """Every word of a well-formed file is read, at its time."""
  blocks, expected, entries = [], [], []
  time_now = 0
  for i, (gap, length, lines) in enumerate(cues):
    start = time_now + gap
    time_now = start + length
    # A word that no other cue has: repeated lines are rolling captions.
    lines = [f'c{i}', *(' '.join(line) for line in lines)]
    mark = '.' if extension == 'vtt' else ','
    name = {'number': f'{i + 1}\n', 'same number': '1\n', 'name': f'cue{i}\n'}
    if extension != 'vtt':
      name.pop('name')
    entries.append((start / 1000, time_now / 1000, ' '.join(lines)))
    blocks.append(
      name.get(names, '')
      + f'{_clock(start, mark)} --> {_clock(time_now, mark)}\n'
      + '\n'.join(lines)
    )
    expected.append(
      (1000 * start, 1000 * time_now, caption_cues.clean(' '.join(lines)))
    )
  if extension in ('json', 'csv'):
    _check_good_entries(entries, expected, is_csv=extension == 'csv')
    return
  text = '\n\n'.join([*(['WEBVTT'] if extension == 'vtt' else []), *blocks])
  for end in ('', '\n', '\n\n'):
    found, notes = _read_file(f'a.{extension}', _encode(text + end))
    assert found == expected, f'{found} is not {expected}'
    assert not notes, notes


def _check_good_entries(entries, expected, is_csv):
  """Every word of json or a table is read, at its time."""
  names = ('start', 'end', 'text')
  values = [dict(zip(names, entry)) for entry in entries]
  columns = dict(zip(names, map(list, zip(*entries))))
  if not is_csv:
    for value in (values, columns, {'segments': values}):
      found, notes = _read_file('a.json', _encode(json.dumps(value)))
      assert (found, notes) == (expected, []), f'{found} is not {expected}'
  table = io.StringIO(newline='')
  csv.writer(table).writerows(
    [('video_id', *names), *(('a', *entry) for entry in entries)]
  )
  text = table.getvalue() if is_csv else json.dumps({'b': [], 'a': columns})
  found = _read_table('t.csv' if is_csv else 't.json', _encode(text))
  assert found and found['a'] == expected, f'{found} is not {expected}'


def _check_odd(extension, text, operations):
  """Line ends and byte order marks change nothing."""
  data = _encode(text)
  _read_file(f'a.{extension}', _damage(data, operations))
  if set(text) & set('\r\0') or _has_halves(text):
    return
  found = _read_file(f'a.{extension}', data)
  for encoding in _ENCODINGS:
    for end in _LINE_ENDS:
      same = text.replace('\n', end).encode(encoding)
      assert _read_file(f'a.{extension}', same) == found, (encoding, end)


def _check_json(value, operations):
  cues, _ = _read_file('a.json', _encode(json.dumps(value)))
  texts = {cue.text for cue in cues or []}
  wanted = _strings(value)
  for word in ('nan', 'None', 'null', 'NaN'):
    assert word not in texts or word in wanted, cues
  plain = json.dumps(value, ensure_ascii=False, indent=1)
  if not _has_halves(plain):
    assert _read_file('a.json', _encode(plain))[0] == cues
  _read_file('a.json', _damage(_encode(plain), operations))


def _strings(value):
  """The texts in a value of json, as captions are kept."""
  if isinstance(value, str):
    return {caption_cues.clean(value)}
  if isinstance(value, dict):
    value = value.values()
  if isinstance(value, str | int | float | None):
    return set()
  return set().union(*map(_strings, value))


def _check_deep(place, depth):
  deep = '[' * depth + ']' * depth
  start, text, entry = '0', '"a dog"', None
  match place:
    case 'start':
      start = deep
    case 'text':
      text = deep
    case 'entry':
      entry = deep
  good = '{"start": 0, "text": "a dog"}'
  odd = entry or f'{{"start": {start}, "end": 1, "text": {text}}}'
  if place == 'list':
    odd = good = deep
  cues = f'[{odd}, {good}]'
  _read_file('a.json', _encode(cues))
  _read_table('t.json', _encode(f'{{"b": {deep}, "a": {cues}}}'))


def _read_table(name, data):
  """What a caption table gives, checked; None if it cannot be used."""
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, name)
    with open(path, 'wb') as file:
      file.write(data)
    notes = caption_cues.Notes(name)
    try:
      table = caption_tables.read_table(path, {'a', 'b'}, notes=notes)
    except errors.MediaError as e:
      assert name in str(e) and '\n' not in str(e), e
      _encode_strictly(str(e))
      return None
  _check_notes(notes.as_list(), name)
  assert set(table) <= {'a', 'b'}, table
  for cues in table.values():
    _check_cues(cues)
  return table
