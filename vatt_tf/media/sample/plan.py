"""The plan of the sample media: what each clip shows, plays and says."""

import dataclasses
import itertools

import numpy as np

from vatt_tf.media.sample import words

SPLITS = ('train', 'validation')

CAPTION_FORMS = ('csv', 'vtt')
LABELS = ('shape', 'colour', 'motion')
DISTRACTOR_COLOURS = ('other', 'same')


@dataclasses.dataclass(frozen=True)
class Clip:
  """Content of one clip: what it shows, plays and says.

  Attributes:
    split: Split of the clip, `'train'` or `'validation'`.
    index: Number of the clip in its split, from 0.
    shape: Key of `words.SHAPES`.
    colour: Key of `words.COLOURS`.
    motion: Key of `words.MOTIONS`.
    has_audio: Whether the clip has sound.
    caption_form: Place of the captions, `'csv'` or `'vtt'`; None without
      captions.
    captions: Captions `(start, end, text)`, with times in seconds.
    distractor: What a second, silent shape shows, or None.
  """

  split: str
  index: int
  shape: str
  colour: str
  motion: str
  has_audio: bool
  caption_form: str | None
  captions: tuple[tuple[float, float, str], ...]
  distractor: 'Clip | None' = None

  @property
  def video_path(self) -> str:
    """Path of the media file, relative to the folder of the set."""
    return f'{self.split}/{self.index:05d}.mp4'


@dataclasses.dataclass(frozen=True)
class Options:
  """Sizes of the set and of its clips.

  Attributes:
    num_train: Number of training clips.
    num_validation: Number of validation clips, at most the number of
      combinations of shape, colour and motion.
    seed: Seed of every random choice.
    duration: Length of a clip in seconds.
    frame_size: Height and width in pixels, an even number.
    frame_rate: Frames per second.
    audio_rate: Samples per second, a rate that AAC offers.
    silent_share: Share of the training clips without sound.
    uncaptioned_share: Share of the training clips without captions.
    label: Attribute that is the label of a clip and of its boxes: shape, colour
      or motion.
    distractor_share: Share of the training clips that also show a second,
      silent shape of another shape and motion. With any, the validation clips
      are pairs of one picture with both shapes, each of which sounds in turn.
    distractor_colour: Colour of the silent shape, `other` than that of the
      shape that sounds or the `same`.
  """

  num_train: int = 576
  num_validation: int = 144
  seed: int = 0
  duration: float = 3.2
  frame_size: int = 112
  frame_rate: int = 12
  audio_rate: int = 16000
  silent_share: float = 0.05
  uncaptioned_share: float = 0.05
  label: str = 'shape'
  distractor_share: float = 0.0
  distractor_colour: str = 'other'

  def __post_init__(self):
    combinations = len(words.SHAPES) * len(words.COLOURS) * len(words.MOTIONS)
    if self.num_train < 0:
      raise ValueError(
        '`num_train` must not be negative. '
        f'Received: num_train={self.num_train}'
      )
    if not 0 <= self.num_validation <= combinations:
      raise ValueError(
        f'`num_validation` must be in [0, {combinations}], because every '
        'validation clip uses a combination that never occurs in training. '
        f'Received: num_validation={self.num_validation}'
      )
    if self.duration < 1:
      raise ValueError(
        '`duration` must be at least 1 second, about one period of a motion. '
        f'Received: duration={self.duration}'
      )
    if self.frame_size < 16 or self.frame_size % 2:
      raise ValueError(
        '`frame_size` must be an even number of at least 16. '
        f'Received: frame_size={self.frame_size}'
      )
    if self.frame_rate < 1:
      raise ValueError(
        '`frame_rate` must be at least 1. '
        f'Received: frame_rate={self.frame_rate}'
      )
    rates = (16000, 22050, 24000, 32000, 44100, 48000)
    if self.audio_rate not in rates:
      raise ValueError(
        f'`audio_rate` must be one of {rates}. '
        f'Received: audio_rate={self.audio_rate}'
      )
    if self.distractor_colour not in DISTRACTOR_COLOURS:
      raise ValueError(
        f'`distractor_colour` must be one of {DISTRACTOR_COLOURS}. '
        f'Received: distractor_colour={self.distractor_colour!r}'
      )
    if self.distractor_share and self.num_validation % 2:
      raise ValueError(
        '`num_validation` must be even with distractors, because validation '
        f'clips are pairs. Received: num_validation={self.num_validation}'
      )
    for name in ('silent_share', 'uncaptioned_share', 'distractor_share'):
      value = getattr(self, name)
      if not 0 <= value <= 1:
        raise ValueError(
          f'`{name}` must be in [0, 1]. Received: {name}={value}'
        )
    if self.label not in LABELS:
      raise ValueError(
        f'`label` must be one of {LABELS}. Received: label={self.label!r}'
      )


def make_generator(
  options: Options, split: str, *key: int
) -> np.random.Generator:
  """Returns the random generator of one purpose, keyed and not in sequence."""
  return np.random.default_rng([options.seed, SPLITS.index(split), *key])


def _spread(count, share, rng):
  """Returns `count` booleans of which about `share` are true, in any order."""
  chosen = np.zeros(count, bool)
  chosen[: round(share * count)] = True
  return rng.permutation(chosen)


def write_caption(
  split: str, shape: str, colour: str, motion: str, rng: np.random.Generator
) -> str:
  """Returns a caption in one of the phrasings of a split.

  Args:
    split: Split whose phrasings are used.
    shape: Key of `words.SHAPES`.
    colour: Key of `words.COLOURS`.
    motion: Key of `words.MOTIONS`.
    rng: Generator that chooses the phrasing.
  """
  templates = words.TEMPLATES[split]
  does, doing = words.MOTIONS[motion][rng.integers(len(words.MOTIONS[motion]))]
  chosen = {
    'shape': words.SHAPES[shape][rng.integers(len(words.SHAPES[shape]))],
    'colour': words.COLOURS[colour][1][
      rng.integers(len(words.COLOURS[colour][1]))
    ],
    'does': does,
    'doing': doing,
  }
  text = templates[rng.integers(len(templates))].format(**chosen)
  for vowel in 'aeio':
    text = text.replace(f' a {vowel}', f' an {vowel}')
    if text.startswith(f'a {vowel}'):
      text = f'an{text[1:]}'
  return text


def _may_share(first, second, options):
  """Whether two combinations may be in one picture."""
  (shape, colour, motion), (other_shape, other_colour, other_motion) = (
    first,
    second,
  )
  has_same_colour = options.distractor_colour == 'same'
  return (
    shape != other_shape
    and motion != other_motion
    and (colour == other_colour) == has_same_colour
  )


def _pair(combinations, count, options, rng):
  """Draws `count` different combinations, neighbours of which may share."""
  while True:
    left = [combinations[i] for i in rng.permutation(len(combinations))]
    chosen = []
    while len(chosen) < count:
      first = left.pop()
      partner = next((x for x in left if _may_share(first, x, options)), None)
      if partner is None:  # the last ones do not fit: draw again
        break
      left.remove(partner)
      chosen += [first, partner]
    else:
      return chosen


def _add_distractors(clips, options, rng):
  """Returns the clips of a split with their silent shapes."""
  if clips and clips[0].split == 'validation':
    return [
      dataclasses.replace(clip, distractor=clips[i ^ 1])
      for i, clip in enumerate(clips)
    ]
  combinations = list(
    itertools.product(words.SHAPES, words.COLOURS, words.MOTIONS)
  )
  has_distractor = _spread(len(clips), options.distractor_share, rng)
  result = []
  for clip, has_one in zip(clips, has_distractor, strict=True):
    if has_one:
      own = (clip.shape, clip.colour, clip.motion)
      fitting = [x for x in combinations if _may_share(own, x, options)]
      shape, colour, motion = fitting[rng.integers(len(fitting))]
      # Its pace is drawn for a number that no clip of the split has.
      silent = dataclasses.replace(
        clip,
        index=options.num_train + clip.index,
        shape=shape,
        colour=colour,
        motion=motion,
      )
      clip = dataclasses.replace(clip, distractor=silent)
    result.append(clip)
  return result


def plan_clips(options: Options) -> list[Clip]:
  """Returns every clip of the set, training clips first.

  Nothing is rendered. The same options give the same plan.
  """
  combinations = list(
    itertools.product(words.SHAPES, words.COLOURS, words.MOTIONS)
  )
  clips = []
  for split, count in (
    ('train', options.num_train),
    ('validation', options.num_validation),
  ):
    rng = make_generator(options, split, 0)
    order = [combinations[i] for i in rng.permutation(len(combinations))]
    if options.distractor_share and split == 'validation':
      order = _pair(combinations, count, options, rng)
    of_split = []
    silent = np.zeros(count, bool)
    uncaptioned = np.zeros(count, bool)
    if split == 'train':
      silent = _spread(count, options.silent_share, rng)
      uncaptioned = _spread(count, options.uncaptioned_share, rng)
    for index in range(count):
      shape, colour, motion = order[index % len(order)]
      form = None if uncaptioned[index] else CAPTION_FORMS[index % 2]
      # A sidecar file of the training split has five captions, each in its own
      # words; every other captioned clip has one.
      cues = 5 if form == 'vtt' and split == 'train' else 1
      times = np.linspace(0, options.duration, cues + 1).round(3).tolist()
      captions = tuple(
        (start, end, write_caption(split, shape, colour, motion, rng))
        for start, end in zip(times[:-1], times[1:], strict=True)
      )
      of_split.append(
        Clip(
          split=split,
          index=index,
          shape=shape,
          colour=colour,
          motion=motion,
          has_audio=not silent[index],
          caption_form=form,
          captions=captions if form else (),
        )
      )
    if options.distractor_share:
      of_split = _add_distractors(
        of_split, options, make_generator(options, split, 4)
      )
    clips += of_split
  return clips


def draw_pace(clip: Clip, options: Options) -> tuple[float, float]:
  """Returns the period of the motion in seconds and its phase at the start.

  Picture and sound share them.
  """
  rng = make_generator(options, clip.split, 2, clip.index)
  return rng.uniform(1.0, 1.25), rng.uniform()
