"""Images of a tensorflow-datasets set, as clips of equal frames.

An image repeated `num_frames` times is one clip (paper, section 4.2). The rows
have the form of `pipeline.make_dataset` with `video` and `label`, and the same
guarantees: every random choice follows from (seed, epoch, image), the position
of a run follows from (seed, step), and evaluation takes every image once.
"""

import functools

import gin
import tensorflow as tf

from vatt_tf.core import feature_names as names
from vatt_tf.input_pipeline import crop_windows, frame_ops, video_config
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import video as video_lib

_IMAGE = 'image'
_LABEL = 'label'
_MAX_EPOCHS = 2**40


def _check_builder(builder, split, label_name, label):
  """Raises unless the set is prepared, has the split, and fits the labels."""
  info = builder.info
  missing_features = {_IMAGE, label_name} - set(info.features or {})
  if missing_features:
    raise ValueError(
      f'The set must have the features `image` and `{label_name}`. Received: '
      f'{info.name} with {sorted(info.features)}'
    )
  if not info.splits:
    raise ValueError(
      f'The set {info.name} is not prepared in {builder.data_dir}. Prepare it '
      f'with `tfds build {info.name}` or '
      f'`tensorflow_datasets.builder({info.name!r}).download_and_prepare()` '
      '(ImageNet: put the archives of its owner in downloads/manual first).'
    )
  parts = [part.split('[')[0] for part in split.split('+')]
  if not set(parts) <= set(info.splits):
    raise ValueError(
      f'`split` must be one of {sorted(info.splits)}, a part of one such as '
      f"'train[:90%]', or a sum such as 'train+test'. Received: split={split!r}"
    )
  classes = info.features[label_name]
  has_several = hasattr(classes, 'feature')  # a sequence of classes
  if has_several != label.is_multi_label:
    raise ValueError(
      f'`is_multi_label` must be {has_several}, as an image of {info.name} has '
      f'{"any number of classes" if has_several else "one class"} in '
      f'`{label_name}`. Received: is_multi_label={label.is_multi_label}'
    )
  num_set_classes = (classes.feature if has_several else classes).num_classes
  if num_set_classes != label.num_classes:
    raise ValueError(
      f'`num_classes` must be {num_set_classes}, as in {info.name} '
      f'(NUM_CLASSES). Received: num_classes={label.num_classes}'
    )


def load_image(
  encoded: tf.Tensor,
  config: video_config.VideoConfig,
  seed: tf.Tensor | None = None,
  name: tf.Tensor | str = 'an image',
) -> tf.Tensor:
  """Decodes an image, cuts a window out of it, and repeats it.

  Args:
    encoded: () string: JPEG, PNG, GIF or BMP.
    config: See `VideoConfig`.
    seed: (2,) integer, or None for the central window of evaluation.
    name: () string: name of the image in errors.

  Returns:
    (T, H, W, 3) float32 in [-1, 1], equal frames.

  Raises:
    tf.errors.InvalidArgumentError: The image is corrupt, or it has one row or
      one column of pixels. It is raised when the graph runs.
  """
  window_seed = finish_seed = None
  if seed is not None:
    window_seed, finish_seed = tf.unstack(tf.random.split(seed, 2))

  def check(height, width):
    return tf.debugging.Assert(
      (height > 1) & (width > 1),
      [
        'An image must have at least two rows and columns of pixels. Remove it '
        'from the set. Received (name, height, width):',
        name,
        height,
        width,
      ],
    )

  def jpeg():
    frames = encoded[None]
    with tf.control_dependencies([check(*frame_ops.frame_shape(frames))]):
      return video_lib.load_frames(frames, [0], config, window_seed)

  def other_format():
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    with tf.control_dependencies([check(height, width)]):
      image = tf.identity(image)
    if seed is None:
      window = crop_windows.central_window(height, width, config)
    else:
      window = crop_windows.random_window(height, width, config, window_seed)
    top, left, rows, columns = tf.unstack(window)
    return image[None, top : top + rows, left : left + columns]

  is_jpeg = tf.equal(tf.strings.substr(encoded, 0, 2), b'\xff\xd8')
  frames = tf.cond(is_jpeg, jpeg, other_format)  # (1, h, w, 3)
  frame_config = video_config.VideoConfig(**{**vars(config), 'num_frames': 1})
  # (1, H, W, 3)
  frame = video_lib.finish_frames(frames, frame_config, finish_seed)
  return tf.repeat(frame, config.num_frames, axis=0)


def _fold_in(seed, value):
  return tf.random.experimental.stateless_fold_in(seed, value)


def _read_epoch(epoch, *, dataset, seed, buffer_size):
  """The images of an epoch in their order, each with `epoch`, () int64."""

  def add_epoch(element):
    return {**element, 'epoch': epoch}

  if seed is not None:
    order = tf.random.stateless_uniform(
      [], _fold_in(seed, epoch), None, None, tf.int64
    )
    # `shuffle` mixes its seed with the seed of the graph it is called in.
    tf.compat.v1.set_random_seed(1)
    dataset = dataset.shuffle(
      buffer_size, seed=order, reshuffle_each_iteration=False
    )
  return dataset.map(add_epoch)


def _load_row(element, *, config, label, seed, name, with_example_id):
  """A row of an image; `seed` is None in evaluation."""
  row_seed = None
  if seed is not None:
    row_seed = _fold_in(_fold_in(seed, element['epoch']), element['index'])
  classes = tf.cast(element[_LABEL], tf.int32)
  if label.is_multi_label:
    is_true = tf.range(label.num_classes)[:, tf.newaxis] == classes
    classes = tf.cast(tf.reduce_any(is_true, 1), tf.float32)  # (num_classes,)
  number = tf.strings.as_string(element['index'])
  example_id = tf.strings.join([f'{name}-', number])
  row = {
    names.VIDEO: load_image(element[_IMAGE], config, row_seed, example_id),
    names.VIDEO_MASK: tf.constant(True),
    names.LABEL: classes,
  }
  if seed is None:
    row[names.VALID] = tf.constant(True)
  if with_example_id:
    row[names.EXAMPLE_ID] = example_id
  return row


def _padding_row(_, *, spec):
  return {
    key: tf.fill(value.shape, '')
    if value.dtype == tf.string
    else tf.zeros(value.shape, value.dtype)
    for key, value in spec.items()
  }


@gin.register
def make_image_dataset(
  name: str,
  split: str,
  global_batch_size: int,
  is_training: bool,
  video: video_config.VideoConfig,
  label: plan_lib.LabelConfig,
  label_name: str = _LABEL,
  seed: int = 0,
  start_step: int = 0,
  input_context: tf.distribute.InputContext | None = None,
  data_dir: str | None = None,
  shuffle_buffer_size: int = 4096,
  with_example_id: bool | None = None,
) -> tf.data.Dataset:
  """Makes batches of a classification set of tensorflow-datasets.

  Training is endless and shuffled, and its batches are full. Evaluation takes
  every image once, in order, and pads the last batch with rows of zeros under
  false masks. The function can replace `pipeline.make_dataset`.

  Args:
    name: Name of a prepared set, such as `imagenet2012`.
    split: Split, such as `train` or `validation`, a part: `train[:90%]`, or a
      sum: `train+validation`.
    global_batch_size: Rows per step, over all replicas.
    is_training: Whether the batches are for training, not evaluation.
    video: Configuration of the clip, `num_frames` repeats of a window of the
      image, with one clip and one crop in evaluation.
    label: Configuration of the labels: one per image, or with `is_multi_label`
      any number.
    label_name: Feature of the set that holds the class, or the classes, such as
      `labels` of PASCAL VOC.
    seed: Seed of every random choice.
    start_step: Steps that were already taken, whose images are skipped.
    input_context: Context of the input pipeline, or None if it is the only one.
    data_dir: Folder of the prepared set. None means ~/tensorflow_datasets.
    shuffle_buffer_size: Number of encoded images among which the next is drawn.
    with_example_id: Whether to add `example_id`; by default only in evaluation.

  Returns:
    A data set of dictionaries of static shape: `video`, `video_mask`, `label`,
    `valid` in evaluation, and `example_id`.

  Raises:
    ValueError: The set is unknown, not prepared, lacks the split, has other
      classes, or a configuration does not fit.
  """
  if video.num_clips * video.num_crops != 1:
    raise ValueError(
      'Images are classified as one clip of one crop (NUM_TEST_CLIPS=1, '
      f'NUM_TEST_CROPS=1). Received: num_clips={video.num_clips}, '
      f'num_crops={video.num_crops}'
    )
  import tensorflow_datasets as tfds  # slow, and only used here

  try:
    builder = tfds.builder(name, data_dir=data_dir)
  except tfds.core.DatasetNotFoundError as e:
    raise ValueError(
      f'tensorflow-datasets knows no set named {name!r}; its names are in '
      'https://www.tensorflow.org/datasets/catalog. '
      f'Received: name={name!r}, data_dir={data_dir!r}'
    ) from e
  _check_builder(builder, split, label_name, label)
  batch_size, num_pipelines, number = global_batch_size, 1, 0
  if input_context is not None:
    batch_size = input_context.get_per_replica_batch_size(global_batch_size)
    num_pipelines = input_context.num_input_pipelines
    number = input_context.input_pipeline_id
  num_images = builder.info.splits[split].num_examples
  length = len(range(number, num_images, num_pipelines))
  if is_training and not length:
    raise ValueError(
      f'Input pipeline {number} of {num_pipelines} gets no image of the '
      f'{num_images} of {name}, {split}. Use fewer workers.'
    )
  dataset = builder.as_dataset(
    split=split,
    shuffle_files=False,
    decoders={_IMAGE: tfds.decode.SkipDecoding()},
    read_config=tfds.ReadConfig(try_autocache=False),
  )

  def keep(index, example):
    return {
      'index': index,
      _IMAGE: example[_IMAGE],
      _LABEL: example[label_name],
    }

  dataset = dataset.enumerate().map(keep).shard(num_pipelines, number)
  order_seed, row_seed = (
    (tf.constant([seed, use], tf.int64) if is_training else None)
    for use in range(2)
  )
  read_epoch = functools.partial(
    _read_epoch,
    dataset=dataset,
    seed=order_seed,
    buffer_size=shuffle_buffer_size,
  )
  first_epoch, num_skipped = 0, 0
  if is_training:
    start = start_step * (global_batch_size // num_pipelines)
    first_epoch, num_skipped = divmod(start, length)
  epochs = tf.data.Dataset.range(first_epoch, _MAX_EPOCHS if is_training else 1)
  dataset = epochs.flat_map(read_epoch).skip(num_skipped)
  if with_example_id is None:
    with_example_id = not is_training
  dataset = dataset.map(
    functools.partial(
      _load_row,
      config=video,
      label=label,
      seed=row_seed,
      name=f'{name}-{split}',
      with_example_id=with_example_id,
    ),
    num_parallel_calls=tf.data.AUTOTUNE,
    deterministic=True,
  )
  if not is_training:
    rows = -(-num_images // num_pipelines)
    num_padding = -(-rows // batch_size) * batch_size - length
    pad = functools.partial(_padding_row, spec=dataset.element_spec)
    dataset = dataset.concatenate(tf.data.Dataset.range(num_padding).map(pad))
  dataset = dataset.batch(batch_size, drop_remainder=True)
  if is_training:
    dataset = dataset.apply(
      tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )
  options = tf.data.Options()
  options.deterministic = True
  options.experimental_distribute.auto_shard_policy = (
    tf.data.experimental.AutoShardPolicy.OFF
  )
  return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)
