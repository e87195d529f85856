"""Opens media files, and refuses playlists, pictures and devices."""

import functools
import os

import av
import av.container
import av.error

from vatt_tf.media import containers, errors

# Demuxers of other things than recordings. The first ones would open other
# files or devices, or connections; the others take text and pictures.
_NOT_MEDIA_FORMATS = frozenset(
  """concat dash hls imf rtp rtsp sap sdp webm_dash_manifest
  alsa fbdev kmsgrab lavfi oss v4l2 video4linux2,v4l2 x11grab
  adf alias_pix ansi apng bin brender_pix cdg ffmetadata ico idf image2
  image2pipe jpegxl_anim tty txd xbin""".split()
)

# Brands of ISO containers with pictures or sequences of them (HEIF, AVIF, CR3).
_PICTURE_BRANDS = frozenset(
  """MA1A MA1B MiHA MiHB MiHE avci avcs avif avis crx heic heim heis heix hevc
  hevm hevs hevx j2ki j2is jpeg jpgs mif1 miaf msf1 vvic vvis""".split()
)


@functools.cache
def _allowed_formats() -> str:
  """Returns the names of FFmpeg's demuxers for recordings, as it takes them."""
  return ','.join(
    name
    for name in sorted(av.formats_available)
    if name not in _NOT_MEDIA_FORMATS and not name.endswith('_pipe')
  )


def _what_is_at(path: str) -> str:
  """Returns what a path without a file leads to, for errors."""
  if os.path.isdir(path):
    is_open = os.access(path, os.R_OK | os.X_OK)
    return 'is a folder' if is_open else 'is a folder that cannot be read'
  if os.path.exists(path):
    return 'is a pipe, a socket or a device'
  if os.path.islink(path):
    return 'is a link to a missing file'
  return 'does not exist'


def open_container(
  path: str,
) -> tuple[av.container.InputContainer, containers.WithoutHeaders | None]:
  """Opens a media file.

  Args:
    path: Path of the file.

  Returns:
    The container, and the file object it reads from where that is not the file
    itself. The caller closes both.

  Raises:
    errors.MediaError: The file is missing, empty or not a recording.
  """
  if not os.path.isfile(path):
    raise errors.MediaError(f'the file {_what_is_at(path)}')
  if not os.path.getsize(path):
    raise errors.MediaError('the file is empty (0 bytes)')
  headers = containers.flv_headers(path)
  joined = containers.WithoutHeaders(path, headers) if headers else None
  try:
    # As a path, never as an address; and nothing beside it is opened.
    container = av.open(
      joined or f'file:{path}',
      container_options={
        'protocol_whitelist': 'file',
        'format_whitelist': _allowed_formats(),
      },
      metadata_errors='replace',
    )
  except av.error.FFmpegError as e:
    if joined is not None:
      joined.close()
    fault = 'FFmpeg cannot open it: its format is unknown or its header is'
    if isinstance(e, av.error.ArgumentError):
      fault = (
        'it holds no video and no audio: it is a playlist, a picture or text, '
        'or its header is'
      )
    raise errors.MediaError(f'{fault} damaged ({e.strerror})') from e
  brand = container.metadata.get('major_brand', '').strip()
  if container.format.name.startswith('mov') and brand in _PICTURE_BRANDS:
    container.close()
    raise errors.MediaError(f'it is a picture (format {brand})')
  return container, joined
