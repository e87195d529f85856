"""Writes a run whose video tower is the image network of another run's."""

from collections.abc import Iterator, Sequence
import dataclasses
import json
import os

import gin
import tensorflow as tf
import tf_keras

from vatt_tf.checkpoints import folders, manager, plans, reports
from vatt_tf.core import feature_names as names
from vatt_tf.core import file_utils, gin_utils, modalities
from vatt_tf.input_pipeline import plan as plan_lib
from vatt_tf.input_pipeline import video_config
from vatt_tf.input_pipeline.records import shard_files
from vatt_tf.training import deflation


def _load(path):
  """A model of the parsed gin files with the weights of a checkpoint."""
  model = gin_utils.get_task().build_model()
  manager.restore_model(model, path)
  if modalities.VIDEO not in model.modalities:
    raise ValueError(
      'Only a video tower becomes an image network, and the model has only '
      f'{", ".join(model.modalities)}. Received: checkpoint={path}'
    )
  return model


def _video_config():
  return gin.get_configurable(video_config.VideoConfig)()


# Batches in a row without a frame, after which there are none.
_MAX_EMPTY_BATCHES = 100


def _batches(scope, pattern, batch_size) -> Iterator[tf.Tensor]:
  """Frames of records, (B, 1, H, W, 3); B varies as clips lack video."""
  flag = '--images' if scope == 'train' else '--held_out'
  with gin.config_scope(scope):
    config = _video_config()
    dataset = gin.get_configurable('make_dataset')(
      global_batch_size=batch_size,
      is_training=scope == 'train',
      video=dataclasses.replace(config, num_frames=1, num_clips=1, num_crops=1),
      audio=None,
      text=None,
      label=None,
      **({} if pattern is None else {'sources': [_source(pattern, flag)]}),
    )
  num_empty, is_empty = 0, True
  for batch in dataset:
    images = tf.boolean_mask(batch[names.VIDEO], batch[names.VIDEO_MASK])
    num_empty = 0 if len(images) else num_empty + 1
    if len(images):
      is_empty = False
      yield images
    elif num_empty == _MAX_EMPTY_BATCHES:
      break
  if is_empty:
    records = pattern or 'The held-out records of the run'
    raise ValueError(
      f'{records} have no video, whose frames are the images. Set {flag} to '
      'records with video.'
    )


def _source(pattern, flag):
  """The records of a flag."""
  try:
    shard_files.match_shards(pattern, flag)
  except ValueError as e:
    raise ValueError(
      f'{flag} must match shards of records with video. '
      f'Received: {flag}={pattern!r}'
    ) from e
  return plan_lib.Source(pattern)


def _first(batches, count):
  """Batches with the first `count` images."""
  kept = []
  for images in batches:
    kept.append(images[:count])
    count -= len(kept[-1])
    if count <= 0:
      break
  return kept


def _bind(video_tower, image_tower):
  """Binds what makes the gin files describe the image network."""
  before, after = video_tower.get_config(), image_tower.get_config()
  class_name = type(image_tower).__name__
  for name, value in after.items():
    # An encoder that the towers share is a matter of the gin files.
    if name != 'encoder' and value != before[name]:
      gin_utils.bind(f'video/{class_name}.{name}', value)
  gin_utils.bind('VideoConfig.num_frames', 1)
  for scope in ('train', 'eval'):
    with gin.config_scope(scope):
      num_frames = _video_config().num_frames
    if num_frames != 1:  # the scope has a binding of its own
      gin_utils.bind(f'{scope}/VideoConfig.num_frames', 1)


def _check_built(tower, image_tower):
  """Raises ValueError unless the gin files built the image network."""
  built, expected = tower.get_config(), image_tower.get_config()
  different = [
    name
    for name, value in expected.items()
    if name != 'encoder' and built[name] != value
  ]
  if different:
    class_name = type(image_tower).__name__
    raise ValueError(
      'The gin files build another video tower than the image network, with '
      f'{different[0]}={built[different[0]]!r} instead of '
      f'{expected[different[0]]!r}. Name the tower in the scope `video`, as in '
      f'@video/{class_name}(), and bind {different[0]} nowhere else.'
    )


def _write(model, image_tower, other_model, output, distances):
  """Writes the run with the image network and the rest of another model."""
  values = {
    **plans.target_variables(other_model),
    **plans.target_variables(image_tower),
  }
  for name, variable in plans.target_variables(model).items():
    variable.assign(values[name])
  reports.mark_tables_filled(model)
  for name, text in (
    ('config.gin', gin.config_str()),
    (
      'deflation.json',
      json.dumps(dataclasses.asdict(distances), indent=1) + '\n',
    ),
  ):
    file_utils.write_text(os.path.join(output, name), text)
  return folders.save(
    tf.train.Checkpoint(model=model), output, step=0, max_to_keep=1
  )


def write(
  checkpoint: str,
  images: str,
  output: str,
  held_out: str | None = None,
  steps: int = 2000,
  batch_size: int = 16,
  learning_rate: float = 0.01,
  num_images: int = 192,
  gin_files: Sequence[str] = (),
  gin_params: Sequence[str] = (),
) -> tuple[str, deflation.Distances]:
  """Writes a run whose video tower is the image network of another run's.

  Args:
    checkpoint: Directory of a run, or prefix of a checkpoint.
    images: Pattern of the records whose frames train the image network.
    output: Folder to write to.
    held_out: Pattern of the records on which it is measured. None means the
      held-out records of the run.
    steps: Steps of training, 0 for none.
    batch_size: Images per step.
    learning_rate: Peak of the learning rate.
    num_images: Images of each set for the comparison.
    gin_files: Paths of gin files; empty for the `config.gin` beside the
      checkpoint.
    gin_params: Further bindings.

  Returns:
    (path, distances): the prefix of the written checkpoint, and the distances
    on held-out images.

  Raises:
    ValueError: There is no checkpoint, its model has no image network, or the
      records have no video.
  """
  reports.check_output(output)
  file_utils.check_writable(output)
  path = manager.resolve(checkpoint)
  gin_utils.parse(gin_files or [gin_utils.config_beside(path)], gin_params)
  tf_keras.mixed_precision.set_global_policy('float32')
  video_model = _load(path)
  video_tower = video_model.towers[modalities.VIDEO]
  with gin.config_scope('eval'):
    num_frames = _video_config().num_frames
  # Of a copy, because both networks may share layers.
  image_tower = _load(path).towers[modalities.VIDEO].deflate()
  if image_tower is None:
    raise ValueError(
      f'A {type(video_tower).__name__} has no image network: it does not '
      f'implement `deflate`. Received: checkpoint={checkpoint}'
    )
  if num_frames == 1:
    raise ValueError(
      'The video tower of the run already takes one frame. '
      f'Received: checkpoint={checkpoint}'
    )
  comparison = deflation.Comparison(
    video_tower,
    _first(_batches('train', images, batch_size), num_images),
    _first(_batches('eval', held_out, batch_size), num_images),
    num_frames,
  )
  naive = comparison.features(image_tower)

  def show(step, loss):
    if step == 1 or step % max(1, steps // 10) == 0:
      print(f'step {step}/{steps}  L1 {loss:.4g}', flush=True)

  deflation.train(
    video_tower,
    image_tower,
    _batches('train', images, batch_size),
    num_frames,
    steps,
    learning_rate,
    show,
  )
  distances = comparison.distances(naive, comparison.features(image_tower))
  _bind(video_tower, image_tower)
  model = gin_utils.get_task().build_model()
  _check_built(model.towers[modalities.VIDEO], image_tower)
  return _write(model, image_tower, video_model, output, distances), distances
