"""Caption files with known cues, odd in the ways in which files of users are.

`files` draws SubRip and WebVTT files: line ends, encodings, missing and odd
numbers, blank lines within cues, styles, positions, settings, entities, times
that are swapped, negative or spelt in other ways, headers, comments, names of
cues, rolling captions. Each odd thing is drawn for a few files only, so that a
reader which misses one of them loses these files alone.

`python -m tests.media.caption_corpus` counts the files that readers give
exactly: this package's, and those of pysubs2, srt, webvtt-py and FFmpeg, as far
as they are installed. All get text without byte order mark and with plain line
ends, and their cues are cleaned, sorted and unrolled alike. Of the 400 files of
seed 0 (2026-11, pysubs2 1.8.1, srt 3.5.3, webvtt-py 0.6.0, PyAV 18.1.0):

| reader | SubRip (200) | WebVTT (200) |
|---|---|---|
| vatt_tf | 200 | 200 |
| webvtt-py | 158 | 124 |
| pysubs2 | 170 | 105 |
| FFmpeg through PyAV | 133 | 89 |
| srt | 160 | |
"""

from collections.abc import Iterator
import importlib
import importlib.util
import os
import random
import tempfile
from typing import NamedTuple

from vatt_tf.media import caption_cues, caption_files

_WORDS = 'a red dog runs past the old barn café naïve 好 привет 12 & <3'.split()


class CaptionFile(NamedTuple):
  """A file and what it says.

  Attributes:
    name: With the extension.
    data: Its bytes.
    text: The same, decoded, with plain line ends.
    cues: What a reader must give.
    oddities: What is odd about it.
  """

  name: str
  data: bytes
  text: str
  cues: list[caption_cues.Cue]
  oddities: list[str]


class _Drawn:
  """Draws what is odd about a file."""

  def __init__(self, seed: int):
    self.random = random.Random(seed)
    self.oddities = []

  def has(self, oddity: str, share: float = 0.12) -> bool:
    """Whether a file has something odd."""
    if self.random.random() < share:
      self.oddities.append(oddity)
      return True
    return False

  def sentence(self, num_words: int = 0) -> str:
    """Some words, which begin and end with a letter."""
    count = num_words or self.random.randint(1, 6)
    words = [self.random.choice(_WORDS) for _ in range(count)]
    return ' '.join(['so', *words, 'on'])


def _clock(time: int, is_vtt: bool, style: str) -> str:
  """A time in milliseconds as a file writes it."""
  sign = '-' if time < 0 else ''
  seconds, rest = divmod(abs(time), 1000)
  hours, minutes, seconds = (
    seconds // 3600,
    seconds // 60 % 60,
    seconds % 60,
  )
  mark = '.' if is_vtt != (style == 'other mark') else ','
  if style == 'no hours' and not hours:
    return f'{sign}{minutes:02d}:{seconds:02d}{mark}{rest:03d}'
  if style == 'one digit':
    return f'{sign}{hours}:{minutes}:{seconds}{mark}{rest:03d}'
  if style == 'spaces':
    return f'{sign}{hours:02d}: {minutes:02d}: {seconds:02d}{mark} {rest:03d}'
  return f'{sign}{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{rest:03d}'


def _escape(line: str) -> str:
  return line.replace('&', '&amp;').replace('<', '&lt;')


def _decorate(drawn: _Drawn, line: str, is_vtt: bool) -> str:
  """Mark-up around a line that changes nothing of its words."""
  forms = ['<i>{}</i>', '<b>{}</b>', '<u><i>{}</i></u>']
  if is_vtt:
    forms += ['<v Anna>{}</v>', '<c.yellow>{}</c>', '<lang en>{}</lang>']
    forms += ['{}<00:00:59.000>']
  else:
    forms += ['<font color="#ff0000">{}</font>', '{{\\an8}}{}', '{{\\i1}}{}']
  return drawn.random.choice(forms).format(line)


def _roll(drawn: _Drawn, count: int) -> list[tuple[int, int, list[str]]]:
  """Cues of which each shows the last lines of the one before, and a new one.

  The texts are the new lines alone.
  """
  height = drawn.random.randint(2, 4)
  lines = [f'line {i} {drawn.sentence(2)}' for i in range(count)]
  start = drawn.random.randint(0, 5000)
  return [
    (start + 1500 * i, start + 1500 * (i + 1), lines[max(0, i - height) : i])
    for i in range(1, count + 1)
  ]


def make_file(seed: int, is_vtt: bool) -> CaptionFile:
  """Draws a file."""
  drawn = _Drawn(seed)
  draw, has = drawn.random, drawn.has
  count = draw.randint(2, 8)
  cues = []
  is_rolling = has('rolling')
  if is_rolling:
    raw = _roll(drawn, count)
    expected = [(start, end, lines[-1]) for start, end, lines in raw]
  else:
    raw, time = [], draw.randint(0, 3000)
    for _ in range(count):
      end = time + draw.randint(200, 5000)
      lines = [drawn.sentence() for _ in range(draw.randint(1, 3))]
      raw.append((time, end, lines))
      time = end + draw.choice([300, 1000, 3_600_000])
    expected = [(start, end, ' '.join(lines)) for start, end, lines in raw]
  expected = [list(one) for one in expected]
  raw = [list(one) for one in raw]

  # Times.
  style = ''
  if has('times in another form'):
    styles = ['other mark', 'one digit', 'spaces']
    style = draw.choice([*styles, 'no hours'] if is_vtt else styles)
  elif is_vtt and draw.random() < 0.3:
    style = 'no hours'
  arrow = ' --> '
  if has('another arrow', 0.06):
    arrow = draw.choice([' -> ', ' --&gt; ', '-->', ' --＞ ', ' —> '])
  if not is_rolling and has('swapped times'):
    i = draw.randrange(count)
    raw[i][0], raw[i][1] = raw[i][1], raw[i][0]
    expected[i] = None
  if not is_rolling and has('times before 0', 0.06):
    raw[0][:2] = [-2500, -500]
    expected[0] = None
  if not is_rolling and has('a start before 0', 0.06) and expected[0]:
    raw[0][0] = -raw[0][0] - 1
    expected[0][0] = 0

  # Around the cues.
  numbers = list(range(1, count + 1))
  if has('numbers from 0'):
    numbers = list(range(count))
  elif has('no numbers', 0.4 if is_vtt else 0.12):
    numbers = [''] * count
  elif is_vtt and has('names', 0.3):
    numbers = [draw.choice(['intro', 'c-1', 'chapter one']) for _ in numbers]
  elif has('wrong numbers'):
    numbers = [draw.randint(1, 99) for _ in numbers]
  gap = '\n'
  if has('many blank lines between'):
    gap = '\n' * draw.randint(2, 4)
  elif not is_vtt and numbers[0] != '' and has('no blank lines between'):
    gap = ''
  has_blank_first = has('blank line before the text')
  has_blank_inside = has('blank lines in cues')
  has_styles = has('styles', 0.4)
  is_escaped = is_vtt or has('entities')
  has_settings = has('settings', 0.3)
  has_notes = is_vtt and has('comments', 0.3)
  has_arrow = not (is_vtt or is_rolling) and has('an arrow in the text')
  has_number = has('a number as text') and not gap == '' and not is_rolling
  has_bad = has('a cue without an end')

  text = ''
  if is_vtt:
    headers = ['', ' - a title', '\nKind: captions\nLanguage: en']
    text = f'WEBVTT{draw.choice(headers)}\n'
    if numbers[0] != '' or not has('a header without a blank line', 0.06):
      text += '\n'
    if text.endswith('\n\n') and has('style and region'):
      text += 'STYLE\n::cue(b) { color: red }\n\nREGION\nid:a\nwidth:40%\n\n'
  for i, (start, end, lines) in enumerate(raw):
    lines = list(lines)
    if has_arrow and i == 0 and expected[i]:
      lines.append('from here --> there')
      expected[i][2] += ' from here --> there'
    if has_number and i == count - 1 and expected[i]:
      lines = ['42']
      expected[i][2] = '42'
    written = [_escape(line) if is_escaped else line for line in lines]
    if has_styles:
      written = [_decorate(drawn, line, is_vtt) for line in written]
    if has_blank_inside:
      written = [line for one in written for line in ('', one)][1:]
    if has_blank_first:
      written.insert(0, '')
    if has_notes and i == draw.randrange(count):
      # Without a blank line between, a comment would be a part of the cue.
      text += '\n' if not text.endswith('\n\n') else ''
      text += draw.choice(
        ['NOTE one line', 'NOTE\nof two\nlines', 'NOTE this --> that']
      )
      text += '\n\n'
    if numbers[i] != '':
      text += f'{numbers[i]}\n'
    settings = ''
    if has_settings:
      settings = draw.choice(
        [' align:start position:10%', ' line:-1']
        if is_vtt
        else [' X1:100 X2:200 Y1:10 Y2:20']
      )
    text += _clock(start, is_vtt, style) + arrow + _clock(end, is_vtt, style)
    text += settings + '\n'
    text += '\n'.join(written) + '\n' + gap
    if has_bad and i == 0 and gap:
      number = '' if numbers[i] == '' else '77\n'
      text += f'{number}{_clock(start, is_vtt, "")} --> \nlost words\n{gap}'
  if has('no line end at last'):
    text = text.rstrip('\n')

  data = text.replace('\n', draw.choice(['\n', '\n', '\r\n', '\r', '\r\r\n']))
  encoding = draw.choice(['utf-8', 'utf-8', 'utf-8-sig', 'utf-16'])
  cues = [
    caption_cues.Cue(one[0] * 1000, one[1] * 1000, ' '.join(one[2].split()))
    for one in expected
    if one
  ]
  return CaptionFile(
    f'{seed}.{"vtt" if is_vtt else "srt"}',
    data.encode(encoding),
    text,
    cues,
    drawn.oddities,
  )


def files(count: int = 200, seed: int = 0) -> Iterator[CaptionFile]:
  """Draws files, as many of SubRip and of WebVTT."""
  for i in range(count):
    for is_vtt in (False, True):
      yield make_file(seed + 2 * i + is_vtt, is_vtt)


# Other readers: each gives (start and end in seconds, lines) of a file.


def _read_pysubs2(file: CaptionFile, path: str):
  pysubs2 = importlib.import_module('pysubs2')
  subs = pysubs2.SSAFile.from_string(file.text, format_=path[-3:])
  for one in subs:
    yield one.start / 1e3, one.end / 1e3, one.text.split('\\N')


def _read_srt(file: CaptionFile, path: str):
  srt = importlib.import_module('srt')
  for one in srt.parse(file.text):
    lines = one.content.split('\n')
    yield one.start.total_seconds(), one.end.total_seconds(), lines


def _read_webvtt(file: CaptionFile, path: str):
  webvtt = importlib.import_module('webvtt')
  read = webvtt.read if path.endswith('vtt') else webvtt.from_srt
  for one in read(path):
    start, end = (caption_cues.parse_clock(one) for one in (one.start, one.end))
    yield start / 1e6, end / 1e6, one.lines


def _read_ffmpeg(file: CaptionFile, path: str):
  av = importlib.import_module('av')
  with av.open(path) as container:
    for packet in container.demux(subtitles=0):
      if packet.pts is not None:
        start = float(packet.pts * packet.time_base)
        end = start + float((packet.duration or 0) * packet.time_base)
        yield start, end, bytes(packet).decode('utf-8').split('\n')


def _is_right(cues, file: CaptionFile) -> bool:
  raw = []
  for start, end, lines in cues:
    if start <= end and (end > 0 or start >= 0):
      raw.append((round(max(start, 0) * 1e6), round(end * 1e6), lines))
  found = [
    (round(cue.start, -3), round(cue.end, -3), cue.text)
    for cue in caption_cues.unroll(raw)
  ]
  return found == [tuple(cue) for cue in file.cues]


def main() -> None:
  """Prints how many files each reader gives exactly, and what it misses."""
  readers = {
    'pysubs2': _read_pysubs2,
    'srt': _read_srt,
    'webvtt': _read_webvtt,
    'av': _read_ffmpeg,
  }
  with tempfile.TemporaryDirectory() as folder:
    for name, read in {'vatt_tf': None, **readers}.items():
      if read and importlib.util.find_spec(name) is None:
        continue
      right = {'srt': 0, 'vtt': 0}
      missed = {}
      for file in files():
        path = os.path.join(folder, file.name)
        with open(path, 'wb') as out:
          out.write(file.text.encode('utf-8') if read else file.data)
        try:
          if read is None:
            is_right = caption_files.read_captions(path) == file.cues
          else:
            is_right = _is_right(list(read(file, path)), file)
        except Exception:  # noqa: BLE001 - whatever another reader raises
          is_right = False
        right[path[-3:]] += is_right
        if not is_right:
          for one in file.oddities or ['none']:
            missed[one] = missed.get(one, 0) + 1
      print(name, right, dict(sorted(missed.items(), key=lambda x: -x[1])))


if __name__ == '__main__':
  main()
