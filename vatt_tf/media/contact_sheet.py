"""Draws what records hold: frames, waveform and captions."""

from collections.abc import Sequence
import textwrap

import cv2
from matplotlib import figure
import numpy as np

from vatt_tf.input_pipeline.records import reading, schema
from vatt_tf.media import inspection

# Frames of a record that a contact sheet shows.
_NUM_FRAMES = 8


def draw_contact_sheet(
  path: str,
  reports: Sequence[inspection.RecordReport],
  serialized: Sequence[bytes],
) -> None:
  """Draws frames, waveform and captions of records as a PNG.

  Args:
    path: Path of the PNG.
    reports: Reports of the records.
    serialized: Serialized records.
  """
  heights = []
  for report in reports:
    heights += [
      1.25 if report.num_frames else 0.05,
      0.9,
      0.34 + 0.2 * min(max(len(report.captions), 1), 6) + 0.35,
    ]
  sheet = figure.Figure(figsize=(12, sum(heights) + 0.6), dpi=100)
  grid = sheet.add_gridspec(
    len(heights),
    1,
    height_ratios=heights,
    left=0.05,
    right=0.985,
    top=1 - 0.35 / (sum(heights) + 0.6),
    bottom=0.1 / (sum(heights) + 0.6),
    hspace=0.02,
  )
  for i, (report, record) in enumerate(zip(reports, serialized)):
    try:
      clip = reading.read_clip(record)
    except reading.RecordError:
      clip = schema.Clip()  # The report names the fault.
    seconds = max(report.seconds, 0.001)
    top = sheet.add_subplot(grid[3 * i])
    _draw_frames(top, clip, seconds)
    top.set_title(inspection.title(report), fontsize=8, loc='left', pad=3)
    _draw_waveform(sheet.add_subplot(grid[3 * i + 1]), clip, report, seconds)
    _draw_captions(sheet.add_subplot(grid[3 * i + 2]), report, seconds)
  sheet.savefig(path, format='png')


def _draw_frames(axes, clip: schema.Clip, seconds: float) -> None:
  """Draws frames in a row, each where its moment is on the axis below."""
  axes.set_axis_off()
  axes.set_xlim(0, seconds)
  axes.set_ylim(0, 1)
  if not clip.frames:
    return
  box = axes.get_position()
  size = axes.figure.get_size_inches()
  width, height = box.width * size[0], box.height * size[1]
  first = inspection.decode_frame(clip.frames[0])
  shape = (3, 4) if first is None else first.shape[:2]
  share = height * shape[1] / shape[0] / width
  count = int(
    np.clip(1 / (share * 1.03), 1, min(_NUM_FRAMES, len(clip.frames)))
  )
  span = min(share, 1 / count)
  for i in range(count):
    # The frame at the middle of its slot.
    number = int((i + 0.5) / count * len(clip.frames))
    image = inspection.decode_frame(clip.frames[number])
    left = (i + 0.5) / count - span / 2
    extent = (left * seconds, (left + span) * seconds, 0, 1)
    if image is None:
      axes.text(
        (left + span / 2) * seconds, 0.5, 'damaged', ha='center', color='red'
      )
    else:
      boxes = clip.regions[number] if number < len(clip.regions) else ()
      axes.imshow(_with_boxes(image, boxes), extent=extent, aspect='auto')
  axes.set_xlim(0, seconds)
  axes.set_ylim(0, 1)


def _with_boxes(
  image: np.ndarray, boxes: Sequence[schema.Region]
) -> np.ndarray:
  """Draws boxes, what is silent in grey: (H, W, 3) uint8."""
  if not boxes:
    return image
  image = np.ascontiguousarray(image)
  height, width = image.shape[:2]
  for box in boxes:
    colour = (160, 160, 160) if box.is_sounding is False else (0, 255, 0)
    cv2.rectangle(
      image,
      (round(box.xmin * width), round(box.ymin * height)),
      (round(box.xmax * width) - 1, round(box.ymax * height) - 1),
      colour,
      max(1, round(height / 120)),
    )
  return image


def _draw_waveform(
  axes, clip: schema.Clip, report: inspection.RecordReport, seconds: float
) -> None:
  axes.set_xlim(0, seconds)
  axes.set_ylim(-1, 1)
  axes.set_yticks([])
  axes.tick_params(labelsize=6, length=2, pad=1)
  axes.set_ylabel('sound', fontsize=7)
  if clip.waveform is None or report.level is None:
    text = 'no sound' if clip.waveform is None else 'silent or faulty'
    axes.text(seconds / 2, 0, text, ha='center', va='center', fontsize=8)
    return
  # Quiet sound is scaled up; the title gives its peak.
  scale = 1.0 / max(report.peak, 1e-6)
  samples = clip.waveform
  bins = min(1200, samples.size)
  edges = np.linspace(0, samples.size, bins + 1).astype(int)[:-1]
  times = edges / report.sample_rate
  axes.fill_between(
    times,
    np.minimum.reduceat(samples, edges) * scale,
    np.maximum.reduceat(samples, edges) * scale,
    linewidth=0,
    color='steelblue',
  )


def _draw_captions(
  axes, report: inspection.RecordReport, seconds: float
) -> None:
  axes.set_axis_off()
  axes.set_xlim(0, seconds)
  shown = report.captions[:6]
  rows = max(len(shown), 1) + 1.5
  axes.set_ylim(rows, -0.7)  # the labels of the time axis are above
  if not shown:
    axes.text(0, 0.5, 'no captions', fontsize=7, va='center', color='gray')
  for row, (start, end, text) in enumerate(shown):
    left, right = max(start, 0.0), min(end, seconds)
    axes.barh(
      row + 0.5, max(right - left, 0.0), left=left, height=0.8, color='moccasin'
    )
    if row == 5 and len(report.captions) > 6:
      text += f'   (and {len(report.captions) - 6} more)'
    # Text that starts late would run out of the picture.
    near_end = left > 0.6 * seconds
    axes.text(
      right if near_end else left,
      row + 0.5,
      textwrap.shorten(text, 140).replace('$', r'\$'),
      fontsize=7,
      va='center',
      ha='right' if near_end else 'left',
    )
