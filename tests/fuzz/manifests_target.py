"""Manifests, odd and damaged, and the vocabularies of their captions."""

import csv
import io
import os
import re
import tempfile
import time

from hypothesis import strategies as st
import tensorflow as tf

from tests.fuzz import mutations
from vatt_tf.core import plain_text
from vatt_tf.input_pipeline import tokenizers, vocabulary
from vatt_tf.media import errors, manifest

_MAX_SECONDS = 10
_MAX_MESSAGE_LENGTH = 3000

_COLUMNS = st.one_of(
  st.sampled_from(manifest.COLUMNS),
  st.sampled_from(
    ('', 'Unnamed: 0', 'path', 'Video_path', ' label ', 'x"y', 'a,b', 'caption')
  ),
)
_headers = st.one_of(
  st.permutations(('video_path', 'start', 'end', 'label', 'caption')),
  st.permutations(('video_path', 'caption')),
  st.permutations(('audio_path', 'splits', 'fold', 'caption')),
  st.just(('caption',)),
  st.just(('', 'video_path', 'caption')),
  st.lists(_COLUMNS, min_size=1, max_size=6),
)
_cells = st.one_of(
  st.sampled_from(
    (
      'a.mp4',
      'b c.mkv',
      '/x/é.wav',
      '0',
      '1.5',
      '3',
      '00:01:00',
      '1e3',
      '1e305',
      '1e400',
      '-1',
      'nan',
      'inf',
      '１',
      '1_0',
      'None',
      '<NA>',
      '',
      ' ',
      'dog|barking',
      '|',
      'dog||nan',
      '＃ｄｏｇ',
      'a red dog',
      'a "dog", again',
      'two\nlines',
      '<pad> <unk>',
      '\u200b',
      '\ufeff',
      'sep=;',
    )
  ),
  st.text(max_size=12),
)
_operations = st.lists(
  st.one_of(*mutations.IN_PLACE, *mutations.MOVING), max_size=3
)
_written = st.tuples(
  st.just('manifest'),
  _headers,
  st.sampled_from(',,,,;\t|'),
  st.sampled_from(('\n', '\r\n', '\r')),
  st.sampled_from(('utf-8', 'utf-8', 'utf-8-sig', 'utf-16', 'cp1252')),
  st.lists(st.lists(_cells, min_size=1, max_size=6), max_size=6),
  _operations,
)

# Characters of which cased, composed, hidden, spaced and joined forms are many.
_characters = st.one_of(
  st.characters(exclude_categories=('Cs',)),
  st.sampled_from(
    ' \t\n\x1c\x85\xa0\u2028\u3000\xad\u200b\u200d\ufe0f\u0301\u0345\u0338'
    'ΑΣσςİıßẞǅﬁ①⑴㎏ﷺ½²™´¨`\u1fbd\u309b\u309cが\u3099한\u1100\u1161\u0130'
    '.,!?\'"-_<>=+$^~|'
  ),
)
_captions = st.tuples(
  st.just('captions'),
  st.lists(st.text(_characters, max_size=16), min_size=1, max_size=8),
)

_paths = st.text(
  st.characters(exclude_categories=('Cs', 'Cc')), min_size=1, max_size=8
)
_moments = st.one_of(
  st.integers(0, 10**7), st.integers(0, 10**15), st.sampled_from((0, 1, 999999))
)
_segments = st.tuples(
  st.just('segments'),
  st.lists(
    st.tuples(
      _paths,
      st.one_of(st.just(''), _paths),
      _moments,
      st.one_of(st.none(), _moments),
      st.lists(st.text(max_size=6), max_size=3),
      st.lists(st.text(max_size=12), max_size=3),
      st.lists(st.sampled_from(('train_1', 'test_2', 'x.y-z')), max_size=3),
    ),
    min_size=1,
    max_size=5,
  ),
)

STRATEGY = st.one_of(_written, _captions, _segments)


def check(value: tuple) -> None:
  """Reads what is drawn; raises `AssertionError` where something is wrong."""
  kind, *rest = value
  start = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'm.csv')
    match kind:
      case 'manifest':
        _check_manifest(path, *rest)
      case 'captions':
        _check_words(folder, *rest)
      case 'segments':
        _check_round_trip(path, *rest)
  seconds = time.monotonic() - start
  assert seconds < _MAX_SECONDS, f'It took {seconds:.1f} s.'


def _check_manifest(
  path, header, delimiter, line_end, encoding, rows, operations
):
  text_of_file = io.StringIO(newline='')
  table = csv.writer(text_of_file, delimiter=delimiter, lineterminator=line_end)
  table.writerows([header, *rows])
  data = text_of_file.getvalue().encode(encoding, errors='replace')
  for operation in operations:
    data = mutations.apply(data, data[::-1], operation)
  _write(path, data)
  segments = _read(manifest.read_manifest, path)
  texts = _read(manifest.read_captions, path)
  if texts is not None:
    for one in texts:
      _check_text(one)
  if segments is None:
    return
  assert segments == manifest.read_manifest(path)
  keys = set()
  for segment in segments:
    assert segment.path, segment
    assert 0 <= segment.start, segment
    assert segment.end is None or segment.start < segment.end, segment
    key = (segment.video_path, segment.audio_path, segment.start, segment.end)
    assert key not in keys, key
    keys.add(key)
    for label in segment.labels:
      assert label == plain_text.clean_name(label) != '', segment
    for caption in segment.captions:
      _check_text(caption)
    assert len(set(segment.captions)) == len(segment.captions), segment
  if texts is not None:
    assert texts == [one for each in segments for one in each.captions]
  _check_same(path, segments)
  if not operations and delimiter == ',' and encoding != 'cp1252':
    _check_rows(header, rows, segments)


def _read(function, path):
  """What a reader gives; None if it says what is wrong."""
  try:
    return function(path)
  except errors.MediaError as e:
    assert os.path.basename(path) in str(e), e
    assert len(str(e).splitlines()) == 1, e
    assert len(str(e)) <= _MAX_MESSAGE_LENGTH, e
    return None


def _check_text(caption):
  assert caption == plain_text.clean(caption) != '', repr(caption)
  assert not plain_text.is_missing(caption), repr(caption)


def _check_rows(header, rows, segments):
  """The captions and labels of every row are those of some segment."""
  names = [column.strip() for column in header]
  labels = {label for segment in segments for label in segment.labels}
  captions = {one for segment in segments for one in segment.captions}
  for row in rows:
    cells = {
      name: cell.replace('\r\n', '\n').replace('\r', '\n').strip()
      for name, cell in zip(names, row)
      if name
    }
    cells = {
      name: '' if plain_text.is_missing(cell) else cell
      for name, cell in cells.items()
    }
    caption = plain_text.clean(cells.get('caption', ''))
    assert not caption or caption in captions, caption
    for label in cells.get('label', '').split('|'):
      label = '' if plain_text.is_missing(label.strip()) else label
      label = plain_text.clean_name(label)
      assert not label or label in labels, label


def _check_same(path, segments):
  """What is written of segments is read as the same."""
  manifest.write_manifest(path, segments)
  found = manifest.read_manifest(path)
  assert found == segments, f'{found} is not {segments}'


def _texts(clean, texts):
  """Texts as a manifest gives them, each once."""
  texts = dict.fromkeys(map(clean, texts))
  return tuple(one for one in texts if one and not plain_text.is_missing(one))


def _check_round_trip(path, drawn):
  """Segments are written and read as they are, or refused."""
  segments = [
    manifest.Segment(
      video_path,
      audio_path,
      start,
      end,
      _texts(plain_text.clean_name, labels),
      _texts(plain_text.clean, captions),
      tuple(dict.fromkeys(splits)),
    )
    for video_path, audio_path, start, end, labels, captions, splits in drawn
  ]
  files = {(s.video_path, s.audio_path, s.start, s.end): s for s in segments}
  segments = [s for s in files.values() if s.end is None or s.start < s.end]
  if segments:
    try:
      manifest.write_manifest(path, segments)
    except ValueError as e:
      assert re.search('Received: ', str(e)), e
      return
    found = manifest.read_manifest(path)
    assert found == segments, f'{found} is not {segments}'


def _check_words(folder, texts):
  """A vocabulary holds each word of its captions, and a tokenizer takes it."""
  captions = [plain_text.clean(one) for one in texts]
  captions = [one for one in captions if one]
  data = [one.encode('utf-8') for one in captions]
  # The graph has the same rule.
  raw = [one.encode('utf-8') for one in texts]
  cleaned = [one.decode('utf-8') for one in tokenizers.clean(raw).numpy()]
  assert [one for one in cleaned if one] == captions, (cleaned, captions)
  words = tokenizers.split_words(tf.constant(raw)).to_list()
  again = tokenizers.split_words(tf.constant(cleaned)).to_list()
  assert words == again, f'{words} is not {again}'
  joined = tf.constant([b' '.join(each) for each in words])
  twice = tokenizers.split_words(joined).to_list()
  assert twice == words, f'{twice} is not {words}'
  try:
    entries = vocabulary.build_vocabulary(data)
  except ValueError as e:
    assert 'no word' in str(e) and not any(words), e
    return
  path = os.path.join(folder, 'words.txt')
  vocabulary.write_vocabulary(path, entries)
  tokenizer = tokenizers.WordTokenizer(path)
  assert tokenizer.words == entries
  ids = tokenizer.tokenize(tf.constant(raw)).to_list()
  unknown = tokenizers.SPECIAL_TOKENS.index(tokenizers.UNKNOWN_TOKEN)
  assert not any(unknown in row for row in ids), (entries, raw)
  assert [len(row) for row in ids] == [len(row) for row in words]


def _write(path, data):
  with open(path, 'wb') as file:
    file.write(data)
