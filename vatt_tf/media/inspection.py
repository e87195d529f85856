"""The content of shards, as data and in words."""

from collections.abc import Sequence
import dataclasses

import cv2
import numpy as np
import tensorflow as tf

from vatt_tf.core import command_line
from vatt_tf.input_pipeline.records import reading, schema, shard_files

_SECOND = schema.MICROSECONDS


@dataclasses.dataclass
class RecordReport:
  """Content and faults of a record.

  Attributes:
    shard: Path of its file.
    example_id: Name of the record.
    data_path: Path of the media file that it was cut from.
    start: Start in that file, in seconds.
    end: End in that file, in seconds.
    seconds: Length of its frames or its sound, the longer of the two.
    num_frames: Number of frames.
    frame_rate: Frames per second.
    width: Pixels of the first frame, from the picture itself.
    height: Pixels of the first frame.
    num_samples: Number of samples of its sound, of one channel.
    sample_rate: Samples per second.
    peak: Largest absolute sample.
    level: Root mean square, in dB below a full-scale square wave; None for
      silence.
    captions: Captions (start, end, text), in seconds from the start of the
      clip.
    labels: Classes (index, name).
    num_boxes: Number of boxes in all frames; None if nobody has looked for any.
    box_labels: Names of what the boxes hold, sorted.
    layout: Keys that differ from the canonical ones, in words.
    faults: Faults of the record, in words.
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
  num_boxes: int | None = None
  box_labels: list[str] = dataclasses.field(default_factory=list)
  layout: list[str] = dataclasses.field(default_factory=list)
  faults: list[str] = dataclasses.field(default_factory=list)


def decode_frame(data: bytes) -> np.ndarray | None:
  """Returns the (H, W, 3) uint8 RGB of a frame, or None if it is damaged."""
  if not data:
    return None
  image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
  return None if image is None else image[..., ::-1]


def describe_layout(serialized: bytes) -> list[str]:
  """Returns how a record departs from the canonical keys and places.

  Args:
    serialized: Serialized record.

  Returns:
    A phrase for each departure; none for a record of ingest.
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
  """Inspects a record.

  Args:
    shard: Path of its file, for the report.
    serialized: Serialized record.

  Returns:
    The content and the faults of the record.
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
      (caption.start / _SECOND, caption.end / _SECOND, caption.text)
      for caption in clip.captions
    ],
    layout=describe_layout(serialized),
  )
  if clip.regions:
    boxes = [box for of_frame in clip.regions for box in of_frame]
    report.num_boxes = len(boxes)
    report.box_labels = sorted({box.label for box in boxes if box.label})
    if len(clip.regions) != len(clip.frames):
      report.faults.append(
        f'boxes of {len(clip.regions)} frames, and {len(clip.frames)} frames'
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
  """Returns the first records of several shards, taken in turns.

  Args:
    paths: Paths of the shards.
    num_records: Maximum number of records.

  Returns:
    Pairs of a shard and a record, in the order of the shards.

  Raises:
    ValueError: A shard is truncated or corrupt.
  """
  counts = shard_files.count_all_records(paths)
  shares = [0] * len(paths)
  while sum(shares) < min(num_records, sum(counts)):
    for i, count in enumerate(counts):
      if shares[i] < count and sum(shares) < num_records:
        shares[i] += 1
  samples = []
  for path, share in zip(paths, shares):
    if share:
      dataset = shard_files.open_shard(path).take(share)
      try:
        samples += [(path, record) for record in dataset.as_numpy_iterator()]
      except tf.errors.DataLossError as e:
        raise ValueError(
          f'The shard {path} is corrupt ({e.message}). '
          f'{shard_files.advise(path)}'
        ) from e
  return samples


def _spread(values: Sequence[float], form: str = 'g') -> str:
  """Returns the range of values, such as `3` or `2.5 to 4`."""
  low, high = min(values), max(values)
  texts = [format(low, form), format(high, form)]
  return texts[0] if texts[0] == texts[1] else f'{texts[0]} to {texts[1]}'


def describe(
  paths: Sequence[str], num_records: int, reports: Sequence[RecordReport]
) -> str:
  """Describes the content of shards in words.

  Args:
    paths: Paths of the shards.
    num_records: Number of records in them.
    reports: Reports of the inspected records.

  Returns:
    Lines for all, then lines for each record.
  """
  total = len(reports)
  lines = [
    f'{command_line.count(len(paths), "shard")}, '
    f'{command_line.count(num_records, "record")}; {total} of them inspected.'
  ]
  if not total:
    return lines[0]
  layouts = sorted({phrase for report in reports for phrase in report.layout})
  lines.append(
    f'Layout: MediaSequence{", but " if layouts else ""}{"; ".join(layouts)}.'
  )
  videos = [report for report in reports if report.num_frames]
  if videos:
    sizes = sorted({f'{report.width}x{report.height}' for report in videos})
    lines.append(
      f'Video: {len(videos)} of {total} records, '
      f'{_spread([report.num_frames for report in videos])} frames at '
      f'{_spread([report.frame_rate for report in videos])} per second, '
      f'{", ".join(sizes[:6])}{", ..." if len(sizes) > 6 else ""} (width x '
      'height).'
    )
  else:
    lines.append(f'Video: none of {total} records.')
  sounds = [report for report in reports if report.num_samples]
  if sounds:
    levels = [report.level for report in sounds if report.level is not None]
    silent = len(sounds) - len(levels)
    text = (
      f'Sound: {len(sounds)} of {total} records, '
      f'{_spread([report.sample_rate for report in sounds])} samples per '
      f'second, peak '
      f'{_spread([report.peak for report in sounds], ".2f")}'
    )
    if levels:
      text += f', level {_spread(levels, ".0f")} dB'
    if silent:
      text += f', {silent} without a level (silent or faulty)'
    lines.append(f'{text}.')
  else:
    lines.append(f'Sound: none of {total} records.')
  texts = [report for report in reports if report.captions]
  if texts:
    lines.append(
      f'Captions: {len(texts)} of {total} records, '
      f'{_spread([len(report.captions) for report in texts])} each.'
    )
  else:
    lines.append(f'Captions: none of {total} records.')
  labels = sorted(
    {label[1] or str(label[0]) for r in reports for label in r.labels}
  )
  if labels:
    lines.append(
      f'Labels: {sum(bool(report.labels) for report in reports)} of {total} '
      f'records, {", ".join(labels[:10])}{", ..." if len(labels) > 10 else ""}.'
    )
  else:
    lines.append(f'Labels: none of {total} records.')
  boxed = [report for report in reports if report.num_boxes is not None]
  if boxed:
    found = sorted({label for report in boxed for label in report.box_labels})
    text = (
      f'Boxes: {len(boxed)} of {total} records, '
      f'{_spread([report.num_boxes for report in boxed])} in all frames'
    )
    if found:
      text += f', of {", ".join(found[:10])}{", ..." if found[10:] else ""}'
    lines.append(f'{text}.')
  faulty = [report for report in reports if report.faults]
  if faulty:
    lines.append(f'Faults: {len(faulty)} of {total} records, see below.')
  for report in reports:
    lines.append('')
    lines.append(title(report))
    lines += [
      f'  {start:7.2f} - {end:7.2f} s  {text}'
      for start, end, text in report.captions[:12]
    ]
    if len(report.captions) > 12:
      lines.append(f'  ... and {len(report.captions) - 12} more captions')
    lines += [f'  fault: {fault}' for fault in report.faults]
  return '\n'.join(lines)


def title(report: RecordReport) -> str:
  """Returns a line that names a record and its content."""
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
  if report.num_boxes is not None:
    count = report.num_boxes
    parts.append('1 box' if count == 1 else f'{count} boxes')
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
