"""Boxes in the frames of many videos, from a csv file.

A row is a box:

    video_path,frame,x,y,width,height,label,is_sounding
    a.mp4,0,138.0,81.0,24.0,15.0,drone,1

Where it is: `x`, `y`, `width` and `height` in pixels of the video as it is
shown, or `xmin`, `ymin`, `xmax` and `ymax` as shares of the frame from 0 to 1.
When: `frame`, the number of the video's frame from 0, for videos of a constant
rate; or `time` in seconds. Without either, the box is in all frames. `label`
and `is_sounding` (1 or 0) may be left out.

A video of the table that has no row for a frame has no box there.
"""

from collections.abc import Sequence
import dataclasses
import math
import os

import numpy as np

from vatt_tf.input_pipeline.records import schema
from vatt_tf.media import (
  caption_tables,
  clock,
  decoded_clip,
  errors,
  text_files,
)

_PIXELS = ('x', 'y', 'width', 'height')
_SHARES = ('xmin', 'ymin', 'xmax', 'ymax')
_TIMES = ('frame', 'time')
_COLUMNS = ('video_path', *_TIMES, *_PIXELS, *_SHARES, 'label', 'is_sounding')

_IS_SOUNDING = {'': None, '0': False, '1': True}


@dataclasses.dataclass
class _Boxes:
  """Boxes of one video.

  Attributes:
    moments: Number of the frame, or time in seconds; None for all frames.
    edges: The four numbers of each box.
    labels: Name of what each box holds.
    is_sounding: Whether each sounds, or None.
  """

  moments: list[float | None]
  edges: list[tuple[float, ...]]
  labels: list[str]
  is_sounding: list[bool | None]


class BoxTable:
  """Boxes in the frames of many videos.

  Args:
    path: Path of the csv file; see the module.

  Raises:
    errors.MediaError: The file cannot be read, has another form, or a row does
      not hold a box.
  """

  def __init__(self, path: str):
    self._name = os.path.basename(path)
    text = text_files.read_text(path)
    table = text_files.CsvTable(text, self._name, _COLUMNS)
    edges = next(
      (columns for columns in (_PIXELS, _SHARES) if _has(table, columns)), None
    )
    moment = [column for column in _TIMES if column in table.header]
    if 'video_path' not in table.header or edges is None or len(moment) > 1:
      raise errors.MediaError(
        f'{self._name} must have the column video_path, and either '
        f'{", ".join(_PIXELS)} or {", ".join(_SHARES)}; `frame` and `time` '
        'exclude each other. Received: '
        f'{", ".join(table.header) or "no header"}'
      )
    self._is_in_pixels = edges is _PIXELS
    self._is_in_frames = moment == ['frame']
    self._by_path = {}
    self._by_key = {}
    for line, cells in table.rows:
      row = table.row(line, cells)
      path = row['video_path'].strip()
      numbers = [
        self._number(row, column, line) for column in (*edges, *moment)
      ]
      if self._is_in_pixels:
        x, y, width, height = numbers[:4]
        numbers[:4] = x, y, x + width, y + height
      if not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise errors.MediaError(
          f'{self._name}, line {line}: the box is empty. Received: '
          f'{", ".join(f"{c}={row[c]}" for c in edges)}'
        )
      sounds = row.get('is_sounding', '').strip()
      if sounds not in _IS_SOUNDING:
        raise errors.MediaError(
          f'{self._name}, line {line}: `is_sounding` must be 1, 0 or empty. '
          f'Received: is_sounding={sounds!r}'
        )
      boxes = self._by_path.get(path)
      if boxes is None:
        boxes = self._by_path[path] = _Boxes([], [], [], [])
        self._by_key.setdefault(caption_tables.video_key(path), boxes)
      boxes.moments.append(numbers[4] if moment else None)
      boxes.edges.append(tuple(numbers[:4]))
      boxes.labels.append(row.get('label', '').strip())
      boxes.is_sounding.append(_IS_SOUNDING[sounds])

  def _number(self, row, column, line):
    try:
      value = float(row[column])
    except ValueError:
      value = math.nan
    if not math.isfinite(value):
      raise errors.MediaError(
        f'{self._name}, line {line}: `{column}` must be a number. '
        f'Received: {column}={row[column][:80]!r}'
      )
    return value

  @property
  def num_videos(self) -> int:
    """Number of videos that have a box."""
    return len(self._by_path)

  def has(self, path: str) -> bool:
    """Returns whether a video, by its path or name, has boxes."""
    return self._of(path) is not None

  def _of(self, path):
    if path in self._by_path:
      return self._by_path[path]
    return self._by_key.get(caption_tables.video_key(path))

  def regions(
    self, path: str, clip: decoded_clip.DecodedClip
  ) -> list[list[schema.Region]]:
    """Returns the boxes in each frame of a clip.

    Args:
      path: Path of the video, as in the manifest.
      clip: Frames of a part of it.

    Returns:
      A list for each frame; empty if the table does not have the video.
    """
    boxes = self._of(path)
    if boxes is None or not clip.frames:
      return []
    regions = self._scaled(boxes, clip.source_size)
    if boxes.moments[0] is None:
      return [list(regions) for _ in clip.frames]
    moments, spacing = self._moments(boxes, clip.source_interval)
    order = np.argsort(moments, kind='stable')
    moments = moments[order]
    result = []
    for time in clip.shown:
      first = np.searchsorted(moments, time - spacing / 2, side='left')
      last = np.searchsorted(moments, time + spacing / 2, side='left')
      result.append([regions[i] for i in order[first:last]])
    return result

  def _moments(self, boxes, interval):
    """The times of boxes in µs, and the time between two of them."""
    if self._is_in_frames:
      return np.array(boxes.moments) * interval, interval
    times = np.array(boxes.moments) * clock.SECOND
    gaps = np.diff(np.unique(times))
    return times, float(gaps.min()) if len(gaps) else interval

  def _scaled(self, boxes, size) -> Sequence[schema.Region]:
    """The boxes as shares of the frame."""
    scale = (*size, *size) if self._is_in_pixels else (1, 1, 1, 1)
    return [
      schema.Region(
        *(min(max(edge / side, 0.0), 1.0) for edge, side in zip(edges, scale)),
        label,
        sounds,
      )
      for edges, label, sounds in zip(
        boxes.edges, boxes.labels, boxes.is_sounding
      )
    ]


def _has(table, columns):
  return all(column in table.header for column in columns)
