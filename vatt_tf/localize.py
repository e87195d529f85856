"""Shows where in a picture it sounds: `python -m vatt_tf.localize`.

`python -m vatt_tf.localize --checkpoint=runs/NAME --media=clip.mp4
--output=runs/maps` writes maps.parquet, with a map for each window of the file,
and a video with the maps laid over the frames. `--records` takes records. The
model must be trained with the local term (LOCAL_WEIGHT = 1.0); see
docs/localization.md.
"""

from collections.abc import Sequence

from absl import app, flags

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import command_line, gin_utils
from vatt_tf.embedding import model as model_lib
from vatt_tf.localization import maps, run
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
command_line.define_path('output', None, 'The folder to write to.')
flags.DEFINE_float(
  'frame_rate', 25.0, 'Frames per second of the videos made from media files.'
)
flags.DEFINE_integer('shorter_side', 256, "Pixels of a frame's shorter side.")
flags.DEFINE_integer(
  'num_videos',
  None,
  'Number of files or records that get a video; by default all.',
  lower_bound=0,
)
flags.DEFINE_integer(
  'batch_size', 8, 'Clips that are computed together.', lower_bound=1
)
flags.DEFINE_integer(
  'num_workers', None, 'Processes that decode; by default one per core.'
)
gin_utils.define_flags()

# Flags that have the names of the fields of `run.Options`.
ARGUMENTS = (
  'output media records frame_rate shorter_side num_videos batch_size '
  'num_workers'
).split()


def main(argv: Sequence[str]) -> None:
  """Parses the flags and localises."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    options = run.Options(
      **{name: flags.FLAGS[name].value for name in ARGUMENTS}
    )
    options.check()
    model = restored_model.load(
      _CHECKPOINT.value,
      flags.FLAGS.gin_file or [],
      flags.FLAGS.gin_param,
      maps.check_model,
    )
    form = model_lib.Form.configured()
    result = run.localize(model, form, options)
  print(result.describe())


if __name__ == '__main__':
  command_line.run(
    main, command_line.Use.INFERS, required=['checkpoint', 'output']
  )
