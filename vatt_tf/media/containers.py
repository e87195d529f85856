"""The extent of a container, from its bytes, before anything is decoded.

Some containers state their own size in a tree of boxes, chunks or tags. A walk
over the outermost of them distinguishes a file that breaks off before its end
from a whole one whose header states a wrong length, and finds a second
recording behind the first, which FFmpeg does not read.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
import io
import mmap
import os
from typing import BinaryIO

# Sizes that stand for "not known yet": a live recording.
_UNKNOWN_SIZE = (0, 0xFFFFFFFF)

# Elements of Matroska.
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675

# How Flash video begins, and how long its header is, with the length of no tag.
_FLV = b'FLV\1'
_FLV_HEADER_SIZE = 9 + 4

# A walk covers the outermost elements; no such file has more of them.
_MAX_ELEMENTS = 10_000_000


@dataclasses.dataclass(frozen=True)
class Extent:
  """Extent of a container.

  Attributes:
    is_cut_off: Whether it should continue after the end of the file.
    is_followed: Whether another recording follows it in the same file.
    media_end: Position at which picture and sound end, or None.
  """

  is_cut_off: bool = False
  is_followed: bool = False
  media_end: int | None = None


def extent(path: str) -> Extent:
  """Returns the extent of a file, from its outermost elements.

  Of formats that do not state their size nothing is known.
  """
  size = os.path.getsize(path)
  with open(path, 'rb') as file:
    head = file.read(12)
    if head[:4] in (b'RIFF', b'RF64') and size > 12:
      return _riff(file, size)
    if head[4:8] in (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip'):
      return _boxes(file, size)
    if head[:4] == _FLV:
      return _flv(file, size)
    if head[:4] == b'\x1a\x45\xdf\xa3':
      return _ebml(file, size)
  return Extent()


def _riff(file: BinaryIO, size: int) -> Extent:
  """Walks over AVI and WAV: chunks, of which large AVI files have several."""
  position = 0
  while position + 12 <= size:
    file.seek(position)
    head = file.read(12)
    if head[:4] not in (b'RIFF', b'RF64'):
      break  # padding, tags
    if position and head[8:] != b'AVIX':
      return Extent(is_followed=True)
    length = int.from_bytes(head[4:8], 'little')
    if length in _UNKNOWN_SIZE:
      break
    # An odd length is followed by a byte of padding.
    position += 8 + length + length % 2
  # Some writers count the header too.
  return Extent(is_cut_off=position > size + 16)


def _boxes(file: BinaryIO, size: int) -> Extent:
  """Walks over MP4, QuickTime and the like."""
  position = 0
  has_movie = False
  for _ in range(_MAX_ELEMENTS):
    if position + 8 > size:
      break
    file.seek(position)
    head = file.read(16)
    length, name = int.from_bytes(head[:4], 'big'), head[4:8]
    if length == 1:
      length = int.from_bytes(head[8:16], 'big')
    if length == 0:  # up to the end of the file
      position = size
      break
    if length < 8 or not name.isalnum():
      break  # not a box: its length is unknown
    if name == b'moov':
      if has_movie:
        return Extent(is_followed=True)
      has_movie = True
    position += length
  return Extent(is_cut_off=position > size)


def _flv(file: BinaryIO, size: int) -> Extent:
  """Walks over Flash video: a tag for each frame."""
  position = 9
  for _ in range(_MAX_ELEMENTS):
    # The length of the tag before, then the head of the next.
    if position + 15 > size:
      break
    file.seek(position)
    head = file.read(15)[4:]
    if head[:4] == _FLV:
      position += 4 + 9
      continue
    if head[0] & 0x1F not in (8, 9, 15, 18):
      break
    position += 4 + 11 + int.from_bytes(head[1:4], 'big')
  rest = size - position
  # The length of the last tag ends the file.
  return Extent(is_cut_off=rest < 0 or 0 < rest < 15 and rest != 4)


def flv_headers(path: str) -> tuple[int, ...]:
  """Returns the positions of further recordings in a file of Flash video.

  FFmpeg takes such a header for a damaged tag and skips far beyond it.
  """
  status = os.stat(path)
  return _flv_headers(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache
def _flv_headers(path: str, size: int, changed: int) -> tuple[int, ...]:
  del size, changed  # keys of the cache
  positions = []
  with open(path, 'rb') as file:
    if file.read(4) != _FLV:
      return ()
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
      position = data.find(_FLV, _FLV_HEADER_SIZE)
      while position >= 0:
        length = int.from_bytes(data[position - 4 : position], 'big')
        tag = position - 4 - length
        # The tag before it ends here.
        if tag > 0 and data[tag + 1 : tag + 4] == (length - 11).to_bytes(
          3, 'big', signed=True
        ):
          positions.append(position)
        position = data.find(_FLV, position + 1)
  return tuple(positions)


class WithoutHeaders(io.RawIOBase):
  """Joined files of Flash video as one, without the headers in its middle.

  Args:
    path: Path of the file.
    headers: Positions that `flv_headers` returns.
  """

  def __init__(self, path: str, headers: Sequence[int]):
    super().__init__()
    self.name = path
    self._file = open(path, 'rb')  # noqa: SIM115, closed by `close`
    ends = [*headers, os.path.getsize(path)]
    starts = [0, *(header + _FLV_HEADER_SIZE for header in headers)]
    # Place in this file, place in the real one and length of each stretch.
    self._stretches, place = [], 0
    for start, end in zip(starts, ends):
      self._stretches.append((place, start, end - start))
      place += end - start
    self._size = place
    self._place = 0

  def readable(self) -> bool:
    """Returns whether the file can be read."""
    return True

  def seekable(self) -> bool:
    """Returns whether the file can be sought in."""
    return True

  def tell(self) -> int:
    """Returns the position in the file."""
    return self._place

  def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
    """Moves to a position and returns it."""
    origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}
    self._place = origin[whence] + offset
    return self._place

  def readinto(self, buffer: bytearray | memoryview) -> int:
    """Reads bytes into a buffer and returns their number."""
    for place, start, length in self._stretches:
      inside = self._place - place
      if 0 <= inside < length:
        self._file.seek(start + inside)
        data = self._file.read(min(len(buffer), length - inside))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
    return 0

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
    super().close()


def _ebml(file: BinaryIO, size: int) -> Extent:
  """Walks over Matroska and WebM: segments, and clusters in them."""
  is_cut_off, media_end = False, 0
  for element, length, start in _ebml_elements(file, 0, size):
    if element != _SEGMENT:
      continue
    end = size if length is None else start + length
    is_cut_off = is_cut_off or end > size
    for child, child_length, child_start in _ebml_elements(
      file, start, min(end, size)
    ):
      if child == _CLUSTER:
        child_end = end if child_length is None else child_start + child_length
        media_end = max(media_end, min(child_end, size))
  return Extent(is_cut_off, media_end=media_end or None)


def _ebml_elements(
  file: BinaryIO, position: int, end: int
) -> Iterator[tuple[int, int | None, int]]:
  """Yields id, length (None if unknown) and content position of elements."""
  while position < end:
    file.seek(position)
    head = file.read(12)
    if not head or not head[0]:
      return
    width = 9 - head[0].bit_length()
    element, rest = int.from_bytes(head[:width], 'big'), head[width:]
    if not rest or not rest[0]:
      return
    count = 9 - rest[0].bit_length()
    if count > len(rest):
      return
    length = int.from_bytes(rest[:count], 'big') & ((1 << 7 * count) - 1)
    start = position + width + count
    is_known = length != (1 << 7 * count) - 1
    yield element, length if is_known else None, start
    if not is_known:
      return
    position = start + length
