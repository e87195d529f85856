"""Tests of `vatt_tf.core.plain_text`."""

import subprocess
import sys
import unicodedata

from absl.testing import absltest, parameterized

from vatt_tf.core import plain_text


def _characters(ranges):
  return {chr(i) for first, last in ranges for i in range(first, last + 1)}


class PlainTextTest(parameterized.TestCase):
  @parameterized.parameters(
    (' a\u00a0 red\u2028\n', 'a red'),
    ('cafe\u0301', 'café'),
    ('\u202aabc\u202c \u200b \ufeffd', 'abc d'),
    ('e\u00adlec\u2060tric', 'electric'),
    ('… ½ \ufb01 x²', '… ½ \ufb01 x²'),
    # Joiners shape letters and emoji.
    ('می\u200cخواهم 👩\u200d🚀 ❤\ufe0f', 'می\u200cخواهم 👩\u200d🚀 ❤\ufe0f'),
    ('\ud800x', '\ufffdx'),
  )
  def test_clean(self, text, expected):
    self.assertEqual(plain_text.clean(text), expected)
    self.assertEqual(plain_text.clean(expected), expected)

  @parameterized.parameters(
    ('cafe\u0301', 'café'),
    ('\u1112\u1161\u11ab', '한'),
    ('\ufb01re', 'fire'),
    ('Ｄｏｇ\u3000１', 'Dog 1'),
    ('\u200eabc\u200f', 'abc'),
    ('می\u200cخواهم', 'میخواهم'),
    ('don´t', 'don´t'),
    ('Dog, barking', 'Dog, barking'),
  )
  def test_clean_name(self, name, expected):
    self.assertEqual(plain_text.clean_name(name), expected)
    self.assertEqual(plain_text.clean_name(expected), expected)

  def test_white_space_is_that_of_python(self):
    self.assertEqual(
      _characters(plain_text.WHITE_SPACE),
      {chr(i) for i in range(0x110000) if chr(i).isspace()},
    )

  def test_tables_are_apart(self):
    tables = [
      plain_text.WHITE_SPACE,
      plain_text.HIDDEN,
      plain_text.JOINERS,
      plain_text.LONE_ACCENTS,
    ]
    sets = [_characters(table) for table in tables]
    self.assertLen(set.union(*sets), sum(map(len, sets)))

  def test_lone_accents_are_those_of_which_nfkc_makes_spaces(self):
    lone = _characters(plain_text.LONE_ACCENTS)
    for i in range(0x110000):
      if not chr(i).isspace():
        normal = unicodedata.normalize('NFKC', chr(i))
        if normal.startswith(' '):
          self.assertIn(chr(i), lone)

  def test_what_stands_for_no_value(self):
    for cell in ('nan', 'NaN', 'None', 'null', 'NULL', '<NA>', 'NaT', '#N/A'):
      self.assertTrue(plain_text.is_missing(cell), cell)
    for cell in ('none', 'Nan', 'NA', 'null and void', 'none of them', '0', ''):
      self.assertFalse(plain_text.is_missing(cell), cell)

  def test_starts_without_tensorflow(self):
    code = 'import sys, vatt_tf.core.plain_text; print(*sys.modules)'
    modules = subprocess.run(
      [sys.executable, '-c', code], check=True, capture_output=True, text=True
    ).stdout
    self.assertNotIn('tensorflow', modules)


if __name__ == '__main__':
  absltest.main()
