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

The same command, run again after an interruption, resumes where it stopped. See
docs/ingest.md, and docs/datasets for each data set.
"""

from collections.abc import Sequence

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
  'Public data set, instead of a manifest; its own lists name the clips.',
)
command_line.define_path(
  'annotations',
  '',
  'With --dataset: folder with its lists. By default --media_root.',
)
flags.DEFINE_string(
  'split',
  '',
  'With --dataset: its split. Leave it out for one set of records with lists '
  'of ids, if the same videos have several splits.',
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
  "Beginning of the shards' names, such as train. By default train, or the "
  '--split of a --dataset (`all` without one).',
)
flags.DEFINE_integer(
  'num_shards',
  None,
  f'Number of shards. By default {planning.DEFAULT_NUM_SHARDS}, or the number '
  'of clips if that is less.',
)
flags.DEFINE_float('frame_rate', 10.0, 'Frames per second to keep.')
flags.DEFINE_integer('shorter_side', 256, "Pixels of a frame's shorter side.")
flags.DEFINE_bool(
  'enlarge', False, 'Scale smaller videos up; otherwise they keep their size.'
)
flags.DEFINE_integer('jpeg_quality', 90, 'Quality of the frames, 1 to 100.')
flags.DEFINE_integer('audio_rate', 48000, 'Samples per second.')
flags.DEFINE_bool('use_video', True, 'Keep frames.')
flags.DEFINE_bool('use_audio', True, 'Keep sound.')
flags.DEFINE_integer(
  'video_stream',
  None,
  'Number of the video stream of a file, from 0. By default the first that is '
  'marked as default, or else the first.',
)
flags.DEFINE_integer(
  'audio_stream', None, 'Number of the audio stream, likewise.'
)
flags.DEFINE_integer(
  'caption_stream', None, 'Number of the text track, likewise.'
)
command_line.define_path(
  'captions',
  caption_sources.AUTO,
  'Source of captions that the manifest lacks. auto: a .srt, .vtt or .json '
  'file of the same name beside the media file, or else a text track in it. A '
  'folder: such files in it. A .json or .csv file: the captions of all videos. '
  'none: no source.',
)
flags.DEFINE_string(
  'caption_language',
  '',
  'Preferred language of several caption files (clip.en.vtt) or text tracks, '
  'such as en.',
)
flags.DEFINE_string(
  'caption_encoding',
  '',
  'Encoding of caption files, such as cp1252. By default UTF-8; a byte order '
  'mark takes precedence.',
)
flags.DEFINE_float(
  'caption_margin_seconds',
  0.0,
  'Captions this close to a clip are kept too.',
)
command_line.define_path(
  'boxes',
  '',
  'A csv file with boxes in the frames: video_path, frame or time, x, y, '
  'width, height in pixels or xmin, ymin, xmax, ymax as shares of the frame, '
  'and if known label, is_sounding (see docs/localization.md).',
)
flags.DEFINE_float(
  'clip_seconds',
  None,
  'Length of the clips that longer files and rows are cut into. By default '
  f'{planning.DEFAULT_FOLDER_CLIP_SECONDS:g} for a folder, and no cutting for '
  'a manifest, of which each row is a clip. 0 means no cutting.',
)
flags.DEFINE_float(
  'clip_overlap_seconds', 0.0, 'Overlap of a clip with the next.'
)
flags.DEFINE_float(
  'min_clip_seconds',
  None,
  'A rest shorter than this joins the clip before it, and files and rows that '
  'are shorter are skipped. By default a rest under half of --clip_seconds '
  'joins, and nothing is skipped.',
)
flags.DEFINE_float(
  'first_seconds',
  None,
  'Take only this much of the beginning of each file or row. By default all of '
  'it.',
)
command_line.define_path(
  'labels',
  '',
  'A labels.txt to take the classes from. By default the one in --output_dir, '
  'or else it is written from the labels of the manifest.',
)
flags.DEFINE_string(
  'dataset_name', '', 'Name in each record. By default that of the folder.'
)
flags.DEFINE_bool('shuffle', True, 'Shuffle the clips, always in the same way.')
flags.DEFINE_string(
  'manifest_encoding', '', 'Encoding of the manifest. By default UTF-8.'
)
flags.DEFINE_list('ignore_columns', [], 'Columns of the manifest to leave out.')
flags.DEFINE_integer(
  'num_workers',
  None,
  'Processes that decode. By default one per core; 0 decodes in the main '
  'process. The shards do not depend on it.',
)
flags.DEFINE_float(
  'max_failed_share',
  0.1,
  'When more of the clips fail, the exit code is 1 (all others are written). '
  'With --dataset nothing is written if more of the listed files are missing.',
)
flags.DEFINE_bool(
  'overwrite', False, 'Remove shards of this name and start again.'
)

# Flags that belong to --dataset.
DATASET_ARGUMENTS = ('annotations', 'split', 'is_cut')
# Flags that have the names of the arguments of `ingest.ingest`.
ARGUMENTS = (
  'output_dir media_root name num_shards frame_rate shorter_side enlarge '
  'jpeg_quality audio_rate use_video use_audio video_stream audio_stream '
  'caption_stream captions caption_language caption_encoding '
  'caption_margin_seconds boxes clip_seconds clip_overlap_seconds '
  'min_clip_seconds first_seconds labels dataset_name shuffle '
  'manifest_encoding ignore_columns num_workers max_failed_share overwrite'
).split()


def _ingest() -> ingest_report.Result:
  """Ingests according to the flags."""
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


def main(argv: Sequence[str]) -> None:
  """Parses the flags and ingests."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  with command_line.exit_on_error(
    errors.TooManyFailedError,
    advice='Rerun the same command to resume.',
  ):
    result = _ingest()
  print(result.describe())


if __name__ == '__main__':
  command_line.run(main, required=['output_dir'])
