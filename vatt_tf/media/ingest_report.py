"""What an ingest reports: its result, and the csv of what was skipped."""

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import io
import os

from vatt_tf.core import command_line, file_utils
from vatt_tf.media import (
  clock,
  ingest_options,
  label_files,
  manifest,
  output_folder,
  planning,
  shard_writing,
  skip_lines,
)
from vatt_tf.media import journal as journal_lib


@dataclasses.dataclass
class Result:
  """Counts and paths of the records of an ingest.

  Attributes:
    pattern: Pattern that matches the shards.
    num_clips: Number of records written.
    num_failed: Number of clips that failed.
    num_other_files: Number of files of the folder that are not media.
    num_notes: Number of parts of files that were left out or changed.
    num_with_video: Number of records with frames.
    num_with_audio: Number of records with sound.
    num_with_captions: Number of records with a caption.
    num_captions: Number of captions of all records.
    num_labels: Number of lines of `labels.txt`; 0 without labels.
    num_shards: Number of shards written.
    seconds: Length of all clips together, in seconds.
    num_resumed: Number of records that an earlier run had written.
    skip_report: Path of the csv that names each file without a record.
    labels_path: Path of `labels.txt`, or ''.
    split_sizes: Number of ids in each list, by the name of the list.
  """

  pattern: str = ''
  num_clips: int = 0
  num_failed: int = 0
  num_other_files: int = 0
  num_notes: int = 0
  num_with_video: int = 0
  num_with_audio: int = 0
  num_with_captions: int = 0
  num_captions: int = 0
  num_labels: int = 0
  num_shards: int = 0
  seconds: float = 0.0
  num_resumed: int = 0
  skip_report: str = ''
  labels_path: str = ''
  split_sizes: dict[str, int] = dataclasses.field(default_factory=dict)

  def describe(self) -> str:
    """Returns a paragraph for people."""
    count = command_line.count
    text = (
      f'{count(self.num_clips, "clip")} ({self.seconds / 60:.1f} minutes) in '
      f'{count(self.num_shards, "shard")} {self.pattern}: '
      f'{self.num_with_video} with video, {self.num_with_audio} with sound, '
      f'{self.num_with_captions} with captions ({self.num_captions} in all)'
    )
    if self.num_labels:
      text += f', {count(self.num_labels, "class")}'
    if self.num_resumed:
      text += f'; {self.num_resumed} of them are from an earlier run'
    text += '.'
    if self.split_sizes:
      folder = os.path.join(
        os.path.dirname(self.pattern), output_folder.SPLITS_FOLDER
      )
      sizes = [f'{name} {size}' for name, size in self.split_sizes.items()]
      text += f' Lists of ids in {folder}: {", ".join(sizes)}.'
    if self.num_failed or self.num_other_files:
      text += (
        f' {count(self.num_failed, "clip")} failed and '
        f'{count(self.num_other_files, "file")} of another kind: see '
        f'{self.skip_report}.'
      )
    if self.num_notes:
      text += (
        f' {count(self.num_notes, "note")} on parts of files that were left '
        f'out or changed: see {self.skip_report}.'
      )
    return text


def write_skip_report(path: str, skips: Iterable[skip_lines.Skip]) -> None:
  """Writes the csv that names each file without a record, with the reason."""
  text = io.StringIO(newline='')
  table = csv.writer(text, lineterminator='\n')
  table.writerow(['file', 'start', 'end', 'reason'])
  table.writerows(skip[:4] for skip in sorted(skips))
  file_utils.write_text(path, text.getvalue())


def write_reports(
  output_dir: str,
  options: ingest_options.Options,
  segments: Sequence[manifest.Segment],
  plan: planning.Plan,
  journal: journal_lib.Journal,
  fingerprint: str,
  label_names: Sequence[str],
) -> dict:
  """Writes the skip report, the lists of ids and `dataset_info.json`.

  Args:
    output_dir: Folder of the shards.
    options: Options of the ingest.
    segments: Segments of the manifest or folder.
    plan: Plan of the work, all of which is done.
    journal: Journal of the work.
    fingerprint: Digest of the input and options.
    label_names: Classes in the order of `labels.txt`.

  Returns:
    The entry of these shards in `dataset_info.json`.
  """
  skips = plan.skips + [
    skip_lines.Skip(*skip) for line in journal.tasks for skip in line['skips']
  ]
  skips = skip_lines.without_repeated_notes(skips)
  write_skip_report(
    os.path.join(output_dir, f'{options.name}.skipped.csv'), skips
  )
  shard_lengths = [0] * plan.num_shards
  for shard, line in zip(plan.shards, journal.tasks):
    shard_lengths[shard] += line['records']
  settings = options.settings
  entry = {
    'fingerprint': fingerprint,
    'dataset_name': options.dataset_name,
    'shards': f'{options.name}-?????-of-{plan.num_shards:05d}.tfrecord',
    'num_examples': sum(shard_lengths),
    'shard_lengths': shard_lengths,
    'num_failed': sum(skip.is_failure for skip in skips),
    'num_other_files': sum(
      not skip.is_failure and not skip.is_note for skip in skips
    ),
    'num_notes': sum(skip.is_note for skip in skips),
    **{
      count: sum(line[count] for line in journal.tasks)
      for count in shard_writing.COUNTS
    },
    'num_labels': len(label_names),
    'frame_rate': settings.frame_rate if settings.use_video else 0,
    'shorter_side': settings.shorter_side,
    'jpeg_quality': settings.jpeg_quality,
    'audio_rate': settings.audio_rate if settings.use_audio else 0,
  }
  split_sizes = output_folder.write_splits(output_dir, segments, plan, journal)
  if split_sizes:
    entry['split_sizes'] = split_sizes
  # Another split of this folder may be finishing at the same moment.
  with output_folder.lock(output_dir):
    info = output_folder.read_info(output_dir)
    info['splits'][options.name] = entry
    info['splits'] = dict(sorted(info['splits'].items()))
    output_folder.write_info(output_dir, info)
  return entry


def make_result(
  output_dir: str,
  options: ingest_options.Options,
  entry: dict,
  num_resumed: int,
) -> Result:
  """Returns the result of an ingest that is complete.

  Args:
    output_dir: Folder of the shards.
    options: Options of the ingest.
    entry: Entry of the shards in `dataset_info.json`.
    num_resumed: Number of records that an earlier run had written.
  """
  labels_path = os.path.join(output_dir, label_files.LABELS_FILE)
  return Result(
    pattern=os.path.join(output_dir, f'{options.name}-*.tfrecord'),
    num_clips=entry['num_examples'],
    num_failed=entry['num_failed'],
    num_other_files=entry['num_other_files'],
    num_notes=entry.get('num_notes', 0),
    num_with_video=entry['num_with_video'],
    num_with_audio=entry['num_with_audio'],
    num_with_captions=entry['num_with_captions'],
    num_captions=entry['num_captions'],
    num_labels=entry['num_labels'],
    num_shards=len(entry['shard_lengths']),
    seconds=entry['microseconds'] / clock.SECOND,
    num_resumed=num_resumed,
    skip_report=os.path.join(output_dir, f'{options.name}.skipped.csv'),
    labels_path=labels_path if entry['num_labels'] else '',
    split_sizes=entry.get('split_sizes', {}),
  )
