"""The plan that the functions of an input pipeline share."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.core import modalities as modality_table
from vatt_tf.core import strategies
from vatt_tf.input_pipeline import (
  audio_config,
  boxes,
  tokenizers,
  video_config,
)
from vatt_tf.input_pipeline import text as text_lib
from vatt_tf.input_pipeline.records import shard_files


@gin.register
@dataclasses.dataclass(frozen=True)
class Source:
  """A data set: the shards that a pattern matches.

  Attributes:
    pattern: A glob pattern, several separated by commas, or a list of patterns.
    weight: Share of a mixture that is drawn from this source, relative to the
      weights of the others.
    name: Name for messages and random draws; by default the pattern. A name
      keeps the order of the data when the pattern changes, for example because
      the data is moved.
    macro: Gin macro that holds the pattern, for messages; by default
      TRAIN_RECORDS or EVAL_RECORDS.
    frame_rate: Frames per second of records that state neither a rate nor the
      times of their frames. Without it such frames are refused.
    sample_rate: Samples per second of records that do not state it. Without it
      such sound is refused.
    modalities: Modalities to read, of `video`, `audio` and `text`; the others
      are treated as missing.
  """

  pattern: str | Sequence[str]
  weight: float = 1.0
  name: str | None = None
  macro: str | None = None
  frame_rate: float | None = None
  sample_rate: float | None = None
  modalities: Sequence[str] = tuple(modality_table.MODALITIES)

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
    valid = modality_table.MODALITIES
    if not set(self.modalities) <= set(valid):
      raise ValueError(
        f'`modalities` must be among {", ".join(valid)}. Received: '
        f'modalities={self.modalities}'
      )


@gin.register
@dataclasses.dataclass(frozen=True)
class LabelConfig:
  """How the pipeline turns the classes of a record into labels.

  Attributes:
    num_classes: Number of classes; labels are in [0, num_classes).
    is_multi_label: Whether labels are (B, num_classes) float32 of zeros and
      ones, instead of (B,) int32 with the record's first label (-1 without
      one).
  """

  num_classes: int
  is_multi_label: bool = False

  def __post_init__(self):
    if self.num_classes < 1:
      raise ValueError(
        '`num_classes` must be at least 1. Received: '
        f'num_classes={self.num_classes}'
      )


@dataclasses.dataclass(frozen=True)
class Plan:
  """The configuration and the shards of an input pipeline."""

  is_training: bool
  seed: int
  video: video_config.VideoConfig | None
  audio: audio_config.AudioConfig | None
  text: text_lib.TextConfig | None
  label: LabelConfig | None
  tokenizer: tokenizers.Tokenizer | None
  sources: tuple[Source, ...]
  paths: tuple[tuple[str, ...], ...]  # Paths of the shards of each source.
  counts: tuple[tuple[int, ...], ...]  # Numbers of records in these shards.
  is_served: bool  # Whether the pipeline runs on input machines.
  with_example_id: bool

  @property
  def num_records(self) -> int:
    """Number of records of all sources."""
    return sum(sum(counts) for counts in self.counts)

  @property
  def num_clips(self) -> int:
    """Number of clips per record in evaluation."""
    config = self.video or self.audio
    return 1 if config is None else config.num_clips

  @property
  def num_views(self) -> int:
    """Number of rows per record."""
    if self.is_training:
      return 1
    return self.num_clips * (1 if self.video is None else self.video.num_crops)

  @property
  def span(self) -> float:
    """Length of a clip in seconds."""
    configs = (self.video, self.audio)
    return max((c.seconds for c in configs if c is not None), default=0.0)

  @property
  def num_parallel_calls(self) -> int:
    """Number of parallel calls: one per core, or tuned on an input machine."""
    return tf.data.AUTOTUNE if self.is_served else strategies.num_cores()

  @property
  def fields(self) -> list[str]:
    """Names of the fields to parse."""
    field_names = ['example_id']
    if self.video is not None:
      field_names += ['image_encoded', 'image_timestamp', 'image_frame_rate']
      if self.video.max_boxes:
        field_names += boxes.FIELDS
    if self.audio is not None:
      field_names += ['waveform', 'waveform_encoded', 'waveform_rate']
      field_names += ['waveform_channels']
    if self.text is not None:
      field_names += ['caption_text', 'caption_start', 'caption_end']
    if self.label is not None:
      field_names.append('label_index')
    return field_names


def row_spec(
  video: video_config.VideoConfig | None = None,
  audio: audio_config.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: LabelConfig | None = None,
) -> dict[str, tf.TensorSpec]:
  """Returns the shapes and types of one row.

  Args:
    video: Configuration of the frames. None leaves them out.
    audio: Configuration of the sound. None leaves it out.
    text: Configuration of the captions. None leaves them out.
    label: Configuration of the labels. None leaves them out.

  Returns:
    A dictionary of `tf.TensorSpec` without the batch axis.
  """
  spec = {}
  if video is not None:
    spec[names.VIDEO] = tf.TensorSpec(video.shape, tf.float32)
    spec[names.VIDEO_MASK] = tf.TensorSpec([], tf.bool)
    if video.max_boxes:
      spec.update(boxes.row_spec(video))
  if audio is not None:
    spec[audio.input_name] = tf.TensorSpec(audio.shape, tf.float32)
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


def first(values: tf.Tensor, default: Any) -> tf.Tensor:
  """Returns the first value of a vector, or a default: () of its type."""
  padded = tf.concat([values, tf.cast([default], values.dtype)], axis=0)
  return padded[0]


def of_source(
  element: Mapping[str, tf.Tensor], sources: Sequence[Source], attribute: str
) -> tf.Tensor:
  """Returns an attribute of the record's source, or 0: () float32."""
  values = [getattr(source, attribute) or 0.0 for source in sources]
  return tf.gather(tf.constant(values, tf.float32), element['source'])


def number_of(element: Mapping[str, tf.Tensor], plan: Plan) -> tf.Tensor:
  """Returns the number of the record among all sources: () int64."""
  counts = [count for group in plan.counts for count in group]
  starts = tf.constant(np.cumsum([0, *counts])[:-1], tf.int64)
  return tf.gather(starts, shard_of(element, plan)) + element['index']


def shard_of(element: Mapping[str, tf.Tensor], plan: Plan) -> tf.Tensor:
  """Returns the number of the record's shard among all sources: () int64."""
  counts = [len(group) for group in plan.paths]
  starts = tf.constant(np.cumsum([0, *counts])[:-1], tf.int64)
  return tf.gather(starts, element['source']) + element['shard']


def is_read(
  element: Mapping[str, tf.Tensor], sources: Sequence[Source], modality: str
) -> tf.Tensor:
  """Returns whether the record's source is read for a modality: () bool."""
  values = [modality in source.modalities for source in sources]
  return tf.gather(tf.constant(values), element['source'])


def name_of(source: Source) -> str:
  """Returns the name of a source, which is its pattern by default."""
  if source.name:
    return source.name
  pattern = source.pattern
  return pattern if isinstance(pattern, str) else ','.join(pattern)


def as_sources(
  sources: Sequence[Source] | Source | str,
) -> tuple[Source, ...]:
  """Returns a tuple of sources; a pattern stands for a `Source` with it."""
  if isinstance(sources, str | Source):
    sources = [sources]
  return tuple(
    Source(source) if isinstance(source, str) else source for source in sources
  )


def check(
  sources: Sequence[Source],
  global_batch_size: int,
  is_training: bool,
  start_step: int,
  num_epochs: int | None,
  configs: tuple,
  cache_gib: float,
  data_service: str,
  balance: Any,
) -> None:
  """Checks the arguments of `make_dataset` that can be checked without files.

  Args:
    sources: Data sets.
    global_batch_size: See `make_dataset`.
    is_training: See `make_dataset`.
    start_step: See `make_dataset`.
    num_epochs: See `make_dataset`.
    configs: Configurations of video, audio, text and labels, each or None.
    cache_gib: See `make_dataset`.
    data_service: See `make_dataset`.
    balance: See `make_dataset`.

  Raises:
    ValueError: An argument is out of range, or two do not go together.
  """
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
    raise ValueError(
      f'`sources` must hold at least one `Source`. Received: sources={sources}'
    )
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
        'with `is_multi_label` = True. Received: '
        f'mixup_alpha={audio.mixup_alpha}, label={label}'
      )
  if num_epochs is not None and is_training and len(sources) > 1:
    raise ValueError(
      '`num_epochs` must be None for several sources, whose epochs differ in '
      f'length. Received: num_epochs={num_epochs}'
    )
  if data_service and (not is_training or cache_gib):
    raise ValueError(
      '`data_service` needs `is_training` = True and `cache_gib` = 0: '
      'evaluation reads in the process that evaluates, and a cache is in the '
      f'process that decodes. Received: is_training={is_training}, '
      f'cache_gib={cache_gib}, data_service={data_service!r}'
    )
  if cache_gib and not is_training:
    raise ValueError(
      '`cache_gib` must be 0 in evaluation, which reads each record once. '
      f'Received: cache_gib={cache_gib}'
    )
  if balance is not None and (label is None or not is_training):
    raise ValueError(
      '`balance` needs `is_training` = True and a `label`, whose classes it '
      f'balances. Received: is_training={is_training}, label={label}'
    )


def make(
  sources: tuple[Source, ...],
  is_training: bool,
  configs: tuple,
  **others: Any,
) -> Plan:
  """Finds the shards of the sources and counts their records.

  Args:
    sources: Data sets.
    is_training: Whether the batches are for training, not evaluation.
    configs: Configurations of video, audio, text and labels, each or None.
    **others: Other attributes of `Plan`.

  Returns:
    The plan.

  Raises:
    ValueError: A pattern matches no file, a shard is truncated or empty, or the
      vocabulary is missing or too large.
  """
  macro = 'TRAIN_RECORDS' if is_training else 'EVAL_RECORDS'
  paths = tuple(
    tuple(shard_files.match_shards(source.pattern, source.macro or macro))
    for source in sources
  )
  counts = tuple(tuple(shard_files.count_all_records(group)) for group in paths)
  for group, group_counts, source in zip(paths, counts, sources):
    if not sum(group_counts):
      raise ValueError(
        f'The {len(group)} files that match {name_of(source)!r} are empty '
        f'({group[0]}). Set the gin macro {source.macro or macro} to shards '
        'that hold records, or make them with `python -m vatt_tf.ingest`.'
      )
  video, audio, text, label = configs
  return Plan(
    is_training=is_training,
    video=video,
    audio=audio,
    text=text,
    label=label,
    tokenizer=None if text is None else text_lib.make_tokenizer(text),
    sources=sources,
    paths=paths,
    counts=counts,
    **others,
  )
