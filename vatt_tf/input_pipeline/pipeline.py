"""Turns shards of records into batches.

The order of the steps is fixed: shards are shuffled and interleaved (`order`);
records are parsed, sampled, decoded, augmented and tokenized (`clip`, or
`cached_clips` from memory); rows are batched and prefetched.
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

# Number of batches to prefetch.
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

  With these pairs, the mixtures do not depend on how a batch is split over
  replicas. Rows without sound, rows whose partner has no sound, and the last of
  an odd number of rows do not change.

  Args:
    batch: Batch with the seed of each row.
    config: See `AudioConfig`.

  Returns:
    The batch, without the seeds.
  """
  batch = dict(batch)
  shares = audio_lib.mixup_weights(
    batch.pop(clip_lib.SEED), config.mixup_alpha
  )  # (B,)
  mask = batch[names.AUDIO_MASK]
  partners = np.minimum(np.arange(mask.shape[0]) ^ 1, mask.shape[0] - 1)
  shares = tf.where(mask & tf.gather(mask, partners), shares, 1.0)
  for name in (config.input_name, names.LABEL):
    value = batch[name]
    weight = tf.reshape(shares, [-1] + [1] * (value.shape.rank - 1))
    partner = tf.gather(value, partners)
    batch[name] = weight * value + (1.0 - weight) * partner
  return batch


def _load_batches(dataset, load, plan, batch_size, num_padding=0):
  """Loads records, pads them with rows of zeros, and makes batches."""
  dataset = load(dataset, plan=plan)
  if plan.num_views > 1:
    dataset = dataset.unbatch()
  if not plan.is_training:
    pad = functools.partial(_padding_row, spec=dataset.element_spec)
    dataset = dataset.concatenate(tf.data.Dataset.range(num_padding).map(pad))
  dataset = dataset.batch(batch_size, drop_remainder=True)
  if plan.is_training and plan.audio is not None and plan.audio.mixup_alpha:
    dataset = dataset.map(functools.partial(mix_audio, config=plan.audio))
  return dataset


def _options(plan):
  options = tf.data.Options()
  options.deterministic = True
  options.experimental_optimization.map_fusion = False  # See `load_records`.
  # Autotuning times every operation, which slows down small clips.
  options.autotune.enabled = plan.is_served
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  return options


def _distribute(dataset, load, plan, batch_size, data_service, options):
  """The batches that input machines make in turn."""
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


def _num_padding(streams, plan, shard):
  """The number of padding rows that complete the last batch of evaluation, so
  that all pipelines have the same number of batches."""
  if plan.is_training:
    return 0
  lengths = zip(*(stream.lengths for stream in streams))
  rows = [sum(group) * plan.num_views for group in lengths]
  num_rows = -(-max(rows) // shard.batch_size) * shard.batch_size
  return num_rows - rows[shard.pipeline]


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

  Training data is endless (or `num_epochs` long), shuffled and augmented, and
  all batches are full. Several sources are mixed by their weights.

  Evaluation data has every record once, in order, one source after the other,
  without random choices. A record yields `num_clips * num_crops` rows. The last
  batch is padded with rows of zeros under false masks; `valid` is true for the
  rows of records.

  With an `input_context`, batches have the rows of one replica, as
  `tf.distribute.Strategy.distribute_datasets_from_function` expects. If every
  source has at least as many files as there are input pipelines, each pipeline
  reads different files, otherwise different records of all files. In evaluation
  all pipelines have the same number of batches.

  Args:
    sources: Data sets; a pattern stands for a `Source` with it.
    global_batch_size: Rows per step, over all replicas.
    is_training: Whether the batches are for training, not evaluation.
    seed: Seed of every random choice.
    start_step: Steps that were already taken, whose records are skipped.
    input_context: Context of the input pipeline, or None if it is the only one.
    num_epochs: Number of times that the records of a source are read in
      training. None means endless, and is required with several sources.
    video: Configuration of the frames. None means no video.
    audio: Configuration of the sound. None means no sound.
    text: Configuration of the captions. None means no captions.
    label: Configuration of the labels. None means no labels.
    with_example_id: Whether to add `example_id`, (B,) string, for use on the
      host; by default only in evaluation.
    shuffle_buffer_size: Number of undecoded records among which the next is
      drawn.
    cycle_length: Number of shards that are read at a time.
    max_bad_record_share: See `BadRecords`.
    bad_records: Counter of the bad records; a new one by default.
    cache_gib: Memory for decoded clips in training, in GiB; 0 means no cache.
      Clips are decoded at the start; if all fit, records are not read again.
      The content of the batches does not change.
    data_service: Addresses of the input machines that make the batches of
      training, such as 'grpc://host:5050', separated by commas; '' to make
      them in this process. The content of the batches does not change.
    balance: Balance of the classes in training (see `class_balance`). None
      means that an epoch has each record once.

  Returns:
    A data set of dictionaries of static shape: the tensors of `row_spec` with
    the batch axis first, `valid` (B,) bool in evaluation, and `example_id`.

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
    num_records = sum(stream.lengths[shard.pipeline] for stream in streams)
    readers = [stream.reader for stream in streams]
    is_cached = cached_clips.fill_cache(cache, readers, plan, num_records)
    load = functools.partial(cached_clips.load_cached, cache=cache)
  dataset = order.mix(streams, plan, shard, first, is_cached)
  options = _options(plan)
  if data_service:
    dataset = _distribute(
      dataset, load, plan, shard.batch_size, data_service, options
    )
  else:
    num_padding = _num_padding(streams, plan, shard)
    dataset = _load_batches(dataset, load, plan, shard.batch_size, num_padding)
  dataset = dataset.map(
    functools.partial(bad_records_lib.record_faults, bad_records=bad_records)
  )
  if is_training and num_epochs is None:
    # From a data set that may end, several workers would read batches of
    # unknown size.
    dataset = dataset.apply(
      tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )
  return dataset.prefetch(_NUM_READY).with_options(options)
