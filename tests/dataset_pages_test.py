"""Each public data set has a page and a gin file, and they fit the command."""

import re
import shlex

from absl import flags
from absl.testing import flagsaver, parameterized
import gin
import tensorflow as tf

from tests import shared_data
from vatt_tf import (
  configurables,  # noqa: F401
  ingest,  # noqa: F401
)
from vatt_tf.core import gin_utils
from vatt_tf.media.datasets import registry

_PAGES = shared_data.REPOSITORY / 'docs' / 'datasets'
_PAGE_OF = {'esc10': 'esc50'} | {
  f'kinetics{size}': 'kinetics' for size in (400, 600, 700)
}
# Where a gin file names a data set that has none of its own.
_GIN_FILES = {
  'audioset': 'gin/finetune_audioset.gin',
  'esc10': 'gin/data/esc50.gin',
  'howto100m': 'gin/data/howto100m_audioset.gin',
  'imagenet': 'gin/finetune_imagenet.gin',
  'msrvtt': 'gin/eval/retrieval.gin',
  'youcook2': 'gin/eval/retrieval.gin',
}
_NAMES_RECORDS = [
  name
  for name in registry.DATASETS
  if name not in ('esc10', 'howto100m', 'imagenet', 'msrvtt', 'youcook2')
]


def _gin_file(name):
  return _GIN_FILES.get(name, f'gin/data/{name}.gin')


def _commands(page):
  """The ingest commands of a page as lists of flags, loops spelled out."""
  commands = []
  for block in re.findall(r'```\n(.*?)```', page, re.DOTALL):
    block = block.replace('\\\n', ' ')
    loop = re.search(r'for (\w+) in (.*?); do', block)
    values = loop.group(2).split() if loop else ['']
    for line in block.splitlines():
      if line.strip().startswith('python -m vatt_tf.ingest'):
        commands += [
          shlex.split(
            line.replace(f'${loop.group(1)}', value) if loop else line
          )
          for value in values
        ]
  return [command[3:] for command in commands]


class DatasetPagesTest(parameterized.TestCase, tf.test.TestCase):
  def setUp(self):
    super().setUp()
    if not flags.FLAGS.is_parsed():
      flags.FLAGS(['test'])
    gin.clear_config()
    self.addCleanup(gin.clear_config)

  @parameterized.parameters(*registry.DATASETS)
  def test_page(self, name):
    info = registry.DATASETS[name]
    page = (_PAGES / f'{_PAGE_OF.get(name, name)}.md').read_text('utf-8')
    self.assertIn(_gin_file(name), page)
    commands = _commands(page)
    self.assertNotEmpty(commands)
    made = set()
    for command in commands:
      with flagsaver.flagsaver():
        rest = flags.FLAGS(['ingest', *command])
        self.assertLen(rest, 1)
        values = flags.FLAGS
        other = registry.DATASETS[values.dataset]
        self.assertEqual(other.reader, self._reader(page, values.dataset))
        self.assertTrue(values.split in other.splits or other.has_lists)
        self.assertEqual(values.output_dir.split('/')[0], 'data')
        made.add((values.output_dir, values.split or 'all'))
    # What the gin file names is what the commands make.
    folders = {folder for folder, _ in made}
    if name in _NAMES_RECORDS and f'data/{name}' in folders:
      gin_utils.parse([_gin_file(name)])
      found = [path.rsplit('/', 1) for path in self._patterns()]
      found = [names for folder, names in found if folder == f'data/{name}']
      self.assertNotEmpty(found)
      for names in found:
        self.assertIn((f'data/{name}', names.split('-')[0]), made)
      if info.has_lists:
        self.assertEqual(gin.query_parameter('%SPLITS'), f'data/{name}/splits')

  def _reader(self, page, dataset):
    """The reader of the data set, whose name the page must say."""
    info = registry.DATASETS[dataset]
    self.assertIn(info.title.split('-')[0], page)
    return info.reader

  def _patterns(self):
    found = []
    for macro in ('TRAIN_RECORDS', 'EVAL_RECORDS'):
      try:
        value = gin.query_parameter(f'%{macro}')
      except ValueError:
        continue
      found += [value] if isinstance(value, str) else list(value)
    self.assertNotEmpty(found)
    return found

  @parameterized.parameters(*_NAMES_RECORDS)
  def test_gin_file(self, name):
    gin_utils.parse([_gin_file(name)])
    for path in self._patterns():
      self.assertStartsWith(path, 'data/')
      self.assertEndsWith(path, '-*.tfrecord')
    num_classes = registry.DATASETS[name].num_classes
    if num_classes:
      self.assertEqual(gin.query_parameter('%NUM_CLASSES'), num_classes)
      self.assertEqual(
        gin.query_parameter('%LABEL_NAMES'), f'data/{name}/labels.txt'
      )

  @parameterized.parameters(
    (
      'ucf101',
      'ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi:0-2360000',
      'v_ApplyEyeMakeup_g08',
    ),
    ('esc50', '1-100210-B-36.wav:0-5000000', '1-100210'),
    ('esc50', 'audio/5-9032-A-0.wav:0-5000000', '5-9032'),
  )
  def test_groups_of_recordings(self, name, example_id, group):
    gin_utils.parse([f'gin/data/{name}.gin'])
    pattern = gin.query_parameter('%GROUP_PATTERN')
    self.assertEqual(re.search(pattern, example_id).groups(), (group,))

  def test_table_and_links(self):
    table = (_PAGES / 'README.md').read_text('utf-8')
    for page in _PAGES.glob('*.md'):
      if page.name != 'README.md':
        self.assertIn(f']({page.name})', table)
      for link in re.findall(
        r'\]\((?!https?:)([^)#]+)', page.read_text('utf-8')
      ):
        self.assertTrue((_PAGES / link).exists(), f'{page.name}: {link}')
    for name, info in registry.DATASETS.items():
      if not name.startswith('kinetics'):
        self.assertIn(f'`{name}`', table)
        if info.num_classes:
          self.assertIn(f'{info.num_classes:,}', table)


if __name__ == '__main__':
  tf.test.main()
