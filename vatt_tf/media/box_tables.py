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

Two benchmarks are read as their owners publish them, and their boxes, which
sound, are in all frames: the json file of VGG-SS (Chen et al. 2021), and the
folder of xml files of Flickr-SoundNet (Senocak et al. 2018), one for each
picture, with the boxes of several annotators.
"""

from collections.abc import Sequence
import dataclasses
import json
import math
import os
from xml.etree import ElementTree

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
_SHARES = schema.EDGES
_TIMES = ('frame', 'time')
_COLUMNS = ('video_path', *_TIMES, *_PIXELS, *_SHARES, 'label', 'is_sounding')

# Pixels of a side of the frames that Flickr-SoundNet's boxes are drawn in.
_FLICKR_SIZE = 256.0

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
    path: Path of a csv file, of VGG-SS's json, or of a folder of xml files as
      of Flickr-SoundNet; see the module.

  Raises:
    errors.MediaError: The file cannot be read, has another form, or a row does
      not hold a box.
  """

  def __init__(self, path: str):
    self._name = os.path.basename(os.path.normpath(path))
    self._by_path = {}
    self._by_key = {}
    self._is_in_frames = False
    # Pixels of the frame that edges count in; None for those of the video, 1
    # for shares.
    self._size = (1.0, 1.0)
    if os.path.isdir(path):
      self._read_xml(path)
    elif os.path.splitext(path)[1].lower() == '.json':
      self._read_json(path)
    else:
      self._read_csv(path)

  def _add(self, path, moment, edges, where, label='', is_sounding=None):
    """Adds a box, whose edges are left, upper, right and lower."""
    left, top, right, bottom = edges
    if not (left < right and top < bottom):
      raise errors.MediaError(
        f'{where}: the box is empty. Received: left={left:g}, top={top:g}, '
        f'right={right:g}, bottom={bottom:g}'
      )
    boxes = self._by_path.get(path)
    if boxes is None:
      boxes = self._by_path[path] = _Boxes([], [], [], [])
      self._by_key.setdefault(caption_tables.video_key(path), boxes)
    boxes.moments.append(moment)
    boxes.edges.append(tuple(edges))
    boxes.labels.append(label)
    boxes.is_sounding.append(is_sounding)

  def _read_csv(self, path):
    text = text_files.read_text(path)
    table = text_files.CsvTable(text, self._name, _COLUMNS)
    columns = next(
      (
        names for names in (_PIXELS, _SHARES) if set(names) <= set(table.header)
      ),
      None,
    )
    moment = [column for column in _TIMES if column in table.header]
    if 'video_path' not in table.header or columns is None or len(moment) > 1:
      raise errors.MediaError(
        f'{self._name} must have the column video_path, and either '
        f'{", ".join(_PIXELS)} or {", ".join(_SHARES)}; `frame` and `time` '
        'exclude each other. Received: '
        f'{", ".join(table.header) or "no header"}'
      )
    if columns is _PIXELS:
      self._size = None
    self._is_in_frames = moment == ['frame']
    for line, cells in table.rows:
      row = table.row(line, cells)
      where = f'{self._name}, line {line}'
      *edges, time = (
        _number(row[column], column, where)
        for column in (*columns, *(moment or columns[:1]))
      )
      if columns is _PIXELS:
        x, y, width, height = edges
        edges = x, y, x + width, y + height
      sounds = row.get('is_sounding', '').strip()
      if sounds not in _IS_SOUNDING:
        raise errors.MediaError(
          f'{where}: `is_sounding` must be 1, 0 or empty. '
          f'Received: is_sounding={sounds!r}'
        )
      self._add(
        row['video_path'].strip(),
        time if moment else None,
        edges,
        where,
        row.get('label', '').strip(),
        _IS_SOUNDING[sounds],
      )

  def _read_json(self, path):
    """Reads VGG-SS's list of {file, class, bbox}, which sound."""
    try:
      entries = json.loads(text_files.read_text(path))
      for entry in entries:
        where = f'{self._name}, {entry["file"]}'
        for box in entry['bbox']:
          edges = [_number(edge, 'bbox', where) for edge in box]
          self._add(
            entry['file'], None, edges, where, entry.get('class', ''), True
          )
    except (KeyError, TypeError, ValueError) as e:
      if isinstance(e, errors.MediaError):
        raise
      raise errors.MediaError(
        f'{self._name} must be a list of entries with `file`, `class` and '
        f'`bbox`, the left, upper, right and lower edges of boxes as shares of '
        f'the frame, as VGG-SS has it. {type(e).__name__}: {e}'
      ) from e

  def _read_xml(self, folder):
    """Reads Flickr-SoundNet's files, in pixels of frames of 256 x 256."""
    self._size = (_FLICKR_SIZE, _FLICKR_SIZE)
    for name in sorted(os.listdir(folder)):
      stem, extension = os.path.splitext(name)
      if extension.lower() != '.xml':
        continue
      where = f'{self._name}/{name}'
      try:
        root = ElementTree.parse(os.path.join(folder, name)).getroot()
      except ElementTree.ParseError as e:
        raise errors.MediaError(f'{where} cannot be read as xml: {e}') from e
      for box in root.iter('bbox'):
        edges = [
          _number(box.findtext(edge) or '', edge, where) for edge in _SHARES
        ]
        self._add(stem, None, edges, where, is_sounding=True)
    if not self._by_path:
      raise errors.MediaError(
        f'{self._name} must be a csv file, a json file of VGG-SS, or a folder '
        'of xml files of Flickr-SoundNet. Received: a folder without boxes in '
        'xml files'
      )

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
    scale = (self._size or size) * 2
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


def _number(value, name, where):
  """A number of a file."""
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not math.isfinite(number):
    raise errors.MediaError(
      f'{where}: `{name}` must be a number. Received: {name}={value!r:.80}'
    )
  return number
