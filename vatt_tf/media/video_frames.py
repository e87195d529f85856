"""Frames of a video at a rate and a size, as JPEG.

Spans are sampled at `start + i / frame_rate`, and each sample is the frame on
display at that moment, where a frame that begins up to half a frame later
counts already (of two equally near ones it is the earlier). So a constant rate
gives the nearest frames, and a variable rate never shows a frame far ahead of
its time. Frames are scaled by the sample aspect ratio of the container and
turned by its rotation.
"""

from collections.abc import Sequence
import math

import av.packet
import av.video.frame
import av.video.reformatter
import cv2
import numpy as np

from vatt_tf.media import errors, media_file

SECOND = media_file.SECOND

# Of the frames of a clip: a record is one protocol buffer, which can hold 2 GB.
MAX_CLIP_BYTES = 900 << 20

# Of a frame's time. Half a frame would be the nearest one; a little less keeps
# rates such as 25 to 10, where every other sample falls in the middle, from
# depending on how a container rounds its time stamps.
_AHEAD = 0.45

# The last frame of a span may be cut short, but not shorter than this share.
_MIN_LAST_SHARE = 0.05


def num_frames(start: int, end: int, rate: float) -> int:
  """How many frames of a rate fill the time from `start` to `end`, µs."""
  return max(1, math.ceil((end - start) * rate / SECOND - _MIN_LAST_SHARE))


def target_size(
  frame: av.video.frame.VideoFrame, aspect: float, settings: media_file.Settings
) -> tuple[int, int]:
  """Width and height to scale a frame to, before it is turned.

  Args:
    frame: A decoded frame.
    aspect: Width of its pixels over their height.
    settings: Says the shorter side.
  """
  width, height = float(frame.width), float(frame.height)
  # Square pixels, by shrinking the longer side of theirs.
  if aspect > 1.0:
    height /= aspect
  else:
    width *= aspect
  scale = settings.shorter_side / min(width, height)
  if not settings.enlarge:
    scale = min(scale, 1.0)
  return max(1, round(width * scale)), max(1, round(height * scale))


class _FrameEncoder:
  """Makes JPEG images, all of one size, of the frames of one stream."""

  def __init__(self, settings: media_file.Settings, aspect: float):
    self._settings = settings
    self._aspect = aspect
    self._size = None
    self._reformatter = av.video.reformatter.VideoReformatter()
    self.height = self.width = 0

  def __call__(self, frame: av.video.frame.VideoFrame) -> bytes:
    turns = round(frame.rotation / 90) % 4
    if self._size is None:
      self._size = target_size(frame, self._aspect, self._settings)
      self.width, self.height = self._size[:: -1 if turns % 2 else 1]
    width, height = self._size
    image = self._reformatter.reformat(
      frame, width, height, 'bgr24', interpolation='BILINEAR', threads=1
    ).to_ndarray()
    if turns:
      image = np.ascontiguousarray(np.rot90(image, turns))
    quality = [cv2.IMWRITE_JPEG_QUALITY, self._settings.jpeg_quality]
    return cv2.imencode('.jpg', image, quality)[1].tobytes()


def _pixel_aspect(stream) -> float:
  """Width of a pixel over its height; 1.0 where unknown or nearly square."""
  aspect = float(stream.sample_aspect_ratio or 1) or 1.0
  return 1.0 if 0.98 < aspect < 1.02 else aspect


class FrameReader(media_file.Reader):
  """Samples the frames of several spans in one pass.

  Past the end of the video the last frame is repeated.

  Args:
    media: A file with video.
    spans: Start and end of each, µs.
    first: µs from where the pass begins.
    settings: Rate and size.

  Attributes:
    frames: Of each span its JPEG images.
    height: Of the images; 0 before the first one.
    width: Of the images.
  """

  def __init__(
    self,
    media: media_file.MediaFile,
    spans: Sequence[tuple[int, int]],
    first: int,
    settings: media_file.Settings,
  ):
    super().__init__()
    self.frames = [[] for _ in spans]
    self._media = media
    self._first = first
    self._period = round(SECOND / settings.frame_rate)
    # (time, span) of every sample; `_next` of them have their frames.
    self._due = sorted(
      (start + round(i * SECOND / settings.frame_rate), number)
      for number, (start, end) in enumerate(spans)
      for i in range(num_frames(start, end, settings.frame_rate))
    )
    self._next = 0
    self._sizes = [0] * len(spans)
    self._encode = _FrameEncoder(settings, _pixel_aspect(media.video))
    # The last frame so far, waiting for the one that ends its time.
    self._held = self._held_image = None
    self._held_time = self._held_duration = 0

  @property
  def height(self) -> int:  # noqa: D102
    return self._encode.height

  @property
  def width(self) -> int:  # noqa: D102
    return self._encode.width

  def feed(self, packet: av.packet.Packet) -> None:  # noqa: D102
    stream = packet.stream
    decoded = media_file.decode_packet(packet)
    interval = media_file.frame_interval(stream)
    if decoded is None:
      stamp = packet.pts if packet.pts is not None else packet.dts
      self.reading.damaged.append(
        self._held_time + interval
        if stamp is None
        else self._media.time(stamp, stream)
      )
      return
    # How early a frame may stand in for a moment before it.
    ahead = round(_AHEAD * min(interval, self._period))
    for frame in decoded:
      if frame.pts is not None:
        time = self._media.time(frame.pts, stream)
      elif self._held is not None:
        time = self._held_time + interval
      elif self._first > 0:
        # Without time stamps only the beginning of a file has a known time.
        self.is_late = True
        return
      else:
        time = 0
      if self._held is None:
        if self._first > 0 and time > self._due[0][0] + ahead:
          self.is_late = True
          return
        self.reading.first = time
      elif time <= self._held_time:
        continue
      elif frame.is_corrupt:
        self.reading.damaged.append(time)
        continue
      else:
        self._hand_out(time - ahead)
      self.reading.times.append(time)
      self._held, self._held_image, self._held_time = frame, None, time
      duration = round((frame.duration or 0) * stream.time_base * SECOND)
      self._held_duration = duration or interval
    self.is_done = self._next == len(self._due)

  def finish(self) -> None:  # noqa: D102
    if self._held is not None:
      self.reading.end = self._held_time + self._held_duration
      self._hand_out(None)
    elif self._first > 0:
      self.is_late = True
    elif self.reading.damaged:
      raise errors.MediaError(
        'its video cannot be decoded (none of '
        f'{len(self.reading.damaged)} packets)'
      )
    else:
      raise errors.MediaError('its video stream holds no frame')

  def _hand_out(self, until: int | None) -> None:
    """Gives the held frame to the samples before a time (None: to all)."""
    while self._next < len(self._due):
      time, span = self._due[self._next]
      if until is not None and time >= until:
        return
      if self._held_image is None:
        self._held_image = self._encode(self._held)
      self.frames[span].append(self._held_image)
      self._sizes[span] += len(self._held_image)
      if self._sizes[span] > MAX_CLIP_BYTES:
        raise errors.MediaError(
          f'its frames take more than {MAX_CLIP_BYTES >> 20} MB, too much for '
          'one record: cut it with --clip_seconds'
        )
      self._next += 1
