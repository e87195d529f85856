"""Pictures as clips of one frame, for data sets of pictures."""

from collections.abc import Sequence
import os

import cv2

from vatt_tf.media import clock, decode_settings, decoded_clip, errors


def decode_spans(
  path: str,
  spans: Sequence[decoded_clip.Span] | None,
  settings: decode_settings.Settings,
) -> list:
  """Reads a picture, scales it as frames are, and stores it as JPEG.

  Args:
    path: Path of a JPEG or PNG file, whose content decides, not its extension.
    spans: Parts of it, which must begin with it; None means only to find where
      it ends.
    settings: Size and quality, and the frame rate, which gives the length of
      the picture.

  Returns:
    A `decoded_clip.DecodedClip` or `errors.MediaError` for each span; without
    spans its end in µs.

  Raises:
    errors.MediaError: The file cannot be read.
  """
  end = round(clock.SECOND / settings.frame_rate)
  if spans is None:
    return [end]
  if not settings.use_video:
    raise errors.MediaError('it is a picture, and `use_video` is off')
  if not os.path.isfile(path):
    raise errors.MediaError('the file does not exist')
  try:
    image = cv2.imread(path, cv2.IMREAD_COLOR)
  except cv2.error as e:
    raise errors.MediaError(f'it cannot be decoded ({e.err})') from e
  if image is None:
    raise errors.MediaError('it cannot be decoded as JPEG or PNG')
  height, width = image.shape[:2]
  source_size = (float(width), float(height))
  scale = settings.shorter_side / min(height, width)
  if scale < 1.0 or (settings.enlarge and scale > 1.0):
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    image = cv2.resize(image, size, interpolation=way)
  quality = [cv2.IMWRITE_JPEG_QUALITY, settings.jpeg_quality]
  jpeg = cv2.imencode('.jpg', image, quality)[1].tobytes()
  height, width = image.shape[:2]
  return [
    errors.MediaError('it is a picture: leave `start` out')
    if span.start
    else decoded_clip.DecodedClip(
      0,
      end,
      [jpeg],
      height,
      width,
      shown=[0],
      source_interval=end,
      source_size=source_size,
    )
    for span in spans
  ]
