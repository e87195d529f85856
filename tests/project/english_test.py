"""Tests that the pages avoid wordings that read badly in English.

`WORDINGS` has a regular expression, what to write instead, and a sentence that
the expression must match.
"""

import re
from typing import NamedTuple

from absl.testing import absltest, parameterized

from tests.project import sources

PAGES = tuple(
  path
  for path in sources.files()
  if path in ('README.md', 'CONTRIBUTING.md', 'data/README.md')
  or (re.fullmatch(r'docs/.*\.md', path) and path != 'docs/api.md')
)
# What is generated from the code, like docs/api.md, is worded in the code.
GENERATED = re.compile(r'<!-- records -->.*?<!-- /records -->', re.DOTALL)


# White space in a paragraph: at most one line break.
_SPACE = r'(?:[ \t]+|[ \t]*\n[ \t]*)'


class Wording(NamedTuple):
  """A wording to avoid.

  Attributes:
    pattern: regular expression, matched in any case; a space is white space.
    instead: what to write.
    bad: a sentence that has the wording.
  """

  pattern: str
  instead: str
  bad: str


# A rate: `clips a second`, and not `a second file`.
_RATED = (
  r'(?:clips?|steps?|frames?|samples?|images?|answers?|requests?|examples?|'
  r'batch(?:es)?|records?|files?|texts?|queries|bits?|bytes|tokens?|rows?|'
  r'\d(?:[\d,.]*\d)?|MiB|GiB|MB|GB|GFLOPs|TFLOPs|ms|s)'
)
WORDINGS = (
  # Rates.
  Wording(
    rf'\b{_RATED} (?:a|an) '
    r'(?:second|step|clip|core|day|hour|minute|frame|batch|fold|class|record|'
    r'video|split|line|shard|tensor|pixel|sound|process|worker|machine)\b',
    'N per second',
    'It reads 71 clips a second.',
  ),
  Wording(
    r'\ba second of (?:two|every|all)\b',
    'per second of',
    'more than a second of every 8 bytes',
  ),
  # Time and repetition.
  Wording(
    r'\b(?:goes|go|going|went) on\b',
    'resumes, or continues',
    'The run goes on from its last checkpoint.',
  ),
  Wording(r'\banew\b', 'again', 'It is written anew after each step.'),
  Wording(r'\bover again\b', 'again', 'The model gets the clip over again.'),
  Wording(r'\bbegun again\b', 'restarted', 'The pipeline is begun again.'),
  Wording(
    r'\btyped again\b', 'rerun', 'The same command, typed again, resumes.'
  ),
  Wording(
    r'\ba quarter of a minute|half a minute\b',
    'the number of seconds',
    'It ends after half a minute.',
  ),
  # Numbers.
  Wording(
    r'\bso many\b',
    'N, or the name of the number',
    'The towers take so many rows at a time.',
  ),
  Wording(
    r'\bso long\b', 'up to N seconds', 'A request waits so long for others.'
  ),
  # Existence.
  Wording(
    r'\b(?:is|are|was|were) there\b(?! (?:a|an|no)\b)',
    'exists, or is available',
    'Its index is there.',
  ),
  Wording(
    r'\bwhere there is none\b',
    'without one',
    'Where there is none, CPUs are used.',
  ),
  Wording(r'\bthat there is\b', 'that exists', 'the first that there is'),
  # Skipping and defaults.
  Wording(
    r'\bpass(?:ed|es|ing)? over\b',
    'skipped',
    'A damaged checkpoint is passed over.',
  ),
  Wording(
    r'\bas (?:it|they) stands?\b', 'by default', 'As it stands it trains.'
  ),
  Wording(
    r'\bNone: (?:all|none|no|the|at)\b',
    'None means all',
    'Rows at a time. None: all.',
  ),
  Wording(
    r'\bby themselves alone\b|\balone first\b',
    'first on its own',
    'Each is tried alone first.',
  ),
  # Words of another language.
  Wording(
    r'\bof one\'s own\b', 'your own', "weights for training of one's own"
  ),
  Wording(
    r'\b(?:weights|checkpoints|files) of others\b',
    'import and export weights',
    'Weights of others are imported.',
  ),
  Wording(
    r'\bwhat (?:becomes|became) of\b',
    'how each one is mapped',
    'It prints what becomes of every variable.',
  ),
  Wording(
    r'\bby telling which\b', 'by learning which', 'It learns by telling which.'
  ),
  Wording(
    r'\bfor which alone\b',
    'the only one for which',
    'Python 3.11, for which alone wheels exist',
  ),
  Wording(
    r'\b(?:is|are|has|have|with) (?:a|its|their) (?:own )?lines? of (?:the|a) '
    r'(?:skip )?report|\bis a line of `',
    'is listed in the skip report',
    'A file that cannot be used is a line of `NAME.skipped.csv`.',
  ),
  Wording(r'\bdealt out\b', 'shared', 'Records are dealt out to pipelines.'),
  Wording(
    r'\bevery so many-?th\b', 'every N-th', 'the records of every so manyth'
  ),
  Wording(
    r'\btokens? asks?\b|\bask the same signature\b',
    'compute outputs for, or name the same signature',
    'Requests ask the same signature.',
  ),
  Wording(
    r'\bonce that is mended\b',
    'fix the problem and rerun',
    'Once that is mended, the command continues.',
  ),
  Wording(
    r'\btells? `?\w+`? the messages\b',
    'gives the message definitions',
    'The file tells `grpcurl` the messages.',
  ),
  Wording(
    r'\bare no search for\b',
    'give up searching',
    'Ten steps in a row are no search for a scale.',
  ),
  Wording(
    r'\bare multiplied by and shifted by\b',
    'learned temperature and bias',
    'What the similarities are multiplied by and shifted by, learned.',
  ),
  Wording(
    r'\bof all that is random\b',
    'seed of every random choice',
    'Seed: of all that is random.',
  ),
  Wording(
    r'\bshows another combination\b|\bin other words than\b',
    'combinations and phrasings that never occur in training',
    'A clip shows another combination.',
  ),
  Wording(
    r'\b(?:is|are) no (?:media|videos?|JPEG|failures?|text|words?|pattern|'
    r'images?)\b',
    'is not',
    'Playlists are no media.',
  ),
  Wording(
    r'\bmay be had\b|\bcannot be had\b',
    'cannot be read',
    'Other files cannot be had.',
  ),
  Wording(
    r'\bwith those in it\b|\bthose in it\b',
    'and its sub-folders',
    'a folder with those in it',
  ),
  Wording(r'\bdoes as well\b', 'works too', 'A folder of files does as well.'),
  Wording(
    r'\bcome on top\b', 'are additional', 'Norms and dropout come on top.'
  ),
  Wording(
    r'\btaken to (?:hide|be)\b', 'assumed to', 'Exchange is taken to hide.'
  ),
  Wording(
    r'\bis (?:that|those) of\b|\bare (?:that|those) of\b',
    'the thing itself, or a clause with which or that',
    'The figures are those of classification.',
  ),
)


def find(text: str) -> list[tuple[int, str, str]]:
  """Finds wordings to avoid: line, what it says, what to write instead."""
  found = []
  for wording in WORDINGS:
    pattern = wording.pattern.replace(' ', _SPACE)
    for match in re.finditer(pattern, text, re.IGNORECASE):
      line = text.count('\n', 0, match.start()) + 1
      found.append((line, ' '.join(match[0].split()), wording.instead))
  return sorted(found)


def find_beginnings(text: str) -> list[str]:
  """Finds paragraphs that begin in lower case: their first words."""
  return re.findall(r'(?m)(?:\A|^$\n)^([a-z][\w-]*)', text)


def _prose(text):
  """Blanks code blocks, inline code and generated parts; lines stay."""

  def blank(match):
    return re.sub(r'[^\n]', '_', match[0])

  for pattern in (GENERATED, re.compile(r'(?ms)^ *```.*?^ *```$')):
    text = pattern.sub(blank, text)
  return text


class EnglishTest(parameterized.TestCase):
  @parameterized.parameters(*PAGES)
  def test_pages_avoid_these_wordings(self, page):
    text = _prose((sources.ROOT / page).read_text(encoding='utf-8'))
    found = [
      f'{page}:{line}: {wording!r}; write: {instead}'
      for line, wording, instead in find(text)
    ]
    self.assertEmpty(found, '\n'.join(found))

  @parameterized.parameters(*PAGES)
  def test_paragraphs_begin_with_a_subject(self, page):
    text = _prose((sources.ROOT / page).read_text(encoding='utf-8'))
    found = [line for line in find_beginnings(text) if line != 'vatt_tf']
    self.assertEmpty(found, f'{page}: write "This command ..." or the like.')

  def test_a_paragraph_without_a_subject_is_found(self):
    text = '```\nls\n```\n\nprints names.\n\nIt does so\nfast.\n'
    self.assertEqual(find_beginnings(_prose(text)), ['prints'])

  @parameterized.parameters(*WORDINGS)
  def test_each_pattern_matches_its_sentence(self, pattern, instead, bad):
    del pattern
    self.assertIn(instead, [suggestion for _, _, suggestion in find(bad)])

  @parameterized.parameters(
    'It shows another combination, in other words than any training clip.',
    'It learns by telling which of them belong together.',
    'the version for which alone the pinned packages all have wheels',
    'A file that cannot be used is a line of the skip report.',
    'A run that goes on is followed with `--follow`.',
    'The file tells `grpcurl` the messages.',
    'It prints what becomes of every variable.',
    'Records are dealt out to so many pipelines.',
    'The records of every so many-th batch are kept.',
    'So many steps in a row without an update are no search.',
    'Only the first so many tokens ask (and get an output).',
    'Once that is mended the same command goes on from there.',
    'Those of an earlier run are there, and are written anew.',
    'It gives 98 examples a second as it stands.',
  )
  def test_these_sentences_are_found(self, sentence):
    self.assertNotEmpty(find(sentence))

  def test_lines_are_counted_and_may_break_inside_a_wording(self):
    found = find('One.\nThe run goes\non, and is\npassed over.\n')
    self.assertEqual(
      [(line, wording) for line, wording, _ in found],
      [(2, 'goes on'), (4, 'passed over')],
    )

  @parameterized.parameters(
    'It reads 71 clips per second, and a second file is ignored.',
    'After an interruption the same command resumes the run.',
    'Is there a GPU? There is one.',
    'Damaged records are skipped. None means all.',
    'A run continues after N steps.',
    'The second command waits a second.',
  )
  def test_good_sentences_are_let_through(self, sentence):
    self.assertEmpty(find(sentence))

  def test_code_is_not_prose(self):
    self.assertEmpty(find(_prose('```\necho goes on\n```\n')))
    self.assertNotEmpty(find(_prose('It goes on.\n')))


if __name__ == '__main__':
  absltest.main()
