"""From shards of records to batches.

The order is fixed: shards shuffled, interleaved, parsed; one time offset drawn
for video and sound; only the sampled frames decoded; augmented; captions chosen
and tokenized; batched; prefetched.

Where a run stands in its data follows from (seed, step) alone. The records of a
source are counted at the start, so a step gives the epoch and the number of
records to pass over in it, which are read but neither parsed nor decoded. The
order of an epoch follows from (seed, epoch), the draws of a mixture from (seed,
position), and all that is random about a clip from (seed, epoch, record): a
record gets the same draws wherever in the batch, and in whichever input
pipeline, it is read.

With `cache_gib` all of a record that is not random is kept in memory, and the
same functions draw a clip from it, by the number of the record.

A record that cannot be used keeps its place in the batch, under a false mask.
What is wrong with it travels with the batch to the process that trains, where
it is counted and named in the log (`BadRecords`): all before that is a graph,
which input machines can run as well (`service`).
"""

from collections.abc import Sequence
import dataclasses
import functools
import threading
import time
import zlib

from absl import logging
import gin
import numpy as np
import tensorflow as tf

from vatt_tf.core import (
  distribution,
  tensor_utils,
)
from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import audio as audio_lib
from vatt_tf.input_pipeline import (
  class_balance,
  clip_cache,
  encoded_audio,
  records,
  service,
)
from vatt_tf.input_pipeline import text as text_lib
from vatt_tf.input_pipeline import video as video_lib

VIDEO = 'video'
AUDIO = 'audio'
TEXT = 'text'
MODALITIES = (VIDEO, AUDIO, TEXT)

_MAX_EPOCHS = 2**40

# These functions are graphs as they stand; converting them takes seconds.
_as_graph = tf.autograph.experimental.do_not_convert

# Draws of a mixture that are made at once.
_DRAWS = 1 << 14

# Stands in for a record that cannot be read, so that it can be named.
_UNREADABLE = b'\xffunreadable'

# Batches that are made before they are asked for.
_NUM_READY = 2

# Key of a row's seed, between a row and the functions of the whole batch.
_SEED = '_seed'

# Key of what is wrong with a row: (6,) string, empty when nothing is.
_REPORT = '_report'
_REPORT_SIZE = 6

# Keys of what `decode_clip` makes of frames and captions.
_FRAMES = 'frames'
_FRAME_SIZE = 'frame_size'
_CAPTION_IDS = 'caption_ids'
_CAPTION_MASK = 'caption_mask'

# What can be wrong with a record, as numbers that leave the graph.
_FAULTS = {
  audio_lib.NOT_FINITE: 'the waveform holds values that are not finite',
  audio_lib.DENORMAL: (
    'all values of the waveform are denormal (integer samples read as float32)'
  ),
  3: (
    'the waveform has no sample rate (give the rate of such records as '
    '`Source.sample_rate`)'
  ),
  4: (
    'the frames have neither times nor a frame rate (give the rate of such '
    'records as `Source.frame_rate`)'
  ),
  5: 'the times of the frames do not rise',
  6: 'the record cannot be parsed',
  7: 'a frame cannot be decoded',
  8: 'the encoded sound cannot be decoded',
  9: 'a label is not among the classes',
}
_NO_SAMPLE_RATE = 3
_NO_FRAME_RATE = 4
_TIMES_FALL = 5
_NOT_PARSED = 6
_FRAME_CORRUPT = 7
_SOUND_CORRUPT = 8
_LABEL_UNKNOWN = 9


# Configuration.


@gin.register
@dataclasses.dataclass(frozen=True)
class Source:
  """A data set: the shards that a pattern matches.

  Attributes:
    pattern: A glob pattern, several of them separated by commas, or a list.
    weight: Share of the clips of a mixture that are drawn from it, relative to
      the weights of the others.
    name: For messages and random draws; by default the pattern. A name keeps
      the order of the data when the pattern changes, as when it is moved.
    macro: The gin macro that holds the pattern, for messages; by default
      TRAIN_RECORDS or EVAL_RECORDS.
    frame_rate: Frames a second of records that state neither a rate nor the
      times of their frames. Without it such frames are refused.
    sample_rate: Samples a second of records that do not state it. Without it
      such sound is refused.
    modalities: Which of `video`, `audio` and `text` to read; what is left out
      is treated as missing.
  """

  pattern: str | Sequence[str]
  weight: float = 1.0
  name: str | None = None
  macro: str | None = None
  frame_rate: float | None = None
  sample_rate: float | None = None
  modalities: Sequence[str] = MODALITIES

  def __post_init__(self):
    if not self.weight > 0:
      raise ValueError(
        f'`weight` must be above 0. Received: weight={self.weight}'
      )
    for name in ('frame_rate', 'sample_rate'):
      value = getattr(self, name)
      if value is not None and not value > 0:
        raise ValueError(
          f'`{name}` must be above 0 or None. Received: {name}={value}'
        )
    unknown = set(self.modalities) - set(MODALITIES)
    if unknown:
      raise ValueError(
        f'`modalities` must be among {", ".join(MODALITIES)}. Received: '
        f'modalities={self.modalities}'
      )


@gin.register
@dataclasses.dataclass(frozen=True)
class LabelConfig:
  """What the pipeline makes of the classes of a record.

  Attributes:
    num_classes: Labels are in [0, num_classes).
    is_multi_label: Give (B, num_classes) float32 of zeros and ones, instead of
      (B,) int32 with the record's first label (-1 where it has none).
  """

  num_classes: int
  is_multi_label: bool = False

  def __post_init__(self):
    if self.num_classes < 1:
      raise ValueError(
        '`num_classes` must be at least 1. Received: '
        f'num_classes={self.num_classes}'
      )


class BadRecords:
  """Counts the records that cannot be used, and names each once in the log.

  Args:
    max_share: The run stops when more than this share of the records of its
      sources is bad (0: at the first one; else one is always let pass).
    num_records: Records of the sources; `make_dataset` sets it.

  Raises:
    ValueError: `max_share` is not in [0, 1].
  """

  def __init__(self, max_share: float = 0.05, num_records: int = 0):
    if not 0 <= max_share <= 1:
      raise ValueError(
        '`max_bad_record_share` must be in [0, 1]. Received: '
        f'max_bad_record_share={max_share}'
      )
    self._max_share = max_share
    self.num_records = num_records
    self._reasons = {}
    self._lock = threading.Lock()

  @property
  def reasons(self) -> dict[tuple[str, int], str]:
    """What is wrong with each bad record, by (shard, index in it)."""
    with self._lock:
      return dict(self._reasons)

  def __len__(self) -> int:
    return len(self._reasons)

  def report(
    self, shard: str, index: int, example_id: str, reason: str
  ) -> None:
    """Notes a bad record.

    Args:
      shard: Path of its shard.
      index: Its place in the shard.
      example_id: Its name, '' when it has none.
      reason: What is wrong.

    Raises:
      ValueError: There are too many of them.
    """
    with self._lock:
      if (shard, index) in self._reasons:
        return
      self._reasons[shard, index] = reason
      count = len(self._reasons)
    name = f'{example_id!r} (record {index} of {shard})'
    logging.warning(
      'Bad record %d of %d: %s: %s. Its place stays, under a false mask.',
      count,
      self.num_records,
      name,
      reason,
    )
    allowed = self._max_share * self.num_records
    if count > (max(allowed, 1.0) if self._max_share else 0):
      raise ValueError(
        f'{count} of {self.num_records} records are bad, more than '
        f'`max_bad_record_share`={self._max_share} allows. The last is {name}: '
        f'{reason}. Make the records again with `python -m vatt_tf.ingest`, or '
        'allow more: --gin_param="make_dataset.max_bad_record_share=…".'
      )


@dataclasses.dataclass(frozen=True)
class _Plan:
  """What the functions of one pipeline share."""

  is_training: bool
  seed: int
  video: video_lib.VideoConfig | None
  audio: audio_lib.AudioConfig | None
  text: text_lib.TextConfig | None
  label: LabelConfig | None
  tokenizer: text_lib.Tokenizer | None
  sources: tuple[Source, ...]
  paths: tuple[tuple[str, ...], ...]  # Of the shards of each source.
  counts: tuple[tuple[int, ...], ...]  # Of the records in them.
  is_served: bool  # Runs on input machines.
  with_example_id: bool

  @property
  def num_clips(self) -> int:
    """Clips that evaluation takes of a record."""
    config = self.video or self.audio
    return 1 if config is None else config.num_clips

  @property
  def num_views(self) -> int:
    """Rows that one record gives."""
    if self.is_training:
      return 1
    return self.num_clips * (1 if self.video is None else self.video.num_crops)

  @property
  def span(self) -> float:
    """Seconds of a clip."""
    wanted = [c.seconds for c in (self.video, self.audio) if c is not None]
    return max(wanted, default=0.0)

  @property
  def num_parallel_calls(self) -> int:
    """One a core; an input machine, whose cores others count, finds it out."""
    return tf.data.AUTOTUNE if self.is_served else distribution.num_cores()

  @property
  def audio_key(self) -> str:
    is_waveform = self.audio.form == audio_lib.WAVEFORM
    return names.AUDIO if is_waveform else names.SPECTROGRAM

  @property
  def fields(self) -> list[str]:
    """The fields to parse."""
    wanted = ['example_id']
    if self.video is not None:
      wanted += ['image_encoded', 'image_timestamp', 'image_frame_rate']
    if self.audio is not None:
      wanted += ['waveform', 'waveform_encoded', 'waveform_rate']
      wanted += ['waveform_channels']
    if self.text is not None:
      wanted += ['caption_text', 'caption_start', 'caption_end']
    if self.label is not None:
      wanted.append('label_index')
    return wanted


def row_spec(
  video: video_lib.VideoConfig | None = None,
  audio: audio_lib.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: LabelConfig | None = None,
) -> dict[str, tf.TensorSpec]:
  """Shapes and types of one row; a part whose configuration is None is absent.

  Returns:
    A dictionary of `tf.TensorSpec` without the batch axis.
  """
  spec = {}
  if video is not None:
    spec[names.VIDEO] = tf.TensorSpec(video.shape, tf.float32)
    spec[names.VIDEO_MASK] = tf.TensorSpec([], tf.bool)
  if audio is not None:
    is_waveform = audio.form == audio_lib.WAVEFORM
    key = names.AUDIO if is_waveform else names.SPECTROGRAM
    spec[key] = tf.TensorSpec(audio.shape, tf.float32)
    spec[names.AUDIO_MASK] = tf.TensorSpec([], tf.bool)
  if text is not None:
    spec[names.TEXT] = tf.TensorSpec(text.shape, tf.int32)
    spec[names.TEXT_MASK] = tf.TensorSpec([text.num_captions], tf.bool)
  if label is not None:
    if label.is_multi_label:
      spec[names.LABEL] = tf.TensorSpec([label.num_classes], tf.float32)
    else:
      spec[names.LABEL] = tf.TensorSpec([], tf.int32)
  return spec


# Reading.


@_as_graph
def _read_shard(
  shard,
  epoch,
  *,
  paths,
  counts,
  source,
  num_pipelines,
  pipeline,
  is_kept=False,
  compressions=None,
):
  """The records of a shard that this pipeline takes.

  Args:
    shard: () int64, number of the shard in its source.
    epoch: () int64.
    paths: Paths of the shards.
    counts: Records of each.
    source: Number of the source.
    num_pipelines: Records are dealt out to so many pipelines.
    pipeline: Number of this one.
    is_kept: The records are in memory; nothing is read.
    compressions: Of the shards, as `records.find_compression` gives them; None:
      none is compressed.

  Returns:
    A data set of dictionaries: `record` () string (not if `is_kept`), where it
    comes from, `source`, `shard` and `index`, () int64, and `epoch`.
  """
  path = tf.gather(tf.constant(paths), shard)
  compressions = compressions or [''] * len(paths)
  compression = tf.gather(tf.constant(compressions), shard)
  count = tf.gather(tf.constant(counts, tf.int64), shard)

  def name_record(index, numbered):
    _, record = numbered

    def fail():
      message = tf.strings.join(
        [
          'The shard ',
          path,
          ' cannot be read beyond its record ',
          tf.strings.as_string(index),
          ': it is corrupt, or gone. Copy it again, or make it again with what '
          'wrote it: `python -m vatt_tf.ingest` goes on where it stopped, once '
          'the shard is removed.',
        ]
      )
      failed = tf.raw_ops.Assert(condition=False, data=[message])
      with tf.control_dependencies([failed]):
        return tf.identity(record)

    def as_is():
      return record

    # Not the whole record, which comparing would copy.
    start = tf.strings.substr(record, 0, len(_UNREADABLE))
    record = tf.cond(tf.equal(start, _UNREADABLE), fail, as_is)
    return {'record': record, **name_place(index)}

  def name_place(index):
    return {
      'source': tf.constant(source, tf.int64),
      'shard': shard,
      'index': index,
      'epoch': epoch,
    }

  def is_ours(element):
    number = element['index'] + element['shard']
    return tf.equal(number % num_pipelines, pipeline)

  if is_kept:
    dataset = tf.data.Dataset.range(count).map(name_place)
  else:
    dataset = tf.data.TFRecordDataset(path, compression, buffer_size=4 << 20)
    # Reading stops at a corrupt record; the one that stands in for it is cut
    # off when all records were there. A file that cannot be opened would be
    # tried again for ever, were there no number for each trial.
    dataset = tf.data.Dataset.zip((tf.data.Dataset.range(count), dataset))
    dataset = dataset.ignore_errors(log_warning=False)
    unreadable = tf.constant(0, tf.int64), _UNREADABLE
    dataset = dataset.concatenate(tf.data.Dataset.from_tensors(unreadable))
    # Why it cannot be opened is said here, where errors are not dropped.
    opened = tf.data.FixedLengthRecordDataset(path, 1, buffer_size=1)
    opened = opened.take(1).skip(1).map(lambda byte: (unreadable[0], byte))
    dataset = opened.concatenate(dataset)
    dataset = dataset.take(count).enumerate().map(name_record)
  return dataset.filter(is_ours) if num_pipelines > 1 else dataset


def _fold_in(seed, value):
  return tf.random.experimental.stateless_fold_in(
    seed, tf.cast(value, tf.int64)
  )


def _seed_of(seed: int, name: str) -> tf.Tensor:
  """(2,) int64: a seed of its own for a named use."""
  return tf.constant([seed, zlib.crc32(name.encode())], tf.int64)


@_as_graph
def _repeat_records(dataset, weights, length, first_numbers, seed):
  """Gives each record as often as its weight says, 0 times or more.

  Args:
    dataset: Of the elements of `_read_shard`.
    weights: See `class_balance.count_repeats`, as are `length` and `seed`.
    first_numbers: (n,) int64, number of each shard's first record.

  Returns:
    The data set, with `copy`, () int64, which counts a record's own.
  """
  counts = class_balance.count_repeats(weights, length, seed)

  def count_of(element):
    first = tf.gather(tf.constant(first_numbers), element['shard'])
    return tf.gather(counts, first + element['index'])

  def is_used(element):
    return count_of(element) > 0

  def copies(element):
    def copy(number):
      return {**element, 'copy': number}

    return tf.data.Dataset.range(count_of(element)).map(copy)

  return dataset.filter(is_used).flat_map(copies)


@_as_graph
def _read_epoch(
  epoch,
  *,
  read_shard,
  shards,
  is_training,
  seed,
  buffer_size,
  cycle_length,
  repeat=None,
  is_kept=False,
):
  """The records of a source in the order of an epoch.

  Args:
    epoch: () int64.
    read_shard: From the number of a shard, and the epoch, to a data set of its
      records.
    shards: Numbers of the shards that this pipeline reads.
    is_training: Whether they are shuffled.
    seed: (2,) int64.
    buffer_size: Records among which the next one is drawn.
    cycle_length: Shards that are open at a time.
    repeat: `_repeat_records` but for its `dataset` and `seed`, or None.
    is_kept: The records are in memory; see `_read_shard`.

  Returns:
    A data set of the elements of `read_shard`.
  """
  read_shard = functools.partial(read_shard, epoch=epoch, is_kept=is_kept)
  shards = tf.constant(shards, tf.int64)
  if not is_training:
    return tf.data.Dataset.from_tensor_slices(shards).flat_map(read_shard)
  seed = _fold_in(seed, epoch)
  shards = tf.random.experimental.stateless_shuffle(shards, seed)
  dataset = tf.data.Dataset.from_tensor_slices(shards)
  dataset = dataset.interleave(
    read_shard,
    cycle_length=cycle_length,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  if repeat is not None:
    dataset = repeat(dataset, seed=_fold_in(seed, 1))
  order = tf.random.stateless_uniform([], seed, None, None, tf.int64)
  # `shuffle` mixes its seed with that of the graph it is called in, by default
  # TensorFlow's global one. The order is to depend on `seed` alone, so this
  # graph, which is that of the mapped function, gets a seed of its own.
  tf.compat.v1.set_random_seed(1)
  return dataset.shuffle(
    buffer_size, seed=order, reshuffle_each_iteration=False
  )


# Mixtures.


@_as_graph
def draw_sources(
  chunk: tf.Tensor, weights: Sequence[float], seed: tf.Tensor
) -> tf.Tensor:
  """Draws the sources of some positions of a mixture.

  Args:
    chunk: () int64; positions [chunk * n, (chunk + 1) * n), n = 16,384.
    weights: One for each source.
    seed: (2,) int64.

  Returns:
    (n,) int64, numbers of sources.
  """
  shares = np.cumsum(np.asarray(weights, np.float64) / np.sum(weights))
  draws = tf.random.stateless_uniform([_DRAWS], _fold_in(seed, chunk))
  bounds = tf.constant(shares[:-1], tf.float32)
  return tf.searchsorted(bounds, draws, side='right', out_type=tf.int64)


def count_draws(
  position: int, weights: Sequence[float], seed: tf.Tensor
) -> np.ndarray:
  """How often each source comes in the first `position` draws: (n,) int64."""

  @tf.function
  def count(num_chunks):
    totals = tf.zeros([len(weights)], tf.int64)
    for chunk in tf.range(num_chunks):
      drawn = draw_sources(chunk, weights, seed)
      totals += tf.math.bincount(
        tf.cast(drawn, tf.int32), minlength=len(weights), dtype=tf.int64
      )
    return totals

  whole, rest = divmod(position, _DRAWS)
  totals = count(tf.constant(whole, tf.int64)).numpy()
  drawn = draw_sources(tf.constant(whole, tf.int64), weights, seed)[:rest]
  return totals + np.bincount(drawn.numpy(), minlength=len(weights))


def _draws_from(position, weights, seed):
  """An endless data set of draws, from a position on."""
  draw = functools.partial(draw_sources, weights=weights, seed=seed)
  chunks = tf.data.Dataset.range(position // _DRAWS, _MAX_EPOCHS)
  return chunks.map(draw).unbatch().skip(position % _DRAWS)


# One record.


def _first(values, default):
  """The first value of a vector, or a default: () of its type."""
  padded = tf.concat([values, tf.cast([default], values.dtype)], axis=0)
  return padded[0]


def _of_source(element, sources, attribute):
  """() float32: an attribute of the record's source, 0 when not given."""
  values = [getattr(source, attribute) or 0.0 for source in sources]
  return tf.gather(tf.constant(values, tf.float32), element['source'])


def _number_of(element, plan):
  """() int64: number of the record among those of all sources."""
  counts = [count for group in plan.counts for count in group]
  first = np.cumsum([0, *counts])[:-1]
  return tf.gather(tf.constant(first, tf.int64), _shard_of(element, plan)) + (
    element['index']
  )


def _shard_of(element, plan):
  """() int64: number of the record's shard among those of all sources."""
  first = np.cumsum([0, *(len(group) for group in plan.paths)])[:-1]
  return tf.gather(tf.constant(first, tf.int64), element['source']) + (
    element['shard']
  )


def _is_read(element, sources, modality):
  """() bool: whether the record's source is read for a modality."""
  values = [modality in source.modalities for source in sources]
  return tf.gather(tf.constant(values), element['source'])


def parse(element: dict[str, tf.Tensor], plan: _Plan) -> dict[str, tf.Tensor]:
  """Parses the record of an element.

  Args:
    element: Of `_read_epoch`.
    plan: Of the pipeline.

  Returns:
    The element without `record`, with the fields of `records.FEATURE_SPEC`
    that are needed, `fault` and `audio_fault` () int32.
  """

  def parse_record(record):
    fields = records.parse_record(record, plan.fields)
    return {**fields, 'fault': tf.constant(0)}

  def nothing():
    spec = {field.name: field.dtype for field in records.FEATURE_SPEC}
    fields = {
      name: tf.zeros([0], records.TF_DTYPES[spec[name]])
      for name in plan.fields
    }
    return {**fields, 'fault': tf.constant(_NOT_PARSED)}

  fields = tensor_utils.guarded(parse_record, (element['record'],), nothing)
  rest = {key: element[key] for key in element if key != 'record'}
  return {**rest, **fields}


def prepare_sound(
  features: dict[str, tf.Tensor], plan: _Plan
) -> dict[str, tf.Tensor]:
  """Finds the waveform of a record, its rate, and what is wrong with it.

  Args:
    features: Of `parse`.
    plan: Of the pipeline.

  Returns:
    The features with `waveform` (S,) float32 mono (empty when there is none or
    it cannot be used), `waveform_rate` () int32, `audio_fault` () int32 and
    `audio_reason` () string.
  """

  def decode():
    return encoded_audio.decode_in_graph(features['waveform_encoded'][0])

  def as_stored():
    channels = _first(features['waveform_channels'], 1)
    waveform = audio_lib.mix_channels(features['waveform'], channels)
    rate = _first(features['waveform_rate'], 0.0)
    is_given = rate > 0
    given = _of_source(features, plan.sources, 'sample_rate')
    return waveform, tf.where(is_given, rate, given), tf.constant('')

  is_encoded = tf.equal(tf.size(features['waveform']), 0)
  is_encoded &= tf.size(features['waveform_encoded']) > 0
  waveform, rate, reason = tf.cond(is_encoded, decode, as_stored)
  fault = audio_lib.find_fault(waveform)
  no_rate = (rate <= 0) & (tf.size(waveform) > 0)
  fault = tf.where(no_rate, _NO_SAMPLE_RATE, fault)
  fault = tf.where(reason != '', _SOUND_CORRUPT, fault)
  is_used = tf.equal(fault, 0) & _is_read(features, plan.sources, AUDIO)
  length = tf.where(is_used, tf.size(waveform), 0)
  return {
    **features,
    'waveform': waveform[:length],
    'waveform_rate': tf.maximum(tf.cast(tf.round(rate), tf.int32), 1),
    'audio_fault': fault,
    'audio_reason': reason,
  }


def prepare_frames(
  features: dict[str, tf.Tensor], plan: _Plan
) -> dict[str, tf.Tensor]:
  """Finds the times of a record's frames, and what is wrong with them.

  Args:
    features: Of `parse`.
    plan: Of the pipeline.

  Returns:
    The features with `image_encoded` (n,) string (empty when there are none or
    they cannot be used), `image_timestamp` (n,) int64, `video_end` () int64 µs
    and `video_fault` () int32.
  """
  frames, times = features['image_encoded'], features['image_timestamp']
  count = tf.size(frames)
  rate = _first(features['image_frame_rate'], 0.0)
  given = _of_source(features, plan.sources, 'frame_rate')
  rate = tf.where(rate > 0, rate, given)
  is_timed = tf.equal(tf.size(times), count) & (count > 0)
  period = 1e6 / tf.cast(tf.where(rate > 0, rate, 1.0), tf.float64)

  def stored():
    return times

  def regular():
    steps = tf.range(count, dtype=tf.int32)
    return tf.cast(tf.round(tf.cast(steps, tf.float64) * period), tf.int64)

  times = tf.cond(is_timed, stored, regular)
  fault = tf.where(is_timed | (rate > 0), 0, _NO_FRAME_RATE)
  falls = tf.reduce_any(times[1:] < times[:-1])
  fault = tf.where(falls, _TIMES_FALL, fault)
  fault = tf.where(count > 0, fault, 0)
  is_used = tf.equal(fault, 0) & _is_read(features, plan.sources, VIDEO)
  length = tf.where(is_used, count, 0)
  # What the last frame lasts: as the rate says, or as long as the others.
  last, first = _first(times[::-1], 0), _first(times, 0)
  steps = tf.cast(tf.maximum(count - 1, 1), tf.int64)
  lasts = tf.where(rate > 0, tf.cast(period, tf.int64), (last - first) // steps)
  return {
    **features,
    'image_encoded': frames[:length],
    'image_timestamp': times[:length],
    'video_end': tf.where(length > 0, last + lasts, 0),
    'video_fault': fault,
  }


def clip_offsets(
  features: dict[str, tf.Tensor], plan: _Plan, seed: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor]:
  """Chooses when the clips of a record start, for all modalities at once.

  In training the one clip starts anywhere; in evaluation the clips are spread
  evenly from the start of the record to its end, a single one is in the middle.
  The start is then moved back to that of a stored frame, so that the sound
  starts with it. A record that is shorter than the clip starts at 0.

  Args:
    features: Of `prepare_frames` and `prepare_sound`.
    plan: Of the pipeline.
    seed: (2,) int64, or None in evaluation.

  Returns:
    offsets (num_clips,) int64 µs, and the duration of the record, () int64 µs.
  """
  duration = tf.zeros([], tf.int64)
  if plan.video is not None:
    duration = tf.maximum(duration, features['video_end'])
  if plan.audio is not None:
    rate = tf.cast(features['waveform_rate'], tf.float64)
    seconds = tf.cast(tf.size(features['waveform']), tf.float64) / rate
    duration = tf.maximum(duration, tf.cast(seconds * 1e6, tf.int64))
  if plan.text is not None:
    ends = tf.concat([[0], features['caption_end']], axis=0)
    duration = tf.where(duration > 0, duration, tf.reduce_max(ends))
  room = tf.maximum(duration - round(plan.span * records.MICROSECONDS), 0)
  if seed is not None:
    shares = tf.random.stateless_uniform([1], seed, dtype=tf.float64)
  else:
    count = plan.num_clips
    shares = np.linspace(0.0, 1.0, count) if count > 1 else [0.5]
    shares = tf.constant(shares, tf.float64)
  offsets = tf.cast(shares * tf.cast(room, tf.float64), tf.int64)
  if plan.video is not None:
    times = features['image_timestamp']
    places = tf.searchsorted(times, offsets, side='right') - 1
    padded = tf.concat([times, [0]], axis=0)  # A record may have no frame.
    starts = tf.gather(padded, tf.maximum(places, 0))
    offsets = tf.where(places >= 0, starts, offsets)
  return offsets, duration


def load_video(
  features: dict[str, tf.Tensor],
  offset: tf.Tensor,
  duration: tf.Tensor,
  plan: _Plan,
  seed: tf.Tensor | None,
  crop: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Decodes and finishes the frames of a clip.

  Args:
    features: Of `prepare`, or a decoded clip.
    offset: () int64, µs.
    duration: () int64, µs.
    plan: Of the pipeline.
    seed: (2,) int64, or None in evaluation.
    crop: Which window of evaluation.

  Returns:
    video (T, H, W, 3) float32, mask () bool, and fault () int32.
  """
  config = plan.video

  def missing():
    return tf.zeros(config.shape), tf.constant(False), tf.constant(0)

  def load():
    indices = video_lib.sample_indices(
      features['image_timestamp'],
      offset,
      duration,
      config.num_frames,
      config.frame_rate,
      config.short_clip,
    )

    finish_seed = None if seed is None else _fold_in(seed, 1)
    if _FRAMES in features:
      frames = video_lib.take_frames(
        features[_FRAMES], features[_FRAME_SIZE], indices, config, seed
      )
      return video_lib.finish_frames(frames, config, finish_seed), True, 0

    def decode(frames, indices):
      return video_lib.load_frames(frames, indices, config, seed, crop)

    def nothing():
      return tf.zeros([0, 0, 0, 3], tf.uint8)

    frames = tensor_utils.guarded(
      decode, (features['image_encoded'], indices), nothing
    )

    def corrupt():
      return tf.zeros(config.shape), False, _FRAME_CORRUPT

    def finish():
      video = video_lib.finish_frames(frames, config, finish_seed)
      return video, True, 0

    return tf.cond(tf.size(frames) > 0, finish, corrupt)

  return tf.cond(tf.size(features['image_timestamp']) > 0, load, missing)


def load_audio(
  features: dict[str, tf.Tensor],
  offset: tf.Tensor,
  duration: tf.Tensor,
  plan: _Plan,
  seed: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Cuts and finishes the sound of a clip.

  Args:
    features: Of `prepare`, or a decoded clip.
    offset: () int64, µs.
    duration: () int64, µs.
    plan: Of the pipeline.
    seed: (2,) int64, or None in evaluation.

  Returns:
    (S, 1) or (F, M) float32, and mask () bool.
  """
  config = plan.audio
  is_looped = plan.video is None or plan.video.short_clip == video_lib.LOOP

  def missing():
    return tf.zeros(config.shape), tf.constant(False)

  def load():
    waveform = audio_lib.slice_waveform(
      features['waveform'],
      features['waveform_rate'],
      offset,
      duration,
      config,
      is_looped,
    )
    return audio_lib.finish_waveform(waveform, config, seed), True

  return tf.cond(tf.size(features['waveform']) > 0, load, missing)


def load_text(
  features: dict[str, tf.Tensor],
  offset: tf.Tensor,
  duration: tf.Tensor,
  plan: _Plan,
  seed: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Chooses and tokenizes the captions of a clip.

  Args:
    features: Of `prepare`, or a decoded clip.
    offset: () int64, µs.
    duration: () int64, µs.
    plan: Of the pipeline.
    seed: (2,) int64, or None in evaluation.

  Returns:
    ids (C, L) int32, mask (C,) bool.
  """
  span = round(plan.span * records.MICROSECONDS)
  center = offset + tf.minimum(tf.constant(span, tf.int64), duration) // 2
  is_decoded = _CAPTION_IDS in features
  texts = features[_CAPTION_IDS if is_decoded else 'caption_text']
  chosen = text_lib.nearest_captions(
    features['caption_start'],
    features['caption_end'],
    tf.shape(texts)[0],
    center,
    plan.text.num_captions,
    seed,
  )
  texts = tf.gather(texts, chosen)
  if not is_decoded:
    return text_lib.encode_captions(texts, plan.tokenizer, plan.text)
  missing = plan.text.num_captions - tf.size(chosen)
  ids = tf.pad(texts, [[0, missing], [0, 0]])  # (C, L)
  mask = tf.gather(features[_CAPTION_MASK], chosen)
  return (
    tf.ensure_shape(ids, plan.text.shape),
    tf.ensure_shape(tf.pad(mask, [[0, missing]]), [plan.text.num_captions]),
  )


def load_label(
  features: dict[str, tf.Tensor], config: LabelConfig
) -> tuple[tf.Tensor, tf.Tensor]:
  """Lays out the classes of a record.

  Args:
    features: Of `parse`.
    config: See `LabelConfig`.

  Returns:
    () int32, -1 for none, or (num_classes,) float32; and fault () int32.
  """
  labels = features['label_index']
  is_known = (labels >= 0) & (labels < config.num_classes)
  fault = tf.where(tf.reduce_all(is_known), 0, _LABEL_UNKNOWN)
  labels = tf.boolean_mask(labels, is_known)
  if not config.is_multi_label:
    return tf.cast(_first(labels, -1), tf.int32), fault
  hot = tf.one_hot(labels, config.num_classes)  # (n, num_classes)
  return tf.reduce_max(tf.pad(hot, [[0, 1], [0, 0]]), axis=0), fault


# Bad records.


def _frame_reason(frames):
  """Says which of a record's frames is not a whole JPEG image."""
  for number, frame in enumerate(frames):
    place = f'frame {number} of {len(frames)}'
    if not frame.startswith(b'\xff\xd8'):
      return f'{place} is no JPEG image: it starts with {frame[:4]!r}'
    if not frame.rstrip(b'\x00').endswith(b'\xff\xd9'):
      return f'{place} is cut short: a JPEG image without its end'
  return _FAULTS[_FRAME_CORRUPT] + ': its JPEG data is corrupt'


def make_report(
  features: dict[str, tf.Tensor], faults: tf.Tensor, plan: _Plan
) -> tf.Tensor:
  """Writes down what is wrong with a record.

  Args:
    features: Of `parse`.
    faults: (n,) int32; 0 is none.
    plan: Of the pipeline.

  Returns:
    (6,) string: shard, index in it, name, faults, what is wrong with encoded
    sound, and the frames if one is corrupt. Empty strings when nothing is
    wrong.
  """

  def report():
    paths = tf.constant([path for group in plan.paths for path in group])
    frames = features.get('image_encoded', tf.constant([], tf.string))
    is_corrupt = tf.reduce_any(tf.equal(faults, _FRAME_CORRUPT))
    return tf.stack(
      [
        tf.gather(paths, _shard_of(features, plan)),
        tf.strings.as_string(features['index']),
        _first(features['example_id'], ''),
        tf.strings.reduce_join(tf.strings.as_string(faults), separator=' '),
        features.get('audio_reason', tf.constant('')),
        tf.where(is_corrupt, tf.io.serialize_tensor(frames), ''),
      ]
    )

  def nothing():
    return tf.fill([_REPORT_SIZE], '')

  return tf.cond(tf.reduce_any(faults > 0), report, nothing)


def _read_reports(bad_records, reports):
  """Counts the bad records of a batch; runs in Python, where there are any."""
  for path, index, example_id, faults, sound_reason, frames in reports:
    reasons = []
    for fault in sorted({int(fault) for fault in faults.split()} - {0}):
      if fault == _FRAME_CORRUPT:
        frames = tf.io.parse_tensor(frames, tf.string)
        reasons.append(_frame_reason(list(frames.numpy())))
      elif fault == _SOUND_CORRUPT:
        reasons.append(sound_reason.decode('utf-8', 'replace'))
      else:
        reasons.append(_FAULTS[fault])
    if reasons:
      bad_records.report(
        path.decode(),
        int(index),
        example_id.decode('utf-8', 'replace'),
        '; '.join(reasons),
      )
  return np.int32(0)


@_as_graph
def take_reports(
  batch: dict[str, tf.Tensor], bad_records: BadRecords
) -> dict[str, tf.Tensor]:
  """Takes what is wrong with the rows out of a batch, and counts it."""
  batch = dict(batch)
  reports = batch.pop(_REPORT)  # (B, 6)

  def read():
    return tf.numpy_function(
      functools.partial(_read_reports, bad_records),
      [reports],
      tf.int32,
      name='report_bad_records',
    )

  def nothing():
    return tf.constant(0)

  tf.cond(tf.reduce_any(reports[:, 3] != ''), read, nothing)
  return batch


# A record to rows.


@_as_graph
def prepare(
  element: dict[str, tf.Tensor], plan: _Plan
) -> dict[str, tf.Tensor]:
  """Reads all of a record that is not random.

  Args:
    element: Of `_read_epoch`.
    plan: Of the pipeline.

  Returns:
    The features of `parse`, `prepare_frames` and `prepare_sound`, `label` as a
    row has it, and `faults` (n,) int32.
  """
  features = parse(element, plan)
  faults = [features['fault']]
  if plan.video is not None:
    features = prepare_frames(features, plan)
    faults.append(features['video_fault'])
  if plan.audio is not None:
    features = prepare_sound(features, plan)
    faults.append(features['audio_fault'])
  if plan.text is not None:
    texts = features['caption_text']
    is_read = _is_read(features, plan.sources, TEXT)
    features['caption_text'] = texts[: tf.where(is_read, tf.size(texts), 0)]
  if plan.label is not None:
    features[names.LABEL], fault = load_label(features, plan.label)
    faults.append(fault)
  return {**features, 'faults': tf.stack(faults)}


@_as_graph
def sample(
  features: dict[str, tf.Tensor], plan: _Plan
) -> dict[str, tf.Tensor]:
  """Makes the row, or the rows, that a record gives.

  Args:
    features: Of `prepare`, or a decoded clip.
    plan: Of the pipeline.

  Returns:
    The tensors of `row_spec`; in evaluation with more than one clip or crop,
    with an axis of `num_clips * num_crops` in front (crops change fastest).
  """
  seed = None
  seeds = [None] * 4
  if plan.is_training:
    # A source's own name, not its place, so that adding one changes no draw.
    seed = tf.stack(
      [_seed_of(plan.seed, _name_of(source)) for source in plan.sources]
    )
    seed = tf.gather(seed, features['source'])  # (2,)
    keys = ['epoch', 'shard', 'index'] + ['copy'] * ('copy' in features)
    for key in keys:
      seed = _fold_in(seed, features[key])
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
  faults = [features['faults']] if 'faults' in features else []
  offsets, duration = clip_offsets(features, plan, seeds[0])
  num_crops = plan.num_views // offsets.shape[0]
  views = []
  for clip in range(offsets.shape[0]):
    offset = offsets[clip]
    row = {}
    if plan.audio is not None:
      row[plan.audio_key], row[names.AUDIO_MASK] = load_audio(
        features, offset, duration, plan, seeds[2]
      )
    if plan.text is not None:
      row[names.TEXT], row[names.TEXT_MASK] = load_text(
        features, offset, duration, plan, seeds[3]
      )
    if plan.label is not None:
      row[names.LABEL] = features[names.LABEL]
    for crop in range(num_crops):
      view = dict(row)
      if plan.video is not None:
        view[names.VIDEO], view[names.VIDEO_MASK], fault = load_video(
          features, offset, duration, plan, seeds[1], crop
        )
        faults.append(fault[None])
      views.append(view)
  # What is wrong with a decoded clip, its record still says: see `decode_clip`.
  if 'faults' in features:
    report = make_report(features, tf.concat(faults, axis=0), plan)
  else:
    report = tf.fill([_REPORT_SIZE], '')
  for view in views:
    view[_REPORT] = report
    if plan.with_example_id:
      view[names.EXAMPLE_ID] = _first(features['example_id'], '')
    if not plan.is_training:
      view[names.VALID] = tf.constant(True)
    elif plan.audio is not None and plan.audio.mixup_alpha:
      view[_SEED] = seed
  if len(views) == 1:
    return views[0]
  return {key: tf.stack([v[key] for v in views]) for key in views[0]}


def load_records(dataset: tf.data.Dataset, plan: _Plan) -> tf.data.Dataset:
  """Turns the elements of `_read_epoch` into the rows of `sample`.

  In two steps: TensorFlow does not optimize the arithmetic of a function that
  calls Python, as `prepare` does. What a clip holds is to be the same, to the
  last bit, on input machines and when it is drawn from memory.
  """
  for step in (prepare, sample):
    dataset = dataset.map(
      functools.partial(step, plan=plan),
      num_parallel_calls=plan.num_parallel_calls,
      deterministic=True,
    )
  return dataset


# Clips in memory.


def clip_spec(plan: _Plan) -> dict[str, tf.TensorSpec]:
  """Shapes and types of a clip of `decode_clip`."""
  number = tf.TensorSpec([], tf.int64)
  numbers = tf.TensorSpec([None], tf.int64)
  spec = {
    'record': tf.TensorSpec([], tf.string),
    'example_id': tf.TensorSpec([None], tf.string),
  }
  if plan.video is not None:
    spec['image_timestamp'] = numbers
    spec['video_end'] = number
    spec[_FRAME_SIZE] = tf.TensorSpec([2], tf.int32)
    frames = tf.TensorSpec([None, None, None, 3], tf.uint8)
    for scale in range(video_lib.NUM_SCALES):
      spec[f'{_FRAMES}_{scale}'] = frames
  if plan.audio is not None:
    spec['waveform'] = tf.TensorSpec([None], tf.float32)
    spec['waveform_rate'] = tf.TensorSpec([], tf.int32)
  if plan.text is not None:
    spec['caption_start'] = spec['caption_end'] = numbers
    length = plan.text.max_words
    spec[_CAPTION_IDS] = tf.TensorSpec([None, length], tf.int32)
    spec[_CAPTION_MASK] = tf.TensorSpec([None], tf.bool)
  if plan.label is not None:
    spec[names.LABEL] = row_spec(label=plan.label)[names.LABEL]
  return spec


def _decode_frames(frames, config):
  """All frames of a record at all scales, their size, and whether all went."""

  def decode(frames):
    decoded, size = video_lib.decode_whole(frames, config)
    return *decoded, size, True

  def nothing(is_right):
    empty = tf.zeros([0, 0, 0, 3], tf.uint8)
    return *[empty] * video_lib.NUM_SCALES, tf.zeros([2], tf.int32), is_right

  def some():
    return tensor_utils.guarded(decode, (frames,), lambda: nothing(False))

  return tf.cond(tf.size(frames) > 0, some, lambda: nothing(True))


def decode_clip(
  element: dict[str, tf.Tensor], plan: _Plan
) -> dict[str, tf.Tensor]:
  """Reads and decodes all of a record that is not random.

  Args:
    element: Of `_read_epoch`.
    plan: Of the pipeline; of training.

  Returns:
    The tensors of `clip_spec`. `record` is empty; but when something is wrong
    with the record it is the record, to be loaded as others are, and what is
    decoded is empty.
  """
  features = prepare(element, plan)
  is_right = tf.reduce_all(tf.equal(features['faults'], 0))
  if plan.video is not None:
    *decoded, features[_FRAME_SIZE], is_decoded = _decode_frames(
      features['image_encoded'], plan.video
    )
    for scale, frames in enumerate(decoded):
      features[f'{_FRAMES}_{scale}'] = frames
    is_right &= is_decoded
  if plan.text is not None:

    def encode(caption):
      ids, mask = text_lib.encode_captions(
        caption[None], plan.tokenizer, plan.text
      )
      return ids[0], mask[0]

    features[_CAPTION_IDS], features[_CAPTION_MASK] = tf.map_fn(
      encode,
      features['caption_text'],
      fn_output_signature=(
        tf.TensorSpec([plan.text.max_words], tf.int32),
        tf.TensorSpec([], tf.bool),
      ),
    )

  def right():
    return {
      key: tf.constant('') if key == 'record' else features[key]
      for key in clip_spec(plan)
    }

  def wrong():
    return _undecoded(element, plan)

  return tf.cond(is_right, right, wrong)


def _undecoded(element, plan):
  """A clip of `decode_clip` that holds nothing but its record."""
  clip = {key: _zeros_of(spec) for key, spec in clip_spec(plan).items()}
  return {**clip, 'record': element['record']}


def _zeros_of(spec):
  """A tensor of a specification, its dynamic axes of length 0."""
  shape = [size or 0 for size in spec.shape]
  if spec.dtype == tf.string:
    return tf.fill(shape, '')
  return tf.zeros(shape, spec.dtype)


@_as_graph
def _load_kept(element, *, plan, cache):
  """The row of a record that may be in the cache; it is if it was not read."""
  found = cache.find(_number_of(element, plan))

  def kept():
    return cache.take(found)

  def not_kept():
    return _undecoded(element, plan)

  if 'record' in element:
    clip = tf.cond(cache.is_found(found), kept, not_kept)
  else:
    clip = kept()
  element = {**element, 'record': clip.pop('record')}
  features = {**element, **clip}
  if plan.video is not None:
    features[_FRAMES] = [
      features.pop(f'{_FRAMES}_{scale}')
      for scale in range(video_lib.NUM_SCALES)
    ]

  def decoded():
    return sample(features, plan)

  def read():
    dataset = load_records(tf.data.Dataset.from_tensors(element), plan)
    return dataset.get_single_element()

  return tf.cond(tf.equal(element['record'], ''), decoded, read)


def load_kept(
  dataset: tf.data.Dataset, plan: _Plan, cache: clip_cache.ClipCache
) -> tf.data.Dataset:
  """`load_records`, where the clips of all records or some are in memory."""
  return dataset.map(
    functools.partial(_load_kept, plan=plan, cache=cache),
    num_parallel_calls=plan.num_parallel_calls,
    deterministic=True,
  )


def _fill_cache(cache, readers, plan, num_records):
  """Decodes the clips of this pipeline into the cache, while there is room.

  Args:
    cache: Of the clips.
    readers: For each source `read_shard` and the numbers of its shards.
    plan: Of the pipeline.
    num_records: That this pipeline reads.

  Returns:
    Whether all of them are there.
  """
  start = time.monotonic()
  read_all = []
  for read_shard, shards in readers:
    shards = tf.data.Dataset.from_tensor_slices(tf.constant(shards, tf.int64))
    epoch = tf.constant(0, tf.int64)
    read_all.append(
      shards.flat_map(functools.partial(read_shard, epoch=epoch))
    )
  dataset = functools.reduce(tf.data.Dataset.concatenate, read_all)

  @_as_graph
  def decode(element):
    return _number_of(element, plan), decode_clip(element, plan)

  dataset = dataset.map(
    decode, num_parallel_calls=plan.num_parallel_calls, deterministic=True
  )
  count = 0
  for number, clip in dataset:
    if not cache.add(number, clip):
      logging.warning(
        'The decoded clips take about %.3g GiB, more than `cache_gib`=%.3g: '
        'the first %d of %d are in memory, the others are read and decoded '
        'each time.',
        cache.gib * num_records / max(count, 1),
        cache.limit_gib,
        count,
        num_records,
      )
      return False
    count += 1
  logging.info(
    'All %d decoded clips are in memory: %.3g GiB, after %.1f s.',
    count,
    cache.gib,
    time.monotonic() - start,
  )
  return True


@_as_graph
def _padding_row(_, spec):
  """A row of zeros under false masks."""
  return {
    key: tf.fill(value.shape, '')
    if value.dtype == tf.string
    else tf.zeros(value.shape, value.dtype)
    for key, value in spec.items()
  }


@_as_graph
def mix_audio(
  batch: dict[str, tf.Tensor], config: audio_lib.AudioConfig
) -> dict[str, tf.Tensor]:
  """Mixes sound and labels of rows 0 and 1, 2 and 3, …, each by its own share.

  So the mixtures do not depend on how a batch is split over replicas. Rows
  without sound, and rows whose partner has none, stay as they are, as does the
  last of an odd number.

  Args:
    batch: The batch, with the seed of each row.
    config: See `AudioConfig`.

  Returns:
    The batch, without the seeds.
  """
  batch = dict(batch)
  own = audio_lib.mixup_weights(batch.pop(_SEED), config.mixup_alpha)  # (B,)
  key = names.AUDIO if config.form == audio_lib.WAVEFORM else names.SPECTROGRAM
  mask = batch[names.AUDIO_MASK]
  partners = np.minimum(np.arange(mask.shape[0]) ^ 1, mask.shape[0] - 1)
  own = tf.where(mask & tf.gather(mask, partners), own, 1.0)
  for name in (key, names.LABEL):
    value = batch[name]
    weight = tf.reshape(own, [-1] + [1] * (value.shape.rank - 1))
    other = tf.gather(value, partners)
    batch[name] = weight * value + (1.0 - weight) * other
  return batch


# The data set.


@_as_graph
def _is_of_machine(position, _, *, batch_size, num_machines, machine):
  """Whether the record at a position is in a batch of an input machine."""
  return tf.equal(position // batch_size % num_machines, machine)


def _without_position(_, element):
  return element


def _name_of(source):
  if source.name:
    return source.name
  pattern = source.pattern
  return pattern if isinstance(pattern, str) else ','.join(pattern)


def _check(sources, global_batch_size, is_training, start_step, configs):
  """Checks the arguments of `make_dataset` that need no file."""
  if global_batch_size < 1:
    raise ValueError(
      '`global_batch_size` must be at least 1. Received: '
      f'global_batch_size={global_batch_size}'
    )
  if start_step < 0 or (start_step and not is_training):
    raise ValueError(
      '`start_step` must be 0 or more, and 0 in evaluation. Received: '
      f'start_step={start_step}'
    )
  if not sources:
    raise ValueError('`sources` must hold at least one `Source`.')
  video, audio, text, label = configs
  if video is None and audio is None and text is None:
    raise ValueError(
      'At least one of `video`, `audio` and `text` must be given, such as '
      '`make_dataset.video = @VideoConfig()`.'
    )
  if audio is not None and audio.mixup_alpha and is_training:
    if label is None or not label.is_multi_label:
      raise ValueError(
        '`AudioConfig.mixup_alpha` mixes labels and needs a `LabelConfig` '
        'with `is_multi_label` True. Received: '
        f'mixup_alpha={audio.mixup_alpha}, label={label}'
      )


def _batches_of_machine(dataset, batch_size, num_machines, machine):
  """The records of every so many-th batch."""
  if num_machines == 1:
    return dataset
  is_ours = functools.partial(
    _is_of_machine,
    batch_size=batch_size,
    num_machines=num_machines,
    machine=machine,
  )
  return dataset.enumerate().filter(is_ours).map(_without_position)


def _load_batches(dataset, load, plan, batch_size, num_missing=0):
  """Loads records, fills up with rows of zeros, and makes batches."""
  dataset = load(dataset, plan=plan)
  if plan.num_views > 1:
    dataset = dataset.unbatch()
  if not plan.is_training:
    pad = functools.partial(_padding_row, spec=dataset.element_spec)
    dataset = dataset.concatenate(tf.data.Dataset.range(num_missing).map(pad))
  dataset = dataset.batch(batch_size, drop_remainder=True)
  if plan.is_training and plan.audio is not None and plan.audio.mixup_alpha:
    dataset = dataset.map(functools.partial(mix_audio, config=plan.audio))
  return dataset


@gin.register
def make_dataset(
  sources: Sequence[Source] | Source | str,
  global_batch_size: int,
  is_training: bool,
  seed: int = 0,
  start_step: int = 0,
  input_context: tf.distribute.InputContext | None = None,
  num_epochs: int | None = None,
  video: video_lib.VideoConfig | None = None,
  audio: audio_lib.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: LabelConfig | None = None,
  with_example_id: bool | None = None,
  shuffle_buffer_size: int = 256,
  cycle_length: int = 16,
  max_bad_record_share: float = 0.05,
  bad_records: BadRecords | None = None,
  cache_gib: float = 0.0,
  data_service: str = '',
  balance: class_balance.ClassBalance | None = None,
) -> tf.data.Dataset:
  """Makes the batches of training or evaluation.

  Training: endless (or `num_epochs` long), shuffled, augmented, all batches
  full. Several sources are mixed by their weights.

  Evaluation: every record once, in order, the sources one after the other,
  nothing random. A record gives `num_clips * num_crops` rows. The last batch is
  filled up with rows of zeros under false masks; `valid` says which rows are
  records.

  With an `input_context` the batches are those of one replica, as
  `tf.distribute.Strategy.distribute_datasets_from_function` wants them. Each
  input pipeline reads files of its own if every source has as many files as
  there are pipelines, otherwise records of its own out of all files. In
  evaluation all pipelines give equally many batches.

  Args:
    sources: The data sets; a pattern stands for a `Source` of it.
    global_batch_size: Rows of a step, over all replicas.
    is_training: Training or evaluation.
    seed: Of all that is random.
    start_step: Steps that were taken before, whose records are passed over.
    input_context: Of the input pipeline, or None for the only one.
    num_epochs: Times that the records of a source are read in training; None
      for no end. With several sources it must be None.
    video: None for no video.
    audio: None for no sound.
    text: None for no captions.
    label: None for no labels.
    with_example_id: Whether to add `example_id`, (B,) string, for use on the
      host; by default in evaluation only.
    shuffle_buffer_size: Undecoded records among which the next is drawn.
    cycle_length: Shards that are read from at a time.
    max_bad_record_share: See `BadRecords`.
    bad_records: Counts the bad records; a new one by default.
    cache_gib: Memory for decoded clips, in GiB; 0 for none. They are decoded
      at the start; when all fit, records are not read again. What a batch holds
      does not change. Training only.
    data_service: Addresses of the input machines that make the batches of
      training, such as 'grpc://host:5050', separated by commas; '' to make
      them in this process. What a batch holds does not change.
    balance: How often each record comes in training by its classes (see
      `class_balance`); None: once an epoch.

  Returns:
    A data set of dictionaries of static shape: those of `row_spec` with the
    batch axis in front, `valid` (B,) bool in evaluation, and `example_id`.

  Raises:
    ValueError: An argument is out of range; a pattern matches no file; a shard
      is truncated or empty; the vocabulary is missing or too large; an input
      machine cannot be reached.
  """
  if isinstance(sources, str | Source):
    sources = [sources]
  sources = tuple(
    Source(source) if isinstance(source, str) else source for source in sources
  )
  configs = (video, audio, text, label)
  _check(sources, global_batch_size, is_training, start_step, configs)
  if num_epochs is not None and is_training and len(sources) > 1:
    raise ValueError(
      '`num_epochs` must be None for several sources, whose epochs differ in '
      f'length. Received: num_epochs={num_epochs}'
    )
  if data_service and (not is_training or cache_gib):
    raise ValueError(
      '`data_service` needs `is_training` True and `cache_gib` 0: evaluation '
      'is read in the process that evaluates, and a cache is in the process '
      f'that decodes. Received: is_training={is_training}, '
      f'cache_gib={cache_gib}, data_service={data_service!r}'
    )
  if cache_gib and not is_training:
    raise ValueError(
      '`cache_gib` must be 0 in evaluation, which reads each record once. '
      f'Received: cache_gib={cache_gib}'
    )
  if balance is not None and (label is None or not is_training):
    raise ValueError(
      '`balance` needs `is_training` True and a `label`, whose classes it '
      f'balances. Received: is_training={is_training}, label={label}'
    )
  macro = 'TRAIN_RECORDS' if is_training else 'EVAL_RECORDS'
  paths = tuple(
    tuple(records.match_shards(source.pattern, source.macro or macro))
    for source in sources
  )
  counts = [records.count_all_records(group) for group in paths]
  for group, of_group, source in zip(paths, counts, sources):
    if not sum(of_group):
      raise ValueError(
        f'The {len(group)} files that {_name_of(source)!r} matches hold no '
        f'record, and are empty ({group[0]}). Set the gin macro '
        f'{source.macro or macro} to shards that hold some, or make them with '
        '`python -m vatt_tf.ingest`.'
      )
  if bad_records is None:
    bad_records = BadRecords(max_bad_record_share)
  bad_records.num_records = sum(sum(of_group) for of_group in counts)
  plan = _Plan(
    is_training=is_training,
    seed=seed,
    video=video,
    audio=audio,
    text=text,
    label=label,
    tokenizer=None if text is None else text_lib.make_tokenizer(text),
    sources=sources,
    paths=paths,
    counts=tuple(tuple(of_group) for of_group in counts),
    is_served=bool(data_service),
    with_example_id=(
      not is_training if with_example_id is None else with_example_id
    ),
  )
  batch_size, num_pipelines, pipeline = global_batch_size, 1, 0
  if input_context is not None:
    batch_size = input_context.get_per_replica_batch_size(global_batch_size)
    num_pipelines = input_context.num_input_pipelines
    pipeline = input_context.input_pipeline_id
  shares = [
    _deal_out(group, of_group, num_pipelines)
    for group, of_group in zip(paths, counts)
  ]
  readers, streams, lengths = [], [], []
  start = start_step * (global_batch_size // num_pipelines)
  weights = [source.weight for source in sources]
  mixture_seed = _seed_of(seed, f'mixture {pipeline}')
  starts = [start]
  if len(sources) > 1 and is_training:
    starts = count_draws(start, weights, mixture_seed).tolist()
  elif not is_training:
    starts = [0] * len(sources)
  for number, source in enumerate(sources):
    shards, lengths_of_pipelines, deals_records = shares[number]
    length = lengths_of_pipelines[pipeline]
    if not length and is_training:
      raise ValueError(
        f'Input pipeline {pipeline} of {num_pipelines} gets no record of '
        f'{_name_of(source)!r}, which has {sum(counts[number])} in '
        f'{len(paths[number])} files. Use fewer workers or more records.'
      )
    lengths.append(lengths_of_pipelines)
    repeat = None
    if balance is not None:
      weights_of_records = _balance_share(
        paths[number],
        label.num_classes,
        balance,
        shards[pipeline],
        (num_pipelines, pipeline) if deals_records else (1, 0),
      )
      length = class_balance.epoch_length(weights_of_records)
      repeat = functools.partial(
        _repeat_records,
        weights=weights_of_records,
        length=length,
        first_numbers=np.cumsum([0, *counts[number]])[:-1],
      )
    read_shard = functools.partial(
      _read_shard,
      paths=paths[number],
      compressions=records.find_compressions(paths[number]),
      counts=counts[number],
      source=number,
      num_pipelines=num_pipelines if deals_records else 1,
      pipeline=pipeline,
    )
    readers.append((read_shard, shards[pipeline]))
    read_epoch = functools.partial(
      _read_epoch,
      read_shard=read_shard,
      shards=shards[pipeline],
      is_training=is_training,
      seed=_seed_of(seed, f'order {_name_of(source)}'),
      buffer_size=shuffle_buffer_size,
      cycle_length=min(cycle_length, len(shards[pipeline])),
      repeat=repeat,
    )
    first_epoch, passed = divmod(starts[number], length) if length else (0, 0)
    last_epoch = num_epochs if is_training else 1
    epochs = tf.data.Dataset.range(
      first_epoch, _MAX_EPOCHS if last_epoch is None else last_epoch
    )
    streams.append((epochs, read_epoch, passed))
  load, is_kept = load_records, False
  if cache_gib:
    cache = clip_cache.ClipCache(cache_gib, clip_spec(plan))
    num_own = sum(of_pipelines[pipeline] for of_pipelines in lengths)
    is_kept = _fill_cache(cache, readers, plan, num_own)
    load = functools.partial(load_kept, cache=cache)
  streams = [
    epochs.flat_map(functools.partial(read_epoch, is_kept=is_kept)).skip(passed)
    for epochs, read_epoch, passed in streams
  ]
  if len(streams) == 1:
    dataset = streams[0]
  elif is_training:
    draws = _draws_from(start, weights, mixture_seed)
    dataset = tf.data.Dataset.choose_from_datasets(
      streams, draws, stop_on_empty_dataset=True
    )
  else:
    dataset = functools.reduce(tf.data.Dataset.concatenate, streams)
  options = tf.data.Options()
  options.deterministic = True
  options.experimental_optimization.map_fusion = False  # See `load_records`.
  # Tuning times every operation, which small clips notice.
  options.autotune.enabled = plan.is_served
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  if data_service:
    addresses = service.parse_addresses(data_service)
    parts = [
      _load_batches(
        _batches_of_machine(dataset, batch_size, len(addresses), machine),
        load,
        plan,
        batch_size,
      ).with_options(options)
      for machine in range(len(addresses))
    ]
    dataset = service.distribute(parts, addresses)
  else:
    num_missing = 0
    if not is_training:
      rows = [sum(group) * plan.num_views for group in zip(*lengths)]
      wanted = -(-max(rows) // batch_size) * batch_size
      num_missing = wanted - rows[pipeline]
    dataset = _load_batches(dataset, load, plan, batch_size, num_missing)
  dataset = dataset.map(
    functools.partial(take_reports, bad_records=bad_records)
  )
  if is_training and num_epochs is None:
    # Of a data set that may end, several workers read batches of unknown size.
    dataset = dataset.apply(
      tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )
  return dataset.prefetch(_NUM_READY).with_options(options)


def _balance_share(paths, num_classes, balance, shards, deal):
  """Weights of a source's records, 0 for those of other input pipelines.

  Args:
    paths: Of all its shards.
    num_classes: Of the labels.
    balance: `ClassBalance`.
    shards: Numbers of this pipeline's.
    deal: Of how many pipelines that share these shards this is which.

  Returns:
    (N,) float64, shard after shard.
  """
  labels = class_balance.read_all_labels(paths)
  weights = class_balance.record_weights(
    [one for group in labels for one in group], num_classes, balance
  )
  num_pipelines, pipeline = deal
  is_own = [
    shard in shards and (index + shard) % num_pipelines == pipeline
    for shard, group in enumerate(labels)
    for index in range(len(group))
  ]
  weights = np.where(is_own, weights, 0.0)
  if not weights.any():
    raise ValueError(
      'No record of this input pipeline has a class. Use fewer workers or more '
      f'records. Received: {paths}'
    )
  return weights


def _deal_out(paths, counts, num_pipelines):
  """Deals the records of a source out to the input pipelines.

  Returns:
    The shards of each pipeline, its number of records, and whether it takes
    only some of the records of a shard.
  """
  shards = list(range(len(paths)))
  if num_pipelines == 1:
    return [shards], [sum(counts)], False
  pipelines = range(num_pipelines)
  if len(paths) >= num_pipelines:
    dealt = [shards[p::num_pipelines] for p in pipelines]
    return dealt, [sum(counts[s] for s in group) for group in dealt], False
  # Record i of shard s goes to pipeline (i + s) % num_pipelines.
  lengths = [
    sum(
      len(range((p - s) % num_pipelines, count, num_pipelines))
      for s, count in enumerate(counts)
    )
    for p in pipelines
  ]
  return [shards] * num_pipelines, lengths, True


# Without records.


@gin.register
def make_fake_batch(
  batch_size: int,
  video: video_lib.VideoConfig | None = None,
  audio: audio_lib.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: LabelConfig | None = None,
  seed: int = 0,
) -> dict[str, tf.Tensor]:
  """A batch of noise in the form of `make_dataset`, for tests and benchmarks.

  Args:
    batch_size: B.
    video: None for no video.
    audio: None for no sound.
    text: None for no captions. Ids are below its `vocabulary_size`, or 1,000;
      no vocabulary file is read.
    label: None for no labels.
    seed: Equal seeds, equal batches.

  Returns:
    The tensors of `row_spec` with the batch axis in front; all masks true.
  """
  batch = {}
  for key, spec in row_spec(video, audio, text, label).items():
    shape = [batch_size, *spec.shape]
    key_seed = _seed_of(seed, key)
    if spec.dtype == tf.bool:
      batch[key] = tf.ones(shape, tf.bool)
    elif key == names.TEXT:
      size = text.vocabulary_size or 1000
      batch[key] = tf.random.stateless_uniform(
        shape, key_seed, 1, size, tf.int32
      )
    elif key == names.LABEL:
      labels = tf.random.stateless_uniform(
        [batch_size], key_seed, 0, label.num_classes, tf.int32
      )
      if label.is_multi_label:
        labels = tf.one_hot(labels, label.num_classes)
      batch[key] = labels
    else:
      low = 0.0 if key == names.SPECTROGRAM else -1.0
      batch[key] = tf.random.stateless_uniform(shape, key_seed, low, 1.0)
  return batch


@gin.register
def fake_dataset(
  global_batch_size: int,
  video: video_lib.VideoConfig | None = None,
  audio: audio_lib.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: LabelConfig | None = None,
  seed: int = 0,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """An endless data set of one batch of `make_fake_batch`.

  It costs nothing to read: what a training step then takes is its own time.
  """
  batch_size = global_batch_size
  if input_context is not None:
    batch_size = input_context.get_per_replica_batch_size(global_batch_size)
  batch = make_fake_batch(batch_size, video, audio, text, label, seed)
  return tf.data.Dataset.from_tensors(batch).repeat()
