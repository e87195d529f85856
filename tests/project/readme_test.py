"""Tests that what README.md and data/README.md name is there."""

import re

from absl.testing import absltest

from tests.project import regenerate_readme, sources

PAGES = ('README.md', 'data/README.md')


def _read(page):
  return (sources.ROOT / page).read_text(encoding='utf-8')


class ReadmeTest(absltest.TestCase):
  def test_record_table_is_the_feature_spec(self):
    self.assertEqual(
      _read('README.md'), regenerate_readme.render(), 'Run `make regenerate`.'
    )

  def test_commands_are_there(self):
    makefile = _read('Makefile')
    for page in PAGES:
      text = _read(page)
      for module in re.findall(r'python -m ([\w.]+)', text):
        if module.startswith('vatt_tf'):
          self.assertIsNotNone(sources.module_file(module), module)
      for target in re.findall(r'(?:^|`)make ([\w-]+)', text, re.MULTILINE):
        self.assertRegex(makefile, rf'(?m)^{target}:|\b{target}:')

  def test_files_are_there(self):
    for page in PAGES:
      text = _read(page)
      named = re.findall(r'\bgin/[\w/]+\.gin|\bdata/[\w/]+\.(?:py|md)', text)
      for path in named:
        self.assertTrue((sources.ROOT / path).is_file(), f'{page}: {path}')
      folder = (sources.ROOT / page).parent
      for path in re.findall(r'\]\((?!https?:)([^)#]+)', text):
        self.assertTrue((folder / path).exists(), f'{page}: {path}')

  def test_every_top_gin_file_is_named(self):
    text = _read('README.md')
    for path in sources.files():
      if re.fullmatch(r'gin/\w+\.gin', path):
        self.assertIn(path, text)

  def test_lines_of_prose_are_short(self):
    for page in PAGES:
      for number, line in enumerate(_read(page).splitlines(), 1):
        if not line.startswith('|') and 'http' not in line:
          self.assertLessEqual(len(line), 80, f'{page}:{number}')


if __name__ == '__main__':
  absltest.main()
