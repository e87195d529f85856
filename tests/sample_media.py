"""Small media files with known content, for the tests of ingest."""

from fractions import Fraction
import os

import av
import cv2
import numpy as np

SIZE = (64, 48)


def gray(number: int) -> int:
  """The level of frame `number`."""
  return 20 + 4 * number


def frame_number(jpeg: bytes) -> int:
  """Which frame of a file of `write` a JPEG shows."""
  image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
  return round((float(image.mean()) - 20) / 4)


def tone(
  seconds: float,
  rate: int = 44100,
  start: float = 0.0,
  frequency: float = 440.0,
) -> np.ndarray:
  """(n,) float32: silence until `start`, then a tone."""
  times = np.arange(round(seconds * rate)) / rate
  sound = 0.5 * np.sin(2 * np.pi * frequency * times)
  return np.where(times >= start, sound, 0).astype(np.float32)


def frequencies(sound: np.ndarray, rate: int, step: float = 0.5) -> list[int]:
  """The loudest frequency of each `step` seconds, Hz; 0 for silence."""
  size = round(step * rate)
  found = []
  for i in range(0, len(sound) - size + 1, size):
    part = sound[i : i + size]
    strength = np.abs(np.fft.rfft(part * np.hanning(size)))
    is_loud = np.abs(part).max() > 0.05
    found.append(round(int(strength.argmax()) / step) if is_loud else 0)
  return found


def plain(level: int, size: tuple[int, int] = SIZE) -> np.ndarray:
  """An image of one gray level."""
  return np.full([size[1], size[0], 3], level, np.uint8)


def write(
  path,
  seconds: float = 2.0,
  frame_rate: int = 25,
  sound: np.ndarray | None = None,
  sound_rate: int = 44100,
  sound_codec: str = 'aac',
  sound_start: float = 0.0,
  video_codec: str = 'mpeg4',
  size: tuple[int, int] = SIZE,
  times: list[float] | None = None,
  rotation: int = 0,
  images: list[np.ndarray] | None = None,
  aspect: Fraction | None = None,
  captions: list[tuple[float, float, str]] | None = None,
  gop: int = 12,
  options: dict[str, str] | None = None,
) -> str:
  """Writes a media file.

  Args:
    path: Of the file; the extension says the container.
    seconds: Length of the video; 0 for none.
    frame_rate: Frames a second.
    sound: (n,) or (channels, n) samples, or None for none.
    sound_rate: Of the samples.
    sound_codec: Encoder.
    sound_start: Time of the first sample.
    video_codec: Encoder.
    size: Width and height.
    times: Of the frames, instead of a constant rate.
    rotation: Degrees counter-clockwise to show the frames at.
    images: RGB frames, instead of gray ones that count up.
    aspect: Of a pixel.
    captions: (start, end, text) of a text track, for Matroska files.
    gop: Frames between key frames.
    options: Of the container's writer.

  Returns:
    The path.
  """
  with av.open(str(path), 'w', options=options or {}) as container:
    video = audio = None
    if seconds:
      video = container.add_stream(video_codec, rate=frame_rate)
      video.width, video.height = size
      video.pix_fmt = 'yuv420p'
      video.codec_context.gop_size = gop
      video.codec_context.bit_rate = 2_000_000
      if times:
        video.codec_context.time_base = Fraction(1, 1000)
      if rotation:
        video.set_display_rotation(rotation)
      if aspect:
        video.codec_context.sample_aspect_ratio = aspect
    if sound is not None:
      sound = np.atleast_2d(sound)
      audio = container.add_stream(sound_codec, rate=sound_rate)
      audio.layout = {1: 'mono', 2: 'stereo'}[sound.shape[0]]
    if captions:
      _copy_captions(container, str(path), captions)
    if video is not None:
      count = round(seconds * frame_rate)
      times = times or [i / frame_rate for i in range(count)]
      for i, time in enumerate(times):
        image = np.full([size[1], size[0], 3], gray(i) % 256, np.uint8)
        if images:
          image = images[i % len(images)]
        frame = av.VideoFrame.from_ndarray(image, 'rgb24')
        frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
        container.mux(video.encode(frame))
      container.mux(video.encode(None))
    if audio is not None:
      _encode_sound(container, audio, sound, sound_rate, sound_start)
  return str(path)


def srt(captions: list[tuple[float, float, str]]) -> str:
  """The text of a .srt file."""

  def clock(seconds):
    whole = int(seconds)
    return f'00:{whole // 60:02d}:{whole % 60:02d},{seconds % 1 * 1000:03.0f}'

  return '\n'.join(
    f'{i}\n{clock(start)} --> {clock(end)}\n{text}\n'
    for i, (start, end, text) in enumerate(captions, 1)
  )


def _copy_captions(container, path, captions):
  with open(path + '.srt', 'w', encoding='utf-8') as file:
    file.write(srt(captions))
  with av.open(path + '.srt') as source:
    stream = container.add_stream_from_template(source.streams.subtitles[0])
    for packet in source.demux():
      if packet.dts is not None:
        packet.stream = stream
        container.mux(packet)
  os.remove(path + '.srt')


def _encode_sound(container, stream, sound, rate, start):
  form = stream.codec_context.format.name
  for i in range(0, sound.shape[1], 1024):
    part = np.ascontiguousarray(sound[:, i : i + 1024])
    if form.startswith('s16'):
      part = np.round(part * 32767).astype(np.int16)
    if form.startswith('s32'):
      part = np.round(part.astype(np.float64) * 2147483647).astype(np.int32)
    if not form.endswith('p'):
      part = np.ascontiguousarray(part.T.reshape([1, -1]))
    frame = av.AudioFrame.from_ndarray(part, form, stream.layout.name)
    frame.sample_rate = rate
    frame.pts = i + round(start * rate)
    frame.time_base = Fraction(1, rate)
    container.mux(stream.encode(frame))
  container.mux(stream.encode(None))
