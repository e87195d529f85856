"""The form of a clip in a record: the keys, and their values in Python.

One clip is one `tf.train.SequenceExample` with the keys of MediaSequence.
`FEATURE_SPEC` below is the only list of these keys: the writer, both readers
(`reading.parse_record` with TensorFlow ops, `reading.read_clip` with plain
Python), the fake records and the table in docs/records.md all follow it.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np
import tensorflow as tf

CONTEXT = 'context'

FEATURE_LIST = 'feature list'

BYTES = 'bytes'

INT64 = 'int64'

FLOAT = 'float'

# Numbers of values that a field holds, and their layout when written.
ONE = 'one value'

MANY = 'a list'

ONE_PER_STEP = 'one per step'

ONE_STEP = 'one step holding all'

MANY_PER_STEP = 'several per step'

TF_DTYPES = {BYTES: tf.string, INT64: tf.int64, FLOAT: tf.float32}

MICROSECONDS = 1_000_000

# Name of the file that ingest writes beside the shards of a data set.
DATASET_INFO = 'dataset_info.json'

# Smallest float32 bit patterns (without sign) of a normal number, and of an
# infinite number or NaN.
_SMALLEST_NORMAL_BITS = 0x00800000

_INFINITY_BITS = 0x7F800000


class Field(NamedTuple):
  """One feature of a record.

  Attributes:
    name: Name in the dictionary that `parse_record` returns.
    key: MediaSequence key that the field is written under.
    placement: Part of the record, `CONTEXT` or `FEATURE_LIST`.
    dtype: Type of the values, `BYTES`, `INT64` or `FLOAT`.
    count: Number of values, `ONE`, `MANY`, `ONE_PER_STEP`, `ONE_STEP` or
      `MANY_PER_STEP`.
    meaning: Description for the record table.
    aliases: Other keys that the field is read from.
  """

  name: str
  key: str
  placement: str
  dtype: str
  count: str
  meaning: str
  aliases: tuple[str, ...] = ()


# Edges of a box: left, upper, right, lower.
EDGES = ('xmin', 'ymin', 'xmax', 'ymax')

FEATURE_SPEC = (
  Field(
    'image_encoded',
    'image/encoded',
    FEATURE_LIST,
    BYTES,
    ONE_PER_STEP,
    'JPEG frames',
  ),
  Field(
    'image_timestamp',
    'image/timestamp',
    FEATURE_LIST,
    INT64,
    ONE_PER_STEP,
    'time of each frame, µs',
  ),
  Field(
    'image_frame_rate',
    'image/frame_rate',
    CONTEXT,
    FLOAT,
    ONE,
    'frames per second',
  ),
  Field('image_height', 'image/height', CONTEXT, INT64, ONE, 'pixels'),
  Field('image_width', 'image/width', CONTEXT, INT64, ONE, 'pixels'),
  Field('image_format', 'image/format', CONTEXT, BYTES, ONE, '`JPEG`'),
  Field(
    'waveform',
    'WAVEFORM/feature/floats',
    FEATURE_LIST,
    FLOAT,
    ONE_STEP,
    'samples, mono, in [-1, 1]; the first is at time 0',
    aliases=('waveform/floats',),
  ),
  Field(
    'waveform_encoded',
    'WAVEFORM/feature/bytes',
    FEATURE_LIST,
    BYTES,
    ONE_STEP,
    'an encoded sound file (WAV, FLAC, MP3, Ogg Vorbis, Opus), read when there '
    'are no samples',
    aliases=('audio/encoded',),
  ),
  Field(
    'waveform_rate',
    'WAVEFORM/feature/sample_rate',
    CONTEXT,
    FLOAT,
    ONE,
    'samples per second',
  ),
  Field(
    'waveform_channels',
    'WAVEFORM/feature/num_channels',
    CONTEXT,
    INT64,
    ONE,
    'written as 1; when more, the samples are interleaved and are averaged '
    'on reading',
  ),
  Field(
    'caption_text',
    'segment/label/string',
    CONTEXT,
    BYTES,
    MANY,
    'captions or recognised speech, UTF-8',
    aliases=('caption/string',),
  ),
  Field(
    'caption_start',
    'segment/start/timestamp',
    CONTEXT,
    INT64,
    MANY,
    'start of each caption, µs',
  ),
  Field(
    'caption_end',
    'segment/end/timestamp',
    CONTEXT,
    INT64,
    MANY,
    'end of each caption, µs',
  ),
  Field(
    'label_index',
    'clip/label/index',
    CONTEXT,
    INT64,
    MANY,
    'classes of the clip, lines of `labels.txt`',
    aliases=('label/index',),
  ),
  Field(
    'label_name',
    'clip/label/string',
    CONTEXT,
    BYTES,
    MANY,
    'names of these classes',
    aliases=('clip/label/text', 'label/text'),
  ),
  Field(
    'data_path',
    'clip/data_path',
    CONTEXT,
    BYTES,
    ONE,
    'the media file the clip was cut from',
  ),
  Field(
    'clip_start',
    'clip/start/timestamp',
    CONTEXT,
    INT64,
    ONE,
    'start of the clip in that file, µs',
  ),
  Field(
    'clip_end',
    'clip/end/timestamp',
    CONTEXT,
    INT64,
    ONE,
    'end of the clip in that file, µs',
  ),
  Field(
    'region_count',
    'region/num_regions',
    FEATURE_LIST,
    INT64,
    ONE_PER_STEP,
    'number of boxes in each frame',
  ),
  *(
    Field(
      f'region_{edge}',
      f'region/bbox/{edge}',
      FEATURE_LIST,
      FLOAT,
      MANY_PER_STEP,
      f'{meaning} of each box, as a share of the frame',
    )
    for edge, meaning in zip(
      EDGES, ('left edge', 'upper edge', 'right edge', 'lower edge')
    )
  ),
  Field(
    'region_label',
    'region/label/string',
    FEATURE_LIST,
    BYTES,
    MANY_PER_STEP,
    'name of what each box holds',
  ),
  Field(
    'region_is_sounding',
    'region/is_sounding',
    FEATURE_LIST,
    INT64,
    MANY_PER_STEP,
    'whether it sounds: 1, 0, or -1 where nobody knows',
  ),
  Field('example_id', 'example/id', CONTEXT, BYTES, ONE, 'name of the clip'),
  Field(
    'dataset_name',
    'example/dataset_name',
    CONTEXT,
    BYTES,
    ONE,
    'name of the data set',
  ),
)

FIELDS = {field.name: field for field in FEATURE_SPEC}


@dataclasses.dataclass(frozen=True)
class Caption:
  """A text that describes a span of a clip.

  Attributes:
    text: Text of the caption.
    start: Start of the span, µs from the start of the clip.
    end: End of the span, µs from the start of the clip.
  """

  text: str
  start: int = 0
  end: int = 0


@dataclasses.dataclass(frozen=True)
class Region:
  """A box in a frame.

  Attributes:
    xmin: Left edge, as a share of the frame from 0 to 1.
    ymin: Upper edge.
    xmax: Right edge.
    ymax: Lower edge.
    label: Name of what it holds, or ''.
    is_sounding: Whether that sounds, or None if nobody knows.
  """

  xmin: float
  ymin: float
  xmax: float
  ymax: float
  label: str = ''
  is_sounding: bool | None = None


@dataclasses.dataclass
class Clip:
  """One clip of a record, of which every part may be absent.

  All times are in µs. The times of frames and captions count from the start of
  the clip, which is also the time of the first sample of the waveform; `start`
  and `end` count from the start of the file that the clip was cut from.

  Attributes:
    example_id: Name of the clip, unique in its data set.
    dataset_name: Name of the data set.
    frames: JPEG images.
    timestamps: Time of each frame. If empty, frame i is at i / frame_rate.
    frame_rate: Frames per second; 0 without frames.
    height: Height of the frames in pixels.
    width: Width of the frames in pixels.
    waveform: (S,) float32: mono samples in [-1, 1], or None.
    sample_rate: Samples per second; 0 without a waveform.
    captions: Captions of the clip.
    label_indices: Classes of the clip.
    label_names: Names of these classes.
    data_path: Path of the media file.
    start: Start of the clip in the media file.
    end: End of the clip in the media file.
    regions: Boxes in each frame; empty if nobody has looked for any.
  """

  example_id: str = ''
  dataset_name: str = ''
  frames: Sequence[bytes] = ()
  timestamps: Sequence[int] = ()
  frame_rate: float = 0.0
  height: int = 0
  width: int = 0
  waveform: np.ndarray | None = None
  sample_rate: float = 0.0
  captions: Sequence[Caption] = ()
  label_indices: Sequence[int] = ()
  label_names: Sequence[str] = ()
  data_path: str = ''
  start: int = 0
  end: int = 0
  regions: Sequence[Sequence[Region]] = ()

  @property
  def duration(self) -> float:
    """Length of the frames or the waveform, whichever is longer, in seconds."""
    seconds = 0.0
    if self.frames and self.frame_rate:
      times = self.timestamps or frame_times(len(self.frames), self.frame_rate)
      seconds = times[-1] / MICROSECONDS + 1.0 / self.frame_rate
    if self.waveform is not None and self.sample_rate:
      seconds = max(seconds, self.waveform.size / self.sample_rate)
    return seconds


def frame_times(num_frames: int, frame_rate: float) -> list[int]:
  """Returns the times in µs of frames at a constant `frame_rate`."""
  return [round(i * MICROSECONDS / frame_rate) for i in range(num_frames)]


def waveform_fault(waveform: np.ndarray) -> str:
  """Returns what is wrong with the numbers of a waveform, or ''.

  Integers whose bits were read as float32 (a common fault of record writers)
  become denormal numbers if positive and NaN if negative.

  Args:
    waveform: Float samples of any shape.
  """
  samples = np.ascontiguousarray(waveform, dtype=np.float32)
  if not samples.size:
    return ''
  largest = int((samples.view(np.int32) & 0x7FFFFFFF).max())
  if largest >= _INFINITY_BITS:
    return 'the waveform holds values that are not finite'
  if 0 < largest < _SMALLEST_NORMAL_BITS:
    return (
      'all values of the waveform are denormal (integer samples read as '
      'float32)'
    )
  return ''


def check_clip(clip: Clip) -> None:
  """Raises `ValueError` if a clip cannot be written."""
  name = clip.example_id or clip.data_path or 'clip'
  if clip.frames:
    if not clip.frame_rate > 0:
      raise ValueError(
        f'`frame_rate` of {name} must be above 0 when there are frames. '
        f'Received: frame_rate={clip.frame_rate}'
      )
    if clip.timestamps and len(clip.timestamps) != len(clip.frames):
      raise ValueError(
        f'`timestamps` of {name} must have one time per frame. Received: '
        f'{len(clip.timestamps)} timestamps for {len(clip.frames)} frames'
      )
  if clip.waveform is not None:
    if np.ndim(clip.waveform) != 1:
      raise ValueError(
        f'`waveform` of {name} must have one axis (mono samples). Received: '
        f'shape={np.shape(clip.waveform)}'
      )
    if not clip.sample_rate > 0:
      raise ValueError(
        f'`sample_rate` of {name} must be above 0 when there is a waveform. '
        f'Received: sample_rate={clip.sample_rate}'
      )
    fault = waveform_fault(clip.waveform)
    if fault:
      raise ValueError(f'`waveform` of {name} cannot be written: {fault}.')
  if clip.regions and len(clip.regions) != len(clip.frames):
    raise ValueError(
      f'`regions` of {name} must have a list of boxes per frame. Received: '
      f'{len(clip.regions)} lists for {len(clip.frames)} frames'
    )
  if clip.label_names and len(clip.label_names) != len(clip.label_indices):
    raise ValueError(
      f'`label_names` of {name} must have one name per label. Received: '
      f'{len(clip.label_names)} names for {len(clip.label_indices)} indices'
    )
