"""A canvas for figures of boxes, lines of text and arrows, written as SVG."""

import math
from xml.sax import saxutils

INK = '#1f2328'
GREY = '#59636e'
# Width of a character over the size of the font: that of the wide fonts that
# stand in where Helvetica and Arial are missing.
_CHARACTER_WIDTH = 0.58
_BOLD_CHARACTER_WIDTH = 0.64


def text_width(text: str, size: float, is_bold: bool = False) -> float:
  """Width of a line of text, estimated from above, in the units of the SVG."""
  width = _BOLD_CHARACTER_WIDTH if is_bold else _CHARACTER_WIDTH
  return len(text) * size * width


class Canvas:
  """Collects shapes, in the order in which they are painted.

  The background is white, so that a page in dark mode shows the figure as a
  page in light mode does.

  Args:
    width: float.
    height: float.
    title: what the figure shows, for readers who cannot see it.
  """

  def __init__(self, width: float, height: float, title: str):
    self.width = width
    self.height = height
    self.title = title
    self.shapes = []

  def _add(self, tag, content='', **attributes):
    pairs = ''.join(
      f' {name.replace("_", "-")}="{_number(value)}"'
      for name, value in attributes.items()
      if value is not None
    )
    self.shapes.append(
      f'<{tag}{pairs}>{content}</{tag}>' if content else f'<{tag}{pairs}/>'
    )

  def rectangle(self, x, y, width, height, **style) -> None:
    """Draws a rectangle with round corners."""
    style = {'fill': 'none', 'stroke': '#d0d7de', 'rx': 6, **style}
    self._add('rect', x=x, y=y, width=width, height=height, **style)

  def text(
    self,
    x,
    y,
    line,
    size=13,
    fill=INK,
    anchor='middle',
    is_bold=False,
    max_width=None,
  ) -> None:
    """Writes one line, centred on height `y`.

    Raises:
      ValueError: the line is wider than `max_width`.
    """
    width = text_width(line, size, is_bold)
    if max_width is not None and width > max_width:
      raise ValueError(
        f'The text must be at most {max_width} wide; shorten it or widen its '
        f'box. Received: {line!r}, about {width:.0f} wide.'
      )
    self._add(
      'text',
      saxutils.escape(line),
      x=x,
      y=y + 0.35 * size,
      font_size=size,
      font_weight='bold' if is_bold else None,
      fill=fill,
      text_anchor=anchor,
    )

  def box(self, x, y, width, height, lines, size=13, **style) -> None:
    """Draws a rectangle with centred lines, of which the first is bold.

    Raises:
      ValueError: the lines do not fit into the rectangle.
    """
    self.rectangle(x, y, width, height, **style)
    step = 1.35 * size
    if len(lines) * step > height:
      raise ValueError(
        f'{len(lines)} lines must fit into a height of {height}. '
        f'Received: {lines}'
      )
    first = y + height / 2 - step * (len(lines) - 1) / 2
    for i, line in enumerate(lines):
      self.text(
        x + width / 2,
        first + i * step,
        line,
        size=size if i == 0 else size - 1,
        fill=INK if i == 0 else GREY,
        is_bold=i == 0,
        max_width=width - 8,
      )

  def arrow(self, *points, colour=GREY, width=1.5) -> None:
    """Draws an arrow along some points (x, y), with its head at the last."""
    (x0, y0), (x1, y1) = points[-2:]
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    head = 4 + 2 * width
    base = (x1 - head * dx, y1 - head * dy)
    line = [*points[:-1], base]
    self._add(
      'polyline',
      points=' '.join(f'{_number(x)},{_number(y)}' for x, y in line),
      fill='none',
      stroke=colour,
      stroke_width=width,
    )
    sides = [
      (base[0] - side * dy * head / 2, base[1] + side * dx * head / 2)
      for side in (-1, 1)
    ]
    self._add(
      'polygon',
      points=' '.join(
        f'{_number(x)},{_number(y)}' for x, y in [(x1, y1), *sides]
      ),
      fill=colour,
    )

  def render(self) -> str:
    """Returns the SVG."""
    width, height = _number(self.width), _number(self.height)
    lines = [
      f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
      f'height="{height}" viewBox="0 0 {width} {height}" role="img" '
      'font-family="Helvetica, Arial, sans-serif">',
      f'<title>{saxutils.escape(self.title)}</title>',
      f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
      *self.shapes,
      '</svg>',
      '',
    ]
    return '\n'.join(lines)


def _number(value):
  """A number as SVG has it, short and equal on each machine."""
  if isinstance(value, float):
    return f'{value:.2f}'.rstrip('0').rstrip('.')
  return value
