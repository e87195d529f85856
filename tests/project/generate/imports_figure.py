"""Draws docs/images/imports.svg: which package imports which.

The rows are the layers of layout_test.py, the arrows the imports that exist.
An arrow that follows from others is left out (a transitive reduction), so that
the figure stays legible.
"""

import functools

from tests.project import layout_test, sources
from tests.project.generate import svg

PATH = 'docs/images/imports.svg'
COMMANDS = 'commands'  # every module that lies directly in vatt_tf

# What a row holds, from the highest.
_NOTES = (
  'flags and messages',
  'tasks, optimizers, loop',
  'uses of a model',
  'towers',
  'independent parts',
  'shared helpers',
)
# Order in a row: neighbours are joined by the shortest arrows.
_ORDER = (
  *('training', 'checkpoints', 'evaluation', 'analysis', 'serving', 'export'),
  *('embedding', 'retrieval_index', 'losses', 'layers', 'input_pipeline'),
  'media',
)
_WIDTH = 1040
_LEFT = 200  # of the boxes
_TOP = 20
_STEP = 92  # from row to row
_HEIGHT = 36  # of a box
_GAP = 26  # beside the outermost boxes of a row
_COLOURS = ('#57606a', '#bc4c00', '#8250df', '#0969da', '#1a7f37', '#57606a')
_FILLS = ('#f6f8fa', '#fff1e5', '#fbefff', '#ddf4ff', '#dafbe1', '#f6f8fa')


def _package(path):
  """The package of a file of vatt_tf, or `commands`."""
  parts = path.split('/')
  return parts[1] if len(parts) > 2 else COMMANDS


@functools.cache
def imports() -> dict[str, set[str]]:
  """Which packages of vatt_tf each of them imports, itself left out."""
  graph = {}
  for path in sources.python_files('vatt_tf'):
    importer = _package(path)
    graph.setdefault(importer, set())
    for name in sources.imports(path):
      file = sources.module_file(name)
      if file and file.startswith('vatt_tf/') and file != 'vatt_tf/__init__.py':
        graph[importer].add(_package(file))
    graph[importer].discard(importer)
  return graph


def find_circle(graph) -> list[str] | None:
  """The nodes of a circle of a graph, or None."""
  done = set()

  def visit(node, above):
    if node in above:
      return [*above[above.index(node) :], node]
    if node not in done:
      for other in sorted(graph.get(node, ())):
        circle = visit(other, [*above, node])
        if circle:
          return circle
      done.add(node)
    return None

  for node in sorted(graph):
    circle = visit(node, [])
    if circle:
      return circle
  return None


def reduce(graph) -> dict[str, set[str]]:
  """Leaves out the edges that follow from others; the graph has no circle."""

  @functools.cache
  def reachable(node):
    below = set(graph.get(node, ()))
    return below.union(*map(reachable, below))

  return {
    node: {
      other
      for other in others
      if not any(other in reachable(between) for between in others)
    }
    for node, others in graph.items()
  }


def rows() -> list[list[str]]:
  """The packages of each layer, from the highest."""
  layers = {}
  for name in imports():
    layer = layout_test.LAYERS.get(name, layout_test.MAIN_LAYER)
    layers.setdefault(layer, []).append(name)

  def rank(name):
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)

  return [sorted(layers[layer], key=rank) for layer in sorted(layers)[::-1]]


def _places():
  """The left edge and the width of each box, and the number of its row."""
  places = {}
  room = _WIDTH - _LEFT - 20
  for row, names in enumerate(rows()):
    widths = [svg.text_width(name, 13, is_bold=True) + 14 for name in names]
    # A row is as wide as the figure. Of single boxes training lies at the left,
    # where no arrow passes it, and others in the middle.
    x, gap = _LEFT, (room - sum(widths)) / max(len(names) - 1, 1)
    if names in ([COMMANDS], ['core']):
      widths = [room]
    elif len(names) == 1 and names != ['training']:
      x = _LEFT + gap / 2
    for name, width in zip(names, widths):
      places[name] = (x, width, row)
      x += width + gap
  return places


def _through(places, row, x):
  """The place between the boxes of a row that is nearest to `x`."""
  boxes = sorted(place for place in places.values() if place[2] == row)
  edges = [(_LEFT - 2 * _GAP, 0), *boxes, (_WIDTH + _GAP, 0)]
  gaps = [
    (left[0] + left[1], right[0]) for left, right in zip(edges, edges[1:])
  ]
  candidates = [
    min(max(x, start + 12), end - 12)
    for start, end in gaps
    if end - start >= 24
  ]
  return min(candidates, key=lambda candidate: abs(candidate - x))


def _top(row):
  return _TOP + row * _STEP


def _draw_sideways(canvas, places, start, end):
  """Draws an arrow between two boxes of one row."""
  (x0, width0, row), (x1, width1, _) = places[start], places[end]
  colour = _COLOURS[row]
  y = _top(row) + _HEIGHT / 2
  is_between = [
    min(x0, x1) < x < max(x0, x1)
    for x, _, other in places.values()
    if other == row
  ]
  if any(is_between):  # over the boxes between them
    x0, x1 = x0 + width0 / 2, x1 + width1 / 2
    y = _top(row) - 12
    canvas.arrow(
      (x0, _top(row)), (x0, y), (x1, y), (x1, _top(row)), colour=colour
    )
  elif x0 < x1:
    canvas.arrow((x0 + width0, y), (x1, y), colour=colour)
  else:
    canvas.arrow((x0, y), (x1 + width1, y), colour=colour)


def render() -> str:
  """Returns the figure as SVG."""
  places = _places()
  graph = reduce(imports())
  canvas = svg.Canvas(
    _WIDTH,
    _top(len(rows()) - 1) + _HEIGHT + _TOP,
    'Packages of vatt_tf in rows; arrows lead from a package to those that it '
    'imports, down or sideways.',
  )
  for row, note in enumerate(_NOTES):
    canvas.text(
      16,
      _top(row) + _HEIGHT / 2,
      note,
      size=12,
      fill=svg.GREY,
      anchor='start',
      max_width=_LEFT - 20,
    )
  down = [
    (name, other)
    for name in places
    for other in sorted(graph[name])
    if places[name][2] != places[other][2]
  ]

  def middle(name):
    return places[name][0] + places[name][1] / 2

  def spread(name, end):
    """The x of each arrow at the bottom (end 0) or the top (1) of a box."""
    x, width, _ = places[name]
    edges = [edge for edge in down if edge[end] == name]
    if name in (COMMANDS, 'core'):  # arrows of wide boxes are vertical
      return {edge: middle(edge[1 - end]) for edge in edges}
    edges.sort(key=lambda edge: middle(edge[1 - end]))
    return {
      edge: x + width * (i + 1) / (len(edges) + 1)
      for i, edge in enumerate(edges)
    }

  starts, ends = {}, {}
  for name in places:
    starts |= spread(name, 0)
    ends |= spread(name, 1)
  for edge in down:
    first, last = places[edge[0]][2], places[edge[1]][2]
    points = [(starts[edge], _top(first) + _HEIGHT)]
    for row in range(first + 1, last):
      share = (row - first) / (last - first)
      x = starts[edge] + share * (ends[edge] - starts[edge])
      x = _through(places, row, x)
      points += [(x, _top(row) - 6), (x, _top(row) + _HEIGHT + 6)]
    points.append((ends[edge], _top(last)))
    canvas.arrow(*points, colour=_COLOURS[first], width=1.2)
  for name in places:
    for other in sorted(graph[name]):
      if places[name][2] == places[other][2]:
        _draw_sideways(canvas, places, name, other)
  for name, (x, width, row) in places.items():
    canvas.box(
      x,
      _top(row),
      width,
      _HEIGHT,
      (name,),
      fill=_FILLS[row],
      stroke=_COLOURS[row],
    )
  return canvas.render()
