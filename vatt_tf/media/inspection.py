"""What shards hold: in words, as data, and as a picture."""

from collections.abc import Sequence
import dataclasses
import textwrap

import cv2
from matplotlib import figure
import numpy as np
import tensorflow as tf

from vatt_tf.core import command_line
from vatt_tf.input_pipeline.records import reading, schema, shard_files

_SECOND = schema.MICROSECONDS

# Frames of a record that a contact sheet shows.
_NUM_FRAMES = 8


@dataclasses.dataclass
class RecordReport:
  """What one record holds.

  Attributes:
    shard: Path of its file.
    example_id: Its name.
    data_path: The media file it was cut from.
    start: Seconds in that file.
    end: Seconds in that file.
    seconds: Length of its frames or its sound, the longer of the two.
    num_frames: Frames.
    frame_rate: Frames a second.
    width: Pixels of the first frame, from the picture itself.
    height: Pixels of the first frame.
    num_samples: Samples of its sound, of one channel.
    sample_rate: Samples a second.
    peak: Largest absolute sample.
    level: Root mean square, in dB below a full-scale square wave; None for
      silence.
    captions: (start, end, text), in seconds from the start of the clip.
    labels: (index, name) of its classes.
    layout: Keys that differ from the canonical ones, in words.
    faults: What is wrong with it, in words.
  """

  shard: str
  example_id: str = ''
  data_path: str = ''
  start: float = 0.0
  end: float = 0.0
  seconds: float = 0.0
  num_frames: int = 0
  frame_rate: float = 0.0
  width: int = 0
  height: int = 0
  num_samples: int = 0
  sample_rate: float = 0.0
  peak: float = 0.0
  level: float | None = None
  captions: list[tuple[float, float, str]] = dataclasses.field(
    default_factory=list
  )
  labels: list[tuple[int | None, str]] = dataclasses.field(default_factory=list)
  layout: list[str] = dataclasses.field(default_factory=list)
  faults: list[str] = dataclasses.field(default_factory=list)


def decode_frame(data: bytes) -> np.ndarray | None:
  """(H, W, 3) uint8 RGB of an encoded frame, None if it is damaged."""
  if not data:
    return None
  image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
  return None if image is None else image[..., ::-1]


def describe_layout(serialized: bytes) -> list[str]:
  """Where a record departs from the canonical keys and places.

  Args:
    serialized: A record.

  Returns:
    One phrase for each departure; none for a record as ingest writes it.
  """
  example = reading.parse_example(serialized)
  context = example.context.feature
  lists = example.feature_lists.feature_list
  phrases = []
  known = set()
  for field in schema.FEATURE_SPEC:
    known.update((field.key, *field.aliases))
    phrases += [
      f'`{alias}` stands for `{field.key}`'
      for alias in field.aliases
      if alias in context or alias in lists
    ]
    if field.placement == schema.FEATURE_LIST:
      phrases += [
        f'`{key}` is packed in one feature of the context'
        for key in (field.key, *field.aliases)
        if key in context
      ]
    if field.count == schema.ONE_PER_STEP:
      for key in (field.key, *field.aliases):
        steps = lists[key].feature if key in lists else ()
        if len(steps) == 1 and (
          len(steps[0].bytes_list.value) > 1
          or len(steps[0].int64_list.value) > 1
        ):
          phrases.append(f'`{key}` is packed in one step')
  phrases += [
    f'`{key}` is not read' for key in sorted({*context, *lists} - known)
  ]
  return phrases


def report_record(shard: str, serialized: bytes) -> RecordReport:
  """Looks into a record.

  Args:
    shard: Path of its file, for the report.
    serialized: The record.

  Returns:
    What it holds, and its faults.
  """
  try:
    clip = reading.read_clip(serialized)
  except reading.RecordError as e:
    return RecordReport(shard, faults=[str(e)])
  report = RecordReport(
    shard=shard,
    example_id=clip.example_id,
    data_path=clip.data_path,
    start=clip.start / _SECOND,
    end=clip.end / _SECOND,
    seconds=clip.duration,
    num_frames=len(clip.frames),
    frame_rate=clip.frame_rate,
    sample_rate=clip.sample_rate,
    captions=[
      (one.start / _SECOND, one.end / _SECOND, one.text)
      for one in clip.captions
    ],
    layout=describe_layout(serialized),
  )
  names = list(clip.label_names)
  indices = list(clip.label_indices)
  report.labels = [
    (
      indices[i] if i < len(indices) else None,
      names[i] if i < len(names) else '',
    )
    for i in range(max(len(indices), len(names)))
  ]
  if clip.frames:
    images = [decode_frame(frame) for frame in clip.frames]
    damaged = [i for i, image in enumerate(images) if image is None]
    if damaged:
      report.faults.append(
        f'{len(damaged)} of {len(images)} frames cannot be decoded, the first '
        f'is number {damaged[0]}'
      )
    sizes = {image.shape[:2] for image in images if image is not None}
    if sizes:
      report.height, report.width = sorted(sizes)[0]
      if len(sizes) > 1:
        report.faults.append(f'frames have {len(sizes)} different sizes')
      if clip.width and (clip.height, clip.width) not in sizes:
        report.faults.append(
          f'it says that frames are {clip.width}x{clip.height}'
        )
    if not clip.frame_rate:
      report.faults.append('no frame rate')
  if clip.waveform is not None:
    report.num_samples = clip.waveform.size
    fault = schema.waveform_fault(clip.waveform)
    if fault:
      report.faults.append(fault)
    else:
      samples = clip.waveform.astype(np.float64)
      report.peak = float(np.abs(samples).max())
      power = float(np.mean(samples**2))
      report.level = 10 * np.log10(power) if power > 0 else None
      if report.peak > 1:
        report.faults.append(f'samples reach {report.peak:g}')
    if not clip.sample_rate:
      report.faults.append('no sample rate')
  if not clip.frames and clip.waveform is None and not clip.captions:
    report.faults.append('no video, no sound and no captions')
  return report


def read_some(
  paths: Sequence[str], num_records: int
) -> list[tuple[str, bytes]]:
  """The first records of several shards, taken in turns.

  Args:
    paths: The shards.
    num_records: How many at most.

  Returns:
    (shard, record), in the order of the shards.

  Raises:
    ValueError: A shard is truncated or corrupt.
  """
  counts = shard_files.count_all_records(paths)
  shares = [0] * len(paths)
  while sum(shares) < min(num_records, sum(counts)):
    for i, count in enumerate(counts):
      if shares[i] < count and sum(shares) < num_records:
        shares[i] += 1
  some = []
  for path, share in zip(paths, shares):
    if share:
      dataset = shard_files.open_shard(path).take(share)
      try:
        some += [(path, record) for record in dataset.as_numpy_iterator()]
      except tf.errors.DataLossError as e:
        raise ValueError(
          f'The shard {path} is corrupt ({e.message}). '
          f'{shard_files.advise(path)}'
        ) from e
  return some


def _spread(values: Sequence[float], form: str = 'g') -> str:
  """`3` or `2.5 to 4`."""
  low, high = min(values), max(values)
  texts = [format(low, form), format(high, form)]
  return texts[0] if texts[0] == texts[1] else f'{texts[0]} to {texts[1]}'


def describe(
  paths: Sequence[str], num_records: int, reports: Sequence[RecordReport]
) -> str:
  """Says in words what shards hold.

  Args:
    paths: The shards.
    num_records: Of all of them.
    reports: Of the records that were looked into.

  Returns:
    Some lines for all, then some for each record.
  """
  total = len(reports)
  lines = [
    f'{command_line.count(len(paths), "shard")}, '
    f'{command_line.count(num_records, "record")}; looked into {total} of them.'
  ]
  if not total:
    return lines[0]
  layouts = sorted({phrase for report in reports for phrase in report.layout})
  lines.append(
    f'Layout: MediaSequence{", but " if layouts else ""}{"; ".join(layouts)}.'
  )
  videos = [one for one in reports if one.num_frames]
  if videos:
    sizes = sorted({f'{one.width}x{one.height}' for one in videos})
    lines.append(
      f'Video: {len(videos)} of {total} records, '
      f'{_spread([one.num_frames for one in videos])} frames at '
      f'{_spread([one.frame_rate for one in videos])} a second, '
      f'{", ".join(sizes[:6])}{", ..." if len(sizes) > 6 else ""} (width x '
      'height).'
    )
  else:
    lines.append(f'Video: none of {total} records.')
  sounds = [one for one in reports if one.num_samples]
  if sounds:
    levels = [one.level for one in sounds if one.level is not None]
    silent = len(sounds) - len(levels)
    text = (
      f'Sound: {len(sounds)} of {total} records, '
      f'{_spread([one.sample_rate for one in sounds])} samples a second, peak '
      f'{_spread([one.peak for one in sounds], ".2f")}'
    )
    if levels:
      text += f', level {_spread(levels, ".0f")} dB'
    if silent:
      text += f', {silent} without a level (silent or faulty)'
    lines.append(f'{text}.')
  else:
    lines.append(f'Sound: none of {total} records.')
  texts = [one for one in reports if one.captions]
  if texts:
    lines.append(
      f'Captions: {len(texts)} of {total} records, '
      f'{_spread([len(one.captions) for one in texts])} each.'
    )
  else:
    lines.append(f'Captions: none of {total} records.')
  labels = sorted(
    {label[1] or str(label[0]) for r in reports for label in r.labels}
  )
  if labels:
    lines.append(
      f'Labels: {sum(bool(one.labels) for one in reports)} of {total} records, '
      f'{", ".join(labels[:10])}{", ..." if len(labels) > 10 else ""}.'
    )
  else:
    lines.append(f'Labels: none of {total} records.')
  faulty = [one for one in reports if one.faults]
  if faulty:
    lines.append(f'Faults: {len(faulty)} of {total} records, see below.')
  for report in reports:
    lines.append('')
    lines.append(_title(report))
    lines += [
      f'  {start:7.2f} - {end:7.2f} s  {text}'
      for start, end, text in report.captions[:12]
    ]
    if len(report.captions) > 12:
      lines.append(f'  ... and {len(report.captions) - 12} more captions')
    lines += [f'  fault: {fault}' for fault in report.faults]
  return '\n'.join(lines)


def _title(report: RecordReport) -> str:
  """One line that names a record and what it holds."""
  parts = [f'{report.seconds:.2f} s']
  if report.num_frames:
    parts.append(
      f'{report.num_frames} frames {report.width}x{report.height} at '
      f'{report.frame_rate:g}/s'
    )
  if report.num_samples:
    level = ''
    if report.level is not None:
      level = f', peak {report.peak:.3f}, {report.level:.0f} dB'
    parts.append(
      f'{report.num_samples} samples at {report.sample_rate:g}/s{level}'
    )
  parts.append(command_line.count(len(report.captions), 'caption'))
  if report.labels:
    parts.append(
      'class '
      + ', '.join(
        f'{name} ({index})' if name else str(index)
        for index, name in report.labels
      )
    )
  name = report.example_id or report.data_path or 'no name'
  return f'{name}: {"; ".join(parts)}'


def draw_contact_sheet(
  path: str, reports: Sequence[RecordReport], serialized: Sequence[bytes]
) -> None:
  """Draws frames, waveform and captions of records as a PNG.

  Args:
    path: Of the PNG.
    reports: Of the records.
    serialized: The records.
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
      clip = schema.Clip()  # The report says so.
    seconds = max(report.seconds, 0.001)
    top = sheet.add_subplot(grid[3 * i])
    _draw_frames(top, clip, seconds)
    top.set_title(_title(report), fontsize=8, loc='left', pad=3)
    _draw_waveform(sheet.add_subplot(grid[3 * i + 1]), clip, report, seconds)
    _draw_captions(sheet.add_subplot(grid[3 * i + 2]), report, seconds)
  sheet.savefig(path, format='png')


def _draw_frames(axes, clip: schema.Clip, seconds: float) -> None:
  """Frames side by side, each where its moment is on the time axis below."""
  axes.set_axis_off()
  axes.set_xlim(0, seconds)
  axes.set_ylim(0, 1)
  if not clip.frames:
    return
  box = axes.get_position()
  size = axes.figure.get_size_inches()
  width, height = box.width * size[0], box.height * size[1]
  first = decode_frame(clip.frames[0])
  shape = (3, 4) if first is None else first.shape[:2]
  share = height * shape[1] / shape[0] / width
  count = int(
    np.clip(1 / (share * 1.03), 1, min(_NUM_FRAMES, len(clip.frames)))
  )
  span = min(share, 1 / count)
  for i in range(count):
    # The frame at the middle of its slot.
    number = int((i + 0.5) / count * len(clip.frames))
    image = decode_frame(clip.frames[number])
    left = (i + 0.5) / count - span / 2
    extent = (left * seconds, (left + span) * seconds, 0, 1)
    if image is None:
      axes.text(
        (left + span / 2) * seconds, 0.5, 'damaged', ha='center', color='red'
      )
    else:
      axes.imshow(image, extent=extent, aspect='auto')
  axes.set_xlim(0, seconds)
  axes.set_ylim(0, 1)


def _draw_waveform(
  axes, clip: schema.Clip, report: RecordReport, seconds: float
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


def _draw_captions(axes, report: RecordReport, seconds: float) -> None:
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
