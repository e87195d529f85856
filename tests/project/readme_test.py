"""Tests that what README.md and the pages of docs/ name exists."""

import ast
import re

from absl.testing import absltest, parameterized

from tests.project import sources

PAGES = tuple(
  path
  for path in sources.files()
  if path in ('README.md', 'CONTRIBUTING.md', 'data/README.md')
  or re.fullmatch(r'docs/.*\.md', path)
)
_LINK = re.compile(r'\]\((?!https?:)([^)\s]+)\)')


def _read(page):
  return (sources.ROOT / page).read_text(encoding='utf-8')


def _anchors(text):
  """The names that GitHub gives to the headings of a page."""
  headings = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
  return {
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    for heading in headings
  }


class ReadmeTest(parameterized.TestCase):
  @parameterized.parameters(*PAGES)
  def test_commands_exist(self, page):
    text = _read(page)
    for module in re.findall(r'python -m\s+([\w.]+)', text):
      if module.startswith(('vatt_tf', 'benchmarks', 'tests')):
        self.assertIsNotNone(sources.module_file(module), module)
    makefile = _read('Makefile')
    for target in re.findall(r'(?:^|`)make ([\w-]+)', text, re.MULTILINE):
      self.assertRegex(makefile, rf'(?m)^(?:[\w-]+ )*{target}(?: [\w-]+)*:')

  @parameterized.parameters(*PAGES)
  def test_files_exist(self, page):
    text = _read(page)
    # A page may tell the reader to write a file, under its name in backticks
    # and a colon: `gin/models/mine.gin`:
    written = set(re.findall(r'^ *`([\w/.]+)`:$', text, re.MULTILINE))
    named = re.findall(
      r'(?<![\w/.-])(?:gin|docs|benchmarks|tests|vatt_tf|data)/[\w/]+'
      r'\.(?:gin|py|md)\b',
      text,
    )
    for path in set(named) - written:
      self.assertTrue((sources.ROOT / path).is_file(), path)

  @parameterized.parameters(*PAGES)
  def test_links_lead_somewhere(self, page):
    folder = (sources.ROOT / page).parent
    for link in _LINK.findall(_read(page)):
      path, _, anchor = link.partition('#')
      target = folder / path if path else sources.ROOT / page
      self.assertTrue(target.exists(), link)
      if anchor:
        self.assertIn(anchor, _anchors(target.read_text('utf-8')), link)

  @parameterized.parameters(*PAGES)
  def test_python_parses(self, page):
    for block in re.findall(r'(?ms)^```python\n(.*?)^```$', _read(page)):
      ast.parse(block, page)

  def test_every_page_is_in_the_index(self):
    links = {
      link.partition('#')[0] for link in _LINK.findall(_read('docs/README.md'))
    }
    for page in PAGES:
      if re.fullmatch(r'docs/\w+\.md', page) and page != 'docs/README.md':
        self.assertIn(page.removeprefix('docs/'), links)

  def test_every_top_gin_file_is_named(self):
    text = _read('README.md')
    for path in sources.files():
      if re.fullmatch(r'gin/\w+\.gin', path):
        self.assertIn(f'`{path}`', text)

  def test_readme_is_short(self):
    self.assertLessEqual(len(_read('README.md').splitlines()), 200)

  @parameterized.parameters(*PAGES)
  def test_lines_of_prose_are_short(self, page):
    is_code = False
    for number, line in enumerate(_read(page).splitlines(), 1):
      is_code ^= line.startswith('```')
      if (
        not is_code and not line.startswith(('|', '![')) and 'http' not in line
      ):
        self.assertLessEqual(len(line), 80, f'{page}:{number}')


if __name__ == '__main__':
  absltest.main()
