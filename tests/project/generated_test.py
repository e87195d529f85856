"""Tests that generated pages and figures are what the code generates."""

import xml.etree.ElementTree as ElementTree

from absl.testing import absltest, parameterized

from tests.project import regenerate, sources
from tests.project.generate import imports_figure, svg


class GeneratedTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (generator.__name__.rsplit('.', 1)[1], generator)
    for generator in regenerate.GENERATORS
  )
  def test_committed_file_is_current(self, generator):
    committed = (sources.ROOT / generator.PATH).read_text(encoding='utf-8')
    self.assertEqual(committed, generator.render(), 'Run `make regenerate`.')

  def test_figures_are_shown_and_whole(self):
    pages = [path for path in sources.files() if path.endswith('.md')]
    texts = [(sources.ROOT / page).read_text('utf-8') for page in pages]
    for path in sources.files():
      if path.startswith('docs/images/'):
        name = path.rsplit('/', 1)[1]
        self.assertTrue(any(f'images/{name})' in text for text in texts), path)
        root = ElementTree.parse(sources.ROOT / path).getroot()
        width, height = float(root.get('width')), float(root.get('height'))
        for shape in root.iter('{http://www.w3.org/2000/svg}rect'):
          x, y = float(shape.get('x', 0)), float(shape.get('y', 0))
          self.assertLessEqual(x + float(shape.get('width')), width, path)
          self.assertLessEqual(y + float(shape.get('height')), height, path)


class ImportsFigureTest(absltest.TestCase):
  def test_no_arrow_goes_up(self):
    rows = {
      name: row
      for row, names in enumerate(imports_figure.rows())
      for name in names
    }
    graph = imports_figure.imports()
    self.assertIn('core', graph['models'])
    for importer, imported in graph.items():
      for name in imported:
        self.assertLessEqual(rows[importer], rows[name], (importer, name))

  def test_no_circle(self):
    self.assertIsNone(imports_figure.find_circle(imports_figure.imports()))

  def test_a_circle_is_found(self):
    graph = {'a': {'b'}, 'b': {'c'}, 'c': {'b'}}
    self.assertEqual(imports_figure.find_circle(graph), ['b', 'c', 'b'])

  def test_arrows_that_follow_from_others_are_left_out(self):
    graph = {'a': {'b', 'c', 'd'}, 'b': {'c'}, 'c': set(), 'd': set()}
    expected = {'a': {'b', 'd'}, 'b': {'c'}, 'c': set(), 'd': set()}
    self.assertEqual(imports_figure.reduce(graph), expected)


class SvgTest(absltest.TestCase):
  def test_text_that_overflows_its_box_is_an_error(self):
    canvas = svg.Canvas(100, 50, 'A test')
    canvas.box(0, 0, 90, 40, ('short',))
    with self.assertRaisesRegex(ValueError, 'must be at most 82 wide'):
      canvas.box(0, 0, 90, 40, ('far too long for this box',))
    with self.assertRaisesRegex(ValueError, '3 lines must fit'):
      canvas.box(0, 0, 90, 40, ('a', 'b', 'c'))

  def test_render_escapes_and_rounds(self):
    canvas = svg.Canvas(100, 50, 'a & b')
    canvas.text(1 / 3, 10, '<x>')
    canvas.arrow((0, 0), (30, 0))
    root = ElementTree.fromstring(canvas.render())
    text = root.find('{http://www.w3.org/2000/svg}text')
    self.assertEqual(text.text, '<x>')
    self.assertEqual(text.get('x'), '0.33')


if __name__ == '__main__':
  absltest.main()
