"""Labels the objects in videos by their sound: `python -m vatt_tf.self_label`.

`python -m vatt_tf.self_label --checkpoint=runs/NAME
--records='runs/data/train-*.tfrecord' --output_dir=runs/labels` writes records
of frames with a box, where the model hears the sound, and a class, the cluster
that picture and sound agree on (Afouras et al. 2022). No label is read. A
detector learns from them: `gin/detect_sample.gin`. The model must be trained
with the local term (LOCAL_WEIGHT = 1.0); see docs/detection.md.
"""

from collections.abc import Sequence

from absl import app, flags

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import command_line, gin_utils
from vatt_tf.embedding import model as model_lib
from vatt_tf.localization import (
  clusters,
  label_run,
  maps,
  reading,
  sinkhorn,
)
from vatt_tf.training import restored_model

_CHECKPOINT = command_line.define_path(
  'checkpoint',
  None,
  'The directory of a run (its newest checkpoint is taken) or a checkpoint, '
  'such as runs/NAME/ckpt-1000.',
)
command_line.define_path(
  'media', '', 'A media file, a folder, or a pattern in quotes.'
)
command_line.define_path('records', '', 'A pattern of shards in quotes.')
command_line.define_path('output_dir', None, 'The folder to write to.')
flags.DEFINE_string('name', 'train', 'Name of the split, of the shards.')
flags.DEFINE_integer('num_shards', 4, 'Number of shards.', lower_bound=1)
flags.DEFINE_integer(
  'num_clusters', 32, 'Number of classes to find.', lower_bound=2
)
flags.DEFINE_integer(
  'num_heads',
  10,
  'Times that classes are looked for, of which the best counts.',
  lower_bound=1,
)
flags.DEFINE_integer(
  'head', None, 'Number of the head that counts; by default the best one.'
)
flags.DEFINE_enum(
  'marginals',
  sinkhorn.UNIFORM,
  sinkhorn.MARGINALS,
  'Whether the classes have equal sizes, or sizes around the mean.',
)
flags.DEFINE_float(
  'kept_share',
  0.8,
  'Share of the clips that are labelled: those with the best scores.',
)
flags.DEFINE_float(
  'threshold',
  0.7,
  'Value in (0, 1), relative to the highest of a map, from which on a place is '
  'in the box.',
)
flags.DEFINE_float(
  'max_area', 0.5, 'Largest area of a box, as a share of the frame.'
)
flags.DEFINE_float(
  'frame_rate', 25.0, 'Frames per second that are read from media files.'
)
flags.DEFINE_integer('shorter_side', 256, "Pixels of a frame's shorter side.")
flags.DEFINE_integer(
  'batch_size', 8, 'Clips that are computed together.', lower_bound=1
)
flags.DEFINE_integer(
  'num_workers', None, 'Processes that decode; by default one per core.'
)
flags.DEFINE_integer('seed', 0, 'Seed of the clusters.')
gin_utils.define_flags()

# Flags that have the names of the fields of the options.
_SOURCE = 'media records frame_rate shorter_side batch_size num_workers'.split()
_CLUSTERS = 'num_clusters num_heads marginals seed'.split()
_ARGUMENTS = (
  'output_dir name num_shards kept_share threshold max_area head'.split()
)


def _values(names):
  return {name: flags.FLAGS[name].value for name in names}


def main(argv: Sequence[str]) -> None:
  """Parses the flags and labels."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    options = label_run.Options(
      source=reading.Source(**_values(_SOURCE)),
      clustering=clusters.Options(**_values(_CLUSTERS)),
      **_values(_ARGUMENTS),
    )
    options.check()
    model = restored_model.load(
      _CHECKPOINT.value,
      flags.FLAGS.gin_file or [],
      flags.FLAGS.gin_param,
      maps.check_model,
    )
    form = model_lib.Form.configured()
    result = label_run.label(model, form, options)
  print(result.describe())


if __name__ == '__main__':
  command_line.run(
    main, command_line.Use.INFERS, required=['checkpoint', 'output_dir']
  )
