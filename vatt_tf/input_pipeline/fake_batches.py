"""Batches of noise, in the form of batches that are read from records."""

import gin
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import audio_config, order, video_config
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import text as text_lib


@gin.register
def make_fake_batch(
  batch_size: int,
  video: video_config.VideoConfig | None = None,
  audio: audio_config.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: plan_lib.LabelConfig | None = None,
  seed: int = 0,
) -> dict[str, tf.Tensor]:
  """Returns a batch of noise like `make_dataset`, for tests and benchmarks.

  Args:
    batch_size: Number B of rows.
    video: Configuration of the frames. None means no video.
    audio: Configuration of the sound. None means no sound.
    text: Configuration of the captions. None means no captions. Ids are below
      its `vocabulary_size`, or 1,000; no vocabulary file is read.
    label: Configuration of the labels. None means no labels.
    seed: Seed of the noise; equal seeds give equal batches.

  Returns:
    The tensors of `row_spec` with the batch axis first; all masks are true.
  """
  batch = {}
  for key, spec in plan_lib.row_spec(video, audio, text, label).items():
    shape = [batch_size, *spec.shape]
    key_seed = order.seed_of(seed, key)
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
  video: video_config.VideoConfig | None = None,
  audio: audio_config.AudioConfig | None = None,
  text: text_lib.TextConfig | None = None,
  label: plan_lib.LabelConfig | None = None,
  seed: int = 0,
  input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
  """Returns an endless data set of one batch of `make_fake_batch`.

  Reading it costs nothing, so a benchmark measures the training step alone.

  Args:
    global_batch_size: Rows per step, over all replicas.
    video: Configuration of the frames. None leaves them out.
    audio: The sound; None leaves it out.
    text: Configuration of the captions. None leaves them out.
    label: Configuration of the classes. None leaves them out.
    seed: Seed of the noise.
    input_context: Input context of a strategy, whose workers share the batch.
  """
  batch_size = global_batch_size
  if input_context is not None:
    batch_size = input_context.get_per_replica_batch_size(global_batch_size)
  batch = make_fake_batch(batch_size, video, audio, text, label, seed)
  return tf.data.Dataset.from_tensors(batch).repeat()
