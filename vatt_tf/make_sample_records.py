"""Writes the sample records: `python -m vatt_tf.make_sample_records`.

They are a few clips of the sample media, with their vocabulary: the content of
data/sample in a checkout, on which the gin files train by default.
"""

from collections.abc import Sequence
import os
import tempfile

from absl import app

from vatt_tf.core import (
  command_line,
  file_utils,
  gin_utils,
)
from vatt_tf.input_pipeline import vocabulary
from vatt_tf.media import ingest
from vatt_tf.media.sample import rendering

_OUTPUT_DIR = command_line.define_path(
  'output_dir', 'data/sample', 'Folder for records and vocabulary.'
)
_SHARDS = {'train': 4, 'validation': 2}
_MEDIA = {
  'num_train': 16,
  'num_validation': 8,
  'duration': 3.4,  # s: longer than a training clip
  'silent_share': 1 / 16,
  'uncaptioned_share': 1 / 16,
}


def make(output_dir: str) -> None:
  """Writes records of both splits and the vocabulary of training captions.

  Args:
    output_dir: Folder to write to.

  Raises:
    ValueError: The folder holds records already.
  """
  file_utils.check_local('output_dir', output_dir)
  with tempfile.TemporaryDirectory(prefix='vatt_tf_') as media:
    rendering.write_sample_media(media, **_MEDIA)
    for split, num_shards in _SHARDS.items():
      result = ingest.ingest(
        output_dir,
        os.path.join(media, f'{split}.csv'),
        name=split,
        num_shards=num_shards,
        audio_rate=16000,
        dataset_name='sample',
      )
      print(result.describe())
  captions = vocabulary.captions_of_records(
    os.path.join(output_dir, 'train-*.tfrecord')
  )
  path = os.path.join(output_dir, 'vocabulary.txt')
  vocabulary.write_vocabulary(path, vocabulary.build_vocabulary(captions))
  print(f'The vocabulary is {path}.')


def main(argv: Sequence[str]) -> None:
  """Parses the flags and writes the records."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  gin_utils.quiet_logging()
  with command_line.exit_on_error():
    make(_OUTPUT_DIR.value)


if __name__ == '__main__':
  command_line.run(main)
