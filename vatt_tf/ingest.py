"""Makes records from media files: `python -m vatt_tf.ingest`.

A folder, cut into clips of 10 s, captions from files beside the videos or from
tracks in them:

    python -m vatt_tf.ingest --media_root=/data/videos \\
        --output_dir=/data/records

The rows of a csv with the columns video_path, audio_path, start, end, label,
caption:

    python -m vatt_tf.ingest --manifest=/data/train.csv \\
        --output_dir=/data/records --name=train

A public data set, from the lists that its owner publishes and its media:

    python -m vatt_tf.ingest --dataset=ucf101 --media_root=/data/UCF-101 \\
        --annotations=/data/ucfTrainTestlist --output_dir=/data/records

Typed again, a command that was interrupted goes on where it stopped.
docs/ingest.md says more, docs/datasets what each data set needs.
"""

from absl import app, flags

from vatt_tf.core import command_line
from vatt_tf.media import (
  caption_sources,
  errors,
  ingest,
  ingest_report,
  planning,
)
from vatt_tf.media.datasets import ingestion, registry

command_line.define_path(
  'manifest',
  '',
  'Csv with the columns video_path, audio_path, start, end, label, caption, '
  'splits, fold; one of the paths is needed. Without it every file of '
  '--media_root is taken.',
)
flags.DEFINE_enum(
  'dataset',
  None,
  list(registry.DATASETS),
  'Public data set, instead of a manifest: its own lists say what is in it.',
)
command_line.define_path(
  'annotations',
  '',
  'With --dataset: folder with its lists. By default --media_root.',
)
flags.DEFINE_string(
  'split',
  '',
  'With --dataset: which of its splits. Left out where the same videos have '
  'several splits: for one set of records, and lists of ids.',
)
flags.DEFINE_bool(
  'is_cut',
  False,
  'With --dataset: media files that are named by the id of a video alone hold '
  'no more than the listed part of it.',
)
command_line.define_path(
  'media_root',
  '',
  'Folder of the media files, which the paths of the manifest are relative to. '
  'By default the folder of the manifest.',
)
command_line.define_path('output_dir', None, 'Folder to write the shards to.')
flags.DEFINE_string(
  'name',
  '',
  "What the shards' names begin with: train, validation. By default train, or "
  'the --split of a --dataset (`all` where it has none).',
)
flags.DEFINE_integer(
  'num_shards',
  None,
  f'Files to write. By default {planning.DEFAULT_NUM_SHARDS}, or the number of '
  'clips if that is less.',
)
flags.DEFINE_float('frame_rate', 10.0, 'Frames a second to keep.')
flags.DEFINE_integer('shorter_side', 256, "Pixels of a frame's shorter side.")
flags.DEFINE_bool(
  'enlarge', False, 'Scale smaller videos up; otherwise they keep their size.'
)
flags.DEFINE_integer('jpeg_quality', 90, 'Quality of the frames, 1 to 100.')
flags.DEFINE_integer('audio_rate', 48000, 'Samples a second.')
flags.DEFINE_bool('use_video', True, 'Keep frames.')
flags.DEFINE_bool('use_audio', True, 'Keep sound.')
flags.DEFINE_integer(
  'video_stream',
  None,
  'Which video stream of a file, from 0. By default the first one marked as '
  'default, or else the first.',
)
flags.DEFINE_integer('audio_stream', None, 'Which audio stream, likewise.')
flags.DEFINE_integer('caption_stream', None, 'Which text track, likewise.')
command_line.define_path(
  'captions',
  caption_sources.AUTO,
  'Where captions come from if not from the manifest. auto: a .srt, .vtt or '
  '.json file of the same name beside the media file, or else a text track in '
  'it. A folder: such files there. A .json or .csv file: the captions of all '
  'videos. none: nowhere.',
)
flags.DEFINE_string(
  'caption_language',
  '',
  'Which of several caption files (clip.en.vtt) or text tracks, such as en.',
)
flags.DEFINE_string(
  'caption_encoding',
  '',
  'Encoding of caption files, such as cp1252. By default UTF-8; a byte order '
  'mark goes first.',
)
flags.DEFINE_float(
  'caption_margin_seconds',
  0.0,
  'Captions up to so far outside a clip are kept too.',
)
flags.DEFINE_float(
  'clip_seconds',
  None,
  'What is longer is cut into clips of this length. By default '
  f'{planning.DEFAULT_FOLDER_CLIP_SECONDS:g} for a folder, and no cutting for '
  'a manifest: a row is a clip. 0: no cutting.',
)
flags.DEFINE_float(
  'clip_overlap_seconds', 0.0, 'How much of a clip the next one repeats.'
)
flags.DEFINE_float(
  'min_clip_seconds',
  None,
  'A rest shorter than this joins the clip before it, and files and rows that '
  'are shorter are skipped. By default a rest under half of --clip_seconds '
  'joins, and nothing is skipped.',
)
command_line.define_path(
  'labels',
  '',
  'A labels.txt to take the classes from. By default the one in --output_dir, '
  'or else it is made of the labels of the manifest.',
)
flags.DEFINE_string(
  'dataset_name', '', 'Noted in each record. By default that of the folder.'
)
flags.DEFINE_bool('shuffle', True, 'Shuffle the clips, always in the same way.')
flags.DEFINE_string(
  'manifest_encoding', '', 'Encoding of the manifest. By default UTF-8.'
)
flags.DEFINE_list('ignore_columns', [], 'Columns of the manifest to leave out.')
flags.DEFINE_integer(
  'num_workers',
  None,
  'Processes that decode. By default one a core; 0 decodes in the main '
  'process. The shards do not depend on it.',
)
flags.DEFINE_float(
  'max_failed_share',
  0.1,
  'When more of the clips fail, the exit code is 1 (all others are written). '
  'With --dataset nothing is made when more of the listed files are missing.',
)
flags.DEFINE_bool(
  'overwrite', False, 'Remove shards of this name and start again.'
)

# The flags that belong to --dataset.
DATASET_ARGUMENTS = ('annotations', 'split', 'is_cut')
# Those that have the names of the arguments of `ingest.ingest`.
ARGUMENTS = (
  'output_dir media_root name num_shards frame_rate shorter_side enlarge '
  'jpeg_quality audio_rate use_video use_audio video_stream audio_stream '
  'caption_stream captions caption_language caption_encoding '
  'caption_margin_seconds clip_seconds clip_overlap_seconds min_clip_seconds '
  'labels dataset_name shuffle manifest_encoding ignore_columns num_workers '
  'max_failed_share overwrite'
).split()


def _ingest() -> ingest_report.Result:
  """Ingests what the flags say."""
  arguments = {name: flags.FLAGS[name].value for name in ARGUMENTS}
  of_dataset = {name: flags.FLAGS[name].value for name in DATASET_ARGUMENTS}
  dataset, manifest = flags.FLAGS.dataset, flags.FLAGS.manifest
  if not dataset:
    given = [f'--{name}' for name, value in of_dataset.items() if value]
    if given:
      raise ValueError(f'{", ".join(given)} needs --dataset.')
    arguments['name'] = arguments['name'] or 'train'
    return ingest.ingest(manifest_path=manifest, **arguments)
  if manifest:
    raise ValueError(
      '--manifest and --dataset exclude each other: a data set has lists of '
      f'its own. Received: --manifest={manifest} --dataset={dataset}'
    )
  return ingestion.ingest_dataset(dataset, **of_dataset, **arguments)


def main(argv):
  """Parses the flags and ingests."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  with command_line.exit_on_error(
    errors.TooManyFailedError,
    advice='The same command goes on where this stopped.',
  ):
    result = _ingest()
  print(result.describe())


if __name__ == '__main__':
  command_line.run(main, required=['output_dir'])
