"""The order in which records are read.

The position of a run in its data follows from (seed, step) alone. The records
of a source are counted at the start, so a step gives the epoch and the number
of records to skip in it, which are read but neither parsed nor decoded. The
order of an epoch follows from (seed, epoch), the draws of a mixture follow from
(seed, position).
"""

from collections.abc import Callable, Sequence
import functools
from typing import NamedTuple
import zlib

import numpy as np
import tensorflow as tf

from vatt_tf.core import tensor_utils
from vatt_tf.input_pipeline import class_balance
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline.records import shard_files

MAX_EPOCHS = 2**40
# Draws of a mixture that are made at once.
_DRAWS = 1 << 14
# Placeholder of a record that cannot be read, so that an error can name it.
_UNREADABLE = b'\xffunreadable'


@tensor_utils.as_graph
def read_shard(
  shard: tf.Tensor,
  epoch: tf.Tensor,
  *,
  paths: Sequence[str],
  counts: Sequence[int],
  source: int,
  num_pipelines: int,
  pipeline: int,
  is_cached: bool = False,
  compressions: Sequence[str] | None = None,
) -> tf.data.Dataset:
  """Returns the records of a shard that belong to this pipeline.

  Args:
    shard: () int64: number of the shard in its source.
    epoch: () int64: number of the epoch.
    paths: Paths of the shards.
    counts: Number of records in each shard.
    source: Number of the source.
    num_pipelines: Number of pipelines that share the records.
    pipeline: Number of this pipeline.
    is_cached: Whether the records are in memory, so that nothing is read.
    compressions: Compression of each shard, as `shard_files.find_compression`
      returns it. None means that no shard is compressed.

  Returns:
    A data set of dictionaries: `record` () string (not if `is_cached`), its
    place `source`, `shard` and `index`, () int64, and `epoch`.
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
          ': it is corrupt or was deleted. Copy it again, or write it again '
          'with the program that wrote it. To do so with `python -m '
          'vatt_tf.ingest`, delete the shard and rerun the same command.',
        ]
      )
      failed = tf.raw_ops.Assert(condition=False, data=[message])
      with tf.control_dependencies([failed]):
        return tf.identity(record)

    def as_is():
      return record

    # Compare only the start, because comparing would copy the whole record.
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

  def is_assigned(element):
    number = element['index'] + element['shard']
    return tf.equal(number % num_pipelines, pipeline)

  if is_cached:
    dataset = tf.data.Dataset.range(count).map(name_place)
  else:
    dataset = tf.data.TFRecordDataset(path, compression, buffer_size=4 << 20)
    # Reading stops at a corrupt record, where the placeholder takes its place;
    # the placeholder is cut off if all records were read. A file that cannot be
    # opened would be retried forever, but each retry uses up a number.
    dataset = tf.data.Dataset.zip((tf.data.Dataset.range(count), dataset))
    dataset = dataset.ignore_errors(log_warning=False)
    unreadable = tf.constant(0, tf.int64), _UNREADABLE
    dataset = dataset.concatenate(tf.data.Dataset.from_tensors(unreadable))
    # Open the file once more where errors are not ignored, so that the reason
    # why it cannot be opened is reported.
    opened = tf.data.FixedLengthRecordDataset(path, 1, buffer_size=1)
    opened = opened.take(1).skip(1).map(lambda byte: (unreadable[0], byte))
    dataset = opened.concatenate(dataset)
    dataset = dataset.take(count).enumerate().map(name_record)
  return dataset.filter(is_assigned) if num_pipelines > 1 else dataset


def fold_in(seed: int, value: tf.Tensor | int) -> tf.Tensor:
  """Returns a seed of a number, such as an epoch, under a seed: (2,) int64."""
  return tf.random.experimental.stateless_fold_in(
    seed, tf.cast(value, tf.int64)
  )


def seed_of(seed: int, name: str) -> tf.Tensor:
  """Returns a separate seed for a named use: (2,) int64."""
  return tf.constant([seed, zlib.crc32(name.encode())], tf.int64)


@tensor_utils.as_graph
def repeat_records(
  dataset: tf.data.Dataset,
  weights: np.ndarray,
  length: int,
  first_numbers: np.ndarray,
  seed: int,
) -> tf.data.Dataset:
  """Repeats each record as often as its weight requires, 0 times or more.

  Args:
    dataset: Data set of the elements of `read_shard`.
    weights: See `class_balance.count_repeats`.
    length: See `class_balance.count_repeats`.
    first_numbers: (n,) int64: number of each shard's first record.
    seed: See `class_balance.count_repeats`.

  Returns:
    The data set, with `copy`, () int64, the number of a record's copy.
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


@tensor_utils.as_graph
def read_epoch(
  epoch: tf.Tensor,
  *,
  read_shard: Callable[..., tf.data.Dataset],
  shards: Sequence[int],
  is_training: bool,
  seed: int,
  buffer_size: int,
  cycle_length: int,
  repeat: Callable[..., tf.data.Dataset] | None = None,
  is_cached: bool = False,
) -> tf.data.Dataset:
  """Returns the records of a source in the order of an epoch.

  Args:
    epoch: () int64: number of the epoch.
    read_shard: Function from the number of a shard, and the epoch, to a data
      set of its records.
    shards: Numbers of the shards that this pipeline reads.
    is_training: Whether the records are shuffled.
    seed: (2,) int64: seed of the order.
    buffer_size: Number of records among which the next one is drawn.
    cycle_length: Number of shards that are open at a time.
    repeat: `repeat_records` without its `dataset` and `seed`, or None.
    is_cached: Whether the records are in memory; see `read_shard`.

  Returns:
    A data set of the elements of `read_shard`.
  """
  read_shard = functools.partial(read_shard, epoch=epoch, is_cached=is_cached)
  shards = tf.constant(shards, tf.int64)
  if not is_training:
    return tf.data.Dataset.from_tensor_slices(shards).flat_map(read_shard)
  seed = fold_in(seed, epoch)
  shards = tf.random.experimental.stateless_shuffle(shards, seed)
  dataset = tf.data.Dataset.from_tensor_slices(shards)
  dataset = dataset.interleave(
    read_shard,
    cycle_length=cycle_length,
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  if repeat is not None:
    dataset = repeat(dataset, seed=fold_in(seed, 1))
  order = tf.random.stateless_uniform([], seed, None, None, tf.int64)
  # `shuffle` mixes its seed with the seed of the graph it is called in, by
  # default TensorFlow's global one. The order must depend on `seed` alone, so
  # the graph of this mapped function gets a fixed seed.
  tf.compat.v1.set_random_seed(1)
  return dataset.shuffle(
    buffer_size, seed=order, reshuffle_each_iteration=False
  )


@tensor_utils.as_graph
def draw_sources(
  chunk: tf.Tensor, weights: Sequence[float], seed: tf.Tensor
) -> tf.Tensor:
  """Draws the sources of some positions of a mixture.

  Args:
    chunk: () int64: number of the chunk, which has the positions
      [chunk * n, (chunk + 1) * n), n = 16,384.
    weights: Weight of each source.
    seed: (2,) int64.

  Returns:
    (n,) int64, numbers of sources.
  """
  shares = np.cumsum(np.asarray(weights, np.float64) / np.sum(weights))
  draws = tf.random.stateless_uniform([_DRAWS], fold_in(seed, chunk))
  bounds = tf.constant(shares[:-1], tf.float32)
  return tf.searchsorted(bounds, draws, side='right', out_type=tf.int64)


def count_draws(
  position: int, weights: Sequence[float], seed: tf.Tensor
) -> np.ndarray:
  """Returns how often each source is among the first draws: (n,) int64."""

  @tf.function
  def count(num_chunks):
    totals = tf.zeros([len(weights)], tf.int64)
    for chunk in tf.range(num_chunks):
      draws = draw_sources(chunk, weights, seed)
      totals += tf.math.bincount(
        tf.cast(draws, tf.int32), minlength=len(weights), dtype=tf.int64
      )
    return totals

  num_chunks, remainder = divmod(position, _DRAWS)
  totals = count(tf.constant(num_chunks, tf.int64)).numpy()
  draws = draw_sources(tf.constant(num_chunks, tf.int64), weights, seed)
  draws = draws[:remainder].numpy()
  return totals + np.bincount(draws, minlength=len(weights))


def draws_from(
  position: int, weights: Sequence[float], seed: int
) -> tf.data.Dataset:
  """Returns an endless data set of draws from a position on."""
  draw = functools.partial(draw_sources, weights=weights, seed=seed)
  chunks = tf.data.Dataset.range(position // _DRAWS, MAX_EPOCHS)
  return chunks.map(draw).unbatch().skip(position % _DRAWS)


@tensor_utils.as_graph
def _is_of_machine(position, _, *, batch_size, num_machines, machine):
  """Whether the record at a position is in a batch of an input machine."""
  return tf.equal(position // batch_size % num_machines, machine)


def _without_position(_, element):
  return element


def batches_of_machine(
  dataset: tf.data.Dataset, batch_size: int, num_machines: int, machine: int
) -> tf.data.Dataset:
  """Keeps the records of every `num_machines`-th batch.

  Args:
    dataset: Records in their order.
    batch_size: Records per batch.
    num_machines: Number of input machines.
    machine: Number of this machine.
  """
  if num_machines == 1:
    return dataset
  is_of_machine = functools.partial(
    _is_of_machine,
    batch_size=batch_size,
    num_machines=num_machines,
    machine=machine,
  )
  return dataset.enumerate().filter(is_of_machine).map(_without_position)


def balance_share(
  paths: Sequence[str],
  num_classes: int,
  balance: class_balance.ClassBalance | None,
  shards: Sequence[int],
  part: tuple[int, int],
) -> np.ndarray:
  """Returns the weights of a source's records, 0 for those of other pipelines.

  Args:
    paths: Paths of all its shards.
    num_classes: Number of classes.
    balance: See `ClassBalance`.
    shards: Numbers of this pipeline's shards.
    part: Number of pipelines that share these shards, and number of this one.

  Returns:
    (N,) float64, shard after shard.
  """
  labels = class_balance.read_all_labels(paths)
  weights = class_balance.record_weights(
    [record for shard in labels for record in shard], num_classes, balance
  )
  num_pipelines, pipeline = part
  is_assigned = [
    shard in shards and (index + shard) % num_pipelines == pipeline
    for shard, group in enumerate(labels)
    for index in range(len(group))
  ]
  weights = np.where(is_assigned, weights, 0.0)
  if not weights.any():
    raise ValueError(
      'No record of this input pipeline has a class. Use fewer workers or more '
      f'records. Received: {paths}'
    )
  return weights


def assign_shards(
  paths: Sequence[str], counts: Sequence[int], num_pipelines: int
) -> tuple[list[list[int]], list[int], bool]:
  """Assigns the records of a source to the input pipelines.

  Returns:
    The shards of each pipeline, the number of records of each pipeline, and
    whether the pipelines share the records of a shard.
  """
  shards = list(range(len(paths)))
  if num_pipelines == 1:
    return [shards], [sum(counts)], False
  pipelines = range(num_pipelines)
  if len(paths) >= num_pipelines:
    assigned = [shards[p::num_pipelines] for p in pipelines]
    return (
      assigned,
      [sum(counts[s] for s in group) for group in assigned],
      False,
    )
  # Record i of shard s goes to pipeline (i + s) % num_pipelines.
  lengths = [
    sum(
      len(range((p - s) % num_pipelines, count, num_pipelines))
      for s, count in enumerate(counts)
    )
    for p in pipelines
  ]
  return [shards] * num_pipelines, lengths, True


class Shard(NamedTuple):
  """The number of this input pipeline, and the rows of its batches."""

  num_pipelines: int
  pipeline: int
  batch_size: int


class Stream(NamedTuple):
  """The records of one source, in the order in which they are read."""

  epochs: tf.data.Dataset  # numbers of the epochs, () int64
  read_epoch: Callable  # from an epoch to a data set of elements
  num_skipped: int  # records of the first epoch that were already read
  reader: tuple  # `read_shard`, and the numbers of the shards
  lengths: list[int]  # records per epoch of each input pipeline


def open_streams(
  plan: plan_lib.Plan,
  shard: Shard,
  first: int,
  num_epochs: int | None,
  buffer_size: int,
  cycle_length: int,
  balance: class_balance.ClassBalance | None,
) -> list[Stream]:
  """Returns a `Stream` of each source from the `first` record on.

  Args:
    plan: Plan of the pipeline.
    shard: Number and batch size of this pipeline.
    first: Number of its records that were already read.
    num_epochs: Number of epochs in training. None means endless.
    buffer_size: Number of records among which the next one is drawn.
    cycle_length: Largest number of shards that are open at a time.
    balance: Balance of the classes. None draws all records equally often.
  """
  starts = [first if plan.is_training else 0] * len(plan.sources)
  if len(plan.sources) > 1 and plan.is_training:
    weights, seed = _mixture(plan, shard)
    starts = count_draws(first, weights, seed).tolist()
  streams = []
  for number, source in enumerate(plan.sources):
    paths, counts = plan.paths[number], plan.counts[number]
    assigned, lengths, splits_shards = assign_shards(
      paths, counts, shard.num_pipelines
    )
    shards, length = assigned[shard.pipeline], lengths[shard.pipeline]
    if not length and plan.is_training:
      raise ValueError(
        f'Input pipeline {shard.pipeline} of {shard.num_pipelines} gets no '
        f'record of {plan_lib.name_of(source)!r}, which has {sum(counts)} in '
        f'{len(paths)} files. Use fewer workers or more records.'
      )
    part = (shard.num_pipelines, shard.pipeline) if splits_shards else (1, 0)
    repeat = None
    if balance is not None:
      weights = balance_share(
        paths, plan.label.num_classes, balance, shards, part
      )
      length = class_balance.epoch_length(weights)
      repeat = functools.partial(
        repeat_records,
        weights=weights,
        length=length,
        first_numbers=np.cumsum([0, *counts])[:-1],
      )
    reader = functools.partial(
      read_shard,
      paths=paths,
      compressions=shard_files.find_compressions(paths),
      counts=counts,
      source=number,
      num_pipelines=part[0],
      pipeline=shard.pipeline,
    )
    epoch_reader = functools.partial(
      read_epoch,
      read_shard=reader,
      shards=shards,
      is_training=plan.is_training,
      seed=seed_of(plan.seed, f'order {plan_lib.name_of(source)}'),
      buffer_size=buffer_size,
      cycle_length=min(cycle_length, len(shards)),
      repeat=repeat,
    )
    first_epoch, skipped = divmod(starts[number], length) if length else (0, 0)
    last_epoch = num_epochs if plan.is_training else 1
    epochs = tf.data.Dataset.range(
      first_epoch, MAX_EPOCHS if last_epoch is None else last_epoch
    )
    streams.append(
      Stream(epochs, epoch_reader, skipped, (reader, shards), lengths)
    )
  return streams


def _mixture(plan, shard):
  """The weights of the sources, and the seed of the draws among them."""
  weights = [source.weight for source in plan.sources]
  return weights, seed_of(plan.seed, f'mixture {shard.pipeline}')


def mix(
  streams: Sequence[Stream],
  plan: plan_lib.Plan,
  shard: Shard,
  first: int,
  is_cached: bool,
) -> tf.data.Dataset:
  """Returns the records of all sources, drawn by weight or in sequence.

  Args:
    streams: Streams of `open_streams`.
    plan: Plan of the pipeline.
    shard: Number and batch size of this pipeline.
    first: Number of its records that were already read.
    is_cached: Whether the records are in memory; see `read_shard`.
  """
  parts = [
    stream.epochs.flat_map(
      functools.partial(stream.read_epoch, is_cached=is_cached)
    ).skip(stream.num_skipped)
    for stream in streams
  ]
  if len(parts) == 1:
    return parts[0]
  if not plan.is_training:
    return functools.reduce(tf.data.Dataset.concatenate, parts)
  draws = draws_from(first, *_mixture(plan, shard))
  return tf.data.Dataset.choose_from_datasets(
    parts, draws, stop_on_empty_dataset=True
  )
