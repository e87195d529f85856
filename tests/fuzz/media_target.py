"""Damaged, joined and spliced media files.

Every second of the small recordings has a gray level and a tone of its own, so
that what a record shows and what it sounds like each tell which second of which
recording they come from.
"""

import functools
import os
import tempfile

import cv2
from hypothesis import strategies as st
import numpy as np

from tests import sample_media
from tests.fuzz import mutations
from vatt_tf.embedding import sources
from vatt_tf.input_pipeline.records import reading, schema
from vatt_tf.media import (
  caption_sources,
  decode_settings,
  errors,
  ingest,
  manifest,
  worker,
)

_SECONDS = 5
_RATE = 48000

# Extension, encoders of picture and sound. In those of the first group packets
# carry their own times; in the others a table does, and a damaged table may
# tie any sound to any picture.
_STREAMS = (
  ('ts', 'mpeg2video', 'mp2'),
  ('mpg', 'mpeg2video', 'mp2'),
  ('mkv', 'mpeg4', 'mp2'),
  ('webm', 'libvpx', 'libopus'),
  ('flv', 'flv', 'libmp3lame'),
)
_TABLES = (('mp4', 'mpeg4', 'aac'), ('avi', 'mpeg4', 'mp2'))
_SOUNDS = (
  ('ogg', None, 'libopus'),
  ('wav', None, 'pcm_s16le'),
  ('mp3', None, 'libmp3lame'),
  ('flac', None, 'flac'),
)

# Windows of a quarter of a second in which picture and sound differ, in a row.
_MAX_APART = 3


def _level(code):
  return 30 + 14 * code


def _frequency(code):
  return 300 + 80 * code


@functools.cache
def _recording(kind: tuple, number: int) -> bytes:
  """A recording of five seconds, with codes of its own."""
  extension, video_codec, sound_codec = kind
  codes = [_SECONDS * number + second for second in range(_SECONDS)]
  images = []
  noise = np.random.default_rng(number)
  for frame in range(25 * _SECONDS):
    image = sample_media.plain(_level(codes[frame // 25]))
    # Another picture each time, so that a held one can be told; and large
    # enough that streams are not interleaved by seconds.
    image[40:] = noise.integers(0, 256, image[40:].shape)
    images.append(image)
  sound = np.concatenate(
    [
      sample_media.tone(1.0, _RATE, frequency=_frequency(code))
      for code in codes
    ]
  )
  with tempfile.TemporaryDirectory() as folder:
    path = sample_media.write(
      os.path.join(folder, f'a.{extension}'),
      _SECONDS if video_codec else 0,
      images=images,
      video_codec=video_codec or 'mpeg4',
      sound=sound,
      sound_rate=_RATE,
      sound_codec=sound_codec,
      gop=1,
    )
    with open(path, 'rb') as file:
      return file.read()


@st.composite
def _file(draw) -> tuple[tuple, list]:
  """The kind of a file, and what is done to it."""
  kind = draw(st.sampled_from(_STREAMS * 2 + _TABLES + _SOUNDS))
  moving = () if kind in _TABLES else mutations.MOVING
  operations = st.one_of(*mutations.IN_PLACE, *moving)
  return kind, draw(st.lists(operations, min_size=1, max_size=4))


STRATEGY = st.lists(_file(), min_size=1, max_size=2)


def make(kind: tuple, operations: list) -> bytes:
  """A file as `STRATEGY` draws it."""
  data = _recording(kind, 0)
  for i, operation in enumerate(operations):
    data = mutations.apply(data, _recording(kind, 1 + i % 2), operation)
  return data


def check(files: list[tuple[tuple, list]]) -> None:
  """Ingests files; raises `AssertionError` where something is wrong."""
  with tempfile.TemporaryDirectory() as folder:
    media = os.path.join(folder, 'media')
    os.mkdir(media)
    streams = {}
    for i, (kind, operations) in enumerate(files):
      name = f'{i}.{kind[0]}'
      streams[name] = kind not in _TABLES
      with open(os.path.join(media, name), 'wb') as file:
        file.write(make(kind, operations))
    planned = _planned(media)
    # No header and no time stamp makes a plan without end: a clip has bytes.
    size = sum(len(make(*file)) for file in files)
    assert planned <= 200 * len(files) + size // 32, planned
    if planned > 200 * len(files):
      return  # a damaged rate within those bounds: long, and nothing to see
    output = os.path.join(folder, 'records')
    try:
      result = ingest.ingest(
        output,
        media_root=media,
        frame_rate=8.0,
        clip_seconds=4.0,
        num_workers=0,
        max_failed_share=1.0,
        show_progress=False,
      )
    except errors.TooManyFailedError as e:
      result = e.result
    except errors.MediaError as e:
      assert 'gives no clip' in str(e), e
      return
    clips = [
      clip
      for name in sorted(os.listdir(output))
      if name.endswith('.tfrecord')
      for clip in reading.read_shard(os.path.join(output, name))
    ]
    assert len(clips) == result.num_clips
    assert planned == result.num_clips + result.num_failed, (
      f'planned {planned}, kept {result.num_clips}, failed {result.num_failed}'
    )
    for clip in clips:
      if streams[clip.data_path]:
        _check_together(clip)


def _planned(media: str) -> int:
  """How many clips and failures there are to be."""
  windows = sources.Windows(round(4e6), 0)
  segments = manifest.scan_folder(media)
  with worker.Pool(0) as pool:
    try:
      work, skips = sources.plan_media(
        segments,
        media,
        '',
        decode_settings.Settings(frame_rate=8.0),
        caption_sources.AUTO,
        windows,
        pool,
        sources.EndsInMemory(),
        False,
      )
    except errors.MediaError:
      return 0
  return sum(one.task.num_results for one in work) + sum(
    skip.is_failure for skip in skips
  )


def _check_together(clip: schema.Clip) -> None:
  """Raises `AssertionError` if picture and sound are of different seconds."""
  if not clip.frames or clip.waveform is None:
    return
  step = round(clip.sample_rate / 4)
  apart = 0
  for i in range(len(clip.waveform) // step):
    seen = _seen(clip.frames[2 * i : 2 * i + 2])
    heard = _heard(clip.waveform[i * step : (i + 1) * step], clip.sample_rate)
    if seen is None or heard is None:
      continue
    # Sound and picture of a packet lie apart by what muxers interleave.
    apart = apart + 1 if seen != heard else 0
    assert apart <= _MAX_APART, (
      f'{clip.example_id}: at {i / 4} s the picture is of second {seen}, the '
      f'sound of second {heard}'
    )


def _seen(frames) -> int | None:
  """The code of two frames; None if they are held, damaged or differ."""
  if len(frames) < 2 or frames[0] == frames[1]:
    return None
  codes = set()
  for frame in frames:
    image = cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_GRAYSCALE)
    part = image[:36].astype(np.float32)
    code = (part.mean() - 30) / 14
    if part.std() > 2 or abs(code - round(code)) > 0.25:
      return None
    codes.add(round(float(code)))
  return codes.pop() if len(codes) == 1 else None


def _heard(sound, rate) -> int | None:
  """The code of a part of the sound; None if it is no clear tone."""
  strength = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
  total = strength.sum()
  peak = int(strength.argmax())
  if total < 1 or strength[max(0, peak - 2) : peak + 3].sum() < 0.9 * total:
    return None
  code = (peak * rate / len(sound) - 300) / 80
  return round(code) if abs(code - round(code)) < 0.15 else None
