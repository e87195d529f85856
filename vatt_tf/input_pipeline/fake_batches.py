"""Batches of noise, in the form of those that are read from records."""

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
  """An endless data set of one batch of `make_fake_batch`.

  It costs nothing to read: what a training step then takes is its own time.

  Args:
    global_batch_size: Rows, over all replicas.
    video: The frames; None leaves them out.
    audio: The sound; None leaves it out.
    text: The captions; None leaves them out.
    label: The classes; None leaves them out.
    seed: Seed of the noise.
    input_context: Of a strategy, whose workers share the batch.
  """
  batch_size = global_batch_size
  if input_context is not None:
    batch_size = input_context.get_per_replica_batch_size(global_batch_size)
  batch = make_fake_batch(batch_size, video, audio, text, label, seed)
  return tf.data.Dataset.from_tensors(batch).repeat()
