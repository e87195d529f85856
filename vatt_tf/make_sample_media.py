"""Makes sample media: small MP4 files whose picture, sound and captions agree.

Each clip shows one coloured shape that moves over a textured background, and
plays a sound that belongs to it: the shape gives the timbre, the colour the
pitch, the motion the rhythm. Captions say the same in words. Everything is
drawn from a seed, whatever the number of workers.

    python -m vatt_tf.make_sample_media --output_dir=data/generated/sample

writes

    train.csv, validation.csv   manifests: video_path,start,end,label,caption
    train/00000.mp4, ...        H.264 and AAC
    train/00001.vtt, ...        captions with times, for the clips whose
                                caption the manifest leaves empty

There are 288 combinations of 6 shapes, 8 colours and 6 motions. Every
validation clip shows another one, so that a search has one right answer; the
training clips go through all of them in turn. Between the splits the texture,
the place, the pace and the phrasing differ, and no caption of one is in the
other. Some training clips lack sound, and some lack captions.

It needs PyAV, NumPy and tqdm alone.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
import threading

import av
import numpy as np

from vatt_tf.core import progress_bar

SPLITS = ('train', 'validation')

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

CAPTION_FORMS = ('csv', 'vtt')
LABELS = ('shape', 'colour', 'motion')


@dataclasses.dataclass(frozen=True)
class Clip:
  """What one clip shows, plays and says.

  Attributes:
    split: `'train'` or `'validation'`.
    index: its number in the split, from 0.
    shape: a key of `SHAPES`.
    colour: a key of `COLOURS`.
    motion: a key of `MOTIONS`.
    has_audio: whether there is sound.
    caption_form: `'csv'`, `'vtt'`, or None if there is no caption.
    captions: the captions, each `(start, end, text)` with times in seconds.
  """

  split: str
  index: int
  shape: str
  colour: str
  motion: str
  has_audio: bool
  caption_form: str | None
  captions: tuple[tuple[float, float, str], ...]

  @property
  def video_path(self) -> str:
    return f'{self.split}/{self.index:05d}.mp4'


@dataclasses.dataclass(frozen=True)
class Options:
  """The sizes of the set and of its clips.

  Attributes:
    num_train: number of training clips.
    num_validation: number of validation clips, at most the number of
      combinations of shape, colour and motion.
    seed: the seed of everything.
    duration: length of a clip in seconds.
    frame_size: height and width in pixels, even.
    frame_rate: frames a second.
    audio_rate: samples a second, one that AAC offers.
    silent_share: share of the training clips without sound.
    uncaptioned_share: share of the training clips without captions.
    label: what the manifests call a clip by: shape, colour or motion.
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

  def __post_init__(self):
    combinations = len(SHAPES) * len(COLOURS) * len(MOTIONS)
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
        '`frame_size` must be an even number from 16 on. '
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
    for name in ('silent_share', 'uncaptioned_share'):
      value = getattr(self, name)
      if not 0 <= value <= 1:
        raise ValueError(
          f'`{name}` must be in [0, 1]. Received: {name}={value}'
        )
    if self.label not in LABELS:
      raise ValueError(
        f'`label` must be one of {LABELS}. Received: label={self.label!r}'
      )


def _generator(options, split, *key):
  """Returns the random generator of one purpose, keyed and not in sequence."""
  return np.random.default_rng([options.seed, SPLITS.index(split), *key])


def _spread(count, share, rng):
  """Returns `count` booleans of which about `share` are true, in any order."""
  chosen = np.zeros(count, bool)
  chosen[: round(share * count)] = True
  return rng.permutation(chosen)


def write_caption(split, shape, colour, motion, rng):
  """Returns a caption in one of the phrasings of `split`."""
  templates = TEMPLATES[split]
  does, doing = MOTIONS[motion][rng.integers(len(MOTIONS[motion]))]
  words = {
    'shape': SHAPES[shape][rng.integers(len(SHAPES[shape]))],
    'colour': COLOURS[colour][1][rng.integers(len(COLOURS[colour][1]))],
    'does': does,
    'doing': doing,
  }
  text = templates[rng.integers(len(templates))].format(**words)
  for vowel in 'aeio':
    text = text.replace(f' a {vowel}', f' an {vowel}')
    if text.startswith(f'a {vowel}'):
      text = f'an{text[1:]}'
  return text


def plan_clips(options: Options) -> list[Clip]:
  """Returns every clip of the set, training clips first.

  It draws what each clip is to hold and renders nothing. The same options
  give the same plan.
  """
  combinations = list(itertools.product(SHAPES, COLOURS, MOTIONS))
  clips = []
  for split, count in (
    ('train', options.num_train),
    ('validation', options.num_validation),
  ):
    rng = _generator(options, split, 0)
    order = rng.permutation(len(combinations))
    silent = np.zeros(count, bool)
    uncaptioned = np.zeros(count, bool)
    if split == 'train':
      silent = _spread(count, options.silent_share, rng)
      uncaptioned = _spread(count, options.uncaptioned_share, rng)
    for index in range(count):
      shape, colour, motion = combinations[order[index % len(order)]]
      form = None if uncaptioned[index] else CAPTION_FORMS[index % 2]
      # A sidecar file of the training split tells the same five times, each
      # in its own words; every other captioned clip has one caption.
      cues = 5 if form == 'vtt' and split == 'train' else 1
      times = np.linspace(0, options.duration, cues + 1).round(3).tolist()
      captions = tuple(
        (start, end, write_caption(split, shape, colour, motion, rng))
        for start, end in zip(times[:-1], times[1:], strict=True)
      )
      clips.append(
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
  return clips


# Pictures.


def _texture(rng, size):
  """Returns a dull background, (size, size, 3) float32 in [0, 255]."""
  y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
  kind = rng.integers(4)
  angle = rng.uniform(0, 2 * np.pi)
  along = x * np.cos(angle) + y * np.sin(angle)
  if kind == 0:  # stripes
    pattern = np.sin(2 * np.pi * rng.uniform(3, 9) * along)
  elif kind == 1:  # checks
    across = y * np.cos(angle) - x * np.sin(angle)
    count = rng.uniform(3, 7)
    pattern = np.sign(np.sin(2 * np.pi * count * along))
    pattern = pattern * np.sign(np.sin(2 * np.pi * count * across))
  elif kind == 2:  # blotches
    pattern = np.zeros_like(x)
    for _ in range(6):
      u, v = rng.uniform(-6, 6, 2)
      pattern += np.sin(2 * np.pi * (u * x + v * y + rng.uniform()))
    pattern /= 3
  else:  # a gradient
    pattern = 2 * (along - along.min()) / (along.max() - along.min()) - 1
  level = rng.uniform(45, 105) + rng.uniform(12, 30) * pattern
  tint = 1 + rng.uniform(-0.1, 0.1, 3)
  return (level[..., np.newaxis] * tint).astype(np.float32)


def _distance(shape, x, y):
  """Returns the signed distance to the outline of a shape of radius 1.

  Args:
    shape: a key of `SHAPES`.
    x: float array, to the right.
    y: the same, downwards.

  Returns:
    An array like `x`: negative inside, positive outside, and near the outline
    about the distance to it.
  """
  if shape == 'circle':
    return np.hypot(x, y) - 0.9
  if shape == 'ring':
    return np.abs(np.hypot(x, y) - 0.72) - 0.23
  if shape == 'square':
    return np.maximum(np.abs(x), np.abs(y)) - 0.8
  if shape == 'triangle':
    return np.maximum(0.866 * np.abs(x) - 0.5 * y, y) - 0.5
  if shape == 'cross':
    first = np.maximum(np.abs(x) - 0.95, np.abs(y) - 0.3)
    second = np.maximum(np.abs(x) - 0.3, np.abs(y) - 0.95)
    return np.minimum(first, second)
  # A star of five points: its outline is a straight line in each half point.
  radius = np.hypot(x, y)
  angle = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
  tip = np.array([1.0, 0.0])
  notch = 0.42 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
  edge = notch - tip
  normal = np.array([-edge[1], edge[0]]) / np.hypot(*edge)
  sign = np.sign(normal @ tip)
  return sign * (
    (radius * np.cos(angle) - tip[0]) * normal[0]
    + (radius * np.sin(angle) - tip[1]) * normal[1]
  )


def _path(motion, phase):
  """Returns what a motion does at a phase, in periods.

  Returns:
    `(x, y, scale)`: the way from the centre in shares of the frame, and what
    the size is multiplied by (0 while the shape cannot be seen).
  """
  turn = 2 * np.pi * phase
  if motion == 'sideways':
    return 0.27 * np.sin(turn), 0.0, 1.0
  if motion == 'vertical':
    return 0.0, 0.27 * np.sin(turn), 1.0
  if motion == 'diagonal':
    return 0.24 * np.sin(turn), 0.24 * np.sin(turn), 1.0
  if motion == 'orbit':
    return 0.25 * np.cos(turn), 0.25 * np.sin(turn), 1.0
  if motion == 'pulse':
    return 0.0, 0.0, 1.15 + 0.6 * np.sin(turn)
  return 0.0, 0.0, 1.3 if (2 * phase) % 1 < 0.5 else 0.0


def render_frames(clip: Clip, options: Options) -> np.ndarray:
  """Returns the frames of a clip, (T, H, W, 3) uint8."""
  rng = _generator(options, clip.split, 1, clip.index)
  period, start = _pace(clip, options)
  size = options.frame_size
  background = _texture(rng, size)
  radius = rng.uniform(0.18, 0.22)
  centre = 0.5 + rng.uniform(-0.05, 0.05, 2)
  tilt = rng.uniform(-0.2, 0.2)
  colour = np.array(COLOURS[clip.colour][0], np.float32)
  colour = np.clip(colour * rng.uniform(0.92, 1.0), 0, 255)
  grid = (np.arange(size, dtype=np.float32) + 0.5) / size
  frames = []
  # The last frame may begin before the end of the clip and last beyond it.
  count = math.ceil(options.duration * options.frame_rate - 1e-6)
  for number in range(count):
    phase = start + number / options.frame_rate / period
    x, y, scale = _path(clip.motion, phase)
    frame = background
    if scale > 0:
      reach = radius * scale
      right = (grid[np.newaxis, :] - centre[0] - x) / reach
      down = (grid[:, np.newaxis] - centre[1] - y) / reach
      distance = _distance(
        clip.shape,
        right * np.cos(tilt) + down * np.sin(tilt),
        down * np.cos(tilt) - right * np.sin(tilt),
      )
      # An edge about one pixel wide.
      cover = np.clip(0.5 - distance * reach * size, 0, 1)[..., np.newaxis]
      frame = background + cover * (colour - background)
    frames.append(frame.round().clip(0, 255).astype(np.uint8))
  return np.stack(frames)


# Sounds.


def _pace(clip, options):
  """Returns the period of the motion in seconds and its phase at the start.

  Picture and sound share them.
  """
  rng = _generator(options, clip.split, 2, clip.index)
  return rng.uniform(1.0, 1.25), rng.uniform()


def _strikes(phase, per_period, decay):
  """Returns a loudness that jumps to 1 at each strike and dies away."""
  since = (phase * per_period) % 1
  return np.exp(-since / per_period / decay)


def _rhythm(motion, phase):
  """Returns the loudness of a motion at each phase, in [0, 1]."""
  if motion == 'sideways':  # a strike at each of the two turning points
    return _strikes(phase - 0.25, 2, 0.12)
  if motion == 'vertical':  # two quick strikes at the lowest point
    first = _strikes(phase - 0.25, 1, 0.07)
    return np.maximum(first, _strikes(phase - 0.42, 1, 0.07))
  if motion == 'diagonal':  # a trill
    return _strikes(phase - 0.25, 8, 0.05)
  if motion == 'orbit':  # an even hum
    return np.full_like(phase, 0.7)
  if motion == 'pulse':  # swells with the size
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase)
  return ((2 * phase) % 1 < 0.5).astype(phase.dtype)


def render_audio(clip: Clip, options: Options) -> np.ndarray:
  """Returns the sound of a clip, (S,) float32 in [-1, 1]."""
  rng = _generator(options, clip.split, 3, clip.index)
  period, start = _pace(clip, options)
  rate = options.audio_rate
  count = round(options.duration * rate)
  time = np.arange(count) / rate
  step = list(COLOURS).index(clip.colour)
  pitch = LOWEST_PITCH * 2 ** (step * 5 / 12) * rng.uniform(0.99, 1.01)
  sound = np.zeros(count)
  for multiple, amplitude in TIMBRES[clip.shape]:
    if multiple * pitch < 0.45 * rate:
      turn = 2 * np.pi * (multiple * pitch * time + rng.uniform())
      sound += amplitude * np.sin(turn)
  if clip.shape in NOISY:
    sound += 0.5 * rng.standard_normal(count)
  sound /= np.sqrt(np.mean(sound**2))
  loudness = _rhythm(clip.motion, start + time / period)
  # A step in the loudness takes 5 ms, so that it does not click.
  width = round(0.005 * rate)
  padded = np.concatenate([np.full(width - 1, loudness[0]), loudness])
  sums = np.cumsum(np.concatenate([[0.0], padded]))
  loudness = (sums[width:] - sums[:-width]) / width
  sound = 0.3 * rng.uniform(0.7, 1.0) * loudness * sound
  sound += 0.002 * rng.standard_normal(count)
  return np.clip(sound, -1, 1).astype(np.float32)


# Files.


def _write_mp4(path, frames, audio, options):
  """Writes frames (T, H, W, 3) uint8 and sound (S,) float32, or None."""
  temporary = path.with_suffix('.tmp')
  with av.open(
    str(temporary), 'w', format='mp4', options={'fflags': '+bitexact'}
  ) as container:
    video = container.add_stream('libx264', rate=options.frame_rate)
    video.width = video.height = options.frame_size
    video.pix_fmt = 'yuv420p'
    # The same bytes each time: with its macroblock tree (measured) or with
    # several threads the encoder does not always write them.
    video.options = {
      'preset': 'veryfast',
      'crf': '20',
      'x264-params': 'mbtree=0',
    }
    video.codec_context.thread_count = 1
    sound = None
    if audio is not None:
      sound = container.add_stream('aac', rate=options.audio_rate)
      sound.layout = 'mono'
      sound.bit_rate = 64000
    for number, pixels in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
      frame.pts = number
      container.mux(video.encode(frame))
    container.mux(video.encode(None))
    if sound is not None:
      frame = av.AudioFrame.from_ndarray(
        audio[np.newaxis], format='fltp', layout='mono'
      )
      frame.sample_rate = options.audio_rate
      frame.pts = 0
      container.mux(sound.encode(frame))
      container.mux(sound.encode(None))
  os.replace(temporary, path)


def _vtt_time(seconds):
  """Returns seconds as WebVTT writes them, e.g. `00:00:01.500`."""
  milliseconds = round(seconds * 1000)
  minutes, milliseconds = divmod(milliseconds, 60000)
  whole, milliseconds = divmod(milliseconds, 1000)
  hours, minutes = divmod(minutes, 60)
  return f'{hours:02d}:{minutes:02d}:{whole:02d}.{milliseconds:03d}'


def _write_text(path, text):
  temporary = path.with_suffix('.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)


def write_clip(clip: Clip, output_dir: pathlib.Path, options: Options):
  """Renders one clip and writes its files."""
  path = output_dir / clip.video_path
  audio = render_audio(clip, options) if clip.has_audio else None
  _write_mp4(path, render_frames(clip, options), audio, options)
  if clip.caption_form == 'vtt':
    cues = [
      f'{_vtt_time(start)} --> {_vtt_time(end)}\n{text}\n'
      for start, end, text in clip.captions
    ]
    _write_text(path.with_suffix('.vtt'), '\n'.join(['WEBVTT\n', *cues]))


def _write_manifest(path, clips, options):
  temporary = path.with_suffix('.tmp')
  with open(temporary, 'w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['video_path', 'start', 'end', 'label', 'caption'])
    for clip in clips:
      caption = clip.captions[0][2] if clip.caption_form == 'csv' else ''
      label = getattr(clip, options.label)
      writer.writerow([clip.video_path, 0, options.duration, label, caption])
  os.replace(temporary, path)


def _run_worker(job):
  """Renders the clips of one worker, and says when each is done."""
  options = Options(**job['options'])
  clips = plan_clips(options)[job['worker'] :: job['num_workers']]
  for clip in clips:
    write_clip(clip, pathlib.Path(job['output_dir']), options)
    print(clip.video_path, flush=True)


def _run_workers(jobs, progress):
  """Runs each job in a process of its own.

  They are plain child processes, so that a caller with TensorFlow in it need
  not fork, and a caller that loaded this file by its path need not pickle.
  """
  processes = [
    subprocess.Popen(
      [sys.executable, '-m', __spec__.name, '--job', json.dumps(job)],
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'},
    )
    for job in jobs
  ]

  def follow(process):
    for _ in process.stdout:
      progress.update()

  threads = [threading.Thread(target=follow, args=[p]) for p in processes]
  try:
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    for process in processes:
      if process.wait():
        raise RuntimeError(
          f'A worker ended with exit code {process.returncode}; its error is '
          'above. Run the command again: it writes every file anew.'
        )
  finally:
    for process in processes:
      if process.poll() is None:
        process.terminate()
        process.wait()


def make_sample_media(
  output_dir, num_workers: int | None = None, **options
) -> list[Clip]:
  """Renders the set and writes its media, captions and manifests.

  Args:
    output_dir: the folder to write to; it is made if it is not there, and files
      of an earlier run are written over.
    num_workers: number of processes; by default one for each core.
    **options: the fields of `Options`: `num_train`, `num_validation`, `seed`
      and so on.

  Returns:
    The clips, training clips first.

  Raises:
    ValueError: if an option is out of its range.
    RuntimeError: if a worker fails.
  """
  settings = Options(**options)
  output_dir = pathlib.Path(output_dir)
  clips = plan_clips(settings)
  for split in SPLITS:
    (output_dir / split).mkdir(parents=True, exist_ok=True)
  if num_workers is None:
    num_workers = len(os.sched_getaffinity(0))
  num_workers = max(1, min(num_workers, len(clips)))
  jobs = [
    {
      'options': dataclasses.asdict(settings),
      'output_dir': str(output_dir),
      'worker': worker,
      'num_workers': num_workers,
    }
    for worker in range(num_workers)
  ]
  with progress_bar.make(total=len(clips), unit='clip') as bar:
    _run_workers(jobs, bar)
  # The manifests come last: one that is there names whole files only.
  for split in SPLITS:
    rows = [clip for clip in clips if clip.split == split]
    _write_manifest(output_dir / f'{split}.csv', rows, settings)
  return clips


def main():
  """Parses the command line and makes the media."""
  parser = argparse.ArgumentParser(
    description='Makes sample media: coloured shapes that move and sound.',
    epilog=Options.__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--job', help=argparse.SUPPRESS)
  parser.add_argument(
    '--output_dir',
    default='data/generated/sample',
    help='folder to write to (default: %(default)s)',
  )
  parser.add_argument(
    '--num_workers', type=int, help='processes; one for each core if not given'
  )
  for field in dataclasses.fields(Options):
    parser.add_argument(
      f'--{field.name}',
      type=field.type,
      default=field.default,
      help='see below (default: %(default)s)',
    )
  arguments = vars(parser.parse_args())
  job = arguments.pop('job')
  if job:
    _run_worker(json.loads(job))
    return
  try:
    clips = make_sample_media(**arguments)
  except ValueError as error:
    parser.error(str(error))
  print(f'{len(clips)} clips in {arguments["output_dir"]}')


if __name__ == '__main__':
  main()
