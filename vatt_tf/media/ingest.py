"""From media files to shards of records, on every core, resumable.

The work is planned first: segments (rows of a manifest, or the files of a
folder) become clips, clips of one file that follow each other become tasks,
tasks are shuffled and assigned to shards. The plan depends on the input alone,
so that the shards are the same for any number of workers, and however often the
work was interrupted. Then the tasks are done in order (`shard_writing`): one
shard at a time grows under a temporary name, while `NAME.progress.jsonl` notes
each finished task and why clips were skipped.
"""

from collections.abc import Sequence
import contextlib
import csv
import dataclasses
import hashlib
import json
import os

from absl import logging
import tensorflow as tf

from vatt_tf.core import command_line, file_utils, strategies
from vatt_tf.media import (
  caption_sources,
  decode_settings,
  errors,
  ingest_options,
  ingest_report,
  label_files,
  manifest,
  output_folder,
  planning,
  shard_writing,
  skip_lines,
  worker,
)
from vatt_tf.media import journal as journal_lib


def _fingerprint(
  options: ingest_options.Options,
  segments: Sequence[manifest.Segment],
  label_names: Sequence[str],
) -> str:
  """Returns a digest of all that the records depend on except the files."""
  values = dataclasses.asdict(options)
  for key in ('manifest', 'media_root', 'labels'):
    values.pop(key)
  values['is_folder'] = not options.manifest
  values['settings'].pop('num_threads')
  if options.captions not in (caption_sources.AUTO, caption_sources.NONE):
    values['captions'] = os.path.basename(os.path.normpath(options.captions))
  # Without an option or lists the digest is that of versions that had none.
  if options.first_seconds is None:
    values.pop('first_seconds')
  values['boxes'] = os.path.basename(options.boxes)
  if not options.boxes:
    values.pop('boxes')
  values['segments'] = [
    dataclasses.astuple(segment)[: None if segment.splits else -1]
    for segment in segments
  ]
  values['label_names'] = list(label_names)
  values['format'] = output_folder.FORMAT_VERSION
  text = json.dumps(values, sort_keys=True, ensure_ascii=True)
  return hashlib.sha256(text.encode('utf-8')).hexdigest()


def _check_splits_free(
  output_dir: str, name: str, segments: Sequence[manifest.Segment]
) -> None:
  """Raises `ValueError` if shards of another name have lists of these names."""
  wanted = {split for segment in segments for split in segment.splits}
  for other, entry in output_folder.read_info(output_dir)['splits'].items():
    taken = sorted(wanted & set(entry.get('split_sizes', ())))
    if taken and other != name:
      raise ValueError(
        f'{output_dir} has a list of ids {taken[0]!r} already, of the shards '
        f'named {other}. Give another `output_dir`, or other names in the '
        'column `splits`.'
      )


def _check_free(output_dir: str, name: str, is_described: bool) -> None:
  """Raises `ValueError` if there are shards without a journal."""
  shards = output_folder.find_shards(output_dir, name)
  if shards and not os.path.exists(
    output_folder.journal_path(output_dir, name)
  ):
    fault = f'that no {output_folder.INFO_FILE} there describes'
    if is_described:
      fault = f'but not all that {output_folder.INFO_FILE} there describes'
    raise ValueError(
      f'{output_dir} has {len(shards)} shards named {name}, such as '
      f'{os.path.basename(shards[0])}, {fault}. Give another `name` or '
      '`output_dir`, or `overwrite` (--overwrite) to replace them.'
    )


def ingest(
  output_dir: str,
  manifest_path: str = '',
  media_root: str = '',
  name: str = 'train',
  num_shards: int | None = None,
  frame_rate: float = 10.0,
  shorter_side: int = 256,
  enlarge: bool = False,
  jpeg_quality: int = 90,
  audio_rate: int = 48000,
  use_video: bool = True,
  use_audio: bool = True,
  video_stream: int | None = None,
  audio_stream: int | None = None,
  caption_stream: int | None = None,
  captions: str = caption_sources.AUTO,
  caption_language: str = '',
  caption_encoding: str = '',
  caption_margin_seconds: float = 0.0,
  boxes: str = '',
  clip_seconds: float | None = None,
  clip_overlap_seconds: float = 0.0,
  min_clip_seconds: float | None = None,
  first_seconds: float | None = None,
  labels: str = '',
  dataset_name: str = '',
  shuffle: bool = True,
  manifest_encoding: str = '',
  ignore_columns: Sequence[str] = (),
  num_workers: int | None = None,
  max_failed_share: float = 0.1,
  overwrite: bool = False,
  show_progress: bool = True,
) -> ingest_report.Result:
  """Writes shards of records from media files.

  Called again with the same arguments it resumes where it was interrupted, or
  does nothing if all is done. The shards do not depend on `num_workers`.

  Args:
    output_dir: Folder of the shards; created if it is missing.
    manifest_path: Path of a csv (see `manifest`). Without it every file of
      `media_root` is taken.
    media_root: Folder that the manifest's paths are relative to; by default
      that of the manifest.
    name: Beginning of the shards' names, such as `train` or `validation`.
    num_shards: Number of files; by default 16, or the number of clips if that
      is less.
    frame_rate: Frames per second to keep.
    shorter_side: Pixels of a frame's shorter side.
    enlarge: Whether to scale smaller videos up; otherwise they keep their size.
    jpeg_quality: Quality from 1 to 100.
    audio_rate: Samples per second.
    use_video: Whether to keep frames.
    use_audio: Whether to keep sound.
    video_stream: Number of the video stream of a file, from 0; by default the
      first that is marked as default, or else the first.
    audio_stream: Number of the audio stream, likewise.
    caption_stream: Number of the text track, likewise.
    captions: Source of the captions of clips that have none in the manifest.
      `auto`: from a .srt, .vtt or .json file of the same name beside the media
      file, or else from a text track in it. A folder: from such files in it. A
      .json or .csv file: from this table (see `caption_tables.read_table`).
      `none`: from nowhere.
    caption_language: Preferred language of several caption files
      (`clip.en.vtt`) or text tracks, such as `en`.
    caption_encoding: Encoding of caption files; by default UTF-8. A byte order
      mark takes precedence.
    caption_margin_seconds: Captions this close to a clip are kept too.
    boxes: Path of a csv file with boxes in the frames (see `box_tables`).
    clip_seconds: Length of the clips that longer files and rows are cut into.
      By default 10 for a folder, and no cutting for a manifest, of which each
      row is a clip. 0 means no cutting.
    clip_overlap_seconds: Overlap of a clip with the next.
    min_clip_seconds: A rest shorter than this joins the clip before it, and
      files and rows that are shorter are skipped. By default a rest under half
      of `clip_seconds` joins, and nothing is skipped.
    first_seconds: How much of the beginning of each file or row is taken; by
      default all of it.
    labels: Path of a `labels.txt` with the classes; by default the one in
      `output_dir`, or else it is written from the labels of the manifest.
    dataset_name: Value of `example/dataset_name`; by default the name of the
      media folder.
    shuffle: Whether to shuffle the clips (always in the same way).
    manifest_encoding: Encoding of the manifest; by default UTF-8.
    ignore_columns: Columns of the manifest to leave out.
    num_workers: Number of processes that decode; by default one per core. 0
      decodes in the calling process.
    max_failed_share: Share of the clips that may fail; when more do, an error
      is raised after all the others are written.
    overwrite: Whether to remove existing shards of this name.
    show_progress: Whether to draw a progress bar on standard error.

  Returns:
    Counts and paths of the records.

  Raises:
    ValueError: An argument, the manifest or the label file is wrong, or the
      folder holds other shards of this name. `errors.MediaError` is one too.
    errors.TooManyFailedError: More than `max_failed_share` of the clips failed,
      or all of them. All others are written.
  """
  if not manifest_path and not media_root:
    raise ValueError(
      '`manifest_path` (--manifest) or `media_root` (--media_root) must be '
      f'given. Received: manifest_path={manifest_path!r}, '
      f'media_root={media_root!r}'
    )
  if not output_dir or '://' in output_dir:
    raise ValueError(
      '`output_dir` must be a folder of this machine. Received: '
      f'output_dir={output_dir!r}'
    )
  if not 0 <= max_failed_share <= 1:
    raise ValueError(
      '`max_failed_share` must be in [0, 1]. Received: '
      f'max_failed_share={max_failed_share}'
    )
  num_workers = strategies.num_cores() if num_workers is None else num_workers
  if num_workers < 0:
    raise ValueError(
      f'`num_workers` must not be negative. Received: num_workers={num_workers}'
    )
  media_root = os.path.abspath(media_root or os.path.dirname(manifest_path))
  if not os.path.isdir(media_root):
    raise ValueError(
      '`media_root` must be a folder with media files. Received: '
      f'media_root={media_root!r}'
    )
  options = ingest_options.Options(
    manifest=manifest_path,
    media_root=media_root,
    name=name,
    num_shards=num_shards,
    settings=decode_settings.Settings(
      frame_rate=frame_rate,
      shorter_side=shorter_side,
      enlarge=enlarge,
      jpeg_quality=jpeg_quality,
      audio_rate=audio_rate,
      use_video=use_video,
      use_audio=use_audio,
      video_stream=video_stream,
      audio_stream=audio_stream,
      caption_stream=caption_stream,
      caption_language=caption_language,
    ),
    captions=captions,
    caption_encoding=caption_encoding,
    caption_margin_seconds=caption_margin_seconds,
    boxes=boxes,
    clip_seconds=clip_seconds,
    clip_overlap_seconds=clip_overlap_seconds,
    min_clip_seconds=min_clip_seconds,
    first_seconds=first_seconds,
    labels=labels,
    dataset_name=dataset_name or os.path.basename(media_root),
    shuffle=shuffle,
    manifest_encoding=manifest_encoding,
    ignore_columns=tuple(ignore_columns),
  )
  options.check()
  if manifest_path:
    segments = manifest.read_manifest(
      manifest_path, manifest_encoding, ignore_columns
    )
  else:
    segments = manifest.scan_folder(media_root)
  file_utils.check_writable(output_dir, 'Give another `output_dir`.')
  if overwrite:
    journal = journal_lib.hold(output_folder.journal_path(output_dir, name))
    with contextlib.closing(journal):
      journal.clear()
      output_folder.remove_shards(output_dir, name)
  _check_splits_free(output_dir, name, segments)
  _, label_names = label_files.load_labels(options, output_dir, segments)
  fingerprint = _fingerprint(options, segments, label_names)
  entry = output_folder.read_info(output_dir)['splits'].get(name)
  if entry and output_folder.is_complete(output_dir, entry, name):
    if entry['fingerprint'] != fingerprint:
      raise ValueError(
        journal_lib.describe_change(
          os.path.join(output_dir, output_folder.INFO_FILE)
        )
      )
    logging.info('%s is complete: nothing is left to do.', name)
    result = ingest_report.make_result(
      output_dir, options, entry, entry['num_examples']
    )
  else:
    _check_free(output_dir, name, bool(entry))
    entry, num_resumed = _make(
      output_dir,
      options,
      segments,
      label_names,
      fingerprint,
      num_workers,
      show_progress,
    )
    result = ingest_report.make_result(output_dir, options, entry, num_resumed)
  _check_share(result, max_failed_share)
  return result


def _make(
  output_dir: str,
  options: ingest_options.Options,
  segments: Sequence[manifest.Segment],
  label_names: Sequence[str],
  fingerprint: str,
  num_workers: int,
  show_progress: bool,
) -> tuple[dict, int]:
  """Plans and does the work.

  Returns:
    The entry of the shards in `dataset_info.json`, and the number of records
    that an earlier run had written.
  """
  path = output_folder.journal_path(output_dir, options.name)
  journal = journal_lib.Journal(path, fingerprint)
  try:
    with worker.Pool(num_workers) as pool:
      plan = planning.Plan(options, segments, pool, journal, show_progress)
      writer = shard_writing.ShardTasks(
        output_dir, options, plan, journal, label_names
      )
      num_resumed = writer.run(pool, show_progress)
    entry = ingest_report.write_reports(
      output_dir, options, segments, plan, journal, fingerprint, label_names
    )
    journal.remove()
  except (OSError, tf.errors.OpError) as e:
    raise OSError(
      f'{output_dir} cannot be written: {e}. Finished work is kept. Fix the '
      'problem (most often a full disk) and rerun the same command to resume.'
    ) from e
  finally:
    journal.close()
  return entry, num_resumed


def _check_share(result: ingest_report.Result, max_failed_share: float) -> None:
  total = result.num_clips + result.num_failed
  if result.num_clips and result.num_failed <= max_failed_share * total:
    return
  with open(result.skip_report, encoding='utf-8', newline='') as file:
    rows = [
      row
      for row in csv.DictReader(file)
      if not row['reason'].startswith(skip_lines.NOTE)
    ]
  examples = '\n'.join(f'  {row["file"]}: {row["reason"]}' for row in rows[:5])
  clips = command_line.count(total, 'clip')
  raise errors.TooManyFailedError(
    f'{result.num_failed} of {clips} failed, more than '
    f'`max_failed_share`={max_failed_share:g} allows; the others are written. '
    f'{result.skip_report} gives each reason:\n{examples}',
    result,
  )
