"""Names of files and folders that mean something to a program."""

# To a shell, to TensorFlow, to gin or to a text format.
NAMES = (
  'exp [lr=1e-3]',
  '[!a]',
  'a*b',
  'what?',
  'back\\slash',
  '{x,y}',
  '100%',
  ' lead',
  'trail ',
  'with, comma',
  'comma,',
  '~tilde',
  'q"u\'o',
  'é ü',
)
