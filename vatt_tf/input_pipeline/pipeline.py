"""From shards of records to batches.

The order is fixed: shards shuffled, interleaved (`order`), parsed, sampled,
decoded, augmented and tokenized (`clip`, or `cached_clips` from memory),
batched, prefetched.
"""

from collections.abc import Sequence
import functools

import gin
import numpy as np
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.core import tensor_utils
from vatt_tf.input_pipeline import audio as audio_lib
from vatt_tf.input_pipeline import (
  audio_config,
  cached_clips,
  class_balance,
  clip_cache,
  order,
  service,
  video_config,
)
from vatt_tf.input_pipeline import bad_records as bad_records_lib
from vatt_tf.input_pipeline import clip as clip_lib
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import text as text_lib

# Batches that are made before they are asked for.
_NUM_READY = 2


@tensor_utils.as_graph
def _padding_row(_, spec):
  """A row of zeros under false masks."""
  return {
    key: tf.fill(value.shape, '')
    if value.dtype == tf.string
    else tf.zeros(value.shape, value.dtype)
    for key, value in spec.items()
  }


@tensor_utils.as_graph
def mix_audio(
  batch: dict[str, tf.Tensor], config: audio_config.AudioConfig
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
  own = audio_lib.mixup_weights(
    batch.pop(clip_lib.SEED), config.mixup_alpha
  )  # (B,)
  mask = batch[names.AUDIO_MASK]
  partners = np.minimum(np.arange(mask.shape[0]) ^ 1, mask.shape[0] - 1)
  own = tf.where(mask & tf.gather(mask, partners), own, 1.0)
  for name in (config.input_name, names.LABEL):
    value = batch[name]
    weight = tf.reshape(own, [-1] + [1] * (value.shape.rank - 1))
    other = tf.gather(value, partners)
    batch[name] = weight * value + (1.0 - weight) * other
  return batch


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


def _options(plan):
  options = tf.data.Options()
  options.deterministic = True
  options.experimental_optimization.map_fusion = False  # See `load_records`.
  # Tuning times every operation, which small clips notice.
  options.autotune.enabled = plan.is_served
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  return options


def _distribute(dataset, load, plan, batch_size, data_service, options):
  """Batches that input machines make in turn."""
  addresses = service.parse_addresses(data_service)
  parts = [
    _load_batches(
      order.batches_of_machine(dataset, batch_size, len(addresses), machine),
      load,
      plan,
      batch_size,
    ).with_options(options)
    for machine in range(len(addresses))
  ]
  return service.distribute(parts, addresses)


def _num_missing(streams, plan, shard):
  """Rows that fill up evaluation's last batch, so that all pipelines agree."""
  if plan.is_training:
    return 0
  lengths = zip(*(stream.lengths for stream in streams))
  rows = [sum(group) * plan.num_views for group in lengths]
  wanted = -(-max(rows) // shard.batch_size) * shard.batch_size
  return wanted - rows[shard.pipeline]


@gin.register
def make_dataset(
  sources: Sequence[plan_lib.Source] | plan_lib.Source | str,
  global_batch_size: int,
  is_training: bool,
  seed: int = 0,
  start_step: int = 0,
  input_context: tf.distribute.InputContext | None = None,
  num_epochs: int | None = None,
  video: video_config.VideoConfig | None = None,
  audio: audio_config.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: plan_lib.LabelConfig | None = None,
  with_example_id: bool | None = None,
  shuffle_buffer_size: int = 256,
  cycle_length: int = 16,
  max_bad_record_share: float = 0.05,
  bad_records: bad_records_lib.BadRecords | None = None,
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
  sources = plan_lib.as_sources(sources)
  configs = (video, audio, text, label)
  plan_lib.check(
    sources,
    global_batch_size,
    is_training,
    start_step,
    num_epochs,
    configs,
    cache_gib,
    data_service,
    balance,
  )
  plan = plan_lib.make(
    sources,
    is_training,
    configs,
    seed=seed,
    is_served=bool(data_service),
    with_example_id=(
      not is_training if with_example_id is None else with_example_id
    ),
  )
  if bad_records is None:
    bad_records = bad_records_lib.BadRecords(max_bad_record_share)
  bad_records.num_records = plan.num_records
  shard = order.Shard(1, 0, global_batch_size)
  if input_context is not None:
    shard = order.Shard(
      input_context.num_input_pipelines,
      input_context.input_pipeline_id,
      input_context.get_per_replica_batch_size(global_batch_size),
    )
  first = start_step * (global_batch_size // shard.num_pipelines)
  streams = order.open_streams(
    plan, shard, first, num_epochs, shuffle_buffer_size, cycle_length, balance
  )
  load, is_cached = clip_lib.load_records, False
  if cache_gib:
    cache = clip_cache.ClipCache(cache_gib, cached_clips.clip_spec(plan))
    num_own = sum(stream.lengths[shard.pipeline] for stream in streams)
    readers = [stream.reader for stream in streams]
    is_cached = cached_clips.fill_cache(cache, readers, plan, num_own)
    load = functools.partial(cached_clips.load_cached, cache=cache)
  dataset = order.mix(streams, plan, shard, first, is_cached)
  options = _options(plan)
  if data_service:
    dataset = _distribute(
      dataset, load, plan, shard.batch_size, data_service, options
    )
  else:
    num_missing = _num_missing(streams, plan, shard)
    dataset = _load_batches(dataset, load, plan, shard.batch_size, num_missing)
  dataset = dataset.map(
    functools.partial(bad_records_lib.record_faults, bad_records=bad_records)
  )
  if is_training and num_epochs is None:
    # Of a data set that may end, several workers read batches of unknown size.
    dataset = dataset.apply(
      tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )
  return dataset.prefetch(_NUM_READY).with_options(options)
