"""The form in which all packages store and compare texts.

- **White space**, as Unicode and Python's `str.split` define it, becomes single
  spaces.
- **Invisible marks** are removed: direction marks, soft hyphens, zero-width
  spaces, byte order marks, controls. Joiners and variation selectors change how
  their neighbours look: texts keep them, names and words do not.
- **Texts** that people read (captions) are in Unicode's form NFC.
- **Names and words** that are compared (classes, words of a vocabulary) are in
  NFKC, so that a ligature, a full-width letter and a plain one are equal.

The functions here are for Python; `vatt_tf.input_pipeline.tokenizers` has the
same rules in the graph. Both take their characters from the tables below.
"""

from collections.abc import Sequence
import re
import unicodedata

# First and last of each range of characters.
Ranges = Sequence[tuple[int, int]]

WHITE_SPACE = (
  (0x09, 0x0D),
  (0x1C, 0x20),
  (0x85, 0x85),
  (0xA0, 0xA0),
  (0x1680, 0x1680),
  (0x2000, 0x200A),
  (0x2028, 0x2029),
  (0x202F, 0x202F),
  (0x205F, 0x205F),
  (0x3000, 0x3000),
)

# Controls, format characters and fillers without a visible effect.
HIDDEN = (
  (0x00, 0x08),
  (0x0E, 0x1B),
  (0x7F, 0x84),
  (0x86, 0x9F),
  (0xAD, 0xAD),
  (0x034F, 0x034F),
  (0x061C, 0x061C),
  (0x115F, 0x1160),
  (0x17B4, 0x17B5),
  (0x180E, 0x180E),
  (0x200B, 0x200B),
  (0x200E, 0x200F),
  (0x202A, 0x202E),
  (0x2060, 0x206F),
  (0x3164, 0x3164),
  (0xFEFF, 0xFEFF),
  (0xFFA0, 0xFFA0),
  (0xFFF9, 0xFFFB),
  (0x1BCA0, 0x1BCA3),
  (0x1D173, 0x1D17A),
  (0xE0001, 0xE0001),
)

# Invisible characters that change how their neighbours look.
JOINERS = (
  (0x180B, 0x180D),
  (0x180F, 0x180F),
  (0x200C, 0x200D),
  (0xFE00, 0xFE0F),
  (0xE0020, 0xE007F),
  (0xE0100, 0xE01EF),
)

# Accents without a letter, often in place of an apostrophe. NFKC replaces each
# by a space with a mark on it.
LONE_ACCENTS = (
  (0xA8, 0xA8),
  (0xAF, 0xAF),
  (0xB4, 0xB4),
  (0xB8, 0xB8),
  (0x02D8, 0x02DD),
  (0x037A, 0x037A),
  (0x0384, 0x0385),
  (0x1FBD, 0x1FBD),
  (0x1FBF, 0x1FC1),
  (0x1FCD, 0x1FCF),
  (0x1FDD, 0x1FDF),
  (0x1FED, 0x1FEE),
  (0x1FFD, 0x1FFE),
  (0x2017, 0x2017),
  (0x203E, 0x203E),
  (0x309B, 0x309C),
  (0xFC5E, 0xFC63),
  (0xFE49, 0xFE4C),
  (0xFE70, 0xFE7F),
  (0xFFE3, 0xFFE3),
)

# Text of missing values in tables of pandas (`nan`, `NaN`, `None`, `<NA>`,
# `NaT`), JSON (`null`), data bases (`NULL`), spreadsheets (`#N/A`) and people
# (`N/A`, `n/a`). A cell must match exactly: `none`, `Nan`, `NA` and `null and
# void` are words.
_MISSING = frozenset(
  ('nan', 'NaN', 'None', '<NA>', 'NaT', 'null', 'NULL', '#N/A', 'N/A', 'n/a')
)


def _class(ranges: Ranges) -> str:
  return ''.join(f'{chr(first)}-{chr(last)}' for first, last in ranges)


_HIDDEN = re.compile(f'[{_class(HIDDEN)}]')
_JOINERS = re.compile(f'[{_class(JOINERS)}]')
_NO_LONE_ACCENTS = re.compile(f'[^{_class(LONE_ACCENTS)}]+')
# Halves of a character, which JSON can hold and UTF-8 cannot.
_SURROGATES = re.compile('[\ud800-\udfff]')


def clean(text: str) -> str:
  """Returns a text in the form in which texts for people are stored.

  Args:
    text: Any text.

  Returns:
    The text in NFC, without hidden marks, with single spaces for white space.

  Example:

  >>> clean(' a\\u00a0red \\u200estar\\n')
  'a red star'
  """
  text = _SURROGATES.sub('\ufffd', _HIDDEN.sub('', text))
  return ' '.join(unicodedata.normalize('NFC', text).split())


def clean_name(text: str) -> str:
  """Returns a name, such as of a class, in the form that names are compared in.

  Args:
    text: Any text.

  Returns:
    The text as `clean` returns it, in NFKC and without joiners. Accents without
    a letter, which NFKC would replace, are kept.

  Example:

  >>> clean_name('\\ufb01re')
  'fire'
  """
  text = _JOINERS.sub('', _HIDDEN.sub('', text))
  text = _NO_LONE_ACCENTS.sub(
    lambda match: unicodedata.normalize('NFKC', match[0]), text
  )
  return clean(text)


def is_missing(cell: str) -> bool:
  """Returns whether the text of a table cell means that there is no value."""
  return cell in _MISSING
