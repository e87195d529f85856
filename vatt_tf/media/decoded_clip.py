"""Spans of a media file, and their decoded content."""

import dataclasses

import numpy as np

from vatt_tf.media import caption_cues, errors


@dataclasses.dataclass(frozen=True)
class Span:
  """A part of a file.

  Attributes:
    start: Start in µs.
    end: End in µs, or None for the end of the file.
    is_exact: Whether a file that ends before `end` is an error; otherwise the
      span ends with the file.
  """

  start: int = 0
  end: int | None = None
  is_exact: bool = True


@dataclasses.dataclass
class DecodedClip:
  """Decoded content of a span of a file.

  Attributes:
    start: Start in the file, in µs.
    end: End in the file, in µs.
    frames: JPEG images; none if there is no video.
    height: Height of the frames in pixels.
    width: Width of the frames in pixels.
    audio: (S,) float32 in [-1, 1], the first sample at `start`, or None.
    cues: Captions in order of time, in µs on the clock of the file.
    notes: Notes on what was left out or changed.
    is_last: Whether it is known to end with the file.
    shown: Time of the file's frame that each image shows, in µs.
    source_interval: Time between two frames of the file on average, in µs.
    source_size: Width and height of the file's frames as they are shown.
  """

  start: int
  end: int
  frames: list[bytes] = dataclasses.field(default_factory=list)
  height: int = 0
  width: int = 0
  audio: np.ndarray | None = None
  cues: list[caption_cues.Cue] = dataclasses.field(default_factory=list)
  notes: list[errors.Note] = dataclasses.field(default_factory=list)
  is_last: bool = False
  shown: list[int] = dataclasses.field(default_factory=list)
  source_interval: int = 0
  source_size: tuple[float, float] = (0.0, 0.0)
