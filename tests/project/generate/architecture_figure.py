"""Draws docs/images/architecture.svg: from raw clips to the two losses."""

from tests.project.generate import svg

PATH = 'docs/images/architecture.svg'

# Of video, audio and text: the lightest for boxes, the darkest for lines.
_FILLS = ('#ddf4ff', '#fff1e5', '#fbefff')
_STROKES = ('#0969da', '#bc4c00', '#8250df')
_ROWS = (70, 200, 330)  # tops of the rows of video, audio and text
_HEIGHT = 84  # of a box
# Left edge and width of each column.
_INPUTS = (16, 138)
_TOKENIZERS = (186, 174)
_TOWERS = (412, 172)
_SPACES = (652, 170)
_LOSSES = (884, 140)


def render() -> str:
  """Returns the figure as SVG."""
  canvas = svg.Canvas(
    1040,
    444,
    'VATT: raw video, audio and text become tokens, of which DropToken keeps '
    'a part; a Transformer encoder for each modality, or one for all, gives a '
    'feature; features are projected into a fine video-audio space and a '
    'coarse video-text space, and compared by NCE and MIL-NCE.',
  )
  for (x, width), title in (
    (_INPUTS, 'raw input'),
    (_TOKENIZERS, 'tokens'),
    (_TOWERS, 'towers'),
    (_SPACES, 'common spaces'),
    (_LOSSES, 'losses'),
  ):
    canvas.text(x + width / 2, 24, title, size=14, fill=svg.GREY)
  _draw_towers(canvas)
  _draw_spaces(canvas)
  return canvas.render()


def _right(column):
  return column[0] + column[1]


def _draw_towers(canvas):
  """Draws the columns on the left: a row for each modality."""
  x, width = _TOWERS
  canvas.rectangle(
    x - 14, 46, width + 28, 380, stroke=svg.GREY, stroke_dasharray='5 4', rx=10
  )
  canvas.text(
    x + width / 2,
    58,
    'modality-agnostic: one encoder',
    size=11,
    fill=svg.GREY,
    max_width=width + 24,
  )
  inputs = (
    ('video', '32 frames', '224 × 224 × 3'),
    ('audio', '153,600 samples', 'at 48 kHz'),
    ('text', '5 captions', 'of 16 words'),
  )
  tokenizers = (
    ('patches 4 × 16 × 16', 'DropToken keeps half', 'projection + position'),
    ('patches of 128', 'DropToken keeps half', 'projection + position'),
    ('word table', 'projection'),
  )
  for i, (top, fill, stroke) in enumerate(zip(_ROWS, _FILLS, _STROKES)):
    style = {'fill': fill, 'stroke': stroke}
    middle = top + _HEIGHT / 2
    canvas.box(_INPUTS[0], top, _INPUTS[1], _HEIGHT, inputs[i], **style)
    x, width = _TOKENIZERS
    canvas.box(x, top, width, _HEIGHT, tokenizers[i], **style)
    x, width = _TOWERS
    canvas.box(
      x,
      top,
      width,
      _HEIGHT,
      ('Transformer encoder', 'AGG token in front;', 'its output: the feature'),
      **style,
    )
    for start, end in (
      (_right(_INPUTS), _TOKENIZERS[0]),
      (_right(_TOKENIZERS), x),
    ):
      canvas.arrow((start, middle), (end, middle), colour=stroke)


def _draw_spaces(canvas):
  """Draws the columns on the right: a row for each common space."""
  video, audio, text = (top + _HEIGHT / 2 for top in _ROWS)
  right = _right(_TOWERS)
  x, width = _SPACES
  spaces = (
    (video - 12, audio + 12, ('video-audio space', 'fine, 512-d')),
    (text - 42, text + 42, ('video-text space', 'coarse, 256-d')),
  )
  losses = (
    ('NCE', 'video with audio'),
    ('MIL-NCE', 'video with its', 'captions'),
  )
  for (top, bottom, lines), loss in zip(spaces, losses):
    style = {'fill': '#dafbe1', 'stroke': '#1a7f37'}
    canvas.box(x, top, width, bottom - top, lines, **style)
    middle = (top + bottom) / 2
    canvas.arrow(
      (_right(_SPACES), middle), (_LOSSES[0], middle), colour='#1a7f37'
    )
    canvas.box(
      _LOSSES[0],
      middle - 36,
      _LOSSES[1],
      72,
      loss,
      fill='#f6f8fa',
      stroke=svg.GREY,
    )
  for height, stroke in zip((video, audio, text), _STROKES):
    canvas.arrow((right, height), (x, height), colour=stroke)
  # Video is projected from the fine space into the coarse one.
  canvas.arrow(
    (x + width / 2, spaces[0][1]),
    (x + width / 2, spaces[1][0]),
    colour=_STROKES[0],
  )
  canvas.text(
    x + width / 2 + 10,
    (spaces[0][1] + spaces[1][0]) / 2,
    'video: fine to coarse',
    size=12,
    fill=svg.GREY,
    anchor='start',
  )
