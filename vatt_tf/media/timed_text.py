"""The cues of SubRip (.srt) and WebVTT (.vtt) files."""

from collections.abc import Sequence
import html
import re

from vatt_tf.core import plain_text
from vatt_tf.media import caption_cues, errors

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
# Lines that were meant as timing lines.
_BAD_TIMING = re.compile(
  rf'(?:\d+\s+)?{_LOOSE_CLOCK}\s*-->.*|.*-->\s*\d+:\d+:\d+[.,]\d+(?:\s.*)?'
)
_CLOCK_PARTS = re.compile(
  r'(?:(\d{1,5}):)?(\d{1,2}):(\d{1,2})(?:[.,:;](\d{1,9}))?'
)
# Settings of WebVTT (`align:start`) and of SubRip (`X1:100`).
_SETTING = re.compile(r'[A-Za-z][\w-]*[:=]\S*')
_COMMENT = re.compile(r'(?:NOTE|STYLE|REGION)(?:\s.*)?')


def _loose_clock(text: str) -> tuple[int, re.Match]:
  """Returns the µs of a clock that may hold spaces or signs, and its parts."""
  match = _CLOCK_PARTS.fullmatch(re.sub(r'[\s-]', '', text))
  return caption_cues.match_to_time(match) * (-1 if '-' in text else 1), match


def _parse_timing(line: str) -> tuple[int, int, str] | None:
  """Returns start, end (µs) and text of a timing line; None if it is none."""
  if not re.search(r'\d', line):
    return None
  line = plain_text.clean_name(html.unescape(line))
  match = _TIMING.fullmatch(line)
  if match is None:
    return None
  start, start_parts = _loose_clock(match['start'])
  end, end_parts = _loose_clock(match['end'])
  if '-->' not in match['arrow']:
    # In another form it must be clearer that this is not text.
    has_arrow = re.search('[>→⟶➔➜]', match['arrow'])
    for hours, _, seconds, fraction in (
      start_parts.groups(),
      end_parts.groups(),
    ):
      is_clear = len(seconds) == 2 and len(fraction or '') > 1
      if not (is_clear and (hours or has_arrow)):
        return None
  rest = (match['rest'] or '').strip()
  is_setting = any(map(_SETTING.fullmatch, rest.split()))
  if is_setting or not re.search(r'\w', rest):
    rest = ''
  return start, end, rest


def _is_number(line: str) -> bool:
  return plain_text.clean_name(line).isdecimal()


class _CueLines:
  """Gathers the lines of SubRip and WebVTT files into cues.

  A cue continues until the next timing line, less the number or the name above
  that line: blank lines inside a cue are a common fault.
  """

  def __init__(self, is_vtt: bool, notes: caption_cues.Notes):
    self._is_vtt = is_vtt
    self._notes = notes
    self._has_numbers = None
    # Lines of the current cue; at first, and after a comment, of no cue.
    self._lines = []
    self._first_line = 1
    self._is_cue = False
    self.cues = []
    self.num_timings = 0
    self.num_stray = 0

  def add_text(self, number: int, line: str) -> None:
    """Takes a line that is not a timing line."""
    if line.strip() and not any(map(str.strip, self._lines)):
      self._first_line = number
    self._lines.append(line)

  def add_timing(
    self, number: int, line: str, timing: tuple[int, int, str] | None
  ) -> None:
    """Takes a timing line; `timing` is None if it cannot be read."""
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
      times = caption_cues.use_times(*timing[:2], where, self._notes)
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
  """Returns whether a SubRip line with `-->` was meant as a timing line."""
  if _BAD_TIMING.fullmatch(plain_text.clean_name(lines[i])):
    return True
  # Below a number that stands alone is the place of one.
  is_alone = i < 2 or not lines[i - 2].strip()
  return i > 0 and is_alone and _is_number(lines[i - 1])


def read_cues(
  text: str, is_vtt: bool, name: str, notes: caption_cues.Notes
) -> list[caption_cues.RawCue]:
  """Returns the cues of SubRip and WebVTT, which differ in what is around them.

  Args:
    text: Text of the file.
    is_vtt: Whether it is WebVTT.
    name: Base name of the file, for errors.
    notes: Takes a note for each cue that is left out.

  Returns:
    Start and end, in µs, and lines of each cue.

  Raises:
    errors.MediaError: The file has text but no cue.
  """
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
