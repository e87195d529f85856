"""Shapes, colours and motions of the sample media, and the words for them."""

# Shape: the words for it.
SHAPES = {
  'circle': ('circle', 'disc'),
  'square': ('square', 'box'),
  'triangle': ('triangle', 'wedge'),
  'star': ('star', 'starburst'),
  'cross': ('cross', 'plus'),
  'ring': ('ring', 'hoop'),
}

# Shape: its timbre, as (multiple of the pitch, amplitude) of each partial.
TIMBRES = {
  'circle': ((1, 1.0),),
  'square': ((1, 1.0), (3, 0.6), (5, 0.45), (7, 0.35)),
  'triangle': ((1, 0.8), (2, 0.6), (3, 0.5), (4, 0.4), (5, 0.3), (6, 0.25)),
  'star': ((1, 0.6), (2.76, 0.8), (5.4, 0.6)),
  'cross': ((1, 0.7),),  # and noise, see `NOISY`
  'ring': ((1, 0.35), (2, 1.0), (4, 0.8)),
}
NOISY = ('cross',)

# Colour: its red, green and blue, and the words for it.
COLOURS = {
  'red': ((235, 30, 30), ('red', 'crimson')),
  'orange': ((255, 140, 0), ('orange', 'amber')),
  'yellow': ((250, 235, 40), ('yellow', 'golden')),
  'green': ((30, 185, 50), ('green', 'emerald')),
  'cyan': ((40, 225, 235), ('cyan', 'turquoise')),
  'blue': ((40, 70, 245), ('blue', 'cobalt')),
  'purple': ((145, 40, 205), ('purple', 'violet')),
  'pink': ((255, 135, 205), ('pink', 'rosy')),
}

# Colour i has the pitch LOWEST_PITCH * 2 ** (i * 5 / 12), in Hz: steps of five
# semitones, which put no two of them an octave apart.
LOWEST_PITCH = 165.0

# Motion: the phrases for it, each in its two forms.
MOTIONS = {
  'sideways': (
    ('slides from side to side', 'sliding from side to side'),
    ('swings left and right', 'swinging left and right'),
  ),
  'vertical': (
    ('bobs up and down', 'bobbing up and down'),
    ('rises and falls', 'rising and falling'),
  ),
  'diagonal': (
    ('moves from corner to corner', 'moving from corner to corner'),
    ('runs along the diagonal', 'running along the diagonal'),
  ),
  'orbit': (
    ('travels in a loop', 'travelling in a loop'),
    ('goes round and round', 'going round and round'),
  ),
  'pulse': (
    ('grows and shrinks', 'growing and shrinking'),
    ('gets bigger and smaller', 'getting bigger and smaller'),
  ),
  'blink': (
    ('blinks on and off', 'blinking on and off'),
    ('comes and vanishes', 'coming and vanishing'),
  ),
}

TEMPLATES = {
  'train': (
    'a {colour} {shape} {does}',
    'the {colour} {shape} {does}',
    'here a {colour} {shape} is {doing}',
    'this {shape} is {colour} and it {does}',
    'a {shape} in {colour} {does}',
    'we see a {colour} {shape} {doing}',
    'there is a {colour} {shape} that {does}',
    'watch the {colour} {shape} {doing}',
    'look, a {colour} {shape} is {doing}',
    'one {colour} {shape} {does} on the screen',
    'it {does}: a {colour} {shape}',
    '{doing}, a {colour} {shape} fills the picture',
    'now the {shape}, which is {colour}, {does}',
    'you can see how the {shape} is {doing}, it is {colour}',
    'see the {shape} {doing}, it is a {colour} one',
    'in the picture a {colour} {shape} {does}',
    'here it is: the {colour} {shape} that {does}',
    'look how this {colour} {shape} {does}',
    'on the screen, {doing}, is a {shape} in {colour}',
    'a {shape} that {does}, and it is {colour}',
    'now here is one {shape}, {colour}, and it is {doing}',
    'you watch a {colour} {shape}, which {does}',
    'it is {colour}, it is a {shape} and it {does}',
    'the thing that {does} is the {colour} {shape}',
    'we watch this {shape} {doing}, all {colour}',
    '{colour} is the {shape} that we see {doing}',
    'there it {does}, the {shape} in {colour}',
    'see, one {colour} {shape} is {doing} here',
  ),
  'validation': (
    'look, it is a {shape} in {colour} {doing}',
    'on the screen we see one {colour} {shape} that {does}',
    'see how the {colour} {shape} {does}',
    'here is a {shape}, it {does} and is {colour}',
    'now watch this {colour} {shape}, it {does}',
    'you see in the picture one {colour} {shape} {doing}',
  ),
}
