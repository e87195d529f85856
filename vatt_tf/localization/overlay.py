"""Videos with the map of the sound laid over the frames."""

import fractions
import os

import av
import cv2
import numpy as np

from vatt_tf.embedding import model as model_lib
from vatt_tf.localization import maps

# Share of the colour where the map is highest.
_OPACITY = 0.65


def heat(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns a map of places as shares of its highest value.

  What lies below the median of the map is 0.

  Args:
    values: (h, w) float.
    size: Height and width in pixels.

  Returns:
    (height, width) float32 in [0, 1], bilinearly enlarged; zeros for a map
    without a highest place.
  """
  low, high = np.median(values), np.max(values)
  if high - low <= 1e-6:
    return np.zeros(size, np.float32)
  shares = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
  large = cv2.resize(shares, size[::-1], interpolation=cv2.INTER_LINEAR)
  return np.clip(large, 0, 1)


def lay_over(
  image: np.ndarray,
  values: np.ndarray,
  window: tuple[float, float, float, float],
) -> np.ndarray:
  """Lays a map over a frame.

  Args:
    image: (H, W, 3) uint8, RGB.
    values: (h, w) float, the map of the frame.
    window: Edges of the part of the frame that the map is of, as shares.

  Returns:
    (H, W, 3) uint8: outside the window the frame is darker.
  """
  height, width = image.shape[:2]
  left, top, right, bottom = (
    round(edge * side) for edge, side in zip(window, (width, height) * 2)
  )
  result = image.astype(np.float32) * 0.5
  inner = image[top:bottom, left:right].astype(np.float32)
  shares = heat(values, inner.shape[:2])
  colours = cv2.applyColorMap(
    np.round(255 * shares).astype(np.uint8), cv2.COLORMAP_INFERNO
  )[..., ::-1].astype(np.float32)
  opacity = _OPACITY * shares[..., np.newaxis]
  result[top:bottom, left:right] = inner + opacity * (colours - inner)
  return np.round(result).clip(0, 255).astype(np.uint8)


def frames_of(located: maps.Located, frame_rate: float) -> list[np.ndarray]:
  """Draws all frames of a clip, (H, W, 3) uint8 each, with its map.

  Frames before and after the part that the model has seen, and those of a
  silent clip, have no map.

  Args:
    located: A clip and its map.
    frame_rate: Frames per second that the model takes.
  """
  clip = located.clip
  result = []
  for time, jpeg in zip(model_lib.frame_times(clip), clip.frames):
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    image = np.ascontiguousarray(image[..., ::-1])
    values = map_at(located, time, frame_rate)
    if values is not None:
      image = lay_over(image, values, located.window)
    result.append(image)
  return result


def map_at(
  located: maps.Located, time: int, frame_rate: float
) -> np.ndarray | None:
  """Returns the map (h, w) at a time of the clip in µs, or None."""
  step = (
    None if located.map is None else maps.step_at(located, time, frame_rate)
  )
  return None if step is None else located.map[step]


class Writer:
  """Writes an MP4 of drawn frames and their sound, clip after clip.

  Args:
    path: Path of the file, which appears when the writer is closed.
    frame_rate: Frames per second.
    sample_rate: Samples per second.
  """

  def __init__(self, path: str, frame_rate: float, sample_rate: int):
    self._path = path
    self._temporary = f'{path}.{os.getpid()}.part'
    self._rate = fractions.Fraction(frame_rate).limit_denominator(1001)
    self._sample_rate = sample_rate
    self._container = av.open(self._temporary, 'w', format='mp4')
    self._video = self._container.add_stream('libx264', rate=self._rate)
    self._video.pix_fmt = 'yuv420p'
    self._video.options = {'crf': '18', 'preset': 'veryfast'}
    self._sound = self._container.add_stream('aac', rate=sample_rate)
    self._sound.layout = 'mono'
    self._num_frames = self._num_samples = 0

  def close(self) -> None:
    """Completes the file, which gets its name."""
    for stream in (self._video, self._sound):
      self._container.mux(stream.encode(None))
    self._container.close()
    os.replace(self._temporary, self._path)

  def add(self, frames: list[np.ndarray], samples: np.ndarray) -> None:
    """Adds frames (H, W, 3) uint8 and sound (S,) float32 in [-1, 1]."""
    for image in frames:
      # H.264 takes even sizes; the first frame sets that of the video.
      if not self._num_frames:
        height, width = image.shape[:2]
        self._video.height, self._video.width = (
          height + height % 2,
          width + width % 2,
        )
      size = self._video.width, self._video.height
      if image.shape[1::-1] != size:
        image = cv2.resize(image, size)
      frame = av.VideoFrame.from_ndarray(image, format='rgb24')
      frame.pts = self._num_frames
      frame.time_base = 1 / self._rate
      self._container.mux(self._video.encode(frame))
      self._num_frames += 1
    # The sound lasts as long as the frames.
    total = round(self._num_frames / self._rate * self._sample_rate)
    count = total - self._num_samples
    samples = np.pad(samples[:count], [0, max(0, count - len(samples))])
    frame = av.AudioFrame.from_ndarray(
      samples[np.newaxis].astype(np.float32), format='fltp', layout='mono'
    )
    frame.sample_rate = self._sample_rate
    frame.pts = self._num_samples
    self._container.mux(self._sound.encode(frame))
    self._num_samples = total
