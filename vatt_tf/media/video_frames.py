"""Frames of a video at a rate and a size, as JPEG.

Spans are sampled at `start + i / frame_rate`, and each sample is the frame on
display at that moment, where a frame that begins up to half a frame later
counts already (of two equally near ones it is the earlier). So a constant rate
gives the nearest frames, and a variable rate never shows a frame far ahead of
its time.

Frames are shown as players show them: scaled by the aspect ratio of their
pixels, mirrored and turned by the display matrix, and brought from a high
dynamic range (PQ, HLG) to that of BT.709. All images of a span have the size of
its first one; a frame of another shape is fitted into it.
"""

from collections.abc import Sequence
import dataclasses
import fractions
import math

import av.filter
import av.packet
import av.sidedata.sidedata
import av.video.frame
import av.video.reformatter
import cv2
import numpy as np

from vatt_tf.media import (
  clock,
  decode_settings,
  errors,
  media_file,
  packet_reader,
)

# Maximum size of the frames of a clip: a record is one protocol buffer, which
# can hold 2 GB.
MAX_CLIP_BYTES = 900 << 20

# Share of a frame's time. Half a frame would be the nearest one; a little less
# keeps rates such as 25 to 10, where every other sample falls in the middle,
# from depending on how a container rounds its time stamps.
_AHEAD = 0.45

# Transfer curves of high dynamic range: PQ (SMPTE ST 2084) and HLG.
_HDR_TRANSFERS = (16, 18)

# The last frame of a span may be cut short, but not shorter than this share.
_MIN_LAST_SHARE = 0.05


def num_frames(start: int, end: int, rate: float) -> int:
  """Returns how many frames fill a span.

  Args:
    start: Start of the span in µs.
    end: End of the span in µs.
    rate: Frames per second.
  """
  return max(
    1, math.ceil((end - start) * rate / clock.SECOND - _MIN_LAST_SHARE)
  )


@dataclasses.dataclass(frozen=True)
class _Orientation:
  """Orientation of a decoded picture: mirrored left to right, then turned.

  Attributes:
    is_mirrored: Whether it is mirrored.
    turns: Quarter turns, counter-clockwise.
  """

  is_mirrored: bool = False
  turns: int = 0

  def apply(self, image: np.ndarray) -> np.ndarray:
    """Returns an image (H, W, 3) as shown, (H, W, 3) or (W, H, 3)."""
    if self.is_mirrored:
      image = image[:, ::-1]
    if self.turns:
      image = np.rot90(image, self.turns)
    return np.ascontiguousarray(image)


_UPRIGHT = _Orientation()


def _orientation(frame: av.video.frame.VideoFrame) -> _Orientation:
  """Returns the orientation of a frame, by its display matrix."""
  matrix = frame.side_data.get(av.sidedata.sidedata.Type.DISPLAYMATRIX)
  if matrix is None:
    return _UPRIGHT
  # (x, y) of the frame are shown at (a x + c y, b x + d y); y points down.
  a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(np.float64)
  is_mirrored = a * d - b * c < 0
  if is_mirrored:
    a, b = -a, -b
  # The nearest quarter turn. An angle that goes from x to y is clockwise.
  turns = round(-math.atan2(b, a) / (math.pi / 2)) % 4
  return _Orientation(is_mirrored, turns)


def target_size(
  frame: av.video.frame.VideoFrame,
  aspect: float,
  settings: decode_settings.Settings,
) -> tuple[int, int]:
  """Returns the width and height to scale a frame to, before it is turned.

  Args:
    frame: Decoded frame.
    aspect: Width of its pixels over their height.
    settings: Settings with the shorter side.
  """
  width, height = _square_size(frame, aspect)
  scale = settings.shorter_side / min(width, height)
  if not settings.enlarge:
    scale = min(scale, 1.0)
  return max(1, round(width * scale)), max(1, round(height * scale))


def _square_size(frame, aspect):
  """The width and height of a frame in square pixels."""
  width, height = float(frame.width), float(frame.height)
  # By shrinking the longer side of the pixels.
  if aspect > 1.0:
    return width, height / aspect
  return width * aspect, height


class _ToneMapper:
  """Brings frames of high dynamic range to BT.709, with FFmpeg's scaler.

  Paper white (203 cd/m2) becomes white; what is brighter is clipped.
  """

  def __init__(self):
    self._key = self._graph = None

  def __call__(
    self, frame: av.video.frame.VideoFrame
  ) -> av.video.frame.VideoFrame:
    key = frame.width, frame.height, frame.format.name
    if key != self._key:
      self._graph = av.filter.Graph()
      source = self._graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=fractions.Fraction(1, 1000),
      )
      mapping = self._graph.add(
        'scale',
        'out_transfer=bt709:out_primaries=bt709:out_color_matrix=bt709',
      )
      pixels = self._graph.add('format', 'gbrp')
      sink = self._graph.add('buffersink')
      source.link_to(mapping)
      mapping.link_to(pixels)
      pixels.link_to(sink)
      self._graph.configure()
      self._key = key
    self._graph.push(frame)
    return self._graph.pull()


class _FrameEncoder:
  """Encodes the frames of one stream as JPEG images.

  Attributes:
    stream: The stream, while its file is open.
  """

  def __init__(self, settings: decode_settings.Settings):
    self.stream = None
    self._settings = settings
    self._reformatter = av.video.reformatter.VideoReformatter()
    self._tone_mapper = _ToneMapper()

  def size(self, frame: av.video.frame.VideoFrame) -> tuple[int, int]:
    """Returns the width and height of a frame as it is shown."""
    size = target_size(frame, self._pixel_aspect(frame), self._settings)
    return size[:: -1 if _orientation(frame).turns % 2 else 1]

  def source_size(
    self, frame: av.video.frame.VideoFrame
  ) -> tuple[float, float]:
    """Returns the width and height of a frame as shown, before scaling."""
    size = _square_size(frame, self._pixel_aspect(frame))
    return size[:: -1 if _orientation(frame).turns % 2 else 1]

  def _pixel_aspect(self, frame: av.video.frame.VideoFrame) -> float:
    """Returns width over height of a pixel; 1.0 if unknown or nearly square."""
    aspect = self.stream.sample_aspect_ratio
    context = self.stream.codec_context
    # The container's value belongs to the size that it states.
    parameters = (context.width, context.height)
    if parameters != (frame.width, frame.height) or not aspect:
      aspect = context.sample_aspect_ratio or aspect
    aspect = float(aspect or 1) or 1.0
    return 1.0 if 0.98 < aspect < 1.02 else aspect

  def __call__(
    self, frame: av.video.frame.VideoFrame, size: tuple[int, int]
  ) -> bytes:
    """Returns a JPEG image of a frame.

    Args:
      frame: Decoded frame.
      size: Width and height of the image. A frame of another shape is fitted
        into its upper left, and the rest is black.
    """
    orientation = _orientation(frame)
    inner = _fit(self.size(frame), size)
    width, height = inner[:: -1 if orientation.turns % 2 else 1]
    is_hdr = frame.color_trc in _HDR_TRANSFERS
    scaled = self._reformatter.reformat(
      frame,
      width,
      height,
      frame.format.name if is_hdr else 'bgr24',
      interpolation='BILINEAR',
      threads=1,
    )
    if is_hdr:
      scaled = self._tone_mapper(scaled)
    image = scaled.to_ndarray(format='bgr24')  # (H, W, 3)
    if orientation != _UPRIGHT:
      image = orientation.apply(image)
    if inner != size:
      framed = np.zeros([size[1], size[0], 3], np.uint8)
      framed[: inner[1], : inner[0]] = image
      image = framed
    quality = [cv2.IMWRITE_JPEG_QUALITY, self._settings.jpeg_quality]
    return cv2.imencode('.jpg', image, quality)[1].tobytes()


def _fit(inner: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
  """Returns width and height of `inner`, scaled to fit into `outer`."""
  scale = min(outer[0] / inner[0], outer[1] / inner[1])
  return tuple(
    max(1, min(limit, round(side * scale))) for side, limit in zip(inner, outer)
  )


class FrameReader(packet_reader.Reader):
  """Samples the frames of several spans in one pass.

  Past the end of the video the last frame is repeated.

  Attributes:
    frames: JPEG images of each span.
    sizes: Width and height of the images of each span: those of its first
      frame, and (0, 0) before that.
    source_sizes: The same before scaling.
    shown: Time in µs of the file's frame that each image of each span shows.
    interval: Time between two frames of the file on average, in µs.

  Args:
    media: Open file with video.
    spans: Start and end of each span in µs.
    first: Time in µs from where the pass begins.
    settings: Settings with rate and size.
  """

  def __init__(
    self,
    media: media_file.MediaFile,
    spans: Sequence[tuple[int, int]],
    first: int,
    settings: decode_settings.Settings,
  ):
    super().__init__()
    self.frames = [[] for _ in spans]
    self._media = media
    self._first = first
    self._period = round(clock.SECOND / settings.frame_rate)
    # (time, span) of every sample; `_next` of them have their frames.
    self._due = sorted(
      (start + round(i * clock.SECOND / settings.frame_rate), number)
      for number, (start, end) in enumerate(spans)
      for i in range(num_frames(start, end, settings.frame_rate))
    )
    self._next = 0
    self.sizes = [(0, 0)] * len(spans)
    self.source_sizes = [(0.0, 0.0)] * len(spans)
    self.shown = [[] for _ in spans]
    self.interval = 0
    self._num_bytes = [0] * len(spans)
    self._encode = _FrameEncoder(settings)
    # The last frame so far, waiting for the one that ends its time, and its
    # images by their size.
    self._held = None
    self._held_images = {}
    self._held_time = self._held_duration = 0

  def feed(self, packet: av.packet.Packet) -> None:
    """Takes a packet of the stream."""
    stream = self._encode.stream = packet.stream
    decoded = packet_reader.decode_packet(packet)
    self.interval = interval = packet_reader.frame_interval(stream)
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
      self._held, self._held_images, self._held_time = frame, {}, time
      duration = round((frame.duration or 0) * stream.time_base * clock.SECOND)
      self._held_duration = duration or interval
    self.is_done = self._next == len(self._due)

  def finish(self) -> None:
    """Takes the end of the file."""
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
      if not self.frames[span]:
        self.sizes[span] = self._encode.size(self._held)
        self.source_sizes[span] = self._encode.source_size(self._held)
      size = self.sizes[span]
      if size not in self._held_images:
        self._held_images[size] = self._encode(self._held, size)
      self.frames[span].append(self._held_images[size])
      self.shown[span].append(self._held_time)
      self._num_bytes[span] += len(self._held_images[size])
      if self._num_bytes[span] > MAX_CLIP_BYTES:
        raise errors.MediaError(
          f'its frames take more than {MAX_CLIP_BYTES >> 20} MB, too much for '
          'one record: cut it with --clip_seconds'
        )
      self._next += 1
