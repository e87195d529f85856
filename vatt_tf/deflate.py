"""Makes an image network of a video network: `python -m vatt_tf.deflate`.

`python -m vatt_tf.deflate --checkpoint=runs/quickstart/model
--images='runs/quickstart/records/train-*.tfrecord' --output=runs/deflated` sums
the kernels of the video tower over time, and trains the scales and offsets of
its norms such that an image has the feature of a clip that repeats it (Alayrac
et al. 2020, MMV, section 3.3). The images are frames of records; no label is
read. The output is a run, whose video tower takes one frame, for `evaluate`,
`export_saved_model` and as INIT_CHECKPOINT.
"""

from collections.abc import Sequence

from absl import app, flags

from vatt_tf import (
  configurables,  # noqa: F401
)
from vatt_tf.core import command_line, gin_utils
from vatt_tf.training import image_network

_CHECKPOINT = command_line.define_path(
  'checkpoint',
  None,
  'The directory of a run with a video tower (its newest checkpoint is taken) '
  'or a checkpoint, such as runs/NAME/ckpt-1000.',
)
_IMAGES = command_line.define_path(
  'images', None, 'Pattern of the records whose frames are the images.'
)
_HELD_OUT = command_line.define_path(
  'held_out',
  None,
  'Pattern of the records on whose frames the result is measured; by default '
  'the held-out records of the run.',
)
_OUTPUT = command_line.define_path(
  'output', None, 'The folder to write to; it must not hold a checkpoint.'
)
_STEPS = flags.DEFINE_integer(
  'steps', 2000, 'Steps of training; 0 sums the kernels only.', lower_bound=0
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 16, 'Images per step.', lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
  'learning_rate', 0.01, 'Peak of the learning rate of Adam.', lower_bound=0.0
)
_NUM_IMAGES = flags.DEFINE_integer(
  'num_images',
  192,
  'Images of each set for the comparison before and after.',
  lower_bound=2,
)
gin_utils.define_flags()


def main(argv: Sequence[str]) -> None:
  """Parses the flags and deflates."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    path, distances = image_network.write(
      _CHECKPOINT.value,
      _IMAGES.value,
      _OUTPUT.value,
      _HELD_OUT.value,
      _STEPS.value,
      _BATCH_SIZE.value,
      _LEARNING_RATE.value,
      _NUM_IMAGES.value,
      flags.FLAGS.gin_file or [],
      flags.FLAGS.gin_param,
    )
  print(distances)
  print(f'Written: {path}, with config.gin and deflation.json.')


if __name__ == '__main__':
  command_line.run(
    main,
    command_line.Use.INFERS,
    required=['checkpoint', 'images', 'output'],
  )
